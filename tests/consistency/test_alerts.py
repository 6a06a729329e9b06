# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Alerts lead to pages that exist, and use metrics that docs/metrics.md says somebody brings."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
RULES = yaml.safe_load((ROOT / "roles/prometheus_scrape/files/rules.yml").read_text(encoding="utf-8"))
RULE_LIST = [rule for group in RULES["groups"] for rule in group["rules"]]
ALERTS = [rule for rule in RULE_LIST if "alert" in rule]
RUNBOOKS = ROOT / "docs/runbooks"
KEYWORDS = {"and", "or", "unless", "by", "on", "without", "ignoring", "group_left", "group_right", "bool", "offset"}
REPOSITORY = yaml.safe_load((ROOT / "galaxy.yml").read_text(encoding="utf-8"))["repository"]

each_alert = pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert["alert"])


def metrics_of(expression: str) -> set[str]:
    """The metrics that an expression names."""
    bare = re.sub(r'\{[^}]*\}|\[[^\]]*\]|"[^"]*"|\b(?:by|on|without|ignoring)\s*\([^)]*\)', " ", expression)
    return {word for word in re.findall(r"\b[a-z_][\w:]*\b(?!\s*\()", bare) if word not in KEYWORDS}


def documented() -> set[str]:
    """The metrics in the first column of the tables of docs/metrics.md."""
    found: set[str] = set()
    for line in (ROOT / "docs/metrics.md").read_text(encoding="utf-8").splitlines():
        if line.startswith("| `"):
            found |= set(re.findall(r"`(\w+)`", line.split("|")[1]))
    return found


@each_alert
def test_alert_has_its_runbook(alert: dict[str, Any]) -> None:
    prefix = f"{REPOSITORY}/blob/main/"
    assert alert["annotations"]["runbook_url"].startswith(prefix)
    page = ROOT / alert["annotations"]["runbook_url"][len(prefix) :]
    assert page == RUNBOOKS / f"{alert['alert']}.md"
    text = page.read_text(encoding="utf-8")
    assert text.startswith(f"# {alert['alert']}\n")
    assert alert["annotations"]["description"] in text
    assert f"*Severity*: {alert['labels']['severity']}" in text
    assert f"*Waits for*: {alert['for']}." in text
    assert "## What to do" in text


@each_alert
def test_alert_says_what_is_wrong(alert: dict[str, Any]) -> None:
    assert set(alert["annotations"]) == {"summary", "description", "runbook_url"}
    assert "$labels.cluster" in alert["annotations"]["summary"]
    assert alert["labels"]["severity"] in ("critical", "warning")


def test_runbooks_are_all_of_alerts() -> None:
    pages = {path.stem for path in RUNBOOKS.glob("*.md")} - {"README"}
    assert pages == {alert["alert"] for alert in ALERTS}
    index = (RUNBOOKS / "README.md").read_text(encoding="utf-8")
    assert all(f"({page}.md)" in index for page in pages)


@pytest.mark.parametrize("rule", RULE_LIST, ids=lambda rule: rule.get("alert") or rule["record"])
def test_metrics_are_documented(rule: dict[str, Any]) -> None:
    records = {other["record"] for other in RULE_LIST if "record" in other}
    used = metrics_of(rule["expr"])
    assert used
    assert used - records - documented() == set()


def test_metrics_in_runbooks_are_documented() -> None:
    known = documented() | {rule["record"] for rule in RULE_LIST if "record" in rule}
    unknown = set()
    for page in RUNBOOKS.glob("*.md"):
        for word in re.findall(r"\b(?:wharf|registry|redis|node|probe)_[a-z0-9_]+\b", page.read_text(encoding="utf-8")):
            # Variables of roles look alike.
            if word.endswith(("_total", "_bytes", "_seconds", "_bucket", "_info")) and word.replace("_bucket", "") not in known:
                unknown.add(f"{page.name}: {word}")
    assert not unknown
