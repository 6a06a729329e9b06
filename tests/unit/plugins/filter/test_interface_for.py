# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tests of the filter that finds the interface of an address."""

from __future__ import annotations

import pytest

from ansible_collections.wharf.registry.plugins.filter.interface_for import interface_for

FACTS = {
    "interfaces": ["lo", "eth0", "br-lan", "wg0"],
    "lo": {"ipv4": {"address": "127.0.0.1", "netmask": "255.0.0.0"}},
    "eth0": {
        "ipv4": {"address": "192.0.2.7", "netmask": "255.255.255.0"},
        "ipv4_secondaries": [{"address": "198.51.100.7", "prefix": "25"}],
    },
    "br_lan": {"ipv4": {"address": "10.0.0.1", "netmask": "255.255.0.0"}},
    "wg0": {},
}


@pytest.mark.parametrize(
    ("address", "interface"),
    [
        ("192.0.2.7", "eth0"),
        ("192.0.2.200/24", "eth0"),
        ("198.51.100.100/25", "eth0"),
        ("198.51.100.200/25", ""),
        ("10.0.77.1/16", "br-lan"),
        ("203.0.113.1/24", ""),
        ("no address", ""),
        ("", ""),
    ],
)
def test_interface(address, interface):
    assert interface_for(FACTS, address) == interface


def test_without_facts():
    assert interface_for({}, "192.0.2.1") == ""
