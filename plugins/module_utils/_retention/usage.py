# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""When was what pulled last: from the access logs of the edges, or from files that remember it.

Private to the collection. A *pull* is a ``GET`` of a manifest that was answered with 200; ``HEAD`` is a look, not a pull.

A file of last pulls is JSON: ``{"shop/web": {"1.2": 1764000000, "sha256:…": "2026-11-24T10:00:00Z"}}``, seconds since 1970 or times in UTC.
"""

from __future__ import annotations

import calendar
import glob
import gzip
import itertools
import json
import re
import time
from typing import Dict, Iterable, Iterator, List, Mapping, Optional, Sequence

from .. import _files

# Enough to pass most lines over without reading them as JSON.
_MARK = b"/manifests/"
_PATH = re.compile(r"^/v2/(.+)/manifests/([^/?#]+)$")
_UTC = "%Y-%m-%dT%H:%M:%SZ"


class UsageError(ValueError):
    """What is said about usage cannot be used; the message says why, and what would work."""


class Usage:
    """The last pulls that are known. ``since`` is the time of the oldest line that was read, None if there was none."""

    def __init__(self) -> None:
        self._pulls: Dict[str, Dict[str, float]] = {}
        self.since: Optional[float] = None
        self.warnings: List[str] = []

    def add(self, repository: str, reference: str, when: float) -> None:
        """Remember a pull of a tag or digest."""
        known = self._pulls.setdefault(repository, {})
        if when > known.get(reference, 0.0):
            known[reference] = when

    def all(self) -> Mapping[str, Mapping[str, float]]:
        """Return the last pulls by repository."""
        return self._pulls

    def of(self, repository: str) -> Mapping[str, float]:
        """Return the last pulls of a repository's tags and digests."""
        return self._pulls.get(repository, {})

    def seen(self, when: float) -> None:
        """Remember how far back the lines reach."""
        if self.since is None or when < self.since:
            self.since = when

    def as_json(self) -> str:
        """Return a file of last pulls."""
        pulls = {
            repository: {reference: time.strftime(_UTC, time.gmtime(when)) for reference, when in sorted(known.items())}
            for repository, known in sorted(self._pulls.items())
        }
        return json.dumps(pulls, indent=1, ensure_ascii=False) + "\n"

    def read_log(self, lines: Iterable[bytes], name: str = "log") -> None:
        """Take the pulls out of the lines of an edge's access log. Lines that are no JSON are counted, and warned of."""
        broken = 0
        first = True
        for line in lines:
            if _MARK not in line and not first:
                continue
            try:
                entry = json.loads(line.decode("utf-8", "replace"))
                when = float(entry["timestamp"])
                if first:
                    # The lines of a log are in their order: the first tells how far it reaches back.
                    self.seen(when)
                    first = False
                match = _PATH.match(entry["uri"]) if entry["method"] == "GET" and int(entry["status"]) == 200 else None
            except (ValueError, KeyError, TypeError):
                broken += 1
                continue
            if match is None:
                continue
            self.add(match.group(1), match.group(2).replace("%3A", ":").replace("%3a", ":"), when)
            digest = entry.get("content_digest")
            if isinstance(digest, str) and digest:
                self.add(match.group(1), digest, when)
        if broken:
            self.warnings.append("usage: %s has %d lines that are no lines of an edge's access log" % (name, broken))

    def read_pulls(self, content: bytes, name: str = "file") -> None:
        """Take the pulls out of a file of last pulls. Raises UsageError."""
        example = '; it is no access log of an edge either; an example that works: {"shop/web": {"1.2": "2026-11-24T10:00:00Z"}}'
        try:
            pulls = json.loads(content.decode("utf-8"))
        except ValueError as error:
            raise UsageError("usage: %s is no JSON (%s)%s" % (name, error, example)) from None
        if not isinstance(pulls, dict):
            raise UsageError("usage: %s does not hold repositories with their last pulls%s" % (name, example))
        for repository, known in pulls.items():
            if not isinstance(known, dict):
                raise UsageError("usage: %s: %r has no tags or digests with times%s" % (name, repository, example))
            for reference, value in known.items():
                when = _time(value)
                if when is None:
                    raise UsageError("usage: %s: %r of %s:%s is no time%s" % (name, value, repository, reference, example))
                self.add(repository, reference, when)


def _time(value: object) -> Optional[float]:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value) if 0 <= value < 1e11 else None
    try:
        return float(calendar.timegm(time.strptime(str(value), _UTC)))
    except ValueError:
        return None


def _lines(path: str) -> Iterator[bytes]:
    with open(path, "rb") as handle:
        packed = handle.read(2) == b"\x1f\x8b"
        handle.seek(0)
        if not packed:
            yield from handle
            return
        with gzip.open(handle) as unpacked:
            yield from unpacked


def _is_log(first: bytes) -> bool:
    """Tell an access log by its first line; an empty file is one too (it has just been rotated)."""
    if not first.strip():
        return True
    try:
        entry = json.loads(first.decode("utf-8", "replace"))
    except ValueError:
        return False
    return isinstance(entry, dict) and isinstance(entry.get("uri"), str)


def _find(patterns: object) -> List[str]:
    example = "for example usage: [/var/log/wharf/access.log*]"
    if not isinstance(patterns, (list, tuple)) or not all(isinstance(entry, str) and entry for entry in patterns):
        raise UsageError("usage: %r is no list of paths; %s" % (patterns, example))
    paths: List[str] = []
    for pattern in patterns:
        if not pattern.startswith("/"):
            raise UsageError("usage: %s is no absolute path; %s" % (pattern, example))
        matching = sorted(glob.glob(pattern))
        if not matching:
            raise UsageError(
                "usage: %s matches no file on this host, so nobody knows what was pulled; name the files that there are, or set usage: [] "
                "if nothing was pulled" % pattern
            )
        paths += matching
    return list(dict.fromkeys(paths))


def read_usage(patterns: Sequence[str], usage: Optional[Usage] = None) -> Usage:
    """Return what files tell about pulls: access logs, packed ones too, and files of last pulls, told apart by what is in them.

    :param patterns: absolute paths, with the wildcards of a shell.
    :param usage: what is known already; the rest is added to it.
    :raises UsageError: for a pattern without a file, a file that cannot be read, and one that is neither.
    """
    usage = Usage() if usage is None else usage
    for path in _find(patterns):
        try:
            lines = _lines(path)
            first = next(lines, b"")
            if _is_log(first):
                usage.read_log(itertools.chain([first] if first.strip() else [], lines), path)
            else:
                usage.read_pulls(first + b"".join(lines), path)
        except (OSError, EOFError) as error:
            raise UsageError("usage: %s cannot be read (%s)" % (path, getattr(error, "strerror", None) or error)) from None
    return usage


def write_pulls(path: str, usage: Usage, mode: int = 0o640) -> bool:
    """Write a file of last pulls together with what it holds already; return whether it changed.

    Access logs are thrown away after some days: whoever keeps such a file does not forget.
    """
    known = _files.read_if_there(path)
    if known is not None:
        usage.read_pulls(known, path)
    content = usage.as_json().encode("utf-8")
    if content == known:
        return False
    _files.write_atomically(path, content, mode=mode)
    return True
