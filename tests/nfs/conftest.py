# Copyright (c) 2026 wharf.registry contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A real NFS server and three real clients: machines with kernels of their own, set up by the role as an operator does."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Callable, Iterator

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(CHECKOUT / "tests" / "lab"))

import images  # noqa: E402
import machines  # noqa: E402
from client import Registry  # noqa: E402
from settings import MACHINES  # noqa: E402

NODES = ["machine1", "machine2", "machine3"]
SERVER = "nfs1"
PATH = "/srv/wharf/nfs"
PROBE_ONCE = "python3 /usr/local/lib/wharf/wharf.pyz nfs-probe --once"

CONFIG = {
    "version": "0.1",
    "storage": {"filesystem": {"rootdirectory": f"{PATH}/registry"}, "delete": {"enabled": True}},
    "http": {"addr": "0.0.0.0:5000", "secret": "the same on all nodes of this test"},
    "log": {"level": "warn"},
}
# As an engine does, it does not start where the directory is not there, and is started again by nobody's hand.
UNIT = f"""\
[Unit]
After=network.target
StartLimitIntervalSec=0
[Service]
User=65532
Group=65532
Environment=OTEL_TRACES_EXPORTER=none
ExecStartPre=/usr/bin/test -d {PATH}/registry
ExecStart=/usr/local/bin/registry serve /etc/registry.json
Restart=always
RestartSec=1
[Install]
WantedBy=multi-user.target
"""


class Storage:
    """The machines, and what is done to them."""

    def ssh(self, name: str, command: str, *, check: bool = True, timeout: float = 60) -> str:
        """What a command on a machine prints."""
        return machines.ssh(name, command, check=check, timeout=timeout).stdout

    def code(self, name: str, command: str) -> int:
        """The exit code of a command on a machine."""
        return machines.ssh(name, command, check=False).returncode

    def once(self, name: str) -> tuple[int, str]:
        """Try the storage of a node as its start does; return exit code and what is told."""
        result = machines.ssh(name, PROBE_ONCE, check=False)
        return result.returncode, result.stdout + result.stderr

    def play(self, *arguments: str) -> tuple[int, str]:
        """Run the role by the playbook; return exit code and output."""
        environment = {
            **os.environ,
            "ANSIBLE_COLLECTIONS_PATH": str(CHECKOUT / ".cache/collections"),
            "ANSIBLE_INJECT_FACT_VARS": "false",
            "ANSIBLE_NOCOLOR": "1",
            "ANSIBLE_PIPELINING": "true",
        }
        command = ["ansible-playbook", "-i", "tests/nfs/hosts.yml", "tests/nfs/storage.yml", *arguments]
        result = subprocess.run(command, cwd=CHECKOUT, env=environment, capture_output=True, text=True, timeout=400, check=False)
        return result.returncode, re.sub(r"\s+", " ", result.stdout + result.stderr)

    def state(self, name: str) -> dict[str, Any]:
        """What the probe of a node tells, and how old that is (``age``)."""
        text = self.ssh(name, "cat /run/wharf-nfs/state.json 2>/dev/null; echo; cut -d ' ' -f 1 /proc/uptime", check=False).splitlines()
        if len(text) < 2 or not text[0]:
            return {"healthy": False, "problems": [], "peers": {}, "age": 1e9}
        state = json.loads(text[0])
        # Both clocks begin with the kernel.
        return {**state, "age": float(text[-1]) - state["monotonic"]}

    def healthy(self) -> bool:
        """Whether every node is content now, and sees the others at work."""
        states = [self.state(name) for name in NODES]
        return all(state["healthy"] and state["age"] < 10 and all(state["peers"].values()) and state["peers"] for state in states)

    def wait(self, what: str, condition: Callable[[], bool], seconds: float) -> float:
        """Wait for something; return how many seconds it took."""
        begun = time.monotonic()
        while not condition():
            if time.monotonic() - begun > seconds:
                told = {
                    name: [self.state(name), self.ssh(name, "journalctl -n 5 -o cat -u wharf-nfs -u wharf-nfs-probe", check=False)]
                    for name in NODES
                }
                raise AssertionError(f"{what} within {seconds} s: {told}")
            time.sleep(0.5)
        return time.monotonic() - begun


@pytest.fixture(scope="session")
def storage() -> Iterator[Storage]:
    """Fresh machines, served and mounted; with WHARF_KEEP_MACHINES those that a run before has left."""
    names, keep = [SERVER, *NODES], bool(os.environ.get("WHARF_KEEP_MACHINES"))
    found = Storage()
    if not (keep and all(machines.running(name) for name in names)):
        machines.down(names)
    try:
        if not machines.running(SERVER):
            machines.up(names)
        if not found.state(NODES[0])["peers"]:
            code, output = found.play()
            assert code == 0, output[-3000:]
        yield found
    finally:
        if not keep:
            machines.down(names)


@pytest.fixture(scope="session")
def registries(storage: Storage) -> dict[str, Registry]:
    """A registry of distribution 3 on every node, as the collection's user, over the mount that the role has made."""
    found = {name: Registry(MACHINES[name].address) for name in NODES}
    binary = images.registry()
    options = ["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR"]
    for name in NODES:
        if found[name].answers():
            continue
        target = f"ops@{MACHINES[name].address}:/tmp/registry"
        subprocess.run(["scp", "-q", "-i", str(images.SSH / "id_ed25519"), *options, str(binary), target], check=True, timeout=120)
        storage.ssh(name, f"cat > /etc/registry.json <<'EOF'\n{json.dumps(CONFIG)}\nEOF")
        storage.ssh(name, f"cat > /etc/systemd/system/registry.service <<'EOF'\n{UNIT}EOF")
        storage.ssh(name, "install -m 0755 /tmp/registry /usr/local/bin/registry && rm /tmp/registry && systemctl enable --now registry")
    for name, registry in found.items():
        storage.wait(f"the registry of {name} did not answer", registry.answers, 60)
    return found
