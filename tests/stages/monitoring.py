#!/usr/bin/env python3
# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Stage: alerts fire when they should and only then, and the roles of monitoring work on bare hosts (tests/monitoring).

Of the faults that can be made in the rules a sample is tried; `make mutants` tries all of them.
"""

import os

from common import CACHE, COLLECTIONS, check_suite, environment, finish

reports = CACHE / "junit" / "monitoring"
check_suite(
    "pytest",
    reports,
    # Two files at a time: much of it is waiting for hosts.
    *("python", "-m", "pytest", "-q", "-n", "2", "--dist", "loadfile", "--tb=short", "--durations=10", "-p", "no:cacheprovider"),
    *(f"--junit-xml={reports}/monitoring.xml", "tests/monitoring"),
    env=environment(PYTHONPATH=str(COLLECTIONS), WHARF_MUTANTS=os.environ.get("WHARF_MUTANTS", "60")),
)
finish()
