# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What preflight says about a host."""

from __future__ import annotations

import pytest

from ansible_collections.wharf.registry.plugins.module_utils._preflight import host as pf

S3 = {"bucket": "images", "region": "us-east-1", "regionendpoint": "http://store:8333", "accesskey": "key", "secretkey": "never-tell"}


def causes(found) -> str:
    return "\n".join(f"{item['variable']} = {item['value']}: {item['cause']} | {item['cure']}" for item in found)


def debian(version: str) -> dict:
    return {"ID": "debian", "VERSION_ID": version, "PRETTY_NAME": f"Debian {version}"}


@pytest.mark.parametrize(
    "release",
    [
        debian("12"),
        debian("13"),
        {"ID": "debian", "PRETTY_NAME": "Debian GNU/Linux forky/sid"},
        {"ID": "ubuntu", "VERSION_ID": "20.04", "ID_LIKE": "debian"},
        {"ID": "ubuntu", "VERSION_ID": "24.04", "ID_LIKE": "debian"},
        {"ID": "rhel", "VERSION_ID": "9.4", "ID_LIKE": "fedora"},
        {"ID": "rocky", "VERSION_ID": "9.5", "ID_LIKE": "rhel centos fedora"},
        {"ID": "centos", "VERSION_ID": "9", "ID_LIKE": "rhel fedora", "PRETTY_NAME": "CentOS Stream 9"},
    ],
)
def test_supported_systems(release):
    assert pf.check_os(release) == []


@pytest.mark.parametrize(
    ("release", "words"),
    [
        ({"ID": "centos", "VERSION_ID": "7", "ID_LIKE": "rhel fedora"}, "end of life"),
        ({"ID": "centos", "VERSION_ID": "8", "ID_LIKE": "rhel fedora"}, "no supported Ansible runs on its Python"),
        ({"ID": "rocky", "VERSION_ID": "8.9", "ID_LIKE": "rhel centos fedora"}, "too old"),
        (debian("11"), "too old"),
        ({"ID": "ubuntu", "VERSION_ID": "18.04", "ID_LIKE": "debian"}, "too old"),
        ({"ID": "alpine", "VERSION_ID": "3.20"}, "does not know"),
        ({"ID": "fedora", "VERSION_ID": "41"}, "does not know"),
        ({}, "does not know"),
    ],
)
def test_other_systems(release, words):
    assert words in causes(pf.check_os(release))


WANTED = {
    "groups": ["registry_nodes"], "min_cpus": 4, "min_memory_gb": 8, "min_disk_gb": 500, "require_ssd": True, "min_link_mbit": 1000, "path": "/var/lib",
    "name": "registry.example.com", "port": 443, "vip": "", "s3": {}, "nfs_server": "", "rootdirectory": "", "skip": [],
}  # fmt: skip
SEEN = {
    "os": debian("13"), "python": [3, 13, 5], "systemd": True, "init": "systemd", "container": False, "clock_synchronised": True,
    "cpu_cores": 4, "memory_bytes": 8_200_000_000, "link_interface": "eth0", "link_mbit": 1000, "listeners": [], "nginx_files": [],
    "disk": {"path": "/var/lib", "bytes": 480_000_000_000, "device": "/dev/sda", "rotational": False}, "storage": {}, "vip": {},
    "addresses": [{"interface": "eth0", "address": "192.0.2.11/24"}], "macs": ["02:00:00:00:00:01"], "resolved": ["192.0.2.10"],
}  # fmt: skip


def test_a_good_host_passes():
    assert pf.check_host(SEEN, WANTED) == []


@pytest.mark.parametrize(
    ("change", "check", "words"),
    [
        ({"cpu_cores": 2}, "cpu", "preflight_min_cpus: 2"),
        ({"memory_bytes": 4_000_000_000}, "memory", "preflight_min_memory_gb: 4"),
        ({"disk": {"path": "/var/lib", "bytes": 79_000_000_000}}, "disk", "preflight_min_disk_gb: 79"),
        ({"disk": {"path": "/var/lib", "bytes": 500e9, "device": "/dev/sda", "rotational": True}}, "ssd", "/dev/sda"),
        ({"link_mbit": 100}, "link", "preflight_min_link_mbit: 100"),
        ({"systemd": False, "init": "runit"}, "systemd", "runit"),
        ({"python": [3, 7, 9]}, "python", "3.7.9"),
        ({"clock_synchronised": False}, "time", "chrony"),
        ({"os": debian("10")}, "os", "too old"),
    ],
)
def test_what_is_missing_on_a_host(change, check, words):
    (item,) = pf.check_host({**SEEN, **change}, WANTED)
    assert item["check"] == check
    assert words in causes([item])
    if check in pf.SKIPPABLE:
        assert pf.check_host({**SEEN, **change}, {**WANTED, "skip": [check]}) == []


