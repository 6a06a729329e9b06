# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The dashboards are those of their source, and ask for metrics that docs/metrics.md says somebody brings."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
import yaml
from test_alerts import documented, metrics_of

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "plugins/module_utils"))

import _panels  # noqa: E402  (found through the path above)

FOLDER = ROOT / "roles/prometheus_scrape/files/dashboards"
each_dashboard = pytest.mark.parametrize("name", _panels.DASHBOARDS)


@each_dashboard
def test_file_is_as_its_source_says(name: str) -> None:
    assert (FOLDER / f"{name}.json").read_text(encoding="utf-8") == _panels.as_file(name), "run tests/monitoring/dashboards.py"


@each_dashboard
def test_metrics_are_documented(name: str) -> None:
    unknown = set()
    for panel in _panels.PANELS[name]:
        for expression, _legend in panel.queries:
            used = metrics_of(expression.replace("$__rate_interval", "5m"))
            assert used
            # The series of a histogram.
            unknown |= {re.sub(r"_(bucket|sum|count)$", "", metric) for metric in used} - documented()
    assert not unknown


@each_dashboard
def test_panels_are_for_what_was_chosen(name: str) -> None:
    """Each selector of a query has all labels that the dashboard lets choose."""
    for panel in _panels.PANELS[name]:
        for expression, _legend in panel.queries:
            selectors = re.findall(r"\{([^}]*)\}", expression)
            assert selectors
            for selector in selectors:
                for choice in _panels._CHOOSES[name]:
                    assert f'{choice}="${choice}"' in selector, panel.title


def test_provisioning_is_for_files() -> None:
    content = yaml.safe_load((FOLDER / "provisioning.yml").read_text(encoding="utf-8"))
    assert content["apiVersion"] == 1
    assert [provider["type"] for provider in content["providers"]] == ["file"]
