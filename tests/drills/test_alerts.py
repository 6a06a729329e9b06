# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Faults, one at a time, each of which raises exactly the alerts that it should, in time, and none once it is over.

The rules are the collection's and so are the clocks that they go by; only their waiting times are shortened (watch.py).
"""

from __future__ import annotations

import contextlib
import os
import shlex
import subprocess
import sys
import time
from typing import Callable, Iterator, NamedTuple

import lifecycle
import machines
import pytest
import settings
from cluster import CHECKOUT, CHOSEN, WATCHED, Cluster
from load import push_image
from test_faults import REGISTRY_PID, all_nodes_in, lab, on, wait_until
from watch import GROUP_WAIT, LOOK, PATIENCE, SCRAPE, Watch, shortened, waits

pytestmark = pytest.mark.skipif(not WATCHED, reason="nobody watches this cluster: WHARF_LAB_INVENTORY=inventories/lab-watched make demo")
Step = Callable[[Cluster], object]


class Fault(NamedTuple):
    """What to break, how to mend it, what is told of it, and what may still be told for a while when it is mended."""

    inflict: Step
    mend: Step
    told: set[str]
    after: set[str] = set()


def each_node(script: str) -> Step:
    """A step that runs a script on every registry node."""
    return lambda cluster: [cluster.on(node, script) for node in cluster.nodes]


def one_node(number: int, script: str) -> Step:
    """A step that runs a script on one of the registry nodes."""
    return lambda cluster: cluster.on(cluster.nodes[number], script)


def other_balancer(script: str) -> Step:
    """A step that runs a script on the balancer that does not have the virtual address, which is $vip in it."""

    def step(cluster: Cluster) -> None:
        shown = {host: cluster.on(host, "ip -o -4 address show") for host in cluster.balancers}
        # With two holders: the one that got it without a prefix.
        host = min(shown, key=lambda host: (f" {cluster.vip}/24 " in shown[host], host))
        cluster.on(host, f"vip={cluster.vip}; {script}")

    return step


def client(script: str) -> Step:
    """A step that leaves a script running on the client host: $name is the registry's, $user curl's file with an account."""

    def step(cluster: Cluster) -> None:
        cluster.on(cluster.client, "umask 077; cat > /root/drill-user", stdin=f'user = "admin:{cluster.password}"\n')
        challenge = cluster.on(cluster.client, f"curl -sSI https://{cluster.name}/v2/").lower()
        # Where an account is checked.
        url = f"https://{cluster.name}/auth/token?service={cluster.name}" if "bearer" in challenge else f"https://{cluster.name}/v2/"
        variables = f"name={cluster.name} user=/root/drill-user url={shlex.quote(url)} HOME=/root"
        cluster.on(cluster.client, f"systemd-run -q --unit drill bash -c {shlex.quote(f'export {variables}; {script}')}")

    return step


def no_client(cluster: Cluster) -> None:
    """A step that ends what a client host does."""
    cluster.on(cluster.client, "systemctl stop drill; rm -f /root/drill-*")


def stall(cluster: Cluster) -> None:
    """Pulls that begin and are cut off, 30 a minute."""
    image = push_image(cluster, 60, layers=1)
    repository = image.rpartition(":")[0]
    find = f'crane manifest {image} | python3 -c \'import json, sys; print(json.load(sys.stdin)["layers"][-1]["digest"])\''
    digest = cluster.on(cluster.client, find).split()[-1]
    client(f"while :; do timeout -s KILL 1.5 crane blob {repository}@{digest} | (head -c 1; sleep 2) > /dev/null; done")(cluster)


def short_certificate(cluster: Cluster) -> None:
    """A certificate of the cluster's own authority that is good for six days, in use on one node."""
    edge = "/etc/wharf/edge"
    request = cluster.on("registry2", f"cp -p {edge}/tls.crt {edge}/tls.crt.kept; openssl req -new -key {edge}/tls.key -subj /CN=drill")
    authority = ["-CA", str(cluster.secrets / "ca.crt"), "-CAkey", str(cluster.secrets / "ca.key")]
    signing = ["openssl", "x509", "-req", "-days", "6", *authority, "-set_serial", "8", "-extfile", "/dev/stdin"]
    names = f"subjectAltName=DNS:{cluster.name}\nextendedKeyUsage=serverAuth\n"
    asked = cluster.secrets / ".drill.csr"
    asked.write_text(request)
    try:
        done = subprocess.run([*signing, "-in", str(asked)], input=names, capture_output=True, text=True, check=True)
    finally:
        asked.unlink()
    cluster.on("registry2", f"cat > {edge}/tls.crt && systemctl reload nginx", stdin=done.stdout)


