# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filter: the network interface that an address belongs to."""

from __future__ import annotations

import ipaddress

DOCUMENTATION = r"""
name: interface_for
short_description: Name of the interface whose network contains an IPv4 address
version_added: 0.1.0
author:
  - wharf.registry contributors (@wharf-registry)
description:
  - Looks in a host's network facts for the interface with this very address, else for the one whose network contains it.
  - Gives an empty string if there is none, so that a play can refuse an address that does not fit.
positional: address
options:
  _input:
    description: The host's C(ansible_facts) with network facts.
    type: dict
    required: true
  address:
    description: IPv4 address, with or without prefix length.
    type: str
    required: true
"""

EXAMPLES = r"""
- name: Show where the virtual address belongs
  ansible.builtin.debug:
    msg: "{{ ansible_facts | wharf.registry.interface_for('192.0.2.10/24') }}"
"""

RETURN = r"""
_value:
  description: Name of the interface, empty if no network contains the address.
  type: str
"""


def interface_for(facts, address):
    """Return the interface of ``address`` by the network facts of a host, ``""`` if none has its network."""
    try:
        wanted = ipaddress.IPv4Interface(str(address)).ip
    except ValueError:
        return ""
    containing = ""
    for name in facts.get("interfaces") or []:
        details = facts.get(name.replace("-", "_")) or {}
        primary = details.get("ipv4") or {}
        for entry in [primary, *(details.get("ipv4_secondaries") or [])]:
            if not entry.get("address"):
                continue
            if entry["address"] == str(wanted):
                return name
            mask = entry.get("netmask") or entry.get("prefix") or "32"
            network = ipaddress.IPv4Interface(f"{entry['address']}/{mask}").network
            if wanted in network and not containing:
                containing = name
    return containing


class FilterModule:
    """Filters of this file."""

    def filters(self):
        """Return the filters by name."""
        return {"interface_for": interface_for}
