# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tests of the balancer's checker: who gets requests, how nginx is kept in step, how long a check may take."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import ssl
import threading
import time

import pytest

from ansible_collections.wharf.registry.plugins.module_utils import _checker
from ansible_collections.wharf.registry.plugins.module_utils._checker import (
    Answer,
    Checker,
    ConfigError,
    Nginx,
    Node,
    Pool,
    Prober,
    parse_config,
    read_drained,
    read_serving,
    render_upstream,
)

NAMES = ["n1", "n2", "n3"]


# ------------------------------------------------------------------------------------------------------------------- pool


@pytest.mark.parametrize(
    ("fall", "rise", "observed", "healthy"),
    [
        (1, 2, [], True),
        (1, 2, [False], False),
        (1, 2, [False, True], False),
        (1, 2, [False, True, True], True),
        (1, 2, [False, True, False, True], False),
        (2, 1, [False], True),
        (2, 1, [False, True, False], True),
        (2, 1, [False, False], False),
        (2, 1, [False, False, True], True),
    ],
)
def test_health_needs_fall_failures_and_rise_successes_in_a_row(fall, rise, observed, healthy):
    pool = Pool(["n1"], fall=fall, rise=rise, healthy=["n1"])
    for good in observed:
        pool.observe("n1", good)
    assert pool.is_healthy("n1") is healthy


def test_observe_tells_only_changes():
    pool = Pool(["n1"], fall=1, rise=2, healthy=["n1"])
    assert [pool.observe("n1", good) for good in (True, False, False, True, True, True)] == [None, False, None, None, True, None]


@pytest.mark.parametrize(
    ("healthy", "drained", "serving"),
    [
        (["n1", "n2", "n3"], [], ["n1", "n2", "n3"]),
        (["n1", "n3"], [], ["n1", "n3"]),
        (["n1", "n2", "n3"], ["n2"], ["n1", "n3"]),
        (["n1", "n2"], ["n2"], ["n1"]),
        (["n2"], ["n2"], ["n2"]),  # a drained node is better than none
        ([], [], ["n1", "n2", "n3"]),  # nobody is healthy: clients get the nodes' own error
        ([], ["n2"], ["n1", "n3"]),
        ([], ["n1", "n2", "n3"], ["n1", "n2", "n3"]),
        (["n1", "n2", "n3"], ["n1", "n2", "n3"], ["n1", "n2", "n3"]),
    ],
)
def test_somebody_always_serves(healthy, drained, serving):
    pool = Pool(NAMES, fall=1, rise=1, healthy=healthy)
    pool.drain(dict.fromkeys(drained, 100.0), now=0.0)
    assert pool.serving() == serving


def test_drains_expire_and_unknown_names_do_not_count():
    pool = Pool(NAMES, fall=1, rise=1, healthy=NAMES)
    pool.drain({"n1": 100.0, "gone": 100.0}, now=99.0)
    assert pool.serving() == ["n2", "n3"]
    pool.drain({"n1": 100.0}, now=100.0)
    assert pool.serving() == NAMES


# ------------------------------------------------------------------------------------------------------------- configuration


def settings(tmp_path, **changes):
    return {
        "nodes": [{"name": name, "address": f"192.0.2.{number}", "server_name": "reg"} for number, name in enumerate(NAMES, 1)],
        "upstream_port": 5444,
        "upstream_file": str(tmp_path / "upstream.conf"),
        "state_dir": str(tmp_path),
        "pid_file": str(tmp_path / "no.pid"),
        "parameters": "max_fails=0",
        **changes,
    }


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"nodes": []}, "nodes must not be empty"),
        ({"nodes": [{"name": "n1"}]}, "missing key 'address'"),
        ({"nodes": [{"name": "a", "address": "x"}, {"name": "a", "address": "y"}]}, "same name"),
        ({"intervall": 1}, "unknown key 'intervall'"),
        ({"interval": 0}, "above 0"),
        ({"rise": 0}, "at least 1"),
        ({"upstream_port": "many"}, "many"),
    ],
)
def test_bad_configuration_is_refused(tmp_path, changes, message):
    with pytest.raises(ConfigError, match=message):
        parse_config(settings(tmp_path, **changes))