_day = contextlib.ExitStack()


def failing_collection(cluster: Cluster) -> None:
    """A day begins, and the first node that looks cannot read the storage in the time that it has."""
    _day.enter_context(lifecycle.day_begins(cluster))
    cluster.on("registry2", f"""sed -i 's/"timeout": [0-9.]*/"timeout": 0.001/' {lifecycle.OPTIONS}""")
    assert "took longer" in lifecycle.look(cluster, "registry2")


def good_collection(cluster: Cluster) -> None:
    """Another node does the day's work; the first one sees it."""
    for node in ("registry3", "registry2"):
        assert lifecycle.look(cluster, node) == ""
    _day.close()


# A file system of 20 MB on every node, in the place of one that all share.
STORAGE = """
set -e; mkdir -p /srv/drill && mount -t tmpfs -o size=20m drill /srv/drill && head -c 18M /dev/zero > /srv/drill/images
cp -p /etc/wharf/metrics.json /etc/wharf/metrics.json.kept
sed -i 's|"storage": {}|"storage": {"name": "nfs.example.com:/drill", "path": "/srv/drill"}|' /etc/wharf/metrics.json
grep -q drill /etc/wharf/metrics.json"""

FAULTS = {
    "a node is killed": Fault(lab("kill", "registry2"), lab("start", "registry2"), {"WharfNodeDown registry2"}),
    "a registry is frozen": Fault(
        one_node(-1, f"kill -STOP {REGISTRY_PID}"),
        one_node(-1, f"kill -CONT {REGISTRY_PID}"),
        {"WharfNodeDown {last}"},
    ),
    "a balancer is killed": Fault(lab("kill", "lb1"), lab("start", "lb1"), {"WharfBalancerDown lb1"}),
    "two balancers have the virtual address": Fault(
        other_balancer("ip address add $vip/32 dev eth0"), other_balancer("ip address del $vip/32 dev eth0"), {"WharfVipNotHeldOnce"}
    ),
    "Redis hangs": Fault(
        on("store1", "systemctl kill -s STOP redis-server"), on("store1", "systemctl kill -s CONT redis-server"), {"WharfCacheDown store1"}
    ),
    "the storage is 90 % full": Fault(
        each_node(STORAGE),
        each_node("mv /etc/wharf/metrics.json.kept /etc/wharf/metrics.json; umount /srv/drill; rmdir /srv/drill"),
        {"WharfStorageAlmostFull"},
    ),
    "the storage hangs": Fault(
        on("store1", "systemctl kill -s STOP lab-s3"), on("store1", "systemctl kill -s CONT lab-s3"), {"WharfStorageNotWritable"}
    ),
    "one password in five is wrong": Fault(
        client(
            'n=0; while sleep 2; do curl -s -o /dev/null -K $user "$url"; [ $((n++ % 4)) != 0 ] || curl -s -o /dev/null -u mallory:guess "$url"; done'
        ),
        no_client,
        {"WharfAuthenticationFailures"},
    ),
    "nobody gives a password": Fault(
        client('while sleep 0.2; do curl -s -o /dev/null "$url" https://$name/v2/ https://$name/v2/shop/web/manifests/1; done'),
        no_client,
        set(),
    ),
    "pulls are cut off": Fault(
        stall,
        no_client,
        {"WharfPullTimeouts", "WharfErrorBudgetBurning read", "WharfErrorBudgetBurningSlowly read"},
        # Of a month's errors some are used up: that is told for as long as the six hours that it goes by.
        {"WharfErrorBudgetShrinking read"},
    ),
    "a certificate has six days left": Fault(
        short_certificate,
        on("registry2", "mv /etc/wharf/edge/tls.crt.kept /etc/wharf/edge/tls.crt && systemctl reload nginx"),
        {"WharfCertificateExpiresSoon registry2"},
    ),
    "a node has another secret": Fault(
        on("registry1", "cd /etc/wharf/registry && cp -p config.yml kept.yml && sed -i 's/^\\( *secret: \\).*/\\1another-one/' config.yml"),
        on("registry1", "cd /etc/wharf/registry && mv kept.yml config.yml"),
        {"WharfSettingsDiffer http_secret"},
    ),
    "garbage collection fails": Fault(failing_collection, good_collection, {"WharfGarbageCollectionRefused"}),
    "an exporter is stopped": Fault(
        one_node(0, "systemctl stop mtail"), one_node(0, "systemctl start mtail"), {"WharfExporterDown {first}"}
    ),
}
# One node alone is the whole service: other alerts tell of it.
CORE = ("one password in five is wrong", "an exporter is stopped", *(["a registry is frozen"] if len(CHOSEN.nodes) > 1 else []))
# Longer than any rule waits that must not tell of a fault what another has told already.
STAY = shortened("5m") + GROUP_WAIT


