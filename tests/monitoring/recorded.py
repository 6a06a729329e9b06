# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A Prometheus of the distribution's with an hour of samples in it, as the targets of a cluster of two nodes leave them."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from ruletests import programs, promtool

CLUSTER = "registry.example.test"
STEP = 15
HOUR = 3600


def _samples(end: float) -> Iterator[tuple[str, dict[str, str], Callable[[float], float]]]:
    """Each series: metric, labels, and its value after so many seconds."""
    start = end - HOUR

    def counter(per_second: float) -> Callable[[float], float]:
        return lambda age: 1000 + per_second * age

    def gauge(value: float) -> Callable[[float], float]:
        return lambda _age: value

    for number, node in enumerate(("registry1", "registry2")):

        def of(job: str, node: str = node, **more: str) -> dict[str, str]:
            return {"cluster": CLUSTER, "job": job, "node": node, "role": "node", "instance": node, **more}

        yield "up", of("wharf_logs"), gauge(1)
        for project in ("shop", "team"):
            for operation, status, rate in (
                ("manifest_get", "200", 2.0),
                ("manifest_get", "404", 0.1),
                ("manifest_put", "201", 0.2),
                ("blob_get", "200", 5.0),
                ("blob_upload", "202", 0.5),
                ("manifest_get", "502", 0.01),
            ):
                labels = of("wharf_logs", operation=operation, status=status, project=project)
                yield "wharf_edge_requests_total", labels, counter(rate * (1 + number))
            yield "wharf_edge_bytes_sent_total", of("wharf_logs", operation="blob_get", project=project), counter(3e6)
            yield "wharf_edge_bytes_received_total", of("wharf_logs", operation="blob_upload", project=project), counter(2e5)
        for bound, rate in (("0.005", 1.0), ("0.025", 3.0), ("0.1", 4.0), ("1", 4.5), ("+Inf", 4.6)):
            yield "wharf_edge_request_duration_seconds_bucket", of("wharf_logs", operation="manifest_get", le=bound), counter(rate)
        for metric, rate in (
            ("wharf_client_reads_total", 7.0),
            ("wharf_client_read_errors_total", 0.007),
            ("wharf_client_writes_total", 0.7),
            ("wharf_client_write_errors_total", 0.0),
            ("wharf_credentials_checked_total", 8.0),
            ("wharf_credentials_refused_total", 0.02),
            ("wharf_challenges_total", 3.0),
        ):
            yield metric, of("wharf_logs"), counter(rate)
        for reason in ("gateway", "stalled", "cut"):
            yield "wharf_client_pull_timeouts_by_reason_total", of("wharf_logs", reason=reason), counter(0.01)
        yield "wharf_storage_size_bytes", of("wharf_hosts", storage="nfs1:/srv"), gauge(1e12)
        yield "wharf_storage_available_bytes", of("wharf_hosts", storage="nfs1:/srv"), lambda age: 4e11 - 1e7 * age
        for metric, value in (("wharf_gc_freed_bytes", 4e9), ("wharf_gc_pending_bytes", 1e9)):
            yield metric, of("wharf_hosts"), gauge(value)
        for part in ("gc", "retention"):
            yield f"wharf_{part}_last_success_timestamp_seconds", of("wharf_hosts"), gauge(start - 6000)
        for check in ("registry", "storage_write"):
            yield "wharf_probe_healthy", of("wharf_hosts", check=check), gauge(1)
        yield "wharf_certificate_not_after_timestamp_seconds", of("wharf_hosts", use="edge"), gauge(end + 80 * 86400)
        yield "node_time_seconds", of("wharf_hosts"), lambda age: start + age + 0.1
        yield "node_memory_MemAvailable_bytes", of("wharf_hosts"), gauge(6e9)
        yield "node_memory_MemTotal_bytes", of("wharf_hosts"), gauge(8e9)
        for metric, value in (("node_filesystem_avail_bytes", 2e11), ("node_filesystem_size_bytes", 5e11)):
            yield metric, of("wharf_hosts", mountpoint="/", fstype="ext4", device="/dev/sda1"), gauge(value)
        yield "probe_success", of("wharf_edges"), gauge(1)
        yield "registry_http_in_flight_requests", of("wharf_registries", handler="manifest"), gauge(3)
        yield "registry_http_requests_total", of("wharf_registries", code="200", handler="manifest", method="get"), counter(4)
        for series, rate in (("sum", 0.02), ("count", 4.0)):
            yield (
                f"registry_storage_action_seconds_{series}",
                of("wharf_registries", action="GetContent", driver="filesystem"),
                counter(rate),
            )
        if number:
            yield "registry_storage_cache_total", of("wharf_registries", type="Request"), counter(4)
            yield "registry_storage_cache_total", of("wharf_registries", type="Hit"), counter(3)
        else:
            yield "registry_storage_cache_requests_total", of("wharf_registries"), counter(4)
            yield "registry_storage_cache_hits_total", of("wharf_registries"), counter(3)
    for balancer in ("lb1", "lb2"):
        labels = {"cluster": CLUSTER, "job": "wharf_hosts", "node": balancer, "role": "balancer", "instance": balancer}
        for backend in ("registry1", "registry2"):
            yield "wharf_balancer_node_serving", {**labels, "backend": backend}, gauge(1)
    yield (
        "redis_memory_used_bytes",
        {"cluster": CLUSTER, "job": "wharf_caches", "node": "cache1", "role": "cache", "instance": "c"},
        gauge(5e7),
    )


