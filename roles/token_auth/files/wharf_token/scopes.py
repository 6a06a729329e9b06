# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What clients ask for: the parameter ``scope`` of a request for a token, and what a request to the registry itself needs."""

from __future__ import annotations

import posixpath
import re
from typing import Iterable, List, NamedTuple, Optional, Tuple
from urllib.parse import parse_qs, unquote, urlsplit

#: A cross-repository mount asks for two; nobody needs as many as this.
MOST = 64
_KIND = re.compile(r"[a-z]+(?:\([a-z]+\))?\Z")
_ACTION = re.compile(r"(?:[a-z]+|\*)\Z")
_TAG = re.compile(r"/v2/(?P<name>.+)/manifests/(?P<tag>[A-Za-z0-9_][A-Za-z0-9._-]*)\Z")
_PATH = re.compile(r"/v2/(?P<name>.+)/(?:manifests|blobs|tags|referrers)/")


class Scope(NamedTuple):
    """``kind:name:action,action``; what is asked for, which says nothing about what is granted."""

    kind: str
    name: str
    actions: Tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.kind}:{self.name}:{','.join(self.actions)}"


class ScopeError(ValueError):
    """The request asks for something that cannot be read."""


def parse(values: Iterable[str]) -> List[Scope]:
    """Return the scopes of all parameters ``scope``, each of which may hold several with spaces between.

    A name may have colons in it, so it is what lies between the first one and the last one. The same thing asked for twice becomes one.

    Raises:
        ScopeError: for a text without two colons, and for too many.
    """
    found: dict[Tuple[str, str], List[str]] = {}
    for text in " ".join(values).split(" "):
        if not text:
            continue
        kind, colon, rest = text.partition(":")
        name, last_colon, actions = rest.rpartition(":")
        if not colon or not last_colon or not _KIND.match(kind) or not name:
            raise ScopeError("a scope has the form repository:project/image:pull,push")
        wanted = found.setdefault((kind, name), [])
        wanted += [action for action in actions.split(",") if _ACTION.match(action) and action not in wanted]
        if len(found) > MOST:
            raise ScopeError(f"more than {MOST} scopes in one request")
    return [Scope(kind, name, tuple(actions)) for (kind, name), actions in found.items()]


def tag_written(method: str, uri: str) -> Optional[Tuple[str, str]]:
    """Return repository and tag, if the request to the registry writes a tag."""
    match = _TAG.match(posixpath.normpath(unquote(urlsplit(uri).path))) if method == "PUT" else None
    return (match["name"], match["tag"]) if match else None


def needed(uri: str) -> List[Scope]:
    """Return the scopes that a request to the registry may need; those that it does not need are no harm in a token for it alone."""
    parts = urlsplit(uri)
    path = unquote(parts.path)
    if path == "/v2/_catalog":
        return [Scope("registry", "catalog", ("*",))]
    match = _PATH.match(path)
    if match is None:
        return []
    source = parse_qs(parts.query).get("from", [])
    return [Scope("repository", match["name"], ("*",)), *(Scope("repository", name, ("pull",)) for name in source[:1])]
