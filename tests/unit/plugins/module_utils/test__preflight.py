# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What preflight says about variables, hosts and clusters."""

from __future__ import annotations

import pytest

from ansible_collections.wharf.registry.plugins.module_utils import _preflight as pf

S3 = {"bucket": "images", "region": "us-east-1", "regionendpoint": "http://store:8333", "accesskey": "key", "secretkey": "never-tell"}


def causes(found) -> str:
    return "\n".join(f"{item['variable']} = {item['value']}: {item['cause']} | {item['cure']}" for item in found)


# --- variables


@pytest.mark.parametrize("name", ["registry.example.com", "r.example", "localhost", "Registry.Example.com", "a-1.b2.example"])
def test_good_names(name):
    assert pf.check_name(name) == []


@pytest.mark.parametrize(
    ("name", "port", "words"),
    [
        (None, 443, "needs a name"),
        ("https://registry.example.com", 443, "scheme"),
        ("registry.example.com:443", 443, "port"),
        ("registry.example.com/v2", 443, "path"),
        ("my_registry.example.com", 443, "'_'"),
        ("192.0.2.1", 443, "address"),
        ("[2001:db8::1]", 443, "address"),
        ("10.1", 443, "digits"),
        ("registry", 443, "Docker Hub"),
        ("-a.example.com", 443, "no host name"),
        ("a..example.com", 443, "no host name"),
        ("a" * 64 + ".example.com", 443, "no host name"),
    ],
)
def test_bad_names(name, port, words):
    (item,) = pf.check_name(name, port)
    assert words in item["cause"]
    assert item["variable"] == "wharf_name"
    assert "wharf_name: registry.example.com" in item["cure"]


def test_a_single_word_will_do_with_a_port_of_its_own():
    assert pf.check_name("registry", 5443) == []


@pytest.mark.parametrize(
    "storage",
    [
        {"s3": S3},
        {"s3": {"bucket": "images", "region": "r"}},
        {"nfs": {"server": "nfs", "export": "/srv"}},
        {"filesystem": {"rootdirectory": "/d"}},
    ],
)
def test_good_storage(storage):
    assert pf.check_storage(storage, nodes=3) == []


@pytest.mark.parametrize(
    ("storage", "variable", "words"),
    [
        (None, "wharf_storage", "where images are kept"),
        ("s3", "wharf_storage", "no dictionary"),
        ("{s3: {secretkey: never-tell", "wharf_storage", "(a text)"),
        ({"s3": "secretkey=never-tell"}, "wharf_storage.s3", "no dictionary"),
        ({"swift": {}}, "wharf_storage", "unknown storage type"),
        ({"filesytem": {}}, "wharf_storage", "did you mean filesystem"),
        ({"s3": S3, "filesystem": {"rootdirectory": "/d"}}, "wharf_storage", "one place only"),
        ({"s3": None}, "wharf_storage.s3", "no dictionary"),
        ({"s3": {"region": "r"}}, "wharf_storage.s3.bucket", "needs a bucket"),
        ({"s3": {"bucket": "images"}}, "wharf_storage.s3.region", "needs a region"),
        ({"s3": {**S3, "bucket": "My_Bucket"}}, "wharf_storage.s3.bucket", "no bucket name"),
        ({"s3": {**S3, "secretkey": ""}}, "wharf_storage.s3.secretkey", "belong together"),
        ({"s3": {**S3, "regionendpont": "x"}}, "wharf_storage.s3.regionendpont", "did you mean regionendpoint"),
        ({"s3": {**S3, "regionendpoint": "ftp://store"}}, "wharf_storage.s3.regionendpoint", "neither http"),
        ({"filesystem": {"rootdirectory": "data"}}, "wharf_storage.filesystem.rootdirectory", "absolute"),
        ({"nfs": {"server": "nfs"}}, "wharf_storage.nfs.export", "needs a export"),
    ],
)
def test_bad_storage(storage, variable, words):
    found = pf.check_storage(storage, nodes=3)
    assert variable in [item["variable"] for item in found]
    assert words in causes(found)
    assert "wharf_storage: {" in causes(found)
    assert "never-tell" not in causes(found)


