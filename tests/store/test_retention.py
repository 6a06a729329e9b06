# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Retention against the real registry, 3.1.2 and 2.8.3, over a file system: what goes, what stays, and what a kill or a push in between does."""

from __future__ import annotations

import io
import json
import os
import socket
import subprocess
import tarfile
import time
from pathlib import Path

import pytest

from ansible_collections.wharf.registry.plugins.module_utils import _retention_apply, _retention_run
from ansible_collections.wharf.registry.plugins.module_utils._registry_api import Registry, RegistryError, digest_of
from ansible_collections.wharf.registry.plugins.module_utils._store import layout
from ansible_collections.wharf.registry.plugins.module_utils._store.filesystem import Filesystem

LAB = Path(os.environ.get("WHARF_LAB_STATE", "/var/lib/wharf-lab"))
STOCK = LAB / "tools/registry-v3.1.2"
ARCHIVE = LAB / "archives/registry-2.8.3.tar"
OCI = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
DAY = 86400


@pytest.fixture(scope="session")
def binaries(tmp_path_factory):
    """The registries that there are, by release."""
    found = {}
    if STOCK.exists():
        found["3.1.2"] = STOCK
    if ARCHIVE.exists():
        target = tmp_path_factory.mktemp("registry-2.8") / "registry"
        with tarfile.open(ARCHIVE) as archive:
            for layer in json.load(archive.extractfile("manifest.json"))[0]["Layers"]:
                with tarfile.open(fileobj=io.BytesIO(archive.extractfile(layer).read())) as content:
                    if "bin/registry" in content.getnames():
                        target.write_bytes(content.extractfile("bin/registry").read())
                        target.chmod(0o755)
                        found["2.8.3"] = target
    return found


class Server:
    """A registry on loopback over a directory."""

    def __init__(self, binary: Path, folder: Path, delete: bool = True) -> None:
        self.binary = binary
        self.root = folder / "data"
        self.root.mkdir()
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.config = folder / "config.yml"
        self.config.write_text(
            json.dumps(
                {
                    "version": 0.1,
                    "log": {"accesslog": {"disabled": True}, "level": "error"},
                    "storage": {"filesystem": {"rootdirectory": str(self.root)}, "delete": {"enabled": delete}},
                    "http": {"addr": f"127.0.0.1:{port}"},
                }
            )
        )
        self.log = open(folder / "log", "wb")  # noqa: SIM115 - closed by stop
        environment = {**os.environ, "OTEL_TRACES_EXPORTER": "none"}
        self.process = subprocess.Popen([binary, "serve", self.config], stdout=self.log, stderr=self.log, env=environment)
        self.client = Registry(f"http://127.0.0.1:{port}")
        for _attempt in range(100):
            try:
                self.client.ping()
                break
            except RegistryError:
                time.sleep(0.1)

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait()
        self.log.close()

    def push(self, repository: str, reference: str, text: str, subject: str = "", layers: tuple = ()) -> str:
        """Push an image whose layer is `text` and return its digest."""
        config = self.client.put_blob(repository, json.dumps({"os": "linux", "architecture": "amd64", "x": text}).encode())
        blobs = [self.client.put_blob(repository, layer.encode()) for layer in (text, *layers)]
        manifest = {
            "schemaVersion": 2,
            "mediaType": OCI,
            "config": {"mediaType": CONFIG, "digest": config, "size": 1},
            "layers": [{"mediaType": "application/octet-stream", "digest": blob, "size": 1} for blob in blobs],
        }
        if subject:
            manifest["subject"] = {"mediaType": OCI, "digest": subject, "size": 1}
        content = json.dumps(manifest).encode()
        return self.client.put_manifest(repository, reference or digest_of(content), content, OCI)

    def push_index(self, repository: str, reference: str, children: list) -> str:
        manifests = [{"mediaType": OCI, "digest": child, "size": 1} for child in children]
        content = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests}).encode()
        return self.client.put_manifest(repository, reference, content, INDEX)

    def age(self, repository: str, tag: str, days: float) -> None:
        """Make a tag look as if it had been pushed that long ago."""
        folder = self.root / layout.tag_folder(repository, tag)
        for link in folder.rglob("link"):
            os.utime(link, (time.time() - days * DAY,) * 2)

    def run(self, rules, check=False, api=False, **options):
        request = _retention_run.Request(
            rules=rules,
            storage={"filesystem": {"rootdirectory": str(self.root)}},
            registry=self.client if api else None,
            **options,
        )
        return _retention_run.run(request, check=check)

    def size(self) -> int:
        return sum(path.stat().st_size for path in (self.root / layout.BLOBS).rglob("data"))


@pytest.fixture(params=["3.1.2", "2.8.3"])
def server(request, binaries, tmp_path):
    if request.param not in binaries:
        pytest.skip(f"there is no registry {request.param} on this machine")
    running = Server(binaries[request.param], tmp_path)
    yield running
    running.stop()


