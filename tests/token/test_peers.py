# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Three nodes, each a service behind an edge: what is revoked at one is revoked at all, though one was down; strangers are not heard."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from edge import ask, edge
from people import Person
from world import PASSWORDS, World, basic, forge, free_ports

PEERS = "/auth/peers"


class Nodes:
    """Services that share key and accounts, and edges before them."""

    def __init__(self, folder: Path, count: int) -> None:
        self.ports = free_ports(40)[20 : 20 + count]
        self.worlds: list[World] = []
        self.running: list[contextlib.ExitStack] = []
        self.fronts: list[str] = []
        for number in range(count):
            world = World(folder / f"node{number}")
            first = self.worlds[0] if self.worlds else world
            for name in ("signer.key", "signer.crt", "trusted.crt", "own.secret", "htpasswd"):
                world.write(name, (first.directory / name).read_bytes())
            world.key, world.own_secret = first.key, first.own_secret
            world.port += number
            peers = [f"127.0.0.1:{port}" for port in self.ports if port != self.ports[number]]
            world.configure(listen=f"127.0.0.1:{world.port}", peers=peers, peer_name="localhost")
            self.worlds.append(world)
            self.running.append(contextlib.ExitStack())
        self._edges = contextlib.ExitStack()
        for number, world in enumerate(self.worlds):
            place = folder / f"edge{number}"
            self.fronts.append(
                self._edges.enter_context(edge(place, "127.0.0.1:1", world, self.ports[number], token_auth_peers=["127.0.0.1"]))
            )
        authorities = b"".join((folder / f"edge{number}/tls.crt").read_bytes() for number in range(count))
        for world in self.worlds:
            world.write("ca.crt", authorities)

    def start(self, *numbers: int) -> None:
        """Start services."""
        for number in numbers:
            self.running[number].enter_context(self.worlds[number].serve())

    def stop(self, *numbers: int) -> None:
        """Stop services."""
        for number in numbers:
            self.running[number].close()

    def close(self) -> None:
        """Stop everything."""
        self.stop(*range(len(self.running)))
        self._edges.close()


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[Nodes]:
    """Three nodes, which the test starts."""
    made = Nodes(tmp_path, 3)
    try:
        yield made
    finally:
        made.close()


def status(world: World, token: str) -> int:
    """Return what a token used as alice's password is answered."""
    return world.get("repository:team/app:pull", headers=basic("alice", token)).status


def test_a_revocation_holds_on_all_nodes(nodes: Nodes) -> None:
    nodes.start(0, 1, 2)
    first, second, third = nodes.worlds
    alice = Person(first)
    alice.sign_in("alice")
    one, two = alice.make("one"), alice.make("two")
    # Any node takes it, shows it, and shows its last use.
    assert status(second, one) == 200
    elsewhere = Person(third)
    elsewhere.cookies = alice.cookies
    third.until(lambda: 'scope="row">one<' in elsewhere.look().text, 15)
    first.until(lambda: "not yet" not in alice.look().text.split("</tr>")[1 if "one<" in alice.text.split("</tr>")[1] else 2], 25)
    answer = elsewhere.revoke("one")
    assert answer.status == 200
    assert "could not be told" not in answer.text
    assert [status(world, one) for world in nodes.worlds] == [401, 401, 401]
    assert [status(world, two) for world in nodes.worlds] == [200, 200, 200]
    # A node that is away does not keep the others from it, and hears of it when it is back.
    nodes.stop(2)
    answer = alice.revoke("two")
    assert "1 of 3 nodes could not be told yet" in answer.text
    assert [status(world, two) for world in (first, second)] == [401, 401]
    nodes.start(2)
    third.until(lambda: status(third, two) == 401, 15)
    # All know the same, on the disk too, and a sign-out counts everywhere.
    alice.send("/auth/signout", csrf=alice.csrf)
    assert "Signed in as" not in elsewhere.look().text
    third.until(lambda: len({(world.folder / "personal.json").read_text() for world in nodes.worlds}) == 1, 25)
    assert all(world.metric('wharf_token_peer_heard_timestamp_seconds{peer="127.0.0.1:%d"}' % nodes.ports[0]) for world in (second, third))


