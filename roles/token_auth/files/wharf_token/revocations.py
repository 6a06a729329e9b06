# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the services of all nodes know together: personal tokens, revocations, and who has signed in with an identity provider.

Nothing in it is ever taken back, so what two nodes know is joined in any order, and any number of times: tokens and revocations are only
added, of the time of a last use and of what an identity provider said the newest counts. What has expired is dropped. It is kept on disk.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import time
from pathlib import Path
from typing import Any, Callable, Dict, Mapping, Optional

#: The parts, and what each is kept under: the identifier of a token, or the name of an account.
PARTS = ("tokens", "revoked", "used", "accounts")
#: A last use is told to other nodes in steps of so many seconds, so that they need not talk about each request.
USE_STEP = 300
#: What an identity provider said is forgotten after so many seconds without a new word from it.
ACCOUNT_SECONDS = 400 * 86400
#: No token lasts longer than this, so neither does what is known of it.
LONGEST_SECONDS = 400 * 86400
MOST_ENTRIES = 50_000
_TOKEN_TEXTS = ("owner", "name", "role")


class StateError(ValueError):
    """What was read is no state."""


class State:
    """What is known, joined with what others know."""

    def __init__(self) -> None:
        self.tokens: Dict[str, Dict[str, Any]] = {}
        self.revoked: Dict[str, int] = {}
        self.used: Dict[str, int] = {}
        self.accounts: Dict[str, Dict[str, Any]] = {}

    def content(self) -> Dict[str, Any]:
        """Return everything, as it is written down and told to others."""
        return {part: getattr(self, part) for part in PARTS}

    def digest(self) -> str:
        """Return a text that is equal on two nodes that know the same."""
        return hashlib.sha256(json.dumps(self.content(), sort_keys=True).encode("utf-8")).hexdigest()

    def merge(self, content: Any, now: Optional[float] = None) -> bool:
        """Take in what somebody else knows; return whether any of it was new.

        Raises:
            StateError: if it is no state; then nothing was taken.
        """
        other = _judged(content)
        now = time.time() if now is None else now
        new = False
        for identifier, record in other.tokens.items():
            if identifier not in self.tokens and now < record["expires"] <= now + LONGEST_SECONDS:
                self.tokens[identifier] = record
                new = True
        for identifier, expires in other.revoked.items():
            if expires > max(self.revoked.get(identifier, 0), now) and expires <= now + LONGEST_SECONDS:
                self.revoked[identifier] = expires
                new = True
        for identifier, when in other.used.items():
            if identifier in self.tokens and self.used.get(identifier, 0) < when <= now + USE_STEP:
                self.used[identifier] = when
                new = True
        for name, account in other.accounts.items():
            if now - ACCOUNT_SECONDS < account["seen"] <= now + USE_STEP and _order(account) > _order(self.accounts.get(name)):
                self.accounts[name] = account
                new = True
        if max(len(getattr(self, part)) for part in PARTS) > MOST_ENTRIES:
            self.drop_expired(now)
        return new

    def note_account(self, name: str, account: Mapping[str, Any]) -> None:
        """Remember what an identity provider said about a person, unless it has said something else since."""
        self.merge({"tokens": {}, "revoked": {}, "used": {}, "accounts": {name: account}})

    def drop_expired(self, now: Optional[float] = None) -> bool:
        """Forget what has expired; return whether there was anything. A revocation outlives its token by as much as clocks may differ."""
        now = time.time() if now is None else now
        before = sum(len(getattr(self, part)) for part in PARTS)
        self.tokens = {identifier: record for identifier, record in self.tokens.items() if record["expires"] > now}
        self.revoked = {identifier: expires for identifier, expires in self.revoked.items() if expires > now}
        self.used = {identifier: when for identifier, when in self.used.items() if identifier in self.tokens}
        self.accounts = {name: account for name, account in self.accounts.items() if account["seen"] > now - ACCOUNT_SECONDS}
        return before != sum(len(getattr(self, part)) for part in PARTS)

    def note_use(self, identifier: str, now: Optional[float] = None) -> None:
        """Remember that a token was used, to within USE_STEP."""
        now = time.time() if now is None else now
        if identifier in self.tokens and now >= self.used.get(identifier, 0) + USE_STEP:
            self.used[identifier] = int(now)


def _order(account: Optional[Mapping[str, Any]]) -> Any:
    """Return what decides between two words about one account: the newer, and of two at once the same one on every node."""
    return (account["seen"], json.dumps(account, sort_keys=True)) if account else (0, "")


def _judged(content: Any) -> State:
    state = State()
    try:
        for identifier, record in content["tokens"].items():
            texts = {key: str(record[key])[:128] for key in _TOKEN_TEXTS}
            repositories = [str(pattern)[:255] for pattern in record["repositories"]][:16]
            times = {key: int(record[key]) for key in ("created", "expires")}
            state.tokens[str(identifier)[:64]] = {**texts, "repositories": repositories, **times}
        state.revoked = {str(identifier)[:64]: int(expires) for identifier, expires in content["revoked"].items()}
        state.used = {str(identifier)[:64]: int(when) for identifier, when in content["used"].items()}
        for name, account in content["accounts"].items():
            groups = sorted({str(group)[:256] for group in account["groups"]})[:512]
            who = {key: str(account[key])[:256] for key in ("issuer", "sub")}
            state.accounts[str(name)[:128]] = {"groups": groups, "seen": int(account["seen"]), **who}
    except (TypeError, KeyError, ValueError, AttributeError) as error:
        raise StateError(f"is no state: {error!r}") from None
    return state


class Keeper:
    """The state and its file.

    A file that cannot be read is no empty one: without the revocations that were in it no personal token can be trusted, until another
    node has told them. With nobody to ask, tokens rest until the file is put right or removed.
    """

    def __init__(self, path: Optional[Path]) -> None:
        self._path = path
        self._lock = asyncio.Lock()
        self._written = ""
        self.state = State()
        self.broken = ""
        if path is not None:
            self._load(path)

    def _load(self, path: Path) -> None:
        try:
            self.state.merge(json.loads(path.read_text(encoding="utf-8")))
            self._written = self.state.digest()
        except FileNotFoundError:
            pass
        except (OSError, ValueError) as error:
            self.broken = f"{path}: {error}"

    def heal(self) -> None:
        """What another node knows makes up for the file."""
        if self.broken and self._path is not None:
            with contextlib.suppress(OSError):
                os.replace(self._path, self._path.with_name(self._path.name + ".broken"))
        self.broken = ""

    async def save(self) -> None:
        """Write down what is not written yet, in one step; when this returns, it is on the disk.

        Raises:
            OSError: if it cannot be written.
        """
        if self._path is None or self.broken:
            return
        async with self._lock:
            digest = self.state.digest()
            if digest == self._written:
                return
            text = json.dumps(self.state.content(), sort_keys=True)
            await asyncio.get_running_loop().run_in_executor(None, _write, self._path, text)
            self._written = digest


def _write(path: Path, text: str, sync: Callable[[int], None] = os.fsync) -> None:
    partial = path.with_name(path.name + ".partial")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        sync(file.fileno())
    os.replace(partial, path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        sync(folder)
    finally:
        os.close(folder)
