# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Real servers on loopback for the tests of the storage: registries of both generations, an S3 store, Redis.

All programs are the lab's: what is missing is fetched or built as `make demo` does it.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any, Iterator

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "lab"))

import images  # noqa: E402
import local  # noqa: E402
import settings  # noqa: E402
from shell import apt_install  # noqa: E402

from ansible_collections.wharf.registry.plugins.module_utils._registry.api import Registry  # noqa: E402


def registry_command(release: str) -> list[str | Path]:
    """Return how to start a registry of a release. 2.8 comes as Debian's dynamic binary, with its own loader and libraries."""
    if release == settings.REGISTRY_3:
        return [images.registry()]
    root = settings.STATE / "tools" / f"registry-{release}"
    if not root.exists():
        partial = root.with_name(f"{root.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        with tarfile.open(images.registry_archive(release)) as archive:
            for layer in json.load(archive.extractfile("manifest.json"))[0]["Layers"]:
                subprocess.run(["tar", "-x", "-C", partial], input=archive.extractfile(layer).read(), check=True)
        partial.rename(root)
    loader = next(root.glob("lib64/ld-linux-*"))
    libraries = {str(path.parent) for path in root.rglob("*.so*")}
    return [loader, "--library-path", ":".join(sorted(libraries)), root / "bin/registry"]


@contextlib.contextmanager
def registry(release: str, folder: Path, sections: dict[str, Any]) -> Iterator[tuple[Registry, Path]]:
    """Run a registry over the storage (and Redis) of `sections`; yield a client of it and its configuration file."""
    (port,) = local.free_ports(1)
    config = folder / f"registry-{port}.yml"
    content = {
        "version": 0.1,
        "log": {"accesslog": {"disabled": True}, "level": "error"},
        "http": {"addr": f"127.0.0.1:{port}", "secret": "of all nodes"},
        **sections,
    }
    config.write_text(json.dumps(content))
    config.chmod(0o600)
    # A bundle of CAs in the environment makes the S3 client of 2.8 panic.
    environment = {"OTEL_TRACES_EXPORTER": "none", "AWS_CA_BUNDLE": ""}
    client = Registry(f"http://127.0.0.1:{port}")
    with local.Process(folder, f"registry-{port}", *registry_command(release), "serve", config, **environment) as process:
        process.wait_for(client.root)
        yield client, config


@contextlib.contextmanager
def s3_store(folder: Path, bucket: str = "registry") -> Iterator[dict[str, Any]]:
    """Run the S3 store with an empty bucket; yield the section `storage.s3` of a registry's configuration for it."""
    with local.S3Server(folder) as server:
        server.client().create_bucket(Bucket=bucket)
        yield server.section(bucket)


@contextlib.contextmanager
def redis_server(folder: Path) -> Iterator[str]:
    """Run Redis, set up as the role redis_cache does it; yield its address.

    The package redis-tools brings the server's program under another name, and no service that would start by itself.
    """
    apt_install("redis-tools")
    (port,) = local.free_ports(1)
    program = folder / "redis-server"  # the program goes by the name that it is called by
    program.symlink_to("/usr/bin/redis-check-rdb")
    command = [
        program,
        "--port",
        str(port),
        "--bind",
        "127.0.0.1",
        "--save",
        "",
        "--maxmemory",
        "64mb",
        "--maxmemory-policy",
        "allkeys-lru",
    ]
    with local.Process(folder, "redis", *command) as process:
        process.wait_for(lambda: socket.create_connection(("127.0.0.1", port), 1).close())
        yield f"127.0.0.1:{port}"
