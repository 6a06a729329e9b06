# Copyright (c) 2026 wharf.registry contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A client of one node's registry, and many that push while something breaks."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import subprocess
import threading
import time
import urllib.parse
from typing import NamedTuple

import images

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


def make_image(name: str, sizes: tuple[int, ...] = (300_000, 20_000)) -> Image:
    """A new image that nobody has seen before."""
    layers = [os.urandom(size) for size in sizes]
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {},
        "rootfs": {"type": "layers", "diff_ids": [digest_of(layer) for layer in layers]},
    }
    blobs = [json.dumps(config).encode(), *layers]

    def descriptor(kind: str, content: bytes) -> dict[str, object]:
        return {"mediaType": f"application/vnd.oci.image.{kind}", "digest": digest_of(content), "size": len(content)}

    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": descriptor("config.v1+json", blobs[0]),
        "layers": [descriptor("layer.v1.tar", layer) for layer in layers],
    }
    return Image(name, blobs, json.dumps(manifest).encode())


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

    def validate(self, image: Image) -> None:
        """Let crane validate an image."""
        result = subprocess.run(
            [str(images.crane()), "validate", "--insecure", "--remote", f"{self.address}:5000/{image.name}"],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        if result.returncode:
            raise Failed(result.stderr[-300:])


class Load:
    """One pusher and one puller for each node, for as long as the context lasts. Who is not served tries again a moment later."""

    def __init__(self, registries: dict[str, Registry], name: str) -> None:
        self.name = name
        # What a client waits for an answer, here no longer than the longest fault.
        self.registries = {node: Registry(registry.address, 15) for node, registry in registries.items()}
        self.stop = threading.Event()
        self.acknowledged: list[Image] = []
        self.open: list[Image] = []
        self.failed_pushes: list[str] = []
        self.pulls: dict[str, list[tuple[float, float, str]]] = {node: [] for node in registries}
        self.threads = [
            threading.Thread(target=work, args=(node,), daemon=True) for node in registries for work in (self._push, self._pull)
        ]

    def __enter__(self) -> Load:
        self.fixed = make_image(f"load/{self.name}:fixed")
        next(iter(self.registries.values())).push(self.fixed)
        self.acknowledged.append(self.fixed)
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        for thread in self.threads:
            thread.join(90)

    def _push(self, node: str) -> None:
        number = 0
        while not self.stop.is_set():
            number += 1
            image = make_image(f"load/{self.name}-{node}:{number}")
            while True:
                try:
                    self.registries[node].push(image)
                    self.acknowledged.append(image)
                    break
                except Failed as error:
                    self.failed_pushes.append(f"{node}: {error}")
                    if self.stop.wait(1):
                        self.open.append(image)
                        break
            self.stop.wait(0.1)

    def _pull(self, node: str) -> None:
        while not self.stop.is_set():
            begun, told = time.monotonic(), ""
            try:
                self.registries[node].pull(self.fixed)
            except Failed as error:
                told = str(error)
            self.pulls[node].append((begun, time.monotonic(), told))
            self.stop.wait(1 if told else 0.3)

    def failed_pulls(self, *nodes: str) -> list[str]:
        """What went wrong with pulls from these nodes."""
        return [f"{node}: {told}" for node in nodes for _begun, _end, told in self.pulls[node] if told]

    def summary(self) -> str:
        """One line of figures."""
        pulls = [pull for seen in self.pulls.values() for pull in seen]
        failed = [pull for pull in pulls if pull[2]]
        longest = max((end - begun for begun, end, _told in pulls), default=0)
        return (
            f"{self.name}: {len(self.acknowledged)} images acknowledged, {len(self.failed_pushes)} pushes failed and were repeated, "
            f"{len(self.open)} open at the end; {len(pulls)} pulls, {len(failed)} failed, longest {longest:.1f} s"
        )