@pytest.fixture
def server_3(binaries, tmp_path):
    if "3.1.2" not in binaries:
        pytest.skip("there is no registry 3.1.2 on this machine")
    running = Server(binaries["3.1.2"], tmp_path)
    yield running
    running.stop()


LAST_TWO = [{"repositories": ["shop/**"], "tags": {"exclude": ["latest"]}, "keep": {"last": 2}}]


def fill(server: Server) -> dict:
    """A repository with plain images, one image under two tags, multi-arch images that share a child, signatures, an untagged image."""
    made = {}
    for number in range(1, 5):
        made[str(number)] = server.push("shop/web", str(number), f"image {number}", layers=("base",))
        server.age("shop/web", str(number), 10 - number)
    same, kind, _digest = server.client.get_manifest("shop/web", "1")
    server.client.put_manifest("shop/web", "latest", same, kind)
    child = [server.push("shop/web", "", f"child {number}") for number in range(3)]
    made["child"] = child
    made["old-index"] = server.push_index("shop/web", "old-index", [child[0], child[1]])
    server.age("shop/web", "old-index", 50)
    made["index"] = server.push_index("shop/web", "index", [child[1], child[2]])
    server.age("shop/web", "index", 0)
    for number in ("2", "4"):
        made["sig" + number] = server.push("shop/web", made[number].replace(":", "-") + ".sig", f"signature {number}")
    made["referrer"] = server.push("shop/web", "", "referrer of 2", subject=made["2"])
    made["untagged"] = server.push("shop/web", "", "untagged")
    made["other"] = server.push("tools/lint", "1", "image 2", layers=("base",))
    return made


@pytest.mark.parametrize("api", [False, True], ids=["on the storage", "through the API"])
def test_rules_are_carried_out_and_nothing_else(server, api):
    made = fill(server)
    preview = server.run(LAST_TWO, check=True, api=api)
    listed = sorted(server.client.list_tags("shop/web"))
    result = server.run(LAST_TWO, api=api)
    gone = {each["tag"] for each in result["decisions"] if each["decision"] == "delete"}
    assert gone == {"1", "2", "3", "old-index", made["2"].replace(":", "-") + ".sig"}
    assert [(each["tag"], each["decision"]) for each in preview["decisions"]] == [
        (each["tag"], each["decision"]) for each in result["decisions"]
    ]
    assert {name: preview[name] for name in ("deleted", "kept", "manifests_deleted", "bytes_reclaimable", "changed")} == {
        name: result[name] for name in ("deleted", "kept", "manifests_deleted", "bytes_reclaimable", "changed")
    }
    assert result["findings"] == []
    assert sorted(server.client.list_tags("shop/web")) == sorted(set(listed) - gone)
    # The image of tag 1 has another tag; the second child belongs to an index that stays.
    for name in ("1", "4", "index", "untagged", "sig4"):
        assert server.client.head_manifest("shop/web", made[name]) == made[name], name
    assert [bool(server.client.head_manifest("shop/web", child)) for child in made["child"]] == [False, True, True]
    for name in ("2", "3", "old-index", "sig2", "referrer"):
        assert server.client.head_manifest("shop/web", made[name]) == "", name
    assert server.client.head_manifest("tools/lint", "1") == made["other"]
    again = server.run(LAST_TWO, api=api)
    assert (again["changed"], again["deleted"], again["manifests_deleted"]) == (False, 0, 0)


def test_what_is_reclaimable_is_what_the_stock_collection_frees(server_3):
    fill(server_3)
    stock = [server_3.binary, "garbage-collect", server_3.config]
    result = server_3.run(LAST_TWO)
    before = server_3.size()
    subprocess.run(stock, check=True, capture_output=True, env={**os.environ, "OTEL_TRACES_EXPORTER": "none"})
    assert before - server_3.size() == result["bytes_reclaimable"] > 0


def test_a_registry_that_forbids_deleting_is_named(binaries, tmp_path):
    if "3.1.2" not in binaries:
        pytest.skip("there is no registry 3.1.2 on this machine")
    server = Server(binaries["3.1.2"], tmp_path, delete=False)
    try:
        fill(server)
        tags = server.client.list_tags("shop/web")
        with pytest.raises(_retention_apply.ApplyError, match="storage.delete.enabled"):
            server.run(LAST_TWO, api=True)
        assert server.client.list_tags("shop/web") == tags
        assert server.run(LAST_TWO)["deleted"] == 5, "on the storage it works"
    finally:
        server.stop()


class Killed(BaseException):
    """The process is gone."""


