# Copyright (c) 2026 wharf.registry contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The modules' integration targets, and the examples of their documentation, on bare hosts of each Debian release."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import pytest
import yaml
from hosts import CHECKOUT, Host, ansible, must

from ansible_collections.wharf.registry.plugins.module_utils import _certificates, _files

TARGETS = sorted(path.parents[1].name for path in (CHECKOUT / "tests/integration/targets").glob("*/tasks/main.yml"))
# What the examples take for granted: directories, and passwords from Vault.
DIRECTORIES = ["/etc/wharf/registry/auth", "/etc/wharf/edge"]
VAULT = {f"vault_{name}_password": f"secret of {name}" for name in ("alice", "bob", "ci", "first")}
LIBRARIES = ["python3-bcrypt", "python3-cryptography"]


@pytest.fixture(scope="module")
def prepared(debian: dict[str, Host], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Host]:
    """Hosts with the libraries that the modules need, as Debian packages them."""
    apt = {"name": LIBRARIES, "install_recommends": False, "update_cache": True, "cache_valid_time": 86400}
    folder = tmp_path_factory.mktemp("prepared")
    must(ansible(folder, [{"hosts": "all", "gather_facts": False, "tasks": [{"name": "Install", "ansible.builtin.apt": apt}]}], debian))
    return debian


@pytest.mark.parametrize("target", TARGETS)
def test_integration_target(prepared: dict[str, Host], tmp_path: Path, target: str) -> None:
    must(ansible(tmp_path, [{"hosts": "all", "gather_facts": True, "roles": [{"role": target}]}], prepared))


def examples(module: str) -> list[dict[str, Any]]:
    """The tasks of a module's EXAMPLES."""
    tree = ast.parse((CHECKOUT / f"plugins/modules/{module}.py").read_text())
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id == "EXAMPLES":
            return yaml.safe_load(ast.literal_eval(node.value))
    raise AssertionError(f"{module} has no examples")


@pytest.mark.parametrize("module", ["htpasswd_user", "selfsigned_cert", "ca_trust", "ca_trust_info"])
def test_examples(prepared: dict[str, Host], tmp_path: Path, module: str) -> None:
    """They run as they are, in check mode on a host that knows nothing of them, and then for real."""
    authority = _certificates.Request(
        path=str(tmp_path / "ca.crt"),
        privatekey_path=str(tmp_path / "ca.key"),
        common_name="Example CA",
        usage="ca",
        key_type="ecdsa",
        attributes=_files.Attributes(0o644),
        privatekey_attributes=_files.Attributes(0o600),
    )
    _certificates.manage(authority, check=False)
    folders = {"path": "{{ item }}", "state": "directory", "mode": "0755"}
    play = {
        "hosts": "all",
        "gather_facts": False,
        "vars": VAULT,
        "pre_tasks": [{"name": "Prepare", "ansible.builtin.file": folders, "loop": DIRECTORIES, "check_mode": False}],
        "tasks": examples(module),
    }
    must(ansible(tmp_path, [play], prepared, "--check", "--diff"))
    must(ansible(tmp_path, [play], prepared))
