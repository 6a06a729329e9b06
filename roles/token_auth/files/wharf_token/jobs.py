# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tokens of CI jobs: checked by their issuers' keys, which are fetched, kept, and fetched anew when a token names one that is not known.

Where keys are comes from the access model alone. Nothing in a token makes the service ask anybody: ``iss`` only selects one of the issuers
that the model names, and ``jku``, ``x5u``, ``jwk`` and ``x5c`` are not looked at.
"""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import ssl
import time
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Tuple

import jwt
from aiohttp import ClientError, ClientSession, ClientTimeout
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from wharf._access.ci import Issuer
from wharf._access.model import Subject

from .tokens import LEEWAY, BadKey, algorithm_of

LOG = logging.getLogger("wharf_token")
#: Tokens of GitHub and GitLab have some 2,000 characters.
LONGEST = 8192
LONGEST_SUBJECT = 255
#: Keys are fetched again when they are so old, and at most so often: a token may name any key.
FRESH_SECONDS = 3600.0
RETRY_SECONDS = 30.0
FETCH_SECONDS = 5.0
LARGEST = 256 * 1024
MOST_KEYS = 100
LARGEST_RSA = 8192

_Known = Dict[str, Tuple[Any, str]]


class NoJob(Exception):
    """A token is not let in. ``result`` is one of audit.RESULTS, ``account`` who it is for, if its signature is good; the text says why."""

    def __init__(self, why: str, result: str = "bad_credentials", account: str = "") -> None:
        super().__init__(why)
        self.result = result
        self.account = account


class State(NamedTuple):
    """How it stands with the keys of one issuer."""

    keys: int
    fetched: float
    failing: bool


class _Token(NamedTuple):
    """A token that has been taken apart, and not been checked."""

    text: str
    kid: str
    algorithm: str


def parse_jwks(content: Any) -> _Known:
    """Return the keys of a JWKS by their names: those for RS256 and ES256, others are left out.

    Raises:
        ValueError: if it is none, or has no such key.
    """
    keys = content.get("keys") if isinstance(content, dict) else None
    if not isinstance(keys, list) or len(keys) > MOST_KEYS:
        raise ValueError(f"is no JWKS with a list of at most {MOST_KEYS} keys")
    found: _Known = {}
    for key in keys:
        if isinstance(key, dict) and isinstance(key.get("kid"), str) and key.get("use", "sig") == "sig":
            try:
                public = _public_key(key)
                algorithm = algorithm_of(public)
            except (BadKey, ValueError, TypeError, KeyError, AttributeError):
                continue
            if key.get("alg", algorithm) == algorithm:
                found[key["kid"]] = (public, algorithm)
    if not found:
        raise ValueError("has no key with a kid for RS256 or ES256")
    return found


def _public_key(key: Mapping[str, Any]) -> Any:
    if key.get("kty") == "RSA":
        modulus = _number(key["n"])
        if modulus.bit_length() > LARGEST_RSA:
            raise BadKey("takes too long to check")
        return rsa.RSAPublicNumbers(_number(key["e"]), modulus).public_key()
    if key.get("kty") == "EC" and key.get("crv") == "P-256":
        return ec.EllipticCurvePublicNumbers(_number(key["x"]), _number(key["y"]), ec.SECP256R1()).public_key()
    raise BadKey("is neither RSA nor P-256")


def _number(text: str) -> int:
    return int.from_bytes(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)), "big")


def check_issuer(issuer: Issuer) -> None:
    """Raise ValueError for keys or certificates that the access model has, and nobody can use."""
    if issuer.jwks:
        try:
            parse_jwks(json.loads(issuer.jwks))
        except ValueError as error:
            raise ValueError(f"ci.{issuer.name}.jwks: {error}") from None
    if issuer.ca:
        try:
            ssl.create_default_context(cadata=issuer.ca)
        except (ssl.SSLError, ValueError):
            raise ValueError(f"ci.{issuer.name}.ca: holds a certificate that cannot be read") from None


class Keys:
    """The keys of one issuer. Those that are known go on working when the issuer does not answer; those that it no longer names, end."""

    def __init__(self, issuer: Issuer) -> None:
        self._issuer = issuer
        self._known: _Known = parse_jwks(json.loads(issuer.jwks)) if issuer.jwks else {}
        self._tried = 0.0
        self._fetching: Optional[asyncio.Task[None]] = None
        self._fetched = 0.0
        self._failing = False

    @property
    def state(self) -> State:
        """How it stands with them."""
        return State(len(self._known), self._fetched, self._failing)

    def get(self, kid: str) -> Optional[Tuple[Any, str]]:
        """Return a key that is known, and its algorithm."""
        return self._known.get(kid)

    def keep_fresh(self) -> None:
        """Fetch them in the background if it is time to."""
        wait = RETRY_SECONDS if self._failing or not self._known else FRESH_SECONDS
        if self._issuer.jwks_url and (not self._tried or time.monotonic() - self._tried >= wait):
            self._fetch()

    async def find(self, kid: str) -> Optional[Tuple[Any, str]]:
        """Return a key, which the issuer may have begun to use just now."""
        if kid not in self._known and self._issuer.jwks_url:
            if self._fetching is None and (not self._tried or time.monotonic() - self._tried >= RETRY_SECONDS):
                self._fetch()
            if self._fetching is not None:
                await asyncio.shield(self._fetching)
        return self._known.get(kid)

    def _fetch(self) -> None:
        if self._fetching is None:
            self._tried = time.monotonic()
            self._fetching = asyncio.get_running_loop().create_task(self._take())

    async def _take(self) -> None:
        try:
            content = await asyncio.wait_for(_download(self._issuer), FETCH_SECONDS)
            self._known = parse_jwks(json.loads(content))
            self._fetched = time.time()
            self._failing = False
        except (ClientError, asyncio.TimeoutError, OSError, ValueError, RecursionError) as error:
            if not self._failing:
                LOG.error(
                    "the keys of %s cannot be fetched, those that are known stay: %s", self._issuer.name, error or "no answer in time"
                )
            self._failing = True
        finally:
            self._fetching = None


async def _download(issuer: Issuer) -> bytes:
    """Return the JWKS as the issuer serves it: over TLS, from that very address, of a bounded size."""
    context = await asyncio.get_running_loop().run_in_executor(None, tls, issuer.ca)
    timeout = ClientTimeout(total=FETCH_SECONDS)
    options: Dict[str, Any] = {
        "headers": {"Accept": "application/json", "Accept-Encoding": "identity"},
        "ssl": context,
        "allow_redirects": False,
    }
    async with ClientSession(timeout=timeout, auto_decompress=False) as session, session.get(issuer.jwks_url, **options) as answer:
        if answer.status != 200:
            raise ValueError(f"{issuer.jwks_url} answers {answer.status}")
        content = b""
        async for part in answer.content.iter_chunked(16 * 1024):
            content += part
            if len(content) > LARGEST:
                raise ValueError(f"{issuer.jwks_url} answers with more than {LARGEST} bytes")
        return content


def tls(ca: str) -> ssl.SSLContext:
    """Return how others are spoken to, who are believed by these certificates in PEM, or by those that the host trusts."""
    context = ssl.create_default_context(cadata=ca or None)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


class Jobs:
    """Lets jobs in by their tokens."""

    def __init__(self) -> None:
        self._keys: Dict[Tuple[str, ...], Keys] = {}

    def keep_fresh(self, issuers: Mapping[str, Issuer]) -> None:
        """Fetch the keys of all issuers when it is time to, and forget those of issuers that the model no longer has."""
        kept = {_source(issuer): self._of(issuer) for issuer in issuers.values()}
        self._keys = kept
        for keys in kept.values():
            keys.keep_fresh()

    def states(self, issuers: Mapping[str, Issuer]) -> Dict[str, State]:
        """Return by the issuer's name how it stands with its keys."""
        return {issuer.name: self._of(issuer).state for issuer in issuers.values()}

    def _of(self, issuer: Issuer) -> Keys:
        source = _source(issuer)
        if source not in self._keys:
            self._keys[source] = Keys(issuer)
        return self._keys[source]

    def known(self, issuers: Mapping[str, Issuer], token: str) -> Optional[Subject]:
        """Return whose token this is, if it takes nobody's answer to say so. Raises NoJob."""
        parts, issuer = self._read(issuers, token)
        key = self._of(issuer).get(parts.kid)
        return self._checked(issuer, parts, key) if key else None

    async def ask(self, issuers: Mapping[str, Issuer], token: str) -> Subject:
        """Return whose token this is; its issuer may have to be asked for the key. Raises NoJob."""
        parts, issuer = self._read(issuers, token)
        key = await self._of(issuer).find(parts.kid)
        if key is None:
            raise NoJob(f"{issuer.name} has no key {parts.kid[:64]}, or cannot be asked")
        return self._checked(issuer, parts, key)

    def _read(self, issuers: Mapping[str, Issuer], token: str) -> Tuple[_Token, Issuer]:
        if len(token) > LONGEST:
            raise NoJob("the token is too long")
        try:
            header = jwt.get_unverified_header(token)
            claims = jwt.decode(token, options={"verify_signature": False})
        except (jwt.PyJWTError, ValueError, TypeError, RecursionError):
            raise NoJob("the password is no token") from None
        kid, algorithm, url = header.get("kid"), header.get("alg"), claims.get("iss")
        issuer = issuers.get(url) if isinstance(url, str) else None
        if issuer is None:
            raise NoJob("the token is of an issuer that the access model does not have")
        if not isinstance(kid, str) or not isinstance(algorithm, str) or "crit" in header:
            raise NoJob("the token's header names no key, or something that is not understood")
        return _Token(token, kid, algorithm), issuer

    def _checked(self, issuer: Issuer, token: _Token, key: Tuple[Any, str]) -> Subject:
        public, algorithm = key
        if token.algorithm != algorithm:
            raise NoJob("the token's algorithm is not that of its key")
        try:
            claims = jwt.decode(
                token.text,
                public,
                algorithms=[algorithm],
                audience=issuer.audience,
                issuer=issuer.url,
                leeway=LEEWAY,
                options={"require": ["exp", "iat", "iss", "aud", "sub"]},
            )
            issued = float(claims["iat"])
        except jwt.ExpiredSignatureError:
            raise NoJob("the token has expired", "expired") from None
        except jwt.InvalidAudienceError:
            raise NoJob(f"the token is not for the audience {issuer.audience}") from None
        except (jwt.PyJWTError, ValueError, TypeError, ArithmeticError, RecursionError) as error:
            raise NoJob(str(error) or "the token is not good") from None
        if issued > time.time() + LEEWAY:
            raise NoJob("the token is of the future")
        subject = claims["sub"]
        if not isinstance(subject, str) or not 0 < len(subject) <= LONGEST_SUBJECT:
            raise NoJob("the token's subject is no text, or too long")
        account = f"ci:{issuer.name}:{subject}"
        names = issuer.jobs_of(claims)
        if not names:
            raise NoJob("no job of the access model has the claims of this token", "no_job", account)
        return Subject(account, jobs=names)


def _source(issuer: Issuer) -> Tuple[str, ...]:
    """Return what makes keys those of an issuer: with its jobs changed they stay."""
    return (issuer.url, issuer.jwks_url, issuer.jwks, issuer.ca)


def job_words(subject: Subject) -> List[str]:
    """Return what metrics call a job: a name of the access model, of which there are few, not one of each branch."""
    return [f"job:{name}" for name in sorted(subject.jobs)]
