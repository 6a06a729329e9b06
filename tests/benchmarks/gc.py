#!/usr/bin/env python3
# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Time garbage collection beside the stock `registry garbage-collect --delete-untagged` of distribution 3.1.2, on copies of one storage.

Both run as users run them, ours as `python3 wharf.pyz gc --mode offline --grace 0s --delete-untagged`, one after the other on this
machine, and must leave the same blobs and manifests. Cases:

    filesystem   8,000 manifests, 45,000 blobs in 200 repositories               wanted: 2 times faster
    tags         one repository with 5,000 tags and 500 untagged manifests       wanted: 100 times (the stock tool takes a quarter of an hour)
    s3           S3 on loopback, 27,000 objects                                  wanted: 4 times
    latency      the same with 10 ms more per request, 5,000 objects             wanted: 30 times (the stock tool asks one by one, for minutes)
    memory       a million objects, listed and planned; ours alone               wanted: less than 1 GiB

`filesystem` and `latency` also run ours a second time: it must read no manifest again. Fails if something wanted is missed.
Take a quiet machine; the load before each case and the processor time of both are printed, to tell when it was not.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / ".cache/bench"
sys.path[:0] = [str(ROOT / "tests/lab"), str(ROOT / ".cache/collections")]

import images  # noqa: E402
import local  # noqa: E402

from ansible_collections.wharf.registry.plugins.action.node_tools import MODULE_UTILS, zipapp_bytes  # noqa: E402
from ansible_collections.wharf.registry.plugins.module_utils._store import gc, interface, layout  # noqa: E402
from ansible_collections.wharf.registry.plugins.module_utils._store.driver import Driver, Entry  # noqa: E402
from ansible_collections.wharf.registry.plugins.module_utils._store.filesystem import Filesystem  # noqa: E402
from ansible_collections.wharf.registry.tests.unit.plugins.module_utils.store_builder import OCI_CONFIG, OCI_IMAGE, OCI_LAYER, Builder  # noqa: E402

WANTED = {"filesystem": 2.0, "tags": 100.0, "s3": 4.0, "latency": 30.0}
LATENCY_MS = 10
MEMORY_LIMIT = 1 << 30
WORK = FOLDER / "gc"


class Cost(NamedTuple):
    """What a run took: seconds, and seconds of processor time of its own process (not of an S3 server)."""

    wall: float
    processor: float

    def __str__(self) -> str:
        return f"{self.wall:.1f} s ({self.processor:.1f} s of processor time)"


def fill(root: Path, *, repositories: int, images_each: int, own: int, shared: int, untagged: int) -> Builder:
    """Build a storage. Each image has a configuration and ``own`` layers of its own, and two of the ``shared`` layers of its repository.

    Every ``untagged``-th image has no tag, the others have one each.
    """
    store = Builder(root)
    for number in range(repositories):
        name = f"team{number % 20}/app{number}"
        base = [store.blob(name, b"%d base %d" % (number, layer)) for layer in range(shared)]
        for image in range(images_each):
            layers = [b"%d %d %d" % (number, image, layer) for layer in range(own)]
            usual = [base[(image + step) % shared] for step in range(min(2, shared))]
            tags = [] if image % untagged == 0 else [f"1.{image}"]
            store.image(name, [*usual, *layers], tags, config=b"%d %d" % (number, image))
    return store


def run(command: list[str | Path], name: str) -> Cost:
    """Run a command, which must succeed."""
    log = WORK / f"{name}.log"
    with log.open("wb") as output:
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        begun = time.monotonic()
        code = subprocess.call(
            [str(part) for part in command], stdout=output, stderr=output, env={**os.environ, "OTEL_TRACES_EXPORTER": "none"}
        )
        wall = time.monotonic() - begun
        now = resource.getrusage(resource.RUSAGE_CHILDREN)
    if code:
        sys.exit(f"{name} failed, see {log}:\n{log.read_text(errors='replace')[-3000:]}")
    return Cost(wall, now.ru_utime + now.ru_stime - used.ru_utime - used.ru_stime)