def test_a_lost_file_is_told_again(nodes: Nodes) -> None:
    nodes.start(0, 1)
    first, second, _third = nodes.worlds
    alice = Person(first)
    alice.sign_in("alice")
    kept, lost = alice.make("kept"), alice.make("lost")
    alice.revoke("lost")
    file = second.folder / "personal.json"
    # The other node is told within seconds, not at once.
    second.until(lambda: file.exists() and file.read_text() == (first.folder / "personal.json").read_text(), 15)
    nodes.stop(1)
    file.write_text("{")
    nodes.start(1)
    # Never for a moment is the revoked one good.
    end = time.monotonic() + 20
    while status(second, kept) != 200:
        assert status(second, lost) == 401
        assert time.monotonic() < end
        time.sleep(0.2)
    assert status(second, lost) == 401
    assert "lost" in file.read_text()


def test_strangers_are_not_heard(nodes: Nodes) -> None:
    nodes.start(0)
    first = nodes.worlds[0]
    front = nodes.fronts[0]
    alice = Person(first)
    alice.sign_in("alice")
    token = alice.make("laptop")
    jti = alice.identifier("laptop")
    now = int(time.time())
    state = {
        "tokens": {},
        "revoked": {jti: now + 999},
        "used": {},
        "accounts": {"root": {"groups": ["x"], "seen": now, "issuer": "i", "sub": "s"}},
    }
    body = json.dumps({"digest": "x", "state": state}).encode()
    claims = {"iss": "wharf", "sub": "node", "aud": "wharf/peer", "iat": now, "exp": now + 60, "jti": "1"}
    claims["body"] = hashlib.sha256(body).hexdigest()
    header = {"alg": "HS256", "typ": "wharf-peer+jwt"}

    def send(bearer: str, content: bytes = body) -> int:
        return ask(front, PEERS, {"Authorization": f"Bearer {bearer}"} if bearer else {}, "POST", content).status

    registry = first.get(headers=basic("alice")).json["token"]
    wrong = [
        "",
        token.removeprefix("wpt_"),
        registry,
        alice.cookies["__Host-wharf-session"],
        forge(header, claims, lambda data: hmac.digest(b"x" * 64, data, "sha256")),
        forge({**header, "alg": "ES256", "kid": first.key.kid}, claims, first.key.sign),
        forge({**header, "alg": "none"}, claims, lambda _data: b""),
        forge(header, {**claims, "exp": now - 60}, first.sign_own),
        forge(header, {**claims, "aud": "wharf/session"}, first.sign_own),
    ]
    assert [send(bearer) for bearer in wrong] == [401] * len(wrong)
    good = forge(header, claims, first.sign_own)
    # Good for this message only.
    assert send(good, body.replace(b"root", b"toor")) == 403
    assert send(forge(header, {**claims, "body": hashlib.sha256(b"{").hexdigest()}, first.sign_own), b"{") == 400
    assert status(first, token) == 200
    assert send(good) == 200
    assert status(first, token) == 401
    # What a node tells makes nobody an account of an identity provider that is not set.
    assert first.get(headers=basic("root")).status == 200
    for method in ("GET", "PUT", "DELETE"):
        assert ask(front, PEERS, {"Authorization": f"Bearer {good}"}, method).status in (403, 405)


def test_only_the_other_nodes_get_through_the_edge(own: World, tmp_path: Path) -> None:
    port = free_ports(30)[29]
    with own.serve(), edge(tmp_path / "edge", "127.0.0.1:1", own, port, token_auth_peers=["192.0.2.7"]) as front:
        assert ask(front, PEERS, {}, "POST", b"{}").status == 403
        # The page is there for everybody.
        page = ask(front, "/auth/")
        assert page.status == 200
        assert "default-src 'none'" in page.headers["content-security-policy"]
        assert ask(front, "/auth/style.css").headers["content-type"] == "text/css; charset=utf-8"
        assert ask(front, "/auth/exchange", basic("alice", PASSWORDS["alice"])).status == 404
        assert ask(front, "/auth/healthz").status == 404
        assert ask(front, "/auth/create", method="DELETE").status == 403
