# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A whole run of the garbage collection: read, plan, and unless it is a check, act."""

from __future__ import annotations

import json
import sys
import time
from typing import Any, Dict, List, NamedTuple, Optional, Tuple

from .. import _files
from .._durations import parse_duration
from . import announce, memo
from .act import Actor, Outcome
from .cache import Cache
from .driver import Driver, StoreError
from .findings import Finding
from .graph import Graph, Policy, compile_globs, find_alive, read_graph
from .listing import read_store
from .lock import Lock
from .plan import Hidden, Plan, make_plan
from .settings import Settings, open_store, read_config
from .state import list_trash, load_hidden, restore_trash


class Request(NamedTuple):
    """What is asked for; names and defaults are those of the module's options, times in seconds."""

    settings: Settings
    mode: str = "online"
    grace: float = 86400.0
    delete_untagged: bool = False
    max_delete_fraction: float = 0.5
    repositories: Tuple[str, ...] = ()
    report: str = ""
    workers: int = 16
    timeout: float = 0.0
    #: Seconds between moving a blob away and removing it; longer than other hosts remember what a file system told them.
    settle: float = 5.0


class Result(NamedTuple):
    """What came of it. ``values`` are the module's return values."""

    changed: bool
    plan: Plan
    values: Dict[str, Any]
    warnings: List[str]


def read_grace(text: Any) -> float:
    """Return the seconds of the option ``grace``, a text such as ``90s``, ``24h`` or ``1d12h``.

    Raises:
        StoreError: for anything else.
    """
    seconds = parse_duration(str(text).strip())
    if seconds is None:
        raise StoreError(f"grace: {text!r} is no duration; write a number with w, d, h, m (minutes) or s, for example 24h")
    return float(seconds)


def check_request(request: Request) -> List[str]:
    """Refuse what must not be done; return warnings.

    Raises:
        StoreError: with the option's name and the reason.
    """
    warnings = []
    if not 0 <= request.max_delete_fraction <= 1:
        raise StoreError(f"max_delete_fraction: {request.max_delete_fraction} is no share; write a number from 0 to 1, for example 0.5")
    if request.workers < 1:
        raise StoreError(f"workers: {request.workers} is too few; write for example 16")
    if request.settings.cache == "inmemory":
        if request.mode == "online":
            raise StoreError(
                "the registry keeps a cache in its memory (storage.cache.blobdescriptor: inmemory). Nobody can make it forget what is removed: it "
                "would go on telling clients that blobs are there, and their pushes would miss them. Use redis or no cache, or stop the "
                "registry and take mode: offline"
            )
        warnings.append("The registry keeps a cache in its memory: start it anew before it takes pushes, or it misses what was removed.")
    return warnings


def run(request: Request, *, check: bool = False, driver: Optional[Driver] = None) -> Result:
    """Collect the garbage of a storage, or with ``check`` say what a run would do.

    Raises:
        StoreError: if it cannot be done; the message says whether anything was changed.
    """
    begun = time.monotonic()
    warnings = check_request(request)
    deadline = begun + request.timeout if request.timeout > 0 else float("inf")
    if driver is None:
        driver = open_store(request.settings.storage, workers=request.workers)
    driver.check()
    cache = Cache(request.settings.redis) if request.settings.redis and request.settings.cache != "inmemory" else None
    if cache is not None:
        cache.check()
    outcome = None
    if check:
        plan, graph, gate = _plan(request, driver, deadline, load_hidden(driver), list_trash(driver))
        changed = plan.changes
    else:
        driver.prove_writable()
        with Lock(driver) as lock:
            try:
                restored = restore_trash(driver)
                hidden = load_hidden(driver)
                plan, graph, gate = _plan(request, driver, deadline, hidden, {})
                changed = plan.changes or bool(restored)
                if graph.read:
                    memo.save(driver, graph.manifests)
                announcer = _announce(driver, plan, gate) if gate else None
                if plan.changes or plan.empties:
                    actor = Actor(
                        driver, graph, plan, hidden, lock,
                        grace=request.grace, cache=cache, announcer=announcer, settle=request.settle, deadline=deadline,
                    )  # fmt: skip
                    outcome = actor.run()
            except OSError as error:
                raise StoreError(f"{driver.label}: {error.filename or ''}: {error.strerror or error}; the next run goes on") from None
    if outcome is not None and outcome.unfinished:
        warnings.append("The time ran out before all was done; the next run goes on.")
    warnings += _silence(gate)
    for name, reasons in plan.kept:
        warnings.append(f"{name} could not be read whole ({reasons[0]}): nothing that it may refer to is removed.")
    if plan.blind:
        warnings.append(f"The storage could not be read whole ({plan.blind[0]}): no manifest and no blob is removed.")
    for pattern, match in compile_globs(request.repositories):
        if not any(match(name) for name in graph.snapshot.repositories):
            warnings.append(f"repositories: {pattern} matches no repository.")
    values = _values(plan, outcome, time.monotonic() - begun)
    values["bytes_stored"] = graph.snapshot.bytes - values["bytes_freed"]
    if request.report:
        content = json.dumps({**values, "check": check, "plan": plan.as_dict()}, indent=1, sort_keys=True).encode()
        try:
            _files.write_atomically(request.report, content + b"\n", mode=0o640)
        except OSError as error:
            warnings.append(f"report: {request.report} cannot be written: {error.strerror}")
    return Result(changed, plan, values, warnings)