def stock(storage: dict[str, object], name: str) -> Cost:
    """Run the stock tool."""
    return run([images.registry(), "garbage-collect", "--delete-untagged", "--quiet", config(storage, name)], name)


def ours(storage: dict[str, object], name: str, *more: str) -> Cost:
    """Run ours."""
    program = WORK / "wharf.pyz"
    program.write_bytes(zipapp_bytes(MODULE_UTILS))
    options = ["--mode", "offline", "--grace", "0s", "--delete-untagged", "--max-delete-fraction", "1", *more]
    return run([sys.executable, program, "gc", "--config", config(storage, name), *options], name)


def config(storage: dict[str, object], name: str) -> Path:
    """Write a registry's configuration (JSON is YAML)."""
    path = WORK / f"{name}.yml"
    path.write_text(json.dumps({"version": "0.1", "storage": storage}))
    return path


def judge(name: str, mine: Cost, theirs: Cost, what: str, load: float) -> bool:
    """Print the result of a case; return whether it is as wanted."""
    ratio = theirs.wall / mine.wall
    print(
        f"{name}: {what}: ours {mine}, stock {theirs}: {ratio:.1f} times (wanted: {WANTED[name]:g}); "
        f"{os.cpu_count()} cores, load before {load:.1f}",
        flush=True,
    )
    return ratio >= WANTED[name]


def compare(mine: set[str], theirs: set[str], before: set[str]) -> str:
    """Stop unless both left the same blobs and manifests; return how many went."""
    if mine != theirs:
        different = sorted(mine ^ theirs)
        sys.exit(f"not the same was left: {len(different)} differ, first {different[:3]}")
    kept = sum(1 for path in mine if path.startswith(layout.BLOBS))
    blobs = sum(1 for path in before if path.startswith(layout.BLOBS))
    return f"{blobs - kept} of {blobs} blobs deleted by both"


def essence(paths: Iterator[str]) -> set[str]:
    """Return the blobs and manifests among the files of a storage; the stock tool leaves other links than ours."""
    return {path for path in paths if layout.parse(path).kind in (layout.BLOB, layout.REVISION, layout.TAG)}


# --------------------------------------------------------------------------------------------------------- file systems


def on_files(name: str, store: Builder) -> bool:
    """Run both on copies of a storage."""
    before = essence(iter(store.files()))
    twin = Builder(store.root.with_name(f"{name}-stock"))
    shutil.rmtree(twin.root)
    subprocess.run(["cp", "-a", store.root, twin.root], check=True)
    os.sync()
    load = os.getloadavg()[0]
    mine = ours({"filesystem": {"rootdirectory": str(store.root)}}, f"{name}-ours")
    os.sync()
    theirs = stock({"filesystem": {"rootdirectory": str(twin.root)}}, f"{name}-stock")
    went = compare(essence(iter(store.files())), essence(iter(twin.files())), before)
    return judge(name, mine, theirs, went, load)


class CountingFilesystem(Filesystem):
    """Counts the manifests that are read."""

    manifests = 0

    def read(self, path: str) -> bytes:
        self.manifests += path.startswith(layout.BLOBS)
        return super().read(path)


def filesystem() -> bool:
    """Case: a storage of ordinary size."""
    store = fill(WORK / "filesystem", repositories=200, images_each=40, own=3, shared=25, untagged=4)
    good = on_files("filesystem", store)
    storage = {"filesystem": {"rootdirectory": str(store.root)}}
    cost = ours(storage, "filesystem-again", "--check")
    driver = CountingFilesystem(str(store.root))
    request = gc.Request(interface.from_sections(storage), mode="offline", grace=0.0, delete_untagged=True, max_delete_fraction=1.0)
    result = gc.run(request, check=True, driver=driver)
    print(f"filesystem: a second run: {cost}, {driver.manifests} manifests read, {'changes' if result.changed else 'no change'}")
    return good and not driver.manifests and not result.changed


