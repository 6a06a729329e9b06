# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filter: what is wrong with an access model."""

from __future__ import annotations

DOCUMENTATION = r"""
name: access_problems
short_description: What is wrong with an access model
version_added: 0.1.0
author:
  - wharf.registry contributors (@wharf-registry)
description:
  - Judges an access model as a whole, on the controller, before any host is touched. Unknown accounts and groups, keys that do not exist,
    patterns that match nothing, and rules that other rules make useless.
options:
  _input:
    description: The access model, with C(admins), C(groups) and C(projects).
    type: dict
    required: true
  users:
    description: Names of all users.
    type: list
    elements: str
    required: true
  robots:
    description: The robots.
    type: list
    elements: dict
    required: true
  sso:
    description: The settings of single sign-on, which are judged too. Its groups may be empty in the model, and get their members from there.
    type: dict
    default: {}
"""

EXAMPLES = r"""
- name: Refuse an access model that nobody can have meant
  ansible.builtin.assert:
    that: problems | length == 0
    fail_msg: "{{ problems | join('\n') }}"
  vars:
    problems: "{{ {'projects': {'shop': {'writers': ['alice']}}} | wharf.registry.access_problems(['alice'], []) }}"
"""

RETURN = r"""
_value:
  description: One sentence for each problem. An empty list if there is none.
  type: list
  elements: str
"""

from ansible_collections.wharf.registry.plugins.module_utils import _plain
from ansible_collections.wharf.registry.plugins.module_utils._access import check as access_check
from ansible_collections.wharf.registry.plugins.module_utils._access import sso as access_sso


def access_problems(model, users, robots, sso=None):
    """Return the sentences about what is wrong with an access model, and with single sign-on."""
    model, users, robots, sso = _plain.plain([model, users, robots, sso or {}])
    outside = access_sso.groups_from_outside(sso)
    found = access_check.find_problems(
        model, users, robots, "token_auth_access (wharf_access)", "token_auth_robots (wharf_robots)", outside
    )
    return found + access_sso.find_problems(sso, model, "token_auth_sso (wharf_sso)")


class FilterModule:
    """Filters of this file."""

    def filters(self):
        """Return the filters by name."""
        return {"access_problems": access_problems}
