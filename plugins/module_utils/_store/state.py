# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What garbage collection remembers between runs: the blobs and manifests that it hid, and those that a killed run had moved away."""

from __future__ import annotations

import json
from typing import Dict

from . import layout
from .driver import Driver
from .plan import Hidden

STATE = layout.OWN + "/hidden.json"


def load_hidden(driver: Driver) -> Dict[str, Hidden]:
    """Return what former runs hid. Without the file (or with a damaged one) everything begins with the first visit again."""
    try:
        tree = json.loads(driver.read(STATE).decode())
        return {
            digest: Hidden(float(since), tuple((int(kind), str(name)) for kind, name in links))
            for digest, (since, links) in tree["hidden"].items()
        }
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return {}


def save_hidden(driver: Driver, hidden: Dict[str, Hidden]) -> None:
    """Write down what is hidden."""
    tree = {"version": 1, "hidden": {digest: [entry.since, list(entry.links)] for digest, entry in sorted(hidden.items())}}
    driver.write(STATE, json.dumps(tree, separators=(",", ":")).encode())


def restore_trash(driver: Driver) -> int:
    """Put blobs back that a killed run had moved away; return how many."""
    count = 0
    for digest in sorted(list_trash(driver)):
        if driver.stat(layout.blob_path(digest)) is None:
            driver.move(layout.trash_path(digest), layout.blob_path(digest))
            count += 1
        else:
            driver.remove([layout.trash_path(digest)])
    return count


def list_trash(driver: Driver) -> Dict[str, int]:
    """Return the blobs, with their sizes, that a killed run had moved away."""
    found = {}
    for entry in driver.walk(layout.TRASH):
        algorithm, _slash, value = entry.path[len(layout.TRASH) + 1 :].partition("/")
        if layout.is_digest(f"{algorithm}:{value}"):
            found[f"{algorithm}:{value}"] = entry.size
    return found
