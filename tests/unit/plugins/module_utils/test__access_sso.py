# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Settings of single sign-on: what is incomplete is refused by name, and the secret is never told."""

from __future__ import annotations

import pytest

from ansible_collections.wharf.registry.plugins.module_utils._access import check, sso
from ansible_collections.wharf.registry.plugins.module_utils._access.model import Subject, build
from ansible_collections.wharf.registry.plugins.module_utils._preflight import cluster

ACCESS = {"groups": {"developers": [], "ops": ["alice"]}, "projects": {"shop": {"writers": ["group:developers"]}}}
GOOD = {
    "issuer": "https://keycloak.example.com/realms/company",
    "client_id": "registry",
    "client_secret": "the-secret",
    "groups": {"registry-developers": "developers", "/staff/ops": "ops"},
}


def test_good_settings():
    assert sso.find_problems(GOOD, ACCESS) == []
    assert sso.find_problems({}, ACCESS) == []
    assert sso.find_problems({**GOOD, "issuer": "http://localhost:8080/realms/x", "ca_src": "/ca.pem", "blocked": ["dana"]}, ACCESS) == []
    made = sso.build(GOOD)
    assert made.remember_seconds == 90 * 86400
    assert made.groups_of(["/registry-developers", "staff/ops", "other"]) == {"developers", "ops"}
    assert made.groups_of(["ops", "Registry-Developers"]) == frozenset()
    assert sso.groups_from_outside(GOOD) == {"developers", "ops"}


@pytest.mark.parametrize(
    "change, words",
    [
        ({"issuer": None}, "sso.issuer: is missing"),
        ({"client_id": ""}, "sso.client_id: is missing"),
        ({"client_secret": ""}, "sso.client_secret: is missing"),
        ({"groups": {}}, "sso.groups: is missing"),
        ({"groups": ["developers"]}, "sso.groups: is no mapping"),
        ({"groups": {"x": "developer"}}, "the access model has no group developer"),
        ({"issuer": "http://keycloak.example.com"}, "is no https address"),
        ({"issuer": "https://keycloak.example.com/?x"}, "is no https address"),
        ({"client_secet": "x"}, "did you mean client_secret?"),
        ({"scopes": ["profile"]}, "sso.scopes"),
        ({"blocked": "dana"}, "sso.blocked"),
        ({"remember_days": 0}, "sso.remember_days"),
        ({"remember_days": True}, "sso.remember_days"),
    ],
)
def test_wrong_settings(change, words):
    problems = sso.find_problems({**GOOD, **change}, ACCESS)
    assert len(problems) == 1
    assert words in problems[0]
    assert "the-secret" not in problems[0]


def test_preflight_tells_it_before_anything_changes():
    assert cluster.check_sso({}, {}, "htpasswd") == []
    assert cluster.check_sso(GOOD, ACCESS, "token") == []
    assert cluster.check_sso(GOOD, ACCESS, "htpasswd")[0]["cure"].startswith("set wharf_auth: token")
    (found,) = cluster.check_sso({**GOOD, "client_secret": ""}, ACCESS, "token")
    assert (found["variable"], found["cause"]) == ("wharf_sso.client_secret", "is missing")
    assert "keycloak.example.com" in found["cure"]


def test_groups_from_outside_are_members_too():
    access = build(ACCESS, ["alice"], [])
    dana = Subject("dana", groups=frozenset({"developers", "unknown"}))
    assert access.grant(dana, "repository", "shop/web", ["pull", "push", "delete"]) == ["pull", "push"]
    # What somebody's provider said is not remembered for others of his name.
    assert access.grant(Subject("dana"), "repository", "shop/web", ["pull"]) == []
    assert access.grant(dana, "registry", "catalog", ["*"]) == []


def test_rules_for_people_from_outside_are_not_useless():
    model = {
        "admins": ["alice"],
        "groups": {"developers": ["alice"], "empty": []},
        "projects": {"shop": {"writers": ["group:developers"], "readers": ["group:empty"]}},
    }
    assert any("all its members are admins" in problem for problem in check.find_problems(model, ["alice"], []))
    assert check.find_problems(model, ["alice"], [], outside=["developers", "empty"]) == []
