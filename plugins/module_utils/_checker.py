# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This file is private to the collection: it may change in any release.

"""The checker of a balancer: asks every node whether it is healthy and keeps nginx's list of nodes accordingly.

nginx (the free one) has no active health checks, and passive ones do not notice a frozen process that still accepts
connections. Three parts:

* :class:`Pool` decides who gets requests. No clock, no input and output: tables test it.
* :class:`Prober` asks one node, never longer than the time-out, whatever the node does or does not do.
* :class:`Nginx` owns the one upstream file: writes it, tests it, reloads, cuts connections.

``drain`` and ``restore`` are files in the state directory, so that they outlive the checker.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import queue
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
from dataclasses import dataclass, field
from typing import Any, Callable, Dict, Iterable, Iterator, List, Optional, Tuple

from . import _tool_config
from ._tool_config import ConfigError

TICK = 0.1  # seconds between two looks at the drain files
CONFIRM = 0.4  # seconds after a reload until the configuration is tested; the first cut must not wait for that
RETRY = 5.0  # seconds until a refused configuration is tried again
CUT_ROUNDS = (0.25, 0.6, 1.3)  # seconds after a reload: until old nginx workers are gone they open new connections
CUT_LATE = (20.0,)  # the same for a node whose edge works: by then it has had other nodes answer the reads, what is left hangs
RENEW = 5.0  # seconds after which a check opens a new connection even though the old one still works
MAX_ANSWER = 65536
UNKNOWN_NODE = 3  # exit status of drain and restore for a node that this balancer does not have


class UnknownNode(ConfigError):
    """The balancer has no such node."""


# ------------------------------------------------------------------------------------------------------- configuration


@dataclass(frozen=True)
class Node:
    """One registry node: ``name`` from the inventory, its address, the port that answers, the name in its certificate."""

    name: str
    address: str
    port: int
    server_name: str


@dataclass(frozen=True)
class Config:
    """What ``balancer.json`` says. Times in seconds.

    ``cut_first``: cut before the reload too. Right where nginx repeats requests on another node (http mode); otherwise
    clients would come back at once, and to the node that now has the fewest connections: the sick one. Where nginx cannot
    repeat (stream mode), a node's edge asks other nodes if its registry does not answer, and it is given time for that.
    """

    nodes: Tuple[Node, ...]
    upstream_port: int
    upstream_file: str
    state_dir: str
    ca: Optional[str]
    cut_first: bool = False
    pid_file: str = "/run/nginx.pid"
    path: str = "/healthz"
    interval: float = 0.4
    timeout: float = 0.7
    fall: int = 1
    rise: int = 2
    parameters: str = ""
    test: Tuple[str, ...] = ("nginx", "-t")
    reload: Tuple[str, ...] = ("systemctl", "reload", "nginx")


def parse_config(data: Any) -> Config:
    """Return the configuration in ``data`` (what JSON gave).

    :raises ConfigError: for missing and unknown keys and wrong types.
    """
    if not isinstance(data, dict):
        raise ConfigError("the configuration must be a JSON object")
    data = dict(data)
    try:
        nodes = tuple(
            Node(str(entry["name"]), str(entry["address"]), int(entry.get("port", 5443)), str(entry.get("server_name") or entry["address"]))
            for entry in data.pop("nodes")
        )
        values: Dict[str, Any] = {
            "nodes": nodes,
            "upstream_port": int(data.pop("upstream_port")),
            "upstream_file": str(data.pop("upstream_file")),
            "state_dir": str(data.pop("state_dir")),
            "ca": data.pop("ca", None),
            "cut_first": data.pop("cut_first", False) is True,
        }
        for key, kind in (
            ("pid_file", str),
            ("path", str),
            ("interval", float),
            ("timeout", float),
            ("fall", int),
            ("rise", int),
            ("parameters", str),
        ):
            if key in data:
                values[key] = kind(data.pop(key))
        for key in ("test", "reload"):
            if key in data:
                values[key] = tuple(str(word) for word in data.pop(key))
    except KeyError as error:
        raise ConfigError(f"missing key {error}") from error
    except (TypeError, ValueError) as error:
        raise ConfigError(str(error)) from error
    if data:
        raise ConfigError(f"unknown key {sorted(data)[0]!r}")
    config = Config(**values)
    if not nodes:
        raise ConfigError("nodes must not be empty")
    if len({node.name for node in nodes}) != len(nodes):
        raise ConfigError("two nodes have the same name")
    if config.interval <= 0 or config.timeout <= 0 or config.fall < 1 or config.rise < 1:
        raise ConfigError("interval and timeout must be above 0, fall and rise at least 1")
    return config


def load_config(path: str) -> Config:
    """Read the configuration file. Raises ConfigError."""
    return _tool_config.load(path, parse_config)


# ------------------------------------------------------------------------------------------------------ who gets requests


@dataclass
class _Health:
    healthy: bool
    streak: int = 0  # observations in a row that contradict ``healthy``
    reason: str = ""


class Pool:
    """Decides which nodes get requests, from what was observed and who is drained."""

    def __init__(self, names: Iterable[str], *, fall: int, rise: int, healthy: Iterable[str] = ()) -> None:
        """
        :param names: all nodes, in the order of the configuration.
        :param fall: failures in a row that make a node unhealthy.
        :param rise: successes in a row that make it healthy again.
        :param healthy: the nodes that start as healthy.
        """
        known = set(healthy)
        self._fall, self._rise = fall, rise
        self._nodes = {name: _Health(name in known) for name in names}
        self._drained: Dict[str, float] = {}

    def observe(self, name: str, good: bool, reason: str = "") -> Optional[bool]:
        """Note the outcome of one check; return the new health if it changed, else None."""
        health = self._nodes[name]
        health.reason = reason
        if good == health.healthy:
            health.streak = 0
            return None
        health.streak += 1
        if health.streak < (self._rise if good else self._fall):
            return None
        health.healthy, health.streak = good, 0
        return good

    def drain(self, drained: Dict[str, float], now: float) -> None:
        """Set who is drained and until when (seconds since the epoch); what has expired or is unknown does not count."""
        self._drained = {name: until for name, until in drained.items() if until > now and name in self._nodes}

    def is_drained(self, name: str) -> bool:
        """Return whether a node is drained."""
        return name in self._drained

    def is_healthy(self, name: str) -> bool:
        """Return the present health of a node."""
        return self._nodes[name].healthy

    def serving(self) -> List[str]:
        """Return who gets requests: never nobody.

        Healthy nodes that are not drained; if there is none, healthy ones; if there is none, those not drained, and
        at last all: then the client gets a node's own error, and nobody is locked out by a check that is wrong.
        """
        healthy = [name for name, health in self._nodes.items() if health.healthy]
        wanted = [name for name in self._nodes if name not in self._drained]
        for choice in ([name for name in healthy if name in wanted], healthy, wanted):
            if choice:
                return choice
        return list(self._nodes)

    def describe(self) -> Dict[str, Dict[str, Any]]:
        """Return the state of every node for the status file."""
        serving = self.serving()
        return {
            name: {
                "healthy": health.healthy,
                "reason": health.reason,
                "drained_until": self._drained.get(name),
                "serving": name in serving,
            }
            for name, health in self._nodes.items()
        }


# ------------------------------------------------------------------------------------------------------------ asking a node


@dataclass(frozen=True)
class Answer:
    """Outcome of one check. ``stuck``: the registry there will not answer the requests that are under way, so cut them.

    ``edge``: the edge before it still answers.
    """

    good: bool
    reason: str = ""
    stuck: bool = False
    edge: bool = False


def tls_context(ca: Optional[str]) -> ssl.SSLContext:
    """Return a context that verifies chain and name, by the authority in file ``ca`` or by the system's."""
    context = ssl.create_default_context(cafile=ca)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # Python 3.13 refuses authorities without a key usage; nginx, which decides for the clients, does not.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return context


