# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Real registries of both generations: they take the service's tokens, and no others."""

from __future__ import annotations

import base64
import hashlib
import hmac
import http.client
import json
import time
from typing import Any

import pytest
from world import ISSUER, PASSWORDS, SERVICE, Key, World, basic, encode, forge

from ansible_collections.wharf.registry.plugins.module_utils._registry.api import Registry, RegistryError

OCI = "application/vnd.oci.image.manifest.v1+json"


def ask(address: str, method: str, path: str, token: str) -> int:
    """Return the status of a request with a token."""
    connection = http.client.HTTPConnection(address, timeout=20)
    connection.request(method, path, headers={"Authorization": f"Bearer {token}"})
    status = connection.getresponse().status
    connection.close()
    return status


def client(address: str, who: str) -> Registry:
    """Return a client that signs in at the realm which the registry names."""
    return Registry(f"http://{address}", username=who, password=PASSWORDS.get(who, ""))


def push(registry: Registry, repository: str, tag: str) -> str:
    """Push a small image, return its digest."""
    config = registry.put_blob(repository, json.dumps({"os": "linux", "architecture": "amd64", "x": tag}).encode())
    manifest = {
        "schemaVersion": 2,
        "mediaType": OCI,
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": config, "size": 1},
        "layers": [],
    }
    return registry.put_manifest(repository, tag, json.dumps(manifest).encode(), OCI)


def test_each_role_does_what_it_may(address: str) -> None:
    digest = push(client(address, "alice"), "team/app", "1")
    assert client(address, "carol").head_manifest("team/app", "1") == digest
    for who in ("carol", ""):
        with pytest.raises(RegistryError) as error:
            push(client(address, who), "team/app", "2")
        assert error.value.status == 401
    for who in ("root",):
        assert "team/app" in client(address, who).list_repositories()
    for who in ("alice", "bob", "carol"):
        with pytest.raises(RegistryError):
            client(address, who).list_repositories()
    with pytest.raises(RegistryError):
        client(address, "alice").delete_manifest("team/app", digest)
    assert client(address, "bob").delete_manifest("team/app", digest)


def test_who_may_push_may_not_delete(world: World, address: str) -> None:
    digest = push(client(address, "bob"), "team/kept", "1")
    token = world.get("repository:team/kept:pull,push,delete", headers=basic("alice")).json["token"]
    assert ask(address, "DELETE", f"/v2/team/kept/manifests/{digest}", token) == 401
    token = world.get("repository:team/kept:*", headers=basic("alice")).json["token"]
    assert ask(address, "DELETE", f"/v2/team/kept/manifests/{digest}", token) == 401


def test_a_mount_takes_both_rights(world: World, address: str) -> None:
    """Without the right on the source nothing is mounted, whatever is known of it."""
    content = b"a secret layer of other"
    digest = client(address, "bob").put_blob("other/app", content)
    path = f"/v2/team/thief/blobs/uploads/?mount={digest}&from=other/app"
    asked = ("repository:team/thief:pull,push", "repository:other/app:pull")
    assert ask(address, "POST", path, world.get(*asked, headers=basic("bob")).json["token"]) == 201
    path = path.replace("thief", "thief2")
    asked = ("repository:team/thief2:pull,push", "repository:other/app:pull")
    assert ask(address, "POST", path, world.get(*asked, headers=basic("alice")).json["token"]) == 401


def claims_of(**changes: Any) -> dict[str, Any]:
    """Return the claims of a good token, with changes; None leaves one out."""
    now = int(time.time())
    claims = {
        "iss": ISSUER,
        "sub": "mallory",
        "aud": SERVICE,
        "iat": now,
        "nbf": now - 30,
        "exp": now + 300,
        "jti": "1",
        "access": [{"type": "repository", "name": "team/app", "actions": ["pull"]}],
    }
    return {name: value for name, value in {**claims, **changes}.items() if value is not None}


def test_a_token_of_the_same_form_is_accepted(world: World, address: str) -> None:
    """The forgeries below differ from this one in one thing each."""
    token = forge({"alg": "ES256", "typ": "JWT", "kid": world.key.kid, "x5c": world.key.x5c}, claims_of(), world.key.sign)
    assert ask(address, "GET", "/v2/team/app/tags/list", token) in (200, 404)


