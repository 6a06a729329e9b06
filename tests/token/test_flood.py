# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A thousand wrong passwords a second through the edge, while somebody else pulls: what they cost, and how long he waits.

How long is told and not judged, for it takes a machine that does nothing else: `make bench BENCHMARKS=token_flood` judges it.
"""

from __future__ import annotations

import http.client
import json
import os
import ssl
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from edge import edge
from test_clients import Crane
from world import ROOT, SERVICE, World, basic, free_ports, registry, servers

KINDS = ("one", "many", "names")
ASKED = 1100  # a second
JUDGED = "WHARF_FLOOD_JUDGED" in os.environ
SECONDS, PULLS = (25, 800) if JUDGED else (7, 200)


@pytest.fixture(scope="module")
def front(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[World, int]]:
    """The edge, the service with hashes as people have them, and a registry."""
    folder = tmp_path_factory.mktemp("flood")
    world = World(folder / "token")
    world.write_accounts(10)
    port = free_ports(9)[8]
    with (
        world.serve(),
        registry(
            servers.settings.REGISTRY_3, folder / "registry", world.directory / "trusted.crt", "https://localhost/auth/token"
        ) as found,
        edge(folder / "edge", found[0], world, port),
    ):
        yield world, port


class Puller:
    """Somebody who pulls: a token with his password, then the manifest, on a connection that stays."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPSConnection("localhost", port, context=ssl._create_unverified_context(), timeout=30)

    def _ask(self, path: str, headers: dict[str, str]) -> bytes:
        self._connection.request("GET", path, headers=headers)
        answer = self._connection.getresponse()
        body = answer.read()
        assert answer.status == 200, body
        return body

    def p99(self) -> float:
        """Return what one pull in a hundred takes longer than, in milliseconds."""
        times = []
        for _pull in range(PULLS):
            started = time.monotonic()
            body = self._ask(f"/auth/token?service={SERVICE}&scope=repository:team/app:pull", basic("bob"))
            self._ask("/v2/team/app/manifests/1", {"Authorization": f"Bearer {json.loads(body)['token']}"})
            times.append(time.monotonic() - started)
            time.sleep(0.01)
        return statistics.quantiles(times, n=100)[98] * 1000


def processor(world: World) -> float:
    """Return the seconds of a processor that the service has used, its computing of hashes apart."""
    fields = Path(f"/proc/{world.pid}/stat").read_text().rsplit(") ", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@pytest.mark.parametrize("kind", KINDS)
def test_pulls_beside_a_thousand_wrong_passwords_a_second(front: tuple[World, int], tmp_path: Path, kind: str) -> None:
    world, port = front
    # The realm of this registry is elsewhere: who seeds the repository brings a token.
    token = world.get("repository:team/app:pull,push", headers=basic("alice")).json["token"]
    seed = Crane(tmp_path / "seed", f"localhost:{port}", "alice")
    (seed.folder / "config.json").write_text(json.dumps({"auths": {f"localhost:{port}": {"registrytoken": token}}}))
    assert seed.push("team/app:1")
    puller = Puller(port)
    puller.p99()
    quiet = puller.p99()
    computed, used = world.metric("wharf_token_passwords_computed_total"), processor(world)
    command = [sys.executable, str(ROOT / "tests/token/guesser.py"), str(port), str(ASKED), str(SECONDS), kind]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as guesser:
        assert guesser.stdout is not None
        assert guesser.stdout.readline() == "ready\n"
        time.sleep(1)
        loaded = puller.p99()
        told = json.loads(guesser.communicate(timeout=120)[0])
    guesses = sum(told["statuses"].values())
    used = processor(world) - used
    world.until(lambda: world.metric("wharf_token_passwords_waiting") == 0, 60)
    computed = world.metric("wharf_token_passwords_computed_total") - computed
    print(
        f"\n{kind}: p99 of a pull {quiet:.1f} ms, beside {guesses / told['seconds']:.0f} wrong passwords a second {loaded:.1f} ms;"
        f" {told['statuses']}, {computed:.0f} computed, {used / guesses * 1e6:.0f} µs of a processor for each"
    )
    assert guesses > 1000
    assert set(told["statuses"]) <= {"401", "429"}
    # Beyond the limits a guess costs next to nothing, whatever else the machine does: no hash, and a fraction of a millisecond.
    assert told["statuses"]["429"] > 0.9 * guesses
    assert computed < SECONDS * (36 if kind == "names" else 9)
    assert used / guesses < 0.0006
    if JUDGED:
        assert guesses / told["seconds"] >= 1000
        assert loaded < 2 * quiet
