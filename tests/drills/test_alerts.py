# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Faults, one at a time, each of which raises exactly the alerts that it should, and no more once it is over.

On two hosts of its own: the first is node, balancer, cache and watcher, the second a node. The rules are the collection's with all times
divided, so that what waits for minutes waits for seconds.
"""

from __future__ import annotations

import datetime
import json
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Callable, Iterator, NamedTuple

import pytest
import yaml

TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS / "monitoring"), str(TESTS / "acceptance")]

from hosts import RELEASES, host  # noqa: E402  (found through the path above)
from single import Single  # noqa: E402

DIVISOR = 15
SCRAPE = 2  # seconds between two scrapes, and between two evaluations
# An alert may take as long as it waits, its window, two scrapes, a probe's time-out, and a busy machine.
SLACK = 25
SECOND = "single2"
# What a host tells of itself every minute, more often.
TIMER = "[Timer]\nOnCalendar=\nOnCalendar=*:*:0/4\nAccuracySec=100ms\n"
DURATION = re.compile(r"^(\d+)([smhd])$")
SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def divided(duration: str) -> str:
    """A duration of the rules, divided; as long as three scrapes at least."""
    number, unit = DURATION.findall(duration)[0]
    return f"{max(int(number) * SECONDS[unit] // DIVISOR, 3 * SCRAPE)}s"


def divide(text: str) -> str:
    """The rules with all waiting times and windows divided, but for the forecast: a few minutes tell nothing about a day."""
    rules = yaml.safe_load(text)
    for rule in (rule for group in rules["groups"] for rule in group["rules"]):
        if rule.get("alert") != "WharfStorageFullSoon":
            rule["expr"] = re.sub(r"(?<=\[)\d+[smhd](?=\])", lambda found: divided(found[0]), rule["expr"])
            rule.update({"for": divided(rule["for"])} if "for" in rule else {})
    return yaml.safe_dump(rules)


class Drill(Single):
    """The hosts, and what Alertmanager tells of them."""

    def alerts(self) -> set[str]:
        """What somebody is told: alerts that fire and do not follow from another."""
        query = "active=true&inhibited=false&silenced=false"
        found = json.loads(self.host.on(f"curl -sSf 'http://127.0.0.1:9093/api/v2/alerts?{query}'"))
        now = datetime.datetime.now(datetime.UTC)
        return {
            alert["labels"]["alertname"] + (" " + alert["labels"]["node"] if "node" in alert["labels"] else "")
            for alert in found
            if datetime.datetime.fromisoformat(alert["endsAt"].replace("Z", "+00:00")) > now
        }

    def wait_for_alerts(self, wanted: set[str], seconds: float) -> float:
        """Wait until these alerts are told and no other; return how long it took."""
        begun = time.monotonic()
        while (told := self.alerts()) != wanted:
            assert not told - wanted, f"told: {told}, expected: {wanted}"
            assert time.monotonic() - begun < seconds, f"after {seconds:g} s told: {told}, expected: {wanted}"
            time.sleep(1)
        return time.monotonic() - begun

    def wait_for_silence(self, seconds: float) -> None:
        """Wait until nothing is told any more."""
        self.wait(seconds, "silence", lambda: not self.alerts())


@pytest.fixture(scope="module")
def drill(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Drill]:
    """Two hosts that are watched, and nothing is wrong."""
    with host("alerts1", RELEASES["debian13"], services=True) as first, host("alerts2", RELEASES["debian13"], services=True) as second:
        found = Drill(tmp_path_factory.mktemp("alerts"), "3", first, **{SECOND: second})
        found.secrets()
        found.start_registry()
        found.changes(["redis_cache", "registry_edge", "lifecycle", "nginx_lb"])
        for machine in found.hosts.values():
            machine.on("systemctl start wharf-lifecycle.service")
        found.changes(["exporters", "prometheus_scrape"], prometheus_scrape_interval=SCRAPE)
        for machine in found.hosts.values():
            machine.on("cd /etc/systemd/system && mkdir wharf-metrics.timer.d && cat > wharf-metrics.timer.d/drill.conf", stdin=TIMER)
            machine.on("systemctl daemon-reload && systemctl restart wharf-metrics.timer")
        # The test's own: quick evaluation, and the rules with their times divided. The address that nobody holds here is one to hold.
        first.on(f"sed -i 's/evaluation_interval: .*/evaluation_interval: {SCRAPE}s/' /etc/prometheus/prometheus.yml")
        rules = first.on("cat /etc/prometheus/wharf/rules.yml")
        first.on("cat > /etc/prometheus/wharf/rules.yml", stdin=divide(rules))
        first.on(f"ip address add {found.variables['exporters_vip']}/32 dev lo; systemctl start wharf-metrics")
        first.on("systemctl reload prometheus")
        time.sleep(4 * SCRAPE)
        found.wait_for_silence(90)
        yield found


class Fault(NamedTuple):
    """What to break, what is told of it, and how long the rule waits, window included, before it is divided."""

    inflict: Callable[[Drill], Any]
    mend: Callable[[Drill], Any]
    told: set[str]
    waits: int


def on_second(script: str) -> Callable[[Drill], Any]:
    """A step that runs a script on the second host."""
    return lambda drill: drill.hosts[SECOND].on(script)


def engine(verb: str) -> Callable[[Drill], Any]:
    """A step that does something to the second host as a whole."""
    return lambda drill: subprocess.run(["docker", verb, drill.hosts[SECOND].name], check=True, capture_output=True)


FAULTS = {
    "node frozen": Fault(engine("pause"), engine("unpause"), {f"WharfNodeDown {SECOND}"}, 60),
    "registry frozen": Fault(
        on_second("systemctl kill --signal=STOP registry"),
        on_second("systemctl kill --signal=CONT registry"),
        {f"WharfNodeDown {SECOND}"},
        60,
    ),
    "exporter down": Fault(on_second("systemctl stop mtail"), on_second("systemctl start mtail"), {f"WharfExporterDown {SECOND}"}, 300),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_told_and_nothing_else(drill: Drill, fault: str, report: list[str]) -> None:
    inflict, mend, told, waits = FAULTS[fault]
    drill.wait_for_silence(60)
    inflict(drill)
    try:
        took = drill.wait_for_alerts(told, waits / DIVISOR + 2 * SCRAPE + SLACK)
        # What follows from it, and waits for longer, is not told later either.
        time.sleep(3 * SCRAPE)
        assert drill.alerts() == told
    finally:
        mend(drill)
    drill.wait_for_silence(60)
    report.append(f"[alerts] {fault}: {', '.join(sorted(told))} after {took:.0f} s; the rule waits for {waits / DIVISOR:.0f} s")
