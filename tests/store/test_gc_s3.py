# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Garbage collection over a real S3 store: the same as on a file system, to the byte, and what is refused."""

from __future__ import annotations

import itertools
import json
import sys
import threading
import time
from pathlib import Path
from typing import Any, Iterator

import pytest
import servers

from ansible_collections.wharf.registry.plugins.module_utils import _announced, _lifecycle
from ansible_collections.wharf.registry.plugins.module_utils._store import gc, interface, layout, lock
from ansible_collections.wharf.registry.plugins.module_utils._store.s3 import S3
from ansible_collections.wharf.registry.tests.unit.plugins.module_utils.store_builder import Builder

ROOT = "pre/fix"


class Bucket:
    """A bucket of the S3 store, the registry's files in it below ROOT."""

    def __init__(self, client: Any, section: dict[str, Any]) -> None:
        self.client = client
        self.section = section
        self.name = section["bucket"]

    def fill(self, store: Builder) -> None:
        """Put a storage that was built on disk into the bucket."""
        for path in store.files():
            self.client.put_object(Bucket=self.name, Key=f"{ROOT}/{path}", Body=(store.root / path).read_bytes())

    def keys(self) -> dict[str, int]:
        """Return the registry's objects with their sizes; what registry_gc keeps for itself is left out."""
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.name, Prefix=f"{ROOT}/{layout.REGISTRY}/")
        return {item["Key"][len(ROOT) + 1 :]: item["Size"] for page in pages for item in page.get("Contents", ())}

    def uploads(self) -> list[str]:
        """Return the unfinished multipart uploads."""
        return [item["Key"] for item in self.client.list_multipart_uploads(Bucket=self.name).get("Uploads", ())]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """One S3 store for all tests; each has a bucket of its own."""
    with servers.local.S3Server(tmp_path_factory.mktemp("weed")) as running:
        yield running


@pytest.fixture
def bucket(server: Any, request: pytest.FixtureRequest) -> Bucket:
    """An empty bucket."""
    name = f"b{abs(hash(request.node.nodeid)) % 10**9}"
    client = server.client()
    client.create_bucket(Bucket=name)
    return Bucket(client, {**server.section(name), "rootdirectory": f"/{ROOT}"})


def sample(root: Path) -> Builder:
    """Images over shared layers, with and without tags, in three repositories; a blob that nobody needs; a multi-arch image."""
    store = Builder(root)
    for name in ("a", "b/c", "d/e/f"):
        images = [
            store.image(name, [b"shared", b"%s %d" % (name.encode(), number)], [f"t{number}"] if number % 2 else [], config=b"c%d" % number)
            for number in range(8)
        ]
        store.index(name, images[:3], ["multi"])
    store.blob("a", b"orphan")
    return store


def collect(section: dict[str, Any], *, check: bool = False, driver: Any = None, **options: Any) -> gc.Result:
    """Run once; offline without grace unless told otherwise."""
    request = gc.Request(
        interface.from_sections({"s3": section}),
        **{"mode": "offline", "grace": 0.0, "delete_untagged": True, "max_delete_fraction": 1.0, "settle": 0.0, **options},
    )
    return gc.run(request, check=check, driver=driver)


def test_the_same_goes_as_on_a_file_system(bucket: Bucket, tmp_path: Path) -> None:
    store = sample(tmp_path)
    bucket.fill(store)
    bucket.client.create_multipart_upload(Bucket=bucket.name, Key=f"{ROOT}/{layout.REPOSITORIES}/a/_uploads/1/data")
    time.sleep(1.1)  # S3 tells whole seconds: what is begun in this one is not older than `grace: 0`
    before = bucket.keys()
    check = collect(bucket.section, check=True)
    assert bucket.keys() == before
    result = collect(bucket.section)
    after = bucket.keys()
    assert result.values["bytes_freed"] == check.values["bytes_freed"] == sum(before.values()) - sum(after.values()) > 0
    assert bucket.uploads() == [] and result.values["uploads_purged"] == check.values["uploads_purged"] == 1
    files = gc.run(
        gc.Request(
            interface.from_sections({"filesystem": {"rootdirectory": str(tmp_path)}}),
            mode="offline", grace=0.0, delete_untagged=True, max_delete_fraction=1.0,
        )
    )  # fmt: skip
    assert after == store.files()
    assert files.values["blobs_deleted"] == result.values["blobs_deleted"] > 0
    assert not collect(bucket.section).changed


def test_online_takes_two_visits(bucket: Bucket, tmp_path: Path) -> None:
    bucket.fill(sample(tmp_path))
    time.sleep(2.1)
    first = collect(bucket.section, mode="online", grace=1.0)
    assert first.values["blobs_hidden"] and not first.values["blobs_deleted"]
    time.sleep(2.1)
    between = bucket.keys()
    second = collect(bucket.section, mode="online", grace=1.0)
    assert second.values["blobs_deleted"] == first.values["blobs_hidden"]
    assert second.values["bytes_freed"] == sum(between.values()) - sum(bucket.keys().values())


