# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a run would do, as a value: it can be printed, compared and saved. Nothing here changes a storage."""

from __future__ import annotations

from typing import Any, Dict, Iterable, List, NamedTuple, Optional, Set, Tuple, Union

from . import layout
from .announce import Gate
from .driver import Multipart
from .findings import Finding, as_dicts, printable
from .graph import Alive, Graph
from .listing import Repository, Snapshot, linked


class ManifestGoes(NamedTuple):
    """A manifest that a repository loses: its link, and its entries in the histories of tags."""

    repository: str
    digest: str
    size: int
    reason: str


class TagGoes(NamedTuple):
    """A tag of the fallback scheme that goes with what it describes."""

    repository: str
    tag: str
    digest: str
    reason: str


class Blob(NamedTuple):
    """A blob that nothing refers to, with the repositories that link it."""

    digest: str
    size: int
    reason: str
    repositories: Tuple[str, ...] = ()


class Upload(NamedTuple):
    """An upload that nobody finished."""

    repository: str
    id: str
    size: int


class Plan(NamedTuple):
    """What a run does, in this order.

    Attributes:
        mode: ``online`` or ``offline``.
        relink: (kind, repository, digest): links that a former run removed and that something living needs; kind is a layout kind.
        tags, manifests: what repositories lose.
        hide: blobs that lose their links (online, where nobody listens to announcements).
        delete: blobs that are removed: with what links them (offline, or announced for long enough), or that an earlier run hid (online).
        pending: blobs that nothing refers to and that stay for now.
        uploads, multiparts, empties: unfinished uploads and empty directories to remove.
        files: all files that go, with their sizes; moved blobs under their proper names.
        blobs_total, blobs_marked: how many blobs there are, and how many live.
        findings: what is wrong with the storage.
        kept: repositories that could not be read whole, with the reasons.
        blind: why nothing may go; empty if it may.
        announce, announce_manifests: what is to go and stays until the edges have known that for long enough.
        news: how many of these were not announced before.
    """

    mode: str
    relink: List[Tuple[int, str, str]]
    tags: List[TagGoes]
    manifests: List[ManifestGoes]
    hide: List[Blob]
    delete: List[Blob]
    pending: List[Blob]
    uploads: List[Upload]
    multiparts: List[Multipart]
    empties: List[str]
    files: Dict[str, int]
    blobs_total: int
    blobs_marked: int
    findings: List[Dict[str, str]]
    kept: List[Tuple[str, List[str]]]
    blind: List[str]
    announce: List[Blob]
    announce_manifests: List[ManifestGoes]
    news: int

    @property
    def bytes_freed(self) -> int:
        """Bytes of all files that the run would remove."""
        return sum(self.files.values())

    @property
    def bytes_pending(self) -> int:
        """Bytes of blobs that nothing refers to and that stay for a later run."""
        return sum(blob.size for blobs in (self.pending, self.hide, self.announce) for blob in blobs)

    @property
    def uploads_count(self) -> int:
        """How many uploads go: on S3 one is objects, a multipart upload, or both."""
        folders = {f"{layout.REPOSITORIES}/{item.repository}/_uploads/{item.id}" for item in self.uploads}
        return len(folders | {item.path.rpartition("/")[0] for item in self.multiparts})

    @property
    def share(self) -> float:
        """Share of all blobs that would be announced, hidden or deleted."""
        return (len(self.announce) + len(self.hide) + len(self.delete)) / self.blobs_total if self.blobs_total else 0.0

    @property
    def changes(self) -> bool:
        """Whether the run would change anything. That it clears away empty directories is no change."""
        removes = self.tags or self.manifests or self.hide or self.delete or self.uploads or self.multiparts
        return bool(self.relink or removes or self.news)

    def as_dict(self) -> Dict[str, Any]:
        """Return the plan as JSON can hold it, each manifest and blob with digest, repository, size and reason."""
        return {
            "mode": self.mode,
            "relink": [{"repository": name, "digest": digest} for _kind, name, digest in self.relink],
            "tags": [item._asdict() for item in self.tags],
            "manifests": [item._asdict() for item in self.manifests],
            "announce": [_blob(item) for item in self.announce],
            "announce_manifests": [item._asdict() for item in self.announce_manifests],
            "hide": [_blob(item) for item in self.hide],
            "delete": [_blob(item) for item in self.delete],
            "pending": [_blob(item) for item in self.pending],
            "uploads": [{**item._asdict(), "id": printable(item.id)} for item in self.uploads],
            "multipart_uploads": [{"path": printable(item.path), "id": item.upload_id} for item in self.multiparts],
            "empty_directories": len(self.empties),
            "blobs_total": self.blobs_total,
            "blobs_marked": self.blobs_marked,
            "bytes_freed": self.bytes_freed,
            "bytes_pending": self.bytes_pending,
            "findings": self.findings,
            "kept_repositories": [{"repository": name, "reasons": reasons} for name, reasons in self.kept],
            "blind": self.blind,
        }

    def summary(self) -> Dict[str, Any]:
        """Return the numbers: repositories, manifests, blobs and bytes, per reason."""
        reasons: Dict[str, Dict[str, int]] = {}
        places: Set[str] = set()
        kinds: Tuple[Tuple[str, Iterable[Union[ManifestGoes, Blob]]], ...] = (
            ("manifests", self.manifests), ("announce", self.announce), ("hide", self.hide), ("delete", self.delete), ("pending", self.pending),
        )  # fmt: skip
        for kind, items in kinds:
            for item in items:
                row = reasons.setdefault(f"{kind}: {item.reason}", {"count": 0, "bytes": 0})
                row["count"] += 1
                row["bytes"] += item.size
        places.update(item.repository for item in self.manifests)
        places.update(item.repository for item in self.tags)
        return {
            "repositories": sorted(places),
            "manifests": len(self.manifests),
            "tags": len(self.tags),
            "announce": len(self.announce),
            "hide": len(self.hide),
            "delete": len(self.delete),
            "pending": len(self.pending),
            "uploads": self.uploads_count,
            "bytes_freed": self.bytes_freed,
            "bytes_pending": self.bytes_pending,
            "reasons": reasons,
        }

    def diff(self) -> Tuple[str, str]:
        """Return the storage before and after as text, as far as it changes."""
        before: List[str] = []
        after: List[str] = []
        before += [f"tag {item.repository}:{item.tag} ({item.reason})" for item in self.tags]
        before += [f"manifest {item.repository}@{item.digest} {item.size} ({item.reason})" for item in self.manifests]
        before += [f"blob {item.digest} {item.size} ({item.reason})" for item in self.delete]
        for word, blobs in (("announced", self.announce), ("hidden", self.hide)):
            for item in blobs:
                before.append(f"blob {item.digest} {item.size} ({item.reason})")
                after.append(f"{word} blob {item.digest} {item.size}")
        before += [f"upload {item.repository} {printable(item.id)} {item.size}" for item in self.uploads]
        before += [f"multipart upload {printable(item.path)}" for item in self.multiparts]
        after += [f"link {name} {digest}" for _kind, name, digest in self.relink]
        return "".join(line + "\n" for line in before), "".join(line + "\n" for line in after)


