# Copyright (c) 2026 wharf.registry contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The cluster is watched: every target is up, nothing is wrong, and whatever a rule, a dashboard or the report asks for is there."""

from __future__ import annotations

import os
import re
import sys
import time

import lifecycle
import monitoring
import pytest
from cluster import CHECKOUT, CHOSEN, WATCHED, Cluster

sys.path.insert(0, str(CHECKOUT / "tests/consistency"))

from test_alerts import documented, metrics_of  # noqa: E402  (found through the path above)

pytestmark = pytest.mark.skipif(not WATCHED, reason="nobody watches this cluster: WHARF_LAB_INVENTORY=inventories/lab-watched make demo")
STREAM = os.environ.get("WHARF_BALANCER_MODE") == "stream"  # with distribution 2.8 and no cache
ALONE = len(CHOSEN.nodes) == 1  # one host, over a file system
# A bucket has no size, and no inodes. One host has neither Redis nor an address to share.
ABSENT = (
    {"redis_up", "redis_memory_max_bytes", "redis_memory_used_bytes", "wharf_vip_held"}
    if ALONE
    else {f"wharf_storage_{what}" for what in ("size_bytes", "available_bytes", "files", "files_free")}
)
# No tag is deleted here.
ABSENT |= {f"wharf_retention_{what}" for what in ("refused", "findings", "last_success_timestamp_seconds")}
# One mode of the balancer has the one, the other the other.
ABSENT.add("wharf_balancer_requests_total" if STREAM else "wharf_balancer_sessions_total")
# One generation of the registry has the one, the other the other.
CACHE = {"registry_storage_cache_total"}
CACHE_3 = {f"registry_storage_cache_{what}_total" for what in ("requests", "hits", "errors")}
PUSH = """
set -e; head -c 40M /dev/urandom > /tmp/watched-layer; crane append -f /tmp/watched-layer -t {reference}; rm /tmp/watched-layer
crane manifest {reference} | python3 -c 'import json, sys; print(json.load(sys.stdin)["layers"][-1]["digest"])'"""


@pytest.fixture(scope="module")
def busy(cluster: Cluster) -> Cluster:
    """Everything has happened that makes a metric: the daily work, a push, a pull, and one that was cut off."""
    for node in cluster.nodes:
        assert lifecycle.look(cluster, node) == ""
        cluster.on(node, "systemctl start wharf-metrics.service")
    reference = cluster.reference()
    digest = cluster.on(cluster.client, PUSH.format(reference=reference)).split()[-1]
    cluster.on(cluster.client, f"crane pull {reference} /dev/null")
    repository = reference.rpartition(":")[0]
    cluster.on(cluster.client, f"timeout -s KILL 2 crane blob {repository}@{digest} | (head -c 1; sleep 3) > /dev/null", check=False)
    return cluster


def test_every_target_is_up(cluster: Cluster) -> None:
    up = monitoring.query(cluster, f'up{{cluster="{cluster.name}"}}')
    assert [series["metric"] for series in up if series["value"][1] != "1"] == []
    targets = {(series["metric"]["job"].removeprefix("wharf_"), series["metric"]["node"]) for series in up}
    assert targets == {
        *((job, node) for job in ("registries", "edges", "logs", "hosts") for node in cluster.nodes),
        *((job, balancer) for job in ("balancers", "logs", "hosts") for balancer in cluster.balancers),
        *((job, cluster.cache) for job in ("caches", "hosts") if cluster.cache),
        ("service", cluster.name),
    }
    assert monitoring.query(cluster, "probe_success == 0") == []


