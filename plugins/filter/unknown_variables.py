# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filter: names of variables that look like ours and are none."""

from __future__ import annotations

DOCUMENTATION = r"""
name: unknown_variables
short_description: Variables that look like the collection's and are documented nowhere
version_added: 0.1.0
author:
  - wharf.registry contributors (@wharf-registry)
description:
  - Picks those names that begin with one of the prefixes and are not among the known ones, and finds the nearest known name of each.
  - Names that begin with an underscore are private and never picked.
positional: known
options:
  _input:
    description: Names of variables.
    type: list
    elements: str
    required: true
  known:
    description: Names of the variables that are documented.
    type: list
    elements: str
    required: true
  prefixes:
    description:
      - Prefixes, without the underscore at their end, of the names that are looked at.
      - By default the part of each known name before its first underscore.
    type: list
    elements: str
"""

EXAMPLES = r"""
- name: Refuse misspelt variables
  ansible.builtin.assert:
    that: __unknown | length == 0
    fail_msg: "{{ __unknown }}"
  vars:
    __unknown: "{{ query('ansible.builtin.varnames', '^wharf_') | wharf.registry.unknown_variables(['wharf_name', 'wharf_port']) }}"
"""

RETURN = r"""
_value:
  description:
    - One dictionary for each unknown variable, sorted by C(name), with C(nearest), the documented name that was probably meant,
      or an empty text.
  type: list
  elements: dict
"""

from ansible_collections.wharf.registry.plugins.module_utils._preflight.cluster import find_unknown


class FilterModule:
    """Filters of this file."""

    def filters(self):
        """Return the filters by name."""
        return {"unknown_variables": find_unknown}
