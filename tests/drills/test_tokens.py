# Copyright (c) 2026 wharf.registry contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""From htpasswd to tokens and back, as docs/access.md tells, on a running cluster, while clients pull."""

from __future__ import annotations

import time

from change import deploy, no_tokens_left
from cluster import Cluster
from load import Load
from test_faults import MODE, all_nodes_in, wait_until

LIFETIME = 60  # seconds that a token lasts here
TOKENS = ("-e", "wharf_auth=token", "-e", f"token_auth_lifetime={LIFETIME}")
PASSWORDS_FIRST = ("-e", "registry_edge_basic_challenge=true")


def challenge(cluster: Cluster) -> str:
    """How a registry tells clients to sign in."""
    return cluster.on(cluster.client, f"curl -s -o /dev/null -D - https://{cluster.name}/v2/ | grep -i '^www-authenticate:'").lower()


def test_to_tokens_and_back(cluster: Cluster, image: str, report: list[str]) -> None:
    wait_until(lambda: all_nodes_in(cluster), 30, "all nodes in service before the change")
    load = Load(cluster, image, seconds=1500)
    with load:
        deploy(cluster, report, "to tokens, clients still send passwords", *TOKENS, *PASSWORDS_FIRST)
        assert "basic" in challenge(cluster)
        deploy(cluster, report, "clients fetch tokens", *TOKENS)
        assert "bearer" in challenge(cluster)
        time.sleep(20)
        deploy(cluster, report, "back, clients send passwords again", *TOKENS, *PASSWORDS_FIRST)
        time.sleep(LIFETIME)
        deploy(cluster, report, "back to htpasswd")
        assert "basic" in challenge(cluster)
        no_tokens_left(cluster)
    wait_until(lambda: all_nodes_in(cluster), 60, "all nodes in service after the change")
    for seen in load.seen:
        report.append(f"[{MODE}] htpasswd to tokens and back: {seen.summary()}")
        report += [f"    failed after {pull['end'] - pull['start']:.1f} s: {pull['output'].strip()[-200:]}" for pull in seen.failures()]
    assert all(len(seen.pulls) > 5 and not seen.failures() for seen in load.seen), "\n".join(report)
