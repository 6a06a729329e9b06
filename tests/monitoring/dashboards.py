#!/usr/bin/env python3
# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Write the dashboards for Grafana anew from their source, plugins/module_utils/_panels.py."""

from __future__ import annotations

import sys
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(CHECKOUT / "plugins/module_utils"))

import _panels  # noqa: E402  (found through the path above)

FOLDER = CHECKOUT / "roles/prometheus_scrape/files/dashboards"


def main() -> None:
    """Write each dashboard's file."""
    for name in _panels.DASHBOARDS:
        (FOLDER / f"{name}.json").write_text(_panels.as_file(name), encoding="utf-8")


if __name__ == "__main__":
    main()
