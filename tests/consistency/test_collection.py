# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Metadata, plugins, documents and playbooks agree with each other."""

from __future__ import annotations

import ast
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
MODULES = sorted((ROOT / "plugins/modules").glob("*.py"))
DOCUMENTS = sorted(
    path
    for path in [
        *ROOT.glob("*.md"),
        *(ROOT / "docs").rglob("*.md"),
        *(ROOT / "roles").glob("*/README.md"),
        *(ROOT / "inventories").rglob("*.md"),
    ]
    if "site-packages" not in path.parts
)
# A path in a document is one that begins with one of these.
FOLDERS = "changelogs|docs|inventories|meta|molecule|playbooks|plugins|requirements|roles|tests"


def load(path: Path) -> Any:
    """Return a YAML file's content."""
    return yaml.load(path.read_text(encoding="utf-8"), Loader=yaml.CSafeLoader)


def tracked(*patterns: str) -> list[Path]:
    """Return the files that git knows or would know."""
    command = ["git", "-c", f"safe.directory={ROOT}", "ls-files", "--cached", "--others", "--exclude-standard", "-z", *patterns]
    names = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    return [ROOT / name for name in sorted(set(names)) if name and (ROOT / name).is_file()]


def is_module(path: Path) -> bool:
    """Tell modules from package files."""
    return path.stem != "__init__"


def test_action_group_is_the_list_of_modules() -> None:
    group = load(ROOT / "meta/runtime.yml")["action_groups"]["registry"]
    assert group == sorted(path.stem for path in MODULES if is_module(path))


@pytest.mark.parametrize("module", MODULES, ids=lambda path: path.stem)
def test_module_is_documented_as_its_own(module: Path) -> None:
    tree = ast.parse(module.read_text(encoding="utf-8"))
    values = {
        target.id: ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    documentation = yaml.safe_load(values["DOCUMENTATION"])
    assert documentation["module"] == module.stem
    assert documentation["version_added"] == "0.1.0" or re.fullmatch(r"\d+\.\d+\.\d+", documentation["version_added"])
    examples = yaml.safe_load(values["EXAMPLES"])
    # A module whose work an action plugin does shows it in the same way.
    assert any(f"wharf.registry.{module.stem}" in example for example in examples), "an example that calls it by its full name"


@pytest.mark.parametrize("module", MODULES, ids=lambda path: path.stem)
def test_module_is_tested(module: Path) -> None:
    """Each module is used by a unit test, an integration target or a role that the scenarios run."""
    name = module.stem
    used = [*tracked("tests/unit/*", "tests/integration/*", "roles/*", "playbooks/*")]
    assert any(re.search(rf"\b{name}\b", path.read_text(encoding="utf-8", errors="replace")) for path in used)


def test_private_utilities_are_private() -> None:
    files = [path for path in (ROOT / "plugins/module_utils").rglob("*.py") if is_module(path)]
    public = [
        path.name for path in files if not any(part.startswith("_") for part in path.relative_to(ROOT / "plugins/module_utils").parts)
    ]
    assert not public


def test_utilities_do_not_need_ansible() -> None:
    """They run on hosts without Ansible too."""
    found = []
    for path in (ROOT / "plugins/module_utils").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
            found += [f"{path.name}: {name}" for name in names if name.split(".")[0] in ("ansible", "ansible_collections")]
    assert not found


def test_collections_used_are_declared() -> None:
    galaxy = load(ROOT / "galaxy.yml")
    declared = set(galaxy["dependencies"]) | {"ansible.builtin", "wharf.registry"}
    used: dict[str, str] = {}
    for path in tracked("roles/*.yml", "playbooks/*.yml"):
        for match in re.finditer(r"^\s*(?:- )?([a-z_]+\.[a-z_]+)\.[a-z0-9_]+:", path.read_text(encoding="utf-8"), re.M):
            used.setdefault(match[1], str(path.relative_to(ROOT)))
    assert {name: place for name, place in used.items() if name not in declared} == {}


def test_playbooks_can_be_called_by_full_name() -> None:
    names = [path.name for path in (ROOT / "playbooks").rglob("*.yml") if not re.fullmatch(r"[a-z][a-z0-9_]*\.yml", path.name)]
    assert not names, "only letters, digits and underscores work in wharf.registry.NAME"


def test_facts_are_read_from_ansible_facts() -> None:
    """Injected facts (ansible_os_family) are gone in later releases."""
    injected = (
        r"\bansible_(?:distribution|os_family|hostname|fqdn|default_ipv4|memtotal_mb|processor|mounts|service_mgr|architecture|all_ipv4)\w*"
    )
    found = []
    for path in tracked("roles/*", "playbooks/*"):
        for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
            if re.search(injected, line) and not line.lstrip().startswith("#"):
                found.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()}")
    assert not found


def test_versions_are_pinned() -> None:
    loose = []
    for path in sorted((ROOT / "requirements").glob("*.txt")):
        for line in path.read_text(encoding="utf-8").splitlines():
            if line.strip() and not line.startswith(("#", "-")) and not re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.]+", line.split(" ")[0]):
                loose.append(f"{path.name}: {line}")
    assert not loose


def test_inventories_differ_in_few_lines() -> None:
    """A new environment is a copied folder with about ten lines to change."""
    for name in ("staging", "production"):
        lines = (ROOT / f"inventories/example/{name}/group_vars/all.yml").read_text(encoding="utf-8").splitlines()
        settings = [line for line in lines if re.match(r"\w", line)]
        assert len(settings) <= 15, name


def anchors(path: Path) -> set[str]:
    """Return the anchors that a Markdown file's headings make."""
    headings = re.findall(r"^#{1,6} (.+?)\s*$", path.read_text(encoding="utf-8"), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.replace("`", "")).strip().lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(document: Path) -> None:
    text = re.sub(r"```.*?```", "", document.read_text(encoding="utf-8"), flags=re.S)
    dead = []
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        name, _hash, anchor = target.partition("#")
        path = (document.parent / name).resolve() if name else document
        if not path.exists() or (anchor and path.suffix == ".md" and anchor not in anchors(path)):
            dead.append(target)
    assert not dead


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_paths_named_exist(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    lost = []
    for path in re.findall(rf"(?<![\w/.])((?:{FOLDERS})/[\w./*-]*)", text):
        path = path.rstrip(".")
        # The folders that a reader makes, and what is generated, are not in the repository.
        if re.match(r"inventories/(?!lab|example)", path) or "/secrets" in path or path.startswith("tests/output"):
            continue
        # As seen from the repository, from the document's folder, or from a role's.
        if not any(
            any(base.glob(f"{prefix}{path.rstrip('/')}")) for base, prefix in ((ROOT, ""), (document.parent, ""), (ROOT, "roles/*/"))
        ):
            lost.append(path)
    assert not lost


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_make_targets_named_exist(document: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M))
    named = set(re.findall(r"(?:`|^)make ([a-z-]+)", document.read_text(encoding="utf-8"), re.M))
    assert named <= targets
