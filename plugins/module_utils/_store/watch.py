# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What clients have done to a storage since a plan's listing. Nothing here changes it.

A look at everything (:meth:`Watch.claims`) misses nothing, and takes as long as listing all links does. Those at one repository's manifests
and at the links of a few blobs take milliseconds on a file system and a few requests on S3.
"""

from __future__ import annotations

import collections
import time
from typing import Deque, Dict, Iterable, List, Mapping, Optional, Set, Tuple

from . import layout
from .driver import Driver, Entry, StoreError
from .graph import Graph, read_manifests
from .listing import Link, Snapshot, read_links, read_tag
from .lock import Lock
from .manifests import Manifest
from .plan import Blob

# More manifests than one answer of S3 lists.
_MANY = 1000
# Up to so many tags are asked for one by one on S3: a listing of them is one of all their former manifests too.
_FEW_TAGS = 64
# A registry that saw a blob or a link just before it went writes its own within this time (seconds).
RACE = 2.0
# So many seconds after a move the links are looked at again: mostly such a link comes within milliseconds, and somebody pulls it soon.
_LOOKS = (0.0, 0.01, 0.02, 0.04, 0.08, 0.15, 0.3, 0.6, 1.2, RACE)
# The same where a look is some requests.
_LOOKS_AFAR = (0.0, 0.5, RACE)


class Looks:
    """When blobs that were moved away are to be looked at again, up to ``most`` seconds after.

    ``local``: a look takes milliseconds; otherwise it is some requests.
    """

    def __init__(self, local: bool, most: float) -> None:
        self._after = [seconds for seconds in (_LOOKS if local else _LOOKS_AFAR) if seconds <= most] or [0.0]
        self._queues: List[Deque[Tuple[float, List[Blob]]]] = [collections.deque() for _seconds in self._after]

    def __bool__(self) -> bool:
        return any(self._queues)

    def add(self, blobs: List[Blob]) -> None:
        """Note blobs that were moved away just now."""
        self._queues[0].append((time.monotonic(), blobs))

    def wait(self) -> float:
        """Return the seconds until the next look."""
        return max(0.0, min(queue[0][0] + seconds for seconds, queue in zip(self._after, self._queues) if queue) - time.monotonic())

    def due(self) -> List[Blob]:
        """Return the blobs to look at now."""
        found: Dict[str, Blob] = {}
        now = time.monotonic()
        for place in reversed(range(len(self._queues))):
            queue = self._queues[place]
            while queue and queue[0][0] + self._after[place] <= now:
                item = queue.popleft()
                found.update((blob.digest, blob) for blob in item[1])
                if place + 1 < len(self._queues):
                    self._queues[place + 1].append(item)
        return list(found.values())


class Watch:
    """Looks again at a storage of which ``graph`` is what the plan was made from.

    ``emptied`` names repositories in which nothing is left, because it was hidden: a client may push there again.
    """

    def __init__(self, driver: Driver, graph: Graph, lock: Lock, emptied: Iterable[str] = ()) -> None:
        self._driver = driver
        self._graph = graph
        self._lock = lock
        self._repositories: Set[str] = {*graph.snapshot.repositories, *emptied}
        self._links = sum(len(repository.layers) for repository in graph.snapshot.repositories.values())
        #: By repository: manifests that were put since, with the time of their link, and what they refer to.
        self._put: Dict[str, Dict[str, float]] = {}
        self._references: Dict[str, Set[Tuple[int, str]]] = {}
        self._tags: Dict[str, Dict[str, Tuple[int, str]]] = {}

    def claims(self) -> Dict[str, Set[Tuple[int, str]]]:
        """List the links again. Return by digest what appeared or changed since the plan's listing: (kind, repository).

        That is new links, and everything that new manifests and newly pushed tags refer to.
        """
        self._lock.require()
        now = read_links(self._driver)
        if now.blind:
            raise StoreError(f"{self._driver.label} could not be read again: {now.blind[0]}; nothing more was removed")
        self._repositories.update(now.repositories)
        old = self._graph.snapshot.repositories
        claims: Dict[str, Set[Tuple[int, str]]] = {}
        fresh: List[Tuple[str, str]] = []
        for name, repository in now.repositories.items():
            former = old.get(name)
            for digest, link in repository.layers.items():
                if former is None or former.layers.get(digest) != link:
                    claims.setdefault(digest, set())
            for digest, link in repository.revisions.items():
                if former is None or former.revisions.get(digest) != link:
                    claims.setdefault(digest, set())
                    fresh.append((name, digest))
            for tag in repository.tags.values():
                was = former.tags.get(tag.name) if former else None
                if tag.current is not None and (was is None or was.current != tag.current):
                    digest = read_tag(self._driver, name, tag.name)
                    if layout.is_digest(digest):
                        fresh.append((name, digest))
                        claims.setdefault(digest, set())
                        if digest not in repository.revisions:
                            claims[digest].add((layout.REVISION, name))
        self._follow(now, fresh, claims)
        return claims

    def _follow(self, now: Snapshot, fresh: List[Tuple[str, str]], claims: Dict[str, Set[Tuple[int, str]]]) -> None:
        """Add to ``claims`` what manifests refer to, and where the links for it are missing."""
        if not fresh:
            return
        graph = Graph(now)
        found: Dict[str, Manifest] = dict(self._graph.manifests)
        pending = list(fresh)
        seen: Set[Tuple[str, str]] = set()
        while pending:
            read_manifests(self._driver, graph, {digest for _name, digest in pending} - found.keys(), {})
            found.update(graph.manifests)
            following: List[Tuple[str, str]] = []
            for name, digest in pending:
                manifest = found.get(digest)
                if manifest is None or (name, digest) in seen:
                    continue
                seen.add((name, digest))
                repository = now.repositories.get(name)
                for reference in manifest.references:
                    places = claims.setdefault(reference, set())
                    is_manifest = reference in manifest.children
                    if repository is None or (reference not in repository.layers and reference not in repository.revisions):
                        places.add((layout.REVISION if is_manifest else layout.LAYER, name))
                    if is_manifest:
                        following.append((name, reference))
            pending = following

    def references(self, name: str) -> Set[Tuple[int, str]]:
        """Return what manifests refer to that were put into a repository since: (kind of link, digest)."""
        known = self._graph.snapshot.repositories[name].revisions
        put = self._put.setdefault(name, {})
        found = self._references.setdefault(name, set())
        unreadable = len(self._driver.unreadable)
        fresh = []
        revisions, tags = self._entries(name)
        for entry in revisions:
            item = layout.parse(entry.path)
            if item.kind != layout.REVISION:
                continue
            former = known.get(item.digest)
            if (former is None or former.modified != entry.modified) and put.get(item.digest) != entry.modified:
                put[item.digest] = entry.modified
                fresh.append((name, item.digest))
        fresh += self._tagged(name, tags)
        if len(self._driver.unreadable) > unreadable:
            raise StoreError(f"{self._driver.label} could not be read again: {self._driver.unreadable[-1]}; nothing more was removed")
        claims: Dict[str, Set[Tuple[int, str]]] = {}
        self._follow(Snapshot(0.0), fresh, claims)
        found.update((kind, digest) for digest, places in claims.items() for kind, _name in places)
        found.update((layout.REVISION, digest) for _name, digest in fresh)
        return found

    def _entries(self, name: str) -> List[List[Entry]]:
        """Return the links of a repository's manifests, and on S3 those of its tags.

        The link of a manifest that was pushed again between a look and its removal is gone; its tag tells. A file system shows that itself.
        """
        if self._driver.local:
            return [list(self._driver.walk(f"{layout.REPOSITORIES}/{name}/_manifests/revisions")), []]
        # At the same time, since a client that pushes now must not wait long for its links.
        return list(self._driver.each(lambda look: look(name), [self._revisions, self._tag_links]))

    def _revisions(self, name: str) -> List[Entry]:
        folder = f"{layout.REPOSITORIES}/{name}/_manifests/revisions"
        if len(self._graph.snapshot.repositories[name].revisions) < _MANY:
            return list(self._driver.walk(folder))
        parts = [*(f"{folder}/sha256/{digit}" for digit in "0123456789abcdef"), f"{folder}/sha512/"]
        return [entry for entries in self._driver.each(lambda part: list(self._driver.walk(part)), parts) for entry in entries]

    def _tag_links(self, name: str) -> List[Entry]:
        folder = f"{layout.REPOSITORIES}/{name}/_manifests/tags"
        if len(self._graph.snapshot.repositories[name].tags) > _FEW_TAGS:
            return [entry for entry in self._driver.walk(folder, skip=("index",)) if layout.parse(entry.path).kind == layout.TAG]
        links = [layout.tag_path(name, tag) for tag in self._driver.names(folder)]
        return [entry for entry in self._driver.each(self._driver.stat, links) if entry is not None]

    def _tagged(self, name: str, links: List[Entry]) -> List[Tuple[str, str]]:
        """Return the manifests that tags were put to since."""
        snapshot = self._graph.snapshot
        known = snapshot.repositories[name].tags
        seen = self._tags.setdefault(name, {})
        changed = []
        for entry in links:
            tag = layout.parse(entry.path).name
            former = known[tag].current if tag in known else None
            # Asked for one object, S3 tells whole seconds only; within one the ETag tells, and of the plan's own second all are new.
            state = (int(entry.modified), entry.etag)
            new = former is None or int(former.modified) != state[0] or state[0] >= int(snapshot.taken) - 1
            if new and seen.get(tag) != state:
                changed.append((tag, state))
        fresh = []
        digests = self._driver.each(lambda item: read_tag(self._driver, name, item[0]), changed)
        for (tag, state), digest in zip(changed, digests):
            if layout.is_digest(digest):
                seen[tag] = state
                fresh.append((name, digest))
        return fresh

    def can_look_at(self, blobs: int) -> bool:
        """Return whether a look at the links of so many blobs costs less than one at everything."""
        return blobs * len(self._repositories) <= max(2000, self._links // (1 if self._driver.local else 100))

    def linked(self, kinds: Mapping[str, Set[int]]) -> Set[str]:
        """Return those of a few blobs, given by digest with the kinds of links to look for (none: all), that somebody has linked since."""
        wanted: List[Tuple[str, str]] = []
        for digest, some in kinds.items():
            for name in self._repositories:
                if layout.LAYER in some or not some:
                    wanted.append((digest, layout.layer_path(name, digest)))
                if layout.REVISION in some or not some:
                    wanted.append((digest, layout.revision_path(name, digest)))
        entries = self._driver.each(self._driver.stat, [path for _digest, path in wanted])
        return {digest for (digest, _path), entry in zip(wanted, entries) if entry is not None and self.is_newer(entry)}

    def is_newer(self, entry: Entry) -> bool:
        """Return whether a link was written since the plan's listing."""
        item = layout.parse(entry.path)
        repository = self._graph.snapshot.repositories.get(item.repository)
        link: Optional[Link] = None
        if repository is not None and item.kind == layout.LAYER:
            link = repository.layers.get(item.digest)
        elif repository is not None and item.kind == layout.REVISION:
            link = repository.revisions.get(item.digest)
        elif repository is not None and item.name in repository.tags:
            tag = repository.tags[item.name]
            link = tag.current if item.kind == layout.TAG else tag.history.get(item.digest)
        # Asked for one object, S3 tells whole seconds only.
        return link is None or entry.modified >= link.modified + 1.0
