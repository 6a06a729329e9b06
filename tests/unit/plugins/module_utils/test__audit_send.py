# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the sender of audit lines says, and what it takes for an answer. With a real receiver: tests/monitoring/test_audit_send.py."""

from __future__ import annotations

import json
import socket
import ssl

import pytest

from ansible_collections.wharf.registry.plugins.module_utils import _tool_config
from ansible_collections.wharf.registry.plugins.module_utils._audit import send

CONFIG = {"log": "/l", "state": "/s", "host": "h", "port": 20514, "name": "n", "ca": "/ca", "certificate": "/c", "privatekey": "/k"}
OPENED = b"1 rsp 20 200 OK\nrelp_version=\n"


@pytest.fixture
def receiver(monkeypatch):
    """Connect to a receiver that answers what a test has it answer; TLS is left out."""
    ours, theirs = socket.socketpair()
    ours.settimeout(5)
    context = ssl.create_default_context()
    monkeypatch.setattr(send.ssl, "create_default_context", lambda **_: context)
    monkeypatch.setattr(send.socket, "create_connection", lambda *_: ours)
    monkeypatch.setattr(ssl.SSLContext, "load_cert_chain", lambda *_: None)
    monkeypatch.setattr(ssl.SSLContext, "wrap_socket", lambda _self, plain, **_: plain)

    def connect(*answers: bytes):
        theirs.sendall(b"".join(answers))
        return send.Receiver(send.Config(**CONFIG)), theirs

    yield connect
    ours.close()
    theirs.close()


def test_lines_are_frames_with_a_syslog_header(receiver):
    found, theirs = receiver(OPENED, b"2 rsp 6 200 OK\n", b"3 rsp 6 200 OK\n")
    found.take([b'{"time":"2026-11-30T07:10:00.123Z","node":"node 1"}', b"no json"])
    said = theirs.recv(65536)
    assert said.startswith(b"1 open 50 relp_version=0\n")
    text = b'<134>1 2026-11-30T07:10:00.123Z node-1 wharf-audit - - - {"time":"2026-11-30T07:10:00.123Z","node":"node 1"}'
    assert b"\n2 syslog %d %s\n" % (len(text), text) in said
    assert said.endswith(
        b"\n3 syslog 39 <134>1 - - wharf-audit - - - no json\n".replace(b"39", b"%d" % len(b"<134>1 - - wharf-audit - - - no json"))
    )


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (b"2 rsp 9 500 error\n", "answers"),
        (b"7 rsp 6 200 OK\n", "answers"),
        (b"0 serverclose 0\n", "closes"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "does not speak RELP"),
        (b"2 rsp 999999999999 200\n", "does not speak RELP"),
        (b"2 rsp 6 200 OK and more\n", "does not speak RELP"),
        (b"x" * 100, "does not speak RELP"),
    ],
)
def test_what_is_no_confirmation(receiver, answer, told):
    found, _theirs = receiver(OPENED, answer)
    with pytest.raises(send.SendError, match=told):
        found.take([b"{}"])


def test_a_receiver_that_goes(receiver):
    found, theirs = receiver(OPENED)
    theirs.shutdown(socket.SHUT_WR)
    with pytest.raises(send.SendError, match="closed the connection"):
        found.take([b"{}"])


@pytest.mark.parametrize("content", ["", "[]", "{}", json.dumps({**CONFIG, "port": "x"}), json.dumps({**CONFIG, "more": 1})])
def test_a_configuration_that_is_none(tmp_path, content):
    (tmp_path / "c.json").write_text(content)
    with pytest.raises(_tool_config.ConfigError, match="c.json"):
        _tool_config.load(str(tmp_path / "c.json"), send.parse_config)
    assert send.command(str(tmp_path / "c.json")) == 2
