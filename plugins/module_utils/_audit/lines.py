# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a line of an edge's access log, or of the token service's audit log, says for the audit log. One line in, one line or none out.

Private to the collection. Nothing is remembered from line to line, so it does not matter when a reader stops and begins again. What
belongs together (the tag and the digest of a pull, the layers of an image, requests that went to several nodes) is put together by
``operations`` when somebody asks. The format is documented in docs/audit.md.
"""

from __future__ import annotations

import base64
import json
import re
import time
from typing import Any, Dict, FrozenSet, Mapping, NamedTuple, Optional, Tuple
from urllib.parse import unquote

ANONYMOUS = "(anonymous)"
UNKNOWN = "(unknown)"
LONGEST = 300

#: Media types of manifests that name other manifests.
INDEXES = ("application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json")

_DIGEST = re.compile(r"[a-z0-9]+(?:[+._-][a-z0-9]+)*:[0-9a-fA-F]{32,}")
_READS = ("GET", "HEAD")
#: How a request for a token may end that somebody has made with wrong credentials.
_BAD_LOGINS = ("bad_credentials", "expired", "limited", "busy")


class LineError(ValueError):
    """A line is none of its log. The message never holds what was in it."""


class Settings(NamedTuple):
    """What the node knows beside the line.

    ``authenticated``: whether the registry asks who somebody is. If not, whatever names are sent mean nothing.
    ``users``: the names that there are. Another name that was refused is not written down: it may be a password in the wrong field.
    """

    node: str
    authenticated: bool = True
    users: FrozenSet[str] = frozenset()


class _Request(NamedTuple):
    """What a request is about."""

    action: str
    part: str
    repository: str
    reference: str


def from_access(line: bytes, settings: Settings) -> Optional[Dict[str, Any]]:
    """Return what a line of an edge's access log means, None if nothing for an audit. Raises LineError."""
    # What nginx writes if it gave no answer at all is no number for JSON.
    entry = _object(line.replace(b'"status":000,', b'"status":0,', 1))
    try:
        method, path, status, when = str(entry["method"]), str(entry["uri"]), int(entry["status"]), float(entry["timestamp"])
        text = {name: str(entry.get(name) or "") for name in _TEXTS}
        for name in ("digest", "mount", "from"):
            # Parameters of the query, as they were sent.
            text[name] = unquote(text[name])
        seconds = max(float(entry.get("request_time") or 0), 0.0)
        sent, received = int(entry.get("body_bytes_sent") or 0), int(entry.get("request_length") or 0)
        if not 0 <= when < 1e11:
            raise ValueError
    except (KeyError, ValueError, TypeError, OverflowError):
        raise LineError("a line that lacks what lines of an access log have") from None
    request = _request(method, unquote(path), text)
    if request is None:
        return None
    subject = _subject(text["claims"])
    name = text["remote_user"] or subject or ""
    outcome = _result(status, text["completion"])
    if status == 401 and not name:
        # A challenge: with it every client begins.
        return None
    if request.action == "login" and not text["remote_user"]:
        return None
    if request.part == "look" and outcome == "denied":
        # Who may not even look has tried to pull.
        request = request._replace(part="")
    elif request.part == "start":
        if outcome == "denied":
            request = request._replace(part="")
        elif status == 201:
            request = request._replace(part="mount" if text["mount"] else "blob", reference=text["mount"] or text["digest"])
        else:
            return None
    elif request.part == "look" and outcome != "ok":
        return None
    if not settings.authenticated:
        user = ANONYMOUS
    elif status == 401 and not (subject and 'error="insufficient_scope"' in text["www_authenticate"]):
        user = _claimed(name, settings)
    elif "claims" in entry:
        # The registry, or the token service for it, has let this name in.
        user = name or ANONYMOUS
    else:
        # A line from before the log told for whom tokens are.
        user = name or UNKNOWN
    is_digest = bool(_DIGEST.fullmatch(request.reference))
    kind = _kind(request, text["media_type"])
    upload = request.action == "push"
    result: Dict[str, Any] = {
        "time": _time(when),
        "node": settings.node,
        "request_id": text["request_id"],
        "action": request.action,
        "part": request.part,
        "user": user,
        "address": text["remote_addr"],
        "client": text["user_agent"],
        "repository": request.repository,
        "tag": "" if is_digest or kind == "blob" else request.reference,
        "digest": request.reference if is_digest else text["content_digest"],
        "kind": kind,
        "from": text["from"] if request.part == "mount" else "",
        "bytes": received if upload else sent,
        "seconds": round(seconds, 3),
        "result": outcome,
        "status": status,
    }
    return _tidy(result)


