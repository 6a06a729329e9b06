# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Do all nodes see the same storage, at once? Each node's probe works in the shared directory as a registry does and watches the others.

In every round a node uploads a blob (two appends, then a rename), names it in a file that it replaces, and looks whether the blobs that the
others name are there, whole, and readable. It looks for each of their *next* blobs too: a client that remembers the answer "not there" does
not see it when it comes. Each pair of nodes also hands a file over: one makes it, the other moves and removes it, the first must see it gone.

A node that is silent is nobody's fault here and is only reported. What is wrong is told with the option of mount or export to change.
The result is a file in ``/run`` for the health probe and one for Prometheus. When the storage hangs, this hangs: the file grows old.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import signal
import sys
import threading
import time
import uuid
from dataclasses import dataclass, field
from typing import Any, Callable, Dict, List, Mapping, Optional

from .. import _tool_config
from .._files import write_atomically
from .._tool_config import ConfigError
from .options import Problem, find_mount, mount_problems

MOUNTINFO = "/proc/self/mountinfo"
DIRECTORY = ".wharf-probe"
#: So many of its blobs a node leaves for the others to read.
KEPT = 10


@dataclass(frozen=True)
class Config:
    """What ``/etc/wharf/nfs.json`` says: who we are and who the others are, where what is mounted, how often to look. Seconds."""

    name: str
    nodes: List[str]
    path: str
    source: str
    directory: str
    uid: int
    gid: int
    interval: float = 5.0
    patience: float = 4.0
    state: str = "/run/wharf-nfs/state.json"
    metrics: str = ""


def parse_config(content: object) -> Config:
    """Check the configuration. Raises ConfigError, whose message names the key."""
    kinds: Dict[str, Any] = {
        "name": str, "nodes": list, "path": str, "source": str, "directory": str, "uid": int, "gid": int,
        "interval": (int, float), "patience": (int, float), "state": str, "metrics": str,
    }  # fmt: skip
    values = _tool_config.checked(content, kinds, optional=("interval", "patience", "state", "metrics"))
    for name in [values["name"], *values["nodes"]]:
        if not isinstance(name, str) or not name or "/" in name or name.startswith("."):
            raise ConfigError("name and nodes: %r is no name of a host" % (name,))
    return Config(**values)


# -- what is mounted -------------------------------------------------------------------------------------------------------------------


def look_at_mount(config: Config, mountinfo: str) -> List[Problem]:
    """Judge what is mounted at the place of the storage."""
    mount = find_mount(mountinfo, config.path)
    if mount is None or not mount.kind.startswith("nfs"):
        what = "nothing" if mount is None else "a file system of the kind %s" % mount.kind
        cause = "%s is mounted at %s: what is written there stays on this host" % (what, config.path)
        return [Problem("mount", config.path, cause, "mount %s there: systemctl restart wharf-nfs.service" % config.source)]
    found = []
    if mount.source.replace("[", "").replace("]", "") != config.source.replace("[", "").replace("]", ""):
        cause = "%s is mounted instead of %s" % (mount.source, config.source)
        found.append(Problem("mount", config.path, cause, "systemctl restart wharf-nfs.service"))
    return found + mount_problems(mount.options)


def explain(error: OSError, doing: str) -> Problem:
    """Say what an error of the storage means for its options."""
    told = "%s: %s" % (doing, os.strerror(error.errno) if error.errno else error)
    if error.errno in (errno.EACCES, errno.EPERM):
        cure = "export with root_squash and anonuid and anongid of the registry, and use one registry_uid on all nodes"
        return Problem("anonuid", "", told, cure)
    if error.errno == errno.EROFS:
        return Problem("rw", "ro", told, "export and mount with rw")
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return Problem("space", "", told, "the export is full: free some space there")
    if error.errno == errno.ESTALE:
        return Problem("export", "", told, "the exported directory was replaced: systemctl restart wharf-nfs.service")
    return Problem("server", "", told, "see the log of the server, and whether it is mounted with hard")


# -- one round -------------------------------------------------------------------------------------------------------------------------


@dataclass
class Peer:
    """What a node remembers of another one: its last beat, when that came, and the file that is on its way there."""

    beat: Dict[str, Any] = field(default_factory=dict)
    since: float = 0.0
    gift: str = ""
    taken: str = ""


