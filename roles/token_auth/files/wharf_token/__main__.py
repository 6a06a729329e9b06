# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""``python3 -m wharf_token [--check] DIRECTORY``: serve, or only say whether the configuration is good."""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
from pathlib import Path

from . import config, service


def main() -> int:
    """Return the exit code: 0, or 2 for a configuration that cannot be used."""
    parser = argparse.ArgumentParser(prog="wharf_token")
    parser.add_argument("--check", action="store_true", help="read the configuration, say what is wrong with it, and end")
    parser.add_argument("directory", type=Path, help="the directory with the configuration")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        if options.check:
            config.load(options.directory)
        else:
            asyncio.run(service.serve(options.directory))
    except config.ConfigError as error:
        sys.stderr.write(f"{options.directory}: {error}\n")
        return 2
    return 0


sys.exit(main())
