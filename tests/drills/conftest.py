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

from change import deploy, no_tokens_left  # noqa: E402
from cluster import CHECKOUT, TOKENS, Cluster, lab_cluster  # noqa: E402
from load import push_image  # noqa: E402

MEGABYTES = int(os.environ.get("WHARF_DRILL_MEGABYTES", "300"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let those come last that are marked so."""
    items.sort(key=lambda item: item.get_closest_marker("last") is not None)


@pytest.fixture(scope="session")
def cluster() -> Cluster:
    """The running cluster, every client logged in."""
    found = lab_cluster()
    found.login()
    return found


@pytest.fixture(scope="session")
def tokens(cluster: Cluster, report: list[str]) -> Iterator[Cluster]:
    """The cluster with tokens and the accounts of tests/cluster/tokens.yml: as it is deployed, else for as long as these tests last."""
    before = os.environ.get("WHARF_EXTRA_VARS", "")
    if str(TOKENS) in before:
        yield cluster
        return
    os.environ["WHARF_EXTRA_VARS"] = f"{before} {TOKENS}"
    deploy(cluster, report, "to tokens")
    cluster.login()
    yield cluster
    os.environ["WHARF_EXTRA_VARS"] = before
    # Nobody needs the nodes of a scenario afterwards.
    if "MOLECULE_SCENARIO_NAME" not in os.environ:
        deploy(cluster, report, "back to passwords")
        no_tokens_left(cluster)
        cluster.login()


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
