# Copyright (c) 2026 wharf.registry contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The machines of a cluster over NFS, and what is done to them."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import time
from typing import Any, Callable

import machines
from client import Registry
from cluster import CHECKOUT, Cluster

NODES = ["machine1", "machine2", "machine3"]
SERVER = "nfs1"
CLIENT = "client2"
CONTAINERS = [CLIENT, "lb3", "lb4"]
PATH = "/srv/wharf/nfs"
PROBE_ONCE = "python3 /usr/local/lib/wharf/wharf.pyz nfs-probe --once"


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
            lines = [line.strip() for line in self.cluster.on(balancer, "cat /etc/nginx/wharf_lb_upstream_http.conf").splitlines()]
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
    subprocess.run([sys.executable, "tests/lab/lab.py", "up", *CONTAINERS], cwd=CHECKOUT, check=True)
    machines.down([SERVER, *NODES])
    machines.up([SERVER, *NODES])
    begun = time.monotonic()
    result = cluster.playbook("playbooks/site.yml", timeout=1500)
    assert result.returncode == 0, result.stdout[-4000:] + result.stderr[-2000:]
    print(f"\nsite.yml took {time.monotonic() - begun:.0f} s")


def registry(cluster: Cluster, address: str, port: int = 443, source: str = "", patience: float = 30) -> Registry:
    """The registry by one of its addresses."""
    return Registry(cluster.name, address, port, str(cluster.secrets / "ca.crt"), cluster.password, source, patience)
