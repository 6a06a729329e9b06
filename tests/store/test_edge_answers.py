# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an edge says of what garbage collection has announced: nginx as the role sets it up, a registry, a listener and a run."""

from __future__ import annotations

import contextlib
import json
import subprocess
import tempfile
import time
from pathlib import Path

import edges
import servers

from ansible_collections.wharf.registry.plugins.action.node_tools import MODULE_UTILS, zipapp_bytes
from ansible_collections.wharf.registry.plugins.module_utils._registry.api import Registry, digest_of

OCI = "application/vnd.oci.image.manifest.v1+json"
ASKS = {"Authorization": "Bearer of.any.kind"}


def manifest_of(config: bytes, layer: bytes) -> bytes:
    kinds = ("application/vnd.oci.image.config.v1+json", "application/vnd.oci.image.layer.v1.tar")
    config_, layer_ = (
        {"mediaType": kind, "digest": digest_of(one), "size": len(one)} for kind, one in zip(kinds, (config, layer), strict=True)
    )
    return json.dumps({"schemaVersion": 2, "mediaType": OCI, "config": config_, "layers": [layer_]}).encode()


def test_who_asks_hears_no_and_who_reads_gets_it(tmp_path):
    program = tmp_path / "wharf.pyz"
    program.write_bytes(zipapp_bytes(MODULE_UTILS))
    told = tmp_path / "data/wharf-gc/listeners/node1"
    (tmp_path / "data").mkdir()
    sections = {"storage": {"delete": {"enabled": True}, "filesystem": {"rootdirectory": str(tmp_path / "data")}}}
    with contextlib.ExitStack() as stack:
        markers = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="wharf-markers-")))
        markers.chmod(0o755)
        direct, config = stack.enter_context(servers.registry("2.8.3", tmp_path, sections))
        address = json.loads(config.read_text())["http"]["addr"]
        edge, open_edge = (
            stack.enter_context(edges.edge(tmp_path / f"edge-{anonymous}", address, markers / "node1", registry_edge_anonymous=anonymous))
            for anonymous in (False, True)
        )
        options = {
            "name": "node1",
            "config": str(config),
            "folder": str(markers / "node1"),
            "log": str(tmp_path / "edge-True/logs/access.log"),
        }
        (tmp_path / "announced.json").write_text(json.dumps(options))
        layers = [direct.put_blob("shop/web", b"lost"), direct.put_blob("shop/web", b"kept")]
        configs = [direct.put_blob("shop/web", b"{}"), direct.put_blob("shop/web", b'{"os":"linux"}')]
        gone = direct.put_manifest("shop/web", "v1", manifest_of(b"{}", b"lost"), OCI)
        kept = direct.put_manifest("shop/web", "v1", manifest_of(b'{"os":"linux"}', b"kept"), OCI)
        command = ("/usr/bin/python3", program, "announced", "--config", tmp_path / "announced.json")
        stack.enter_context(servers.local.Process(tmp_path, "listener", *command))
        wait_for(lambda: (told / "alive").exists())
        time.sleep(max(0.0, (tmp_path / "data/docker").stat().st_mtime + 1.1 - time.time()))
        values = collect(program, config)
        assert values["blobs_announced"] == 3 and values["blobs_hidden"] == 0
        wait_for(lambda: (told / "ack-1").exists())

        for path in (f"blobs/{layers[0]}", f"blobs/{configs[0]}", f"manifests/{gone}"):
            assert status(edge, "HEAD", path, ASKS) == status(open_edge, "HEAD", path) == 404, path
            assert status(edge, "HEAD", path) == 200, "whoever does not say who he is only reads"
            assert status(edge, "GET", path, ASKS) == status(open_edge, "GET", path) == 200, path
        for path in (f"blobs/{layers[1]}", f"blobs/{configs[1]}", f"manifests/{kept}", "manifests/v1"):
            assert status(edge, "HEAD", path, ASKS) == status(open_edge, "HEAD", path) == 200, path
        assert status(edge, "HEAD", f"blobs/sha256:{'0' * 64}", ASKS) == 404
        assert status(edge, "HEAD", "blobs/sha256:zz", ASKS) == status(direct, "HEAD", "blobs/sha256:zz", ASKS)
        # An upload goes on, and what was asked for stays, announced or not.
        assert open_edge.put_blob("shop/web", b"lost") == layers[0]
        wait_for(lambda: (told / "wanted.json").exists() and layers[0] in (told / "wanted.json").read_text())
        assert collect(program, config, "0s")["blobs_deleted"] == 0
        assert direct.has_blob("shop/web", layers[0])


def status(registry: Registry, method: str, path: str, headers: dict[str, str] | None = None) -> int:
    expect = tuple(range(200, 501))
    return registry._request(method, f"/v2/shop/web/{path}", headers={"Accept": OCI, **(headers or {})}, expect=expect).status


def wait_for(condition) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end, "it did not come to pass in time"
        time.sleep(0.1)


def collect(program: Path, config: Path, grace: str = "1s") -> dict:
    command = ["/usr/bin/python3", program, "gc", "--config", config, "--grace", grace, "--delete-untagged", "--max-delete-fraction", "1"]
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
