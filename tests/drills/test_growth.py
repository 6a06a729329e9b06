# Copyright (c) 2026 wharf.registry contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A fourth node joins: nobody else's secret, certificate or registry is touched."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from cluster import CHECKOUT, Cluster, recap

NEW = "registry4"


def fingerprints(directory: Path) -> dict[str, str]:
    """SHA-256 of every file below a directory."""
    return {
        str(path.relative_to(directory)): hashlib.sha256(path.read_bytes()).hexdigest() for path in directory.rglob("*") if path.is_file()
    }


def state_of_node(cluster: Cluster, node: str) -> str:
    """What must stay as it is on the other nodes: their registry's start, their secret and their certificate."""
    return cluster.on(
        node,
        "docker inspect -f '{{.State.StartedAt}} {{.Id}}' wharf-registry; sha256sum /etc/wharf/registry/config.yml /etc/wharf/edge/tls.crt",
    )


@pytest.mark.skipif(os.environ.get("WHARF_BALANCER_MODE") == "http", reason="one mode is enough: the scenario `stream` runs it")
@pytest.mark.core
@pytest.mark.last
def test_a_fourth_node_joins(cluster: Cluster, report: list[str], tmp_path: Path) -> None:
    inventory = tmp_path / "inventory"
    shutil.copytree(CHECKOUT / "inventories/lab", inventory, ignore=shutil.ignore_patterns("secrets"))
    hosts = yaml.safe_load((inventory / "hosts.yml").read_text())
    hosts["all"]["children"]["registry_nodes"]["hosts"][NEW] = {"ansible_host": cluster.address(NEW)}
    (inventory / "hosts.yml").write_text(yaml.safe_dump(hosts))
    lab = [sys.executable, str(CHECKOUT / "tests/lab/lab.py")]
    subprocess.run([*lab, "up", NEW], check=True, capture_output=True)
    try:
        secrets = fingerprints(cluster.secrets)
        nodes = {node: state_of_node(cluster, node) for node in cluster.nodes}
        result = cluster.playbook("playbooks/site.yml", "-e", f"wharf_secrets_dir={cluster.secrets}", inventory=str(inventory))
        assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-2000:]
        changed = {host for host, counters in recap(result.stdout).items() if counters["changed"]}
        report.append(f"a fourth node joined; changed: {', '.join(sorted(changed))}")
        after = fingerprints(cluster.secrets)
        assert {name: after[name] for name in secrets} == secrets
        assert {name for name in after if name not in secrets} == {f"certificates/{NEW}.crt", f"certificates/{NEW}.key"}
        assert {node: state_of_node(cluster, node) for node in cluster.nodes} == nodes
    finally:
        cluster.docker("rm", "--force", "--volumes", NEW)
        for path in (cluster.secrets / "certificates").glob(f"{NEW}.*"):
            path.unlink()
    if "MOLECULE_SCENARIO_NAME" in os.environ:
        return  # it removes everything now
    again = cluster.playbook("playbooks/site.yml")
    assert again.returncode == 0, again.stdout[-3000:] + again.stderr[-2000:]
