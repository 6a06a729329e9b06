#!/usr/bin/env python3
# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Time how long retention takes to decide about 100,000 tags, in one repository and in 1,000.

Only the decisions are timed, with all kinds of conditions, pulls, and running hosts; reading a storage is what benchmark gc.py shows.
Prints the seconds, and what one tag costs; reported beside the aim of 5 s, not judged: that is for a quiet machine.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / ".cache/collections"))

from ansible_collections.wharf.registry.plugins.module_utils._retention import DELETE, Image, InUse, Planner, Tag  # noqa: E402
from ansible_collections.wharf.registry.plugins.module_utils._retention_rules import parse_policy  # noqa: E402

AIM = 5.0
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


def main() -> int:
    """Run the benchmark; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tags", type=int, default=100_000)
    options = parser.parse_args()
    for repositories in (1, 1000):
        wall, processor, gone = plan(options.tags, repositories)
        assert gone, "the rules of this benchmark let tags go"
        print(
            f"{options.tags} tags in {repositories} repositories, {gone} would go: {wall:.1f} s ({processor:.1f} s of processor time; aim "
            f"{AIM:g} s), {processor / options.tags * 1e6:.0f} microseconds each; {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}",
            flush=True,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
