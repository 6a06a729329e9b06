# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This file is private to the collection: it may change in any release.

"""htpasswd files with bcrypt hashes, the only ones that the Distribution registry accepts.

Format, as the registry reads it (``registry/auth/htpasswd/htpasswd.go``, the same in 2.8 and 3.x): one ``name:hash`` a
line; white space around a line is cut; empty lines and lines that begin with ``#`` are ignored; a line without a colon
makes the whole file unreadable, and so does a line of 64 KiB or more (the limit of Go's ``bufio.Scanner``); of two
lines with one name the last counts. Hashes: ``$2y$<cost>$<22 characters salt><31 characters hash>``
(https://httpd.apache.org/docs/2.4/misc/password_encryptions.html); ``$2a$`` and ``$2b$`` are the same algorithm.
bcrypt looks at the first 72 bytes of a password only.
"""

from __future__ import annotations

import os
import re
import sys
import threading
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Callable, TypeVar

from . import _files

MINIMUM_COST = 4
MAXIMUM_COST = 17
MAXIMUM_NAME_BYTES = 255
MAXIMUM_PASSWORD_BYTES = 72
_MAXIMUM_LINE_BYTES = 64 * 1024 - 1

_BCRYPT = re.compile(r"^\$2[aby]\$(?P<cost>[0-9]{2})\$[./A-Za-z0-9]{53}$")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
# What Go's strings.TrimSpace cuts; Python's str.strip would cut the separators \x1c to \x1f too.
_WHITE_SPACE = "\t\n\v\f\r \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u2028\u2029\u202f\u205f\u3000"
# A hash that any working bcrypt confirms for the password "wharf" (cost 4: a millisecond).
_SELF_TEST = ("wharf", "$2y$04$abcdefghijklmnopqrstuupfH0Yeb7ByH603mewDfyDL5jqAq6arm")

_Work = TypeVar("_Work")
_Answer = TypeVar("_Answer")


class HtpasswdRefused(ValueError):
    """The users asked for, or the file found, cannot be used; nothing has been changed."""


class BcryptMissing(RuntimeError):
    """No working bcrypt library for this Python; the message names the packages of this system."""


# --------------------------------------------------------------------------------------------------------------- users


@dataclass(frozen=True)
class User:
    """One user as wanted; *password* is None only where it does not matter (``present`` is False)."""

    name: str
    password: str | None = field(default=None, repr=False)
    present: bool = True
    cost: int | None = None  # None: the request's


def check_users(users: Sequence[User], label: str = "users") -> None:
    """Refuse users that no htpasswd file can hold, or that bcrypt would take for somebody else.

    :param label: ``users`` for a list, ``name`` for the short form; only for messages.
    :raises HtpasswdRefused: for a name that is empty, longer than 255 bytes, contains a colon or control characters, has
        white space at an end or begins with ``#``; for a password that is missing, empty, longer than 72 bytes or
        contains a NUL; and for a name given twice.
    """
    seen: dict[str, int] = {}
    for index, user in enumerate(users):
        where = f"users[{index}]" if label == "users" else "name"
        fault = _fault_of_name(user.name)
        if fault:
            raise HtpasswdRefused(f"{where}: the name {user.name!r} {fault}; an example that works: alice")
        if user.name in seen:
            raise HtpasswdRefused(
                f"{where}: the name {user.name!r} is in users twice (also at users[{seen[user.name]}]); list each user once"
            )
        seen[user.name] = index
        if user.present:
            fault = _fault_of_password(user.password)
            if fault:
                where = f"users[{index}]" if label == "users" else "password"
                raise HtpasswdRefused(
                    f"{where}: the password of {user.name!r} {fault}; an example that works: 32 random letters and digits"
                )


def _fault_of_name(name: str) -> str | None:
    encoded = name.encode("utf-8", "surrogateescape")
    if not name:
        return "is empty"
    if ":" in name:
        return "contains a colon, which ends the name in the file"
    if _CONTROL.search(name):
        return "contains a control character"
    if len(encoded) > MAXIMUM_NAME_BYTES:
        return f"is {len(encoded)} bytes long; at most {MAXIMUM_NAME_BYTES} are possible"
    if name != name.strip(_WHITE_SPACE):
        return "has white space at its beginning or end, which the registry cuts"
    if name.startswith("#"):
        return "begins with #, which makes its line a comment"
    if any(0xD800 <= ord(character) <= 0xDFFF for character in name):
        return "is not valid Unicode"
    return None


