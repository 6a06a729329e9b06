# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filter: which robots have ended or soon will."""

from __future__ import annotations

DOCUMENTATION = r"""
name: access_warnings
short_description: Which robots have ended or will within two weeks
version_added: 0.1.0
author:
  - wharf.registry contributors (@wharf-registry)
description:
  - Looks at the last day of each robot and at today's date (UTC).
options:
  _input:
    description: The robots.
    type: list
    elements: dict
    required: true
"""

EXAMPLES = r"""
- name: Name robots that end
  ansible.builtin.debug:
    msg: "{{ [{'name': 'shop-ci', 'expires': '2027-06-30'}] | wharf.registry.access_warnings }}"
"""

RETURN = r"""
_value:
  description: One sentence for each of them.
  type: list
  elements: str
"""

from ansible_collections.wharf.registry.plugins.module_utils import _plain
from ansible_collections.wharf.registry.plugins.module_utils._access.check import find_warnings, today


def access_warnings(robots):
    """Return a sentence for each robot that has ended or soon will."""
    return find_warnings(_plain.plain(robots), today(), "wharf_robots")


class FilterModule:
    """Filters of this file."""

    def filters(self):
        """Return the filters by name."""
        return {"access_warnings": access_warnings}
