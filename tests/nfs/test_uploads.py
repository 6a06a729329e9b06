# Copyright (c) 2026 wharf.registry contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Real registries on the shared export: uploads whose every request goes to another node, as a balancer may send them."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import subprocess
import time
import urllib.parse
from typing import Iterator

import images
import machines
import pytest
from conftest import NODES, Storage
from settings import MACHINES

COUNT = 100
CONFIG = {
    "version": "0.1",
    "storage": {"filesystem": {"rootdirectory": "/srv/wharf/nfs/registry"}, "delete": {"enabled": True}},
    "http": {"addr": "0.0.0.0:5000", "secret": "the same on all nodes of this test"},
    "log": {"level": "warn"},
}


def ask(node: str, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None) -> tuple[int, dict[str, str], bytes]:
    """Ask one node's registry; return status, headers and body."""
    connection = http.client.HTTPConnection(MACHINES[node].address, 5000, timeout=30)
    try:
        connection.request(method, path, body, headers or {})
        answer = connection.getresponse()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
    finally:
        connection.close()


def local(location: str) -> str:
    """The path of a location, which names the node that gave it."""
    parts = urllib.parse.urlsplit(location)
    return parts.path + ("?" + parts.query if parts.query else "")


@pytest.fixture(scope="module")
def registries(storage: Storage) -> Iterator[list[str]]:
    """A registry of distribution 3 on every node, as the collection's user, over the mount that the role has made."""
    binary = images.registry()
    options = ["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR"]
    for name in NODES:
        target = f"ops@{MACHINES[name].address}:/tmp/registry"
        subprocess.run(["scp", "-q", "-i", str(images.SSH / "id_ed25519"), *options, str(binary), target], check=True, timeout=120)
        storage.ssh(name, f"cat > /etc/registry.json <<'EOF'\n{json.dumps(CONFIG)}\nEOF\nchmod 0755 /tmp/registry")
        run = "systemd-run --quiet --unit registry --uid 65532 --gid 65532 --setenv OTEL_TRACES_EXPORTER=none"
        storage.ssh(name, f"{run} /tmp/registry serve /etc/registry.json")
    for name in NODES:
        end = time.monotonic() + 60
        while True:
            try:
                assert ask(name, "GET", "/v2/")[0] == 200
                break
            except OSError:
                assert time.monotonic() < end, machines.ssh(name, "journalctl -n 20 -o cat -u registry", check=False).stdout
                time.sleep(0.5)
    yield NODES
    for name in NODES:
        storage.ssh(name, "systemctl stop registry", check=False)


def test_uploads_whose_requests_go_to_different_nodes(registries: list[str]) -> None:
    """POST, two PATCHes and the PUT each on another node than the request before; every node had been asked for the blob in vain."""
    failures = []
    begun = time.monotonic()
    for number in range(COUNT):
        content = os.urandom(20_000)
        digest = "sha256:" + hashlib.sha256(content).hexdigest()
        order = [registries[(number + step) % len(registries)] for step in range(4)]
        seen = [ask(name, "HEAD", f"/v2/team/app/blobs/{digest}")[0] for name in registries]
        if seen != [404] * len(registries):
            failures.append(f"{number}: there before it was pushed: {seen}")
        status, headers, _body = ask(order[0], "POST", "/v2/team/app/blobs/uploads/")
        for step, part in ((1, content[:9_000]), (2, content[9_000:])):
            if status == 202:
                status, headers, body = ask(
                    order[step], "PATCH", local(headers["location"]), part, {"Content-Type": "application/octet-stream"}
                )
                if status != 202:
                    failures.append(f"{number}: PATCH {step} on {order[step]}: {status} {body[:200]!r}")
        if status == 202:
            location = local(headers["location"])
            mark = "&" if "?" in location else "?"
            status, headers, body = ask(order[3], "PUT", f"{location}{mark}digest={urllib.parse.quote(digest)}")
            if status != 201:
                failures.append(f"{number}: PUT on {order[3]}: {status} {body[:200]!r}")
        for name in registries:
            status, _headers, body = ask(name, "GET", f"/v2/team/app/blobs/{digest}")
            if status != 200 or body != content:
                failures.append(f"{number}: GET on {name}: {status}, {len(body)} bytes")
    print(f"{COUNT} uploads over {len(registries)} nodes in {time.monotonic() - begun:.0f} s, {len(failures)} failures")
    assert not failures, "\n".join(failures[:10])