def _fault_of_password(password: str | None) -> str | None:
    if password is None:
        return "is missing (state: present needs one)"
    if not password:
        return "is empty"
    if "\0" in password:
        return "contains a NUL character, where bcrypt would stop reading"
    try:
        length = len(password.encode("utf-8"))
    except UnicodeEncodeError:
        return "is not valid Unicode"
    if length > MAXIMUM_PASSWORD_BYTES:
        return f"is {length} bytes long; bcrypt would silently ignore everything after the first {MAXIMUM_PASSWORD_BYTES}"
    return None


# ---------------------------------------------------------------------------------------------------------------- file


@dataclass(frozen=True)
class Line:
    """One line of the file without its line feed. ``name`` is None for comments, empty and malformed lines."""

    raw: bytes
    name: str | None = None
    digest: str = field(default="", repr=False)
    fault: str | None = None


def parse(content: bytes) -> list[Line]:
    """Return the lines of an htpasswd file. Every byte is kept in them, also of lines that nobody understands."""
    pieces = content.split(b"\n")
    if pieces[-1] == b"":
        pieces.pop()
    return [_parse_line(piece) for piece in pieces]


def _parse_line(raw: bytes) -> Line:
    text = raw.decode("utf-8", "surrogateescape").strip(_WHITE_SPACE)
    if len(raw) > _MAXIMUM_LINE_BYTES:
        return Line(raw, fault="is longer than 64 KiB")
    if not text or text.startswith("#"):
        return Line(raw)
    name, colon, digest = text.partition(":")
    if not colon:
        return Line(raw, fault="has no colon")
    if not name:
        return Line(raw, fault="has no name before the colon")
    if _CONTROL.search(name):
        return Line(raw, fault="has a control character in the name")
    return Line(raw, name, digest)


def render(lines: Iterable[Line]) -> bytes:
    """Return the file's content for lines; each ends with a line feed."""
    return b"".join(line.raw + b"\n" for line in lines)


def make_line(name: str, digest: str) -> Line:
    """Return the line for a user."""
    return Line(f"{name}:{digest}".encode(), name, digest)


def cost_of(digest: str) -> int | None:
    """Return the bcrypt cost of a hash, None if the hash is no bcrypt that the registry accepts."""
    match = _BCRYPT.fullmatch(digest)
    if match is None:
        return None
    cost = int(match.group("cost"))
    return cost if 4 <= cost <= 31 else None


def describe(digest: str) -> str:
    """Say what a hash is without showing it."""
    cost = cost_of(digest)
    return "no bcrypt" if cost is None else f"bcrypt, cost {cost}"


# -------------------------------------------------------------------------------------------------------------- bcrypt


@dataclass(frozen=True)
class Bcrypt:
    """A working bcrypt: ``hash(password, cost)`` gives a ``$2y$`` hash, ``verify(password, digest)`` a boolean."""

    library: str
    hash: Callable[[str, int], str]
    verify: Callable[[str, str], bool]


def load_bcrypt() -> Bcrypt:
    """Return bcrypt by the library ``bcrypt``, else by passlib (or its successor libpass).

    The library bcrypt comes first because passlib 1.7.4 cannot work with bcrypt 5 ("password cannot be longer than 72
    bytes", raised while it tries the library out) and because bcrypt releases the interpreter lock while it computes.
    Each candidate proves itself on a known hash.

    :raises BcryptMissing: if neither is there or works.
    """
    troubles = []
    for load in (_load_bcrypt_library, _load_passlib):
        try:
            candidate = load()
            if candidate.verify(*_SELF_TEST) and not candidate.verify("other", _SELF_TEST[1]):
                return candidate
            troubles.append(f"{candidate.library} gives wrong answers")
        except ImportError:
            continue
        except Exception as error:  # noqa: BLE001 - whatever breaks a library, the next one may work
            troubles.append(f"{load.__name__.replace('_load_', '')}: {type(error).__name__}: {error}")
    raise BcryptMissing(_describe_missing(troubles))


