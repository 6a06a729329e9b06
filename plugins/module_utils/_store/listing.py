# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A storage read in one pass: every repository with its tags, manifests, layers and uploads, and every blob with its size."""

from __future__ import annotations

import hashlib
from typing import Collection, Dict, Iterable, List, NamedTuple, Optional, Set, Tuple

from . import layout
from .driver import Driver, Entry, Multipart, Unreadable
from .findings import Finding


class Link(NamedTuple):
    """A file's time of last change (seconds since 1970) and its size; of a blob, a link, a tag."""

    modified: float
    size: int


class Tag:
    """A tag.

    Attributes:
        name: its name.
        digest: the manifest that it points to; empty if the link is broken.
        current: the link that says so; None if it is missing.
        history: manifests that it pointed to, with their links.
    """

    __slots__ = ("name", "digest", "current", "history")

    def __init__(self, name: str) -> None:
        self.name = name
        self.digest = ""
        self.current: Optional[Link] = None
        self.history: Dict[str, Link] = {}

    @property
    def pushed(self) -> float:
        """When it was pushed last: each push writes ``current/link``, one of the same manifest too."""
        seen = self.history.get(self.digest)
        return max(self.current.modified if self.current else 0.0, seen.modified if seen else 0.0)


class Repository:
    """A repository.

    Attributes:
        name: its name.
        tags: by name.
        revisions: manifests that it has, by digest.
        layers: blobs that it has, by digest.
        uploads: files of unfinished uploads, by the upload's id.
        faults: why it could not be read whole; then nothing that it may refer to may go.
    """

    __slots__ = ("name", "tags", "revisions", "layers", "uploads", "faults")

    def __init__(self, name: str) -> None:
        self.name = name
        self.tags: Dict[str, Tag] = {}
        self.revisions: Dict[str, Link] = {}
        self.layers: Dict[str, Link] = {}
        self.uploads: Dict[str, List[Entry]] = {}
        self.faults: List[str] = []


class Snapshot:
    """What a storage held while it was listed.

    Attributes:
        repositories: by name.
        blobs: by digest.
        taken: the storage's time when the listing began.
        findings: what is wrong.
        blind: why it is unknown which repositories there are or what they hold; then nothing at all may go. Empty: all was read.
        empties: directories of links and blobs that hold nothing any more, with the time of their last change.
        multiparts: unfinished multipart uploads of S3.
        bytes: what all files have together.
    """

    def __init__(self, taken: float) -> None:
        self.repositories: Dict[str, Repository] = {}
        self.blobs: Dict[str, Link] = {}
        self.taken = taken
        self.findings: List[Finding] = []
        self.blind: List[str] = []
        self.empties: List[Tuple[str, float]] = []
        self.multiparts: List[Multipart] = []
        self.bytes = 0
        self._digests: Dict[str, str] = {}
        self._unresolved: List[Tuple[Repository, Tag, str]] = []

    def repository(self, name: str) -> Repository:
        """Return a repository, made if it is new."""
        found = self.repositories.get(name)
        if found is None:
            found = self.repositories[name] = Repository(name)
        return found

    def add(self, entry: Entry) -> None:
        """Take one file in."""
        self.bytes += entry.size
        item = layout.parse(entry.path)
        kind = item.kind
        if kind == layout.BLOB:
            digest = self._digests.setdefault(item.digest, item.digest)
            self.blobs[digest] = Link(entry.modified, entry.size)
            return
        if kind == layout.EMPTY:
            self.empties.append((entry.path, entry.modified))
            return
        if kind == layout.TEMPORARY:
            return
        if kind == layout.JUNK:
            self.findings.append(Finding("junk", item.repository, path=entry.path))
            return
        repository = self.repository(item.repository)
        link = Link(entry.modified, entry.size)
        if kind == layout.LAYER:
            repository.layers[self._digests.setdefault(item.digest, item.digest)] = link
        elif kind == layout.REVISION:
            repository.revisions[self._digests.setdefault(item.digest, item.digest)] = link
        elif kind == layout.UPLOAD:
            repository.uploads.setdefault(item.name, []).append(entry)
            return
        else:
            tag = repository.tags.get(item.name)
            if tag is None:
                tag = repository.tags[item.name] = Tag(item.name)
            if kind == layout.HISTORY:
                tag.history[self._digests.setdefault(item.digest, item.digest)] = link
            else:
                tag.current = link
                self._unresolved.append((repository, tag, entry.etag))
        if not entry.size:
            self.findings.append(Finding("zero-length", item.repository, item.name, item.digest, entry.path))

    # ------------------------------------------------------------------------------------------------- tags and faults

    def resolve(self, driver: Driver) -> None:
        """Find out what each tag points to.

        On S3 the listing tells: the ETag of a link is the MD5 of the digest in it, and the digest is one of the tag's history.
        Where it does not tell, and on a file system, the link is read.
        """
        self._look_again(driver)
        unread = []
        for repository, tag, etag in self._unresolved:
            digest = _by_etag(tag.history, etag) if etag else ""
            if digest:
                tag.digest = digest
            else:
                unread.append((repository, tag))
        self._unresolved = []

        def read(pair: Tuple[Repository, Tag]) -> str:
            return read_tag(driver, pair[0].name, pair[1].name)

        for (_repository, tag), content in zip(unread, driver.each(read, unread)):
            if layout.is_digest(content):
                tag.digest = self._digests.setdefault(content, content)

    def _look_again(self, driver: Driver) -> None:
        """Look once more at links that were being written when the listing passed: a tag gets its history first, 2.8 empties before it writes."""
        for repository in self.repositories.values():
            for tag in repository.tags.values():
                if tag.current is None and tag.history:
                    entry = driver.stat(layout.tag_path(repository.name, tag.name))
                    if entry is not None:
                        tag.current = Link(entry.modified, entry.size)
                        self._unresolved.append((repository, tag, entry.etag))
            for digest, link in repository.revisions.items():
                if not link.size:
                    entry = driver.stat(layout.revision_path(repository.name, digest))
                    if entry is not None and entry.size:
                        repository.revisions[digest] = Link(entry.modified, entry.size)

    def judge_reading(self, driver: Driver) -> None:
        """Take in what could not be listed."""
        for path, reason in driver.unreadable:
            self.findings.append(Finding("unreadable", path=path, detail=reason))
            if path.startswith(layout.BLOBS):
                continue  # blobs that nobody saw stay
            head, mark, tail = path[len(layout.REPOSITORIES) + 1 :].partition("/_")
            if mark and tail.startswith("uploads"):
                continue
            if mark and tail.startswith("manifests") and head in self.repositories:
                # What it may refer to is among its layers, which are known.
                self.repositories[head].faults.append(f"{path}: {reason}")
            else:
                self.blind.append(f"{path}: {reason}")

    def judge_links(self) -> None:
        """Say which tags and links are broken; their repositories cannot be read whole."""
        for repository in self.repositories.values():
            for name in [name for name, tag in repository.tags.items() if tag.current is None and not tag.history]:
                del repository.tags[name]
            for tag in repository.tags.values():
                if not tag.digest:
                    detail = "it has no current link" if tag.current is None else ""
                    path = layout.tag_path(repository.name, tag.name)
                    self.findings.append(Finding("broken-link", repository.name, tag.name, path=path, detail=detail))
                    repository.faults.append(f"tag {tag.name} is broken")
            for digest, link in repository.revisions.items():
                if not link.size:
                    repository.faults.append(f"the link of {digest} has no bytes")


