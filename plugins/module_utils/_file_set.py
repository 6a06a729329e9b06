# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This file is private to the collection: it may change in any release.

"""Several files that belong together: written as one, tested as one, and put back as one when the test fails."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, field
from typing import Callable, Dict, List, Optional, Tuple

from ._files import FileRefused, find_gid, find_uid, parse_mode, write_atomically

Runner = Callable[[str], Tuple[int, str]]
"""Runs a command line; gives its exit status and what it printed."""


class FileSetError(Exception):
    """The files could not be written, tested or put to use; the message says what the state is now."""


@dataclass(frozen=True)
class Item:
    """One path as it should be. ``content`` None: a directory, or with ``present`` false: nothing."""

    path: str
    content: Optional[bytes]
    present: bool = True
    mode: str = "0644"
    owner: str = "root"
    group: str = "root"
    replace: bool = True
    marker: Optional[str] = None
    secret: bool = False


@dataclass(frozen=True)
class Found:
    """What lies at a path now. ``content`` is None for a directory."""

    content: Optional[bytes]
    mode: int
    uid: int
    gid: int


@dataclass(frozen=True)
class Step:
    """One path that differs from what it should be."""

    item: Item
    found: Optional[Found]
    mode: int
    uid: int
    gid: int


@dataclass
class Plan:
    """All steps, in the order of the items."""

    steps: List[Step] = field(default_factory=list)

    def diff(self) -> List[Dict[str, str]]:
        """Return Ansible's form of a difference; secret contents are only said to differ."""
        return [_diff(step) for step in self.steps]


def look(path: str) -> Optional[Found]:
    """Return what lies at ``path``, None if nothing does.

    :raises FileSetError: if it is neither a file nor a directory.
    """
    try:
        status = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        if os.path.islink(path):
            raise FileSetError(f"{path} is a symbolic link that leads nowhere; remove it") from None
        return None
    if stat.S_ISDIR(status.st_mode):
        return Found(None, stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid)
    if not stat.S_ISREG(status.st_mode):
        raise FileSetError(f"{path} is neither a file nor a directory")
    with open(path, "rb") as handle:
        return Found(handle.read(), stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid)


def plan(items: List[Item], *, lenient: bool = False) -> Plan:
    """Compare what is there with what should be.

    :param lenient: for check mode, where an earlier task may have created owner or group only on paper.
    :raises FileSetError: for a path of the wrong kind, and for a file without the ``marker`` of its owner.
    """
    result = Plan()
    for item in items:
        found = look(item.path)
        if not item.present:
            if found is not None and found.content is None:
                raise FileSetError(f"{item.path} is a directory; only files are removed")
            if found is not None and not _is_foreign(item, found):
                result.steps.append(Step(item, found, found.mode, found.uid, found.gid))
            continue
        if found is not None and (found.content is None) != (item.content is None):
            raise FileSetError(f"{item.path} is a {'directory' if found.content is None else 'file'}, which is not what belongs there")
        if found is not None and _is_foreign(item, found):
            raise FileSetError(
                f"{item.path} is there and does not contain {item.marker!r}, so somebody else wrote it. Move it away, then run this again"
            )
        if found is not None and not item.replace:
            continue
        mode, uid, gid = _attributes(item, found, lenient)
        if found is None or (found.content, found.mode, found.uid, found.gid) != (item.content, mode, uid, gid):
            result.steps.append(Step(item, found, mode, uid, gid))
    return result


def carry_out(work: Plan, *, pending: str, validate: List[str], apply: List[str], run: Runner) -> None:
    """Write the files, test them, put them to use. Does so too when ``pending`` lies there: then a run before was killed.

    :param pending: path of a mark that exists from before the first change until everything is in use.
    :param validate: command lines that must all succeed, else the old files are put back.
    :param apply: command lines that put the files to use.
    :raises FileSetError: with the state that the host is left in.
    """
    os.makedirs(os.path.dirname(pending), mode=0o755, exist_ok=True)
    write_atomically(pending, b"", mode=0o600)
    done: List[Step] = []
    try:
        for step in work.steps:
            _write(step)
            done.append(step)
        for command in validate:
            status, output = run(command)
            if status != 0:
                raise FileSetError(f"'{command}' refuses the new files, so the old ones are back and in use: {output.strip()}")
    except (OSError, FileSetError) as error:
        for step in reversed(done):
            _put_back(step)
        os.unlink(pending)
        if isinstance(error, FileSetError):
            raise
        raise FileSetError(f"cannot write, so the old files are back: {error}") from error
    for command in apply:
        status, output = run(command)
        if status != 0:
            raise FileSetError(f"the new files are there and valid, but '{command}' failed; run this again to repeat it: {output.strip()}")
    os.unlink(pending)


def _is_foreign(item: Item, found: Found) -> bool:
    return item.marker is not None and found.content is not None and item.marker.encode() not in found.content


def _attributes(item: Item, found: Optional[Found], lenient: bool) -> Tuple[int, int, int]:
    uid, gid = (found.uid, found.gid) if found else (0, 0)
    try:
        wanted_uid, wanted_gid = find_uid(item.owner), find_gid(item.group)
    except FileRefused as error:
        if not lenient:
            raise FileSetError(f"{item.path}: {error}") from error
        wanted_uid = wanted_gid = None
    try:
        mode = parse_mode(item.mode)
    except FileRefused as error:
        raise FileSetError(f"{item.path}: {error}") from error
    return mode, uid if wanted_uid is None else wanted_uid, gid if wanted_gid is None else wanted_gid


def _write(step: Step) -> None:
    path = step.item.path
    if not step.item.present:
        os.unlink(path)
    elif step.item.content is None:
        if step.found is None:
            os.makedirs(path, mode=0o755)
        os.chown(path, step.uid, step.gid)
        os.chmod(path, step.mode)
    else:
        os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
        write_atomically(path, step.item.content, mode=step.mode, uid=step.uid, gid=step.gid)


def _put_back(step: Step) -> None:
    path, found = step.item.path, step.found
    if found is None:
        if step.item.content is not None:
            os.unlink(path)
        else:
            os.rmdir(path)
    elif found.content is None:
        os.chown(path, found.uid, found.gid)
        os.chmod(path, found.mode)
    else:
        write_atomically(path, found.content, mode=found.mode, uid=found.uid, gid=found.gid)


def _diff(step: Step) -> Dict[str, str]:
    item, found = step.item, step.found
    before = _shown(found.content, item.secret, "old") if found else ""
    after = _shown(item.content, item.secret, "new") if item.present else ""
    if item.secret and found is not None and item.present and found.content == item.content:
        after = before
    old = f"{found.mode:04o} {found.uid}:{found.gid}" if found else "absent"
    new = f"{step.mode:04o} {step.uid}:{step.gid}" if item.present else "absent"
    return {
        "before_header": f"{item.path} ({old})",
        "after_header": f"{item.path} ({new})",
        "before": before,
        "after": after,
    }


def _shown(content: Optional[bytes], secret: bool, which: str) -> str:
    if content is None:
        return "directory\n"
    if secret:
        return f"<{which} secret>\n"
    return content.decode("utf-8", "replace")
