# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A node's ear for what garbage collection announces (``_store.announce``). Private to the collection; behind ``wharf.pyz announced``.

Each announced blob and manifest has an empty file in a folder, by whose presence the node's edge answers to clients that ask for it::

    blobs/<algorithm>/<hex>
    manifests/<repository>/_/<algorithm>/<hex>

The folder outlives reboots, so that an acknowledgement stays true. Should it be lost, all acknowledgements are taken back and begin anew.

What somebody asked for is wanted: the edge's access log tells. It is named in the storage, so that it does not go, and a while after that
all nodes remove its markers: what has become part of an image is to be found again before the next announcement.
"""

from __future__ import annotations

import json
import os
import re
import sys
import time
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Optional, Set, Tuple

from . import _tool_config
from ._audit import follow
from ._daemon import told_to_end
from ._store import announce, layout
from ._store.announce import ANNOUNCED, LINGER, NOTHING, Announcement
from ._store.driver import Driver, StoreError
from ._store.settings import open_store, read_config
from ._tool_config import ConfigError

#: Seconds between two looks at the log, between two at the storage, and between two signs of life.
HEAR = 0.5
LOOK = 3.0
BEAT = 20.0
_NAME = re.compile(r"[A-Za-z0-9_][\w.-]*")
_ASKED = re.compile(r"/v2/.+/(?:blobs|manifests)/(sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128})")


class Config(NamedTuple):
    """What ``/etc/wharf/announced.json`` says: the node's name, the registry's configuration, the folder, the edge's log (or empty)."""

    name: str
    config: str
    folder: str
    log: str


def parse_config(content: object) -> Config:
    """Check the configuration. Raises ConfigError, whose message names the key."""
    values = _tool_config.checked(content, dict.fromkeys(Config._fields, str))
    _tool_config.absolute(values, "config", "folder", *(["log"] if values["log"] else []), example="/etc/wharf/registry/config.yml")
    if not _NAME.fullmatch(values["name"]):
        raise ConfigError("name: %r is no name of a host; for example registry1" % values["name"])
    return Config(**values)


def asked_for(line: bytes) -> str:
    """Return the digest that a line of the access log shows to be wanted; empty if none.

    That is what somebody asked for before a push and was told to be missing, and a manifest that was put.
    """
    asked = b'"HEAD"' in line and b'"status":404' in line
    if not asked and not (b'"PUT"' in line and b"/manifests/" in line and b'"status":201' in line):
        return ""
    try:
        tree = json.loads(line.decode("utf-8", "replace"))
        if asked:
            match = _ASKED.fullmatch(tree["uri"])
            return match.group(1) if match else ""
        return str(tree["content_digest"])
    except (ValueError, KeyError, TypeError):
        return ""


class Markers:
    """The files in the folder."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        os.makedirs(folder, mode=0o755, exist_ok=True)
        self._there: Set[str] = set(self._walk())

    def _walk(self) -> Iterator[str]:
        for above, _folders, names in os.walk(self._folder):
            for name in names:
                yield os.path.relpath(os.path.join(above, name), self._folder)

    def put(self, names: Set[str]) -> Set[str]:
        """Make the folder hold exactly these; new ones come before old ones go. Return those that were missing."""
        missing = names - self._there
        for name in sorted(missing):
            path = os.path.join(self._folder, name)
            os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644))
            self._there.add(name)
        for name in sorted(self._there - names):
            try:
                os.unlink(os.path.join(self._folder, name))
            except FileNotFoundError:
                pass
            self._there.discard(name)
        return missing


def marker_of_blob(digest: str) -> str:
    """Return the file that says that a blob is announced."""
    return "blobs/" + digest.replace(":", "/", 1)


def marker_of_manifest(repository: str, digest: str) -> str:
    """Return the file that says that a repository's manifest is announced."""
    return "manifests/%s/_/%s" % (repository, digest.replace(":", "/", 1))


