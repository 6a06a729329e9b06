#!/usr/bin/env python3
# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How long a pull takes beside a thousand wrong passwords a second: tests/token/test_flood.py for longer than `make test`, and judged."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

print(f"load before: {os.getloadavg()[0]:.1f}", flush=True)
command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", "-s", "tests/token/test_flood.py"]
environment = {**os.environ, "WHARF_FLOOD_JUDGED": "1", "PYTHONPATH": str(ROOT / ".cache/collections")}
sys.exit(subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode)
