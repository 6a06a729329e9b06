# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What registry_info tells: the arithmetic, what is read of a storage, and what a registry answers, misbehaving ones too."""

from __future__ import annotations

import random
import shutil
import threading
import time
from collections import Counter

import pytest

from ansible_collections.wharf.registry.plugins.module_utils._info.api import read_registry
from ansible_collections.wharf.registry.plugins.module_utils._info.contents import GATHER, InfoError, report
from ansible_collections.wharf.registry.plugins.module_utils._info.store import read_storage
from ansible_collections.wharf.registry.plugins.module_utils._registry.api import RegistryError, digest_of
from ansible_collections.wharf.registry.plugins.module_utils._store import gc, interface, layout, memo
from ansible_collections.wharf.registry.plugins.module_utils._store.filesystem import Filesystem
from ansible_collections.wharf.registry.tests.unit.plugins.module_utils.store_builder import OCI_CONFIG, OCI_IMAGE, OCI_INDEX, Builder

ALL = GATHER
AMD64 = b'{"os": "linux", "architecture": "amd64"}'
ARM64 = b'{"os": "linux", "architecture": "arm64", "variant": "v8"}'


def of_storage(store, patterns=(), gather=ALL):
    contents = read_storage(Filesystem(str(store.root)), patterns, gather)
    return report(contents, gather), contents.warnings


def by_name(entries):
    return {entry["name"]: entry for entry in entries}


@pytest.fixture
def store(tmp_path):
    return Builder(tmp_path)


# --------------------------------------------------------------------------------------------------------------- sizes


def test_each_blob_counts_once_where_it_is_used(store):
    base, web, extra = b"b" * 1000, b"w" * 200, b"x" * 30
    first = store.image("shop/web", [base, web], ["1", "latest"], config=AMD64)
    second = store.image("shop/web", [base, extra], ["2"], config=ARM64)
    third = store.image("shop/api", [base], ["1"], config=AMD64)
    other = store.image("tools/lint", [b"l" * 7], ["1"], config=b"{}")
    store.blob("shop/web", b"nobody refers to this")
    size = store.sizes
    values, warnings = of_storage(store)
    sizes = {name: entry["size"] for name, entry in by_name(values["repositories"]).items()}

    web_logical = (size[first] + len(AMD64) + 1200) + (size[second] + len(ARM64) + 1030)
    web_unique = size[first] + size[second] + len(ARM64) + 230
    web_shared = 1000 + len(AMD64)
    assert sizes["shop/web"] == {"logical": web_logical, "unique": web_unique, "shared": web_shared, "saved": 1000}
    assert sizes["shop/api"] == {"logical": size[third] + len(AMD64) + 1000, "unique": size[third], "shared": web_shared, "saved": 0}

    # Inside the project what both repositories use is its own, and counts once.
    projects = by_name(values["projects"])
    shop = projects["shop"]["size"]
    assert shop == {
        "logical": sizes["shop/web"]["logical"] + sizes["shop/api"]["logical"],
        "unique": web_unique + size[third] + web_shared,
        "shared": 0,
        "saved": 2000 + len(AMD64),
    }
    assert (projects["shop"]["repository_count"], projects["shop"]["tag_count"], projects["shop"]["manifest_count"]) == (2, 4, 3)
    total = values["totals"]
    assert total["size"]["unique"] == shop["unique"] + size[other] + 2 + 7
    assert total["storage"]["bytes"] == total["size"]["unique"] + len(b"nobody refers to this")
    assert total["storage"]["unreferenced_bytes"] == len(b"nobody refers to this")
    assert total["storage"]["blobs"] == len(store.blobs())
    assert (total["project_count"], total["repository_count"], total["tag_count"], total["manifest_count"]) == (2, 3, 5, 4)
    assert not warnings and not values["findings"]


def test_what_is_not_selected_still_shares(store):
    store.image("shop/web", [b"base"], ["1"], config=b"web")
    store.image("tools/lint", [b"base"], ["1"], config=b"lint")
    values, _warnings = of_storage(store, ["shop/**"])
    assert [entry["name"] for entry in values["repositories"]] == ["shop/web"]
    assert values["repositories"][0]["size"]["shared"] == 4
    assert values["totals"]["size"]["shared"] == 4
    assert values["totals"]["repository_count"] == 1


