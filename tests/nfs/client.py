# Copyright (c) 2026 wharf.registry contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A client of one node's registry."""

from __future__ import annotations

import hashlib
import http.client
import urllib.parse


def local(location: str) -> str:
    """The path of a location, which names the node that gave it."""
    parts = urllib.parse.urlsplit(location)
    return parts.path + ("?" + parts.query if parts.query else "")


def digest_of(content: bytes) -> str:
    """The name of a blob."""
    return "sha256:" + hashlib.sha256(content).hexdigest()


class Registry:
    """The registry of one node, asked without a balancer."""

    def __init__(self, address: str, patience: float = 30) -> None:
        self.address = address
        self.patience = patience

    def ask(self, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None) -> tuple[int, dict[str, str], bytes]:
        """Ask; return status, headers and body."""
        connection = http.client.HTTPConnection(self.address, 5000, timeout=self.patience)
        try:
            connection.request(method, path, body, headers or {})
            answer = connection.getresponse()
            return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
        finally:
            connection.close()

    def answers(self) -> bool:
        """Whether it answers at all."""
        try:
            return self.ask("GET", "/v2/")[0] == 200
        except OSError:
            return False
