# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The version gate: which releases of CNCF distribution are accepted, and in which combinations.

Private to the collection. Pure functions without input or output.

Sources: the release notes of distribution (``releases/*.toml``) and its published advisories.
The gate refuses what loses or leaks data:

* a release before 2.8.2 or a 3.x before 3.1.2, because of holes that a later release closed;
* 2.8 with Redis (CVE-2026-35172: a deleted blob becomes readable again; no 2.8 release closes it);
* 2.8 as a pull-through cache (CVE-2026-33540: the upstream's credentials go to whom the upstream names);
* an in-memory cache on several nodes: what one node deletes, the others still serve.
"""

from __future__ import annotations

import re
from typing import NamedTuple

_VERSION = re.compile(r"^v?(?P<major>\d+)\.(?P<minor>\d+)(?:\.(?P<patch>\d+))?(?:-(?P<kind>alpha|beta|rc)\.(?P<number>\d+))?$")
_KINDS = {"alpha": 0, "beta": 1, "rc": 2, None: 3}

#: The release that is deployed when nothing else is asked for.
DEFAULT_VERSION = "3.1.2"

#: The oldest accepted release of each generation.
_OLDEST = {2: ("2.8.2", (2, 8, 2)), 3: ("3.1.2", (3, 1, 2))}

#: (first fixed release, what an older one of generation 3 does wrong), newest first: the first that applies is told.
_HOLES_OF_3: tuple[tuple[tuple[int, int, int], str], ...] = (
    (
        (3, 1, 0),
        (
            "lets deleted blobs be read again through Redis (CVE-2026-35172), hands upstream credentials to strangers "
            "(CVE-2026-33540) and deletes tags although deletion is off (CVE-2026-41888)"
        ),
    ),
    ((3, 1, 1), "deletes tags although deletion is off (CVE-2026-41888)"),
    (
        (3, 1, 2),
        (
            "does not verify digests of what it fetches (CVE-2026-85747), carries a vulnerable x/crypto (CVE-2026-46595) "
            "and leaves tags and repositories out of its lists on S3"
        ),
    ),
)


class Version(NamedTuple):
    """A release of distribution. ``pre`` orders pre-releases: alpha < beta < rc < release."""

    major: int
    minor: int
    patch: int
    pre: tuple[int, int]

    @property
    def generation(self) -> int:
        """2 for the 2.x configuration format, 3 for that of 3.x."""
        return self.major

    @property
    def release(self) -> tuple[int, int, int]:
        """Major, minor and patch number."""
        return (self.major, self.minor, self.patch)

    @property
    def is_prerelease(self) -> bool:
        """Whether this is an alpha, beta or release candidate."""
        return self.pre[0] != _KINDS[None]


def parse_version(text: str) -> Version:
    """Return the version that ``text`` (``3.1.2``, ``v3.1.2``, ``3.0.0-rc.2``) names.

    Raises:
        ValueError: if it is no complete version number; the message says what one looks like.
    """
    match = _VERSION.match(str(text).strip())
    if match is None or match.group("patch") is None:
        raise ValueError(f"{str(text)!r} is no complete version number such as {DEFAULT_VERSION}")
    kind = match.group("kind")
    return Version(
        int(match.group("major")),
        int(match.group("minor")),
        int(match.group("patch")),
        (_KINDS[kind], int(match.group("number") or 0)),
    )


def generation_of(text: str) -> int:
    """Return 2 or 3: which configuration format the release ``text`` reads.

    Raises:
        ValueError: if it is no version number, or one of another generation.
    """
    version = parse_version(text)
    if version.generation not in _OLDEST:
        raise ValueError(f"distribution {text} is not known to this collection; 2.8.x and 3.x are")
    return version.generation


def check_version(version: str, *, redis: bool, nodes: int, proxy: bool = False, cache: str = "") -> list[dict[str, str]]:
    """Return why this release must not be deployed like this; nothing if it may.

    Args:
        version: the release, for example ``3.1.2``.
        redis: whether a Redis is configured for it.
        nodes: how many nodes serve the same storage.
        proxy: whether it is a pull-through cache (``proxy.remoteurl`` is set).
        cache: ``storage.cache.blobdescriptor``: ``redis``, ``inmemory`` or empty for none.

    Returns:
        A list of findings with the keys ``variable``, ``value``, ``problem`` and ``example``, all strings.
    """
    findings: list[dict[str, str]] = []

    def refuse(variable: str, value: object, problem: str, example: str) -> None:
        findings.append({"variable": variable, "value": str(value), "problem": problem, "example": example})

    name, good = "registry_version", f"registry_version: {DEFAULT_VERSION}"
    try:
        parsed: Version | None = parse_version(version)
    except ValueError as error:
        refuse(name, version, str(error), good)
        return findings
    if parsed is None or parsed.generation not in _OLDEST:
        refuse(name, version, f"distribution {version} is not known to this collection; 2.8.x and 3.x are", good)
        return findings

    oldest, oldest_release = _OLDEST[parsed.generation]
    if parsed.is_prerelease:
        refuse(name, version, "is a pre-release; only releases are deployed", good)
    elif parsed.generation == 2 and (parsed.major, parsed.minor) != (2, 8):
        refuse(name, version, "of generation 2 only 2.8.x is supported", good)
    elif parsed.release < oldest_release:
        if parsed.generation == 2:
            problem = f"can be made to use up all memory through the catalog (CVE-2023-2253); {oldest} is the first that cannot"
        else:
            problem = next(text for fixed, text in _HOLES_OF_3 if parsed.release < fixed)
            problem += f"; {oldest} is the first without these holes"
        refuse(name, version, problem, good)

    if parsed.generation == 2:
        if redis or cache == "redis":
            refuse(
                "registry_redis",
                f"set, with registry_version {version}",
                "2.8 with Redis serves blobs again that were deleted (CVE-2026-35172), and no release of 2.8 closes that",
                f"registry_redis: {{}}  (no cache), or {good}",
            )
        if proxy:
            refuse(
                "registry_extra_config.proxy",
                f"set, with registry_version {version}",
                "2.8 as a pull-through cache sends the upstream's credentials to any realm that the upstream names"
                " (CVE-2026-33540), and no release of 2.8 closes that",
                good,
            )
    if cache == "inmemory" and nodes > 1:
        refuse(
            "registry_extra_config.storage.cache.blobdescriptor",
            f"inmemory, on {nodes} nodes",
            "each node would remember for itself: what is deleted through one node is still served by the others",
            'registry_redis: {addr: "redis1:6379", password: …}  (3.x), or no cache',
        )
    return findings