def _load_bcrypt_library() -> Bcrypt:
    import bcrypt  # pylint: disable=import-outside-toplevel

    if not hasattr(bcrypt, "checkpw"):
        raise ImportError("the module bcrypt is not the library bcrypt")

    def compute(password: str, cost: int) -> str:
        digest: bytes = bcrypt.hashpw(password.encode("utf-8"), bcrypt.gensalt(rounds=cost, prefix=b"2b"))
        return "$2y$" + digest.decode("ascii")[4:]

    def verify(password: str, digest: str) -> bool:
        try:
            return bool(bcrypt.checkpw(password.encode("utf-8"), b"$2b$" + digest[4:].encode("ascii")))
        except ValueError:  # a salt that only looks like one
            return False

    return Bcrypt("bcrypt", compute, verify)


def _load_passlib() -> Bcrypt:
    from passlib.hash import bcrypt as scheme  # pylint: disable=import-outside-toplevel

    def compute(password: str, cost: int) -> str:
        return "$2y$" + str(scheme.using(rounds=cost, ident="2b").hash(password))[4:]

    def verify(password: str, digest: str) -> bool:
        try:
            return bool(scheme.verify(password, "$2b$" + digest[4:]))
        except (ValueError, TypeError):
            return False

    scheme.get_backend()  # raises MissingBackendError here, not in a thread
    return Bcrypt("passlib", compute, verify)


def _describe_missing(troubles: Sequence[str], os_release: str = "/etc/os-release", executable: str | None = None) -> str:
    """Return the one message for a system without bcrypt, with the names of its packages."""
    executable = executable or sys.executable or "python3"
    text = (_files.read_if_there(os_release) or b"").decode("utf-8", "replace")
    pairs = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
    kinds = {word for key in ("ID", "ID_LIKE") for word in pairs.get(key, "").strip("\"'").split()}
    if kinds & {"debian", "ubuntu"}:
        advice = "apt install python3-bcrypt (or python3-passlib together with it)"
    elif kinds & {"rhel", "fedora", "centos"}:
        advice = "dnf install python3-bcrypt (on RHEL and its rebuilds from EPEL: dnf install epel-release first)"
    elif kinds & {"suse", "opensuse", "sles"}:
        advice = "zypper install python3-bcrypt"
    elif "alpine" in kinds:
        advice = "apk add py3-bcrypt"
    elif "arch" in kinds:
        advice = "pacman -S python-bcrypt"
    else:
        advice = "install the package python3-bcrypt or its like"
    if not executable.startswith("/usr/bin/") and not executable.startswith("/usr/libexec/"):
        advice = f"{executable} -m pip install bcrypt; for the system's own Python: {advice}"
    because = f" ({'; '.join(troubles)})" if troubles else ""
    return f"neither the Python library bcrypt nor a passlib that can do bcrypt is there for {executable}{because}: {advice}"


def _usable_cores() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on Linux
        return os.cpu_count() or 1


def _map_on_all_cores(work: Callable[[_Work], _Answer], pieces: Sequence[_Work]) -> list[_Answer]:
    cores = min(_usable_cores(), len(pieces))
    if cores < 2:
        return [work(piece) for piece in pieces]
    with ThreadPoolExecutor(cores) as pool:
        return list(pool.map(work, pieces))


# ---------------------------------------------------------------------------------------------------------------- plan


@dataclass
class Plan:
    """What is to happen to a file: names in the order of the request, or of the file for strangers."""

    added: list[str] = field(default_factory=list)
    updated: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    kept: dict[str, str] = field(default_factory=dict, repr=False)
    reasons: dict[str, str] = field(default_factory=dict)
    dropped: list[int] = field(default_factory=list)

    @property
    def changed(self) -> bool:
        """Whether the content of the file changes."""
        return bool(self.added or self.updated or self.removed or self.dropped)

    @property
    def to_hash(self) -> list[str]:
        """Names whose password must be hashed."""
        return self.added + [name for name in self.updated if name not in self.kept]


