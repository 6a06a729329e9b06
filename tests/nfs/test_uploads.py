# Copyright (c) 2026 wharf.registry contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Real registries on the shared export: uploads whose every request goes to another node, as a balancer may send them."""

from __future__ import annotations

import os
import time
import urllib.parse

from client import Registry, digest_of, local

COUNT = 100


def test_uploads_whose_requests_go_to_different_nodes(registries: dict[str, Registry]) -> None:
    """POST, two PATCHes and the PUT each on another node than the request before; every node had been asked for the blob in vain."""
    nodes = list(registries.values())
    failures = []
    begun = time.monotonic()
    for number in range(COUNT):
        content = os.urandom(20_000)
        digest = digest_of(content)
        order = [nodes[(number + step) % len(nodes)] for step in range(4)]
        seen = [node.ask("HEAD", f"/v2/team/app/blobs/{digest}")[0] for node in nodes]
        if seen != [404] * len(nodes):
            failures.append(f"{number}: there before it was pushed: {seen}")
        status, headers, body = order[0].ask("POST", "/v2/team/app/blobs/uploads/")
        for step, part in ((1, content[:9_000]), (2, content[9_000:])):
            if status == 202:
                status, headers, body = order[step].ask(
                    "PATCH", local(headers["location"]), part, {"Content-Type": "application/octet-stream"}
                )
        if status == 202:
            location = local(headers["location"])
            mark = "&" if "?" in location else "?"
            status, headers, body = order[3].ask("PUT", f"{location}{mark}digest={urllib.parse.quote(digest)}")
        if status != 201:
            failures.append(f"{number}: upload: {status} {body[:200]!r}")
        for node in nodes:
            status, _headers, body = node.ask("GET", f"/v2/team/app/blobs/{digest}")
            if status != 200 or body != content:
                failures.append(f"{number}: GET on {node.address}: {status}, {len(body)} bytes")
    print(f"{COUNT} uploads over {len(nodes)} nodes in {time.monotonic() - begun:.0f} s, {len(failures)} failures")
    assert not failures, "\n".join(failures[:10])
