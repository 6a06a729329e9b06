# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The stock garbage collection of distribution 3.1.2 is the oracle of registry_gc: on generated stores both delete the same blobs.

Where the stock tool is known to be wrong the stores are built without that case, and each has a test of its own below:

- an untagged artifact whose subject is kept: the stock tool does not know `subject` and deletes it;
- fallback tags (`sha256-<hex>`) of a subject that is gone: the stock tool keeps them for ever.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from ansible_collections.wharf.registry.plugins.module_utils._store import gc, interface
from ansible_collections.wharf.registry.tests.unit.plugins.module_utils.store_builder import Builder

STOCK = Path(os.environ.get("WHARF_LAB_STATE", "/var/lib/wharf-lab")) / "tools/registry-v3.1.2"
STORES = int(os.environ.get("WHARF_ORACLE_STORES", "500"))
pytestmark = pytest.mark.skipif(not STOCK.exists(), reason=f"{STOCK} is missing: python3 tests/lab/lab.py up builds it")


def stock(root: Path, untagged: bool) -> None:
    """Run the stock tool."""
    config = root.parent / f"{root.name}.yml"
    config.write_text(f"version: 0.1\nstorage:\n  filesystem:\n    rootdirectory: {root}\n")
    command = [str(STOCK), "garbage-collect", *(["--delete-untagged"] if untagged else []), "--quiet", str(config)]
    done = subprocess.run(command, capture_output=True, text=True, env={"OTEL_TRACES_EXPORTER": "none"}, check=False)
    assert done.returncode == 0, done.stderr


def ours(root: Path, untagged: bool) -> gc.Result:
    """Run ours."""
    settings = interface.from_sections({"filesystem": {"rootdirectory": str(root)}})
    return gc.run(gc.Request(settings, mode="offline", grace=0.0, delete_untagged=untagged, max_delete_fraction=1.0))


def build(root: Path, chance: random.Random) -> Builder:
    """Make a store: images over shared layers in several repositories, nested indexes, moved tags, loose blobs."""
    store = Builder(root)
    names = [f"{chance.choice(['a', 'b/c', 'd/e/f'])}{number}" for number in range(chance.randint(1, 3))]
    for name in names:
        manifests = []
        for number in range(chance.randint(1, 6)):
            layers = [b"layer %d" % chance.randint(0, 12) for _ in range(chance.randint(0, 4))]
            tags = [f"t{chance.randint(0, 3)}"] if chance.random() < 0.5 else []
            manifests.append(
                store.image(
                    name, list(dict.fromkeys(layers)), tags, config=b"config %d" % chance.randint(0, 5), annotations={"n": str(number)}
                )
            )
        for number in range(chance.randint(0, 3)):
            children = chance.sample(manifests, chance.randint(0, len(manifests)))
            tags = [f"i{chance.randint(0, 2)}"] if chance.random() < 0.5 else []
            manifests.append(store.index(name, children, tags, annotations={"i": str(number)}))
        for _number in range(chance.randint(0, 2)):
            store.blob(name, b"loose %d" % chance.randint(0, 9))
        store.image(name, [], ["root"], config=b"root")
    store.data(b"without a link %d" % chance.randint(0, 9))
    return store


@pytest.mark.parametrize("untagged", [False, True])
def test_the_same_blobs_go(tmp_path, untagged):
    deleted = 0
    for number in range(STORES):
        theirs = build(tmp_path / f"s{number}", random.Random(number))
        before = theirs.blobs()
        shutil.copytree(theirs.root, tmp_path / f"o{number}")
        stock(theirs.root, untagged)
        mine = Builder(tmp_path / f"o{number}")
        sizes = mine.files()
        result = ours(mine.root, untagged)
        assert mine.blobs() == theirs.blobs(), f"store {number}"
        assert result.values["bytes_freed"] == sum(sizes.values()) - sum(mine.files().values())
        deleted += len(before - mine.blobs())
        shutil.rmtree(theirs.root)
        shutil.rmtree(mine.root)
    print(f"{STORES} stores, {deleted} blobs deleted by both")
    assert deleted


def test_known_wrong_an_artifact_of_a_kept_subject(tmp_path):
    stores = [Builder(tmp_path / name) for name in ("ours", "stock")]
    for store in stores:
        subject = store.image("a", [b"x"], ["v1"])
        artifact = store.image("a", [b"sbom"], config=b"a", subject=store.descriptor(subject, "application/vnd.oci.image.manifest.v1+json"))
    ours(stores[0].root, True)
    stock(stores[1].root, True)
    assert artifact in stores[0].blobs() and artifact not in stores[1].blobs()


def test_known_wrong_a_fallback_tag_of_what_is_gone(tmp_path):
    stores = [Builder(tmp_path / name) for name in ("ours", "stock")]
    for store in stores:
        store.image("a", [b"kept"], ["v1"], config=b"kept")
        subject = store.image("a", [b"x"])
        signature = store.image("a", [b"sig"], [subject.replace(":", "-") + ".sig"], config=b"s")
    ours(stores[0].root, True)
    stock(stores[1].root, True)
    assert signature not in stores[0].blobs() and signature in stores[1].blobs()


def test_one_repository_with_many_tags_is_quick(tmp_path):
    stores = [Builder(tmp_path / name) for name in ("ours", "stock")]
    for store in stores:
        for number in range(300):
            store.image("a", [b"l%d" % number], [f"t{number}"] if number % 3 else [], config=b"c%d" % number)
    begun = time.monotonic()
    ours(stores[0].root, True)
    mine = time.monotonic() - begun
    stock(stores[1].root, True)
    theirs = time.monotonic() - begun - mine
    assert stores[0].blobs() == stores[1].blobs()
    print(f"300 manifests, 200 tags: ours {mine:.2f} s, stock {theirs:.2f} s, {theirs / mine:.0f} times")