class Listener:
    """Keeps the markers of one node as the storage says."""

    def __init__(self, driver: Driver, name: str, folder: str, log: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._driver = driver
        self._name = name
        self._clock = clock
        self._folder = announce.folder(name)
        self._markers = Markers(folder)
        self._log = self._follow(log) if log else None
        self._state: object = ()
        self._announcement = NOTHING
        #: By digest: the generations since which it is announced, as blob and as manifest.
        self._firsts: Dict[str, Set[int]] = {}
        self._looked = self._beaten = float("-inf")
        self._own: Dict[str, int] = {}
        #: By (digest, generation of its announcement): since when it is known here that somebody wants it.
        self._wanted: Dict[Tuple[str, int], float] = {}

    @staticmethod
    def _follow(path: str) -> follow.Source:
        """Return the log, to be read from its end."""
        try:
            found = os.stat(path)
            position = {"inode": found.st_ino, "first": follow.first_line(path), "offset": found.st_size}
            # A line that is being written is read when it is whole.
            return follow.Source(path, position)
        except OSError:
            return follow.Source(path, None)

    def step(self) -> None:
        """Look once. Raises OSError or StoreError if the storage or the folder cannot be used."""
        if self._announcement.generation:
            self._hear()
        if self._clock() - self._looked < LOOK:
            return
        self._looked = self._clock()
        entry = self._driver.stat(ANNOUNCED)
        state = entry and (entry.modified, entry.etag, entry.size)
        if state != self._state or self._announcement is NOTHING:
            self._take_over(announce.load(self._driver) if entry else NOTHING)
            self._state = state
        if self._announcement.generation:
            self._learn()
        if self._clock() - self._beaten >= BEAT:
            self._driver.write(self._folder + "/alive", b"")
            self._beaten = self._clock()

    def _take_over(self, announcement: Announcement) -> None:
        begins = self._announcement is NOTHING
        self._announcement = announcement
        acknowledged = self._acknowledged()
        self._firsts = firsts = {digest: {first} for digest, first in announcement.blobs.items()}
        for (_name, digest), first in announcement.manifests.items():
            firsts.setdefault(digest, set()).add(first)
        if begins:
            for listener in announce.read_listeners(self._driver):
                self._wanted.update((pair, self._clock()) for pair in listener.wanted.items())
                if listener.name == self._name:
                    self._own = dict(listener.wanted)
        self._own = {digest: first for digest, first in self._own.items() if first in firsts.get(digest, ())}
        self._wanted = {pair: since for pair, since in self._wanted.items() if pair[1] in firsts.get(pair[0], ())}
        markers = self._names()
        missing = self._markers.put(set(markers))
        if begins and acknowledged and any(markers[name] not in self._wanted and markers[name][1] <= max(acknowledged) for name in missing):
            # The folder was lost: since then the edge has answered without it.
            self._driver.remove([self._ack(number) for number in acknowledged])
            acknowledged = []
        if announcement.generation and announcement.generation not in acknowledged:
            self._driver.write(self._ack(announcement.generation), b"")
        # What is older says nothing that the oldest one that counts does not say.
        self._driver.remove(self._ack(number) for number in acknowledged if number < announcement.oldest)

    def _ack(self, generation: int) -> str:
        return "%s/ack-%d" % (self._folder, generation)

    def _acknowledged(self) -> List[int]:
        names = [entry.path.rpartition("/")[2] for entry in self._driver.walk(self._folder + "/")]
        return [int(name[4:]) for name in names if name.startswith("ack-") and name[4:].isdigit()]

    def _names(self) -> Dict[str, Tuple[str, int]]:
        """Return the markers that belong into the folder now, with what they stand for."""
        before = self._clock() - LINGER
        dropped = {pair for pair, since in self._wanted.items() if since <= before}
        blobs = {marker_of_blob(digest): (digest, first) for digest, first in self._announcement.blobs.items()}
        manifests = {marker_of_manifest(name, digest): (digest, first) for (name, digest), first in self._announcement.manifests.items()}
        return {name: pair for name, pair in {**blobs, **manifests}.items() if pair not in dropped}

    def _hear(self) -> None:
        """Find out what is wanted here, and tell it at once: a push follows."""
        new = {digest for digest in self._read_log() if digest in self._firsts and digest not in self._own}
        if new:
            self._own.update((digest, max(self._firsts[digest])) for digest in new)
            self._driver.write(self._folder + "/wanted.json", json.dumps(self._own, sort_keys=True).encode())

    def _learn(self) -> None:
        """Find out what is wanted on all nodes, and remove the markers of what was told a while ago."""
        firsts = self._firsts
        # Known from now on: whatever was read was written before.
        for listener in announce.read_listeners(self._driver):
            for digest, first in listener.wanted.items():
                if first in firsts.get(digest, ()):
                    self._wanted.setdefault((digest, first), self._clock())
        if self._wanted:
            self._markers.put(set(self._names()))

    def _read_log(self) -> Iterator[str]:
        if self._log is None:
            return
        while True:
            try:
                chunk = self._log.read()
            except OSError:
                return
            if not chunk:
                return
            for line in chunk.splitlines():
                digest = asked_for(line)
                if layout.is_digest(digest):
                    yield digest


def leave(driver: Driver, name: str) -> None:
    """Take back what a node has told."""
    driver.remove([entry.path for entry in driver.walk(announce.folder(name) + "/")])


def run(config: Config, ended: Callable[[], bool]) -> None:
    """Listen until ``ended``. What does not work now is tried again."""
    listener: Optional[Listener] = None
    failing = ""
    while not ended():
        try:
            if listener is None:
                driver = open_store(read_config(config.config).storage, workers=4)
                listener = Listener(driver, config.name, config.folder, config.log)
            listener.step()
            failing = ""
        except (OSError, StoreError) as error:
            told = str(error)
            if told != failing:
                sys.stderr.write("wharf announced: %s; trying again\n" % told)
            failing = told
            listener = None
        time.sleep(HEAR if listener else LOOK)


def command(options: Any) -> int:
    """Run as a command; return its exit status."""
    try:
        config = _tool_config.load(options.config, parse_config)
        if options.leave:
            driver = open_store(read_config(config.config).storage)
            leave(driver, config.name)
            return 0
    except (ConfigError, StoreError, OSError) as error:
        sys.stderr.write("wharf announced: %s\n" % error)
        return 2
    run(config, told_to_end())
    return 0
