# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The cluster's Prometheus and Alertmanager in a hurry: what waits for minutes waits for seconds, and what they tell is followed."""

from __future__ import annotations

import copy
import json
import math
import re
import time
from typing import Any

import monitoring
import yaml
from cluster import Cluster
from monitoring import OF_THIS_MACHINE, RULES

ALERTS = {rule["alert"]: rule for rule in RULES if "alert" in rule}
PATIENCE = 20  # seconds more, for what waits until it gives up, and for a busy machine
CONFIG, KEPT = "/etc/prometheus", "/etc/prometheus.before-the-drill"
TIMER = "/etc/systemd/system/wharf-metrics.timer.d/drill.conf"
DURATION = re.compile(r"^(\d+)([smhd])$")
WINDOW = re.compile(r"(?<=\[)\d+[smhd](?=\])")
SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def shortened(duration: str, least: int = 0) -> int:
    """The root of a duration, in seconds: a minute becomes 8 s, an hour a minute, and what waits for longer still does."""
    number, unit = DURATION.findall(duration)[0]
    return max(math.ceil(math.sqrt(int(number) * SECONDS[unit])), least)


SCRAPE = shortened("15s")  # between two scrapes, and between two evaluations
LOOK = shortened("1m")  # between two looks of a host at itself
# Before Alertmanager tells the first alert of a group (group_wait in the role's alertmanager.yml).
GROUP_WAIT = shortened("30s")


def in_a_hurry() -> str:
    """The rules with all waiting times and windows shortened, but for the forecast: a few minutes tell nothing about a day."""
    rules = copy.deepcopy(RULES)
    for rule in rules:
        if rule.get("alert") != "WharfStorageFullSoon":
            # A rate needs two samples, also where a scrape fails.
            rule["expr"] = WINDOW.sub(lambda found: f"{shortened(found[0], 3 * SCRAPE)}s", rule["expr"])
        rule.update({"for": f"{shortened(rule['for'])}s"} if "for" in rule else {})
    return yaml.safe_dump({"groups": [{"name": "all", "rules": rules}]})


def waits(alert: str) -> int:
    """Seconds from a fault to its alert by the rule alone: how long it must last, and the window that must fill."""
    windows = [shortened(window, 3 * SCRAPE) for window in WINDOW.findall(ALERTS[alert]["expr"])]
    return shortened(ALERTS[alert]["for"]) + max(windows, default=0)


class Watch:
    """What somebody who gets the alerts of the cluster would see."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.since: dict[str, float] = {}

    def hurry(self) -> None:
        """Shorten all waiting times, until ``rest``."""
        self.rest()
        self.cluster.on(self.cluster.monitor, f"cp -a {CONFIG} {KEPT} && cat > {CONFIG}/wharf/rules.yml", stdin=in_a_hurry())
        times = f"s/(scrape_interval|scrape_timeout|evaluation_interval): *[0-9]+s/\\1: {SCRAPE}s/"
        # The exporter of Redis takes its time all the same.
        script = f"sed -Ei '{times}' {CONFIG}/prometheus.yml; sed -Ei '/_caches$/,/job_name/!{times}' {CONFIG}/wharf/scrape.yml"
        self.cluster.on(self.cluster.monitor, script)
        # A rule that is another one now never says that its old alerts are over: Alertmanager would keep them for minutes.
        restart = "systemctl reload prometheus && systemctl restart prometheus-alertmanager"
        self.cluster.on(self.cluster.monitor, f"promtool check config {CONFIG}/prometheus.yml && {restart}")
        text = f"[Timer]\nOnCalendar=\nOnCalendar=*:*:0/{LOOK}\nAccuracySec=100ms\n"
        for host in self.told_by():
            self.cluster.on(host, f"mkdir -p $(dirname {TIMER}) && cat > {TIMER} && systemctl daemon-reload", stdin=text)
            self.cluster.on(host, "systemctl restart wharf-metrics.timer")

    def rest(self) -> None:
        """Bring the usual times back, also after a drill that was interrupted."""
        self.cluster.on(
            self.cluster.monitor, f"! test -d {KEPT} || {{ cp -a {KEPT}/. {CONFIG} && rm -r {KEPT} && systemctl reload prometheus; }}"
        )
        for host in self.told_by():
            self.cluster.on(host, f"! test -e {TIMER} || {{ rm -r $(dirname {TIMER}) && systemctl daemon-reload; }}")
            self.cluster.on(host, "systemctl restart wharf-metrics.timer")

    def also(self, target: dict[str, Any]) -> None:
        """Scrape one more target until ``rest``."""
        path = f"{CONFIG}/wharf/targets.json"
        targets = json.loads(self.cluster.on(self.cluster.monitor, f"cat {path}"))
        self.cluster.on(self.cluster.monitor, f"cat > {path}", stdin=json.dumps([*targets, target]))
        up = f'up{{node="{target["labels"]["node"]}"}} == 1'
        end = time.monotonic() + 60
        while not monitoring.query(self.cluster, up):
            assert time.monotonic() < end, f"{target} is not up"
            time.sleep(1)

    def told_by(self) -> list[str]:
        """The hosts that tell of themselves."""
        return sorted({*self.cluster.nodes, *self.cluster.balancers, *([self.cluster.cache] if self.cluster.cache else [])})

    def told(self) -> set[str]:
        """What is told now: alerts that have fired as long as Alertmanager waits, and do not follow from another."""
        now = time.monotonic()
        firing = monitoring.ask(self.cluster, "9093/api/v2/alerts?active=true&inhibited=false&silenced=false")
        self.since = {
            name: self.since.get(name, now) for name in sorted({monitoring.named(alert["labels"]) for alert in firing} - OF_THIS_MACHINE)
        }
        return {name for name, since in self.since.items() if now - since >= GROUP_WAIT}

    def follow(self, wanted: set[str], allowed: set[str], seconds: float, what: str) -> float:
        """Follow what fires until it is what is wanted, and fail on anything told that is not allowed; return the seconds it took."""
        begun = time.monotonic()
        while True:
            told = self.told()
            assert told <= allowed, f"{what}: {told - allowed} is told, only {allowed or 'nothing'} may be"
            took = time.monotonic() - begun
            if set(self.since) == wanted or (wanted and wanted <= set(self.since)):
                return took
            assert took < seconds, f"{what}: after {seconds:.0f} s {set(self.since) or 'nothing'} fires, not {wanted or 'nothing'}"
            time.sleep(0.5)

    def stay(self, told: set[str], seconds: float, what: str) -> None:
        """Nothing else is told for some seconds, and what is stays so."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            now = self.told()
            assert now <= told, f"{what}: {now - told} is told, too"
            time.sleep(0.5)
        assert now == told, f"{what}: {told - now} is told no longer"

    def calm(self, seconds: float) -> None:
        """Wait until nothing is wrong, and nothing about to be."""
        end = time.monotonic() + seconds
        while wrong := monitoring.pending(self.cluster):
            assert time.monotonic() < end, f"after {seconds:.0f} s still: {wrong}"
            time.sleep(1)
