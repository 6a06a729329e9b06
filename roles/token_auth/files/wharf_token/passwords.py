# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Passwords against bcrypt hashes: off the event loop, once for many requests, and as long for names that nobody has."""

from __future__ import annotations

import asyncio
import concurrent.futures
import hashlib
import hmac
import os
import secrets
import threading
import time
from collections import OrderedDict
from typing import Dict, List, Mapping, Sequence

import bcrypt

#: Cost for names that nobody has, where there is no user at all to compare with.
DEFAULT_COST = 10
LONGEST = 72  # bcrypt looks at no more


class Busy(Exception):
    """So many passwords are being computed that this one would have to wait too long."""


def cost_of(digest: str) -> int:
    """Return the cost of a bcrypt hash."""
    return int(digest.split("$")[2])


def verify(password: bytes, digests: Sequence[str], cost: int, slots: int) -> bool:
    """Return whether one of the hashes is that of the password.

    A wrong password takes the time of ``slots`` hashes of ``cost``, whether there are hashes and whatever theirs cost: 2^c + 2^c + 2^(c+1) …
    + 2^(cost-1) is 2^cost.
    """
    for digest in digests:
        if bcrypt.checkpw(password, digest.replace("$2y$", "$2b$", 1).encode("ascii")):
            return True
        for padding in range(cost_of(digest), cost):
            bcrypt.hashpw(password, bcrypt.gensalt(padding))
    for _slot in range(slots - len(digests)):
        bcrypt.hashpw(password, bcrypt.gensalt(cost))
    return False


def _step_back() -> None:
    """Let the thread that computes hashes use only what the rest of the node leaves."""
    if hasattr(os, "setpriority"):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 10)


class Passwords:
    """Checks passwords and remembers, for a while, which were right.

    What is remembered is an HMAC, under a key that lives as long as the process, of name, hash and password: a changed hash is another
    entry. Requests that bring the same password at the same time wait for one computation.
    """

    def __init__(self, lifetime: float = 300.0, most: int = 10_000, queue: int = 48, threads: int = 1) -> None:
        self._lifetime = lifetime
        self._most = most
        self._queue = queue
        self._key = secrets.token_bytes(32)
        self._right: OrderedDict[bytes, float] = OrderedDict()
        self._running: Dict[bytes, asyncio.Future[bool]] = {}
        self._pool = concurrent.futures.ThreadPoolExecutor(threads, "bcrypt", _step_back)
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

    async def check(self, name: str, password: bytes, digests: List[str], cost: int, slots: int) -> bool:
        """Return whether the password is right.

        Raises:
            Busy: if too many others are being computed.
        """
        if not password or len(password) > LONGEST or b"\0" in password:
            return False
        entry = self._entry(name, password, digests)
        running = self._running.get(entry)
        if running is None:
            if len(self._running) >= self._queue:
                raise Busy
            self.computed += 1
            running = asyncio.get_running_loop().run_in_executor(self._pool, verify, password, digests, cost, slots)
            self._running[entry] = running
            running.add_done_callback(lambda _future: self._running.pop(entry, None))
        right = await asyncio.shield(running)
        if right:
            self._right[entry] = time.monotonic() + self._lifetime
            self._right.move_to_end(entry)
            while len(self._right) > self._most:
                self._right.popitem(last=False)
        return right

    @property
    def waiting(self) -> int:
        """How many are being computed or wait for that."""
        return len(self._running)


def highest_cost(hashes: Mapping[str, str]) -> int:
    """Return the cost that a wrong password is to take: that of the slowest hash."""
    return max((cost_of(digest) for digest in hashes.values()), default=DEFAULT_COST)
