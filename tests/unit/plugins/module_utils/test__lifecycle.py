# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who does the day's work, what it leaves behind, and what was pulled through other nodes."""

from __future__ import annotations

import json
import os
import time

import pytest

from ansible_collections.wharf.registry.plugins.module_utils import _lifecycle, _sizes
from ansible_collections.wharf.registry.plugins.module_utils._preflight import cluster
from ansible_collections.wharf.registry.plugins.module_utils._retention import shared
from ansible_collections.wharf.registry.plugins.module_utils._store import act, interface, lock
from ansible_collections.wharf.registry.tests.unit.plugins.module_utils.store_builder import Builder

DAY = 86400.0
AT = (3, 0)


def moment(day: int, hour: int, minute: int = 0) -> float:
    """Return a time of November 2026, by this machine's clock."""
    return time.mktime((2026, 11, day, hour, minute, 0, 0, 0, -1))


@pytest.fixture
def store(tmp_path):
    built = Builder(tmp_path / "data", now=time.time(), age=3 * DAY)
    for number in range(4):
        built.image("shop/web", [b"layer %d" % number], [str(number)], config=b"%d" % number)
    built.blob("shop/web", b"garbage")
    return built


class Node:
    """One node of several over the same storage."""

    def __init__(self, folder, store, name: str) -> None:
        self.folder = folder / name
        self.folder.mkdir()
        self.registry = self.folder / "config.yml"
        self.registry.write_text(json.dumps({"version": 0.1, "storage": {"filesystem": {"rootdirectory": str(store.root)}}}))
        self.log = self.folder / "access.log"
        self.log.write_text("")
        self.options = {
            "name": name,
            "config": str(self.registry),
            "at": "03:00",
            "usage": [str(self.log)],
            "reports": str(self.folder),
            "metrics": str(self.folder / "wharf.prom"),
            "retention": {"rules": [{"repositories": ["shop/*"], "keep": {"last": 2}}], "protected": [], "floor": 1, "in_use": []},
            "gc": {"grace": "1s", "delete_untagged": False, "max_delete_fraction": 1.0, "repositories": [], "timeout": 0},
        }
        self.said: list[str] = []

    def options_file(self):
        path = self.folder / "lifecycle.json"
        path.write_text(json.dumps(self.options))
        return path

    def run(self) -> bool:
        self.said.clear()
        return _lifecycle.run(_lifecycle.read_options(str(self.options_file())), self.said.append)

    def metrics(self) -> dict[str, float]:
        lines = (self.folder / "wharf.prom").read_text().splitlines()
        return {line.split()[0]: float(line.split()[1]) for line in lines if not line.startswith("#")}


@pytest.fixture
def nodes(tmp_path, store, monkeypatch):
    monkeypatch.setattr(act.Actor, "_wait", lambda self: None)
    return [Node(tmp_path, store, name) for name in ("registry1", "registry2")]


def records(store):
    return _lifecycle.read_records(interface.open_store({"filesystem": {"rootdirectory": str(store.root)}}))


# ---------------------------------------------------------------------------------------------------------- who and when


@pytest.mark.parametrize(
    ("now", "begun"),
    [((24, 3), (24, 3)), ((24, 2, 59), (23, 3)), ((24, 23), (24, 3)), ((1, 1), (0, 3)), ((25, 0), (24, 3))],
)
def test_the_day_begins_at_its_hour(now, begun):
    assert _lifecycle.day_begun(AT, moment(*now)) == moment(*begun)


@pytest.mark.parametrize(
    ("attempts", "due"),
    [
        ({}, True),
        ({"other": {"begun": 50.0, "good": True}}, True),
        ({"other": {"begun": 150.0, "good": True}}, False),
        ({"other": {"begun": 150.0, "good": False}}, True),
        ({"me": {"begun": 150.0, "good": False}}, False),
        ({"me": {"begun": 50.0, "good": False}}, True),
        ({"me": {"begun": 50.0, "good": True}, "other": {"begun": 150.0, "good": False}}, True),
    ],
)
def test_a_part_is_due_once_a_day(attempts, due):
    found = {host: {"gc": attempt} for host, attempt in attempts.items()}
    assert _lifecycle.is_due("gc", found, "me", 100.0) is due
    assert _lifecycle.is_due("retention", found, "me", 100.0) is True


def test_the_first_node_works_and_the_others_find_it_done(nodes, store):
    first, second = nodes
    assert first.run()
    assert any("2 tags and 2 manifests deleted, 2 tags kept" in line for line in first.said)
    assert (first.folder / "gc.json").exists() and (first.folder / "retention.json").exists()
    assert second.run()
    assert second.said == [] and not (second.folder / "gc.json").exists()
    assert first.run() and first.said == []
    ours, theirs = first.metrics(), second.metrics()
    assert ours["wharf_retention_tags_deleted"] == 2.0 and ours["wharf_gc_blobs_hidden"] > 0
    for name in ours.keys() - {"wharf_lifecycle_last_look_timestamp_seconds"}:
        assert ours[name] == theirs[name], name
    assert abs(ours["wharf_gc_last_success_timestamp_seconds"] - time.time()) < 600