def test_an_index_adds_its_own_bytes_and_leads_to_its_images(store):
    children = [store.image("a", [b"common", layer], config=config) for layer, config in ((b"one", AMD64), (b"three", ARM64))]
    index = store.index("a", children, ["1"])
    size = store.sizes
    (repository,) = of_storage(store)[0]["repositories"]
    whole = size[index] + sum(size[child] for child in children) + len(AMD64) + len(ARM64) + 2 * 6 + 3 + 5
    assert repository["size"] == {"logical": whole, "unique": whole - 6, "shared": 0, "saved": 6}
    assert repository["tags"][0]["size"] == whole
    assert repository["digests"] == sorted([*children, index])


def test_nested_indexes_of_any_depth(store):
    digest = store.image("a", [b"layer"], config=AMD64)
    logical = store.sizes[digest] + 5 + len(AMD64)
    for _level in range(1500):
        # No platform in the descriptor: it is asked for all the way down.
        digest = store.index("a", [digest])
        logical += store.sizes[digest]
    store.tag("a", "deep", digest)
    (repository,) = of_storage(store)[0]["repositories"]
    assert repository["tags"][0]["size"] == repository["size"]["logical"] == logical
    assert repository["tags"][0]["platforms"] == ["linux/amd64"]


def test_what_is_missing_has_no_bytes(store):
    gone = digest_of(b"gone")
    image = store.image("a", [gone], ["1"])
    (repository,) = of_storage(store)[0]["repositories"]
    assert repository["size"]["logical"] == store.sizes[image] + 2


def test_an_empty_blob_named_twice_counts_once(store):
    image = store.image("a", [b"{}"], ["1"], config=b"{}", artifactType="application/x.sbom")
    (repository,) = of_storage(store)[0]["repositories"]
    assert repository["size"] == {"logical": store.sizes[image] + 2, "unique": store.sizes[image] + 2, "shared": 0, "saved": 0}
    assert repository["platforms"] == []


