# Copyright (c) 2026 wharf.registry contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Playbooks on the running cluster: check mode tells the truth, and secrets stay secret."""

from __future__ import annotations

import os
import subprocess

import pytest
from cluster import Cluster, recap


@pytest.fixture(scope="module")
def check_run(cluster: Cluster) -> subprocess.CompletedProcess[str]:
    """`site.yml` in check mode on the running cluster, as talkative as people run it when they look for a fault."""
    if os.environ.get("WHARF_BALANCER_MODE") == "stream":
        pytest.skip("one mode is enough: the scenario `default` runs it")
    return cluster.playbook("playbooks/site.yml", "--check", "--diff", "-vvv")


def test_check_mode_on_a_running_cluster_reports_no_change(check_run: subprocess.CompletedProcess[str]) -> None:
    assert check_run.returncode == 0, check_run.stdout[-3000:] + check_run.stderr[-2000:]
    counters = recap(check_run.stdout)
    assert counters, "there is no recap to read"
    changed = {host: counter["changed"] for host, counter in counters.items() if counter["changed"]}
    assert not changed, f"check mode says it would change {changed}:\n" + "\n".join(
        line for line in check_run.stdout.splitlines() if line.startswith(("TASK", "changed"))
    )


def test_a_verbose_run_shows_no_secret(cluster: Cluster, check_run: subprocess.CompletedProcess[str]) -> None:
    output = check_run.stdout + check_run.stderr
    named = [cluster.secrets / "http_secret", cluster.secrets / "redis_password", *(cluster.secrets / "users").iterdir()]
    named += (cluster.secrets / "robots").glob("*")
    shown = [path.name for path in named if path.read_text().strip() in output]
    assert not shown, f"these secrets are in the output of a verbose run: {shown}"
    hashes = [line.partition(":")[2] for line in (cluster.secrets / "htpasswd").read_text().splitlines() if ":" in line]
    assert not [hashed for hashed in hashes if hashed in output], "a password hash is in the output of a verbose run"
    assert "PRIVATE KEY" not in output
    assert "only-for-the-lab" not in output, "the S3 secret key is in the output of a verbose run"


def test_the_same_http_secret_on_every_node(cluster: Cluster) -> None:
    secrets = {cluster.on(node, "sed -n 's/^  *secret: *//p' /etc/wharf/registry/config.yml").strip() for node in cluster.nodes}
    assert len(secrets) == 1 and secrets != {""}
