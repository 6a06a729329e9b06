# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whole runs of the garbage collection (module registry_gc) over directories."""

from __future__ import annotations

import json
import os
import random
import signal
import threading
import time

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from ansible_collections.wharf.registry.plugins.module_utils import _cli
from ansible_collections.wharf.registry.plugins.module_utils._store import (
    announce,
    filesystem,
    gc,
    interface,
    layout,
    lock,
    memo,
    state,
    watch,
)
from ansible_collections.wharf.registry.plugins.module_utils._store.driver import Driver, Unreadable
from ansible_collections.wharf.registry.tests.unit.plugins.module_utils.store_builder import Builder, digest_of

NOW = time.time()
#: The last is online where the edges have acknowledged what was announced.
MODES = ["offline", "online", "announced"]


def request(root, **options):
    """Return a request; without grace and offline unless told otherwise."""
    settings = interface.from_sections({"filesystem": {"rootdirectory": str(root)}})
    options = {"mode": "offline", "grace": 0.0, "max_delete_fraction": 1.0, "settle": 0.0, **options}
    return gc.Request(settings, **options)


def collect(store, check=False, **options):
    """Run once."""
    return gc.run(request(store.root, **options), check=check)


@pytest.fixture
def store(tmp_path):
    """A storage whose files are all ten days old."""
    return Builder(tmp_path, now=NOW, age=10 * 86400.0)


def sample(store):
    """An image that lives, one without a tag, a blob without a manifest, an old upload."""
    store.image("shop/web", [b"shared", b"kept"], ["v1"], config=b"kept config")
    store.image("shop/web", [b"shared", b"untagged"], config=b"untagged config")
    store.blob("shop/web", b"orphan")
    store.put("repositories/shop/web/_uploads/0123/data", b"half an upload")
    store.put("repositories/shop/web/_uploads/0123/startedat", b"2026-01-01T00:00:00Z")


def test_check_predicts_to_the_byte_and_changes_nothing(store):
    sample(store)
    before = store.files()
    for untagged in (False, True):
        check = collect(store, check=True, delete_untagged=untagged)
        assert store.files() == before
        result = collect(store, delete_untagged=untagged)
        after = store.files()
        assert result.values["bytes_freed"] == sum(before.values()) - sum(after.values())
        for name in ("bytes_freed", "blobs_deleted", "manifests_deleted", "uploads_purged", "blobs_marked"):
            assert result.values[name] == check.values[name]
        assert result.changed and check.changed
        before = after
    assert not collect(store, delete_untagged=True).changed
    assert digest_of(b"kept") in store.blobs() and digest_of(b"shared") in store.blobs()
    assert digest_of(b"untagged") not in store.blobs() and digest_of(b"orphan") not in store.blobs()


def test_grace(store):
    store.image("a", [b"kept"], ["v1"])
    lost = store.blob("a", b"lost")
    assert collect(store, grace=11 * 86400.0).values["blobs_deleted"] == 0
    store.age = 60.0
    store.link("a", lost)  # uploaded again: only the link is written
    assert collect(store, grace=86400.0).values["blobs_deleted"] == 0
    assert collect(store, grace=30.0).values["blobs_deleted"] == 1


def test_online_takes_two_visits(store):
    sample(store)
    first = collect(store, mode="online", grace=3600.0, delete_untagged=True)
    assert first.values["blobs_hidden"] == 4 and first.values["blobs_deleted"] == 0 and first.values["manifests_deleted"] == 1
    assert digest_of(b"orphan") in store.blobs()
    assert not store.path(f"repositories/shop/web/_layers/{digest_of(b'orphan').replace(':', '/')}/link").exists()
    second = collect(store, mode="online", grace=3600.0, delete_untagged=True)
    assert second.values["blobs_deleted"] == 0 and second.values["bytes_pending"] == first.values["bytes_pending"] > 0
    age_hidden(store, 7200.0)
    before = store.files()
    check = collect(store, check=True, mode="online", grace=3600.0, delete_untagged=True)
    third = collect(store, mode="online", grace=3600.0, delete_untagged=True)
    assert third.values["blobs_deleted"] == 4
    assert third.values["bytes_freed"] == check.values["bytes_freed"] == sum(before.values()) - sum(store.files().values())
    assert digest_of(b"kept") in store.blobs() and digest_of(b"orphan") not in store.blobs()


