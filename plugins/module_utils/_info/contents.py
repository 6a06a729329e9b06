# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a registry holds, in numbers: tags, digests, platforms, and what is stored once although it is used often.

Private to the collection; behind the module ``registry_info``. The numbers are made here, from :class:`Contents`. What fills that is
in ``store`` and ``api``.
"""

from __future__ import annotations

import json
from collections import Counter
from typing import Any, Callable, Collection, Dict, Iterable, Iterator, List, NamedTuple, Optional, Set, Tuple

from .._retention.decisions import utc
from .._store.findings import Finding, as_dicts
from .._store.manifests import Manifest, platform_name

TAGS, SIZES, PLATFORMS = "tags", "sizes", "platforms"
GATHER = (TAGS, SIZES, PLATFORMS)

#: What the configuration of an image is; that of an artifact (a chart, a signature) tells no platform.
_IMAGE_CONFIGS = ("application/vnd.docker.container.image.v1+json", "application/vnd.oci.image.config.v1+json")
#: What BuildKit writes where a platform makes no sense.
NO_PLATFORM = "unknown/unknown"


class InfoError(Exception):
    """The registry cannot be read as asked; the message names the option, what is wrong and what to do."""


class Tag(NamedTuple):
    """A tag. ``digest`` is empty if nobody can tell, ``pushed`` (seconds since 1970) is 0 if nobody knows."""

    name: str
    digest: str
    pushed: float = 0.0


class Repository(NamedTuple):
    """A repository.

    Attributes:
        name: its name.
        tags: its tags.
        manifests: digests of its manifests, as far as they are known without reading what the tags lead to.
        pushed: when something was pushed last (seconds since 1970); 0 if nobody knows.
    """

    name: str
    tags: List[Tag]
    manifests: Collection[str] = ()
    pushed: float = 0.0

    @property
    def project(self) -> str:
        """The first part of the name."""
        return self.name.partition("/")[0]


#: A configuration and a repository that has it.
Config = Tuple[str, str]


class Contents:
    """What was read of a registry.

    Attributes:
        repositories: those that were asked for.
        others: those that were not, but whose use of blobs counts.
        manifests: by digest, those that could be read.
        size_of: bytes of a blob or manifest; 0 if it is not there.
        read_platforms: yields the digest of each configuration and the platform that it tells; of one that cannot be read, a finding.
        findings: what is wrong.
        warnings: what may be a mistake in the options, or makes the numbers too small.
        blobs: sizes of all blobs in the storage, whether something refers to them or not; None over the API.
    """

    def __init__(self) -> None:
        self.repositories: List[Repository] = []
        self.others: List[Repository] = []
        self.manifests: Dict[str, Manifest] = {}
        self.size_of: Callable[[str], int] = lambda _digest: 0
        self.read_platforms: Callable[[List[Config]], Iterable[Tuple[str, str]]] = lambda _configs: ()
        self.findings: List[Finding] = []
        self.warnings: List[str] = []
        self.blobs: Optional[Dict[str, int]] = None


def reached(contents: Contents, repository: Repository) -> Set[str]:
    """Return the digests of a repository's manifests: those that it has, those that its tags name, and what indexes among them name."""
    found: Set[str] = set()
    pending = [*repository.manifests, *(tag.digest for tag in repository.tags if tag.digest)]
    while pending:
        digest = pending.pop()
        if digest in found:
            continue
        found.add(digest)
        manifest = contents.manifests.get(digest)
        if manifest is not None:
            # A child that could not be read is none of the repository's; it is among the findings.
            pending.extend(child for child in manifest.children if child in contents.manifests)
    return found


# --------------------------------------------------------------------------------------------------------------- sizes


