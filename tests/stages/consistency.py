#!/usr/bin/env python3
# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Stage: what the parts of the collection say about each other is true (tests/consistency)."""

from common import CACHE, check_suite, finish

reports = CACHE / "junit" / "consistency"
check_suite(
    "pytest",
    reports,
    "python",
    "-m",
    "pytest",
    "-q",
    "--tb=short",
    "-p",
    "no:cacheprovider",
    f"--junit-xml={reports}/consistency.xml",
    "tests/consistency",
)
finish()
