# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Personal access tokens: what people use as a password in ``docker login``.

They are signed, so every node can check them, and end with their account. A token narrows what its account may do, and never widens it.
"""

from __future__ import annotations

import re
import secrets
import time
from dataclasses import dataclass
from typing import Any, Dict, List, Mapping, Optional, Tuple

from wharf._access.ci import LOGIN
from wharf._access.model import ROBOT_PREFIX, ROLES, Subject
from wharf._globs import Glob

from .config import Config
from .revocations import Keeper

PURPOSE = "personal"
#: How a personal token begins: people and scanners know it by this, and nothing else that is used as a password begins so.
PREFIX = "wpt_"
MOST_TOKENS = 50
MOST_PATTERNS = 8
LONGEST_NAME = 60
#: What matches a name at all: a project and an image, each beginning with a letter, a digit or something that stands for one.
_PATTERN = re.compile(r"(?=.{3,255}\Z)[a-z0-9*?{\[][^/A-Z\s:@]*(?:/[a-z0-9*?{\[][^/A-Z\s:@]*)+\Z", re.ASCII)


class NotMade(ValueError):
    """The token is not made; the text says why, to the one who asked for it."""


@dataclass(frozen=True)
class Limit:
    """What a token allows at most."""

    role: str
    repositories: Tuple[str, ...] = ()

    def cut(self, kind: str, name: str, actions: List[str]) -> List[str]:
        """Return those of the granted actions that the token allows."""
        if kind != "repository":
            # The catalogue names all repositories, so it is for a token without limits.
            return actions if self.role == "maintainer" and not self.repositories else []
        if self.repositories and not any(Glob(pattern).matches(name) for pattern in self.repositories):
            return []
        return [action for action in actions if action in ROLES.get(self.role, ())]


@dataclass(frozen=True)
class Shown:
    """A token as its owner sees it."""

    identifier: str
    name: str
    limit: Limit
    created: int
    expires: int
    used: int


def parse_patterns(text: str) -> Tuple[str, ...]:
    """Return the patterns of repositories that somebody typed, with spaces between.

    Raises:
        NotMade: if one of them is no pattern.
    """
    patterns = tuple(dict.fromkeys(text.split()))
    if len(patterns) > MOST_PATTERNS:
        raise NotMade(f"At most {MOST_PATTERNS} patterns of repositories fit into a token.")
    for pattern in patterns:
        try:
            Glob(pattern)
        except ValueError as error:
            raise NotMade(f"Repositories: {pattern}: {error}. An example that works: shop/**") from None
        if not _PATTERN.match(pattern):
            raise NotMade(f"Repositories: {pattern} matches nothing; a name has a project and an image. An example that works: shop/**")
    return patterns


def is_free(config: Config, name: str) -> bool:
    """Return whether an account of an identity provider may have this name: it is nobody's here, and could not be."""
    return not (config.access.knows(name) or name.startswith(ROBOT_PREFIX) or name == LOGIN)