def age_hidden(store, seconds):
    """Make what is hidden look as if it had been hidden that much earlier."""
    path = store.root / state.STATE
    tree = json.loads(path.read_text())
    for entry in tree["hidden"].values():
        entry[0] -= seconds
    path.write_text(json.dumps(tree))


def test_uploaded_again_between_the_visits(store):
    store.image("a", [b"kept"], ["v1"])
    lost = store.blob("a", b"lost")
    collect(store, mode="online", grace=3600.0)
    store.age = 0.0
    store.link("a", lost)
    age_hidden(store, 7200.0)
    assert collect(store, mode="online", grace=3600.0).values["blobs_deleted"] == 0
    assert lost in store.blobs()


def test_a_manifest_that_was_put_after_the_hiding_gets_its_links_back(store):
    store.image("a", [b"kept"], ["v1"])
    layer = store.blob("a", b"told that it exists")
    collect(store, mode="online", grace=3600.0)
    store.age = 0.0
    # What a registry does that believed a stale cache: manifest and tag, but no link of the layer.
    store.image("a", [layer], ["v2"])
    age_hidden(store, 7200.0)
    collect(store, mode="online", grace=3600.0)
    assert layer in store.blobs()
    assert store.path(f"repositories/a/_layers/{layer.replace(':', '/')}/link").read_text() == layer


class Intruder(filesystem.Filesystem):
    """A storage to which somebody pushes at a given moment of the run."""

    def __init__(self, root, moment, push):
        super().__init__(root)
        self.moment = moment
        self.push = push

    def _happens(self, moment):
        if moment == self.moment and self.push:
            push, self.push = self.push, None
            push()

    def remove(self, paths):
        """Push before or after links or trash are removed."""
        paths = list(paths)
        real = any(layout.REGISTRY in path for path in paths)
        if real:
            self._happens("before removing")
        stayed = super().remove(paths)
        if real:
            self._happens("after removing")
        return stayed

    def move(self, source, target, unless=None):
        """Push before or after a blob is moved away, or a link is moved aside."""
        moment = {layout.ASIDE: "removing", layout.TRASH: "moving"}.get(target if target == layout.ASIDE else target[: len(layout.TRASH)])
        if moment:
            self._happens(f"before {moment}")
        done = super().move(source, target, unless)
        if moment:
            self._happens(f"after {moment}")
        return done


@pytest.mark.parametrize("moment", ["before removing", "after removing"])
@pytest.mark.parametrize("again", ["manifest", "layer"])
def test_a_push_while_hiding(store, moment, again):
    """A client that was told that the blobs exist puts its manifest while their links go: it must be whole when the run ends."""
    old = store.image("a", [b"shared"], config=b"c")
    layer = store.blob("a", b"lost")

    def push():
        store.age = 0.0
        if again == "manifest":
            store.manifest("a", store.path(f"blobs/sha256/{old[7:9]}/{old[7:]}/data").read_bytes(), ["v1"])
        else:
            store.image("a", [layer, digest_of(b"shared")], ["v1"])

    driver = Intruder(str(store.root), moment, push)
    gc.run(request(store.root, mode="online", grace=3600.0, delete_untagged=True), driver=driver)
    assert driver.push is None
    assert_whole(store)


