# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Follow logs through rotations and restarts, and write each line of the audit log once. Private to the collection.

The position is the file (its inode and a checksum of its first line, which finds it when it has been packed) and the offset in it. It is
kept together with the lines that were made up to there, *before* they are appended to the audit log, with the log's size at that moment:
whoever begins after a kill sees how much of them has arrived, and appends the rest.
"""

from __future__ import annotations

import errno
import glob
import gzip
import hashlib
import json
import os
import sys
import time
from typing import Any, BinaryIO, Callable, Dict, FrozenSet, List, NamedTuple, Optional, Tuple

from .. import _files, _tool_config
from .._daemon import told_to_end
from .._tool_config import ConfigError
from .lines import LineError, Settings, as_line, from_access, from_token

CHUNK = 1 << 20
PAUSE = 1.0
MODE = 0o640

#: Makes the audit's line of a log's line.
Reader = Callable[[bytes, Settings], Optional[Dict[str, Any]]]


class Config(NamedTuple):
    """What ``/etc/wharf/audit.json`` says. ``token_log`` is empty where there is no token service."""

    node: str
    access_log: str
    token_log: str
    output: str
    state: str
    authenticated: bool
    users: FrozenSet[str]


def parse_config(content: object) -> Config:
    """Check the configuration. Raises ConfigError, whose message names the key."""
    kinds: Dict[str, Any] = {
        "node": str, "access_log": str, "token_log": str, "output": str, "state": str, "authenticated": bool, "users": list,
    }  # fmt: skip
    values = _tool_config.checked(content, kinds)
    _tool_config.absolute(values, "access_log", "output", "state", example="/var/log/wharf/access.log")
    return Config(**{**values, "users": frozenset(str(name) for name in values["users"])})


def read_config(path: str) -> Config:
    """Read the configuration. Raises ConfigError."""
    return _tool_config.load(path, parse_config)


def generations(path: str) -> List[str]:
    """Return a log and what was rotated away of it, the oldest first."""
    found = []
    for name in set(glob.glob(glob.escape(path) + "[.-]*")):
        try:
            found.append((os.stat(name).st_mtime_ns, name))
        except FileNotFoundError:
            continue  # packed or removed meanwhile
    ordered = [name for _time, name in sorted(found) if not name.endswith(".tmp")]
    return [*ordered, path] if os.path.exists(path) else ordered


def open_log(path: str) -> BinaryIO:
    """Open a log for reading, a packed one too."""
    return gzip.open(path) if path.endswith(".gz") else open(path, "rb")  # type: ignore[return-value]


def _first_of(handle: BinaryIO) -> str:
    handle.seek(0)
    line = handle.readline(CHUNK)
    return hashlib.sha256(line).hexdigest() if line.endswith(b"\n") else ""


def first_line(path: str) -> str:
    """Return a checksum of a log's first line; empty while it has none."""
    try:
        with open_log(path) as handle:
            return _first_of(handle)
    except (OSError, EOFError):
        return ""


class Source:
    """One log, read from a position on."""

    def __init__(self, path: str, position: Optional[Dict[str, Any]]) -> None:
        self.path = path
        self.position: Dict[str, Any] = dict(position or {})
        self.warning = ""
        self._handle: Optional[BinaryIO] = None
        self._name = ""
        self._quiet = 0

    def _find(self) -> Optional[str]:
        """Return the file of the position, as it is called now."""
        names = generations(self.path)
        if not self.position:
            # Never read: everything that there is.
            return names[0] if names else None
        first, inode = self.position["first"], self.position["inode"]
        for name in names:
            if os.stat(name).st_ino == inode and first in ("", first_line(name)):
                return name
        for name in names:
            if first and first_line(name) == first:
                return name
        if names and (first or self.position["offset"]):
            self.warning = "what %s had after the last line that was read is gone: it was rotated away meanwhile" % self.path
        self.position = {}
        return names[0] if names else None

    def _open(self, name: str, offset: int) -> BinaryIO:
        self.close()
        handle = self._handle = open_log(name)
        self._name = name
        self._quiet = 0
        self.position = {"inode": os.fstat(handle.fileno()).st_ino, "first": _first_of(handle), "offset": offset}
        return handle

    def _next(self) -> Optional[str]:
        """Return the file after the one that is open, None if that is the last."""
        try:
            if not self._name.endswith(".gz") and os.stat(self.path).st_ino == self.position["inode"]:
                return None
        except FileNotFoundError:
            pass
        names = generations(self.path)
        place = -1
        for number, name in enumerate(names):
            if first_line(name) == self.position["first"] if self.position["first"] else os.stat(name).st_ino == self.position["inode"]:
                place = number
        return names[place + 1] if place + 1 < len(names) else None

    def read(self) -> bytes:
        """Return the next whole lines, and move the position behind them; nothing if there are none yet."""
        handle = self._handle
        if handle is None:
            name = self._find()
            if name is None:
                return b""
            handle = self._open(name, self.position.get("offset", 0))
        if not self._name.endswith(".gz") and os.fstat(handle.fileno()).st_size < self.position["offset"]:
            # Emptied in place.
            self.position.update(offset=0, first="")
        handle.seek(self.position["offset"])
        chunk = handle.read(CHUNK)
        end = chunk.rfind(b"\n") + 1
        if end == 0 and len(chunk) == CHUNK:
            end = len(chunk)  # no line of a log: what is left of it is counted as unreadable
        if end:
            self.position["offset"] += end
            self.position["first"] = self.position["first"] or _first_of(handle)
            self._quiet = 0
            return chunk[:end]
        # A log that was renamed is written until its writer opens the new one: it must have been quiet for a while.
        self._quiet += 1
        if self._quiet > 3:
            following = self._next()
            if following is not None:
                self._open(following, 0)
                return self.read()
        return b""

    def close(self) -> None:
        """Close the file."""
        if self._handle is not None:
            self._handle.close()
            self._handle = None


