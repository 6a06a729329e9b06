# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The access model: what it grants, what it says about why, and what is refused before it is rolled out."""

from __future__ import annotations

import copy
import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.wharf.registry.plugins.module_utils._access import check
from ansible_collections.wharf.registry.plugins.module_utils._access.model import ACTIONS, PUSH, Subject, build, is_repository

USERS = ["root", "alice", "bob", "carol", "dave"]
ROBOTS = [{"name": "shop-ci", "expires": "2027-06-30"}, {"name": "puller"}]
MODEL = {
    "admins": ["root"],
    "groups": {"testers": ["carol", "robot:puller"], "shop-team": ["alice", "bob"]},
    "projects": {
        "shop": {
            "readers": ["group:testers"],
            "writers": ["group:shop-team", "robot:shop-ci"],
            "maintainers": ["bob"],
            "rules": [
                {"repositories": ["shop/release/**"], "deny": ["push", "delete"], "members": ["*"]},
                {"repositories": ["shop/tools/*"], "role": "maintainer", "members": ["carol"]},
            ],
        },
        "public": {"anonymous_pull": True, "writers": ["dave"]},
    },
}


def access(model=None):
    return build(MODEL if model is None else model, USERS, ROBOTS)


@pytest.mark.parametrize(
    ("who", "repository", "allowed"),
    [
        ("alice", "shop/web", "pull push"),
        ("bob", "shop/web", "pull push delete"),
        ("carol", "shop/web", "pull"),
        ("carol", "shop/tools/lint", "pull push delete"),
        ("carol", "shop/tools/deep/lint", "pull"),
        ("dave", "shop/web", ""),
        ("robot-shop-ci", "shop/web", "pull push"),
        ("robot-puller", "shop/a/b/c", "pull"),
        ("bob", "shop/release/web", "pull"),
        ("root", "shop/release/web", "pull"),
        ("root", "shop/web", "pull push delete"),
        ("", "shop/web", ""),
        ("", "public/web", "pull"),
        ("alice", "public/web", "pull"),
        ("dave", "public/web", "pull push"),
        # A project is declared before anything is pushed to it, and a name has two parts.
        ("root", "shopp/web", "pull delete"),
        ("root", "web", "pull delete"),
        ("bob", "shop", ""),
        # The cluster's own project and account.
        ("root", "wharf/verify", "pull delete"),
        ("alice", "wharf/verify", ""),
        ("wharf-probe", "wharf/probe", "pull push delete"),
        ("wharf-probe", "wharf", ""),
        ("wharf-probe", "shop/web", ""),
        # Names that are none match no pattern.
        ("bob", "shop/../shop/web", ""),
        ("bob", "shop/*", ""),
        ("bob", "shop/Web", ""),
        ("bob", "shop//web", ""),
        ("bob", "shop/web\n", ""),
        ("bob", "/shop/web", ""),
        ("root", "shop/" + "a" * 251, ""),
    ],
)
def test_what_is_allowed(who, repository, allowed):
    assert access().decide(Subject(who), repository).allowed == set(allowed.split())


def test_without_a_model_every_user_is_admin_as_with_htpasswd():
    plain = build({}, USERS, [])
    assert plain.decide(Subject("alice"), "any/where").allowed == set(ACTIONS)
    assert plain.decide(Subject("alice"), "busybox").allowed == set(ACTIONS)
    assert plain.may_list_catalog(Subject("alice"))
    assert not plain.decide(Subject(), "any/where").allowed
    assert not plain.decide(Subject("mallory"), "any/where").allowed
    assert PUSH not in plain.decide(Subject("alice"), "wharf/verify").allowed


def test_grants_are_what_was_asked_cut_down_to_what_is_allowed():
    model = access()
    assert model.grant(Subject("alice"), "repository", "shop/web", ["pull", "push", "delete"]) == ["pull", "push"]
    assert model.grant(Subject("bob"), "repository", "shop/web", ["*"]) == ["delete", "pull", "push"]
    assert model.grant(Subject("bob"), "repository", "shop/web", ["pull"]) == ["pull"]
    assert model.grant(Subject("carol"), "repository", "shop/web", ["*"]) == ["pull"]
    assert model.grant(Subject("bob"), "repository(plugin)", "shop/web", ["pull"]) == []
    assert model.grant(Subject("bob"), "repository", "shop/web", ["superuse"]) == []
    assert model.grant(Subject("root"), "registry", "catalog", ["*"]) == ["*"]
    assert model.grant(Subject("bob"), "registry", "catalog", ["*"]) == []
    assert model.grant(Subject("root"), "registry", "catalog", ["pull"]) == []
    assert model.grant(Subject("root"), "registry", "everything", ["*"]) == []


