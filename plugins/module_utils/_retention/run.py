# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A whole run of retention: read the rules, read the storage, decide, and, if asked, delete.

Private to the collection; behind the module ``registry_retention`` and the command ``wharf.pyz retention``.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import dataclass
from typing import Any, Callable, Dict, Iterable, List, Mapping, Optional, Sequence, Set

from .. import _files
from .._registry.api import Registry, RegistryError
from .._store import layout, memo
from .._store.interface import Driver, Graph, StoreError, as_dicts, open_store, read_config, read_graph, read_store
from .._store.listing import read_tag
from .._store.manifests import Manifest, parse
from .._store.settings import load_yaml
from . import decisions, deletion
from .deletion import Victim
from .rules import Policy, PolicyError, parse_policy
from .usage import Usage, UsageError, read_usage

#: What a caller shows as it is: nothing was changed, or what was changed is whole.
ERRORS = (
    StoreError,
    RegistryError,
    PolicyError,
    UsageError,
    deletion.ApplyError,
    _files.FileRefused,
    OSError,
)

#: A preview lists the tags that stay, too, up to so many tags.
_LISTED_WHOLE = 1000


@dataclass(frozen=True)
class Request:
    """What a run is asked for; names and defaults are those of the module's options. Of ``config`` and ``storage`` one is given.

    ``pulls`` are last pulls that the caller knows. With neither ``usage`` nor ``pulls`` nobody knows what was pulled.
    """

    rules: object
    config: Optional[str] = None
    storage: Optional[Mapping[str, Any]] = None
    protected: object = ()
    floor: object = 1
    in_use: Sequence[object] = ()
    usage: Optional[Sequence[str]] = None
    registry: Optional[Registry] = None
    workers: int = 8
    timeout: float = 30.0
    report: str = ""
    pulls: Optional[Usage] = None
    now: Optional[float] = None

    @property
    def usage_known(self) -> bool:
        """Whether anybody knows what was pulled."""
        return self.usage is not None or self.pulls is not None


class Work:
    """What was decided, and what it takes to do it.

    Attributes:
        decisions: one for each tag.
        tags: what is to be deleted of tags.
        manifests: what is to be deleted of manifests, each index before its children.
        bytes_reclaimable: what garbage collection can free once they are gone.
        findings: what is wrong with the storage, and what stays for that reason.
        warnings: what may be a mistake in the options.
    """

    def __init__(self, driver: Driver, graph: Graph, now: float) -> None:
        self.driver = driver
        self.graph = graph
        self.now = now
        self.decisions: List[decisions.Decision] = []
        self.tags: List[Victim] = []
        self.manifests: List[Victim] = []
        self.bytes_reclaimable = 0
        self.findings: List[Dict[str, str]] = []
        self.warnings: List[str] = []
        self.journal = deletion.Journal()

    def table(self) -> str:
        """Return the decisions as a table; of many tags only those that go."""
        return decisions.table(self.decisions, self.now, keep=len(self.decisions) <= _LISTED_WHOLE)


class Inputs:
    """The options, read and checked. The storage has answered; nothing of it was changed.

    Raises:
        one of ERRORS: for options that cannot be used.
    """

    def __init__(self, request: Request) -> None:
        if request.workers < 1 or request.timeout < 1:
            raise StoreError("workers and timeout must be 1 or more; for example workers: 8, timeout: 30")
        self.policy = parse_policy(request.rules, request.protected, request.floor, usage_known=request.usage_known)
        self.usage = read_usage(request.usage or (), request.pulls)
        if request.report:
            _files.require_directory(request.report, "report")
        self.in_use, self.warnings = decisions.parse_in_use(request.in_use)
        storage = read_config(request.config).storage if request.config is not None else request.storage
        self.driver = open_store(storage or {}, workers=request.workers, timeout=request.timeout)
        self.driver.check()