class Sizes:
    """Sizes of repositories, and of what is made up of them.

    ``logical`` is the sum over all manifests, each once: its own bytes, its configuration and its layers. ``unique`` and ``shared``
    count each blob once: those that nothing outside uses, and those that something outside uses too. ``saved`` is what is logical
    but not stored. A blob is used by the repositories that have a manifest which names it.
    """

    def __init__(self, contents: Contents) -> None:
        self._size_of = contents.size_of
        self._manifests = contents.manifests
        self._used: Dict[str, Set[str]] = {}
        self._logical: Dict[str, int] = {}
        self._everywhere: Counter = Counter()
        self._pulled: Dict[str, int] = {}
        for repository in [*contents.repositories, *contents.others]:
            used: Set[str] = set()
            logical = 0
            for digest in reached(contents, repository):
                used.add(digest)
                logical += self._alone(digest)
                manifest = contents.manifests.get(digest)
                if manifest is not None:
                    used.update(manifest.references)
            self._everywhere.update(used)
            self._used[repository.name] = used
            self._logical[repository.name] = logical

    def _alone(self, digest: str) -> int:
        """Bytes of a manifest with its configuration and layers, without the manifests that it names."""
        manifest = self._manifests.get(digest)
        # An artifact may name the same empty blob as its configuration and as its layer.
        blobs = set() if manifest is None else {*manifest.layers, manifest.config} - {""}
        return self._size_of(digest) + sum(self._size_of(blob) for blob in blobs)

    def of(self, repositories: Iterable[Repository]) -> Dict[str, int]:
        """Return the sizes of these repositories together."""
        inside: Counter = Counter()
        logical = unique = shared = 0
        for repository in repositories:
            inside.update(self._used[repository.name])
            logical += self._logical[repository.name]
        for digest, times in inside.items():
            if times == self._everywhere[digest]:
                unique += self._size_of(digest)
            else:
                shared += self._size_of(digest)
        return {"logical": logical, "unique": unique, "shared": shared, "saved": logical - unique - shared}

    def pulled(self, digest: str) -> int:
        """Return the bytes of a manifest with all that it leads to: of an index, the sum of its own and of each of its images."""
        pending = [digest]
        while pending:
            top = pending[-1]
            if top in self._pulled:
                pending.pop()
                continue
            manifest = self._manifests.get(top)
            children = [child for child in manifest.children if child in self._manifests] if manifest is not None else []
            unknown = [child for child in children if child not in self._pulled]
            if unknown:
                pending.extend(unknown)
                continue
            self._pulled[top] = self._alone(top) + sum(self._pulled[child] for child in children)
            pending.pop()
        return self._pulled[digest]

    def storage(self, blobs: Dict[str, int]) -> Dict[str, int]:
        """Return what a storage holds, with what no manifest refers to."""
        loose = sum(size for digest, size in blobs.items() if digest not in self._everywhere)
        return {"blobs": len(blobs), "bytes": sum(blobs.values()), "unreferenced_bytes": loose}


# ----------------------------------------------------------------------------------------------------------- platforms


class Platforms:
    """Platforms of what tags point to: an index says it of its images, otherwise an image's configuration does."""

    def __init__(self, contents: Contents) -> None:
        self._manifests = contents.manifests
        self._named: Dict[str, Dict[str, str]] = {}
        self._known: Dict[str, Tuple[str, ...]] = {}
        configs = dict(self._wanted(contents))
        self._by_config = dict(contents.read_platforms(sorted(configs.items())))

    def _open(self, manifest: Manifest) -> List[str]:
        """Children whose platform an index does not tell."""
        named = self._named.setdefault(manifest.digest, dict(manifest.platforms))
        return [child for child in manifest.children if child not in named and child in self._manifests]

    def _wanted(self, contents: Contents) -> Iterator[Config]:
        seen: Set[str] = set()
        for repository in contents.repositories:
            pending = [tag.digest for tag in repository.tags]
            while pending:
                digest = pending.pop()
                manifest = self._manifests.get(digest)
                if manifest is None or digest in seen:
                    continue
                seen.add(digest)
                pending.extend(self._open(manifest))
                if manifest.config and manifest.artifact in _IMAGE_CONFIGS:
                    yield manifest.config, repository.name

    def of(self, digest: str) -> Tuple[str, ...]:
        """Return the platforms of an image or index, in order; none of an artifact."""
        pending = [digest]
        while pending:
            top = pending[-1]
            if top in self._known:
                pending.pop()
                continue
            manifest = self._manifests.get(top)
            children = self._open(manifest) if manifest is not None else []
            unknown = [child for child in children if child not in self._known]
            if unknown:
                pending.extend(unknown)
                continue
            found = set() if manifest is None else {self._by_config.get(manifest.config, ""), *self._named[top].values()}
            for child in children:
                found.update(self._known[child])
            self._known[top] = tuple(sorted(found - {"", NO_PLATFORM}))
            pending.pop()
        return self._known[digest]


