#!/usr/bin/env python3
# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Time `site.yml` on a lab that `make demo` has brought up: how long a run that changes nothing takes.

Prints each run's wall time, the processor time that the controller spent on it, and the median. Fails if a run changes something.
"""

from __future__ import annotations

import argparse
import os
import re
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def main() -> int:
    """Run site.yml as often as asked; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--inventory", default="inventories/lab")
    parser.add_argument("arguments", nargs="*", help="further arguments of ansible-playbook, after --")
    options = parser.parse_args()
    command = [str(ROOT / ".cache/venv/bin/ansible-playbook"), "-i", options.inventory, *options.arguments, "playbooks/site.yml"]
    times = []
    for number in range(1, options.runs + 1):
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        started = time.monotonic()
        result = subprocess.run(command, cwd=ROOT, env={**os.environ, "ANSIBLE_NOCOLOR": "1"}, capture_output=True, text=True, check=False)
        seconds = time.monotonic() - started
        now = resource.getrusage(resource.RUSAGE_CHILDREN)
        processor = now.ru_utime + now.ru_stime - used.ru_utime - used.ru_stime
        changed = sum(map(int, re.findall(r"\bchanged=(\d+)", result.stdout)))
        print(f"run {number}: {seconds:.1f} s, {processor:.1f} s of processor time, {changed} changes", flush=True)
        if result.returncode or changed:
            print(result.stdout[-3000:], result.stderr[-1000:], sep="\n")
            return 1
        times.append(seconds)
    print(f"median of {len(times)}: {statistics.median(times):.1f} s on {os.cpu_count()} cores")
    return 0


if __name__ == "__main__":
    sys.exit(main())