@pytest.mark.parametrize("moment", ["before moving", "after moving"])
def test_a_push_while_deleting(store, moment):
    """A registry saw the blob just before it was moved away, and writes its link, a manifest and a tag just after."""
    layer = store.blob("a", b"lost")
    config = store.blob("a", b"{}")
    store.image("b", [b"kept"], ["v1"], config=b"k")
    collect(store, mode="online", grace=3600.0)
    age_hidden(store, 7200.0)

    def push():
        store.age = 0.0
        store.link("a", layer)
        store.link("a", config)
        tree = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json"}
        tree["config"] = store.descriptor(config, "application/vnd.oci.image.config.v1+json")
        tree["layers"] = [store.descriptor(layer, "application/vnd.oci.image.layer.v1.tar")]
        store.manifest("a", tree, ["v1"])

    driver = Intruder(str(store.root), moment, push)
    gc.run(request(store.root, mode="online", grace=3600.0), driver=driver)
    assert driver.push is None
    assert_whole(store)


@pytest.mark.parametrize("moment", ["after removing", "before moving", "after moving"])
def test_looks_at_few_things_find_a_push_at_once(store, moment, monkeypatch):
    """On a large storage the looks at everything come late. Here they come never, and what was pushed must be whole all the same."""
    store.image("b", [b"kept"], ["v1"], config=b"k")
    layer = store.blob("a", b"lost")
    config = store.blob("a", b"{}")
    tree = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json"}
    tree["config"] = store.descriptor(config, "application/vnd.oci.image.config.v1+json")
    tree["layers"] = [store.descriptor(layer, "application/vnd.oci.image.layer.v1.tar")]
    if moment != "after removing":
        collect(store, mode="online", grace=3600.0)
        age_hidden(store, 7200.0)

    def push():
        store.age = 0.0
        if moment != "after removing":  # uploaded again; otherwise told that they exist
            store.link("a", layer)
            store.link("a", config)
        store.manifest("a", tree, ["v1"])

    monkeypatch.setattr(watch.Watch, "claims", lambda _self: {})
    driver = Intruder(str(store.root), moment, push)
    gc.run(request(store.root, mode="online", grace=3600.0), driver=driver)
    assert driver.push is None
    assert_whole(store)


class Afar(Intruder):
    """The same where a link cannot be moved aside: somebody may write it between the look and the removal."""

    local = False
    remove_untouched = Driver.remove_untouched


def test_a_tag_tells_of_a_manifest_whose_link_went_as_it_was_pushed_again(store, monkeypatch):
    """On S3 the new link is what was removed: nothing but the tag shows that the manifest is wanted."""
    old = store.image("a", [b"layer"], config=b"c")
    store.image("b", [b"kept"], ["v1"], config=b"k")

    def push():
        store.age = 0.0
        store.manifest("a", store.path(f"blobs/sha256/{old[7:9]}/{old[7:]}/data").read_bytes(), ["v1"])

    monkeypatch.setattr(watch.Watch, "claims", lambda _self: {})
    driver = Afar(str(store.root), "before removing", push)
    gc.run(request(store.root, mode="online", grace=3600.0, delete_untagged=True), driver=driver)
    assert driver.push is None
    assert_whole(store)


class Asked:
    """A cache of which a client asks for a blob just as its link goes; it notes which blobs had no link when they were forgotten."""

    def __init__(self, store, digest):
        self.store = store
        self.digest = digest
        self.unlinked = []

    def check(self):
        pass

    def asked(self, pairs, within):
        return {digest for _name, digest in pairs if digest == self.digest and within < 60.0}

    def forget(self, pairs, within=0.0):
        if within:
            self.unlinked += [
                digest for name, digest in pairs if not self.store.path(layout.layer_path(name, digest).split("/v2/")[1]).exists()
            ]
        return set()


def test_who_asks_just_now_finds_the_link_before_the_cache_forgets(store, monkeypatch):
    store.image("a", [b"kept"], ["v1"], config=b"k")
    wanted, other = store.blob("a", b"wanted"), store.blob("a", b"other")
    cache = Asked(store, wanted)
    monkeypatch.setattr(gc, "Cache", lambda _settings: cache)
    settings = request(store.root).settings._replace(redis={"addrs": ["127.0.0.1:1"]}, cache="redis")
    gc.run(request(store.root, mode="online", grace=3600.0)._replace(settings=settings))
    assert cache.unlinked == [other]
    assert store.path(layout.layer_path("a", wanted).split("/v2/")[1]).exists()