@pytest.mark.parametrize(
    ("users", "words"),
    [
        ("admin", "no list"),
        ([{"name": "a:b", "password": "never-tell"}], "colons"),
        ([{"name": "a\nb", "password": "never-tell"}], "control"),
        ([{"name": "x" * 256, "password": "never-tell"}], "255"),
        ([{"name": "ci", "password": ""}], "no password"),
        ([{"name": "ci"}], "no password"),
        ([{"password": "never-tell"}], "needs a name"),
        ([{"name": "ci", "password": "never-tell" * 8}], "72 bytes"),
        ([{"name": "ci", "password": "never-tell"}] * 2, "twice"),
        ([{"name": "wharf-probe", "password": "never-tell"}], "probe"),
        ([{"name": "ci", "password": "never-tell", "stat": "absent"}], "only"),
        ([{"name": "ci", "password": "never-tell", "state": "gone"}], "neither present"),
    ],
)
def test_bad_users(users, words):
    found = pf.check_users(users)
    assert words in causes(found)
    assert "never-tell" not in causes(found)


def test_good_users():
    assert pf.check_users([{"name": "ci", "password": "x" * 72}, {"name": "old", "state": "absent"}]) == []
    assert pf.check_users(None) == []


@pytest.mark.parametrize("vip", ["", None, "192.0.2.10/24", "192.0.2.10/32", "2001:db8::10/64"])
def test_good_vips(vip):
    assert pf.check_vip(vip) == []


@pytest.mark.parametrize(
    ("vip", "words"),
    [
        ("192.0.2.10", "prefix length is missing"),
        ("192.0.2.0/24", "network"),
        ("192.0.2.255/24", "broadcast"),
        ("127.0.0.1/8", "no address that a host"),
        ("192.0.2.300/24", "no address with"),
        ("registry/24", "no address with"),
    ],
)
def test_bad_vips(vip, words):
    (item,) = pf.check_vip(vip)
    assert words in item["cause"]
    assert "192.0.2.10/24" in item["cure"]


def test_priorities():
    same = {"lb1": {"virtual_ip_priority": 100}, "lb2": {"virtual_ip_priority": "100"}}
    (item,) = pf.check_balancers(same)
    assert "lb1 and lb2" in item["cause"]
    assert "lb1: virtual_ip_priority: 100, lb2: virtual_ip_priority: 90" in item["cure"]
    assert pf.check_balancers({"lb1": {"virtual_ip_priority": 100}, "lb2": {"virtual_ip_priority": 90}, "lb3": {}}) == []
    assert "254" in causes(pf.check_balancers({"lb1": {"virtual_ip_priority": 255}}))


def test_router_ids():
    different = {"lb1": {"virtual_ip_router_id": 51}, "lb2": {"virtual_ip_router_id": 52}}
    assert "51 on lb1, 52 on lb2" in causes(pf.check_balancers(different))
    assert "255" in causes(pf.check_balancers({"lb1": {"virtual_ip_router_id": 256}}))


def test_addresses():
    assert "same address" in causes(pf.check_addresses({"a": "192.0.2.1", "b": "192.0.2.1"}))
    assert "neither an address" in causes(pf.check_addresses({"a": "192.0.2.1/24"}))
    assert "own address of a" in causes(pf.check_addresses({"a": "192.0.2.1", "b": None}, "192.0.2.1/24"))
    assert pf.check_addresses({"a": "192.0.2.1", "b": "b.example"}, "192.0.2.9/24") == []


@pytest.mark.parametrize("version", ["3.1.2", "2.8.3", "", None])
def test_good_releases(version):
    assert pf.check_release(version, redis=False, nodes=3) == []


def test_bad_releases():
    (item,) = pf.check_release("3.0.0", redis=False, nodes=3)
    assert (item["variable"], item["value"]) == ("wharf_registry_version", "3.0.0")
    assert "wharf_registry_version: 3.1.2" in item["cure"]
    assert "CVE-2026-35172" in causes(pf.check_release("2.8.3", redis=True, nodes=3))


def test_settings_of_a_whole_cluster():
    hosts = {"a": {"wharf_name": "r.example.com", "wharf_storage": {"s3": S3}}, "b": {}}
    groups = {"registry_nodes": ["a"], "registry_lb": ["b"]}
    assert pf.check_settings(hosts, groups) == []
    hosts["b"] = {"wharf_name": "q.example.com"}
    assert "differs" in causes(pf.check_settings(hosts, groups))
    assert pf.check_settings({"a": {}}, {}) == []  # no cluster, nothing required
    assert "not set" in causes(pf.check_settings({"a": {}}, {"registry_nodes": ["a"]}))


def test_keys_may_differ_between_nodes_but_buckets_may_not():
    groups = {"registry_nodes": ["a", "b"]}
    hosts = {
        "a": {"wharf_name": "r.example.com", "wharf_storage": {"s3": S3}},
        "b": {"wharf_storage": {"s3": {**S3, "accesskey": "other"}}},
    }
    assert pf.check_settings(hosts, groups) == []
    hosts["b"]["wharf_storage"] = {"s3": {**S3, "bucket": "other"}}
    assert "differs" in causes(pf.check_settings(hosts, groups))


