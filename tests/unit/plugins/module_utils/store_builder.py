# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Builds a registry's storage in a directory, file by file as distribution writes it. For tests and benchmarks."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any, Iterable

REGISTRY = "docker/registry/v2"
OCI_IMAGE = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"


def digest_of(content: bytes) -> str:
    """Return a content's digest."""
    return "sha256:" + hashlib.sha256(content).hexdigest()


class Builder:
    """A storage below ``root``. All that is written gets ``age`` seconds of age."""

    def __init__(self, root: Path, now: float = 0.0, age: float = 0.0) -> None:
        self.root = root
        self.now = now
        self.age = age
        self.sizes: dict[str, int] = {}
        (root / REGISTRY / "blobs").mkdir(parents=True, exist_ok=True)
        (root / REGISTRY / "repositories").mkdir(parents=True, exist_ok=True)

    def path(self, path: str) -> Path:
        """Return a file of the registry's tree."""
        return self.root / REGISTRY / path

    def put(self, path: str, content: bytes) -> Path:
        """Write one file."""
        full = self.path(path)
        full.parent.mkdir(parents=True, exist_ok=True)
        full.write_bytes(content)
        if self.now:
            os.utime(full, (self.now - self.age, self.now - self.age))
        return full

    def data(self, content: bytes) -> str:
        """Write a blob without any link."""
        digest = digest_of(content)
        value = digest[7:]
        path = f"blobs/sha256/{value[:2]}/{value}/data"
        if not self.path(path).exists():
            self.put(path, content)
        self.sizes[digest] = len(content)
        return digest

    def link(self, repository: str, digest: str, kind: str = "_layers") -> Path:
        """Write a link: ``kind`` is ``_layers`` or ``_manifests/revisions``."""
        return self.put(f"repositories/{repository}/{kind}/{digest.replace(':', '/')}/link", digest.encode())

    def blob(self, repository: str, content: bytes) -> str:
        """Write a blob and its link."""
        digest = self.data(content)
        self.link(repository, digest)
        return digest

    def manifest(self, repository: str, tree: dict[str, Any] | bytes, tags: Iterable[str] = ()) -> str:
        """Write a manifest, its link and its tags."""
        content = tree if isinstance(tree, bytes) else json.dumps(tree, sort_keys=True).encode()
        digest = self.data(content)
        self.link(repository, digest, "_manifests/revisions")
        for tag in tags:
            self.tag(repository, tag, digest)
        return digest

    def tag(self, repository: str, tag: str, digest: str) -> None:
        """Point a tag to a manifest."""
        folder = f"repositories/{repository}/_manifests/tags/{tag}"
        self.put(f"{folder}/current/link", digest.encode())
        self.put(f"{folder}/index/{digest.replace(':', '/')}/link", digest.encode())

    def descriptor(self, digest: str, media_type: str, **more: Any) -> dict[str, Any]:
        """Return what a manifest says of a blob."""
        return {"mediaType": media_type, "digest": digest, "size": self.sizes.get(digest, 0), **more}

    def image(
        self, repository: str, layers: Iterable[bytes | str], tags: Iterable[str] = (), *, config: bytes = b"{}", **fields: Any
    ) -> str:
        """Write an OCI image; a layer is its content, or the digest of one that is there."""
        digests = [self.blob(repository, layer) if isinstance(layer, bytes) else layer for layer in layers]
        tree = {
            "schemaVersion": 2,
            "mediaType": OCI_IMAGE,
            "config": self.descriptor(self.blob(repository, config), OCI_CONFIG),
            "layers": [self.descriptor(digest, OCI_LAYER) for digest in digests],
            **fields,
        }
        return self.manifest(repository, tree, tags)

    def index(self, repository: str, children: Iterable[str], tags: Iterable[str] = (), **fields: Any) -> str:
        """Write an OCI index; children must be there already, or are given as descriptors of images."""
        manifests = [self.descriptor(child, OCI_IMAGE) for child in children]
        return self.manifest(repository, {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": manifests, **fields}, tags)

    def files(self) -> dict[str, int]:
        """Return all files of the registry's tree with their sizes."""
        found = {}
        for folder, _folders, names in os.walk(self.root / REGISTRY):
            for name in names:
                full = os.path.join(folder, name)
                found[os.path.relpath(full, self.root)] = os.stat(full).st_size
        return found

    def blobs(self) -> set[str]:
        """Return the digests of all blobs that are there."""
        return {"sha256:" + path.parent.name for path in (self.root / REGISTRY / "blobs").glob("sha256/*/*/data")}
