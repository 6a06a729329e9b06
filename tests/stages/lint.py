#!/usr/bin/env python3
# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Stage: style and documentation, by the tools that know them. Each reads its settings from the root of the checkout."""

from common import CACHE, VENV, check, copy_checkout, environment, finish

check("ruff", "ruff", "check", "--no-cache", "--output-format=concise", ".")
check("ruff format", "ruff", "format", "--no-cache", "--check", ".")
check(
    "python 3.8 on hosts",
    "vermin",
    "--quiet",
    "--no-tips",
    "--violations",
    "-t=3.8-",
    "plugins/modules",
    "plugins/module_utils",
)
check("yamllint", "yamllint", "--strict", ".")
check("antsibull-changelog", "antsibull-changelog", "lint")
tree = CACHE / "trees" / "lint"
collection = copy_checkout(tree)
paths = environment(ANSIBLE_COLLECTIONS_PATH=f"{tree}:{CACHE / 'collections'}")
check(
    "antsibull-docs",
    *("antsibull-docs", "lint-collection-docs", "--plugin-docs", "--validate-collection-refs=self", "--check-extra-docs-refs", "."),
    cwd=collection,
    env=paths,
)
check("ansible-lint", VENV / "bin/ansible-lint", "--offline", "--strict", "--nocolor")
finish()
