# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A new access model, new passwords, another key, a restart: nobody loses a request. What is broken is refused, and the old stays."""

from __future__ import annotations

import json
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from people import Person
from test_registries import client, push
from world import MODEL, Key, World, basic, decode, registry, servers

from ansible_collections.wharf.registry.plugins.module_utils._registry.api import Registry


class Load:
    """Requests one after another in some threads; whatever is no 200 is remembered."""

    def __init__(self, ask: Any, threads: int = 4) -> None:
        self.wrong: list[Any] = []
        self.count = 0
        self._ask = ask
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, daemon=True) for _number in range(threads)]

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                found = self._ask()
            except Exception as error:
                found = repr(error)
            if found != 200:
                self.wrong.append(found)
            self.count += 1

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_unused: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(60)


def test_a_new_access_model_under_load(own: World) -> None:
    with own.serve():
        with Load(lambda: own.get("repository:team/app:pull", headers=basic("alice")).status) as load:
            for number in range(10):
                model = json.loads(json.dumps(MODEL))
                model["projects"][f"new{number}"] = {"writers": ["carol"]}
                own.configure(access=model)
                own.until(lambda number=number: own.get(f"repository:new{number}/x:push", headers=basic("carol")).granted)
        assert load.wrong == []
        assert load.count > 100


def test_rights_that_are_taken_away_are_gone_with_the_next_token(own: World) -> None:
    with own.serve():
        refresh = own.get(headers=basic("alice"), offline_token="true").json["refresh_token"]
        assert own.post(grant_type="refresh_token", refresh_token=refresh, scope="repository:team/app:pull").granted
        own.configure(access={"projects": {"team": {"writers": ["bob", "robot:ci", "robot:old"]}}})
        own.until(lambda: not own.post(grant_type="refresh_token", refresh_token=refresh, scope="repository:team/app:pull").granted)
        del own.accounts["alice"]
        own.write_accounts()
        own.until(lambda: own.post(grant_type="refresh_token", refresh_token=refresh).status == 401)
        assert own.get(headers=basic("alice")).status == 401


def test_a_refresh_token_ends_with_the_password(own: World) -> None:
    with own.serve():
        refresh = own.get(headers=basic("alice"), offline_token="true").json["refresh_token"]
        own.accounts["alice"] = "another-password"
        own.write_accounts()
        own.until(lambda: own.post(grant_type="refresh_token", refresh_token=refresh).status == 401)


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("config.json", b"{", "is no JSON"),
        ("config.json", b'{"service": "x"}', "issuer is missing"),
        ("config.json", b'{"service": "x", "issuer": "y", "lifetim": 5}', "unknown key lifetim"),
        ("config.json", b'{"service": "x", "issuer": "y", "listen": "0.0.0.0:5004"}', "no address on loopback"),
        (
            "config.json",
            b'{"service": "x", "issuer": "y", "access": {"admins": ["alicia"]}}',
            "there is no user alicia; did you mean alice?",
        ),
        ("htpasswd", b"alice:{SHA}abc\n", "line 1 is not a name and a bcrypt hash"),
        ("signer.key", b"", "the signing key cannot be read"),
        ("signer.key", Key().key_pem, "the signing key is not that of its certificate"),
        ("signer.crt", b"", "there is no certificate"),
        ("trusted.crt", Key().pem, "the registries do not trust the signing key"),
        ("own.secret", b"short\n", "own.secret: the secret is shorter than 32 characters"),
    ],
)
def test_what_is_broken_is_refused_and_the_old_stays(own: World, name: str, content: bytes, told: str) -> None:
    with own.serve():
        good = (own.directory / name).read_bytes()
        own.write(name, content)
        own.until(lambda: own.metric("wharf_token_config_ok") == 0)
        assert own.get("repository:team/app:pull", headers=basic("alice")).granted
        assert told in (own.folder / "service.log").read_text()
        # It would not start with that, and says so beforehand.
        checked = subprocess.run(
            [*own.command[:3], "--check", str(own.directory)], env=own.environment, capture_output=True, text=True, check=False, timeout=60
        )
        assert checked.returncode == 2
        assert told in checked.stderr
        own.write(name, good)
        own.until(lambda: own.metric("wharf_token_config_ok") == 1)


