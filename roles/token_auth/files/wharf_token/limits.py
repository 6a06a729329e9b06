# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How often somebody may be wrong: a bucket of failures for each key, bounded in number."""

from __future__ import annotations

import ipaddress
import math
from collections import OrderedDict
from typing import Tuple


class Failures:
    """Counts failures by key. A key has ``burst`` of them, and gets one back every ``window / burst`` seconds.

    Attempts are charged before their outcome is known and given back when they were right, so that a thousand guesses at once are
    no way around. The keys that were quiet for longest are forgotten first.
    """

    def __init__(self, burst: int, window: float, most: int = 20_000) -> None:
        self._burst = float(burst)
        self._rate = burst / window
        self._most = most
        self._left: OrderedDict[str, Tuple[float, float]] = OrderedDict()

    def _now_left(self, key: str, now: float) -> float:
        left, seen = self._left.get(key, (self._burst, now))
        return min(self._burst, left + (now - seen) * self._rate)

    def wait(self, key: str, now: float) -> int:
        """Return for how many whole seconds this key must wait; 0 if it may try."""
        left = self._now_left(key, now)
        return 0 if left >= 1 else max(1, math.ceil((1 - left) / self._rate))

    def charge(self, key: str, now: float) -> None:
        """Count an attempt."""
        self._put(key, self._now_left(key, now) - 1, now)

    def give_back(self, key: str, now: float) -> None:
        """The attempt was right after all."""
        self._put(key, min(self._burst, self._now_left(key, now) + 1), now)

    def _put(self, key: str, left: float, now: float) -> None:
        self._left[key] = (left, now)
        self._left.move_to_end(key)
        while len(self._left) > self._most:
            self._left.popitem(last=False)

    def __len__(self) -> int:
        return len(self._left)


def address_key(address: str) -> str:
    """Return what counts as one address: of IPv6 the network of 64 bits, which one customer has for himself."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return "unknown"
    if found.version == 6 and found.ipv4_mapped is None:
        return str(ipaddress.ip_network((found, 64), strict=False))
    return str(found.ipv4_mapped if found.version == 6 else found)