def test_what_cannot_be_seen_is_not_judged():
    unseen = {"cpu_cores": None, "memory_bytes": None, "disk": {}, "link_mbit": None, "clock_synchronised": None}
    assert pf.check_host({**SEEN, **unseen}, WANTED) == []


def test_containers_do_not_own_their_clock():
    assert pf.check_host({**SEEN, "container": True, "clock_synchronised": False}, WANTED) == []


def test_clients_need_no_big_machine():
    small = {**SEEN, "cpu_cores": 1, "memory_bytes": 1_000_000_000}
    assert pf.check_host(small, {**WANTED, "groups": ["registry_clients"]}) == []
    assert len(pf.check_host(small, {**WANTED, "groups": []})) == 2


def listener(port, address="127.0.0.1", program="nc", command="nc -l"):
    return {"port": port, "address": address, "pid": 7, "program": program, "command": command}


@pytest.mark.parametrize(
    ("listeners", "files", "held"),
    [
        ([listener(5000)], [], 5000),
        ([listener(5000, "192.0.2.11")], [], None),  # another address, no conflict
        ([listener(5000, "::")], [], 5000),
        ([listener(5000, program="registry", command="registry serve /etc/wharf/registry/config.yml")], [], None),
        ([listener(5000, program="registry", command="registry serve /etc/docker/registry/config.yml")], [], 5000),
        ([listener(5003, program="python3", command="python3 /usr/local/lib/wharf/wharf.pyz probe")], [], None),
        ([listener(5443, "0.0.0.0", "nginx", "nginx: master")], ["wharf_edge.conf"], None),
        ([listener(5443, "0.0.0.0", "nginx", "nginx: master")], ["wharf_lb.conf"], 5443),
        ([listener(5444, "192.0.2.11")], [], 5444),
        ([listener(8080)], [], None),
        ([listener(5000, program=None, command=None)], [], 5000),
    ],
)
def test_ports(listeners, files, held):
    found = pf.check_ports(listeners, pf.wanted_ports(["registry_nodes"], 443), files)
    assert [item["variable"] for item in found] == ([f"port {held}"] if held else [])
    if held:
        assert "ss -ltnp" in found[0]["cure"]


def test_ports_of_balancer_and_cache():
    ports = pf.wanted_ports(["registry_lb", "registry_cache"], 8443)
    assert [item["port"] for item in ports] == [8443, 6379]
    assert pf.check_ports([listener(6379, "0.0.0.0", "redis-server")], ports, []) == []
    assert "wharf_port: 8443" in causes(pf.check_ports([listener(8443, "0.0.0.0", "apache2")], ports, []))


@pytest.mark.parametrize("kind", ["endpoint", "silent", "tls", "key", "denied", "bucket", "region", "clock", "other"])
def test_every_answer_of_s3_has_cause_and_cure(kind):
    wanted = {**WANTED, "s3": S3}
    found = pf.check_seen_storage({"storage": {"s3": {"kind": kind, "detail": "DETAIL"}}}, wanted)
    assert "DETAIL" in causes(found)
    assert found[0]["variable"].startswith("wharf_storage.s3.")
    assert found[0]["cure"]
    assert "never-tell" not in causes(found)


def test_virtual_ip_and_networks():
    balancer = {**WANTED, "groups": ["registry_lb"]}
    assert pf.check_host(SEEN, {**balancer, "vip": "192.0.2.10/24"}) == []
    (item,) = pf.check_host(SEEN, {**balancer, "vip": "198.51.100.10/24"})
    assert "192.0.2.11/24" in item["cause"]
    assert "wharf_vip: 192.0.2.250/24" in item["cure"]
    translated = {**SEEN, "cluster_address": "203.0.113.5"}
    assert "wharf_address: 192.0.2.11" in causes(pf.check_host(translated, {**balancer, "vip": "192.0.2.10/24"}))
    mine = {**SEEN, "vip": {"held": True, "managed": False, "answer": ""}}
    assert "already" in causes(pf.check_host(mine, {**balancer, "vip": "192.0.2.11/24"}))
    ours = {**SEEN, "vip": {"held": True, "managed": True, "answer": ""}}
    ours["addresses"] = [*SEEN["addresses"], {"interface": "eth0", "address": "192.0.2.10/32"}]
    assert pf.check_host(ours, {**balancer, "vip": "192.0.2.10/32"}) == []


def test_a_host_without_a_usable_python():
    item = pf.module_failure({"module_stderr": "Traceback\nSyntaxError: future feature annotations is not defined\n"})
    assert "future feature annotations" in item["cause"]
    assert "CentOS 7 and 8" in item["cure"]
