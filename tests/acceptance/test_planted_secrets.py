# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Secrets are planted, the roles run as loudly as they can, clients sign in: nothing of it is where others could read it."""

from __future__ import annotations

import base64
import datetime
import json
import re
import secrets
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, utils
from cryptography.x509.oid import NameOID
from hosts import Host, ansible, host, must

NAME = "registry.lab.test"
ISSUER = "https://ci.lab.test"


def text(size: int = 24) -> str:
    return "plant" + secrets.token_hex(size)


class Ci:
    """A CI system's key, and a token that it has signed for a job."""

    def __init__(self) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())

    @property
    def jwks(self) -> dict[str, Any]:
        numbers = self.key.public_key().public_numbers()
        return {
            "keys": [
                {
                    "kty": "EC",
                    "crv": "P-256",
                    "kid": "1",
                    "x": part(numbers.x.to_bytes(32, "big")),
                    "y": part(numbers.y.to_bytes(32, "big")),
                }
            ]
        }

    def token(self) -> str:
        now = int(datetime.datetime.now(datetime.UTC).timestamp())
        claims = {"iss": ISSUER, "aud": NAME, "sub": "shop/web", "iat": now, "exp": now + 900, "project_path": "shop/web"}
        signed = ".".join(part(json.dumps(piece).encode()) for piece in ({"alg": "ES256", "kid": "1"}, claims))
        r, s = utils.decode_dss_signature(self.key.sign(signed.encode(), ec.ECDSA(hashes.SHA256())))
        return f"{signed}.{part(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"


