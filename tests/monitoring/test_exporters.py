# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""exporters and prometheus_scrape on one host that is registry node, balancer, cache and watcher at once, over its own file system.

What it tells is compared with what its clients did. It is the older release with the older registry; the scenarios of Molecule look at what
clusters of both generations on both releases tell (tests/cluster/test_monitoring.py).
"""

from __future__ import annotations

import re
import sys
from typing import Iterator

import pytest
from ruletests import CHECKOUT, all_rules
from single import JOBS, NAME, VIP, Single

sys.path.insert(0, str(CHECKOUT / "tests/acceptance"))
sys.path.insert(0, str(CHECKOUT / "tests/consistency"))

from hosts import RELEASES, host  # noqa: E402  (found through the path above)
from test_alerts import metrics_of  # noqa: E402

ALICE = "--user alice:alice-has-a-long-password"


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Single]:
    """A host that serves a registry and that nobody watches yet."""
    with host("exporters", RELEASES["debian12"], services=True) as machine:
        found = Single(tmp_path_factory.mktemp("exporters"), machine)
        found.secrets()
        found.start_registry()
        found.changes(["redis_cache", "registry_edge", "lifecycle", "nginx_lb"])
        yield found


def test_they_run(single: Single) -> None:
    single.host.on("systemctl start wharf-lifecycle.service")
    assert single.changes(["exporters", "prometheus_scrape"]) > 0
    assert {series["metric"]["job"] for series in single.ask(f'up{{cluster="{NAME}"}} == 1')} == {f"wharf_{job}" for job in JOBS}
    assert single.ask("probe_success == 0") == []


def test_the_host_tells_what_it_is(single: Single) -> None:
    single.host.on(f"ip address add {VIP}/32 dev lo && systemctl start wharf-metrics.service")
    text = single.host.on("cat /var/lib/wharf/metrics/wharf_host.prom; journalctl -u wharf-metrics.service | tail -5")
    for line in (
        "wharf_vip_held 1.0",
        'wharf_balancer_node_healthy{backend="single1"} 1.0',
        'wharf_probe_healthy{check="registry"} 1.0',
        'wharf_probe_healthy{check="storage_write"} 1.0',
        'wharf_setting_info{setting="image",value="sha256:0123456789abcdef"} 1.0',
    ):
        assert line in text, text
    assert re.search(r'wharf_storage_size_bytes\{storage="single1:/srv/registry"\} \d', text), text
    assert re.search(r'wharf_setting_info\{setting="http_secret",value="[0-9a-f]{12}"\}', text), text
    for use in ("edge", "balancer", "redis"):
        ends = re.search(rf'wharf_certificate_not_after_timestamp_seconds\{{use="{use}"\}} (\S+)', text)
        assert ends and 300 * 86400 < float(ends[1]) - float(single.host.on("date +%s")) < 370 * 86400, text
    single.host.on(f"ip address del {VIP}/32 dev lo && systemctl start wharf-metrics.service")
    assert "wharf_vip_held 0.0" in single.host.on("cat /var/lib/wharf/metrics/wharf_host.prom")


def test_requests_are_counted_as_what_they_are(single: Single) -> None:
    def counts() -> dict[str, float]:
        return {
            name: single.value(f"wharf_{name}_total")
            for name in ("credentials_checked", "credentials_refused", "challenges", "client_reads", "client_writes", "log_lines_unparsed")
        }

    before = counts()
    for _ in range(3):
        assert single.get("/v2/") == "401"
    for _ in range(2):
        assert single.get("/v2/shop/web/manifests/none", "--user", "alice:wrong") == "401"
    assert single.get("/v2/shop/web/manifests/none", ALICE) == "404"
    assert single.get("/v2/shop/web/blobs/uploads/", ALICE, "-X POST") == "202"
    wanted = {
        "credentials_checked": 4,
        "credentials_refused": 2,
        "challenges": 3,
        "client_reads": 3,
        "client_writes": 1,
        "log_lines_unparsed": 0,
    }

    # The blackbox exporter asks /v2/ without credentials all the time: more challenges may come, nothing else.
    def grown() -> dict[str, float]:
        now = counts()
        return {name: now[name] - before[name] for name in wanted}

    def as_wanted() -> bool:
        now = grown()
        return now.pop("challenges") >= wanted["challenges"] and now == {key: wanted[key] for key in now}

    single.wait(10, f"{wanted}", as_wanted)
    series = single.host.on("curl -sSf http://127.0.0.1:3903/metrics")
    assert 'wharf_edge_requests_total{operation="blob_upload",project="shop",status="202"} 1' in series
    assert re.search(r'wharf_balancer_requests_total\{status="404",upstream="\S+:5443"\} 1', series)
    # With the name of the program as a label, rules would see other series after a change of it.
    assert not re.search(r"^wharf_.*prog=", series, re.M)


def test_a_redis_that_hangs_is_told(single: Single) -> None:
    """And not its exporter, which waits for it."""
    single.host.on("systemctl kill --signal=STOP redis-server")
    try:
        single.wait(60, "a Redis that hangs", lambda: single.ask("redis_up == 0"))
        assert single.ask('up{job="wharf_caches"} == 0') == []
    finally:
        single.host.on("systemctl kill --signal=CONT redis-server")


def test_a_pull_that_nobody_answers_timed_out(single: Single) -> None:
    single.host.on("systemctl kill --signal=STOP registry")
    try:
        before = {name: single.value(name) for name in ("wharf_client_pull_timeouts_total", "wharf_client_read_errors_total")}
        assert single.get("/v2/shop/web/manifests/none", ALICE) in ("503", "504")
        single.wait(
            10, "a time-out", lambda: single.value("wharf_client_pull_timeouts_total") == before["wharf_client_pull_timeouts_total"] + 1
        )
        assert single.value("wharf_client_read_errors_total") == before["wharf_client_read_errors_total"] + 1
        assert single.value('wharf_client_pull_timeouts_by_reason_total{reason="gateway"}') >= 1
    finally:
        single.host.on("systemctl kill --signal=CONT registry")


def test_a_pull_that_is_cut_off_timed_out(single: Single) -> None:
    upload = (
        f"L=$(curl -s {ALICE} --cacert /etc/wharf/edge/ca.crt -X POST -D - -o /dev/null https://{NAME}/v2/shop/web/blobs/uploads/"
        " | grep -i ^location: | cut -d' ' -f2 | tr -d '\\r'); head -c 60000000 /dev/zero > /tmp/blob; D=$(sha256sum /tmp/blob | cut -d' ' -f1);"
        f" curl -s {ALICE} --cacert /etc/wharf/edge/ca.crt -X PUT -H 'Content-Type: application/octet-stream' --data-binary @/tmp/blob"
        ' -o /dev/null -w "%{http_code} " "$L&digest=sha256:$D"; echo $D'
    )
    status, digest = single.host.on(upload).split()[-2:]
    assert status == "201"
    blob = f"/v2/shop/web/blobs/sha256:{digest}"
    assert single.get(blob, ALICE) == "200"
    assert single.value('wharf_client_pull_timeouts_by_reason_total{reason="cut"}') == 0
    single.get(blob, ALICE, "--limit-rate 100k --max-time 2")
    single.wait(15, "an answer cut off", lambda: single.value('wharf_client_pull_timeouts_by_reason_total{reason="cut"}') == 1)


def test_no_line_is_lost_when_logs_are_rotated(single: Single) -> None:
    before = single.value("wharf_client_reads_total")
    for _ in range(5):
        for _ in range(4):
            assert single.get("/v2/shop/web/manifests/none", ALICE) == "404"
        single.host.on("logrotate --force /etc/logrotate.d/wharf_lb")
    single.wait(15, "20 reads", lambda: single.value("wharf_client_reads_total") == before + 20)


def test_a_line_of_somebody_else_is_told(single: Single) -> None:
    single.host.on("echo '127.0.0.1 - - [today] \"GET /\" 200' >> /var/log/wharf/access.log")
    single.wait(10, "a line that was not understood", lambda: single.value("wharf_log_lines_unparsed_total") == 1)


def test_every_metric_of_a_rule_is_scraped(single: Single) -> None:
    rules = all_rules()
    records = {rule["record"] for rule in rules if "record" in rule}
    used = {metric for rule in rules for metric in metrics_of(rule["expr"])} - records
    assert len(used) > 30
    single.wait(10, "the metrics of the daily work", lambda: single.ask("wharf_gc_refused"))
    there = {series["metric"]["__name__"] for series in single.ask(f'group by (__name__) ({{cluster="{NAME}"}})')}
    assert used - there == set()


def test_every_documented_metric_is_scraped(single: Single) -> None:
    text = (CHECKOUT / "docs/metrics.md").read_text(encoding="utf-8")
    tables = {name for line in text.splitlines() if line.startswith("| `") for name in re.findall(r"`(\w+)`", line.split("|")[1])}
    other = {"wharf_balancer_sessions_total"}  # in the other mode of the balancer
    there = {series["metric"]["__name__"] for series in single.ask(f'group by (__name__) ({{cluster="{NAME}"}})')}
    there |= {re.sub("_(bucket|sum|count)$", "", name) for name in there}
    # It has no cache here.
    cache = {"registry_storage_cache_total", *(f"registry_storage_cache_{what}_total" for what in ("requests", "hits", "errors"))}
    assert tables - there - other <= cache


def test_they_go_again(single: Single) -> None:
    assert single.changes(["exporters remove"], exporters_remove_packages=True) > 0
    listening = single.host.on("ss -Hltn")
    assert not re.search(r":(9100|3903|9121|9115)\b", listening), listening
    left = single.host.on(
        "ls -d /etc/wharf/exporters /etc/wharf/metrics.json /etc/systemd/system/wharf-metrics* /usr/bin/mtail", check=False
    )
    assert "No such file" in left and left.count("No such file") == 4, left
    assert single.host.on("ls /var/lib/wharf/metrics").split() == ["wharf_lifecycle.prom"]
    assert single.changes(["exporters remove"], exporters_remove_packages=True) == 0
