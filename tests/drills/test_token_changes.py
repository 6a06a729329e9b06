# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Another key for the registries' tokens, and another access model, on a running cluster, while clients sign in, pull and push."""

from __future__ import annotations

import http.client
import json
import ssl
import sys
import time
from pathlib import Path

import pytest
import yaml
from change import deploy
from cluster import TOKENS, Cluster
from load import Load
from test_faults import MODE, all_nodes_in, wait_until
from test_with_tokens import CLIENTS, small  # noqa: F401  (a fixture)

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests/token"), str(ROOT / ".cache/collections")]

from people import Person  # noqa: E402  (found through the path above)
from world import Answer, basic, decode  # noqa: E402

LIFETIME = 60  # seconds that a token lasts here
SHORT = ("-e", f"token_auth_lifetime={LIFETIME}")
# Not all the time: these changes are many tasks, on the same two cores.
AT_TIMES = {client: f"sleep 1; {command}" for client, command in CLIENTS.items()}


class Front:
    """The registry at its virtual address, as people.Person asks it."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self._context = ssl.create_default_context(cafile=str(cluster.secrets / "ca.crt"))

    def request(self, method: str, path: str, headers: dict[str, str] | None = None, body: str | None = None) -> Answer:
        """Ask it."""
        connection = http.client.HTTPSConnection(self.cluster.vip, timeout=30, context=self._context)
        try:
            connection.request(method, path, body, {"Host": self.cluster.name, **(headers or {})})
            return Answer(connection.getresponse())
        finally:
            connection.close()

    def token(self, name: str, secret: str, scope: str = "repository:shop/web:pull") -> Answer:
        """Ask for a token."""
        return self.request("GET", f"/auth/token?service={self.cluster.name}&scope={scope}", basic(name, secret))


def judge(load: Load, what: str, report: list[str]) -> None:
    """Nothing may have failed."""
    for seen in load.seen:
        report.append(f"[{MODE}] {what}: {seen.summary()}")
        report += [f"    failed: {failure['output'].strip()[-300:]}" for failure in seen.failures()]
    assert all(len(seen.pulls) > 5 and not seen.failures() for seen in load.seen), "\n".join(report[-12:])


@pytest.fixture(scope="module")
def front(tokens: Cluster) -> Front:
    """The registry."""
    return Front(tokens)


def verb(cluster: Cluster, folder: Path, name: str) -> None:
    """Run a verb of the role cluster_secrets."""
    play = folder / f"{name}.yml"
    role = {
        "include_role": {"name": "wharf.registry.cluster_secrets", "tasks_from": name},
        "vars": {"cluster_secrets_directory": str(cluster.secrets)},
    }
    play.write_text(json.dumps([{"hosts": "localhost", "connection": "local", "gather_facts": False, "tasks": [role]}]))
    result = cluster.playbook("-e", "ansible_become=false", "-e", "ansible_python_interpreter={{ ansible_playbook_python }}", str(play))
    assert result.returncode == 0, result.stdout + result.stderr


def test_the_key_is_changed(front: Front, small: str, report: list[str], tmp_path: Path) -> None:  # noqa: F811
    cluster = front.cluster
    person = Person(front)  # type: ignore[arg-type]
    assert person.sign_in("admin", cluster.password).status == 303
    name = f"key change {time.time_ns()}"
    personal = person.make(name)
    before = decode(front.token("admin", personal).json["token"])[0]["kid"]
    wait_until(lambda: all_nodes_in(cluster), 60, "all nodes in service before the change")
    load = Load(cluster, small, AT_TIMES, seconds=2400)
    with load:
        for step in ("token_begin", "token_switch", "token_finish"):
            verb(cluster, tmp_path, step)
            deploy(cluster, report, step, *SHORT)
            # Tokens of before end.
            time.sleep(LIFETIME)
            assert front.token("admin", personal).status == 200, step
    judge(load, "another key", report)
    after = decode(front.token("admin", personal).json["token"])[0]["kid"]
    assert after != before
    # Nobody has noticed: neither the session nor the personal token; and it is revoked as ever.
    assert "Signed in as" in person.look().text
    person.revoke(name)
    assert front.token("admin", personal).status == 401


def test_the_access_model_is_changed(front: Front, small: str, report: list[str], tmp_path: Path) -> None:  # noqa: F811
    cluster = front.cluster
    writer = (cluster.secrets / "robots/writer").read_text().strip()
    scope = "repository:new/app:push"
    assert not front.token("robot-writer", writer, scope).granted
    model = yaml.safe_load(TOKENS.read_text())["wharf_access"]
    model["projects"]["new"] = {"writers": ["robot:writer"]}
    (tmp_path / "model.yml").write_text(yaml.safe_dump({"wharf_access": model}))
    load = Load(cluster, small, AT_TIMES, seconds=900)
    with load:
        deploy(cluster, report, "another access model", "-e", f"@{tmp_path / 'model.yml'}", *SHORT)
        assert front.token("robot-writer", writer, scope).granted == {"repository:new/app": ["push"]}
        time.sleep(5)
    judge(load, "another access model", report)