def _openmetrics(end: float) -> str:
    families: dict[str, list[str]] = {}
    start = end - HOUR
    for metric, labels, value in _samples(end):
        text = ",".join(f'{name}="{content}"' for name, content in sorted(labels.items()))
        lines = families.setdefault(metric, [])
        lines += [f"{metric}{{{text}}} {value(age):.6f} {start + age:.3f}" for age in range(0, HOUR + 1, STEP)]
    return "".join(f"# TYPE {metric} unknown\n" + "\n".join(lines) + "\n" for metric, lines in families.items()) + "# EOF\n"


def free_port() -> int:
    """A port of this machine that nobody uses."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@contextlib.contextmanager
def prometheus(folder: Path) -> Iterator[tuple[str, float]]:
    """Run it with that hour; yield its address and the time of its last sample."""
    end = float(int(time.time()) - 60)
    with running(folder, [_openmetrics(end)]) as address:
        yield address, end


@contextlib.contextmanager
def running(folder: Path, samples: Iterable[str]) -> Iterator[str]:
    """Run a Prometheus that has these samples, parts of a text in the format of OpenMetrics; yield its address."""
    port = free_port()
    with (folder / "samples").open("w", encoding="utf-8") as handle:
        handle.writelines(samples)
    # promtool reads all samples again for each block that it makes: let it make one.
    blocks = [promtool(), "tsdb", "create-blocks-from", "--max-block-duration=1536h", "openmetrics", f"{folder}/samples", f"{folder}/data"]
    done = subprocess.run(blocks, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    (folder / "samples").unlink()
    (folder / "prometheus.yml").write_text("scrape_configs: []\n")
    command = [str(programs.program("prometheus")), f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data"]
    command += [f"--web.listen-address=127.0.0.1:{port}", "--log.level=error", "--storage.tsdb.retention.time=100y"]
    with (folder / "prometheus.log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    address = f"http://127.0.0.1:{port}"
    try:
        for _try in range(150):
            with contextlib.suppress(OSError), urllib.request.urlopen(f"{address}/-/ready", timeout=5):
                break
            assert process.poll() is None, (folder / "prometheus.log").read_text()
            time.sleep(0.2)
        yield address
    finally:
        process.terminate()
        process.wait(30)


def ask(address: str, query: str, when: float) -> Any:
    """Ask it; return the whole answer."""
    url = f"{address}/api/v1/query?" + urllib.parse.urlencode({"query": query, "time": when})
    with urllib.request.urlopen(url, timeout=30) as answer:
        return json.load(answer)
