# Copyright (c) 2026 wharf.registry contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A whole cluster over real NFS, between machines with kernels of their own: as the scenario `nfs` has deployed it, or deployed here."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Callable, Iterator

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
for folder in ("lab", "cluster"):
    sys.path.insert(0, str(CHECKOUT / "tests" / folder))

import engine  # noqa: E402
import machines  # noqa: E402
from client import Registry  # noqa: E402
from cluster import CLUSTERS, EDGE_PORT, Cluster  # noqa: E402
from settings import BRIDGE  # noqa: E402

NODES = ["machine1", "machine2", "machine3"]
SERVER = "nfs1"
CLIENT = "client2"
PATH = "/srv/wharf/nfs"
PROBE_ONCE = "python3 /usr/local/lib/wharf/wharf.pyz nfs-probe --once"
# The balancers know clients by their addresses and give each a node of its own: so many clients, and all nodes have some.
SOURCES = [f"172.30.200.{number}" for number in range(201, 213)]


class Storage:
    """The machines, and what is done to them."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster

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
        """Run the role alone; return exit code and output."""
        result = self.cluster.playbook("tests/nfs/storage.yml", *arguments, timeout=400)
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

    def served(self) -> bool:
        """Whether every balancer distributes to every node."""
        wanted = [f"server {self.cluster.address(node)}:" for node in NODES]
        for balancer in self.cluster.balancers:
            lines = [line.strip() for line in self.ssh(balancer, "cat /etc/nginx/wharf_lb_upstream_http.conf", check=False).splitlines()]
            if not all(any(line.startswith(start) for line in lines) for start in wanted):
                return False
        return True

    def settle(self, patience: float = 150) -> float:
        """Wait until all is well by itself: every probe content, every node in service; return how long that took."""
        begun = time.monotonic()
        self.wait("the nodes did not get well by themselves", self.healthy, patience)
        self.wait("the nodes did not come back to the balancers by themselves", self.served, patience)
        return time.monotonic() - begun

    def wait(self, what: str, condition: Callable[[], bool], seconds: float) -> float:
        """Wait for something; return how many seconds it took."""
        begun = time.monotonic()
        while not condition():
            if time.monotonic() - begun > seconds:
                look = "journalctl -n 5 -o cat -u wharf-nfs -u wharf-nfs-probe; curl -s http://127.0.0.1:5003/healthz"
                told = {name: [self.state(name), self.ssh(name, look, check=False)] for name in NODES}
                raise AssertionError(f"{what} within {seconds} s: {told}")
            time.sleep(0.5)
        return time.monotonic() - begun


def deploy(cluster: Cluster) -> None:
    """Fresh machines, and site.yml on them."""
    shutil.rmtree(cluster.secrets, ignore_errors=True)
    subprocess.run([sys.executable, "tests/lab/lab.py", "up", CLIENT], cwd=CHECKOUT, check=True)
    machines.down([SERVER, *NODES])
    machines.up([SERVER, *NODES])
    begun = time.monotonic()
    result = cluster.playbook("playbooks/site.yml", timeout=1500)
    assert result.returncode == 0, result.stdout[-4000:] + result.stderr[-2000:]
    print(f"\nsite.yml took {time.monotonic() - begun:.0f} s")


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """The cluster of the scenario; without the scenario it is deployed, and taken away again unless WHARF_KEEP_MACHINES is set."""
    found = CLUSTERS["nfs"]
    if "MOLECULE_SCENARIO_NAME" in os.environ:
        engine.connect()
        yield found
        return
    keep = bool(os.environ.get("WHARF_KEEP_MACHINES"))
    try:
        if not (keep and engine.connect() and all(machines.running(name) for name in (SERVER, *NODES))):
            deploy(found)
        found.login()
        yield found
    finally:
        if not keep:
            machines.down([SERVER, *NODES])
            subprocess.run(["docker", "rm", "--force", "--volumes", CLIENT], check=False, capture_output=True)


@pytest.fixture(scope="session")
def storage(cluster: Cluster) -> Storage:
    """The machines of the cluster."""
    return Storage(cluster)


def registry(cluster: Cluster, address: str, port: int = 443, source: str = "", patience: float = 30) -> Registry:
    """The registry by one of its addresses."""
    return Registry(cluster.name, address, port, str(cluster.secrets / "ca.crt"), cluster.password, source, patience)


@pytest.fixture(scope="session")
def edges(cluster: Cluster) -> list[Registry]:
    """The edge of each node, asked without a balancer."""
    return [registry(cluster, cluster.address(name), EDGE_PORT) for name in NODES]


@pytest.fixture(scope="session")
def clients(cluster: Cluster) -> Iterator[list[Registry]]:
    """Clients of the virtual address, two for each node."""
    try:
        for source in SOURCES:
            subprocess.run(["ip", "address", "replace", f"{source}/32", "dev", BRIDGE], check=True)
        # What a client waits for an answer, here no longer than the longest fault.
        everybody = [registry(cluster, cluster.vip, source=source, patience=15) for source in SOURCES]
        for client in everybody:
            assert client.answers(), f"{client.source} is not served"
        time.sleep(1)
        log = machines.ssh(cluster.holder_of_vip(), "tail -n 300 /var/log/nginx/wharf_lb_access.json").stdout
        node_of = {line["client"]: line["node"] for line in map(json.loads, log.splitlines())}
        found = []
        for name in NODES:
            mine = [client for client in everybody if node_of.get(client.source, "").startswith(cluster.address(name) + ":")]
            assert mine, f"no client gets {name}: {node_of}"
            found += mine[:2]
        yield found
    finally:
        for source in SOURCES:
            with contextlib.suppress(OSError):
                subprocess.run(["ip", "address", "delete", f"{source}/32", "dev", BRIDGE], check=False, capture_output=True)
