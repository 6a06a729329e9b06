# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Durations, written alike wherever an option takes one. Private to the collection."""

from __future__ import annotations

import re
from typing import Optional

_UNITS = (("w", 604800), ("d", 86400), ("h", 3600), ("m", 60), ("s", 1))
_DURATION = re.compile(r"(?=\d)" + "".join(r"(?:(?P<%s>\d{1,9})%s)?" % (unit, unit) for unit, _seconds in _UNITS))


def parse_duration(text: str) -> Optional[int]:
    """Return the seconds of a duration like ``30d``, ``12h`` or ``1d12h``; None if it is none."""
    match = _DURATION.fullmatch(text)
    if match is None:
        return None
    return sum(int(match.group(unit) or 0) * seconds for unit, seconds in _UNITS)
