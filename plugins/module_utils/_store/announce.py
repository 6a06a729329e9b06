# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is about to go is told to the edges first, so that no client is in the middle of a push that counts on it.

A run writes down what nothing needs: ``wharf-gc/announced.json``, with a generation number. On each node a listener (``_announced``) reads
it and puts markers where the node's edge answers by them: a client that asks for such a blob hears that it is not there, uploads it, and
thereby touches its link. Then the listener acknowledges: the object ``wharf-gc/listeners/<node>/ack-<generation>``, whose time, by the
storage's clock, says since when. What every listener acknowledged at least ``grace`` ago and is still neither touched nor needed can go:
whoever was told before that it is there has finished its push.

Markers stay when a listener or its node stops, and so do acknowledgements. ``alive`` is written again and again; a listener that has been
silent for longer than ``grace`` is not waited for. ``wanted.json`` names what somebody asked for since it was announced: it does not go, and
the markers of it may vanish before the next announcement (``FRESH``, ``LINGER``).
"""

from __future__ import annotations

import json
from typing import Callable, Dict, Iterable, List, NamedTuple, Optional, Set, Tuple

from . import layout
from .driver import Driver, StoreError

ANNOUNCED = layout.OWN + "/announced.json"
LISTENERS = layout.OWN + "/listeners"
#: A listener that was not heard of for so many seconds is reported.
QUIET = 120.0
#: A run knows what is wanted no later than so many seconds after it was written.
FRESH = 2.0
#: So many seconds after it was written that something is wanted, its markers go.
LINGER = 30.0

#: (repository, digest) of a manifest.
Place = Tuple[str, str]


class Announcement(NamedTuple):
    """What is about to go, each with the generation in which that was said first and since which it was said always."""

    generation: int
    blobs: Dict[str, int]
    manifests: Dict[Place, int]

    @property
    def oldest(self) -> int:
        """The oldest generation that anything in it goes back to."""
        return min([self.generation, *self.blobs.values(), *self.manifests.values()])


NOTHING = Announcement(0, {}, {})


class Listener(NamedTuple):
    """What a node's listener has written: when it was heard of last, since when it knows which generation, and what is wanted there."""

    name: str
    seen: float
    acknowledged: Dict[int, float]
    wanted: Dict[str, int]


def folder(name: str) -> str:
    """Return where a node's listener writes."""
    return f"{LISTENERS}/{name}"


def load(driver: Driver) -> Announcement:
    """Return what is announced; nothing if that cannot be read."""
    try:
        tree = json.loads(driver.read(ANNOUNCED).decode())
        manifests = {(str(name), str(digest)): int(first) for name, found in tree["manifests"].items() for digest, first in found.items()}
        return Announcement(int(tree["generation"]), {str(digest): int(first) for digest, first in tree["blobs"].items()}, manifests)
    except (FileNotFoundError, ValueError, TypeError, KeyError, AttributeError):
        return NOTHING


def save(driver: Driver, announcement: Announcement) -> None:
    """Announce it."""
    manifests: Dict[str, Dict[str, int]] = {}
    for (name, digest), first in sorted(announcement.manifests.items()):
        manifests.setdefault(name, {})[digest] = first
    tree = {"version": 1, "generation": announcement.generation, "blobs": announcement.blobs, "manifests": manifests}
    driver.write(ANNOUNCED, json.dumps(tree, sort_keys=True, separators=(",", ":")).encode())


def read_listeners(driver: Driver) -> List[Listener]:
    """Return all that listeners have written."""
    found: Dict[str, Listener] = {}
    unreadable = len(driver.unreadable)
    for entry in driver.walk(LISTENERS):
        name, _slash, what = entry.path[len(LISTENERS) + 1 :].partition("/")
        listener = found.setdefault(name, Listener(name, 0.0, {}, {}))
        if what == "alive":
            found[name] = listener._replace(seen=entry.modified)
        elif what.startswith("ack-") and what[4:].isdigit():
            listener.acknowledged[int(what[4:])] = entry.modified
        elif what == "wanted.json":
            listener.wanted.update(_read_wanted(driver, entry.path))
    if len(driver.unreadable) > unreadable:
        raise StoreError(
            f"{driver.label}: {driver.unreadable[-1].path} could not be read: {driver.unreadable[-1].reason}; the next run goes on"
        )
    return sorted(found.values(), key=lambda item: item.name)


