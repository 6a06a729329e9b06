# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The stock garbage collection of distribution 3.1.2 is the oracle of registry_gc: on generated storages both delete the same blobs.

WHARF_ORACLE_STORES says how many storages. Damage and schema 1 are left out, where the stock tool aborts, and so is what known_wrong.py
lists, which is tested by name.
"""

from __future__ import annotations

import collections
import os
import random
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any, Iterator

import known_wrong
import pytest
import servers

from ansible_collections.wharf.registry.plugins.module_utils._store import gc, interface
from ansible_collections.wharf.registry.plugins.module_utils._store.manifests import DOCKER_2, DOCKER_LIST, OCI_IMAGE, OCI_INDEX
from ansible_collections.wharf.registry.tests.unit.plugins.module_utils.store_builder import Builder

STORES = int(os.environ.get("WHARF_ORACLE_STORES", "500"))
COVERED = (
    "image with two tags", "index in an index", "index without a tag", "layer in two repositories", "loose blob", "manifest list",
    "moved tag", "multi-arch image", "no tag at all", "referrers by fallback tag", "schema 2 image", "shared layer", "signature by tag",
    "untagged child of a tagged index", "untagged image",
)  # fmt: skip


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder in memory where there is one: thousands of small files are made and removed."""
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None) as name:
        yield Path(name)


def stock(root: Path, untagged: bool) -> None:
    """Run the stock tool."""
    config = root.parent / f"{root.name}.yml"
    config.write_text(f"version: 0.1\nstorage:\n  filesystem:\n    rootdirectory: {root}\n")
    command = [str(servers.images.registry()), "garbage-collect", *(["--delete-untagged"] if untagged else []), "--quiet", str(config)]
    done = subprocess.run(command, capture_output=True, text=True, env={"OTEL_TRACES_EXPORTER": "none"}, check=False)
    assert done.returncode == 0, done.stderr


def ours(root: Path, untagged: bool) -> gc.Result:
    """Run ours."""
    settings = interface.from_sections({"filesystem": {"rootdirectory": str(root)}})
    return gc.run(gc.Request(settings, mode="offline", grace=0.0, delete_untagged=untagged, max_delete_fraction=1.0))


