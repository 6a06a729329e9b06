# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Wrong input is refused before any host is changed, and the message names variable, value and an example.

It needs hosts that run: those of an inventory. Each case is one run of the playbook with a few variables on top of it.

WHARF_TEST_INVENTORY   the inventory (default: inventories/lab)
WHARF_TEST_PLAYBOOK    the playbook that must refuse (default: playbooks/site.yml)
WHARF_TEST_STRANGER    an address of the balancers' network that a host outside the cluster has (default: the first of a /24)
"""

from __future__ import annotations

import base64
import ipaddress
import json
import os
import pathlib
import re
import subprocess
import sys
from typing import Any, Callable, NamedTuple

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
HERE = pathlib.Path(__file__).resolve().parent
INVENTORY = os.environ.get("WHARF_TEST_INVENTORY", str(ROOT / "inventories" / "lab"))
PLAYBOOK = os.environ.get("WHARF_TEST_PLAYBOOK", str(ROOT / "playbooks" / "site.yml"))

Settings = dict[str, Any]


class Case(NamedTuple):
    """One wrong input: the variables that are wrong, and words that the message must have. ``{stranger}`` stands for such an address."""

    name: str
    variables: Callable[[Settings], dict[str, Any]]
    words: tuple[str, ...]
    group: str = ""  # of which the inventory must have more than one host


# What the variables of the cases are made of before the inventory was asked.
STANDIN: Settings = {"storage": {"s3": {"regionendpoint": "http://store"}}, "vip": "192.0.2.10/24", "node": "192.0.2.11"}


def s3(settings: Settings, **changes: Any) -> dict[str, Any]:
    """Return the environment's storage with parts changed; None takes a part away."""
    parameters = {**settings["storage"].get("s3", {}), **changes}
    return {"wharf_storage": {"s3": {name: value for name, value in parameters.items() if value is not None}}}


def stranger(settings: Settings) -> str:
    """Return an address with prefix length that a host outside the cluster holds."""
    network = ipaddress.ip_interface(settings["vip"] or f"{settings['node']}/24").network
    return f"{os.environ.get('WHARF_TEST_STRANGER') or network[1]}/{network.prefixlen}"


