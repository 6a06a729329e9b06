# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Read what a registry holds through its API. Private to the collection.

The API tells no times, and nothing of manifests without a tag and of blobs that nothing refers to. It takes one request for each list
of tags and for each manifest; several are under way at the same time.
"""

from __future__ import annotations

import json
import ssl
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Callable, Collection, Dict, Iterable, Iterator, List, NamedTuple, Optional, Sequence, Tuple, Union

from .._registry.api import Registry, RegistryError
from .._store.findings import Finding
from .._store.graph import compile_globs
from .._store.manifests import LIMIT, Invalid, Manifest, parse
from .contents import PLATFORMS, SIZES, TAGS, Config, Contents, InfoError, Repository, Tag, platform_of

#: Tags of a repository with their digests, as far as they are known.
Tags = Dict[str, Optional[str]]

_WILDCARDS = frozenset("*?[{")
_ATTEMPTS = 4
_NOT_NOW = (None, 429, 502, 503, 504)
_DENIED = (401, 403)


class _Read(NamedTuple):
    """A manifest, and the sizes of the blobs that it names."""

    manifest: Manifest
    sizes: Dict[str, int]


def read_registry(
    registry: Registry,
    patterns: Sequence[str],
    gather: Collection[str],
    workers: int = 16,
    sleep: Callable[[float], None] = time.sleep,
) -> Contents:
    """Return what a registry holds.

    Args:
        registry: a client of it.
        patterns: globs of the repositories that are asked for; none: all. If none of them has a wildcard, the catalog is not read.
        gather: some of ``contents.GATHER``. Without them there are only names.
        workers: requests at the same time.
        sleep: waits between attempts.

    Raises:
        InfoError: if the registry does not answer, is none, or does not let the user in.
        StoreError: for a pattern that is none.
    """
    globs = compile_globs(patterns)
    _greet(registry)
    reader = _Reader(registry, max(1, workers), sleep)
    reader.read(globs, gather)
    return reader.contents


def _greet(registry: Registry) -> None:
    try:
        registry.ping()
    except RegistryError as error:
        if error.status in _DENIED:
            raise InfoError(f"username, password: {registry.origin} does not let this user in: {error}") from None
        if isinstance(error.__cause__, ssl.SSLError):
            raise InfoError(f"url, ca_path: {error}; ca_path must name the CA that signed the registry's certificate") from None
        if error.status is None:
            raise InfoError(f"url: {error}") from None
        raise InfoError(
            f"url: {registry.origin} does not answer as a registry: {error}; write for example url: https://registry.example.com"
        ) from None


class _Reader:
    """Fills ``contents``."""

    def __init__(self, registry: Registry, workers: int, sleep: Callable[[float], None]) -> None:
        self._registry = registry
        self._workers = workers
        self._sleep = sleep
        self._sizes: Dict[str, int] = {}
        #: Set once the registry gives no answer: what has not been begun is not asked any more.
        self._silent: Optional[InfoError] = None
        self.contents = Contents()
        self.contents.size_of = lambda digest: self._sizes.get(digest, 0)
        self.contents.read_platforms = self._read_platforms

    # -- how it is asked -----------------------------------------------------------------------------------------------------------

    def _ask(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Return what ``function`` returns, or the RegistryError with which the registry refused.

        Raises:
            InfoError: if the registry gives no answer, several times.
        """
        attempt = 1
        while True:
            if self._silent:
                raise self._silent
            try:
                return function(*arguments)
            except RegistryError as error:
                if error.status not in _NOT_NOW:
                    return error
                if attempt == _ATTEMPTS:
                    self._silent = InfoError(f"url: {error}; nothing is returned, because it would not be all")
                    raise self._silent from None
            self._sleep(0.1 * 3**attempt)
            attempt += 1

    def _each(self, function: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Any]:
        """Yield ``function(item)`` for each item in order, several at a time. After a failure the rest is not begun."""
        with ThreadPoolExecutor(max_workers=self._workers) as pool:
            futures = deque(pool.submit(function, item) for item in items)
            try:
                while futures:
                    yield futures.popleft().result()
            finally:
                for future in futures:
                    future.cancel()

    def _note(self, kind: str, repository: str, tag: str = "", digest: str = "", detail: object = "") -> None:
        self.contents.findings.append(Finding(kind, repository, tag, digest, detail=str(detail)))

    # -- what is read --------------------------------------------------------------------------------------------------------------

    def read(self, globs: Sequence[Tuple[str, Callable[[str], object]]], gather: Collection[str]) -> None:
        """Read repositories, their tags, and as far as ``gather`` needs them the manifests."""
        named = bool(globs) and not any(_WILDCARDS.intersection(pattern) for pattern, _match in globs)
        found = self._tags([pattern.strip("/") for pattern, _match in globs] if named else self._names(globs))
        if SIZES in gather or PLATFORMS in gather:
            self._manifests(found)
        elif TAGS in gather:
            self._digests(found)
        self._forget_deleted(found)
        refused = {finding.repository for finding in self.contents.findings}
        for name, tags in found.items():
            if named and not tags and name not in refused:
                # The API does not tell an empty repository from none.
                self.contents.warnings.append(f"repositories: {name} matches no repository with tags.")
                continue
            self.contents.repositories.append(Repository(name, [Tag(tag, digest or "") for tag, digest in tags.items()]))
        unread = [finding for finding in self.contents.findings if finding.kind == "unreadable"]
        if unread:
            self.contents.warnings.append(
                f"Not all could be read ({unread[0].repository}: {unread[0].detail}), so numbers may be too small; see findings."
            )

    def _names(self, globs: Sequence[Tuple[str, Callable[[str], object]]]) -> List[str]:
        """Return the names of the repositories that are asked for, from the catalog."""
        answer = self._ask(self._registry.list_repositories)
        if isinstance(answer, RegistryError):
            if answer.status in _DENIED:
                raise InfoError(
                    f"repositories: the registry does not let this user read its catalog ({answer}); name the repositories without wildcards, "
                    "or take a user who may"
                )
            raise InfoError(f"url: {self._registry.origin} does not answer as a registry: {answer}")
        for pattern, match in globs:
            if not any(match(name) for name in answer):
                self.contents.warnings.append(f"repositories: {pattern} matches no repository.")
        return sorted({name for name in answer if not globs or any(match(name) for _pattern, match in globs)})

    def _tags(self, names: List[str]) -> Dict[str, Tags]:
        """Return the tags of repositories, still without digests."""
        found: Dict[str, Tags] = {}
        for name, answer in zip(names, self._each(lambda name: self._ask(self._registry.list_tags, name), names)):
            if isinstance(answer, RegistryError):
                self._note("unreadable", name, detail=answer)
                answer = []
            found[name] = dict.fromkeys(answer)
        return found

    def _digests(self, found: Dict[str, Tags]) -> None:
        """Ask for the digest of each tag."""
        pairs = [(name, tag) for name, tags in found.items() for tag in tags]
        for (name, tag), answer in zip(pairs, self._each(lambda pair: self._ask(self._registry.head_manifest, *pair), pairs)):
            if isinstance(answer, RegistryError):
                self._note("unreadable", name, tag, detail=answer)
            elif answer:
                found[name][tag] = answer
            else:
                self._note("missing-manifest", name, tag)

    def _manifests(self, found: Dict[str, Tags]) -> None:
        """Read the manifest of each tag, and level by level the children of indexes, each of them once."""
        manifests = self.contents.manifests
        pairs = [(name, tag) for name, tags in found.items() for tag in tags]
        level: List[Tuple[str, Manifest]] = []
        for (name, tag), (digest, read) in zip(pairs, self._each(self._read, pairs)):
            found[name][tag] = digest
            if isinstance(read, _Read):
                self._take(read)
                level.append((name, read.manifest))
            else:
                self.contents.findings.append(read._replace(tag=tag))
        tried = set(manifests)
        while level:
            wanted: Dict[str, Dict[str, str]] = {}  # child -> repository -> who names it
            for name, manifest in level:
                for child in manifest.children:
                    if child not in tried:
                        wanted.setdefault(child, {}).setdefault(name, manifest.digest)
            tried.update(wanted)
            level = []
            for (child, parents), outcome in zip(wanted.items(), self._each(self._read_child, wanted.items())):
                for read in outcome:
                    if isinstance(read, _Read):
                        self._take(read)
                        level += [(name, read.manifest) for name in parents]
                    else:
                        self.contents.findings.append(read._replace(digest=child))

    def _take(self, read: _Read) -> None:
        manifest = read.manifest
        if manifest.digest not in self.contents.manifests:
            self.contents.manifests[manifest.digest] = manifest
            self._sizes.update(read.sizes)
            self._sizes[manifest.digest] = manifest.size

    def _read(self, pair: Tuple[str, str]) -> Tuple[str, Union[_Read, Finding]]:
        """Return the digest and the manifest of a tag or digest, or what is wrong with it; the digest is empty if nobody can tell."""
        repository, reference = pair
        answer = self._ask(self._registry.get_manifest, repository, reference)
        if isinstance(answer, RegistryError):
            kind = "missing-manifest" if answer.status == 404 else "unreadable"
            return "", Finding(kind, repository, detail="" if answer.status == 404 else str(answer))
        content, _media_type, digest = answer
        try:
            manifest = parse(digest, content)
        except Invalid as problem:
            return digest, Finding(problem.kind, repository, digest=digest, detail=str(problem))
        sizes = _sizes_in(manifest, content)
        for blob in (manifest.config, *manifest.layers):
            if blob and blob not in sizes:
                # A layer that may be elsewhere, or a manifest of Docker's first schema, which tells no sizes.
                size = self._ask(self._registry.blob_size, repository, blob)
                sizes[blob] = size if isinstance(size, int) else 0
        return digest, _Read(manifest, sizes)

    def _read_child(self, item: Tuple[str, Dict[str, str]]) -> List[Union[_Read, Finding]]:
        """Read a child from one of the repositories that name it; return what was wrong in those before."""
        child, parents = item
        found: List[Union[_Read, Finding]] = []
        for name, parent in parents.items():
            digest, read = self._read((name, child))
            if isinstance(read, _Read) and digest == child:
                return [*found, read]
            if isinstance(read, _Read):
                read = Finding("wrong-digest", name, detail=f"the registry sent {digest}")
            elif read.kind == "missing-manifest":
                read = Finding("missing-child", name, detail=f"named by {parent}")
            found.append(read)
        return found

    def _forget_deleted(self, found: Dict[str, Tags]) -> None:
        """Leave out tags that had no manifest because somebody deleted them while they were read."""
        suspects = [finding for finding in self.contents.findings if finding.kind == "missing-manifest"]
        names = sorted({finding.repository for finding in suspects})
        now = {
            name: found[name] if isinstance(answer, RegistryError) else set(answer)
            for name, answer in zip(names, self._each(lambda name: self._ask(self._registry.list_tags, name), names))
        }
        deleted = set()
        for finding in suspects:
            if finding.tag not in now[finding.repository]:
                deleted.add(finding)
                del found[finding.repository][finding.tag]
        self.contents.findings = [finding for finding in self.contents.findings if finding not in deleted]

    def _read_platforms(self, configs: List[Config]) -> Iterator[Tuple[str, str]]:
        def read(config: Config) -> Union[str, Finding]:
            digest, repository = config
            answer = self._ask(self._registry.get_blob, repository, digest)
            if isinstance(answer, RegistryError):
                missing = answer.status == 404
                return Finding(
                    "missing-blob" if missing else "unreadable", repository, digest=digest, detail="" if missing else str(answer)
                )
            try:
                return platform_of(answer)
            except ValueError as problem:
                return Finding("unreadable", repository, digest=digest, detail=f"the configuration of an image: {problem}")

        small = [config for config in configs if self._sizes.get(config[0], 0) <= LIMIT]
        for (digest, _repository), found in zip(small, self._each(read, small)):
            if isinstance(found, Finding):
                self.contents.findings.append(found)
            else:
                yield digest, found


def _sizes_in(manifest: Manifest, content: bytes) -> Dict[str, int]:
    """Return the sizes that a manifest tells of the blobs that it names, but not of those that may be elsewhere."""
    wanted = {manifest.config, *manifest.layers} - {"", *manifest.foreign}
    tree = json.loads(content.decode("utf-8"))
    named = [tree.get("config")]
    for name in ("layers", "blobs", "manifests"):
        named += tree.get(name) or []
    return {
        item["digest"]: item["size"]
        for item in named
        if isinstance(item, dict) and item.get("digest") in wanted and isinstance(item.get("size"), int)
    }