def test_another_node_takes_over_what_failed(nodes, store):
    first, second = nodes
    first.options["gc"]["max_delete_fraction"] = 0.0
    assert not first.run()
    assert any("max_delete_fraction" in line for line in first.said)
    assert first.metrics()["wharf_gc_refused"] == 1.0
    assert first.metrics()["wharf_retention_refused"] == 0.0
    assert first.run() and first.said == [], "a node tries once a day"
    assert second.run()
    assert second.metrics()["wharf_gc_refused"] == 0.0
    assert first.run()
    assert first.metrics()["wharf_gc_refused"] == 0.0, "another was good since"


def test_a_failure_does_not_forget_the_last_good_run(nodes, store):
    node = nodes[0]
    assert node.run()
    good = node.metrics()["wharf_gc_last_success_timestamp_seconds"]
    path = store.root / _lifecycle.FOLDER / "registry1.json"
    record = json.loads(path.read_text())
    record["gc"]["begun"] -= 2 * DAY
    path.write_text(json.dumps(record))
    node.options["gc"]["max_delete_fraction"] = 0.0
    store.blob("shop/web", b"more garbage")
    assert not node.run()
    assert node.metrics()["wharf_gc_last_success_timestamp_seconds"] == pytest.approx(good - 2 * DAY)
    assert node.metrics()["wharf_gc_refused"] == 1.0


def test_a_run_of_another_node_is_waited_for(nodes, store):
    with lock.Lock(interface.open_store({"filesystem": {"rootdirectory": str(store.root)}})):
        assert nodes[0].run()
    assert any("another run works on" in line for line in nodes[0].said)
    assert records(store) == {}, "it is tried again an hour later"
    assert nodes[0].run() and records(store)["registry1"]["gc"]["good"]


def test_damaged_records_count_as_none(nodes, store):
    folder = store.root / _lifecycle.FOLDER
    folder.mkdir(parents=True)
    for number, text in enumerate(["", "[]", '{"gc": 1}', '{"gc": {"begun": "x", "good": true}}']):
        (folder / f"broken{number}.json").write_text(text)
    assert records(store) == {}
    assert nodes[0].run()


def test_parts_that_are_off_are_not_done(nodes, store):
    node = nodes[0]
    node.options["retention"] = {}
    assert node.run()
    assert not (node.folder / "retention.json").exists()
    assert not [name for name in node.metrics() if "retention" in name]


# ------------------------------------------------------------------------------------------------------------- command


def test_a_storage_that_does_not_answer_is_told_in_the_metrics(nodes, store, capsys):
    node = nodes[0]
    assert _lifecycle.command(str(node.options_file())) == 0
    assert node.metrics()["wharf_lifecycle_failed"] == 0.0
    before = node.metrics()
    store.root.rename(store.root.with_name("gone"))
    assert _lifecycle.command(str(node.options_file())) == 1
    assert "does not exist" in capsys.readouterr().err
    after = node.metrics()
    assert after["wharf_lifecycle_failed"] == 1.0
    assert after["wharf_gc_last_success_timestamp_seconds"] == before["wharf_gc_last_success_timestamp_seconds"]


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"at": "03:00"}'])
def test_a_configuration_that_is_none_is_a_wrong_usage(tmp_path, text, capsys):
    path = tmp_path / "lifecycle.json"
    path.write_text(text)
    assert _lifecycle.command(str(path)) == 2
    assert str(path) in capsys.readouterr().err
    assert _lifecycle.command(str(tmp_path / "none.json")) == 2


@pytest.mark.parametrize(
    ("part", "value", "words"),
    [
        ("at", "25:00", "lifecycle_at: '25:00' is no time of day"),
        ("gc", {"grace": "24"}, "lifecycle_gc_grace: '24' is no duration"),
        ("gc", {"delete_untagged": "False"}, "lifecycle_gc_delete_untagged: 'False' is of the wrong kind"),
        ("gc", {"max_delete_fraction": True}, "lifecycle_gc_max_delete_fraction: True is of the wrong kind"),
        ("gc", {"max_delete_fraction": 2.0}, "lifecycle_gc_max_delete_fraction: 2.0 is no share"),
        ("gc", {"repositories": ["a[b"]}, "lifecycle_gc_repositories: a[b is no pattern"),
        ("retention", {"rules": [{"repositories": ["**"], "keep": {"lats": 1}}]}, "lifecycle_retention_rules: rule 1: keep.lats"),
        ("retention", {"floor": 0, "rules": [{"repositories": ["**"], "keep": {"last": 0}}]}, "0 together with floor: 0"),
        ("usage", [], "pulled_within: usage is not given"),
    ],
)
def test_what_cannot_be_meant_is_named(nodes, part, value, words):
    options = nodes[0].options
    options["retention"]["rules"] = [{"repositories": ["**"], "keep": {"pulled_within": "1d"}}]
    assert _lifecycle.problems(options, "lifecycle_") == []
    options[part] = {**options[part], **value} if isinstance(value, dict) else value
    assert words in "\n".join(_lifecycle.problems(options, "lifecycle_"))


