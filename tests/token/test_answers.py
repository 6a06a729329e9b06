# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the service answers to the requests that clients send, and what it writes down about them."""

from __future__ import annotations

import base64
import hmac
import time

import pytest
from world import ISSUER, PASSWORDS, SERVICE, World, basic, decode, encode, forge


def test_docker_login_pull_and_push(world: World) -> None:
    """GET with Basic; a login asks for an offline token and for no scope."""
    login = world.get(headers=basic("alice"), account="alice", client_id="docker", offline_token="true")
    assert login.status == 200
    assert login.json["refresh_token"]
    assert login.json["token"] == login.json["access_token"]
    assert login.json["expires_in"] == 300
    assert login.granted == {}
    pull = world.get("repository:team/app:pull", headers=basic("alice"), account="alice")
    assert pull.granted == {"repository:team/app": ["pull"]}
    assert "refresh_token" not in pull.json
    again = world.post(
        grant_type="refresh_token", refresh_token=login.json["refresh_token"], client_id="docker", scope="repository:team/app:pull,push"
    )
    assert again.status == 200
    assert again.granted == {"repository:team/app": ["pull", "push"]}
    assert again.json["refresh_token"] == login.json["refresh_token"]


def test_containerd_asks_by_post_with_scopes_in_one_line(world: World) -> None:
    answer = world.post(
        grant_type="password",
        client_id="containerd-client",
        username="bob",
        password=PASSWORDS["bob"],
        scope="repository:team/app:pull repository:other/app:pull,push",
    )
    assert answer.status == 200
    assert answer.granted == {"repository:team/app": ["pull"], "repository:other/app": ["pull", "push"]}
    assert answer.json["scope"] == "repository:team/app:pull repository:other/app:pull,push"
    assert "refresh_token" not in answer.json
    offline = world.post(grant_type="password", username="bob", password=PASSWORDS["bob"], access_type="offline")
    assert offline.json["refresh_token"]


def test_podman_skopeo_crane_and_regctl_repeat_the_scope(world: World) -> None:
    answer = world.get("repository:team/app:pull", "repository:team/app:push", "repository:other/x:pull", headers=basic("alice"))
    assert answer.granted == {"repository:team/app": ["pull", "push"]}
    everything = world.get("repository:team/app:*", headers=basic("bob"))
    assert everything.granted == {"repository:team/app": ["delete", "pull", "push"]}
    assert world.get("registry:catalog:*", headers=basic("root")).granted == {"registry:catalog": ["*"]}


def test_the_token_is_what_both_generations_take(world: World) -> None:
    header, claims = decode(world.get("repository:team/app:pull", headers=basic("alice")).json["token"])
    assert header == {"alg": "ES256", "typ": "JWT", "kid": world.key.kid, "x5c": world.key.x5c}
    now = time.time()
    assert (claims["iss"], claims["aud"], claims["sub"]) == (ISSUER, SERVICE, "alice")
    assert claims["exp"] - claims["iat"] == 300
    assert claims["iat"] - claims["nbf"] == 30
    assert abs(claims["iat"] - now) < 5
    assert len(claims["jti"]) == 32


@pytest.mark.parametrize(
    ("who", "scope", "granted"),
    [
        ("carol", "repository:team/app:pull,push,delete", ["pull"]),
        ("alice", "repository:team/app:pull,push,delete", ["pull", "push"]),
        ("bob", "repository:team/app:pull,push,delete", ["delete", "pull", "push"]),
        ("robot-ci", "repository:team/app:pull,push", ["pull", "push"]),
        ("wharf-probe", "repository:wharf/probe:pull,push", ["pull", "push"]),
        ("wharf-probe", "repository:team/app:pull", None),
        ("carol", "registry:catalog:*", None),
        ("root", "registry:catalog:pull", None),
        ("bob", "repository:a/../team/app:pull", None),
        ("bob", "repository:team/../other/app:pull", None),
        ("bob", "repository:team/*:pull", None),
        ("bob", "repository:*:pull", None),
        ("bob", "repository:team/app\nrepository:x/y:pull", None),
        ("bob", "repository:evil.example:443/team/app:pull", None),
        ("bob", "repository(plugin):team/app:pull", None),
        ("bob", "repository:team/APP:pull", None),
        ("bob", "repository:team/app:superpower", None),
    ],
)
def test_grants(world: World, who: str, scope: str, granted: list[str] | None) -> None:
    answer = world.get(scope, headers=basic(who))
    assert answer.status == 200
    assert list(answer.granted.values()) == ([granted] if granted else [])


