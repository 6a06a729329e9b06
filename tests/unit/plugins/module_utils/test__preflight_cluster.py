# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What preflight says about variables and clusters."""

from __future__ import annotations

import pytest

from ansible_collections.wharf.registry.plugins.module_utils._preflight import cluster as pf

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
    "storage", [{"s3": S3}, {"s3": {"bucket": "images", "region": "eu-central-1"}}, {"filesystem": {"rootdirectory": "/srv/d"}}]
)
def test_good_storage(storage):
    assert pf.check_registry({"wharf_storage": storage}, nodes=3) == []


@pytest.mark.parametrize(
    ("storage", "variable", "value", "words"),
    [
        (None, "wharf_storage", "(not set)", "missing"),
        ("s3", "wharf_storage", "s3", "no mapping"),
        ("{s3: {secretkey: never-tell", "wharf_storage", "(a text)", "no mapping"),
        ({"s3": "secretkey=never-tell"}, "wharf_storage.s3", "s3", "not a mapping"),
        ({"swift": {}}, "wharf_storage.swift", "swift", "removed"),
        ({"tape": {}}, "wharf_storage.tape", "tape", "no storage"),
        ({"filesytem": {}}, "wharf_storage.filesytem", "filesytem", "did you mean filesystem"),
        ({"s3": S3, "filesystem": {"rootdirectory": "/d"}}, "wharf_storage", "filesystem and s3", "exactly one"),
        ({"s3": None}, "wharf_storage.s3", "s3", "nothing"),
        ({"s3": {"region": "r"}}, "wharf_storage.s3.bucket", "(not set)", "missing"),
        ({"s3": {"bucket": "images"}}, "wharf_storage.s3.region", "(not set)", "missing"),
        ({"s3": {**S3, "bucket": "a/b"}}, "wharf_storage.s3.bucket", "a/b", "bucket"),
        ({"s3": {**S3, "regionendpont": "x"}}, "wharf_storage.s3.regionendpont", "x", "did you mean regionendpoint"),
        ({"s3": {**S3, "secretkey": 123456}}, "wharf_storage.s3.secretkey", "(secret)", "quotes"),
        ({"filesystem": {"rootdirectory": "data"}}, "wharf_storage.filesystem.rootdirectory", "data", "absolute"),
        ({"nfs": {"server": "nfs"}}, "wharf_storage.nfs.export", "(not set)", "missing"),
        ({"nfs": {"server": "nfs", "export": "data"}}, "wharf_storage.nfs.export", "data", "no absolute path"),
        ({"nfs": "nfs:/srv"}, "wharf_storage.nfs", "nfs:/srv", "no mapping"),
    ],
)
def test_bad_storage(storage, variable, value, words):
    found = pf.check_registry({"wharf_storage": storage}, nodes=3)
    assert (variable, value) in [(item["variable"], item["value"]) for item in found]
    assert words in causes(found)
    assert "for example wharf_storage: {" in causes(found)
    assert "never-tell" not in causes(found)
    assert "123456" not in causes(found)


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


@pytest.mark.parametrize(
    ("model", "robots", "variable", "cause", "cure"),
    [
        ({"project": {}}, None, "wharf_access.project", "is no key of an access model", "for example projects"),
        ("shop", None, "wharf_access", "is no mapping", "for example wharf_access: {projects:"),
        (
            {"projects": {"shop": {"readers": ["carl"]}}},
            None,
            "wharf_access.projects.shop.readers",
            "there is no user carl",
            "see docs/access.md",
        ),
        (None, [{"name": "ci"}], "wharf_robots", "ci is a member of nothing", "for example {projects: {shop:"),
        (
            None,
            [{"name": "ci", "secret": "never-tell", "expiry": 1}],
            "wharf_robots[0].expiry",
            "is no key of a robot",
            "for example expires",
        ),
    ],
)
def test_bad_access(model, robots, variable, cause, cure):
    (found,) = pf.check_access(model, robots, ["alice"])
    assert found["variable"] == variable
    assert cause in found["cause"]
    assert found["cure"].startswith(cure)
    assert "never-tell" not in str(found)


def test_good_access():
    assert pf.check_access(None, None, ["admin"]) == []
    model = {"projects": {"shop": {"writers": ["alice", "robot:ci"]}}}
    assert pf.check_access(model, [{"name": "ci", "secret": "x", "rotate": True}], ["alice"]) == []


@pytest.mark.parametrize("vip", ["", None, "192.0.2.10/24", "192.0.2.10/32"])
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
        ("2001:db8::10/64", "no IPv4"),
        ("192.0.2.10/4", "no IPv4"),
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
    assert pf.check_balancers({"lb1": {}, "lb2": {}, "lb3": {}}) == []
    assert "lb1 and lb2" in causes(pf.check_balancers({"lb1": {}, "lb2": {"virtual_ip_priority": 254}}))  # what lb1 has by default


