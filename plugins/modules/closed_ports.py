#!/usr/bin/python

# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: closed_ports
short_description: Refuse connections to named TCP ports from strangers
version_added: 0.1.0
author:
  - wharf.registry contributors (@wharf-registry)
description:
  - Writes and loads the nftables table C(inet wharf). It resets new TCP connections to the ports of a rule unless they come from the host
    itself or from an address that the rule allows. Everything else, and every other table, is left alone.
  - The table is replaced in one transaction, after C(nft) has checked it. It is loaded again when somebody flushed it.
  - Connections that exist already are not cut.
extends_documentation_fragment:
  - wharf.registry._attributes
options:
  rules:
    description: The ports to close. Required with O(state=present).
    type: list
    elements: dict
    suboptions:
      name:
        description: What the ports belong to; it shows in C(nft list table inet wharf).
        type: str
        required: true
      ports:
        description: Port numbers or ranges such as V(5443-5444).
        type: list
        elements: str
        required: true
      allow:
        description: Addresses, networks or host names that may connect. Names are resolved on the target, when the task runs.
        type: list
        elements: str
        default: []
  allow:
    description: Addresses, networks or host names that every rule allows.
    type: list
    elements: str
    default: []
  never:
    description: Ports that must not be closed; a rule that would is refused.
    type: list
    elements: int
    default: [22]
  path:
    description: The nft script; its directory is created.
    type: path
    default: /etc/wharf/closed_ports.nft
  state:
    description: With V(absent), the script and the table are removed.
    type: str
    choices: [present, absent]
    default: present
"""

EXAMPLES = r"""
- name: Let only two hosts reach Redis
  wharf.registry.closed_ports:
    rules:
      - name: redis
        ports: [6379]
        allow: [192.0.2.10, 2001:db8::10]
  become: true

- name: Remove the table
  wharf.registry.closed_ports:
    state: absent
  become: true
"""

RETURN = r"""
installed:
  description: Whether C(nft) is on this host. Without it, check mode cannot check the script.
  returned: always
  type: bool
  sample: true
loaded:
  description: Whether the kernel had these rules before the task.
  returned: always
  type: bool
  sample: false
"""

import os

from ansible.module_utils.basic import AnsibleModule

from ..module_utils import _closed_ports as closed_ports
from ..module_utils._files import read_if_there, write_atomically


def listing(module, nft):
    """Return the table as the kernel has it, empty if there is none."""
    rc, out, _err = module.run_command([nft, "list", "table", "inet", closed_ports.TABLE])
    return out if rc == 0 else ""


def check(module, nft, script):
    """Refuse a script that nft would refuse."""
    candidate = os.path.join(module.tmpdir, "closed_ports.nft")
    write_atomically(candidate, script.encode(), mode=0o600)
    rc, _out, err = module.run_command([nft, "--check", "--file", candidate])
    os.unlink(candidate)
    if rc != 0:
        module.fail_json(msg=f"nft refuses the rules, nothing was changed: {err.strip()}")


def main():
    module = AnsibleModule(
        argument_spec={
            "rules": {
                "type": "list",
                "elements": "dict",
                "options": {
                    "name": {"type": "str", "required": True},
                    "ports": {"type": "list", "elements": "str", "required": True},
                    "allow": {"type": "list", "elements": "str", "default": []},
                },
            },
            "allow": {"type": "list", "elements": "str", "default": []},
            "never": {"type": "list", "elements": "int", "default": [22]},
            "path": {"type": "path", "default": "/etc/wharf/closed_ports.nft"},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
        },
        required_if=[("state", "present", ("rules",))],
        supports_check_mode=True,
    )
    path = module.params["path"]
    nft = module.get_bin_path("nft")
    if nft is None and not module.check_mode and module.params["state"] == "present":
        module.fail_json(msg="nft is missing on this host; install the package nftables")
    script = ""
    if module.params["state"] == "present":
        try:
            script = closed_ports.render(closed_ports.read_rules(module.params["rules"], module.params["allow"], module.params["never"]))
        except closed_ports.RuleRefused as refusal:
            module.fail_json(msg=str(refusal))
    before = (read_if_there(path) or b"").decode(errors="replace")
    table = listing(module, nft) if nft else ""
    loaded = closed_ports.is_loaded(script, table) if script else not table
    changed = before != script or not loaded
    if changed and script and nft:
        check(module, nft, script)
    if changed and not module.check_mode:
        if script:
            os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
            write_atomically(path, script.encode(), mode=0o644)
            module.run_command([nft, "--file", path], check_rc=True)
        else:
            if table:
                module.run_command([nft, "delete", "table", "inet", closed_ports.TABLE], check_rc=True)
            if before:
                os.unlink(path)
    module.exit_json(
        changed=changed,
        installed=nft is not None,
        loaded=loaded,
        diff={"before_header": path, "after_header": path, "before": before, "after": script},
    )


if __name__ == "__main__":
    main()
