# Copyright (c) 2026 wharf.registry contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The day's cleaning: whichever node looks first does it, the others find it done, and all of them tell of it."""

from __future__ import annotations

import json
import re

from cluster import Cluster
from lifecycle import day_begins, look, metrics

REPORT = "/var/lib/wharf/lifecycle/gc.json"
LAST = "wharf_gc_last_success_timestamp_seconds"


def test_one_node_cleans_and_all_tell_of_it(cluster: Cluster) -> None:
    # The first of the inventory does not look: as if it were gone.
    worker, other = cluster.nodes[1:3]
    assert look(cluster, worker) == ""
    with day_begins(cluster) as begun:
        # Most days there are the files of the day before.
        cluster.on(worker, f"touch {REPORT} && chown --reference=$(dirname {REPORT}) {REPORT}")
        assert look(cluster, worker) == ""
        cluster.on(other, f"rm -f {REPORT}")
        report = json.loads(cluster.on(worker, f"cat {REPORT}"))
        assert report["findings"] == [] and not report["check"]
        told = metrics(cluster, worker)
        assert told[LAST] >= begun
        assert told["wharf_gc_refused"] == told["wharf_lifecycle_failed"] == 0

        assert look(cluster, other) == ""
        cluster.on(other, f"! test -e {REPORT}")
        assert metrics(cluster, other)[LAST] == told[LAST]


def test_the_timers_run_at_different_minutes(cluster: Cluster) -> None:
    for node in cluster.nodes:
        assert cluster.on(node, "systemctl is-active wharf-lifecycle.timer").strip() == "active"
    minutes = {cluster.on(node, "sed -n 's/^OnCalendar=//p' /etc/systemd/system/wharf-lifecycle.timer") for node in cluster.nodes}
    assert len(minutes) == len(cluster.nodes)


def test_all_edges_hear_what_is_announced(cluster: Cluster) -> None:
    for node in cluster.nodes:
        assert cluster.on(node, "systemctl is-active wharf-announced.service").strip() == "active"
        assert "trying again" not in cluster.on(node, "journalctl -u wharf-announced.service --since -1min -o cat")
        shown = cluster.on(node, "systemd-analyze security --no-pager wharf-announced.service").strip().splitlines()[-1]
        level = re.search(r"(\d+\.\d+) ", shown)
        assert level and float(level[1]) < 3, shown


def test_the_service_is_confined(cluster: Cluster) -> None:
    shown = cluster.on(cluster.nodes[0], "systemd-analyze security --no-pager wharf-lifecycle.service").strip().splitlines()[-1]
    level = re.search(r"(\d+\.\d+) ", shown)
    assert level and float(level[1]) < 3, shown
