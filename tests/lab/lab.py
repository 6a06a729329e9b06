#!/usr/bin/env python3
# Copyright (c) 2026 wharf.registry contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lab: real Debian hosts as systemd containers, on one machine, without an image registry.

Runs on Debian 12 as root with nothing but its Python. `lab.py up` brings it to the state that `inventories/lab`
describes, from whatever an interrupted run left behind; `lab.py down` removes it.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import os
import platform
import shutil
import subprocess
import sys
from typing import Iterator

import engine
import images
import machines
import nodes
import settings
from settings import DEFAULT_NODES, MACHINES, NODES, STATE
from shell import LabError, die, run, say


def check_machine() -> None:
    """Refuse a machine that cannot carry the lab, before anything is changed."""
    if os.geteuid() != 0:
        raise LabError("it needs root: it starts containers with a network of their own. Run it with sudo")
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        raise LabError(f"it needs Linux on x86_64, this is {platform.system()} on {platform.machine()}")
    if shutil.which("apt-get") is None:
        raise LabError("it needs a Debian machine (12 or later): apt-get is missing")
    STATE.mkdir(mode=0o755, parents=True, exist_ok=True)
    free = shutil.disk_usage(STATE).free / 2**30
    fresh = not (STATE / "archives").exists()
    if free < (12 if fresh else 4):
        raise LabError(f"{STATE} has {free:.1f} GiB free, the lab needs {12 if fresh else 4}")
    with open("/proc/meminfo", encoding="ascii") as handle:
        memory = int(handle.readline().split()[1]) / 2**20
    if memory < 5:
        raise LabError(f"the machine has {memory:.1f} GiB of memory, the lab needs 5")
    taken = run(["ip", "-o", "-4", "address", "show", "to", settings.SUBNET], check=False).stdout.split()
    if taken and taken[1] != settings.BRIDGE:
        raise LabError(f"the network {settings.SUBNET} is in use on {taken[1]}; the lab needs it")
    check_cache_port()


def check_cache_port() -> None:
    """Refuse when somebody else holds the package cache's port."""
    port = settings.APT_CACHE_PORT
    listeners = run(["ss", "-Hltnp", f"sport = :{port}"], check=False).stdout
    if listeners and not nodes.alive(nodes.CACHE_PID, "apt-cacher-ng"):
        raise LabError(f"port {port} is in use, the lab's package cache needs it: {listeners.strip()}")


@contextlib.contextmanager
def only_one() -> Iterator[None]:
    """One lab command at a time changes the lab."""
    STATE.mkdir(parents=True, exist_ok=True)
    with (STATE / "lock").open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("another lab command runs; waiting for it")
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def up(names: list[str]) -> None:
    """Bring the engine, the network, the package cache, the registry images and the named nodes up."""
    check_machine()
    with only_one():
        shutil.rmtree(STATE / "tmp", ignore_errors=True)
        engine.start()
        nodes.start_network()
        nodes.start_package_cache()
        nodes.start_nodes(names)
        nodes.remember_host_keys()
        if "store1" in names:
            nodes.create_bucket()
        for version in (settings.REGISTRY_3, settings.REGISTRY_2):
            images.registry_archive(version)
    say(f"up: {', '.join(names)}")


def down(keep_cache: bool) -> None:
    """Remove the lab; with ``keep_cache`` only its nodes and network, so that the next ``up`` is quick."""
    with only_one():
        machines.down(list(MACHINES), keep_disks=keep_cache)
        if engine.connect():
            nodes.remove_nodes()
            if not keep_cache:
                nodes.remove_images()
        if keep_cache:
            return
        nodes.stop_package_cache()
        engine.stop()
    nodes.remove_state()
    say("removed")


def status() -> None:
    """Print each node and its state."""
    if not engine.connect():
        raise LabError("no engine runs; `make demo` starts the lab")
    for name, node in NODES.items():
        state = nodes.state_of(name)
        print(f"{name:10} {node.address:15} {state['status'] if state else '-'}")


def run_machine(verb: str, names: list[str], offset: float) -> None:
    """Do something with machines that have kernels of their own."""
    if verb == "status":
        machines.status()
    elif verb == "clock":
        machines.clock(names, offset)
    else:
        with only_one():
            machines.VERBS[verb](names)


def main() -> int:
    """Run one subcommand; return the exit code."""
    parser = argparse.ArgumentParser(prog="lab.py", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    start = commands.add_parser("up", help="start the lab or the nodes named")
    start.add_argument("nodes", nargs="*", choices=[[], *NODES], help="default: those of inventories/lab")
    stop = commands.add_parser("down", help="remove the lab")
    stop.add_argument("--keep-cache", action="store_true", help="keep images and packages for the next start")
    commands.add_parser("status", help="list the nodes")
    commands.add_parser("env", help="print the environment in which `docker` talks to the lab's engine")
    image = commands.add_parser("image", help="print the name of an image, built if it is missing")
    image.add_argument("kind", choices=list(images.IMAGES))
    program = commands.add_parser("program", help="print the path of a program, built if it is missing; needs no running lab")
    program.add_argument("name", choices=list(images.PROGRAMS))
    machine = commands.add_parser("machine", help="machines with kernels of their own, e.g. `lab.py machine cut nfs1`")
    machine.add_argument("verb", choices=[*machines.VERBS, "clock", "status"])
    machine.add_argument("names", nargs="*", choices=[[], *MACHINES], help="default: all")
    machine.add_argument("--offset", type=float, default=0, metavar="SECONDS", help="with clock: how far from ours (default: 0)")
    docker = commands.add_parser("docker", help="run the docker client against the lab's engine, e.g. `lab.py docker kill registry1`")
    docker.add_argument("arguments", nargs=argparse.REMAINDER)
    options = parser.parse_args()
    try:
        if options.command == "up":
            up(options.nodes or list(DEFAULT_NODES))
        elif options.command == "down":
            down(options.keep_cache)
        elif options.command == "status":
            status()
        elif options.command == "machine":
            run_machine(options.verb, options.names or list(MACHINES), options.offset)
        elif options.command == "program":
            print(images.PROGRAMS[options.name]())
        else:
            if not engine.connect():
                raise LabError("no engine runs; `lab.py up` starts it")
            if options.command == "docker":
                return subprocess.call(["docker", *options.arguments])
            if options.command == "image":
                with only_one():
                    print(images.IMAGES[options.kind]())
            else:
                for name in ("DOCKER_HOST", "DOCKER_API_VERSION"):
                    if name in os.environ:
                        print(f"export {name}={os.environ[name]}")
    except LabError as error:
        return die(error)
    return 0


if __name__ == "__main__":
    sys.exit(main())
