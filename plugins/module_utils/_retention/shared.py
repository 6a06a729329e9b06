# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What was pulled through which edge, told to all nodes by way of the storage.

Private to the collection. A node sees only its own access log, but a pull counts whichever node served it. So each writes the last pulls
that it saw to a file of its own, ``wharf-gc/usage/<host>.json``, and whoever decides reads them all, those of a node that is gone too::

    {"version": 1, "since": 1764000000.0, "until": 1764003600.0, "pulls": {"shop/web": {"1.2": "2026-11-24T10:00:00Z"}}}

``since`` and ``until`` are the times of the first and the last moment that the file tells about.
"""

from __future__ import annotations

import glob
import json
import os
import time
from typing import Any, Dict, List, Sequence, Tuple

from .._store import layout
from .._store.driver import Driver
from .usage import Usage, UsageError, read_usage

FOLDER = layout.OWN + "/usage"
#: Pulls are forgotten after this time; rules do not look back further in practice, and the files would grow for ever.
REMEMBERED = 400 * 86400.0
_VERSION = 1


def publish(driver: Driver, host: str, logs: Sequence[str]) -> None:
    """Add what the access logs of this host tell to what it has told before.

    Args:
        driver: the storage.
        host: a name that no other host has.
        logs: absolute paths, with the wildcards of a shell. Those that were not written since the last time are passed over.

    Raises:
        UsageError: if a log cannot be read.
        OSError: if the storage cannot be written.
    """
    now = time.time()
    told = _read(driver, host)
    usage = Usage()
    since = _add(usage, told, host) if told else None
    last = float(told["until"]) if told else 0.0
    fresh = [path for pattern in logs for path in sorted(glob.glob(pattern)) if os.stat(path).st_mtime >= last]
    if fresh or not told:
        read_usage(fresh or logs, usage)
    begin = since if since is not None else now if usage.since is None else usage.since
    pulls = {
        repository: {reference: when for reference, when in known.items() if when > now - REMEMBERED}
        for repository, known in usage.all().items()
    }
    content = {"version": _VERSION, "since": begin, "until": now, "pulls": {name: known for name, known in pulls.items() if known}}
    driver.write(_path(host), json.dumps(content, separators=(",", ":"), sort_keys=True).encode("utf-8"))


def collect(driver: Driver) -> Tuple[Usage, Dict[str, float]]:
    """Return the pulls that all hosts have told, and by host until when it told.

    ``since`` of the result is the first moment that all of them tell about.
    """
    usage = Usage()
    until: Dict[str, float] = {}
    since: List[float] = []
    for entry in sorted(driver.walk(FOLDER)):
        host = entry.path.rpartition("/")[2][: -len(".json")]
        if not entry.path.endswith(".json"):
            continue
        told = _read(driver, host)
        if told:
            since.append(_add(usage, told, host))
            until[host] = float(told["until"])
    usage.since = max(since, default=None)
    return usage, until


def _path(host: str) -> str:
    return "%s/%s.json" % (FOLDER, host)


def _read(driver: Driver, host: str) -> Dict[str, Any]:
    """Return what a host has told; nothing if there is no such file or it is damaged (the logs tell again)."""
    try:
        told = json.loads(driver.read(_path(host)).decode("utf-8"))
        return told if told["version"] == _VERSION and float(told["until"]) >= float(told["since"]) else {}
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return {}


def _add(usage: Usage, told: Dict[str, Any], host: str) -> float:
    try:
        usage.read_pulls(json.dumps(told["pulls"]).encode("utf-8"), host)
    except (UsageError, KeyError):
        usage.warnings.append("usage: what %s has told of its pulls is damaged and was passed over" % host)
    return float(told["since"])
