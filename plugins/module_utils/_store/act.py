# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Carry a plan out, so that it may be killed anywhere and no push is lost.

**Hide** (online, first visit): what will be hidden is written down, the links are removed and the cache forgets them. A client that asks
is told to upload again; the blob itself stays, so an upload that is under way only writes its link anew.

**Delete** (online, a later visit at least ``grace`` after): the blob is moved out of the registry's tree, then all links are looked at
once more, now and after ``settle`` seconds; a blob that somebody linked meanwhile is moved back, all others are removed. So even the
registry that saw the blob just before it was moved, and wrote its link just after, loses nothing.

Where edges listen to what is **announced** (``announce``), nothing is hidden: what was announced ``grace`` ago is deleted the same way, and
its links go last. A registry whose client uploads such a blob now writes the blob anew before the link. So the blob itself tells, before and
after the removal of its links, whether somebody needs them.

What clients do meanwhile is looked at again and again (``watch``). Before each step everything is, which takes long on a large storage;
around each removal of a few links, or move of a few blobs, just those repositories and blobs are, so that what a client needs at that very
moment is not away for longer than a few requests take. Whatever a manifest needs that was put while its blobs were being hidden gets its
link back, at the latest at the end of the run or, if that is killed, by the next.
"""

from __future__ import annotations

import collections
import time
from typing import Deque, Dict, Iterable, List, NamedTuple, Optional, Set, Tuple

from . import layout
from .announce import Announcer
from .cache import Cache
from .driver import Driver, StoreError
from .graph import Graph
from .lock import Lock
from .plan import Blob, Hidden, Plan
from .state import save_hidden
from .watch import RACE, Looks, Watch

# A look and the removals after it are of so many links, so that little happens between them.
_FEW_LINKS = 64
# The same on S3 where no cache tells who asked: what is pushed at this moment is away for as long as these requests take.
_FEWER_LINKS = 8
_FEW_BLOBS = 10
# So many seconds after a move that is some requests the same thread looks again, one after the other: mostly a link that comes after the
# first look was on its way, and its client puts the manifest soon.
_PAUSES = (0.0, 0.1, 0.3)
# Where a look at a few blobs costs more than one at everything, moves are of so many.
_MANY_BLOBS = 2000
# Blobs are moved for so many seconds, or longer where looks at everything are slow; then they are removed before others are moved. A run
# that is killed leaves so much to be put back.
_WHILE = 30.0


class Outcome(NamedTuple):
    """What a run did."""

    manifests_deleted: int
    blobs_hidden: int
    blobs_deleted: int
    bytes_freed: int
    uploads_purged: int
    #: Whether time ran out before all was done.
    unfinished: bool


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
        announcer: Optional[Announcer] = None,
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
        self._race = min(RACE, settle)
        self._few = _FEW_LINKS if cache or driver.local else _FEWER_LINKS
        self._deadline = deadline
        self._announcer = announcer
        #: What loses its links after it was moved: digest -> the links.
        self._moving: Dict[str, List[str]] = self._find_links() if announcer else {}
        self._spared: Set[str] = set()
        self._watch = Watch(driver, graph, lock, {name for entry in hidden.values() for _kind, name in entry.links})
        #: Links that this run removed and has not given back: repository -> (kind, digest).
        self._unlinked: Dict[str, Set[Tuple[int, str]]] = {}
        self._gone: Set[str] = set()
        self._unfinished = False

    def run(self) -> Outcome:
        """Do it; what cannot be removed raises :class:`StoreError` after the rest of its step was done."""
        plan = self._plan
        for kind, name, digest in plan.relink:
            self._link(kind, name, digest)
        hidden = 0
        deleted = 0
        if plan.mode == "offline":
            deleted = self._delete_offline()
        elif plan.hide or plan.tags or any(item.digest not in self._moving for item in plan.manifests):
            hidden = self._hide()
        if plan.mode == "online" and plan.delete and not self._late():
            deleted = self._delete_online()
        uploads = 0 if self._late() else self._purge_uploads()
        if not self._late():
            self._lock.require()
            self._driver.remove_empty(plan.empties)
        manifests = sum(layout.revision_path(item.repository, item.digest) in self._gone for item in plan.manifests)
        freed = sum(plan.files.get(path, 0) for path in self._gone)
        if self._announcer:
            self._announcer.withdraw(self._spared | {blob.digest for blob in plan.delete if layout.blob_path(blob.digest) in self._gone})
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
        self._note_gone(wanted, self._driver.remove(wanted))

    def _note_gone(self, paths: Iterable[str], stayed: List[Tuple[str, str]]) -> None:
        self._gone.update(paths)
        self._gone.difference_update(path for path, _reason in stayed)
        self._require_gone(stayed)

    def _require_gone(self, stayed: List[Tuple[str, str]]) -> None:
        if stayed:
            raise StoreError(f"{self._driver.label}: {len(stayed)} files cannot be removed, first {stayed[0][0]}: {stayed[0][1]}")

    def _remove_untouched(self, paths: Iterable[str]) -> List[str]:
        """Remove links that nobody has written since the plan's listing; return those that somebody has.

        A look at all links takes seconds on a large storage. What is pushed meanwhile is found here, at the moment when its link would go.
        """
        wanted = list(paths)
        touched: List[str] = []
        for start in range(0, len(wanted), _FEW_LINKS):
            part = wanted[start : start + _FEW_LINKS]
            self._lock.require()
            kept, stayed = self._driver.remove_untouched(part, self._watch.is_newer)
            touched += kept
            self._note_gone(set(part) - set(kept), stayed)
        return touched

    def _link(self, kind: int, repository: str, digest: str) -> None:
        path = layout.revision_path(repository, digest) if kind == layout.REVISION else layout.layer_path(repository, digest)
        self._lock.require()
        self._driver.write(path, digest.encode())
        self._gone.discard(path)

    # ------------------------------------------------------------------------------------------------------- offline

    def _manifest_paths(self, claimed: Iterable[str]) -> Dict[str, List[str]]:
        """Return by repository the links of manifests and fallback tags that go: tags first, so that none ever leads to a missing manifest."""
        plan = self._plan
        claimed = set(claimed)
        first: Dict[str, List[str]] = {}
        last: Dict[str, List[str]] = {}
        going: Dict[str, Set[str]] = {}
        for gone in plan.tags:
            if gone.digest not in claimed:
                tag = self._graph.snapshot.repositories[gone.repository].tags[gone.tag]
                paths = first.setdefault(gone.repository, [])
                paths.append(layout.tag_path(gone.repository, gone.tag))
                paths += [layout.history_path(gone.repository, gone.tag, digest) for digest in tag.history]
        for item in plan.manifests:
            if item.digest not in claimed and item.digest not in self._moving:
                last.setdefault(item.repository, []).append(layout.revision_path(item.repository, item.digest))
                going.setdefault(item.repository, set()).add(item.digest)
        for name, digests in going.items():
            for tag_ in self._graph.snapshot.repositories[name].tags.values():
                for digest in tag_.history.keys() & digests:
                    path = layout.history_path(name, tag_.name, digest)
                    if path in plan.files:
                        first.setdefault(name, []).append(path)
        return {name: [*dict.fromkeys(first.get(name, ())), *last.get(name, ())] for name in sorted(first.keys() | last.keys())}

    def _delete_offline(self) -> int:
        plan = self._plan
        self._remove(path for paths in self._manifest_paths(()).values() for path in paths)
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

    def _forget(self, pairs: Iterable[Tuple[str, str]]) -> None:
        if self._cache:
            self._cache.forget(pairs)

    # -------------------------------------------------------------------------------------------------------- online

    def _heal(self, claims: Dict[str, Set[Tuple[int, str]]]) -> None:
        """Give back the links that this run or a former one removed and that something new needs."""
        for digest in claims.keys() & self._hidden.keys():
            for kind, name in claims[digest]:
                self._link(kind, name, digest)

    def _hide(self) -> int:
        plan = self._plan
        claims = self._watch.claims()
        going = [blob for blob in plan.hide if blob.digest not in claims]
        if self._cache:
            asked = self._cache.asked(((name, blob.digest) for blob in going for name in blob.repositories), self._grace)
            going = [blob for blob in going if blob.digest not in asked]
        manifests = {item.digest for item in plan.manifests if item.digest not in claims and item.digest not in self._moving}
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
        if self._unlink_manifests(claims):
            claims.update(self._watch.claims())
        stayed = self._unlink_layers([blob for blob in going if blob.digest not in claims])
        pairs = [(name, digest) for digest, links in removed.items() for _kind, name in links]
        self._forget(pairs)
        self._heal(self._watch.claims())
        self._wait()
        self._forget(pairs)
        self._heal(self._watch.claims())
        since = self._driver.now()
        for digest in removed:
            self._hidden[digest] = self._hidden[digest]._replace(since=since)
        save_hidden(self._driver, self._hidden)
        return sum(blob.digest not in stayed and blob.digest not in claims for blob in going)

    def _unlink_manifests(self, claims: Iterable[str]) -> int:
        """Remove the links of manifests and tags that go; return how many somebody has written since the plan's listing."""
        touched = 0
        for name, paths in self._manifest_paths(claims).items():
            for start in range(0, len(paths), self._few):
                part = paths[start : start + self._few]
                touched += len(self._remove_untouched(part))
                items = [layout.parse(path) for path in part if path in self._gone]
                self._unlinked.setdefault(name, set()).update(
                    (layout.REVISION, item.digest) for item in items if item.kind == layout.REVISION
                )
                self._give_back(name, self._watch.references(name))
        return touched

    def _unlink_layers(self, blobs: List[Blob]) -> Set[str]:
        """Remove the links of blobs, and give back what somebody turns out to need; return the digests of what stayed or came back."""
        places: Dict[str, List[str]] = {}
        for blob in blobs:
            for name in blob.repositories:
                if blob.digest in self._graph.snapshot.repositories[name].layers:
                    places.setdefault(name, []).append(blob.digest)
        stayed: Set[str] = set()
        ended: Deque[Tuple[float, str]] = collections.deque()
        for name, digests in sorted(places.items()):
            for start in range(0, len(digests), self._few):
                stayed |= self._unlink_few(name, digests[start : start + self._few])
                while ended and ended[0][0] < time.monotonic():
                    before = ended.popleft()[1]
                    stayed |= self._give_back(before, self._watch.references(before))
            ended.append((time.monotonic() + self._race, name))
        for when, name in ended:
            time.sleep(max(0.0, when - time.monotonic()))
            stayed |= self._give_back(name, self._watch.references(name))
        return stayed

    def _unlink_few(self, name: str, digests: List[str]) -> Set[str]:
        """Remove a few layer links of one repository; return the digests of those that stayed or came back."""
        needed = self._watch.references(name)
        stayed = self._give_back(name, needed) | {digest for kind, digest in needed if kind == layout.LAYER}
        if self._cache:
            stayed |= self._cache.asked(((name, digest) for digest in digests), self._grace)
        going = [digest for digest in digests if digest not in stayed]
        begun = time.monotonic()
        self._remove_untouched(layout.layer_path(name, digest) for digest in going)
        self._unlinked.setdefault(name, set()).update((layout.LAYER, digest) for digest in going)
        came_back = self._forget_few(name, going, begun) | self._give_back(name, self._watch.references(name))
        return (stayed & set(digests)) | came_back

    def _forget_few(self, name: str, digests: List[str], begun: float) -> Set[str]:
        """Make the cache forget a few blobs, but for those that a client asked for since ``begun``: their links come back; return them.

        Links first: as long as the cache knows a blob, it is served without one.
        """
        if not self._cache:
            return set()
        pairs = [(name, digest) for digest in digests]
        # Redis counts whole seconds.
        asked = self._cache.asked(pairs, time.monotonic() - begun + 2.0)
        self._give_back(name, {(layout.LAYER, digest) for digest in asked})
        late = self._cache.forget([pair for pair in pairs if pair[1] not in asked], time.monotonic() - begun + 2.0)
        self._give_back(name, {(layout.LAYER, digest) for _name, digest in late})
        return asked | {digest for _name, digest in late}

    def _give_back(self, name: str, needed: Set[Tuple[int, str]]) -> Set[str]:
        """Give a repository those links back that this run removed and that manifests need which were put since; return their digests."""
        needed = needed & self._unlinked.get(name, set())
        for kind, digest in needed:
            self._link(kind, name, digest)
            self._unlinked[name].discard((kind, digest))
        return {digest for _kind, digest in needed}

    def _wait(self) -> None:
        end = time.monotonic() + self._settle
        while time.monotonic() < end:
            time.sleep(min(1.0, max(0.0, end - time.monotonic())))
            self._lock.require()

    def _find_links(self) -> Dict[str, List[str]]:
        """Return the links of what was announced and is deleted now: of layers and manifests, and the former places of tags."""
        plan = self._plan
        snapshot = self._graph.snapshot
        found: Dict[str, List[str]] = {blob.digest: [] for blob in plan.delete if blob.repositories}
        for blob in plan.delete:
            for name in blob.repositories:
                for path in (layout.layer_path(name, blob.digest), layout.revision_path(name, blob.digest)):
                    if path in plan.files:
                        found[blob.digest].append(path)
        for name in {item.repository for item in plan.manifests}:
            for tag in snapshot.repositories[name].tags.values():
                for digest in tag.history.keys() & found.keys():
                    path = layout.history_path(name, tag.name, digest)
                    if path in plan.files:
                        found[digest].append(path)
        return found

    def _delete_online(self) -> int:
        """Move, look, wait, look, remove; some at a time, manifests before what they refer to."""
        begun = time.monotonic()
        claims = self._watch.claims()
        self._spared |= claims.keys() & self._moving.keys()
        manifests = {item.digest for item in self._plan.manifests}
        left = collections.deque(
            sorted((blob for blob in self._plan.delete if blob.digest not in claims), key=lambda blob: blob.digest not in manifests)
        )
        while_ = max(_WHILE, 5 * (time.monotonic() - begun))
        marked = [blob.digest for blob in left if blob.digest in self._moving]
        if marked:
            # Written down first, as in hiding.
            for digest in marked:
                items = [layout.parse(path) for path in self._moving[digest]]
                links = {(item.kind, item.repository) for item in items if item.kind in (layout.LAYER, layout.REVISION)}
                self._hidden[digest] = Hidden(0.0, tuple(sorted(links)))
            save_hidden(self._driver, self._hidden)
        count = 0
        while left and not self._late():
            count += self._delete_some(left, time.monotonic() + while_)
        for digest in marked:
            self._hidden.pop(digest, None)
        save_hidden(self._driver, self._hidden)
        return count

    def _delete_some(self, left: Deque[Blob], until: float) -> int:
        """Delete what can be moved until then; return how many."""
        moved: Dict[str, Blob] = {}
        few = self._watch.can_look_at(_FEW_BLOBS)
        looks = Looks(self._driver.local, self._race)
        while left and not self._late() and time.monotonic() < until:
            self._lock.require()
            part = self._unwanted([left.popleft() for _number in range(min(len(left), _FEW_BLOBS if few else _MANY_BLOBS))])
            if few:
                linked = self._linked(part)
                self._spared |= linked
                part = [blob for blob in part if blob.digest not in linked]
            watched = few and self._announcer is not None and not self._driver.local
            move = self._move_watched if watched else self._move_away
            part = [blob for blob, done in zip(part, self._driver.each(move, part, _FEW_BLOBS if watched else None)) if done]
            moved.update((blob.digest, blob) for blob in part)
            self._forget((name, blob.digest) for blob in part for name in blob.repositories)
            if few:
                looks.add(part)
                self._bring_back(moved, looks.due())
            else:
                self._restore(moved, self._watch.claims())
        while looks:
            time.sleep(looks.wait())
            self._bring_back(moved, looks.due())
        self._restore(moved, self._watch.claims())
        if moved:
            self._wait()
            self._restore(moved, self._watch.claims())
        self._forget((name, blob.digest) for blob in moved.values() for _kind, name in self._links_of(blob.digest))
        self._unlink_moved(moved)
        self._lock.require()
        self._require_gone(self._driver.remove(layout.trash_path(digest) for digest in moved))
        for digest in moved:
            self._gone.add(layout.blob_path(digest))
            self._hidden.pop(digest, None)
        save_hidden(self._driver, self._hidden)
        return len(moved)

    def _unwanted(self, blobs: List[Blob]) -> List[Blob]:
        """Return those of a few blobs that nobody has asked for lately, as far as edges and the cache tell."""
        if not self._announcer:
            return blobs
        wanted = self._announcer.wanted() & {blob.digest for blob in blobs}
        if self._cache:
            wanted |= self._cache.asked(((name, blob.digest) for blob in blobs for name in blob.repositories), self._grace)
        self._spared |= wanted
        return [blob for blob in blobs if blob.digest not in wanted]

    def _unlink_moved(self, moved: Dict[str, Blob]) -> None:
        """Remove the links of what was moved, and give them back at once where somebody uploads it at this moment."""
        digests = [digest for digest in moved if self._moving.get(digest)]
        for start in range(0, len(digests), self._few):
            part = digests[start : start + self._few]
            self._restore(moved, dict.fromkeys(self._uploaded(part), set()))
            part = [digest for digest in part if digest in moved]
            links = {path: digest for digest in part for path in self._moving[digest]}
            needed = {links[path] for path in self._remove_untouched(links)} | self._uploaded(part)
            for digest in needed:
                for kind, name in self._links_of(digest):
                    self._link(kind, name, digest)
            self._restore(moved, dict.fromkeys(needed, set()))

    def _uploaded(self, digests: List[str]) -> Set[str]:
        """Return those of a few moved blobs that are there again."""
        entries = self._driver.each(lambda digest: self._driver.stat(layout.blob_path(digest)), digests)
        return {digest for digest, entry in zip(digests, entries) if entry is not None}

    def _bring_back(self, moved: Dict[str, Blob], blobs: Iterable[Blob]) -> None:
        """Move those of a few blobs back that some repository links by now."""
        here = [blob for blob in blobs if blob.digest in moved]
        self._restore(moved, dict.fromkeys(self._linked(here), set()))

    def _linked(self, blobs: List[Blob]) -> Set[str]:
        """Return those of a few hidden blobs that some repository links by now."""
        return self._watch.linked({blob.digest: self._kinds_of(blob.digest) for blob in blobs})

    def _kinds_of(self, digest: str) -> Set[int]:
        return {kind for kind, _name in self._links_of(digest)}

    def _links_of(self, digest: str) -> Tuple[Tuple[int, str], ...]:
        entry = self._hidden.get(digest)
        return entry.links if entry else ()

    def _move_away(self, blob: Blob) -> bool:
        try:
            self._driver.move(layout.blob_path(blob.digest), layout.trash_path(blob.digest))
        except FileNotFoundError:
            return False
        return True

    def _move_watched(self, blob: Blob) -> bool:
        """Move a blob where a move is some requests: look at its links between them, right after, and soon after."""
        kinds = {blob.digest: self._kinds_of(blob.digest)}
        source, target = layout.blob_path(blob.digest), layout.trash_path(blob.digest)
        try:
            if not self._driver.move(source, target, unless=lambda: bool(self._watch.linked(kinds))):
                self._spared.add(blob.digest)
                return False
        except FileNotFoundError:
            return False
        for pause in _PAUSES:
            time.sleep(min(pause, self._race))
            if self._watch.linked(kinds):
                self._restore({blob.digest: blob}, {blob.digest: set()})
                return False
        return True

    def _restore(self, moved: Dict[str, Blob], claims: Dict[str, Set[Tuple[int, str]]]) -> None:
        """Move back what somebody linked or referred to meanwhile, unless it was uploaded anew."""
        for digest in moved.keys() & claims.keys():
            if self._driver.stat(layout.blob_path(digest)) is None:
                self._driver.move(layout.trash_path(digest), layout.blob_path(digest))
            else:
                self._driver.remove([layout.trash_path(digest)])
            del moved[digest]
            self._spared.add(digest)
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
