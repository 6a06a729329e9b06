# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How the edge's files become live: all or none, tested first, and nothing forgotten after a run that died."""

from __future__ import annotations

import importlib.util
import json
import socket
import stat
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[3] / "roles" / "registry_edge" / "files" / "apply.py"
specification = importlib.util.spec_from_file_location("registry_edge_apply", SOURCE)
tool = importlib.util.module_from_spec(specification)
specification.loader.exec_module(tool)


class System:
    """systemctl and nginx, as far as the tool asks them."""

    def __init__(self):
        self.commands = []
        self.enabled = self.active = self.accepts = True

    def __call__(self, arguments):
        self.commands.append(" ".join(arguments))
        if arguments[:2] == ["systemctl", "is-enabled"]:
            return (0 if self.enabled else 1), ""
        if arguments[:2] == ["systemctl", "is-active"]:
            return (0 if self.active else 3), ""
        if arguments[0] == "nginx":
            return (0, "") if self.accepts else (1, "emerg: unknown directive")
        return 0, ""

    def acts(self):
        """What it was told to do, without questions."""
        acts = [command for command in self.commands if " is-" not in command]
        self.commands.clear()
        return acts


@pytest.fixture
def system(monkeypatch):
    instance = System()
    monkeypatch.setattr(tool, "command", instance)
    return instance


@pytest.fixture
def one(tmp_path):
    for folder in ("staged", "live"):
        (tmp_path / folder).mkdir()
    (tmp_path / "staged" / "conf").write_text("conf 1")
    (tmp_path / "staged" / "key").write_text("key 1")
    return {
        "name": "edge",
        "stamp": str(tmp_path / "loaded"),
        "install": [
            [str(tmp_path / "staged" / "conf"), str(tmp_path / "live" / "conf"), "0644"],
            [str(tmp_path / "staged" / "key"), str(tmp_path / "live" / "key"), "0600"],
        ],
        "watch": [],
        "test": ["nginx", "-t", "-q"],
        "service": "nginx.service",
        "reload": "reload",
        "ports": [],
    }


def live(tmp_path):
    return {path.name: path.read_text() for path in (tmp_path / "live").iterdir()}


def run(capsys, *arguments, sets):
    status = tool.main(list(arguments), sets)
    captured = capsys.readouterr()
    return status, json.loads(captured.out) if captured.out else None, captured.err


RELOADED = ["nginx -t -q", "systemctl daemon-reload", "systemctl enable nginx.service", "systemctl reload-or-restart nginx.service"]


def test_first_second_and_changed_run(tmp_path, system, one, capsys):
    assert run(capsys, "--check", sets=[one])[1]["changed"] is True
    assert system.acts() == [] and live(tmp_path) == {}
    assert run(capsys, sets=[one])[:2][0] == 0
    assert system.acts() == RELOADED
    assert live(tmp_path) == {"conf": "conf 1", "key": "key 1"}
    assert stat.S_IMODE((tmp_path / "live" / "key").stat().st_mode) == 0o600
    assert run(capsys, sets=[one])[1] == {"changed": False, "why": []}
    assert system.acts() == []
    (tmp_path / "staged" / "conf").write_text("conf 2")
    status, answer, _error = run(capsys, sets=[one])
    assert status == 0 and answer["changed"] and answer["why"][0].endswith("live/conf differs")
    assert live(tmp_path)["conf"] == "conf 2"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["live", "loaded", "staged"]