CASES = [
    Case("unknown storage", lambda lab: {"wharf_storage": {"tape": {}}}, ("wharf_storage.tape = tape", "wharf_storage: {s3: {")),
    Case(
        "two storages",
        lambda lab: {"wharf_storage": {**s3(lab)["wharf_storage"], "filesystem": {"rootdirectory": "/srv/registry"}}},
        ("wharf_storage = filesystem and s3", "exactly one", "wharf_storage: {s3: {"),
    ),
    Case("no bucket", lambda lab: s3(lab, bucket=None), ("wharf_storage.s3.bucket = (not set)", "bucket: registry")),
    Case("no region", lambda lab: s3(lab, region=None), ("wharf_storage.s3.region = (not set)", "region: us-east-1")),
    Case(
        "silent endpoint",
        lambda lab: s3(lab, regionendpoint="http://127.0.0.1:9"),
        ("wharf_storage.s3.regionendpoint = http://127.0.0.1:9", "does not answer", "regionendpoint: https://s3.example.com:9000"),
    ),
    Case(
        "TLS to an endpoint without",
        lambda lab: s3(lab, regionendpoint=str(lab["storage"]["s3"]["regionendpoint"]).replace("http://", "https://")),
        ("wharf_storage.s3.regionendpoint = https://", "TLS", "for a store without TLS: regionendpoint: http://"),
    ),
    Case(
        "wrong key",
        lambda lab: s3(lab, accesskey="nobody-has-this-key"),
        ("wharf_storage.s3.accesskey = nobody-has-this-key", "refuses", "{accesskey: wharf, secretkey:"),
    ),
    Case("wrong secret key", lambda lab: s3(lab, secretkey="never-tell-this"), ("wharf_storage.s3.accesskey = ", "refuses")),
    Case(
        "bucket that is not there",
        lambda lab: s3(lab, bucket="no-such-bucket-here"),
        ("wharf_storage.s3.bucket = no-such-bucket-here", "no such bucket", "aws s3 mb s3://no-such-bucket-here"),
    ),
    Case(
        "local disk for several nodes",
        lambda lab: {"wharf_storage": {"filesystem": {"rootdirectory": "/srv/registry"}}},
        ("wharf_storage.filesystem.rootdirectory = /srv/registry", "local file system", "wharf_storage: {s3: {"),
        "nodes",
    ),
    Case("underscore", lambda lab: {"wharf_name": "my_registry.example.com"}, ("wharf_name = my_registry.example.com", "wharf_name: registry.example.com")),
    Case("URL as name", lambda lab: {"wharf_name": "https://registry.example.com"}, ("wharf_name = https://", "wharf_name: registry.example.com")),
    Case("address as name", lambda lab: {"wharf_name": "192.0.2.1"}, ("wharf_name = 192.0.2.1", "wharf_name: registry.example.com")),
    Case(
        "name that does not resolve",
        lambda lab: {"wharf_name": "no-such-name.invalid"},
        ("wharf_name = no-such-name.invalid", "cannot resolve", "add it to the DNS (or /etc/hosts), for example: "),
    ),
    Case("VIP without prefix", lambda lab: {"wharf_vip": "192.0.2.10"}, ("wharf_vip = 192.0.2.10", "wharf_vip: 192.0.2.10/24")),
    Case("VIP outside the network", lambda lab: {"wharf_vip": "198.51.100.10/24"}, ("wharf_vip = 198.51.100.10/24", "no interface", "as in wharf_vip: ")),
    Case("VIP of a stranger", lambda lab: {"wharf_vip": stranger(lab)}, ("wharf_vip = {stranger}", "no balancer answers", "wharf_vip: 192.0.2.10/24")),
    Case("equal priorities", lambda lab: {"virtual_ip_priority": 120}, ("virtual_ip_priority = 120", "same keepalived priority", "virtual_ip_priority: 110"), "balancers"),
    Case("version gate", lambda lab: {"wharf_registry_version": "3.0.0"}, ("wharf_registry_version = 3.0.0", "CVE", "wharf_registry_version: 3.1.2")),
    Case("too little disk", lambda lab: {"preflight_min_disk_gb": 900000}, ("preflight_min_disk_gb = 900000", "too little disk", "preflight_min_disk_gb: ")),
    Case("registry_storge", lambda lab: {"registry_storge": "s3"}, ("registry_storge = s3", "did you mean registry_storage?")),
    Case("wharf_nmae", lambda lab: {"wharf_nmae": "r.example.com"}, ("wharf_nmae = r.example.com", "did you mean wharf_name?")),
    Case(
        "archive that is not there",
        lambda lab: {"wharf_registry_image_archive": "/nowhere/registry.tar"},
        ("wharf_registry_image_archive = /nowhere/registry.tar", "no such file", "wharf_registry_image_archive: /srv/"),
    ),
    Case("unknown mode", lambda lab: {"wharf_balancer_mode": "tcp"}, ("wharf_balancer_mode = tcp", "wharf_balancer_mode: http")),
    Case("user with a colon", lambda lab: {"wharf_users": [{"name": "a:b", "password": "never-tell-this"}]}, ("wharf_users[0].name = 'a:b'", "wharf_users: [{name: ci")),
    Case(
        "access model with a typing error",
        lambda lab: {"wharf_auth": "token", "wharf_access": {"projects": {"shop": {"writters": []}, "web": {"readers": ["group:testers"]}}}},
        ("wharf_access.projects.shop.writters = (set)", "is no key of a project", "for example writers", "wharf_access.projects.web.readers", "there is no group testers"),
    ),
    # With the access model above.
    Case(
        "single sign-on with typing errors",
        lambda lab: {
            "wharf_sso": {
                "issuer": "http://keycloak.example.com/realms/company", "client_id": "registry", "client_secret": "never-tell-this",
                "group_claim": "roles", "groups": {"registry-developers": "developers"}, "remember_days": 0,
            }
        },
        (
            "wharf_sso.issuer = (not told)", "http://keycloak.example.com/realms/company is no https address", "for example https://keycloak.example.com/",
            "wharf_sso.group_claim = (not told)", "did you mean groups_claim?", "wharf_sso.remember_days = (not told)", "0 is no number from 1 to 365",
            "wharf_sso.groups = (not told)", "the access model has no group developers",
        ),
    ),
    Case(
        "a robot that may do nothing",
        lambda lab: {"wharf_auth": "token", "wharf_robots": [{"name": "shop-ci", "secret": "never-tell-this", "expires": "soon"}]},
        ("wharf_robots[0].expires = (set)", "soon is no day", "for example [{name: shop-ci, expires: 2027-06-30}]"),
    ),
    Case(
        "CI jobs of the whole world",
        lambda lab: {
            "wharf_auth": "token",
            "wharf_access": {
                "ci": {
                    "github": {
                        "issuer": "https://token.actions.githubusercontent.com",
                        "jwks_url": "http://token.actions.githubusercontent.com/.well-known/jwks",
                        "jobs": {"main": {"ref": "refs/heads/main"}},
                    }
                },
                "projects": {"shop": {"writers": ["job:main"]}},
            },
        },
        (
            "wharf_access.ci.github.audience = (set)", "is missing",
            "wharf_access.ci.github.jwks_url", "no URL that begins with https://",
            "wharf_access.ci.github.jobs.main", "signs for everybody in the world", "for example {repository: acme/*}",
        ),
    ),
]  # fmt: skip