def prepare(request: Request, inputs: Inputs) -> Work:
    """Decide; nothing is changed.

    Raises:
        one of ERRORS: for a storage that cannot be read.
    """
    driver, policy, usage = inputs.driver, inputs.policy, inputs.usage
    snapshot = read_store(driver)
    now = snapshot.taken if request.now is None else request.now
    if snapshot.blind:
        raise StoreError(
            "%s cannot be read whole, so nothing is deleted: %s; run as the user of the registry" % (driver.label, snapshot.blind[0])
        )
    unsure = {name: repository.faults[0] for name, repository in snapshot.repositories.items() if repository.faults}
    graph = read_graph(driver, snapshot, memo.load(driver))
    work = Work(driver, graph, now)
    work.journal = deletion.read_journal(driver)
    condemned = deletion.condemned(driver, work.journal)

    planner = decisions.Planner(policy, in_use=inputs.in_use, pulls=usage.of, now=now)
    gone: Dict[str, Set[str]] = {}
    for name, repository in sorted(snapshot.repositories.items()):
        tags = [decisions.Tag(tag.name, tag.digest, tag.pushed) for tag in repository.tags.values()]
        images = _images(graph, [*repository.revisions, *(tag.digest for tag in tags if tag.digest)])
        plan = planner.plan(name, tags, images, repository.revisions, condemned.get(name, ()), unsure.get(name, ""))
        work.decisions += plan.decisions
        for decision in plan.decisions:
            link = repository.tags[decision.tag].current
            if decision.decision == decisions.DELETE and link is not None:
                work.tags.append(Victim(name, decision.tag, decision.digest, link.modified))
        gone[name] = set(plan.manifests)
        work.manifests += [
            Victim(name, "", digest, repository.revisions[digest].modified) for digest in parents_first(plan.manifests, graph.manifests)
        ]
        if plan.problem:
            work.findings.append(deletion.finding(name, "", "no manifest is removed here: " + plan.problem))
    work.findings += as_dicts([*snapshot.findings, *graph.findings])
    work.bytes_reclaimable = reclaimable(graph, gone, work.decisions)
    work.warnings = inputs.warnings + planner.warnings() + usage.warnings + _short_usage(policy, usage, now)
    return work


def _short_usage(policy: Policy, usage: Usage, now: float) -> List[str]:
    found = []
    for rule in policy.rules:
        within = rule.keep.pulled_within
        if within is not None and usage.since is not None and usage.since > now - within:
            found.append(
                "rule %d: keep.pulled_within: the access logs reach back %s only, so earlier pulls count only as far as a file of last pulls "
                "knows them" % (rule.number, decisions.ago(now - usage.since))
            )
    return found


def _images(graph: Graph, digests: Iterable[str]) -> Dict[str, decisions.Image]:
    """Return what decisions need of the manifests that are there, and of their children."""
    found: Dict[str, decisions.Image] = {}
    ahead = list(digests)
    while ahead:
        digest = ahead.pop()
        manifest = graph.manifests.get(digest)
        if manifest is None or digest in found:
            continue
        found[digest] = _image(manifest)
        ahead.extend(manifest.children)
    return found


def _image(manifest: Manifest) -> decisions.Image:
    # What a manifest of an unknown type mentions may be manifests.
    return decisions.Image(manifest.children if manifest.known else manifest.layers, manifest.config, manifest.subject)


def parents_first(digests: Iterable[str], manifests: Mapping[str, Manifest]) -> List[str]:
    """Return ``digests`` in an order in which each index comes before its children."""
    among = set(digests)
    order: List[str] = []
    seen: Set[str] = set()
    for start in sorted(among):
        stack = [(start, False)]
        while stack:
            digest, after = stack.pop()
            if after:
                order.append(digest)
            elif digest not in seen:
                seen.add(digest)
                stack.append((digest, True))
                manifest = manifests.get(digest)
                stack.extend((child, False) for child in (manifest.children if manifest else ()) if child in among)
    return order[::-1]