def test_upstream_file_and_back(tmp_path):
    config = parse_config(settings(tmp_path))
    text = render_upstream(config, ["n1", "n3"])
    assert "\nserver 192.0.2.1:5444 max_fails=0;  # n1\n" in text
    assert "\n# out: server 192.0.2.2:5444 max_fails=0;  # n2\n" in text
    assert read_serving(text) == ["n1", "n3"]
    assert read_serving("server 192.0.2.1:80;\n") is None


def test_addresses_of_version_six_are_bracketed(tmp_path):
    config = parse_config(settings(tmp_path, nodes=[{"name": "n1", "address": "2001:db8::1"}], parameters=""))
    assert "server [2001:db8::1]:5444;" in render_upstream(config, ["n1"])


# -------------------------------------------------------------------------------------------------------------------- daemon


class Commands:
    """Stands in for running commands: notes them, and fails those that begin with a word in ``failing``."""

    def __init__(self):
        self.lines, self.failing = [], set()

    def __call__(self, command):
        self.lines.append(" ".join(command))
        return (1, "no") if command[0] in self.failing else (0, "")

    def take(self):
        lines, self.lines = self.lines, []
        return lines


@pytest.fixture(name="commands")
def fixture_commands(monkeypatch):
    monkeypatch.setattr(_checker, "CONFIRM", 0.0)
    monkeypatch.setattr(_checker, "CUT_ROUNDS", (0.0,))
    monkeypatch.setattr(_checker, "RETRY", 0.0)
    return Commands()


def start(tmp_path, commands, log, **changes):
    config = parse_config(settings(tmp_path, **changes))
    checker = Checker(config, Nginx(config, log.append, commands), log.append)
    return checker, tmp_path / "upstream.conf"


def test_nothing_is_reloaded_while_nothing_differs(tmp_path, commands):
    log = []
    config = parse_config(settings(tmp_path))
    (tmp_path / "upstream.conf").write_text(render_upstream(config, NAMES))
    checker, _file = start(tmp_path, commands, log)
    for name in NAMES:
        checker.take(name, Answer(True))
    checker.step()
    assert (commands.lines, log) == ([], [])


def test_nothing_is_decided_before_every_node_was_asked(tmp_path, commands):
    checker, file = start(tmp_path, commands, [])
    checker.take("n1", Answer(False, "refused", stuck=True))
    checker.step()
    assert not file.exists()
    checker.take("n2", Answer(True))
    checker.take("n3", Answer(True))
    checker.step()
    assert read_serving(file.read_text()) == ["n2", "n3"]


def test_a_restarted_checker_does_not_bring_a_dead_node_back(tmp_path, commands):
    config = parse_config(settings(tmp_path))
    (tmp_path / "upstream.conf").write_text(render_upstream(config, ["n1", "n3"]))
    checker, file = start(tmp_path, commands, [])
    checker.take("n1", Answer(True))
    checker.take("n2", Answer(True))
    checker.take("n3", Answer(True))
    checker.step()
    assert read_serving(file.read_text()) == ["n1", "n3"]
    checker.take("n2", Answer(True))
    checker.step()
    assert read_serving(file.read_text()) == NAMES


def test_a_new_node_starts_outside_and_a_removed_one_is_gone(tmp_path, commands):
    config = parse_config(settings(tmp_path))
    (tmp_path / "upstream.conf").write_text(render_upstream(config, NAMES))
    nodes = [{"name": name, "address": f"192.0.2.{number}"} for number, name in ((2, "n2"), (3, "n3"), (4, "n4"))]
    checker, file = start(tmp_path, commands, [], nodes=nodes)
    for name in ("n2", "n3", "n4"):
        checker.take(name, Answer(True))
    checker.step()
    assert read_serving(file.read_text()) == ["n2", "n3"]
    assert "n1" not in file.read_text()
    checker.take("n4", Answer(True))
    checker.step()
    assert read_serving(file.read_text()) == ["n2", "n3", "n4"]


