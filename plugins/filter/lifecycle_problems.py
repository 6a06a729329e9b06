# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filter: what is wrong with the settings of the role lifecycle."""

from __future__ import annotations

DOCUMENTATION = r"""
name: lifecycle_problems
short_description: What is wrong with the settings of retention and garbage collection
version_added: 0.1.0
author:
  - wharf.registry contributors (@wharf-registry)
description:
  - Checks on the controller, before any host is touched, what the role P(wharf.registry.lifecycle#role) will have done every day.
options:
  _input:
    description: "The configuration of C(wharf.pyz lifecycle): C(at), C(usage), C(gc) and C(retention)."
    type: dict
    required: true
  prefix:
    description: What the names of the variables begin with.
    type: str
    default: lifecycle_
"""

EXAMPLES = r"""
- name: Refuse rules that nobody can have meant
  ansible.builtin.assert:
    that: problems | length == 0
    fail_msg: "{{ problems | join('\n') }}"
  vars:
    problems: "{{ {'at': '03:00', 'usage': [], 'gc': {}, 'retention': {'rules': my_rules}} | wharf.registry.lifecycle_problems }}"
"""

RETURN = r"""
_value:
  description: One sentence for each problem. An empty list if there is none.
  type: list
  elements: str
"""

from ansible.errors import AnsibleFilterError

from ansible_collections.wharf.registry.plugins.module_utils import _lifecycle, _plain


def lifecycle_problems(options, prefix="lifecycle_"):
    """Return the sentences about what is wrong with *options*, whose variables begin with *prefix*."""
    if not isinstance(options, dict):
        raise AnsibleFilterError("lifecycle_problems needs the options as a dictionary")
    return _lifecycle.problems(_plain.plain(options), prefix)


class FilterModule:
    """Filters of this file."""

    def filters(self):
        """Return the filters by name."""
        return {"lifecycle_problems": lifecycle_problems}