def _blob(blob: Blob) -> Dict[str, Any]:
    return {"digest": blob.digest, "size": blob.size, "reason": blob.reason, "repositories": list(blob.repositories)}


class Hidden(NamedTuple):
    """What former runs hid: by digest, since when (0: the run did not end) and which links they removed, as (kind, repository)."""

    since: float
    links: Tuple[Tuple[int, str], ...]


def make_plan(
    graph: Graph,
    alive: Alive,
    *,
    mode: str,
    grace: float,
    now: float,
    hidden: Dict[str, Hidden],
    trash: Optional[Dict[str, int]] = None,
    gate: Optional[Gate] = None,
    later: Optional[Alive] = None,
) -> Plan:
    """Decide what a run does.

    Args:
        graph: the storage.
        alive: what must stay.
        mode: ``online`` or ``offline``.
        grace: seconds that must have passed since a blob or a link was last touched, and since a blob was hidden.
        now: the storage's time.
        hidden: what former runs hid.
        trash: sizes of blobs, by digest, that a killed run had moved away.
        gate: what of the former announcement may go; none where nobody listens.
        later: what must stay once everything that is announced is gone. ``alive`` has the manifests that wait, too.
    """
    snapshot = graph.snapshot
    before = now - grace if grace > 0 else float("inf")
    trash = trash or {}
    relink = _find_missing_links(graph, alive, hidden, trash)
    files: Dict[str, int] = {}
    tags: List[TagGoes] = []
    manifests: List[ManifestGoes] = []
    hide: List[Blob] = []
    delete: List[Blob] = []
    pending: List[Blob] = []
    findings = [*snapshot.findings, *graph.findings, *alive.findings]
    announce: List[Blob] = []
    waiting = _find_waiting(graph, alive, later) if later is not None and not snapshot.blind else []
    waiting_for = {item.digest for item in waiting}
    waiting_places = {(item.repository, item.digest) for item in waiting}

    links = linked(snapshot)
    if not snapshot.blind:
        _let_manifests_go(graph, alive, tags, manifests, files, waiting_places)
    leaving: Dict[str, Set[str]] = {}
    for gone in manifests:
        leaving.setdefault(gone.digest, set()).add(gone.repository)
    for digest, blob in snapshot.blobs.items():
        if digest in (later or alive).blobs:
            continue
        places = tuple(sorted(links.get(digest, ())))
        reason = "untagged manifest" if digest in leaving or digest in waiting_for else "nothing refers to it"
        if snapshot.blind:
            pending.append(Blob(digest, blob.size, "the storage could not be read whole", places))
            continue
        latest = blob.modified
        stays = False
        for name in places:
            repository = snapshot.repositories[name]
            for link, goes in ((repository.layers.get(digest), True), (repository.revisions.get(digest), name in leaving.get(digest, ()))):
                if link is not None:
                    latest = max(latest, link.modified)
                    stays = stays or not (goes or (name, digest) in waiting_places)
        former = hidden.get(digest)
        if stays:
            pending.append(Blob(digest, blob.size, "a repository has it as a manifest", places))
        elif latest >= before:
            pending.append(Blob(digest, blob.size, "younger than grace", places))
        elif mode == "offline":
            delete.append(Blob(digest, blob.size, reason, places))
            files[layout.blob_path(digest)] = blob.size
            _count_layer_links(snapshot, digest, places, files)
        elif former is not None and not places and former.since and now - former.since >= grace:
            delete.append(Blob(digest, blob.size, "hidden by an earlier run", ()))
            files[layout.blob_path(digest)] = blob.size
        elif former is not None and not places and former.since:
            pending.append(Blob(digest, blob.size, "hidden, waiting for grace", ()))
        elif gate and (digest in alive.blobs or not gate.lets_blob(digest)):
            announce.append(Blob(digest, blob.size, reason, places))
        elif gate:
            delete.append(Blob(digest, blob.size, reason, places))
            files[layout.blob_path(digest)] = blob.size
            _count_layer_links(snapshot, digest, places, files)
        else:
            hide.append(Blob(digest, blob.size, reason, places))
            _count_layer_links(snapshot, digest, places, files)
    for digest, size in trash.items():
        if digest not in snapshot.blobs and digest not in alive.blobs and digest not in links and not snapshot.blind:
            delete.append(Blob(digest, size, "hidden by an earlier run", ()))
            files[layout.blob_path(digest)] = size

    uploads: List[Upload] = []
    for repository in snapshot.repositories.values():
        for name, entries in repository.uploads.items():
            if max(entry.modified for entry in entries) < before:
                uploads.append(Upload(repository.name, name, sum(entry.size for entry in entries)))
                files.update((entry.path, entry.size) for entry in entries)
                findings.append(Finding("orphaned-upload", repository.name, path=entries[0].path))
    multiparts = [item for item in snapshot.multiparts if item.started < before]
    findings += [Finding("unfinished-multipart", path=item.path) for item in multiparts]
    empties = [path for path, modified in snapshot.empties if modified < before]
    return Plan(
        mode, relink, sorted(tags), sorted(manifests), sorted(hide), sorted(delete), sorted(pending), sorted(uploads), multiparts, empties,
        files, len(snapshot.blobs), len((later or alive).blobs & snapshot.blobs.keys()), as_dicts(findings), sorted(alive.kept),
        list(snapshot.blind), sorted(announce), sorted(waiting), _count_news(gate, announce, waiting),
    )  # fmt: skip


