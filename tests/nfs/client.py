# Copyright (c) 2026 wharf.registry contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Clients with addresses of their own, and many that push and pull while something breaks."""

from __future__ import annotations

import base64
import gzip
import hashlib
import http.client
import io
import json
import os
import socket
import ssl
import tarfile
import threading
import time
import urllib.parse
from typing import NamedTuple

MANIFEST = "application/vnd.oci.image.manifest.v1+json"


def local(location: str) -> str:
    """The path of a location, which names the node that gave it."""
    parts = urllib.parse.urlsplit(location)
    return parts.path + ("?" + parts.query if parts.query else "")


def digest_of(content: bytes) -> str:
    """The name of a blob."""
    return "sha256:" + hashlib.sha256(content).hexdigest()


class Failed(Exception):
    """A push or a pull ended with this."""


class Image(NamedTuple):
    """An image of random layers: its blobs (the config first) and its manifest."""

    name: str
    blobs: list[bytes]
    manifest: bytes


def make_layer(size: int) -> tuple[bytes, bytes]:
    """A layer with one file of random bytes: as it is sent, and what is in it."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as archive:
        member = tarfile.TarInfo("random")
        member.size = size
        archive.addfile(member, io.BytesIO(os.urandom(size)))
    return gzip.compress(content.getvalue(), 1), content.getvalue()


def make_image(name: str, sizes: tuple[int, ...] = (300_000, 20_000)) -> Image:
    """A new image that nobody has seen before."""
    layers, contents = zip(*[make_layer(size) for size in sizes], strict=True)
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {},
        "rootfs": {"type": "layers", "diff_ids": [digest_of(content) for content in contents]},
    }
    blobs = [json.dumps(config).encode(), *layers]

    def descriptor(kind: str, content: bytes) -> dict[str, object]:
        return {"mediaType": f"application/vnd.oci.image.{kind}", "digest": digest_of(content), "size": len(content)}

    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": descriptor("config.v1+json", blobs[0]),
        "layers": [descriptor("layer.v1.tar+gzip", layer) for layer in layers],
    }
    return Image(name, blobs, json.dumps(manifest).encode())


class Registry:
    """The registry as one client sees it: by the address of a balancer or of one node's edge, from an address of the client's own."""

    def __init__(self, name: str, address: str, port: int, authority: str, password: str, source: str = "", patience: float = 30) -> None:
        self.name = name
        self.address = address
        self.port = port
        self.source = source
        self.patience = patience
        self.context = ssl.create_default_context(cafile=authority)
        self.credentials = "Basic " + base64.b64encode(f"admin:{password}".encode()).decode()

    def ask(self, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None) -> tuple[int, dict[str, str], bytes]:
        """Ask over a new connection; return status, headers and body."""
        connection = http.client.HTTPConnection(self.name, self.port, timeout=self.patience)
        plain = socket.create_connection((self.address, self.port), self.patience, (self.source, 0) if self.source else None)
        try:
            connection.sock = self.context.wrap_socket(plain, server_hostname=self.name)
            connection.request(method, path, body, {"Authorization": self.credentials, **(headers or {})})
            answer = connection.getresponse()
            return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
        finally:
            connection.close()
            plain.close()

    def answers(self) -> bool:
        """Whether it answers at all."""
        try:
            return self.ask("GET", "/v2/")[0] == 200
        except (OSError, http.client.HTTPException):
            return False

    def push(self, image: Image) -> None:
        """Push an image as clients do.

        Raises:
            Failed: the image was not acknowledged.
        """
        repository, tag = image.name.split(":")
        try:
            for blob in image.blobs:
                if self.ask("HEAD", f"/v2/{repository}/blobs/{digest_of(blob)}")[0] == 200:
                    continue
                status, headers, body = self.ask("POST", f"/v2/{repository}/blobs/uploads/")
                if status == 202:
                    status, headers, body = self.ask(
                        "PATCH", local(headers["location"]), blob, {"Content-Type": "application/octet-stream"}
                    )
                if status == 202:
                    location = local(headers["location"])
                    mark = "&" if "?" in location else "?"
                    status, headers, body = self.ask("PUT", f"{location}{mark}digest={urllib.parse.quote(digest_of(blob))}")
                if status != 201:
                    raise Failed(f"blob: {status} {body[:200]!r}")
            status, _headers, body = self.ask("PUT", f"/v2/{repository}/manifests/{tag}", image.manifest, {"Content-Type": MANIFEST})
            if status != 201:
                raise Failed(f"manifest: {status} {body[:200]!r}")
        except (OSError, http.client.HTTPException) as error:
            raise Failed(f"{type(error).__name__}: {error}") from error

    def pull(self, image: Image) -> None:
        """Pull an image and compare it with what was pushed.

        Raises:
            Failed: it is not there, or not bit for bit.
        """
        repository, tag = image.name.split(":")
        try:
            status, _headers, body = self.ask("GET", f"/v2/{repository}/manifests/{tag}", headers={"Accept": MANIFEST})
            if status != 200 or body != image.manifest:
                raise Failed(f"manifest: {status}, {len(body)} of {len(image.manifest)} bytes")
            for blob in image.blobs:
                status, _headers, body = self.ask("GET", f"/v2/{repository}/blobs/{digest_of(blob)}")
                if status != 200 or body != blob:
                    raise Failed(f"blob: {status}, {len(body)} of {len(blob)} bytes")
        except (OSError, http.client.HTTPException) as error:
            raise Failed(f"{type(error).__name__}: {error}") from error


class Load:
    """One pusher and one puller for each client, for as long as the context lasts. Who is not served tries again a moment later."""

    def __init__(self, clients: list[Registry], name: str) -> None:
        self.name = name
        self.clients = clients
        self.stop = threading.Event()
        self.acknowledged: list[Image] = []
        self.open: list[Image] = []
        self.failed_pushes: list[str] = []
        self.pulls: dict[Registry, list[tuple[float, float, str]]] = {client: [] for client in clients}
        self.threads = [
            threading.Thread(target=work, args=(client,), daemon=True) for client in clients for work in (self._push, self._pull)
        ]

    def __enter__(self) -> Load:
        self.fixed = make_image(f"load/{self.name}:fixed")
        self.clients[0].push(self.fixed)
        self.acknowledged.append(self.fixed)
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        for thread in self.threads:
            thread.join(90)

    def _push(self, client: Registry) -> None:
        number = 0
        while not self.stop.is_set():
            number += 1
            image = make_image(f"load/{self.name}-{self.clients.index(client)}:{number}")
            while True:
                try:
                    client.push(image)
                    self.acknowledged.append(image)
                    break
                except Failed as error:
                    self.failed_pushes.append(f"{client.source}: {error}")
                    if self.stop.wait(1):
                        self.open.append(image)
                        break
            self.stop.wait(0.3)

    def _pull(self, client: Registry) -> None:
        while not self.stop.is_set():
            begun, told = time.monotonic(), ""
            try:
                client.pull(self.fixed)
            except Failed as error:
                told = str(error)
            self.pulls[client].append((begun, time.monotonic(), told))
            self.stop.wait(1 if told else 0.3)

    def failed_pulls(self) -> list[str]:
        """What went wrong with pulls."""
        return [f"{client.source}: {told}" for client, seen in self.pulls.items() for _begun, _end, told in seen if told]

    def failed_twice(self) -> list[str]:
        """Clients whose pull failed, and failed again when they repeated it."""
        return [
            f"{client.source}: {first[2]}; {second[2]}"
            for client, seen in self.pulls.items()
            for first, second in zip(seen, seen[1:], strict=False)
            if first[2] and second[2]
        ]

    def waited(self) -> float:
        """The longest time for which some client got no image, in seconds."""
        gaps = []
        for seen in self.pulls.values():
            good = [end for _begun, end, told in seen if not told]
            gaps += [later - earlier for earlier, later in zip(good, good[1:], strict=False)]
        return max(gaps, default=0)

    def summary(self) -> str:
        """One line of figures."""
        pulls = [pull for seen in self.pulls.values() for pull in seen]
        failed = [pull for pull in pulls if pull[2]]
        return (
            f"{self.name}: {len(self.acknowledged)} images acknowledged, {len(self.failed_pushes)} pushes failed and were repeated, "
            f"{len(self.open)} open at the end; {len(pulls)} pulls, {len(failed)} failed, no client was without one for longer than {self.waited():.1f} s"
        )