def test_a_refused_configuration_is_taken_back(tmp_path, system, one, capsys):
    run(capsys, sets=[one])
    system.acts()
    (tmp_path / "staged" / "conf").write_text("broken")
    (tmp_path / "staged" / "key").write_text("key 2")
    system.accepts = False
    status, _answer, error = run(capsys, sets=[one])
    assert status == 1 and "unknown directive" in error and "the old one is back" in error
    assert live(tmp_path) == {"conf": "conf 1", "key": "key 1"}
    assert system.acts() == ["nginx -t -q"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["live", "loaded", "staged"]
    # It stays refused, and a good one is taken.
    assert run(capsys, sets=[one])[0] == 1
    system.accepts = True
    assert run(capsys, sets=[one])[0] == 0
    assert live(tmp_path) == {"conf": "broken", "key": "key 2"}


def test_a_refused_first_configuration_leaves_nothing(tmp_path, system, one, capsys):
    system.accepts = False
    assert run(capsys, sets=[one])[0] == 1
    assert live(tmp_path) == {}


@pytest.mark.parametrize("dies_in", ["nginx", "systemctl daemon-reload", "systemctl reload-or-restart"])
def test_a_run_that_died_is_finished_by_the_next(tmp_path, system, one, capsys, monkeypatch, dies_in):
    run(capsys, sets=[one])
    (tmp_path / "staged" / "conf").write_text("conf 2")

    def dying(arguments):
        if " ".join(arguments).startswith(dies_in):
            raise KeyboardInterrupt
        return system(arguments)

    monkeypatch.setattr(tool, "command", dying)
    with pytest.raises(KeyboardInterrupt):
        run(capsys, sets=[one])
    monkeypatch.setattr(tool, "command", system)
    system.acts()
    # Whoever looks in between sees that it is pending, and the last accepted files are still known.
    assert run(capsys, "--check", sets=[one])[1]["changed"] is True
    system.accepts = False
    assert run(capsys, sets=[one])[0] == 1
    assert live(tmp_path)["conf"] == "conf 1"
    system.accepts = True
    system.acts()
    assert run(capsys, sets=[one])[1]["changed"] is True
    assert system.acts() == RELOADED
    assert live(tmp_path)["conf"] == "conf 2"
    assert run(capsys, sets=[one])[1]["changed"] is False


@pytest.mark.parametrize("attribute", ["enabled", "active"])
def test_a_service_that_is_off_is_switched_on(tmp_path, system, one, capsys, attribute):
    run(capsys, sets=[one])
    setattr(system, attribute, False)
    system.acts()
    assert run(capsys, sets=[one])[1]["changed"] is True
    assert system.acts() == RELOADED


def test_a_mode_that_differs_is_repaired(tmp_path, system, one, capsys):
    run(capsys, sets=[one])
    (tmp_path / "live" / "key").chmod(0o644)
    assert run(capsys, sets=[one])[1]["changed"] is True
    assert stat.S_IMODE((tmp_path / "live" / "key").stat().st_mode) == 0o600


def test_a_port_on_which_nothing_listens_is_an_error_until_it_is_not(tmp_path, system, one, capsys, monkeypatch):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        one["ports"] = ["127.0.0.1:%d" % free.getsockname()[1]]
    real = tool.listening
    monkeypatch.setattr(tool, "listening", lambda address, seconds: real(address, 0.1))
    status, _answer, error = run(capsys, sets=[one])
    assert status == 1 and "does not listen on" in error
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        one["ports"] = ["127.0.0.1:%d" % server.getsockname()[1]]
        assert run(capsys, sets=[one])[1]["changed"] is True
        assert run(capsys, sets=[one])[1]["changed"] is False


def test_watched_files_restart_their_service(tmp_path, system, capsys):
    watched = tmp_path / "probe.json"
    probe = {"name": "probe", "stamp": str(tmp_path / "loaded"), "install": [], "watch": [str(watched)], "test": []}
    probe.update({"service": "wharf-probe.service", "reload": "restart", "ports": []})
    assert run(capsys, "--check", sets=[probe])[1]["why"] == ["files are missing"]
    assert run(capsys, sets=[probe])[0] == 1
    watched.write_text("1")
    assert run(capsys, sets=[probe])[0] == 0
    system.acts()
    watched.write_text("2")
    assert run(capsys, sets=[probe])[1]["changed"] is True
    assert system.acts() == ["systemctl daemon-reload", "systemctl enable wharf-probe.service", "systemctl restart wharf-probe.service"]