@pytest.mark.parametrize("after", range(1, 11))
def test_a_killed_run_is_finished_by_the_next(server_3, monkeypatch, after):
    made = fill(server_3)
    moves = []
    move = Filesystem.move

    def stop(self, source, target):
        if len(moves) == after:
            raise Killed
        moves.append(source)
        move(self, source, target)

    monkeypatch.setattr(Filesystem, "move", stop)
    # What runs at the end of the process does not, either.
    recover = _retention_apply.recover
    monkeypatch.setattr(_retention_apply, "recover", lambda driver, journal: recover(driver, journal) if len(moves) != after else [])
    try:
        server_3.run(LAST_TWO)
    except Killed:
        pass
    monkeypatch.undo()
    for name in ("4", "index", "latest"):
        assert server_3.client.head_manifest("shop/web", name)
    server_3.run(LAST_TWO)
    for name in ("2", "3", "old-index", "sig2", "referrer"):
        assert server_3.client.head_manifest("shop/web", made[name]) == "", name
    for name in ("1", "4", "index", "untagged", "sig4"):
        assert server_3.client.head_manifest("shop/web", made[name]) == made[name], name
    assert [path for path in (server_3.root / _retention_apply.FOLDER).rglob("*") if path.is_file()] == []
    assert server_3.run(LAST_TWO)["changed"] is False


@pytest.mark.parametrize("same", [True, False], ids=["the same image", "another image"])
@pytest.mark.parametrize("api", [False, True], ids=["on the storage", "through the API"])
def test_a_tag_that_is_pushed_again_meanwhile_stays(server_3, monkeypatch, api, same):
    """Somebody pushes right before the tag is moved away (or before it is looked at for the last time)."""
    made = fill(server_3)
    pushed = []
    stat, move = Filesystem.stat, Filesystem.move

    def push():
        if not pushed:
            pushed.append("")
            pushed[0] = server_3.push("shop/web", "2", "image 2" if same else "image 2 anew", layers=("base",))

    def look(self, path):
        if api and path == layout.tag_path("shop/web", "2"):
            push()
        return stat(self, path)

    def late(self, source, target):
        if not api and source == layout.tag_folder("shop/web", "2"):
            push()
        move(self, source, target)

    monkeypatch.setattr(Filesystem, "stat", look)
    monkeypatch.setattr(Filesystem, "move", late)
    result = server_3.run(LAST_TWO, api=api)
    monkeypatch.undo()
    assert pushed
    assert server_3.client.head_manifest("shop/web", "2") == pushed[0]
    assert server_3.client.head_manifest("shop/web", pushed[0]) == pushed[0]
    assert same == (pushed[0] == made["2"])
    assert [each["problem"] for each in result["findings"]] == ["was pushed again after it was looked at, so it stays"]
    server_3.run(LAST_TWO)
    assert server_3.client.head_manifest("shop/web", "2") == pushed[0], "it is young now"


def test_a_manifest_that_is_tagged_anew_meanwhile_stays(server_3, monkeypatch):
    made = fill(server_3)
    content, kind, _digest = server_3.client.get_manifest("shop/web", "old-index")
    move = Filesystem.move
    done = []

    def late(self, source, target):
        if "revisions" in source and not done:
            done.append(1)
            server_3.client.put_manifest("shop/web", "rescued", content, kind)
        move(self, source, target)

    monkeypatch.setattr(Filesystem, "move", late)
    server_3.run(LAST_TWO)
    monkeypatch.undo()
    assert done
    assert server_3.client.head_manifest("shop/web", "rescued") == made["old-index"]
    for child in made["child"][:2]:
        assert server_3.client.head_manifest("shop/web", child) == child
    rescued = [*LAST_TWO, {"repositories": ["**"], "tags": {"include": ["rescued"]}, "keep": {"last": 1}}]
    server_3.run(rescued)
    assert server_3.client.head_manifest("shop/web", "rescued") == made["old-index"]


def test_a_damaged_repository_loses_no_manifest(server_3):
    made = fill(server_3)
    link = server_3.root / layout.tag_path("shop/web", "4")
    link.write_bytes(b"")
    result = server_3.run(LAST_TWO)
    assert result["manifests_deleted"] == 0
    assert any("no manifest is removed here" in each.get("problem", "") for each in result["findings"])
    for name in ("2", "3", "4", "old-index"):
        assert server_3.client.head_manifest("shop/web", made[name]) == made[name]


@pytest.mark.parametrize(
    ("storage", "words"),
    [
        ({"filesystem": {"rootdirectory": "/proc"}}, "no registry's storage"),
        ({"filesystem": {"rootdirectory": "/nowhere/at/all"}}, "does not exist"),
        ({"filesystem": {}, "s3": {}}, "exactly one"),
        ({}, "names no storage"),
    ],
)
def test_a_storage_that_is_none_is_refused(storage, words):
    with pytest.raises(_retention_run.ERRORS, match=words):
        _retention_run.run(_retention_run.Request(rules=LAST_TWO, storage=storage), check=False)
