# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""registry_info against real registries that crane has pushed to: over the storage, over the API, and what both are to refuse.

What must be told is worked out here from what crane says of the images.
"""

from __future__ import annotations

import base64
import contextlib
import datetime
import hashlib
import io
import ipaddress
import json
import os
import random
import subprocess
import sys
import tarfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Iterator
from urllib.parse import parse_qs, urlsplit

import bcrypt
import pytest
import servers
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, utils

from ansible_collections.wharf.registry.plugins.module_utils._registry.api import Registry, digest_of
from ansible_collections.wharf.registry.plugins.module_utils._store import gc, interface

ROOT = Path(__file__).resolve().parents[2]
RELEASES = [servers.settings.REGISTRY_3, servers.settings.REGISTRY_2]
MODULE = "wharf.registry.registry_info"


def ask(**options: Any) -> dict[str, Any]:
    """Run the module as Ansible does, in check mode, and return what it returns."""
    command = [Path(sys.executable).parent / "ansible", "localhost", "-c", "local", "-m", MODULE, "-a", json.dumps(options), "--check"]
    environment = {
        **os.environ,
        "ANSIBLE_COLLECTIONS_PATH": str(ROOT / ".cache/collections"),
        "ANSIBLE_STDOUT_CALLBACK": "ansible.builtin.oneline",
        "ANSIBLE_PYTHON_INTERPRETER": sys.executable,
    }
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, env=environment, cwd="/", check=False)
    head, arrow, tail = done.stdout.partition("=> ")
    assert arrow, done.stdout + done.stderr
    # Warnings are not in what is printed of the result, but beside it, wrapped.
    return {**json.loads(tail), "failed": "FAILED" in head, "warnings": " ".join(done.stderr.split())}


def without_what_the_api_cannot_tell(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            key: without_what_the_api_cannot_tell(one)
            for key, one in value.items()
            if key not in ("last_push", "pushed", "storage", "invocation", "warnings")
        }
    return [without_what_the_api_cannot_tell(one) for one in value] if isinstance(value, list) else value


class Crane:
    """Pushes images of random layers, and knows which."""

    def __init__(self, host: str, folder: Path) -> None:
        self.host = host
        self.folder = folder
        self.program = servers.images.crane()

    def run(self, *arguments: str) -> str:
        done = subprocess.run([str(self.program), *arguments], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def layer(self, name: str, size: int) -> str:
        path = self.folder / f"{name}.tar"
        if not path.exists():
            content = random.Random(name).randbytes(size)
            with tarfile.open(path, "w") as archive:
                member = tarfile.TarInfo(name)
                member.size = size
                archive.addfile(member, io.BytesIO(content))
        return str(path)

    def push(self, name: str, layers: dict[str, int], platform: str, oci: bool = False) -> str:
        """Push an image and return its digest."""
        target = f"{self.host}/{name}"
        files = [part for layer, size in layers.items() for part in ("-f", self.layer(layer, size))]
        self.run("append", *(["--oci-empty-base"] if oci else []), *files, "-t", target)
        self.run("mutate", "--set-platform", platform, target, "-t", target)
        return self.run("digest", target)

    def index(self, name: str, parts: list[str], docker: bool = False) -> str:
        sources = [part for reference in parts for part in ("-m", f"{self.host}/{reference}")]
        self.run("index", "append", *(["--docker-empty-base"] if docker else []), *sources, "-t", f"{self.host}/{name}")
        return self.run("digest", f"{self.host}/{name}")

    def blobs(self, name: str, digest: str) -> dict[str, int]:
        """Return what a manifest takes alone: its own bytes and those of its configuration and layers, by digest."""
        content = subprocess.run([str(self.program), "manifest", f"{self.host}/{name}@{digest}"], capture_output=True, check=True).stdout
        tree = json.loads(content)
        assert "sha256:" + hashlib.sha256(content).hexdigest() == digest
        return {digest: len(content), **{item["digest"]: item["size"] for item in [*tree.get("layers", []), tree.get("config")] if item}}


@contextlib.contextmanager
def storage(kind: str, folder: Path) -> Iterator[dict[str, Any]]:
    """A `storage` section."""
    if kind == "filesystem":
        (folder / "data").mkdir()
        yield {"filesystem": {"rootdirectory": str(folder / "data")}}
    else:
        (folder / "s3").mkdir()
        with servers.s3_store(folder / "s3") as section:
            yield {"s3": section}


@pytest.mark.parametrize("kind", ["filesystem", "s3"])
@pytest.mark.parametrize("release", RELEASES)
def test_storage_and_api_tell_what_crane_pushed(release, kind, tmp_path):
    begun = time.time()
    with storage(kind, tmp_path) as section, servers.registry(release, tmp_path, {"storage": dict(section)}) as (client, config):
        crane = Crane(client.origin[7:], tmp_path)
        amd64 = crane.push("shop/web:amd64", {"base": 100_000, "amd64": 20_000}, "linux/amd64")
        arm64 = crane.push("shop/web:arm64", {"base": 100_000, "arm64": 30_000}, "linux/arm64/v8", oci=True)
        index = crane.index("shop/web:1.0", ["shop/web:amd64", "shop/web:arm64"])
        crane.run("tag", f"{crane.host}/shop/web:1.0", "latest")
        api = crane.push("shop/api:1.0", {"base": 100_000, "api": 5_000}, "windows/amd64")
        fat = crane.index("shop/api:all", ["shop/api:1.0"], docker=True)
        lint = crane.push("lint:1.0", {"lint": 1_000}, "linux/s390x")
        client.put_blob("lint", b"an upload that nobody refers to")

        manifests = {"shop/web": [amd64, arm64, index], "shop/api": [api, fat], "lint": [lint]}
        if release == RELEASES[0] and kind == "filesystem":
            # crane's mutate has moved each tag once; what it pointed to before is still there, and only the storage knows.
            untagged = ask(storage=section, gather=["tags"])
            assert untagged["totals"]["manifest_count"] > sum(map(len, manifests.values()))
        gc.run(
            gc.Request(
                interface.from_sections(section), mode="offline", grace=0.0, delete_untagged=True, max_delete_fraction=1.0, settle=0.0
            )
        )
        client.put_blob("lint", b"an upload that nobody refers to")

        groups = {name: [crane.blobs(name, digest) for digest in digests] for name, digests in manifests.items()}
        used = {name: {blob: size for group in several for blob, size in group.items()} for name, several in groups.items()}
        everything = {blob: size for blobs in used.values() for blob, size in blobs.items()}
        stored = ask(storage=section)
        told = ask(url=client.origin)
        configured = ask(config=str(config))

    assert {key: stored[key] for key in ("repositories", "totals")} == {key: configured[key] for key in ("repositories", "totals")}
    assert without_what_the_api_cannot_tell(stored) == without_what_the_api_cannot_tell(told)
    assert not stored["changed"] and not stored["findings"] and "matches no" not in stored["warnings"] + told["warnings"]
    assert [entry["name"] for entry in stored["repositories"]] == ["lint", "shop/api", "shop/web"]
    for entry in stored["repositories"]:
        name = entry["name"]
        others = {blob for other, blobs in used.items() if other != name for blob in blobs}
        assert entry["digests"] == sorted(manifests[name])
        assert entry["size"]["logical"] == sum(size for group in groups[name] for size in group.values())
        assert entry["size"]["unique"] == sum(size for blob, size in used[name].items() if blob not in others)
        assert entry["size"]["shared"] == sum(size for blob, size in used[name].items() if blob in others)
        assert begun - 2 <= datetime.datetime.fromisoformat(entry["last_push"].replace("Z", "+00:00")).timestamp() <= time.time() + 2
    web = {tag["name"]: tag for tag in stored["repositories"][2]["tags"]}
    assert {name: tag["digest"] for name, tag in web.items()} == {"1.0": index, "latest": index, "amd64": amd64, "arm64": arm64}
    assert {name: tag["platforms"] for name, tag in web.items()} == {
        "1.0": ["linux/amd64", "linux/arm64/v8"],
        "latest": ["linux/amd64", "linux/arm64/v8"],
        "amd64": ["linux/amd64"],
        "arm64": ["linux/arm64/v8"],
    }
    assert web["1.0"]["size"] == sum(size for group in groups["shop/web"] for size in group.values())
    assert stored["repositories"][1]["platforms"] == ["windows/amd64"]
    assert stored["totals"]["platforms"] == ["linux/amd64", "linux/arm64/v8", "linux/s390x", "windows/amd64"]
    assert stored["repositories"][2]["size"]["saved"] > 100_000 and stored["projects"][1]["size"]["saved"] > 200_000
    assert stored["totals"]["size"]["unique"] == sum(everything.values())
    assert stored["totals"]["storage"]["bytes"] == sum(everything.values()) + 31
    assert stored["totals"]["storage"]["unreferenced_bytes"] == 31


@pytest.mark.parametrize("release", RELEASES)
def test_long_lists_are_read_whole(release, tmp_path):
    with storage("filesystem", tmp_path) as section, servers.registry(release, tmp_path, {"storage": section}) as (client, _config):
        content = json.dumps({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": []}).encode()
        for number in range(230):
            client.put_blob(f"many/r{number:03}", b"2.8 looks for a blob")
            client.put_manifest(f"many/r{number:03}", "1", content, "application/vnd.oci.image.index.v1+json")
        for number in range(230):
            client.put_manifest("many/tags", f"t{number:03}", content, "application/vnd.oci.image.index.v1+json")
        client.put_blob("many/tags", b"2.8 looks for a blob")
        told = ask(url=client.origin)
        stored = ask(storage=section)
        few = ask(url=client.origin, repositories=["many/r00?", "no/**"], gather=["tags"], workers=2)
    assert (told["totals"]["repository_count"], told["totals"]["tag_count"]) == (231, 460)
    assert without_what_the_api_cannot_tell(stored) == without_what_the_api_cannot_tell(told)
    assert [entry["name"] for entry in few["repositories"]] == [f"many/r00{number}" for number in range(10)]
    assert few["repositories"][0]["tags"][0]["digest"] == digest_of(content)
    assert "repositories: no/** matches no repository." in few["warnings"]


# --------------------------------------------------------------------------------------------------- who may, and TLS


def certificate(folder: Path, name: str) -> tuple[Path, Path, Any]:
    """Make a certificate for 127.0.0.1 that signs itself; return its file, that of its key, and the key."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    built = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), True)
        .sign(key, hashes.SHA256())
    )
    files = folder / f"{name}.pem", folder / f"{name}.key"
    files[0].write_bytes(built.public_bytes(serialization.Encoding.PEM))
    files[1].write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
    return (*files, key)


