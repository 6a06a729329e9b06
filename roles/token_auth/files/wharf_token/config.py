# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The directory that holds the service's configuration.

=============== ========================================================================================================
``config.json``  names, times, limits, the access model and the robots; see ``_KEYS``
``htpasswd``     accounts and their bcrypt hashes; the second secret of an account is under its name with ``+next``
``signer.key``   the key that signs
``signer.crt``   its certificate, and the chain up to a trusted one
``trusted.crt``  the certificates that the registries trust: more than one while the key is changed
``own.secret``   what the services sign the tokens with that only they read: personal tokens, those of ``docker login``, sessions
``ca.crt``       who signs the certificates of the other nodes' edges; needed where there are other nodes
``sso.secret``   the secret with which this service is known to the identity provider; needed with ``sso``
``sso-ca.crt``   who signs the identity provider's certificate, if the system does not trust it anyway
=============== ========================================================================================================

All of it is read together and judged as a whole. What is wrong is told, and the service goes on with what it had.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple

from wharf._access import check as access_check
from wharf._access import sso as access_sso
from wharf._access.model import PROBE, ROBOT_PREFIX, Access, build

from .jobs import check_issuer, tls
from .passwords import highest_cost
from .tokens import BadKey, OwnTokens, Signer

FILES = ("config.json", "htpasswd", "signer.key", "signer.crt", "trusted.crt", "own.secret")
OPTIONAL = ("ca.crt", "sso.secret", "sso-ca.crt")
NEXT = "+next"
_HASH = re.compile(r"\$2[aby]\$(?:0[4-9]|1[0-9])\$[./A-Za-z0-9]{53}\Z")
_URL = re.compile(r"https://[A-Za-z0-9.:\[\]-]+\Z")
_PEER = re.compile(r"[A-Za-z0-9.:\[\]_-]+:\d+\Z")
_LOOPBACK = re.compile(r"(?:127\.\d+\.\d+\.\d+|\[::1\]):\d+\Z")
#: Keys of config.json with what each is when it is left out. None: it must be there.
_KEYS: Dict[str, Any] = {
    "service": None,
    "issuer": None,
    "listen": "127.0.0.1:5004",
    "lifetime": 300,
    "refresh_lifetime": 90 * 86400,
    "cache_seconds": 300,
    "address_failures": 10,
    "account_failures": 20,
    "failure_window": 60,
    "audit_log": "",
    "registry": "http://127.0.0.1:5000",
    "state": "",
    "access": {},
    "robots": [],
    # The page for people, and their personal tokens: where it is, how long a token lasts at most, and the file of what all nodes know.
    "url": "",
    "personal_days": 365,
    "personal_state": "",
    # The edges of the other nodes, as address:port, and the name in their certificates.
    "peers": [],
    "peer_name": "",
    "sso": {},
}


class ConfigError(ValueError):
    """The configuration cannot be used; the text says what is wrong, and shows no secret."""


@dataclass(frozen=True)
class Config:
    """Everything that the service goes by, at one moment."""

    settings: Dict[str, Any]
    access: Access
    #: By the name to sign in with: one hash, or two while a secret is changed.
    hashes: Dict[str, List[str]]
    cost: int
    signer: Signer
    own_tokens: OwnTokens
    #: The identity provider, if people sign in with one.
    sso: Optional[access_sso.Sso]
    #: Who signs its certificate, in PEM; empty: somebody whom the system trusts.
    sso_ca: str

    @property
    def service(self) -> str:
        """What the registries call themselves."""
        return str(self.settings["service"])


def signature(directory: Path) -> Tuple[Any, ...]:
    """Return what differs when a file of the directory was replaced."""
    found = []
    for name in FILES + OPTIONAL:
        try:
            status = os.stat(directory / name)
            found.append((status.st_mtime_ns, status.st_ino, status.st_size))
        except OSError:
            found.append((0, 0, 0))
    return tuple(found)


