# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Action of ``wharf.registry.node_tools``: builds the zipapp on the controller and puts it on the host."""

from __future__ import annotations

import hashlib
import io
import os
import shlex
import tempfile
import zipfile
from pathlib import Path

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

MODULE_UTILS = Path(__file__).resolve().parent.parent / "module_utils"
DEFAULT_DEST = "/usr/local/lib/wharf/wharf.pyz"
PACKAGE = "wharf"
MODE = "0755"
SHEBANG = b"#!/usr/bin/env python3\n"
MAIN = f"import sys\n\nfrom {PACKAGE}._cli import main\n\nsys.exit(main(sys.argv[1:]))\n".encode()


def zipapp_bytes(source: Path) -> bytes:
    """Return the zipapp made of every ``*.py`` below ``source``.

    The same sources give the same bytes on every controller: sorted names, a fixed time, and members stored rather than
    compressed, because two builds of zlib may compress differently.
    """
    members = {
        f"{PACKAGE}/{path.relative_to(source).as_posix()}": path.read_bytes()
        for path in source.rglob("*.py")
        if "__pycache__" not in path.parts
    }
    for folder in {name.rpartition("/")[0] for name in members}:
        members.setdefault(f"{folder}/__init__.py", b"")
    members["__main__.py"] = MAIN
    buffer = io.BytesIO()
    buffer.write(SHEBANG)
    with zipfile.ZipFile(buffer, "a", zipfile.ZIP_STORED) as archive:
        for name in sorted(members):
            info = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
            info.create_system = 3
            info.external_attr = 0o100644 << 16
            archive.writestr(info, members[name])
    return buffer.getvalue()


class ActionModule(ActionBase):
    """Puts the zipapp at ``dest`` or takes it away; one look at the host when nothing is to be done."""

    TRANSFERS_FILES = True
    _supports_check_mode = True
    _supports_diff = True

    def run(self, tmp=None, task_vars=None):
        """Return ``changed``, ``dest`` and ``checksum`` (SHA-1, as ``stat`` and ``copy`` report it)."""
        result = super().run(tmp, task_vars)
        del tmp
        _unused, args = self.validate_argument_spec(
            argument_spec={
                "dest": {"type": "path", "default": DEFAULT_DEST},
                "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            }
        )
        dest = args["dest"]
        if not dest.startswith("/"):
            raise AnsibleActionFail(f"dest must be an absolute path, not {dest!r}; for example {DEFAULT_DEST}")
        try:
            now = self._execute_remote_stat(dest, all_vars=task_vars, follow=True)
            if args["state"] == "absent":
                result.update(self._remove(dest, now, task_vars))
            else:
                result.update(self._install(dest, now, task_vars))
        finally:
            self._remove_tmp_path(self._connection._shell.tmpdir)
        return result

    def _install(self, dest, now, task_vars):
        content = zipapp_bytes(MODULE_UTILS)
        checksum = hashlib.sha1(content).hexdigest()  # what stat reports; it finds changes, it protects nothing
        answer = {"dest": dest, "checksum": checksum, "changed": False}
        mode_now = now.get("mode") or ""
        if now.get("exists") and now.get("checksum") == checksum and mode_now == MODE and now.get("uid") == 0:
            return answer
        answer["changed"] = True
        if self._task.diff:
            answer["diff"] = {
                "before_header": dest,
                "after_header": dest,
                "before": f"mode {mode_now} sha1 {now.get('checksum')}\n" if now.get("exists") else "",
                "after": f"mode {MODE} sha1 {checksum}\n",
            }
        if self._task.check_mode:
            return answer
        folder = self._execute_module(
            module_name="ansible.legacy.file",
            module_args={"path": os.path.dirname(dest), "state": "directory", "mode": "0755", "owner": "root", "group": "root"},
            task_vars=task_vars,
        )
        if folder.get("failed"):
            raise AnsibleActionFail(f"cannot create {os.path.dirname(dest)}: {folder.get('msg')}", result=folder)
        descriptor, local = tempfile.mkstemp(prefix="wharf-", suffix=".pyz")
        try:
            with os.fdopen(descriptor, "wb") as handle:
                handle.write(content)
            copied = self._copy(local, dest, task_vars)
        finally:
            os.unlink(local)
        if copied.get("failed"):
            raise AnsibleActionFail(f"cannot write {dest}: {copied.get('msg')}", result=copied)
        return answer

    def _copy(self, local, dest, task_vars):
        task = self._task.copy()
        task.args = {"src": local, "dest": dest, "mode": MODE, "owner": "root", "group": "root", "follow": True}
        task.diff = False
        action = self._shared_loader_obj.action_loader.get(
            "ansible.legacy.copy",
            task=task,
            connection=self._connection,
            play_context=self._play_context,
            loader=self._loader,
            templar=self._templar,
            shared_loader_obj=self._shared_loader_obj,
        )
        return action.run(task_vars=task_vars)

    def _remove(self, dest, now, task_vars):
        answer = {"dest": dest, "changed": False}
        if not now.get("exists"):
            return answer
        # Several roles put the same file on a host: whoever leaves last removes it.
        users = self._low_level_execute_command(f"grep -lsF -- {shlex.quote(dest)} /etc/systemd/system/*.service || true")
        answer["used_by"] = sorted(users.get("stdout", "").split())
        if answer["used_by"]:
            return answer
        answer["changed"] = True
        if not self._task.check_mode:
            removed = self._execute_module(
                module_name="ansible.legacy.file", module_args={"path": dest, "state": "absent"}, task_vars=task_vars
            )
            if removed.get("failed"):
                raise AnsibleActionFail(f"cannot remove {dest}: {removed.get('msg')}", result=removed)
            self._low_level_execute_command(f"rmdir -- {shlex.quote(os.path.dirname(dest))} 2>/dev/null || true")
        return answer
