# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Retention against the real registry of both generations, over a file system and over S3: what goes, what stays, and what a kill or a push in between does."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import threading
import time
from pathlib import Path
from typing import Any, Iterator

import pytest
import servers  # makes the lab's own modules known
from local import S3Server

from ansible_collections.wharf.registry.plugins.module_utils._registry.api import Registry, digest_of
from ansible_collections.wharf.registry.plugins.module_utils._retention import deletion
from ansible_collections.wharf.registry.plugins.module_utils._retention import run as retention_run
from ansible_collections.wharf.registry.plugins.module_utils._store import gc, interface, layout, lock
from ansible_collections.wharf.registry.plugins.module_utils._store.filesystem import Filesystem
from ansible_collections.wharf.registry.plugins.module_utils._store.s3 import S3

OCI = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
DAY = 86400
LATEST_3 = servers.settings.REGISTRY_3
LATEST_2 = servers.settings.REGISTRY_2


class Server:
    """A registry on loopback over a storage, as its section says it."""

    def __init__(self, release: str, client: Registry, config: Path, storage: dict[str, Any]) -> None:
        self.release = release
        self.client = client
        self.config = config
        self.storage = storage
        self.root = Path(storage.get("filesystem", {}).get("rootdirectory", "/nowhere"))

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
        request = retention_run.Request(rules=rules, storage=self.storage, registry=self.client if api else None, **options)
        return retention_run.run(request, check=check)

    def size(self) -> int:
        return sum(path.stat().st_size for path in (self.root / layout.BLOBS).rglob("data"))


@contextlib.contextmanager
def serving(release: str, folder: Path, storage: dict[str, Any] | None = None, delete: bool = True) -> Iterator[Server]:
    """Run a registry over a storage, by default a directory."""
    if storage is None:
        storage = {"filesystem": {"rootdirectory": str(folder / "data")}}
        (folder / "data").mkdir()
    with servers.registry(release, folder, {"storage": {**storage, "delete": {"enabled": delete}}}) as (client, config):
        yield Server(release, client, config, storage)


@pytest.fixture(params=[LATEST_3, LATEST_2])
def server(request, tmp_path):
    with serving(request.param, tmp_path) as running:
        yield running


@pytest.fixture
def server_3(tmp_path):
    with serving(LATEST_3, tmp_path) as running:
        yield running


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
    stock = [*servers.registry_command(server_3.release), "garbage-collect", server_3.config]
    result = server_3.run(LAST_TWO)
    before = server_3.size()
    subprocess.run(stock, check=True, capture_output=True, env={**os.environ, "OTEL_TRACES_EXPORTER": "none"})
    assert before - server_3.size() == result["bytes_reclaimable"] > 0


def test_a_registry_that_forbids_deleting_is_named(tmp_path):
    with serving(LATEST_3, tmp_path, delete=False) as server:
        fill(server)
        tags = server.client.list_tags("shop/web")
        with pytest.raises(deletion.ApplyError, match="storage.delete.enabled"):
            server.run(LAST_TWO, api=True)
        assert server.client.list_tags("shop/web") == tags
        assert server.run(LAST_TWO)["deleted"] == 5, "on the storage it works"


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
    recover = deletion.recover
    monkeypatch.setattr(deletion, "recover", lambda driver, journal: recover(driver, journal) if len(moves) != after else [])
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
    assert [path for path in (server_3.root / deletion.FOLDER).rglob("*") if path.is_file()] == []
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
    with pytest.raises(retention_run.ERRORS, match=words):
        retention_run.run(retention_run.Request(rules=LAST_TWO, storage=storage), check=False)


# ------------------------------------------------------------------------------------------------------------------- S3

# Objects cannot be made to look old: here the versions decide.
VERSIONS = [
    {"repositories": ["shop/**"], "tags": {"include": ["[0-9]*"]}, "keep": {"last_semver": 2}},
    {"repositories": ["shop/**"], "tags": {"include": ["old-index"]}, "keep": {"last": 0}},
]
MANIFESTS_GONE = ("2", "old-index", "sig2", "referrer")
MANIFESTS_LEFT = ("1", "3", "4", "index", "sig4", "untagged")


@pytest.fixture(scope="module")
def s3_section(tmp_path_factory):
    with S3Server(tmp_path_factory.mktemp("s3")) as store:
        store.client().create_bucket(Bucket="registry")
        yield store.section("registry")


