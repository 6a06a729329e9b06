# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Jobs of CI systems sign in with their tokens, and nobody else does with anything that looks like one."""

from __future__ import annotations

import base64
import contextlib
import copy
import hashlib
import hmac
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from edge import ask, edge
from issuer import EcKey, Issuer, RsaKey
from test_clients import Crane
from world import MODEL, SERVICE, World, basic, forge, free_ports, registry, servers

JOBS = {"shop-main": {"project_path": "shop/web", "ref": "main", "ref_protected": True}, "shop-any": {"project_path": "shop/**"}}


def model_with(section: dict[str, Any]) -> dict[str, Any]:
    model = copy.deepcopy(MODEL)
    model["ci"] = section
    model["projects"]["shop"] = {"writers": ["job:shop-main"], "readers": ["job:shop-any"]}
    return model


@contextlib.contextmanager
def with_jobs(folder: Path, **changes: Any) -> Iterator[tuple[World, Issuer]]:
    """Run an issuer, and a service that takes its tokens."""
    issuer = Issuer(folder / "issuer")
    world = World(folder / "token")
    with issuer.serve():
        world.configure(access=model_with({"gitlab": issuer.section(JOBS, **changes)}))
        with world.serve():
            world.until(lambda: world.metric('wharf_token_issuer_keys{issuer="gitlab"}') == 2)
            yield world, issuer


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[World, Issuer]]:
    with with_jobs(tmp_path_factory.mktemp("jobs")) as found:
        yield found


def job(token: str, address: str = "192.0.2.1") -> dict[str, str]:
    return {**basic("ci-job", token), "X-Real-IP": address}


def test_a_job_gets_what_its_claims_allow(running: tuple[World, Issuer]) -> None:
    world, issuer = running
    for key in issuer.keys:
        answer = world.get("repository:shop/web:pull,push,delete", headers=job(issuer.token(key)), offline_token="true")
        assert answer.status == 200
        assert answer.granted == {"repository:shop/web": ["pull", "push"]}
        assert "refresh_token" not in answer.json
    line = world.lines()[-1]
    assert line["account"] == "ci:gitlab:project_path:shop/web:ref_type:branch:ref:main"
    assert line["result"] == "reduced"
    branch = issuer.token(ref="feature", sub="project_path:shop/web:ref_type:branch:ref:feature")
    assert world.get("repository:shop/web:pull,push", headers=job(branch)).granted == {"repository:shop/web": ["pull"]}
    assert world.get("repository:team/app:pull", "registry:catalog:*", headers=job(branch)).granted == {}
    form = world.post(grant_type="password", username="ci-job", password=branch, scope="repository:shop/web:pull", access_type="offline")
    assert form.granted == {"repository:shop/web": ["pull"]}
    assert "refresh_token" not in form.json
    # Of an account metrics know the job's name in the model: subjects are as many as there are branches.
    assert world.metric('wharf_token_last_use_timestamp_seconds{account="job:shop-main"}') == pytest.approx(time.time(), abs=30)
    assert "feature" not in world.request("GET", "/metrics").text


def test_a_job_that_the_model_does_not_have(running: tuple[World, Issuer]) -> None:
    world, issuer = running
    subject = "project_path:foreign/web:ref_type:branch:ref:main"
    answer = world.get("repository:public/app:pull", headers=job(issuer.token(project_path="foreign/web", sub=subject)))
    assert answer.status == 401
    assert answer.json["errors"][0]["message"] == "no job of the access model has the claims of this token"
    assert (world.lines()[-1]["result"], world.lines()[-1]["account"]) == ("no_job", f"ci:gitlab:{subject}")
    assert world.metric('wharf_token_requests_total{result="no_job"}') >= 1