def tell_repositories(values: dict[str, Any]) -> list[str]:
    assert "repositories" in values, values
    return [entry["name"] for entry in values["repositories"]]


@pytest.mark.parametrize("release", RELEASES)
def test_tls_and_passwords(release, tmp_path):
    ca, key, _private = certificate(tmp_path, "registry")
    other, _key, _private = certificate(tmp_path, "other")
    users = tmp_path / "htpasswd"
    users.write_bytes(b"ci:" + bcrypt.hashpw(b"right", bcrypt.gensalt(4)) + b"\n")
    with storage("filesystem", tmp_path) as section, servers.registry(release, tmp_path, {"storage": section}) as (plain, config):
        Crane(plain.origin[7:], tmp_path).push("shop/web:1", {"base": 1000}, "linux/amd64")
        (port,) = servers.local.free_ports(1)
        tree = json.loads(config.read_text())
        tree["http"] = {"addr": f"127.0.0.1:{port}", "tls": {"certificate": str(ca), "key": str(key)}}
        tree["auth"] = {"htpasswd": {"realm": "x", "path": str(users)}}
        config.write_text(json.dumps(tree))
        command = [*servers.registry_command(release), "serve", config]
        with servers.local.Process(tmp_path, "tls", *command, OTEL_TRACES_EXPORTER="none") as process:
            url = f"https://127.0.0.1:{port}"
            client = Registry(url, username="ci", password="right", ca_path=str(ca))
            process.wait_for(client.ping)
            good = {"url": url, "username": "ci", "password": "right", "ca_path": str(ca)}
            assert tell_repositories(ask(**good)) == ["shop/web"]
            for change, message in (
                ({"password": "wrong"}, f"username, password: {url} does not let this user in: GET /v2/: HTTP 401 UNAUTHORIZED"),
                ({"username": None, "password": None}, f"username, password: {url} does not let this user in"),
                ({"ca_path": str(other)}, f"url, ca_path: TLS with {url} failed"),
                ({"ca_path": None}, f"url, ca_path: TLS with {url} failed"),
                ({"ca_path": str(users)}, f"ca_path: {users} cannot be used"),
                ({"ca_path": "/none.pem"}, "ca_path: /none.pem cannot be used: [Errno 2] No such file or directory"),
                ({"url": f"http://127.0.0.1:{port}", "ca_path": None}, "does not answer as a registry: GET /v2/: HTTP 400"),
                ({"url": "https://127.0.0.1:9"}, "url: no answer from 127.0.0.1:9: Connection refused"),
            ):
                values = ask(**{name: value for name, value in {**good, **change}.items() if value is not None})
                assert values.get("failed") and message in values["msg"], values
                assert "wrong" not in json.dumps(values) and "right" not in json.dumps(values["msg"])


