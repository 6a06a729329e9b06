# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Manifests remembered between runs. They are named by their content, so what was read once is true for ever.

The file lies in the storage itself, so that it does not matter which node runs. It may be deleted at any time.
"""

from __future__ import annotations

import gzip
import json
from typing import Dict, List

from . import layout
from .driver import Driver
from .manifests import Manifest

PATH = layout.OWN + "/manifests.json.gz"
_VERSION = 1


def load(driver: Driver) -> Dict[str, Manifest]:
    """Return the remembered manifests by digest; nothing if the file is missing, damaged or of another release."""
    try:
        lines = gzip.decompress(driver.read(PATH)).decode("utf-8").split("\n")
        if json.loads(lines[0]) != {"version": _VERSION}:
            return {}
        found = {}
        for line in lines[1:]:
            if line:
                row = json.loads(line)
                found[row[0]] = _from_row(row)
        return found
    except (OSError, EOFError, ValueError, TypeError, LookupError):
        return {}


def save(driver: Driver, manifests: Dict[str, Manifest]) -> None:
    """Write the manifests down. That this fails is no reason to fail: the next run reads them again."""
    lines: List[str] = [json.dumps({"version": _VERSION})]
    lines += [json.dumps(list(manifests[digest]), separators=(",", ":")) for digest in sorted(manifests)]
    try:
        driver.write(PATH, gzip.compress("\n".join(lines).encode("utf-8"), compresslevel=4))
    except OSError:
        pass


def _from_row(row: list) -> Manifest:
    digest, media_type, size, children, config, layers, subject, foreign, platforms, artifact, known = row
    pairs = tuple((child, name) for child, name in platforms)
    return Manifest(digest, media_type, size, tuple(children), config, tuple(layers), subject, tuple(foreign), pairs, artifact, known)
