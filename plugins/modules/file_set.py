#!/usr/bin/python
# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Several files that belong together, written, tested and put to use as one."""

from __future__ import annotations

DOCUMENTATION = r"""
module: file_set
short_description: Write the files of a service as one, test them, and put the old ones back if the test fails
version_added: 0.1.0
author:
  - wharf.registry contributors (@wharf-registry)
description:
  - Writes all files and directories given, runs the tests in O(validate), and only then puts them to use with O(apply).
  - If a test fails, all files are as they were before, and the service goes on with what it had.
  - A run that was killed between writing and applying is finished by the next run, see O(pending).
extends_documentation_fragment:
  - wharf.registry._attributes
attributes:
  check_mode:
    support: full
    details: The commands are not run in check mode.
  diff_mode:
    support: full
    details: Of O(files[].secret_content) the difference only says that it differs.
  idempotent:
    support: full
options:
  files:
    description: The files, in the order in which they are written.
    type: list
    elements: dict
    required: true
    suboptions:
      path:
        description: Absolute path. Missing directories above it are created with mode 0755.
        type: path
        required: true
      state:
        description: Whether there is a file, a directory, or no file.
        type: str
        choices: [file, directory, absent]
        default: file
      content:
        description: Content of the file.
        type: str
      secret_content:
        description: Content of a file that must never be shown, instead of O(files[].content).
        type: str
      mode:
        description: Mode, as octal number in quotes.
        type: str
        default: "0644"
      owner:
        description: Name or number of the owner.
        type: str
        default: root
      group:
        description: Name or number of the group.
        type: str
        default: root
      replace:
        description: With V(false) the path is only created; what lies there already is left alone.
        type: bool
        default: true
      marker:
        description:
          - Text that our own file contains. A file without it was written by somebody else.
          - It is then neither overwritten (the module fails) nor removed (it stays).
        type: str
  validate:
    description: Commands (no shell) that must succeed with the new files in place.
    type: list
    elements: str
    default: []
  apply:
    description: Commands (no shell) that put the new files to use, run in order when something changed.
    type: list
    elements: str
    default: []
  pending:
    description: Path of a mark that lies there while changed files are not in use yet.
    type: path
    required: true
"""

EXAMPLES = r"""
- name: Configure the balancer
  wharf.registry.file_set:
    files:
      - path: /etc/wharf/balancer/tls.key
        secret_content: "{{ lookup('ansible.builtin.file', 'secrets/tls.key', rstrip=False) }}"
        mode: "0600"
      - path: /etc/nginx/conf.d/balancer.conf
        content: "{{ lookup('ansible.builtin.template', 'balancer.conf.j2') }}"
    validate:
      - nginx -t
    apply:
      - systemctl reload nginx
    pending: /var/lib/wharf/balancer.pending
"""

RETURN = r"""
paths:
  description: Paths that differ from what was there.
  returned: always
  type: list
  elements: str
  sample: [/etc/nginx/conf.d/balancer.conf]
resumed:
  description: Whether an earlier run had been interrupted before its files were in use.
  returned: always
  type: bool
  sample: false
"""

import os

from ansible.module_utils.basic import AnsibleModule

from ..module_utils._file_set import FileSetError, Item, carry_out, plan
from ..module_utils._quiet import quiet


def _item(given):
    content = given["secret_content"] if given["secret_content"] is not None else given["content"]
    return Item(
        path=given["path"],
        content=content.encode() if given["state"] == "file" else None,
        present=given["state"] != "absent",
        mode=given["mode"],
        owner=given["owner"],
        group=given["group"],
        replace=given["replace"],
        marker=given["marker"],
        secret=given["secret_content"] is not None,
    )


def main():
    """Read the parameters, plan, carry out, report."""
    file_spec = {
        "path": {"type": "path", "required": True},
        "state": {"type": "str", "choices": ["file", "directory", "absent"], "default": "file"},
        "content": {"type": "str"},
        "secret_content": {"type": "str", "no_log": True},
        "mode": {"type": "str", "default": "0644"},
        "owner": {"type": "str", "default": "root"},
        "group": {"type": "str", "default": "root"},
        "replace": {"type": "bool", "default": True},
        "marker": {"type": "str"},
    }
    module = quiet(AnsibleModule)(
        argument_spec={
            "files": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": file_spec,
                "mutually_exclusive": [("content", "secret_content")],
                "required_if": [("state", "file", ("content", "secret_content"), True)],
            },
            "validate": {"type": "list", "elements": "str", "default": []},
            "apply": {"type": "list", "elements": "str", "default": []},
            "pending": {"type": "path", "required": True},
        },
        supports_check_mode=True,
    )

    def run(command):
        status, out, err = module.run_command(command, expand_user_and_vars=False)
        return status, err or out

    resumed = os.path.exists(module.params["pending"])
    try:
        work = plan([_item(given) for given in module.params["files"]], lenient=module.check_mode)
        changed = bool(work.steps) or resumed
        if changed and not module.check_mode:
            carry_out(
                work,
                pending=module.params["pending"],
                validate=module.params["validate"],
                apply=module.params["apply"],
                run=run,
            )
    except (FileSetError, OSError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=changed, paths=[step.item.path for step in work.steps], resumed=resumed, diff=work.diff())


if __name__ == "__main__":
    main()
