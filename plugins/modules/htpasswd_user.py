#!/usr/bin/python
# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Ansible module: users of an htpasswd file."""

from __future__ import annotations

DOCUMENTATION = r"""
module: htpasswd_user
short_description: Users of an htpasswd file, many in one task
version_added: 0.1.0
author:
  - wharf.registry contributors (@wharf-registry)
description:
  - Adds, changes and removes users of an htpasswd file, with bcrypt hashes only (C($2y$), what the Distribution registry, Apache
    and nginx with libxcrypt accept).
  - Takes all users in one task. A password that still matches keeps its hash, so a second run changes nothing.
  - The file is replaced in one step and has its final mode and owner from the start. Its readers see the old users or the new
    ones, never half of them. Comments, the order of lines and the lines of other users are kept.
extends_documentation_fragment:
  - wharf.registry._attributes
attributes:
  diff_mode:
    details:
      - The diff shows names and the cost of hashes, never a hash.
options:
  path:
    description:
      - The htpasswd file. Its directory must exist.
      - A container that is to see changes must mount the directory, because a mounted single file stays the old one.
    type: path
    required: true
  users:
    description:
      - The users, all at once. Each name may be there once.
      - Mutually exclusive with O(name).
    type: list
    elements: dict
    suboptions:
      name:
        description: The user's name, at most 255 bytes, without colons and control characters.
        type: str
        required: true
      password:
        description:
          - The password in clear, at most 72 bytes, which is all that bcrypt looks at.
          - Required with O(users[].state=present).
        type: str
      state:
        description: Whether the user is to be in the file.
        type: str
        choices: [present, absent]
        default: present
      cost:
        description: The bcrypt cost of this user's hash, if it is to differ from O(cost).
        type: int
  name:
    description: The short form for one user, instead of O(users).
    type: str
  password:
    description: The password of O(name), at most 72 bytes. Required with O(state=present).
    type: str
  state:
    description: Whether the user O(name) is to be in the file. Not used with O(users).
    type: str
    choices: [present, absent]
    default: present
  exclusive:
    description: Remove all users who are not asked for here. Comments stay.
    type: bool
    default: false
  cost:
    description:
      - The bcrypt cost of new hashes, 4 to 17. Each step doubles the time that a password check takes.
      - The registry checks the password on every request. For long random passwords V(8) is a fair trade, for passwords that
        people choose take V(10) or more.
    type: int
    default: 10
  update_password:
    description:
      - V(always) makes the password the one given. A hash of another cost, or one that is no bcrypt, is replaced too, as the
        password is known.
      - V(on_create) sets the password of new users only and leaves the hashes of others as they are.
    type: str
    choices: [always, on_create]
    default: always
  create:
    description: Create the file if it does not exist. It is created for a user only, not to stay empty.
    type: bool
    default: true
  follow:
    description:
      - Accept a symbolic link as O(path), keep it, and change the file it points to.
      - Without it a link is refused.
    type: bool
    default: false
  force:
    description:
      - Remove malformed lines instead of refusing to work on a file with such lines. The registry cannot read a file with one.
    type: bool
    default: false
  backup:
    description: Keep the file as it was, beside it, before a change.
    type: bool
    default: false
  owner:
    description: Name or number of the file's owner. Without it the owner stays, and a new file belongs to the user of the task.
    type: str
  group:
    description: Name or number of the file's group. Without it the group stays.
    type: str
  mode:
    description: Permissions of the file, for example V("0640") or V(u=rw,g=r,o=).
    type: raw
    default: "0640"
requirements:
  - One of the Python libraries bcrypt 3.1 or later, or passlib 1.7.4 (or libpass) with a bcrypt that it works with.
notes:
  - The registry notices a replaced file with the next request; no restart is needed.
  - Writers that use this module wait for each other. The lock is one of the directory and leaves no file behind.
  - The hash of a user changes when the password does not match, the cost differs, or the hash is no bcrypt. It changes for no
    other reason. The file's modification time changes with its users only.
seealso:
  - module: wharf.registry.generated_secrets
  - name: Password formats of Apache
    description: The formats that htpasswd files can hold.
    link: https://httpd.apache.org/docs/2.4/misc/password_encryptions.html
"""