class Probe:
    """One node's part in the game, in the directory that all nodes share."""

    def __init__(self, config: Config, clock: Callable[[], float] = time.monotonic, pause: Callable[[float], None] = time.sleep) -> None:
        self.config = config
        self.base = os.path.join(config.path, DIRECTORY)
        self.run = uuid.uuid4().hex
        self.count = 0
        self.peers = {name: Peer() for name in config.nodes if name != config.name}
        self.alive: Dict[str, bool] = {}
        self._clock = clock
        self._pause = pause

    def _of(self, name: str, *parts: str) -> str:
        return os.path.join(self.base, name, *parts)

    def play(self) -> List[Problem]:
        """Play one round; return what is wrong."""
        doing = "making the probe's directories"
        found: List[Problem] = []
        try:
            for path in (self.base, self._of(self.config.name), self._of(self.config.name, "blobs"), self._of(self.config.name, "uploads")):
                _make_directory(path)
            for name in self.peers:
                _make_directory(self._gift(self.config.name, name, ""))
            doing = "uploading a blob"
            found += self._upload()
            for name, peer in self.peers.items():
                doing = "reading what %s has written" % name
                found += self._watch(name, peer)
                doing = "handing a file over with %s" % name
                found += self._hand_over(name, peer)
            doing = "replacing a file"
            self._beat()
        except OSError as error:
            found.append(explain(error, doing))
        return list(dict.fromkeys(found))

    def _upload(self) -> List[Problem]:
        """As a registry does: an upload grows in two requests and is renamed to its place."""
        self.count += 1
        name = str(self.count)
        content = _content(self.config.name, self.run, self.count)
        upload, blobs = self._of(self.config.name, "uploads", self.run + name), self._of(self.config.name, "blobs")
        if self.count == 1:  # what an earlier process of this node left
            for directory in (blobs, os.path.dirname(upload)):
                shutil.rmtree(directory)
                _make_directory(directory)
        _make_directory(upload)
        data = os.path.join(upload, "data")
        half = len(content) // 2
        for part in (content[:half], content[half:]):
            with open(data, "ab") as handle:
                handle.write(part)
                handle.flush()
                os.fsync(handle.fileno())
        owner = os.stat(data)
        os.rename(data, os.path.join(blobs, name))
        os.rmdir(upload)
        with open(os.path.join(blobs, name), "rb") as handle:
            same = handle.read() == content
        _remove(os.path.join(blobs, str(self.count - KEPT)))
        found = []
        if not same:
            found.append(Problem("sync", "", "a blob that this node has just written reads differently", "see the log of the server"))
        if (owner.st_uid, owner.st_gid) != (self.config.uid, self.config.gid):
            cause = "files of the registry (%d:%d) belong to %d:%d" % (self.config.uid, self.config.gid, owner.st_uid, owner.st_gid)
            found.append(
                Problem("anonuid", "", cause, "use one registry_uid on all nodes, and anonuid and anongid of it if all are squashed")
            )
        return found

    def _beat(self) -> None:
        """Say how far this node is, in a file that is replaced as the links of a registry are."""
        taken = {name: peer.taken for name, peer in self.peers.items()}
        text = json.dumps({"run": self.run, "count": self.count, "taken": taken})
        path = self._of(self.config.name, "beat")
        with open(path + ".new", "w", encoding="utf-8") as handle:
            handle.write(text)
            handle.flush()
            os.fsync(handle.fileno())
        os.rename(path + ".new", path)

    def _read_beat(self, name: str) -> Dict[str, Any]:
        try:
            with open(self._of(name, "beat"), encoding="utf-8") as handle:
                beat = json.load(handle)
            return beat if isinstance(beat, dict) and isinstance(beat.get("count"), int) else {}
        except (FileNotFoundError, ValueError):
            return {}

    def _watch(self, name: str, peer: Peer) -> List[Problem]:
        """Read the blob that the other node names, whose name was looked up in vain before it was there."""
        beat = self._read_beat(name)
        now = self._clock()
        fresh = bool(beat) and (beat.get("run"), beat["count"]) != (peer.beat.get("run"), peer.beat.get("count"))
        first = not peer.beat
        if fresh:
            # What lies there of a node that has stopped long ago says nothing about now.
            peer.since = now if not first else 0.0
            peer.beat = beat
        self.alive[name] = bool(peer.since) and now - peer.since < 3 * self.config.interval + 2 * self.config.patience
        if not fresh or first:
            return []
        path = self._of(name, "blobs", str(beat["count"]))
        wanted = _content(name, str(beat.get("run")), beat["count"])
        seen: Dict[str, Optional[bytes]] = {}

        def whole() -> bool:
            try:
                with open(path, "rb") as handle:
                    seen["content"] = handle.read()
            except FileNotFoundError:
                seen["content"] = None
            return seen["content"] == wanted

        found = []
        if not self._comes_true(whole):
            later = self._read_beat(name)
            if later.get("run") != beat.get("run") or later["count"] > beat["count"] + KEPT // 2:
                return []  # the other began anew, or is far ahead and has cleaned up
            if seen["content"] is None:
                cause = "a blob that %s has written is not seen here: this client remembers that it was not there" % name
                found.append(Problem("lookupcache", "", cause, "mount with lookupcache=positive and actimeo=1"))
            else:
                cause = "a blob that %s has written has other content here" % name
                found.append(Problem("actimeo", "", cause, "mount with actimeo=1 and without nocto"))
        for ahead in (1, 2):
            os.path.lexists(self._of(name, "blobs", str(beat["count"] + ahead)))
        return found

    def _gift(self, giver: str, taker: str, name: str = "gift") -> str:
        return os.path.join(self.base, "from-%s-to-%s" % (giver, taker), name)

    def _hand_over(self, name: str, peer: Peer) -> List[Problem]:
        """Move away and remove what the other has made for us; see that it did the same with ours."""
        found = []
        theirs, kept = self._gift(name, self.config.name), self._of(self.config.name, "taken-from-" + name)
        try:
            os.rename(theirs, kept)
            with open(kept, encoding="utf-8") as handle:
                peer.taken = handle.read()
            os.unlink(kept)
        except FileNotFoundError:
            pass
        ours = self._gift(self.config.name, name)
        if peer.gift and (peer.beat.get("taken") or {}).get(self.config.name) == peer.gift:
            if not self._comes_true(lambda: not os.path.lexists(ours)):
                cause = "a file that %s has moved away is still seen here: this client goes by old attributes" % name
                found.append(Problem("actimeo", "", cause, "mount with actimeo=1 and lookupcache=positive"))
            peer.gift = ""
        elif not peer.gift:
            peer.gift = "%s-%d" % (self.run, self.count)
            with open(ours, "w", encoding="utf-8") as handle:
                handle.write(peer.gift)
                handle.flush()
                os.fsync(handle.fileno())
        os.path.lexists(ours)
        return found

    def _comes_true(self, condition: Callable[[], bool]) -> bool:
        """Whether ``condition`` is true within the time for which a client may remember things."""
        end = self._clock() + self.config.patience
        while not condition():
            if self._clock() > end:
                return False
            self._pause(min(0.25, self.config.patience / 4))
        return True


