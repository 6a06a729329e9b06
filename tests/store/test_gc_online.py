# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Garbage collection under fire: clients push and pull on three nodes while GC announces and deletes what they use again, and is killed.

Each node has an edge, which is nginx as the role registry_edge sets it up, and the listener of the role lifecycle.

Tags move all the time. A part of the pushes is of a few images that all clients share, so what they need was let go a moment ago; another
of images that come once, whose layers are hidden and deleted; the rest comes back after about as long as that takes. Every push that the
registry acknowledged must come back bit for bit, from another node and at the end once more. A push that fails because what it was told to be
there had just gone is counted, and must succeed when repeated once.

On a file system 2.8 empties a link before it writes it anew. Who reads it at that moment, because somebody else pushes the same image, gets
500. That has nothing to do with GC: such a request is repeated, and the registries' logs must have the reason as often.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import subprocess
import tempfile
import threading
import time
from pathlib import Path
from typing import Any, Iterator

import edges
import pytest
import servers

from ansible_collections.wharf.registry.plugins.action.node_tools import MODULE_UTILS, zipapp_bytes
from ansible_collections.wharf.registry.plugins.module_utils._registry.api import Registry, RegistryError, digest_of

SECONDS = float(os.environ.get("WHARF_FIRE_SECONDS", "120"))
GRACE = max(10, round(SECONDS / 10))  # longer than any push takes; the test checks that
EVERY = GRACE / 2
HEARD = 10  # until all listeners have acknowledged
CLIENTS = 20
SHARED_IMAGES = 100
SHARED_LAYERS = 80
TAGS = 2
OCI = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"
TORN = "invalid checksum digest format"


class Image:
    """An image that is the same whoever pushes it."""

    def __init__(self, number: int) -> None:
        chance = random.Random(number)
        numbers = [chance.randrange(SHARED_LAYERS) for _ in range(2)] + ([number] if number >= SHARED_IMAGES else [])
        self.layers = [b"layer %d " % one * 500 for one in dict.fromkeys(numbers)]
        self.config = json.dumps({"os": "linux", "architecture": "amd64", "image": number}).encode()
        content = {
            "schemaVersion": 2,
            "mediaType": OCI,
            "config": {"mediaType": CONFIG, "digest": digest_of(self.config), "size": len(self.config)},
            "layers": [{"mediaType": LAYER, "digest": digest_of(layer), "size": len(layer)} for layer in self.layers],
        }
        self.manifest = json.dumps(content).encode()