def forgeries(issuer: Issuer) -> dict[str, str]:
    """Return tokens that nobody may accept, each with one thing wrong."""
    now = int(time.time())
    rsa_key, ec_key = issuer.keys[:2]
    thief, thief_ec = RsaKey("rsa-1"), EcKey("ec-1")
    pem = rsa_key.private.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    good = issuer.token()
    header, claims, signature = good.split(".")

    def hs256(data: bytes) -> bytes:
        return hmac.new(pem, data, hashlib.sha256).digest()

    return {
        "alg none": forge({"typ": "JWT", "alg": "none", "kid": "rsa-1"}, issuer.claims(), lambda _data: b""),
        "alg none without a kid": forge({"alg": "none"}, issuer.claims(), lambda _data: b""),
        "HS256 with the public key": forge({"typ": "JWT", "alg": "HS256", "kid": "rsa-1"}, issuer.claims(), hs256),
        "RS256 said of the other key": forge({"alg": "RS256", "kid": "ec-1"}, issuer.claims(), ec_key.sign),
        "ES256 said of the other key": forge({"alg": "ES256", "kid": "rsa-1"}, issuer.claims(), rsa_key.sign),
        "RS512": issuer.token(header={"alg": "RS512"}),
        "signed by another": issuer.token(thief),
        "signed by another on the curve": issuer.token(thief_ec),
        "a signature of nothing": f"{header}.{claims}.",
        "the signature of another token": ".".join([*issuer.token(ref="other").split(".")[:2], signature]),
        "a key in the header": issuer.token(thief, header={"jwk": thief.jwk}),
        "an address of keys in the header": issuer.token(thief, header={"jku": f"{issuer.url}/thief", "x5u": f"{issuer.url}/thief"}),
        "an address in the kid": issuer.token(thief, header={"kid": f"{issuer.url}/thief"}),
        "a file in the kid": issuer.token(thief, header={"kid": "../../../../dev/null"}),
        "a kid that is no text": issuer.token(header={"kid": {"rsa-1": 1}}),
        "no kid": issuer.token(header={"kid": None}),
        "something critical": issuer.token(header={"crit": ["b64"], "b64": False}),
        "another audience": issuer.token(aud="https://other.example.com"),
        "no audience": issuer.token(aud=None),
        "a part of the audience": issuer.token(aud=SERVICE[:-1]),
        "another issuer": issuer.token(iss="https://evil.example.com"),
        "an issuer that is longer": issuer.token(iss=f"{issuer.url}/"),
        "an issuer that is a list": issuer.token(iss=[issuer.url]),
        "no issuer": issuer.token(iss=None),
        "expired": issuer.token(exp=now - 60),
        "without an end": issuer.token(exp=None),
        "an end that is no number": issuer.token(exp="never"),
        "an end without end": issuer.token(exp=float("inf")),
        "of the future": issuer.token(iat=now + 120),
        "valid later": issuer.token(nbf=now + 120),
        "no subject": issuer.token(sub=None),
        "a subject that is a list": issuer.token(sub=["x"]),
        "a subject without end": issuer.token(sub="x" * 300),
        "huge": issuer.token(padding="x" * 12_000),
        "nested": "eyJhbGciOiJSUzI1NiIsImtpZCI6InJzYS0xIn0." + "W1tb" * 1500 + ".AAAA",
        "no token": "password",
        "empty": "",
        "dots": "..",
        "five parts": good + ".a.b",
    }


def test_forgeries_are_refused(running: tuple[World, Issuer]) -> None:
    world, issuer = running
    issuer.asked.clear()
    let_in = {}
    for number, (name, token) in enumerate(forgeries(issuer).items()):
        answer = world.get("repository:shop/web:pull,push", headers=job(token, f"198.51.100.{number}"))
        form = world.post(grant_type="password", username="ci-job", password=token, headers={"X-Real-IP": f"203.0.113.{number}"})
        if (answer.status, form.status) != (401, 401):
            let_in[name] = (answer.status, form.status)
    assert let_in == {}
    # Nothing in a token makes the service ask anybody for anything but the keys of the issuer, and those at most once in a while.
    assert set(issuer.asked) <= {"/keys"}
    assert len(issuer.asked) <= 2
    assert world.get("repository:shop/web:pull,push", headers=job(issuer.token(aud=["x", SERVICE]))).status == 200
    assert not [line for line in world.lines() if "Traceback" in str(line)]
    assert "Traceback" not in (world.folder / "service.log").read_text()
    whys = {line.get("why") for line in world.lines()}
    assert {"the token has expired", "the token is too long", f"the token is not for the audience {SERVICE}"} <= whys


def test_a_token_is_no_password_and_a_password_no_token(running: tuple[World, Issuer]) -> None:
    world, issuer = running
    assert world.get(headers={**basic("alice", issuer.token()), "X-Real-IP": "198.51.100.201"}).status == 401
    ours = world.get("repository:team/app:pull", headers=basic("alice"), offline_token="true").json
    for token in (ours["token"], ours["refresh_token"]):
        assert world.get(headers=job(token, "198.51.100.202")).status == 401
    assert world.post(grant_type="refresh_token", refresh_token=issuer.token(), headers={"X-Real-IP": "198.51.100.203"}).status == 401