def plan_users(
    lines: Sequence[Line],
    users: Sequence[User],
    *,
    exclusive: bool,
    cost: int,
    on_create: bool,
    force: bool,
    verify: Callable[[str, str], bool],
) -> Plan:
    """Compare the users in a file with those wanted.

    A hash stays if it is bcrypt of the wanted cost and its password still matches (only those are verified, each pair
    of password and hash once, on all cores). With *on_create* the hash of a user who is there stays whatever it is.

    :param force: drop malformed lines instead of refusing them.
    :raises HtpasswdRefused: for malformed lines, by number.
    """
    faults = [(number, line.fault) for number, line in enumerate(lines, start=1) if line.fault]
    if faults and not force:
        listed = "; ".join(f"line {number} {fault}" for number, fault in faults[:5])
        more = f"; and {len(faults) - 5} more" if len(faults) > 5 else ""
        raise HtpasswdRefused(
            f"malformed: {listed}{more}. The registry cannot read such a file. Correct it, or remove those lines with force: true"
        )

    plan = Plan(dropped=[number for number, _fault in faults])
    digests: dict[str, str] = {}
    count: dict[str, int] = {}
    for line in lines:
        if line.name is not None:
            digests[line.name] = line.digest  # of several lines the last counts
            count[line.name] = count.get(line.name, 0) + 1

    doubtful = {}
    for user in users:
        if user.present and user.name in digests and not on_create and cost_of(digests[user.name]) == (user.cost or cost):
            doubtful[(user.password or "", digests[user.name])] = False
    pairs = list(doubtful)
    matching = dict(zip(pairs, _map_on_all_cores(lambda pair: verify(*pair), pairs)))

    wanted = {user.name for user in users if user.present}
    for user in users:
        there = user.name in digests
        if not user.present:
            if there:
                plan.removed.append(user.name)
        elif not there:
            plan.added.append(user.name)
        else:
            _plan_one(plan, user, digests[user.name], count[user.name], user.cost or cost, on_create, matching)
    if exclusive:
        plan.removed.extend(name for name in digests if name not in wanted and name not in plan.removed)
    return plan


def _plan_one(plan: Plan, user: User, digest: str, count: int, cost: int, on_create: bool, matching: dict[tuple[str, str], bool]) -> None:
    current = cost_of(digest)
    if on_create or matching.get((user.password or "", digest), False):
        plan.kept[user.name] = digest
        if count > 1:
            plan.updated.append(user.name)
            plan.reasons[user.name] = "was listed more than once"
        return
    plan.updated.append(user.name)
    if current is None:
        plan.reasons[user.name] = "was no bcrypt"
    elif current != cost:
        plan.reasons[user.name] = f"had cost {current}"
    else:
        plan.reasons[user.name] = "other password"


def apply_plan(lines: Sequence[Line], plan: Plan, digests: dict[str, str]) -> list[Line]:
    """Return the lines after a plan: comments, order and other users' lines stay, new users come last.

    :param digests: the new hash for each of ``plan.to_hash``.
    """
    removed = set(plan.removed)
    fresh = {name: digests.get(name, plan.kept.get(name, "")) for name in plan.updated}
    written = set()
    result = []
    for line in lines:
        if line.fault or line.name in removed:
            continue
        if line.name in fresh:
            if line.name in written:
                continue
            written.add(line.name)
            line = make_line(line.name, fresh[line.name])
        result.append(line)
    result.extend(make_line(name, digests.get(name, "")) for name in plan.added)
    return result


# -------------------------------------------------------------------------------------------------------------- manage


@dataclass(frozen=True)
class Request:
    """Everything that ``htpasswd_user`` is asked for; *attributes* must carry a mode."""

    path: str
    users: Sequence[User]
    attributes: _files.Attributes
    unknown_attributes: Sequence[str] = ()
    label: str = "users"
    exclusive: bool = False
    cost: int = 10
    on_create: bool = False
    create: bool = True
    follow: bool = False
    force: bool = False
    backup: bool = False


@dataclass
class Outcome:
    """What was done, or would be: names only."""

    changed: bool
    users: list[str]
    added: list[str]
    updated: list[str]
    removed: list[str]
    before: str
    after: str
    warnings: list[str] = field(default_factory=list)
    backup_file: str | None = None


def manage(request: Request, *, check: bool) -> Outcome:
    """Bring the users of an htpasswd file into the wanted state.

    :param check: only say what would happen. No lock is taken and nothing is hashed, and the directory need not exist.
    :raises HtpasswdRefused: before anything is changed, for bad users, a bad cost, a malformed or missing file.
    :raises _files.FileRefused: likewise, for a path or directory that cannot be used.
    :raises BcryptMissing: likewise, if a password must be hashed or verified and no library can.
    :raises OSError: if the system refuses to read or write; the file is then as it was.
    """
    check_users(request.users, request.label)
    for cost in [request.cost, *(user.cost for user in request.users if user.cost is not None)]:
        if not MINIMUM_COST <= cost <= MAXIMUM_COST:
            raise HtpasswdRefused(f"cost: {cost} is not between {MINIMUM_COST} and {MAXIMUM_COST}; an example that works: 10")
    path = _files.resolve_path(request.path, follow=request.follow)
    if not os.path.exists(path) and not request.create:
        raise HtpasswdRefused(f"path: {request.path} does not exist; create it first, or set create: true")
    if check:
        return _manage(request, path, check=True)
    _files.require_directory(path)
    with _files.locked(path):
        _files.remove_leftovers(path)
        return _manage(request, path, check=False)


