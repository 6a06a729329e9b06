# Copyright (c) 2026 wharf.registry contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The cluster over NFS: uploads whose every request goes to another node, as a balancer may send them; and pushes through its address."""

from __future__ import annotations

import concurrent.futures
import os
import time
import urllib.parse

from client import Registry, digest_of, local, make_image
from storage import Storage

COUNT = 100


def upload(edges: list[Registry], number: int) -> list[str]:
    """POST, two PATCHes and the PUT each on another node than the request before, after every node was asked for the blob in vain."""
    content = os.urandom(20_000)
    path = f"/v2/team/app/blobs/{digest_of(content)}"
    order = [edges[(number + step) % len(edges)] for step in range(4)]
    wrong = []
    seen = [edge.ask("HEAD", path)[0] for edge in edges]
    if seen != [404] * len(edges):
        wrong.append(f"{number}: there before it was pushed: {seen}")
    status, headers, body = order[0].ask("POST", "/v2/team/app/blobs/uploads/")
    for step, part in ((1, content[:9_000]), (2, content[9_000:])):
        if status == 202:
            status, headers, body = order[step].ask("PATCH", local(headers["location"]), part, {"Content-Type": "application/octet-stream"})
    if status == 202:
        location = local(headers["location"])
        mark = "&" if "?" in location else "?"
        status, headers, body = order[3].ask("PUT", f"{location}{mark}digest={urllib.parse.quote(digest_of(content))}")
    if status != 201:
        wrong.append(f"{number}: upload: {status} {body[:200]!r}")
    for edge in edges:
        status, _headers, body = edge.ask("GET", path)
        if status != 200 or body != content:
            wrong.append(f"{number}: GET on {edge.address}: {status}, {len(body)} bytes")
    return wrong


def test_uploads_whose_requests_go_to_different_nodes(edges: list[Registry]) -> None:
    begun = time.monotonic()
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        failures = [line for lines in pool.map(lambda number: upload(edges, number), range(COUNT)) for line in lines]
    print(f"\n{COUNT} uploads over {len(edges)} nodes in {time.monotonic() - begun:.0f} s, {len(failures)} failures")
    assert not failures, "\n".join(failures[:10])


def test_a_client_stays_with_its_node_and_sees_what_others_push(clients: list[Registry], storage: Storage) -> None:
    """The balancers give each client a node of its own; what one pushes through the virtual address, all others pull at once."""
    balancer, log = storage.cluster.holder_of_vip(), "/var/log/nginx/wharf_lb_access.json"
    before = int(storage.cluster.on(balancer, f"wc -l < {log}"))
    images = [make_image(f"team/front:{number}") for number in range(len(clients))]
    for client, image in zip(clients, images, strict=True):
        client.push(image)
        for other in clients:
            other.pull(image)
    for client in clients:
        script = f"""tail -n +{before + 1} {log} | grep -F '"client":"{client.source}"' | grep -o '"node":"[0-9.]*' | sort -u"""
        assert len(storage.cluster.on(balancer, script).split()) == 1, f"{client.source} went to several nodes"