def test_announced_then_deleted_at_once(bucket: Bucket, tmp_path: Path) -> None:
    bucket.fill(sample(tmp_path))
    # Each step looks at the storage: its own pause between two looks is not what is tried here.
    listener = _announced.Listener(S3(bucket.section), "node1", str(tmp_path / "markers"), "", clock=itertools.count(0, 60).__next__)
    listener.step()
    time.sleep(2.1)
    before = bucket.keys()
    first = collect(bucket.section, mode="online", grace=1.0)
    assert first.values["blobs_announced"] and not first.values["blobs_hidden"] and bucket.keys() == before
    assert not collect(bucket.section, mode="online", grace=1.0).values["blobs_deleted"]
    listener.step()
    time.sleep(2.1)
    second = collect(bucket.section, mode="online", grace=1.0)
    assert second.values["blobs_deleted"] == first.values["blobs_announced"]
    assert second.values["bytes_freed"] == sum(before.values()) - sum(bucket.keys().values())


class Counting(S3):
    """Counts the reads of blobs."""

    reads = 0

    def read(self, path: str) -> bytes:
        type(self).reads += path.startswith(layout.BLOBS)
        return super().read(path)


def test_a_second_run_reads_no_manifest_again(bucket: Bucket, tmp_path: Path) -> None:
    bucket.fill(sample(tmp_path))
    Counting.reads = 0
    collect(bucket.section, driver=Counting(bucket.section))
    assert Counting.reads == 27  # three repositories with eight images and an index
    Counting.reads = 0
    collect(bucket.section, driver=Counting(bucket.section))
    assert Counting.reads == 0


def test_only_one_of_many_gets_the_lock(bucket: Bucket, tmp_path: Path) -> None:
    bucket.fill(sample(tmp_path))
    inside: list[int] = []
    most: list[int] = []

    def work() -> None:
        try:
            with lock.Lock(interface.open_store({"s3": bucket.section})):
                inside.append(1)
                most.append(len(inside))
                time.sleep(0.2)
                inside.pop()
        except interface.StoreError:
            pass

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(most) <= {1}
    with lock.Lock(interface.open_store({"s3": bucket.section})):
        pass


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"secretkey": "x"}, "check .*secretkey"),
        ({"accesskey": "x"}, "check .*accesskey"),
        ({"bucket": "vanished"}, "there is no such bucket"),
        ({"rootdirectory": "/elsewhere"}, "check bucket and rootdirectory"),
        ({"regionendpoint": "http://127.0.0.1:9"}, "cannot be listed"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_is_refused_changes_nothing(bucket: Bucket, tmp_path: Path, wrong: dict[str, str], message: str) -> None:
    bucket.fill(sample(tmp_path))
    before = bucket.keys()
    with pytest.raises(interface.StoreError, match=message):
        collect({**bucket.section, **wrong})
    assert bucket.keys() == before
    assert not bucket.client.list_objects_v2(Bucket=bucket.name, Prefix=f"{ROOT}/{layout.OWN}/").get("KeyCount")


def test_boto3_is_asked_for_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "boto3", None)
    with pytest.raises(interface.StoreError, match="install python3-boto3"):
        interface.open_store({"s3": {"bucket": "registry"}})


def test_the_use_of_a_bucket_is_told_against_its_quota(bucket: Bucket, tmp_path: Path) -> None:
    """What the daily run counted, on the node that did it and on another one alike, under one name; and nothing without a quota."""
    bucket.fill(sample(tmp_path / "data"))
    config = tmp_path / "config.yml"
    config.write_text(json.dumps({"version": 0.1, "storage": {"s3": bucket.section}}))
    told = {}
    for name, quota in (("registry1", "1MB"), ("registry2", "1MB"), ("registry3", "")):
        options: dict[str, Any] = {"name": name, "config": str(config), "at": "03:00", "usage": [], "quota": quota, "retention": {}}
        options["gc"] = {"grace": "1s", "delete_untagged": False, "max_delete_fraction": 1.0, "repositories": [], "timeout": 0}
        options.update(reports=str(tmp_path), metrics=str(tmp_path / f"{name}.prom"))
        (tmp_path / "lifecycle.json").write_text(json.dumps(options))
        assert _lifecycle.run(_lifecycle.read_options(str(tmp_path / "lifecycle.json")), lambda text: None)
        lines = (tmp_path / f"{name}.prom").read_text().splitlines()
        told[name] = {line.split()[0]: float(line.split()[1]) for line in lines if not line.startswith("#")}
    label = f'{{storage="s3://{bucket.name}/{ROOT}"}}'
    used = sum(bucket.keys().values())
    assert used > 5000
    assert told["registry1"][f"wharf_storage_size_bytes{label}"] == 1e6
    assert told["registry1"][f"wharf_storage_available_bytes{label}"] == 1e6 - used
    assert told["registry1"]["wharf_gc_stored_bytes"] == used
    assert {name: value for name, value in told["registry2"].items() if "storage" in name} == {
        name: value for name, value in told["registry1"].items() if "storage" in name
    }
    assert not [name for name in told["registry3"] if "storage" in name]