def part(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


def signer(folder: Path) -> str:
    """Write a key that signs tokens, and its certificate; return a line of the key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "tokens")])
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(x509.random_serial_number()).not_valid_before(now).not_valid_after(now + datetime.timedelta(days=9))
    made = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True).sign(key, hashes.SHA256())
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / "signer.key").write_bytes(pem)
    (folder / "signer.crt").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    return pem.decode().splitlines()[1]


class Watch(threading.Thread):
    """Remembers the arguments of all programs that run on this machine, those in its containers included."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.seen: set[bytes] = set()
        self.stop = threading.Event()

    def run(self) -> None:
        while not self.stop.wait(0.02):
            for path in Path("/proc").glob("[0-9]*/cmdline"):
                try:
                    self.seen.add(path.read_bytes())
                except OSError:
                    continue


def personal_token(machine: Host, password: str) -> str:
    """Sign in as alice on the page, as a browser does, and make a token."""

    def ask(path: str, cookie: str = "", **fields: str) -> str:
        lines = [f'data-urlencode = "{name}={value}"' for name, value in fields.items()]
        config = "\n".join(
            [f'url = "http://127.0.0.1:5004/auth/{path}"', f'header = "Cookie: {cookie}"', f'header = "Origin: https://{NAME}"', *lines]
        )
        return machine.on("curl -s -i -K -", stdin=config + "\n")

    session = re.search(r"(?i)^set-cookie: ([^;]+)", ask("signin", name="alice", password=password), re.M)
    assert session
    csrf = re.search(r'name="csrf" value="([^"]+)"', ask("", session[1]))
    assert csrf
    made = re.search(r'id="token" value="([^"]+)"', ask("create", session[1], csrf=csrf[1], name="laptop", role="writer", days="9"))
    assert made
    return made[1]


@pytest.fixture(scope="module")
def machine() -> Iterator[Host]:
    with host("secrets", "bookworm", services=True) as found:
        yield found


def test_planted_secrets_appear_nowhere(machine: Host, tmp_path: Path) -> None:
    ci = Ci()
    planted = {
        "password of a user": text(),
        "secret of a robot": text(),
        "next secret of a robot": text(),
        "S3 secret key": text(),
        "Redis password": text(),
        "http.secret": text(),
        "key that signs tokens": signer(tmp_path),
        "secret of personal tokens": text(),
        "client secret of single sign-on": text(),
        "token of a CI job": ci.token(),
        "wrong password": text(),
        "password typed as a name": text(),
    }
    (tmp_path / "secrets/token").mkdir(parents=True, mode=0o700)
    (tmp_path / "secrets/token/own_secret").write_text(planted["secret of personal tokens"])
    variables = {
        "wharf_name": NAME,
        "wharf_auth": "token",
        "wharf_secrets_dir": str(tmp_path / "secrets"),
        "wharf_users": [{"name": "alice", "password": planted["password of a user"]}],
        "wharf_robots": [
            {"name": "shop-ci", "secret": planted["secret of a robot"], "next_secret": planted["next secret of a robot"], "rotate": True}
        ],
        "wharf_redis_password": planted["Redis password"],
        "wharf_http_secret": planted["http.secret"],
        "wharf_storage": {
            "s3": {
                "bucket": "registry",
                "region": "lab",
                "regionendpoint": "http://127.0.0.1:9",
                "accesskey": "registry",
                "secretkey": planted["S3 secret key"],
            }
        },
        "token_auth_privatekey_src": str(tmp_path / "signer.key"),
        "token_auth_certificate_src": str(tmp_path / "signer.crt"),
        "token_auth_trusted_src": str(tmp_path / "signer.crt"),
        "wharf_sso": {
            "issuer": "https://sso.lab.test/realms/company",
            "client_id": "registry",
            "client_secret": planted["client secret of single sign-on"],
            "groups": {"registry-developers": "developers"},
        },
        "wharf_access": {
            "groups": {"developers": []},
            "ci": {"lab": {"issuer": ISSUER, "audience": NAME, "jwks": ci.jwks, "jobs": {"shop": {"project_path": "shop/web"}}}},
            "projects": {"shop": {"writers": ["alice", "group:developers", "robot:shop-ci", "job:shop"]}},
        },
        "redis_cache_tls": True,
    }
    groups = {group: {"hosts": {"node1": {}}} for group in ("registry_nodes", "registry_cache")}
    (tmp_path / "more.yml").write_text(json.dumps({"all": {"vars": variables, "children": groups}}))
    local = {"ansible_python_interpreter": sys.executable, "cluster_secrets_directory": str(tmp_path / "secrets")}

    def role(name: str, hosts: str, **more: Any) -> dict[str, Any]:
        return {"hosts": hosts, "gather_facts": hosts != "localhost", "roles": [f"wharf.registry.{name}"], **more}

    plays = [
        role("cluster_secrets", "localhost", connection="local", vars=local),
        role("redis_cache", "registry_cache"),
        role("token_auth", "registry_nodes"),
    ]
    machine.on("sleep 1; touch /run/before; sleep 1")
    # Somebody may keep facts on the controller.
    (tmp_path / "ansible.cfg").write_text(f"[defaults]\nfact_caching = jsonfile\nfact_caching_connection = {tmp_path}/facts\n")
    watch = Watch()
    watch.start()
    loud = ("-i", str(tmp_path / "more.yml"), "-vvvv", "--diff")
    first = ansible(tmp_path, plays, {"node1": machine}, *loud)
    output = must(first) + first.stderr
    # These need an engine and a store to run; what they would write they show all the same.
    plays += [role("registry", "registry_nodes"), role("registry_edge", "registry_nodes")]
    again = ansible(tmp_path, plays, {"node1": machine}, *loud, "--check")
    output += must(again) + again.stderr

    def sign_in(name: str, password: str, **query: str) -> dict[str, Any]:
        asked = "&".join(f"{key}={value}" for key, value in {"service": NAME, "scope": "repository:shop/web:pull", **query}.items())
        # The password reaches curl by its standard input: its arguments would be ours.
        config = f'user = "{name}:{password}"\nurl = "http://127.0.0.1:5004/auth/token?{asked}"\n'
        return json.loads(machine.on("curl -s -K -", stdin=config))

    planted["personal token"] = personal_token(machine, planted["password of a user"])
    assert sign_in("alice", planted["personal token"])["token"]
    given = sign_in("alice", planted["password of a user"], offline_token="true")
    planted["token for the registry"] = given["token"]
    planted["refresh token"] = given["refresh_token"]
    for robot in ("secret of a robot", "next secret of a robot"):
        assert sign_in("robot-shop-ci", planted[robot])["token"]
    assert sign_in("ci-job", planted["token of a CI job"])["token"]
    assert "token" not in sign_in("alice", planted["wrong password"])
    assert "token" not in sign_in(planted["password typed as a name"], "x")
    metrics = machine.on("curl -s http://127.0.0.1:5004/metrics")
    watch.stop.set()
    watch.join(10)

    # Of a token its signature, without which it is worth nothing.
    wanted = {name: value.rsplit(".", 1)[-1] for name, value in planted.items()}
    assert len(set(wanted.values())) == 15
    machine.on("umask 077; cat > /root/planted", stdin="".join(f"{value}\n" for value in wanted.values()))
    # What is looked for can be found: where the services have it, for themselves.
    kept = machine.on("grep -rlF -f /root/planted /etc")
    assert {path for path in ("redis", "signer.key", "own.secret", "sso.secret") if path in kept} == {
        "redis",
        "signer.key",
        "own.secret",
        "sso.secret",
    }
    places = {
        "output": output,
        "arguments": b"\0".join(watch.seen).decode("utf-8", "replace"),
        "metrics": metrics,
        "journal": machine.on("journalctl --no-pager --output=export --all | cat"),
        "logs": machine.on("find /var/log -type f ! -path '*/journal/*' -exec cat {} +"),
        "facts on the controller": "".join(path.read_text() for path in (tmp_path / "facts").iterdir()),
        "environments": machine.on("systemctl show '*.service' --property=Environment,ExecStart"),
    }
    assert len(places["output"]) > 50_000
    assert "wharf_token" in places["arguments"]
    assert "ci:lab:shop/web" in places["logs"]
    assert "ansible_os_family" in places["facts on the controller"]
    found = {name: [secret for secret, value in wanted.items() if value in place] for name, place in places.items()}
    assert {name: secret for name, secret in found.items() if secret} == {}
    readable = "setpriv --reuid=65534 --regid=65534 --clear-groups find / -xdev -type f -newer /run/before -readable -print0 2>/dev/null"
    exposed = machine.on(f"{readable} | xargs -0r grep -lF -f /root/planted; true")
    assert exposed == ""
    # On the controller: only their owner can go where they are.
    assert re.fullmatch(r"0o40700", oct((tmp_path / "secrets").stat().st_mode)), oct((tmp_path / "secrets").stat().st_mode)