@contextlib.contextmanager
def serving_s3(release: str, folder: Path, section: dict[str, Any]) -> Iterator[Server]:
    """Run a registry over a part of the bucket that no other test has."""
    with serving(release, folder, {"s3": {**section, "rootdirectory": f"/{folder.name}"}}) as running:
        yield running


@pytest.fixture(autouse=True)
def no_ca_bundle(monkeypatch):
    """A registry of 2.8 over S3 panics where this is set."""
    monkeypatch.delenv("AWS_CA_BUNDLE", raising=False)


@pytest.fixture(params=[LATEST_3, LATEST_2])
def on_s3(request, tmp_path, s3_section):
    with serving_s3(request.param, tmp_path, s3_section) as running:
        yield running


@pytest.fixture
def on_s3_3(tmp_path, s3_section):
    with serving_s3(LATEST_3, tmp_path, s3_section) as running:
        yield running


def objects(server: Server) -> dict[str, int]:
    """Return the registry's objects with their sizes."""
    return {entry.path: entry.size for entry in S3(server.storage["s3"]).walk(layout.REGISTRY)}


def fill_versions(server: Server) -> dict:
    """The repository of `fill`, its images tagged 1.0.1 to 1.0.4."""
    made = fill(server)
    for number in ("1", "2", "3", "4"):
        content, kind, _digest = server.client.get_manifest("shop/web", number)
        server.client.put_manifest("shop/web", f"1.0.{number}", content, kind)
    server.run([{"repositories": ["shop/web"], "tags": {"include": ["[1-4]"]}, "keep": {"last": 0}}])
    return made


def assert_versions_are_gone(server: Server, made: dict) -> None:
    listed = server.client.list_tags("shop/web")
    if server.release == LATEST_2:
        # 2.8 takes what the store lists as a folder for a tag, and this store (SeaweedFS) lists empty folders for ever.
        listed = [tag for tag in listed if server.client.head_manifest("shop/web", tag)]
    assert sorted(listed) == sorted(["1.0.3", "1.0.4", "latest", "index", made["4"].replace(":", "-") + ".sig"])
    for name in MANIFESTS_GONE:
        assert server.client.head_manifest("shop/web", made[name]) == "", name
    for name in MANIFESTS_LEFT:
        assert server.client.head_manifest("shop/web", made[name]) == made[name], name
    assert [bool(server.client.head_manifest("shop/web", child)) for child in made["child"]] == [False, True, True]
    assert server.client.head_manifest("tools/lint", "1") == made["other"]


@pytest.mark.parametrize("api", [False, True], ids=["on the storage", "through the API"])
def test_rules_are_carried_out_on_s3_and_nothing_else(on_s3, api):
    made = fill_versions(on_s3)
    before = objects(on_s3)
    preview = on_s3.run(VERSIONS, check=True, api=api)
    assert objects(on_s3) == before, "a preview changes nothing"
    result = on_s3.run(VERSIONS, api=api)
    after = objects(on_s3)
    names = ("decisions", "deleted", "kept", "manifests_deleted", "bytes_reclaimable", "findings", "changed")
    assert {name: preview[name] for name in names} == {name: result[name] for name in names}
    assert (result["deleted"], result["manifests_deleted"], result["findings"]) == (4, 5, [])
    assert_versions_are_gone(on_s3, made)
    gone = before.keys() - after.keys()
    assert after == {path: size for path, size in before.items() if path not in gone}
    assert {layout.parse(path).kind for path in gone} == {layout.TAG, layout.HISTORY, layout.REVISION}
    assert on_s3.run(VERSIONS, api=api)["changed"] is False
    # What is reclaimable is what the collection frees.
    settings = interface.from_sections(on_s3.storage)
    gc.run(gc.Request(settings, mode="offline", grace=0.0, max_delete_fraction=1.0))
    freed = [size for path, size in after.items() if path not in objects(on_s3) and layout.parse(path).kind == layout.BLOB]
    assert sum(freed) == result["bytes_reclaimable"] > 0
    assert_versions_are_gone(on_s3, made)