EXAMPLES = r"""
- name: Let two users in, nobody else
  wharf.registry.htpasswd_user:
    path: /etc/wharf/registry/auth/htpasswd
    exclusive: true
    owner: root
    group: "65532"
    users:
      - name: alice
        password: "{{ vault_alice_password }}"
      - name: ci
        password: "{{ vault_ci_password }}"

- name: Add one user and touch no other
  wharf.registry.htpasswd_user:
    path: /etc/wharf/registry/auth/htpasswd
    name: bob
    password: "{{ vault_bob_password }}"

- name: Remove one user
  wharf.registry.htpasswd_user:
    path: /etc/wharf/registry/auth/htpasswd
    name: bob
    state: absent

- name: Give new users a first password that they may change themselves
  wharf.registry.htpasswd_user:
    path: /etc/wharf/registry/auth/htpasswd
    update_password: on_create
    users:
      - name: carol
        password: "{{ vault_first_password }}"
"""

RETURN = r"""
users:
  description: All users in the file afterwards, in its order.
  returned: success
  type: list
  elements: str
  sample: [alice, ci]
added:
  description: Users who were not in the file.
  returned: success
  type: list
  elements: str
  sample: [ci]
updated:
  description: Users whose hash was replaced.
  returned: success
  type: list
  elements: str
  sample: [alice]
removed:
  description: Users who were removed, those removed by O(exclusive) among them.
  returned: success
  type: list
  elements: str
  sample: []
backup_file:
  description: The copy of the file as it was.
  returned: if O(backup=true) and an existing file was changed
  type: str
  sample: /etc/wharf/registry/auth/htpasswd.4711.2026-11-24@10:00:00~
"""

from ansible.module_utils.basic import AnsibleModule

from ..module_utils import _files, _htpasswd
from ..module_utils._quiet import quiet


def main() -> None:
    """Run the module."""
    module = quiet(AnsibleModule)(
        argument_spec={
            "path": {"type": "path", "required": True},
            "users": {
                "type": "list",
                "elements": "dict",
                "options": {
                    "name": {"type": "str", "required": True},
                    "password": {"type": "str", "no_log": True},
                    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
                    "cost": {"type": "int"},
                },
            },
            "name": {"type": "str"},
            "password": {"type": "str", "no_log": True},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "exclusive": {"type": "bool", "default": False},
            "cost": {"type": "int", "default": 10},
            "update_password": {"type": "str", "choices": ["always", "on_create"], "default": "always", "no_log": False},
            "create": {"type": "bool", "default": True},
            "follow": {"type": "bool", "default": False},
            "force": {"type": "bool", "default": False},
            "backup": {"type": "bool", "default": False},
            "owner": {"type": "str"},
            "group": {"type": "str"},
            "mode": {"type": "raw", "default": "0640"},
        },
        mutually_exclusive=[("users", "name"), ("users", "password")],
        required_one_of=[("users", "name")],
        supports_check_mode=True,
    )
    parameters = module.params
    if parameters["users"] is not None:
        users = [_htpasswd.User(user["name"], user["password"], user["state"] == "present", user["cost"]) for user in parameters["users"]]
    else:
        users = [_htpasswd.User(parameters["name"], parameters["password"], parameters["state"] == "present")]

    try:
        attributes, unknown = _files.resolve_attributes(
            parameters["path"],
            mode=parameters["mode"],
            owner=parameters["owner"],
            group=parameters["group"],
            lenient=module.check_mode,
        )
        outcome = _htpasswd.manage(
            _htpasswd.Request(
                path=parameters["path"],
                users=users,
                attributes=attributes,
                unknown_attributes=unknown,
                label="name" if parameters["users"] is None else "users",
                exclusive=parameters["exclusive"],
                cost=parameters["cost"],
                on_create=parameters["update_password"] == "on_create",  # noqa: S105 - a choice, no password
                create=parameters["create"],
                follow=parameters["follow"],
                force=parameters["force"],
                backup=parameters["backup"],
            ),
            check=module.check_mode,
        )
    except (_htpasswd.HtpasswdRefused, _htpasswd.BcryptMissing, _files.FileRefused, OSError) as error:
        module.fail_json(msg=str(error))

    for warning in outcome.warnings:
        module.warn(warning)
    result = {
        "changed": outcome.changed,
        "users": outcome.users,
        "added": outcome.added,
        "updated": outcome.updated,
        "removed": outcome.removed,
        "diff": {"before_header": parameters["path"], "after_header": parameters["path"], "before": outcome.before, "after": outcome.after},
    }
    if outcome.backup_file is not None:
        result["backup_file"] = outcome.backup_file
    module.exit_json(**result)


if __name__ == "__main__":
    main()
