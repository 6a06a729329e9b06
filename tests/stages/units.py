#!/usr/bin/env python3
# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Stage: unit tests with plain pytest, and types with mypy. Quick: this is what to run while writing code."""

from common import CACHE, COLLECTIONS, ROOT, check, check_suite, environment, finish

reports = CACHE / "junit" / "units"
check_suite(
    "pytest",
    reports,
    *("python", "-m", "pytest", "-q", "--tb=short", "-p", "no:cacheprovider", f"--junit-xml={reports}/units.xml", "tests/unit"),
    env=environment(PYTHONPATH=str(COLLECTIONS)),
)
package = "ansible_collections.wharf.registry.plugins"
check(
    "mypy",
    *("mypy", "--config-file", ROOT / "mypy.ini", "--cache-dir", CACHE / "mypy", "-p", package),
    cwd=COLLECTIONS,
)
finish()
