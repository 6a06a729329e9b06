# Copyright (c) 2026 wharf.registry contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Programs out of Debian's packages, unpacked and not installed: nothing starts, and no service of this machine changes."""

from __future__ import annotations

import fcntl
import shutil
from pathlib import Path

from settings import CHECKOUT
from shell import LabError, run, say

FOLDER = CHECKOUT / ".cache/programs"


def unpacked(package: str) -> Path:
    """Return the folder that a package was unpacked into, fetched once."""
    root = FOLDER / package
    FOLDER.mkdir(parents=True, exist_ok=True)
    with (FOLDER / ".lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        if not root.exists():
            say(f"fetching Debian's {package}")
            fresh = FOLDER / f".{package}"
            shutil.rmtree(fresh, ignore_errors=True)
            fresh.mkdir()
            fetch = ["apt-get", "-qq", "download", package]
            if run(fetch, cwd=fresh, check=False).returncode:
                run(["apt-get", "-qq", "update"])
                run(fetch, cwd=fresh)
            run(["dpkg-deb", "-x", str(next(fresh.glob("*.deb"))), str(fresh)])
            fresh.rename(root)
    return root


def program(package: str, name: str = "") -> Path:
    """Return a program of a package; ``name`` if it is not the package's."""
    found = unpacked(package) / "usr/bin" / (name or package)
    if not found.exists():
        raise LabError(f"Debian's package {package} has no program {found.name}")
    return found
