# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Command line of the zipapp ``wharf.pyz``: one subcommand per tool, each imported only when it is asked for."""

from __future__ import annotations

import argparse
from typing import List, Optional

LIFECYCLE_CONFIG = "/etc/wharf/lifecycle.json"
BALANCER_CONFIG = "/etc/wharf/balancer.json"
PROBE_CONFIG = "/etc/wharf/probe.json"
NFS_CONFIG = "/etc/wharf/nfs.json"
AUDIT_CONFIG = "/etc/wharf/audit.json"
FORWARD_CONFIG = "/etc/wharf/audit-forward/config.json"
METRICS_CONFIG = "/etc/wharf/metrics.json"
ANNOUNCED_CONFIG = "/etc/wharf/announced.json"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="wharf", description="Tools of the wharf.registry collection that run on its hosts.")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    commands.required = True

    check = commands.add_parser("check", help="daemon of a balancer: keep nginx's list of healthy nodes")
    check.add_argument("--config", default=BALANCER_CONFIG)

    drain = commands.add_parser("drain", help="take a node out of this balancer; it comes back by itself after --for seconds")
    drain.add_argument("node")
    drain.add_argument("--config", default=BALANCER_CONFIG)
    drain.add_argument("--for", dest="seconds", type=float, default=900.0, help="the drain expires after that many seconds (900)")
    drain.add_argument("--wait", type=float, default=30.0, help="wait up to that many seconds for open connections to end (30)")

    restore = commands.add_parser("restore", help="put a drained node back into this balancer as soon as it is healthy")
    restore.add_argument("node")
    restore.add_argument("--config", default=BALANCER_CONFIG)
    restore.add_argument("--wait", type=float, default=30.0, help="wait up to that many seconds until the node gets requests (30)")

    gc = commands.add_parser("gc", help="collect the garbage of a registry's storage, as the module registry_gc does; the result is JSON")
    gc.add_argument("--config", required=True, help="the registry's configuration file")
    gc.add_argument("--mode", choices=["online", "offline"], default="online")
    gc.add_argument("--grace", default="24h")
    gc.add_argument("--delete-untagged", action="store_true")
    gc.add_argument("--max-delete-fraction", type=float, default=0.5)
    gc.add_argument("--repositories", action="append", default=[], metavar="GLOB", help="may be given several times")
    gc.add_argument("--report", default="", metavar="FILE")
    gc.add_argument("--workers", type=int, default=16)
    gc.add_argument("--timeout", type=float, default=0.0, metavar="SECONDS")
    gc.add_argument("--check", action="store_true", help="say what a run would do; change nothing")

    retention = commands.add_parser("retention", help="delete tags by rules, as the module registry_retention does; the result is JSON")
    retention.add_argument("--config", required=True, help="the registry's configuration file")
    retention.add_argument("--rules", required=True, metavar="FILE", help="YAML or JSON: rules, or rules, protected, floor and in_use")
    retention.add_argument("--protected", action="append", default=[], metavar="GLOB", help="may be given several times")
    retention.add_argument("--floor", type=int, metavar="NUMBER", help="default: what the file of rules says, else 1")
    retention.add_argument("--in-use", action="append", default=[], metavar="REFERENCE", help="may be given several times")
    retention.add_argument(
        "--usage", action="append", metavar="FILE", help="access logs or files of last pulls; may be given several times"
    )
    retention.add_argument("--url", default="", help="delete tags through the registry under this URL")
    retention.add_argument("--username", default="")
    retention.add_argument("--password-file", default="", metavar="FILE", help="a file, because others can see what is on a command line")
    retention.add_argument("--ca-path", metavar="FILE")
    retention.add_argument("--report", default="", metavar="FILE")
    retention.add_argument("--workers", type=int, default=8)
    retention.add_argument("--timeout", type=int, default=30, metavar="SECONDS", help="of one request")
    retention.add_argument("--check", action="store_true", help="say what a run would do; change nothing")

    lifecycle = commands.add_parser("lifecycle", help="retention and garbage collection, if they are due and no other node has done them")
    lifecycle.add_argument("--config", default=LIFECYCLE_CONFIG)

    announced = commands.add_parser("announced", help="daemon of a registry node: keep markers of what garbage collection announces")
    announced.add_argument("--config", default=ANNOUNCED_CONFIG)
    announced.add_argument("--leave", action="store_true", help="take back what this node has told the storage, and end")

    usage = commands.add_parser("usage", help="tell all nodes, by way of the storage, what was pulled through this one")
    usage.add_argument("--config", required=True, help="the registry's configuration file")
    usage.add_argument("--name", required=True, help="a name that no other node has")
    usage.add_argument("--usage", action="append", default=[], metavar="FILE", help="access logs of this node; may be given several times")
    usage.add_argument("--output", default="", metavar="FILE", help="write the last pulls through all nodes to this file")

    probe = commands.add_parser("probe", help="daemon of a registry node: answer /healthz with the truth")
    probe.add_argument("--config", default=PROBE_CONFIG)

    nfs = commands.add_parser("nfs-probe", help="daemon of a registry node on NFS: see whether all nodes see the same storage, at once")
    nfs.add_argument("--config", default=NFS_CONFIG)
    nfs.add_argument("--once", action="store_true", help="prepare the storage, say what is wrong, and end")

    audit = commands.add_parser("audit", help="daemon of a registry node: write the audit log from the access log")
    audit.add_argument("--config", default=AUDIT_CONFIG)

    send = commands.add_parser("audit-forward", help="daemon of a registry node: send the lines of the audit log to another host")
    send.add_argument("--config", default=FORWARD_CONFIG)

    asked = commands.add_parser("audit-query", help="tell who did what, from the audit log of this node; one JSON object a line")
    asked.add_argument("--config", default=AUDIT_CONFIG)
    asked.add_argument("--log", default="", metavar="FILE", help="an audit log, for example one that was collected from all nodes")
    asked.add_argument("--from", dest="begin", default="", metavar="TIME", help="2026-11-24 10:00 (UTC), or 24h for that long ago (24h)")
    asked.add_argument("--until", default="", metavar="TIME", help="the same; default: now")
    asked.add_argument("--user", default="", metavar="GLOB")
    asked.add_argument("--repository", default="", metavar="GLOB")
    asked.add_argument("--action", default="", help="pull, push, tag, delete or login")
    asked.add_argument("--raw", action="store_true", help="the lines that may matter, not the operations made of them")
    asked.add_argument("--limit", type=int, default=200000, metavar="NUMBER", help="the most lines to print (200000)")

    metrics = commands.add_parser("metrics", help="write what this host tells of itself, as a text file for node exporter")
    metrics.add_argument("--config", default=METRICS_CONFIG)
    return parser


