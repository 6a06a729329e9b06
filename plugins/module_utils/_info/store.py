# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Read what a registry holds from its storage. Nothing is written, and nobody is locked out. Private to the collection."""

from __future__ import annotations

from typing import Collection, Iterator, List, Optional, Sequence, Set, Tuple, Union

from .._store import layout, memo
from .._store.driver import Entry
from .._store.interface import Driver, Finding, Snapshot, compile_globs, read_graph, read_store
from .._store.manifests import LIMIT
from .contents import PLATFORMS, SIZES, Config, Contents, Repository, Tag, platform_of


def read_storage(driver: Driver, patterns: Sequence[str], gather: Collection[str]) -> Contents:
    """Return what a storage holds.

    Args:
        driver: the storage.
        patterns: globs of the repositories that are asked for; none: all.
        gather: some of ``contents.GATHER``. Manifests are read only if sizes or platforms are among them.

    Raises:
        StoreError: if the storage does not answer or is no registry's, or for a pattern that is none.
    """
    globs = compile_globs(patterns)
    snapshot = read_store(driver)
    contents = Contents()
    for pattern, match in globs:
        if not any(match(name) for name in snapshot.repositories):
            contents.warnings.append(f"repositories: {pattern} matches no repository.")
    chosen = {name for name in snapshot.repositories if not globs or any(match(name) for _pattern, match in globs)}
    if SIZES not in gather:
        # What the others use is not asked for.
        snapshot.repositories = {name: snapshot.repositories[name] for name in chosen}
    contents.findings += snapshot.findings
    if SIZES in gather or PLATFORMS in gather:
        _catch_up(driver, snapshot)
        graph = read_graph(driver, snapshot, memo.load(driver))
        contents.manifests = graph.manifests
        contents.findings += graph.findings
    for repository in snapshot.repositories.values():
        tags = [Tag(tag.name, tag.digest, tag.pushed) for tag in repository.tags.values()]
        if tags or repository.revisions:
            pushes = [tag.pushed for tag in tags] + [link.modified for link in repository.revisions.values()]
            entry = Repository(repository.name, tags, repository.revisions, max(pushes))
            (contents.repositories if repository.name in chosen else contents.others).append(entry)
    contents.findings = [finding for finding in contents.findings if not finding.repository or finding.repository in chosen]
    faults = [
        f"{name}: {repository.faults[0]}" for name, repository in snapshot.repositories.items() if repository.faults and name in chosen
    ]
    if snapshot.blind or faults:
        contents.warnings.append(f"Not all could be read ({(snapshot.blind + faults)[0]}), so numbers may be too small; see findings.")

    blobs = snapshot.blobs
    contents.size_of = lambda digest: blobs[digest].size if digest in blobs else 0
    contents.blobs = {digest: blob.size for digest, blob in blobs.items()}

    def read_platform(config: Config) -> Union[str, Finding]:
        digest, repository = config
        try:
            return platform_of(driver.read(layout.blob_path(digest)))
        except ValueError as problem:
            reason = str(problem)
        except OSError as problem:
            reason = problem.strerror or str(problem)
        return Finding("unreadable", repository, digest=digest, detail=f"the configuration of an image: {reason}")

    def read_platforms(configs: List[Config]) -> Iterator[Tuple[str, str]]:
        # One that is missing is among the findings already.
        there = [config for config in configs if config[0] in blobs and blobs[config[0]].size <= LIMIT]
        for (digest, _repository), found in zip(there, driver.each(read_platform, there)):
            if isinstance(found, Finding):
                contents.findings.append(found)
            else:
                yield digest, found

    contents.read_platforms = read_platforms
    return contents


def _catch_up(driver: Driver, snapshot: Snapshot) -> None:
    """Look for blobs that are linked and were not seen: blobs are listed first, and somebody may have pushed meanwhile."""
    linked: Set[str] = set()
    for repository in snapshot.repositories.values():
        linked.update(repository.revisions, repository.layers, (tag.digest for tag in repository.tags.values() if tag.digest))

    def look(digest: str) -> Optional[Entry]:
        try:
            return driver.stat(layout.blob_path(digest))
        except OSError:
            return None

    for entry in driver.each(look, sorted(linked - snapshot.blobs.keys())):
        if entry is not None:
            snapshot.add(entry)