class TokenService(BaseHTTPRequestHandler):
    """Gives whoever has the password a token for what he asks for, except the repository `secret`, and none of it for long."""

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        scope = parse_qs(parts.query).get("scope", [""])[0]
        self.server.scopes.append(scope)
        if self.headers.get("Authorization") != "Basic " + base64.b64encode(b"ci:right").decode():
            self.send_response(401)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        access = []
        if scope and ":secret:" not in scope:
            kind, rest = scope.split(":", 1)
            name, actions = rest.rsplit(":", 1)
            access = [{"type": kind, "name": name, "actions": actions.split(",")}]
        body = json.dumps({"token": self.server.sign(access)}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_arguments: Any) -> None:
        pass


def signer(path: Path, key: Any) -> Any:
    """Return what signs tokens: the header carries the certificate."""
    chain = x509.load_pem_x509_certificate(path.read_bytes()).public_bytes(serialization.Encoding.DER)

    def part(content: bytes) -> str:
        return base64.urlsafe_b64encode(content).rstrip(b"=").decode()

    def sign(access: list[dict[str, Any]]) -> str:
        now = int(time.time())
        header = {"typ": "JWT", "alg": "ES256", "x5c": [base64.b64encode(chain).decode()]}
        claims = {"iss": "us", "sub": "ci", "aud": "registry", "exp": now + 300, "nbf": now - 10, "iat": now, "jti": "1", "access": access}
        text = part(json.dumps(header).encode()) + "." + part(json.dumps(claims).encode())
        r, s = utils.decode_dss_signature(key.sign(text.encode(), ec.ECDSA(hashes.SHA256())))
        return text + "." + part(r.to_bytes(32, "big") + s.to_bytes(32, "big"))

    return sign


