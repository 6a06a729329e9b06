# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Each role says the same in its defaults, its argument specification, its README and its tasks, and keeps to itself."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
ROLES = sorted(path for path in (ROOT / "roles").iterdir() if path.is_dir())
# Task files that are a role's published verbs wherever they occur.
ALWAYS_PUBLISHED = {"main", "remove"}

each_role = pytest.mark.parametrize("role", ROLES, ids=lambda path: path.name)


def load(path: Path) -> Any:
    """Return a YAML file's content; nothing if there is no such file."""
    return yaml.load(path.read_text(encoding="utf-8"), Loader=yaml.CSafeLoader) if path.exists() else None


def specs(role: Path) -> dict[str, Any]:
    """Return the role's argument specifications by entry point."""
    return (load(role / "meta/argument_specs.yml") or {}).get("argument_specs", {})


def texts(role: Path) -> dict[Path, str]:
    """Return the role's text files."""
    return {path: path.read_text(encoding="utf-8") for path in sorted(role.rglob("*")) if path.is_file() and path.suffix != ".pyc"}


@each_role
def test_has_its_parts(role: Path) -> None:
    parts = ("README.md", "defaults/main.yml", "meta/main.yml", "meta/argument_specs.yml", "tasks/main.yml")
    missing = [part for part in parts if not (role / part).exists()]
    assert not missing


@each_role
def test_defaults_are_specified_and_the_specification_has_defaults(role: Path) -> None:
    defaults = set(load(role / "defaults/main.yml") or {})
    options = specs(role).get("main", {}).get("options", {})
    # A required option has no default; one without a safe value may stand in the specification alone, if it says required.
    specified = {name for name, option in options.items() if not option.get("required")}
    own = {name for name in specified if name.startswith(f"{role.name}_")}
    assert defaults - set(options) == set(), "in defaults/main.yml, not in argument_specs.yml (main)"
    assert own - defaults == set(), "in argument_specs.yml (main), not in defaults/main.yml"


@each_role
def test_defaults_carry_the_prefix(role: Path) -> None:
    strangers = {name for name in load(role / "defaults/main.yml") or {} if not name.startswith(f"{role.name}_")}
    assert not strangers


@each_role
def test_defaults_are_explained(role: Path) -> None:
    lines = (role / "defaults/main.yml").read_text(encoding="utf-8").splitlines()
    bare = []
    explained = False
    for line in lines:
        if line.startswith("#"):
            explained = True
        elif not line.strip() or line == "---":
            explained = False
        elif re.match(r"[a-z_]+[a-z0-9_]*:", line) and not explained and "#" not in line:
            bare.append(line.split(":")[0])
    assert not bare


@each_role
def test_specified_verbs_exist(role: Path) -> None:
    missing = [verb for verb in specs(role) if not (role / "tasks" / f"{verb}.yml").exists()]
    assert not missing


@each_role
def test_verbs_used_by_playbooks_are_published(role: Path) -> None:
    used = set()
    for playbook in [*(ROOT / "playbooks").rglob("*.yml"), *(ROOT / "molecule").rglob("*.yml")]:
        text = playbook.read_text(encoding="utf-8")
        used |= set(re.findall(rf"name: wharf\.registry\.{role.name}\n\s+tasks_from: (\w+)", text))
    published = set(specs(role)) | ALWAYS_PUBLISHED
    assert used <= published, "argument_specs.yml specifies each verb that others call"


@each_role
def test_readme_names_each_verb(role: Path) -> None:
    readme = (role / "README.md").read_text(encoding="utf-8") if (role / "README.md").exists() else ""
    silent = [verb for verb in specs(role) if verb != "main" and f"`{verb}`" not in readme and f"tasks_from: {verb}" not in readme]
    assert not silent


@each_role
def test_secrets_are_not_logged(role: Path) -> None:
    def walk(options: dict[str, Any], path: str) -> list[str]:
        bad = []
        for name, option in options.items():
            secret = re.search(r"(password|secret|secretkey|token)$", name)
            if secret and option.get("type", "str") == "str" and option.get("no_log") is not True:
                bad.append(f"{path}{name}")
            bad += walk(option.get("options", {}), f"{path}{name}.")
        return bad

    bad = [name for verb, spec in specs(role).items() for name in walk(spec.get("options", {}), f"{verb}: ")]
    assert not bad, "a secret's option needs no_log: true"


@each_role
def test_keeps_to_itself(role: Path) -> None:
    """No role calls another role, depends on one, or reads another's private variables."""
    names = sorted((other.name for other in ROLES), key=len, reverse=True)
    found = [f"meta/main.yml: depends on {name}" for name in (load(role / "meta/main.yml") or {}).get("dependencies") or []]
    for path, text in texts(role).items():
        if path.name == "README.md":
            continue
        for variable in set(re.findall(r"\b__\w+", text)):
            # __registry_edge_x belongs to registry_edge, not to registry.
            owner = next((name for name in names if variable.startswith(f"__{name}_")), role.name)
            if owner != role.name:
                found.append(f"{path.relative_to(ROOT)}: {variable}")
        called = re.findall(r"(?:import_role|include_role):\s*\n\s+name: (\S+)", text)
        found += [f"{path.relative_to(ROOT)}: calls {name}" for name in called if not name.endswith(f".{role.name}")]
    assert not found


def blocks(node: yaml.Node) -> Iterator[yaml.ScalarNode]:
    """Yield the texts of a YAML document that are written as blocks, in which YAML leaves backslashes alone."""
    if isinstance(node, yaml.ScalarNode):
        if node.style in ("|", ">"):
            yield node
    elif isinstance(node, yaml.CollectionNode):
        for item in node.value:
            for part in item if isinstance(item, tuple) else (item,):
                yield from blocks(part)


PLAYS = sorted(path for folder in ("roles", "playbooks") for path in (ROOT / folder).rglob("*.yml") if "files" not in path.parts)


@pytest.mark.parametrize("path", PLAYS, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_block_means_the_end_of_a_line_and_says_a_backslash(path: Path) -> None:
    # Ansible leaves backslashes in an expression as they are: '\n' is a line's end only where YAML itself makes it one.
    document = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.CSafeLoader)
    wrong = [
        (node.start_mark.line + 1, expression)
        for node in (blocks(document) if document else ())
        for expression in re.findall(r"\{\{.*?\}\}", node.value, re.S)
        # A regular expression reads backslashes itself; but nobody ends one with the end of a line.
        if re.search(r"\\[ntr]['\"]", expression) or (re.search(r"\\[ntr]", expression) and not re.search("regex|search|match", expression))
    ]
    assert not wrong