def play(playbook: str | pathlib.Path, *more: str) -> subprocess.CompletedProcess[str]:
    """Run a playbook against the inventory, from the collection's root."""
    environment = {**os.environ, "ANSIBLE_FORCE_COLOR": "0", "ANSIBLE_NOCOLOR": "1", "ANSIBLE_CALLBACK_RESULT_FORMAT": "yaml"}
    words = [str(pathlib.Path(sys.executable).with_name("ansible-playbook")), "-i", INVENTORY, *more, str(playbook)]
    return subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False)


def changes(output: str) -> dict[str, int]:
    """Return host -> number of changes, from the recap."""
    return {host: int(count) for host, count in re.findall(r"^(\S+)\s+: ok=\d+\s+changed=(\d+)", output, re.MULTILINE)}


@pytest.fixture(scope="session")
def lab() -> Settings:
    """Return what the inventory says."""
    result = play(HERE / "settings.yml")
    match = re.search(r"SETTINGS:([A-Za-z0-9+/=]+):", result.stdout)
    assert match, result.stdout + result.stderr
    return json.loads(base64.b64decode(match.group(1)))


def make_rounds() -> list[list[Case]]:
    """Return the cases in as few runs as they fit in: those of one run set different variables, and one report must tell them all."""
    key = {case.name: frozenset(case.variables(STANDIN)) for case in CASES}
    rounds: list[list[Case]] = []
    for case in CASES:
        for chosen in rounds:
            if not any(key[case.name] & key[other.name] for other in chosen):
                chosen.append(case)
                break
        else:
            rounds.append([case])
    return rounds


@pytest.mark.parametrize("cases", make_rounds(), ids=lambda cases: ", ".join(case.name for case in cases))
def test_refused_before_any_change(cases: list[Case], lab: Settings) -> None:
    cases = [case for case in cases if not case.group or len(lab[case.group]) > 1]
    if not cases:
        pytest.skip("the inventory is too small for it")
    variables: dict[str, Any] = {}
    for case in cases:
        variables.update(case.variables(lab))
    result = play(PLAYBOOK, "-e", json.dumps(variables))
    output = result.stdout + result.stderr
    assert result.returncode != 0, output
    counts = changes(result.stdout)
    assert counts, output
    assert set(counts.values()) == {0}, counts
    flat = " ".join(output.split())
    for case in cases:
        for word in case.words:
            assert word.replace("{stranger}", stranger(lab)) in flat, f"{case.name}: {word}\n{output}"
    for secret in ("never-tell-this", str(lab["storage"].get("s3", {}).get("secretkey") or "never-tell-this")):
        assert secret not in output


def test_good_input_passes_and_changes_nothing() -> None:
    result = play(HERE / "preflight.yml")
    assert result.returncode == 0, result.stdout + result.stderr
    assert set(changes(result.stdout).values()) == {0}
    assert "Nothing stands in the way" in " ".join(result.stdout.split())


def test_check_mode_is_the_same() -> None:
    result = play(HERE / "preflight.yml", "--check", "--diff")
    assert result.returncode == 0, result.stdout + result.stderr
    assert "Nothing stands in the way" in " ".join(result.stdout.split())


def test_a_host_that_is_down_is_told_and_is_no_failure(tmp_path: pathlib.Path) -> None:
    down = "down1 ansible_connection=ssh ansible_host=127.0.0.1 ansible_port=1"
    (tmp_path / "hosts.ini").write_text(f"[registry_clients]\n{down}\n")
    result = play(HERE / "preflight.yml", "-i", str(tmp_path / "hosts.ini"))
    assert "Not reached, and therefore not looked at: down1." in " ".join(result.stdout.split()), result.stdout + result.stderr
    assert "Preflight found" not in result.stdout + result.stderr