def test_router_ids():
    different = {"lb1": {"virtual_ip_router_id": 51}, "lb2": {"virtual_ip_router_id": 52}}
    assert "51 on lb1, 52 on lb2" in causes(pf.check_balancers(different))
    assert "255" in causes(pf.check_balancers({"lb1": {"virtual_ip_router_id": 256}}))


def test_addresses():
    groups = {"registry_nodes": ["a", "b"], "registry_clients": ["c"]}
    same = {"a": {"wharf_address": "192.0.2.1"}, "b": {"ansible_host": "192.0.2.1"}, "c": {"ansible_host": "192.0.2.1"}}
    assert "a and b of group registry_nodes have the same address" in causes(pf.check_addresses(same, groups))
    assert pf.check_addresses({"a": {"wharf_address": "192.0.2.1"}, "c": {"ansible_host": "192.0.2.1"}}, groups, "192.0.2.9/24") == []
    assert "neither an address" in causes(pf.check_addresses({"a": {"wharf_address": "192.0.2.1/24"}}, {}))
    named = {"lb1": {"ansible_host": "lb1.example.com"}}
    assert "IPv4" in causes(pf.check_addresses(named, {"registry_lb": ["lb1"]}, "192.0.2.9/24"))
    assert pf.check_addresses(named, {"registry_lb": ["lb1"]}) == []
    assert "own address of a" in causes(pf.check_addresses({"a": {"ansible_host": "192.0.2.1"}, "b": {}}, {}, "192.0.2.1/24"))


@pytest.mark.parametrize("version", ["3.1.2", "2.8.3", "", None])
def test_good_releases(version):
    assert pf.check_registry({"wharf_storage": {"s3": S3}, "wharf_registry_version": version}, nodes=3) == []


def test_bad_releases():
    (item,) = pf.check_registry({"wharf_storage": {"s3": S3}, "wharf_registry_version": "3.0.0"}, nodes=3)
    assert (item["variable"], item["value"]) == ("wharf_registry_version", "3.0.0")
    assert "wharf_registry_version: 3.1.2" in item["cure"]
    redis = {"wharf_registry_version": "2.8.3", "registry_redis": {"addr": "redis1:6379", "password": "never-tell", "ca_src": "ca.crt"}}
    found = pf.check_registry({"wharf_storage": {"s3": S3}, **redis}, nodes=3)
    assert "CVE-2026-35172" in causes(found)
    assert "never-tell" not in causes(found)


def test_variables_of_the_role_go_before_those_of_the_cluster():
    values = {"wharf_storage": {"s3": S3}, "registry_storage": {"s3": {}}}
    assert "registry_storage.s3.bucket = (not set)" in causes(pf.check_registry(values, nodes=1))


def test_ways_to_sign_in():
    for auth in ("none", "htpasswd", "token"):
        assert pf.check_registry({"wharf_storage": {"s3": S3}, "wharf_auth": auth}, nodes=1) == []
    found = pf.check_registry({"wharf_storage": {"s3": S3}, "wharf_auth": "tokens"}, nodes=1)
    assert [(item["variable"], item["value"]) for item in found] == [("wharf_auth", "tokens")]


def test_archives():
    values = {"wharf_registry_image_archive": "/srv/registry.tar"}
    assert pf.check_archive(values, lambda path: True) == []
    assert "wharf_registry_image_archive = /srv/registry.tar" in causes(pf.check_archive(values, lambda path: False))
    assert pf.check_archive({}, lambda path: False) == []


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
    told = pf.check_unknown([{"name": "wharf_nmae", "nearest": "wharf_name", "value": "r.example.com"}])
    assert told[0]["value"] == "r.example.com"
    for name, value in (("wharf_redis_pasword", "never-tell"), ("wharf_x", {"password": "never-tell"})):
        assert "never-tell" not in causes(pf.check_unknown([{"name": name, "nearest": "", "value": value}]))
    assert pf.find_unknown(["wharf_x"], known, ["registry"]) == []


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
    disk = pf.finding("disk", "preflight_min_disk_gb", "79 GB", "too small", "larger")
    text = pf.report({"n2": [disk], "": [pf.finding("variables", "wharf_nmae", "(set)", "unknown", "rename")], "n1": [disk]}, ["n3"])
    assert text.splitlines() == [
        "Preflight found 2 problems; nothing was changed on any host.",
        "",
        "1. wharf_nmae = (set)",
        "   wrong: unknown",
        "   cure:  rename",
        "2. preflight_min_disk_gb = 79 GB   [n1, n2]",
        "   wrong: too small",
        "   cure:  larger",
        "",
        "Not reached, and therefore not looked at: n3.",
    ]
    assert pf.report({"n1": []}, ["n3"], count=1) == ("Nothing stands in the way on 1 host. Not reached, and therefore not looked at: n3.")
