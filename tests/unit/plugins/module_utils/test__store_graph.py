# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reading a storage, and what in it is alive."""

from __future__ import annotations

import os
import shutil

import pytest

from ansible_collections.wharf.registry.plugins.module_utils._store import interface, layout
from ansible_collections.wharf.registry.tests.unit.plugins.module_utils.store_builder import OCI_IMAGE, Builder, digest_of


@pytest.fixture
def store(tmp_path):
    """A storage to fill."""
    return Builder(tmp_path)


def read(store):
    """Return the graph of a storage."""
    driver = interface.open_store({"filesystem": {"rootdirectory": str(store.root)}})
    return interface.read_graph(driver, interface.read_store(driver))


def garbage(store, **policy):
    """Return the digests that nothing living refers to."""
    graph = read(store)
    return set(graph.snapshot.blobs) - interface.find_alive(graph, interface.Policy(**policy)).blobs


def kinds(graph):
    """Return the kinds of all findings."""
    return {finding.kind for finding in graph.snapshot.findings + graph.findings}


def test_an_image_is_read(store):
    image = store.image("shop/web", [b"one", b"two"], ["v1"])
    graph = read(store)
    repository = graph.snapshot.repositories["shop/web"]
    assert repository.tags["v1"].digest == image
    assert repository.tags["v1"].pushed > 0
    assert set(graph.manifests[image].layers) == {digest_of(b"one"), digest_of(b"two")}
    assert graph.manifests[image].config == digest_of(b"{}")
    assert graph.snapshot.blobs[digest_of(b"one")].size == 3
    assert not repository.faults and not kinds(graph)


def test_unreferenced_blobs_are_garbage(store):
    store.image("a", [b"kept"], ["v1"])
    assert garbage(store) == set()
    lost = store.blob("a", b"lost")
    assert garbage(store) == {lost}


def test_untagged_goes_only_when_told(store):
    old = store.image("a", [b"old"], config=b"old")
    store.image("a", [b"new"], ["v1"], config=b"new")
    assert garbage(store) == set()
    assert garbage(store, delete_untagged=True) == {old, digest_of(b"old")}
    assert garbage(store, delete_untagged=True, repositories=("b/**",)) == set()


def test_children_of_kept_indexes_live(store):
    children = [store.image("a", [b"amd"], config=b"1"), store.image("a", [b"arm"], config=b"2")]
    inner = store.index("a", children)
    store.manifest(
        "a",
        {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": [{"mediaType": "application/vnd.oci.image.index.v1+json", "digest": inner, "size": 1}],
        },
        ["v1"],
    )
    assert garbage(store, delete_untagged=True) == set()


def test_a_cache_of_buildkit_is_an_index_of_layers(store):
    layer = store.blob("a", b"cached")
    store.manifest(
        "a",
        {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": [{"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": layer, "size": 6}],
        },
        ["cache"],
    )
    assert garbage(store, delete_untagged=True) == set()
    assert not kinds(read(store))


def referrer(store, subject, content=b"sbom"):
    """Write an untagged artifact that describes an image."""
    return store.image("a", [content], subject={"mediaType": OCI_IMAGE, "digest": subject, "size": 1}, config=content)


def test_referrers_live_and_die_with_their_subject(store):
    subject = store.image("a", [b"x"], ["v1"])
    artifact = referrer(store, subject)
    signature = referrer(store, artifact, b"signature of the sbom")
    store.index("a", [artifact], [subject.replace(":", "-")])
    store.image("a", [b"sig"], [subject.replace(":", "-") + ".sig"], config=b"s")
    assert garbage(store, delete_untagged=True) == set()
    # The tag is gone: subject, artifact, its signature, the fallback index and cosign's signature go together.
    for name in ("current/link", "index/" + subject.replace(":", "/") + "/link"):
        os.unlink(store.path(f"repositories/a/_manifests/tags/v1/{name}"))
    assert garbage(store, delete_untagged=True) == store.blobs()
    alive = interface.find_alive(read(store), interface.Policy(delete_untagged=True))
    assert {tag for _repository, tag, _subject in alive.dead_tags} == {subject.replace(":", "-"), subject.replace(":", "-") + ".sig"}
    assert signature not in alive.blobs
    assert garbage(store) == set()