def tags() -> bool:
    """Case: one repository with many tags."""
    return on_files("tags", fill(WORK / "tags", repositories=1, images_each=5500, own=1, shared=5, untagged=11))


# -------------------------------------------------------------------------------------------------------------------- S3


def keys(server: local.S3Server, bucket: str) -> set[str]:
    """Return the blobs and manifests in a bucket."""
    pages = server.client().get_paginator("list_objects_v2").paginate(Bucket=bucket)
    return essence(item["Key"] for page in pages for item in page.get("Contents", ()))


def s3() -> bool:
    """Case: S3 as near as it can be."""
    store = fill(WORK / "s3", repositories=200, images_each=8, own=5, shared=4, untagged=4)
    with local.S3Server(WORK / "s3-server") as server:
        count = len(store.files())
        server.load(store.root, sorted(store.files()), ["ours", "stock"])
        before = keys(server, "ours")
        load = os.getloadavg()[0]
        mine = ours({"s3": server.section("ours")}, "s3-ours")
        theirs = stock({"s3": server.section("stock")}, "s3-stock")
        went = compare(keys(server, "ours"), keys(server, "stock"), before)
    return judge("s3", mine, theirs, f"{count} objects, {went}", load)


def latency() -> bool:
    """Case: S3 some way off. The second run of ours must ask for no manifest."""
    store = fill(WORK / "latency", repositories=40, images_each=8, own=5, shared=4, untagged=4)
    with local.S3Server(WORK / "latency-server") as server:
        count = len(store.files())
        server.load(store.root, sorted(store.files()), ["ours", "stock"])
        before = keys(server, "ours")
        load = os.getloadavg()[0]
        costs, requests = {}, {}
        for name, tool, bucket in (("ours", ours, "ours"), ("again", ours, "ours"), ("stock", stock, "stock")):
            [port] = local.free_ports(1)
            report = WORK / f"latency-{name}.json"
            wire = local.Process(
                WORK,
                f"latency-{name}-wire",
                sys.executable,
                ROOT / "tests/benchmarks/delay.py",
                str(port),
                str(server.port),
                str(LATENCY_MS),
                report,
            )
            with wire:
                wire.wait_for(lambda port=port: local.is_open(port))
                costs[name] = tool({"s3": server.section(bucket, port)}, f"latency-{name}")
            requests[name] = json.loads(report.read_text())
        went = compare(keys(server, "ours"), keys(server, "stock"), before)
    for name, counted in requests.items():
        print(f"latency: {name}: {costs[name]}, {sum(counted.values())} requests: {counted}")
    good = judge("latency", costs["ours"], costs["stock"], f"{count} objects, {LATENCY_MS} ms, {went}", load)
    return good and not requests["again"].get("GET manifest or blob")


# ---------------------------------------------------------------------------------------------------------------- memory


