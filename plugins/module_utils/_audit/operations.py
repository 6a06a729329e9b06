# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who did what: operations, put together from the lines of the audit logs of all nodes. Private to the collection.

A client's requests go to whichever node the balancer chooses, so only all nodes' lines together tell what was one operation. What is put
together, and why, is documented in docs/audit.md. The work grows with the number of lines, not faster (beside sorting them).
"""

from __future__ import annotations

import calendar
import fnmatch
import json
import re
import sys
import time
from typing import Any, Dict, Iterable, Iterator, List, Mapping, NamedTuple, Optional, Tuple

from .._durations import parse_duration
from .._tool_config import ConfigError
from . import follow

ACTIONS = ("pull", "push", "tag", "delete", "login")
#: So many seconds may pass between two requests of one operation: from the end of what was before to the begin of the next.
PATIENCE = 60.0
#: An image's manifest is pushed when its last layer is there, and layers take long.
UPLOAD_PATIENCE = 3600.0
_TIME = re.compile(r"(\d{4})-(\d\d)-(\d\d)(?:[T ](\d\d):(\d\d)(?::(\d\d)(?:\.(\d{1,6}))?)?Z?)?")

Record = Dict[str, Any]


class QueryError(ValueError):
    """A question cannot be answered; the message says why, with an example that works."""


class Query(NamedTuple):
    """What is asked: times in seconds since 1970, and patterns with the wildcards of a shell; empty is everything."""

    begin: float
    end: float
    user: str = ""
    repository: str = ""
    action: str = ""


def parse_time(text: str, name: str, now: float) -> float:
    """Return seconds since 1970 of a time in UTC, or of a duration before now. Raises QueryError."""
    if not text:
        return now
    duration = parse_duration(text)
    if duration is not None:
        return now - duration
    match = _TIME.fullmatch(text)
    if match:
        parts = [int(part or 0) for part in match.groups()[:6]]
        try:
            calendar_time = time.strptime("%04d-%02d-%02d %02d:%02d:%02d" % tuple(parts), "%Y-%m-%d %H:%M:%S")
            return calendar.timegm(calendar_time) + float("0." + (match.group(7) or "0"))
        except ValueError:
            pass
    raise QueryError('%s: %r is no time; for example %s="2026-11-24 10:00" (UTC), or %s=7d for seven days ago' % (name, text, name, name))


def parse_query(
    begin: str, end: str, user: str = "", repository: str = "", action: str = "", *, now: Optional[float] = None, prefix: str = ""
) -> Query:
    """Check a question. Raises QueryError, whose message calls the parts by their names with a prefix."""
    moment = time.time() if now is None else now
    if action and action not in ACTIONS:
        raise QueryError("%saction: %r is none of %s; for example %saction=pull" % (prefix, action, ", ".join(ACTIONS), prefix))
    query = Query(parse_time(begin or "24h", prefix + "from", moment), parse_time(end, prefix + "until", moment), user, repository, action)
    if query.begin > query.end:
        raise QueryError("%sfrom: it is after %suntil; for example %sfrom=7d %suntil=1d" % (prefix, prefix, prefix, prefix))
    return query


def may_matter(record: Mapping[str, Any], query: Query) -> bool:
    """Whether a line can have to do with the answer: also the lines that belong to an operation around it."""
    when = seconds_of(record)
    if not query.begin - UPLOAD_PATIENCE <= when <= query.end + UPLOAD_PATIENCE:
        return False
    # All lines of an operation have the same user and repository.
    return _fits(record.get("user", ""), query.user) and _fits(record.get("repository", ""), query.repository)


def _fits(value: str, pattern: str) -> bool:
    return not pattern or fnmatch.fnmatchcase(value, pattern)


def seconds_of(record: Mapping[str, Any]) -> float:
    """Return when a request ended."""
    return parse_time(str(record["time"]), "time", 0.0)


class _Open:
    """What a client has been doing in a repository lately."""

    def __init__(self) -> None:
        self.looks: Dict[str, str] = {}
        self.pulls: List[Record] = []
        self.index: Optional[Record] = None
        self.active = 0.0
        self.uploads: List[Record] = []
        self.uploading = 0.0
        self.children: List[Record] = []
        self.last: Dict[Tuple[str, str, str, str], Tuple[Record, float]] = {}


class _Folder:
    """Takes requests in the order in which they began."""

    def __init__(self) -> None:
        self._open: Dict[Tuple[str, str, str], _Open] = {}
        self.operations: List[Record] = []

    def take(self, record: Record) -> None:
        """Take one line."""
        end = record.pop("_end")
        begin = record.pop("_begin")
        key = (record.get("user", ""), record.get("address", ""), record.get("repository", ""))
        state = self._open.setdefault(key, _Open())
        action, part = record["action"], record.get("part", "")
        if begin - state.active > PATIENCE:
            state.pulls, state.index, state.looks = [], None, {}
        if begin - state.uploading > UPLOAD_PATIENCE:
            # What has no manifest by now gets none.
            self._unfinished(state)
        if begin - state.uploading > PATIENCE:
            state.children = []
        if part == "look":
            state.looks[record.get("digest", "")] = record.get("tag", "")
            state.active = max(state.active, end)
        elif action == "pull":
            self._pull(state, record, end)
        elif action == "push":
            self._push(state, record, begin, end)
        else:
            self._add(state, record, end)

    def _add(self, state: _Open, record: Record, end: float) -> Record:
        """Add an operation, unless it is the same failure once more; return the one that it is now."""
        if record["result"] != "ok":
            kind = (record["action"], record["result"], record.get("tag", ""), record.get("digest", ""))
            known = state.last.get(kind)
            state.last[kind] = (record, end) if known is None else (known[0], end)
            if known is not None and end - known[1] <= PATIENCE:
                _join(known[0], record)
                return known[0]
            state.last[kind] = (record, end)
        record["requests"] = 1
        record["nodes"] = [record.pop("node")] if "node" in record else []
        self.operations.append(record)
        return record

    def _pull(self, state: _Open, record: Record, end: float) -> None:
        whole = self._pull_of(state, record)
        state.active = max(state.active, end)
        if whole is not None:
            _join(whole, record)
            return
        if record.get("part") == "blob":
            # A layer for which nobody has asked for an image: a pull that goes on after long, or somebody who knows what to take.
            record.pop("part")
            self._add(state, record, end)
            return
        look = state.looks.pop(record.get("digest", ""), "")
        if look and not record.get("tag"):
            record["tag"] = look
        added = self._add(state, record, end)
        if added["result"] == "ok":
            state.pulls = [*state.pulls[-15:], added]
            if added.get("kind") == "index":
                state.index = added

    def _pull_of(self, state: _Open, record: Record) -> Optional[Record]:
        """Return the pull that a request belongs to."""
        if record.get("part") == "blob":
            return state.pulls[-1] if state.pulls else None
        if record.get("tag") or record["result"] != "ok":
            return None
        for pull in reversed(state.pulls):
            # First by tag, then by the digest that the answer told.
            if pull.get("digest") == record.get("digest") and pull.get("tag") and record.get("digest") not in state.looks:
                return pull
        return state.index if record.get("kind") != "index" and record.get("digest") not in state.looks else None

    def _push(self, state: _Open, record: Record, begin: float, end: float) -> None:
        state.uploading = max(state.uploading, end)
        if record.get("part"):
            if record["result"] == "ok":
                state.uploads.append(record)
            return
        if record["result"] != "ok":
            self._add(state, record, end)
            return
        uploads, state.uploads = state.uploads, []
        if not uploads and not state.children and record.get("tag") and record.get("kind") != "index":
            record["action"] = "tag"
        added = self._add(state, record, end)
        for upload in uploads:
            _join(added, upload)
        if added.get("kind") == "index":
            for child in state.children:
                _join(added, child)
                child["action"] = ""
            state.children = []
        elif not added.get("tag"):
            state.children.append(added)

    def _unfinished(self, state: _Open) -> None:
        """Make an operation of layers that came without a manifest after them."""
        if not state.uploads:
            return
        first, *others = state.uploads
        state.uploads = []
        for name in ("part", "digest", "tag", "from"):
            first.pop(name, None)
        first.update(kind="blob", result="unfinished", requests=1, nodes=[first.pop("node")] if "node" in first else [])
        for upload in others:
            _join(first, upload)
        self.operations.append(first)

    def finished(self) -> List[Record]:
        """Return the operations."""
        for state in self._open.values():
            self._unfinished(state)
        return [operation for operation in self.operations if operation["action"]]


def _join(whole: Record, part: Mapping[str, Any]) -> None:
    """Count a request, or an operation, as part of another one."""
    whole["requests"] = whole.get("requests", 1) + part.get("requests", 1)
    whole["bytes"] = whole.get("bytes", 0) + part.get("bytes", 0)
    for node in part.get("nodes", [part["node"]] if "node" in part else []):
        if node not in whole["nodes"]:
            whole["nodes"].append(node)
    if part.get("result") == "cut" and whole.get("result") == "ok":
        whole["result"] = "cut"


def fold(records: Iterable[Mapping[str, Any]]) -> List[Record]:
    """Return the operations that lines of audit logs tell of, in the order of their times."""
    once: Dict[Tuple[Any, ...], Record] = {}
    for number, given in enumerate(records):
        record = dict(given)
        record["_end"] = seconds_of(record)
        record["_begin"] = record["_end"] - float(record.pop("seconds", 0))
        identity = record.get("request_id")
        # A balancer repeats a read on another node under the same id: what came of it in the end counts, and counts once.
        key = (identity, record["action"], record.get("part", "")) if identity else (number,)
        known = once.get(key)
        if known is None or (known["result"] != "ok" and record["result"] == "ok"):
            once[key] = record
    folder = _Folder()
    for record in sorted(once.values(), key=lambda entry: (entry["_begin"], entry["_end"], entry.get("request_id", ""))):
        folder.take(record)
    return sorted(folder.finished(), key=lambda entry: (entry["time"], entry.get("request_id", "")))


def answer(records: Iterable[Mapping[str, Any]], query: Query) -> List[Record]:
    """Return the operations that were asked for."""
    return [
        operation
        for operation in fold(record for record in records if may_matter(record, query))
        if query.begin <= seconds_of(operation) <= query.end and (not query.action or operation["action"] == query.action)
    ]


def parse_lines(lines: Iterable[str]) -> Iterator[Record]:
    """Yield the records of lines; what is none is left out."""
    for line in lines:
        try:
            record = json.loads(line)
            seconds_of(record)
            record["action"], record["result"]
        except (ValueError, KeyError, TypeError, RecursionError):
            continue
        yield record


_COLUMNS = ("time", "user", "action", "image", "result", "bytes", "address", "nodes")


def table(operations: Iterable[Mapping[str, Any]]) -> List[str]:
    """Return the operations as lines for people."""
    rows = [[name.upper() for name in _COLUMNS]]
    for operation in operations:
        tag, digest = operation.get("tag", ""), operation.get("digest", "")
        image = operation.get("repository", "-") + (":" + tag if tag else "@" + digest if digest else "")
        rows.append(
            [
                operation["time"][:19].replace("T", " "),
                operation.get("user", ""),
                operation["action"],
                image,
                operation["result"],
                str(operation.get("bytes", "-")),
                operation.get("address", "-"),
                ",".join(operation.get("nodes", [])),
            ]
        )
    # What clients sent is shown as text: no control characters.
    rows = [["".join(c if c.isprintable() else "?" for c in cell) for cell in row] for row in rows]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_COLUMNS))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows]


def _stored(output: str, query: Query) -> Iterator[str]:
    """Yield the lines of an audit log and of what was rotated away of it, that may matter by their time."""
    low = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(max(query.begin - UPLOAD_PATIENCE, 0)))
    high = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(query.end + UPLOAD_PATIENCE + 1))
    for path in follow.generations(output):
        with follow.open_log(path) as handle:
            for raw in handle:
                line = raw.decode("utf-8", "replace")
                # Each line begins with its time.
                if low <= line[9:28] <= high:
                    yield line


def command(options: Any) -> int:
    """Print the lines of this node's audit log that may matter for a question, or the operations; return the exit status."""
    try:
        query = parse_query(options.begin, options.until, options.user, options.repository, options.action)
        output = options.log or follow.read_config(options.config).output
        records = (record for record in parse_lines(_stored(output, query)) if may_matter(record, query))
        found = records if options.raw else iter(answer(records, query))
        for number, record in enumerate(found):
            if number == options.limit:
                raise QueryError("there are more than %d lines; ask for a shorter time, or for one user or repository" % options.limit)
            sys.stdout.write(json.dumps(record, separators=(",", ":")) + "\n")
    except (QueryError, ConfigError) as error:
        sys.stderr.write("wharf audit: %s\n" % error)
        return 2
    return 0