class Output:
    """The audit log, to which each batch of lines is appended once."""

    def __init__(self, path: str) -> None:
        self.path = path

    def mark(self) -> Dict[str, int]:
        """Return which file it is now, and how long."""
        descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, MODE)
        try:
            found = os.fstat(descriptor)
        finally:
            os.close(descriptor)
        return {"inode": found.st_ino, "size": found.st_size}

    def finish(self, mark: Dict[str, int], batch: bytes) -> None:
        """Append what is missing of a batch at the place where it was to be."""
        path, start = self.path, 0
        for name in generations(self.path):
            if not name.endswith(".gz") and os.stat(name).st_ino == mark["inode"]:
                path = name
                with open(name, "rb") as handle:
                    handle.seek(mark["size"])
                    there = handle.read(len(batch))
                start = len(there) if batch.startswith(there) else 0
        if start == len(batch):
            return
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, MODE)
        try:
            view = memoryview(batch)[start:]
            while view:
                view = view[os.write(descriptor, view) :]
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


class Follower:
    """Reads the logs and writes the audit log."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.settings = Settings(config.node, config.authenticated, config.users)
        self.output = Output(config.output)
        self.unreadable = 0
        state = self._load()
        positions = state.get("sources", {})
        self.sources: List[Tuple[str, Source, Reader]] = [("access", Source(config.access_log, positions.get("access")), from_access)]
        if config.token_log:
            self.sources.append(("token", Source(config.token_log, positions.get("token")), from_token))
        self._positions = positions
        self._unfinished = state if state.get("batch") else None
        # Whether the state on disk has lines that are in the audit log by now.
        self._kept = bool(state.get("batch"))

    def _load(self) -> Dict[str, Any]:
        content = _files.read_if_there(self.config.state)
        if content is None:
            return {}
        state = json.loads(content.decode("utf-8"))
        if not isinstance(state, dict):
            raise ConfigError("%s is no state of the audit log" % self.config.state)
        return state

    def step(self) -> bool:
        """Take over what has come; return whether there may be more at once."""
        if self._unfinished is not None:
            self.output.finish(self._unfinished["output"], self._unfinished["batch"].encode("ascii"))
            self._unfinished = None
        lines: List[bytes] = []
        more = False
        for _name, source, reader in self.sources:
            chunk = source.read()
            more = more or bool(chunk)
            for line in chunk.split(b"\n")[:-1]:
                try:
                    record = reader(line, self.settings)
                except LineError:
                    self.unreadable += 1
                    continue
                if record is not None:
                    lines.append(as_line(record))
        positions = {name: source.position for name, source, _reader in self.sources if source.position}
        if not lines and positions == self._positions and not self._kept:
            return more
        batch = b"".join(lines)
        state = {"sources": positions, "output": self.output.mark(), "batch": batch.decode("ascii")}
        # From here on the lines are in one of two places.
        self._unfinished = state
        _files.write_atomically(self.config.state, json.dumps(state).encode("ascii"), mode=0o600)
        self._positions, self._kept = json.loads(json.dumps(positions)), bool(lines)
        self.output.finish(state["output"], batch)  # type: ignore[arg-type]
        self._unfinished = None
        return more


def run(config: Config, ended: Callable[[], bool]) -> None:
    """Follow until ``ended``. What cannot be read or written now is tried again; a full disk loses nothing."""
    follower = Follower(config)
    failing = ""
    while not ended():
        try:
            more = follower.step()
            failing = ""
        except OSError as error:
            # The positions in memory may be ahead of what was kept.
            told = "%s: %s" % (getattr(error, "filename", None) or config.output, os.strerror(error.errno or errno.EIO))
            if told != failing:
                sys.stderr.write("wharf audit: %s; trying again\n" % told)
            failing, more = told, False
            follower = Follower(config)
        if follower.unreadable:
            sys.stderr.write("wharf audit: %d lines were not understood\n" % follower.unreadable)
            follower.unreadable = 0
        for _name, source, _reader in follower.sources:
            if source.warning:
                sys.stderr.write("wharf audit: %s\n" % source.warning)
                source.warning = ""
        if not more:
            time.sleep(PAUSE)


def command(path: str) -> int:
    """Run the daemon with a configuration file; return its exit status."""
    try:
        config = read_config(path)
    except ConfigError as error:
        sys.stderr.write("wharf audit: %s\n" % error)
        return 2
    run(config, told_to_end())
    return 0
