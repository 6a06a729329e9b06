# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Guessing: what it costs those who do it, and what others notice of it."""

from __future__ import annotations

import concurrent.futures
import os
import signal
import time
from pathlib import Path

import pytest
from wharf_token import hashing, limits, scopes
from world import PASSWORDS, World, basic

# -- the parts --------------------------------------------------------------------------------------------------------------------------


def test_failures_come_back_with_time() -> None:
    failures = limits.Failures(3, 60)
    for _attempt in range(3):
        assert failures.wait("a", 0) == 0
        failures.charge("a", 0)
    assert failures.wait("a", 0) == 20
    assert failures.wait("a", 19) == 1
    assert failures.wait("a", 21) == 0
    assert failures.wait("b", 0) == 0
    failures.give_back("a", 0)
    assert failures.wait("a", 0) == 0


def test_failures_are_bounded() -> None:
    failures = limits.Failures(3, 60, most=100)
    for number in range(1000):
        failures.charge(str(number), 0)
    assert len(failures) == 100
    assert failures.wait("0", 0) == 0


@pytest.mark.parametrize(
    ("address", "key"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8::1", "2001:db8::/64"),
        ("2001:db8::ffff:1", "2001:db8::/64"),
        ("", "unknown"),
        ("192.0.2.1, 1.2.3.4", "unknown"),
    ],
)
def test_what_one_address_is(address: str, key: str) -> None:
    assert limits.address_key(address) == key


@pytest.mark.parametrize(
    ("values", "found"),
    [
        (["repository:a/b:pull"], ["repository:a/b:pull"]),
        (["repository:a/b:pull repository:c/d:push"], ["repository:a/b:pull", "repository:c/d:push"]),
        (["repository:a/b:pull", "repository:a/b:push"], ["repository:a/b:pull,push"]),
        (["repository:host:5000/a:pull"], ["repository:host:5000/a:pull"]),
        (["repository:a/b:"], ["repository:a/b:"]),
        (["", " "], []),
    ],
)
def test_scopes(values: list[str], found: list[str]) -> None:
    assert [str(scope) for scope in scopes.parse(values)] == found


@pytest.mark.parametrize("value", ["a", "repository:a", "repository::pull", "Repository:a:pull", ":a:pull"])
def test_scopes_that_are_none(value: str) -> None:
    with pytest.raises(scopes.ScopeError):
        scopes.parse([value])


@pytest.mark.parametrize(
    ("uri", "found"),
    [
        ("/v2/", []),
        ("/v2/_catalog?n=5", ["registry:catalog:*"]),
        ("/v2/team/app/manifests/1", ["repository:team/app:*"]),
        ("/v2/team/app/blobs/uploads/?mount=sha256:1&from=a%2Fb", ["repository:team/app:*", "repository:a/b:pull"]),
        ("/v2/manifests/manifests/manifests/1", ["repository:manifests/manifests:*"]),
        ("/v2/team/app/tags/list", ["repository:team/app:*"]),
    ],
)
def test_what_a_request_needs(uri: str, found: list[str]) -> None:
    assert [str(scope) for scope in scopes.needed(uri)] == found


def test_a_wrong_password_takes_as_long_for_every_account() -> None:
    """Whatever its hash costs, and for names that nobody has: seconds of the processor, the least of five."""
    hashes = {cost: hashing.bcrypt.hashpw(b"right", hashing.bcrypt.gensalt(cost)).decode() for cost in (6, 8, 10)}

    def cost_of(digests: list[str], slots: int = 1) -> float:
        times = []
        for _attempt in range(5):
            started = time.thread_time()
            assert not hashing.verify(b"wrong", digests, 10, slots)
            times.append(time.thread_time() - started)
        return min(times)

    unknown = cost_of([])
    for cost, digest in hashes.items():
        assert cost_of([digest]) == pytest.approx(unknown, rel=0.25), cost
    two = cost_of([], 2)
    assert cost_of([hashes[8], hashes[8]], 2) == pytest.approx(two, rel=0.25)
    assert cost_of([hashes[8]], 2) == pytest.approx(two, rel=0.25)


# -- the service ------------------------------------------------------------------------------------------------------------------------


