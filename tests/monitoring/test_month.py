# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A healthy month raises no alert, and an ill week raises those of what is wrong with it, at a real Prometheus."""

from __future__ import annotations

import re
from typing import Iterator

import month
import pytest
from month import DAY, HEALTHY, HOUR, ILL, MINUTE, Alert
from recorded import running
from ruletests import all_rules

RULES = all_rules()


@pytest.fixture(scope="module")
def alerts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Alert]]:
    """What both clusters raise in their month."""
    with running(tmp_path_factory.mktemp("month"), month.openmetrics()) as address:
        yield month.raised(address, RULES)


def test_every_metric_of_the_rules_is_in_the_healthy_month() -> None:
    """What is missing would be silent, however ill."""
    wanted = {name for rule in RULES for name in re.findall(r"\b(?:wharf|node|redis|probe)_\w+(?=[\[{ )/])|\bup(?={)", rule["expr"])}
    wanted -= {name for name in wanted if re.fullmatch(r"wharf_(edges|balancers|caches|service|hosts)", name)}
    told = {metric for metric, _labels, _values, _step in month.Life(HEALTHY, 1).samples()}
    assert wanted - told == set()
    assert len(wanted) > 30


def test_a_healthy_month_raises_nothing(alerts: list[Alert]) -> None:
    assert [alert for alert in alerts if alert.labels["cluster"] == HEALTHY] == []


def test_an_ill_week_raises_what_is_wrong(alerts: list[Alert]) -> None:
    found = {alert.name: alert for alert in alerts if alert.labels["cluster"] == ILL}
    assert set(found) == {"WharfAuthenticationFailures", "WharfGarbageCollectionMissing", "WharfCertificateExpiresSoon"}
    assert len(found) == sum(alert.labels["cluster"] == ILL for alert in alerts), "one of them twice"
    begin, end = month.WRONG_PASSWORDS
    # Its window and its wait.
    assert begin + 5 * MINUTE <= found["WharfAuthenticationFailures"].begin <= begin + 15 * MINUTE
    assert end <= found["WharfAuthenticationFailures"].end <= end + 10 * MINUTE
    late = month.LAST_COLLECTION + 2 * DAY
    assert late <= found["WharfGarbageCollectionMissing"].begin <= late + HOUR
    soon = month.ILL_CERTIFICATE - 14 * DAY
    assert soon <= found["WharfCertificateExpiresSoon"].begin <= soon + HOUR
    assert found["WharfCertificateExpiresSoon"].labels["node"] == "registry2"
    assert min(found[name].end for name in ("WharfGarbageCollectionMissing", "WharfCertificateExpiresSoon")) > month.ILL_DAYS * DAY - HOUR
