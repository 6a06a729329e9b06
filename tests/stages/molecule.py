#!/usr/bin/env python3
# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Stage: one Molecule scenario, on the lab's nodes. Each of its actions is a case."""

import re
import sys
import time

from common import ROOT, environment, finish, report, run, skip

scenario = sys.argv[1]
if not (ROOT / "molecule" / scenario / "molecule.yml").exists():
    skip(f"molecule {scenario}", "there is no such scenario")
    finish()
started = time.monotonic()
code, output = run(["molecule", "test", "--scenario-name", scenario], env=environment(MOLECULE_GLOB="molecule/*/molecule.yml"))
# Molecule 26 tells of each action "NAME ➜ ACTION: Executed: Successful"; older ones only "Running NAME > ACTION".
plain = re.sub(r"\x1b\[[0-9;]*m", "", output)
done = len(re.findall(rf"{re.escape(scenario)} ➜ \w+: Executed: Successful", plain))
report(f"molecule {scenario}", done if done or code else 1, int(code != 0), time.monotonic() - started)
finish()
