# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What nodes know of personal tokens and revocations: joined in any order to the same, never taken back, and whole on the disk."""

from __future__ import annotations

import asyncio
import copy
import itertools
import json
import random
import time
from pathlib import Path
from typing import Any

import pytest
import world  # noqa: F401  # makes the service's code known
from wharf_token.revocations import USE_STEP, Keeper, State, StateError

NOW = 1_800_000_000


def token(owner: str = "alice", expires: int = NOW + 1000) -> dict[str, Any]:
    """Return what is known of a token."""
    return {"owner": owner, "name": "laptop", "role": "reader", "repositories": ["team/**"], "created": NOW, "expires": expires}


def person(group: str, seen: int) -> dict[str, Any]:
    """Return what an identity provider has said."""
    return {"groups": [group], "seen": seen, "issuer": "https://idp.example", "sub": "1"}


def known(**parts: Any) -> dict[str, Any]:
    """Return what a node tells."""
    return {"tokens": {}, "revoked": {}, "used": {}, "accounts": {}, **parts}


PIECES = [
    known(tokens={"a": token()}),
    known(tokens={"a": token(), "b": token("bob")}, used={"a": NOW - 600}),
    known(tokens={"a": token()}, revoked={"a": NOW + 1000}, used={"a": NOW}),
    known(revoked={"c": NOW + 50}, accounts={"dana": person("x", NOW - 5)}),
    known(accounts={"dana": person("y", NOW - 5), "erin": person("x", NOW)}),
]


def joined(pieces: list[dict[str, Any]]) -> State:
    """Return what a node knows that has heard of these."""
    state = State()
    for piece in pieces:
        state.merge(copy.deepcopy(piece), NOW)
    return state


def test_in_any_order_and_any_number_of_times() -> None:
    wanted = joined(PIECES + PIECES).content()
    assert wanted["revoked"] == {"a": NOW + 1000, "c": NOW + 50}
    assert wanted["accounts"]["dana"]["groups"] == ["y"]
    assert wanted["used"] == {"a": NOW}
    chance = random.Random(7)
    for order in itertools.permutations(PIECES):
        pieces = [*order, *chance.choices(PIECES, k=2)]
        # A use is only known together with its token; nodes tell both together.
        state = joined([*pieces, *pieces])
        assert state.content() == wanted
        assert state.digest() == joined(PIECES + PIECES).digest()
    assert not joined(PIECES + PIECES).merge(wanted, NOW)


def test_nothing_is_taken_back() -> None:
    state = joined(PIECES)
    for piece in (known(), known(revoked={"a": 0}), known(revoked={"a": NOW + 1}), known(tokens={"a": token("mallory")})):
        state.merge(piece, NOW)
        assert state.revoked["a"] == NOW + 1000
        assert state.tokens["a"]["owner"] == "alice"


def test_what_has_expired_is_dropped_and_not_taken_again() -> None:
    state = joined(PIECES)
    assert not state.drop_expired(NOW)
    assert state.drop_expired(NOW + 60)
    assert "c" not in state.revoked
    assert not state.merge(known(revoked={"c": NOW + 50}), NOW + 60)
    assert state.drop_expired(NOW + 2000)
    assert state.content() == known(accounts=state.accounts)
    # Nor is what would stay for ever.
    assert not state.merge(known(revoked={"z": NOW * 2}, tokens={"z": token(expires=NOW * 2)}), NOW)
    assert not state.merge(known(accounts={"dana": person("z", NOW + 9999)}), NOW)


@pytest.mark.parametrize(
    "content",
    [
        None,
        [],
        {},
        {"tokens": {}},
        known(tokens=[]),
        known(revoked={"a": "soon"}),
        known(tokens={"a": {}}),
        known(tokens={"a": {**token(), "expires": None}}),
        known(accounts={"dana": ["x"]}),
        known(revoked={"good": NOW + 5}, used=7),
    ],
)
def test_what_is_no_state_is_refused_as_a_whole(content: Any) -> None:
    state = State()
    with pytest.raises(StateError):
        state.merge(content, NOW)
    assert state.content() == known()


def test_uses_are_told_in_steps() -> None:
    state = joined(PIECES[:1])
    state.note_use("a", NOW)
    state.note_use("a", NOW + USE_STEP - 1)
    assert state.used == {"a": NOW}
    state.note_use("a", NOW + USE_STEP)
    assert state.used == {"a": NOW + USE_STEP}
    state.note_use("unknown", NOW)
    assert "unknown" not in state.used


def test_the_file(tmp_path: Path) -> None:
    path = tmp_path / "personal.json"

    async def write(identifier: str) -> None:
        keeper = Keeper(path)
        keeper.state.merge(known(revoked={identifier: int(time.time()) + 100}))
        await keeper.save()

    asyncio.run(write("a"))
    asyncio.run(write("b"))
    assert set(json.loads(path.read_text())["revoked"]) == {"a", "b"}
    assert [file.name for file in tmp_path.iterdir()] == ["personal.json"]


@pytest.mark.parametrize("content", ["", "{", "[]", '{"tokens": {}}', "\0\0"])
def test_a_broken_file_is_kept_until_another_node_has_told(tmp_path: Path, content: str) -> None:
    path = tmp_path / "personal.json"
    path.write_text(content)

    async def go() -> None:
        keeper = Keeper(path)
        assert str(path) in keeper.broken
        keeper.state.merge(known(revoked={"a": int(time.time()) + 100}))
        await keeper.save()
        assert path.read_text() == content
        keeper.heal()
        await keeper.save()
        assert set(json.loads(path.read_text())["revoked"]) == {"a"}
        assert path.with_name("personal.json.broken").read_text() == content

    asyncio.run(go())