def _plan(
    request: Request, driver: Driver, deadline: float, hidden: Dict[str, Hidden], trash: Dict[str, int]
) -> Tuple[Plan, Graph, Optional[announce.Gate]]:
    """Read the storage and decide; nothing is changed."""
    snapshot = read_store(driver)
    graph = read_graph(driver, snapshot, memo.load(driver))
    before = snapshot.taken - request.grace if request.grace > 0 else float("inf")
    policy = Policy(request.delete_untagged, tuple(request.repositories), before)
    alive = find_alive(graph, policy)
    gate = None
    later = None
    if request.mode == "online":
        try:
            gate = announce.Gate(announce.load(driver), announce.read_listeners(driver), grace=request.grace, now=snapshot.taken)
        except OSError as error:
            raise StoreError(f"{driver.label}: {error.filename or ''}: {error.strerror or error}; nothing was changed") from None
        snapshot.findings += [Finding("silent-node", detail=item.name) for item in (*gate.silent, *gate.quiet)]
    if gate:
        later = alive
        waiting = {
            (name, digest)
            for name, repository in snapshot.repositories.items()
            for digest in repository.revisions.keys() - alive.manifests[name]
            if not gate.lets_manifest(name, digest)
        }
        alive = find_alive(graph, policy._replace(waiting=frozenset(waiting))) if waiting else alive
    plan = make_plan(
        graph, alive, mode=request.mode, grace=request.grace, now=snapshot.taken, hidden=hidden, trash=trash, gate=gate, later=later
    )
    if time.monotonic() > deadline:
        raise StoreError(f"timeout: reading {driver.label} took longer than {request.timeout:g} seconds; nothing was removed")
    if plan.share > request.max_delete_fraction:
        raise StoreError(
            f"max_delete_fraction: {plan.share:.0%} of all {plan.blobs_total} blobs would go, more than {request.max_delete_fraction:.0%}; "
            "nothing was removed. Look at the plan (check mode with a larger max_delete_fraction), and allow it if it is right"
        )
    return plan, graph, gate


def _announce(driver: Driver, plan: Plan, gate: announce.Gate) -> announce.Announcer:
    """Say what is to go, with what may go now: it is announced until it is gone."""
    blobs = [blob.digest for blob in plan.announce]
    blobs += [blob.digest for blob in plan.delete if blob.digest in gate.former.blobs]
    manifests = [(item.repository, item.digest) for item in (*plan.announce_manifests, *plan.manifests)]
    return announce.Announcer(driver, gate, gate.next(blobs, manifests), time.monotonic)


def _silence(gate: Optional[announce.Gate]) -> List[str]:
    """Return warnings about nodes that do not tell whether their edges know what goes."""
    if gate is None:
        return []
    found = [
        f"{item.name} has not been heard of for longer than grace: it is not waited for. If it is gone, remove {announce.folder(item.name)} from the "
        "storage; if its edge serves, start wharf-announced.service there, because a push through it may fail once"
        for item in gate.silent
    ]
    return found + [
        f"{item.name} has not been heard of for some minutes: what it has not acknowledged stays until it does, or for grace. See "
        "wharf-announced.service there"
        for item in gate.quiet
    ]


def _values(plan: Plan, outcome: Optional[Outcome], seconds: float) -> Dict[str, Any]:
    """Return the module's values: what was done, or in a check what would be."""
    if outcome is None:
        outcome = Outcome(len(plan.manifests), len(plan.hide), len(plan.delete), plan.bytes_freed, plan.uploads_count, False)
    return {
        "blobs_marked": plan.blobs_marked,
        "blobs_announced": len(plan.announce),
        "manifests_deleted": outcome.manifests_deleted,
        "blobs_hidden": outcome.blobs_hidden,
        "blobs_deleted": outcome.blobs_deleted,
        "bytes_freed": outcome.bytes_freed,
        "bytes_pending": plan.bytes_pending,
        "uploads_purged": outcome.uploads_purged,
        "findings": plan.findings,
        "duration": round(seconds, 3),
    }


def command(options: Any) -> int:
    """Run as a command: the result goes to the standard output in JSON, warnings and errors to the other. Return the exit status."""
    try:
        request = Request(
            settings=read_config(options.config),
            mode=options.mode,
            grace=read_grace(options.grace),
            delete_untagged=options.delete_untagged,
            max_delete_fraction=options.max_delete_fraction,
            repositories=tuple(options.repositories),
            report=options.report,
            workers=options.workers,
            timeout=options.timeout,
        )
        result = run(request, check=options.check)
    except StoreError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    for warning in result.warnings:
        sys.stderr.write(f"warning: {warning}\n")
    sys.stdout.write(json.dumps(dict(result.values, changed=result.changed, plan=result.plan.summary()), sort_keys=True) + "\n")
    return 0