# --------------------------------------------------------------------------------------------------------------- pulls


def pull(when: float, tag: str) -> str:
    return json.dumps({"timestamp": when, "method": "GET", "status": 200, "uri": f"/v2/shop/web/manifests/{tag}"}) + "\n"


def test_pulls_through_all_nodes_count(nodes, store):
    first, second = nodes
    now = time.time()
    first.log.write_text(pull(now - 3600, "0"))
    second.log.write_text(pull(now - 3600, "1"))
    for node in nodes:
        node.options["retention"]["rules"] = [{"repositories": ["shop/*"], "keep": {"pulled_within": "1d"}}]
        node.options["gc"] = {}
    driver = interface.open_store({"filesystem": {"rootdirectory": str(store.root)}})
    shared.publish(driver, "registry2", [str(second.log)])
    second.log.unlink()
    assert first.run()
    tags = {path.name for path in store.path("repositories/shop/web/_manifests/tags").iterdir() if (path / "current/link").exists()}
    assert tags == {"0", "1"}


def test_what_was_told_is_remembered_when_the_log_is_gone(tmp_path, store):
    driver = interface.open_store({"filesystem": {"rootdirectory": str(store.root)}})
    log = tmp_path / "access.log"
    now = time.time()
    log.write_text(pull(now - 500, "1"))
    shared.publish(driver, "a", [str(tmp_path / "access.log*")])
    log.write_text(pull(now - 100, "2"))
    os.utime(log, (now + 1, now + 1))
    shared.publish(driver, "a", [str(tmp_path / "access.log*")])
    usage, until = shared.collect(driver)
    assert usage.of("shop/web").keys() == {"1", "2"} and set(until) == {"a"}
    assert usage.since == pytest.approx(now - 500, abs=1)
    (store.root / shared.FOLDER / "a.json").write_text("damaged")
    assert shared.collect(driver)[1] == {}


def test_old_pulls_are_forgotten(tmp_path, store):
    driver = interface.open_store({"filesystem": {"rootdirectory": str(store.root)}})
    log = tmp_path / "access.log"
    log.write_text(pull(time.time() - 401 * DAY, "1") + pull(time.time() - 399 * DAY, "2"))
    shared.publish(driver, "a", [str(log)])
    assert shared.collect(driver)[0].of("shop/web").keys() == {"2"}


def test_a_log_that_is_missing_is_said(tmp_path, store, nodes):
    node = nodes[0]
    node.log.unlink()
    node.options["retention"]["rules"] = [{"repositories": ["shop/*"], "keep": {"pulled_within": "30d"}}]
    assert node.run()
    assert any("matches no file on this host" in line for line in node.said)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("2TB", 2 * 10**12),
        ("500GiB", 500 << 30),
        ("1.5 MiB", 3 << 19),
        ("1000", 1000),
        ("7B", 7),
        ("1k", 1000),
        *((wrong, None) for wrong in ("2e9", "-1GB", "GB", "1 gb")),
    ],
)
def test_sizes(text, size):
    assert _sizes.parse_size(text) == size


@pytest.mark.parametrize("quota", ["much", "0", 0, True, [], "-5GB", "0TB"])
def test_a_quota_that_is_none_is_refused(nodes, quota):
    options = {**nodes[0].options, "quota": quota}
    (problem,) = _lifecycle.problems(options, "lifecycle_")
    assert problem.startswith("lifecycle_quota: ") and "for example lifecycle_quota: 2TB" in problem
    assert [found["variable"] for found in cluster.check_quota(quota)] == ["wharf_storage_quota"]


@pytest.mark.parametrize("quota", ["", None, "2TB", 2000000000, 2e12])
def test_a_quota_that_is_one(nodes, quota):
    assert _lifecycle.problems({**nodes[0].options, "quota": quota}) == [] == cluster.check_quota(quota)


def test_a_file_system_tells_its_own_size(nodes):
    nodes[0].options["quota"] = "1GB"
    assert nodes[0].run()
    assert nodes[0].metrics()["wharf_gc_stored_bytes"] > 0
    assert not [name for name in nodes[0].metrics() if name.startswith("wharf_storage")]
