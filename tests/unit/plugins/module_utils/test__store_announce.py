# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Garbage collection where edges listen: what is announced, what may go when, and what a node's listener does."""

from __future__ import annotations

import json
import os
import time

import pytest

from ansible_collections.wharf.registry.plugins.module_utils import _announced, _tool_config
from ansible_collections.wharf.registry.plugins.module_utils._store import announce, filesystem, gc, layout
from ansible_collections.wharf.registry.plugins.module_utils._store.announce import Announcement, Gate, Listener
from ansible_collections.wharf.registry.tests.unit.plugins.module_utils.store_builder import Builder, digest_of
from ansible_collections.wharf.registry.tests.unit.plugins.module_utils.test__store_gc import Afar, Intruder, assert_whole, collect, request

GRACE = 3600.0


@pytest.fixture
def store(tmp_path):
    """A storage whose files are all ten days old."""
    return Builder(tmp_path / "storage", now=time.time(), age=10 * 86400.0)


def sample(store):
    """An image that lives, one without a tag, a blob without a manifest."""
    store.image("shop/web", [b"shared", b"kept"], ["v1"], config=b"kept config")
    manifest = store.image("shop/web", [b"shared", b"untagged"], config=b"untagged config")
    return manifest, store.blob("shop/web", b"orphan")


class Node:
    """A node's listener, with its markers."""

    def __init__(self, store, tmp_path, name="node1"):
        self.store = store
        self.name = name
        self.folder = tmp_path / name
        self.log = tmp_path / f"{name}.log"
        self.log.touch()
        self.now = 1000.0
        self.listener = self.begin()

    def begin(self):
        driver = filesystem.Filesystem(str(self.store.root))
        return _announced.Listener(driver, self.name, str(self.folder), str(self.log), lambda: self.now)

    def step(self, seconds=30.0):
        self.now += seconds
        self.listener.step()

    def age(self, seconds, *names):
        """Make what the node has told look older."""
        for path in (self.store.root / announce.folder(self.name)).iterdir():
            if not names or path.name in names:
                moment = path.stat().st_mtime - seconds
                os.utime(path, (moment, moment))

    def told(self):
        return sorted(path.name for path in (self.store.root / announce.folder(self.name)).iterdir())

    def markers(self):
        return {str(path.relative_to(self.folder)) for path in self.folder.rglob("*") if path.is_file()}

    def writes(self, **line):
        with self.log.open("a") as handle:
            handle.write(json.dumps(line, separators=(",", ":")) + "\n")


def online(store, check=False, **options):
    return collect(store, check=check, mode="online", **{"grace": GRACE, "delete_untagged": True, **options})


def test_announced_then_deleted_at_once(store, tmp_path):
    manifest, orphan = sample(store)
    node = Node(store, tmp_path)
    node.step()
    before = store.files()
    check = online(store, check=True)
    assert store.files() == before and not (store.root / announce.ANNOUNCED).exists()
    first = online(store)
    assert first.values["blobs_announced"] == check.values["blobs_announced"] == 4 and first.changed and check.changed
    assert not first.values["blobs_hidden"] and not first.values["blobs_deleted"] and not first.values["manifests_deleted"]
    assert store.files() == before  # nothing of the registry's own changes before edges know
    assert first.values["bytes_pending"] == check.values["bytes_pending"] > 0
    node.step()
    assert node.markers() == {
        *(_announced.marker_of_blob(digest) for digest in (manifest, orphan, digest_of(b"untagged"), digest_of(b"untagged config"))),
        _announced.marker_of_manifest("shop/web", manifest),
    }
    again = online(store)
    assert not again.changed and again.values["blobs_announced"] == 4
    node.age(GRACE + 60, "ack-1")
    check = online(store, check=True)
    done = online(store)
    assert done.values["blobs_deleted"] == check.values["blobs_deleted"] == 4
    assert done.values["manifests_deleted"] == check.values["manifests_deleted"] == 1
    assert done.values["bytes_freed"] == check.values["bytes_freed"] == sum(before.values()) - sum(store.files().values())
    assert store.blobs() >= {digest_of(b"kept"), digest_of(b"shared")} and not store.blobs() & {manifest, orphan, digest_of(b"untagged")}
    assert_whole(store)
    node.step()
    assert node.markers() == set()
    assert not online(store).changed