def main(argv: Optional[List[str]] = None) -> int:
    """Run one subcommand; return its exit status (0 good, 1 failed, 2 wrong usage)."""
    options = _parser().parse_args(argv)
    if options.command == "gc":
        from ._store import gc

        return gc.command(options)
    if options.command == "retention":
        from ._retention import run

        return run.command(options)
    if options.command in ("lifecycle", "usage"):
        from . import _lifecycle

        return _lifecycle.command(options.config) if options.command == "lifecycle" else _lifecycle.usage_command(options)
    if options.command == "announced":
        from . import _announced

        return _announced.command(options)
    if options.command == "probe":
        from . import _probe

        return _probe.run(options.config)
    if options.command == "nfs-probe":
        from ._nfs import probe

        return probe.command(options.config, once=options.once)
    if options.command == "audit":
        from ._audit import follow

        return follow.command(options.config)
    if options.command == "audit-forward":
        from ._audit import send

        return send.command(options.config)
    if options.command == "audit-query":
        from ._audit import operations

        return operations.command(options)
    if options.command == "metrics":
        from . import _host_metrics

        return _host_metrics.command(options.config)
    from . import _checker

    if options.command == "check":
        return _checker.run(options.config)
    if options.command == "drain":
        return _checker.drain(options.config, options.node, seconds=options.seconds, wait=options.wait)
    return _checker.restore(options.config, options.node, wait=options.wait)
