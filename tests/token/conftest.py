# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Fixtures of the tests of the token service."""

from __future__ import annotations

from pathlib import Path
from typing import Iterator

import pytest
from world import World, registry, servers


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """The service, running, for all tests of a file."""
    with World(tmp_path_factory.mktemp("token")).serve() as running:
        yield running


@pytest.fixture
def own(tmp_path: Path) -> World:
    """A service of the test's own, which the test starts."""
    return World(tmp_path / "token")


@pytest.fixture(scope="module", params=[servers.settings.REGISTRY_3, servers.settings.REGISTRY_2])
def address(request: pytest.FixtureRequest, world: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a registry of either generation that goes by the service's tokens."""
    folder = tmp_path_factory.mktemp("registry") / "one"
    with registry(request.param, folder, world.directory / "trusted.crt", f"http://localhost:{world.port}/auth/token") as (found, _root):
        yield found
