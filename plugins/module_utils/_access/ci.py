# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Jobs of CI systems in the access model: whom a job's token means, and what is wrong with that part of a model. Private to the collection.

A job brings a token that its CI system has signed. What the token says of the job, its claims, is compared with the patterns of the model;
what matches is a member, ``job:NAME``, like a user or a robot.
"""

from __future__ import annotations

import difflib
import json
import re
from dataclasses import dataclass
from typing import Any, Dict, FrozenSet, Iterable, Iterator, List, Mapping, Set, Tuple

from .._globs import Glob

#: The name that jobs sign in with; their token is the password.
LOGIN = "ci-job"
MEMBER_PREFIX = "job:"

_WORD = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}\Z")
_CLAIM = re.compile(r"[A-Za-z0-9_./:-]{1,128}\Z")
_HTTPS = re.compile(r"https://[A-Za-z0-9.-]+(?::\d+)?(?:/[^\s?#]*)?\Z|https://\[[0-9a-fA-F:]+\](?::\d+)?(?:/[^\s?#]*)?\Z")
_LITERAL = re.compile(r"[^*?\[{]*")
_CERTIFICATE = "-----BEGIN CERTIFICATE-----"
_KEYS = ("audience", "ca", "issuer", "jobs", "jwks", "jwks_url")
_PRIVATE = ("d", "p", "q", "k")
#: Claims of every token, which say nothing about the job.
_COMMON = ("iss", "aud", "exp", "iat", "nbf", "jti")
#: Issuers that sign tokens for everybody in the world, and the claims that say whose job it is: with what their value begins up to and with
#: the owner's name, or None where nothing but the whole value will do.
_PUBLIC: Dict[str, Dict[str, Any]] = {
    "https://token.actions.githubusercontent.com": {
        "repository": r"[^/]+/",
        "sub": r"repo:[^/:]+/",
        "repository_id": None,
        "repository_owner": None,
        "repository_owner_id": None,
    },
    "https://gitlab.com": {
        "project_path": r"[^/]+/",
        "sub": r"project_path:[^/:]+/",
        "namespace_path": None,
        "namespace_id": None,
        "project_id": None,
    },
}

EXAMPLE = (
    "{ci: {gitlab: {issuer: https://gitlab.example.com, audience: registry.example.com,"
    " jwks_url: https://gitlab.example.com/oauth/discovery/keys, jobs: {shop-main: {project_path: shop/web, ref: main}}}}}"
)


@dataclass(frozen=True)
class Job:
    """Jobs whose tokens have claims of these patterns: each claim has one of its patterns."""

    name: str
    claims: Tuple[Tuple[str, Tuple[Glob, ...]], ...]

    def matches(self, claims: Mapping[str, Any]) -> bool:
        """Return whether a token with these claims is one of this job."""
        return all(
            any(pattern.matches(text) for pattern in patterns for text in _texts(claims.get(name))) for name, patterns in self.claims
        )

    def __str__(self) -> str:
        return ", ".join(f"{name} is {' or '.join(pattern.text for pattern in patterns)}" for name, patterns in self.claims)


@dataclass(frozen=True)
class Issuer:
    """A CI system, its public keys or where they are, and its jobs."""

    name: str
    url: str
    audience: str
    jobs: Tuple[Job, ...]
    jwks_url: str = ""
    #: A JWKS as JSON, where the nodes fetch none.
    jwks: str = ""
    #: PEM; empty: the authorities that the host trusts.
    ca: str = ""

    def jobs_of(self, claims: Mapping[str, Any]) -> FrozenSet[str]:
        """Return the names of all jobs that a token with these claims is of."""
        return frozenset(job.name for job in self.jobs if job.matches(claims))


def _texts(value: Any) -> List[str]:
    """Return the texts that a claim's value is compared by: those of a list each, true and false as JSON writes them, of other things none."""
    if isinstance(value, list):
        return [text for part in value if not isinstance(part, list) for text in _texts(part)]
    if isinstance(value, bool):
        return ["true" if value else "false"]
    return [str(value)] if isinstance(value, (str, int)) else []