def platform_of(content: bytes) -> str:
    """Return the platform that an image's configuration tells, or nothing. Raises ValueError if it is no configuration."""
    try:
        tree = json.loads(content.decode("utf-8"))
    except (ValueError, RecursionError):
        raise ValueError("it is no JSON") from None
    if not isinstance(tree, dict):
        raise ValueError("it is no JSON object")
    return platform_name(tree) if tree.get("os") else ""


# -------------------------------------------------------------------------------------------------------------- report


def report(contents: Contents, gather: Collection[str]) -> Dict[str, Any]:
    """Return the module's values: ``repositories``, ``projects``, ``totals`` and ``findings``."""
    sizes = Sizes(contents) if SIZES in gather else None
    platforms = Platforms(contents) if PLATFORMS in gather else None
    repositories = sorted(contents.repositories)
    entries = [_describe(contents, repository, TAGS in gather, sizes, platforms) for repository in repositories]

    projects: Dict[str, List[int]] = {}
    for number, repository in enumerate(repositories):
        projects.setdefault(repository.project, []).append(number)

    def together(numbers: Collection[int]) -> Dict[str, Any]:
        parts = [entries[number] for number in numbers]
        found: Dict[str, Any] = {
            "repository_count": len(parts),
            "tag_count": sum(part["tag_count"] for part in parts),
            "manifest_count": sum(part["manifest_count"] for part in parts),
            "last_push": max((part["last_push"] for part in parts if part["last_push"]), default=None),
        }
        if sizes is not None:
            found["size"] = sizes.of(repositories[number] for number in numbers)
        if platforms is not None:
            found["platforms"] = sorted({name for part in parts for name in part["platforms"]})
        return found

    totals = dict(together(range(len(entries))), project_count=len(projects))
    if sizes is not None:
        totals["storage"] = None if contents.blobs is None else sizes.storage(contents.blobs)
    return {
        "repositories": entries,
        "projects": [{"name": name, **together(numbers)} for name, numbers in projects.items()],
        "totals": totals,
        "findings": as_dicts(contents.findings),
    }


def _describe(
    contents: Contents, repository: Repository, tags: bool, sizes: Optional[Sizes], platforms: Optional[Platforms]
) -> Dict[str, Any]:
    digests = reached(contents, repository)
    found: Dict[str, Any] = {
        "name": repository.name,
        "project": repository.project,
        "tag_count": len(repository.tags),
        "manifest_count": len(digests),
        "last_push": _time(repository.pushed),
    }
    if tags:
        found["tags"] = [_describe_tag(tag, sizes, platforms) for tag in sorted(repository.tags)]
        found["digests"] = sorted(digests)
    if platforms is not None:
        found["platforms"] = sorted({name for tag in repository.tags for name in platforms.of(tag.digest)})
    if sizes is not None:
        found["size"] = sizes.of([repository])
    return found


def _describe_tag(tag: Tag, sizes: Optional[Sizes], platforms: Optional[Platforms]) -> Dict[str, Any]:
    found: Dict[str, Any] = {"name": tag.name, "digest": tag.digest or None, "pushed": _time(tag.pushed)}
    if sizes is not None:
        found["size"] = sizes.pulled(tag.digest)
    if platforms is not None:
        found["platforms"] = list(platforms.of(tag.digest))
    return found


def _time(seconds: float) -> Optional[str]:
    return utc(seconds) if seconds else None
