#!/usr/bin/env python3
# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Stage: wrong input for `site.yml` is refused before any host is changed, on the lab's hosts (tests/bad_input)."""

from common import CACHE, COLLECTIONS, ROOT, check_suite, environment, finish

reports = CACHE / "junit" / "bad_input"
check_suite(
    "pytest",
    reports,
    *("python", "-m", "pytest", "-q", "--tb=short", "--durations=5", "-p", "no:cacheprovider"),
    *(f"--junit-xml={reports}/bad_input.xml", "tests/bad_input"),
    env=environment(PYTHONPATH=str(COLLECTIONS), ANSIBLE_CONFIG=str(ROOT / "ansible.cfg")),
)
finish()
