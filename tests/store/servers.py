# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Real servers on loopback for the tests of the storage: registries of both generations, an S3 store, Redis.

All programs are the lab's: what is missing is fetched or built as `make demo` does it.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import socket
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from typing import Any, Callable, Iterator, Sequence

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "lab"))

import images  # noqa: E402
import settings  # noqa: E402
from shell import apt_install  # noqa: E402

from ansible_collections.wharf.registry.plugins.module_utils._registry_api import Registry, RegistryError  # noqa: E402

ACCESS_KEY, SECRET_KEY = "store-tests", "only-for-the-tests"


def free_port() -> int:
    """Return a port of loopback that nobody listens on. SeaweedFS takes the one 10,000 above as well, so it is a low one."""
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1] % 20000 + 20000
        with socket.socket() as first, socket.socket() as second, contextlib.suppress(OSError):
            first.bind(("127.0.0.1", port))
            second.bind(("127.0.0.1", port + 10000))
            return port


def wait_until(what: str, ready: Callable[[], bool], seconds: float = 60.0) -> None:
    """Wait until a server answers."""
    end = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < end, f"{what} does not answer after {seconds:.0f} s"
        time.sleep(0.1)


@contextlib.contextmanager
def running(command: Sequence[str | Path], log: Path, **more: Any) -> Iterator[subprocess.Popen]:
    """Run a server for as long as the context lasts."""
    with log.open("ab") as output:
        process = subprocess.Popen([str(part) for part in command], stdout=output, stderr=output, stdin=subprocess.DEVNULL, **more)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def registry_command(release: str) -> list[str | Path]:
    """Return how to start a registry of a release. 2.8 comes as Debian's dynamic binary, with its own loader and libraries."""
    if release == settings.REGISTRY_3:
        return [images.go_install(f"github.com/distribution/distribution/v3/cmd/registry@v{release}")]
    root = settings.STATE / "tools" / f"registry-{release}"
    if not root.exists():
        partial = root.with_suffix(".partial")
        with tarfile.open(images.registry_archive(release)) as archive:
            for layer in json.load(archive.extractfile("manifest.json"))[0]["Layers"]:
                with tarfile.open(fileobj=io.BytesIO(archive.extractfile(layer).read())) as content:
                    content.extractall(partial, filter="tar")
        partial.rename(root)
    loader = next(root.glob("lib64/ld-linux-*"))
    libraries = {str(path.parent) for path in root.rglob("*.so*")}
    return [loader, "--library-path", ":".join(sorted(libraries)), root / "bin/registry"]


@contextlib.contextmanager
def registry(release: str, folder: Path, sections: dict[str, Any]) -> Iterator[tuple[Registry, Path]]:
    """Run a registry over the storage (and Redis) of `sections`; yield a client of it and its configuration file."""
    port = free_port()
    config = folder / f"registry-{port}.yml"
    content = {
        "version": 0.1,
        "log": {"accesslog": {"disabled": True}, "level": "error"},
        "http": {"addr": f"127.0.0.1:{port}", "secret": "of all nodes"},
        **sections,
    }
    config.write_text(json.dumps(content))
    config.chmod(0o600)
    environment = {**os.environ, "OTEL_TRACES_EXPORTER": "none"}
    with running([*registry_command(release), "serve", config], folder / f"registry-{port}.log", env=environment):
        client = Registry(f"http://127.0.0.1:{port}")
        wait_until(f"registry {release}", lambda: _answers(client))
        yield client, config


def _answers(client: Registry) -> bool:
    try:
        client.ping()
        return True
    except RegistryError:
        return False


@contextlib.contextmanager
def s3_store(folder: Path, bucket: str = "registry") -> Iterator[dict[str, Any]]:
    """Run SeaweedFS with an S3 door and an empty bucket; yield the registry's `storage.s3` section for it."""
    import boto3
    import botocore.exceptions

    ports = {name: free_port() for name in ("master", "volume", "filer", "s3")}
    users = [{"name": "all", "credentials": [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}], "actions": ["Admin"]}]
    (folder / "s3.json").write_text(json.dumps({"identities": users}))
    command = [
        images.weed(), "server", f"-dir={folder}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-volume.max=0", "-master.volumeSizeLimitMB=200",
        f"-master.port={ports['master']}", f"-volume.port={ports['volume']}", "-filer", f"-filer.port={ports['filer']}",
        "-s3", f"-s3.port={ports['s3']}", f"-s3.config={folder / 's3.json'}",
    ]  # fmt: skip
    endpoint = f"http://127.0.0.1:{ports['s3']}"
    client = boto3.client(
        "s3", endpoint_url=endpoint, region_name="us-east-1", aws_access_key_id=ACCESS_KEY, aws_secret_access_key=SECRET_KEY
    )

    def ready() -> bool:
        try:
            client.create_bucket(Bucket=bucket)
            client.put_object(Bucket=bucket, Key="ready", Body=b"")
            client.delete_object(Bucket=bucket, Key="ready")
            return True
        except (botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError):
            return False

    with running(command, folder / "weed.log", cwd=folder):
        wait_until("the S3 store", ready)
        yield {
            "bucket": bucket, "region": "us-east-1", "regionendpoint": endpoint, "accesskey": ACCESS_KEY, "secretkey": SECRET_KEY,
            "rootdirectory": "/registry",
        }  # fmt: skip


@contextlib.contextmanager
def redis_server(folder: Path) -> Iterator[str]:
    """Run Redis, set up as the role redis_cache does it; yield its address.

    The package redis-tools brings the server's program under another name, and no service that would start by itself.
    """
    apt_install("redis-tools")
    port = free_port()
    command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--maxmemory", "64mb"]
    command += ["--maxmemory-policy", "allkeys-lru", "--dir", str(folder)]

    def ready() -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return True
        return False

    with running(command, folder / "redis.log", executable="/usr/bin/redis-check-rdb"):
        wait_until("Redis", ready)
        yield f"127.0.0.1:{port}"
