# Copyright (c) 2026 wharf.registry contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Changes of the running cluster as an operator makes them."""

from __future__ import annotations

import time

from cluster import Cluster, recap


def deploy(cluster: Cluster, report: list[str], what: str, *variables: str) -> None:
    """Run site.yml with these variables; it must end well."""
    begun = time.monotonic()
    result = cluster.playbook("playbooks/site.yml", *variables, timeout=1800)
    assert result.returncode == 0, f"{what}:\n{result.stdout[-4000:]}{result.stderr[-2000:]}"
    changed = sum(counters["changed"] for counters in recap(result.stdout).values())
    report.append(f"{what}: site.yml took {time.monotonic() - begun:.0f} s, {changed} changes")


def no_tokens_left(cluster: Cluster) -> None:
    """What the role token_auth has brought is gone from each node, but for its logs and what was revoked."""
    paths = "/etc/wharf/token /usr/local/lib/wharf/token /etc/systemd/system/wharf-token.* /etc/logrotate.d/wharf_token"
    nginx = "/etc/nginx/conf.d/wharf_token.conf /etc/nginx/wharf_edge_locations.d/token.conf"
    for node in cluster.nodes:
        found = cluster.on(node, f"ls -d {paths} {nginx} 2> /dev/null; getent passwd wharf-token; ss -Hltn 'sport = :5004'", check=False)
        assert found == "", f"{node}:\n{found}"
        assert "personal.json" in cluster.on(node, "ls /var/lib/wharf-token")
