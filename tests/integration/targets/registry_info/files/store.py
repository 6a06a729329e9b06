# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Make a registry's storage in a folder: store.py FOLDER REPOSITORY... gives each one image, tag 1, over a layer of 1000 bytes that all share."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from pathlib import Path

ROOT = Path(sys.argv[1]) / "docker/registry/v2"
OCI = "application/vnd.oci.image."
WHEN = 1700000000


def write(path: str, content: bytes) -> None:
    """Write one file of the storage."""
    full = ROOT / path
    full.parent.mkdir(parents=True, exist_ok=True)
    full.write_bytes(content)
    os.utime(full, (WHEN, WHEN))


def blob(content: bytes) -> str:
    """Write a blob and return its name."""
    name = hashlib.sha256(content).hexdigest()
    write(f"blobs/sha256/{name[:2]}/{name}/data", content)
    return name


def descriptor(kind: str, content: bytes) -> dict[str, object]:
    """Write a blob and return what a manifest says of it."""
    return {"mediaType": OCI + kind, "digest": "sha256:" + blob(content), "size": len(content)}


for repository in sys.argv[2:]:
    config = json.dumps({"os": "linux", "architecture": "amd64", "repository": repository}).encode()
    image = {
        "schemaVersion": 2,
        "mediaType": OCI + "manifest.v1+json",
        "config": descriptor("config.v1+json", config),
        "layers": [descriptor("layer.v1.tar", b"shared" + bytes(994))],
    }
    digest = blob(json.dumps(image).encode())
    for place in (f"revisions/sha256/{digest}", "tags/1/current", f"tags/1/index/sha256/{digest}"):
        write(f"repositories/{repository}/_manifests/{place}/link", f"sha256:{digest}".encode())
