# Copyright (c) 2026 wharf.registry contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The day's cleaning while nodes die in the middle of it, and while the storage is gone."""

from __future__ import annotations

import time

from cluster import Cluster
from lifecycle import day_begins, look, metrics
from test_faults import all_nodes_in, wait_until


def test_another_node_takes_over(cluster: Cluster, report: list[str]) -> None:
    first, second = cluster.nodes[:2]
    with day_begins(cluster) as begun:
        cluster.on(first, "systemctl start --no-block wharf-lifecycle.service; sleep 1")
        cluster.docker("kill", first)
        died = time.monotonic()
        try:
            # What the timer does each hour; a dead owner loses the lock after a minute.
            while look(cluster, second) is None or metrics(cluster, second)["wharf_gc_last_success_timestamp_seconds"] < begun:
                assert time.monotonic() - died < 120, cluster.on(second, "journalctl -u wharf-lifecycle.service -n 20 --no-pager")
                time.sleep(2)
        finally:
            seconds = time.monotonic() - died
            cluster.docker("start", first)
        wait_until(lambda: all_nodes_in(cluster), 60, "all nodes back in service")
    report.append(f"{first} died while it cleaned: {second} could do it {seconds:.0f} s later")


def test_a_storage_that_is_gone_is_told(cluster: Cluster, report: list[str]) -> None:
    node = cluster.nodes[0]
    assert look(cluster, node) == ""
    known = metrics(cluster, node)
    cluster.on("store1", "systemctl stop lab-s3")
    try:
        begun = time.monotonic()
        problem = look(cluster, node)
        seconds = time.monotonic() - begun
        assert problem, "the look was good without a storage"
        told = metrics(cluster, node)
    finally:
        cluster.on("store1", "systemctl start lab-s3")
    assert told["wharf_lifecycle_failed"] == 1
    assert told["wharf_gc_last_success_timestamp_seconds"] == known["wharf_gc_last_success_timestamp_seconds"]
    wait_until(lambda: look(cluster, node) == "", 60, "a good look after the storage came back")
    assert metrics(cluster, node)["wharf_lifecycle_failed"] == 0
    report.append(f"storage gone: the look failed after {seconds:.0f} s: {problem.strip().splitlines()[-1][-200:]}")
