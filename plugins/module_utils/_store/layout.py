# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Names of the files and objects of a registry's storage: what a path means, and where a thing lies.

All paths here are relative to the storage's ``rootdirectory``, with ``/`` between their parts. The layout is the same in
distribution 2.8 and 3.x::

    docker/registry/v2/blobs/<algorithm>/<2 hex>/<hex>/data
    docker/registry/v2/repositories/<name>/_layers/<algorithm>/<hex>/link
    docker/registry/v2/repositories/<name>/_manifests/revisions/<algorithm>/<hex>/link
    docker/registry/v2/repositories/<name>/_manifests/tags/<tag>/current/link
    docker/registry/v2/repositories/<name>/_manifests/tags/<tag>/index/<algorithm>/<hex>/link
    docker/registry/v2/repositories/<name>/_uploads/<id>/{data,startedat,hashstates/...}

What this library keeps for itself lies beside it, below ``wharf-gc/``. The registry's catalog, its upload purge and the stock
``garbage-collect`` only ever walk ``repositories`` and ``blobs``.
"""

from __future__ import annotations

import re
from typing import NamedTuple

REGISTRY = "docker/registry/v2"
BLOBS = REGISTRY + "/blobs"
REPOSITORIES = REGISTRY + "/repositories"
#: Lock, list of what is hidden, remembered manifests, and blobs on their way out.
OWN = "wharf-gc"
TRASH = OWN + "/trash"
#: Where a link is for the moment in which it is decided whether it goes.
ASIDE = OWN + "/link"

# Kinds of items.
BLOB, LAYER, REVISION, TAG, HISTORY, UPLOAD, EMPTY, TEMPORARY, JUNK = range(9)

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}")
# The specification cuts the digest after 64 digits: https://github.com/opencontainers/distribution-spec/blob/main/spec.md#referrers-tag-schema
_FALLBACK = re.compile(r"(sha256|sha512)-([0-9a-f]{64})(?:\.[\w.-]+)?")
_PREFIX = len(REPOSITORIES) + 1


class Item(NamedTuple):
    """What a path means. ``name`` is the tag of TAG and HISTORY, the upload's id of UPLOAD."""

    kind: int
    repository: str = ""
    digest: str = ""
    name: str = ""


def is_digest(text: str) -> bool:
    """Return whether ``text`` is a digest that registries write."""
    return _DIGEST.fullmatch(text) is not None


def described_by(tag: str, digest: str) -> str:
    """Return the digest of what a tag describes; empty for ordinary tags.

    Such tags are ``sha256-<hex>`` (the referrers' fallback scheme) and that with an ending: ``.sig``, ``.att``, ``.sbom`` of cosign, and
    those of other tools. They live and die with what they describe. A tag that points to the very manifest that it names describes
    nothing: mirrors and imgpkg hold manifests that way, and it is an ordinary tag.

    Args:
        tag: its name.
        digest: what it points to; empty if that is not known.
    """
    match = _FALLBACK.fullmatch(tag)
    subject = f"{match.group(1)}:{match.group(2)}" if match else ""
    return "" if subject == digest else subject


def parse(path: str) -> Item:
    """Return what ``path`` means. A path that ends in ``/`` is a directory without the file that belongs into it."""
    if path.endswith("/"):
        return Item(EMPTY)
    if path.startswith(REPOSITORIES):
        head, mark, tail = path[_PREFIX:].partition("/_")
        if not mark:
            return Item(JUNK)
        parts = tail.split("/")
        kind, count = parts[0], len(parts)
        if kind == "layers" and count == 4 and parts[3] == "link":
            digest = f"{parts[1]}:{parts[2]}"
            return Item(LAYER, head, digest) if is_digest(digest) else Item(JUNK, head)
        if kind == "manifests" and count > 4:
            if parts[1] == "revisions" and count == 5 and parts[4] == "link":
                digest = f"{parts[2]}:{parts[3]}"
                return Item(REVISION, head, digest) if is_digest(digest) else Item(JUNK, head)
            if parts[1] == "tags" and parts[-1] == "link":
                if count == 5 and parts[3] == "current":
                    return Item(TAG, head, "", parts[2])
                if count == 7 and parts[3] == "index":
                    digest = f"{parts[4]}:{parts[5]}"
                    return Item(HISTORY, head, digest, parts[2]) if is_digest(digest) else Item(JUNK, head)
        if kind == "uploads" and count > 2:
            return Item(UPLOAD, head, "", parts[1])
        # 3.1 writes a file of this name and renames it.
        return Item(TEMPORARY if parts[-1].endswith(".tmp") else JUNK, head)
    if path.startswith(BLOBS):
        parts = path[len(BLOBS) + 1 :].split("/")
        if len(parts) == 4 and parts[3] == "data":
            digest = f"{parts[0]}:{parts[2]}"
            if is_digest(digest) and parts[2].startswith(parts[1]):
                return Item(BLOB, "", digest)
        return Item(TEMPORARY if parts[-1].endswith(".tmp") else JUNK)
    return Item(JUNK)


def _split(digest: str) -> str:
    return digest.replace(":", "/", 1)


def blob_path(digest: str) -> str:
    """Return where a blob's content lies."""
    algorithm, _colon, value = digest.partition(":")
    return f"{BLOBS}/{algorithm}/{value[:2]}/{value}/data"


def trash_path(digest: str) -> str:
    """Return where a blob waits for the last look before it is deleted."""
    return f"{TRASH}/{_split(digest)}"


def layer_path(repository: str, digest: str) -> str:
    """Return where a repository says that it has a blob."""
    return f"{REPOSITORIES}/{repository}/_layers/{_split(digest)}/link"


def revision_path(repository: str, digest: str) -> str:
    """Return where a repository says that it has a manifest."""
    return f"{REPOSITORIES}/{repository}/_manifests/revisions/{_split(digest)}/link"


def tag_folder(repository: str, tag: str) -> str:
    """Return the directory of a tag."""
    return f"{REPOSITORIES}/{repository}/_manifests/tags/{tag}"


def tag_path(repository: str, tag: str) -> str:
    """Return the file that says what a tag points to."""
    return tag_folder(repository, tag) + "/current/link"


def history_path(repository: str, tag: str, digest: str) -> str:
    """Return the file that says that a tag pointed to a manifest once."""
    return f"{tag_folder(repository, tag)}/index/{_split(digest)}/link"
