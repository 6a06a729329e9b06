# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filter: what to ask Prometheus for the trends of a cluster."""

from __future__ import annotations

DOCUMENTATION = r"""
name: trend_queries
short_description: What to ask Prometheus for the trends of a cluster
version_added: 0.1.0
author:
  - wharf.registry contributors (@wharf-registry)
description:
  - Returns the panels of the cluster's dashboard with their queries.
options:
  _input:
    description: What the cluster is called in Prometheus, the label C(cluster).
    type: str
    required: true
  step:
    description: Seconds between two points.
    type: int
    default: 300
"""

EXAMPLES = r"""
- name: Show what is asked
  ansible.builtin.debug:
    msg: "{{ 'registry.example.com' | wharf.registry.trend_queries }}"
"""

RETURN = r"""
_value:
  description: Panels, each with C(title), C(unit) and C(queries), a list of C(query) and C(legend).
  type: list
  elements: dict
"""

from ansible_collections.wharf.registry.plugins.module_utils import _panels


def trend_queries(cluster, step=300):
    """Return the panels with their queries."""
    # A window holds some scrapes in any case, and no sample is left out between two points.
    window = "%ds" % max(int(step), 240)
    return [
        {
            "title": panel.title,
            "unit": panel.unit,
            "queries": [
                {"query": _panels.query_for(expression, {"cluster": str(cluster)}, window), "legend": legend}
                for expression, legend in panel.queries
            ],
        }
        for panel in _panels.PANELS["cluster"]
    ]


class FilterModule:
    """Filters of this file."""

    def filters(self):
        """Return the filters by name."""
        return {"trend_queries": trend_queries}
