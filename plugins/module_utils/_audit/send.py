# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Send the lines of the audit log to another host, over RELP with TLS. Private to the collection.

The log itself is the queue: the place up to which it was sent is kept in a file of its own, and moves once the receiver has confirmed every line
before it. So a kill at any moment loses no line and may send some again. (omrelp of rsyslog, which was tried, takes a line out of its queue
when it has *sent* it: what was not confirmed is lost when it is killed.)

RELP: https://www.rsyslog.com/doc/relp.html. A frame is ``NUMBER COMMAND LENGTH[ DATA]`` and a line feed; the answer has its number.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import ssl
import sys
import time
from typing import Any, Callable, Dict, List, NamedTuple, Optional

from .. import _files, _tool_config
from .._daemon import told_to_end
from . import follow

#: Seconds that the receiver may take to answer, and between two attempts.
PATIENCE = 30.0
PAUSES = (1.0, 2.0, 5.0, 10.0)
#: So many lines may be under way without an answer.
WINDOW = 64
_OPEN = b"relp_version=0\nrelp_software=wharf\ncommands=syslog"
#: Facility local0, severity info, the form of RFC 5424.
_MESSAGE = b"<134>1 %s %s wharf-audit - - - %s"
_MAX_ANSWER = 65536
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?Z")


class SendError(Exception):
    """The receiver does not take lines now."""


class Config(NamedTuple):
    """What ``/etc/wharf/audit-forward.json`` says."""

    log: str
    state: str
    host: str
    port: int
    name: str
    ca: str
    certificate: str
    privatekey: str


def parse_config(content: object) -> Config:
    """Check the configuration. Raises ConfigError, whose message names the key."""
    # Older releases of ansible-core make a text of the number.
    values = _tool_config.checked(content, {key: (int, str) if key == "port" else str for key in Config._fields})
    if not str(values["port"]).isdigit():
        raise _tool_config.ConfigError("port: %r is no number" % values["port"])
    return Config(**{**values, "port": int(values["port"])})


class Receiver:
    """A connection to the receiver."""

    def __init__(self, config: Config) -> None:
        context = ssl.create_default_context(cafile=config.ca)
        context.load_cert_chain(config.certificate, config.privatekey)
        plain = socket.create_connection((config.host, config.port), PATIENCE)
        try:
            self._socket = context.wrap_socket(plain, server_hostname=config.name)
        except BaseException:
            plain.close()
            raise
        self._unread = b""
        self._number = 0
        self._waiting: List[int] = []
        self._send(b"open", _OPEN)
        self._drain(0)

    def take(self, lines: List[bytes]) -> None:
        """Send lines; return when the receiver has confirmed all of them. Raises SendError or OSError."""
        for line in lines:
            self._send(b"syslog", _message(line))
            self._drain(WINDOW)
        self._drain(0)

    def _send(self, command: bytes, data: bytes) -> None:
        self._number += 1
        self._waiting.append(self._number)
        self._socket.sendall(b"%d %s %d %s\n" % (self._number, command, len(data), data))

    def _drain(self, limit: int) -> None:
        """Take answers until no more than so many are missing."""
        while len(self._waiting) > limit:
            number, command, data = self._frame()
            if command == b"serverclose":
                raise SendError("the receiver closes")
            if command != b"rsp" or number not in self._waiting or not data.startswith(b"200"):
                raise SendError("the receiver answers %r" % data[:100].decode("utf-8", "replace"))
            self._waiting.remove(number)

    def _frame(self) -> Any:
        head = self._until(b" ")
        command = self._until(b" ")
        length = b""
        while True:
            byte = self._bytes(1)
            if not byte.isdigit():
                break
            length += byte
        if not head.isdigit() or not length or int(length) > _MAX_ANSWER:
            raise SendError("the receiver does not speak RELP")
        data = b""
        if byte == b" ":
            data = self._bytes(int(length))
            byte = self._bytes(1)
        if byte != b"\n":
            raise SendError("the receiver does not speak RELP")
        return int(head), command, data

    def _until(self, mark: bytes) -> bytes:
        found = b""
        while len(found) < 32:
            byte = self._bytes(1)
            if byte == mark:
                return found
            found += byte
        raise SendError("the receiver does not speak RELP")

    def _bytes(self, count: int) -> bytes:
        while len(self._unread) < count:
            more = self._socket.recv(4096)
            if not more:
                raise SendError("the receiver has closed the connection")
            self._unread += more
        found, self._unread = self._unread[:count], self._unread[count:]
        return found

    def close(self) -> None:
        """Close the connection."""
        with contextlib.suppress(OSError):
            self._socket.close()


def _message(line: bytes) -> bytes:
    try:
        record = json.loads(line.decode("utf-8"))
        when, node = str(record.get("time", "-")), str(record.get("node", "-"))
    except (ValueError, AttributeError):
        when, node = "-", "-"
    when = when if _TIME.fullmatch(when) else "-"
    name = "".join(character if character.isalnum() or character in ".-_" else "-" for character in node)[:255] or "-"
    return _MESSAGE % (when.encode("ascii", "replace"), name.encode("ascii", "replace"), line)


def _saved(path: str) -> Optional[Dict[str, Any]]:
    content = _files.read_if_there(path)
    position = json.loads(content.decode("utf-8")) if content else None
    return position if isinstance(position, dict) and position else None


def run(config: Config, ended: Callable[[], bool], say: Callable[[str], None]) -> None:
    """Send until ``ended``; what cannot be sent now is tried again, from the first line that was not confirmed."""
    receiver: Optional[Receiver] = None
    source = follow.Source(config.log, _saved(config.state))
    failures = 0
    told = ""
    while not ended():
        try:
            if receiver is None:
                receiver = Receiver(config)
            chunk = source.read()
            if chunk:
                receiver.take(chunk.split(b"\n")[:-1])
                _files.write_atomically(config.state, json.dumps(source.position).encode("ascii"), mode=0o600)
            if failures:
                say("it takes lines again")
            failures, told = 0, ""
            if not chunk:
                time.sleep(follow.PAUSE)
        except (SendError, OSError) as error:
            # ssl.SSLError is an OSError.
            if str(error) != told:
                say("%s:%d: %s; trying again" % (config.host, config.port, error))
            told = str(error)
            if receiver is not None:
                receiver.close()
                receiver = None
            source.close()
            source = follow.Source(config.log, _saved(config.state))
            pause = time.monotonic() + PAUSES[min(failures, len(PAUSES) - 1)]
            failures += 1
            while not ended() and time.monotonic() < pause:
                time.sleep(0.2)
        if source.warning:
            say(source.warning)
            source.warning = ""
    if receiver is not None:
        receiver.close()


def command(path: str) -> int:
    """Run the daemon with a configuration file; return its exit status."""

    def say(text: str) -> None:
        sys.stderr.write("wharf audit: %s\n" % text)

    try:
        config = _tool_config.load(path, parse_config)
    except _tool_config.ConfigError as error:
        say(str(error))
        return 2
    for needed in (config.ca, config.certificate, config.privatekey):
        if not os.access(needed, os.R_OK):
            say("%s cannot be read" % needed)
            return 2
    run(config, told_to_end(), say)
    return 0
