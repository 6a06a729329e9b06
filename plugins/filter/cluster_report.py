# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filter: the report of a cluster as an HTML page."""

from __future__ import annotations

DOCUMENTATION = r"""
name: cluster_report
short_description: The report of a cluster as an HTML page
version_added: 0.1.0
author:
  - wharf.registry contributors (@wharf-registry)
description:
  - Makes one page that needs nothing beside itself of what the role P(wharf.registry.cluster_report#role) has found.
options:
  _input:
    description:
      - What was found, a dictionary with C(name), C(time), C(hosts) (C(name), C(groups) and C(look) of each), C(storage) (what
        M(wharf.registry.registry_info) returned) and C(trends). The last two may be empty.
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: Write the page
  ansible.builtin.copy:
    content: "{{ found | wharf.registry.cluster_report }}"
    dest: report.html
    mode: "0600"
"""

RETURN = r"""
_value:
  description: The page.
  type: str
"""

from ansible_collections.wharf.registry.plugins.module_utils import _report
from ansible_collections.wharf.registry.plugins.module_utils._plain import plain


def cluster_report(data):
    """Return the page for what was found."""
    return _report.render(plain(data))


class FilterModule:
    """Filters of this file."""

    def filters(self):
        """Return the filters by name."""
        return {"cluster_report": cluster_report}
