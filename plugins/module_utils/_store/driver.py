# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the rest of the library asks of a storage, whichever it is: ten verbs over paths relative to its root."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any, Callable, Collection, Iterable, Iterator, List, NamedTuple, Optional, Tuple


class StoreError(Exception):
    """The storage cannot be used as asked; the message names what is wrong and what to do."""


class Entry(NamedTuple):
    """One file or object. ``etag`` is what S3 says of the content (the MD5 of small objects), empty on a file system.

    A path that ends in ``/`` is a directory that lacks the one file it is made for; its size is 0.
    """

    path: str
    size: int
    modified: float
    etag: str = ""


class Multipart(NamedTuple):
    """An unfinished multipart upload of S3."""

    path: str
    upload_id: str
    started: float


class Unreadable(NamedTuple):
    """A directory or prefix that could not be listed: nobody knows what is below it."""

    path: str
    reason: str


class Driver:
    """A storage. Errors of single paths are :class:`OSError` (``FileNotFoundError`` if there is none); others :class:`StoreError`."""

    #: How messages call the storage.
    label = ""
    #: Whether a request costs microseconds: then threads cost more than they bring.
    local = False

    def __init__(self, workers: int) -> None:
        self.workers = max(1, workers)
        self.unreadable: List[Unreadable] = []

    def check(self) -> None:
        """Raise :class:`StoreError` unless the storage answers and a registry has written to it."""
        raise NotImplementedError

    def now(self) -> float:
        """Return the time of the storage's own clock as seconds since 1970, as far as it tells."""
        raise NotImplementedError

    def partitions(self, prefix: str) -> List[str]:
        """Return parts of ``prefix`` that can be walked at the same time and together are all of it."""
        raise NotImplementedError

    def names(self, folder: str) -> List[str]:
        """Return the names of what is right below a directory, folders only; what cannot be read goes to ``unreadable``."""
        raise NotImplementedError

    def walk(self, prefix: str, skip: Collection[str] = ()) -> Iterator[Entry]:
        """Yield everything below ``prefix``, without directories named in ``skip``. What cannot be read goes to ``unreadable``."""
        raise NotImplementedError

    def stat(self, path: str) -> Optional[Entry]:
        """Return one file, or None if it is not there."""
        raise NotImplementedError

    def read(self, path: str) -> bytes:
        """Return a file's content."""
        raise NotImplementedError

    def write(self, path: str, content: bytes) -> None:
        """Write a file so that readers see the old content or the new one; make its directory."""
        raise NotImplementedError

    def remove(self, paths: Iterable[str]) -> List[Tuple[str, str]]:
        """Remove files, in parallel where that helps; missing ones are fine. Return (path, reason) of those that stayed."""
        raise NotImplementedError

    def remove_untouched(self, paths: Iterable[str], touched: Callable[[Entry], bool]) -> Tuple[List[str], List[Tuple[str, str]]]:
        """Remove files but those of which ``touched`` says, as they are at that moment, that somebody has written them.

        Return the paths of these, and (path, reason) of those that cannot be removed.
        """
        wanted = list(paths)
        kept: List[str] = []
        stayed: List[Tuple[str, str]] = []
        # So many at a time as can be looked at together: then the look and the removal are two requests apart.
        for start in range(0, len(wanted), self.workers):
            part = wanted[start : start + self.workers]
            written = [path for path, entry in zip(part, self.each(self.stat, part)) if entry is not None and touched(entry)]
            kept += written
            stayed += self.remove(set(part) - set(written))
        return kept, stayed

    def move(self, source: str, target: str, unless: Optional[Callable[[], bool]] = None) -> bool:
        """Give a file another path, replacing what is there; not if ``unless`` says so at the last moment. Return whether it was moved."""
        raise NotImplementedError

    def remove_empty(self, folders: Iterable[str]) -> int:
        """Remove those directories that are empty; return how many. Storages without directories have none."""
        return 0

    def prove_writable(self) -> None:
        """Raise :class:`StoreError` if files cannot be made and removed here."""
        raise NotImplementedError

    def multiparts(self) -> List[Multipart]:
        """Return unfinished multipart uploads below the root."""
        return []

    def abort(self, multipart: Multipart) -> None:
        """Drop an unfinished multipart upload."""

    def each(self, function: Callable[[Any], Any], items: Iterable[Any], workers: Optional[int] = None) -> Iterator[Any]:
        """Yield ``function(item)`` for each item in order, several at a time where that helps."""
        many = self.workers if workers is None else workers
        if self.local or many == 1:
            for item in items:
                yield function(item)
            return
        with ThreadPoolExecutor(max_workers=many) as pool:
            yield from pool.map(function, items)
