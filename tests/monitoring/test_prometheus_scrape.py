# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""prometheus_scrape on a host without a Prometheus, and on hosts of both Debian releases that have one which watches something else already.

The two releases know different ways to add jobs; a host without one gets it in the scenarios of Molecule, too, on both.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, Iterator

import pytest
from ruletests import CHECKOUT, all_rules

sys.path.insert(0, str(CHECKOUT / "tests/acceptance"))

from hosts import REGISTRY_3, RELEASES, Host, ansible, host, must  # noqa: E402  (found through the path above)

REGISTRY = """\
version: 0.1
storage: {inmemory: {}}
http: {addr: "127.0.0.1:5000", debug: {addr: "127.0.0.1:5001", prometheus: {enabled: true}}}
"""
UNIT = """\
[Service]
Environment=OTEL_TRACES_EXPORTER=none
ExecStart=/usr/local/bin/registry serve /etc/registry.yml
"""
TARGET = {"job": "registries", "node": "registry1", "role": "node", "address": "127.0.0.1:5001", "scheme": "http"}
# A Prometheus that somebody runs already, in a style of their own.
EXISTING = """\
# ours, keep the order!
global: {scrape_interval: 2s, evaluation_interval: 2s}

rule_files:      # one a team
- "/etc/prometheus/shop/*.yml"

scrape_configs:
-   job_name: itself   # the first
    static_configs: [{targets: ["localhost:9090"]}]"""


class Machine:
    """A host that watches, and how the role is run on it."""

    def __init__(self, machine: Host, folder: Path) -> None:
        self.host = machine
        self.folder = folder
        self.variables: dict[str, Any] = {
            "prometheus_scrape_cluster": "registry.example.test",
            "prometheus_scrape_targets": [TARGET],
            "prometheus_scrape_interval": 2,
            "prometheus_scrape_ca_src": str(folder / "ca.crt"),
            "prometheus_scrape_server_name": "registry.example.test",
        }

    def run(self, verb: str = "main", *arguments: str, **variables: Any) -> subprocess.CompletedProcess[str]:
        """Run a verb of the role."""
        role = {"name": "wharf.registry.prometheus_scrape", "tasks_from": verb}
        play = {"hosts": "all", "gather_facts": False, "vars": {**self.variables, **variables}}
        play["tasks"] = [{"name": verb, "ansible.builtin.include_role": role}]
        return ansible(self.folder, [play], {"monitoring1": self.host}, *arguments)

    def changes(self, verb: str = "main", *arguments: str, **variables: Any) -> int:
        """Run a verb that has to be good; return how many tasks changed something."""
        output = must(self.run(verb, *arguments, **variables))
        return int(re.findall(r"changed=(\d+)", output)[-1])

    def ask(self, path: str) -> Any:
        """What Prometheus' interface answers."""
        return json.loads(self.host.on(f"curl -sSf 'http://127.0.0.1:9090/api/v1/{path}'"))["data"]

    def alerts(self) -> list[str]:
        """The names of the alerts that Prometheus evaluates."""
        return [rule["name"] for group in self.ask("rules?type=alert")["groups"] for rule in group["rules"]]

    def up(self) -> dict[str, str]:
        """What is scraped: job → whether it is up."""
        return {series["metric"]["job"]: series["value"][1] for series in self.ask("query?query=up")["result"]}


@pytest.fixture(scope="module", params=RELEASES)
def machine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """A host with a registry and no Prometheus."""
    folder = tmp_path_factory.mktemp("monitoring")
    # No edge is asked here, but Prometheus reads the file.
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=CA", "-days", "9"]
    subprocess.run([*command, "-keyout", "/dev/null", "-out", str(folder / "ca.crt")], check=True, capture_output=True)
    with host("monitoring", RELEASES[request.param], services=True) as found:
        found.copy(REGISTRY_3, "/usr/local/bin/registry")
        found.on("cat > /etc/registry.yml", stdin=REGISTRY)
        found.on("cat > /etc/systemd/system/registry.service && systemctl daemon-reload && systemctl start registry", stdin=UNIT)
        yield Machine(found, folder)


bare = pytest.mark.parametrize("machine", ["debian13"], indirect=True)