def test_prometheus_has_the_rules_and_tells_alertmanager(cluster: Cluster) -> None:
    groups = monitoring.ask(cluster, "9090/api/v1/rules")["data"]["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    assert {rule["name"] for rule in rules} == {rule.get("alert") or rule["record"] for rule in monitoring.RULES}
    assert [rule["name"] for rule in rules if rule["health"] == "err"] == []
    managers = monitoring.ask(cluster, "9090/api/v1/alertmanagers")["data"]["activeAlertmanagers"]
    assert [manager["url"].replace("localhost", "127.0.0.1") for manager in managers] == ["http://127.0.0.1:9093/api/v2/alerts"]


def test_nothing_of_it_runs_as_root(cluster: Cluster) -> None:
    units = [
        *((host, unit) for host in (cluster.nodes[0], cluster.balancers[0]) for unit in ("prometheus-node-exporter", "mtail")),
        *([(cluster.cache, "prometheus-redis-exporter")] if cluster.cache else []),
        *((cluster.monitor, unit) for unit in ("prometheus", "prometheus-alertmanager", "prometheus-blackbox-exporter")),
    ]
    for host, unit in units:
        status = cluster.on(host, f"cat /proc/$(systemctl show --property MainPID --value {unit})/status")
        assert "Uid:\t0" not in status, unit
        if unit not in ("prometheus", "prometheus-alertmanager"):  # the distribution's own units
            for line in (r"NoNewPrivs:\s*1$", r"CapEff:\s*0+$", r"Seccomp:\s*2$"):
                assert re.search(line, status, re.M), (unit, line)


def test_no_secret_is_told(cluster: Cluster) -> None:
    if cluster.cache:
        password = (cluster.secrets / "redis_password").read_text().strip()
        assert password not in cluster.on(cluster.cache, "ps axww -o args")
        assert cluster.on(cluster.cache, "stat -c %a /etc/wharf/exporters/redis.env").strip() == "600"
    secret = (cluster.secrets / "http_secret").read_text().strip()
    assert secret not in cluster.on(cluster.nodes[0], "cat /var/lib/wharf/metrics/*")


def test_every_metric_that_somebody_asks_for_is_there(busy: Cluster) -> None:
    records = {rule["record"] for rule in monitoring.RULES if "record" in rule}
    used = {metric for rule in monitoring.RULES for metric in metrics_of(rule["expr"])} - records
    used |= {metric for query in monitoring.QUERIES for metric in metrics_of(query)}
    assert used <= documented() | {f"{name}_{part}" for name in documented() for part in ("bucket", "sum", "count")}
    wanted = (used | documented()) - ABSENT - (CACHE | CACHE_3 if STREAM else CACHE)
    end = time.monotonic() + 60
    while True:
        found = monitoring.query(busy, f'group by (__name__) ({{cluster="{busy.name}"}})')
        there = {series["metric"]["__name__"] for series in found}
        # A histogram is documented under its name.
        missing = wanted - there - {re.sub("_(bucket|sum|count)$", "", name) for name in there}
        if not missing or time.monotonic() > end:
            break
        time.sleep(2)
    assert missing == set()


def test_prometheus_understands_every_query(busy: Cluster) -> None:
    for query in monitoring.QUERIES:
        for name, value in (("cluster", busy.name), ("node", busy.nodes[0]), ("project", "test"), ("__rate_interval", "1m")):
            query = query.replace(f"${name}", value)
        monitoring.query(busy, query)


def test_nothing_is_wrong(busy: Cluster) -> None:
    end = time.monotonic() + 90
    while wrong := monitoring.pending(busy):
        assert time.monotonic() < end, wrong
        time.sleep(3)


def test_a_client_reaches_none_of_it(cluster: Cluster) -> None:
    places = [(cluster.monitor, (9090, 9093, 9115)), (cluster.nodes[0], (9100, 3903)), (cluster.balancers[0], (9100, 3903))]
    for host, ports in [*places, *([(cluster.cache, (9100, 9121))] if cluster.cache else [])]:
        for port in ports:
            script = f"timeout 3 bash -c '</dev/tcp/{cluster.address(host)}/{port}' 2>/dev/null && echo open || true"
            assert "open" not in cluster.on(cluster.client, script), f"{host}:{port}"