def assert_whole(store):
    """Each tag pulls: its manifest, all that the manifest refers to, and the links that a registry asks for."""
    driver = interface.open_store({"filesystem": {"rootdirectory": str(store.root)}})
    graph = interface.read_graph(driver, interface.read_store(driver))
    tags = 0
    for repository in graph.snapshot.repositories.values():
        for tag in repository.tags.values():
            tags += 1
            pending = [tag.digest]
            while pending:
                digest = pending.pop()
                assert digest in repository.revisions and digest in graph.snapshot.blobs
                manifest = graph.manifests[digest]
                pending += manifest.children
                for blob in (*manifest.layers, manifest.config):
                    assert not blob or (blob in repository.layers and blob in graph.snapshot.blobs)
    assert tags


# ------------------------------------------------------------------------------------------------------------ property


@st.composite
def recipes(draw):
    """What to build in two repositories: images over shared layers, indexes over them and over each other, tags that move, artifacts."""
    tag = st.none() | st.integers(0, 3)
    count = draw(st.integers(1, 7))
    images = [(draw(st.integers(0, 1)), draw(st.lists(st.integers(0, 4), max_size=3, unique=True)), draw(tag)) for _number in range(count)]
    indexes = [
        (draw(st.integers(0, 1)), draw(st.lists(st.integers(0, count + number - 1), max_size=3, unique=True)), draw(tag))
        for number in range(draw(st.integers(0, 4)))
    ]
    subjects = st.integers(0, count + len(indexes) - 1)
    artifacts = [(draw(subjects), draw(st.booleans())) for _number in range(draw(st.integers(0, 3)))]
    return images, indexes, artifacts


def build(store, recipe):
    """Build what a recipe says."""
    images, indexes, artifacts = recipe
    manifests = []
    for number, (place, layers, tag) in enumerate(images):
        tags = [] if tag is None else [f"t{tag}"]
        config = b"config %d" % number
        manifests.append((place, store.image(f"r{place}", [b"layer %d" % layer for layer in layers], tags, config=config)))
    for number, (place, children, tag) in enumerate(indexes):
        inside = [manifests[child][1] for child in children if manifests[child][0] == place]
        tags = [] if tag is None else [f"t{tag}"]
        manifests.append((place, store.index(f"r{place}", inside, tags, annotations={"n": str(number)})))
    for number, (subject, fallback) in enumerate(artifacts):
        place, digest = manifests[subject]
        name = f"r{place}"
        artifact = store.image(name, [b"artifact %d" % number], config=b"a", subject=store.descriptor(digest, "x"))
        if fallback:
            store.index(name, [artifact], [digest.replace(":", "-")])
    store.blob("r0", b"loose")
    store.image("r0", [b"root"], ["root"], config=b"root")


@hypothesis_settings(max_examples=60)
@given(recipes(), st.sampled_from(MODES))
def test_nothing_reachable_goes(tmp_path_factory, recipe, mode):
    store = Builder(tmp_path_factory.mktemp("store"), now=NOW, age=10 * 86400.0)
    build(store, recipe)
    expected = reachable(store)
    visit(store, mode, lambda: assert_whole(store))
    assert expected <= store.blobs()
    assert digest_of(b"loose") not in store.blobs()


