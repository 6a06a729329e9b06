# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filter: the robots of an inventory without their secrets."""

from __future__ import annotations

DOCUMENTATION = r"""
name: access_robots
short_description: The robots of an inventory without their secrets
version_added: 0.1.0
author:
  - wharf.registry contributors (@wharf-registry)
description:
  - Leaves C(secret), C(next_secret) and C(rotate) out of each robot; what else is there stays, so that a typing error is found.
options:
  _input:
    description: The robots.
    type: list
    elements: dict
    required: true
"""

EXAMPLES = r"""
- name: Robots without secrets
  ansible.builtin.debug:
    msg: "{{ [{'name': 'shop-ci', 'secret': 'x', 'expires': '2027-06-30'}] | wharf.registry.access_robots }}"
"""

RETURN = r"""
_value:
  description: The robots.
  type: list
  elements: dict
"""

from ansible_collections.wharf.registry.plugins.module_utils import _plain
from ansible_collections.wharf.registry.plugins.module_utils._access.check import without_secrets


def access_robots(robots):
    """Return the robots without what must stay secret."""
    return without_secrets(_plain.plain(robots))


class FilterModule:
    """Filters of this file."""

    def filters(self):
        """Return the filters by name."""
        return {"access_robots": access_robots}
