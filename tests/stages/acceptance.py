#!/usr/bin/env python3
# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Stage: the modules on bare hosts of the lab's images, against real registries and clients (tests/acceptance).

Modules are killed 40 times each; WHARF_KILLS=200 make acceptance does it 200 times.
"""

import os

from common import CACHE, COLLECTIONS, check_suite, environment, finish

reports = CACHE / "junit" / "acceptance"
check_suite(
    "pytest",
    reports,
    *("python", "-m", "pytest", "-q", "--tb=short", "--durations=10", "-p", "no:cacheprovider"),
    *(f"--junit-xml={reports}/acceptance.xml", "tests/acceptance"),
    env=environment(PYTHONPATH=str(COLLECTIONS), WHARF_KILLS=os.environ.get("WHARF_KILLS", "40")),
)
finish()