@hypothesis_settings(max_examples=60)
@given(recipes(), st.sampled_from(MODES), st.integers(min_value=0), st.booleans())
def test_nothing_reachable_goes_from_a_damaged_storage(tmp_path_factory, recipe, mode, which, gone):
    """Any one file is lost, or has lost its content: what tags reached before stays, since nobody can say any more that it is garbage."""
    store = Builder(tmp_path_factory.mktemp("store"), now=NOW, age=10 * 86400.0)
    build(store, recipe)
    files = sorted(store.files())
    name = files[which % len(files)]
    victim = store.root / name
    before = reachable(store)
    if gone:
        victim.unlink()
    else:
        victim.write_bytes(b"")
        os.utime(victim, (NOW - 10 * 86400.0, NOW - 10 * 86400.0))
    # A manifest's link that is gone leaves no trace: the repository does not have that manifest any more.
    expected = reachable(store) if gone and "/revisions/" in name else before
    expected &= store.blobs()
    visit(store, mode)
    assert expected <= store.blobs()


def visit(store, mode, check=lambda: None):
    """Collect as often as it takes until all is gone that goes."""
    for _visit in range(3):
        look(store, mode)
        check()


def look(store, mode):
    """Collect once, and let the grace pass after it."""
    if mode == "announced":
        hear(store)
    collect(store, mode="online" if mode == "announced" else mode, grace=3600.0, delete_untagged=True)
    if mode != "offline" and (store.root / state.STATE).exists():
        age_hidden(store, 7200.0)
    if mode == "announced":
        hear(store)


def hear(store):
    """Acknowledge what is announced, as if that had been two hours ago."""
    folder = store.root / announce.folder("node1")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "alive").touch()
    path = folder / f"ack-{announce.load(filesystem.Filesystem(str(store.root))).generation}"
    path.touch()
    os.utime(path, (time.time() - 7200, time.time() - 7200))


def reachable(store):
    """Return what tags reach, by a way of its own: a search for digests in manifests."""
    root = store.root / "docker/registry/v2"
    found = set()
    pending = [
        path.read_text() for path in root.glob("repositories/*/_manifests/tags/*/current/link") if not path.parts[-3].startswith("sha256-")
    ]
    while pending:
        digest = pending.pop()
        if not digest or digest in found:
            continue
        found.add(digest)
        tree = _tree(root, digest)
        pending += [
            item["digest"] for item in [*tree.get("manifests", []), *tree.get("layers", []), tree.get("config") or {}] if item.get("digest")
        ]
        if tree:
            pending += list(_referrers(root, digest))
    return found


def _tree(root, digest):
    """Return a manifest; nothing if the blob is none, or lost."""
    try:
        tree = json.loads((root / f"blobs/sha256/{digest[7:9]}/{digest[7:]}/data").read_bytes())
    except (OSError, ValueError):
        return {}
    return tree if isinstance(tree, dict) else {}


def _referrers(root, digest):
    for link in root.glob("repositories/*/_manifests/revisions/sha256/*/link"):
        other = "sha256:" + link.parent.name  # not what it says: it may be damaged
        if (_tree(root, other).get("subject") or {}).get("digest") == digest:
            yield other
    for link in root.glob(f"repositories/*/_manifests/tags/{digest.replace(':', '-')}/current/link"):
        yield link.read_text()


# --------------------------------------------------------------------------------------------------------------- kills


@pytest.mark.parametrize("mode", MODES)
def test_killed_anywhere_the_next_run_finishes(tmp_path, mode):
    randomness = random.Random(4)
    for kill in range(12):
        store = Builder(tmp_path / f"{mode}{kill}", now=NOW, age=10 * 86400.0)
        store.image("a", [b"kept %d" % number for number in range(5)], ["v1"])
        lost = {store.blob("a", b"lost %d" % number) for number in range(150)}
        store.image("a", [b"untagged"], config=b"untagged")
        if mode != "offline":
            look(store, mode)
        child = os.fork()
        if child == 0:
            try:
                collect(store, mode="online" if mode == "announced" else mode, grace=3600.0, delete_untagged=True)
            finally:
                os._exit(0)
        time.sleep(randomness.uniform(0.005, 0.12))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        assert_whole(store)
        for _visit in range(3):
            look(store, mode)
        assert_whole(store)
        assert not lost & store.blobs() and digest_of(b"untagged") not in store.blobs()
        assert not list((store.root / layout.TRASH).glob("*/*"))


