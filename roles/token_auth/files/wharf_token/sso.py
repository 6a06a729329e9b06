# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Signing in with an identity provider: OpenID Connect's authorization code with PKCE, state and nonce.

What a sign-in began with is in a signed cookie of ten minutes, so it may end at another node. The provider is asked while people sign in and
at no other time: without it those who have tokens go on.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import re
import secrets
import ssl
import time
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Tuple
from urllib.parse import quote, urlencode, urlsplit

import jwt
from aiohttp import ClientError, ClientSession, ClientTimeout
from wharf._access.ci import Issuer
from wharf._access.sso import Sso

from .config import Config
from .jobs import Keys, tls
from .tokens import LEEWAY

LOGIN = "__Host-wharf-login"
PURPOSE = "login"
LOGIN_SECONDS = 600
CALLBACK = "/auth/callback"
# For so long the provider is taken to be still there: who signs in hears from us when it is not, and nobody can have us ask it all the time.
_FRESH_SECONDS = 5.0
_ASK_SECONDS = 10.0
_LARGEST = 1024 * 1024
# Failed Dependency (RFC 4918): the edge has words of its own for 502 and 503, in the place of ours.
_UPSTREAM = 424
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,127}\Z")
_LOCAL = ("localhost", "127.0.0.1")


class NotSignedIn(Exception):
    """Nobody is signed in. ``shown`` is what the person reads; the text is for the log and may name the provider's own words."""

    def __init__(self, why: str, shown: str = "The sign-in did not work. Try again.", status: int = 400) -> None:
        super().__init__(why)
        self.shown = shown
        self.status = status


class Identity(NamedTuple):
    """Who somebody is, as the provider says it."""

    name: str
    account: Dict[str, Any]


class Provider:
    """The identity provider, as far as this node knows it."""

    def __init__(self) -> None:
        self._of: Tuple[str, str] = ("", "")
        self._document: Dict[str, Any] = {}
        self._until = 0.0
        self._keys: Optional[Keys] = None

    async def begin(self, config: Config) -> Tuple[str, str]:
        """Return where to send somebody who wants to sign in, and the value of the cookie that he takes along. Raises NotSignedIn."""
        sso = _of(config)
        document = await self._discover(config, sso)
        began = {name: secrets.token_urlsafe(32) for name in ("state", "nonce", "verifier")}
        challenge = base64.urlsafe_b64encode(hashlib.sha256(began["verifier"].encode("ascii")).digest()).rstrip(b"=").decode("ascii")
        query = {
            "response_type": "code",
            "client_id": sso.client_id,
            "redirect_uri": config.settings["url"] + CALLBACK,
            "scope": " ".join(sso.scopes),
            "state": began["state"],
            "nonce": began["nonce"],
            "code_challenge": challenge,
            "code_challenge_method": "S256",
        }
        address = document["authorization_endpoint"]
        cookie = config.own_tokens.make(PURPOSE, "somebody", LOGIN_SECONDS, began)
        return f"{address}{'&' if '?' in address else '?'}{urlencode(query)}", cookie

    async def finish(self, config: Config, query: Mapping[str, str], cookie: str) -> Identity:
        """Return who has come back from the provider. Raises NotSignedIn."""
        sso = _of(config)
        began = config.own_tokens.read(PURPOSE, cookie)
        if began is None or not hmac.compare_digest(str(began.get("state", "")).encode(), query.get("state", "").encode()):
            raise NotSignedIn("state: the answer is not to a sign-in that began in this browser, or that took too long")
        # RFC 9207: another provider's answer, mixed in.
        if query.get("iss", sso.issuer) != sso.issuer:
            raise NotSignedIn("iss: the answer is another provider's")
        if "error" in query or not query.get("code"):
            raise NotSignedIn(f"the provider says {query.get('error', 'nothing')[:64]}", "The identity provider did not sign you in.")
        document = await self._discover(config, sso)
        form = {
            "grant_type": "authorization_code",
            "code": query["code"],
            "redirect_uri": config.settings["url"] + CALLBACK,
            "code_verifier": str(began["verifier"]),
        }
        credentials = f"{quote(sso.client_id, safe='')}:{quote(sso.client_secret, safe='')}"
        headers = {"Authorization": "Basic " + base64.b64encode(credentials.encode()).decode("ascii")}
        answer = await _ask(config.sso_ca, "POST", document["token_endpoint"], headers, form)
        claims = await self._claims(sso, str(answer.get("id_token", "")), str(began["nonce"]))
        return _identity(sso, claims)

    async def _discover(self, config: Config, sso: Sso) -> Dict[str, Any]:
        """Return what the provider says about itself, as of a few seconds ago."""
        of = (sso.issuer, config.sso_ca)
        if of == self._of and time.monotonic() < self._until:
            return self._document
        document = await _ask(config.sso_ca, "GET", sso.issuer.rstrip("/") + "/.well-known/openid-configuration", {})
        if document.get("issuer") != sso.issuer:
            raise NotSignedIn(f"discovery: the issuer calls itself {str(document.get('issuer'))[:200]}", status=_UPSTREAM)
        for name in ("authorization_endpoint", "token_endpoint", "jwks_uri"):
            parts = urlsplit(str(document.get(name, "")))
            if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in _LOCAL):
                raise NotSignedIn(f"discovery: {name} is no https address", status=_UPSTREAM)
        if of != self._of or self._keys is None or document["jwks_uri"] != self._document.get("jwks_uri"):
            place = Issuer("the identity provider", sso.issuer, sso.client_id, (), jwks_url=document["jwks_uri"], ca=config.sso_ca)
            self._keys = Keys(place)
        self._of, self._document, self._until = of, document, time.monotonic() + _FRESH_SECONDS
        return document

    async def _claims(self, sso: Sso, token: str, nonce: str) -> Dict[str, Any]:
        """Return the claims of an ID token after everything about it was checked."""
        try:
            header = jwt.get_unverified_header(token)
        except (jwt.PyJWTError, ValueError, TypeError):
            raise NotSignedIn("the provider's answer has no ID token", status=_UPSTREAM) from None
        assert self._keys is not None  # noqa: S101
        self._keys.keep_fresh()
        key = await self._keys.find(str(header.get("kid", "")))
        if key is None or "crit" in header:
            raise NotSignedIn("the ID token is signed with no key of the provider for RS256 or ES256", status=_UPSTREAM)
        public, algorithm = key
        try:
            claims: Dict[str, Any] = jwt.decode(
                token,
                public,
                algorithms=[algorithm],
                audience=sso.client_id,
                issuer=sso.issuer,
                leeway=LEEWAY,
                options={"require": ["exp", "iat", "iss", "aud", "sub", "nonce"]},
            )
        except jwt.PyJWTError as error:
            raise NotSignedIn(f"the ID token is not good: {error}", status=_UPSTREAM) from None
        if not hmac.compare_digest(str(claims["nonce"]).encode(), nonce.encode()):
            raise NotSignedIn("nonce: the ID token is of another sign-in")
        audience = claims["aud"]
        if claims.get("azp", sso.client_id) != sso.client_id or (isinstance(audience, list) and len(audience) > 1 and "azp" not in claims):
            raise NotSignedIn("azp: the ID token was made for another client", status=_UPSTREAM)
        return claims


