# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tokens: those that the registry accepts, and those that the token services make for themselves."""

from __future__ import annotations

import base64
import datetime
import hashlib
import secrets
import time
from dataclasses import dataclass
from typing import Any, Dict, List, Mapping, Optional

import jwt
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

LEEWAY = 30  # seconds that a token is older than it is, for registries whose clock is behind
SHORTEST_SECRET = 32
_OWN_ALGORITHM = "HS256"


class BadKey(ValueError):
    """A key, a certificate or a secret cannot be used."""


def libtrust_id(public_key: Any) -> str:
    """Return the ``kid`` that distribution 2.8 knows a key by: base32 of a short hash, in groups of four."""
    der = public_key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    text = base64.b32encode(hashlib.sha256(der).digest()[:30]).decode("ascii")
    return ":".join(text[place : place + 4] for place in range(0, len(text), 4))


def load_certificates(pem: bytes) -> List[x509.Certificate]:
    """Return the certificates of a PEM file, in their order."""
    end = b"-----END CERTIFICATE-----"
    try:
        return [x509.load_pem_x509_certificate(part + end + b"\n") for part in pem.split(end)[:-1]]
    except ValueError as error:
        raise BadKey(f"a certificate cannot be read: {error}") from None


def algorithm_of(public_key: Any) -> str:
    """Return the one algorithm that tokens of this key are signed with."""
    if isinstance(public_key, ec.EllipticCurvePublicKey) and public_key.curve.name == "secp256r1":
        return "ES256"
    if isinstance(public_key, rsa.RSAPublicKey) and public_key.key_size >= 2048:
        return "RS256"
    raise BadKey("the signing key is neither of the curve secp256r1 nor RSA with 2048 bits or more")


def not_after(certificate: x509.Certificate) -> float:
    """Return when a certificate ends, in seconds of the epoch."""
    end = getattr(certificate, "not_valid_after_utc", None) or certificate.not_valid_after.replace(tzinfo=datetime.timezone.utc)
    return end.timestamp()


@dataclass(frozen=True)
class Granted:
    """A token, and what the answer says about it."""

    token: str
    identifier: str
    issued: int
    lifetime: int


class Signer:
    """Signs the tokens that registries accept.

    ``x5c`` is what both generations of the registry find the key by; the ``kid`` is for 2.8, and for a JWKS that uses the same name.
    """

    def __init__(self, key_pem: bytes, certificate_pem: bytes, trusted_pem: bytes, issuer: str, lifetime: int) -> None:
        chain = load_certificates(certificate_pem)
        trusted = load_certificates(trusted_pem)
        if not chain:
            raise BadKey("there is no certificate of the signing key")
        try:
            self._key = load_pem_private_key(key_pem, None)
        except (ValueError, TypeError):
            raise BadKey("the signing key cannot be read") from None
        public = self._key.public_key()
        if _raw(public) != _raw(chain[0].public_key()):
            raise BadKey("the signing key is not that of its certificate")
        self._algorithm = algorithm_of(public)
        key_id = libtrust_id(public)
        if key_id not in [libtrust_id(certificate.public_key()) for certificate in trusted]:
            raise BadKey("the registries do not trust the signing key: its certificate is not among the trusted ones")
        self._header = {"kid": key_id, "x5c": [base64.b64encode(part.public_bytes(Encoding.DER)).decode("ascii") for part in chain]}
        self._issuer = issuer
        self._lifetime = lifetime
        self.ends = min(not_after(certificate) for certificate in chain)

    def token(self, subject: str, service: str, access: List[Dict[str, Any]]) -> Granted:
        """Return a token with which a registry lets ``subject`` do what ``access`` says."""
        now = int(time.time())
        identifier = secrets.token_hex(16)
        claims = {
            "iss": self._issuer,
            "sub": subject,
            "aud": service,
            "iat": now,
            "nbf": now - LEEWAY,
            "exp": now + self._lifetime,
            "jti": identifier,
            "access": access,
        }
        return Granted(jwt.encode(claims, self._key, self._algorithm, self._header), identifier, now, self._lifetime)


class OwnTokens:
    """Makes and reads the tokens that the services make for themselves: personal and refresh tokens, sessions, messages between nodes.

    They are signed with a secret that all nodes share and no registry knows, so a change of the key above ends none of them.
    """

    def __init__(self, secret: bytes, issuer: str, refresh_lifetime: int) -> None:
        self._secret = secret.strip()
        if len(self._secret) < SHORTEST_SECRET:
            raise BadKey(f"the secret is shorter than {SHORTEST_SECRET} characters")
        self._issuer = issuer
        self._refresh_lifetime = refresh_lifetime

    def refresh_token(self, subject: str, digest: str) -> str:
        """Return a token with which ``subject`` gets tokens until the password behind ``digest`` changes."""
        return self.make("refresh", subject, self._refresh_lifetime, {"secret": _fingerprint(digest)})

    def refreshed(self, token: str, hashes: Mapping[str, List[str]]) -> Optional[str]:
        """Return whose refresh token this is; None if it is none, has expired, or its account is gone or has another password now."""
        claims = self.read("refresh", token)
        if claims is None:
            return None
        subject = str(claims["sub"])
        if claims.get("secret") not in [_fingerprint(digest) for digest in hashes.get(subject, [])]:
            return None
        return subject

    def make(self, purpose: str, subject: str, lifetime: int, claims: Mapping[str, Any]) -> str:
        """Return a token for one purpose, which its type and audience name."""
        now = int(time.time())
        whole = {
            "jti": secrets.token_hex(16),
            **claims,
            "iss": self._issuer,
            "sub": subject,
            "aud": f"{self._issuer}/{purpose}",
            "iat": now,
            "exp": now + lifetime,
        }
        return jwt.encode(whole, self._secret, _OWN_ALGORITHM, {"typ": f"wharf-{purpose}+jwt"})

    def read(self, purpose: str, token: str, expired_too: bool = False) -> Optional[Dict[str, Any]]:
        """Return the claims of a token that a service of this cluster made for this purpose; None if it is none, or has expired."""
        try:
            header = jwt.get_unverified_header(token)
            if header.get("typ") != f"wharf-{purpose}+jwt" or "crit" in header:
                return None
            claims: Dict[str, Any] = jwt.decode(
                token,
                self._secret,
                algorithms=[_OWN_ALGORITHM],
                audience=f"{self._issuer}/{purpose}",
                issuer=self._issuer,
                options={"require": ["exp", "iat", "sub", "aud", "iss", "jti"], "verify_exp": not expired_too, "verify_iat": False},
            )
            # The clock of the node that made it may be ahead.
            if int(claims["iat"]) > time.time() + LEEWAY:
                return None
        except (jwt.PyJWTError, KeyError, TypeError, ValueError):
            return None
        return claims


def _raw(public_key: Any) -> bytes:
    return bytes(public_key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))


def _fingerprint(digest: str) -> str:
    return hashlib.sha256(b"wharf refresh\0" + digest.encode("ascii")).hexdigest()[:32]
