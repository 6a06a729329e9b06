# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The health daemon of a node: tells at once whether this node's registry can serve, storage included.

Two checks run for ever, each in a thread of its own: ``registry`` (does the process answer?) and ``storage`` (can the registry write to its
storage and read back what it wrote?). On shared NFS there is a third, ``nfs``: what the NFS probe of this node last told. ``GET /healthz`` is
answered from what they last saw, without waiting for anything.

A check that waits too long counts as failed from then on, yet goes on waiting: one hung request instead of one more every few seconds, and
the node is healthy again in the moment in which the answer comes. Nothing counts as healthy before it has been proven.
"""

from __future__ import annotations

import json
import signal
import socket
import sys
import threading
import time
from dataclasses import dataclass, replace
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Callable

from . import _tool_config
from ._nfs.probe import cause_in
from ._registry.api import Registry, RegistryError, RegistryTimeout, parse_address
from ._tool_config import ConfigError

# -- state: pure, and told what time it is --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Check:
    """What is known about one check. Times are seconds of a monotonic clock.

    ``started`` is set while the check waits for an answer. ``cause`` is ``None`` when the last finished check succeeded.
    """

    name: str
    timeout: float
    stale_after: float
    started: float | None = None
    finished: float | None = None
    duration: float | None = None
    cause: str | None = None

    def begin(self, now: float) -> Check:
        """The check asks its question."""
        return replace(self, started=now)

    def end(self, now: float, cause: str | None) -> Check:
        """The check has its answer; ``cause`` says what is wrong with it. An answer later than the time-out is a failure too."""
        duration = now - (now if self.started is None else self.started)
        if cause is None and duration > self.timeout:
            cause = "the answer took %.1f s, allowed are %g s" % (duration, self.timeout)
        return replace(self, started=None, finished=now, duration=duration, cause=cause)

    def problem(self, now: float) -> str | None:
        """Why this check is not healthy at ``now``; ``None`` if it is."""
        if self.started is not None and now - self.started > self.timeout:
            return "no answer for %.1f s" % (now - self.started)
        if self.finished is None:
            return "not proven yet"
        if self.cause is not None:
            return self.cause
        if now - self.finished > self.stale_after:
            return "last seen %.1f s ago" % (now - self.finished)
        return None


def report(checks: list, now: float) -> dict:
    """The answer of ``/healthz``: ``healthy``, the first ``cause``, the ``age`` of the oldest result in seconds, and each check."""
    answer: dict[str, Any] = {"healthy": True, "cause": None, "age": None, "checks": {}}
    for check in checks:
        problem = check.problem(now)
        age = None if check.finished is None else round(now - check.finished, 3)
        answer["checks"][check.name] = {
            "healthy": problem is None,
            "cause": problem,
            "age": age,
            "duration": None if check.duration is None else round(check.duration, 3),
        }
        if age is not None:
            answer["age"] = age if answer["age"] is None else max(age, answer["age"])
        if problem is not None:
            answer["healthy"] = False
            if answer["cause"] is None:
                answer["cause"] = "%s: %s" % (check.name, problem)
    return answer


# -- configuration --------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Timing:
    """How often a check runs (how rarely while it fails), when it counts as failed, when its result is too old, when the request itself
    is given up. Seconds."""

    interval: float
    slowest: float
    timeout: float
    stale_after: float
    give_up: float


# A frozen registry is seen after interval + timeout at the latest: 1.3 s.
REGISTRY_TIMING = Timing(interval=0.4, slowest=0.4, timeout=0.9, stale_after=3.0, give_up=10.0)
# Reads a local file; the NFS probe plays a round every 5 s, and looks for as long as 4 s twice for each node when something is late.
NFS_TIMING = Timing(interval=1.0, slowest=1.0, timeout=0.9, stale_after=5.0, give_up=10.0)
NFS_OLDEST = 60.0
STORAGE_TIMING = Timing(interval=5.0, slowest=30.0, timeout=3.0, stale_after=15.0, give_up=300.0)


@dataclass(frozen=True)
class Config:
    """What ``/etc/wharf/probe.json`` says."""

    listen: tuple
    registry_url: str
    repository: str
    username: str
    password: str
    token_url: str
    write: bool
    registry: Timing
    storage: Timing
    nfs: str = ""


def parse_config(content: object) -> Config:
    """Check and complete the configuration. Raises ConfigError, whose message names the key."""
    if not isinstance(content, dict):
        raise ConfigError("the configuration must be a JSON object")
    known = {"listen", "registry_url", "repository", "username", "password", "write", "registry", "storage", "nfs", "token_url"}
    unknown = sorted(set(content) - known)
    if unknown:
        raise ConfigError("unknown key %s; known are %s" % (", ".join(unknown), ", ".join(sorted(known))))
    try:
        listen = parse_address(content.get("listen", "127.0.0.1:5003"), 5003)
    except (ValueError, AttributeError):
        raise ConfigError("listen: %r is no address; an example: 127.0.0.1:5003" % (content.get("listen"),)) from None
    texts: dict[str, str] = {}
    for key, default in (
        ("registry_url", "http://127.0.0.1:5000"),
        ("repository", "wharf/probe"),
        ("username", ""),
        ("password", ""),
        ("nfs", ""),
        ("token_url", ""),
    ):
        texts[key] = content.get(key, default)
        if not isinstance(texts[key], str):
            raise ConfigError("%s must be a string" % key)
    write = content.get("write", True)
    if not isinstance(write, bool):
        raise ConfigError("write must be true or false")
    return Config(
        listen=listen,
        write=write,
        registry=_timing("registry", content.get("registry", {}), REGISTRY_TIMING),
        storage=_timing("storage", content.get("storage", {}), STORAGE_TIMING),
        **texts,
    )


def _timing(name: str, content: object, default: Timing) -> Timing:
    if not isinstance(content, dict):
        raise ConfigError("%s must be an object" % name)
    values = {}
    for key in content:
        if key not in ("interval", "slowest", "timeout", "stale_after", "give_up"):
            raise ConfigError("unknown key %s.%s" % (name, key))
        value = content[key]
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0.05 <= value <= 3600:
            raise ConfigError("%s.%s: %r is no number of seconds between 0.05 and 3600" % (name, key, value))
        values[key] = float(value)
    timing = replace(default, **values)
    if timing.give_up <= timing.timeout:
        timing = replace(timing, give_up=timing.timeout + 1.0)
    return timing


# -- the checks -----------------------------------------------------------------------------------------------------------------------


def check_registry(registry: Registry) -> str | None:
    """The registry's process answers ``GET /``. Returns what is wrong, or ``None``."""
    return _cause(registry.root)