def serving_all(tmp_path, commands, log, **changes):
    checker, file = start(tmp_path, commands, log, **changes)
    for name in NAMES:
        checker.take(name, Answer(True))
    checker.step()
    checker.step()
    commands.take()
    return checker, file


def test_a_stuck_node_is_taken_out_and_cut_after_the_reload(tmp_path, commands):
    checker, file = serving_all(tmp_path, commands, [])
    checker.take("n2", Answer(False, "no answer", stuck=True))
    assert commands.take() == []
    checker.step()
    assert commands.take() == ["systemctl reload nginx", "ss -H -K -tn dst 192.0.2.2:5444", "nginx -t"]
    assert read_serving(file.read_text()) == ["n1", "n3"]


def test_in_http_mode_it_is_cut_before_too(tmp_path, commands):
    checker, _file = serving_all(tmp_path, commands, [], cut_first=True)
    checker.take("n2", Answer(False, "no answer", stuck=True))
    assert commands.take() == ["ss -H -K -tn dst 192.0.2.2:5444"]


def test_in_stream_mode_an_edge_that_answers_gets_time_to_ask_others(tmp_path, commands, monkeypatch):
    checker, file = serving_all(tmp_path, commands, [])
    checker.take("n2", Answer(False, "status 503: registry", stuck=True, edge=True))
    checker.step()
    assert commands.take() == ["systemctl reload nginx", "nginx -t"]
    assert read_serving(file.read_text()) == ["n1", "n3"]
    now = time.monotonic()
    for seconds, commands_run in ((19, []), (21, ["ss -H -K -tn dst 192.0.2.2:5444"])):
        monkeypatch.setattr(_checker.time, "monotonic", lambda seconds=seconds: now + seconds)
        for name in NAMES:
            checker.take(name, Answer(name != "n2", stuck=name == "n2", edge=True))
        checker.step()
        assert commands.take() == commands_run


def test_a_node_that_answers_for_itself_is_taken_out_but_not_cut(tmp_path, commands):
    checker, _file = serving_all(tmp_path, commands, [], cut_first=True)
    checker.take("n2", Answer(False, "status 503: storage"))
    checker.step()
    assert commands.take() == ["systemctl reload nginx", "nginx -t"]


def test_when_nobody_is_healthy_all_stay_and_nothing_is_cut(tmp_path, commands):
    checker, file = serving_all(tmp_path, commands, [])
    for name in NAMES:
        checker.take(name, Answer(False, "no answer", stuck=True))
    checker.step()
    assert commands.take() == []
    assert read_serving(file.read_text()) == NAMES


def test_a_refused_configuration_is_taken_back_and_tried_again(tmp_path, commands):
    log = []
    checker, file = serving_all(tmp_path, commands, log)
    commands.failing.add("nginx")
    checker.take("n2", Answer(False, "status 500"))
    checker.step()
    assert read_serving(file.read_text()) == NAMES
    assert "nginx refuses its configuration, the old list of nodes stays: no" in log
    assert json.loads((tmp_path / "status.json").read_text())["applied"] is False
    commands.failing.clear()
    checker.step()
    checker.step()
    assert read_serving(file.read_text()) == ["n1", "n3"]
    assert json.loads((tmp_path / "status.json").read_text())["applied"] is True


def test_a_checker_that_was_killed_before_the_reload_reloads_when_it_starts(tmp_path, commands):
    config = parse_config(settings(tmp_path))
    (tmp_path / "upstream.conf").write_text(render_upstream(config, NAMES))
    (tmp_path / "reload-pending").write_text("")
    checker, _file = start(tmp_path, commands, [])
    for name in NAMES:
        checker.take(name, Answer(True))
    checker.step()
    assert commands.take() == ["systemctl reload nginx", "nginx -t"]
    assert not (tmp_path / "reload-pending").exists()


