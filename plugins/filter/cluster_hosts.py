# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filter: names of inventory hosts to their addresses on the cluster's network."""

from __future__ import annotations

DOCUMENTATION = r"""
name: cluster_hosts
short_description: Names and cluster addresses of inventory hosts
version_added: 0.1.0
author:
  - wharf.registry contributors (@wharf-registry)
description:
  - Looks up the address of each host on the network that the cluster's members share.
  - The address is the host variable C(wharf_address), else C(ansible_host), else the name in the inventory.
positional: hostvars
options:
  _input:
    description: Names of hosts in the inventory, for example the members of a group.
    type: list
    elements: str
    required: true
  hostvars:
    description: Ansible's C(hostvars).
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: Show where the registry nodes are
  ansible.builtin.debug:
    msg: "{{ groups['registry_nodes'] | default([]) | wharf.registry.cluster_hosts(hostvars) }}"
"""

RETURN = r"""
_value:
  description: One dictionary with C(name) and C(address) for each host, in the order given.
  type: list
  elements: dict
"""


def cluster_hosts(names, hostvars):
    """Return ``[{"name": …, "address": …}]`` for the inventory hosts in ``names``, in their order."""
    hosts = []
    for name in names:
        variables = hostvars[name]
        address = variables.get("wharf_address") or variables.get("ansible_host") or name
        hosts.append({"name": str(name), "address": str(address)})
    return hosts


class FilterModule:
    """Filters of this file."""

    def filters(self):
        """Return the filters by name."""
        return {"cluster_hosts": cluster_hosts}
