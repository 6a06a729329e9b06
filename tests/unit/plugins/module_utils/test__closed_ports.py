# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The table of closed ports: what is refused, what is rendered, when it counts as loaded."""

from __future__ import annotations

import ipaddress
import re
import shutil
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.wharf.registry.plugins.module_utils import _closed_ports as closed_ports


def read(*rules, allow=(), never=(22,), names=None):
    return closed_ports.read_rules(rules, allow, never, resolver=lambda name: (names or {}).get(name, []))


def test_addresses_networks_and_names_of_both_families():
    (rule,) = read(
        {"name": "edge", "ports": ["5443", "6000-6010"], "allow": ["192.0.2.1", "2001:db8::/64", "lb"]},
        names={"lb": ["192.0.2.9", "2001:db9::9"]},
    )
    assert rule.ports == ((5443, 5443), (6000, 6010))
    assert [str(network) for network in rule.allow] == ["192.0.2.1/32", "192.0.2.9/32", "2001:db8::/64", "2001:db9::9/128"]


def test_rendered_rules_name_ports_and_sources():
    text = closed_ports.render(read({"name": "redis", "ports": [6379], "allow": ["192.0.2.1", "192.0.2.0/24"]}))
    assert (
        'ip saddr != { 192.0.2.0/24 } tcp dport { 6379 } tcp flags & (fin | syn | rst | ack) == syn counter reject with tcp reset comment "redis"'
        in text
    )
    assert "meta nfproto ipv6 tcp dport { 6379 }" in text, "nobody may come by IPv6, so everybody is refused there"
    assert text.index("delete table inet wharf") < text.index("chain input")
    assert "flush ruleset" not in text


def test_the_host_itself_is_never_refused():
    text = closed_ports.render(read({"name": "redis", "ports": [6379]}))
    assert text.index('iifname "lo" accept') < text.index("reject")


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ({"name": "ssh", "ports": ["20-30"]}, "would close port 22"),
        ({"name": "x", "ports": ["70000"]}, "'70000' is no port"),
        ({"name": "x", "ports": ["9-5"]}, "'9-5' is no port"),
        ({"name": "x", "ports": ["redis"]}, "'redis' is no port"),
        ({"name": "x", "ports": []}, "names no ports"),
        ({"name": 'x"; accept', "ports": [1]}, "is no name"),
        ({"name": "x", "ports": [1], "allow": ["nohost"]}, "'nohost' is neither address nor network"),
        ({"name": "x", "ports": [1], "allow": [""]}, "'' is neither address nor network"),
    ],
)
def test_refusals_name_the_rule_and_an_example(rule, message):
    with pytest.raises(closed_ports.RuleRefused, match=re.escape(message)):
        read(rule)


def test_a_name_may_be_there_once_only():
    with pytest.raises(closed_ports.RuleRefused, match="is there twice"):
        read({"name": "x", "ports": [1]}, {"name": "x", "ports": [2]})


def test_loaded_means_these_rules_and_all_of_them():
    script = closed_ports.render(read({"name": "redis", "ports": [6379]}))
    assert closed_ports.is_loaded(script, script)
    assert not closed_ports.is_loaded(script, "")
    assert not closed_ports.is_loaded(script, closed_ports.render(read({"name": "redis", "ports": [6380]})))
    assert not closed_ports.is_loaded(script, "\n".join(script.splitlines()[:-4]))


networks = st.one_of(
    st.ip_addresses().map(str), st.tuples(st.ip_addresses(v=4), st.integers(8, 32)).map(lambda pair: f"{pair[0]}/{pair[1]}")
)


@given(allow=st.lists(networks, max_size=8))
def test_allowed_networks_cover_the_same_addresses_without_overlaps(allow):
    (rule,) = read({"name": "x", "ports": [1], "allow": allow})
    for text in allow:
        network = ipaddress.ip_network(text, strict=False)
        assert any(network.version == found.version and network.subnet_of(found) for found in rule.allow)
    for one in rule.allow:
        assert not any(one is not other and one.version == other.version and one.overlaps(other) for other in rule.allow)


@given(allow=st.lists(networks, max_size=8))
def test_order_does_not_matter(allow):
    rules = [read({"name": "x", "ports": [1, 2], "allow": allow}), read({"name": "x", "ports": [2, 1], "allow": allow[::-1]})]
    assert closed_ports.render(rules[0]) == closed_ports.render(rules[1])


@pytest.mark.skipif(shutil.which("nft") is None, reason="needs nft")
def test_nft_accepts_the_script(tmp_path):
    script = tmp_path / "closed_ports.nft"
    script.write_text(
        closed_ports.render(read({"name": "edge", "ports": [5443, "6000-6001"], "allow": ["192.0.2.0/24", "192.0.2.7", "2001:db8::1"]}))
    )
    answer = subprocess.run(["nft", "--check", "--file", str(script)], capture_output=True, text=True, check=False)
    if "Operation not permitted" in answer.stderr:
        pytest.skip("nft may not be used here")
    assert answer.returncode == 0, answer.stderr
