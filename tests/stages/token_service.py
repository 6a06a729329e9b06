#!/usr/bin/env python3
# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Stage: the token service with the distribution's libraries, in front of real registries of both generations on loopback (tests/token)."""

from common import CACHE, COLLECTIONS, check_suite, environment, finish

reports = CACHE / "junit" / "token"
check_suite(
    "pytest",
    reports,
    *("python", "-m", "pytest", "-q", "-s", "--tb=short", "--durations=10", "-p", "no:cacheprovider"),
    *(f"--junit-xml={reports}/token.xml", "tests/token"),
    env=environment(PYTHONPATH=str(COLLECTIONS)),
)
finish()
