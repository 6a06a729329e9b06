# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Each alert fires when it should and only then, as `promtool test rules` sees it; and leads to a page that says what to do."""

from __future__ import annotations

import subprocess

import pytest
from ruletests import RULES, all_rules, cases, promtool, run_cases

RULE_LIST = all_rules()
ALERTS = [rule["alert"] for rule in RULE_LIST if "alert" in rule]
CASES = cases()


def test_promtool_accepts_the_rules() -> None:
    subprocess.run([promtool(), "check", "rules", str(RULES)], check=True)


def test_every_alert_has_cases_and_every_case_an_alert() -> None:
    assert sorted(CASES) == sorted(ALERTS)


@pytest.mark.parametrize("alert", ALERTS)
def test_cases_are_enough(alert: str) -> None:
    """At least one case in which it fires, and two in which it never does."""
    assert any(case.get("firing") for case in CASES[alert])
    assert sum(not case.get("firing") and bool(case.get("silent")) for case in CASES[alert]) >= 2


@pytest.mark.parametrize("alert", ALERTS)
def test_fires_when_it_should_and_only_then(alert: str) -> None:
    assert run_cases(alert, RULE_LIST, CASES[alert]) == ""
