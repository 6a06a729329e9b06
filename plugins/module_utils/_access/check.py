# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is wrong with an access model as a whole. Private to the collection.

A typing error in an access model locks people out, or lets them in, without any error. So it is judged as a whole before it is rolled out:
names that nobody has, keys that do not exist, patterns that match nothing, and rules that other rules make useless.
"""

from __future__ import annotations

import datetime
import difflib
import re
from typing import Any, Dict, FrozenSet, Iterable, Iterator, List, Mapping, Sequence, Set

from .._globs import Glob
from . import ci
from .model import (
    ACTIONS,
    COMPONENT,
    EVERYBODY,
    LISTS,
    OWN_PROJECT,
    PULL,
    PUSH,
    ROBOT_PREFIX,
    ROLES,
    Access,
    Rule,
    build,
    is_repository,
    parse_date,
)

_ACCOUNT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,127}\Z")
_ROBOT = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}\Z")
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")
_LITERAL = re.compile(r"[^*?\[{]*")
_MODEL_KEYS = ("admins", "ci", "groups", "projects")
_PROJECT_KEYS = ("anonymous_pull", "immutable_tags", "maintainers", "readers", "rules", "writers")
_RULE_KEYS = ("deny", "members", "repositories", "role")
_ROBOT_KEYS = ("description", "expires", "name")
WARN_DAYS = 14

EXAMPLE = "{projects: {shop: {writers: [alice, robot:shop-ci], readers: [group:testers]}}}"


def find_problems(
    model: Any,
    users: Sequence[Any],
    robots: Any,
    access_variable: str = "access",
    robots_variable: str = "robots",
    outside: Iterable[str] = (),
) -> List[str]:
    """Return a sentence for everything that is wrong with an access model; nothing if :func:`model.build` can take it.

    Args:
        model: the access model.
        users: names of all users.
        robots: the robots, without their secrets.
        access_variable: what the sentences call the model.
        robots_variable: what they call the list of robots.
        outside: groups that get members from outside the model, from an identity provider.
    """
    found = [f"{robots_variable}{text}" for text in _robot_problems(robots, users)]
    if not isinstance(model, dict):
        return found + [f"{access_variable}: is no mapping. Example: {access_variable}: {EXAMPLE}"]
    names = [str(robot.get("name")) for robot in robots if isinstance(robot, dict)] if isinstance(robots, list) else []
    found += [f"{access_variable}.{text}" for text in _model_problems(model, [str(user) for user in users], names)]
    if not found:
        access = build(model, users, robots)
        found += [f"{access_variable}.{text}" for text in _useless(access, frozenset(outside))]
        found += [f"{robots_variable}: {text}" for text in _idle_robots(access)]
        found += [f"{access_variable}.{text}" for text in _idle_jobs(access)]
    return found


def today() -> datetime.date:
    """Return the present day (UTC), as the token service counts them."""
    return datetime.datetime.now(datetime.timezone.utc).date()


def find_warnings(robots: Iterable[Mapping[str, Any]], day: datetime.date, variable: str = "robots") -> List[str]:
    """Return a sentence for each robot that has ended or soon will."""
    found = []
    for robot in robots:
        last = parse_date(robot.get("expires"))
        if last is None or last > day + datetime.timedelta(days=WARN_DAYS):
            continue
        found.append(
            f"{variable}: {robot['name']} {'ended' if last < day else 'ends'} on {last.isoformat()}; give it a later day or remove it"
        )
    return found


def without_secrets(robots: Any) -> Any:
    """Return the list of robots as an inventory has it, without what must stay secret."""
    if not isinstance(robots, list):
        return robots
    secret = ("secret", "next_secret", "rotate")
    return [{key: robot[key] for key in robot if key not in secret} if isinstance(robot, dict) else robot for robot in robots]


def _near(name: object, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(str(name), list(known), 1, 0.6)
    return f"; did you mean {near[0]}?" if near else ""


def _robot_problems(robots: Any, users: Sequence[Any]) -> Iterator[str]:
    example = "Example: [{name: shop-ci, expires: 2027-06-30}]"
    if not isinstance(robots, list):
        yield f": is no list. {example}"
        return
    seen: Set[str] = set()
    for number, robot in enumerate(robots):
        where = f"[{number}]"
        if not isinstance(robot, dict) or not isinstance(robot.get("name"), str) or not _ROBOT.match(robot["name"]):
            yield f"{where}: needs a name of small letters, digits, dots and hyphens. {example}"
            continue
        if robot["name"] in seen:
            yield f"{where}: the name {robot['name']} is there twice"
        seen.add(robot["name"])
        for key in sorted(set(robot) - set(_ROBOT_KEYS)):
            yield f"{where}.{key}: is no key of a robot{_near(key, _ROBOT_KEYS)}"
        try:
            parse_date(robot.get("expires"))
        except ValueError:
            yield f"{where}.expires: {robot['expires']} is no day. {example}"
    for user in users:
        if str(user).startswith(ROBOT_PREFIX):
            yield f": the user {user} has a name that belongs to robots, whose names begin with {ROBOT_PREFIX}; choose another one"
        elif not _ACCOUNT.match(str(user)):
            yield f": the user {user} cannot sign in for tokens; use letters, digits, dots, hyphens, underscores and @"


def _model_problems(model: Dict[str, Any], users: Sequence[str], robots: Sequence[str]) -> Iterator[str]:
    for key in sorted(set(model) - set(_MODEL_KEYS), key=str):
        yield f"{key}: is no key of an access model{_near(key, _MODEL_KEYS)}"
    yield from ci.find_problems(model.get("ci") or {}, users)
    machines = [f"robot:{name}" for name in robots]
    groups = model.get("groups") or {}
    if not isinstance(groups, dict):
        yield "groups: is no mapping. Example: {groups: {testers: [alice, bob]}}"
        groups = {}
    for name, members in groups.items():
        if not _WORD.match(str(name)):
            yield f"groups.{name}: is no name for a group. Example: testers"
        yield from _member_problems(f"groups.{name}", members, users, machines, None)
    yield from _member_problems("admins", model.get("admins") or [], users, machines, groups)
    if EVERYBODY in (model.get("admins") or []):
        yield f'admins: "{EVERYBODY}" would make an admin of everybody; name them, or leave access empty'
    projects = model.get("projects") or {}
    if not isinstance(projects, dict):
        yield f"projects: is no mapping. Example: {EXAMPLE}"
        return
    for name, project in projects.items():
        yield from _project_problems(
            str(name), {} if project is None else project, users, [*machines, *ci.members(model.get("ci"))], groups
        )


def _member_problems(place: str, members: Any, users: Sequence[str], machines: Sequence[str], groups: Any) -> Iterator[str]:
    """Judge a list of members; ``machines`` are the words for robots and jobs, ``groups`` is None where groups cannot be members."""
    if not isinstance(members, list):
        yield f"{place}: is no list of members. Example: [alice, robot:shop-ci{', group:testers' if groups is not None else ''}]"
        return
    for member in members:
        kind, colon, name = str(member).partition(":")
        if member == EVERYBODY and groups is not None:
            continue
        if not colon and member not in users:
            yield f"{place}: there is no user {member}{_near(member, users)}"
        elif kind == "job" and not place.startswith("projects."):
            yield f"{place}: {member} is a job of a CI system; jobs are members in projects only"
        elif kind in ("robot", "job") and member not in machines:
            same = [word.partition(":")[2] for word in machines if word.startswith(f"{kind}:")]
            yield f"{place}: there is no {kind} {name}{_near(name, same)}"
        elif kind == "group" and groups is None:
            yield f"{place}: {member} is a group; a group has users and robots, and no groups"
        elif kind == "group" and name not in groups:
            yield f"{place}: there is no group {name}{_near(name, groups)}"
        elif colon and kind not in ("robot", "group", "job"):
            yield f"{place}: {member} is no member; those with a colon begin with robot:, job: or group:"
    for member in sorted({str(member) for member in members if members.count(member) > 1}):
        yield f"{place}: {member} is there twice"


def _project_problems(name: str, project: Any, users: Sequence[str], machines: Sequence[str], groups: Any) -> Iterator[str]:
    place = f"projects.{name}"
    if not re.match(COMPONENT + r"\Z", name):
        yield f"{place}: is no name for a project, which is the first part of an image's name. Example: shop"
    if name == OWN_PROJECT:
        yield f"{place}: this project is the cluster's own; choose another name"
    if not isinstance(project, dict):
        yield f"{place}: is no mapping. Example: {EXAMPLE}"
        return
    for key in sorted(set(project) - set(_PROJECT_KEYS), key=str):
        yield f"{place}.{key}: is no key of a project{_near(key, _PROJECT_KEYS)}"
    if not isinstance(project.get("anonymous_pull", False), bool):
        yield f"{place}.anonymous_pull: is neither true nor false"
    yield from _tag_problems(f"{place}.immutable_tags", project.get("immutable_tags") or [])
    for key in LISTS:
        yield from _member_problems(f"{place}.{key}", project.get(key) or [], users, machines, groups)
    rules = project.get("rules") or []
    if not isinstance(rules, list):
        yield f"{place}.rules: is no list. Example: [{{repositories: [{name}/tools/**], role: writer, members: [alice]}}]"
        return
    for number, rule in enumerate(rules):
        yield from _rule_problems(f"{place}.rules[{number}]", name, rule, users, machines, groups)


def _tag_problems(place: str, patterns: Any) -> Iterator[str]:
    if not isinstance(patterns, list):
        yield f'{place}: is no list of patterns. Example: ["v*", "[0-9]*.[0-9]*.[0-9]*"]'
        return
    for pattern in patterns:
        try:
            Glob(str(pattern))
        except ValueError as error:
            yield f"{place}: {pattern}: {error}"
            continue
        if not isinstance(pattern, str) or re.search(r"[/:@\s]", pattern):
            yield f'{place}: {pattern} matches no tag; a tag has letters, digits, dots, hyphens and underscores. Example: "v*"'


def _rule_problems(place: str, project: str, rule: Any, users: Sequence[str], machines: Sequence[str], groups: Any) -> Iterator[str]:
    example = f"Example: {{repositories: [{project}/tools/**], role: writer, members: [alice]}}"
    if not isinstance(rule, dict):
        yield f"{place}: is no mapping. {example}"
        return
    for key in sorted(set(rule) - set(_RULE_KEYS), key=str):
        yield f"{place}.{key}: is no key of a rule{_near(key, _RULE_KEYS)}"
    if ("role" in rule) == ("deny" in rule):
        yield f"{place}: has exactly one of role and deny. {example}"
    if "role" in rule and str(rule["role"]) not in ROLES:
        yield f"{place}.role: {rule['role']} is no role; there are {', '.join(ROLES)}{_near(rule['role'], ROLES)}"
    deny = rule.get("deny", [PUSH])
    if not isinstance(deny, list) or not deny or set(map(str, deny)) - set(ACTIONS):
        yield f"{place}.deny: lists one or more of {', '.join(ACTIONS)}. Example: deny: [push, delete]"
    if not rule.get("members"):
        yield f"{place}.members: is missing; a rule is about somebody. {example}"
    else:
        yield from _member_problems(f"{place}.members", rule["members"], users, machines, groups)
    patterns = rule.get("repositories")
    if not isinstance(patterns, list) or not patterns:
        yield f"{place}.repositories: is missing, or no list of patterns. {example}"
        return
    for pattern in patterns:
        yield from _pattern_problems(f"{place}.repositories", project, str(pattern))


def _pattern_problems(place: str, project: str, pattern: str) -> Iterator[str]:
    try:
        Glob(pattern)
    except ValueError as error:
        yield f"{place}: {pattern}: {error}"
        return
    if not pattern.startswith(f"{project}/"):
        yield f"{place}: {pattern} is outside of the project; a pattern begins with {project}/. Example: {project}/tools/**"
    elif re.search(r"[A-Z\s:@]", pattern):
        yield f"{place}: {pattern} matches nothing: names of repositories have small letters, digits, dots, hyphens and underscores"
    elif _LITERAL.match(pattern).group() == pattern and not is_repository(pattern):  # type: ignore[union-attr]
        yield f"{place}: {pattern} is no name that a repository can have"


def _people(access: Access, members: Iterable[str], outside: FrozenSet[str] = frozenset()) -> FrozenSet[str]:
    """Return the accounts that a list of members means; the people whom a group gets from outside count as one more, named like it."""
    jobs = {ci.MEMBER_PREFIX + job.name for issuer in access.issuers.values() for job in issuer.jobs}
    everybody = set(access.users) | {f"robot:{robot.name}" for robot in access.robots.values()} | jobs
    everybody |= {f"group:{name}" for name in outside}
    found: Set[str] = set()
    for member in members:
        if member == EVERYBODY:
            found |= everybody
        elif member.startswith("group:"):
            name = member[len("group:") :]
            found |= access.groups[name] | ({member} if name in outside else set())
        else:
            found.add(member)
    return frozenset(found)


def _useless(access: Access, outside: FrozenSet[str]) -> Iterator[str]:
    """Name the rules that make no difference, since another one says as much or more."""
    admins = _people(access, access.admins, outside)
    for project, rules in access.projects.items():
        for number, rule in enumerate(rules):
            people = _people(access, rule.members, outside)
            if not rule.deny and project in access.public and rule.actions <= {PULL}:
                yield f"{rule.place}: says nothing new: in projects.{project} everybody may pull (anonymous_pull)"
                continue
            if not rule.deny and people and people <= admins:
                yield f"{rule.place}: says nothing new: all its members are admins"
                continue
            for other_number, other in enumerate(rules):
                theirs = _people(access, other.members, outside)
                if other is rule or not _covers(other, rule, people, theirs):
                    continue
                # Of two that say the same, one is needed: the first.
                if other.deny == rule.deny and _covers(rule, other, theirs, people) and other_number > number:
                    continue
                if other.deny == rule.deny:
                    yield f"{rule.place}: says nothing new: {other.place} says as much for the same members and repositories"
                    break
                if other.deny:
                    yield f"{rule.place}: has no effect: {other.place} denies all of it, and deny wins"
                    break


def _covers(other: Rule, rule: Rule, people: FrozenSet[str], others: FrozenSet[str]) -> bool:
    """Return whether ``other``, which means ``others``, is about all actions, members and repositories of ``rule``, which means ``people``."""
    if not rule.actions <= other.actions or not people <= others:
        return False
    if rule.deny and not other.deny:
        return False
    texts = {pattern.text for pattern in other.patterns}
    return all(
        pattern.text in texts or any(text.endswith("/**") and pattern.text.startswith(text[:-2]) for text in texts)
        for pattern in rule.patterns
    )


def _busy(access: Access) -> FrozenSet[str]:
    """Return the accounts that may do anything at all."""
    rules = [rule for rules in access.projects.values() for rule in rules if not rule.deny]
    return _people(access, access.admins).union(*(_people(access, rule.members) for rule in rules))


def _idle_robots(access: Access) -> Iterator[str]:
    """Name the robots that may do nothing: no rule allows them anything."""
    busy = _busy(access)
    for name in sorted(robot.name for robot in access.robots.values() if f"robot:{robot.name}" not in busy):
        yield f"{name} is a member of nothing, so it may do nothing. Example: {{projects: {{shop: {{writers: [robot:{name}]}}}}}}"


def _idle_jobs(access: Access) -> Iterator[str]:
    """Name the jobs that may do nothing."""
    busy = _busy(access)
    for issuer in access.issuers.values():
        for word in sorted(ci.MEMBER_PREFIX + job.name for job in issuer.jobs):
            if word not in busy:
                place = f"ci.{issuer.name}.jobs.{word.partition(':')[2]}"
                yield f"{place}: is a member of nothing, so it may do nothing. Example: {{projects: {{shop: {{writers: [{word}]}}}}}}"