def test_what_one_node_has_not_acknowledged_stays(store, tmp_path):
    sample(store)
    one, two = Node(store, tmp_path), Node(store, tmp_path, "node2")
    one.step()
    two.step()
    online(store)
    one.step()
    one.age(GRACE + 60, "ack-1")
    assert online(store).values["blobs_deleted"] == 0
    two.step()
    assert online(store).values["blobs_deleted"] == 0
    two.age(GRACE + 60, "ack-1")
    assert online(store).values["blobs_deleted"] == 4


def test_a_node_that_is_silent_for_longer_than_grace_is_not_waited_for(store, tmp_path):
    sample(store)
    one, two = Node(store, tmp_path), Node(store, tmp_path, "node2")
    one.step()
    two.step()
    online(store)
    one.step()
    one.age(GRACE + 60, "ack-1")
    two.age(600)
    waiting = online(store)
    assert waiting.values["blobs_deleted"] == 0
    assert any("node2 has not been heard of for some minutes" in warning for warning in waiting.warnings)
    assert {"kind": "silent-node", "detail": "node2"} in waiting.values["findings"]
    two.age(GRACE)
    done = online(store)
    assert done.values["blobs_deleted"] == 4 and any("not waited for" in warning for warning in done.warnings)


def test_where_all_are_silent_two_visits_are_taken(store, tmp_path):
    sample(store)
    node = Node(store, tmp_path)
    node.step()
    node.age(GRACE + 600)
    first = online(store)
    assert first.values["blobs_hidden"] == 4 and not first.values["blobs_announced"]


def test_uploaded_again_is_not_announced_any_more(store, tmp_path):
    _manifest, orphan = sample(store)
    node = Node(store, tmp_path)
    node.step()
    online(store)
    node.step()
    store.age = 0.0
    store.link("shop/web", orphan)
    node.age(GRACE + 60, "ack-1")
    assert online(store).values["blobs_deleted"] == 3 and orphan in store.blobs()
    node.step()
    assert _announced.marker_of_blob(orphan) not in node.markers()


def test_a_manifest_that_waits_keeps_what_it_refers_to(store, tmp_path):
    """A layer was announced long ago; since then a manifest that needs it was put and lost its tag, and is announced only now."""
    layer = store.blob("a", b"layer")
    store.image("a", [b"kept"], ["v1"], config=b"k")
    node = Node(store, tmp_path)
    node.step()
    online(store)
    node.step()
    node.age(GRACE + 60, "ack-1")
    manifest = store.image("a", [layer], config=b"c")
    assert online(store).values["blobs_deleted"] == 0
    assert {layer, manifest} <= store.blobs()


def test_asked_for_is_wanted(store, tmp_path):
    manifest, orphan = sample(store)
    one, two = Node(store, tmp_path), Node(store, tmp_path, "node2")
    for node in (one, two):
        node.step()
    online(store)
    for node in (one, two):
        node.step()
        node.age(GRACE + 60, "ack-1")
    marker = _announced.marker_of_blob(orphan)
    one.writes(method="HEAD", uri=f"/v2/shop/web/blobs/{orphan}", status=404, content_digest="")
    one.writes(method="PUT", uri="/v2/shop/web/manifests/again", status=201, content_digest=manifest)
    for node in (one, two):
        node.step(1.0)
        assert marker in node.markers()
    # Who wants a manifest wants what it refers to.
    assert online(store).values["blobs_deleted"] == 0 and {orphan, manifest} <= store.blobs()
    # It is announced anew, because nothing needs it: as something new.
    assert announce.load(filesystem.Filesystem(str(store.root))).blobs[orphan] > 1


