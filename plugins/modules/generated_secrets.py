#!/usr/bin/python
# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Ansible module: random secrets in files, generated once."""

from __future__ import annotations

DOCUMENTATION = r"""
module: generated_secrets
short_description: Random secrets in files, generated once
version_added: 0.1.0
author:
  - wharf.registry contributors (@wharf-registry)
description:
  - Creates files with random secrets in a directory that nobody else can read, typically on the controller.
  - A file that exists is never changed, whatever it holds. A secret of your own is a file that you put there first.
  - Unlike the lookup P(ansible.builtin.password#lookup), it creates nothing in check mode, says what it created, and never holds
    a value in a variable.
extends_documentation_fragment:
  - wharf.registry._attributes
attributes:
  diff_mode:
    details:
      - The diff shows the names of the files, never their content.
options:
  path:
    description: The directory. It is created, and kept, with mode 0700.
    type: path
    required: true
  secrets:
    description: The secrets that must be there.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description:
          - The file's name, relative to O(path), without white space. It may have directories in it.
          - The file is created with mode 0600. Its content is the secret alone, without a line feed.
        type: str
        required: true
      length:
        description: Number of characters.
        type: int
        default: 32
      alphabet:
        description:
          - The characters to choose from, each once.
          - The default is all ASCII letters and digits.
        type: str
notes:
  - An existing file that is empty is refused. It would be a secret that everybody knows.
  - Permissions of others on existing files are taken away.
seealso:
  - module: wharf.registry.htpasswd_user
  - module: wharf.registry.selfsigned_cert
"""

EXAMPLES = r"""
- name: Secrets that all nodes share
  wharf.registry.generated_secrets:
    path: "{{ inventory_dir }}/secrets"
    secrets:
      - name: http_secret
        length: 64
      - name: users/admin
  delegate_to: localhost
  run_once: true
"""

RETURN = r"""
created:
  description: Names of the secrets that did not exist. Their values are in the files only.
  returned: success
  type: list
  elements: str
  sample: [http_secret, users/admin]
"""

from ansible.module_utils.basic import AnsibleModule

from ..module_utils import _secrets


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "secrets": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "no_log": False,
                "options": {
                    "name": {"type": "str", "required": True},
                    "length": {"type": "int", "default": 32},
                    "alphabet": {"type": "str"},
                },
            },
        },
        supports_check_mode=True,
    )
    wanted = [
        _secrets.Secret(secret["name"], secret["length"], secret["alphabet"] or _secrets.DEFAULT_ALPHABET)
        for secret in module.params["secrets"]
    ]
    try:
        changed, created = _secrets.manage(module.params["path"], wanted, check=module.check_mode)
    except (_secrets.SecretsRefused, OSError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(
        changed=changed,
        created=created,
        diff={
            "before_header": module.params["path"],
            "after_header": module.params["path"],
            "before": "",
            "after": "".join(f"{name}: generated\n" for name in created),
        },
    )


if __name__ == "__main__":
    main()
