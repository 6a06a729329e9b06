# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The audit log of three edges behind a balancer that gives each request to the next one: every operation once, and whose it was."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from edge import ask, balancer, edge
from test_clients import Crane, Skopeo
from world import Process, World, basic, free_ports, registry, servers
from world import apt_install as install

from ansible_collections.wharf.registry.plugins.module_utils._audit.operations import answer, parse_lines, parse_query


def operations(folders: list[Path]) -> list[dict[str, Any]]:
    """What the audit logs of all nodes tell together."""
    lines = [line for folder in folders for line in (folder / "audit.log").read_text().splitlines()]
    query = parse_query("1h", "")
    return answer(parse_lines(lines), query)


@pytest.mark.parametrize("release", [servers.settings.REGISTRY_3, servers.settings.REGISTRY_2])
def test_every_operation_once(own: World, tmp_path: Path, release: str) -> None:
    install("skopeo")
    ports = free_ports(10)[6:]
    realm = f"https://localhost:{ports[0]}/auth/token"
    folders = [tmp_path / f"node{number}" for number in range(3)]
    with contextlib.ExitStack() as running:
        running.enter_context(own.serve())
        address, _root = running.enter_context(registry(release, tmp_path / "registry", own.directory / "trusted.crt", realm))
        edges = [running.enter_context(edge(folder, address, own, port)) for folder, port in zip(folders, ports, strict=False)]
        front = running.enter_context(balancer(tmp_path / "balancer", dict(zip(edges, folders, strict=True)), ports[3]))
        for folder in folders:
            config = {
                "node": folder.name,
                "access_log": str(folder / "logs/access.log"),
                # One token service serves all three here.
                "token_log": str(own.audit) if folder == folders[0] else "",
                "output": str(folder / "audit.log"),
                "state": str(folder / "state.json"),
                "authenticated": True,
                "users": ["alice", "bob", "carol"],
            }
            (folder / "audit.json").write_text(json.dumps(config))
            running.enter_context(Process(folder, "audit", "/usr/bin/python3", own.program, "audit", "--config", folder / "audit.json"))

        alice, bob = Crane(tmp_path / "alice", front, "alice"), Skopeo(tmp_path / "bob", front, "bob")
        carol, thief = Crane(tmp_path / "carol", front, "carol"), Crane(tmp_path / "thief", front, "alice")
        (thief.folder / "config.json").write_text(json.dumps({"auths": {front: {"username": "hunter2", "password": "wrong"}}}))
        expected: Counter[tuple[str, ...]] = Counter()
        for tag in ("1", "2"):
            assert alice.push(f"team/app:{tag}")
            expected["alice", "push" if tag == "1" else "tag", "team/app", tag, "ok"] += 1
        assert bob.push("team/other:1")
        expected["bob", "push", "team/other", "1", "ok"] += 1
        for who, name in ((alice, "alice"), (carol, "carol"), (bob, "bob")):
            for _time in range(2):
                assert who.pull("team/app:1")
                expected[name, "pull", "team/app", "1", "ok"] += 1
        assert ask(front, "/v2/team/app/manifests/2", basic("carol")).status == 200
        expected["carol", "pull", "team/app", "2", "ok"] += 1
        assert not carol.push("team/app:3")
        assert not thief.pull("team/app:1")
        assert own.get(headers=basic("bob"), offline_token="true").status == 200
        expected["bob", "login", "", "", "ok"] += 1
        # While its log is rotated away under the service.
        (folders[1] / "logs/access.log").rename(folders[1] / "logs/access.log.1")
        os.kill(int((folders[1] / "pid").read_text()), 10)
        assert bob.delete("team/other:1")
        # skopeo reads what it is going to delete.
        expected["bob", "pull", "team/other", "1", "ok"] += 1
        for _round in range(3):
            assert carol.pull("team/app:1")
            expected["carol", "pull", "team/app", "1", "ok"] += 1

        def found() -> Counter[tuple[str, ...]]:
            return Counter(
                (entry["user"], entry["action"], entry.get("repository", ""), entry.get("tag", ""), entry["result"])
                for entry in operations(folders)
                if entry["result"] == "ok" and entry["action"] != "delete"
            )

        own.until(lambda: found().total() >= expected.total(), 20)
        assert found() == expected
    told = operations(folders)
    assert sum(entry["action"] == "delete" and entry["user"] == "bob" and entry["result"] == "ok" for entry in told) == 1
    # What was refused: whose it was where that is known, and no name that may be a password.
    refused = {(entry["user"], entry["action"]) for entry in told if entry["result"] == "denied"}
    assert ("carol", "push") in refused
    assert ("(unknown)", "login") in refused
    assert {entry["address"] for entry in told if entry["action"] != "login"} == {"127.0.0.1"}
    assert {node for entry in told for node in entry["nodes"]} == {"node0", "node1", "node2"}
    text = "".join((folder / "audit.log").read_text() for folder in folders)
    assert not any(secret in text for secret in ("hunter2", "alice-password", "bob-password", "eyJ"))
    # The node's own command says the same of one node.
    command = ["/usr/bin/python3", str(own.program), "audit-query", f"--log={folders[0]}/audit.log", "--raw", "--user=carol"]
    lines = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout.splitlines()
    assert lines
    assert {json.loads(line)["user"] for line in lines} == {"carol"}
