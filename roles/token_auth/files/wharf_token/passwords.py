# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Passwords against bcrypt hashes: in other processes, once for many requests, and as long for names that nobody has."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import secrets
import sys
import time
from collections import OrderedDict
from typing import Dict, List, Mapping, Optional, Sequence

from .hashing import cost_of, question

#: Cost for names that nobody has, where there is no user at all to compare with.
DEFAULT_COST = 10
LONGEST = 72  # bcrypt looks at no more
_HASHER = (sys.executable, "-m", "wharf_token.hashing")


class Busy(Exception):
    """So many passwords are being computed that this one would have to wait too long."""


class _Hasher:
    """A process that computes one hash after another; it is started when it is needed, and again if it has ended."""

    def __init__(self) -> None:
        self._process: Optional[asyncio.subprocess.Process] = None
        self._turn = asyncio.Lock()

    async def verify(self, password: bytes, digests: Sequence[str], cost: int, slots: int) -> bool:
        """Return what :func:`.hashing.verify` does. Raises Busy if the process ends."""
        async with self._turn:
            if self._process is None:
                pipe = asyncio.subprocess.PIPE
                self._process = await asyncio.create_subprocess_exec(*_HASHER, stdin=pipe, stdout=pipe)
            answer = b""
            with contextlib.suppress(ConnectionError):
                self._process.stdin.write(question(password, digests, cost, slots))  # type: ignore[union-attr]
                await self._process.stdin.drain()  # type: ignore[union-attr]
                answer = await self._process.stdout.readline()  # type: ignore[union-attr]
            if not answer:
                self._process = None
                raise Busy
            return answer == b"1\n"


class Passwords:
    """Checks passwords and remembers, for a while, which were right.

    What is remembered is an HMAC, under a key that lives as long as the process, of name, hash and password: a changed hash is another
    entry. Requests that bring the same password at the same time wait for one computation.

    Who has come from where he comes now has a queue of his own: guesses from everywhere fill the other one.
    """

    def __init__(self, lifetime: float = 300.0, most: int = 10_000, queue: int = 48) -> None:
        self._lifetime = lifetime
        self._most = most
        self._queue = queue
        self._key = secrets.token_bytes(32)
        self._right: OrderedDict[bytes, float] = OrderedDict()
        self._running: Dict[bytes, asyncio.Future[bool]] = {}
        self._hashers = {known: _Hasher() for known in (False, True)}
        self._waiting = {False: 0, True: 0}
        self.computed = 0

    def _entry(self, name: str, password: bytes, digests: Sequence[str]) -> bytes:
        parts = (name.encode("utf-8"), password, *(digest.encode("ascii") for digest in digests))
        return hmac.new(self._key, b"".join(len(part).to_bytes(4, "big") + part for part in parts), hashlib.sha256).digest()

    def remembers(self, name: str, password: bytes, digests: Sequence[str]) -> bool:
        """Return whether this very password was right a short while ago."""
        if not digests:
            return False
        entry = self._entry(name, password, digests)
        until = self._right.get(entry)
        if until is None:
            return False
        if time.monotonic() > until:
            self._right.pop(entry, None)
            return False
        return True

    def computing(self, name: str, password: bytes, digests: Sequence[str]) -> bool:
        """Return whether this very password is being computed now, so that to wait for it costs nothing."""
        return self._entry(name, password, digests) in self._running

    async def check(self, name: str, password: bytes, digests: List[str], cost: int, slots: int, known: bool) -> bool:
        """Return whether the password is right; ``known`` says that this account has come from this address before.

        Raises:
            Busy: if too many others are being computed.
        """
        if not password or len(password) > LONGEST or b"\0" in password:
            return False
        entry = self._entry(name, password, digests)
        running = self._running.get(entry)
        if running is None:
            if self._waiting[known] >= self._queue:
                raise Busy
            self.computed += 1
            running = asyncio.ensure_future(self._hashers[known].verify(password, digests, cost, slots))
            self._running[entry] = running
            self._waiting[known] += 1
            running.add_done_callback(lambda _future: self._done(entry, known))
        right = await asyncio.shield(running)
        if right:
            self._right[entry] = time.monotonic() + self._lifetime
            self._right.move_to_end(entry)
            while len(self._right) > self._most:
                self._right.popitem(last=False)
        return right

    def _done(self, entry: bytes, known: bool) -> None:
        self._running.pop(entry, None)
        self._waiting[known] -= 1

    @property
    def waiting(self) -> int:
        """How many are being computed or wait for that."""
        return len(self._running)


def highest_cost(hashes: Mapping[str, str]) -> int:
    """Return the cost that a wrong password is to take: that of the slowest hash."""
    return max((cost_of(digest) for digest in hashes.values()), default=DEFAULT_COST)