def _content(name: str, run: str, count: int) -> bytes:
    """What a node's blob of that number holds: four kilobytes that no other blob has."""
    return b"".join(hashlib.sha256(("%s %s %d %d" % (name, run, count, part)).encode("utf-8")).digest() for part in range(128))


def _make_directory(path: str) -> None:
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        pass


def _remove(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass


# -- what is told ----------------------------------------------------------------------------------------------------------------------


def describe(problems: List[Problem], alive: Mapping[str, bool], seconds: float) -> Dict[str, Any]:
    """The result of a round for others to read; ``monotonic`` is the time of this host's boot clock."""
    return {
        "monotonic": time.monotonic(),
        "healthy": not problems,
        "problems": [problem._asdict() for problem in problems],
        "peers": dict(alive),
        "seconds": round(seconds, 3),
    }


def cause_in(state: object, now: float, oldest: float) -> Optional[str]:
    """Why the storage is not healthy by ``state``, what ``describe`` returned; ``None`` if it is."""
    if not isinstance(state, dict) or not isinstance(state.get("monotonic"), (int, float)):
        return "the NFS probe has not told anything yet"
    age = now - float(state["monotonic"])
    if not 0 <= age <= oldest:
        return "the NFS probe has told nothing for %.0f s: the storage hangs" % age
    for problem in state.get("problems") or []:
        return "%s: %s; %s" % (problem.get("option"), problem.get("cause"), problem.get("cure"))
    return None if state.get("healthy") is True else "the NFS probe gives no cause"


def render_metrics(state: Mapping[str, Any], now: float) -> str:
    """The result for Prometheus' textfile collector."""
    lines = []

    def add(name: str, text: str, values: List[str]) -> None:
        lines.extend(["# HELP %s %s" % (name, text), "# TYPE %s gauge" % name, *["%s%s" % (name, value) for value in values]])

    add("wharf_nfs_healthy", "Whether the shared storage is mounted as it must be and all nodes see the same.", [" %d" % state["healthy"]])
    add("wharf_nfs_last_round_timestamp_seconds", "When the last round of the probe ended.", [" %.3f" % now])
    add("wharf_nfs_round_seconds", "How long it took.", [" %.3f" % state["seconds"]])
    if state["problems"]:
        options = sorted({problem["option"] for problem in state["problems"]})
        add("wharf_nfs_problem", "Option of mount or export that is to be changed.", ['{option="%s"} 1' % name for name in options])
    if state["peers"]:
        seen = ['{node="%s"} %d' % (name, up) for name, up in sorted(state["peers"].items())]
        add("wharf_nfs_peer_seen", "Whether the probe of that node was seen at work in the storage lately.", seen)
    return "\n".join(lines) + "\n"


# -- commands --------------------------------------------------------------------------------------------------------------------------


def prepare(config: Config, mountinfo: str) -> List[Problem]:
    """As root, before the registry starts: judge the mount, make the directories, see whose they are; then play one round as the registry.

    The directory of the registry is made here and nowhere else, on the mounted file system only.
    """
    found = look_at_mount(config, mountinfo)
    if any(problem.option == "mount" for problem in found):
        return found
    root = os.geteuid() == 0
    try:
        for path in (config.directory, os.path.join(config.path, DIRECTORY)):
            try:
                os.mkdir(path, 0o750)
            except FileExistsError:
                pass
            owner = os.stat(path)
            if (owner.st_uid, owner.st_gid) != (config.uid, config.gid):
                cause = "what root of this node makes belongs to %d:%d, not to the registry" % (owner.st_uid, owner.st_gid)
                cure = "export with root_squash,anonuid=%d,anongid=%d" % (config.uid, config.gid)
                return [*found, Problem("anonuid", str(owner.st_uid), cause, "%s, and remove %s if it is empty" % (cure, path))]
        if root:
            # What root makes must be the registry's, later too: garbage collection by hand runs as root.
            trial = os.path.join(config.path, DIRECTORY, "root-%s" % config.name)
            _remove(trial)
            with open(trial, "wb"):
                pass
            owner = os.stat(trial)
            os.unlink(trial)
            if owner.st_uid != config.uid:
                cause = "what root of this node writes belongs to %d, not to the registry" % owner.st_uid
                cure = "export with root_squash,anonuid=%d,anongid=%d" % (config.uid, config.gid)
                found.append(Problem("anonuid", str(owner.st_uid), cause, cure))
    except OSError as error:
        return [*found, explain(error, "making directories as root")]
    if root:
        os.setgroups([])
        os.setegid(config.gid)
        os.seteuid(config.uid)
    try:
        # A round under a name of its own: the daemon of this node may be at work.
        trial_config = Config(**{**config.__dict__, "name": "%s-start" % config.name, "nodes": []})
        probe = Probe(trial_config)
        found += probe.play()
        shutil.rmtree(os.path.join(probe.base, trial_config.name), ignore_errors=True)
    finally:
        if root:
            os.seteuid(0)
            os.setegid(0)
    return found


def _mountinfo() -> str:
    with open(MOUNTINFO, encoding="utf-8", errors="surrogateescape") as handle:
        return handle.read()


def command(config_path: str, *, once: bool) -> int:
    """Play for ever, or prepare the storage and say once what is wrong. Returns the exit code: 0 good, 1 problems, 2 no usable config."""
    try:
        config = _tool_config.load(config_path, parse_config)
    except ConfigError as error:
        sys.stderr.write("nfs-probe: %s\n" % error)
        return 2
    if once:
        problems = prepare(config, _mountinfo())
        for problem in problems:
            sys.stdout.write(problem.told() + "\n")
        return 1 if problems else 0
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: stop.set())
    probe = Probe(config)
    told: object = None
    while not stop.is_set():
        begun = time.monotonic()
        problems = look_at_mount(config, _mountinfo())
        if not any(problem.option == "mount" for problem in problems):
            problems += probe.play()
        state = describe(problems, probe.alive, time.monotonic() - begun)
        write_atomically(config.state, json.dumps(state).encode("utf-8"), mode=0o644)
        if config.metrics:
            write_atomically(config.metrics, render_metrics(state, time.time()).encode("utf-8"), mode=0o644)
        news = [problem.told() for problem in problems]
        if news != told:
            told = news
            sys.stderr.write("nfs-probe: %s\n" % ("; ".join(news) or "healthy"))
            sys.stderr.flush()
        stop.wait(max(config.interval - (time.monotonic() - begun), 0.05))
    return 0