def from_token(line: bytes, settings: Settings) -> Optional[Dict[str, Any]]:
    """Return the login that a line of the token service's audit log tells of, None if it tells of none. Raises LineError.

    Clients ask for a token before each pull and push; a *login* asks for a token that allows nothing, or fails.
    """
    entry = _object(line)
    outcome = str(entry.get("result") or "")
    if entry.get("event") != "token" or entry.get("kind") not in ("password", "refresh_token"):
        return None
    if outcome in _BAD_LOGINS:
        result = "failed" if outcome == "busy" else "denied"
    elif outcome == "granted" and entry.get("kind") == "password" and not entry.get("asked") and entry.get("account") != ANONYMOUS:
        result = "ok"
    else:
        return None
    when = str(entry.get("time") or "")
    if not re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", when):
        raise LineError("a line of the token service without a time")
    return _tidy(
        {
            "time": when[:-1] + ".000Z",
            "node": settings.node,
            "request_id": str(entry.get("request_id") or ""),
            "action": "login",
            "user": str(entry.get("account") or UNKNOWN),
            "address": str(entry.get("address") or ""),
            "client": str(entry.get("user_agent") or ""),
            "result": result,
            "reason": "" if result == "ok" else outcome,
        }
    )


#: Fields of an access log that are texts.
_TEXTS = (
    "request_id", "remote_addr", "remote_user", "digest", "mount", "from", "completion", "content_digest", "www_authenticate",
    "user_agent", "claims", "media_type",
)  # fmt: skip


def _object(line: bytes) -> Mapping[str, Any]:
    try:
        # nginx writes bytes beyond ASCII as they came.
        entry = json.loads(line.decode("utf-8", "replace"))
    except (ValueError, RecursionError):
        raise LineError("a line that is no JSON") from None
    if not isinstance(entry, dict):
        raise LineError("a line that is no object")
    return entry


def _request(method: str, path: str, text: Mapping[str, str]) -> Optional[_Request]:
    """Tell what a request is about; None for what is not for the audit log."""
    if path in ("/v2/", "/v2"):
        return _Request("login", "", "", "") if method in _READS else None
    repository, kind, reference = _split(path)
    if kind == "manifests":
        actions = {"GET": ("pull", ""), "HEAD": ("pull", "look"), "PUT": ("push", ""), "DELETE": ("delete", "")}
        if method == "HEAD" and _DIGEST.fullmatch(reference):
            return None
    elif kind == "blobs":
        actions = {"GET": ("pull", "blob"), "DELETE": ("delete", "blob")}
    elif kind == "uploads":
        actions = {"POST": ("push", "start"), "PATCH": ("push", "blob"), "PUT": ("push", "blob")}
        reference = text["digest"] if method == "PUT" else ""
    else:
        return None
    if method not in actions:
        return None
    return _Request(*actions[method], repository, reference)


def _split(path: str) -> Tuple[str, str, str]:
    """Return repository, kind and reference of a path. A repository's name may hold the words that are between them."""
    if not path.startswith("/v2/"):
        return "", "", ""
    rest = path[len("/v2/") :]
    before, _slash, reference = rest.rpartition("/")
    for ending, kind in (("/manifests", "manifests"), ("/blobs/uploads", "uploads"), ("/blobs", "blobs")):
        if before.endswith(ending) and len(before) > len(ending):
            if kind == "blobs" and reference == "uploads":
                return before[: -len(ending)], "uploads", ""
            return before[: -len(ending)], kind, reference
    return "", "", ""


def _kind(request: _Request, media_type: str) -> str:
    if request.part in ("blob", "mount"):
        return "blob"
    if request.part or request.action not in ("pull", "push") or not request.reference:
        return ""
    return "index" if media_type.partition(";")[0].strip() in INDEXES else "image"


def _result(status: int, completion: str) -> str:
    if status in (0, 499) or (status < 400 and completion != "OK"):
        return "cut"
    if status < 400:
        return "ok"
    if status in (401, 403):
        return "denied"
    if status == 404:
        return "not_found"
    return "failed" if status == 429 or status >= 500 else "invalid"


def _subject(claims: str) -> str:
    """Return for whom a token is, of its middle part; empty if it does not tell. Whether it is genuine the registry has said."""
    try:
        content = json.loads(base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)).decode("utf-8"))
        subject = content.get("sub") if isinstance(content, dict) else ""
    except (ValueError, RecursionError):
        return ""
    return subject if isinstance(subject, str) else ""


def _claimed(name: str, settings: Settings) -> str:
    return name if name in settings.users else UNKNOWN


def _time(when: float) -> str:
    milliseconds = int(when * 1000 + 0.5)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(milliseconds // 1000)) + ".%03dZ" % (milliseconds % 1000)


def _tidy(fields: Mapping[str, Any]) -> Dict[str, Any]:
    """Leave out what is empty, and cut what a client sent to a length."""
    return {name: _cut(value) if isinstance(value, str) else value for name, value in fields.items() if value not in ("", None)}


def _cut(text: str) -> str:
    """Cut a text so that a line stays well below what syslog carries: characters beyond ASCII are written as six or twelve."""
    text = text[:LONGEST]
    while len(json.dumps(text)) > LONGEST + 2:
        text = text[:-1]
    return text


def as_line(record: Mapping[str, Any]) -> bytes:
    """Return a record as a line. ASCII only: nothing in it can end the line or move a terminal's cursor."""
    return (json.dumps(record, separators=(",", ":")) + "\n").encode("ascii")
