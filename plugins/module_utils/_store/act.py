# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Carry a plan out, so that it may be killed anywhere and no push is lost.

**Hide** (online, first visit): what will be hidden is written down, the links are removed and the cache forgets them. A client that asks
is told to upload again; the blob itself stays, so an upload that is under way only writes its link anew.

**Delete** (online, a later visit at least ``grace`` after): the blob is moved out of the registry's tree, then all links are looked at
once more, now and after ``settle`` seconds; a blob that somebody linked meanwhile is moved back, all others are removed. So even the
registry that saw the blob just before it was moved, and wrote its link just after, loses nothing.

Between the listing and each step the links are listed again, and whatever appeared since is left alone. Whatever a manifest needs that was
put while its blobs were being hidden gets its link back, at the end of the run or, if that is killed, by the next.
"""

from __future__ import annotations

import json
import time
from typing import Dict, Iterable, List, NamedTuple, Optional, Set, Tuple

from . import layout
from .cache import Cache
from .driver import Driver, Entry, StoreError
from .graph import Graph, read_manifests
from .listing import Snapshot, read_links, read_tag
from .lock import Lock
from .manifests import Manifest
from .plan import Blob, Hidden, Plan

STATE = layout.OWN + "/hidden.json"


class Outcome(NamedTuple):
    """What a run did."""

    manifests_deleted: int
    blobs_hidden: int
    blobs_deleted: int
    bytes_freed: int
    uploads_purged: int
    #: Whether time ran out before all was done.
    unfinished: bool


# --------------------------------------------------------------------------------------------------------------- state


def load_hidden(driver: Driver) -> Dict[str, Hidden]:
    """Return what former runs hid. Without the file (or with a damaged one) everything begins with the first visit again."""
    try:
        tree = json.loads(driver.read(STATE).decode())
        return {
            digest: Hidden(float(since), tuple((int(kind), str(name)) for kind, name in links))
            for digest, (since, links) in tree["hidden"].items()
        }
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return {}


def save_hidden(driver: Driver, hidden: Dict[str, Hidden]) -> None:
    """Write down what is hidden."""
    tree = {"version": 1, "hidden": {digest: [entry.since, list(entry.links)] for digest, entry in sorted(hidden.items())}}
    driver.write(STATE, json.dumps(tree, separators=(",", ":")).encode())


def restore_trash(driver: Driver) -> int:
    """Put blobs back that a killed run had moved away; return how many."""
    count = 0
    for digest in sorted(list_trash(driver)):
        if driver.stat(layout.blob_path(digest)) is None:
            driver.move(layout.trash_path(digest), layout.blob_path(digest))
            count += 1
        else:
            driver.remove([layout.trash_path(digest)])
    return count


def list_trash(driver: Driver) -> Dict[str, int]:
    """Return the blobs, with their sizes, that a killed run had moved away."""
    found = {}
    for entry in driver.walk(layout.TRASH):
        algorithm, _slash, value = entry.path[len(layout.TRASH) + 1 :].partition("/")
        if layout.is_digest(f"{algorithm}:{value}"):
            found[f"{algorithm}:{value}"] = entry.size
    return found


# ----------------------------------------------------------------------------------------------------------- acting


class Actor:
    """Carries one plan out. ``hidden`` is changed as things go on."""

    def __init__(
        self,
        driver: Driver,
        graph: Graph,
        plan: Plan,
        hidden: Dict[str, Hidden],
        lock: Lock,
        *,
        grace: float,
        cache: Optional[Cache] = None,
        settle: float = 5.0,
        deadline: float = float("inf"),
    ) -> None:
        self._driver = driver
        self._graph = graph
        self._plan = plan
        self._hidden = hidden
        self._lock = lock
        self._grace = grace
        self._cache = cache
        self._settle = settle
        self._deadline = deadline
        self._gone: Set[str] = set()
        self._unfinished = False
        self._look_seconds = 0.0

    def run(self) -> Outcome:
        """Do it; what cannot be removed raises :class:`StoreError` after the rest of its step was done."""
        plan = self._plan
        for kind, name, digest in plan.relink:
            self._link(kind, name, digest)
        hidden = 0
        deleted = 0
        if plan.mode == "offline":
            deleted = self._delete_offline()
        elif plan.hide or plan.manifests or plan.tags:
            hidden = self._hide()
        if plan.mode == "online" and plan.delete and not self._late():
            deleted = self._delete_online()
        uploads = 0 if self._late() else self._purge_uploads()
        if not self._late():
            self._lock.require()
            self._driver.remove_empty(plan.empties)
        manifests = sum(layout.revision_path(item.repository, item.digest) in self._gone for item in plan.manifests)
        freed = sum(plan.files.get(path, 0) for path in self._gone)
        return Outcome(manifests, hidden, deleted, freed, uploads, self._unfinished)

    def _late(self) -> bool:
        if time.monotonic() > self._deadline:
            self._unfinished = True
        return self._unfinished

    def _remove(self, paths: Iterable[str]) -> None:
        wanted = list(paths)
        if not wanted:
            return
        self._lock.require()
        stayed = self._driver.remove(wanted)
        self._gone.update(wanted)
        self._gone.difference_update(path for path, _reason in stayed)
        if stayed:
            raise StoreError(f"{self._driver.label}: {len(stayed)} files cannot be removed, first {stayed[0][0]}: {stayed[0][1]}")

    def _remove_untouched(self, paths: Iterable[str]) -> int:
        """Remove links that nobody has written since the plan's listing; return how many somebody has.

        A look at all links takes seconds on a large storage. What is pushed meanwhile is found here, a moment before its link would go.
        """
        wanted = list(paths)
        touched = 0
        for start in range(0, len(wanted), 64):
            part = wanted[start : start + 64]
            entries = list(self._driver.each(self._driver.stat, part))
            untouched = [path for path, entry in zip(part, entries) if entry is None or not self._is_newer(entry)]
            touched += len(part) - len(untouched)
            self._remove(untouched)
        return touched

    def _is_newer(self, entry: Entry) -> bool:
        item = layout.parse(entry.path)
        repository = self._graph.snapshot.repositories[item.repository]
        if item.kind == layout.LAYER:
            link = repository.layers.get(item.digest)
        elif item.kind == layout.REVISION:
            link = repository.revisions.get(item.digest)
        else:
            tag = repository.tags[item.name]
            link = tag.current if item.kind == layout.TAG else tag.history.get(item.digest)
        # Asked for one object, S3 tells whole seconds only.
        return link is None or entry.modified >= link.modified + 1.0

    def _link(self, kind: int, repository: str, digest: str) -> None:
        path = layout.revision_path(repository, digest) if kind == layout.REVISION else layout.layer_path(repository, digest)
        self._lock.require()
        self._driver.write(path, digest.encode())
        self._gone.discard(path)

    # ------------------------------------------------------------------------------------------------------- offline

    def _manifest_paths(self, claimed: Set[str]) -> List[str]:
        """Return the links of manifests and fallback tags that go: tags first, so that none ever points to a missing manifest."""
        plan = self._plan
        first: List[str] = []
        last: List[str] = []
        going: Dict[str, Set[str]] = {}
        for gone in plan.tags:
            if gone.digest not in claimed:
                tag = self._graph.snapshot.repositories[gone.repository].tags[gone.tag]
                first.append(layout.tag_path(gone.repository, gone.tag))
                first += [layout.history_path(gone.repository, gone.tag, digest) for digest in tag.history]
        for item in plan.manifests:
            if item.digest not in claimed:
                last.append(layout.revision_path(item.repository, item.digest))
                going.setdefault(item.repository, set()).add(item.digest)
        for name, digests in going.items():
            for tag_ in self._graph.snapshot.repositories[name].tags.values():
                for digest in tag_.history.keys() & digests:
                    path = layout.history_path(name, tag_.name, digest)
                    if path in plan.files:
                        first.append(path)
        return [*dict.fromkeys(first), *last]

    def _delete_offline(self) -> int:
        plan = self._plan
        self._remove(self._manifest_paths(set()))
        count = 0
        for start in range(0, len(plan.delete), 2000):
            if self._late():
                break
            part = plan.delete[start : start + 2000]
            self._forget((name, blob.digest) for blob in part for name in blob.repositories)
            self._remove(
                layout.layer_path(name, blob.digest)
                for blob in part
                for name in blob.repositories
                if layout.layer_path(name, blob.digest) in plan.files
            )
            self._remove(layout.blob_path(blob.digest) for blob in part)
            self._forget((name, blob.digest) for blob in part for name in blob.repositories)
            count += len(part)
            for blob in part:
                self._hidden.pop(blob.digest, None)
        save_hidden(self._driver, self._hidden)
        return count

    def _forget(self, pairs: Iterable[Tuple[str, str]], within: float = 0.0) -> Set[Tuple[str, str]]:
        return self._cache.forget(pairs, within) if self._cache else set()

    # -------------------------------------------------------------------------------------------------------- online

    def _claims(self) -> Dict[str, Set[Tuple[int, str]]]:
        """List the links again. Return by digest what appeared or changed since the plan's listing: (kind, repository).

        That is new links, and everything that new manifests and newly pushed tags refer to.
        """
        begun = time.monotonic()
        self._lock.require()
        now = read_links(self._driver)
        if now.blind:
            raise StoreError(f"{self._driver.label} could not be read again: {now.blind[0]}; nothing more was removed")
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
        self._claim_references(now, fresh, claims)
        self._look_seconds = time.monotonic() - begun
        return claims

    def _claim_references(self, now: Snapshot, fresh: List[Tuple[str, str]], claims: Dict[str, Set[Tuple[int, str]]]) -> None:
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

    def _heal(self, claims: Dict[str, Set[Tuple[int, str]]]) -> None:
        """Give back the links that this run or a former one removed and that something new needs."""
        for digest in claims.keys() & self._hidden.keys():
            for kind, name in claims[digest]:
                self._link(kind, name, digest)

    def _hide(self) -> int:
        plan = self._plan
        claims = self._claims()
        going = [blob for blob in plan.hide if blob.digest not in claims]
        if self._cache:
            asked = self._cache.asked(((name, blob.digest) for blob in going for name in blob.repositories), self._grace)
            going = [blob for blob in going if blob.digest not in asked]
        manifests = {item.digest for item in plan.manifests if item.digest not in claims}
        removed: Dict[str, List[Tuple[int, str]]] = {}
        snapshot = self._graph.snapshot
        for blob in going:
            links = [(layout.LAYER, name) for name in blob.repositories if blob.digest in snapshot.repositories[name].layers]
            removed[blob.digest] = links
        for item in plan.manifests:
            if item.digest in manifests:
                removed.setdefault(item.digest, []).append((layout.REVISION, item.repository))
        # Written down first: a killed run leaves nothing hidden that the next does not know of.
        for digest, links in removed.items():
            self._hidden[digest] = Hidden(0.0, tuple(links))
        save_hidden(self._driver, self._hidden)
        if self._remove_untouched(self._manifest_paths(set(claims))):
            claims.update(self._claims())
        restored: Set[str] = set()
        for start in range(0, len(going), 64):
            restored |= self._hide_links([blob for blob in going[start : start + 64] if blob.digest not in claims])
        pairs = [(name, digest) for digest, links in removed.items() for _kind, name in links]
        self._forget(pairs)
        self._heal(self._claims())
        self._wait()
        self._forget(pairs)
        self._heal(self._claims())
        since = self._driver.now()
        for digest in removed:
            self._hidden[digest] = self._hidden[digest]._replace(since=since)
        save_hidden(self._driver, self._hidden)
        return sum(blob.digest not in restored for blob in going)

    def _hide_links(self, blobs: List[Blob]) -> Set[str]:
        """Remove the links of a few blobs, and give those back that a client asked for in that moment; return their digests.

        Few at a time: what a client is told to be there and puts into a manifest right now must not be without its link for long.
        """
        repositories = self._graph.snapshot.repositories
        pairs = [(name, blob.digest) for blob in blobs for name in blob.repositories if blob.digest in repositories[name].layers]
        if self._cache:
            asked = self._cache.asked(pairs, self._grace)
            pairs = [pair for pair in pairs if pair[1] not in asked]
        begun = time.monotonic()
        self._remove_untouched([layout.layer_path(name, digest) for name, digest in pairs])
        # Redis counts whole seconds.
        back = self._forget(pairs, within=time.monotonic() - begun + 2.0)
        for name, digest in back:
            self._link(layout.LAYER, name, digest)
        return {digest for _name, digest in back}

    def _wait(self) -> None:
        end = time.monotonic() + self._settle
        while time.monotonic() < end:
            time.sleep(min(1.0, max(0.0, end - time.monotonic())))
            self._lock.require()

    def _delete_online(self) -> int:
        """Move, look, wait, look, remove; in parts that take about as long as a look, so that what comes back is not away for long."""
        left = list(self._plan.delete)
        moved: List[Blob] = []
        while left and not self._late():
            claims = self._claims()
            self._restore(moved, claims)
            begun = time.monotonic()
            while left and time.monotonic() - begun < max(0.2, self._look_seconds):
                self._lock.require()
                part, left = left[:50], left[50:]
                part = [blob for blob in part if blob.digest not in claims]
                moved += [blob for blob, done in zip(part, self._driver.each(self._move_away, part)) if done]
        self._restore(moved, self._claims())
        if moved:
            self._wait()
            self._restore(moved, self._claims())
        self._forget((name, blob.digest) for blob in moved for _kind, name in self._links_of(blob.digest))
        self._lock.require()
        stayed = self._driver.remove(layout.trash_path(blob.digest) for blob in moved)
        if stayed:
            raise StoreError(f"{self._driver.label}: {len(stayed)} files cannot be removed, first {stayed[0][0]}: {stayed[0][1]}")
        for blob in moved:
            self._gone.add(layout.blob_path(blob.digest))
            self._hidden.pop(blob.digest, None)
        save_hidden(self._driver, self._hidden)
        return len(moved)

    def _links_of(self, digest: str) -> Tuple[Tuple[int, str], ...]:
        entry = self._hidden.get(digest)
        return entry.links if entry else ()

    def _move_away(self, blob: Blob) -> bool:
        try:
            self._driver.move(layout.blob_path(blob.digest), layout.trash_path(blob.digest))
        except FileNotFoundError:
            return False
        return True

    def _restore(self, moved: List[Blob], claims: Dict[str, Set[Tuple[int, str]]]) -> None:
        """Move back what somebody linked or referred to meanwhile, unless it was uploaded anew."""
        for blob in [blob for blob in moved if blob.digest in claims]:
            if self._driver.stat(layout.blob_path(blob.digest)) is None:
                self._driver.move(layout.trash_path(blob.digest), layout.blob_path(blob.digest))
            else:
                self._driver.remove([layout.trash_path(blob.digest)])
            moved.remove(blob)
        self._heal(claims)

    # ------------------------------------------------------------------------------------------------------- uploads

    def _purge_uploads(self) -> int:
        paths = []
        folders: Set[str] = set()
        for item in self._plan.uploads:
            for entry in self._graph.snapshot.repositories[item.repository].uploads[item.id]:
                paths.append(entry.path)
                folder = entry.path.rpartition("/")[0]
                while folder.count("/_uploads/"):
                    folders.add(folder)
                    folder = folder.rpartition("/")[0]
        self._remove(paths)
        self._driver.remove_empty(sorted(folders, key=len, reverse=True))
        for multipart in self._plan.multiparts:
            self._lock.require()
            self._driver.abort(multipart)
        return self._plan.uploads_count