def _of(config: Config) -> Sso:
    if config.sso is None:
        raise NotSignedIn("no identity provider is set", "There is no single sign-on here.", 404)
    return config.sso


def _identity(sso: Sso, claims: Mapping[str, Any]) -> Identity:
    name = claims.get(sso.name_claim)
    if not isinstance(name, str) or not _NAME.match(name):
        raise NotSignedIn(f"the claim {sso.name_claim} is no name for an account", "Your account has no name that can be used here.", 403)
    groups = claims.get(sso.groups_claim, [])
    if not isinstance(groups, list):
        groups = [groups]
    claimed: List[str] = [group for group in groups if isinstance(group, str)]
    account = {"groups": claimed, "seen": int(time.time()), "issuer": sso.issuer, "sub": str(claims["sub"])}
    return Identity(name, account)


async def _ask(ca: str, method: str, url: str, headers: Mapping[str, str], form: Optional[Mapping[str, str]] = None) -> Dict[str, Any]:
    """Return what the provider answers, a JSON object; it is the same provider whatever its answer says."""
    silent = "The identity provider does not answer. Tokens that you have go on working."
    try:
        context = await asyncio.get_running_loop().run_in_executor(None, tls, ca)
        async with ClientSession(timeout=ClientTimeout(total=_ASK_SECONDS)) as session:
            options: Dict[str, Any] = {"headers": {**headers, "Accept": "application/json"}, "ssl": context, "allow_redirects": False}
            async with session.request(method, url, data=form, **options) as answer:
                body = b""
                async for part in answer.content.iter_chunked(16 * 1024):
                    body += part
                    if len(body) > _LARGEST:
                        raise ValueError("answers without end")
                found = json.loads(body) if body[:1] == b"{" else None
                if answer.status != 200 or not isinstance(found, dict):
                    error = f" ({str(found.get('error'))[:64]})" if isinstance(found, dict) else ""
                    raise NotSignedIn(f"{url} answers {answer.status}{error}", "The identity provider did not sign you in.", _UPSTREAM)
                return found
    except (ClientError, asyncio.TimeoutError, OSError, ssl.SSLError, ValueError, RecursionError) as error:
        raise NotSignedIn(f"{url}: {error or type(error).__name__}", silent, _UPSTREAM) from None
