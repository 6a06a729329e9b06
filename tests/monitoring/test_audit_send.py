# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Lines of an audit log on their way to a real rsyslog with the configuration of audit_log, over TLS: away, rotated, killed, and a stranger.

Processes of this machine; what the role makes of them on a host is in test_audit_log.py.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Iterator

import jinja2
import pytest
from recorded import free_port
from ruletests import CHECKOUT, programs

NAME = "registry.example.test"
PACKAGES = ("rsyslog", "rsyslog-relp", "librelp0", "libestr0", "libfastjson4", "liblognorm5")
TEMPLATE = CHECKOUT / "roles/audit_log/templates/collect.conf.j2"
SEND = "import sys; from ansible_collections.wharf.registry.plugins.module_utils._audit import send; sys.exit(send.command(sys.argv[1]))"


def certificate(folder: Path, issuer: Path | None = None, name: str = NAME) -> None:
    """Make a CA in a folder, and a certificate for a name by the CA of another folder (or this one)."""
    folder.mkdir()
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "3"]
    commands = [["openssl", "req", "-x509", *key, "-subj", "/CN=CA", "-keyout", f"{folder}/ca.key", "-out", f"{folder}/own.crt"]]
    by = issuer or folder
    commands.append(["openssl", "req", *key[:-2], "-subj", f"/CN={name}", "-keyout", f"{folder}/tls.key", "-out", f"{folder}/tls.csr"])
    sign = ["openssl", "x509", "-req", "-in", f"{folder}/tls.csr", "-CA", f"{by}/own.crt", "-CAkey", f"{by}/ca.key", "-CAcreateserial"]
    (folder / "san").write_text(f"subjectAltName=DNS:{name}")
    commands.append([*sign, "-days", "3", "-extfile", f"{folder}/san", "-out", f"{folder}/tls.crt"])
    for command in commands:
        subprocess.run(command, check=True, capture_output=True)
    (folder / "ca.crt").write_text((by / "own.crt").read_text())


