#!/usr/bin/env python3
# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Time retention: its decisions, and its deletions through a registry.

    decisions   about 100,000 tags, in one repository and in 1,000, with all kinds of conditions, pulls and running hosts (aim: 5 s);
                reading a storage is what benchmark gc.py shows
    deletion    9,000 of 10,000 tags of one repository, by tag through the API of 3.1.2, on a file system and on S3 (aim: 60 s),
                with their manifests, which nothing needs then

Reported beside the aims, not judged: that is for a quiet machine.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
WORK = ROOT / ".cache/bench/retention"
sys.path[:0] = [str(ROOT / "tests/store"), str(ROOT / "tests/lab"), str(ROOT / ".cache/collections")]

import local  # noqa: E402
import servers  # noqa: E402
import settings  # noqa: E402

from ansible_collections.wharf.registry.plugins.module_utils._retention import run as retention_run  # noqa: E402
from ansible_collections.wharf.registry.plugins.module_utils._retention.decisions import DELETE, Image, InUse, Planner, Tag  # noqa: E402
from ansible_collections.wharf.registry.plugins.module_utils._retention.rules import parse_policy  # noqa: E402
from ansible_collections.wharf.registry.tests.unit.plugins.module_utils.store_builder import Builder  # noqa: E402

AIM = 5.0
AIM_DELETION = 60.0
NOW = 1_764_000_000.0
DAY = 86400.0
RULES = [
    {
        "repositories": ["shop/**"],
        "tags": {"include": ["*"], "exclude": ["latest"]},
        "keep": {"last": 10, "last_semver": 5, "pushed_within": "30d", "pulled_within": "14d"},
        "match": "any",
    },
    {"repositories": ["**"], "tags": {"include": ["1.*"]}, "keep": {"last": 20, "pushed_within": "60d"}, "match": "all"},
]


def digest(number: int) -> str:
    """Return the digest of one of the manifests."""
    return f"sha256:{number:064x}"


def plan(total: int, repositories: int) -> tuple[float, float, int]:
    """Decide about so many tags; return the seconds, those of the processor, and how many tags would go."""
    each = total // repositories
    work = []
    for repository in range(repositories):
        numbers = range(repository * each, (repository + 1) * each)
        tags = [
            Tag("latest" if number % each == 0 else f"1.{number % each}.0", digest(number), NOW - number % each / each * 365 * DAY)
            for number in numbers
        ]
        work.append(
            (f"shop/app{repository}", tags, {tag.digest: Image(config=digest(-number % total + total)) for number, tag in enumerate(tags)})
        )
    pulls = {f"1.{number}.0": NOW - number * DAY for number in range(0, each, 50)}
    in_use = InUse(digests=frozenset(digest(number) for number in range(0, total, 1000)))
    begun, used = time.monotonic(), time.process_time()
    planner = Planner(parse_policy(RULES, ["stable-*"], 1), now=NOW, in_use=in_use, pulls=lambda _repository: pulls)
    gone = sum(decision.decision == DELETE for name, tags, found in work for decision in planner.plan(name, tags, found).decisions)
    return time.monotonic() - begun, time.process_time() - used, gone


def decide(total: int) -> None:
    """Print how long the decisions take."""
    for repositories in (1, 1000):
        wall, processor, gone = plan(total, repositories)
        assert gone, "the rules of this benchmark let tags go"
        print(
            f"{total} tags in {repositories} repositories, {gone} would go: {wall:.1f} s ({processor:.1f} s of processor time; aim "
            f"{AIM:g} s), {processor / total * 1e6:.0f} microseconds each; {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}",
            flush=True,
        )


def delete(where: str, total: int, kept: int) -> None:
    """Delete all but ``kept`` of a repository's tags through a registry, and print how long it took."""
    folder = WORK / where
    shutil.rmtree(folder, ignore_errors=True)
    store = Builder(folder / "data")
    base = store.blob("shop/app", b"base")
    for number in range(total):
        store.image("shop/app", [base, b"layer %d" % number], [f"1.{number}"], config=b"%d" % number)
    with contextlib.ExitStack() as stack:
        if where == "s3":
            server = stack.enter_context(local.S3Server(folder / "server"))
            server.load(store.root, sorted(store.files()), ["registry"])
            section: dict[str, Any] = {"s3": server.section("registry")}
        else:
            section = {"filesystem": {"rootdirectory": str(store.root)}}
        sections = {"storage": {**section, "delete": {"enabled": True}}}
        client, config = stack.enter_context(servers.registry(settings.REGISTRY_3, folder, sections))
        request = retention_run.Request(
            rules=[{"repositories": ["**"], "keep": {"last": kept}}], config=str(config), registry=client, workers=8
        )
        load = os.getloadavg()[0]
        begun, used = time.monotonic(), time.process_time()
        result = retention_run.run(request, check=False)
        wall, processor = time.monotonic() - begun, time.process_time() - used
        left = client.list_tags("shop/app")
    assert result["deleted"] == total - kept and len(left) == kept, (result["deleted"], len(left), result["findings"][:3])
    print(
        f"{result['deleted']} of {total} tags and {result['manifests_deleted']} manifests deleted on {where}: {wall:.1f} s "
        f"({processor:.1f} s of processor time; aim {AIM_DELETION:g} s); {os.cpu_count()} cores, load before {load:.1f}",
        flush=True,
    )


def main() -> int:
    """Run the benchmark; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cases", nargs="*", default=["decisions", "filesystem", "s3"], help="default: decisions filesystem s3")
    options = parser.parse_args()
    for case in options.cases:
        if case == "decisions":
            decide(100_000)
        else:
            delete(case, 10_000, 1_000)
    shutil.rmtree(WORK, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