def test_drained_nodes_leave_are_not_cut_and_come_back(tmp_path, commands):
    log = []
    checker, file = serving_all(tmp_path, commands, log)
    (tmp_path / "drained").mkdir()
    (tmp_path / "drained" / "n2").write_text(json.dumps({"until": time.time() + 60}))
    checker.step()
    assert read_serving(file.read_text()) == ["n1", "n3"]
    checker.take("n2", Answer(False, "no answer", stuck=True))
    checker.step()
    assert not [line for line in commands.take() if line.startswith("ss")]
    checker.take("n2", Answer(True))
    checker.take("n2", Answer(True))
    (tmp_path / "drained" / "n2").write_text(json.dumps({"until": time.time() - 1}))
    checker.step()
    assert read_serving(file.read_text()) == NAMES
    assert "node=n2 drain ended" in log
    assert read_drained(str(tmp_path)) == {}


def test_a_check_that_never_comes_back_counts_as_failed(tmp_path, commands):
    checker, file = serving_all(tmp_path, commands, [])
    checker._heard["n2"] -= 10
    checker.step()
    assert read_serving(file.read_text()) == ["n1", "n3"]


def test_garbage_in_the_state_directory_is_ignored(tmp_path):
    (tmp_path / "drained").mkdir()
    for name, text in (("n1", "garbage"), ("n2", "[]"), ("n3", '{"until": "soon"}'), ("a%2Fb", '{"until": 5}')):
        (tmp_path / "drained" / name).write_text(text)
    assert read_drained(str(tmp_path)) == {"a/b": 5.0}


# --------------------------------------------------------------------------------------------------------- drain and restore


@pytest.fixture(name="running")
def fixture_running(tmp_path, commands, monkeypatch):
    """A checker that takes its steps in a thread, without asking any node."""
    monkeypatch.setattr(_checker, "run_command", lambda command: (0, ""))
    checker, file = serving_all(tmp_path, commands, [])
    (tmp_path / "balancer.json").write_text(json.dumps(settings(tmp_path)))
    (tmp_path / "drained").mkdir()
    stop = threading.Event()

    def work():
        with _checker._only_one(checker.config) as alone:
            assert alone
            while not stop.wait(0.02):
                for name in NAMES:
                    checker.take(name, Answer(checker.wanted.get(name, True), "sick"))
                checker.step()

    checker.wanted = {}
    thread = threading.Thread(target=work)
    thread.start()
    yield checker, file, str(tmp_path / "balancer.json")
    stop.set()
    thread.join()


def wait_for_serving(checker, names):
    """Wait until the checker tells that these nodes get requests and no others, on however busy a machine."""
    end = time.monotonic() + 20
    while True:
        state = _checker._state(checker.config)
        if state["applied"] and [name for name in NAMES if state["nodes"][name]["serving"]] == names:
            return
        assert time.monotonic() < end, state
        time.sleep(0.02)


def test_drain_and_restore(running, capsys):
    _checker_object, file, config = running
    assert _checker.drain(config, "n2", seconds=60, wait=5) == 0
    assert read_serving(file.read_text()) == ["n1", "n3"]
    assert _checker.restore(config, "n2", wait=5) == 0
    assert read_serving(file.read_text()) == NAMES
    assert capsys.readouterr().out == "n2 is drained\nn2 is back\n"


def test_the_last_healthy_node_is_not_drained(running, capsys):
    checker, file, config = running
    checker.wanted = {"n1": False, "n3": False}
    wait_for_serving(checker, ["n2"])
    assert _checker.drain(config, "n2", seconds=60, wait=1) == 1
    assert "n2 cannot be drained: no other node is healthy (n1: sick; n3: sick)" in capsys.readouterr().err
    assert read_drained(checker.config.state_dir) == {}
    assert read_serving(file.read_text()) == ["n2"]


def test_restore_says_why_a_node_does_not_come_back(running, capsys):
    checker, _file, config = running
    checker.wanted = {"n2": False}
    wait_for_serving(checker, ["n1", "n3"])
    assert _checker.restore(config, "n2", wait=0.5) == 1
    assert "n2 is not back after 0.5 s: sick" in capsys.readouterr().err


