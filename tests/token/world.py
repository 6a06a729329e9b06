# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The token service as it runs on a node, on loopback: with the distribution's Python and libraries, and with keys of its own."""

from __future__ import annotations

import base64
import contextlib
import datetime
import hashlib
import hmac
import http.client
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any, Iterator
from urllib.parse import urlencode

import bcrypt
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, utils
from cryptography.x509.oid import NameOID

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/store"))
sys.path.insert(0, str(ROOT / "roles/token_auth/files"))

import servers  # noqa: E402  # makes the lab's own modules known
from local import Process, free_ports  # noqa: E402
from shell import apt_install  # noqa: E402

from ansible_collections.wharf.registry.plugins.action.node_tools import MODULE_UTILS, zipapp_bytes  # noqa: E402

SERVICE = "registry.lab.test"
ISSUER = "wharf"
#: What the role installs on Debian.
PACKAGES = ("python3-aiohttp", "python3-bcrypt", "python3-cryptography", "python3-jwt", "python3-prometheus-client")
PASSWORDS = {
    "root": "root-password",
    "alice": "alice-password",
    "bob": "bob-password",
    "carol": "carol-password",
    "wharf-probe": "probe-password",
    "robot-ci": "a" * 32,
    "robot-ci+next": "b" * 32,
    "robot-old": "c" * 32,
}
ROBOTS = [{"name": "ci", "expires": "2999-12-31"}, {"name": "old", "expires": "2020-01-01"}]
MODEL = {
    "admins": ["root"],
    "projects": {
        "team": {"writers": ["alice", "robot:ci", "robot:old"], "maintainers": ["bob"], "readers": ["carol"]},
        "other": {"writers": ["bob"]},
        "public": {"anonymous_pull": True, "writers": ["alice"]},
    },
}


class Key:
    """A signing key and its certificate."""

    def __init__(self, name: str = "wharf token", days: int = 30) -> None:
        self.private = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        now = datetime.datetime.now(datetime.UTC)
        builder = x509.CertificateBuilder().subject_name(subject).issuer_name(subject).public_key(self.private.public_key())
        builder = builder.serial_number(x509.random_serial_number()).not_valid_before(now - datetime.timedelta(days=1))
        builder = builder.not_valid_after(now + datetime.timedelta(days=days))
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        self.certificate = builder.sign(self.private, hashes.SHA256())

    @property
    def key_pem(self) -> bytes:
        """The private key."""
        return self.private.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())

    @property
    def pem(self) -> bytes:
        """The certificate."""
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def public_der(self) -> bytes:
        """The public key."""
        return self.private.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)

    @property
    def public_pem(self) -> bytes:
        """The public key as text."""
        return self.private.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)

    @property
    def x5c(self) -> list[str]:
        """The certificate as a token's header has it."""
        return [base64.b64encode(self.certificate.public_bytes(serialization.Encoding.DER)).decode()]

    @property
    def kid(self) -> str:
        """The name of the key that 2.8 goes by."""
        text = base64.b32encode(hashlib.sha256(self.public_der).digest()[:30]).decode()
        return ":".join(text[place : place + 4] for place in range(0, len(text), 4))

    def sign(self, data: bytes) -> bytes:
        """ES256, as tokens have it."""
        r, s = utils.decode_dss_signature(self.private.sign(data, ec.ECDSA(hashes.SHA256())))
        return r.to_bytes(32, "big") + s.to_bytes(32, "big")


def encode(part: bytes) -> str:
    """Base64 as tokens have it."""
    return base64.urlsafe_b64encode(part).rstrip(b"=").decode()


