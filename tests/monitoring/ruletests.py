# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The rules of prometheus_scrape, the cases of each alert, and how `promtool test rules` runs them."""

from __future__ import annotations

import copy
import json
import re
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import burn_rates
import yaml

CHECKOUT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(CHECKOUT / "tests/lab"))

import programs  # noqa: E402  (the lab's own module, found through the path above)

RULES = CHECKOUT / "roles/prometheus_scrape/files/rules.yml"
CASES = Path(__file__).with_name("alerts.yml")

Rule = dict[str, Any]


@cache
def promtool() -> str:
    """The program that tests rules, of the distribution's Prometheus."""
    return str(programs.program("prometheus", "promtool"))


def all_rules() -> list[Rule]:
    """Every rule of the file, in its order."""
    content = yaml.load(RULES.read_text(encoding="utf-8"), Loader=yaml.CSafeLoader)
    return [rule for group in content["groups"] for rule in group["rules"]]


def rules_for(alert: str, rules: list[Rule]) -> list[Rule]:
    """The rule of an alert and the recording rules that it needs."""
    rule = next(rule for rule in rules if rule.get("alert") == alert)
    needed = set(re.findall(r"wharf:[\w:]+", rule["expr"]))
    return [*(record for record in rules if record.get("record") in needed), rule]


def cases() -> dict[str, list[dict[str, Any]]]:
    """The cases of each alert, those of the error budgets included."""
    # Texts only: YAML would take a series of zeros such as 0x20 for a hexadecimal number.
    return {**yaml.load(CASES.read_text(encoding="utf-8"), Loader=yaml.CBaseLoader), **burn_rates.cases()}


def _test(alert: Rule, case: dict[str, Any]) -> dict[str, Any]:
    """One case in promtool's own form."""
    checks = [{"eval_time": time, "alertname": alert["alert"], "exp_alerts": []} for time in case.get("silent", [])]
    for time, expected in case.get("firing", {}).items():
        alerts = []
        for found in expected:
            labels = {**alert["labels"], **found}
            summary = labels.pop("summary")
            alerts.append({"exp_labels": labels, "exp_annotations": {**alert["annotations"], "summary": summary}})
        checks.append({"eval_time": time, "alertname": alert["alert"], "exp_alerts": alerts})
    series = [{"series": name, "values": values} for name, values in case["series"].items()]
    return {"name": case["case"], "interval": case.get("interval", "1m"), "input_series": series, "alert_rule_test": checks}


def run_cases(alert: str, rules: list[Rule], chosen: list[dict[str, Any]]) -> str:
    """Run cases of an alert against rules; return what promtool complains of, nothing if all is as expected."""
    rules = copy.deepcopy(rules_for(alert, rules))
    # Error budgets look at days: their rules are evaluated with their samples.
    interval = {case.get("evaluation", "15s") for case in chosen}
    complaints = []
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "rules.yml").write_text(json.dumps({"groups": [{"name": "all", "rules": rules}]}))
        files = []
        for number, every in enumerate(sorted(interval)):
            tests = [_test(rules[-1], case) for case in chosen if case.get("evaluation", "15s") == every]
            content = {"rule_files": ["rules.yml"], "evaluation_interval": every, "tests": tests}
            files.append(f"test-{number}.yml")
            (Path(folder) / files[-1]).write_text(json.dumps(content))
        result = subprocess.run([promtool(), "test", "rules", *files], cwd=folder, capture_output=True, text=True, timeout=120, check=False)
        if result.returncode:
            complaints.append(result.stdout + result.stderr)
    return "\n".join(complaints)