def test_explains_why():
    lines = access().explain(Subject("bob"), "shop/release/web")
    assert lines[0] == "bob may pull shop/release/web, and may not push, delete"
    assert "projects.shop.rules[0]: may not push, delete (as *)" in lines
    assert "projects.shop.maintainers: may pull, push, delete" in lines
    assert access().explain(Subject("mallory"), "shop/web")[0] == "mallory cannot sign in: there is no such account"
    assert "its last day is 2027-06-30" in access().explain(Subject("robot-shop-ci"), "shop/web")
    assert access().explain(Subject(), "shop/web") == ["anonymous may do nothing with shop/web", "no rule is about this"]
    assert "nobody pushes to shopp/web: there is no project shopp" in access().explain(Subject("root"), "shopp/web")


def test_immutable_tags():
    model = access(change(("projects", "shop", "immutable_tags"), ["v*", "[0-9]*.[0-9]*"]))
    assert model.is_immutable("shop/web", "v1")
    assert model.is_immutable("shop/a/b", "1.2")
    assert not model.is_immutable("shop/web", "latest")
    assert not model.is_immutable("public/web", "v1")


def test_a_robot_works_on_its_last_day():
    robot = access().robot("robot-shop-ci")
    assert not robot.expired(datetime.date(2027, 6, 30))
    assert robot.expired(datetime.date(2027, 7, 1))


@given(st.text(alphabet="abshop/._-*:? \n\0ä", max_size=40))
def test_names_that_no_registry_takes_are_never_granted(name):
    if not is_repository(name):
        assert not access().grant(Subject("root"), "repository", name, ["*"])


@given(
    st.sampled_from([*USERS, "robot-shop-ci", "robot-puller", ""]),
    st.sampled_from(["shop/web", "shop/release/x", "public/a", "shop/tools/a"]),
)
def test_deny_wins_over_everything(who, repository):
    denied = copy.deepcopy(MODEL)
    denied["projects"][repository.split("/")[0]].setdefault("rules", []).append(
        {"repositories": [repository], "deny": list(ACTIONS), "members": ["*"]}
    )
    left = access(denied).decide(Subject(who), repository).allowed
    assert not left or (who == "" and left == {"pull"})


def test_the_example_is_sound():
    assert check.find_problems(MODEL, USERS, ROBOTS) == []
    assert check.find_problems({}, USERS, []) == []


def change(path, value):
    model = copy.deepcopy(MODEL)
    place = model
    for key in path[:-1]:
        place = place.setdefault(key, {}) if isinstance(place, dict) else place[key]
    if isinstance(place, list):
        place.append(value)
    else:
        place[path[-1]] = value
    return model


RULE = {"repositories": ["shop/x"], "role": "writer", "members": ["carol"]}


