# Copyright (c) 2026 wharf.registry contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the cluster's Prometheus and Alertmanager answer."""

from __future__ import annotations

import json
import sys
from typing import Any

from cluster import CHECKOUT, CHOSEN, Cluster

sys.path.insert(0, str(CHECKOUT / "plugins/module_utils"))

import _panels  # noqa: E402  (found through the path above)
import yaml  # noqa: E402

RULES: list[dict[str, Any]] = [
    rule
    for group in yaml.safe_load((CHECKOUT / "roles/prometheus_scrape/files/rules.yml").read_text(encoding="utf-8"))["groups"]
    for rule in group["rules"]
]
#: A storage in a folder of the lab is as full as the disk of the machine that runs the tests, and whatever else fills that.
OF_THIS_MACHINE = {"WharfStorageFullSoon", "WharfStorageAlmostFull"} if CHOSEN.cache == "" else set()
#: Every query of the dashboards; the report has those of the first.
QUERIES = [query for panels in _panels.PANELS.values() for panel in panels for query, _legend in panel.queries]


def ask(cluster: Cluster, url: str) -> Any:
    """What an interface on the host that watches answers: port, path and arguments."""
    return json.loads(cluster.on(cluster.monitor, f"curl -sSf -m 10 'http://127.0.0.1:{url}'"))


def query(cluster: Cluster, expression: str) -> list[dict[str, Any]]:
    """The series that Prometheus answers with."""
    answer = cluster.on(
        cluster.monitor, "curl -sSf -m 10 -G http://127.0.0.1:9090/api/v1/query --data-urlencode query@-", stdin=expression
    )  # fmt: skip
    found = json.loads(answer)
    assert found["status"] == "success" and not found.get("warnings"), found
    result: list[dict[str, Any]] = found["data"]["result"]
    return result


def pending(cluster: Cluster) -> set[str]:
    """Alerts that fire, and those that will if what they are about stays so."""
    return {named(alert["labels"]) for alert in ask(cluster, "9090/api/v1/alerts")["data"]["alerts"]} - OF_THIS_MACHINE


def named(labels: dict[str, str]) -> str:
    """An alert, and what it is about."""
    return " ".join([labels["alertname"], *(labels[label] for label in ("node", "operation", "setting") if label in labels)])
