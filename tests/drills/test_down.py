# Copyright (c) 2026 wharf.registry contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""site.yml with a node that is down: the others are finished, the end of the run names it, the next run brings it back."""

from __future__ import annotations

import time

from cluster import Cluster, recap
from test_faults import all_nodes_in, wait_until

UNREACHABLE_HOSTS = 4  # exit code of ansible-playbook
REPORT = "Not reached, therefore not changed: {host}. All other hosts are finished."


def test_a_host_that_is_down(cluster: Cluster, report: list[str]) -> None:
    down, damaged = cluster.nodes[0], cluster.nodes[1]
    wait_until(lambda: all_nodes_in(cluster), 30, "all nodes in service before the drill")
    # Something to do for the run: a node that does not serve, a client that does not trust.
    cluster.on(damaged, "docker rm --force wharf-registry")
    cluster.on(cluster.client, "rm /etc/wharf/ca-bundle.pem")
    cluster.docker("kill", down)
    try:
        begun = time.monotonic()
        result = cluster.playbook("playbooks/site.yml")
        seconds = time.monotonic() - begun
    finally:
        cluster.docker("start", down)
    output = result.stdout[-4000:] + result.stderr[-2000:]
    assert result.returncode == UNREACHABLE_HOSTS, output
    assert REPORT.format(host=down) in " ".join(result.stdout.split()), output
    hosts = recap(result.stdout)
    assert hosts[down]["unreachable"] == 1 and not hosts[down]["changed"], hosts
    others = {host: counters for host, counters in hosts.items() if host != down}
    assert {*cluster.nodes, *cluster.balancers, cluster.client, "store1", *([cluster.monitor] if cluster.monitor else [])} == {
        *others,
        down,
    } - {"localhost"}
    assert not any(counters["failed"] or counters["unreachable"] for counters in others.values()), hosts
    assert hosts[damaged]["changed"] and hosts[cluster.client]["changed"], hosts
    cluster.on(damaged, "docker inspect wharf-registry")
    cluster.on(cluster.client, "test -s /etc/wharf/ca-bundle.pem")

    wait_until(lambda: all_nodes_in(cluster), 60, "all nodes back in service")
    again = cluster.playbook("playbooks/site.yml")
    assert again.returncode == 0, again.stdout[-4000:] + again.stderr[-2000:]
    assert "Not reached" not in again.stdout
    report.append(f"{down} down: site.yml finished the other hosts in {seconds:.0f} s and named it; the next run was good")
