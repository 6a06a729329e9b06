# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The health daemon: the state of checks over time, its configuration, and the daemon against a registry that misbehaves."""

from __future__ import annotations

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from ansible_collections.wharf.registry.plugins.module_utils import _probe, _tool_config
from ansible_collections.wharf.registry.plugins.module_utils._registry.api import RegistryError, RegistryTimeout, digest_of


def check(**values):
    values.setdefault("timeout", 1.0)
    values.setdefault("stale_after", 3.0)
    return _probe.Check("registry", **values)


@pytest.mark.parametrize(
    "state, now, problem",
    [
        (check(), 100.0, "not proven yet"),
        (check(started=99.5), 100.0, "not proven yet"),
        (check(finished=99.0), 100.0, None),
        (check(finished=99.0, cause="the registry answers HTTP 500"), 100.0, "the registry answers HTTP 500"),
        (check(finished=96.0), 100.0, "last seen 4.0 s ago"),
        (check(finished=98.0, started=98.5), 100.0, "no answer for 1.5 s"),
        (check(finished=99.0, started=99.2), 100.0, None),
        (check(started=90.0), 100.0, "no answer for 10.0 s"),
    ],
)
def test_problem_of_a_check(state, now, problem):
    assert state.problem(now) == problem


def test_a_late_answer_is_a_failure_until_the_next_one():
    late = check().begin(10.0).end(12.5, None)
    assert late.problem(12.5) == "the answer took 2.5 s, allowed are 1 s"
    assert late.begin(12.6).end(12.7, None).problem(12.7) is None


def test_a_hung_check_is_unhealthy_while_it_waits_and_healthy_once_proven_again():
    state = check().begin(0.0).end(0.1, None).begin(1.0)
    assert state.problem(1.9) is None
    assert state.problem(2.1) == "no answer for 1.1 s"
    state = state.end(9.0, None).begin(9.0).end(9.1, None)
    assert state.problem(9.1) is None


def test_report_names_the_first_cause_and_the_oldest_age():
    storage = _probe.Check("storage_write", 3.0, 15.0, finished=6.0, cause="the registry answers HTTP 500")
    answer = _probe.report([check(finished=9.5, duration=0.0042), storage], 10.0)
    assert answer == {
        "healthy": False,
        "cause": "storage_write: the registry answers HTTP 500",
        "age": 4.0,
        "checks": {
            "registry": {"healthy": True, "cause": None, "age": 0.5, "duration": 0.004},
            "storage_write": {"healthy": False, "cause": "the registry answers HTTP 500", "age": 4.0, "duration": None},
        },
    }


@pytest.mark.parametrize(
    "error, cause",
    [
        (RegistryTimeout("no answer within 3 s"), "no answer within 3 s"),
        (RegistryError("no answer from 127.0.0.1:5000: Connection refused"), "no answer from 127.0.0.1:5000: Connection refused"),
        (RegistryError("x", 401), "the registry refuses the user of the probe (HTTP 401)"),
        (RegistryError("x", 405), "the registry is read-only (HTTP 405)"),
        (
            RegistryError("x", 500, b'{"errors":[{"code":"UNKNOWN","detail":{"Path":"/srv/secret"}}]}'),
            "the registry answers HTTP 500 UNKNOWN",
        ),
        (RegistryError("x", 503, b"/srv/secret"), "the registry answers HTTP 503"),
        (KeyError("/srv/secret"), "the probe failed: KeyError"),
    ],
)
def test_causes_never_quote_what_the_registry_says(error, cause):
    def action():
        raise error

    assert _probe._cause(action) == cause


def test_defaults_of_the_configuration():
    config = _probe.parse_config({})
    assert config.listen == ("127.0.0.1", 5003)
    assert config.registry_url == "http://127.0.0.1:5000"
    assert config.write is True
    # The promise: a frozen registry is seen within 1.5 s.
    assert config.registry.interval + config.registry.timeout <= 1.5


@pytest.mark.parametrize(
    "content, message",
    [
        ([], "must be a JSON object"),
        ({"pasword": "x"}, "unknown key pasword"),
        ({"listen": "127.0.0.1:x"}, "listen: "),
        ({"listen": 5003}, "listen: "),
        ({"username": None}, "username must be a string"),
        ({"write": "no"}, "write must be true or false"),
        ({"storage": {"every": 1}}, "unknown key storage.every"),
        ({"storage": {"timeout": True}}, "storage.timeout: True is no number of seconds"),
        ({"registry": {"interval": 0}}, "registry.interval: 0 is no number of seconds"),
    ],
)
def test_bad_configuration_is_refused(content, message):
    with pytest.raises(_tool_config.ConfigError, match=message):
        _probe.parse_config(content)


@pytest.mark.parametrize(
    "took, failures, seconds",
    [(0.0, 0, 5.0), (1.0, 0, 4.0), (7.0, 0, 0.05), (0.0, 1, 5.0), (0.0, 2, 10.0), (0.0, 3, 20.0), (0.0, 4, 30.0), (0.0, 10**6, 30.0)],
)
def test_a_failing_storage_is_asked_less_often(took, failures, seconds):
    assert _probe.pause(5.0, 30.0, took, failures) == seconds


def test_a_failing_registry_is_asked_as_often_as_a_healthy_one():
    timing = _probe.REGISTRY_TIMING
    assert _probe.pause(timing.interval, timing.slowest, 0.0, 100) == timing.interval


def test_giving_up_comes_after_the_timeout():
    assert _probe.parse_config({"storage": {"timeout": 600}}).storage.give_up > 600


