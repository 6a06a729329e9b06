# Copyright (c) 2026 wharf.registry contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Fixtures of the fault drills: the cluster of `inventories/lab`, and a report of what the clients saw."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Iterator

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "cluster"))

from cluster import CHECKOUT, Cluster, lab_cluster  # noqa: E402
from load import push_image  # noqa: E402

MEGABYTES = int(os.environ.get("WHARF_DRILL_MEGABYTES", "300"))


@pytest.fixture(scope="session")
def cluster() -> Cluster:
    """The running cluster, every client logged in."""
    found = lab_cluster()
    found.login()
    return found


@pytest.fixture(scope="session")
def image(cluster: Cluster) -> str:
    """An image of several hundred megabytes in the registry."""
    return push_image(cluster, MEGABYTES)


@pytest.fixture(scope="session")
def report() -> Iterator[list[str]]:
    """Lines of the drill's report; printed and kept in .cache/drill.txt at the end."""
    lines: list[str] = []
    yield lines
    text = "\n".join(lines)
    print(f"\n{text}")
    (CHECKOUT / ".cache").mkdir(exist_ok=True)
    with (CHECKOUT / ".cache/drill.txt").open("a") as handle:
        handle.write(text + "\n")
