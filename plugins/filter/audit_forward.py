# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filter: what is wrong with where audit logs are to be sent."""

from __future__ import annotations

DOCUMENTATION = r"""
name: audit_forward
short_description: What is wrong with where audit logs are to be sent
version_added: 0.1.0
author:
  - wharf.registry contributors (@wharf-registry)
description:
  - Checks the setting C(wharf_audit_forward) on the controller, before a host is touched.
options:
  _input:
    description: The setting.
    type: dict
    required: true
  name:
    description: What the variable is called.
    type: str
    default: wharf_audit_forward
"""

EXAMPLES = r"""
- name: Refuse what cannot work
  ansible.builtin.assert:
    that: wharf_audit_forward | wharf.registry.audit_forward | length == 0
"""

RETURN = r"""
_value:
  description: One sentence for each problem.
  type: list
  elements: str
"""

from ansible_collections.wharf.registry.plugins.module_utils import _plain
from ansible_collections.wharf.registry.plugins.module_utils._audit.forward import find_problems


def audit_forward(setting, name="wharf_audit_forward"):
    """Return the sentences about what is wrong with *setting*."""
    return find_problems(_plain.plain(setting), str(name))


class FilterModule:
    """Filters of this file."""

    def filters(self):
        """Return the filters by name."""
        return {"audit_forward": audit_forward}