def test_unknown_nodes_have_an_exit_status_of_their_own(running, capsys):
    assert _checker.drain(running[2], "n9", seconds=1, wait=1) == _checker.UNKNOWN_NODE
    assert "'n9' is no node of this balancer; there are: n1, n2, n3" in capsys.readouterr().err


def test_without_a_checker_drain_says_so(tmp_path, capsys):
    (tmp_path / "balancer.json").write_text(json.dumps(settings(tmp_path)))
    assert _checker.restore(str(tmp_path / "balancer.json"), "n1", wait=0.1) == 1
    assert "no checker runs here" in capsys.readouterr().err


# -------------------------------------------------------------------------------------------------------------------- prober


@pytest.fixture(name="listener")
def fixture_listener():
    listener = socket.create_server(("127.0.0.1", 0))
    yield listener
    listener.close()


def plain_prober(listener, timeout=0.3):
    """A prober whose TLS is left out, to test everything else without certificates."""

    class Plain:
        def wrap_socket(self, raw, server_hostname):
            return raw

    return Prober(Node("n1", "127.0.0.1", listener.getsockname()[1], "reg"), "/healthz", timeout, Plain())


def serve(listener, *conversations):
    """Answer connection after connection: each conversation is a list of the answers on that connection."""

    def work():
        for answers in conversations:
            try:
                connection, _address = listener.accept()
            except OSError:
                return
            with connection:
                for answer in answers:
                    if not connection.recv(4096):
                        break
                    for part in answer if isinstance(answer, list) else [answer]:
                        with contextlib.suppress(OSError):
                            connection.sendall(part)
                        if isinstance(answer, list):
                            time.sleep(0.1)

    threading.Thread(target=work, daemon=True).start()


OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"


def test_good_answers_reuse_the_connection_and_survive_its_end(listener):
    serve(listener, [OK, OK], [OK])
    prober = plain_prober(listener, timeout=2)
    assert [prober.ask() for _count in range(3)] == [Answer(True)] * 3


def test_a_frozen_process_that_accepts_but_never_answers_costs_the_timeout(listener):
    context = ssl.create_default_context()
    prober = Prober(Node("n1", "127.0.0.1", listener.getsockname()[1], "reg"), "/healthz", 0.3, context)
    begin = time.monotonic()
    assert prober.ask() == Answer(False, "no answer within 0.3 s", stuck=True)
    assert time.monotonic() - begin < 1.0


def test_an_answer_that_drips_costs_the_timeout(listener):
    serve(listener, [[b"HTTP/1.1 200 OK\r\n"] + [b"X-Drip: 1\r\n"] * 30])
    begin = time.monotonic()
    assert plain_prober(listener).ask().good is False
    assert time.monotonic() - begin < 1.0


def test_a_refused_connection_is_stuck(listener):
    prober = plain_prober(listener)
    listener.close()
    answer = prober.ask()
    assert (answer.good, answer.stuck) == (False, True)
    assert "refused" in answer.reason


@pytest.mark.parametrize(
    ("body", "answer"),
    [
        (b"{}", Answer(False, "status 503", edge=True)),
        (b'{"cause": "disk full", "checks": {"registry": {"healthy": true}}}', Answer(False, "status 503: disk full", edge=True)),
        (b'{"cause": "hangs", "checks": {"registry": {"healthy": false}}}', Answer(False, "status 503: hangs", stuck=True, edge=True)),
        (b"<html>", Answer(False, "status 503", edge=True)),
    ],
)
def test_the_cause_of_a_bad_answer(listener, body, answer):
    serve(listener, [b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)])
    assert plain_prober(listener, timeout=2).ask() == answer


def test_nonsense_is_no_answer(listener):
    serve(listener, [b"SSH-2.0-OpenSSH\r\n\r\n"])
    assert "no HTTP answer" in plain_prober(listener, timeout=2).ask().reason


def test_two_checkers_cannot_share_a_state_directory(tmp_path):
    config = parse_config(settings(tmp_path))
    with _checker._only_one(config) as first, _checker._only_one(config) as second:
        assert (first, second) == (True, False)
    assert os.path.exists(tmp_path / "lock")