def test_an_address_that_guesses_has_to_wait(own: World) -> None:
    with own.serve():
        guesses = [own.get(headers={**basic("alice", f"guess {number}"), "X-Real-IP": "198.51.100.7"}) for number in range(12)]
        assert [answer.status for answer in guesses] == [401] * 10 + [429] * 2
        assert 1 <= int(guesses[-1].headers["retry-after"]) <= 7
        assert guesses[-1].json["errors"][0]["code"] == "TOOMANYREQUESTS"
        # Nobody else is slowed down, and the header that clients may send themselves makes no difference.
        assert own.get(headers=basic("alice")).status == 200
        lie = {"X-Real-IP": "198.51.100.7", "X-Forwarded-For": "203.0.113.5", "Forwarded": "for=203.0.113.5"}
        assert own.get(headers={**basic("bob"), **lie}).status == 429
        form = own.post(headers=lie, grant_type="password", username="bob", password=PASSWORDS["bob"])
        assert (form.status, form.json["error"]) == (429, "slow_down")


def test_an_account_that_is_guessed_from_everywhere(own: World) -> None:
    """The guesses stop, and its owner goes on where he was before."""
    with own.serve():
        assert own.get(headers=basic("alice")).status == 200
        statuses = [
            own.get(headers={**basic("alice", f"guess {number}"), "X-Real-IP": f"198.51.100.{number}"}).status for number in range(30)
        ]
        assert statuses.count(401) == 20
        assert statuses.count(429) == 10
        assert own.get(headers=basic("alice")).status == 200
        own.accounts["alice"] = "another-password"
        own.write_accounts()
        own.until(lambda: own.get(headers=basic("alice", "another-password")).status == 200)
        # From an address where he never was, he has to wait like everybody.
        assert own.get(headers={**basic("alice", "another-password"), "X-Real-IP": "203.0.113.1"}).status in (200, 429)


def test_a_thousand_guesses_at_once_are_no_way_around(own: World) -> None:
    with own.serve():

        def guess(number: int) -> int:
            return own.get(headers={**basic("alice", f"guess {number}"), "X-Real-IP": "198.51.100.7"}).status

        with concurrent.futures.ThreadPoolExecutor(50) as pool:
            statuses = list(pool.map(guess, range(1000)))
        assert statuses.count(401) <= 12
        own.until(lambda: own.metric("wharf_token_passwords_computed_total") > 0)
        assert own.metric("wharf_token_passwords_computed_total") <= 12


def test_a_right_password_is_computed_once(own: World) -> None:
    """Fifty requests at the same time, as a pull of many layers makes them, cost one bcrypt; a changed password ends that at once."""
    own.write_accounts(10)
    with own.serve():
        with concurrent.futures.ThreadPoolExecutor(50) as pool:
            statuses = list(pool.map(lambda _number: own.get(headers=basic("alice")).status, range(200)))
        assert statuses == [200] * 200
        own.until(lambda: own.metric("wharf_token_passwords_computed_total") >= 1)
        assert own.metric("wharf_token_passwords_computed_total") == 1
        own.accounts["alice"] = "another-password"
        own.write_accounts()
        own.until(lambda: own.get(headers={**basic("alice"), "X-Real-IP": "203.0.113.200"}).status != 200, 5)
        assert own.get(headers=basic("alice", "another-password")).status == 200


def test_guesses_from_everywhere_do_not_keep_out_who_was_here_before(own: World) -> None:
    """When his password is no longer remembered it is computed before those of strangers, of which there are more than can wait."""
    own.write_accounts(12)
    own.configure(cache_seconds=1)

    def guess(number: int) -> int:
        return own.get(headers={**basic(f"name{number}", "wrong"), "X-Real-IP": f"198.51.100.{number}"}).status

    with own.serve(), concurrent.futures.ThreadPoolExecutor(80) as pool:
        assert own.get(headers=basic("bob")).status == 200
        time.sleep(1.1)
        guesses = [pool.submit(guess, number) for number in range(80)]
        own.until(lambda: any(one.done() and one.result() == 429 for one in guesses), 30)
        assert own.get(headers=basic("bob")).status == 200
        assert not all(one.done() for one in guesses)
        statuses = [one.result() for one in guesses]
        assert statuses.count(401) == 48
        assert statuses.count(429) == 32


def test_a_process_that_computes_and_dies_is_started_again(own: World) -> None:
    with own.serve():
        assert own.get(headers=basic("bob")).status == 200
        for child in Path(f"/proc/{own.pid}/task/{own.pid}/children").read_text().split():
            os.kill(int(child), signal.SIGKILL)
        assert own.get(headers=basic("alice")).status in (200, 429)
        assert own.get(headers=basic("alice")).status == 200
        assert own.get(headers=basic("bob")).status == 200