def test_guesses_are_limited_and_good_tokens_are_not(running: tuple[World, Issuer]) -> None:
    """All jobs of a runner come from one address."""
    world, issuer = running
    address = "198.51.100.210"
    statuses = [world.get(headers=job(issuer.token(RsaKey("rsa-1")), address)).status for _number in range(12)]
    assert statuses == [401] * 10 + [429] * 2
    assert world.get("repository:shop/web:pull", headers=job(issuer.token(), address)).status == 200
    # An old token is no guess.
    expired = [world.get(headers=job(issuer.token(exp=int(time.time()) - 60), "198.51.100.211")).status for _number in range(12)]
    assert expired == [401] * 12


def test_nothing_of_a_token_is_written_down(running: tuple[World, Issuer]) -> None:
    world, issuer = running
    tokens = [issuer.token(), issuer.token(RsaKey("rsa-1"))]
    for token in tokens:
        world.get("repository:shop/web:pull", headers=job(token, "198.51.100.220"))
    text = world.audit.read_text() + world.request("GET", "/metrics").text + (world.folder / "service.log").read_text()
    assert not [part for token in tokens for part in token.split(".")[1:] if part in text]


def test_an_issuer_that_changes_its_key_and_one_that_is_down(tmp_path: Path) -> None:
    with contextlib.ExitStack() as life:
        issuer = Issuer(tmp_path / "issuer")
        world = World(tmp_path / "token")
        with issuer.serve():
            world.configure(access=model_with({"gitlab": issuer.section(JOBS)}))
            life.enter_context(world.serve())
            world.until(lambda: world.metric('wharf_token_issuer_keys{issuer="gitlab"}') == 2)
            asked = len(issuer.asked)
            # Unknown keys, as many as you like: they are looked for once in a while.
            for number in range(8):
                assert world.get(headers=job(issuer.token(RsaKey(f"new-{number}")), f"198.51.100.{number}")).status == 401
            assert len(issuer.asked) - asked <= 1
        # Down: those who come with known keys notice nothing, and nobody waits for it, whatever he brings.
        with world_load(world, issuer) as slow:
            for number in range(8):
                assert world.get(headers=job(issuer.token(RsaKey(f"new-{number}")), f"203.0.113.{number}")).status == 401
            time.sleep(2)
        assert max(slow) < 1
        # Another jobs' section keeps the keys that are known.
        world.configure(access=model_with({"gitlab": issuer.section({**JOBS, "shop-any": {"project_path": "shop/*"}})}))
        time.sleep(2)
        assert world.get("repository:shop/web:pull", headers=job(issuer.token())).status == 200


@contextlib.contextmanager
def world_load(world: World, issuer: Issuer) -> Iterator[list[float]]:
    """Ask for tokens, by password and as a job, one after another; yield how long each took."""
    stop = threading.Event()
    times: list[float] = []
    wrong: list[int] = []

    def run() -> None:
        while not stop.is_set():
            for headers in (basic("alice"), job(issuer.token())):
                started = time.monotonic()
                status = world.get("repository:team/app:pull", headers=headers).status
                times.append(time.monotonic() - started)
                if status != 200:
                    wrong.append(status)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield times
    finally:
        stop.set()
        thread.join(30)
    assert wrong == []


def big(issuer: Issuer) -> bytes:
    """Keys, and so much beside them that nobody reads to the end."""
    return json.dumps({**issuer.jwks, "x": "x" * 1_000_000}).encode()


@pytest.mark.parametrize("kind", ["hangs", "huge", "elsewhere", "not keys", "many keys", "other ca", "symmetric"])
def test_answers_of_an_issuer_that_are_not_taken(tmp_path: Path, kind: str) -> None:
    issuer = Issuer(tmp_path / "issuer")
    other = Issuer(tmp_path / "other")
    world = World(tmp_path / "token")
    secret = {"kty": "oct", "kid": "rsa-1", "k": "AAAA", "alg": "HS256"}
    with issuer.serve(), other.serve():
        other.keys = issuer.keys
        issuer.delay = 30 if kind == "hangs" else 0
        answers: dict[str, Any] = {
            "huge": (200, {}, big(issuer)),
            "elsewhere": (302, {"Location": f"{other.url}/keys"}, b""),
            "not keys": (200, {}, b"<html>sign in</html>"),
            "many keys": (200, {}, json.dumps({"keys": [issuer.keys[1].jwk] * 101}).encode()),
            "symmetric": (200, {}, json.dumps({"keys": [secret]}).encode()),
        }
        issuer.answer = answers.get(kind)
        section = issuer.section(JOBS, **({"ca": other.ca} if kind == "other ca" else {}))
        world.configure(access=model_with({"gitlab": section}))
        with world.serve():
            started = time.monotonic()
            assert world.get("repository:shop/web:pull", headers=job(issuer.token())).status == 401
            assert time.monotonic() - started < 8
            world.until(lambda: world.metric('wharf_token_issuer_failing{issuer="gitlab"}') == 1)
            assert world.metric('wharf_token_issuer_keys{issuer="gitlab"}') == 0
            assert other.asked == []
            assert world.get("repository:team/app:pull", headers=basic("alice")).status == 200
            told = (world.folder / "service.log").read_text()
            assert told.count("the keys of gitlab cannot be fetched") == 1


