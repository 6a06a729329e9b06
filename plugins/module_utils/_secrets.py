# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This file is private to the collection: it may change in any release.

"""Random secrets in files of their own, generated once and never again."""

from __future__ import annotations

import os
import re
import secrets
import stat
import string
from collections.abc import Sequence
from dataclasses import dataclass

from . import _files

DEFAULT_ALPHABET = string.ascii_letters + string.digits
MINIMUM_BITS = 64
_NAME = re.compile(r"^[A-Za-z0-9_@+=-][A-Za-z0-9._@+=-]*(/[A-Za-z0-9_@+=-][A-Za-z0-9._@+=-]*)*$")


class SecretsRefused(ValueError):
    """What is asked for, or what was found, cannot be used; nothing has been changed."""


@dataclass(frozen=True)
class Secret:
    """A secret wanted: the file's name relative to the directory, and what it is made of if it does not exist."""

    name: str
    length: int = 32
    alphabet: str = DEFAULT_ALPHABET


def check_secrets(wanted: Sequence[Secret]) -> None:
    """Refuse names that leave the directory or clash, and secrets that could be guessed.

    :raises SecretsRefused: with the item, what is wrong and an example.
    """
    seen = set()
    for index, secret in enumerate(wanted):
        where = f"secrets[{index}]"
        if not _NAME.fullmatch(secret.name):
            raise SecretsRefused(f"{where}: the name {secret.name!r} is no relative file name; an example that works: users/admin")
        if secret.name in seen:
            raise SecretsRefused(f"{where}: the name {secret.name!r} is there twice; list each secret once")
        seen.add(secret.name)
        distinct = len(set(secret.alphabet))
        if distinct < 2 or not secret.alphabet.isascii() or not secret.alphabet.isprintable() or distinct != len(secret.alphabet):
            raise SecretsRefused(
                f"{where}: the alphabet of {secret.name} needs two or more different printable ASCII characters, each once"
            )
        if not 1 <= secret.length <= 4096 or distinct**secret.length < 2**MINIMUM_BITS:
            raise SecretsRefused(f"{where}: {secret.length} is no length for {secret.name}: it could be guessed; an example that works: 32")


def generate(secret: Secret) -> str:
    """Return a new random value; every character of the alphabet is equally likely at each place."""
    return "".join(secrets.choice(secret.alphabet) for _place in range(secret.length))


def manage(directory: str, wanted: Sequence[Secret], *, check: bool) -> tuple[bool, list[str]]:
    """Create those files of *wanted* that are missing, each with a new random value and mode 0600.

    Files that exist are left as they are, whatever they hold; but their mode is narrowed to the owner's bits. The
    directory, and those between it and the files, get mode 0700 when they are created; *directory* itself is corrected.

    :param check: only say what would happen.
    :returns: whether anything changed, and the names of the secrets created, in the order wanted. Never a value.
    :raises SecretsRefused: before anything is changed, for bad names and for files that are empty or not regular.
    :raises OSError: if the system refuses.
    """
    check_secrets(wanted)
    if os.path.lexists(directory) and not os.path.isdir(directory):
        raise SecretsRefused(f"path: {directory} is no directory; remove it or name another one")
    missing, too_open = _look(directory, wanted)
    changed = bool(missing or too_open) or not os.path.isdir(directory) or _mode(directory) != 0o700
    if check or not changed:
        return changed, [secret.name for secret in missing]

    _make_directory(directory)
    if _mode(directory) != 0o700:
        os.chmod(directory, 0o700)
    with _files.locked(os.path.join(directory, "any")):
        missing, too_open = _look(directory, wanted)  # another run may have been faster
        for path in too_open:
            os.chmod(path, _mode(path) & 0o700)
        for secret in missing:
            path = os.path.join(directory, secret.name)
            _make_directory(os.path.dirname(path))
            _files.remove_leftovers(path)
            _files.write_atomically(path, generate(secret).encode("ascii"), mode=0o600)
    return changed, [secret.name for secret in missing]


def _look(directory: str, wanted: Sequence[Secret]) -> tuple[list[Secret], list[str]]:
    missing = []
    too_open = []
    for secret in wanted:
        path = os.path.join(directory, secret.name)
        if not os.path.lexists(path):
            missing.append(secret)
            continue
        if not os.path.isfile(path):
            raise SecretsRefused(f"path: {path} is no regular file; remove it, and a secret will be generated in its place")
        if os.path.getsize(path) == 0:
            raise SecretsRefused(f"path: {path} is empty; write the secret into it, or remove it, and one will be generated")
        if _mode(path) & 0o077 and not os.path.islink(path):
            too_open.append(path)
    return missing, too_open


def _mode(path: str) -> int:
    return stat.S_IMODE(os.stat(path).st_mode)


def _make_directory(directory: str) -> None:
    """Create a directory and those above it that are missing, all with mode 0700."""
    parent = os.path.dirname(os.path.abspath(directory))
    if not os.path.isdir(parent):
        _make_directory(parent)
    if not os.path.isdir(directory):
        os.mkdir(directory, 0o700)