@pytest.mark.parametrize("release", RELEASES)
def test_tokens(release, tmp_path):
    path, _file, key = certificate(tmp_path, "tokens")
    service = ThreadingHTTPServer(("127.0.0.1", 0), TokenService)
    service.daemon_threads = True
    service.scopes, service.sign = [], signer(path, key)
    threading.Thread(target=service.serve_forever, daemon=True).start()
    with storage("filesystem", tmp_path) as section, servers.registry(release, tmp_path, {"storage": section}) as (plain, config):
        crane = Crane(plain.origin[7:], tmp_path)
        for name in ("shop/web:1", "shop/web:2", "secret:1"):
            crane.push(name, {"base": 1000, name[:4] + name[-1]: 100}, "linux/amd64")
        (port,) = servers.local.free_ports(1)
        tree = json.loads(config.read_text())
        tree["http"]["addr"] = f"127.0.0.1:{port}"
        realm = f"http://127.0.0.1:{service.server_address[1]}/auth/token"
        tree["auth"] = {"token": {"realm": realm, "service": "registry", "issuer": "us", "rootcertbundle": str(path)}}
        config.write_text(json.dumps(tree))
        command = [*servers.registry_command(release), "serve", config]
        with servers.local.Process(tmp_path, "tokens", *command, OTEL_TRACES_EXPORTER="none") as process:
            url = f"http://127.0.0.1:{port}"
            client = Registry(url, username="ci", password="right")
            process.wait_for(client.ping)
            service.scopes.clear()
            values = ask(url=url, username="ci", password="right", repositories=["shop/**"])
            assert tell_repositories(values) == ["shop/web"] and values["repositories"][0]["platforms"] == ["linux/amd64"]
            assert not values["findings"]
            # One for the greeting, one for the catalog, one for the repository, however many requests go to it.
            assert sorted(service.scopes) == ["", "registry:catalog:*", "repository:shop/web:pull"]
            values = ask(url=url, username="ci", password="right")
            assert [(finding["kind"], finding["repository"]) for finding in values["findings"]] == [("unreadable", "secret")]
            assert "numbers may be too small" in values["warnings"]
            values = ask(url=url, username="ci", password="wrong")
            assert values["failed"] and "username, password: " in values["msg"] and "/auth/token: HTTP 401" in values["msg"]
    service.shutdown()
    service.server_close()
