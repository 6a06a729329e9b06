# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The cases of the alerts notice faults of the rules: of all that can be made, or of a sample with WHARF_MUTANTS=NUMBER."""

from __future__ import annotations

import concurrent.futures
import os
import random

from mutants import Mutant, mutants
from ruletests import all_rules, cases, rules_for, run_cases

RULES = all_rules()
CASES = cases()
TOGETHER = 4  # cases of one run of promtool; most faults are noticed by the first few


def noticed(mutant: Mutant) -> bool:
    """Whether a case of an alert that the faulty rule is for ends differently."""
    rules = [mutant.rule if number == mutant.number else rule for number, rule in enumerate(RULES)]
    wanted = RULES[mutant.number]
    alerts = [alert for alert in CASES if wanted in rules_for(alert, RULES)]
    for alert in alerts:
        for begin in range(0, len(CASES[alert]), TOGETHER):
            if run_cases(alert, rules, CASES[alert][begin : begin + TOGETHER]):
                return True
    return False


def test_nineteen_of_twenty_faults_are_noticed() -> None:
    every = mutants(RULES)
    size = min(int(os.environ.get("WHARF_MUTANTS", "0")) or len(every), len(every))
    chosen = random.Random(8).sample(every, size)
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        results = list(pool.map(noticed, chosen))
    missed = [mutant.fault for mutant, caught in zip(chosen, results, strict=False) if not caught]
    print(f"\n{size} of {len(every)} faults tried, {size - len(missed)} noticed ({(size - len(missed)) / size:.1%})")
    print("\n".join(missed))
    assert len(missed) <= 0.05 * size
