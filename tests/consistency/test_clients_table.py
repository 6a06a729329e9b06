# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""docs/clients.md says what the clients did when it was recorded last."""

from __future__ import annotations

import importlib.util
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SPEC = importlib.util.spec_from_file_location("wharf_clients", ROOT / "tests/cluster/clients.py")
clients = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(clients)


def test_both_generations_are_recorded_with_each_client_and_operation() -> None:
    wanted = [(client, operation) for client in clients.PUSH for operation in clients.OPERATIONS]
    recorded = clients.record()
    assert {release.split(".")[0] for release in recorded} == {"2", "3"}
    assert all([(row["client"], row["operation"]) for row in rows] == wanted for rows in recorded.values())


def test_the_table_is_what_was_recorded() -> None:
    text = clients.DOCUMENT.read_text(encoding="utf-8")
    assert text.split(clients.BEGIN)[1].split(clients.END)[0] == clients.table(clients.record())
