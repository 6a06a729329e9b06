# Copyright (c) 2026 wharf.registry contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A running cluster in the lab, as a test sees it: hosts to run commands on, a name, credentials."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(CHECKOUT / "tests/lab"))

import engine  # noqa: E402  (the lab's own modules, found through the path above)
import machines  # noqa: E402
import settings  # noqa: E402
from clients import LOGIN  # noqa: E402

EDGE_PORT = 5443
# Variables of a cluster with tokens; a scenario that deploys one names the file in WHARF_EXTRA_VARS.
TOKENS = CHECKOUT / "tests/cluster/tokens.yml"


class Cluster:
    """What an inventory describes, reached through the lab's engine; machines with kernels of their own by ssh."""

    def __init__(  # pylint: disable=too-many-arguments
        self, name: str, inventory: str, nodes: list[str], balancers: list[str], cache: str, client: str, vip: str, monitor: str = ""
    ) -> None:
        self.name = name
        self.inventory = inventory
        self.secrets = CHECKOUT / inventory.removesuffix("-watched") / "secrets"
        self.cache = cache
        self.nodes = nodes
        self.balancers = balancers
        self.client = client
        self.vip = vip
        self.monitor = monitor

    @property
    def password(self) -> str:
        """Password of the user `admin`."""
        return (self.secrets / "users/admin").read_text().strip()

    def address(self, host: str) -> str:
        """Address of a lab host."""
        return (settings.MACHINES.get(host) or settings.NODES[host]).address

    def docker(self, *arguments: str, check: bool = True) -> str:
        """Run the docker client against the lab's engine (a lab host is a container of it)."""
        return self._run(["docker", *arguments], check=check)

    def on(self, host: str, script: str, *, check: bool = True, stdin: str | None = None, timeout: float = 120) -> str:
        """Run a shell script on a lab host as root; return its output (both streams)."""
        return self._run(self._shell(host, script), check=check, stdin=stdin, timeout=timeout)

    def spawn(self, host: str, script: str) -> subprocess.Popen[str]:
        """Start a shell script on a lab host and leave it running."""
        return subprocess.Popen(
            self._shell(host, script),
            stdout=subprocess.PIPE,
            text=True,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
        )

    def login(self) -> None:
        """Log every client on the client host in; credentials land where each client looks for them."""
        # podman reads Docker's file too, and does not log in where that has a token.
        self.on(self.client, f"docker logout {self.name}")
        for client in ("podman", "skopeo", "docker", "regctl"):
            self.on(self.client, LOGIN[client].format(user="admin", name=self.name), stdin=self.password)

    def reference(self, tag: str = "latest") -> str:
        """A fresh repository's reference."""
        return f"{self.name}/test/{uuid.uuid4().hex[:12]}:{tag}"

    def digest_at_edge(self, node: str, reference: str) -> str:
        """Digest of a tag as one node's edge serves it, asked on the node itself."""
        repository, tag = reference.removeprefix(f"{self.name}/").rsplit(":", 1)
        script = (
            f"curl -sS --fail-with-body -m 10 -K - --cacert /etc/wharf/edge/ca.crt --resolve {self.name}:{EDGE_PORT}:{self.address(node)} "
            "-H 'Accept: application/vnd.docker.distribution.manifest.v2+json' -H 'Accept: application/vnd.oci.image.manifest.v1+json' "
            f"-I https://{self.name}:{EDGE_PORT}/v2/{repository}/manifests/{tag}"
        )
        headers = self.on(node, script, stdin=f'user = "admin:{self.password}"\n')
        for line in headers.splitlines():
            if line.lower().startswith("docker-content-digest:"):
                return line.split(":", 1)[1].strip()
        raise AssertionError(f"no digest in the answer of {node}:\n{headers}")

    def holder_of_vip(self) -> str:
        """The balancer that holds the virtual address.

        Raises:
            AssertionError: none or more than one holds it.
        """
        holders = [host for host in self.balancers if f" {self.vip}/" in self.on(host, "ip -o -4 address show", check=False)]
        assert len(holders) == 1, f"{self.vip} is held by {holders or 'nobody'}"
        return holders[0]

    @staticmethod
    def _shell(host: str, script: str) -> list[str]:
        if host in settings.MACHINES:
            return machines.shell(host, script)
        return ["docker", "exec", "-i", host, "bash", "-c", script]

    def playbook(self, *arguments: str, inventory: str = "", timeout: float = 900) -> subprocess.CompletedProcess[str]:
        """Run `ansible-playbook` as an operator does, with the variables that the cluster was deployed with."""
        extra = [part for path in os.environ.get("WHARF_EXTRA_VARS", "").split() for part in ("-e", f"@{path}")]
        return subprocess.run(
            [str(Path(sys.executable).with_name("ansible-playbook")), "-i", inventory or self.inventory, *extra, *arguments],
            cwd=CHECKOUT,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
            env={**os.environ, "ANSIBLE_CONFIG": str(CHECKOUT / "ansible.cfg")},
        )

    @staticmethod
    def _run(command: list[str], *, check: bool, stdin: str | None = None, timeout: float = 120) -> str:
        result = subprocess.run(
            command, input=stdin, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=timeout, check=False
        )
        if check and result.returncode != 0:
            raise AssertionError(f"{' '.join(command[-3:])} ended with {result.returncode}:\n{result.stdout[-3000:]}")
        return result.stdout


LAB = os.environ.get("WHARF_LAB_INVENTORY", "inventories/lab")
CLUSTERS = {
    "default": Cluster(
        name="registry.lab.test",
        inventory=LAB,
        nodes=["registry1", "registry2", "registry3"],
        balancers=["lb1", "lb2"],
        cache="store1",
        client="client1",
        vip=settings.VIP,
        # inventories/lab-watched has a host with Prometheus, too.
        monitor="monitor1" if LAB.endswith("-watched") else "",
    ),
    "single": Cluster(
        name="solo.lab.test",
        inventory="molecule/single/inventory",
        nodes=["solo1"],
        balancers=["solo1"],
        cache="",
        client="client1",
        vip="",
        monitor="solo1",
    ),
    "nfs": Cluster(
        name="nfs.lab.test",
        inventory="molecule/nfs/inventory",
        nodes=["machine1", "machine2", "machine3"],
        balancers=["lb3", "lb4"],
        cache="lb3",
        client="client2",
        vip=settings.NFS_VIP,
    ),
}


CHOSEN = CLUSTERS[os.environ.get("WHARF_TEST_CLUSTER", "default")]
WATCHED = CHOSEN.monitor != ""


def lab_cluster() -> Cluster:
    """The cluster that a scenario has deployed: that of `inventories/lab`, unless WHARF_TEST_CLUSTER names another one."""
    if not engine.connect():
        raise RuntimeError("the lab's engine does not run; `tests/lab/lab.py up` starts it")
    return CHOSEN


def recap(output: str) -> dict[str, dict[str, int]]:
    """The recap of an `ansible-playbook` run: host → counter → number."""
    hosts: dict[str, dict[str, int]] = {}
    for line in output.split("PLAY RECAP", 1)[-1].splitlines():
        name, separator, counters = line.partition(" : ")
        if separator and "ok=" in counters:
            hosts[name.strip()] = {key: int(value) for key, value in (pair.split("=") for pair in counters.split())}
    return hosts