def check_storage(registry: Registry, repository: str, write: bool, hostname: str) -> str | None:
    """The storage takes a blob of a few bytes and gives it back; without ``write`` it only lists tags.

    The blob is the same each time, so that nothing accumulates: the upload is written, found to be there already, and dropped. A cancelled
    upload would not do, because the registry leaves part of it behind. Each host has a blob of its own: hosts never meet at one link.
    """
    content = ("health probe of %s\n" % hostname).encode("utf-8")

    def write_and_read() -> None:
        registry.check_blob(repository, registry.put_blob(repository, content))

    return _cause(write_and_read if write else lambda: registry.list_tags(repository))


def check_nfs(path: str) -> str | None:
    """What the NFS probe has written to ``path`` lately says that all is well. Returns what is wrong, or ``None``."""
    try:
        with open(path, encoding="utf-8") as handle:
            state = json.load(handle)
    except (OSError, ValueError):
        state = None
    return cause_in(state, time.monotonic(), NFS_OLDEST)


def _cause(action: Callable[[], object]) -> str | None:
    """Run ``action``; return ``None`` or one line for strangers to read: it never quotes an answer's body, which may name paths."""
    try:
        action()
    except RegistryTimeout as error:
        return str(error)
    except RegistryError as error:
        if error.status is None:
            return str(error)
        if error.status in (401, 403):
            return "the registry refuses the user of the probe (HTTP %d)" % error.status
        if error.status == 405:
            return "the registry is read-only (HTTP 405)"
        return "the registry answers HTTP %d%s" % (error.status, " " + error.code if error.code else "")
    except Exception as error:  # A check must not end its thread, whatever happens.
        return "the probe failed: %s" % type(error).__name__
    return None


# -- the daemon -----------------------------------------------------------------------------------------------------------------------


class Board:
    """The checks' present state, shared by their threads and the server."""

    def __init__(self, checks: list) -> None:
        self._lock = threading.Lock()
        self._checks = {check.name: check for check in checks}

    def update(self, name: str, change: Callable[[Check], Check]) -> None:
        """Replace the state of check ``name`` with ``change(state)``."""
        with self._lock:
            self._checks[name] = change(self._checks[name])

    def report(self) -> dict:
        """What ``/healthz`` answers now."""
        with self._lock:
            return report(list(self._checks.values()), time.monotonic())


