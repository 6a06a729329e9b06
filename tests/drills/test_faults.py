# Copyright (c) 2026 wharf.registry contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Faults under load: clients pull a large image in a loop while a part dies, freezes or hangs, and comes back.

A pull whose connection was cut in the middle of a blob may be repeated once by its user where the client does not resume
by itself; `docker pull` resumes. What is counted here goes to the report.
"""

from __future__ import annotations

import os
import time
from typing import Callable, NamedTuple

import pytest
from cluster import Cluster
from load import Load

MODE = os.environ.get("WHARF_BALANCER_MODE", "http")


class Fault(NamedTuple):
    """How to break something and how to mend it; both get the cluster."""

    inflict: Callable[[Cluster], None]
    mend: Callable[[Cluster], None]


def on(host: str, script: str) -> Callable[[Cluster], None]:
    """A step that runs a script on a host."""
    return lambda cluster: cluster.on(host, script) and None


def lab(*arguments: str) -> Callable[[Cluster], None]:
    """A step that does something to a whole lab host."""
    return lambda cluster: cluster.docker(*arguments) and None


REGISTRY_PID = "$(docker inspect -f '{{.State.Pid}}' wharf-registry)"
FAULTS = {
    "registry killed": Fault(on("registry1", "docker kill wharf-registry"), on("registry1", "docker start wharf-registry")),
    "node stopped": Fault(lab("kill", "registry2"), lab("start", "registry2")),
    "registry frozen": Fault(on("registry3", f"kill -STOP {REGISTRY_PID}"), on("registry3", f"kill -CONT {REGISTRY_PID}")),
    "edge frozen": Fault(on("registry1", "pkill -STOP nginx"), on("registry1", "pkill -CONT nginx")),
    "node frozen": Fault(lab("pause", "registry2"), lab("unpause", "registry2")),
    "redis killed": Fault(
        on("store1", "systemctl kill -s KILL redis-server; systemctl stop redis-server"), on("store1", "systemctl start redis-server")
    ),
    "redis hung": Fault(on("store1", "systemctl kill -s STOP redis-server"), on("store1", "systemctl kill -s CONT redis-server")),
}
CORE = ("registry killed", "edge frozen", "redis hung")


def all_nodes_in(cluster: Cluster) -> bool:
    """Whether every balancer distributes to every node: a node that is out is a comment in the checker's file."""
    for host in cluster.balancers:
        upstream = cluster.on(host, f"cat /etc/nginx/wharf_lb_upstream_{MODE}.conf")
        servers = [line.strip() for line in upstream.splitlines() if line.strip().startswith("server ")]
        if not all(any(f"server {cluster.address(node)}:" in line for line in servers) for node in cluster.nodes):
            return False
    return True