def reclaimable(graph: Graph, gone: Mapping[str, Set[str]], decided: Iterable[decisions.Decision]) -> int:
    """Return the bytes of the blobs that nothing refers to any more once the manifests ``gone`` are."""
    snapshot, manifests = graph.snapshot, graph.manifests
    kept: Set[str] = set()
    candidates: Set[str] = set()
    for name, repository in snapshot.repositories.items():
        lost = gone.get(name, set())
        if repository.faults:
            kept.update(repository.layers)
        kept.update(digest for digest in repository.revisions if digest not in lost)
        candidates |= lost
    kept.update(decision.digest for decision in decided if decision.decision == decisions.KEEP)
    for digest in list(kept):
        if digest in manifests:
            kept.update(manifests[digest].references)
    blobs = set(candidates)
    for digest in candidates:
        if digest in manifests:
            blobs.update(manifests[digest].references)
    return sum(snapshot.blobs[digest].size for digest in blobs - kept if digest in snapshot.blobs)


def perform(request: Request, work: Work, require: Callable[[], None] = lambda: None) -> deletion.Outcome:
    """Do what was decided. The caller holds the storage's lock, and has taken it before :func:`prepare`.

    Raises:
        one of ERRORS: the message says what to do; the next run goes on where this one ended.
    """
    deletion.recover(work.driver, work.journal)
    return deletion.apply(
        work.driver,
        work.tags,
        work.manifests,
        registry=request.registry,
        workers=request.workers,
        needed_now=_needed_now(work.driver, work.graph),
        require=require,
    )


def _needed_now(driver: Driver, graph: Graph) -> Callable[[str, Set[str]], Set[str]]:
    """Return a function that reads a repository's tags and manifests again and says which of some digests they need."""

    def look(repository: str, digests: Set[str]) -> Set[str]:
        known = graph.snapshot.repositories[repository]
        tags: List[decisions.Tag] = []
        roots: Set[str] = set()
        for entry in driver.walk("%s/%s/_manifests" % (layout.REPOSITORIES, repository), ("index",)):
            item = layout.parse(entry.path)
            if item.kind == layout.TAG:
                tag = known.tags.get(item.name)
                same = tag is not None and tag.current is not None and abs(tag.current.modified - entry.modified) < 1e-6 and driver.local
                digest = tag.digest if tag is not None and same else read_tag(driver, repository, item.name)
                tags.append(decisions.Tag(item.name, digest, entry.modified))
            elif item.kind == layout.REVISION and item.digest not in digests:
                roots.add(item.digest)
        roots.update(tag.digest for tag in tags if tag.digest and not layout.described_by(tag.name, tag.digest))
        images = _images(graph, [*known.revisions, *roots])
        for digest in sorted(roots - set(images)):
            try:
                images[digest] = _image(parse(digest, driver.read(layout.blob_path(digest))))
            except (OSError, ValueError):
                continue
        return decisions.reached(roots, images, tags) & digests

    return look


def report(work: Work, outcome: Optional[deletion.Outcome], duration: float) -> Dict[str, Any]:
    """Return what a run reports, as JSON can hold it. Without an outcome it is what the run would do."""
    total = len(work.decisions)
    deleted = len(work.tags) if outcome is None else len(outcome.tags)
    return {
        "decisions": [decision.as_dict() for decision in work.decisions],
        "deleted": deleted,
        "kept": total - deleted,
        "manifests_deleted": len(work.manifests) if outcome is None else len(outcome.manifests),
        "bytes_reclaimable": work.bytes_reclaimable,
        "findings": work.findings + ([] if outcome is None else outcome.findings),
        "duration": round(duration, 3),
    }