def pause(interval: float, slowest: float, took: float, failures: int) -> float:
    """Seconds until the next question, after one that took ``took`` seconds and ``failures`` failures in a row.

    After a late answer the next question comes at once. A storage that keeps failing is asked less and less often, down to every ``slowest``
    seconds: each failed write may leave a directory behind, and they would be many after a night with a full disk.
    """
    wanted = min(interval * 2 ** min(max(failures - 1, 0), 10), max(slowest, interval))
    return max(wanted - took, 0.05)


def watch(
    board: Board,
    name: str,
    timing: Timing,
    action: Callable[[], str | None],
    stop: threading.Event,
    recovered: threading.Event | None = None,
    wake: threading.Event | None = None,
) -> None:
    """Run ``action`` (returns a cause or ``None``) again and again until ``stop``: never two at a time.

    ``recovered`` is set at the first success after a failure; ``wake`` ends a pause early.
    """
    failures = 0
    while not stop.is_set():
        begun = time.monotonic()
        board.update(name, partial(Check.begin, now=begun))
        cause = action()
        ended = time.monotonic()
        board.update(name, partial(Check.end, now=ended, cause=cause))
        if cause is None and failures and recovered is not None:
            recovered.set()
        failures = 0 if cause is None else failures + 1
        if (wake or stop).wait(pause(timing.interval, timing.slowest, ended - begun, failures)) and wake is not None:
            wake.clear()
            failures = 0


class _Handler(BaseHTTPRequestHandler):
    """``GET`` and ``HEAD`` of ``/healthz``; nothing else."""

    server_version = "wharf-probe"
    sys_version = ""
    timeout = 5

    server: _Server

    def do_GET(self) -> None:
        self._answer(True)

    def do_HEAD(self) -> None:
        self._answer(False)

    def _answer(self, with_body: bool) -> None:
        if self.path.split("?", 1)[0] != "/healthz":
            status, content = 404, {"errors": [{"code": "NOT_FOUND", "message": "there is only /healthz"}]}
        else:
            content = self.server.board.report()
            status = 200 if content["healthy"] else 503
        body = (json.dumps(content) + "\n").encode("utf-8")
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Cache-Control", "no-store")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if with_body:
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: changes are logged by the daemon, requests by the edge."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 128

    def __init__(self, address: tuple, board: Board) -> None:
        self.board = board
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        super().__init__(address, _Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no news."""


def run(config_path: str) -> int:
    """Serve ``/healthz`` until SIGTERM or SIGINT. Returns the exit code: 0, or 2 for a configuration that cannot be used."""
    try:
        config = _tool_config.load(config_path, parse_config)
        server = _Server(config.listen, Board([]))
    except (OSError, ConfigError) as error:
        sys.stderr.write("probe: %s\n" % error)
        return 2
    stop = threading.Event()
    server.board = start_checks(config, stop)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: stop.set())
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.5}, daemon=True).start()
    last = object()
    while not stop.wait(0.25):
        now = server.board.report()
        told = [now["healthy"]] + [check["healthy"] for check in now["checks"].values()]
        if told != last:
            last = told
            sys.stderr.write("probe: healthy\n" if now["healthy"] else "probe: unhealthy: %s\n" % now["cause"])
            sys.stderr.flush()
    server.server_close()
    return 0


def start_checks(config: Config, stop: threading.Event) -> Board:
    """Start one thread for each check and return the board on which they write."""
    checks = [
        Check("registry", config.registry.timeout, config.registry.stale_after),
        Check("storage_write" if config.write else "storage_read", config.storage.timeout, config.storage.stale_after),
    ]
    if config.nfs:
        checks.append(Check("nfs", NFS_TIMING.timeout, NFS_TIMING.stale_after))
    board = Board(checks)
    process = Registry(config.registry_url, timeout=config.registry.give_up, user_agent="wharf-probe")
    store = Registry(
        config.registry_url,
        username=config.username,
        password=config.password,
        token_origin=config.token_url,
        timeout=config.storage.give_up,
        user_agent="wharf-probe",
    )
    name = "storage_write" if config.write else "storage_read"
    hostname = socket.gethostname()
    # A registry that has come back is worth a look at its storage at once, however long that was asked in vain.
    back = threading.Event()
    watched: list = [
        ("registry", config.registry, lambda: check_registry(process), stop, back, None),
        (name, config.storage, lambda: check_storage(store, config.repository, config.write, hostname), stop, None, back),
    ]
    if config.nfs:
        watched.append(("nfs", NFS_TIMING, lambda: check_nfs(config.nfs), stop, None, None))
    for arguments in watched:
        threading.Thread(target=watch, args=(board,) + arguments, name=arguments[0], daemon=True).start()
    return board
