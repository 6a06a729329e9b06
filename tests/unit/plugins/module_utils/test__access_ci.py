# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Jobs of CI systems in the access model: whom a token's claims mean, and which jobs nobody can have meant."""

from __future__ import annotations

import copy

import pytest

from ansible_collections.wharf.registry.plugins.module_utils._access.check import find_problems
from ansible_collections.wharf.registry.plugins.module_utils._access.model import Subject, build

GITHUB = "https://token.actions.githubusercontent.com"
GITLAB = "https://gitlab.example.com"
USERS = ["alice"]
MODEL = {
    "admins": ["alice"],
    "ci": {
        "gitlab": {
            "issuer": GITLAB,
            "audience": "registry.example.com",
            "jwks_url": "https://gitlab.example.com/oauth/discovery/keys",
            "jobs": {
                "shop-main": {"project_path": "shop/web", "ref": ["main", "release-*"], "ref_protected": True},
                "shop-any": {"project_path": "shop/**"},
            },
        },
        "github": {
            "issuer": GITHUB,
            "audience": "registry.example.com",
            "jwks": {"keys": [{"kty": "RSA", "kid": "1", "n": "x", "e": "AQAB"}]},
            "jobs": {"acme": {"repository": "acme/*"}},
        },
    },
    "projects": {
        "shop": {
            "writers": ["job:shop-main"],
            "readers": ["job:shop-any", "job:acme"],
            "rules": [{"repositories": ["shop/closed/**"], "deny": ["pull", "push"], "members": ["*"]}],
        }
    },
}


def change(*path, value):
    model = copy.deepcopy(MODEL)
    place = model
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return model


@pytest.mark.parametrize(
    ("claims", "jobs"),
    [
        ({"project_path": "shop/web", "ref": "main", "ref_protected": "true"}, {"shop-main", "shop-any"}),
        ({"project_path": "shop/web", "ref": "main", "ref_protected": True}, {"shop-main", "shop-any"}),
        ({"project_path": "shop/web", "ref": "release-1", "ref_protected": "true"}, {"shop-main", "shop-any"}),
        ({"project_path": "shop/web", "ref": "main", "ref_protected": "false"}, {"shop-any"}),
        ({"project_path": "shop/web", "ref": "release-1/x", "ref_protected": "true"}, {"shop-any"}),
        ({"project_path": "shop/a/b"}, {"shop-any"}),
        ({"project_path": ["other/x", "shop/a"]}, {"shop-any"}),
        ({"project_path": [["shop/a"]]}, set()),
        ({"project_path": {"shop/a": 1}}, set()),
        ({"project_path": "shops/web"}, set()),
        ({"project_path": "shop/web\n"}, set()),
        ({"project_path": None}, set()),
        ({}, set()),
    ],
)
def test_whom_claims_mean(claims, jobs):
    assert build(MODEL, USERS, []).issuers[GITLAB].jobs_of(claims) == jobs


def test_jobs_have_the_rights_of_their_names_and_no_others():
    access = build(MODEL, USERS, [])
    job = Subject("ci:gitlab:project_path:shop/web", jobs=frozenset({"shop-main"}))
    assert access.decide(job, "shop/web").allowed == {"pull", "push"}
    assert access.decide(job, "shop/closed/web").allowed == set()
    assert access.decide(job, "other/web").allowed == set()
    assert not access.may_list_catalog(job)
    both = Subject("ci:gitlab:x", jobs=frozenset({"shop-any", "shop-main"}))
    assert access.decide(both, "shop/web").allowed == {"pull", "push"}
    # What a token says of itself makes nobody a job.
    assert access.decide(Subject("ci:gitlab:x"), "shop/web").allowed == set()
    assert not access.is_admin(Subject("ci:x:alice", jobs=frozenset({"alice"})))


def test_explains_a_job():
    access = build(MODEL, USERS, [])
    lines = access.explain(access.who("job:shop-main"), "shop/web")
    assert lines[0] == "job:shop-main may pull, push shop/web, and may not delete"
    assert lines[1] == (
        "it signs in as ci-job with a token of https://gitlab.example.com (gitlab) for registry.example.com,"
        " in which project_path is shop/web, ref is main or release-*, ref_protected is true"
    )
    assert access.explain(access.who("job:shop-mian"), "shop/web")[0] == "job:shop-mian cannot sign in: there is no such account"


def test_the_example_is_sound():
    assert find_problems(MODEL, USERS, []) == []


