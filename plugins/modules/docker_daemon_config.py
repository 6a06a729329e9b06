#!/usr/bin/python

# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: docker_daemon_config
short_description: Merge options into the Docker engine's daemon.json
version_added: 0.1.0
author:
  - wharf.registry contributors (@wharf-registry)
description:
  - Merges options into the engine's C(daemon.json). Options that others put there stay, also entries of lists and dictionaries;
    options that an earlier run of this module put there and that are no longer listed are removed.
  - The result is validated by the engine itself, together with the flags of its unit, before the file is replaced. An engine older
    than 23 cannot do that; there the names of the options are checked.
  - A running engine is told to reload where that is enough, and restarted only where it is needed. When live-restore is among the new
    options it is turned on by a reload before the restart, so that containers keep running.
  - If the engine does not come back with the new options, the old file is put back, the engine is started with it, and the task fails.
extends_documentation_fragment:
  - wharf.registry._attributes
options:
  options:
    description:
      - The options, as in C(daemon.json). Dictionaries are merged key by key, lists item by item.
      - An option whose value is null is left to others; what an earlier run set is removed.
    type: dict
    default: {}
  state:
    description: With V(absent), everything that earlier runs put there is removed, and O(options) must be empty.
    type: str
    choices: [present, absent]
    default: present
  path:
    description: The configuration file.
    type: path
    default: /etc/docker/daemon.json
  record_path:
    description: Where the module remembers which options are its own.
    type: path
    default: /var/lib/wharf/docker_daemon.json
  unit:
    description: The engine's systemd unit. When it is empty, only the file is written.
    type: str
    default: docker.service
"""

EXAMPLES = r"""
- name: Rotate the logs of containers and keep these running while the engine restarts
  wharf.registry.docker_daemon_config:
    options:
      live-restore: true
      log-driver: json-file
      log-opts: {max-size: 20m, max-file: "5"}
  become: true

- name: Remove what was set
  wharf.registry.docker_daemon_config:
    state: absent
  become: true
"""

RETURN = r"""
installed:
  description: Whether there is an engine on this host. Without one, the file is written but not validated.
  returned: always
  type: bool
  sample: true
action:
  description: What the engine was told (in check mode, would be told) to do.
  returned: always
  type: str
  sample: restart
changed_options:
  description: Names of the options that changed.
  returned: always
  type: list
  elements: str
  sample: [live-restore, log-opts]
