# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What refers to what in a storage, and what is alive.

Roots are tags. A manifest that lives keeps its children, configuration and layers; it also keeps what describes it: manifests with
it as ``subject`` in the same repository, and the tags that are named after it (``layout.described_by``), in any repository (cosign can
be told to keep signatures apart).
"""

from __future__ import annotations

from typing import Callable, Collection, Dict, FrozenSet, Iterable, Iterator, List, NamedTuple, Optional, Sequence, Set, Tuple

from .._globs import Glob
from . import layout
from .driver import Driver, StoreError
from .findings import Finding
from .listing import Link, Repository, Snapshot
from .manifests import LIMIT, Invalid, Manifest, parse


class Graph:
    """A snapshot with its manifests read.

    Attributes:
        snapshot: the listing.
        manifests: by digest: every manifest that a repository has, that a tag points to, or that an index names.
        findings: what is wrong with the manifests and with what they refer to. ``snapshot.findings`` are others.
        read: how many manifests were read; the others were remembered.
    """

    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        self.manifests: Dict[str, Manifest] = {}
        self.findings: List[Finding] = []
        self.read = 0
        self.broken: Dict[str, Invalid] = {}


def read_graph(driver: Driver, snapshot: Snapshot, remembered: Optional[Dict[str, Manifest]] = None) -> Graph:
    """Read every manifest once.

    Args:
        driver: the storage.
        snapshot: its listing.
        remembered: manifests read by earlier runs, by digest. One is used only if the blob still has the size that it had.
    """
    graph = Graph(snapshot)
    wanted: Set[str] = set()
    for repository in snapshot.repositories.values():
        wanted.update(repository.revisions)
        wanted.update(tag.digest for tag in repository.tags.values() if tag.digest)
    read_manifests(driver, graph, wanted, remembered or {})
    named = {blob for manifest in graph.manifests.values() if manifest.known for blob in (*manifest.layers, manifest.config) if blob}
    _look_again(driver, snapshot, named)
    _judge(graph)
    return graph


def _look_again(driver: Driver, snapshot: Snapshot, digests: Iterable[str]) -> None:
    """Take in those blobs that the listing lacks and that are there: they were pushed after it had passed their place."""
    missing = [digest for digest in digests if digest not in snapshot.blobs and layout.is_digest(digest)]
    for digest, entry in zip(missing, driver.each(lambda digest: driver.stat(layout.blob_path(digest)), missing)):
        if entry is not None:
            snapshot.blobs[digest] = Link(entry.modified, entry.size)


def read_manifests(driver: Driver, graph: Graph, wanted: Collection[str], remembered: Dict[str, Manifest]) -> None:
    """Read manifests and, level by level, the children of those that are indexes."""
    blobs = graph.snapshot.blobs

    def fetch(digest: str) -> Tuple[str, object]:
        blob = blobs[digest]
        if blob.size > LIMIT:
            return digest, Invalid("invalid-manifest", f"{blob.size} bytes are too many for a manifest")
        try:
            return digest, parse(digest, driver.read(layout.blob_path(digest)))
        except Invalid as problem:
            return digest, problem
        except OSError as problem:
            return digest, Invalid("unreadable", problem.strerror or str(problem))

    while wanted:
        _look_again(driver, graph.snapshot, wanted)
        unread, level = [], []
        for digest in wanted:
            if digest in graph.manifests or digest in graph.broken or digest not in blobs:
                continue
            known = remembered.get(digest)
            if known is not None and known.size == blobs[digest].size:
                graph.manifests[digest] = known
                level.append(known)
            else:
                unread.append(digest)
        for digest, result in driver.each(fetch, unread):
            graph.read += 1
            if isinstance(result, Manifest):
                graph.manifests[digest] = result
                level.append(result)
            elif isinstance(result, Invalid):
                graph.broken[digest] = result
        wanted = {child for manifest in level for child in manifest.children}


def _judge(graph: Graph) -> None:
    """Find what is wrong, and name the repositories that cannot be read whole."""
    snapshot, manifests = graph.snapshot, graph.manifests
    blobs = snapshot.blobs
    for repository in snapshot.repositories.values():
        name = repository.name
        for tag in repository.tags.values():
            if tag.digest and tag.digest not in repository.revisions and tag.digest not in blobs:
                graph.findings.append(Finding("missing-manifest", name, tag.name, tag.digest))
                repository.faults.append(f"the manifest {tag.digest} of tag {tag.name} is missing")
        seen: Set[str] = set()
        pending = [*repository.revisions, *(tag.digest for tag in repository.tags.values() if tag.digest)]
        while pending:
            digest = pending.pop()
            if digest in seen:
                continue
            seen.add(digest)
            manifest = manifests.get(digest)
            if manifest is not None:
                if not manifest.known:
                    graph.findings.append(Finding("unknown-type", name, digest=digest, detail=manifest.media_type))
                for child in manifest.children:
                    if child in blobs or child in repository.revisions:
                        pending.append(child)
                    else:
                        # A sparse index (a mirror of some platforms) is one that the registry can be told to accept.
                        graph.findings.append(Finding("missing-child", name, digest=child, detail=f"named by {digest}"))
                for blob in (*manifest.layers, manifest.config):
                    if blob and blob not in blobs and blob not in manifest.foreign and manifest.known:
                        graph.findings.append(Finding("missing-blob", name, digest=blob, detail=f"named by {digest}"))
            elif digest in graph.broken:
                problem = graph.broken[digest]
                graph.findings.append(Finding(problem.kind, name, digest=digest, detail=str(problem)))
                repository.faults.append(f"the manifest {digest} cannot be read: {problem}")
            elif digest not in blobs:
                graph.findings.append(Finding("missing-manifest", name, digest=digest))
                repository.faults.append(f"the manifest {digest} is missing")


def compile_globs(patterns: Sequence[str]) -> List[Tuple[str, Callable[[str], object]]]:
    """Return a test of repositories' names for each pattern.

    Raises:
        StoreError: if one is no pattern.
    """
    compiled: List[Tuple[str, Callable[[str], object]]] = []
    for pattern in patterns:
        try:
            compiled.append((pattern, Glob(pattern.strip("/")).matches))
        except ValueError as error:
            raise StoreError(f"repositories: {pattern} is no pattern: {error}; write for example repositories: ['shop/**']") from None
    return compiled


class Policy(NamedTuple):
    """What may go.

    Attributes:
        delete_untagged: whether manifests without a tag may.
        repositories: globs of the repositories whose manifests may; empty: all.
        before: links that changed at or after this time are kept, with all that their manifests refer to.
        waiting: (repository, digest) of manifests that may not go yet; they are kept, too, with all that they refer to.
    """

    delete_untagged: bool = False
    repositories: Tuple[str, ...] = ()
    before: float = float("inf")
    waiting: FrozenSet[Tuple[str, str]] = frozenset()


class Alive:
    """What is alive.

    Attributes:
        blobs: digests of blobs (manifests among them) that something living refers to.
        manifests: by repository, the manifests that live in it.
        dead_tags: (repository, tag, what it describes) of fallback tags whose subject is gone.
        young: (repository, digest) of manifests that live only because they are young.
        kept: (repository, reasons) of repositories that could not be read whole.
    """

    def __init__(self) -> None:
        self.blobs: Set[str] = set()
        self.manifests: Dict[str, Set[str]] = {}
        self.dead_tags: List[Tuple[str, str, str]] = []
        self.young: Set[Tuple[str, str]] = set()
        self.kept: List[Tuple[str, List[str]]] = []
        self.findings: List[Finding] = []


def find_alive(graph: Graph, policy: Policy) -> Alive:
    """Return what must stay. Runs in time linear in the number of links and references."""
    alive = Alive()
    snapshot, manifests = graph.snapshot, graph.manifests
    globs = compile_globs(policy.repositories)
    waiting_tags: Dict[str, List[Tuple[str, str, str]]] = {}  # subject -> (repository, tag, digest)
    referrers: Dict[Tuple[str, str], List[str]] = {}  # (repository, subject) -> manifests
    pending: List[Tuple[str, str]] = []

    here: Set[str] = set()
    if policy.delete_untagged:
        for repository in snapshot.repositories.values():
            here.update(repository.revisions)

    for name, repository in snapshot.repositories.items():
        alive.manifests[name] = set()
        if repository.faults:
            alive.kept.append((name, list(repository.faults)))
            alive.blobs.update(repository.layers)
            for tag in repository.tags.values():
                alive.blobs.update(tag.history)
        may_go = policy.delete_untagged and not repository.faults and (not globs or any(match(name) for _pattern, match in globs))
        for tag in repository.tags.values():
            if not tag.digest:
                continue
            subject = layout.described_by(tag.name, tag.digest) if may_go else ""
            if not subject or tag.pushed >= policy.before:
                pending.append((name, tag.digest))
            elif subject in here or subject in snapshot.blobs:
                waiting_tags.setdefault(subject, []).append((name, tag.name, tag.digest))
            else:
                alive.findings.append(Finding("describes-nothing", name, tag.name, subject))
                pending.append((name, tag.digest))
        for digest, link in repository.revisions.items():
            manifest = manifests.get(digest)
            if not may_go or (manifest is not None and not manifest.known):
                pending.append((name, digest))
                continue
            if link.modified >= policy.before:
                alive.young.add((name, digest))
            if manifest is not None and manifest.subject:
                referrers.setdefault((name, manifest.subject), []).append(digest)
        if may_go:
            alive.young.update((name, digest) for digest in _untagged_after(repository, policy.before) if digest in repository.revisions)

    def spread() -> None:
        while pending:
            name, digest = pending.pop()
            living = alive.manifests[name]
            if digest in living:
                continue
            living.add(digest)
            alive.blobs.add(digest)
            manifest = manifests.get(digest)
            if manifest is not None:
                revisions = snapshot.repositories[name].revisions
                for reference in manifest.references:
                    alive.blobs.add(reference)
                    if reference in revisions or reference in manifest.children:
                        pending.append((name, reference))
            pending.extend((name, referrer) for referrer in referrers.pop((name, digest), ()))
            pending.extend((place, found) for place, _tag, found in waiting_tags.pop(digest, ()))

    spread()
    # Young manifests come last, so that `young` holds those that nothing else keeps.
    alive.young = {(name, digest) for name, digest in alive.young if digest not in alive.manifests[name]}
    pending.extend(alive.young)
    pending.extend(policy.waiting)
    spread()
    for subject, tags in waiting_tags.items():
        alive.dead_tags += [(name, tag, subject) for name, tag, _digest in tags]
    alive.dead_tags.sort()
    return alive


def _untagged_after(repository: Repository, moment: float) -> Iterator[str]:
    """Yield manifests that lost a tag at or after a moment: what a tag pointed to before its later pushes."""
    for tag in repository.tags.values():
        if len(tag.history) > 1 and tag.pushed >= moment:
            entries = sorted((link.modified, digest) for digest, link in tag.history.items())
            for (_modified, digest), (later, _next) in zip(entries, entries[1:]):
                if later >= moment:
                    yield digest