class Imagined(Driver):
    """A storage of about so many objects that are nowhere: it says what a listing would, and the manifests' content."""

    label = "imagined"

    def __init__(self, objects: int, *, s3: bool) -> None:
        super().__init__(workers=4)
        self.local = not s3
        self._images = objects // 16
        self._places: dict[str, int] = {}

    def check(self) -> None:
        pass

    def now(self) -> float:
        return 1_000_000_000.0

    def partitions(self, prefix: str) -> list[str]:
        return [f"{prefix}#{part}" for part in range(64)]

    def _blob(self, number: int, part: int) -> str:
        return "sha256:" + hashlib.sha256(b"%d %d" % (number, part)).hexdigest()

    def _manifest(self, number: int) -> bytes:
        def descriptor(part: int, kind: str) -> dict[str, object]:
            return {"mediaType": kind, "digest": self._blob(number, part), "size": 1234567}

        tree = {"schemaVersion": 2, "mediaType": OCI_IMAGE, "config": descriptor(0, OCI_CONFIG)}
        return json.dumps({**tree, "layers": [descriptor(part, OCI_LAYER) for part in range(1, 6)]}).encode()

    def walk(self, prefix: str, skip: object = ()) -> Iterator[Entry]:
        prefix, _mark, part = prefix.partition("#")
        numbers = range(self._images) if not part else range(int(part), self._images, 64)
        for number in numbers:
            for path in self._paths(prefix, number):
                etag = "" if self.local else hashlib.md5(path.encode()).hexdigest()  # as many bytes as a true one
                yield Entry(path, 1234567 if path.endswith("data") else 71, 999_000_000.0 + number, etag)

    def _paths(self, prefix: str, number: int) -> Iterator[str]:
        manifest = self._manifest(number)
        digest = "sha256:" + hashlib.sha256(manifest).hexdigest()
        name = f"team{number % 50}/app{number % 1000}"
        blobs = [self._blob(number, part) for part in range(6)]
        if prefix == layout.BLOBS:
            self._places[layout.blob_path(digest)] = number
            yield from map(layout.blob_path, [digest, *blobs])
        elif prefix == layout.REPOSITORIES:
            yield layout.revision_path(name, digest)
            yield from (layout.layer_path(name, blob) for blob in blobs)
            if number % 4:
                self._places[layout.tag_path(name, f"1.{number}")] = number
                yield layout.tag_path(name, f"1.{number}")
                yield layout.history_path(name, f"1.{number}", digest)

    def read(self, path: str) -> bytes:
        number = self._places.get(path)
        if number is None:
            raise FileNotFoundError(2, "no such file", path)
        manifest = self._manifest(number)
        return manifest if path.endswith("data") else b"sha256:" + hashlib.sha256(manifest).hexdigest().encode()


def _plan_imagined(objects: int, s3: bool, queue: multiprocessing.Queue) -> None:
    """Plan in a process of its own; put what came of it and the most memory that the process had."""

    def peak() -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM"))

    bare = peak()
    interface.read_store(Imagined(objects, s3=s3))
    listed = peak()
    begun = time.monotonic()
    settings = interface.from_sections({"filesystem": {}})
    request = gc.Request(settings, mode="offline", grace=0.0, delete_untagged=True, max_delete_fraction=1.0)
    result = gc.run(request, check=True, driver=Imagined(objects, s3=s3))
    queue.put((bare, listed, peak(), time.monotonic() - begun, result.plan.blobs_total, len(result.plan.delete)))


def memory() -> bool:
    """Case: memory for a million objects."""
    good = True
    context = multiprocessing.get_context("spawn")
    for kind in ("file system", "S3"):
        queue = context.Queue()
        process = context.Process(target=_plan_imagined, args=(1_000_000, kind == "S3", queue))
        process.start()
        bare, listed, planned, seconds, blobs, delete = queue.get()
        process.join()
        print(
            f"memory: {kind}, a million objects, {blobs} blobs of which {delete} would go: {listed >> 20} MiB to list them, {planned >> 20} MiB to "
            f"plan, of which {bare >> 20} MiB are the program (wanted: less than {MEMORY_LIMIT >> 20} MiB); planned in {seconds:.0f} s",
            flush=True,
        )
        good = good and max(listed, planned) < MEMORY_LIMIT
    return good


CASES = {"filesystem": filesystem, "s3": s3, "memory": memory, "latency": latency, "tags": tags}


def main() -> int:
    """Run the cases; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"default: all of {', '.join(CASES)}")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where the storages are built (default: .cache/bench)")
    options = parser.parse_args()
    global WORK
    WORK = options.folder / f"gc-{os.getpid()}"
    signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))  # servers and storages go with it
    unknown = set(options.cases) - set(CASES)
    if unknown:
        parser.error(f"no such case: {', '.join(sorted(unknown))}; there are {', '.join(CASES)}")
    missed = []
    for name in options.cases or CASES:
        WORK.mkdir(parents=True)
        try:
            if not CASES[name]():
                missed.append(name)
        finally:
            shutil.rmtree(WORK)
    if missed:
        print(f"not as wanted: {', '.join(missed)}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
