#!/usr/bin/env python3
# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Stage: what works on a registry's storage, against real registries, an S3 store and Redis on loopback (tests/store).

This is the short form of it; `make drill-store` runs 500 generated storages and ten minutes of pushes on each kind of cluster.
"""

from common import CACHE, COLLECTIONS, check_suite, environment, finish

reports = CACHE / "junit" / "store"
check_suite(
    "pytest",
    reports,
    *("python", "-m", "pytest", "-q", "-s", "--tb=short", "--durations=10", "-p", "no:cacheprovider", "-m", "not long"),
    *(f"--junit-xml={reports}/store.xml", "tests/store"),
    env=environment(PYTHONPATH=str(COLLECTIONS), WHARF_ORACLE_STORES="60"),
)
finish()