def test_a_service_that_ends_finishes_what_it_has_begun(own: World) -> None:
    own.write_accounts(12)
    with own.serve():
        answers: list[int] = []
        thread = threading.Thread(target=lambda: answers.append(own.get(headers=basic("alice")).status))
        thread.start()
        time.sleep(0.1)
        own.stop_gently()
        thread.join(30)
        assert answers == [200]
    assert "alice" in json.loads((own.folder / "state.json").read_text())


def test_the_key_is_changed_under_load(own: World, tmp_path: Path) -> None:
    """Trust both, sign with the new one, trust that alone: both generations, no failed request, nobody signed out, personal tokens go on."""
    old, new = own.key, Key("wharf token 2")
    trusted = {release: tmp_path / f"trusted-{release}.crt" for release in (servers.settings.REGISTRY_3, servers.settings.REGISTRY_2)}
    for path in trusted.values():
        path.write_bytes(old.pem + new.pem)
    own.write("trusted.crt", old.pem + new.pem)
    realm = f"http://localhost:{own.port}/auth/token"
    with own.serve():
        refresh = own.get(headers=basic("alice"), offline_token="true").json["refresh_token"]
        person = Person(own)
        person.sign_in("alice")
        personal = person.make("laptop")
        (one, two) = (registry(release, tmp_path / release, path, realm) for release, path in trusted.items())
        with one as (address_3, _root_3), two as (address_2, _root_2):
            clients = [client(address, "alice") for address in (address_3, address_2)]
            digests = [push(found, "team/app", "1") for found in clients]

            def pull() -> int:
                for address, digest in zip((address_3, address_2), digests, strict=True):
                    assert (
                        Registry(f"http://{address}", username="alice", password="alice-password").head_manifest("team/app", "1") == digest
                    )
                return 200

            with Load(pull, threads=2) as load:
                time.sleep(1)
                # The two files change one after the other: between them the pair is refused, and the old one stays.
                own.write("signer.key", new.key_pem)
                time.sleep(1.5)
                own.write("signer.crt", new.pem)
                own.until(
                    lambda: own.metric("wharf_token_certificate_expiry_timestamp_seconds") > 0 and own.metric("wharf_token_config_ok") == 1
                )
                time.sleep(1)
            assert load.wrong == []
            assert load.count > 20
            own.write("trusted.crt", new.pem)
            time.sleep(1.5)
            assert own.metric("wharf_token_config_ok") == 1
            assert decode(own.get(headers=basic("alice")).json["token"])[0]["kid"] == new.kid
            # What the services have signed for themselves has nothing to do with it.
            assert own.post(grant_type="refresh_token", refresh_token=refresh).status == 200
            assert own.get("repository:team/app:pull", headers=basic("alice", personal)).granted
            assert "Signed in as" in person.look().text
            for found, digest in zip(clients, digests, strict=True):
                assert found.head_manifest("team/app", "1") == digest


def test_another_secret_ends_all_that_was_signed_with_the_old_one(own: World) -> None:
    with own.serve():
        refresh = own.get(headers=basic("alice"), offline_token="true").json["refresh_token"]
        person = Person(own)
        person.sign_in("alice")
        personal = person.make("laptop")
        own.write("own.secret", b"x" * 64)
        own.until(lambda: own.get(headers=basic("alice", personal)).status == 401)
        assert own.post(grant_type="refresh_token", refresh_token=refresh).status == 401
        assert "Signed in as" not in person.look().text
        # Passwords and the registries' tokens are not concerned.
        assert own.get("repository:team/app:pull", headers=basic("alice")).granted
        person.sign_in("alice")
        assert own.get("repository:team/app:pull", headers=basic("alice", person.make("another"))).granted