class Prober:
    """Asks one node for ``/healthz`` over verified TLS. Not for several threads."""

    def __init__(self, node: Node, path: str, timeout: float, context: ssl.SSLContext) -> None:
        self._node, self._timeout, self._context = node, timeout, context
        self._request = (
            f"GET {path} HTTP/1.1\r\nHost: {node.server_name}\r\nUser-Agent: wharf-checker\r\nAccept: application/json\r\n\r\n"
        ).encode("ascii")
        self._connection: Optional[ssl.SSLSocket] = None
        self._opened = 0.0

    def ask(self) -> Answer:
        """Return the node's health; ``timeout`` seconds cover connecting, TLS and the whole answer."""
        deadline = time.monotonic() + self._timeout
        if self._connection is not None and time.monotonic() - self._opened > RENEW:
            self.close()
        reused = self._connection is not None
        try:
            try:
                return self._judge(*self._exchange(deadline))
            except socket.timeout:
                raise
            except OSError:
                # An idle connection that the other side closed says nothing about its health: ask again on a new one.
                if not reused:
                    raise
                self.close()
                return self._judge(*self._exchange(deadline))
        except socket.timeout:
            self.close()
            return Answer(False, f"no answer within {self._timeout:g} s", stuck=True)
        except ssl.SSLCertVerificationError as error:
            self.close()
            return Answer(False, f"certificate: {error.verify_message}")
        except (OSError, ValueError) as error:
            self.close()
            return Answer(False, str(error) or type(error).__name__, stuck=True)

    def close(self) -> None:
        """Close the connection, if there is one."""
        if self._connection is not None:
            with contextlib.suppress(OSError):
                self._connection.close()
            self._connection = None

    def _exchange(self, deadline: float) -> Tuple[int, bytes]:
        if self._connection is None:
            raw = socket.create_connection((self._node.address, self._node.port), timeout=_left(deadline))
            try:
                raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                raw.settimeout(_left(deadline))
                self._connection = self._context.wrap_socket(raw, server_hostname=self._node.server_name)
            except BaseException:
                raw.close()
                raise
            self._opened = time.monotonic()
        connection = self._connection
        connection.settimeout(_left(deadline))
        connection.sendall(self._request)
        received = b""
        while b"\r\n\r\n" not in received:
            received += _receive(connection, deadline, received)
        head, _separator, body = received.partition(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        words = lines[0].split(" ", 2)
        if len(words) < 2 or not words[0].startswith("HTTP/1.") or not words[1].isdigit():
            raise ValueError(f"no HTTP answer: {lines[0][:60]!r}")
        headers = {name.strip().lower(): value.strip() for name, _colon, value in (line.partition(":") for line in lines[1:])}
        length = headers.get("content-length", "")
        if not length.isdigit():
            # Without a length only the end of the connection ends the answer; the status is what counts.
            self.close()
            return int(words[1]), body
        while len(body) < int(length):
            body += _receive(connection, deadline, body)
        if headers.get("connection", "").lower() == "close":
            self.close()
        return int(words[1]), body

    @staticmethod
    def _judge(status: int, body: bytes) -> Answer:
        if status == 200:
            return Answer(True)
        cause, stuck = "", False
        with contextlib.suppress(ValueError, AttributeError, KeyError, TypeError):
            told = json.loads(body.decode("utf-8"))
            cause = str(told.get("cause") or "")
            # A registry that does not answer leaves its clients hanging; a store that refuses writes does not.
            stuck = told["checks"]["registry"]["healthy"] is False
        return Answer(False, f"status {status}" + (f": {cause}" if cause else ""), stuck=stuck, edge=True)


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise socket.timeout("timed out")
    return left


def _receive(connection: ssl.SSLSocket, deadline: float, sofar: bytes) -> bytes:
    if len(sofar) > MAX_ANSWER:
        raise ValueError("the answer is too long")
    connection.settimeout(_left(deadline))
    data = connection.recv(16384)
    if not data:
        raise ConnectionResetError("the connection was closed without an answer")
    return data


def _watch(prober: Prober, name: str, interval: float, results: queue.Queue[Tuple[str, Answer]], stop: threading.Event) -> None:
    """Thread of one node: ask at a fixed rate. A hung node holds up nobody but this thread."""
    following = time.monotonic()
    while not stop.is_set():
        results.put((name, prober.ask()))
        following = max(following + interval, time.monotonic() + interval / 4)
        stop.wait(max(0.0, following - time.monotonic()))
    prober.close()


# ------------------------------------------------------------------------------------------------------------------- nginx


def _endpoint(node: Node, port: int) -> str:
    return f"[{node.address}]:{port}" if ":" in node.address else f"{node.address}:{port}"


def render_upstream(config: Config, serving: Iterable[str]) -> str:
    """Return the text of the upstream file: ``server`` lines for the nodes that serve, comments for the others.

    The others are no ``down`` lines because nginx must see a lone server as such: it never gives up on the only one.
    """
    chosen = set(serving)
    lines = ["# Written by wharf-checker.service; changes are overwritten. To take a node out: wharf.pyz drain NODE"]
    for node in config.nodes:
        entry = f"server {_endpoint(node, config.upstream_port)}{' ' + config.parameters if config.parameters else ''};"
        lines.append(f"{entry}  # {node.name}" if node.name in chosen else f"# out: {entry}  # {node.name}")
    return "\n".join(lines) + "\n"


def read_serving(text: str) -> Optional[List[str]]:
    """Return the names that an upstream file lets serve; None if it was not written by :func:`render_upstream`."""
    if not text.startswith("# Written by wharf-checker.service"):
        return None
    return [line.rpartition("# ")[2].strip() for line in text.splitlines() if line.startswith("server ")]


Runner = Callable[[List[str]], Tuple[int, str]]


def run_command(command: List[str]) -> Tuple[int, str]:
    """Run a command for at most 30 seconds; return its status and what it printed."""
    try:
        done = subprocess.run(  # pylint: disable=ansible-bad-function  # the daemon has no AnsibleModule
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=30, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return 1, str(error)
    return done.returncode, done.stdout.decode("utf-8", "replace").strip()


class Nginx:
    """Owner of the upstream file."""

    def __init__(self, config: Config, log: Callable[[str], None], run: Runner = run_command) -> None:
        self._config, self._log, self._run = config, log, run
        self._mark = os.path.join(config.state_dir, "reload-pending")
        self._not_before = 0.0
        self.refused = ""
        self.text = _read(config.upstream_file)  # what nginx was given last
        self._good = self.text  # what it can load
        self._repeat = os.path.exists(self._mark)  # a checker before us was stopped between writing and reloading
        self._confirm_at: Optional[float] = None

    def apply(self, serving: List[str]) -> bool:
        """Give nginx these nodes; return whether it has them. Reloads only when the file differs from what nginx has.

        The signal comes before the test, see :meth:`confirm`: starting ``nginx -t`` on a busy machine takes longer than
        a frozen node may cost, and nginx itself keeps what it has when it cannot load a configuration.
        """
        text = render_upstream(self._config, serving)
        if text == self.text and not self._repeat:
            return True
        if time.monotonic() < self._not_before:
            return False
        write_file(self._mark, "")
        write_file(self._config.upstream_file, text)
        self.text, self._repeat = text, False
        status, output = (0, "") if self._signal() else self._run(list(self._config.reload))
        if status != 0:
            self._repeat = True
            return self._later(f"the list of nodes is written but nginx was not reloaded: {output}")
        self._confirm_at = time.monotonic() + CONFIRM
        return True

    def confirm(self) -> bool:
        """Test what :meth:`apply` gave to nginx, a moment later and once; return False until that is done and good.

        If the test fails, the file that was good is put back (nginx must be able to start with it) and the new one is
        tried again some seconds later.
        """
        if self._confirm_at is None:
            return not self._repeat
        if time.monotonic() < self._confirm_at:
            return False
        self._confirm_at = None
        status, output = self._run(list(self._config.test))
        if status != 0:
            if self._good is not None:
                write_file(self._config.upstream_file, self._good)
                self.text = self._good
            self._repeat = True
            return self._later(f"nginx refuses its configuration, the old list of nodes stays: {output}")
        self._good = self.text
        os.unlink(self._mark)
        self.refused = ""
        return True

    def _signal(self) -> bool:
        """Tell the nginx that runs to reload; False if there is none to be found."""
        try:
            pid = int((_read(self._config.pid_file) or "").strip())
            if (_read(f"/proc/{pid}/comm") or "").strip() != "nginx":
                return False
            os.kill(pid, signal.SIGHUP)
        except (ValueError, OSError):
            return False
        return True

    def cut(self, node: Node) -> None:
        """End this host's connections to a node, so that whoever waits on them asks another one at once."""
        status, output = self._run(["ss", "-H", "-K", "-tn", "dst", _endpoint(node, self._config.upstream_port)])
        if status != 0:
            self._log(f"node={node.name} cannot cut connections: {output}")

    def _later(self, problem: str) -> bool:
        self._not_before = time.monotonic() + RETRY
        if problem != self.refused:
            self._log(problem)
        self.refused = problem
        return False


def write_file(path: str, text: str, mode: int = 0o644) -> None:
    """Write a file so that nobody ever sees half of it."""
    descriptor, temporary = tempfile.mkstemp(prefix=".wharf-", dir=os.path.dirname(path))
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as handle:
            handle.write(text)
            handle.flush()
            os.fsync(handle.fileno())
        os.chmod(temporary, mode)
        os.rename(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def _read(path: str) -> Optional[str]:
    try:
        with open(path, encoding="utf-8", errors="replace") as handle:
            return handle.read()
    except FileNotFoundError:
        return None


# -------------------------------------------------------------------------------------------------------------- state files


def _drain_file(config: Config, name: str) -> str:
    return os.path.join(config.state_dir, "drained", urllib.parse.quote(name, safe=""))


def read_drained(state_dir: str) -> Dict[str, float]:
    """Return the drained nodes and until when (seconds since the epoch)."""
    folder = os.path.join(state_dir, "drained")
    drained: Dict[str, float] = {}
    try:
        entries = os.listdir(folder)
    except FileNotFoundError:
        return drained
    for entry in entries:
        if entry.startswith("."):
            continue
        with contextlib.suppress(ValueError, TypeError, KeyError):
            drained[urllib.parse.unquote(entry)] = float(json.loads(_read(os.path.join(folder, entry)) or "{}")["until"])
    return drained


def _status_file(config: Config) -> str:
    return os.path.join(config.state_dir, "status.json")


@contextlib.contextmanager
def _only_one(config: Config) -> Iterator[bool]:
    """Hold the lock of the running checker; gives False if another one holds it."""
    descriptor = os.open(os.path.join(config.state_dir, "lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(descriptor)


# ------------------------------------------------------------------------------------------------------------------ daemon


@dataclass
class Checker:
    """The daemon: takes answers in, keeps nginx in step, says what changed."""

    config: Config
    nginx: Nginx
    log: Callable[[str], None]
    _cut_after_reload: List[Tuple[Node, Tuple[float, ...]]] = field(default_factory=list)
    _cuts: List[Tuple[float, Node]] = field(default_factory=list)
    _status: str = ""

    def __post_init__(self) -> None:
        names = [node.name for node in self.config.nodes]
        before = read_serving(self.nginx.text or "")
        # After a restart a node is what it was: one that was out must earn its place again. Without a file of ours
        # everybody is in until the first answers say otherwise.
        healthy = names if before is None or not set(before) & set(names) else before
        self.nodes = {node.name: node for node in self.config.nodes}
        self.pool = Pool(names, fall=self.config.fall, rise=self.config.rise, healthy=healthy)
        self._heard: Dict[str, float] = {}
        self._unheard = set(names)
        self._serving = before

    def take(self, name: str, answer: Answer) -> None:
        """Note an answer, and cut what hangs on a node that has just become unhealthy."""
        self._heard[name] = time.monotonic()
        self._unheard.discard(name)
        turned = self.pool.observe(name, answer.good, answer.reason)
        if turned is None:
            return
        self.log(f"node={name} health={'up' if turned else 'down'}" + (f' reason="{answer.reason}"' if answer.reason else ""))
        if turned or not answer.stuck:
            return
        node = self.nodes[name]
        # Whoever drained the node decides about its connections; if it has to stay for want of others, cutting helps nobody.
        if not self.pool.is_drained(name) and name not in self.pool.serving():
            if self.config.cut_first:
                self.nginx.cut(node)
            late = answer.edge and not self.config.cut_first
            self._cut_after_reload.append((node, CUT_LATE if late else CUT_ROUNDS))

    def step(self) -> None:
        """Expire drains, notice checks that never came back, keep nginx in step, repeat cuts that are due."""
        now = time.time()
        drained = read_drained(self.config.state_dir)
        for name, until in list(drained.items()):
            if until <= now or name not in self.nodes:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(_drain_file(self.config, name))
                self.log(f"node={name} drain ended")
                del drained[name]
        self.pool.drain(drained, now)
        overdue = self.config.interval + self.config.timeout + 1.0
        for name, heard in list(self._heard.items()):
            if time.monotonic() - heard > overdue:
                self.take(name, Answer(False, f"no check came back within {overdue:g} s", stuck=True))
        if self._unheard:  # no decision before everybody was asked once
            return
        serving = self.pool.serving()
        applied = self.nginx.apply(serving)
        if applied and self._cut_after_reload:
            self._cuts += [(time.monotonic() + delay, node) for node, delays in self._cut_after_reload for delay in delays]
            self._cut_after_reload = []
        for cut in [cut for cut in self._cuts if cut[0] <= time.monotonic()]:
            self._cuts.remove(cut)
            if cut[1].name not in serving:
                self.nginx.cut(cut[1])
        # Both are asked: what cannot be given now may still have to be confirmed.
        confirmed = self.nginx.confirm()
        applied = applied and confirmed
        if applied and serving != self._serving:
            self.log(f"serving={','.join(serving)}")
            self._serving = serving
        status = json.dumps({"nodes": self.pool.describe(), "applied": applied, "problem": self.nginx.refused}, indent=1)
        if status != self._status:
            write_file(_status_file(self.config), status + "\n")
            self._status = status

    def run(self, stop: threading.Event) -> None:
        """Work until ``stop`` is set."""
        results: queue.Queue[Tuple[str, Answer]] = queue.Queue()
        context = tls_context(self.config.ca)
        for node in self.config.nodes:
            self._heard[node.name] = time.monotonic()
            prober = Prober(node, self.config.path, self.config.timeout, context)
            threading.Thread(target=_watch, args=(prober, node.name, self.config.interval, results, stop), daemon=True).start()
        while not stop.is_set():
            with contextlib.suppress(queue.Empty):
                self.take(*results.get(timeout=TICK))
                while True:
                    self.take(*results.get_nowait())
            self.step()


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def run(config_path: str) -> int:
    """Be the daemon until SIGTERM or SIGINT. Returns 0, or 2 for a configuration that cannot be used."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: stop.set())
    try:
        config = load_config(config_path)
        os.makedirs(os.path.join(config.state_dir, "drained"), exist_ok=True)
        with _only_one(config) as alone:
            if not alone:
                raise ConfigError(f"another checker works with {config.state_dir}")
            Checker(config, Nginx(config, _say), _say).run(stop)
    except (ConfigError, OSError) as error:
        sys.stderr.write(f"checker: {error}\n")
        return 2
    return 0


# ------------------------------------------------------------------------------------------------------- drain and restore


def drain(config_path: str, name: str, *, seconds: float, wait: float) -> int:
    """Take a node out of this balancer for ``seconds``, then wait until its last connection ends, at most ``wait`` seconds.

    Returns 0 when nginx sends it nothing new (connections that outlast the wait are told, and left alone), 1 when it
    has to go on serving because no other node is healthy or when no checker runs, 2 for a configuration that cannot be
    used, 3 for a node that this balancer does not have.
    """
    try:
        config = _config_for(config_path, name)
        deadline = time.monotonic() + wait
        os.makedirs(os.path.join(config.state_dir, "drained"), exist_ok=True)
        write_file(_drain_file(config, name), json.dumps({"until": time.time() + seconds}))
        _wait_for(config, lambda state: state["applied"] and state["nodes"][name]["drained_until"], max(wait, 10.0))
        if _state(config)["nodes"][name]["serving"]:
            if len(config.nodes) == 1:
                _say(f"{name} is the only node: it goes on getting requests")
                return 0
            with contextlib.suppress(FileNotFoundError):
                os.unlink(_drain_file(config, name))
            raise OSError(f"{name} cannot be drained: no other node is healthy ({_others(config, name)})")
    except (ConfigError, OSError) as error:
        return _complain(error)
    node = next(node for node in config.nodes if node.name == name)
    while True:
        status, open_now = _connections(node, config.upstream_port)
        if status != 0 or open_now == 0:
            _say(f"{name} is drained")
            return 0
        if time.monotonic() >= deadline:
            _say(f"{name} is drained; {open_now} connections to it are still open after {wait:g} s")
            return 0
        time.sleep(0.2)


def restore(config_path: str, name: str, *, wait: float) -> int:
    """End the drain of a node and wait until it gets requests, at most ``wait`` seconds.

    Returns 0, or 1 when it does not get any (it is not healthy, or no checker runs), 2 and 3 as
    :func:`drain`.
    """
    try:
        config = _config_for(config_path, name)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(_drain_file(config, name))
        ready = _wait_for(
            config,
            lambda state: state["applied"] and state["nodes"][name]["healthy"] and not state["nodes"][name]["drained_until"],
            wait,
        )
        if ready:
            _say(f"{name} is back")
            return 0
        state = _state(config)
        raise OSError(f"{name} is not back after {wait:g} s: {state['nodes'][name]['reason'] or state['problem'] or 'not healthy yet'}")
    except (ConfigError, OSError) as error:
        return _complain(error)


def _config_for(config_path: str, name: str) -> Config:
    config = load_config(config_path)
    names = [node.name for node in config.nodes]
    if name not in names:
        raise UnknownNode(f"{name!r} is no node of this balancer; there are: {', '.join(names)}")
    return config


def _state(config: Config) -> Dict[str, Any]:
    text = _read(_status_file(config))
    state: Dict[str, Any] = json.loads(text) if text else {"nodes": {}, "applied": False, "problem": ""}
    for node in config.nodes:
        state["nodes"].setdefault(node.name, {"healthy": False, "reason": "", "drained_until": None, "serving": False})
    return state


def _wait_for(config: Config, condition: Callable[[Dict[str, Any]], Any], wait: float) -> bool:
    deadline = time.monotonic() + wait
    while True:
        with _only_one(config) as alone:
            running = not alone
        if running and condition(_state(config)):
            return True
        if time.monotonic() >= deadline:
            if not running:
                raise OSError("no checker runs here; look at: systemctl status wharf-checker")
            return False
        time.sleep(0.1)


def _others(config: Config, name: str) -> str:
    nodes = _state(config)["nodes"]
    return "; ".join(
        f"{node.name}: {nodes[node.name]['reason'] or ('drained' if nodes[node.name]['drained_until'] else 'not healthy')}"
        for node in config.nodes
        if node.name != name
    )


def _connections(node: Node, port: int) -> Tuple[int, int]:
    """Return ``ss``'s exit status and how many connections nginx has to a node."""
    status, output = run_command(["ss", "-H", "-tnp", "state", "established", "dst", _endpoint(node, port)])
    return status, sum('"nginx"' in line for line in output.splitlines())


def _complain(error: Exception) -> int:
    sys.stderr.write(f"{error}\n")
    if isinstance(error, UnknownNode):
        return UNKNOWN_NODE
    return 2 if isinstance(error, ConfigError) else 1
