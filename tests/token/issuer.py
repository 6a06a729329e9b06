# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A CI system as the token service sees one: keys that it serves over TLS, and tokens that it signs for jobs."""

from __future__ import annotations

import contextlib
import http.server
import json
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from edge import certificate
from world import SERVICE, Key, encode, forge


class RsaKey:
    """A key as GitLab and GitHub have them."""

    algorithm = "RS256"

    def __init__(self, kid: str) -> None:
        self.kid = kid
        self.private = rsa.generate_private_key(65537, 2048)

    @property
    def jwk(self) -> dict[str, Any]:
        """The public key, as a JWKS has it."""
        numbers = self.private.public_key().public_numbers()
        return {"kty": "RSA", "use": "sig", "alg": "RS256", "kid": self.kid, "n": _text(numbers.n), "e": _text(numbers.e)}

    def sign(self, data: bytes) -> bytes:
        """RS256."""
        return self.private.sign(data, padding.PKCS1v15(), hashes.SHA256())


class EcKey:
    """A key of the other kind that is accepted."""

    algorithm = "ES256"

    def __init__(self, kid: str) -> None:
        self.kid = kid
        self._key = Key()
        self.sign = self._key.sign

    @property
    def jwk(self) -> dict[str, Any]:
        """The public key, as a JWKS has it."""
        numbers = self._key.private.public_key().public_numbers()
        return {"kty": "EC", "crv": "P-256", "kid": self.kid, "x": _text(numbers.x, 32), "y": _text(numbers.y, 32)}


def _text(number: int, size: int = 0) -> str:
    return encode(number.to_bytes(size or (number.bit_length() + 7) // 8, "big"))


class Issuer:
    """What it serves may be changed while it runs."""

    def __init__(self, folder: Path, address: str = "127.0.0.1") -> None:
        folder.mkdir(parents=True)
        certificate(folder, address)
        self.folder = folder
        self.address = address
        self.ca = (folder / "tls.crt").read_text()
        self.keys: list[Any] = [RsaKey("rsa-1"), EcKey("ec-1")]
        #: What is served instead of the keys, after how many seconds; what was asked for, and by whom.
        self.answer: tuple[int, dict[str, str], bytes] | None = None
        self.delay = 0.0
        self.asked: list[str] = []
        self.askers: set[str] = set()
        self.port = 0

    @property
    def jwks(self) -> dict[str, Any]:
        """The public keys."""
        return {"keys": [key.jwk for key in self.keys]}

    @property
    def url(self) -> str:
        """What its tokens call it."""
        return f"https://{self.address}:{self.port}"

    def section(self, jobs: dict[str, Any], **changes: Any) -> dict[str, Any]:
        """Return it as the access model names it."""
        given = {"issuer": self.url, "audience": SERVICE, "jwks_url": f"{self.url}/keys", "ca": self.ca, "jobs": jobs, **changes}
        return {name: value for name, value in given.items() if value}

    def claims(self, **changes: Any) -> dict[str, Any]:
        """Return what a token says of a job on the branch main of shop/web; None leaves a claim out."""
        now = int(time.time())
        claims = {
            "iss": self.url,
            "sub": "project_path:shop/web:ref_type:branch:ref:main",
            "aud": SERVICE,
            "iat": now,
            "nbf": now - 5,
            "exp": now + 300,
            "project_path": "shop/web",
            "ref": "main",
            "ref_protected": "true",
        }
        return {name: value for name, value in {**claims, **changes}.items() if value is not None}

    def token(self, key: Any = None, header: dict[str, Any] | None = None, **changes: Any) -> str:
        """Return the token of a job."""
        key = key or self.keys[0]
        return forge({"typ": "JWT", "alg": key.algorithm, "kid": key.kid, **(header or {})}, self.claims(**changes), key.sign)

    @contextlib.contextmanager
    def serve(self) -> Iterator[Issuer]:
        """Serve the keys, on the same port each time."""
        issuer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                issuer.asked.append(self.path)
                issuer.askers.add(self.client_address[0])
                time.sleep(issuer.delay)
                status, headers, body = issuer.answer or (200, {}, json.dumps(issuer.jwks).encode())
                self.send_response(status)
                for name, value in {"Content-Length": str(len(body)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_unused: Any) -> None:
                pass

        server = http.server.ThreadingHTTPServer((self.address, self.port), Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.folder / "tls.crt", self.folder / "tls.key")
        server.socket = context.wrap_socket(server.socket, server_side=True)
        server.handle_error = lambda *_unused: None  # type: ignore[method-assign]
        self.port = server.server_port
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield self
        finally:
            server.shutdown()
            server.server_close()
            thread.join(10)