# ---------------------------------------------------------------------------------------------------------------- lock


def test_one_run_at_a_time(store):
    sample(store)
    driver = filesystem.Filesystem(str(store.root))
    before = store.files()
    with lock.Lock(driver), pytest.raises(interface.StoreError, match="another run works on"):
        collect(store)
    assert store.files() == before
    assert collect(store).changed


def test_only_one_of_many_gets_the_lock(store):
    inside = []
    most = []

    def work():
        try:
            with lock.Lock(filesystem.Filesystem(str(store.root))):
                inside.append(1)
                most.append(len(inside))
                time.sleep(0.05)
                inside.pop()
        except interface.StoreError:
            pass

    threads = [threading.Thread(target=work) for _number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(most) <= {1}


def test_a_dead_owner_is_taken_over(store):
    driver = filesystem.Filesystem(str(store.root))
    child = os.fork()
    if child == 0:
        lock.Lock(driver).__enter__()
        os._exit(0)
    os.waitpid(child, 0)
    with lock.Lock(driver):
        pass
    driver.write(f"{lock.PREFIX}/other", json.dumps({"host": "elsewhere", "pid": 1, "process": "x y z"}).encode())
    with pytest.raises(interface.StoreError, match="on elsewhere"), lock.Lock(driver):
        pass
    old = time.time() - 2 * lock.TTL
    os.utime(store.root / lock.PREFIX / "other", (old, old))
    with lock.Lock(driver):
        pass


def test_a_lost_lock_is_noticed(store):
    driver = filesystem.Filesystem(str(store.root))
    with lock.Lock(driver, ttl=0.2) as held:
        held.require()
        for path in (store.root / lock.PREFIX).iterdir():
            path.unlink()
        time.sleep(0.4)
        with pytest.raises(lock.LockLost):
            held.require()


# ----------------------------------------------------------------------------------------------------------- bad input


def test_paths_that_are_no_registry(tmp_path):
    store = Builder(tmp_path / "store")
    with pytest.raises(interface.StoreError, match="does not exist"):
        gc.run(request(tmp_path / "nowhere"))
    with pytest.raises(interface.StoreError, match="no registry's storage"):
        gc.run(request(tmp_path))
    assert not (tmp_path / layout.OWN).exists()
    with pytest.raises(interface.StoreError, match="no absolute path"):
        gc.run(request("relative"))
    assert not collect(store).changed


@pytest.mark.parametrize(
    ("storage", "message"),
    [
        ({}, "names no storage"),
        ({"cache": {"blobdescriptor": "redis"}}, "names no storage"),
        ({"filesystem": {}, "s3": {}}, "exactly one"),
        ({"azure": {}}, "not supported"),
        ("filesystem", None),
        ([], "no dictionary"),
    ],
)
def test_storage_sections(storage, message):
    if message is None:
        assert interface.from_sections(storage).storage == {"filesystem": {}}
        return
    with pytest.raises(interface.StoreError, match=message):
        interface.from_sections(storage)


def test_config_files(tmp_path):
    path = tmp_path / "config.yml"
    with pytest.raises(interface.StoreError, match="cannot be read"):
        interface.read_config(str(path))
    path.write_text("version: 0.1\nhttp:\n  addr: :5000\n")
    with pytest.raises(interface.StoreError, match="no storage section"):
        interface.read_config(str(path))
    path.write_text("storage:\n  filesystem: {rootdirectory: /x}\n  cache: {blobdescriptor: redis}\n")
    with pytest.raises(interface.StoreError, match="no redis section"):
        interface.read_config(str(path))
    path.write_text("storage:\n  filesystem: {rootdirectory: /x}\n  cache: {blobdescriptor: inmemory}\n")
    settings = interface.read_config(str(path))
    with pytest.raises(interface.StoreError, match="cache in its memory"):
        gc.run(gc.Request(settings))
    path.write_text("storage: [")
    with pytest.raises(interface.StoreError, match="no YAML"):
        interface.read_config(str(path))


def test_too_much_is_refused(store):
    sample(store)
    before = store.files()
    with pytest.raises(interface.StoreError, match="max_delete_fraction"):
        collect(store, delete_untagged=True, max_delete_fraction=0.1)
    assert store.files() == before


@pytest.mark.parametrize("options", [{"max_delete_fraction": 2.0}, {"workers": 0}])
def test_wrong_numbers(store, options):
    with pytest.raises(interface.StoreError, match=next(iter(options))):
        collect(store, **options)


@pytest.mark.parametrize(("text", "seconds"), [("24h", 86400.0), ("0s", 0.0), ("1d12h", 129600.0), ("90s", 90.0)])
def test_durations(text, seconds):
    assert gc.read_grace(text) == seconds


@pytest.mark.parametrize("text", ["", "24", "h", "-1h", "1y", None])
def test_durations_that_are_none(text):
    with pytest.raises(interface.StoreError, match="grace: .* is no duration"):
        gc.read_grace(text)


def test_a_pattern_that_matches_nothing_warns(store):
    sample(store)
    result = collect(store, delete_untagged=True, repositories=("shop/none",))
    assert "repositories: shop/none matches no repository." in result.warnings
    assert result.values["manifests_deleted"] == 0


def test_a_store_that_cannot_be_read_whole_loses_nothing(store, monkeypatch):
    sample(store)
    before = store.files()

    class Blind(filesystem.Filesystem):
        def walk(self, prefix, skip=()):
            yield from super().walk(prefix, skip)
            if prefix == layout.REPOSITORIES:
                self.unreadable.append(Unreadable(layout.REPOSITORIES + "/secret", "Permission denied"))

    result = gc.run(request(store.root, delete_untagged=True), driver=Blind(str(store.root)))
    assert result.values["blobs_deleted"] == 0 and any("read whole" in warning for warning in result.warnings)
    assert {path for path in before if "/_uploads/" not in path} == set(store.files())


def test_a_read_only_store(store, monkeypatch):
    sample(store)
    before = store.files()

    def refuse(*_unused, **_more):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(filesystem.Filesystem, "write", refuse)
    with pytest.raises(interface.StoreError, match="cannot be written: Read-only"):
        collect(store)
    assert store.files() == before


def test_manifests_are_remembered_and_the_memory_may_go(store):
    sample(store)
    collect(store)
    memory = store.root / "wharf-gc/manifests.json.gz"
    driver = filesystem.Filesystem(str(store.root))
    graph = interface.read_graph(driver, interface.read_store(driver), memo.load(driver))
    assert graph.read == 0 and graph.manifests
    memory.write_bytes(b"damaged")
    assert memo.load(driver) == {}
    memory.unlink()
    assert memo.load(driver) == {}


def test_the_report(store, tmp_path):
    sample(store)
    report = tmp_path / "report.json"
    collect(store, delete_untagged=True, report=str(report))
    tree = json.loads(report.read_text())
    assert {item["digest"] for item in tree["plan"]["delete"]} >= {digest_of(b"orphan"), digest_of(b"untagged")}
    assert all(item["reason"] and item["size"] for item in tree["plan"]["delete"])


def test_as_a_command(store, tmp_path, capsys):
    sample(store)
    config = tmp_path / "config.yml"
    config.write_text(json.dumps({"storage": {"filesystem": {"rootdirectory": str(store.root)}}}))
    arguments = ["gc", "--config", str(config), "--mode", "offline", "--grace", "1h", "--max-delete-fraction", "1"]
    assert _cli.main([*arguments, "--delete-untagged", "--check"]) == 0
    check = json.loads(capsys.readouterr().out)
    assert _cli.main([*arguments, "--delete-untagged"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["bytes_freed"] == check["bytes_freed"] > 0 and result["changed"]
    assert _cli.main([*arguments[:-1], "7"]) == 1
    assert "max_delete_fraction" in capsys.readouterr().err