def run(request: Request, check: bool) -> Dict[str, Any]:
    """Run the whole thing and return its report with ``changed``, ``warnings`` and ``table``.

    Raises:
        one of ERRORS.
    """
    started = time.monotonic()
    inputs = Inputs(request)
    outcome = None
    if check:
        work = prepare(request, inputs)
    else:
        from .._store.lock import Lock  # a preview takes no lock

        with Lock(inputs.driver) as lock:
            work = prepare(request, inputs)
            if work.graph.read:
                memo.save(inputs.driver, work.graph.manifests)
            if work.tags or work.manifests or work.journal.victims:
                outcome = perform(request, work, lock.require)
    result = report(work, outcome, time.monotonic() - started)
    if request.report and not check:
        content = dict(result, warnings=work.warnings)
        _files.write_atomically(request.report, (json.dumps(content, indent=1) + "\n").encode("utf-8"), mode=0o640)
    result["changed"] = result["deleted"] > 0 or result["manifests_deleted"] > 0
    result["warnings"] = work.warnings
    result["table"] = work.table()
    return result


# ------------------------------------------------------------------------------------------------------------- command


def open_registry(url: str, username: str, password: str, ca_path: Optional[str], timeout: float) -> Optional[Registry]:
    """Return a client for ``url``; None if there is none.

    Raises:
        StoreError: if the URL or the file of CAs cannot be used.
    """
    if not url:
        return None
    try:
        return Registry(url, username=username, password=password, ca_path=ca_path, timeout=timeout)
    except (OSError, ValueError) as error:
        raise StoreError("url, ca_path: cannot be used: %s; for example url: https://registry.example.com" % error) from None


def read_policy(path: str) -> Dict[str, Any]:
    """Read a file of rules, YAML or JSON: the list of them, or a dictionary of ``rules``, ``protected``, ``floor`` and ``in_use``.

    Raises:
        StoreError: if it cannot be read or is neither. The rules themselves are not looked at.
    """
    known = ("rules", "protected", "floor", "in_use")
    example = 'for example [{"repositories": ["shop/**"], "keep": {"last": 10}}]'
    try:
        with open(path, encoding="utf-8") as handle:
            tree = load_yaml(handle.read(), path, "rules")
    except OSError as error:
        raise StoreError("rules: %s cannot be read: %s" % (path, error.strerror)) from None
    except UnicodeDecodeError:
        raise StoreError("rules: %s is no text; %s" % (path, example)) from None
    if isinstance(tree, list):
        return {"rules": tree}
    if not isinstance(tree, dict) or "rules" not in tree:
        raise StoreError("rules: %s holds neither a list of rules nor a dictionary with rules; %s" % (path, example))
    strangers = [str(key) for key in tree if key not in known]
    if strangers:
        raise StoreError("rules: %s: there is no %s; the keys are %s" % (path, " and no ".join(strangers), ", ".join(known)))
    return tree


def command(options: Any) -> int:
    """Run as a command: the result goes to the standard output in JSON, warnings and errors to the other. Return the exit status."""
    try:
        policy = read_policy(options.rules)
        password = ""
        if options.password_file:
            with open(options.password_file, encoding="utf-8") as handle:
                password = handle.read().strip()
        result = run(
            Request(
                rules=policy["rules"],
                config=options.config,
                protected=[*policy.get("protected", ()), *options.protected],
                floor=options.floor if options.floor is not None else policy.get("floor", 1),
                in_use=[*policy.get("in_use", ()), *options.in_use],
                usage=options.usage,
                registry=open_registry(options.url, options.username, password, options.ca_path, options.timeout),
                workers=options.workers,
                timeout=options.timeout,
                report=options.report,
            ),
            check=options.check,
        )
    except ERRORS as error:
        sys.stderr.write("%s\n" % error)
        return 1
    for warning in result.pop("warnings"):
        sys.stderr.write("warning: %s\n" % warning)
    table = result.pop("table")
    if options.check:
        result["preview"] = table.splitlines()
    sys.stdout.write(json.dumps(result, sort_keys=True) + "\n")
    return 0
