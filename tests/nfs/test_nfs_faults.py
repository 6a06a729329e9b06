# Copyright (c) 2026 wharf.registry contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What breaks under an NFS cluster, while clients push and pull: afterwards what was acknowledged is there, everything else can be repeated."""

from __future__ import annotations

import time

import machines
from client import Failed, Load, Registry
from conftest import NODES, SERVER, Storage

EXPORT = "/srv/nfs/registry"
VICTIM = NODES[0]
OTHERS = NODES[1:]
BEFORE, AFTER = 5, 5


def settle(storage: Storage, registries: dict[str, Registry], patience: float = 150) -> float:
    """Wait until every node's probe is content and every registry answers, by themselves; return how long that took."""
    begun = time.monotonic()
    storage.wait("the nodes did not get well by themselves", storage.healthy, patience)
    for name, registry in registries.items():
        storage.wait(f"the registry of {name} did not come back by itself", registry.answers, patience)
    return time.monotonic() - begun


def judge(storage: Storage, registries: dict[str, Registry], load: Load) -> None:
    """All that was acknowledged is there, on other nodes than it was pushed to; all else is pushed again; no link is empty."""
    nodes = list(registries.values())
    wrong = []
    for number, image in enumerate(load.acknowledged):
        try:
            nodes[number % len(nodes)].pull(image)
            if number % 5 == 0:
                nodes[(number + 1) % len(nodes)].validate(image)
        except Failed as error:
            wrong.append(f"{image.name} was acknowledged: {error}")
    for number, image in enumerate(load.open):
        try:
            nodes[number % len(nodes)].push(image)
            nodes[(number + 1) % len(nodes)].pull(image)
        except Failed as error:
            wrong.append(f"{image.name} cannot be pushed again: {error}")
    empty = storage.ssh(SERVER, f"find {EXPORT}/registry/docker -name link -size 0").split()
    wrong += [f"{path} is empty" for path in empty]
    assert not wrong, "\n".join(wrong[:20])
    assert len(load.acknowledged) > len(nodes)


def test_a_node_loses_its_power_while_it_is_pushed_to(storage: Storage, registries: dict[str, Registry]) -> None:
    settle(storage, registries)
    with Load(registries, "node-power") as load:
        time.sleep(BEFORE)
        machines.cut([VICTIM])
        begun = time.monotonic()
        time.sleep(10)
        machines.up([VICTIM])
        settle(storage, registries)
        back = time.monotonic() - begun
        time.sleep(AFTER)
    print(f"\n{load.summary()}; whole again {back:.0f} s after the cut")
    judge(storage, registries, load)
    assert not load.failed_pulls(*OTHERS)


def test_the_server_loses_its_power_for_20_seconds(storage: Storage, registries: dict[str, Registry]) -> None:
    settle(storage, registries)
    with Load(registries, "server-power") as load:
        time.sleep(BEFORE)
        machines.cut([SERVER])
        begun = time.monotonic()
        time.sleep(20)
        machines.up([SERVER])
        settle(storage, registries)
        back = time.monotonic() - begun
        time.sleep(AFTER)
    print(f"\n{load.summary()}; whole again {back:.0f} s after the cut")
    judge(storage, registries, load)


def test_the_network_between_a_node_and_the_server_is_cut_for_20_seconds(storage: Storage, registries: dict[str, Registry]) -> None:
    settle(storage, registries)
    with Load(registries, "network-cut") as load:
        time.sleep(BEFORE)
        machines.unplug([VICTIM])
        begun = time.monotonic()
        time.sleep(20)
        machines.plug([VICTIM])
        settle(storage, registries)
        back = time.monotonic() - begun
        time.sleep(AFTER)
    print(f"\n{load.summary()}; whole again {back:.0f} s after the cut")
    judge(storage, registries, load)
    assert not load.failed_pulls(*OTHERS)


def test_the_export_is_full(storage: Storage, registries: dict[str, Registry]) -> None:
    settle(storage, registries)
    with Load(registries, "full-export") as load:
        time.sleep(BEFORE)
        storage.ssh(SERVER, f"fallocate -l $(( $(df --output=avail -B1 {EXPORT} | tail -1) - 2000000 )) {EXPORT}/../filler")
        try:
            told = storage.wait(
                "no probe told that the export is full",
                lambda: any(problem["option"] == "space" for name in NODES for problem in storage.state(name)["problems"]),
                60,
            )
            time.sleep(AFTER)
        finally:
            storage.ssh(SERVER, f"rm -f {EXPORT}/../filler")
        settle(storage, registries)
        time.sleep(AFTER)
    print(f"\n{load.summary()}; the probe told of it after {told:.0f} s")
    judge(storage, registries, load)
    assert load.failed_pushes, "pushes went on: the export was not full"
    assert not load.failed_pulls(*NODES), "what is there can be pulled all along"


def test_a_clock_that_is_an_hour_off_changes_nothing(storage: Storage, registries: dict[str, Registry]) -> None:
    settle(storage, registries)
    machines.clock([VICTIM], 3600)
    try:
        with Load(registries, "clock") as load:
            time.sleep(10)
            assert storage.healthy()
        print(f"\n{load.summary()}")
        judge(storage, registries, load)
        assert not load.failed_pushes and not load.failed_pulls(*NODES)
    finally:
        machines.clock([VICTIM])


def test_reboots_one_after_another_and_all_at_once(storage: Storage, registries: dict[str, Registry]) -> None:
    """Nobody helps: the export is mounted, tried, and the registry runs on it."""
    settle(storage, registries)
    with Load(registries, "reboots") as load:
        time.sleep(2)
    for names in [[name] for name in (SERVER, *NODES)] + [[*NODES, SERVER]]:
        begun = time.monotonic()
        machines.reboot(names)
        answered = time.monotonic() - begun
        settle(storage, registries)
        print(f"\nreboot of {', '.join(names)}: they answered after {answered:.0f} s, all was well after {time.monotonic() - begun:.0f} s")
    judge(storage, registries, load)
