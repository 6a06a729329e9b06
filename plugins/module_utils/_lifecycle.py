# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Retention, then garbage collection, once a day on one of several nodes; whichever is there does it.

Private to the collection; behind ``wharf.pyz lifecycle``, which a timer starts on every node each hour, at another minute on each.

Each node keeps a record of its last runs in the storage, ``wharf-gc/lifecycle/<host>.json``. A day begins at the configured time; a part
(retention, gc) is due on a node if no record tells of a good run since then, and this node has not tried it since then either. So the
first node whose timer fires does the work, the next ones find it done, and if it failed or its node is gone the next one tries. Two that
come at the same time are kept apart by the storage's lock.

The configuration is JSON; the role ``lifecycle`` writes it::

    {"name": "registry1", "config": "/etc/wharf/registry/config.yml", "at": "03:00",
     "usage": ["/var/log/wharf/access.log*"], "reports": "/var/lib/wharf/lifecycle", "metrics": "/var/lib/wharf/metrics/lifecycle.prom",
     "retention": {"rules": [...], "protected": [], "floor": 1, "in_use": []},
     "gc": {"grace": "24h", "delete_untagged": false, "max_delete_fraction": 0.5, "repositories": [], "timeout": 0},
     "quota": "2TB"}

``quota`` is what a bucket may hold, for the metrics of its use, which are those of a file system; empty or missing: they are not told.
``retention`` and ``gc`` may be null: then that part is not done. Of ``usage`` the last pulls are told to all nodes (``_retention.shared``).
"""

from __future__ import annotations

import json
import re
import sys
import time
from typing import Any, Callable, Dict, List, Mapping, NamedTuple, Optional, Tuple

from . import _files
from ._retention import run as retention_run
from ._retention import shared
from ._retention.decisions import ago
from ._retention.rules import PolicyError, parse_policy
from ._retention.usage import UsageError, write_pulls
from ._sizes import parse_size, size_problem
from ._store import gc, layout
from ._store.driver import Driver, StoreError
from ._store.graph import compile_globs
from ._store.lock import LockHeld
from ._store.settings import Settings, open_store, read_config

FOLDER = layout.OWN + "/lifecycle"
PARTS = ("retention", "gc")
_AT = re.compile(r"([01]?\d|2[0-3]):([0-5]\d)")
_GC_TYPES: Tuple[Tuple[str, Any, str], ...] = (
    ("grace", str, "24h"),
    ("delete_untagged", bool, "false"),
    ("max_delete_fraction", (int, float), "0.5"),
    ("repositories", list, "['shop/**']"),
    ("timeout", (int, float), "0"),
)
#: A node that has told its pulls no later than this ago counts as up to date; nodes tell every hour.
_FRESH = 2 * 3600.0

#: Metric -> (key of a run's record, help). Each is there once a run has been good.
_METRICS = {
    "gc": {
        "last_success_timestamp_seconds": ("begun", "When the last good run of the garbage collection began, on whichever node."),
        "duration_seconds": ("duration", "How long that run took."),
        "freed_bytes": ("bytes_freed", "Bytes that it freed."),
        "pending_bytes": ("bytes_pending", "Bytes that it found to be garbage and left for a later run."),
        "blobs_deleted": ("blobs_deleted", "Blobs that it deleted."),
        "blobs_hidden": ("blobs_hidden", "Blobs that it hid."),
        "stored_bytes": ("bytes_stored", "Bytes that the storage held after it."),
        "blobs_announced": ("blobs_announced", "Blobs that are to go and of which it has told the edges."),
        "findings": ("findings", "What it found to be wrong with the storage."),
    },
    "retention": {
        "last_success_timestamp_seconds": ("begun", "When the last good run of retention began, on whichever node."),
        "duration_seconds": ("duration", "How long that run took."),
        "tags_deleted": ("deleted", "Tags that it deleted."),
        "tags_kept": ("kept", "Tags that it kept."),
        "reclaimable_bytes": ("bytes_reclaimable", "Bytes that garbage collection can free for it."),
        "findings": ("findings", "What it found to be wrong with the storage."),
    },
}


class Options(NamedTuple):
    """The configuration, checked."""

    name: str
    config: str
    at: Tuple[int, int]
    usage: List[str]
    reports: str
    metrics: str
    parts: Mapping[str, Optional[Dict[str, Any]]]
    quota: int = 0


#: What a run tells: part -> its last attempt.
Record = Dict[str, Dict[str, Any]]


def problems(options: Mapping[str, Any], prefix: str = "") -> List[str]:
    """Return one sentence for each fault of a configuration: ``at``, ``quota``, ``gc`` and ``retention``."""
    found = []
    problem = size_problem(options.get("quota"), prefix + "quota")
    if problem:
        found.append(problem)
    if not _AT.fullmatch(str(options.get("at", ""))):
        found.append('%sat: %r is no time of day; for example %sat: "03:00"' % (prefix, options.get("at"), prefix))
    collect = options.get("gc")
    if collect:
        # A text is true whatever it says: no guess where it decides what is deleted.
        for key, kind, example in _GC_TYPES:
            if not isinstance(collect.get(key), kind) or (isinstance(collect[key], bool) and kind is not bool):
                found.append(
                    "%sgc_%s: %r is of the wrong kind; for example %sgc_%s: %s" % (prefix, key, collect.get(key), prefix, key, example)
                )
    if collect and not found:
        try:
            compile_globs(tuple(collect.get("repositories") or ()))
            gc.check_request(_gc_request(collect, Settings({}, None, ""), ""))
        except StoreError as error:
            found.append("%sgc_%s" % (prefix, error))
    retention = options.get("retention")
    if retention:
        try:
            # Each node knows what was pulled where a log is given.
            known = bool(options.get("usage"))
            parse_policy(retention.get("rules"), retention.get("protected", ()), retention.get("floor", 1), known)
        except PolicyError as error:
            found += ["%sretention_rules: %s" % (prefix, problem) for problem in error.problems]
    return found


def read_options(path: str) -> Options:
    """Read the configuration.

    Raises:
        StoreError: if it cannot be read or is wrong.
    """
    try:
        with open(path, encoding="utf-8") as handle:
            tree = json.load(handle)
        found = problems(tree)
        if found:
            raise StoreError("%s: %s" % (path, "; ".join(found)))
        hour, _colon, minute = tree["at"].partition(":")
        name = re.sub(r"[^\w.-]", "_", tree["name"])
        parts = {part: tree[part] for part in PARTS}
        quota = parse_size(str(tree.get("quota") or "")) or 0
        return Options(name, tree["config"], (int(hour), int(minute)), tree["usage"], tree["reports"], tree["metrics"], parts, quota)
    except OSError as error:
        raise StoreError("%s cannot be read: %s" % (path, error.strerror)) from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise StoreError("%s is no configuration of this command: %s" % (path, error)) from None


def day_begun(at: Tuple[int, int], now: float) -> float:
    """Return the last moment up to ``now`` at which local clocks showed ``at``."""
    local = time.localtime(now)
    begun = time.mktime((local.tm_year, local.tm_mon, local.tm_mday, at[0], at[1], 0, 0, 0, -1))
    if begun > now:
        begun = time.mktime((local.tm_year, local.tm_mon, local.tm_mday - 1, at[0], at[1], 0, 0, 0, -1))
    return begun


def is_due(part: str, records: Mapping[str, Record], name: str, begun: float) -> bool:
    """Return whether this node is to try a part: nobody has done it since the day began, and this node has not tried."""
    for host, record in records.items():
        attempt = record.get(part)
        if attempt and attempt["begun"] >= begun and (attempt["good"] or host == name):
            return False
    return True


# ------------------------------------------------------------------------------------------------------------- records


def read_records(driver: Driver) -> Dict[str, Record]:
    """Return by host what its last runs were. A damaged record counts as none."""
    records: Dict[str, Record] = {}
    for entry in driver.walk(FOLDER):
        if not entry.path.endswith(".json"):
            continue
        try:
            tree = json.loads(driver.read(entry.path).decode("utf-8"))
            record = {part: tree[part] for part in PARTS if part in tree}
            whole = all(isinstance(attempt["begun"], float) and "good" in attempt for attempt in record.values())
        except (OSError, ValueError, KeyError, TypeError):
            continue
        if record and whole:
            records[entry.path.rpartition("/")[2][: -len(".json")]] = record
    return records


def last_good(part: str, records: Mapping[str, Record]) -> Optional[Dict[str, Any]]:
    """Return the youngest good run of a part, whichever node did it."""
    runs = [record[part] for record in records.values() if part in record]
    # Of an attempt that failed the run before it that was good is kept along.
    good = [run if run["good"] else run.get("before") for run in runs]
    return max((run for run in good if run), key=lambda run: run["begun"], default=None)


def render_metrics(options: Options, records: Mapping[str, Record], now: float, problem: str = "") -> str:
    """Return the metrics in the format of Prometheus' text files.

    What was done is told alike by every node; ``refused`` and the time of the look are this node's own.
    """
    lines: List[str] = []

    def add(name: str, text: str, value: float, labels: str = "") -> None:
        lines.extend(["# HELP %s %s" % (name, text), "# TYPE %s gauge" % name, "%s%s %s" % (name, labels, repr(float(value)))])

    add("wharf_lifecycle_last_look_timestamp_seconds", "When this node last looked whether there is something to do.", now)
    add("wharf_lifecycle_failed", "Whether that look failed: 1 if the storage or the configuration could not be used.", bool(problem))
    for part in PARTS:
        if not options.parts[part]:
            continue
        good = last_good(part, records)
        own = records.get(options.name, {}).get(part)
        refused = own is not None and not own["good"] and (good is None or own["begun"] > good["begun"])
        add("wharf_%s_refused" % part, "Whether this node's last attempt was refused or failed, and no other was good since.", refused)
        for metric, (key, text) in _METRICS[part].items():
            if good is not None and key in good:
                add("wharf_%s_%s" % (part, metric), text, good[key])
    collected = last_good("gc", records) or {}
    bucket = re.sub(r'[\\"\n]', "_", str(collected.get("bucket", "")))
    if options.quota and bucket and "bytes_stored" in collected:
        # As a host tells of a file system, and alike on every node: the name of the storage makes one of them.
        labels = '{storage="%s"}' % bucket
        left = max(options.quota - collected["bytes_stored"], 0)
        add("wharf_storage_size_bytes", "What the registry's bucket may hold.", options.quota, labels)
        add("wharf_storage_available_bytes", "What of it was left after the last good garbage collection.", left, labels)
    return "\n".join(lines) + "\n"


# ----------------------------------------------------------------------------------------------------------------- run


def _gc_request(options: Mapping[str, Any], settings: Settings, report: str) -> gc.Request:
    return gc.Request(
        settings,
        grace=gc.read_grace(options["grace"]),
        delete_untagged=options["delete_untagged"],
        max_delete_fraction=options["max_delete_fraction"],
        repositories=tuple(options["repositories"]),
        report=report,
        timeout=float(options["timeout"]),
    )


def _collect_garbage(options: Options, settings: Settings, driver: Driver, say: Callable[[str], None]) -> Dict[str, Any]:
    result = gc.run(_gc_request(options.parts["gc"] or {}, settings, options.reports + "/gc.json"))
    for warning in result.warnings:
        say("gc: " + warning)
    say(
        "gc: %(blobs_announced)d blobs announced, %(blobs_hidden)d hidden, %(blobs_deleted)d deleted, %(manifests_deleted)d manifests deleted, "
        "%(bytes_freed)d bytes freed, %(bytes_pending)d to follow" % result.values
    )
    bucket = driver.label if driver.label.startswith("s3://") else ""
    return dict(result.values, findings=len(result.values["findings"]), bucket=bucket)


def _retain(options: Options, settings: Settings, driver: Driver, say: Callable[[str], None]) -> Dict[str, Any]:
    part = options.parts["retention"] or {}
    pulls = None
    if options.usage:
        pulls, until = shared.collect(driver)
        for host, when in sorted(until.items()):
            if when < time.time() - _FRESH:
                say(
                    "retention: %s has told its pulls %s ago; what was pulled through it since is not known"
                    % (host, ago(time.time() - when))
                )
    request = retention_run.Request(
        rules=part["rules"],
        storage=settings.storage,
        protected=part["protected"],
        floor=part["floor"],
        in_use=part["in_use"],
        report=options.reports + "/retention.json",
        pulls=pulls,
    )
    result = retention_run.run(request, check=False)
    for warning in result["warnings"]:
        say("retention: " + warning)
    say(
        "retention: %(deleted)d tags and %(manifests_deleted)d manifests deleted, %(kept)d tags kept, %(bytes_reclaimable)d bytes reclaimable"
        % result
    )
    values = {key: result[key] for key in ("deleted", "kept", "manifests_deleted", "bytes_reclaimable", "duration")}
    return dict(values, findings=len(result["findings"]))


_DO: Dict[str, Callable[[Options, Settings, Driver, Callable[[str], None]], Dict[str, Any]]] = {
    "retention": _retain,
    "gc": _collect_garbage,
}


def needs_pulls(options: Options) -> bool:
    """Return whether a rule asks what was pulled."""
    rules = (options.parts["retention"] or {}).get("rules", ())
    return bool(options.usage) and any("pulled_within" in (rule.get("keep") or {}) for rule in rules)


def run(options: Options, say: Callable[[str], None], now: Optional[float] = None) -> bool:
    """Do what is due; return whether all went well.

    Raises:
        StoreError, OSError: if the storage cannot be used at all.
    """
    now = time.time() if now is None else now
    settings = read_config(options.config)
    driver = open_store(settings.storage)
    driver.check()
    if needs_pulls(options):
        try:
            shared.publish(driver, options.name, options.usage)
        except UsageError as error:
            say("%s; retention counts this node's pulls only up to now" % error)
    records = read_records(driver)
    begun = day_begun(options.at, now)
    good = True
    for part in PARTS:
        if not options.parts[part] or not is_due(part, records, options.name, begun):
            continue
        attempt: Dict[str, Any] = {"begun": time.time(), "host": options.name}
        try:
            attempt.update(_DO[part](options, settings, driver, say), good=True)
        except LockHeld as error:
            say("%s: %s" % (part, error))
            break
        except (*retention_run.ERRORS, ValueError) as error:
            say("%s: %s" % (part, error))
            attempt.update(good=False, problem=str(error), before=last_good(part, records))
            good = False
        own = dict(records.get(options.name, {}))
        own[part] = attempt
        records[options.name] = own
        driver.write("%s/%s.json" % (FOLDER, options.name), json.dumps(own, sort_keys=True).encode("utf-8"))
    _files.write_atomically(_known_path(options), json.dumps(records).encode("utf-8"), mode=0o640)
    write_metrics(options, records)
    return good


def _known_path(options: Options) -> str:
    """Where this node keeps the records, for its metrics while the storage does not answer."""
    return options.reports + "/records.json"


def write_metrics(options: Options, records: Mapping[str, Record], problem: str = "") -> None:
    """Write the metrics' file."""
    _files.write_atomically(options.metrics, render_metrics(options, records, time.time(), problem).encode("utf-8"), mode=0o644)


def command(path: str) -> int:
    """Run as a command; what happens goes to the standard error output. Return the exit status."""

    def say(text: str) -> None:
        sys.stderr.write(text + "\n")

    try:
        options = read_options(path)
    except StoreError as error:
        say(str(error))
        return 2
    try:
        return 0 if run(options, say) else 1
    except (StoreError, OSError) as error:
        say(str(error))
        try:
            known = _files.read_if_there(_known_path(options))
            write_metrics(options, json.loads(known.decode("utf-8")) if known else {}, str(error))
        except (OSError, ValueError) as second:
            say(str(second))
        return 1


def usage_command(options: Any) -> int:
    """Tell the storage what this host's logs tell, and write what all hosts have told to a file. Return the exit status."""
    try:
        driver = open_store(read_config(options.config).storage)
        driver.check()
        if options.usage:
            shared.publish(driver, options.name, options.usage)
        if options.output:
            pulls, _until = shared.collect(driver)
            write_pulls(options.output, pulls, mode=0o600)
    except (StoreError, UsageError, OSError) as error:
        sys.stderr.write("%s\n" % error)
        return 1
    return 0