def test_sizes_agree_with_counting_by_hand(tmp_path):
    """Random stores, counted here in the obvious way."""
    for seed in range(30):
        chance = random.Random(seed)
        store = Builder(tmp_path / str(seed))
        uses: dict[str, list[list[str]]] = {}
        for name in ("a/x", "a/y", "b"):
            images, uses[name] = [], []
            for number in range(chance.randint(0, 5)):
                layers = list(dict.fromkeys(b"l%d" % chance.randint(0, 6) * chance.randint(1, 3) for _number in range(3)))
                config = b"c%d" % chance.randint(0, 3)
                digest = store.image(
                    name, layers, ["t%d" % number] if chance.random() < 0.6 else [], config=config, annotations={"n": name}
                )
                if digest not in images:
                    images.append(digest)
                    uses[name].append([digest, digest_of(config), *map(digest_of, layers)])
            if images:
                uses[name].append([store.index(name, chance.sample(images, len(images) // 2), ["all"], annotations={"n": name})])
        everywhere = Counter(blob for groups in uses.values() for blob in {blob for group in groups for blob in group})
        values, _warnings = of_storage(store)
        assert len(values["repositories"]) == sum(1 for groups in uses.values() if groups)
        for entry in values["repositories"]:
            groups = uses[entry["name"]]
            used = {blob for group in groups for blob in group}
            assert entry["size"]["logical"] == sum(store.sizes[blob] for group in groups for blob in set(group)), seed
            assert entry["size"]["unique"] == sum(store.sizes[blob] for blob in used if everywhere[blob] == 1), seed
            assert entry["size"]["shared"] == sum(store.sizes[blob] for blob in used if everywhere[blob] > 1), seed
        assert values["totals"]["size"]["unique"] == sum(store.sizes[blob] for blob in everywhere), seed
        assert values["totals"]["storage"]["unreferenced_bytes"] == 0


def test_unique_is_what_garbage_collection_frees_once_the_repository_is_gone(store):
    store.image("shop/web", [b"base" * 100, b"web"], ["1"], config=AMD64)
    store.image("shop/api", [b"base" * 100, b"api" * 50], ["1"], config=ARM64)
    entry = by_name(of_storage(store)[0]["repositories"])["shop/api"]
    shutil.rmtree(store.path("repositories/shop/api"))
    settings = interface.from_sections({"filesystem": {"rootdirectory": str(store.root)}})
    result = gc.run(gc.Request(settings, mode="offline", grace=0.0, max_delete_fraction=1.0))
    assert result.values["bytes_freed"] == entry["size"]["unique"]


# ----------------------------------------------------------------------------------------------------------- platforms


def descriptor(store, digest, **platform):
    return store.descriptor(digest, OCI_IMAGE, **({"platform": platform} if platform else {}))


def test_platforms_come_from_the_index_or_from_the_configuration(store):
    plain = store.image("a", [b"1"], ["plain"], config=ARM64)
    named = store.image("a", [b"2"], config=b"this configuration is not read")
    attestation = store.image("a", [b"3"], config=b'{"os": "unknown", "architecture": "unknown"}')
    artifact = store.manifest(
        "a",
        {
            "schemaVersion": 2,
            "mediaType": OCI_IMAGE,
            "config": store.descriptor(store.blob("a", b"\xff"), "application/vnd.cncf.helm"),
            "layers": [],
        },
        ["chart"],
    )
    store.manifest(
        "a",
        {
            "schemaVersion": 2,
            "mediaType": OCI_INDEX,
            "manifests": [
                descriptor(store, named, os="windows", architecture="amd64"),
                descriptor(store, attestation, os="unknown", architecture="unknown"),
                descriptor(store, plain),
            ],
        },
        ["index"],
    )
    store.image("b", [b"4"], ["attestation"], config=b'{"os": "unknown", "architecture": "unknown"}')
    values, _warnings = of_storage(store)
    first, second = values["repositories"]
    assert {tag["name"]: tag["platforms"] for tag in first["tags"]} == {
        "chart": [],
        "index": ["linux/arm64/v8", "windows/amd64"],
        "plain": ["linux/arm64/v8"],
    }
    assert first["platforms"] == ["linux/arm64/v8", "windows/amd64"]
    assert second["platforms"] == []
    assert values["totals"]["platforms"] == ["linux/arm64/v8", "windows/amd64"]
    assert not values["findings"], artifact


@pytest.mark.parametrize(
    "config, detail", [(b"\xff\xfe", "it is no JSON"), (b"[1]", "it is no JSON object"), (b"[" * 100000, "it is no JSON")]
)
def test_a_configuration_that_cannot_be_read_is_a_finding(store, config, detail):
    store.image("a", [b"1"], ["1"], config=config)
    values, _warnings = of_storage(store, gather=["platforms"])
    assert values["repositories"][0]["platforms"] == []
    assert values["findings"] == [
        {"kind": "unreadable", "repository": "a", "digest": digest_of(config), "detail": "the configuration of an image: " + detail}
    ]


@pytest.mark.parametrize("config", [b"{}", b'{"os": ""}', b'{"os": null, "architecture": "amd64"}'])
def test_a_configuration_without_a_platform(store, config):
    store.image("a", [b"1"], ["1"], config=config)
    values, _warnings = of_storage(store)
    assert values["repositories"][0]["platforms"] == [] and not values["findings"]


def test_configurations_are_read_only_when_platforms_are_asked_for(store, monkeypatch):
    store.image("a", [b"1"], ["1"], config=AMD64)
    read, plain = [], Filesystem.read
    monkeypatch.setattr(Filesystem, "read", lambda self, path: (read.append(path), plain(self, path))[1])
    of_storage(store, gather=["tags", "sizes"])
    assert layout.blob_path(digest_of(AMD64)) not in read
    of_storage(store, gather=["platforms"])
    assert read.count(layout.blob_path(digest_of(AMD64))) == 1
    read.clear()
    of_storage(store, gather=["tags"])
    assert read == [layout.tag_path("a", "1")]


# ------------------------------------------------------------------------------------------------- reading the storage


def test_times_tags_and_untagged_manifests(tmp_path):
    store = Builder(tmp_path, now=1_700_000_000.0)
    first = store.image("a", [b"1"], ["1"])
    store.now += 60
    second = store.image("a", [b"2"], ["1", "2"], config=b"2")
    store.now += 60
    third = store.image("a", [b"3"], config=b"3")
    values, _warnings = of_storage(store, gather=["tags"])
    assert values["repositories"] == [
        {
            "name": "a",
            "project": "a",
            "tag_count": 2,
            "manifest_count": 3,
            "last_push": "2023-11-14T22:15:20Z",
            "tags": [
                {"name": "1", "digest": second, "pushed": "2023-11-14T22:14:20Z"},
                {"name": "2", "digest": second, "pushed": "2023-11-14T22:14:20Z"},
            ],
            "digests": sorted([first, second, third]),
        }
    ]
    assert values["totals"]["last_push"] == values["projects"][0]["last_push"] == "2023-11-14T22:15:20Z"


def test_nothing_is_written(store):
    store.image("a", [b"1"], ["1"])
    before = {path: path.stat().st_mtime_ns for path in store.root.rglob("*")}
    of_storage(store)
    assert {path: path.stat().st_mtime_ns for path in store.root.rglob("*")} == before


def test_what_garbage_collection_remembers_is_used(store, monkeypatch):
    image = store.image("a", [b"1"], ["1"])
    driver = Filesystem(str(store.root))
    memo.save(driver, interface.read_graph(driver, interface.read_store(driver)).manifests)
    read, plain = [], Filesystem.read
    monkeypatch.setattr(Filesystem, "read", lambda self, path: (read.append(path), plain(self, path))[1])
    assert of_storage(store, gather=["sizes"])[0]["repositories"][0]["size"]["logical"] == store.sizes[image] + 3
    assert layout.blob_path(image) not in read


def test_repositories_without_tags_and_manifests_are_left_out(store):
    store.blob("probe", b"1")
    store.put("repositories/pushing/_uploads/1/startedat", b"2026-01-01T00:00:00Z")
    values, _warnings = of_storage(store)
    assert values["repositories"] == [] and values["projects"] == []
    assert values["totals"]["repository_count"] == 0 and values["totals"]["last_push"] is None
    assert values["totals"]["storage"]["unreferenced_bytes"] == 1


def test_damage_is_told_and_numbers_are_warned_about(store):
    image = store.image("a", [b"1"], ["1"])
    store.put("repositories/a/_manifests/tags/broken/current/link", b"")
    store.image("b", [digest_of(b"missing")], ["1"])
    values, warnings = of_storage(store)
    first = values["repositories"][0]
    assert first["tags"][1] == {"name": "broken", "digest": None, "pushed": first["tags"][1]["pushed"], "size": 0, "platforms": []}
    assert first["tags"][0]["digest"] == image
    assert {finding["kind"] for finding in values["findings"]} == {"broken-link", "zero-length", "missing-blob"}
    assert warnings == ["Not all could be read (a: tag broken is broken), so numbers may be too small; see findings."]
    values, warnings = of_storage(store, ["b"])
    assert {finding["kind"] for finding in values["findings"]} == {"missing-blob"} and not warnings


def test_a_pattern_that_matches_nothing_is_a_warning_and_one_that_is_none_an_error(store):
    store.image("a", [b"1"], ["1"])
    values, warnings = of_storage(store, ["a", "b/**"])
    assert warnings == ["repositories: b/** matches no repository."] and len(values["repositories"]) == 1
    with pytest.raises(interface.StoreError, match="is no pattern"):
        of_storage(store, ["a["])


def test_a_push_while_the_storage_is_listed_is_no_damage(store, monkeypatch):
    """Blobs are listed first: what is pushed after that has links to blobs that were not seen."""
    store.image("a", [b"1"], ["1"], config=AMD64)
    plain = Filesystem.walk

    def walk(self, prefix, skip=()):
        if prefix == layout.REPOSITORIES:
            store.image("a", [b"late" * 10], ["2"], config=ARM64)
        return plain(self, prefix, skip)

    monkeypatch.setattr(Filesystem, "walk", walk)
    values, warnings = of_storage(store)
    assert not values["findings"] and not warnings
    late = values["repositories"][0]["tags"][1]
    assert late["platforms"] == ["linux/arm64/v8"] and late["size"] > 40


def test_it_is_linear(tmp_path):
    """Twice the manifests take about twice the steps, however they share: counted in lookups of sizes, not in seconds."""

    def lookups(count):
        store = Builder(tmp_path / str(count))
        for number in range(count):
            store.image("a", [b"base", b"%d" % number], [str(number)], config=AMD64)
        store.index("a", [digest for digest in store.blobs() if store.sizes[digest] > 200], ["all"])
        contents = read_storage(Filesystem(str(store.root)), [], ALL)
        plain, asked = contents.size_of, []
        contents.size_of = lambda digest: (asked.append(digest), plain(digest))[1]
        report(contents, ALL)
        return len(asked)

    assert lookups(200) < 2.2 * lookups(100)


# ---------------------------------------------------------------------------------------------------- reading the API


class Fake(Builder):
    """A registry over a storage, with the methods of the client. `trouble` says what is to be answered instead."""

    origin = "https://registry.example.com"

    def __init__(self, root):
        super().__init__(root)
        self.trouble = {}  # (method, *arguments) -> list of errors, the last of which stays; None: no error
        self.asked = []
        self._lock = threading.Lock()

    def _hear(self, *call):
        with self._lock:
            self.asked.append(call)
            errors = self.trouble.get(call)
            error = errors.pop(0) if errors and len(errors) > 1 else errors[0] if errors else None
        if error is not None:
            raise error

    def ping(self):
        self._hear("ping")

    def list_repositories(self):
        self._hear("catalog")
        top = self.path("repositories")
        return sorted(str(folder.parent.relative_to(top)) for folder in top.glob("**/_manifests"))

    def list_tags(self, name):
        self._hear("tags", name)
        return sorted(folder.name for folder in self.path(f"repositories/{name}/_manifests/tags").glob("*"))

    def _digest(self, name, reference):
        link = self.root / layout.tag_path(name, reference)
        return reference if reference.startswith("sha256:") else link.read_text() if link.exists() else ""

    def head_manifest(self, name, tag):
        self._hear("head", name, tag)
        return self._digest(name, tag)

    def get_manifest(self, name, reference):
        self._hear("manifest", name, reference)
        digest = self._digest(name, reference)
        if not digest or not (self.root / layout.revision_path(name, digest)).exists():
            raise RegistryError("GET: HTTP 404 MANIFEST_UNKNOWN", 404)
        content = (self.root / layout.blob_path(digest)).read_bytes()
        return content, "", digest_of(content)

    def get_blob(self, name, digest):
        self._hear("blob", name, digest)
        if not (self.root / layout.blob_path(digest)).exists():
            raise RegistryError("GET: HTTP 404 BLOB_UNKNOWN", 404)
        return (self.root / layout.blob_path(digest)).read_bytes()

    def blob_size(self, name, digest):
        self._hear("size", name, digest)
        path = self.root / layout.blob_path(digest)
        return path.stat().st_size if path.exists() else None

    def count(self, method):
        return sum(1 for call in self.asked if call[0] == method)


@pytest.fixture
def fake(tmp_path):
    return Fake(tmp_path)


def of_api(fake, patterns=(), gather=ALL):
    contents = read_registry(fake, patterns, gather, 4, sleep=lambda seconds: None)
    return report(contents, gather), contents.warnings


def test_api_and_storage_agree(fake):
    children = [fake.image("shop/web", [b"base" * 50, layer], config=config) for layer, config in ((b"a", AMD64), (b"b", ARM64))]
    fake.index("shop/web", children, ["1", "latest"])
    fake.image("shop/api", [b"base" * 50], ["1"], config=AMD64)
    fake.image("lint", [b"l"], ["1", "2"], config=b"{}")
    theirs, warnings = of_api(fake)
    ours, _warnings = of_storage(fake)
    assert not warnings and not theirs["findings"]

    def without_times(value):
        if isinstance(value, dict):
            return {key: without_times(one) for key, one in value.items() if key not in ("last_push", "pushed", "storage")}
        return [without_times(one) for one in value] if isinstance(value, list) else value

    assert without_times(theirs) == without_times(ours)
    assert theirs["totals"]["storage"] is None and theirs["totals"]["last_push"] is None
    assert {tag["pushed"] for entry in theirs["repositories"] for tag in entry["tags"]} == {None}
    # Five tags and two children; each configuration once.
    assert (fake.count("manifest"), fake.count("blob"), fake.count("size"), fake.count("head")) == (7, 3, 0, 0)


def test_api_tags_alone_read_no_manifest(fake):
    digest = fake.image("a", [b"1"], ["1"])
    values, _warnings = of_api(fake, gather=["tags"])
    assert values["repositories"][0]["tags"] == [{"name": "1", "digest": digest, "pushed": None}]
    assert (fake.count("manifest"), fake.count("head")) == (0, 1)
    assert of_api(fake, gather=[])[0]["repositories"][0]["tag_count"] == 1


def test_api_names_without_wildcards_need_no_catalog(fake):
    fake.image("shop/web", [b"1"], ["1"])
    fake.trouble["catalog",] = [RegistryError("GET /v2/_catalog: HTTP 403 DENIED", 403)]
    values, warnings = of_api(fake, ["shop/web", "/shop/none/"])
    assert [entry["name"] for entry in values["repositories"]] == ["shop/web"]
    assert warnings == ["repositories: shop/none matches no repository with tags."]
    with pytest.raises(InfoError, match="repositories: .* catalog .* without wildcards"):
        of_api(fake, ["shop/*"])


def test_api_globs_choose_and_warn(fake):
    for name in ("shop/web", "shop/a/b", "lint"):
        fake.image(name, [b"1"], ["1"])
    values, warnings = of_api(fake, ["shop/*", "nothing/**"])
    assert [entry["name"] for entry in values["repositories"]] == ["shop/web"]
    assert warnings == ["repositories: nothing/** matches no repository."]
    assert ("tags", "lint") not in fake.asked


def test_api_sizes_that_no_manifest_names_are_asked_for(fake):
    config = fake.descriptor(fake.blob("a", AMD64), OCI_CONFIG)
    layers = [
        {"digest": fake.blob("a", b"here"), "size": 4, "urls": ["https://elsewhere"]},
        {"digest": digest_of(b"elsewhere"), "size": 9, "urls": ["https://elsewhere"]},
    ]
    windows = fake.manifest("a", {"schemaVersion": 2, "mediaType": OCI_IMAGE, "config": config, "layers": layers}, ["windows"])
    old = fake.manifest("a", {"schemaVersion": 1, "fsLayers": [{"blobSum": fake.blob("a", b"old")}]}, ["old"])
    for values, _warnings in (of_api(fake), of_storage(fake)):
        assert values["repositories"][0]["size"]["logical"] == fake.sizes[windows] + fake.sizes[old] + len(AMD64) + 3 + 4


def test_api_damage_is_told(fake):
    gone = digest_of(b"gone")
    fake.image("a", [b"1"], ["good"], config=AMD64)
    fake.index("a", [gone], ["sparse"])
    fake.manifest("a", b"<html>", ["junk"])
    fake.tag("a", "dangling", gone)
    fake.image("a", [b"2"], ["broken"], config=b"lost")
    (fake.root / layout.blob_path(digest_of(b"lost"))).unlink()
    fake.image("a", [b"3"], ["denied"])
    fake.trouble["manifest", "a", "denied"] = [RegistryError("GET: HTTP 500 UNKNOWN", 500)]
    values, warnings = of_api(fake)
    kinds = {(finding["kind"], finding.get("tag"), finding.get("digest")) for finding in values["findings"]}
    assert kinds == {
        ("missing-child", None, gone),
        ("invalid-manifest", "junk", digest_of(b"<html>")),
        ("missing-manifest", "dangling", None),
        ("missing-blob", None, digest_of(b"lost")),
        ("unreadable", "denied", None),
    }
    tags = by_name(values["repositories"][0]["tags"])
    assert (
        tags["dangling"]["digest"] is None
        and tags["junk"]["digest"] == digest_of(b"<html>")
        and tags["good"]["platforms"] == ["linux/amd64"]
    )
    assert warnings == ["Not all could be read (a: GET: HTTP 500 UNKNOWN), so numbers may be too small; see findings."]


def test_api_a_child_comes_from_whichever_repository_has_it(fake):
    child = fake.image("b", [b"1"], config=AMD64)
    for name in ("a", "b"):
        fake.index(name, [child], ["1"])
    values, _warnings = of_api(fake)
    assert [finding["repository"] for finding in values["findings"]] == ["a"]
    assert [entry["platforms"] for entry in values["repositories"]] == [["linux/amd64"]] * 2


def test_api_a_tag_deleted_meanwhile_is_no_damage(fake):
    fake.image("a", [b"1"], ["1", "2"])
    plain = fake.get_manifest

    def get_manifest(name, reference):
        if reference == "2":
            shutil.rmtree(fake.root / layout.tag_folder("a", "2"))
        return plain(name, reference)

    fake.get_manifest = get_manifest
    values, _warnings = of_api(fake)
    assert not values["findings"] and [tag["name"] for tag in values["repositories"][0]["tags"]] == ["1"]


def test_api_a_repository_that_may_not_be_read_is_told(fake):
    fake.image("a", [b"1"], ["1"])
    fake.image("secret", [b"1"], ["1"])
    fake.trouble["tags", "secret"] = [RegistryError("GET /v2/secret/tags/list: HTTP 403 DENIED", 403)]
    for patterns in ([], ["a", "secret"]):
        values, warnings = of_api(fake, patterns)
        assert [entry["tag_count"] for entry in values["repositories"]] == [1, 0]
        assert [(finding["kind"], finding["repository"]) for finding in values["findings"]] == [("unreadable", "secret")]
        assert "numbers may be too small" in warnings[0]


def test_api_a_short_outage_is_waited_for_and_a_long_one_ends_the_run(fake):
    for number in range(200):
        fake.image("a", [b"%d" % number], [str(number)])
    busy = RegistryError("GET: HTTP 503", 503)
    fake.trouble["manifest", "a", "7"] = [busy, RegistryError("no answer from 127.0.0.1:1: Connection reset"), None]
    assert of_api(fake)[0]["repositories"][0]["tag_count"] == 200
    fake.asked.clear()
    for number in range(200):
        fake.trouble["manifest", "a", str(number)] = [RegistryError("no answer from 127.0.0.1:1: Connection refused")]
    with pytest.raises(InfoError, match="url: no answer from 127.0.0.1:1: Connection refused; nothing is returned"):
        of_api(fake)
    # Those that were not begun are not asked any more.
    assert fake.count("manifest") < 30


@pytest.mark.parametrize(
    "error, message",
    [
        (
            RegistryError("GET /v2/: HTTP 401 UNAUTHORIZED", 401),
            "username, password: https://registry.example.com does not let this user in",
        ),
        (RegistryError("GET /v2/: HTTP 404", 404), "url: https://registry.example.com does not answer as a registry: GET /v2/: HTTP 404"),
        (RegistryError("no answer from 10.0.0.1:443: No route to host"), "url: no answer from 10.0.0.1:443: No route to host"),
    ],
)
def test_api_that_does_not_answer(fake, error, message):
    fake.trouble["ping",] = [error]
    with pytest.raises(InfoError, match=message):
        of_api(fake)
    assert len(fake.asked) == 1


def test_api_asks_several_at_a_time(fake):
    for number in range(12):
        fake.image("a", [b"%d" % number], [str(number)])
    plain, inside, most = fake.get_manifest, [], []

    def get_manifest(name, reference):
        inside.append(1)
        most.append(len(inside))
        time.sleep(0.02)
        inside.pop()
        return plain(name, reference)

    fake.get_manifest = get_manifest
    of_api(fake, gather=["sizes"])
    assert max(most) == 4
