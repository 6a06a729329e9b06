# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A month of a cluster's life as samples: three nodes, two balancers, a cache; and which alerts it raises.

The healthy cluster has what healthy clusters have: days, nights and weekends; wrong passwords, clients that go away, a robot that tries an old
password all night; garbage collection each night on whichever node comes first, once refused on one and done by the next; an upgrade each
Wednesday, node by node, in which programs begin to count from 0; certificates that come down to 30 days and are renewed with it; disks that
fill and are emptied.

The ill cluster lives for five days and has three faults, one after the other. Samples are a minute apart, those that change slowly four.
"""

from __future__ import annotations

import json
import math
import re
import urllib.parse
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Callable, Iterator, NamedTuple

MINUTE, HOUR, DAY = 60, 3600, 86400
DAYS = 30
ILL_DAYS = 5
# A Monday, 00:00 UTC.
START = 1790553600
NODES = ("registry1", "registry2", "registry3")
BALANCERS = ("lb1", "lb2")
CACHE = "cache1"
HEALTHY, ILL = "healthy", "ill"
# The ill cluster: the first day from 10 to 11 every fifth password is wrong; after the first night nobody collects garbage; nobody renews
# the certificate of a node that is good for 16 days more.
WRONG_PASSWORDS = (10 * HOUR, 11 * HOUR)
LAST_COLLECTION = 3 * HOUR
ILL_CERTIFICATE = 16 * DAY

Series = tuple[str, dict[str, str], list[float], int]  # metric, labels, values, seconds between them


def load(age: int) -> float:
    """Reads in a minute: up to 600 at noon of a working day, 12 at night."""
    day, hour = age // DAY % 7, age % DAY / HOUR
    busy = max(math.sin(math.pi * (hour - 7) / 12), 0.0) if 7 < hour < 19 else 0.0
    return 12 + 588 * busy * (0.1 if day > 4 else 1.0)


def upgrades(days: int) -> list[int]:
    """When the weekly upgrade begins."""
    return [day * DAY + 10 * HOUR for day in range(days) if day % 7 == 2]


class Life:
    """The samples of one cluster."""

    def __init__(self, name: str, days: int) -> None:
        self.name, self.days = name, days
        self.ill = name == ILL
        self.minutes = range(0, days * DAY, MINUTE)
        self.quarters = range(0, days * DAY, 4 * MINUTE)
        self.loads = [load(age) for age in self.minutes]
        self.upgrades = upgrades(days)

    def of(self, job: str, node: str, **more: str) -> dict[str, str]:
        """Labels of a target."""
        role = "node" if node in NODES else "balancer" if node in BALANCERS else "cache" if node == CACHE else "service"
        return {"cluster": self.name, "job": f"wharf_{job}", "node": node, "role": role, **more}

    def counter(self, metric: str, labels: dict[str, str], each: Callable[[int, float], float], resets: list[int]) -> Series:
        """A counter that grows each minute by what a function of age and load says, and begins anew with its program."""
        value, values, again = 0.0, [], {age // MINUTE for age in resets}
        for number, age in enumerate(self.minutes):
            value = 0.0 if number in again else value + each(age, self.loads[number])
            values.append(value)
        return metric, labels, values, MINUTE

    def gauge(self, metric: str, labels: dict[str, str], value: Callable[[int], float], *, quick: bool = False) -> Series:
        """A gauge."""
        ages = self.minutes if quick else self.quarters
        return metric, labels, [value(age) for age in ages], ages.step

    def flag(self, metric: str, labels: dict[str, str], usual: int, other: list[tuple[int, int]]) -> Series:
        """A gauge of 0 or 1 that is the other for some times (age, seconds)."""
        values: list[float] = [usual] * len(self.minutes)
        for age, seconds in other:
            for number in range(age // MINUTE, min((age + seconds) // MINUTE, len(values))):
                values[number] = 1 - usual
        return metric, labels, values, MINUTE

    # An upgrade: a node each four minutes, drained for three of them and without an answer for less than one; then the balancers.
    def away(self, host: str) -> list[tuple[int, int]]:
        """When a host gives no answer."""
        place = [*NODES, *BALANCERS].index(host)
        return [(begin + place * 4 * MINUTE + MINUTE, MINUTE) for begin in self.upgrades]

    def restarts(self, host: str) -> list[int]:
        """When a host's programs begin anew."""
        return [age for age, _seconds in self.away(host)]

    def samples(self) -> Iterator[Series]:
        """All series."""
        yield from self.requests()
        yield from self.hosts()
        yield from self.storage()
        yield from self.certificates()
        yield from self.probes()

    def requests(self) -> Iterator[Series]:
        """What the logs tell. One balancer has the virtual address, the other one from each upgrade on."""
        moves = [age for age, _seconds in self.away("lb1")]
        cut = {restart for node in NODES for restart in self.restarts(node)}
        for number, balancer in enumerate(BALANCERS):

            def mine(age: int, number: int = number) -> bool:
                return sum(age >= move for move in moves) % 2 == number

            labels, resets = self.of("logs", balancer), self.restarts(balancer)
            yield self.counter("wharf_client_reads_total", labels, lambda age, n: n * mine(age), resets)
            yield self.counter("wharf_client_writes_total", labels, lambda age, n: n / 10 * mine(age), resets)
            # A node that restarts cuts what it was doing; else one request in 20 000 fails.
            yield self.counter("wharf_client_read_errors_total", labels, lambda age, n: (n / 20000 + (age in cut)) * mine(age), resets)
            yield self.counter("wharf_client_write_errors_total", labels, lambda age, n: (n / 2e5 + (age in cut)) * mine(age), resets)
            # People press Ctrl-C: up to three in a minute.
            yield self.counter("wharf_client_pull_timeouts_total", labels, lambda age, n: (n // 200) * mine(age), resets)
            yield self.gauge("wharf_vip_held", self.of("hosts", balancer), mine, quick=True)
        for number, node in enumerate(NODES):

            def refused(age: int, n: float, number: int = number) -> float:
                if self.ill and WRONG_PASSWORDS[0] <= age < WRONG_PASSWORDS[1]:
                    return n / 15
                # One in two hundred by mistake; and a robot with an old password at one node, every five minutes: more than one in
                # twenty at night, when hardly anybody else asks.
                return n / 600 + (number == 0 and age % (5 * MINUTE) == 0)

            resets = self.restarts(node)
            yield self.counter("wharf_credentials_checked_total", self.of("logs", node), lambda age, n: n / 3, resets)
            yield self.counter("wharf_credentials_refused_total", self.of("logs", node), refused, resets)
            yield self.counter("wharf_log_lines_unparsed_total", self.of("logs", node), lambda age, n: 0, resets)

    def hosts(self) -> Iterator[Series]:
        """Exporters, clocks, memory, disks."""
        for number, host in enumerate((*NODES, *BALANCERS, CACHE)):
            labels = self.of("hosts", host)
            away = self.away(host) if host != CACHE else []
            jobs = (
                ("hosts", "logs", "registries", "edges")
                if host in NODES
                else ("hosts", "logs", "balancers")
                if host in BALANCERS
                else ("hosts",)
            )
            for job in jobs:
                # A program that restarts misses one scrape.
                yield self.flag("up", self.of(job, host), 1, away if job in ("logs", "registries") else [])
            yield self.gauge("node_time_seconds", labels, lambda age, number=number: START + age + 0.1 * number)
            yield self.gauge("wharf_host_last_look_timestamp_seconds", labels, lambda age: START + age - 30)
            yield self.gauge("node_textfile_scrape_error", labels, lambda age: 0)
            yield self.gauge("node_memory_MemTotal_bytes", labels, lambda age: 8e9)
            yield self.gauge("node_memory_MemAvailable_bytes", labels, lambda age: 5e9 - 2e9 * load(age) / 600)
            disk = {**labels, "device": "/dev/sda1", "fstype": "ext4", "mountpoint": "/"}
            yield self.gauge("node_filesystem_size_bytes", disk, lambda age: 1e11)
            # Logs, rotated at midnight.
            yield self.gauge("node_filesystem_avail_bytes", disk, lambda age: 4e10 - 1e10 * (age % DAY) / DAY)
        yield self.flag("up", self.of("caches", CACHE), 1, [])
        yield self.flag("redis_up", self.of("caches", CACHE), 1, [])
        for node in NODES:
            # Old and new image live side by side while an upgrade lasts.
            done = self.restarts(node)
            yield from self.setting(node, "http_secret", [])
            yield from self.setting(node, "image", done)

    def setting(self, node: str, setting: str, changes: list[int]) -> Iterator[Series]:
        """What all nodes must have alike; from each change on another value. An old value's series ends."""
        edges = [0, *changes, self.days * DAY]
        for version, (begin, end) in enumerate(zip(edges, edges[1:], strict=False)):
            values = [1.0 if begin <= age < end else math.nan for age in self.minutes]
            yield "wharf_setting_info", self.of("hosts", node, setting=setting, value=f"v{version}"), values, MINUTE

    def collected(self, age: int) -> int:
        """When the last good garbage collection that is known by now had begun."""
        day = (age - 3 * HOUR - 20 * MINUTE) // DAY
        return min(day * DAY + 3 * HOUR, LAST_COLLECTION) if self.ill else day * DAY + 3 * HOUR

    def storage(self) -> Iterator[Series]:
        """The shared storage, what the probes find there, and what cleans it."""
        tired = 11 * DAY + 3 * HOUR
        for number, node in enumerate(NODES):
            labels = self.of("hosts", node)
            shared = {**labels, "storage": "nfs.example.com:/export"}
            yield self.gauge("wharf_storage_size_bytes", shared, lambda age: 1e13)
            # 2 % a day, which the night frees.
            yield self.gauge("wharf_storage_available_bytes", shared, lambda age: 3e12 - 2e11 * (age - self.collected(age)) / DAY)
            yield self.gauge("wharf_storage_files", shared, lambda age: 1e8)
            yield self.gauge("wharf_storage_files_free", shared, lambda age: 6e7)
            yield self.flag("wharf_probe_healthy", {**labels, "check": "storage_write"}, 1, self.away(node))
            yield self.gauge("wharf_gc_last_success_timestamp_seconds", labels, lambda age: START + self.collected(age))
            yield self.gauge("wharf_gc_findings", labels, lambda age: 0)
            yield self.gauge("wharf_retention_refused", labels, lambda age: 0)
            # One night the first node cannot, and the next one does it twenty minutes later.
            yield self.flag("wharf_gc_refused", labels, 0, [(tired, 20 * MINUTE)] if number == 0 and not self.ill else [])
            yield self.gauge("wharf_lifecycle_failed", labels, lambda age: 0)
            look = 20 * MINUTE * number
            yield self.gauge(
                "wharf_lifecycle_last_look_timestamp_seconds", labels, lambda age, look=look: START + (age - look) // HOUR * HOUR + look
            )
            for balancer in BALANCERS:
                backend = {**self.of("hosts", balancer), "backend": node}
                yield self.flag("wharf_balancer_node_healthy", backend, 1, self.away(node))

    def good_until(self, host: str) -> Callable[[int], float]:
        """When a host's certificate ends: the weekly run renews what is good for less than 30 days."""
        end = 16 * DAY if self.ill and host == NODES[1] else (32 + 3 * [*NODES, *BALANCERS, CACHE].index(host)) * DAY
        renewals: list[tuple[int, int]] = [(0, end)]
        if not self.ill:
            for begin in self.upgrades:
                if renewals[-1][1] - begin < 30 * DAY:
                    renewals.append((begin, begin + 365 * DAY))
        return lambda age: START + next(end for begin, end in reversed(renewals) if age >= begin)

    def certificates(self) -> Iterator[Series]:
        """On disk, and as they are served: a few minutes later when they are new."""
        for host in (*NODES, *BALANCERS, CACHE):
            use = "edge" if host in NODES else "balancer" if host in BALANCERS else "redis"
            good = self.good_until(host)
            yield self.gauge("wharf_certificate_not_after_timestamp_seconds", self.of("hosts", host, use=use), good)
            if host != CACHE:
                job = "edges" if host in NODES else "balancers"
                yield self.gauge(
                    "probe_ssl_earliest_cert_expiry", self.of(job, host), lambda age, good=good: good(max(age - 12 * MINUTE, 0))
                )

    def probes(self) -> Iterator[Series]:
        """What is asked from outside. The virtual address moves faster than it is asked."""
        for node in NODES:
            yield self.flag("probe_success", self.of("edges", node), 1, self.away(node))
        for balancer in BALANCERS:
            yield self.flag("probe_success", self.of("balancers", balancer), 1, self.away(balancer))
        yield self.flag("probe_success", self.of("service", "registry.example.com"), 1, [])


def openmetrics() -> Iterator[str]:
    """The samples of both clusters, as promtool takes them: those of a metric together."""
    families: dict[str, list[Series]] = {}
    for life in (Life(HEALTHY, DAYS), Life(ILL, ILL_DAYS)):
        for series in life.samples():
            families.setdefault(series[0], []).append(series)
    for metric, group in families.items():
        yield f"# TYPE {metric} unknown\n"
        for _metric, labels, values, step in group:
            head = metric + "{" + ",".join(f'{name}="{value}"' for name, value in labels.items()) + "} "
            yield "".join([f"{head}{value:.10g} {START + number * step}\n" for number, value in enumerate(values) if not math.isnan(value)])
    yield "# EOF\n"


# -- what is raised -------------------------------------------------------------------------------------------------------------------


class Alert(NamedTuple):
    """An alert that fires: its name, its labels, from when to when (ages)."""

    name: str
    labels: dict[str, str]
    begin: int
    end: int


def seconds(duration: str) -> int:
    """Seconds of a duration of a rule."""
    return int(duration[:-1]) * {"s": 1, "m": MINUTE, "h": HOUR, "d": DAY}[duration[-1]]


def spelt_out(expression: str, rules: list[dict[str, Any]]) -> str:
    """An expression with what the recording rules record in it."""

    def recorded(found: re.Match[str]) -> str:
        parts = [
            f'label_replace({rule["expr"]}, "{name}", "{value}", "", "")'
            for rule in rules
            if rule.get("record") == found[0]
            for name, value in rule["labels"].items()
        ]
        return f"({' or '.join(parts)})"

    return re.sub(r"wharf:[\w:]+", recorded, expression)


def _range(address: str, query: str, begin: int, end: int, step: int) -> list[dict[str, Any]]:
    url = f"{address}/api/v1/query_range?" + urllib.parse.urlencode({"query": query, "start": begin, "end": end, "step": step})
    with urllib.request.urlopen(url, timeout=120) as answer:
        found = json.load(answer)
    assert found["status"] == "success", found
    return list(found["data"]["result"])


def _fires(address: str, rule: dict[str, Any], rules: list[dict[str, Any]]) -> list[Alert]:
    waits = seconds(rule.get("for", "0s"))
    # What has to last for long is looked at less often.
    step = MINUTE if waits <= 5 * MINUTE else 5 * MINUTE
    held: dict[str, list[int]] = {}
    # Prometheus answers with 11 000 points at most.
    chunk = 10000 * step
    for begin in range(START, START + DAYS * DAY, chunk):
        end = min(begin + chunk, START + DAYS * DAY) - step
        for series in _range(address, spelt_out(rule["expr"], rules), begin, end, step):
            held.setdefault(json.dumps(series["metric"], sort_keys=True), []).extend(int(float(time)) for time, _value in series["values"])
    alerts = []
    for labels, times in held.items():
        begin = times[0]
        for time, following in zip(times, [*times[1:], times[-1] + DAY], strict=True):
            if following - time > step:
                if time - begin >= waits:
                    alerts.append(Alert(rule["alert"], json.loads(labels), begin + waits - START, time - START))
                begin = following
    return alerts


def raised(address: str, rules: list[dict[str, Any]]) -> list[Alert]:
    """Every alert that fires in the month, as Prometheus would raise it that evaluates a rule each minute (or five)."""
    with ThreadPoolExecutor(2) as pool:
        found = pool.map(lambda rule: _fires(address, rule, rules), [rule for rule in rules if "alert" in rule])
        return sorted((alert for alerts in found for alert in alerts), key=lambda alert: (alert.begin, alert.name))