def test_a_mount_needs_both_rights(world: World) -> None:
    """What docker asks for a cross-repository mount."""
    asked = ("repository:other/app:pull,push", "repository:team/app:pull")
    assert world.get(*asked, headers=basic("bob")).granted == {"repository:other/app": ["pull", "push"], "repository:team/app": ["pull"]}
    assert world.get("repository:team/app:pull,push", "repository:other/app:pull", headers=basic("alice")).granted == {
        "repository:team/app": ["pull", "push"]
    }


def test_strangers(world: World) -> None:
    assert world.get("repository:public/app:pull,push").granted == {"repository:public/app": ["pull"]}
    assert world.get("repository:team/app:pull").granted == {}


def test_strangers_are_sent_away_where_nothing_is_public(own: World) -> None:
    own.configure(access={"projects": {"team": {"writers": ["alice", "robot:ci", "robot:old"]}}})
    with own.serve():
        answer = own.get("repository:team/app:pull")
        assert answer.status == 401
        assert answer.headers["www-authenticate"].startswith("Basic realm=")
        assert own.metric('wharf_token_requests_total{result="challenge"}') == 1
        assert own.metric('wharf_token_requests_total{result="bad_credentials"}') == 0


@pytest.mark.parametrize(
    "header",
    [
        "Basic !!!",
        "Basic " + base64.b64encode(b"alice").decode(),
        "Basic " + base64.b64encode(b"alice:\xff\xfe").decode(),
        "Basic " + base64.b64encode(b"alice:" + b"a" * 73).decode(),
        "Basic " + base64.b64encode(b"alice:alice-password\0").decode(),
        "Bearer abc",
        "Basic " + base64.b64encode(b"robot-ci+next:" + b"b" * 32).decode(),
    ],
)
def test_credentials_that_are_none(world: World, header: str) -> None:
    answer = world.get(headers={"Authorization": header, "X-Real-IP": f"198.51.100.{len(header) % 250}"})
    assert answer.status == 401
    assert answer.json["errors"][0]["code"] == "UNAUTHORIZED"


@pytest.mark.parametrize(
    ("form", "status", "error"),
    [
        ({"grant_type": "password", "username": "alice", "password": "wrong"}, 401, "invalid_grant"),
        ({"grant_type": "refresh_token", "refresh_token": "abc"}, 401, "invalid_grant"),
        ({"grant_type": "client_credentials"}, 400, "unsupported_grant_type"),
        ({"grant_type": "password", "username": "alice", "password": "alice-password", "service": "other"}, 400, "invalid_request"),
        ({"grant_type": "password", "username": "alice", "password": "alice-password", "scope": "nonsense"}, 400, "invalid_request"),
    ],
)
def test_forms_that_are_refused(world: World, form: dict[str, str], status: int, error: str) -> None:
    answer = world.post(headers={"X-Real-IP": "198.51.100.251"}, **form)
    assert (answer.status, answer.json["error"]) == (status, error)


def test_the_service_is_checked(world: World) -> None:
    assert world.get(service="another.example", headers=basic("alice")).status == 400
    assert world.request("GET", "/auth/token", basic("alice")).status == 400


def test_too_many_scopes(world: World) -> None:
    assert world.get(*(f"repository:team/app{number}:pull" for number in range(65)), headers=basic("alice")).status == 400


def test_robots_have_two_secrets_and_an_end(world: World) -> None:
    for secret in (PASSWORDS["robot-ci"], PASSWORDS["robot-ci+next"]):
        assert world.get("repository:team/app:push", headers=basic("robot-ci", secret)).granted == {"repository:team/app": ["push"]}
    assert world.get(headers=basic("robot-old")).status == 401
    assert world.lines()[-1]["result"] == "expired"
    assert world.metric('wharf_token_robot_expiry_timestamp_seconds{robot="old"}') == 1577923200
    assert world.metric('wharf_token_last_use_timestamp_seconds{account="robot-ci"}') == pytest.approx(time.time(), abs=30)


