# Copyright (c) 2026 wharf.registry contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Playbooks on the running cluster: check mode tells the truth, and secrets stay secret."""

from __future__ import annotations

from cluster import Cluster, recap


def test_check_mode_on_a_running_cluster_reports_no_change(cluster: Cluster) -> None:
    result = cluster.playbook("playbooks/site.yml", "--check", "--diff")
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-2000:]
    changed = {host: counters["changed"] for host, counters in recap(result.stdout).items() if counters["changed"]}
    assert not changed, f"check mode says it would change {changed}:\n" + "\n".join(
        line for line in result.stdout.splitlines() if line.startswith(("TASK", "changed"))
    )


def test_a_verbose_run_shows_no_secret(cluster: Cluster) -> None:
    result = cluster.playbook("playbooks/site.yml", "--check", "--diff", "-vvv")
    output = result.stdout + result.stderr
    secrets = [path for path in cluster.secrets.rglob("*") if path.is_file() and path.suffix not in (".crt",) and path.name != "htpasswd"]
    shown = [path.name for path in secrets if path.suffix != ".key" and path.read_text().strip() in output]
    assert not shown, f"these secrets are in the output of a verbose run: {shown}"
    assert "PRIVATE KEY" not in output
    assert "only-for-the-lab" not in output, "the S3 secret key is in the output of a verbose run"


def test_the_same_http_secret_on_every_node(cluster: Cluster) -> None:
    secrets = {cluster.on(node, "sed -n 's/^  *secret: *//p' /etc/wharf/registry/config.yml").strip() for node in cluster.nodes}
    assert len(secrets) == 1 and secrets != {""}
