# Copyright (c) 2026 wharf.registry contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Nobody reaches a port that is none of their business, and nobody reaches the registry past its edge."""

from __future__ import annotations

import pytest
from cluster import EDGE_PORT, Cluster

REGISTRY, DEBUG, PROBE, EDGE_PROXY, REDIS = 5000, 5001, 5003, 5444, 6379


def can_connect(cluster: Cluster, source: str, address: str, port: int) -> bool:
    """Whether a TCP connection from a lab host opens."""
    return "open" in cluster.on(source, f"timeout 3 bash -c '</dev/tcp/{address}/{port}' 2>/dev/null && echo open || true")


@pytest.mark.parametrize("port", [REGISTRY, DEBUG, PROBE, EDGE_PORT, EDGE_PROXY])
def test_a_client_reaches_no_port_of_a_node(cluster: Cluster, port: int) -> None:
    for node in cluster.nodes:
        assert not can_connect(cluster, cluster.client, cluster.address(node), port), f"{cluster.client} reaches {node}:{port}"


@pytest.mark.parametrize("port", [REGISTRY, DEBUG, PROBE])
def test_not_even_a_balancer_or_another_node_gets_past_the_edge(cluster: Cluster, port: int) -> None:
    for source in (cluster.balancers[0], cluster.nodes[1]):
        assert not can_connect(cluster, source, cluster.address(cluster.nodes[0]), port), f"{source} reaches {cluster.nodes[0]}:{port}"


def test_balancers_reach_the_edges(cluster: Cluster) -> None:
    for port in (EDGE_PORT, EDGE_PROXY):
        assert can_connect(cluster, cluster.balancers[0], cluster.address(cluster.nodes[0]), port)


def test_redis_refuses_all_but_the_nodes(cluster: Cluster) -> None:
    store = cluster.address(cluster.cache)
    for stranger in {cluster.client, *cluster.balancers} - {*cluster.nodes}:
        assert not can_connect(cluster, stranger, store, REDIS), f"{stranger} reaches Redis"


def test_redis_is_closed_without_the_password(cluster: Cluster) -> None:
    answer = cluster.on(cluster.cache, "redis-cli --tls --cacert /etc/redis/tls/ca.crt -h 127.0.0.1 ping", check=False)
    assert "NOAUTH" in answer


@pytest.mark.parametrize("path", ["/metrics", "/debug/vars", "/debug/pprof/", "/auth/metrics", "/auth/exchange", "/auth/peers", "/"])
def test_nothing_but_the_registry_answers_under_its_name(cluster: Cluster, path: str) -> None:
    status = cluster.on(cluster.client, f"curl -sS -m 5 -o /dev/null -w '%{{http_code}}' https://{cluster.name}{path}")
    assert status.strip() in ("403", "404"), f"{path} answered {status}"


def test_the_registry_runs_without_privileges(cluster: Cluster) -> None:
    for node in cluster.nodes:
        status = cluster.on(node, "grep -E '^(Uid|CapEff|NoNewPrivs)' /proc/$(docker inspect -f '{{.State.Pid}}' wharf-registry)/status")
        fields = {line.split(":")[0]: line.split()[1:] for line in status.splitlines()}
        assert fields["Uid"] == ["65532"] * 4, status
        assert int(fields["CapEff"][0], 16) == 0, status
        assert fields["NoNewPrivs"] == ["1"], status
        assert cluster.on(node, "docker inspect -f '{{.HostConfig.ReadonlyRootfs}}' wharf-registry").strip() == "true"