def test_keys_from_the_inventory(tmp_path: Path) -> None:
    """Where nodes do not reach the issuer."""
    issuer = Issuer(tmp_path / "issuer")
    issuer.port = free_ports(1)[0]
    world = World(tmp_path / "token")
    world.configure(access=model_with({"gitlab": issuer.section(JOBS, jwks_url="", ca="", jwks=issuer.jwks)}))
    with world.serve():
        assert world.get("repository:shop/web:push", headers=job(issuer.token())).granted == {"repository:shop/web": ["push"]}
        new = RsaKey("rsa-2")
        assert world.get(headers=job(issuer.token(new))).status == 401
        issuer.keys = [new]
        loaded = world.metric("wharf_token_config_loaded_timestamp_seconds")
        world.configure(access=model_with({"gitlab": issuer.section(JOBS, jwks_url="", ca="", jwks=issuer.jwks)}))
        world.until(lambda: world.metric("wharf_token_config_loaded_timestamp_seconds") > loaded)
        assert world.get("repository:shop/web:push", headers=job(issuer.token(new))).status == 200
        assert world.get(headers=job(issuer.token(RsaKey("rsa-1")))).status == 401
        broken = {"keys": [{"kty": "RSA", "kid": "x", "n": "AQAB", "e": "AQAB"}]}
        world.configure(access=model_with({"gitlab": issuer.section(JOBS, jwks_url="", ca="", jwks=broken)}))
        world.until(lambda: world.metric("wharf_token_config_ok") == 0)
        assert "access.ci.gitlab.jwks: has no key with a kid for RS256 or ES256" in (world.folder / "service.log").read_text()
        assert world.get("repository:shop/web:push", headers=job(issuer.token(new))).status == 200


def test_a_job_pushes_through_the_edge(tmp_path: Path) -> None:
    """A real client with a real token, an edge and a registry: what is in a pipeline."""
    port = free_ports(8)[7]
    with with_jobs(tmp_path) as (world, issuer):
        realm = f"https://localhost:{port}/auth/token"
        with (
            registry(servers.settings.REGISTRY_3, tmp_path / "registry", world.directory / "trusted.crt", realm) as (address, _root),
            edge(tmp_path / "edge", address, world, port) as front,
        ):
            pipeline = crane(tmp_path / "main", front, issuer.token())
            assert pipeline.push("shop/web:1")
            assert pipeline.pull("shop/web:1")
            assert not pipeline.push("team/app:1")
            assert not pipeline.delete("shop/web:1")
            branch = crane(tmp_path / "branch", front, issuer.token(ref="feature"))
            assert branch.pull("shop/web:1")
            assert not branch.push("shop/web:2")
            for name, token in forgeries(issuer).items():
                thief = ask(front, f"/auth/token?service={SERVICE}&scope=repository:shop/web:pull", basic("ci-job", token))
                assert thief.status in (400, 401, 429), name
            # A job's token is a password, not something that a registry takes.
            assert ask(front, "/v2/shop/web/manifests/1", {"Authorization": f"Bearer {issuer.token()}"}).status == 401
            assert ask(front, "/v2/shop/web/manifests/1", basic("ci-job", issuer.token())).status == 200


def crane(folder: Path, address: str, token: str) -> Crane:
    """Return a client that has signed in as a job does: the token is its password."""
    client = Crane(folder, address, "ci-job")
    auth = base64.b64encode(f"ci-job:{token}".encode()).decode()
    (folder / "config.json").write_text(json.dumps({"auths": {address: {"auth": auth}}}))
    return client
