# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Personal access tokens: made on the page, used as a password, never good for more than their account, and gone with it."""

from __future__ import annotations

import json
import re
import stat

import pytest
from people import ORIGIN, Person
from world import MODEL, PASSWORDS, World, basic, decode, forge

ALL = "repository:team/app:pull,push,delete"


def granted(world: World, name: str, token: str, scope: str = ALL) -> list[str]:
    """Return what a token used as a password is good for."""
    answer = world.get(scope, headers=basic(name, token))
    assert answer.status == 200, answer.text
    return answer.granted.get(scope.rpartition(":")[0], [])


def test_a_token_is_a_password(world: World) -> None:
    alice = Person(world)
    assert alice.sign_in("alice").status == 303
    token = alice.make("laptop")
    assert granted(world, "alice", token) == ["pull", "push"]
    # As containerd sends it, and in place of a password at the registry itself.
    answer = world.post(grant_type="password", username="alice", password=token, scope=ALL)
    assert answer.granted == {"repository:team/app": ["pull", "push"]}
    at_the_edge = world.request("GET", "/auth/exchange", {**basic("alice", token), "X-Original-URI": "/v2/team/app/manifests/1"})
    assert at_the_edge.status == 204
    # Whoever has it keeps it; it gives no other one that would outlive it.
    assert "refresh_token" not in world.get(ALL, headers=basic("alice", token), offline_token="true").json
    assert "refresh_token" not in world.post(grant_type="password", username="alice", password=token, access_type="offline").json
    line = world.lines()[-1]
    assert (line["account"], line["personal"]) == ("alice", alice.identifier("laptop"))
    for wrong in (basic("bob", token), basic("alice", token[:-3] + "AAA"), basic("alice", "wpt_"), basic("robot-ci", token)):
        assert world.get(ALL, headers=wrong).status == 401


def test_its_limits(world: World) -> None:
    bob = Person(world)
    bob.sign_in("bob")
    reader = bob.make("reader", "reader")
    writer = bob.make("writer", "writer", "other/** team/tools/*")
    whole = bob.make("whole")
    assert granted(world, "bob", reader) == ["pull"]
    assert granted(world, "bob", whole) == ["delete", "pull", "push"]
    assert granted(world, "bob", writer) == []
    assert granted(world, "bob", writer, "repository:other/x:*") == ["pull", "push"]
    assert granted(world, "bob", writer, "repository:team/tools/x:*") == ["pull", "push"]
    # Never more than the account has.
    assert granted(world, "bob", whole, "repository:public/x:*") == ["pull"]
    assert granted(world, "bob", whole, "registry:catalog:*") == []
    root = Person(world)
    root.sign_in("root")
    assert granted(world, "root", root.make("all"), "registry:catalog:*") == ["*"]
    assert granted(world, "root", root.make("some", "maintainer", "team/**"), "registry:catalog:*") == []
    assert granted(world, "root", root.make("push", "writer"), "registry:catalog:*") == []


def test_the_account_decides_at_the_time_of_use(own: World) -> None:
    with own.serve():
        carol = Person(own)
        carol.sign_in("carol")
        token = carol.make("laptop")
        assert granted(own, "carol", token) == ["pull"]
        model = json.loads(json.dumps(MODEL))
        model["projects"]["team"]["readers"] = []
        model["projects"]["team"]["writers"].append("carol")
        own.configure(access=model)
        own.until(lambda: granted(own, "carol", token) == ["pull", "push"])
        # Another password is no reason to end it; a removed account is, and ends the session too.
        own.accounts["carol"] = "another-password"
        own.write_accounts()
        own.until(lambda: own.get(headers=basic("carol", "another-password")).status == 200)
        assert granted(own, "carol", token) == ["pull", "push"]
        model["projects"]["team"]["writers"].remove("carol")
        own.configure(access=model)
        del own.accounts["carol"]
        own.write_accounts()
        own.until(lambda: own.get(headers=basic("carol", token)).status == 401)
        assert own.lines()[-1]["result"] == "revoked"
        assert "Signed in as" not in carol.look().text