@pytest.mark.parametrize(
    ("path", "value", "told"),
    [
        (("project",), {}, "access.project: is no key of an access model; did you mean projects?"),
        (("projects", "shop", "writer"), [], "access.projects.shop.writer: is no key of a project; did you mean writers?"),
        (("projects", "shop", "readers"), ["carl"], "access.projects.shop.readers: there is no user carl; did you mean carol?"),
        (("projects", "shop", "readers"), ["group:tester"], "there is no group tester; did you mean testers?"),
        (("projects", "shop", "readers"), ["robot:shop-cl"], "there is no robot shop-cl; did you mean shop-ci?"),
        (("projects", "shop", "readers"), ["team:x"], "team:x is no member"),
        (("projects", "shop", "readers"), "carol", "access.projects.shop.readers: is no list of members"),
        (("projects", "shop", "readers"), ["carol", "carol"], "carol is there twice"),
        (("groups", "all"), ["group:testers"], "group:testers is a group; a group has users and robots"),
        (("admins",), ["*"], "would make an admin of everybody"),
        (("projects", "shop", "immutable_tags"), "v*", "access.projects.shop.immutable_tags: is no list of patterns"),
        (("projects", "shop", "immutable_tags"), ["v/*"], "access.projects.shop.immutable_tags: v/* matches no tag"),
        (("projects", "shop", "immutable_tags"), ["[v"], "immutable_tags: [v: the bracket [ is never closed"),
        (("projects", "Shop"), {}, "access.projects.Shop: is no name for a project"),
        (("projects", "wharf"), {}, "access.projects.wharf: this project is the cluster's own"),
        (("projects", "shop", "anonymous_pull"), "yes", "anonymous_pull: is neither true nor false"),
        (("projects", "shop", "rules", 0), {**RULE, "role": "writter"}, "rules[2].role: writter is no role"),
        (("projects", "shop", "rules", 0), {**RULE, "deny": ["push"]}, "has exactly one of role and deny"),
        (("projects", "shop", "rules", 0), {**RULE, "repositories": ["web/x"]}, "web/x is outside of the project"),
        (("projects", "shop", "rules", 0), {**RULE, "repositories": ["shop/[x"]}, "the bracket [ is never closed"),
        (("projects", "shop", "rules", 0), {**RULE, "repositories": ["shop/Web"]}, "shop/Web matches nothing"),
        (("projects", "shop", "rules", 0), {**RULE, "members": []}, "members: is missing"),
        (("projects", "shop", "rules", 0), {**RULE, "membres": []}, "membres: is no key of a rule; did you mean members?"),
        # Rules that make no difference.
        (("projects", "shop", "rules", 0), {**RULE, "members": ["bob"]}, "rules[2]: says nothing new: projects.shop.writers"),
        (("projects", "shop", "rules", 0), {**RULE, "members": ["root"]}, "rules[2]: says nothing new: all its members are admins"),
        (("projects", "shop", "readers"), ["alice"], "access.projects.shop.readers: says nothing new: projects.shop.writers"),
        (
            ("projects", "public", "readers"),
            ["alice"],
            "access.projects.public.readers: says nothing new: in projects.public everybody may pull",
        ),
        (
            ("projects", "shop", "rules", 0),
            {"repositories": ["shop/**"], "deny": ["pull", "push"], "members": ["robot:shop-ci", "alice", "bob"]},
            "access.projects.shop.writers: has no effect: projects.shop.rules[2] denies all of it",
        ),
    ],
)
def test_what_is_refused(path, value, told):
    found = check.find_problems(change(path, value), USERS, ROBOTS)
    assert any(told in text for text in found), found


@pytest.mark.parametrize(
    ("robots", "told"),
    [
        ({}, "robots: is no list"),
        ([{"name": "CI"}], "robots[0]: needs a name of small letters"),
        ([*ROBOTS, {"name": "puller"}], "robots[2]: the name puller is there twice"),
        ([*ROBOTS, {"name": "new"}], "robots: new is a member of nothing"),
        ([{**ROBOTS[0], "expires": "next year"}, ROBOTS[1]], "robots[0].expires: next year is no day"),
        ([{**ROBOTS[0], "expiry": "2027-01-01"}, ROBOTS[1]], "robots[0].expiry: is no key of a robot; did you mean expires?"),
    ],
)
def test_robots_that_are_refused(robots, told):
    found = check.find_problems(MODEL, USERS, robots)
    assert any(told in text for text in found), found


def test_users_that_are_refused():
    assert "belongs to robots" in check.find_problems({}, ["robot-x"], [])[0]
    assert "cannot sign in" in check.find_problems({}, ["a b"], [])[0]


def test_warns_before_a_robot_ends():
    def warnings(year, month, day):
        return check.find_warnings(ROBOTS, datetime.date(year, month, day))

    assert warnings(2027, 6, 15) == []
    assert warnings(2027, 6, 16) == ["robots: shop-ci ends on 2027-06-30; give it a later day or remove it"]
    assert warnings(2027, 7, 1) == ["robots: shop-ci ended on 2027-06-30; give it a later day or remove it"]