def test_refresh_tokens_that_are_forged(world: World) -> None:
    genuine = world.get(headers=basic("alice"), offline_token="true").json["refresh_token"]
    header, claims = decode(genuine)
    mine = {**header}
    registry_token = world.get(headers=basic("alice")).json["token"]
    sign = world.sign_own
    forged = [
        registry_token,
        forge({**mine, "alg": "none"}, claims, lambda _data: b""),
        forge(mine, {**claims, "sub": "root"}, sign),  # rightly signed, yet with alice's secret
        forge(mine, {**claims, "exp": int(time.time()) - 1}, sign),
        forge({**mine, "typ": "JWT"}, claims, sign),
        # The registries' key is good for nothing here, whatever the token calls itself.
        forge({**mine, "alg": "ES256", "kid": world.key.kid, "x5c": world.key.x5c}, claims, world.key.sign),
        forge(mine, claims, lambda data: hmac.digest(world.key.public_pem, data, "sha256")),
        forge({**mine, "alg": "HS512"}, claims, lambda data: hmac.digest(world.own_secret.encode(), data, "sha512")),
        forge({**mine, "crit": ["b64"], "b64": False}, claims, sign),
        forge(mine, {**claims, "aud": SERVICE}, sign),
        forge(mine, {name: value for name, value in claims.items() if name != "exp"}, sign),
        ".".join([*genuine.split(".")[:2], encode(b"\0" * 64)]),
    ]
    for number, token in enumerate(forged):
        answer = world.post(headers={"X-Real-IP": f"203.0.113.{number}"}, grant_type="refresh_token", refresh_token=token)
        assert answer.status == 401, number
    assert world.post(grant_type="refresh_token", refresh_token=genuine).status == 200


def test_the_audit_log_cannot_be_written_by_clients(world: World) -> None:
    before = len(world.lines())
    world.get(
        'repository:team/app"}\n{"result":"granted:pull',
        headers={**basic("alice"), "User-Agent": 'docker"} {"event": "forged"'},
        client_id='x"}\r\n{"event":"forged"}',
        account="root",
    )
    lines = world.lines()
    assert len(lines) == before + 1
    assert lines[-1]["account"] == "alice"
    assert lines[-1]["client"] == 'x"}\r\n{"event":"forged"}'
    assert lines[-1]["result"] == "reduced"
    assert "\n" not in world.audit.read_text().splitlines()[-1]


def test_each_decision_is_one_line_without_secrets(world: World) -> None:
    before = len(world.lines())
    token = world.get("repository:team/app:pull,delete", headers={**basic("alice"), "X-Request-Id": "abc123"}, offline_token="true").json
    world.get(headers={**basic("alice", "not-her-password"), "X-Real-IP": "198.51.100.9"})
    world.get(headers={**basic("my-password-typed-as-name", "x"), "X-Real-IP": "198.51.100.9"})
    good, wrong, unknown = world.lines()[before:]
    assert good["asked"] == ["repository:team/app:pull,delete"]
    assert good["granted"] == ["repository:team/app:pull"]
    assert good["jti"] == decode(token["token"])[1]["jti"]
    assert (good["address"], good["request_id"], good["kind"]) == ("192.0.2.1", "abc123", "password")
    assert (wrong["result"], wrong["account"]) == ("bad_credentials", "alice")
    assert (unknown["result"], unknown["account"]) == ("bad_credentials", "(unknown)")
    text = world.audit.read_text() + world.request("GET", "/metrics").text + (world.folder / "service.log").read_text()
    secrets = [*PASSWORDS.values(), "not-her-password", "my-password-typed-as-name", token["token"], token["refresh_token"]]
    assert not [secret for secret in secrets if secret in text]


def test_a_password_becomes_a_token_for_one_request(world: World) -> None:
    """What the edge asks while nodes with htpasswd and nodes with tokens stand side by side."""
    answer = world.request(
        "GET", "/auth/exchange", {**basic("alice"), "X-Original-URI": "/v2/team/app/blobs/uploads/?mount=x&from=public%2Fapp"}
    )
    assert answer.status == 204
    access = decode(answer.headers["x-wharf-authorization"].removeprefix("Bearer "))[1]["access"]
    assert access == [
        {"type": "repository", "name": "team/app", "actions": ["pull", "push"]},
        {"type": "repository", "name": "public/app", "actions": ["pull"]},
    ]
    assert world.request("GET", "/auth/exchange", {"Authorization": "Bearer x", "X-Original-URI": "/v2/"}).status == 204
    assert world.request("GET", "/auth/exchange", {**basic("alice", "wrong"), "X-Original-URI": "/v2/"}).status == 401