def test_revoked_at_once_and_after_a_restart(own: World) -> None:
    with own.serve():
        alice = Person(own)
        alice.sign_in("alice")
        kept, lost = alice.make("kept"), alice.make("lost")
        assert alice.revoke("lost").status == 200
        assert own.get(ALL, headers=basic("alice", lost)).status == 401
        assert 'scope="row">lost<' not in alice.look().text
        assert own.metric('wharf_token_requests_total{result="revoked"}') == 1
        # Somebody used it once: that is no guess, and slows nobody down.
        for _attempt in range(30):
            assert own.get(ALL, headers=basic("alice", lost)).status == 401
        assert own.get(ALL, headers=basic("alice")).status == 200
        other = Person(own)
        other.sign_in("bob")
        assert other.send("/auth/revoke", token=alice.identifier("kept"), csrf=other.csrf).status == 404
    state = own.folder / "personal.json"
    assert stat.S_IMODE(state.stat().st_mode) == 0o600
    assert not re.search(r"wpt_|eyJ", state.read_text())
    with own.serve():
        assert own.get(ALL, headers=basic("alice", lost)).status == 401
        assert granted(own, "alice", kept) == ["pull", "push"]
        assert 'scope="row">kept<' in alice.look().text


def test_last_use(own: World) -> None:
    with own.serve():
        alice = Person(own)
        alice.sign_in("alice")
        token = alice.make("laptop")
        assert "not yet" in alice.look().text
        granted(own, "alice", token)
        assert "not yet" not in alice.look().text


def test_each_token_is_for_its_own_purpose(world: World) -> None:
    alice = Person(world)
    alice.sign_in("alice")
    personal = alice.make("purpose").removeprefix("wpt_")
    refresh = world.get(headers=basic("alice"), offline_token="true").json["refresh_token"]
    registry = world.get(ALL, headers=basic("alice")).json["token"]
    session = alice.cookies["__Host-wharf-session"]
    kinds = {decode(token)[0].get("typ") for token in (personal, refresh, session)}
    assert len(kinds) == 3
    audiences = {decode(token)[1]["aud"] for token in (personal, refresh, session, registry)}
    assert len(audiences) == 4
    for other in (refresh, registry, session):
        assert world.get(headers=basic("alice", "wpt_" + other)).status == 401
    for number, other in enumerate((personal, registry, session)):
        headers = {"X-Real-IP": f"203.0.113.{number}"}
        assert world.post(headers=headers, grant_type="refresh_token", refresh_token=other).status == 401
    for other in (refresh, registry, personal):
        alice.cookies["__Host-wharf-session"] = other
        assert "Signed in as" not in alice.look().text
    # One of ours in everything but the signature.
    header, claims = decode(personal)
    for forged in (
        forge({**header, "alg": "none"}, claims, lambda _data: b""),
        forge(header, {**claims, "sub": "root"}, lambda _data: b"x" * 64),
        forge({**header, "alg": "ES256", "kid": world.key.kid}, claims, world.key.sign),
        forge({**header, "crit": ["exp"]}, claims, world.sign_own),
        forge(header, {**claims, "aud": "wharf/refresh"}, world.sign_own),
        forge(header, {**claims, "iss": "other"}, world.sign_own),
    ):
        assert (
            world.request(
                "GET", "/auth/token?service=registry.lab.test", {**basic("alice", "wpt_" + forged), "X-Real-IP": "203.0.113.9"}
            ).status
            == 401
        )
    # It has expired: no guess either.
    old = forge(header, {**claims, "exp": claims["iat"] - 1}, world.sign_own)
    assert world.get(headers=basic("alice", "wpt_" + old)).json["errors"][0]["message"].startswith("the personal token")


def test_a_token_does_not_make_tokens(world: World) -> None:
    alice = Person(world)
    alice.sign_in("alice")
    token = alice.make("small", "reader")
    assert Person(world).sign_in("alice", token).status == 401
    for name in ("robot-ci", "wharf-probe"):
        assert Person(world).sign_in(name).status == 401


@pytest.mark.parametrize(
    "form, word",
    [
        ({"name": ""}, "Name"),
        ({"name": "x" * 61}, "Name"),
        ({"name": "a\u202eb"}, "Name"),
        ({"role": "admin"}, "Rights"),
        ({"repositories": "../x"}, "Repositories"),
        ({"repositories": "team"}, "Repositories"),
        ({"repositories": "team/{a"}, "Repositories"),
        ({"repositories": " ".join(f"team/{number}" for number in range(9))}, "At most 8"),
        ({"days": "0"}, "Days"),
        ({"days": "366"}, "Days"),
        ({"days": "-1"}, "Days"),
        ({"days": "x"}, "Days"),
    ],
)
def test_what_makes_no_token(world: World, form: dict[str, str], word: str) -> None:
    alice = Person(world)
    alice.sign_in("alice")
    answer = alice.send("/auth/create", csrf=alice.csrf, **{"name": "n", "role": "reader", "repositories": "", "days": "1", **form})
    assert answer.status == 400
    assert word in re.search(r'role="alert">([^<]*)<', answer.text)[1]
    assert 'id="token"' not in answer.text


