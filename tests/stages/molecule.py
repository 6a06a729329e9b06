#!/usr/bin/env python3
# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Stage: one Molecule scenario, on the lab's nodes: `molecule.py SCENARIO [ACTION...]`. Each action is a case, and each test that they run.

Without actions it is the whole scenario; with them these alone, and then what was created is destroyed.
"""

import re
import shutil
import sys
import time

from common import CACHE, ROOT, count_reports, environment, failed_cases, finish, report, run, skip

scenario, actions = sys.argv[1], sys.argv[2:]
if not (ROOT / "molecule" / scenario / "molecule.yml").exists():
    skip(f"molecule {scenario}", "there is no such scenario")
    finish()
started = time.monotonic()
reports = CACHE / "junit" / f"molecule-{scenario}"
shutil.rmtree(reports, ignore_errors=True)
# Molecule remembers what it has created. An interrupted run's memory would have it skip the creation, so each run begins with none.
state = CACHE / "molecule" / scenario
shutil.rmtree(state, ignore_errors=True)
# A playbook of the scenario that runs pytest leaves a JUnit report in this folder, if it wants its cases counted.
settings = environment(
    MOLECULE_GLOB="molecule/*/molecule.yml",
    MOLECULE_EPHEMERAL_DIRECTORY=str(state),
    WHARF_TEST_REPORTS=str(reports),
)
code = passed = failed = 0
for action in actions or ["test"]:
    code, output = run(["molecule", action, "--scenario-name", scenario], env=settings)
    recap = re.search(rf"^{re.escape(scenario)} +: actions=\d+ +successful=(\d+) .*failed=(\d+)", output, re.M)
    passed, failed = (passed + int(recap[1]), failed + int(recap[2])) if recap else (passed, failed)
    if code:
        break
if actions:
    run(["molecule", "destroy", "--scenario-name", scenario], env=settings)
inner_passed, inner_failed = count_reports(reports)
# Molecule has said much since.
print("\n".join(failed_cases(reports)), flush=True)
report(f"molecule {scenario}", passed + inner_passed, max(failed + inner_failed, int(code != 0)), time.monotonic() - started)
finish()