def test_markers_of_what_is_wanted_go_after_a_while_on_all_nodes(store, tmp_path):
    _manifest, orphan = sample(store)
    nodes = [Node(store, tmp_path), Node(store, tmp_path, "node2")]
    for node in nodes:
        node.step()
    online(store)
    for node in nodes:
        node.step()
    nodes[0].writes(method="HEAD", uri=f"/v2/shop/web/blobs/{orphan}", status=404, content_digest="")
    for _step in range(2):
        for node in nodes:
            node.step(_announced.LOOK)
    for node in nodes:
        node.step(announce.LINGER)
        assert _announced.marker_of_blob(orphan) not in node.markers() and len(node.markers()) == 4


def test_a_listener_begins_again_where_it_was(store, tmp_path):
    sample(store)
    node = Node(store, tmp_path)
    node.step()
    online(store)
    node.step()
    node.age(100, "ack-1")
    told = (store.root / announce.folder("node1") / "ack-1").stat().st_mtime
    node.listener = node.begin()
    node.step()
    assert (store.root / announce.folder("node1") / "ack-1").stat().st_mtime == told
    assert node.told() == ["ack-1", "alive"]
    # Without its markers the edge has answered otherwise since: the time begins anew.
    for path in node.folder.rglob("*"):
        if path.is_file():
            path.unlink()
    node.listener = node.begin()
    node.step()
    assert (store.root / announce.folder("node1") / "ack-1").stat().st_mtime > told and len(node.markers()) == 5


def test_leaving_takes_everything_back(store, tmp_path):
    sample(store)
    node = Node(store, tmp_path)
    node.step()
    online(store)
    node.step()
    _announced.leave(filesystem.Filesystem(str(store.root)), "node1")
    assert node.told() == []
    assert online(store).values["blobs_hidden"] == 4


def test_a_killed_run_is_finished_by_the_next(store, tmp_path, monkeypatch):
    manifest, orphan = sample(store)
    node = Node(store, tmp_path)
    node.step()
    online(store)
    node.step()
    node.age(GRACE + 60, "ack-1")

    class Killed(BaseException):
        pass

    def die():
        raise Killed

    with pytest.raises(Killed):
        gc.run(
            request(store.root, mode="online", grace=GRACE, delete_untagged=True), driver=Intruder(str(store.root), "after removing", die)
        )
    # Moved away, and some links gone. Somebody puts the very manifest again that was to go.
    monkeypatch.undo()
    assert manifest not in store.blobs()
    store.age = 0.0
    store.image("shop/web", [b"shared", b"untagged"], ["v2"], config=b"untagged config")
    result = online(store)
    assert_whole(store)
    assert orphan not in store.blobs() and result.values["blobs_deleted"] == 1


@pytest.mark.parametrize("kind", [Intruder, Afar])
@pytest.mark.parametrize("moment", ["before moving", "after moving", "before removing", "after removing"])
def test_an_upload_at_any_moment_of_the_deletion_is_kept(store, tmp_path, kind, moment):
    """As registries do it: the blob's content if it is not there, then its link; then the manifest and its tag."""
    store.image("b", [b"kept"], ["v1"], config=b"k")
    store.blob("a", b"layer")
    store.blob("a", b"{}")
    node = Node(store, tmp_path)
    node.step()
    online(store)
    node.step()
    node.age(GRACE + 60, "ack-1")

    def push():
        store.age = 0.0
        store.image("a", [b"layer"], ["v1"], config=b"{}")

    driver = kind(str(store.root), moment, push)
    gc.run(request(store.root, mode="online", grace=GRACE, delete_untagged=True), driver=driver)
    assert driver.push is None
    assert_whole(store)
    assert digest_of(b"layer") in store.blobs()


