# Copyright (c) 2026 wharf.registry contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Changes of the running cluster as an operator makes them."""

from __future__ import annotations

import time

from cluster import Cluster, recap


def deploy(cluster: Cluster, report: list[str], what: str, *variables: str) -> None:
    """Run site.yml with these variables; it must end well."""
    begun = time.monotonic()
    result = cluster.playbook("playbooks/site.yml", *variables)
    assert result.returncode == 0, f"{what}:\n{result.stdout[-4000:]}{result.stderr[-2000:]}"
    changed = sum(counters["changed"] for counters in recap(result.stdout).values())
    report.append(f"{what}: site.yml took {time.monotonic() - begun:.0f} s, {changed} changes")