@pytest.mark.parametrize("after", [0, 1, 3, 7, 8, 10, 12])
def test_a_run_that_is_killed_on_s3_is_finished_by_the_next(on_s3_3, monkeypatch, after):
    made = fill_versions(on_s3_3)
    done = []
    remove = S3.remove

    def stop(self, paths):
        if len(done) == after:
            raise Killed
        done.append(list(paths))
        return remove(self, done[-1])

    monkeypatch.setattr(S3, "remove", stop)
    with pytest.raises(Killed):
        on_s3_3.run(VERSIONS, workers=1)
    monkeypatch.undo()
    for name in ("1.0.3", "1.0.4", "index", "latest"):
        assert on_s3_3.client.head_manifest("shop/web", name)
    monkeypatch.setattr(lock, "_is_dead", lambda owner: True)
    on_s3_3.run(VERSIONS)
    assert_versions_are_gone(on_s3_3, made)
    assert list(S3(on_s3_3.storage["s3"]).walk(deletion.FOLDER)) == []
    assert on_s3_3.run(VERSIONS)["changed"] is False


@pytest.mark.parametrize("api", [False, True], ids=["on the storage", "through the API"])
def test_a_tag_on_s3_that_is_pushed_again_meanwhile_stays(on_s3_3, monkeypatch, api):
    fill_versions(on_s3_3)
    time.sleep(2)  # two pushes within a second look alike
    pushed = []
    stat = S3.stat

    def look(self, path):
        if path == layout.tag_path("shop/web", "1.0.2") and not pushed:
            pushed.append(on_s3_3.push("shop/web", "1.0.2", "image 2 anew"))
        return stat(self, path)

    monkeypatch.setattr(S3, "stat", look)
    result = on_s3_3.run(VERSIONS, api=api)
    monkeypatch.undo()
    assert on_s3_3.client.head_manifest("shop/web", "1.0.2") == pushed[0]
    assert on_s3_3.client.head_manifest("shop/web", pushed[0]) == pushed[0]
    assert [each["problem"] for each in result["findings"]] == ["was pushed again after it was looked at, so it stays"]


def test_pushes_that_go_on_meanwhile_are_whole(on_s3_3):
    """Clients push, move and pull tags that no rule looks at, and their layers are those of images that go."""
    stop = threading.Event()
    failed: list[str] = []
    pushed: dict[str, str] = {}

    def push(number: int) -> None:
        turn = 0
        while not stop.is_set():
            turn += 1
            tag = f"live-{number}-{turn % 3}"
            try:
                pushed[tag] = on_s3_3.push("shop/web", tag, f"image {turn % 20}", layers=("base", f"extra {number} {turn}"))
            except Exception as error:  # any failure of a push is one
                failed.append(str(error))

    clients = [threading.Thread(target=push, args=(number,)) for number in range(4)]
    for client in clients:
        client.start()
    try:
        for turn in range(4):
            for number in range(20):
                on_s3_3.push("shop/web", f"1.{turn}.{number}", f"image {number}", layers=("base",))
            deleted = on_s3_3.run([{"repositories": ["shop/**"], "tags": {"include": ["1.*"]}, "keep": {"last_semver": 2}}])["deleted"]
            assert deleted == (18 if turn == 0 else 20)
    finally:
        stop.set()
        for client in clients:
            client.join()
    assert failed == []
    assert len(pushed) == 12
    for tag, digest in pushed.items():
        assert on_s3_3.client.head_manifest("shop/web", tag) == digest
        content, _kind, _digest = on_s3_3.client.get_manifest("shop/web", tag)
        tree = json.loads(content)
        for blob in (tree["config"], *tree["layers"]):
            assert on_s3_3.client.has_blob("shop/web", blob["digest"]), (tag, blob)


def test_two_runs_on_s3_do_not_meet(on_s3_3):
    fill(on_s3_3)
    before = objects(on_s3_3)
    with lock.Lock(interface.open_store(on_s3_3.storage)), pytest.raises(interface.StoreError, match="another run works on"):
        on_s3_3.run(VERSIONS)
    assert objects(on_s3_3) == before


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"secretkey": "another"}, "check secretkey"),
        ({"accesskey": "another"}, "check accesskey"),
        ({"bucket": "vanished"}, "there is no such bucket"),
        ({"rootdirectory": "/none"}, "no registry's storage"),
        ({"regionendpoint": "http://127.0.0.1:9"}, "cannot be listed"),
        ({"bucket": ""}, "bucket: missing"),
    ],
)
def test_an_s3_storage_that_cannot_be_used_is_refused(on_s3_3, wrong, words):
    fill(on_s3_3)
    before = objects(on_s3_3)
    right = on_s3_3.storage
    on_s3_3.storage = {"s3": {**right["s3"], **wrong}}
    with pytest.raises(retention_run.ERRORS, match=words):
        on_s3_3.run(VERSIONS)
    on_s3_3.storage = right
    assert objects(on_s3_3) == before
