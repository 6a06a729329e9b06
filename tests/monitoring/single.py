# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A host that is registry node, balancer, cache and watcher at once, made by the collection's roles, without an engine in it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from ruletests import CHECKOUT

sys.path.insert(0, str(CHECKOUT / "tests/acceptance"))

from hosts import Host, ansible, must, registry_2, settings  # noqa: E402  (found through the path above)

NAME = "registry.example.test"
VIP = "192.0.2.100"
GROUPS = ["registry_nodes", "registry_lb", "registry_cache", "registry_monitoring"]
NODE = "single1"
JOBS = ["registries", "hosts", "logs", "caches", "edges", "balancers", "service"]
UNIT = """\
[Service]
Environment=OTEL_TRACES_EXPORTER=none
User=65532
Group=65532
ExecStart={command} serve /etc/wharf/registry/config.yml
"""
# The container of the registry is not here; what the metrics want to know of it is.
ENGINE = "#!/bin/sh\necho sha256:0123456789abcdef\n"


class Single:
    """The host, and how roles are run on it."""

    def __init__(self, folder: Path, machine: Host) -> None:
        self.host = machine
        self.folder = folder
        self.address = machine.on("hostname -I").split()[0]
        self.variables: dict[str, Any] = {
            "wharf_name": NAME,
            "wharf_secrets_dir": str(folder / "secrets"),
            "wharf_storage": {"filesystem": {"rootdirectory": "/srv/registry"}},
            "wharf_users": [{"name": "alice", "password": "alice-has-a-long-password"}],
            "wharf_registry_version": settings.REGISTRY_2,
            "exporters_vip": VIP,
            "lifecycle_retention_rules": [{"repositories": ["none/**"], "keep": {"last": 1}}],
            "lifecycle_packages": [],
            "prometheus_scrape_jobs": JOBS,
            "prometheus_scrape_interval": 2,
            "registry_edge_read_timeout": 2,
        }

    def play(self, roles: list[str], *arguments: str, **variables: Any) -> subprocess.CompletedProcess[str]:
        """Run roles, one after the other; a role's name may be followed by a verb."""
        groups = [{"ansible.builtin.group_by": {"key": group}, "changed_when": False} for group in GROUPS]
        address = {"ansible.builtin.set_fact": {"wharf_address": self.address}}
        plays: list[dict[str, Any]] = [{"hosts": "all", "gather_facts": True, "tasks": [address, *groups]}]
        for role in roles:
            name, _space, verb = role.partition(" ")
            call = {"ansible.builtin.include_role": {"name": f"wharf.registry.{name}", "tasks_from": verb or "main"}}
            plays.append({"hosts": "all", "gather_facts": False, "vars": {**self.variables, **variables}, "tasks": [call]})
        return ansible(self.folder, plays, {NODE: self.host}, *arguments)

    def changes(self, roles: list[str], *arguments: str, **variables: Any) -> int:
        """Run roles, which has to be good; return how many tasks changed something."""
        return sum(int(changed) for changed in re.findall(r"changed=(\d+)", must(self.play(roles, *arguments, **variables))))

    def secrets(self) -> None:
        """Make the cluster's secrets on the controller."""
        local = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable, "ansible_become": False}
        variables = {**self.variables, **local, "cluster_secrets_hosts": [{"name": NODE, "address": self.address}]}
        plays = [{"hosts": NODE, "gather_facts": False, "vars": variables, "roles": ["wharf.registry.cluster_secrets"]}]
        must(ansible(self.folder, plays, {NODE: self.host}))

    def start_registry(self) -> None:
        """Run a registry with the configuration of the role ``registry``, whose engine there is no room for."""
        (self.folder / "registry").mkdir()
        root = self.folder / "registry/root"
        command = " ".join(part.replace(str(root), "/opt/registry") for part in registry_2(self.folder / "registry"))
        self.host.copy(root, "/opt/registry")
        self.host.on("chmod -R a+rX /opt/registry")
        self.host.on("cat > /usr/local/bin/docker && chmod 755 /usr/local/bin/docker", stdin=ENGINE)
        self.host.on(f"echo '{self.address} {NAME}' >> /etc/hosts; install -d -o 65532 -g 65532 /srv/registry")
        self.host.on("groupadd -r -g 65532 wharf-registry; useradd -r -M -u 65532 -g 65532 wharf-registry")
        self.host.on("install -d -m 0750 -g 65532 /etc/wharf/registry /etc/wharf/registry/auth")
        self.host.on("cat > /etc/wharf/registry/auth/htpasswd", stdin=(self.folder / "secrets/htpasswd").read_text())
        self.host.on("chgrp -R 65532 /etc/wharf/registry/auth")
        self.host.on("cat > /etc/systemd/system/registry.service", stdin=UNIT.format(command=command))
        options = {
            "path": "/etc/wharf/registry/config.yml",
            "version": self.variables["wharf_registry_version"],
            "storage": self.variables["wharf_storage"],
            "auth": "htpasswd",
            "http_secret": "the secret of all the nodes",
            "group": "65532",
            "mode": "0640",
        }
        start = {"ansible.builtin.systemd_service": {"name": "registry", "state": "started", "daemon_reload": True}}
        plays = [{"hosts": "all", "gather_facts": False, "tasks": [{"wharf.registry.registry_config": options}, start]}]
        must(ansible(self.folder, plays, {NODE: self.host}))
        wait = "curl -s --retry 20 --retry-connrefused --retry-delay 1 http://127.0.0.1:5000/"
        self.host.on(f"{wait} || (journalctl -u registry | tail -20; exit 1)")

    def ask(self, query: str) -> list[dict[str, Any]]:
        """What Prometheus answers to a query."""
        answer = self.host.on(f"curl -sSf -G http://127.0.0.1:9090/api/v1/query --data-urlencode query={json.dumps(query)}")
        result: list[dict[str, Any]] = json.loads(answer)["data"]["result"]
        return result

    def value(self, metric: str) -> float:
        """The sum of a metric's series in mtail's own answer; 0 if there is none."""
        found = self.host.on("curl -sSf http://127.0.0.1:3903/metrics")
        return sum(float(line.rsplit(" ", 1)[1]) for line in found.splitlines() if re.match(rf"{metric}(\{{| )", line))

    def get(self, path: str, *options: str, port: int = 443) -> str:
        """The status of a request of a client."""
        return self.host.on(
            f"curl -s -o /dev/null -w '%{{http_code}}' --cacert /etc/wharf/edge/ca.crt --resolve {NAME}:{port}:{self.address}"
            f" {' '.join(options)} https://{NAME}:{port}{path}",
            check=False,
        )[-3:]

    def wait(self, seconds: float, what: str, condition: Any) -> None:
        """Wait until a condition holds."""
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, f"after {seconds:g} s still not: {what}"
            time.sleep(0.5)
