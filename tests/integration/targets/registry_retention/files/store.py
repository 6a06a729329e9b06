# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Make a registry's storage in a folder: store.py FOLDER TAG... gives the repository shop/web these tags, the first being the oldest."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from pathlib import Path

root = Path(sys.argv[1]) / "docker/registry/v2"
repository = root / "repositories/shop/web/_manifests"
for number, tag in enumerate(sys.argv[2:]):
    tree = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [], "annotations": {"tag": tag}}
    content = json.dumps(tree).encode()
    name = hashlib.sha256(content).hexdigest()
    link = b"sha256:" + name.encode()
    when = time.time() - 86400 + number
    for path, text in (
        (root / "blobs/sha256" / name[:2] / name / "data", content),
        (repository / "revisions/sha256" / name / "link", link),
        (repository / "tags" / tag / "current/link", link),
    ):
        path.parent.mkdir(parents=True)
        path.write_bytes(text)
        os.utime(path, (when, when))