def forgeries(world: World) -> dict[str, str]:
    """Return tokens that nobody may accept."""
    key, thief = world.key, Key()
    header = {"alg": "ES256", "typ": "JWT", "kid": key.kid, "x5c": key.x5c}
    now = int(time.time())

    def hs256(secret: bytes) -> Any:
        return lambda data: hmac.new(secret, data, hashlib.sha256).digest()

    def jwk(owner: Key) -> dict[str, str]:
        numbers = owner.private.public_key().public_numbers()
        x, y = (encode(number.to_bytes(32, "big")) for number in (numbers.x, numbers.y))
        return {"kty": "EC", "crv": "P-256", "x": x, "y": y}

    thiefs = {"alg": "ES256", "typ": "JWT"}
    good = forge(header, claims_of(), key.sign)
    return {
        "alg none": forge({**header, "alg": "none"}, claims_of(), lambda _data: b""),
        "no signature": good.rpartition(".")[0] + ".",
        "HS256 with the public key": forge({**header, "alg": "HS256"}, claims_of(), hs256(key.public_pem)),
        "HS256 with the certificate": forge({**header, "alg": "HS256"}, claims_of(), hs256(key.pem)),
        "HS256 with the public key in DER": forge({"alg": "HS256", "kid": key.kid}, claims_of(), hs256(key.public_der)),
        "foreign x5c": forge({**thiefs, "x5c": thief.x5c}, claims_of(), thief.sign),
        "foreign x5c with our kid": forge({**thiefs, "kid": key.kid, "x5c": thief.x5c}, claims_of(), thief.sign),
        "our x5c after a foreign one": forge({**thiefs, "x5c": thief.x5c + key.x5c}, claims_of(), thief.sign),
        "our x5c, signed by another": forge(header, claims_of(), thief.sign),
        "foreign kid": forge({**thiefs, "kid": thief.kid}, claims_of(), thief.sign),
        "our kid, signed by another": forge({**thiefs, "kid": key.kid}, claims_of(), thief.sign),
        "a key in the header": forge({**thiefs, "jwk": jwk(thief)}, claims_of(), thief.sign),
        "a key in the header with our kid": forge({**thiefs, "jwk": {**jwk(thief), "kid": key.kid}}, claims_of(), thief.sign),
        "expired 90 s ago": forge(header, claims_of(exp=now - 90), key.sign),
        "valid in 90 s": forge(header, claims_of(nbf=now + 90), key.sign),
        "without an end": forge(header, claims_of(exp=None), key.sign),
        "another issuer": forge(header, claims_of(iss="mallory"), key.sign),
        "another service": forge(header, claims_of(aud="other"), key.sign),
        "a refresh token": world.get(headers=basic("alice"), offline_token="true").json["refresh_token"],
        "another repository": forge(header, claims_of(access=[{"type": "repository", "name": "team/app2", "actions": ["pull"]}]), key.sign),
        "a wildcard": forge(header, claims_of(access=[{"type": "repository", "name": "team/*", "actions": ["pull"]}]), key.sign),
        "claims of another token": ".".join(
            [
                good.split(".")[0],
                base64.urlsafe_b64encode(json.dumps(claims_of(sub="x")).encode()).rstrip(b"=").decode(),
                good.split(".")[2],
            ]
        ),
    }


def test_forgeries_are_refused(world: World, address: str) -> None:
    statuses = {name: ask(address, "GET", "/v2/team/app/tags/list", token) for name, token in forgeries(world).items()}
    assert {name: status for name, status in statuses.items() if status != 401} == {}


def test_the_edges_of_time(world: World, address: str) -> None:
    """Registries allow for 60 s of wrong clocks; the service's own tokens begin 30 s early."""
    header = {"alg": "ES256", "typ": "JWT", "kid": world.key.kid, "x5c": world.key.x5c}
    now = int(time.time())
    for changes in ({"exp": now - 30}, {"nbf": now + 30}):
        assert ask(address, "GET", "/v2/team/app/tags/list", forge(header, claims_of(**changes), world.key.sign)) in (200, 404)
