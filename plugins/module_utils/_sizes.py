# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Sizes, written alike wherever an option takes one. Private to the collection."""

from __future__ import annotations

import re
from typing import Optional

_SIZE = re.compile(r"(\d+(?:\.\d+)?) ?(?:([kMGTP])(i?))?B?")


def parse_size(text: str) -> Optional[int]:
    """Return the bytes of a size like ``500GB``, ``1.5 TiB`` or ``1000000``; None if it is none."""
    match = _SIZE.fullmatch(text)
    if match is None:
        return None
    number, unit, binary = match.groups()
    return int(float(number) * (1024 if binary else 1000) ** ("kMGTP".index(unit) + 1 if unit else 0))


def size_problem(size: object, name: str) -> str:
    """Return what is wrong with a size that may be missing, in a sentence; empty if nothing is."""
    if size is None or size == "":
        return ""
    if isinstance(size, bool) or not isinstance(size, (str, int, float)) or not parse_size(str(size)):
        return "%s: %r is no size above 0; for example %s: 2TB (10^12 bytes each) or 500GiB (2^30)" % (name, size, name)
    return ""
