# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This file is private to the collection: it may change in any release.

"""Files that are whole at every moment, with their final mode and owner from the first byte on.

Everything here is plain Python: errors are :class:`OSError` (the system said no) or :class:`FileRefused` (the caller
asked for something that must not be done), never an exit.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import glob
import grp
import os
import pwd
import re
import secrets
import stat
import time
from dataclasses import dataclass
from typing import Iterator

_TEMPORARY_SUFFIX = ".wharf-tmp"
_SYMBOLIC_CLAUSE = re.compile(r"^(?P<who>[ugoa]*)(?P<operator>[-+=])(?P<permissions>[rwx]*)$")


class FileRefused(ValueError):
    """The path or the attributes asked for cannot be used; the message says why and what to write instead."""


@dataclass(frozen=True)
class Attributes:
    """Mode (permission bits) and numeric owner and group of a file; None stands for "as it is, else the default"."""

    mode: int | None = None
    uid: int | None = None
    gid: int | None = None


# ---------------------------------------------------------------------------------------------------------- attributes


def parse_mode(value: object, option: str = "mode", current: int = 0) -> int:
    """Return the permission bits that an Ansible ``mode`` means.

    :param value: octal as string (``"0640"``), the integer that YAML makes of an unquoted ``0640``, or symbolic
        (``u=rw,g=r,o=``).
    :param option: the option's name, for the message.
    :param current: the bits that symbolic clauses start from.
    :raises FileRefused: for anything else. An unquoted ``640`` (without the zero) is the integer 640 = 0o1200 and is
        refused too: set-id and sticky bits have no place on the files of this collection.
    """
    refusal = FileRefused(f'{option}: {value!r} is no file mode; write for example {option}: "0640"')
    if isinstance(value, bool) or value is None:
        raise refusal
    if isinstance(value, int):
        bits = value
    else:
        text = str(value).strip()
        if re.fullmatch(r"(0o)?[0-7]{1,5}", text):
            bits = int(text.replace("0o", ""), 8)
        else:
            bits = _apply_symbolic(text, current, refusal)
    if bits < 0 or bits > 0o777:
        raise refusal
    return bits


def _apply_symbolic(text: str, current: int, refusal: FileRefused) -> int:
    bits = current
    for clause in text.split(","):
        match = _SYMBOLIC_CLAUSE.fullmatch(clause.strip())
        if match is None:
            raise refusal
        who = match.group("who") or "a"
        wanted = 0
        touched = 0
        for letter, shift in (("u", 6), ("g", 3), ("o", 0)):
            if letter in who or "a" in who:
                touched |= 0o7 << shift
                for permission, bit in (("r", 4), ("w", 2), ("x", 1)):
                    if permission in match.group("permissions"):
                        wanted |= bit << shift
        if match.group("operator") == "=":
            bits = (bits & ~touched) | wanted
        elif match.group("operator") == "+":
            bits |= wanted
        else:
            bits &= ~wanted
    return bits


def find_uid(owner: str | None, option: str = "owner") -> int | None:
    """Return the numeric user of a name or number; None for None.

    :raises FileRefused: if this system knows no such user.
    """
    if owner is None:
        return None
    if str(owner).isdigit():
        return int(owner)
    try:
        return pwd.getpwnam(owner).pw_uid
    except KeyError:
        raise FileRefused(f"{option}: there is no user {owner!r} on this system; create it first, or give a number such as 65532") from None


def find_gid(group: str | None, option: str = "group") -> int | None:
    """Return the numeric group of a name or number; None for None.

    :raises FileRefused: if this system knows no such group.
    """
    if group is None:
        return None
    if str(group).isdigit():
        return int(group)
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        raise FileRefused(
            f"{option}: there is no group {group!r} on this system; create it first, or give a number such as 65532"
        ) from None


def resolve_attributes(
    path: str,
    *,
    mode: object,
    owner: str | None,
    group: str | None,
    prefix: str = "",
    lenient: bool = False,
) -> tuple[Attributes, list[str]]:
    """Return the attributes that a module's ``mode``, ``owner`` and ``group`` options mean for the file at *path*.

    :param prefix: what stands before the options' names, for messages (``privatekey_``).
    :param lenient: for check mode, where an earlier task may have created the user only on paper: names that this
        system does not know are returned as second value (``owner``, ``group``) instead of refused.
    :raises FileRefused: for a mode that is none, and for unknown names.
    """
    current = read_attributes(path)
    bits = parse_mode(mode, f"{prefix}mode", current.mode if current is not None and current.mode is not None else 0o600)
    unknown = []
    uid = gid = None
    try:
        uid = find_uid(owner, f"{prefix}owner")
    except FileRefused:
        if not lenient:
            raise
        unknown.append("owner")
    try:
        gid = find_gid(group, f"{prefix}group")
    except FileRefused:
        if not lenient:
            raise
        unknown.append("group")
    return Attributes(bits, uid, gid), unknown


def read_attributes(path: str) -> Attributes | None:
    """Return mode, owner and group of the file at *path* (links are followed), None if there is none."""
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return None
    return Attributes(stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid)


def differing_attributes(path: str, wanted: Attributes) -> list[str]:
    """Return which of ``mode``, ``owner``, ``group`` of an existing file are not as wanted."""
    current = read_attributes(path)
    if current is None:
        return []
    differing = []
    if wanted.mode is not None and current.mode != wanted.mode:
        differing.append("mode")
    if wanted.uid is not None and current.uid != wanted.uid:
        differing.append("owner")
    if wanted.gid is not None and current.gid != wanted.gid:
        differing.append("group")
    return differing


def apply_attributes(path: str, wanted: Attributes) -> None:
    """Give an existing file the mode, owner and group wanted, without touching its content.

    The mode is narrowed before the owner changes, and set fully afterwards, so that nobody can read in between who
    may not read before or after.
    """
    current = read_attributes(path)
    if current is None:
        return
    current_mode = current.mode if current.mode is not None else 0
    final_mode = current_mode if wanted.mode is None else wanted.mode
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if current_mode & final_mode != current_mode:
            os.fchmod(descriptor, current_mode & final_mode)
        uid = -1 if wanted.uid is None or wanted.uid == current.uid else wanted.uid
        gid = -1 if wanted.gid is None or wanted.gid == current.gid else wanted.gid
        if (uid, gid) != (-1, -1):
            os.fchown(descriptor, uid, gid)
        os.fchmod(descriptor, final_mode)
    finally:
        os.close(descriptor)


# ------------------------------------------------------------------------------------------------------------- reading


def resolve_path(path: str, *, follow: bool, option: str = "path") -> str:
    """Return the path of the file to work on.

    :param follow: whether a symbolic link may stand there; then the file it points to is meant, and the link stays.
    :raises FileRefused: for a link without *follow*, for a directory, device or socket, and for a loop of links.
    """
    if os.path.islink(path):
        if not follow:
            raise FileRefused(f"{option}: {path} is a symbolic link to {os.readlink(path)}; name that file, or set follow: true")
        target = os.path.realpath(path)
        if os.path.islink(target):
            raise FileRefused(f"{option}: {path} is a loop of symbolic links")
        path = target
    if os.path.exists(path) and not os.path.isfile(path):
        raise FileRefused(f"{option}: {path} is no regular file; give the path of a file")
    return path


def require_directory(path: str, option: str = "path") -> None:
    """Refuse a path whose directory does not exist.

    :raises FileRefused: naming the directory.
    """
    directory = os.path.dirname(os.path.abspath(path))
    if not os.path.isdir(directory):
        raise FileRefused(f"{option}: the directory {directory} does not exist; create it first")


def read_if_there(path: str) -> bytes | None:
    """Return the content of the file at *path*, None if there is none."""
    try:
        with open(path, "rb") as handle:
            return handle.read()
    except FileNotFoundError:
        return None


# ------------------------------------------------------------------------------------------------------------- writing


def write_atomically(path: str, content: bytes, *, mode: int, uid: int | None = None, gid: int | None = None) -> None:
    """Put *content* at *path* in one step: whoever opens the path sees the old file or the new one, whole.

    The new file is written under a name of its own in the same directory (so that a bind mount of the directory sees
    the change), with its final mode and owner before its first byte, flushed to the disk, and renamed. A process that
    is killed leaves at most such a temporary file; see :func:`remove_leftovers`.

    :param mode: permission bits, e.g. ``0o640``. They are exact: the umask does not matter.
    :param uid: numeric owner; None keeps the owner of the file that is replaced, else the process's.
    :param gid: numeric group; likewise.
    :raises OSError: if the directory does not exist or the system refuses; the file at *path* is then as it was.
    """
    directory = os.path.dirname(os.path.abspath(path))
    current = read_attributes(path)
    temporary = os.path.join(directory, f".{os.path.basename(path)}.{secrets.token_hex(8)}{_TEMPORARY_SUFFIX}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        try:
            _give_owner(descriptor, current, uid, gid)
            os.fchmod(descriptor, mode)
            if current is not None:
                _copy_security_label(path, descriptor)
            view = memoryview(content)
            while view:
                view = view[os.write(descriptor, view) :]
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.rename(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    flush_directory(directory)


def _give_owner(descriptor: int, current: Attributes | None, uid: int | None, gid: int | None) -> None:
    """Set the owner asked for; what nobody asked for is kept, where the system lets an ordinary user do that."""
    if uid is not None or gid is not None:
        os.fchown(descriptor, -1 if uid is None else uid, -1 if gid is None else gid)
    if current is None or current.uid is None or current.gid is None:
        return
    if uid is None:
        with contextlib.suppress(PermissionError):
            os.fchown(descriptor, current.uid, -1)
    if gid is None:
        with contextlib.suppress(PermissionError):
            os.fchown(descriptor, -1, current.gid)


def _copy_security_label(path: str, descriptor: int) -> None:
    """Keep the SELinux label of the file that is replaced: a rename would bring the directory's default label."""
    with contextlib.suppress(OSError, AttributeError):
        os.setxattr(descriptor, "security.selinux", os.getxattr(path, "security.selinux"))