"""

import json
import os
import shutil

from ansible.module_utils.basic import AnsibleModule

from ..module_utils import _docker_daemon as docker_daemon
from ..module_utils._files import read_if_there, write_atomically


class Engine:
    """The engine of this host, by way of systemd."""

    def __init__(self, module, unit):
        self.module = module
        self.unit = unit
        self.dockerd = shutil.which("dockerd", path=os.environ.get("PATH", "") + ":/usr/bin:/usr/sbin:/usr/local/bin")
        self.systemctl = shutil.which("systemctl") if unit else None

    def active(self):
        return bool(self.systemctl) and self.module.run_command([self.systemctl, "is-active", "--quiet", self.unit])[0] == 0

    def validate(self, options):
        """Refuse options that the engine would refuse."""
        if not self.dockerd:
            return
        flags = []
        if self.systemctl:
            _rc, out, _err = self.module.run_command([self.systemctl, "show", "--property", "ExecStart", "--value", self.unit])
            flags = docker_daemon.daemon_flags(out)
        candidate = os.path.join(self.module.tmpdir, "daemon.json")
        write_atomically(candidate, docker_daemon.render(options).encode(), mode=0o600)
        rc, out, err = self.module.run_command([self.dockerd, "--validate", "--config-file", candidate, *flags])
        os.unlink(candidate)
        if rc == 0:
            return
        if "unknown flag: --validate" in err:
            docker_daemon.refuse_unknown(options)
            return
        raise docker_daemon.ConfigurationRefused(
            "the engine refuses these options: " + (err or out).strip().replace(candidate, "daemon.json").splitlines()[-1]
        )

    def refuse_swarm_with_live_restore(self, options):
        state = os.path.join(options.get("data-root", "/var/lib/docker"), "swarm", "docker-state.json")
        if options.get("live-restore") is True and os.path.exists(state):
            raise docker_daemon.ConfigurationRefused(
                'live-restore cannot be on while this engine is in swarm mode; leave the swarm, or set {"live-restore": false}'
            )

    def tell(self, verb):
        """Reload or restart the engine; return None, or why it failed."""
        if verb == "restart":  # systemd refuses after a few starts in a short time; this one is meant
            self.module.run_command([self.systemctl, "reset-failed", self.unit])
        rc, _out, err = self.module.run_command([self.systemctl, verb, self.unit])
        return None if rc == 0 else (self.last_words() or err.strip() or f"systemctl {verb} {self.unit} failed")

    def last_words(self):
        """Return what the engine said when it ended, as far as the journal knows."""
        _rc, out, _err = self.module.run_command(["journalctl", "--unit", self.unit, "--lines", "30", "--output", "cat", "--no-pager"])
        lines = [
            line for line in out.splitlines() if "failed to start daemon" in line or "level=fatal" in line or "unable to configure" in line
        ]
        return lines[-1] if lines else ""


def read_record(path):
    """Return what earlier runs put into the file, and what they still had to tell the engine when they were killed."""
    content = read_if_there(path)
    if content is None:
        return {}, "none"
    record = json.loads(content.decode())
    return record["options"], record["pending"]


def write_record(path, options, pending):
    os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
    write_atomically(path, (json.dumps({"options": options, "pending": pending}, sort_keys=True) + "\n").encode(), mode=0o600)


def decide(plan, pending, active):
    """Return what the engine has to do: none, reload or restart."""
    if not active:
        return "none"
    if plan.restart_keys or pending == "restart":
        return "restart"
    return "reload" if plan.changed or pending == "reload" else "none"


def apply(module, engine, plan, record_before, action, text_before):
    """Write the file and bring the engine to it; on failure put everything back."""
    path, record_path = module.params["path"], module.params["record_path"]
    os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)

    def write(options):
        write_atomically(path, docker_daemon.render(options).encode(), mode=0o644)

    # The record is written first: a run that is killed after this line leaves what the next run must still do.
    write_record(record_path, plan.record, action)
    if action == "restart" and plan.after.get("live-restore") is True and plan.before.get("live-restore") is not True:
        write({**plan.before, "live-restore": True})
        engine.tell("reload")
    if plan.changed:
        if plan.after or module.params["state"] == "present":
            write(plan.after)
        elif os.path.exists(path):
            os.unlink(path)
    problem = engine.tell(action) if action != "none" else None
    if problem is not None:
        if text_before is None:
            os.unlink(path)
        else:
            write_atomically(path, text_before, mode=0o644)
        write_record(record_path, record_before, "restart")
        again = engine.tell("restart")
        if again is None:
            write_record(record_path, record_before, "none")
        module.fail_json(
            msg=f"The engine did not {action} with the new options ({', '.join(plan.changed_keys)}): {problem}. The old file is back, and the engine "
            + ("runs with it." if again is None else f"does not start with it either: {again}")
        )
    if module.params["state"] == "absent":
        os.unlink(record_path)
    else:
        write_record(record_path, plan.record, "none")


def run(module):
    path, record_path = module.params["path"], module.params["record_path"]
    engine = Engine(module, module.params["unit"])
    text_before = read_if_there(path)
    current = docker_daemon.parse((text_before or b"").decode(errors="replace"), path)
    record, pending = read_record(record_path)
    plan = docker_daemon.plan(current, record, module.params["options"])
    if plan.changed:
        engine.refuse_swarm_with_live_restore(plan.after)
        engine.validate(plan.after)
    action = decide(plan, pending, engine.active())
    changed = plan.changed or action != "none"
    forget = module.params["state"] == "absent" and os.path.exists(record_path)
    if (changed or forget or plan.record != record or pending != "none") and not module.check_mode:
        apply(module, engine, plan, record, action, text_before)
    module.exit_json(
        changed=changed or forget,
        installed=engine.dockerd is not None,
        action=action,
        changed_options=plan.changed_keys,
        diff={
            "before_header": path,
            "after_header": path,
            "before": docker_daemon.render(docker_daemon.public(plan.before)),
            "after": docker_daemon.render(docker_daemon.public(plan.after)),
        },
    )


def main():
    module = AnsibleModule(
        argument_spec={
            "options": {"type": "dict", "default": {}},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "path": {"type": "path", "default": "/etc/docker/daemon.json"},
            "record_path": {"type": "path", "default": "/var/lib/wharf/docker_daemon.json"},
            "unit": {"type": "str", "default": "docker.service"},
        },
        supports_check_mode=True,
    )
    if module.params["state"] == "absent" and module.params["options"]:
        module.fail_json(msg="options must be empty with state: absent; everything that was set is removed then")
    try:
        run(module)
    except docker_daemon.ConfigurationRefused as refusal:
        module.fail_json(msg=str(refusal))


if __name__ == "__main__":
    main()