def wait_until(condition: Callable[[], bool], seconds: float, what: str) -> None:
    """Wait for a condition, or fail naming it."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"{what} not within {seconds} s"
        time.sleep(0.5)


@pytest.mark.parametrize("fault", [pytest.param(name, marks=pytest.mark.core if name in CORE else ()) for name in FAULTS])
def test_pulls_go_on(cluster: Cluster, image: str, report: list[str], fault: str) -> None:
    wait_until(lambda: all_nodes_in(cluster), 30, "all nodes in service before the fault")
    load = Load(cluster, image)
    with load:
        time.sleep(6)
        FAULTS[fault].inflict(cluster)
        try:
            time.sleep(12)
        finally:
            FAULTS[fault].mend(cluster)
        time.sleep(6)
    wait_until(lambda: all_nodes_in(cluster), 60, f"all nodes back in service after: {fault}")
    judge(load, fault, report)


@pytest.mark.core
def test_the_active_balancer_dies(cluster: Cluster, image: str, report: list[str]) -> None:
    holder = cluster.holder_of_vip()
    load = Load(cluster, image)
    with load:
        time.sleep(6)
        probe = cluster.spawn(cluster.client, PROBE_VIP.format(name=cluster.name))
        time.sleep(1)
        cluster.docker("kill", holder)
        try:
            outage = float(probe.communicate(timeout=60)[0].strip().splitlines()[-1])
            time.sleep(8)
        finally:
            cluster.docker("start", holder)
        time.sleep(6)
    wait_until(lambda: _one_holder(cluster), 30, "exactly one holder of the virtual address")
    assert cluster.holder_of_vip() != holder, "the virtual address flapped back to the balancer that returned"
    report.append(f"[{MODE}] balancer stopped: the virtual address answered again after {outage:.2f} s")
    judge(load, "balancer stopped", report)


# Longest time without an answer from the virtual address, seen by a client that asks it ten times a second for eight seconds.
PROBE_VIP = r"""
python3 - <<'END'
import http.client, ssl, time
context = ssl.create_default_context()
good, worst, end = time.monotonic(), 0.0, time.monotonic() + 8
while time.monotonic() < end:
    try:
        connection = http.client.HTTPSConnection("{name}", 443, timeout=0.15, context=context)
        connection.request("GET", "/v2/")
        connection.getresponse().read()
        worst = max(worst, time.monotonic() - good)
        good = time.monotonic()
    except OSError:
        pass
    time.sleep(0.05)
print(max(worst, time.monotonic() - good))
END
"""


def _one_holder(cluster: Cluster) -> bool:
    try:
        cluster.holder_of_vip()
    except AssertionError:
        return False
    return True


def judge(load: Load, fault: str, report: list[str]) -> None:
    """Count, report, and allow each client one repeated command for a connection that was cut in the middle of a blob."""
    for seen in load.seen:
        line = f"[{MODE}] {fault}: {seen.summary()}"
        report.append(line)
        for failure in seen.failures():
            seconds = failure["end"] - failure["start"]
            report.append(f"    failed after {seconds:.1f} s with {failure['code']}: {failure['output'].strip()[-200:]}")
        # A client that waits for data of a dead balancer sends nothing that could be refused: it may stall until its TCP keep-alive.
        assert len(seen.pulls) > 1, f"{line}: too few pulls to say anything"
        codes = [pull["code"] for pull in seen.pulls]
        twice = any(first and second for first, second in zip(codes, codes[1:], strict=False))
        assert not twice and len(seen.failures()) <= 1, "\n".join(report[-6:])


@pytest.mark.core
def test_a_push_through_a_killed_node_succeeds_on_retry(cluster: Cluster, report: list[str]) -> None:
    reference = cluster.reference()
    cluster.on(
        cluster.client,
        f"""
set -e
d=$(mktemp -d); cd $d; head -c 200M /dev/urandom > blob; printf 'FROM scratch\\nCOPY blob /\\n' > Dockerfile
DOCKER_BUILDKIT=0 docker build -q -t {reference} . >/dev/null; rm -r $d""",
    )
    push = cluster.spawn(cluster.client, f"docker push -q {reference}")
    time.sleep(1.5)
    cluster.docker("kill", "registry1")
    try:
        output, _ = push.communicate(timeout=180)
        first = push.returncode
        if first != 0:
            listing = cluster.on(cluster.client, f"crane manifest {reference}", check=False)
            assert "MANIFEST_UNKNOWN" in listing or "NAME_UNKNOWN" in listing, f"something half-written is visible:\n{listing}"
            cluster.on(cluster.client, f"docker push -q {reference}", timeout=180)
    finally:
        cluster.docker("start", "registry1")
    report.append(
        f"[{MODE}] push through a killed node: {'went through' if first == 0 else 'failed once, retry succeeded'}: {output.strip()[-150:]}"
    )
    cluster.on(cluster.client, f"docker rmi {reference} >/dev/null; crane validate --remote {reference}")
    wait_until(lambda: all_nodes_in(cluster), 60, "all nodes back in service")
