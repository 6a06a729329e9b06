# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Hosts with a registry, made by the collection's roles, without an engine in them: the first is a registry node, balancer, cache and
watcher at once, further ones are registry nodes."""

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

from hosts import REGISTRY_3, Host, ansible, must, registry_2  # noqa: E402  (found through the path above)

NAME = "registry.example.test"
VIP = "192.0.2.100"
GROUPS = ["registry_nodes", "registry_lb", "registry_cache", "registry_monitoring"]
FIRST = "single1"
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
    """The hosts, and how roles are run on them. What is asked is asked on the first."""

    def __init__(self, folder: Path, generation: str, machine: Host, **others: Host) -> None:
        self.host = machine
        self.hosts = {FIRST: machine, **others}
        self.folder = folder
        self.generation = generation
        self.addresses = {name: host.on("hostname -I").split()[0] for name, host in self.hosts.items()}
        self.address = self.addresses[FIRST]
        self.variables: dict[str, Any] = {
            "wharf_name": NAME,
            "wharf_secrets_dir": str(folder / "secrets"),
            "wharf_storage": {"filesystem": {"rootdirectory": "/srv/registry"}},
            "wharf_users": [{"name": "alice", "password": "alice-has-a-long-password"}],
            "wharf_registry_version": "3.1.2" if generation == "3" else "2.8.3",
            "exporters_vip": VIP,
            "lifecycle_retention_rules": [{"repositories": ["none/**"], "keep": {"last": 1}}],
            "lifecycle_packages": [],
            "prometheus_scrape_jobs": JOBS,
            "prometheus_scrape_interval": 2,
            "registry_edge_read_timeout": 2,
        }

    def play(self, roles: list[str], *arguments: str, **variables: Any) -> subprocess.CompletedProcess[str]:
        """Run roles, one after the other, on the hosts that they are for; a role's name may be followed by a verb."""
        first = f"inventory_hostname == '{FIRST}'"
        plays: list[dict[str, Any]] = [
            {
                "hosts": "all",
                "gather_facts": True,
                "vars": {"addresses": self.addresses},
                "tasks": [
                    {"ansible.builtin.set_fact": {"wharf_address": "{{ addresses[inventory_hostname] }}"}},
                    {"ansible.builtin.group_by": {"key": "registry_nodes"}, "changed_when": False},
                    *({"ansible.builtin.group_by": {"key": group}, "changed_when": False, "when": first} for group in GROUPS[1:]),
                ],
            }
        ]
        for role in roles:
            name, _space, verb = role.partition(" ")
            call = {"ansible.builtin.include_role": {"name": f"wharf.registry.{name}", "tasks_from": verb or "main"}}
            plays.append(
                {
                    "hosts": FIRST if name in ("redis_cache", "nginx_lb", "prometheus_scrape") else "all",
                    "gather_facts": False,
                    "vars": {**self.variables, **variables},
                    "tasks": [call],
                }
            )
        return ansible(self.folder, plays, self.hosts, *arguments)

    def changes(self, roles: list[str], *arguments: str, **variables: Any) -> int:
        """Run roles, which has to be good; return how many tasks changed something."""
        return sum(int(changed) for changed in re.findall(r"changed=(\d+)", must(self.play(roles, *arguments, **variables))))

    def secrets(self) -> None:
        """Make the cluster's secrets on the controller."""
        local = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable, "ansible_become": False}
        members = [{"name": name, "address": address} for name, address in self.addresses.items()]
        variables = {**self.variables, **local, "cluster_secrets_hosts": members}
        plays = [{"hosts": FIRST, "gather_facts": False, "vars": variables, "roles": ["wharf.registry.cluster_secrets"]}]
        must(ansible(self.folder, plays, self.hosts))

    def start_registry(self) -> None:
        """Run registries with the configuration of the role ``registry``, whose engine there is no room for."""
        if self.generation == "2.8":
            (self.folder / "registry").mkdir()
            parts = registry_2(self.folder / "registry")
        for host in self.hosts.values():
            if self.generation == "3":
                host.copy(REGISTRY_3, "/usr/local/bin/registry")
                command = "/usr/local/bin/registry"
            else:
                root = self.folder / "registry/root"
                host.copy(root, "/opt/registry")
                host.on("chmod -R a+rX /opt/registry")
                command = " ".join(part.replace(str(root), "/opt/registry") for part in parts)
            host.on("cat > /usr/local/bin/docker && chmod 755 /usr/local/bin/docker", stdin=ENGINE)
            host.on(f"echo '{self.address} {NAME}' >> /etc/hosts; install -d -o 65532 -g 65532 /srv/registry")
            host.on("groupadd -r -g 65532 wharf-registry; useradd -r -M -u 65532 -g 65532 wharf-registry")
            host.on("install -d -m 0750 -g 65532 /etc/wharf/registry /etc/wharf/registry/auth")
            host.on("cat > /etc/wharf/registry/auth/htpasswd", stdin=(self.folder / "secrets/htpasswd").read_text())
            host.on("chgrp -R 65532 /etc/wharf/registry/auth")
            host.on("cat > /etc/systemd/system/registry.service", stdin=UNIT.format(command=command))
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
        must(ansible(self.folder, plays, self.hosts))
        for host in self.hosts.values():
            host.on(
                "curl -s --retry 20 --retry-connrefused --retry-delay 1 http://127.0.0.1:5000/ || (journalctl -u registry | tail -20; exit 1)"
            )

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
