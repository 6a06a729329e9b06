# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One run at a time per storage, whichever host it runs on.

Each run writes a claim of its own below ``wharf-gc/locks/`` and then lists that prefix. A run that sees nobody else's live claim
has the lock; one that sees another withdraws. Two runs can never both have it: each would have had to list before the other wrote,
and to write before it listed. That needs nothing but a store whose listings show finished writes, which the registry needs
as well; conditional writes (``If-None-Match``) would be shorter, but stores that do not know them ignore them and let both in.

A claim is written anew while the run lives. One that was not for ``TTL`` seconds, by the storage's own clock, is of a dead run and is
removed; one of a dead process of this host at once.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import threading
import time
from typing import Any, Dict, Optional, Tuple

from . import layout
from .driver import Driver, StoreError

PREFIX = layout.OWN + "/locks"
TTL = 60.0


class LockHeld(StoreError):
    """Another run has the lock. Nothing was changed."""


class LockLost(StoreError):
    """The claim is gone or too old: another run may have begun."""


def _me() -> Dict[str, Any]:
    return {"host": socket.gethostname(), "pid": os.getpid(), "process": _process(os.getpid()), "since": int(time.time())}


def _process(pid: int) -> str:
    """Return what tells a process from all others that have or had its number: boot, namespace, start time. Empty if it is gone."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as handle:
            boot = handle.read().strip()
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as handle:
            fields = handle.read().rpartition(")")[2].split()
        if fields[0] in ("Z", "X"):
            return ""
        return f"{boot} {os.readlink('/proc/self/ns/pid')} {fields[19]}"
    except (OSError, IndexError):
        return ""


def _is_dead(owner: Dict[str, Any]) -> bool:
    """Return whether a claim's process was of this host and is gone."""
    process = str(owner.get("process") or "")
    mine = _process(os.getpid())
    if not process or not mine or process.split()[:2] != mine.split()[:2]:
        return False
    return _process(int(owner.get("pid") or 0)) != process


class Lock:
    """The lock of a storage, as a context manager."""

    def __init__(self, driver: Driver, ttl: float = TTL) -> None:
        self._driver = driver
        self._ttl = ttl
        self._path = f"{PREFIX}/{secrets.token_hex(8)}"
        self._content = json.dumps(_me()).encode()
        self._written = 0.0
        self._stop = threading.Event()
        self._thread: Optional[threading.Thread] = None
        self._lost = ""

    def __enter__(self) -> Lock:
        owner: Dict[str, Any] = {}
        age = 0.0
        for attempt in range(4):
            self._write()
            other = self._other()
            if other is None:
                self._thread = threading.Thread(target=self._renew, daemon=True)
                self._thread.start()
                return self
            owner, age = other
            self._driver.remove([self._path])
            if attempt < 3:
                time.sleep(0.05 + secrets.randbelow(1000) / 2000.0)
        raise LockHeld(
            f"another run works on {self._driver.label}: process {owner.get('pid', '?')} on {owner.get('host', '?')}, last seen {age:.0f} s ago; "
            f"wait for it, or if its host is dead for {max(1.0, self._ttl - age):.0f} s more"
        )

    def __exit__(self, *_unused: object) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        self._driver.remove([self._path])

    def _write(self) -> None:
        begun = time.monotonic()
        try:
            self._driver.write(self._path, self._content)
        except OSError as error:
            raise StoreError(f"{self._driver.label} cannot be written: {error.strerror}; nothing was changed") from None
        self._written = begun

    def _other(self) -> Optional[Tuple[Dict[str, Any], float]]:
        """Return another run's live claim and its age; remove the dead ones."""
        entries = list(self._driver.walk(PREFIX))
        mine = next((entry for entry in entries if entry.path == self._path), None)
        if mine is None:
            raise StoreError(f"{self._driver.label} does not list what was just written; it cannot be locked")
        now = mine.modified  # the storage's own clock
        for entry in entries:
            if entry.path == self._path or entry.path.endswith("wharf-tmp"):
                continue
            try:
                owner = json.loads(self._driver.read(entry.path).decode())
            except FileNotFoundError:
                continue
            except (OSError, ValueError):
                owner = {}
            age = max(0.0, now - entry.modified)
            if age > self._ttl or _is_dead(owner):
                self._driver.remove([entry.path])
                continue
            return owner, age
        return None

    def _renew(self) -> None:
        while not self._stop.wait(self._ttl / 4):
            if time.monotonic() - self._written > self._ttl * 0.8:
                self._lost = "it was not renewed in time"
                return
            try:
                if self._driver.stat(self._path) is None:
                    self._lost = "another run removed it"
                    return
                self._write()
            except (OSError, StoreError):
                continue  # the next turn tries again, until it is too late

    def require(self) -> None:
        """Raise :class:`LockLost` unless the lock is surely held; ask before each step that removes something."""
        if self._lost or time.monotonic() - self._written > self._ttl * 0.8:
            reason = self._lost or "it was not renewed in time"
            raise LockLost(f"the lock of {self._driver.label} was lost: {reason}; the next run finishes the work")
