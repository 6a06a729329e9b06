# Copyright (c) 2026 wharf.registry contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What breaks under an NFS cluster while clients push and pull through its address: afterwards what was acknowledged is there bit for bit,
everything else can be repeated, and nobody had to help."""

from __future__ import annotations

import contextlib
import json
import shlex
import time
from typing import Callable, Iterator

import machines
import pytest
from client import Failed, Load, Registry
from settings import MACHINES
from storage import CLIENT, NODES, PATH, SERVER, Storage

EXPORT = "/srv/nfs/registry"
VICTIM = "machine3"  # no balancer
BEFORE, AFTER = 5, 5

# On a balancer: when the node leaves, and when it is back, in seconds after the script began.
WATCH = """
file=/etc/nginx/wharf_lb_upstream_http.conf; since() {{ awk -v b=$begun '{{printf "%.1f\\n", $1 - b}}' /proc/uptime; }}
read -r begun _ < /proc/uptime
for wanted in 1 0; do
  until grep -q '^ *server {0}:' $file; [ $? = $wanted ]; do
    read -r now _ < /proc/uptime; [ ${{now%.*}} -lt $(( ${{begun%.*}} + 180 )) ] || exit 1
    sleep 0.1
  done
  since
done"""


def patiently(work: Callable[[], None]) -> None:
    """As a user repeats a command whose connection was cut: three times, a moment later each."""
    for attempt in range(3):
        try:
            return work()
        except Failed:
            if attempt == 2:
                raise
            time.sleep(3)
    return None


def judge(storage: Storage, clients: list[Registry], load: Load) -> None:
    """All that was acknowledged is there, through other nodes than it was pushed to; all else is pushed again; no link is empty."""
    wrong = []
    for number, image in enumerate(load.acknowledged):
        try:
            patiently(lambda image=image, number=number: clients[number % len(clients)].pull(image))
        except Failed as error:
            wrong.append(f"{image.name} was acknowledged: {error}")
    for number, image in enumerate(load.open):
        try:
            patiently(lambda image=image, number=number: clients[number % len(clients)].push(image))
            patiently(lambda image=image, number=number: clients[(number + 1) % len(clients)].pull(image))
        except Failed as error:
            wrong.append(f"{image.name} cannot be pushed again: {error}")
    # And by somebody else's judgement.
    for image in load.acknowledged[:: max(len(load.acknowledged) // 5, 1)]:
        told = storage.cluster.on(CLIENT, f"crane validate --remote {storage.cluster.name}/{image.name} 2>&1 || echo FAILED", check=False)
        if "FAILED" in told:
            wrong.append(f"crane validate {image.name}: {told}")
    # Distribution 3 makes none; 2.8 does where it dies while it writes one.
    empty = empty_links(storage)
    if empty:
        reported = findings(storage)
        print(f"{len(empty)} links are empty")
        wrong += [f"{path} is empty, and nobody tells of it" for path in empty if not any(path.endswith(found) for found in reported)]
    assert not wrong, "\n".join(wrong[:20])
    assert len(load.acknowledged) > len(NODES)


def empty_links(storage: Storage) -> list[str]:
    """Links without a digest on the export."""
    return storage.ssh(SERVER, f"find {EXPORT}/registry/docker -name link -size 0").split()


def findings(storage: Storage) -> list[str]:
    """Paths of which garbage collection tells that they have no bytes."""
    config = json.dumps({"version": "0.1", "storage": {"filesystem": {"rootdirectory": f"{PATH}/registry"}}})
    script = f"echo {shlex.quote(config)} > /tmp/gc.yml; python3 /usr/local/lib/wharf/wharf.pyz gc --config /tmp/gc.yml --check"
    told = json.loads(storage.ssh(NODES[0], script, check=False, timeout=120))
    return [finding.get("path", "") for finding in told["findings"] if finding["kind"] == "zero-length"]


@contextlib.contextmanager
def fault(storage: Storage, clients: list[Registry], name: str) -> Iterator[Load]:
    """Clients push and pull while the body breaks and mends something; afterwards all gets well by itself, and is judged."""
    storage.settle()
    with Load(clients, name) as load:
        time.sleep(BEFORE)
        begun = time.monotonic()
        yield load
        storage.settle()
        whole = time.monotonic() - begun
        time.sleep(AFTER)
    print(f"\n{load.summary()}; whole again {whole:.0f} s after the fault began")
    judge(storage, clients, load)


@pytest.mark.core
def test_a_node_loses_its_power_while_it_is_pushed_to(storage: Storage, clients: list[Registry]) -> None:
    with fault(storage, clients, "node-power") as load:
        machines.cut([VICTIM])
        time.sleep(10)
        machines.up([VICTIM])
    assert not load.failed_twice(), "pulls go on at the other nodes"


@pytest.mark.core
def test_the_server_loses_its_power_for_20_seconds(storage: Storage, clients: list[Registry]) -> None:
    with fault(storage, clients, "server-power"):
        machines.cut([SERVER])
        time.sleep(20)
        machines.up([SERVER])


def test_the_network_between_a_node_and_the_server_is_cut_for_20_seconds(storage: Storage, clients: list[Registry]) -> None:
    """Its registry answers, its storage hangs: it leaves the balancers within seconds and comes back by itself."""
    with fault(storage, clients, "network-cut") as load:
        watch = storage.cluster.spawn(storage.cluster.balancers[0], WATCH.format(MACHINES[VICTIM].address))
        machines.part([VICTIM, SERVER])
        try:
            time.sleep(20)
        finally:
            machines.part([VICTIM, SERVER], apart=False)
        seconds = [float(word) for word in watch.communicate(timeout=200)[0].split()]
    print(f"the node left the balancers {seconds[0]} s after the cut, and was back after {seconds[1]} s")
    assert seconds[0] < 15 and len(seconds) == 2
    assert not load.failed_twice(), "pulls go on at the other nodes"


def test_a_node_without_any_network_for_20_seconds(storage: Storage, clients: list[Registry]) -> None:
    with fault(storage, clients, "unplugged") as load:
        machines.unplug([VICTIM])
        time.sleep(20)
        machines.plug([VICTIM])
    assert not load.failed_twice(), "pulls go on at the other nodes"


def test_the_export_is_full(storage: Storage, clients: list[Registry]) -> None:
    filler = f"{EXPORT}/../filler"
    with fault(storage, clients, "full-export") as load:
        storage.ssh(SERVER, f"fallocate -l $(( $(df --output=avail -B1 {EXPORT} | tail -1) - 2000000 )) {filler}")
        try:
            told = storage.wait(
                "no probe told that the export is full",
                lambda: any(problem["option"] == "space" for name in NODES for problem in storage.state(name)["problems"]),
                60,
            )
            time.sleep(AFTER)
        finally:
            storage.ssh(SERVER, f"rm -f {filler}")
    print(f"the probe told of it after {told:.0f} s")
    assert load.failed_pushes, "pushes went on: the export was not full"
    assert not load.failed_pulls(), "what is there can be pulled all along"


def test_a_clock_that_is_an_hour_off_changes_nothing(storage: Storage, clients: list[Registry]) -> None:
    storage.settle()
    machines.clock([VICTIM], 3600)
    try:
        with fault(storage, clients, "clock") as load:
            time.sleep(10)
        assert not load.failed_pushes and not load.failed_pulls()
    finally:
        machines.clock([VICTIM])


def test_reboots_one_after_another(storage: Storage, clients: list[Registry]) -> None:
    """Nobody helps: the export is mounted, tried, and the registry runs on it. The balancers are among the machines."""
    for name in (SERVER, *NODES):
        with fault(storage, clients, f"reboot-{name}") as load:
            machines.reboot([name])
        if name != SERVER:
            assert not load.failed_twice(), f"pulls go on while {name} is away"


@pytest.mark.core
def test_reboot_of_all_at_once(storage: Storage, clients: list[Registry]) -> None:
    with fault(storage, clients, "reboot-of-all"):
        machines.reboot([*NODES, SERVER])


def test_what_the_older_registry_leaves_empty_is_reported(storage: Storage, clients: list[Registry]) -> None:
    """Distribution 2.8 empties a link before it writes it: a power cut in between leaves it so. Garbage collection tells of it, and
    repeating the push repairs it."""
    storage.settle()
    with Load(clients, "empty-link") as load:
        time.sleep(5)
    image = load.acknowledged[-1]
    repository, tag = image.name.split(":")
    link = f"{EXPORT}/registry/docker/registry/v2/repositories/{repository}/_manifests/tags/{tag}/current/link"
    storage.ssh(SERVER, f"test -s {link} && truncate -s 0 {link}")
    time.sleep(2)  # longer than nodes remember
    reported = findings(storage)
    assert any(link.endswith(path) for path in reported), reported
    clients[1].push(image)
    clients[2].pull(image)
    assert not empty_links(storage)
