# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Through the edge, as clients come: tokens, passwords, lies about addresses, and the change from htpasswd to tokens without a failed pull."""

from __future__ import annotations

import contextlib
import copy
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import bcrypt
import pytest
from edge import ask, balancer, edge
from test_clients import Crane
from world import MODEL, PASSWORDS, World, basic, free_ports, registry, servers

DOCKER = "application/vnd.docker.distribution.manifest.v2+json"


def later_ports(count: int) -> list[int]:
    """Return free ports that the programs which start before will not take."""
    return free_ports(count + 6)[6:]


@pytest.fixture
def front(own: World, tmp_path: Path) -> Iterator[str]:
    """The edge, the service and a registry behind it."""
    port = later_ports(1)[0]
    realm = f"https://localhost:{port}/auth/token"
    with (
        own.serve(),
        registry(servers.settings.REGISTRY_3, tmp_path / "registry", own.directory / "trusted.crt", realm) as (address, _root),
        edge(tmp_path / "edge", address, own, port) as found,
    ):
        yield found


def test_the_way_through_the_edge(front: str, own: World, tmp_path: Path) -> None:
    challenge = ask(front, "/v2/")
    assert challenge.status == 401
    assert challenge.headers["www-authenticate"].startswith(f'Bearer realm="https://{front}/auth/token"')
    alice = Crane(tmp_path / "alice", front, "alice")
    assert alice.push("team/app:1")
    assert alice.pull("team/app:1")
    assert not alice.push("other/app:1")
    # The service is told by the edge who the client is and which request this was.
    line = own.lines()[-1]
    assert line["address"] == "127.0.0.1"
    assert len(line["request_id"]) == 32
    # Neither the exchange nor health is for others, and the metrics are for those who collect them: here, on loopback.
    assert ask(front, "/auth/exchange", basic("alice")).status == 404
    assert ask(front, "/wharf-edge-exchange", basic("alice")).status == 404
    assert ask(front, "/auth/metrics").status == 200
    assert ask(front, "/auth/token?service=x", method="DELETE").status == 403


def test_a_password_where_a_token_is_expected(front: str, tmp_path: Path) -> None:
    assert Crane(tmp_path / "alice", front, "alice").push("team/app:1")
    assert ask(front, "/v2/", basic("carol")).status == 200
    assert ask(front, "/v2/team/app/tags/list", basic("carol")).status == 200
    assert ask(front, "/v2/team/app/manifests/1", basic("carol")).status == 200
    assert ask(front, "/v2/team/app/blobs/uploads/", basic("carol"), "POST").status == 401
    assert ask(front, "/v2/team/app/blobs/uploads/", basic("alice"), "POST").status == 202
    assert ask(front, "/v2/_catalog", basic("carol")).status == 401
    assert ask(front, "/v2/_catalog", basic("root")).status == 200
    wrong = ask(front, "/v2/team/app/manifests/1", basic("carol", "wrong"))
    assert wrong.status == 401
    assert wrong.headers["www-authenticate"].startswith("Basic")


@pytest.mark.parametrize("release", [servers.settings.REGISTRY_3, servers.settings.REGISTRY_2])
def test_immutable_tags(own: World, tmp_path: Path, release: str) -> None:
    port = later_ports(1)[0]
    realm = f"https://localhost:{port}/auth/token"
    with (
        own.serve(),
        registry(release, tmp_path / "registry", own.directory / "trusted.crt", realm) as (address, _root),
        edge(tmp_path / "edge", address, own, port) as front,
    ):
        model = copy.deepcopy(MODEL)
        model["projects"]["team"]["immutable_tags"] = ["v*"]
        loaded = own.metric("wharf_token_config_loaded_timestamp_seconds")
        own.configure(access=model, registry=f"http://{address}")
        own.until(lambda: own.metric("wharf_token_config_loaded_timestamp_seconds") > loaded)
        alice = Crane(tmp_path / "alice", front, "alice")
        assert alice.push("team/app:v1")
        assert alice.push("team/app:latest")
        assert alice.push("public/app:v1")
        bob = Crane(tmp_path / "bob", front, "bob")
        assert not bob.push("team/app:v1")
        assert bob.push("team/app:latest")
        assert bob.push("team/app:v2")
        manifest = ask(front, "/v2/team/app/manifests/latest", {**basic("bob"), "Accept": DOCKER})
        headers = {"Content-Type": manifest.headers["content-type"]}
        token = {"Authorization": f"Bearer {own.get('repository:team/app:*', headers=basic('bob')).json['token']}"}
        body = manifest.text.encode()
        # However the tag is written in the request, and with a password or a token.
        for path in (
            "/v2/team/app/manifests/v1",
            "/v2/team/app/manifests/%76%31",
            "/v2/team/%61pp/manifests/v1",
            "/v2/team/app/%6danifests/v1",
        ):
            for who in (basic("bob"), token):
                refused = ask(front, path, {**headers, **who}, "PUT", body)
                assert refused.status == 403, path
                assert "never overwritten" in refused.text
        # By digest nothing is overwritten.
        digest = manifest.headers["docker-content-digest"]
        assert ask(front, f"/v2/team/app/manifests/{digest}", {**headers, **token}, "PUT", body).status == 201
        assert "immutable" in {line["result"] for line in own.lines()}
        # Who may delete may push it anew.
        assert bob.delete("team/app:v1")
        assert bob.push("team/app:v1")