class Maker:
    """Fills a storage by chance, and counts what it made."""

    def __init__(self, root: Path, seed: int, made: collections.Counter[str]) -> None:
        self.store = Builder(root)
        self.chance = random.Random(seed)
        self.made = made
        self._layers: dict[int, set[str]] = {}
        self._tags: dict[tuple[str, str], str] = {}

    def fill(self) -> Builder:
        """Make one to three repositories."""
        chance = self.chance
        for name in [f"{chance.choice(['a', 'b/c', 'd/e/f'])}{number}" for number in range(chance.randint(1, 3))]:
            self._repository(name)
        self.store.data(b"without a link %d" % chance.randint(0, 9))
        return self.store

    def _repository(self, name: str) -> None:
        chance = self.chance
        bare = chance.random() < 0.1
        manifests = [(self._image(name, number, bare), kind) for number, kind in enumerate(self._kinds(chance.randint(1, 6)))]
        tagged: set[str] = {digest for digest, _kind in manifests if digest in self._tags.values()}
        for number in range(chance.randint(0, 3)):
            children = chance.sample(manifests, chance.randint(0, len(manifests)))
            kind = chance.choice([OCI_INDEX, DOCKER_LIST])
            digest = self._index(name, number, kind, children, bare)
            if digest in self._tags.values():
                tagged.add(digest)
                self.made["untagged child of a tagged index"] += any(child not in tagged for child, _kind in children)
            manifests.append((digest, kind))
        for _number in range(chance.randint(0, 2)):
            self.store.blob(name, b"loose %d" % chance.randint(0, 9))
            self.made["loose blob"] += 1
        if bare:
            self.made["no tag at all"] += 1
            self.store.path(f"repositories/{name}/_manifests/tags").mkdir(parents=True, exist_ok=True)
        else:
            self._describe(name, self.store.image(name, [], ["root"], config=b"root"))

    def _kinds(self, count: int) -> list[str]:
        return [self.chance.choice([OCI_IMAGE, DOCKER_2]) for _ in range(count)]

    def _tag(self, name: str, digest: str, letter: str, bare: bool) -> bool:
        """Give a manifest a tag, two, or none."""
        chance = self.chance
        if bare or chance.random() < 0.5:
            return False
        tags = {f"{letter}{chance.randint(0, 3)}" for _ in range(chance.choice([1, 1, 2]))}
        self.made["image with two tags"] += len(tags) > 1
        for tag in sorted(tags):
            self.made["moved tag"] += self._tags.get((name, tag), digest) != digest
            self._tags[name, tag] = digest
            self.store.tag(name, tag, digest)
        return True

    def _image(self, name: str, number: int, bare: bool) -> str:
        chance, store = self.chance, self.store
        kind = chance.choice([OCI_IMAGE, DOCKER_2])
        layers = sorted({chance.randint(0, 12) for _ in range(chance.randint(0, 4))})
        for layer in layers:
            places = self._layers.setdefault(layer, set())
            self.made["shared layer"] += name in places
            self.made["layer in two repositories"] += bool(places - {name})
            places.add(name)
        self.made["schema 2 image"] += kind == DOCKER_2
        fields: dict[str, Any] = {"mediaType": kind}
        if kind == OCI_IMAGE:
            fields["annotations"] = {"n": str(number)}
        config = b"config %d" % (chance.randint(0, 5) if kind == OCI_IMAGE else 100 + number)
        digest = store.image(name, [b"layer %d" % layer for layer in layers], config=config, **fields)
        self.made["untagged image"] += not self._tag(name, digest, "t", bare)
        return digest

    def _index(self, name: str, number: int, kind: str, children: list[tuple[str, str]], bare: bool) -> str:
        platforms = [
            {"os": "linux", "architecture": "amd64"},
            {"os": "linux", "architecture": "arm64"},
            {"os": "unknown", "architecture": "unknown"},
        ]
        described = [
            self.store.descriptor(child, of, platform=platforms[place % 3], annotations={"i": str(number)})
            for place, (child, of) in enumerate(children)
        ]
        digest = self.store.manifest(name, {"schemaVersion": 2, "mediaType": kind, "manifests": described})
        self.made["multi-arch image"] += len(children) > 1
        self.made["index in an index"] += any(of in (OCI_INDEX, DOCKER_LIST) for _child, of in children)
        self.made["manifest list"] += kind == DOCKER_LIST
        self.made["index without a tag"] += not self._tag(name, digest, "i", bare)
        return digest

    def _describe(self, name: str, subject: str) -> None:
        """Describe an image that stays, in the two ways that registries without the referrers' API know."""
        chance, store = self.chance, self.store
        if chance.random() < 0.3:
            artifact = store.image(name, [b"sbom %s" % name.encode()], config=b"{}", subject=store.descriptor(subject, OCI_IMAGE))
            store.index(name, [artifact], [subject.replace(":", "-")])
            self.made["referrers by fallback tag"] += 1
        if chance.random() < 0.3:
            store.image(name, [b"signature %s" % name.encode()], [subject.replace(":", "-") + ".sig"], config=b"sig")
            self.made["signature by tag"] += 1


@pytest.mark.parametrize("untagged", [False, True], ids=["plain", "delete-untagged"])
def test_the_same_blobs_go(folder, untagged):
    deleted = 0
    made: collections.Counter[str] = collections.Counter()
    for number in range(STORES):
        theirs = Maker(folder / f"s{number}", number, made).fill()
        before = theirs.blobs()
        shutil.copytree(theirs.root, folder / f"o{number}")
        stock(theirs.root, untagged)
        mine = Builder(folder / f"o{number}")
        sizes = mine.files()
        result = ours(mine.root, untagged)
        assert mine.blobs() == theirs.blobs(), f"store {number}"
        assert result.values["bytes_freed"] == sum(sizes.values()) - sum(mine.files().values())
        deleted += len(before - mine.blobs())
        shutil.rmtree(theirs.root)
        shutil.rmtree(mine.root)
    print(f"{STORES} storages, {deleted} blobs deleted by both; {dict(sorted(made.items()))}")
    assert deleted
    assert [name for name in COVERED if not made[name]] == []


@pytest.mark.parametrize("case", known_wrong.CASES, ids=lambda case: case.name)
def test_known_wrong(folder, case):
    store, blob = known_wrong.fresh(folder / "ours", case)
    ours(store.root, True)
    assert (blob in store.blobs()) is case.kept
    store, blob = known_wrong.fresh(folder / "stock", case)
    stock(store.root, True)
    assert (blob in store.blobs()) is not case.kept, "the stock tool is right now: take the case off the list"