@bare
def test_a_host_without_prometheus_gets_one(machine: Machine) -> None:
    receivers = [{"name": "team", "webhook_configs": [{"url": "http://127.0.0.1:9/none"}]}]
    assert machine.changes("main", "--check", "--diff", prometheus_scrape_receivers=receivers) > 0
    assert machine.host.answers("test -e /etc/prometheus")[0] != 0, "check mode left something"
    assert machine.changes(prometheus_scrape_receivers=receivers) > 0
    assert machine.up()["wharf_registries"] == "1"
    assert sorted(machine.alerts()) == sorted(rule["alert"] for rule in all_rules() if "alert" in rule)
    series = machine.ask("query?query=registry_http_in_flight_requests")["result"]
    assert {(one["metric"]["cluster"], one["metric"]["node"], one["metric"]["role"]) for one in series} == {
        ("registry.example.test", "registry1", "node")
    }
    managers = machine.ask("alertmanagers")["activeAlertmanagers"]
    assert len(managers) == 1
    told = machine.host.on("amtool --alertmanager.url http://127.0.0.1:9093 config show")
    assert "http://127.0.0.1:9/none" in told or "<secret>" in told
    assert "WharfNodeDown" in told, "the inhibitions"
    listening = machine.host.on("ss -Hltn")
    assert not re.search(r"(\*|0\.0\.0\.0|\[::\]):(9090|9093|9094)\b", listening), listening


@bare
def test_a_second_run_changes_nothing(machine: Machine) -> None:
    receivers = [{"name": "team", "webhook_configs": [{"url": "http://127.0.0.1:9/none"}]}]
    assert machine.changes(prometheus_scrape_receivers=receivers) == 0
    assert machine.changes("main", "--check", prometheus_scrape_receivers=receivers) == 0


@bare
def test_a_target_that_is_down_is_named(machine: Machine) -> None:
    targets = [TARGET, {**TARGET, "node": "registry2", "address": "127.0.0.1:5009"}]
    result = machine.run(prometheus_scrape_targets=targets, prometheus_scrape_wait=12)
    assert result.returncode != 0
    assert "wharf_registries on registry2" in result.stdout
    assert "wharf_registries on registry1" not in result.stdout
    # Unless it is known to be away.
    must(machine.run("verify", prometheus_scrape_targets=targets, prometheus_scrape_wait=12, prometheus_scrape_absent=["registry2"]))


@bare
def test_what_promtool_refuses_is_not_used(machine: Machine) -> None:
    before = machine.host.on("cat /etc/prometheus/prometheus.yml /etc/prometheus/wharf/*")
    result = machine.run(prometheus_scrape_server_name="no: name")
    assert result.returncode != 0
    assert "promtool check config" in result.stdout
    assert machine.host.on("cat /etc/prometheus/prometheus.yml /etc/prometheus/wharf/*") == before


@bare
def test_it_goes_again_with_its_packages(machine: Machine) -> None:
    assert machine.changes("remove", prometheus_scrape_remove_packages=True) > 0
    assert machine.host.answers("test -e /usr/bin/prometheus -o -e /etc/prometheus/wharf")[0] != 0
    assert machine.changes("remove", prometheus_scrape_remove_packages=True) == 0


def test_a_prometheus_that_exists_keeps_what_it_has(machine: Machine) -> None:
    machine.host.on("apt-get update -qq && apt-get install -y -qq --no-install-recommends prometheus")
    # It may still be starting, with the file that it came with.
    owned = "chgrp prometheus prometheus.yml && chmod 0640 prometheus.yml && systemctl restart prometheus"
    machine.host.on(f"cd /etc/prometheus && cat > prometheus.yml && {owned}", stdin=EXISTING)
    before = machine.host.on("cd /etc/prometheus && find . -type f -exec sha256sum {} + -o -printf '%p %m %u %g\\n' | sort")
    assert machine.changes("main", "--check") > 0
    assert machine.changes() > 0
    assert machine.up() == {"itself": "1", "wharf_registries": "1"}
    assert machine.changes() == 0
    second = {
        "prometheus_scrape_directory": "/etc/prometheus/wharf-two",
        "prometheus_scrape_cluster": "two",
        "prometheus_scrape_rules": False,
    }
    assert machine.changes(**second) > 0
    series = machine.ask("query?query=registry_http_in_flight_requests")["result"]
    assert {one["metric"]["cluster"] for one in series} == {"registry.example.test", "two"}
    assert machine.changes("remove") > 0
    assert machine.changes("remove", **second) > 0
    assert machine.changes("remove") == 0
    assert machine.host.on("cd /etc/prometheus && find . -type f -exec sha256sum {} + -o -printf '%p %m %u %g\\n' | sort") == before
    assert machine.host.on("systemctl is-active prometheus").strip() == "active"


def test_what_cannot_be_edited_is_refused(machine: Machine) -> None:
    text = "rule_files: [mine.yml]\nscrape_configs: []\n"
    machine.host.on("cat > /etc/prometheus/prometheus.yml", stdin=text)
    result = machine.run()
    assert result.returncode != 0
    assert "write it as a list" in result.stdout + result.stderr
    assert machine.host.on("cat /etc/prometheus/prometheus.yml") == text