def test_a_signature_of_something_elsewhere_stays(store):
    other = digest_of(b"an image of another registry")
    store.image("signatures", [b"sig"], [other.replace(":", "-") + ".sig"])
    graph = read(store)
    alive = interface.find_alive(graph, interface.Policy(delete_untagged=True))
    assert set(graph.snapshot.blobs) == alive.blobs
    assert [finding.kind for finding in alive.findings] == ["describes-nothing"]


def test_signatures_in_a_repository_of_their_own(store):
    subject = store.image("shop/web", [b"x"], ["v1"])
    store.image("signatures", [b"sig"], [subject.replace(":", "-") + ".sig"], config=b"s")
    assert garbage(store, delete_untagged=True) == set()


@pytest.mark.parametrize("ending", ["", ".imgpkg"])
def test_a_tag_that_holds_the_manifest_it_names_is_an_ordinary_one(store, ending):
    image = store.image("mirror", [b"x"])
    store.tag("mirror", image.replace(":", "-") + ending, image)
    assert garbage(store, delete_untagged=True) == set()


def test_a_tag_of_another_tool_lives_and_dies_with_its_subject(store):
    subject = store.image("a", [b"x"], ["v1"])
    store.image("a", [b"statement"], [subject.replace(":", "-") + ".vex"], config=b"s")
    assert garbage(store, delete_untagged=True) == set()
    shutil.rmtree(store.path("repositories/a/_manifests/tags/v1"))
    assert garbage(store, delete_untagged=True) == store.blobs()


@pytest.mark.parametrize(
    ("tag", "subject"),
    [
        ("sha256-" + "a" * 64, "sha256:" + "a" * 64),
        ("sha256-" + "a" * 64 + ".sig", "sha256:" + "a" * 64),
        ("sha256-" + "a" * 64 + ".image-locations.imgpkg", "sha256:" + "a" * 64),
        ("sha512-" + "a" * 64, "sha512:" + "a" * 64),
        ("sha256-" + "b" * 64 + ".sig", ""),
        ("sha256-" + "a" * 63, ""),
        ("sha256-" + "a" * 65, ""),
        ("sha256-" + "a" * 64 + "-sig", ""),
        ("sha256-" + "A" * 64, ""),
        ("v1", ""),
    ],
)
def test_what_a_tag_describes(tag, subject):
    assert layout.described_by(tag, "sha256:" + "b" * 64) == subject


def test_schema_1(store):
    layer = store.blob("a", b"layer")
    store.manifest("a", {"schemaVersion": 1, "name": "a", "tag": "v1", "fsLayers": [{"blobSum": layer}], "history": []}, ["v1"])
    assert garbage(store, delete_untagged=True) == set()


def test_unknown_types_are_kept_with_all_that_they_mention(store):
    layer = store.blob("a", b"layer")
    store.manifest("a", {"mediaType": "application/x-new", "things": {"deep": [{"d": layer}]}})
    assert garbage(store, delete_untagged=True) == set()
    assert kinds(read(store)) == {"unknown-type"}


@pytest.mark.parametrize("damage", ["empty", "json", "gone", "digest", "link", "current", "no current"])
def test_nothing_goes_that_a_damaged_repository_may_refer_to(store, damage):
    image = store.image("a", [b"layer"], ["v1"])
    lost = store.blob("a", b"perhaps referred to")
    elsewhere = store.blob("b", b"garbage")
    value = image[7:]
    data = store.path(f"blobs/sha256/{value[:2]}/{value}/data")
    current = store.path("repositories/a/_manifests/tags/v1/current/link")
    {
        "empty": lambda: data.write_bytes(b""),
        "json": lambda: data.write_bytes(b"{"),
        "gone": data.unlink,
        "digest": lambda: data.write_bytes(b"{}"),
        "link": lambda: store.path(f"repositories/a/_manifests/revisions/{image.replace(':', '/')}/link").write_bytes(b""),
        "current": lambda: current.write_bytes(b""),
        "no current": current.unlink,
    }[damage]()
    graph = read(store)
    for policy in (interface.Policy(), interface.Policy(delete_untagged=True)):
        alive = interface.find_alive(graph, policy)
        assert lost in alive.blobs and digest_of(b"layer") in alive.blobs
        assert elsewhere not in alive.blobs
        assert [name for name, _reasons in alive.kept] == ["a"]
    assert kinds(graph)


