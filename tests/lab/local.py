# Copyright (c) 2026 wharf.registry contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Parts of the lab as plain processes on loopback, without containers: for tests and benchmarks that need no cluster."""

from __future__ import annotations

import concurrent.futures
import json
import os
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

import images
import settings
from shell import LabError


def is_open(port: int) -> bool:
    """Return whether somebody listens on a port of 127.0.0.1."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def free_ports(count: int, above: int = 0) -> list[int]:
    """Return ports of 127.0.0.1 that nobody listens on, and for each that the port ``above`` it is free too."""
    found: list[int] = []
    # Below the ports that the system gives to outgoing connections, the ones above included.
    for port in range(11000 + os.getpid() % 500 * 20, 22000):
        for number in (port, port + above):
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    probe.bind(("127.0.0.1", number))
                except OSError:
                    break
        else:
            found.append(port)
        if len(found) == count:
            return found
    raise LabError("no free ports on 127.0.0.1")


class Process:
    """A program that runs for as long as the ``with`` block does; its output goes to a file in ``folder``."""

    def __init__(self, folder: Path, name: str, *command: str | Path, **environment: str) -> None:
        self.folder = folder
        self.log = folder / f"{name}.log"
        self._command = [str(part) for part in command]
        self._environment = {**os.environ, **environment}

    def __enter__(self) -> Process:
        self.folder.mkdir(parents=True, exist_ok=True)
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(self._command, cwd=self.folder, env=self._environment, stdout=log, stderr=log)
        return self

    def __exit__(self, *_unused: object) -> None:
        self._process.terminate()
        try:
            self._process.wait(2)
        except subprocess.TimeoutExpired:  # weed waits for its clients
            self._process.kill()
            self._process.wait()

    def wait_for(self, answers: Any, seconds: float = 60) -> None:
        """Wait until ``answers()`` neither raises nor returns False.

        Raises:
            LabError: if it takes too long or the program ended; the message has the end of its output.
        """
        end = time.monotonic() + seconds
        reason: object = ""
        while time.monotonic() < end and self._process.poll() is None:
            try:
                if answers() is not False:
                    return
            except Exception as error:
                reason = error
            time.sleep(0.2)
        raise LabError(f"{self._command[0]} does not answer: {reason}\n{self.log.read_text(errors='replace')[-2000:]}")


class S3Server(Process):
    """The lab's S3 store (SeaweedFS) on loopback, empty, with its data in ``folder``. Needs boto3."""

    def __init__(self, folder: Path) -> None:
        master, volume, filer, self.port = free_ports(4, above=10000)  # gRPC is 10000 above each
        self._config = folder / "s3.json"
        super().__init__(
            folder,
            "weed",
            *(images.weed(), "server", f"-dir={folder}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-volume.max=0"),
            *("-master.volumeSizeLimitMB=200", f"-master.port={master}", f"-volume.port={volume}", "-filer", f"-filer.port={filer}"),
            *("-s3", f"-s3.port={self.port}", f"-s3.config={self._config}", "-s3.port.iceberg=0", "-s3.port.lance=0"),
        )

    def __enter__(self) -> S3Server:
        self.folder.mkdir(parents=True, exist_ok=True)
        keys = {"accessKey": settings.S3_ACCESS_KEY, "secretKey": settings.S3_SECRET_KEY}
        self._config.write_text(
            json.dumps({"identities": [{"name": "wharf", "credentials": [keys], "actions": ["Admin", "Read", "Write", "List", "Tagging"]}]})
        )
        super().__enter__()
        try:
            self.wait_for(lambda: self.client().create_bucket(Bucket="ready"))
        except BaseException:
            self.__exit__()
            raise
        return self

    def client(self) -> Any:
        """Return a client of boto3."""
        import boto3
        import botocore.config

        return boto3.client(
            "s3",
            endpoint_url=f"http://127.0.0.1:{self.port}",
            aws_access_key_id=settings.S3_ACCESS_KEY,
            aws_secret_access_key=settings.S3_SECRET_KEY,
            region_name="us-east-1",
            config=botocore.config.Config(s3={"addressing_style": "path"}, max_pool_connections=32, retries={"max_attempts": 1}),
        )

    def load(self, root: Path, names: list[str], buckets: list[str]) -> None:
        """Make buckets and put files below ``root`` into each of them."""
        client = self.client()
        for bucket in buckets:
            client.create_bucket(Bucket=bucket)

        def put(name: str) -> None:
            content = (root / name).read_bytes()
            for bucket in buckets:
                client.put_object(Bucket=bucket, Key=name, Body=content)

        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            for _done in pool.map(put, names):
                pass

    def section(self, bucket: str, port: int = 0) -> dict[str, Any]:
        """Return the section ``s3`` of a registry's configuration for a bucket, perhaps through another port."""
        return {
            "bucket": bucket,
            "region": "us-east-1",
            "regionendpoint": f"http://127.0.0.1:{port or self.port}",
            "forcepathstyle": True,
            "secure": False,
            "accesskey": settings.S3_ACCESS_KEY,
            "secretkey": settings.S3_SECRET_KEY,
        }