class Client(threading.Thread):
    """Pushes one image after the other under tags of its own, in a repository that it shares, and pulls them back."""

    def __init__(self, number: int, nodes: list[Registry], end: float) -> None:
        super().__init__()
        self.chance = random.Random(f"client {number}")
        self.number = number
        self.repository = f"shop/app{number % 4}"
        self.nodes = nodes
        self.end = end
        self.tags: dict[str, Image] = {}
        self.old: list[tuple[float, Image]] = []
        self.pushes = self.pulls = self.reused = self.torn = 0
        self.slowest = 0.0
        self.failed_pushes: list[str] = []
        self.wrong: list[str] = []

    def choose(self) -> Image:
        """Choose what to push: shared, new, or old enough to be hidden or about to be deleted."""
        kind = self.chance.random()
        if kind < 0.4:
            return Image(self.chance.randrange(SHARED_IMAGES))
        if kind < 0.7 and self.old and time.monotonic() - self.old[0][0] > GRACE * self.chance.uniform(1, 3.5):
            return self.old.pop(0)[1]
        image = Image(SHARED_IMAGES + self.number * 1_000_000 + self.pushes)
        self.old.append((time.monotonic(), image))
        return image

    def node(self) -> Registry:
        return self.chance.choice(self.nodes)

    def read(self, verb: str, *arguments: str) -> Any:
        """Ask a node; once more if it fails because a link is being written."""
        try:
            return getattr(self.node(), verb)(self.repository, *arguments)
        except RegistryError as error:
            if error.status != 500:
                raise
            self.torn += 1
            return getattr(self.node(), verb)(self.repository, *arguments)

    def push(self, tag: str, image: Image) -> None:
        """Push as docker does: ask for each blob, upload what is missing, then put the manifest."""
        for blob in (*image.layers, image.config):
            if self.read("has_blob", digest_of(blob)):
                self.reused += 1
            else:
                self.node().put_blob(self.repository, blob)
        self.node().put_manifest(self.repository, tag, image.manifest, OCI)

    def pull(self, tag: str, image: Image) -> None:
        """Pull by tag and compare every byte."""
        content, _kind, _digest = self.read("get_manifest", tag)
        assert content == image.manifest, "another manifest"
        for blob in (*image.layers, image.config):
            assert self.read("get_blob", digest_of(blob)) == blob
        self.pulls += 1

    def check(self, when: str, tag: str) -> None:
        try:
            self.pull(tag, self.tags[tag])
        except (RegistryError, AssertionError) as error:
            self.wrong.append(f"{time.strftime('%X')} {self.repository}:{tag} {when}: {error}")

    def run(self) -> None:
        while time.monotonic() < self.end:
            tag = f"c{self.number}-{self.chance.randrange(TAGS)}"
            image = self.choose()
            begun = time.monotonic()
            try:
                self.push(tag, image)
            except RegistryError as error:
                self.failed_pushes.append(f"{time.strftime('%X')} {self.repository}:{tag}: {error}")
                try:
                    self.push(tag, image)
                except RegistryError as again:
                    self.wrong.append(f"{time.strftime('%X')} {self.repository}:{tag} not healed by the first retry: {again}")
                    continue
            self.slowest = max(self.slowest, time.monotonic() - begun)
            self.pushes += 1
            self.tags[tag] = image
            self.check("right after the push", tag)
            time.sleep(self.chance.uniform(0, 0.6))
            self.check("a little later", self.chance.choice(list(self.tags)))


class Collector(threading.Thread):
    """Runs `wharf.pyz gc` again and again, and kills it now and then."""

    def __init__(self, program: Path, config: Path, end: float) -> None:
        super().__init__()
        self.command = ["/usr/bin/python3", str(program), "gc", "--config", str(config), "--grace", f"{GRACE}s", "--delete-untagged"]
        self.command += ["--max-delete-fraction", "1"]
        self.end = end
        self.chance = random.Random("collector")
        self.runs = self.killed = self.announced = self.deleted = self.manifests = 0
        self.errors: list[str] = []
        self.diary: list[str] = []

    def collect(self, kill: bool) -> None:
        begun = time.monotonic()
        process = subprocess.Popen(self.command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.runs += 1
        if kill:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(self.chance.uniform(0.5, 9))
            process.kill()
        output, errors = process.communicate()
        if process.returncode == 0:
            values = json.loads(output)
            self.announced = max(self.announced, values["blobs_announced"])
            self.deleted += values["blobs_deleted"]
            self.manifests += values["manifests_deleted"]
            told = f"{values['blobs_announced']} announced, {values['blobs_hidden']} hidden, {values['blobs_deleted']} deleted, {values['bytes_pending']} bytes pending"
            self.diary.append(f"{time.strftime('%X')} {time.monotonic() - begun:.0f} s: {told}")
        elif process.returncode == -9:
            self.killed += 1
        else:
            self.errors.append(errors.strip()[-500:])

    def run(self) -> None:
        while time.monotonic() < self.end:
            due = time.monotonic() + EVERY
            self.collect(kill=self.chance.random() < 0.3)
            time.sleep(max(1.0, due - time.monotonic()))
        self.collect(kill=False)
        # What that one announced can go now.
        time.sleep(GRACE + HEARD)
        self.collect(kill=False)


@contextlib.contextmanager
def cluster(release: str, storage: str, folder: Path, program: Path) -> Iterator[tuple[list[Registry], Path]]:
    """Three nodes over one storage, 3.x with Redis, 2.8 without a cache; yield clients of their edges and a registry's configuration."""
    with contextlib.ExitStack() as stack:
        sections: dict[str, Any] = {"storage": {"delete": {"enabled": True}, "maintenance": {"uploadpurging": {"enabled": False}}}}
        if storage == "s3":
            (folder / "s3").mkdir()
            sections["storage"]["s3"] = stack.enter_context(servers.s3_store(folder / "s3"))
        else:
            (folder / "data").mkdir()
            sections["storage"]["filesystem"] = {"rootdirectory": str(folder / "data")}
        if release.startswith("3"):
            sections["storage"]["cache"] = {"blobdescriptor": "redis"}
            sections["redis"] = {"addrs": [stack.enter_context(servers.redis_server(folder))]}
        nodes = [stack.enter_context(servers.registry(release, folder, sections)) for _ in range(3)]
        # nginx' workers have a user of their own, who must be able to look there.
        markers = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="wharf-markers-")))
        markers.chmod(0o755)
        clients = []
        for number, (_direct, config) in enumerate(nodes):
            name = f"node{number}"
            address = json.loads(config.read_text())["http"]["addr"]
            clients.append(stack.enter_context(edges.edge(folder / name, address, markers / name)))
            options = {"name": name, "config": str(config), "folder": str(markers / name), "log": str(folder / name / "logs/access.log")}
            (folder / f"{name}.json").write_text(json.dumps(options))
            command = ("/usr/bin/python3", program, "announced", "--config", folder / f"{name}.json")
            stack.enter_context(servers.local.Process(folder, f"listener-{number}", *command))
        yield clients, nodes[0][1]


