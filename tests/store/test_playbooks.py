# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The playbooks gc.yml and retention.yml against a real registry: previews change nothing, and what they show is what `apply` does.

Two nodes of the inventory are this machine, over one storage; their access logs are files of the test.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import servers
from test_retention import serving

from ansible_collections.wharf.registry.plugins.action.node_tools import MODULE_UTILS, zipapp_bytes

ROOT = Path(__file__).resolve().parents[2]
RULES = [{"repositories": ["shop/**"], "keep": {"last": 1, "pulled_within": "7d"}}]

pytestmark = pytest.mark.long


class Site:
    """An inventory of two nodes, and playbooks run on it."""

    def __init__(self, folder: Path, server) -> None:
        self.server = server
        self.folder = folder
        self.program = folder / "wharf.pyz"
        self.program.write_bytes(zipapp_bytes(MODULE_UTILS))
        hosts = {}
        for name in ("node1", "node2"):
            log = folder / f"{name}.log"
            log.write_text("")
            hosts[name] = {"lifecycle_usage": [str(log)]}
        shared = {
            "ansible_connection": "local",
            "ansible_become": False,
            "ansible_python_interpreter": sys.executable,
            "lifecycle_config": str(server.config),
            "lifecycle_packages": [],
            "lifecycle_retention_rules": RULES,
            "lifecycle_gc_max_delete_fraction": 1.0,
            "lifecycle_gc_grace": "1s",
        }
        tree = {"all": {"vars": shared, "children": {"registry_nodes": {"hosts": hosts}, "registry_clients": {"hosts": {"node2": {}}}}}}
        self.inventory = folder / "hosts.json"
        self.inventory.write_text(json.dumps(tree))

    def pulled(self, node: str, tag: str) -> None:
        line = {"timestamp": time.time() - 60, "method": "GET", "status": 200, "uri": f"/v2/shop/web/manifests/{tag}"}
        (self.folder / f"{node}.log").write_text(json.dumps(line) + "\n")

    def play(self, name: str, **variables) -> subprocess.CompletedProcess[str]:
        # Where clients have no engine, nothing is in use there.
        environment = {
            **os.environ,
            "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
            "PATH": f"{self.folder}/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        }
        return subprocess.run(
            [
                Path(sys.executable).with_name("ansible-playbook"),
                "-i",
                self.inventory,
                "-e",
                json.dumps({"__lifecycle_program": str(self.program), **variables}),
                f"playbooks/{name}.yml",
            ],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )

    def files(self) -> dict[str, int]:
        registry = self.server.root / "docker"
        return {str(path.relative_to(registry)): path.stat().st_size for path in registry.rglob("*") if path.is_file()}

    def fake_engine(self, name: str, script: str) -> None:
        path = self.folder / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("#!/bin/sh\n" + script)
        path.chmod(0o755)


def told(done: subprocess.CompletedProcess[str]) -> str:
    """Return what a playbook printed, without the line breaks that Ansible makes in long lines."""
    return " ".join(done.stdout.replace("''", "'").split())


@pytest.fixture
def site(tmp_path):
    with serving(servers.settings.REGISTRY_3, tmp_path) as server:
        for number in range(1, 6):
            server.push("shop/web", str(number), f"image {number}", layers=("base",))
            server.age("shop/web", str(number), 30 - number)
        made = Site(tmp_path, server)
        made.fake_engine("podman", "exit 0")
        made.fake_engine("crictl", "echo '{\"containers\": []}'")
        yield made


def test_retention_then_collection(site):
    site.pulled("node1", "1")
    site.pulled("node2", "2")
    running = site.server.client.head_manifest("shop/web", "3")
    site.fake_engine(
        "crictl", f"""echo '{{"containers": [{{"image": {{"image": "sha256:none"}}, "imageRef": "r.test/shop/web@{running}"}}]}}'"""
    )
    before = site.files()
    preview = site.play("retention")
    assert preview.returncode == 0, preview.stdout[-3000:]
    assert site.files() == before
    assert "changed=0" in preview.stdout and "changed=1" not in preview.stdout
    for words in (
        "Retention: preview, nothing was changed; to do it: -e apply=true",
        "tags deleted: 2, kept: 3",
        "shop/web: 2 to delete, 3 to keep",
        "in use by a running host",
        "not pulled since its push 26d ago, not within 7d",
    ):
        assert words in told(preview)
    done = site.play("retention", apply=True)
    assert done.returncode == 0, done.stdout[-3000:]
    assert "Retention: done" in done.stdout and "tags deleted: 2, kept: 3" in told(done) and "changed=1" in done.stdout
    assert sorted(site.server.client.list_tags("shop/web")) == ["1", "2", "3"]
    again = site.play("retention", apply=True)
    assert "tags deleted: 0, kept: 3" in told(again) and "changed=1" not in again.stdout

    time.sleep(1.1)
    before = site.files()
    preview = site.play("gc")
    assert preview.returncode == 0, preview.stdout[-3000:]
    assert site.files() == before and "changed=1" not in preview.stdout
    assert "Garbage collection: preview, nothing was changed" in preview.stdout
    for turn in range(2):
        done = site.play("gc", apply=True)
        assert done.returncode == 0 and "changed=1" in done.stdout, (turn, done.stdout[-3000:])
        time.sleep(1.1)
    gone = {path for path in before if path.startswith("registry/v2/blobs")} - set(site.files())
    assert len(gone) == 6, "manifest, configuration and layer of the images that went; the shared layer stays"
    for tag in ("1", "2", "3"):
        assert site.server.client.head_manifest("shop/web", tag)


def test_an_engine_that_does_not_answer_stops_retention(site):
    site.fake_engine("crictl", "echo 'no socket' >&2; exit 1")
    before = site.files()
    done = site.play("retention", apply=True)
    assert done.returncode != 0
    assert site.files() == before


def test_a_host_that_is_down_stops_retention(site):
    tree = json.loads(site.inventory.read_text())
    tree["all"]["children"]["registry_clients"]["hosts"]["client9"] = {
        "ansible_connection": "ssh",
        "ansible_host": "127.0.0.9",
        "ansible_port": 9,
    }
    site.inventory.write_text(json.dumps(tree))
    before = site.files()
    done = site.play("retention", apply=True)
    assert "client9 could not be asked what runs there" in told(done)
    assert site.files() == before
    done = site.play("retention", apply=True, in_use_hosts="node2")
    assert done.returncode == 0, done.stdout[-3000:]


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"lifecycle_retention_rules": []}, "lifecycle_retention_rules: there are none"),
        ({"lifecycle_retention_rules": [{"repositories": ["shop/*"], "keep": {"lats": 1}}]}, "did you mean last?"),
        ({"lifecycle_config": "/nowhere/config.yml"}, "/nowhere/config.yml cannot be read"),
    ],
)
def test_what_cannot_be_meant_is_refused(site, variables, words):
    before = site.files()
    done = site.play("retention", apply=True, **variables)
    assert done.returncode != 0 and words in told(done)
    assert site.files() == before
