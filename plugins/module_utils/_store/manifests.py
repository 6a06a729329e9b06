# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Manifests: what one of any kind refers to. Docker schema 1 and 2, OCI images, artifacts and indexes; others as far as they tell."""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any, Dict, List, NamedTuple, Tuple

from . import layout

DOCKER_1 = "application/vnd.docker.distribution.manifest.v1+json"
DOCKER_1_SIGNED = "application/vnd.docker.distribution.manifest.v1+prettyjws"
DOCKER_2 = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
OCI_IMAGE = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_ARTIFACT = "application/vnd.oci.artifact.manifest.v1+json"

_INDEXES = (DOCKER_LIST, OCI_INDEX)
_IMAGES = (DOCKER_2, OCI_IMAGE)
_KNOWN = (DOCKER_1, DOCKER_1_SIGNED, DOCKER_2, DOCKER_LIST, OCI_IMAGE, OCI_INDEX, OCI_ARTIFACT)
#: Registries take no larger manifest than 4 MiB; whatever is larger than this is none.
LIMIT = 16 << 20
_ANY_DIGEST = re.compile(r"sha(?:256:[0-9a-f]{64}|512:[0-9a-f]{128})")


class Invalid(ValueError):
    """The content is no manifest, or not the one that its digest names; ``kind`` is the kind of the finding."""

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(reason)
        self.kind = kind


class Manifest(NamedTuple):
    """What a manifest says.

    Attributes:
        digest: its name.
        media_type: as it says itself, or what its form tells.
        size: bytes of the manifest itself.
        children: digests of manifests that an index names.
        config: digest of the configuration, or empty.
        layers: digests of all else it names: layers, blobs of artifacts, and what an unknown type mentions.
        subject: digest of the manifest that it describes, or empty.
        foreign: those of ``layers`` that have URLs and need not be in the storage.
        platforms: of an index: (child, ``os/architecture[/variant]``) where it tells.
        artifact: the artifact's type, or empty.
        known: whether the type is one of those above.
    """

    digest: str
    media_type: str
    size: int
    children: Tuple[str, ...] = ()
    config: str = ""
    layers: Tuple[str, ...] = ()
    subject: str = ""
    foreign: Tuple[str, ...] = ()
    platforms: Tuple[Tuple[str, str], ...] = ()
    artifact: str = ""
    known: bool = True

    @property
    def references(self) -> Tuple[str, ...]:
        """All that must be there as long as the manifest is: children, configuration, layers; not the subject."""
        return self.children + ((self.config,) if self.config else ()) + self.layers


def parse(digest: str, content: bytes) -> Manifest:
    """Read a manifest.

    Raises:
        Invalid: if the content is no manifest or has another digest.
    """
    if not content:
        raise Invalid("zero-length", "it has no bytes")
    algorithm, _colon, value = digest.partition(":")
    if hashlib.new(algorithm, content).hexdigest() != value:
        raise Invalid("wrong-digest", "the content has another digest")
    try:
        tree = json.loads(content.decode("utf-8"))
    except (ValueError, RecursionError):
        raise Invalid("invalid-manifest", "it is no JSON") from None
    if not isinstance(tree, dict):
        raise Invalid("invalid-manifest", "it is no JSON object")
    try:
        return _read(digest, tree, content)
    except (TypeError, KeyError, AttributeError):
        raise Invalid("invalid-manifest", "its fields are not those of its type") from None


def _digest(text: Any) -> str:
    if not isinstance(text, str) or not layout.is_digest(text):
        raise TypeError
    return text


def _list(tree: Dict[str, Any], name: str) -> List[Any]:
    value = tree.get(name)
    if value is None:
        return []
    if not isinstance(value, list):
        raise TypeError
    return value


def _read(digest: str, tree: Dict[str, Any], content: bytes) -> Manifest:
    media_type = str(tree.get("mediaType") or "") or _guess(tree)
    size = len(content)
    if media_type not in _KNOWN:
        mentioned = sorted(set(_ANY_DIGEST.findall(content.decode("utf-8"))) - {digest})
        return Manifest(digest, media_type or "unknown", size, layers=tuple(mentioned), known=False)
    if media_type in (DOCKER_1, DOCKER_1_SIGNED):
        layers = [_digest(layer["blobSum"]) for layer in _list(tree, "fsLayers")]
        return Manifest(digest, media_type, size, layers=tuple(dict.fromkeys(layers)))
    subject = _digest(tree["subject"]["digest"]) if tree.get("subject") else ""
    artifact = str(tree.get("artifactType") or "")
    if media_type in _INDEXES:
        children: List[str] = []
        others: List[str] = []
        platforms = []
        for item in _list(tree, "manifests"):
            child = _digest(item["digest"])
            # BuildKit keeps caches as indexes whose "manifests" are layers.
            kind = item.get("mediaType")
            (children if not kind or kind in _KNOWN else others).append(child)
            platform = item.get("platform")
            if isinstance(platform, dict) and platform.get("os"):
                platforms.append((child, platform_name(platform)))
        return Manifest(
            digest, media_type, size, tuple(dict.fromkeys(children)), "", tuple(dict.fromkeys(others)),
            subject, platforms=tuple(platforms), artifact=artifact,
        )  # fmt: skip
    named = _list(tree, "blobs" if media_type == OCI_ARTIFACT else "layers")
    layers = [_digest(item["digest"]) for item in named]
    foreign = [item["digest"] for item in named if item.get("urls")]
    config = ""
    if media_type in _IMAGES:
        config = _digest(tree["config"]["digest"])
        artifact = artifact or str(tree["config"].get("mediaType") or "")
    return Manifest(digest, media_type, size, (), config, tuple(dict.fromkeys(layers)), subject, tuple(foreign), artifact=artifact)


def _guess(tree: Dict[str, Any]) -> str:
    """Return the type of a manifest that does not name it."""
    if tree.get("schemaVersion") == 1 or "fsLayers" in tree:
        return DOCKER_1
    if isinstance(tree.get("manifests"), list):
        return OCI_INDEX
    if isinstance(tree.get("config"), dict) and "layers" in tree:
        return OCI_IMAGE
    return ""


def platform_name(platform: Dict[str, Any]) -> str:
    """Return ``os/architecture`` or ``os/architecture/variant``."""
    parts = [platform.get("os"), platform.get("architecture"), platform.get("variant")]
    return "/".join(str(part) for part in parts if part)