def _read_wanted(driver: Driver, path: str) -> Dict[str, int]:
    try:
        return {str(digest): int(first) for digest, first in json.loads(driver.read(path).decode()).items()}
    except (FileNotFoundError, ValueError, TypeError, AttributeError):
        return {}


class Gate:
    """Decides what of an announcement may go by now."""

    def __init__(self, former: Announcement, listeners: Iterable[Listener], *, grace: float, now: float) -> None:
        everybody = list(listeners)
        self.former = former
        self.silent = [item for item in everybody if now - item.seen > max(grace, QUIET)]
        self.quiet = [item for item in everybody if item not in self.silent and now - item.seen > QUIET]
        self._listeners = [item for item in everybody if item not in self.silent]
        self._before = now - grace
        self._since: Dict[int, bool] = {}
        self._wanted: Set[Tuple[str, int]] = {pair for item in everybody for pair in item.wanted.items()}
        # An acknowledgement must never be one of something that was announced later.
        self.generation = max([former.generation, *(number for item in everybody for number in item.acknowledged)]) + 1

    def __bool__(self) -> bool:
        """Whether anybody listens."""
        return bool(self._listeners)

    def _known(self, first: int) -> bool:
        """Return whether all listeners have known a generation for long enough."""
        if first not in self._since:
            times = [[time for number, time in item.acknowledged.items() if number >= first] for item in self._listeners]
            self._since[first] = bool(times) and all(found and min(found) <= self._before for found in times)
        return self._since[first]

    def _open(self, digest: str, first: Optional[int]) -> bool:
        return first is not None and (digest, first) not in self._wanted and self._known(first)

    def lets_blob(self, digest: str) -> bool:
        """Return whether a blob may go."""
        return self._open(digest, self.former.blobs.get(digest))

    def lets_manifest(self, name: str, digest: str) -> bool:
        """Return whether a repository may lose a manifest."""
        return self._open(digest, self.former.manifests.get((name, digest)))

    def next(self, blobs: Iterable[str], manifests: Iterable[Place]) -> Announcement:
        """Return the announcement of what is to go now. What is wanted begins anew, if nothing needs it even so."""

        def first(digest: str, known: Optional[int]) -> int:
            return self.generation if known is None or (digest, known) in self._wanted else known

        found = Announcement(
            self.generation,
            {digest: first(digest, self.former.blobs.get(digest)) for digest in blobs},
            {place: first(place[1], self.former.manifests.get(place)) for place in manifests},
        )
        unchanged = found.blobs == self.former.blobs and found.manifests == self.former.manifests
        return self.former if unchanged else found


class Announcer:
    """Announces for one run, and tells what turns out to be wanted meanwhile."""

    def __init__(self, driver: Driver, gate: Gate, announcement: Announcement, clock: Callable[[], float]) -> None:
        self._driver = driver
        self._announcement = announcement
        self._clock = clock
        self._read = float("-inf")
        self._wanted: Set[str] = set()
        if announcement != gate.former:
            save(driver, announcement)

    def wanted(self) -> Set[str]:
        """Return what somebody asked for since it was announced; as of ``FRESH`` seconds ago at most."""
        if self._clock() - self._read > FRESH:
            self._read = self._clock()
            firsts: Dict[str, Set[int]] = {}
            for (_name, digest), first in self._announcement.manifests.items():
                firsts.setdefault(digest, set()).add(first)
            for digest, first in self._announcement.blobs.items():
                firsts.setdefault(digest, set()).add(first)
            for listener in read_listeners(self._driver):
                self._wanted.update(digest for digest, first in listener.wanted.items() if first in firsts.get(digest, ()))
        return self._wanted

    def withdraw(self, digests: Set[str]) -> None:
        """Announce no longer what is gone or needed again."""
        now = self._announcement
        blobs = {digest: first for digest, first in now.blobs.items() if digest not in digests}
        manifests = {place: first for place, first in now.manifests.items() if place[1] not in digests}
        if len(blobs) != len(now.blobs) or len(manifests) != len(now.manifests):
            save(self._driver, Announcement(now.generation + 1, blobs, manifests))