@pytest.mark.parametrize(
    ("release", "storage"),
    [
        (servers.settings.REGISTRY_3, "filesystem"),
        pytest.param(servers.settings.REGISTRY_3, "s3", marks=pytest.mark.long),
        pytest.param("2.8.3", "s3", marks=pytest.mark.long),
        pytest.param("2.8.3", "filesystem", marks=pytest.mark.long),
    ],
)
def test_nothing_that_was_pushed_is_lost(release, storage, tmp_path):
    servers.apt_install("python3-boto3", "python3-redis", "python3-yaml")
    program = tmp_path / "wharf.pyz"
    program.write_bytes(zipapp_bytes(MODULE_UTILS))
    with cluster(release, storage, tmp_path, program) as (nodes, config):
        Client(CLIENTS, nodes, 0).push("first", Image(0))  # a storage that nobody pushed to is refused
        end = time.monotonic() + SECONDS
        clients = [Client(number, nodes, end) for number in range(CLIENTS)]
        collector = Collector(program, config, end)
        for thread in (*clients, collector):
            thread.start()
        for thread in (*clients, collector):
            thread.join()
        for client in clients:
            for tag in client.tags:
                client.check("at the end", tag)
    pushes = sum(client.pushes for client in clients)
    failed = [line for client in clients for line in client.failed_pushes]
    wrong = [line for client in clients for line in client.wrong]
    torn = sum(client.torn for client in clients)
    reasons = sum(path.read_text(errors="replace").count(TORN) for path in tmp_path.glob("registry-*.log"))
    print(
        f"\n{release} on {storage}, {SECONDS:.0f} s, grace {GRACE} s: {pushes} pushes ({sum(client.reused for client in clients)} blobs "
        f"found there), {len(failed)} failed once, slowest {max(client.slowest for client in clients):.1f} s; "
        f"{sum(client.pulls for client in clients)} pulls; {collector.runs} runs, {collector.killed} killed: up to {collector.announced} blobs announced, "
        f"{collector.deleted} deleted, {collector.manifests} manifests; {torn} requests found a link that was being written"
    )
    print("\n".join(collector.diary))
    print("\n".join(failed[:20]))
    assert not wrong, "\n".join(wrong[:20])
    assert torn <= reasons and (not torn or (release, storage) == ("2.8.3", "filesystem")), f"{torn} times 500, {reasons} with that reason"
    assert not collector.errors, collector.errors
    assert max(client.slowest for client in clients) < GRACE, "the machine is too slow for this grace"
    assert pushes > CLIENTS and collector.announced and collector.manifests and collector.deleted