def decode(token: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return header and claims of a token, unchecked."""
    header, claims = (json.loads(base64.urlsafe_b64decode(part + "==")) for part in token.split(".")[:2])
    return header, claims


def forge(header: dict[str, Any], claims: dict[str, Any], sign: Any) -> str:
    """Return a token of any header and claims, signed by any function."""
    text = f"{encode(json.dumps(header).encode())}.{encode(json.dumps(claims).encode())}"
    return f"{text}.{encode(sign(text.encode()))}"


class Answer:
    """An answer of the service."""

    def __init__(self, response: http.client.HTTPResponse) -> None:
        self.status = response.status
        self.headers = {name.lower(): value for name, value in response.getheaders()}
        self.text = response.read().decode()

    @property
    def json(self) -> Any:
        """The body."""
        return json.loads(self.text)

    @property
    def granted(self) -> dict[str, list[str]]:
        """What the token allows, by name."""
        claims = decode(self.json["access_token"])[1]
        return {f"{entry['type']}:{entry['name']}": entry["actions"] for entry in claims["access"]}


def basic(name: str, password: str | None = None) -> dict[str, str]:
    """Return the header with which an account signs in."""
    text = f"{name}:{PASSWORDS[name] if password is None else password}"
    return {"Authorization": "Basic " + base64.b64encode(text.encode()).decode()}


class World:
    """A directory with the service's configuration, and how to ask the service."""

    def __init__(self, folder: Path, cost: int = 4) -> None:
        apt_install(*PACKAGES)
        self.folder = folder
        self.directory = folder / "etc"
        self.directory.mkdir(parents=True)
        self.audit = folder / "audit.log"
        self.key = Key()
        (self.port,) = free_ports(1)
        self.settings: dict[str, Any] = {
            "service": SERVICE,
            "issuer": ISSUER,
            "listen": f"127.0.0.1:{self.port}",
            "audit_log": str(self.audit),
            "state": str(folder / "state.json"),
            "url": f"https://{SERVICE}",
            "personal_state": str(folder / "personal.json"),
            "access": MODEL,
            "robots": ROBOTS,
        }
        self.write("signer.key", self.key.key_pem)
        self.write("signer.crt", self.key.pem)
        self.write("trusted.crt", self.key.pem)
        self.own_secret = os.urandom(32).hex()
        self.write("own.secret", self.own_secret.encode())
        self.accounts = dict(PASSWORDS)
        self.write_accounts(cost)
        self.configure()
        self.program = folder / "wharf.pyz"
        self.program.write_bytes(zipapp_bytes(MODULE_UTILS))

    def write(self, name: str, content: bytes) -> None:
        """Put a file of the configuration in place in one step, as the role does."""
        partial = self.directory / f".{name}"
        partial.write_bytes(content)
        partial.chmod(0o600)
        partial.rename(self.directory / name)

    def sign_own(self, data: bytes) -> bytes:
        """Sign what is to pass for one of the services' own tokens."""
        return hmac.digest(self.own_secret.encode(), data, "sha256")

    def write_accounts(self, cost: int = 4) -> None:
        """Write the accounts with hashes of a cost."""
        lines = [f"{name}:{bcrypt.hashpw(text.encode(), bcrypt.gensalt(cost)).decode()}\n" for name, text in self.accounts.items()]
        self.write("htpasswd", "".join(lines).encode())

    def configure(self, **changes: Any) -> None:
        """Write the configuration with changes, which stay."""
        self.settings.update(changes)
        self.write("config.json", json.dumps(self.settings).encode())

    @property
    def command(self) -> list[str]:
        """How the service is started: by the distribution's Python, or by one with other releases of the libraries."""
        return [os.environ.get("WHARF_TOKEN_PYTHON", "/usr/bin/python3"), "-m", "wharf_token", str(self.directory)]

    @property
    def environment(self) -> dict[str, str]:
        """Where its code is."""
        return {"PYTHONPATH": f"{ROOT / 'roles/token_auth/files'}:{self.program}", "PYTHONDONTWRITEBYTECODE": "1"}

    @contextlib.contextmanager
    def serve(self) -> Iterator[World]:
        """Run the service."""
        with Process(self.folder, "service", *self.command, **self.environment) as process:
            process.wait_for(lambda: self.request("GET", "/healthz").status == 200)
            self.pid = process._process.pid
            yield self

    def request(self, method: str, path: str, headers: dict[str, str] | None = None, body: str | None = None) -> Answer:
        """Ask the service as the edge does."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, body, {"X-Real-IP": "192.0.2.1", **(headers or {})})
            return Answer(connection.getresponse())
        finally:
            connection.close()

    def get(self, *scopes: str, headers: dict[str, str] | None = None, **query: str) -> Answer:
        """Ask for a token as docker, podman, skopeo, crane and regctl do."""
        parts = [("service", query.pop("service", SERVICE)), *(("scope", scope) for scope in scopes), *query.items()]
        return self.request("GET", "/auth/token?" + urlencode(parts), headers)

    def post(self, headers: dict[str, str] | None = None, **form: str) -> Answer:
        """Ask for a token as containerd does."""
        body = urlencode({"service": SERVICE, **form})
        return self.request("POST", "/auth/token", {"Content-Type": "application/x-www-form-urlencoded", **(headers or {})}, body)

    def lines(self) -> list[dict[str, Any]]:
        """Return the audit log."""
        return [json.loads(line) for line in self.audit.read_text().splitlines()]

    def metric(self, line: str) -> float:
        """Return the value of one metric with its labels."""
        for text in self.request("GET", "/metrics").text.splitlines():
            if text.startswith(line + " "):
                return float(text.split()[-1])
        raise KeyError(line)

    def until(self, condition: Any, seconds: float = 10) -> None:
        """Wait until something is true."""
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, "it does not become true"
            time.sleep(0.1)

    def stop_gently(self) -> None:
        """Ask the service to end."""
        os.kill(self.pid, signal.SIGTERM)


@contextlib.contextmanager
def registry(release: str, folder: Path, trusted: Path, realm: str, more: dict[str, Any] | None = None) -> Iterator[tuple[str, Path]]:
    """Run a real registry that trusts the certificates of a file; yield its address."""
    folder.mkdir(parents=True)
    root = folder / "data"
    root.mkdir()
    sections = {
        "auth": {"token": {"realm": realm, "service": SERVICE, "issuer": ISSUER, "rootcertbundle": str(trusted)}},
        "storage": {"filesystem": {"rootdirectory": str(root)}, "delete": {"enabled": True}},
        **(more or {}),
    }
    with servers.registry(release, folder, sections) as (client, _config):
        yield client.origin.removeprefix("http://"), root