class Way:
    """A log, who sends it, and who takes it in."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log, self.collected = folder / "audit.log", folder / "collected/audit.log"
        self.port = free_port()
        self.count = 0
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        for name in ("state", "collected"):
            (folder / name).mkdir()
        certificate(folder / "cluster")
        certificate(folder / "stranger")
        roots = [programs.unpacked(package) for package in PACKAGES]
        libraries = ":".join(str(path) for root in roots for path in root.glob("usr/lib/*") if path.is_dir())
        modules = ":".join(str(path) for root in roots for path in root.glob("usr/lib/*/rsyslog"))
        self.environment = {**os.environ, "LD_LIBRARY_PATH": libraries, "PYTHONPATH": str(CHECKOUT / ".cache/collections")}
        self.rsyslog = [str(roots[0] / "usr/sbin/rsyslogd"), "-M", modules]
        text = jinja2.Template(TEMPLATE.read_text()).render(
            __audit_log_collect_state=folder / "state",
            __audit_log_collected=self.collected,
            __audit_log_user="root",
            audit_log_group="root",
            audit_log_collect_port=self.port,
            audit_log_collect_peers=[NAME],
        )
        (folder / "rsyslog.conf").write_text(text.replace("/etc/rsyslog.d/wharf-audit-collect", str(folder / "cluster")))
        self.configure("send")

    def configure(self, name: str, certificates: str = "cluster", receiver: str = NAME) -> Path:
        """Write a configuration of the sender."""
        path = self.folder / f"{name}.json"
        files = {"certificate": f"{self.folder}/{certificates}/tls.crt", "privatekey": f"{self.folder}/{certificates}/tls.key"}
        content = {
            "log": str(self.log),
            "state": f"{self.folder}/{name}.position",
            "host": "127.0.0.1",
            "port": self.port,
            "name": receiver,
        }
        path.write_text(json.dumps({**content, "ca": f"{self.folder}/cluster/ca.crt", **files}))
        return path

    def start(self, *names: str) -> None:
        """Start who takes in (``collect``) or who sends (any other name)."""
        for name in names:
            command = [sys.executable, "-c", SEND, str(self.folder / f"{name}.json")]
            if name == "collect":
                command = [*self.rsyslog, "-n", "-i", str(self.folder / "pid"), "-f", str(self.folder / "rsyslog.conf")]
            with (self.folder / f"{name}.out").open("ab") as output:
                self.running[name] = subprocess.Popen(command, env=self.environment, stdout=output, stderr=output)

    def stop(self, *names: str, kill: bool = False) -> None:
        """End them."""
        for name in names:
            process = self.running.pop(name)
            process.kill() if kill else process.terminate()
            process.wait(30)

    def write(self, lines: int) -> None:
        """Write lines as the service does."""
        with self.log.open("ab") as handle:
            for _line in range(lines):
                record = {
                    "time": "2026-11-30T07:10:00.123Z",
                    "node": "node1",
                    "request_id": str(self.count),
                    "client": 'a "b" \\u2603 %d ' + "x" * 250,
                }
                handle.write(json.dumps(record, separators=(",", ":")).encode() + b"\n")
                self.count += 1

    def rotate(self) -> None:
        """Rotate it as logrotate does."""
        for number in (2, 1):
            if (old := self.log.with_name(f"audit.log.{number}")).exists():
                old.rename(self.log.with_name(f"audit.log.{number + 1}"))
        self.log.rename(self.log.with_name("audit.log.1"))
        self.log.touch()

    def arrived(self) -> Counter[str]:
        """The requests that have arrived, and how often."""
        if not self.collected.exists():
            return Counter()
        whole = self.collected.read_text().rpartition("\n")[0]
        return Counter(json.loads(line)["request_id"] for line in whole.splitlines())

    def wait(self, seconds: float = 60) -> Counter[str]:
        """Wait until all has arrived; return it."""
        end = time.monotonic() + seconds
        while len(found := self.arrived()) < self.count and time.monotonic() < end:
            time.sleep(0.2)
        told = (self.folder / "send.out").read_text()[-500:] + (self.folder / "collect.out").read_text()[-500:]
        assert len(found) == self.count, f"{self.count - len(found)} of {self.count} lines have not arrived: {told}"
        return found


@pytest.fixture
def way(tmp_path: Path) -> Iterator[Way]:
    """Both ends."""
    found = Way(tmp_path)
    try:
        yield found
    finally:
        found.stop(*list(found.running), kill=True)


def test_each_line_arrives_as_it_is(way: Way) -> None:
    way.write(30)
    way.start("collect", "send")
    assert set(way.wait().values()) == {1}
    way.write(5)
    way.rotate()
    way.write(5)
    assert set(way.wait().values()) == {1}
    written = b"".join(way.log.with_name(name).read_bytes() for name in ("audit.log.1", "audit.log"))
    assert way.collected.read_bytes() == written
    # An end in peace and a new begin repeat nothing.
    way.stop("send")
    way.write(5)
    way.start("send")
    assert set(way.wait().values()) == {1}


def test_nothing_is_lost_while_the_receiver_is_away(way: Way) -> None:
    way.start("collect", "send")
    way.write(20)
    way.wait()
    way.stop("collect")
    way.write(300)
    time.sleep(2)
    way.rotate()
    way.write(50)
    way.stop("send", kill=True)
    way.rotate()
    way.write(50)
    way.start("send")
    time.sleep(1)
    way.start("collect")
    found = way.wait()
    assert all(found[str(number)] == 1 for number in range(20)), "what was confirmed came again"


def test_kills_lose_nothing(way: Way, capsys: pytest.CaptureFixture[str]) -> None:
    way.start("collect", "send")
    for kill in (["send"], ["collect"], ["send", "collect"], ["collect"], ["send"]):
        way.write(400)
        time.sleep(0.3)
        way.stop(*kill, kill=True)
        way.start(*kill)
    found = way.wait(90)
    with capsys.disabled():
        print(f"audit_log: {way.count} lines sent, {found.total() - way.count} again after five kills")


@pytest.mark.parametrize(
    ("name", "certificates", "receiver", "told"),
    [("stranger", "stranger", NAME, "trying again"), ("mistaken", "cluster", "other.example.test", "certificate verify failed")],
)
def test_strangers_get_and_give_nothing(way: Way, name: str, certificates: str, receiver: str, told: str) -> None:
    """Who has no certificate of the CA sends nothing, and to who is not the one that was meant nothing is sent."""
    way.write(10)
    way.configure(name, certificates, receiver)
    way.start("collect", name)
    end = time.monotonic() + 20
    while told not in (said := (way.folder / f"{name}.out").read_text()) and time.monotonic() < end:
        time.sleep(0.2)
    assert told in said
    assert way.arrived() == Counter()
    way.start("send")
    way.wait()