@pytest.mark.parametrize(("port", "good"), [(443, True), ("8443", True), (0, False), ("https", False), (70000, False), (5443, False)])
def test_ports_of_the_balancers(port, good):
    assert (pf.check_port(port, shared_with_node=True, shared_with_cache=False) == []) is good


def test_unknown_variables():
    known = ["wharf_name", "registry_storage", "registry_edge_port", "registry_version"]
    names = ["wharf_nmae", "registry_storge", "wharf_name", "__registry_x", "registry_pending", "ansible_host", "wharf_zzzzqqq"]
    found = pf.find_unknown(names, known)
    assert [(item["name"], item["nearest"]) for item in found] == [
        ("registry_storge", "registry_storage"),
        ("wharf_nmae", "wharf_name"),
        ("wharf_zzzzqqq", ""),
    ]
    assert "did you mean wharf_name?" in causes(pf.check_unknown(found))
    assert pf.find_unknown(["wharf_x"], known, ["registry"]) == []


# --- one host


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
    "groups": ["registry_nodes"], "cpu_cores": 4, "memory_gb": 8, "disk_gb": 500, "ssd": True, "link_mbit": 1000, "path": "/var/lib",
    "name": "registry.example.com", "port": 443, "vip": "", "s3": {}, "nfs_server": "", "rootdirectory": "", "skip": [],
}  # fmt: skip
SEEN = {
    "os": debian("13"), "python": [3, 13, 5], "systemd": True, "init": "systemd", "container": False, "clock_synchronised": True,
    "cpu_cores": 4, "memory_bytes": 8_200_000_000, "disk": {"path": "/var/lib", "bytes": 480_000_000_000, "device": "/dev/sda",
    "rotational": False}, "link_interface": "eth0", "link_mbit": 1000, "listeners": [], "nginx_files": [], "storage": {}, "vip": {},
    "addresses": [{"interface": "eth0", "address": "192.0.2.11/24"}], "macs": ["02:00:00:00:00:01"], "resolved": ["192.0.2.10"],
}  # fmt: skip


def test_a_good_host_passes():
    assert pf.check_host(SEEN, WANTED) == []


