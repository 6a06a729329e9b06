# Copyright (c) 2026 wharf.registry contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Fixtures of the acceptance tests: bare Debian hosts, a host with clients, registries of both generations."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Callable, Iterator

import pytest
from hosts import REGISTRY_3, RELEASES, Host, host, registry_2


@pytest.fixture(scope="module")
def debian() -> Iterator[dict[str, Host]]:
    """A bare host of each Debian release."""
    with contextlib.ExitStack() as stack:
        yield {name: stack.enter_context(host(name, release)) for name, release in RELEASES.items()}


@pytest.fixture(scope="session")
def registries(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """The command of a registry of each generation."""
    return {"2.8": registry_2(tmp_path_factory.mktemp("registry")), "3": [str(REGISTRY_3)]}


@pytest.fixture
def serve(registries: dict[str, list[str]], tmp_path: Path) -> Iterator[Callable[[str, str], str]]:
    """Start a registry on loopback with further lines of configuration; return its address."""
    with contextlib.ExitStack() as stack:

        def start(generation: str, configuration: str) -> str:
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                address = f"127.0.0.1:{free.getsockname()[1]}"
            file = tmp_path / f"registry-{generation}.yml"
            file.write_text(f"version: 0.1\nstorage: {{inmemory: {{}}}}\nhttp: {{addr: {address}}}\n{configuration}")
            with (tmp_path / f"registry-{generation}.log").open("w") as log:
                process = subprocess.Popen(
                    [*registries[generation], "serve", str(file)],
                    stdout=log,
                    stderr=log,
                    env={**os.environ, "OTEL_TRACES_EXPORTER": "none"},
                )
            stack.callback(process.wait)
            stack.callback(process.kill)
            end = time.monotonic() + 30
            while status(f"http://{address}/") == 0:
                assert process.poll() is None and time.monotonic() < end, Path(log.name).read_text()[-2000:]
                time.sleep(0.1)
            return address

        yield start


def status(url: str, headers: dict[str, str] | None = None) -> int:
    """The status of a GET; 0 if nobody answers."""
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers or {}), timeout=20) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0
