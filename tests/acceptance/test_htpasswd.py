# Copyright (c) 2026 wharf.registry contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What htpasswd_user writes, with the libraries that each Debian packages, real registries of both generations accept."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any, Callable

import pytest
from conftest import status
from hosts import Host, ansible, must

from ansible_collections.wharf.registry.plugins.module_utils import _files, _htpasswd

PASSWORDS = {
    "one character": "~",
    "72 bytes": "p" * 72,
    "72 bytes of UTF-8": "ä" * 36,
    "72 bytes that end within no character": "€" * 24,
    "quotes": """it's "quoted" `so`""",
    "backslashes": "\\n\\\\$HOME",
    "colons": ":a:b:",
    "white space": "  two words\tand a tab ",
    "line feed": "first\nsecond",
    "hash": "#no comment",
    "beyond the BMP": "\U0001f433\U0001f511",
    "like a hash": "$2y$04$abcdefghijklmnopqrstuupfH0Yeb7ByH603mewDfyDL5jqAq6arm",
}
NAMES = ["ci@example.com", "Zoë", "two words", "n" * 255, 'quo"ted', "$2y$"]
USERS: list[dict[str, Any]] = [
    *({"name": f"cost {cost}", "password": f"secret of {cost}", "cost": cost} for cost in range(4, 13)),
    *({"name": name, "password": password, "cost": 4} for name, password in PASSWORDS.items()),
    *({"name": name, "password": "secret of all", "cost": 4} for name in NAMES),
]
# The libraries of Debian's packages. Without bcrypt, passlib needs the system's crypt(3), which Python has until 3.12.
WRITERS = {"controller", "debian12 passlib", "debian12 bcrypt", "debian13 bcrypt"}


@pytest.fixture(scope="module")
def written(debian: dict[str, Host], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the module said and wrote on a bare host, with passlib alone, and with bcrypt: host → `results` and files."""

    def task(register: str, module: str, **options: Any) -> dict[str, Any]:
        return {"name": register, f"wharf.registry.{module}": options, "register": register, "failed_when": False}

    def install(package: str) -> dict[str, Any]:
        return {
            "name": package,
            "ansible.builtin.apt": {"name": package, "install_recommends": False, "update_cache": True, "cache_valid_time": 86400},
        }

    files = {"path": "/root/tls.crt", "privatekey_path": "/root/tls.key"}
    tasks = [
        task("bare", "htpasswd_user", path="/root/bare", name="alice", password="correct horse"),
        task("bare_certificate", "selfsigned_cert", **files, common_name="registry.example.com"),
        install("python3-passlib"),
        task("passlib", "htpasswd_user", path="/root/passlib", users=USERS),
        install("python3-bcrypt"),
        task("bcrypt", "htpasswd_user", path="/root/bcrypt", users=USERS),
        task("again", "htpasswd_user", path="/root/bcrypt", users=USERS),
        {
            "name": "Keep what was said",
            "ansible.builtin.copy": {
                "dest": "/root/results",
                "mode": "0600",
                "content": "{{ {'bare': bare, 'bare_certificate': bare_certificate, 'passlib': passlib, 'bcrypt': bcrypt, 'again': again}"
                " | to_json }}",
            },
        },
    ]
    must(ansible(tmp_path_factory.mktemp("written"), [{"hosts": "all", "gather_facts": False, "tasks": tasks}], debian))
    return {
        name: {
            "results": json.loads(host.on("cat /root/results")),
            "files": {file: host.on(f"cat /root/{file}", check=False) for file in ("passlib", "bcrypt")},
            "names": host.on("ls -A /root").split(),
        }
        for name, host in debian.items()
    }


@pytest.mark.parametrize("name", ["debian12", "debian13"])
def test_a_missing_library_is_named_as_the_system_packages_it(written: dict[str, Any], name: str) -> None:
    results = written[name]["results"]
    assert "apt install python3-bcrypt" in results["bare"]["msg"], results["bare"]
    assert "python3-cryptography" in results["bare_certificate"]["msg"], results["bare_certificate"]
    assert not {"bare", "tls.crt", "tls.key"} & set(written[name]["names"])


def test_passlib_alone_is_enough_or_is_said_not_to_be(written: dict[str, Any]) -> None:
    assert written["debian12"]["results"]["passlib"]["changed"]
    if "passlib" not in written["debian13"]["names"]:
        assert "apt install python3-bcrypt" in written["debian13"]["results"]["passlib"]["msg"]


@pytest.mark.parametrize("name", ["debian12", "debian13"])
def test_a_second_run_changes_nothing(written: dict[str, Any], name: str) -> None:
    results = written[name]["results"]
    assert results["bcrypt"]["added"] and not results["again"]["changed"], results["again"]


@pytest.mark.parametrize("generation", ["2.8", "3"])
@pytest.mark.parametrize("writer", sorted(WRITERS))
def test_the_registry_accepts_every_line(
    written: dict[str, Any], serve: Callable[[str, str], str], tmp_path: Path, writer: str, generation: str
) -> None:
    path = tmp_path / "htpasswd"
    if writer == "controller":
        users = [_htpasswd.User(user["name"], user["password"], cost=user["cost"]) for user in USERS]
        _htpasswd.manage(_htpasswd.Request(path=str(path), users=users, attributes=_files.Attributes(0o640)), check=False)
    else:
        name, library = writer.split()
        path.write_text(written[name]["files"][library])
    lines = _htpasswd.parse(path.read_bytes())
    assert [(line.name, _htpasswd.cost_of(line.digest)) for line in lines] == [(user["name"], user["cost"]) for user in USERS]

    address = serve(generation, f"auth: {{htpasswd: {{realm: test, path: {path}}}}}\n")
    for user in USERS:
        password = user["password"]
        # Within the 72 bytes that count; the registry must be looking.
        wrong = password[:-1] + ("y" if password.endswith("x") else "x")
        answers = [status(f"http://{address}/v2/", basic(user["name"], secret)) for secret in (password, wrong)]
        assert answers == [200, 401], f"{user['name']}: {answers}"


def basic(name: str, password: str) -> dict[str, str]:
    """The header of a login (RFC 7617)."""
    return {"Authorization": "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()}