@pytest.mark.parametrize(
    ("change", "check", "words"),
    [
        ({"cpu_cores": 2}, "cpu", "preflight_cpu_cores: 2"),
        ({"memory_bytes": 4_000_000_000}, "memory", "preflight_memory_gb: 4"),
        ({"disk": {"path": "/var/lib", "bytes": 79_000_000_000}}, "disk", "preflight_disk_gb: 79"),
        ({"disk": {"path": "/var/lib", "bytes": 500e9, "device": "/dev/sda", "rotational": True}}, "ssd", "/dev/sda"),
        ({"link_mbit": 100}, "link", "100 Mbit/s"),
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
    mine = {**SEEN, "vip": {"held": True, "managed": False, "answer": ""}}
    assert "already" in causes(pf.check_host(mine, {**balancer, "vip": "192.0.2.11/24"}))
    ours = {**SEEN, "vip": {"held": True, "managed": True, "answer": ""}}
    ours["addresses"] = [*SEEN["addresses"], {"interface": "eth0", "address": "192.0.2.10/32"}]
    assert pf.check_host(ours, {**balancer, "vip": "192.0.2.10/32"}) == []


# --- the whole cluster

GROUPS = {"registry_nodes": ["n1", "n2"], "registry_lb": ["lb1", "lb2"], "registry_clients": ["c1"]}
SETTINGS = {"wharf_name": "registry.example.com", "wharf_vip": "192.0.2.10/24", "wharf_storage": {"s3": S3}}


def cluster(**changes):
    seen = {
        "lb1": {"addresses": [{"interface": "eth0", "address": "192.0.2.21/24"}], "macs": ["02:00:00:00:00:21"], "vip": {}},
        "lb2": {"addresses": [{"interface": "eth0", "address": "192.0.2.22/24"}], "macs": ["02:00:00:00:00:22"], "vip": {}},
        "n1": {"addresses": [], "resolved": ["192.0.2.10"], "storage": {}},
        "n2": {"addresses": [], "resolved": [], "storage": {}},
        "c1": {"addresses": [], "resolved": ["192.0.2.10"]},
    }
    for host, change in changes.items():
        seen[host] = {**seen[host], **change}
    return seen


def test_a_good_cluster_passes():
    assert pf.check_cluster(cluster(), GROUPS, SETTINGS) == {}
    assert pf.check_cluster(cluster(c1={"resolved": ["192.0.2.22"]}), GROUPS, SETTINGS) == {}


def test_names_that_do_not_resolve():
    found = pf.check_cluster(cluster(c1={"resolved": []}), GROUPS, SETTINGS)
    assert list(found) == ["c1"]  # nodes do without
    assert "192.0.2.10 registry.example.com" in causes(found["c1"])


def test_names_that_resolve_elsewhere():
    found = pf.check_cluster(cluster(n1={"resolved": ["198.51.100.1"]}), GROUPS, SETTINGS)
    assert "198.51.100.1" in causes(found["n1"])
    allowed = {**SETTINGS, "preflight_name_addresses": ["198.51.100.1"]}
    assert pf.check_cluster(cluster(n1={"resolved": ["198.51.100.1"]}), GROUPS, allowed) == {}


def test_loopback_is_right_on_a_balancer_only():
    groups = {"registry_nodes": ["n1", "lb1"], "registry_lb": ["lb1"]}
    seen = cluster(lb1={"resolved": ["127.0.1.1"]}, n1={"resolved": ["127.0.1.1"]})
    assert list(pf.check_cluster(seen, groups, {**SETTINGS, "wharf_vip": ""})) == ["n1"]


def test_strangers_on_the_virtual_ip():
    stranger = {"vip": {"held": False, "answer": "02:00:00:00:00:99"}}
    found = pf.check_cluster(cluster(lb1=stranger), GROUPS, SETTINGS)
    assert "02:00:00:00:00:99" in causes(found["lb1"])
    other = {"vip": {"held": False, "answer": "02:00:00:00:00:22"}}
    assert pf.check_cluster(cluster(lb1=other, lb2={"vip": {"held": True}}), GROUPS, SETTINGS) == {}
    ping = {"vip": {"held": False, "answer": "ping"}}
    assert pf.check_cluster(cluster(lb1=ping, lb2={"vip": {"held": True}}), GROUPS, SETTINGS) == {}
    assert "no balancer answers" in causes(pf.check_cluster(cluster(lb1=ping), GROUPS, SETTINGS)["lb1"])
    without = cluster(lb1=stranger)
    del without["lb2"]  # it may be down for us only, and still hold the address
    assert pf.check_cluster(without, GROUPS, SETTINGS) == {}


def test_several_nodes_need_one_shared_directory():
    settings = {**SETTINGS, "wharf_storage": {"filesystem": {"rootdirectory": "/srv/registry"}}}

    def on(kind, source):
        return {"storage": {"filesystem": {"type": kind, "source": source, "problem": ""}}}

    shared = cluster(n1=on("nfs4", "nfs:/srv"), n2=on("nfs4", "nfs:/srv"))
    assert pf.check_cluster(shared, GROUPS, settings) == {}
    local = cluster(n1=on("ext4", "/dev/sda1"), n2=on("nfs4", "nfs:/srv"))
    assert "local file system here (ext4)" in causes(pf.check_cluster(local, GROUPS, settings)["n1"])
    different = cluster(n1=on("nfs4", "nfs:/a"), n2=on("nfs4", "nfs:/b"))
    assert set(pf.check_cluster(different, GROUPS, settings)) == {"n1", "n2"}
    assert pf.check_cluster(local, {"registry_nodes": ["n1"]}, settings) == {}  # one node may use its own disk


# --- the report


def test_report_is_sorted_and_tells_the_same_once():
    disk = pf.finding("disk", "preflight_disk_gb", "79 GB", "too small", "larger")
    text = pf.report({"n2": [disk], "": [pf.finding("variables", "wharf_nmae", "(set)", "unknown", "rename")], "n1": [disk]}, ["n3"])
    assert text.splitlines() == [
        "Preflight found 2 problems; nothing was changed on any host.",
        "",
        "1. wharf_nmae = (set)",
        "   wrong: unknown",
        "   cure:  rename",
        "2. preflight_disk_gb = 79 GB   [n1, n2]",
        "   wrong: too small",
        "   cure:  larger",
        "",
        "Not reached, and therefore not looked at: n3.",
    ]
    assert pf.report({"n1": []}, ["n3"], count=1) == ("Nothing stands in the way on 1 host. Not reached, and therefore not looked at: n3.")


def test_a_host_without_a_usable_python():
    item = pf.module_failure({"module_stderr": "Traceback\nSyntaxError: future feature annotations is not defined\n"})
    assert "future feature annotations" in item["cause"]
    assert "CentOS 7 and 8" in item["cure"]
