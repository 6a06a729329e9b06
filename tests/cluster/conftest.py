# Copyright (c) 2026 wharf.registry contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Fixtures of the tests that look at a running cluster from outside."""

from __future__ import annotations

import pytest
from cluster import Cluster, lab_cluster


@pytest.fixture(scope="session")
def cluster() -> Cluster:
    """The cluster of `inventories/lab`, every client logged in."""
    found = lab_cluster()
    found.login()
    return found