@pytest.fixture(scope="module")
def watch(cluster: Cluster) -> Iterator[Watch]:
    """The cluster is watched by who is in a hurry, and nothing is wrong."""
    found = Watch(cluster)
    found.hurry()
    try:
        # Whatever the nodes would do within the hour.
        for node in cluster.nodes:
            lifecycle.look(cluster, node)
        found.calm(240)
        yield found
    finally:
        found.rest()


@pytest.mark.skipif(os.environ.get("WHARF_BALANCER_MODE") == "stream", reason="one mode is enough, and this one has Redis")
@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.core if name in CORE else ()) for name in FAULTS])
def test_a_fault_is_told_and_nothing_else(cluster: Cluster, watch: Watch, report: list[str], name: str) -> None:
    drill(cluster, watch, report, name, FAULTS[name])


def drill(cluster: Cluster, watch: Watch, report: list[str], name: str, fault: Fault) -> None:
    """Let a fault happen, see what is told, mend it, see it go."""
    watch.calm(240)
    expected = {alert.format(first=cluster.nodes[0], last=cluster.nodes[-1]) for alert in fault.told}
    rule = max((waits(alert.split()[0]) for alert in expected), default=0)
    fault.inflict(cluster)
    try:
        fired = watch.follow(expected, expected, rule + 2 * SCRAPE + LOOK + PATIENCE, name)
        watch.stay(expected, STAY if expected else 3 * STAY, name)
    finally:
        fault.mend(cluster)
    begun = time.monotonic()
    wait_until(lambda: all_nodes_in(cluster), 60, f"all nodes back in service after: {name}")
    watch.follow(set(), expected | fault.after, 240, f"after: {name}")
    cleared = time.monotonic() - begun
    report.append(
        f"[alerts] {name}: {', '.join(sorted(expected)) or 'nothing'}; after {fired:.0f} s, the rule waits for {rule} s; gone {cleared:.0f} s after the mend"
    )


CLOCK = "clock1"  # a machine with a kernel, and so with a clock, of its own
LAB = [sys.executable, str(CHECKOUT / "tests/lab/lab.py")]


def clock(offset: float) -> Step:
    """A step that sets that machine's clock."""
    return lambda cluster: subprocess.run([*LAB, "machine", "clock", CLOCK, "--offset", str(offset)], check=True)


@pytest.fixture
def machine(cluster: Cluster, watch: Watch) -> Iterator[None]:
    """The machine is one of the hosts that tell of themselves."""
    subprocess.run([*LAB, "machine", "up", CLOCK], check=True)
    try:
        clock(0)(cluster)
        machines.ssh(CLOCK, "apt-get update -qq && apt-get install -y -qq --no-install-recommends prometheus-node-exporter", timeout=600)
        labels = {"job": "wharf_hosts", "cluster": cluster.name, "node": CLOCK, "role": "node"}
        watch.also({"targets": [f"{settings.MACHINES[CLOCK].address}:9100"], "labels": labels})
        yield
    finally:
        subprocess.run([*LAB, "machine", "down", CLOCK], check=True)


@pytest.mark.skipif("MOLECULE_SCENARIO_NAME" in os.environ, reason="such a machine is slow to prepare")
@pytest.mark.usefixtures("machine")
def test_a_wrong_clock_is_told(cluster: Cluster, watch: Watch, report: list[str]) -> None:
    fault = Fault(clock(90), clock(0), {f"WharfClockWrong {CLOCK}"})
    drill(cluster, watch, report, "a clock is 90 s ahead", fault)