def test_a_sparse_index_is_no_damage(store):
    child = store.image("a", [b"amd"], config=b"1")
    store.index("a", [child, digest_of(b"never pushed")], ["v1"])
    lost = store.blob("a", b"lost")
    graph = read(store)
    assert kinds(graph) == {"missing-child"} and not graph.snapshot.repositories["a"].faults
    assert garbage(store) == {lost}


def test_young_manifests_keep_what_they_refer_to(tmp_path):
    store = Builder(tmp_path, now=10_000.0, age=1000.0)
    layer = store.blob("a", b"old layer")
    store.age = 10.0
    young = store.image("a", [layer], config=b"y")
    assert garbage(store, delete_untagged=True, before=9_900.0) == set()
    assert garbage(store, delete_untagged=True, before=9_995.0) == {layer, young, digest_of(b"y")}


def test_a_manifest_that_lost_its_tag_lately_is_young(tmp_path):
    store = Builder(tmp_path, now=10_000.0, age=1000.0)
    old = store.image("a", [b"old"], ["latest"], config=b"old")
    store.age = 500.0
    middle = store.image("a", [b"middle"], ["latest"], config=b"middle")
    store.age = 10.0
    store.image("a", [b"new"], ["latest"], config=b"new")
    # The tag left `old` 500 seconds ago and `middle` 10 seconds ago.
    assert garbage(store, delete_untagged=True, before=9_900.0) == {old, digest_of(b"old")}
    assert middle in garbage(store, delete_untagged=True, before=9_995.0)


def test_files_that_mean_nothing(store):
    store.image("a", [b"x"], ["v1"])
    store.put("blobs/sha256/ab/junk", b"x")
    store.put("repositories/a/_layers/sha256/.nfs0001", b"x")
    store.put("repositories/a/_manifests/tags/v1/current/link.0b2.tmp", b"x")
    graph = read(store)
    assert kinds(graph) == {"junk"}
    assert not graph.snapshot.repositories["a"].faults


@pytest.mark.parametrize(
    ("pattern", "matching", "others"),
    [
        ("shop/*", ["shop/web"], ["shop", "shop/a/b", "shopping/web"]),
        ("shop/**", ["shop/web", "shop/a/b"], ["shop", "shopping"]),
        ("**", ["a", "a/b/c"], []),
        ("**/web", ["web", "shop/web", "a/b/web"], ["webs", "shop/webs"]),
        ("a?c", ["abc"], ["a/c", "ac"]),
        ("a.c", ["a.c"], ["abc"]),
    ],
)
def test_globs(pattern, matching, others):
    [(_pattern, match)] = interface.compile_globs([pattern])
    assert all(match(name) for name in matching)
    assert not any(match(name) for name in others)


def test_a_pattern_that_is_none():
    with pytest.raises(interface.StoreError, match=r"repositories: shop/\[a is no pattern: .*; write for example"):
        interface.compile_globs(["shop/[a"])


def test_layout_is_its_own_inverse():
    digest = digest_of(b"x")
    assert layout.parse(layout.blob_path(digest)) == layout.Item(layout.BLOB, "", digest)
    assert layout.parse(layout.layer_path("a/b", digest)) == layout.Item(layout.LAYER, "a/b", digest)
    assert layout.parse(layout.revision_path("a/b", digest)) == layout.Item(layout.REVISION, "a/b", digest)
    assert layout.parse(layout.tag_path("a/b", "v1")) == layout.Item(layout.TAG, "a/b", "", "v1")
    assert layout.parse(layout.history_path("a/b", "v1", digest)) == layout.Item(layout.HISTORY, "a/b", digest, "v1")