def build(section: Mapping[str, Any]) -> Dict[str, Issuer]:
    """Return the issuers by the ``iss`` of their tokens, of a section in which :func:`find_problems` finds nothing."""
    found = {}
    for name, given in section.items():
        jobs = [
            Job(
                job,
                tuple(
                    (claim, tuple(Glob(text) for value in _listed(values) for text in _texts(value))) for claim, values in claims.items()
                ),
            )
            for job, claims in given["jobs"].items()
        ]
        jwks = json.dumps(given["jwks"], sort_keys=True) if given.get("jwks") else ""
        found[str(given["issuer"])] = Issuer(
            name, given["issuer"], given["audience"], tuple(jobs), given.get("jwks_url") or "", jwks, given.get("ca") or ""
        )
    return found


def members(section: Any) -> List[str]:
    """Return the words that mean jobs in lists of members, of any section."""
    issuers = [issuer for issuer in section.values() if isinstance(issuer, dict)] if isinstance(section, dict) else []
    return [MEMBER_PREFIX + str(name) for issuer in issuers if isinstance(issuer.get("jobs"), dict) for name in issuer["jobs"]]


def find_problems(section: Any, users: Iterable[str]) -> Iterator[str]:
    """Yield a sentence for everything that is wrong with the section ``ci`` by itself."""
    if not isinstance(section, dict):
        yield f"ci: is no mapping. Example: {EXAMPLE}"
        return
    if section and LOGIN in users:
        yield f"ci: the user {LOGIN} has the name that jobs sign in with; give the user another one"
    urls: Set[str] = set()
    jobs: Set[str] = set()
    for name, issuer in section.items():
        place = f"ci.{name}"
        if not _WORD.match(str(name)):
            yield f"{place}: is no name for an issuer; use small letters, digits, dots and hyphens. Example: gitlab"
        if not isinstance(issuer, dict):
            yield f"{place}: is no mapping. Example: {EXAMPLE}"
            continue
        for key in sorted(set(issuer) - set(_KEYS), key=str):
            near = difflib.get_close_matches(str(key), _KEYS, 1, 0.6)
            yield f"{place}.{key}: is no key of an issuer{f'; did you mean {near[0]}?' if near else ''}"
        yield from _issuer_problems(place, issuer)
        if str(issuer.get("issuer")) in urls:
            yield f"{place}.issuer: {issuer['issuer']} is there twice; its jobs belong together"
        urls.add(str(issuer.get("issuer")))
        named = issuer.get("jobs")
        for job in named if isinstance(named, dict) else ():
            if job in jobs:
                yield f"{place}.jobs.{job}: another issuer has a job of this name; choose another one"
            jobs.add(job)


def _issuer_problems(place: str, issuer: Mapping[str, Any]) -> Iterator[str]:
    url = issuer.get("issuer")
    if not isinstance(url, str) or not re.match(r"https?://[^\s?#]+\Z", url):
        yield f"{place}.issuer: is the iss of its tokens, a URL. Example: https://gitlab.example.com"
        url = ""
    audience = issuer.get("audience")
    if not isinstance(audience, str) or not audience.strip():
        yield (
            f"{place}.audience: is missing. Tokens that jobs ask for to show them to others would be good here, too; ask for tokens with an"
            " audience of this registry's own. Example: registry.example.com"
        )
    elif audience == url:
        yield f"{place}.audience: is the issuer itself; ask for tokens with an audience of this registry's own. Example: registry.example.com"
    if bool(issuer.get("jwks_url")) == bool(issuer.get("jwks")):
        yield f"{place}: has exactly one of jwks_url (the nodes fetch the keys) and jwks (the keys themselves). Example: {EXAMPLE}"
    elif issuer.get("jwks_url"):
        if not _HTTPS.match(str(issuer["jwks_url"])):
            yield f"{place}.jwks_url: {issuer['jwks_url']} is no URL that begins with https://. Example: https://gitlab.example.com/oauth/discovery/keys"
    else:
        yield from _jwks_problems(f"{place}.jwks", issuer["jwks"])
    if issuer.get("ca"):
        if _CERTIFICATE not in str(issuer["ca"]):
            yield f"{place}.ca: is no certificate in PEM. Example: ca: \"{{{{ lookup('ansible.builtin.file', 'gitlab-ca.crt') }}}}\""
        if not issuer.get("jwks_url"):
            yield f"{place}.ca: nothing is fetched; leave it out"
    jobs = issuer.get("jobs")
    if not isinstance(jobs, dict) or not jobs:
        yield f"{place}.jobs: is missing, or no mapping; without jobs nobody is let in. Example: {EXAMPLE}"
        return
    for name, claims in jobs.items():
        yield from _job_problems(f"{place}.jobs.{name}", str(name), claims, url)