def test_a_name_is_there_once_and_escaped(world: World) -> None:
    alice = Person(world)
    alice.sign_in("alice")
    name = '<script>alert("x")</script>'
    alice.make(name)
    assert "<script>" not in alice.look().text
    assert "&lt;script&gt;" in alice.text
    assert alice.send("/auth/create", csrf=alice.csrf, name=name, role="reader", days="1").status == 400


def test_nothing_is_done_for_other_pages(world: World) -> None:
    alice = Person(world)
    alice.sign_in("alice")
    form = {"name": "foreign", "role": "reader", "days": "1"}
    csrf = alice.csrf
    assert alice.send("/auth/create", csrf="", **form).status == 403
    assert alice.send("/auth/create", csrf="x" * len(csrf), **form).status == 403
    for origin in (None, "null", "https://evil.example", f"{ORIGIN}.evil.example", "http://registry.lab.test"):
        assert alice.send("/auth/create", origin=origin, csrf=csrf, **form).status == 403
        assert alice.send("/auth/signin", origin=origin, name="alice", password=PASSWORDS["alice"]).status == 403
        assert alice.send("/auth/revoke", origin=origin, csrf=csrf, token="x").status == 403
    for path in ("/auth/create", "/auth/revoke", "/auth/signout", "/auth/signin"):
        assert alice.look(path).status == 405
    assert "foreign" not in alice.look().text
    # The form of one session is no good in another.
    again = Person(world)
    again.sign_in("alice")
    assert again.send("/auth/create", csrf=csrf, **form).status == 403
    assert Person(world).send("/auth/create", csrf=csrf, **form).status == 401


def test_the_page_and_its_cookie(world: World) -> None:
    alice = Person(world)
    answer = alice.sign_in("alice")
    cookie = answer.headers["set-cookie"]
    assert cookie.startswith("__Host-wharf-session=")
    assert {part.strip() for part in cookie.split(";")[1:]} == {"Path=/", "Max-Age=3600", "Secure", "HttpOnly", "SameSite=Lax"}
    page = alice.look()
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy and "frame-ancestors 'none'" in policy
    assert page.headers["cache-control"] == "no-store"
    assert not re.search(r'<script|style="| on[a-z]+=|src=|(?:href|action)="(?!/auth/)', page.text)
    assert alice.look("/auth/style.css").headers["content-type"].startswith("text/css")
    alice.look()
    old = dict(alice.cookies)
    assert alice.send("/auth/signout", csrf=alice.csrf).status == 200
    # A copy of the cookie ends too.
    alice.cookies = old
    assert "Signed in as" not in alice.look().text


def test_guessing_on_the_page_is_limited(world: World) -> None:
    statuses = [Person(world).sign_in("alice", f"guess-{number}").status for number in range(15)]
    assert statuses[0] == 401
    assert statuses[-1] == 429
    assert "retry-after" in Person(world).sign_in("alice", "one more").headers


def test_a_file_that_cannot_be_read_is_no_empty_one(own: World) -> None:
    with own.serve():
        alice = Person(own)
        alice.sign_in("alice")
        token = alice.make("laptop")
    state = own.folder / "personal.json"
    state.write_text(state.read_text()[:-20])
    with own.serve():
        # Passwords and robots go on; tokens, one of which may have been revoked, do not.
        assert own.get(headers=basic("alice", token)).status == 401
        assert own.get(headers=basic("alice")).status == 200
        assert own.get(headers=basic("robot-ci")).status == 200
        assert own.metric("wharf_token_personal_ok") == 0
        assert state.exists()


def test_no_secret_is_written_down(world: World) -> None:
    alice = Person(world)
    alice.sign_in("alice")
    token = alice.make("secret")
    granted(world, "alice", token)
    alice.revoke("secret")
    world.get(headers=basic("alice", token))
    text = world.audit.read_text() + (world.folder / "service.log").read_text() + world.request("GET", "/metrics").text
    for secret in (token, token.rpartition(".")[2], alice.cookies["__Host-wharf-session"], PASSWORDS["alice"]):
        assert secret not in text
    events = [(line["event"], line["result"]) for line in world.lines()]
    assert {("signin", "granted"), ("personal", "created"), ("personal", "revoked")} <= set(events)