def _manage(request: Request, path: str, *, check: bool) -> Outcome:
    content = _files.read_if_there(path)
    lines = parse(content or b"")
    library = _LazyBcrypt()
    try:
        plan = plan_users(
            lines,
            request.users,
            exclusive=request.exclusive,
            cost=request.cost,
            on_create=request.on_create,
            force=request.force,
            verify=library.verify,
        )
    except HtpasswdRefused as error:
        raise HtpasswdRefused(f"path: {request.path} is {error}") from None

    differing = [] if content is None else _files.differing_attributes(path, request.attributes)
    if content is not None:
        differing += [name for name in request.unknown_attributes if name not in differing]
    wanted = {user.name: user for user in request.users}
    costs = {user.name: user.cost or request.cost for user in request.users}
    names = plan.to_hash
    hashed: dict[str, str] = {}
    if names and not check:
        hashed = dict(zip(names, _map_on_all_cores(lambda name: library.hash(wanted[name].password or "", costs[name]), names)))
    after = apply_plan(lines, plan, hashed if not check else dict.fromkeys(names, ""))
    outcome = Outcome(
        changed=plan.changed or bool(differing),
        users=_names(after),
        added=plan.added,
        updated=plan.updated,
        removed=[_printable(name) for name in plan.removed],
        before=_summary(lines, {}, {}),
        after=_summary(after, {name: plan.reasons.get(name, "new") for name in plan.added + plan.updated}, costs, set(plan.kept)),
        warnings=[f"line {number} of {request.path} was malformed and is removed" for number in plan.dropped],
    )
    if differing:
        current = _files.read_attributes(path)
        outcome.before = _describe_attributes(current, differing) + outcome.before
        outcome.after = _describe_attributes(request.attributes, differing) + outcome.after
    if check or not outcome.changed:
        return outcome

    if request.backup and content is not None:
        outcome.backup_file = _files.back_up(path)
    if plan.changed:
        mode = request.attributes.mode if request.attributes.mode is not None else 0o640
        _files.write_atomically(path, render(after), mode=mode, uid=request.attributes.uid, gid=request.attributes.gid)
    else:
        _files.apply_attributes(path, request.attributes)
    return outcome


class _LazyBcrypt:
    """bcrypt that is looked for only when the first password must be hashed or verified."""

    def __init__(self) -> None:
        self._library: Bcrypt | None = None
        self._lock = threading.Lock()

    def _get(self) -> Bcrypt:
        with self._lock:
            if self._library is None:
                self._library = load_bcrypt()
            return self._library

    def hash(self, password: str, cost: int) -> str:
        return self._get().hash(password, cost)

    def verify(self, password: str, digest: str) -> bool:
        return self._get().verify(password, digest)


def _printable(name: str) -> str:
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _names(lines: Iterable[Line]) -> list[str]:
    return list(dict.fromkeys(_printable(line.name) for line in lines if line.name is not None))


def _summary(lines: Iterable[Line], marks: dict[str, str], costs: dict[str, int], kept: Iterable[str] = ()) -> str:
    """Return the users and what their hashes are, for a diff: never a hash."""
    result = []
    for line in lines:
        if line.fault:
            result.append("(malformed line)")
        elif line.name in marks:
            kind = describe(line.digest) if line.name in kept else f"bcrypt, cost {costs[line.name]}"
            result.append(f"{_printable(line.name)}: {kind} ({marks[line.name]})")
        elif line.name is not None:
            result.append(f"{_printable(line.name)}: {describe(line.digest)}")
    return "".join(f"{text}\n" for text in result)


def _describe_attributes(attributes: _files.Attributes | None, names: Sequence[str]) -> str:
    if attributes is None:
        return ""
    shown = {"mode": None if attributes.mode is None else f"{attributes.mode:04o}", "owner": attributes.uid, "group": attributes.gid}
    return "".join(f"({name} {'(to be created)' if shown[name] is None else shown[name]})\n" for name in names)