def _by_etag(digests: Iterable[str], etag: str) -> str:
    try:
        for digest in digests:
            if hashlib.md5(digest.encode()).hexdigest() == etag:
                return digest
    except ValueError:
        pass  # a system that allows no MD5
    return ""


def read_tag(driver: Driver, repository: str, tag: str) -> str:
    """Return what a tag's link says; empty if it is gone or cannot be read.

    2.8 empties the file before it writes the digest: an empty one is read again.
    """
    path = layout.tag_path(repository, tag)
    content = ""
    for _attempt in range(3):
        try:
            content = driver.read(path).decode("ascii", "replace").strip()
        except OSError:
            return ""
        if content:
            break
    return content


def read_store(driver: Driver) -> Snapshot:
    """List a storage once and return everything in it.

    Blobs are listed before repositories: a push in between leaves links to blobs that were not seen, never the other way round.

    Raises:
        StoreError: if the storage does not answer or is no registry's.
    """
    driver.check()
    driver.unreadable.clear()
    snapshot = Snapshot(driver.now())
    _gather(driver, snapshot, layout.BLOBS)
    _gather(driver, snapshot, layout.REPOSITORIES)
    snapshot.judge_reading(driver)
    snapshot.resolve(driver)
    snapshot.judge_links()
    snapshot.multiparts = driver.multiparts()
    return snapshot


#: Directories that a second look does not need.
_SKIPPED = frozenset(("_uploads", "index"))


def read_links(driver: Driver) -> Snapshot:
    """List the repositories again, without uploads and the tags' histories. Tags are not resolved."""
    driver.unreadable.clear()
    snapshot = Snapshot(driver.now())
    _gather(driver, snapshot, layout.REPOSITORIES, _SKIPPED)
    snapshot.judge_reading(driver)
    return snapshot


def _gather(driver: Driver, snapshot: Snapshot, prefix: str, skip: Collection[str] = ()) -> None:
    if driver.local:
        for entry in driver.walk(prefix, skip):
            snapshot.add(entry)
        return
    try:
        parts = driver.partitions(prefix)
    except OSError as error:
        driver.unreadable.append(Unreadable(prefix, error.strerror or str(error)))
        return
    for entries in driver.each(lambda part: list(driver.walk(part, skip)), parts):
        for entry in entries:
            snapshot.add(entry)


def linked(snapshot: Snapshot) -> Dict[str, Set[str]]:
    """Return by digest the repositories that have it as a layer or a manifest."""
    found: Dict[str, Set[str]] = {}
    for name, repository in snapshot.repositories.items():
        for digest in repository.layers:
            found.setdefault(digest, set()).add(name)
        for digest in repository.revisions:
            found.setdefault(digest, set()).add(name)
    return found
