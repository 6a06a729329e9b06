# Copyright (c) 2026 wharf.registry contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The day's cleaning on a running cluster: let a day begin, let a node look, read what it tells."""

from __future__ import annotations

import contextlib
import re
import time
from typing import Iterator

from cluster import Cluster

METRICS = "/var/lib/wharf/metrics/wharf_lifecycle.prom"
OPTIONS = "/etc/wharf/lifecycle.json"
KEPT = "/root/lifecycle.json"
SAMPLE = re.compile(r"(?:# (?:HELP|TYPE) wharf_\w+ .+|wharf_\w+ -?\d[\d.e+]*)")


def metrics(cluster: Cluster, node: str) -> dict[str, float]:
    """What a node exporter reads there; fail on a line that it would not take."""
    lines = cluster.on(node, f"cat {METRICS}").splitlines()
    assert [line for line in lines if not SAMPLE.fullmatch(line)] == []
    return {name: float(value) for name, value in (line.split() for line in lines if not line.startswith("#"))}


def look(cluster: Cluster, node: str) -> str:
    """Do what the timer does each hour; return what the journal tells if it failed, else nothing."""
    script = """
since=$(date +'%F %T')
systemctl start wharf-lifecycle.service 2>/dev/null || journalctl -u wharf-lifecycle.service --since "$since" --no-pager -o cat"""
    return cluster.on(node, script)


@contextlib.contextmanager
def day_begins(cluster: Cluster) -> Iterator[float]:
    """Let a day begin now, whatever the nodes have done today; yield when it began, as seconds of the epoch."""
    # `at` is in minutes: this one must be another than that of an earlier run.
    time.sleep(61 - time.time() % 60)
    begun = int(time.time()) // 60 * 60
    for node in cluster.nodes:
        at = cluster.on(node, f"date -d @{begun} +%H:%M").strip()
        cluster.on(node, f"""cp -p {OPTIONS} {KEPT} && sed -i 's/"at": ".*"/"at": "{at}"/' {OPTIONS}""")
    try:
        yield begun
    finally:
        for node in cluster.nodes:
            cluster.on(node, f"mv {KEPT} {OPTIONS}")