def _find_waiting(graph: Graph, alive: Alive, later: Alive) -> List[ManifestGoes]:
    """Return manifests that are to go and may not yet."""
    found = []
    for name, repository in graph.snapshot.repositories.items():
        for digest in (repository.revisions.keys() & alive.manifests[name]) - later.manifests[name]:
            blob = graph.snapshot.blobs.get(digest)
            found.append(ManifestGoes(name, digest, blob.size if blob else 0, "no tag and no living manifest needs it"))
    return found


def _count_news(gate: Optional[Gate], blobs: Iterable[Blob], manifests: Iterable[ManifestGoes]) -> int:
    if not gate:
        return 0
    fresh = sum(blob.digest not in gate.former.blobs for blob in blobs)
    return fresh + sum((item.repository, item.digest) not in gate.former.manifests for item in manifests)


def _count_layer_links(snapshot: Snapshot, digest: str, places: Tuple[str, ...], files: Dict[str, int]) -> None:
    for name in places:
        link = snapshot.repositories[name].layers.get(digest)
        if link is not None:
            files[layout.layer_path(name, digest)] = link.size


def _let_manifests_go(
    graph: Graph, alive: Alive, tags: List[TagGoes], manifests: List[ManifestGoes], files: Dict[str, int], waiting: Set[Tuple[str, str]]
) -> None:
    snapshot = graph.snapshot
    dead: Dict[str, Set[str]] = {}
    for name, tag_name, subject in alive.dead_tags:
        tag = snapshot.repositories[name].tags[tag_name]
        if (name, tag.digest) in waiting:
            continue
        dead.setdefault(name, set()).add(tag_name)
        tags.append(TagGoes(name, tag_name, tag.digest, f"it describes {subject}, which is gone"))
        if tag.current is not None:
            files[layout.tag_path(name, tag_name)] = tag.current.size
        for digest, link in tag.history.items():
            files[layout.history_path(name, tag_name, digest)] = link.size
    for name, repository in snapshot.repositories.items():
        going = repository.revisions.keys() - alive.manifests[name]
        if not going:
            continue
        for digest in going:
            blob = snapshot.blobs.get(digest)
            manifests.append(ManifestGoes(name, digest, blob.size if blob else 0, "no tag and no living manifest needs it"))
            files[layout.revision_path(name, digest)] = repository.revisions[digest].size
        _count_histories(repository, going, files)


def _count_histories(repository: Repository, going: Set[str], files: Dict[str, int]) -> None:
    for tag in repository.tags.values():
        for digest in tag.history.keys() & going:
            if digest != tag.digest or layout.described_by(tag.name, tag.digest):
                files[layout.history_path(repository.name, tag.name, digest)] = tag.history[digest].size


def _find_missing_links(graph: Graph, alive: Alive, hidden: Dict[str, Hidden], trash: Dict[str, int]) -> List[Tuple[int, str, str]]:
    """Return links that runs removed, or whose blob a run moved away, and that living manifests and tags need."""
    known = hidden.keys() | trash.keys()
    found: Set[Tuple[int, str, str]] = set()
    if not known:
        return []
    snapshot = graph.snapshot
    for name, repository in snapshot.repositories.items():
        for digest in alive.manifests[name]:
            if digest in known and digest not in repository.revisions:
                found.add((layout.REVISION, name, digest))
            manifest = graph.manifests.get(digest)
            for reference in manifest.references if manifest is not None else ():
                if reference in known and reference not in repository.layers and reference not in repository.revisions:
                    kind = layout.REVISION if manifest is not None and reference in manifest.children else layout.LAYER
                    found.add((kind, name, reference))
    return sorted(found)
