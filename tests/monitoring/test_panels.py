# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every query of every dashboard gives numbers at a real Prometheus, and only those that were chosen."""

from __future__ import annotations

import json
import math
from typing import Iterator

import pytest
from recorded import CLUSTER, ask, prometheus
from ruletests import CHECKOUT

FOLDER = CHECKOUT / "roles/prometheus_scrape/files/dashboards"
DASHBOARDS = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(FOLDER.glob("*.json"))}
TARGETS = [
    pytest.param(name, target["expr"], id=f"{name}: {panel['title']} {target['refId']}")
    for name, dashboard in DASHBOARDS.items()
    for panel in dashboard["panels"]
    for target in panel["targets"]
]
CHOSEN = {"cluster": CLUSTER, "node": "registry2", "project": "shop"}


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, float]]:
    """The Prometheus."""
    with prometheus(tmp_path_factory.mktemp("prometheus")) as found:
        yield found


def chosen(expression: str, **values: str) -> str:
    """The query as Grafana sends it."""
    for name, value in {**CHOSEN, **values}.items():
        expression = expression.replace(f"${name}", value)
    return expression.replace("$__rate_interval", "1m")


@pytest.mark.parametrize(("name", "expression"), TARGETS)
def test_query_gives_numbers(recorded: tuple[str, float], name: str, expression: str) -> None:
    address, end = recorded
    answer = ask(address, chosen(expression), end - 30)
    assert answer["status"] == "success"
    assert not answer.get("warnings")
    values = [float(series["value"][1]) for series in answer["data"]["result"]]
    assert values
    assert all(math.isfinite(value) for value in values)
    # Nothing of another cluster.
    assert ask(address, chosen(expression, cluster="other"), end - 30)["data"]["result"] == []


def test_numbers_are_the_right_ones(recorded: tuple[str, float]) -> None:
    address, end = recorded

    def value(dashboard: str, title: str, place: int = 0) -> float:
        panel = next(panel for panel in DASHBOARDS[dashboard]["panels"] if panel["title"] == title)
        result = ask(address, chosen(panel["targets"][place]["expr"]), end - 30)["data"]["result"]
        return float(result[0]["value"][1])

    # Two nodes, the second with twice the requests of the first, two projects.
    assert value("cluster", "Pulls and pushes") == pytest.approx(12.0)
    assert value("cluster", "Pulls and pushes", 1) == pytest.approx(1.2)
    assert value("project", "Pulls and pushes") == pytest.approx(6.0)
    assert value("cluster", "Failed requests of clients") == pytest.approx(0.001)
    assert value("cluster", "Storage in use") == pytest.approx(0.636, abs=0.002)
    assert value("node", "Memory in use") == pytest.approx(0.25)
    assert value("node", "Clock: distance to Prometheus") == pytest.approx(0.1, abs=0.01)


@pytest.mark.parametrize("name", DASHBOARDS)
def test_dashboard_can_be_imported(name: str) -> None:
    """What Grafana needs to take a dashboard: an identity, a place for each panel, a data source that is chosen."""
    dashboard = DASHBOARDS[name]
    assert dashboard["uid"] == f"wharf-{name}"
    assert "id" not in dashboard
    numbers = [panel["id"] for panel in dashboard["panels"]]
    assert len(set(numbers)) == len(numbers)
    places = {(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in dashboard["panels"]}
    assert len(places) == len(numbers)
    assert {panel["datasource"]["uid"] for panel in dashboard["panels"]} == {"${datasource}"}
    assert dashboard["templating"]["list"][0]["name"] == "datasource"
    known = {variable["name"] for variable in dashboard["templating"]["list"]}
    assert {"cluster", name} <= known
