# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A node that goes by tokens, without its containers: the registry with the collection's own configuration, and the health probe before it."""

from __future__ import annotations

import json
import urllib.request
from pathlib import Path

import pytest
from world import ISSUER, PASSWORDS, SERVICE, Process, World, free_ports, servers

from ansible_collections.wharf.registry.plugins.module_utils._registry import config as registry_config


@pytest.mark.parametrize("release", [servers.settings.REGISTRY_3, servers.settings.REGISTRY_2])
def test_the_probe_finds_a_registry_with_tokens_healthy(own: World, tmp_path: Path, release: str) -> None:
    port, debug, health = free_ports(9)[6:]
    (tmp_path / "data").mkdir()
    options = {
        "version": release,
        "storage": {"filesystem": {"rootdirectory": str(tmp_path / "data")}},
        "auth": "token",
        # The name that clients use is out of reach here, as it may be for a node whose balancers are down.
        "token": {
            "realm": "https://registry.lab.test/auth/token",
            "service": SERVICE,
            "issuer": ISSUER,
            "rootcertbundle": str(own.directory / "trusted.crt"),
        },
        "http_secret": "of all nodes, long enough",
        "addr": f"127.0.0.1:{port}",
        "debug_addr": f"127.0.0.1:{debug}",
    }
    assert registry_config.messages(options, "registry_") == []
    config = tmp_path / "config.yml"
    config.write_text(registry_config.render(registry_config.build(options)))
    probe = tmp_path / "probe.json"
    probe.write_text(
        json.dumps(
            {
                "listen": f"127.0.0.1:{health}",
                "registry_url": f"http://127.0.0.1:{port}",
                "repository": "wharf/probe",
                "username": "wharf-probe",
                "password": PASSWORDS["wharf-probe"],
                "token_url": f"http://127.0.0.1:{own.port}",
                "write": True,
            }
        )
    )

    def healthy() -> bool:
        with urllib.request.urlopen(f"http://127.0.0.1:{health}/healthz", timeout=5) as answer:
            return bool(json.load(answer)["healthy"])

    command = [*servers.registry_command(release), "serve", config]
    with (
        own.serve(),
        Process(tmp_path, "registry", *command, OTEL_TRACES_EXPORTER="none", AWS_CA_BUNDLE=""),
        Process(tmp_path, "probe", "/usr/bin/python3", own.program, "probe", "--config", probe) as watching,
    ):
        watching.wait_for(healthy, 30)
        assert own.lines()[-1]["account"] == "wharf-probe"
