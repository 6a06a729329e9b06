# Copyright (c) 2026 wharf.registry contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A whole cluster over real NFS, between machines with kernels of their own: as the scenario `nfs` has deployed it, or deployed here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Iterator

import pytest

sys.path[:0] = [str(Path(__file__).resolve().parents[1] / folder) for folder in ("lab", "cluster")]

import engine  # noqa: E402
import machines  # noqa: E402
from client import Registry  # noqa: E402
from cluster import CLUSTERS, EDGE_PORT, Cluster  # noqa: E402
from settings import BRIDGE  # noqa: E402
from storage import CONTAINERS, NODES, SERVER, Storage, deploy, registry  # noqa: E402

# The balancers know clients by their addresses and give each a node of its own: so many clients, and all nodes have some.
SOURCES = [f"172.30.200.{number}" for number in range(201, 213)]


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
            subprocess.run(["docker", "rm", "--force", "--volumes", *CONTAINERS], check=False, capture_output=True)


@pytest.fixture(scope="session")
def storage(cluster: Cluster) -> Storage:
    """The machines of the cluster."""
    return Storage(cluster)


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
        log = cluster.on(cluster.holder_of_vip(), "tail -n 300 /var/log/nginx/wharf_lb_access.json")
        node_of = {line["client"]: line["node"] for line in map(json.loads, log.splitlines())}
        found = []
        for name in NODES:
            mine = [client for client in everybody if node_of.get(client.source, "").startswith(cluster.address(name) + ":")]
            assert mine, f"no client gets {name}: {node_of}"
            found += mine[:2]
        yield found
    finally:
        for source in SOURCES:
            subprocess.run(["ip", "address", "delete", f"{source}/32", "dev", BRIDGE], check=False, capture_output=True)
