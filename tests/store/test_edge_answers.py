# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an edge says of what garbage collection has announced: nginx as the role sets it up, a registry, a listener and a run."""

from __future__ import annotations

import json
import subprocess
import tempfile
import time
from pathlib import Path

import edges
import pytest
import servers

from ansible_collections.wharf.registry.plugins.action.node_tools import MODULE_UTILS, zipapp_bytes
from ansible_collections.wharf.registry.plugins.module_utils._registry_api import Registry, digest_of

OCI = "application/vnd.oci.image.manifest.v1+json"
ASKS = {"Authorization": "Bearer of.any.kind"}


def manifest_of(config: bytes, layer: bytes) -> bytes:
    kinds = ("application/vnd.oci.image.config.v1+json", "application/vnd.oci.image.layer.v1.tar")
    config_, layer_ = ({"mediaType": kind, "digest": digest_of(one), "size": len(one)} for kind, one in zip(kinds, (config, layer)))
    return json.dumps({"schemaVersion": 2, "mediaType": OCI, "config": config_, "layers": [layer_]}).encode()


@pytest.mark.parametrize("anonymous", [False, True])
def test_who_asks_hears_no_and_who_reads_gets_it(tmp_path, anonymous):
    program = tmp_path / "wharf.pyz"
    program.write_bytes(zipapp_bytes(MODULE_UTILS))
    (tmp_path / "data").mkdir()
    sections = {"storage": {"delete": {"enabled": True}, "filesystem": {"rootdirectory": str(tmp_path / "data")}}}
    with (
        tempfile.TemporaryDirectory(prefix="wharf-markers-") as markers,
        servers.registry("2.8.3", tmp_path, sections) as (direct, config),
    ):
        Path(markers).chmod(0o755)
        log = tmp_path / "edge/logs/access.log"
        options = {"name": "node1", "config": str(config), "folder": f"{markers}/node1", "log": str(log)}
        (tmp_path / "announced.json").write_text(json.dumps(options))
        listener = servers.local.Process(
            tmp_path, "listener", "/usr/bin/python3", program, "announced", "--config", tmp_path / "announced.json"
        )
        address = json.loads(config.read_text())["http"]["addr"]
        with edges.edge(tmp_path / "edge", address, Path(markers) / "node1", registry_edge_anonymous=anonymous) as edge, listener:
            layers = [direct.put_blob("shop/web", b"lost"), direct.put_blob("shop/web", b"kept")]
            configs = [direct.put_blob("shop/web", b"{}"), direct.put_blob("shop/web", b'{"os":"linux"}')]
            gone = direct.put_manifest("shop/web", "v1", manifest_of(b"{}", b"lost"), OCI)
            kept = direct.put_manifest("shop/web", "v1", manifest_of(b'{"os":"linux"}', b"kept"), OCI)
            assert status(edge, "HEAD", f"blobs/{layers[0]}") == 200
            wait_for(lambda: (tmp_path / "data/wharf-gc/listeners/node1/alive").exists())
            time.sleep(1.1)
            values = collect(program, config)
            assert values["blobs_announced"] == 3 and values["blobs_hidden"] == 0
            wait_for(lambda: (tmp_path / "data/wharf-gc/listeners/node1/ack-1").exists())

            for path in (f"blobs/{layers[0]}", f"blobs/{configs[0]}", f"manifests/{gone}"):
                assert status(edge, "HEAD", path) == 404, path
                assert status(edge, "HEAD", path, {}) == (404 if anonymous else 200), "whoever does not say who he is only reads"
                assert status(edge, "GET", path) == 200, path
            for path in (f"blobs/{layers[1]}", f"blobs/{configs[1]}", f"manifests/{kept}", "manifests/v1"):
                assert status(edge, "HEAD", path) == 200 and status(edge, "GET", path) == 200, path
            assert status(edge, "HEAD", f"blobs/sha256:{'0' * 64}") == 404 and status(edge, "HEAD", "blobs/sha256:zz") != 200
            # Uploads and mounts go on, and keep what they are of.
            assert direct.has_blob("shop/web", layers[0]) and not edge.has_blob("shop/web", layers[0]) if anonymous else True
            assert edge.put_blob("shop/web", b"lost") == layers[0]
            wait_for(lambda: layers[0] in wanted(tmp_path))
            time.sleep(1.1)
            assert collect(program, config, "0s")["blobs_deleted"] == 0 or direct.has_blob("shop/web", layers[0])


def status(edge: Registry, method: str, path: str, headers: dict[str, str] | None = None) -> int:
    accept = {"Accept": OCI}
    expect = tuple(range(200, 500))
    return edge._request(method, f"/v2/shop/web/{path}", headers={**accept, **(ASKS if headers is None else headers)}, expect=expect).status


def wanted(folder: Path) -> str:
    path = folder / "data/wharf-gc/listeners/node1/wanted.json"
    return path.read_text() if path.exists() else ""


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