@pytest.mark.parametrize(
    ("path", "value", "told"),
    [
        (("ci",), [], None),
        (("ci",), ["gitlab"], "access.ci: is no mapping"),
        (("ci", "gitlab", "audience"), "", "access.ci.gitlab.audience: is missing"),
        (("ci", "gitlab", "audience"), GITLAB, "access.ci.gitlab.audience: is the issuer itself"),
        (("ci", "gitlab", "issuer"), "gitlab", "access.ci.gitlab.issuer: is the iss of its tokens, a URL"),
        (("ci", "gitlab", "issuer"), GITHUB, "is there twice; its jobs belong together"),
        (("ci", "gitlab", "jwks"), {"keys": []}, "access.ci.gitlab: has exactly one of jwks_url"),
        (("ci", "gitlab", "jwks_url"), "http://gitlab.example.com/keys", "is no URL that begins with https://"),
        (("ci", "gitlab", "jwks_url"), "https://user@gitlab.example.com/keys", "is no URL that begins with https://"),
        (("ci", "gitlab", "jwks_url"), "file:///etc/passwd", "is no URL that begins with https://"),
        (("ci", "gitlab", "jwks_uri"), "x", "access.ci.gitlab.jwks_uri: is no key of an issuer; did you mean jwks_url?"),
        (("ci", "gitlab", "ca"), "/etc/ssl/ca.pem", "access.ci.gitlab.ca: is no certificate in PEM"),
        (("ci", "github", "ca"), "-----BEGIN CERTIFICATE-----", "access.ci.github.ca: nothing is fetched"),
        (("ci", "github", "jwks"), {"keys": [{"kty": "EC", "kid": "1", "d": "x"}]}, "keys[0]: has a private or secret part"),
        (("ci", "github", "jwks"), {"keys": [{"kty": "RSA"}]}, "keys[0]: has no kid"),
        (("ci", "github", "jwks"), {"keys": [{"kty": "OKP", "kid": "1"}]}, "has no key for RS256 or ES256"),
        (("ci", "github", "jwks"), "keys", "access.ci.github.jwks: is no JWKS"),
        (("ci", "gitlab", "jobs"), {}, "access.ci.gitlab.jobs: is missing"),
        (("ci", "github", "jobs"), {"shop-any": {"repository": "acme/x"}}, "another issuer has a job of this name"),
        (("ci", "gitlab", "jobs", "shop-any"), {}, "lists no claims, so every token of the issuer would do"),
        (("ci", "gitlab", "jobs", "shop-any"), {"project_path": []}, "project_path: is no pattern"),
        (("ci", "gitlab", "jobs", "shop-any"), {"project_path": {"a": 1}}, "project_path: is no pattern"),
        (("ci", "gitlab", "jobs", "shop-any"), {"project_path": "[x"}, "the bracket [ is never closed"),
        (("ci", "gitlab", "jobs", "shop-any"), {"project_path": "**"}, "matches every token of the issuer, or almost"),
        (("ci", "gitlab", "jobs", "shop-any"), {"project_path": ["shop/*", "*/*"]}, "matches every token of the issuer, or almost"),
        (("ci", "gitlab", "jobs", "shop-any"), {"iss": GITLAB}, "iss: is checked for every token"),
        (("ci", "github", "jobs", "acme"), {"repository": "*"}, "matches every token of the issuer"),
        (("ci", "github", "jobs", "acme"), {"ref": "refs/heads/main"}, "signs for everybody in the world"),
        (("ci", "github", "jobs", "acme"), {"repository": "acme*/web"}, "signs for everybody in the world"),
        (("ci", "github", "jobs", "acme"), {"repository": ["acme/web", "a*/web"]}, "signs for everybody in the world"),
        (("ci", "github", "jobs", "acme"), {"repository_owner": "acme*"}, "signs for everybody in the world"),
        (("ci", "github", "jobs", "acme"), {"sub": "repo:*"}, "signs for everybody in the world"),
        (("ci", "github", "jobs", "acme"), {"sub": "repo:acme"}, "signs for everybody in the world"),
        (("ci", "github", "jobs", "acme"), {"job_workflow_ref": "acme/web/x@y"}, "signs for everybody in the world"),
        (("ci", "github", "jobs", "acme"), {"repository_owner": "acme"}, None),
        (("ci", "github", "jobs", "acme"), {"sub": "repo:acme/*:ref:refs/heads/main"}, None),
        (("ci", "github", "jobs", "acme"), {"repository_id": 12345, "ref": "*"}, None),
        (("projects", "shop", "writers"), ["job:shop-mian"], "there is no job shop-mian; did you mean shop-main?"),
        (("projects", "shop", "writers"), [], "access.ci.gitlab.jobs.shop-main: is a member of nothing"),
        (("admins",), ["job:shop-main"], "access.admins: job:shop-main is a job of a CI system; jobs are members in projects only"),
        (("groups",), {"ci": ["job:shop-main"]}, "jobs are members in projects only"),
    ],
)
def test_what_is_refused(path, value, told):
    found = find_problems(change(*path, value=value), USERS, [])
    if told is None:
        assert [text for text in found if "ci" in text.split(":")[0]] == []
    else:
        assert any(told in text for text in found), found


def test_a_public_issuer_with_a_path_of_its_own_is_public():
    model = change("ci", "github", "issuer", value=f"{GITHUB}/acme-enterprise")
    model["ci"]["github"]["jobs"]["acme"] = {"ref": "refs/heads/main"}
    assert any("signs for everybody in the world" in text for text in find_problems(model, USERS, []))


def test_a_user_with_the_name_of_jobs():
    assert any("the user ci-job has the name that jobs sign in with" in text for text in find_problems(MODEL, ["alice", "ci-job"], []))
    assert find_problems({}, ["ci-job"], []) == []
