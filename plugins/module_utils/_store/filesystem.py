# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A registry's storage in a directory, local or on NFS."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import time
from typing import Callable, Collection, Iterable, Iterator, List, Optional, Tuple

from .. import _files
from . import layout
from .driver import Driver, Entry, StoreError, Unreadable

_HEX = re.compile(r"[0-9a-f]{64}(?:[0-9a-f]{64})?")


class Filesystem(Driver):
    """A directory. ``root`` is the registry's ``rootdirectory``."""

    local = True

    def __init__(self, root: str, workers: int = 4) -> None:
        super().__init__(workers)
        self.root = root.rstrip("/") or "/"
        self.label = self.root
        self._folders: set = set()

    def _full(self, path: str) -> str:
        return f"{self.root}/{path}"

    def check(self) -> None:
        try:
            os.scandir(self.root).close()
        except FileNotFoundError:
            raise StoreError(f"{self.root} does not exist; rootdirectory must be the registry's own") from None
        except NotADirectoryError:
            raise StoreError(f"{self.root} is no directory; rootdirectory must be the registry's own") from None
        except OSError as error:
            raise StoreError(f"{self.root} cannot be read: {error.strerror}; run as the user of the registry") from None
        try:
            os.scandir(self._full(layout.REGISTRY)).close()
        except FileNotFoundError:
            raise StoreError(
                f"{self.root} is no registry's storage: there is no {layout.REGISTRY} in it; rootdirectory is the directory above 'docker'"
            ) from None
        except OSError as error:
            raise StoreError(f"{self._full(layout.REGISTRY)} cannot be read: {error.strerror}; run as the user of the registry") from None

    def now(self) -> float:
        return time.time()

    def partitions(self, prefix: str) -> List[str]:
        return [prefix]

    def names(self, folder: str) -> List[str]:
        try:
            with os.scandir(self._full(folder)) as found:
                return [entry.name for entry in found if entry.is_dir()]
        except FileNotFoundError:
            return []
        except OSError as error:
            self.unreadable.append(Unreadable(folder, str(error.strerror)))
            return []

    def walk(self, prefix: str, skip: Collection[str] = ()) -> Iterator[Entry]:
        leaf = "data" if prefix.startswith(layout.BLOBS) else "link"
        pending = [prefix]
        while pending:
            folder = pending.pop()
            if len(folder) > 2048:
                self.unreadable.append(Unreadable(folder[:200] + "...", "too deep; a loop of symbolic links?"))
                continue
            try:
                with os.scandir(self._full(folder)) as found:
                    entries = list(found)
            except FileNotFoundError:
                continue
            except OSError as error:
                self.unreadable.append(Unreadable(folder, error.strerror or str(error)))
                continue
            for entry in entries:
                path = f"{folder}/{entry.name}"
                try:
                    if not entry.is_dir():
                        status = entry.stat()
                        yield Entry(path, status.st_size, status.st_mtime)
                    elif _HEX.fullmatch(entry.name):
                        # A directory named by a digest holds one file: no need to list it.
                        try:
                            status = os.stat(f"{self.root}/{path}/{leaf}")
                            yield Entry(f"{path}/{leaf}", status.st_size, status.st_mtime)
                        except FileNotFoundError:
                            yield Entry(path + "/", 0, entry.stat().st_mtime)
                    elif entry.name not in skip:
                        pending.append(path)
                except FileNotFoundError:
                    continue
                except OSError as error:
                    self.unreadable.append(Unreadable(path, error.strerror or str(error)))

    def stat(self, path: str) -> Optional[Entry]:
        try:
            status = os.stat(self._full(path))
        except (FileNotFoundError, NotADirectoryError):
            return None
        return Entry(path, status.st_size, status.st_mtime)

    def read(self, path: str) -> bytes:
        with open(self._full(path), "rb") as handle:
            return handle.read()

    def write(self, path: str, content: bytes) -> None:
        full = self._full(path)
        folder = os.path.dirname(full)
        self._make(folder)
        # The directory's owner is the registry's user: what this run writes as root must stay writable for that user.
        owner = os.stat(folder)
        mine = os.geteuid() == 0
        _files.write_atomically(full, content, mode=0o644, uid=owner.st_uid if mine else None, gid=owner.st_gid if mine else None)

    def _make(self, folder: str) -> None:
        """Make a directory with its parents, owned as the one above them."""
        missing = []
        while not os.path.isdir(folder):
            missing.append(folder)
            folder = os.path.dirname(folder)
        for name in reversed(missing):
            above = os.stat(os.path.dirname(name))
            with contextlib.suppress(FileExistsError):
                os.mkdir(name, above.st_mode & 0o777)
                if os.geteuid() == 0:
                    os.chown(name, above.st_uid, above.st_gid)

    def remove(self, paths: Iterable[str]) -> List[Tuple[str, str]]:
        stayed = []
        for path in paths:
            try:
                os.unlink(self._full(path))
            except (FileNotFoundError, NotADirectoryError):
                pass
            except OSError as error:
                stayed.append((path, error.strerror or str(error)))
        return stayed

    def remove_untouched(self, paths: Iterable[str], touched: Callable[[Entry], bool]) -> Tuple[List[str], List[Tuple[str, str]]]:
        kept: List[str] = []
        stayed: List[Tuple[str, str]] = []
        for path in paths:
            entry = self.stat(path)
            if entry is not None and not touched(entry):
                # What is written between the look and the removal shows on the file that was moved aside, so it can come back at once.
                try:
                    self.move(path, layout.ASIDE)
                    entry = (self.stat(layout.ASIDE) or entry)._replace(path=path)
                    if touched(entry):
                        self.move(layout.ASIDE, path)
                except FileNotFoundError:
                    continue
                except OSError as error:
                    stayed.append((path, error.strerror or str(error)))
                    continue
            if entry is not None and touched(entry):
                kept.append(path)
        self.remove([layout.ASIDE])
        return kept, stayed

    def move(self, source: str, target: str, unless: Optional[Callable[[], bool]] = None) -> bool:
        if unless is not None and unless():
            return False
        full = self._full(target)
        folder = os.path.dirname(full)
        if folder not in self._folders:
            self._make(folder)
            self._folders.add(folder)
        os.rename(self._full(source), full)
        return True

    def remove_empty(self, folders: Iterable[str]) -> int:
        removed = 0
        for folder in folders:
            try:
                os.rmdir(self._full(folder.rstrip("/")))
                removed += 1
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOENT, errno.ENOTDIR):
                    raise
        return removed

    def prove_writable(self) -> None:
        """Raise :class:`StoreError` if files cannot be made and removed here."""
        name = f"{layout.OWN}/.probe-{secrets.token_hex(6)}"
        try:
            self.write(name, b"")
            os.unlink(self._full(name))
        except OSError as error:
            raise StoreError(f"{self.root} cannot be written: {error.strerror}; run as the user of the registry") from None