def flush_directory(directory: str) -> None:
    """Make a rename survive a power cut; file systems that cannot flush a directory say EINVAL."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EBADF, errno.EROFS):
            raise
    finally:
        os.close(descriptor)


def remove_leftovers(path: str) -> None:
    """Remove the temporary files that killed writers of *path* left beside it; call it with the lock held."""
    directory = os.path.dirname(os.path.abspath(path))
    pattern = os.path.join(glob.escape(directory), f".{glob.escape(os.path.basename(path))}.*{_TEMPORARY_SUFFIX}")
    for leftover in glob.glob(pattern):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(leftover)


def back_up(path: str) -> str:
    """Copy the file at *path* beside it, with the same mode and owner from the first byte, and return the copy's path.

    The name has the form that Ansible's own modules use: ``<path>.<process>.<date>@<time>~``.
    """
    content = read_if_there(path)
    attributes = read_attributes(path)
    if content is None or attributes is None or attributes.mode is None:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
    copy = f"{path}.{os.getpid()}.{time.strftime('%Y-%m-%d@%H:%M:%S', time.localtime())}~"
    write_atomically(copy, content, mode=attributes.mode, uid=attributes.uid, gid=attributes.gid)
    return copy


@contextlib.contextmanager
def locked(path: str, *, timeout: float = 900.0) -> Iterator[None]:
    """Keep other writers of this collection away from the files in the directory of *path*.

    The lock is an exclusive ``flock`` of the directory itself: it leaves no file behind and ends with the process,
    however that ends. NFS cannot lock a directory; there a hidden file ``.wharf.lock`` in it serves.

    :param timeout: seconds to wait for another writer.
    :raises TimeoutError: if the other writer takes longer.
    """
    directory = os.path.dirname(os.path.abspath(path))
    deadline = time.monotonic() + timeout
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        while not _try_to_lock(descriptor):
            if time.monotonic() > deadline:
                raise TimeoutError(f"another process has held the lock of {directory} for {timeout:.0f} seconds")
            time.sleep(0.05)
    except OSError as error:
        os.close(descriptor)
        if error.errno not in (errno.EBADF, errno.EINVAL, errno.ENOLCK, errno.EOPNOTSUPP):
            raise
        descriptor = os.open(os.path.join(directory, ".wharf.lock"), os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        yield
    finally:
        os.close(descriptor)


def _try_to_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