class Personal:
    """Makes tokens, takes them, lists and revokes them."""

    def __init__(self, keeper: Keeper) -> None:
        self._keeper = keeper

    # -- whose they are -------------------------------------------------------------------------------------------------------------

    def subject(self, config: Config, name: str, now: Optional[float] = None) -> Optional[Subject]:
        """Return who an account is today; None if it is gone.

        An account of our own is there as long as it is in the configuration. One of an identity provider is there while a group that the
        provider named gives it anything, nobody has blocked it, and its last sign-in is not too long ago.
        """
        if name in config.access.users:
            return Subject(name) if name in config.hashes else None
        account = self._keeper.state.accounts.get(name)
        if config.sso is None or account is None or account["issuer"] != config.sso.issuer or not is_free(config, name):
            return None
        now = time.time() if now is None else now
        groups = config.sso.groups_of(account["groups"])
        if not groups or name in config.sso.blocked or account["seen"] < now - config.sso.remember_seconds:
            return None
        return Subject(name, groups=groups)

    def arrive(self, config: Config, name: str, account: Dict[str, Any]) -> Optional[Subject]:
        """Take the provider's word about somebody who has signed in; return who that is, or None if he may not come in.

        A name that belonged to somebody else before brings none of his tokens along.
        """
        if not is_free(config, name):
            return None
        state = self._keeper.state
        before = state.accounts.get(name)
        if before is not None and (before["issuer"], before["sub"]) != (account["issuer"], account["sub"]):
            for shown in self.list_of(name):
                self.revoke(name, shown.identifier)
        state.note_account(name, account)
        return self.subject(config, name)

    # -- at the door ----------------------------------------------------------------------------------------------------------------

    def enter(self, config: Config, name: str, password: str) -> Optional[Tuple[str, Optional[Subject], Optional[Limit]]]:
        """Return identifier, subject and limit of a token used as a password; None if it is no token of ours with this name.

        No subject: it is a token of ours, but revoked, expired, or its account is gone.
        """
        claims = config.own_tokens.read(PURPOSE, password[len(PREFIX) :], expired_too=True)
        if claims is None or claims["sub"] != name:
            return None
        identifier = str(claims["jti"])
        state = self._keeper.state
        subject = self.subject(config, name)
        if self._keeper.broken or identifier in state.revoked or claims["exp"] <= time.time() or subject is None:
            return identifier, None, None
        limit = Limit(str(claims.get("role")), tuple(str(pattern) for pattern in claims.get("repositories", ())))
        # This node may not have heard of it yet.
        state.tokens.setdefault(identifier, _record(claims))
        state.note_use(identifier)
        return identifier, subject, limit

    # -- what its owner does with it ------------------------------------------------------------------------------------------------

    def make(self, config: Config, owner: str, name: str, limit: Limit, days: int) -> Tuple[str, str]:
        """Return a new token and its identifier. It is not on the disk yet.

        Raises:
            NotMade: if it cannot be as it is asked for.
        """
        name = " ".join(name.split())
        most = config.settings["personal_days"]
        if not name or len(name) > LONGEST_NAME or not name.isprintable():
            raise NotMade(f"Name: give the token a name of at most {LONGEST_NAME} characters. An example that works: laptop")
        if limit.role not in ROLES:
            raise NotMade("Rights: choose what the token may do.")
        if not 1 <= days <= most:
            raise NotMade(f"Days: a token lasts from 1 to {most} days.")
        if self._keeper.broken:
            raise NotMade("This node has lost its list of tokens; its operator finds the reason in the log of wharf-token.service.")
        present = self.list_of(owner)
        if any(shown.name == name for shown in present):
            raise NotMade(f"Name: you have a token of the name {name} already; revoke it first, or choose another name.")
        if len(present) >= MOST_TOKENS:
            raise NotMade(f"You have {MOST_TOKENS} tokens; revoke one first.")
        claims: Dict[str, Any] = {"jti": secrets.token_hex(12), "name": name, "role": limit.role}
        if limit.repositories:
            claims["repositories"] = list(limit.repositories)
        token = config.own_tokens.make(PURPOSE, owner, days * 86400, claims)
        made = config.own_tokens.read(PURPOSE, token)
        assert made is not None  # noqa: S101
        self._keeper.state.tokens[claims["jti"]] = _record(made)
        return PREFIX + token, claims["jti"]

    def list_of(self, owner: str) -> List[Shown]:
        """Return the tokens of an account that are good, the newest first."""
        state = self._keeper.state
        now = time.time()
        found = [
            Shown(
                identifier,
                record["name"],
                Limit(record["role"], tuple(record["repositories"])),
                record["created"],
                record["expires"],
                state.used.get(identifier, 0),
            )
            for identifier, record in state.tokens.items()
            if record["owner"] == owner and record["expires"] > now and identifier not in state.revoked
        ]
        return sorted(found, key=lambda shown: (-shown.created, shown.name))

    def revoke(self, owner: str, identifier: str) -> bool:
        """Revoke a token of an account; return whether it had it. It is not on the disk yet."""
        record = self._keeper.state.tokens.get(identifier)
        if record is None or record["owner"] != owner:
            return False
        self._keeper.state.revoked[identifier] = record["expires"] + 120  # clocks of nodes differ
        return True


def _record(claims: Mapping[str, Any]) -> Dict[str, Any]:
    return {
        "owner": str(claims["sub"]),
        "name": str(claims.get("name", ""))[:128],
        "role": str(claims.get("role", "")),
        "repositories": [str(pattern) for pattern in claims.get("repositories", ())],
        "created": int(claims["iat"]),
        "expires": int(claims["exp"]),
    }