def _jwks_problems(place: str, jwks: Any) -> Iterator[str]:
    keys = jwks.get("keys") if isinstance(jwks, dict) else None
    if not isinstance(keys, list) or not keys or not all(isinstance(key, dict) for key in keys):
        yield f"{place}: is no JWKS, a mapping with a list of keys; it is what the issuer serves at its jwks_uri"
        return
    for number, key in enumerate(keys):
        if any(part in key for part in _PRIVATE):
            yield f"{place}.keys[{number}]: has a private or secret part. Only public keys belong here; the issuer should make a new key"
        elif not key.get("kid"):
            yield f"{place}.keys[{number}]: has no kid, by which tokens name their key"
    if not any(key.get("kty") in ("RSA", "EC") for key in keys):
        yield f"{place}: has no key for RS256 or ES256"


def _job_problems(place: str, name: str, claims: Any, url: str) -> Iterator[str]:
    example = "Example: {project_path: shop/web, ref: main}"
    if not _WORD.match(name):
        yield f"{place}: is no name for a job; use small letters, digits, dots and hyphens. Example: shop-main"
    if not isinstance(claims, dict) or not claims:
        yield f"{place}: lists no claims, so every token of the issuer would do. {example}"
        return
    sound: Dict[str, List[str]] = {}
    for claim, values in claims.items():
        texts = [text for value in _listed(values) for text in _texts(value)]
        if not _CLAIM.match(str(claim)) or not texts or "" in texts or len(texts) != len(_listed(values)):
            yield f"{place}.{claim}: is no pattern, and no list of patterns. {example}"
            continue
        try:
            for text in texts:
                Glob(text)
        except ValueError as error:
            yield f"{place}.{claim}: {error}"
            continue
        if claim in _COMMON:
            yield f"{place}.{claim}: is checked for every token; name claims that say which job it is. {example}"
            continue
        sound[str(claim)] = texts
    if len(sound) < len(claims):
        return
    if not any(all(_LITERAL.match(text).group() for text in texts) for texts in sound.values()):  # type: ignore[union-attr]
        yield f"{place}: matches every token of the issuer, or almost: one claim at least begins with letters. {example}"
    owners = next((owners for public, owners in _PUBLIC.items() if url == public or url.startswith(public + "/")), None)
    if owners is not None and not any(_pins(owners[claim], text) for claim in owners if claim in sound for text in [sound[claim]]):
        yield (
            f"{place}: {url} signs for everybody in the world, and no claim here says whose jobs these are. Name the owner in one of"
            f" {', '.join(sorted(owners))}, without wildcards before its end. Example:"
            f" {'{repository: acme/*}' if 'repository' in owners else '{project_path: acme/**}'}"
        )


def _pins(owner: Any, texts: List[str]) -> bool:
    """Return whether each pattern has the owner in that part of it which matches nothing but itself."""
    literal = [_LITERAL.match(text).group() for text in texts]  # type: ignore[union-attr]
    if owner is None:
        return literal == texts
    return all(re.match(owner, text) for text in literal)


def _listed(values: Any) -> List[Any]:
    return values if isinstance(values, list) else [values]