def load(directory: Path) -> Config:
    """Read and judge the whole directory.

    Raises:
        ConfigError: if anything is wrong with it.
    """
    try:
        content = {name: (directory / name).read_bytes() for name in FILES}
    except OSError as error:
        raise ConfigError(f"{error.filename}: {error.strerror}") from None
    settings = _settings(content["config.json"])
    hashes = _hashes(content["htpasswd"])
    users = sorted(name for name in hashes if name != PROBE and not name.startswith(ROBOT_PREFIX) and not name.endswith(NEXT))
    provider = _provider(directory, settings)
    outside = access_sso.groups_from_outside(provider)
    problems = access_check.find_problems(settings["access"], users, settings["robots"], outside=outside)
    problems += access_sso.find_problems(provider, settings["access"])
    if problems:
        raise ConfigError("config.json: " + "; ".join(problems))
    access = build(settings["access"], users, settings["robots"])
    for issuer in access.issuers.values():
        try:
            check_issuer(issuer)
        except ValueError as error:
            raise ConfigError(f"config.json: access.{error}") from None
    try:
        signer = Signer(
            content["signer.key"],
            content["signer.crt"],
            content["trusted.crt"],
            str(settings["issuer"]),
            settings["lifetime"],
        )
    except BadKey as error:
        raise ConfigError(f"signer.key, signer.crt, trusted.crt: {error}") from None
    try:
        own_tokens = OwnTokens(content["own.secret"], str(settings["issuer"]), settings["refresh_lifetime"])
    except BadKey as error:
        raise ConfigError(f"own.secret: {error}") from None
    accounts = {
        name: [hashes[key] for key in (name, name + NEXT) if key in hashes]
        for name in hashes
        if not name.endswith(NEXT) and access.knows(name)
    }
    return Config(
        settings,
        access,
        accounts,
        highest_cost(hashes),
        signer,
        own_tokens,
        access_sso.build(provider) if provider else None,
        _authority(directory),
    )


def _provider(directory: Path, settings: Dict[str, Any]) -> Dict[str, Any]:
    """Return what is set about the identity provider, with its secret."""
    if not settings["sso"]:
        return {}
    if not isinstance(settings["sso"], dict):
        raise ConfigError("config.json: sso: is no mapping")
    try:
        return {**settings["sso"], "client_secret": (directory / "sso.secret").read_text(encoding="utf-8").strip()}
    except OSError as error:
        raise ConfigError(f"{error.filename}: {error.strerror}") from None


def _authority(directory: Path) -> str:
    try:
        text = (directory / "sso-ca.crt").read_text(encoding="ascii").strip()
        tls(text)
    except FileNotFoundError:
        return ""
    except (OSError, ValueError) as error:
        raise ConfigError(f"sso-ca.crt: {error}") from None
    return text


def _settings(content: bytes) -> Dict[str, Any]:
    try:
        given = json.loads(content.decode("utf-8"))
    except ValueError as error:
        raise ConfigError(f"config.json: is no JSON: {error}") from None
    if not isinstance(given, dict):
        raise ConfigError("config.json: is no JSON object")
    unknown = sorted(set(given) - set(_KEYS))
    if unknown:
        raise ConfigError(f"config.json: unknown key {', '.join(unknown)}; known are {', '.join(_KEYS)}")
    settings = {**_KEYS, **given}
    for key, default in _KEYS.items():
        value = settings[key]
        if default is None and (not isinstance(value, str) or not value):
            raise ConfigError(f"config.json: {key} is missing")
        if isinstance(default, int) and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
            raise ConfigError(f"config.json: {key}: {value!r} is no number from 1 on")
    if not 60 <= settings["lifetime"] <= 3600:
        raise ConfigError("config.json: lifetime: clients take at least 60 seconds for granted, and more than an hour is no short life")
    if not _LOOPBACK.match(str(settings["listen"])):
        raise ConfigError(f"config.json: listen: {settings['listen']} is no address on loopback; an example: 127.0.0.1:5004")
    if settings["url"] and not _URL.match(str(settings["url"])):
        raise ConfigError(f"config.json: url: {settings['url']} is no address of a registry; an example: https://registry.example.com")
    if settings["sso"] and not settings["url"]:
        raise ConfigError("config.json: url: is missing; the identity provider sends people back there")
    if not isinstance(settings["peers"], list) or not all(isinstance(peer, str) and _PEER.match(peer) for peer in settings["peers"]):
        raise ConfigError("config.json: peers: is no list of addresses with ports; an example: [192.0.2.2:5443]")
    if settings["peers"] and not settings["peer_name"]:
        raise ConfigError("config.json: peer_name: is missing; the certificates of the other nodes have it")
    return settings


def _hashes(content: bytes) -> Dict[str, str]:
    hashes = {}
    for number, line in enumerate(content.decode("utf-8", "replace").splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        name, _colon, digest = line.strip().partition(":")
        if not name or not _HASH.match(digest):
            raise ConfigError(f"htpasswd: line {number} is not a name and a bcrypt hash")
        hashes[name] = digest
    return hashes