def test_a_bad_configuration_file_ends_the_daemon(tmp_path, capsys):
    path = tmp_path / "probe.json"
    path.write_text("{")
    assert _probe.run(str(path)) == 2
    assert str(path) in capsys.readouterr().err


class Registry(BaseHTTPRequestHandler):
    """A registry whose storage can fail or hang."""

    protocol_version = "HTTP/1.1"

    def _do(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.seen.append((self.command, self.path, self.headers.get("Authorization")))
        self.server.blob = body or self.server.blob
        status = 200
        if self.path.startswith("/v2/"):
            self.server.gate.wait(20)
            status = self.server.status or {"POST": 202, "PUT": 201, "GET": 200}[self.command]
        self.send_response(status)
        # As with http.host set: the name leads elsewhere, the probe must stay on loopback.
        self.send_header("Location", "https://registry.example/v2/wharf/probe/blobs/uploads/1?_state=x")
        content = self.server.blob if "/blobs/sha256:" in self.path else b""
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = do_PUT = _do

    def log_message(self, *args):
        pass


@pytest.fixture
def registry():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Registry)
    server.daemon_threads = True
    server.seen, server.status, server.gate, server.blob = [], None, threading.Event(), b""
    server.gate.set()
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    yield server
    server.gate.set()
    server.shutdown()
    server.server_close()


def until(board, wanted, seconds=5.0):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        answer = board.report()
        if wanted(answer):
            return answer
        time.sleep(0.02)
    raise AssertionError(answer)


@pytest.fixture
def board(registry):
    config = _probe.parse_config(
        {
            "registry_url": "http://127.0.0.1:%d" % registry.server_address[1],
            "username": "wharf-probe",
            "password": "secret",
            "registry": {"interval": 0.1, "timeout": 0.5},
            "storage": {"interval": 0.1, "slowest": 0.1, "timeout": 0.5},
        }
    )
    stop = threading.Event()
    yield _probe.start_checks(config, stop)
    stop.set()


def test_healthy_when_registry_and_storage_answer(registry, board):
    until(board, lambda answer: answer["healthy"])
    assert ("GET", "/", None) in registry.seen
    methods = [(method, path) for method, path, _header in registry.seen if path != "/"]
    digest = digest_of(registry.blob)
    assert methods[:3] == [
        ("POST", "/v2/wharf/probe/blobs/uploads/"),
        ("PUT", "/v2/wharf/probe/blobs/uploads/1?_state=x&digest=" + digest.replace(":", "%3A")),
        ("GET", "/v2/wharf/probe/blobs/" + digest),
    ]
    # The same blob each time: nothing accumulates.
    assert {path for method, path in methods if method == "GET"} == {"/v2/wharf/probe/blobs/" + digest}
    assert all(header for method, path, header in registry.seen if path != "/")


def test_failing_storage_is_named(registry, board):
    until(board, lambda answer: answer["healthy"])
    registry.status = 500
    answer = until(board, lambda answer: not answer["healthy"])
    assert answer["cause"] == "storage_write: the registry answers HTTP 500"
    assert answer["checks"]["registry"]["healthy"]


def test_hung_storage_is_seen_piles_up_nothing_and_heals(registry, board):
    until(board, lambda answer: answer["healthy"])
    registry.gate.clear()
    answer = until(board, lambda answer: not answer["healthy"])
    assert answer["cause"].startswith("storage_write: no answer for 0.")
    waiting = len(registry.seen) - sum(1 for _method, path, _header in registry.seen if path == "/")
    time.sleep(0.8)
    assert len(registry.seen) - sum(1 for _method, path, _header in registry.seen if path == "/") == waiting
    registry.gate.set()
    until(board, lambda answer: answer["healthy"])


def test_a_dead_registry_is_seen(registry, board):
    until(board, lambda answer: answer["healthy"])
    registry.shutdown()
    registry.server_close()
    # The check of the storage may notice first; once both have, the registry is named.
    answer = until(board, lambda answer: not answer["checks"]["registry"]["healthy"])
    assert answer["cause"].startswith("registry: no answer from 127.0.0.1:")


def test_a_registry_that_comes_back_has_its_storage_looked_at_at_once():
    config = _probe.parse_config({"storage": {"interval": 60}, "registry": {"interval": 0.1}})
    answers = {"registry": "no answer", "storage_write": "no answer"}
    board = _probe.Board([_probe.Check(name, 1.0, 90.0) for name in answers])
    stop, back = threading.Event(), threading.Event()
    for name, timing, recovered, wake in (("registry", config.registry, back, None), ("storage_write", config.storage, None, back)):
        threading.Thread(
            target=_probe.watch, args=(board, name, timing, lambda name=name: answers[name], stop, recovered, wake), daemon=True
        ).start()
    until(board, lambda answer: answer["checks"]["storage_write"]["cause"] == "no answer")
    answers["storage_write"] = answers["registry"] = None
    until(board, lambda answer: answer["healthy"], 3.0)
    stop.set()


def test_the_server_tells_only_its_health(registry, board):
    server = _probe._Server(("127.0.0.1", 0), board)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    from http.client import HTTPConnection

    def ask(method, path):
        connection = HTTPConnection("127.0.0.1", server.server_address[1], timeout=5)
        connection.request(method, path)
        response = connection.getresponse()
        return response.status, response.read()

    try:
        until(board, lambda answer: answer["healthy"])
        status, body = ask("GET", "/healthz")
        assert status == 200 and json.loads(body)["healthy"] is True
        assert ask("HEAD", "/healthz") == (200, b"")
        assert ask("GET", "/debug/vars")[0] == 404
        registry.status = 500
        until(board, lambda answer: not answer["healthy"])
        assert ask("GET", "/healthz")[0] == 503
    finally:
        server.shutdown()
        server.server_close()