def test_lies_about_the_address_are_no_way_around_the_limits(front: str) -> None:
    statuses = []
    for number in range(14):
        lies = {"X-Forwarded-For": f"203.0.113.{number}", "X-Real-IP": f"203.0.113.{number}", "Forwarded": f"for=203.0.113.{number}"}
        statuses.append(ask(front, "/auth/token?service=registry.lab.test", {**basic("alice", f"guess {number}"), **lies}).status)
    assert statuses == [401] * 10 + [429] * 4
    limited = ask(front, "/auth/token?service=registry.lab.test", basic("alice", "another guess"))
    assert int(limited.headers["retry-after"]) >= 1


def test_who_holds_a_token_goes_on_without_the_service(own: World, tmp_path: Path) -> None:
    port = later_ports(1)[0]
    realm = f"https://localhost:{port}/auth/token"
    with contextlib.ExitStack() as service, contextlib.ExitStack() as others:
        service.enter_context(own.serve())
        trusted = own.directory / "trusted.crt"
        address, _root = others.enter_context(registry(servers.settings.REGISTRY_3, tmp_path / "registry", trusted, realm))
        front = others.enter_context(edge(tmp_path / "edge", address, own, port))
        assert Crane(tmp_path / "alice", front, "alice").push("team/app:1")
        token = own.get("repository:team/app:pull", headers=basic("alice")).json["token"]
        service.close()
        assert ask(front, "/v2/team/app/manifests/1", {"Authorization": f"Bearer {token}"}).status == 200
        assert ask(front, "/auth/token?service=registry.lab.test", basic("alice")).status == 502


#: Hands a socket over as systemd does, and becomes the service.
HAND_OVER = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1")
os.execv(sys.argv[2], sys.argv[2:])
"""


def test_a_restart_is_not_noticed(own: World, tmp_path: Path) -> None:
    """The socket stays, as on a node, and so do the edge's connections: those that the old service closes are no failed requests."""
    port = later_ports(1)[0]
    statuses: list[int] = []
    stop = threading.Event()

    def fetch() -> None:
        while not stop.is_set():
            statuses.append(ask(front, "/auth/token?service=registry.lab.test&scope=repository:team/app:pull", basic("alice")).status)

    with socket.create_server(("127.0.0.1", own.port), backlog=1024) as held, contextlib.ExitStack() as services:

        def start() -> subprocess.Popen[bytes]:
            command = [sys.executable, "-c", HAND_OVER, str(held.fileno()), *own.command]
            process = subprocess.Popen(command, env={**os.environ, **own.environment}, pass_fds=[held.fileno()])
            services.callback(process.wait, 30)
            services.callback(process.terminate)
            return process

        running = start()
        with edge(tmp_path / "edge", "127.0.0.1:1", own, port) as front:
            threads = [threading.Thread(target=fetch) for _number in range(3)]
            for thread in threads:
                thread.start()
            for _number in range(4):
                time.sleep(1)
                running.terminate()
                running.wait(30)
                running = start()
            own.until(lambda: own.request("GET", "/healthz").status == 200)
            stop.set()
            for thread in threads:
                thread.join(30)
    assert len(statuses) > 50
    assert set(statuses) == {200}


@pytest.mark.parametrize("release", [servers.settings.REGISTRY_3, servers.settings.REGISTRY_2])
def test_the_change_from_htpasswd_to_tokens(own: World, tmp_path: Path, release: str) -> None:
    """Each request reaches the next edge in turn: the worst that a client can meet. First nodes with htpasswd beside nodes with tokens that
    ask for passwords; then those beside nodes that ask for tokens."""
    htpasswd = tmp_path / "htpasswd"
    htpasswd.write_text("".join(f"{name}:{bcrypt.hashpw(text.encode(), bcrypt.gensalt(4)).decode()}\n" for name, text in PASSWORDS.items()))
    ports = later_ports(4)
    storage = {"filesystem": {"rootdirectory": str(tmp_path / "data")}, "delete": {"enabled": True}}
    (tmp_path / "data").mkdir()

    def rounds(who: Crane, name: str) -> None:
        for number in range(6):
            assert who.push(f"team/{name}:{number}")
            assert who.pull(f"team/{name}:{number}")

    # The realm is under the name that clients use: that of the balancer, which is known only when it runs, so it is one of the edges'.
    realm = f"https://localhost:{ports[3]}/auth/token"
    old = {"auth": {"htpasswd": {"realm": "registry", "path": str(htpasswd)}}, "storage": storage}
    trusted = own.directory / "trusted.crt"
    with (
        own.serve(),
        registry(release, tmp_path / "old", trusted, realm, old) as (old_address, _old_root),
        registry(release, tmp_path / "new", trusted, realm, {"storage": storage}) as (new_address, _new_root),
        edge(tmp_path / "edge-old", old_address, None, ports[1]) as edge_old,
        edge(tmp_path / "edge-basic", new_address, own, ports[2], registry_edge_basic_challenge=True) as edge_basic,
        edge(tmp_path / "edge-token", new_address, own, ports[3]) as edge_token,
    ):
        assert ask(edge_basic, "/v2/").headers["www-authenticate"] == 'Basic realm="registry"'
        with balancer(tmp_path / "first", {edge_old: tmp_path / "edge-old", edge_basic: tmp_path / "edge-basic"}, ports[0]) as mixed:
            rounds(Crane(tmp_path / "alice1", mixed, "alice"), "first")
        with balancer(tmp_path / "second", {edge_basic: tmp_path / "edge-basic", edge_token: tmp_path / "edge-token"}, ports[0]) as mixed:
            rounds(Crane(tmp_path / "alice2", mixed, "alice"), "second")
