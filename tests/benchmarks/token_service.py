#!/usr/bin/env python3
# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Requests that a registry answers with tokens and with htpasswd at cost 10, and tokens that the service gives, all through balancer and edge.

Everything is on loopback: one registry for each, over the same storage, an edge before each and a balancer before that, by the roles' own
templates, the service with the distribution's libraries; `wrk` asks. Fails if tokens are not --at-least times as fast.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests/token"), str(ROOT / ".cache/collections")]

import bcrypt  # noqa: E402
from edge import ask, balancer, edge  # noqa: E402
from test_clients import Crane  # noqa: E402
from world import PASSWORDS, World, apt_install, basic, free_ports, registry, servers  # noqa: E402

ACCEPT = "Accept: application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json"


def wrk(url: str, header: str, seconds: int, connections: int) -> tuple[float, str]:
    """Return requests per second, and the time that 99 of 100 stay below; complain if one was refused."""
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "30s", "--latency", "-H", ACCEPT, "-H", header, url]
    output = subprocess.run(command, capture_output=True, text=True, check=True, timeout=seconds + 60).stdout
    if "Non-2xx" in output:
        sys.exit(f"refused:\n{output}")
    rate, p99 = (re.search(pattern, output) for pattern in (r"Requests/sec:\s+([\d.]+)", r"99%\s+(\S+)"))
    return float(rate[1]), p99[1]


def main() -> int:
    """Measure; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=int, default=20, help="how long each is asked (default: 20)")
    parser.add_argument("--at-least", type=float, default=50, help="how many times as fast tokens must be (default: 50)")
    options = parser.parse_args()
    apt_install("wrk")
    with tempfile.TemporaryDirectory() as temporary, contextlib.ExitStack() as running:
        folder = Path(temporary)
        world = World(folder / "token", cost=10)
        ports = free_ports(12)[6:]
        running.enter_context(world.serve())
        realm = f"https://localhost:{ports[2]}/auth/token"
        (folder / "data").mkdir()
        storage = {"filesystem": {"rootdirectory": str(folder / "data")}}
        htpasswd = folder / "htpasswd"
        htpasswd.write_text(f"alice:{bcrypt.hashpw(PASSWORDS['alice'].encode(), bcrypt.gensalt(10)).decode()}\n")
        old = {"auth": {"htpasswd": {"realm": "registry", "path": str(htpasswd)}}, "storage": storage}
        trusted = world.directory / "trusted.crt"
        release = servers.settings.REGISTRY_3
        by_token, _root = running.enter_context(registry(release, folder / "new", trusted, realm, {"storage": storage}))
        by_password, _root = running.enter_context(registry(release, folder / "old", trusted, realm, old))
        fronts = []
        for number, (name, address, service) in enumerate((("token", by_token, world), ("htpasswd", by_password, None))):
            place = folder / f"edge-{name}"
            found = running.enter_context(edge(place, address, service, ports[number], registry_edge_balancers=["127.0.0.1"]))
            fronts.append(running.enter_context(balancer(folder / f"balancer-{name}", {found: place}, ports[2 + number])))
        front, old_front = fronts
        assert Crane(folder / "crane", front, "alice").push("team/app:1")
        token = world.get("repository:team/app:pull", headers=basic("alice")).json["token"]
        password = f"Authorization: {basic('alice')['Authorization']}"
        print(f"load before: {os.getloadavg()[0]:.1f}")
        manifest = "/v2/team/app/manifests/1"
        results = {
            "manifests with a token": wrk(f"https://{front}{manifest}", f"Authorization: Bearer {token}", options.seconds, 16),
            "manifests with htpasswd": wrk(f"https://{old_front}{manifest}", password, options.seconds, 4),
            "manifests with a password, exchanged": wrk(f"https://{front}{manifest}", password, options.seconds, 16),
        }
        query = "service=registry.lab.test&scope=repository:team/app:pull"
        results["tokens"] = wrk(f"https://{front}/auth/token?{query}", password, options.seconds, 16)
        for name, (rate, p99) in results.items():
            print(f"{name:38} {rate:8.1f} /s   99% below {p99}")
        for name in ("bob", "carol"):
            started = time.monotonic()
            assert ask(front, "/auth/token?service=registry.lab.test", basic(name)).status == 200
            print(f"a cold login {(time.monotonic() - started) * 1000:30.0f} ms")
        ratio = results["manifests with a token"][0] / results["manifests with htpasswd"][0]
        print(f"tokens are {ratio:.0f} times as fast as htpasswd at cost 10")
    return 0 if ratio >= options.at_least else 1


if __name__ == "__main__":
    sys.exit(main())
