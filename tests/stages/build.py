#!/usr/bin/env python3
# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Stage: build the collection, install it away from the checkout, use it by its full names."""

from __future__ import annotations

import re
import shutil
import tarfile
from pathlib import Path

from common import CACHE, COLLECTIONS, ROOT, check, check_function, copy_checkout, environment, finish

WORK = CACHE / "trees" / "build"
DIST = WORK / "dist"
INSTALLED = WORK / "installed"
# What the archive may hold, and nothing beside it.
FOLDERS = {"changelogs", "docs", "inventories", "meta", "playbooks", "plugins", "roles"}
FILES = {"CHANGELOG.md", "CONTRIBUTING.md", "COPYING", "FILES.json", "MANIFEST.json", "README.md", "ansible.cfg"}

shutil.rmtree(WORK, ignore_errors=True)
source = copy_checkout(WORK / "source")
# What a build from a working checkout would find besides; it must stay out.
for stray in (".cache/venv/pip", "inventories/lab/secrets/ca.key", "dist/old.tar.gz"):
    path = source / stray
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("must not be packed\n", encoding="utf-8")


def archive() -> Path:
    """Return the built archive."""
    return next(DIST.glob("wharf-registry-*.tar.gz"))


def contents() -> str:
    """Return which members of the archive do not belong there."""
    wrong = []
    with tarfile.open(archive()) as packed:
        for member in packed.getmembers():
            top = member.name.split("/")[0]
            if top not in FOLDERS | FILES or "/secrets/" in member.name or member.name.endswith((".key", ".pyc", ".tar.gz")):
                wrong.append(member.name)
    return f"These do not belong into the archive (galaxy.yml, build_ignore): {', '.join(wrong[:20])}" if wrong else ""


if check("build", "ansible-galaxy", "collection", "build", "--output-path", DIST, cwd=source) and check_function("contents", contents):
    settings = environment(ANSIBLE_COLLECTIONS_PATH=f"{INSTALLED}:{COLLECTIONS}", HOME=str(WORK))
    check(
        "install",
        *("ansible-galaxy", "collection", "install", archive(), "-p", INSTALLED, "--offline", "--no-deps", "--force"),
        cwd=WORK,
        env=settings,
    )
    collection = INSTALLED / "ansible_collections/wharf/registry"
    # As Galaxy's rules want it: the rest is examples.
    for name in ("inventories", "docs", "changelogs"):
        shutil.rmtree(collection / name, ignore_errors=True)
    for playbook in sorted((collection / "playbooks").glob("*.yml")):
        check(
            f"playbook wharf.registry.{playbook.stem}",
            *("ansible-playbook", "-i", ROOT / "inventories/example/production", "--syntax-check", f"wharf.registry.{playbook.stem}"),
            cwd=WORK,
            env=settings,
        )
    modules = sorted(f"wharf.registry.{path.stem}" for path in (collection / "plugins/modules").glob("*.py"))
    if modules:
        check("documentation of modules", "ansible-doc", "-t", "module", "--json", *modules, cwd=WORK, env=settings)
    roles = sorted(f"wharf.registry.{path.name}" for path in (collection / "roles").iterdir() if path.is_dir())
    if roles:
        check("documentation of roles", "ansible-doc", "-t", "role", "--json", *roles, cwd=WORK, env=settings)
    filters = [
        name for path in (collection / "plugins/filter").glob("*.py") for name in re.findall(r"^name: (\w+)", path.read_text(), re.M)
    ]
    if filters:
        check(
            "documentation of filters",
            "ansible-doc",
            "-t",
            "filter",
            "--json",
            *(f"wharf.registry.{name}" for name in filters),
            cwd=WORK,
            env=settings,
        )
finish()