def test_the_gate():
    former = Announcement(7, {"old": 3, "new": 7, "wanted": 3}, {("a", "old"): 3})
    listeners = [Listener("one", 1000.0, {3: 100.0, 7: 900.0}, {}), Listener("two", 1000.0, {5: 200.0}, {"wanted": 3, "old": 1})]
    gate = Gate(former, listeners, grace=500.0, now=1000.0)
    assert gate and gate.generation == 8
    assert gate.lets_blob("old") and gate.lets_manifest("a", "old") and not gate.lets_manifest("b", "old")
    assert not gate.lets_blob("new") and not gate.lets_blob("unknown") and not gate.lets_blob("wanted")
    assert not Gate(former, listeners, grace=850.0, now=1000.0).lets_blob("old")
    assert gate.next(former.blobs, former.manifests).blobs == {"old": 3, "new": 7, "wanted": 8}
    assert gate.next(["old", "new", "more"], []) == Announcement(8, {"old": 3, "new": 7, "more": 8}, {})
    assert Gate(former, [], grace=500.0, now=1000.0).generation == 8 and not Gate(former, [], grace=500.0, now=1000.0)
    lost = Gate(announce.NOTHING, listeners, grace=500.0, now=1000.0)
    assert lost.generation == 8 and not lost.lets_blob("old")


def test_an_announcement_comes_back_as_it_was_written(tmp_path):
    (tmp_path / layout.OWN).mkdir()
    driver = filesystem.Filesystem(str(tmp_path))
    made = Announcement(4, {digest_of(b"a"): 2}, {("shop/web", digest_of(b"m")): 4})
    announce.save(driver, made)
    assert announce.load(driver) == made and made.oldest == 2
    for text in (b"", b"[]", b'{"generation":1}', b'{"generation":"x","blobs":{},"manifests":{}}', b"\xff"):
        driver.write(announce.ANNOUNCED, text)
        assert announce.load(driver) == announce.NOTHING


D = "sha256:" + "a" * 64


@pytest.mark.parametrize(
    ("line", "digest"),
    [
        ({"method": "HEAD", "uri": f"/v2/a/b/blobs/{D}", "status": 404}, D),
        ({"method": "HEAD", "uri": f"/v2/a/manifests/{D}", "status": 404}, D),
        ({"method": "HEAD", "uri": f"/v2/a/blobs/{D}", "status": 200}, ""),
        ({"method": "GET", "uri": f"/v2/a/blobs/{D}", "status": 404}, ""),
        ({"method": "HEAD", "uri": "/v2/a/manifests/latest", "status": 404}, ""),
        ({"method": "PUT", "uri": "/v2/a/manifests/latest", "status": 201, "content_digest": D}, D),
        ({"method": "PUT", "uri": "/v2/a/manifests/latest", "status": 400, "content_digest": D}, ""),
        ({"method": "PUT", "uri": "/v2/a/blobs/uploads/1", "status": 201, "content_digest": D}, ""),
    ],
)
def test_what_a_line_of_the_log_shows_to_be_wanted(line, digest):
    assert _announced.asked_for(json.dumps(line, separators=(",", ":")).encode()) == digest


@pytest.mark.parametrize("line", [b"", b'"HEAD""status":404', b'{"method":"HEAD","status":404}', b'{"method":"HEAD","uri":7,"status":404}'])
def test_a_line_that_is_none_shows_nothing(line):
    assert _announced.asked_for(line) == ""


GOOD = {"name": "registry1", "config": "/etc/wharf/registry/config.yml", "folder": "/var/lib/wharf/announced", "log": ""}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"name": "../x"}, "name: '../x' is no name of a host"),
        ({"name": ""}, "name: '' is no name"),
        ({"name": 7}, "name: 7 is of the wrong type"),
        ({"folder": "x"}, "folder: x is no absolute path"),
        ({"log": "x"}, "log: x is no absolute path"),
        ({"more": ""}, "unknown key more; known are name, config, folder, log"),
    ],
)
def test_bad_configurations_are_refused(tmp_path, change, words):
    assert _announced.parse_config(GOOD)
    path = tmp_path / "announced.json"
    path.write_text(json.dumps({**GOOD, **change}))
    with pytest.raises(_tool_config.ConfigError, match="(?s).*") as caught:
        _tool_config.load(str(path), _announced.parse_config)
    assert words in str(caught.value)
