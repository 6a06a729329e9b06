# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Make a registry's storage in a folder: store.py FOLDER. It has the repository shop/web, a day old.

The tag `latest` leads to an image with a configuration and a layer. Another image of the same kind has lost its tag, and one more layer
was uploaded and never used.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from pathlib import Path

OCI = "application/vnd.oci.image."
root = Path(sys.argv[1]) / "docker/registry/v2"
repository = root / "repositories/shop/web"


def put(path: Path, content: bytes) -> None:
    """Write a file that is a day old."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    os.utime(path, (time.time() - 86400, time.time() - 86400))


def blob(content: bytes, place: str = "_layers") -> dict[str, object]:
    """Write a blob and its link; return what a manifest says of it."""
    name = hashlib.sha256(content).hexdigest()
    put(root / "blobs/sha256" / name[:2] / name / "data", content)
    put(repository / place / "sha256" / name / "link", b"sha256:" + name.encode())
    return {"mediaType": OCI + "layer.v1.tar", "digest": "sha256:" + name, "size": len(content)}


def image(text: str) -> str:
    """Write an image; return its digest."""
    config = {**blob(json.dumps({"os": "linux", "note": text}).encode()), "mediaType": OCI + "config.v1+json"}
    layer = blob(text.encode() * 100)
    manifest = {"schemaVersion": 2, "mediaType": OCI + "manifest.v1+json", "config": config, "layers": [layer]}
    return str(blob(json.dumps(manifest).encode(), "_manifests/revisions")["digest"])


image("an image that has lost its tag")
blob(b"a layer that was never used")
put(repository / "_manifests/tags/latest/current/link", image("an image with a tag").encode())
