# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who may do what with which repository. Private to the collection.

One implementation for all who ask: the token service on the nodes, which grants by it, and the controller, which checks and explains it.
:class:`Access` is made of data of the inventory that :mod:`check` has found sound; see docs/access.md for the words used there.
"""

from __future__ import annotations

import datetime
import re
from dataclasses import dataclass, field
from typing import Any, Dict, FrozenSet, Iterable, List, Mapping, Optional, Sequence, Set, Tuple

from .._globs import Glob
from . import ci

PULL, PUSH, DELETE = "pull", "push", "delete"
ACTIONS = (PULL, PUSH, DELETE)
#: What each role allows. An admin may do all of it everywhere, and list the catalogue.
ROLES: Dict[str, FrozenSet[str]] = {
    "reader": frozenset((PULL,)),
    "writer": frozenset((PULL, PUSH)),
    "maintainer": frozenset(ACTIONS),
}
#: Keys of a project that list the members of a role.
LISTS = {"readers": "reader", "writers": "writer", "maintainers": "maintainer"}
EVERYBODY = "*"
ROBOT_PREFIX = "robot-"
#: The cluster's own project and account: health probe and verification.
OWN_PROJECT = "wharf"
PROBE = "wharf-probe"

COMPONENT = r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
NAME = re.compile(rf"{COMPONENT}(?:/{COMPONENT})*\Z")
LONGEST_NAME = 255


def is_repository(name: str) -> bool:
    """Return whether a registry takes this as the name of a repository."""
    return len(name) <= LONGEST_NAME and NAME.match(name) is not None


@dataclass(frozen=True)
class Subject:
    """Who asks: a user or robot by the name used to sign in, a job of a CI system, or nobody in particular (an empty name)."""

    name: str = ""
    #: What the access model calls a job: a token may be of several.
    jobs: FrozenSet[str] = frozenset()
    #: Groups of the model that somebody else vouches for: an identity provider, with which a person has signed in.
    groups: FrozenSet[str] = frozenset()

    @property
    def member(self) -> str:
        """The name as lists of members have it."""
        return f"robot:{self.name[len(ROBOT_PREFIX) :]}" if self.name.startswith(ROBOT_PREFIX) else self.name

    def __str__(self) -> str:
        return self.member or "anonymous"


@dataclass(frozen=True)
class Rule:
    """A line of the access model: these members may (or may not) do this with repositories of these patterns."""

    place: str
    members: FrozenSet[str]
    patterns: Tuple[Glob, ...]
    actions: FrozenSet[str]
    deny: bool = False

    def matches(self, repository: str) -> bool:
        """Return whether the rule is about this repository."""
        return any(pattern.matches(repository) for pattern in self.patterns)


@dataclass(frozen=True)
class Robot:
    """An account of a machine, and the day on which it ends (that day is its last)."""

    name: str
    expires: Optional[datetime.date] = None

    @property
    def login(self) -> str:
        """The name to sign in with."""
        return ROBOT_PREFIX + self.name

    def expired(self, today: datetime.date) -> bool:
        """Return whether its last day is over."""
        return self.expires is not None and today > self.expires


@dataclass(frozen=True)
class Decision:
    """What a subject may do with a repository, and a sentence for each reason."""

    allowed: FrozenSet[str]
    reasons: Tuple[str, ...] = ()


@dataclass(frozen=True)
class Access:
    """The access model, ready to be asked."""

    users: FrozenSet[str]
    robots: Mapping[str, Robot]
    groups: Mapping[str, FrozenSet[str]]
    admins: FrozenSet[str]
    projects: Mapping[str, Tuple[Rule, ...]]
    public: FrozenSet[str]
    #: By project the patterns of tags that are never overwritten.
    immutable: Mapping[str, Tuple[Glob, ...]] = field(default_factory=dict)
    #: Without any project every user is an admin, as with htpasswd.
    open_to_users: bool = False
    #: CI systems by the ``iss`` of their tokens.
    issuers: Mapping[str, ci.Issuer] = field(default_factory=dict)
    _memberships: Dict[str, FrozenSet[str]] = field(default_factory=dict, compare=False, repr=False)

    def knows(self, login: str) -> bool:
        """Return whether somebody may sign in with this name at all, or is called so when he has."""
        if login == PROBE or login in self.users or login in self.robots:
            return True
        return bool(self.issuers) and (login == ci.LOGIN or self._job(login) is not None)

    def who(self, word: str) -> Subject:
        """Return whom a name to sign in with means, or the word for a robot or a job in a list of members."""
        kind, colon, name = word.partition(":")
        if colon and kind == "robot":
            return Subject(ROBOT_PREFIX + name)
        return Subject(word, jobs=frozenset((name,))) if self._job(word) else Subject(word)

    def _job(self, word: str) -> Optional[Tuple[ci.Issuer, ci.Job]]:
        """Return the job that a word like ``job:shop-main`` means, and its issuer."""
        for issuer in self.issuers.values():
            for job in issuer.jobs:
                if word == ci.MEMBER_PREFIX + job.name:
                    return issuer, job
        return None

    def robot(self, login: str) -> Optional[Robot]:
        """Return the robot that signs in with this name."""
        return self.robots.get(login)

    @property
    def anybody(self) -> bool:
        """Whether there is anything for those who do not sign in."""
        return bool(self.public)

    def memberships(self, subject: Subject) -> FrozenSet[str]:
        """Return every word in a list of members that means this subject."""
        if not subject.name:
            return frozenset()
        if subject.jobs:
            return frozenset({EVERYBODY} | {ci.MEMBER_PREFIX + name for name in subject.jobs})
        found = self._memberships.get(subject.name)
        if found is None:
            groups = {f"group:{name}" for name, members in self.groups.items() if subject.member in members}
            found = self._memberships[subject.name] = frozenset(groups | {subject.member, EVERYBODY})
        if subject.groups:
            return found | {f"group:{name}" for name in subject.groups if name in self.groups}
        return found

    def is_admin(self, subject: Subject) -> bool:
        """Return whether this subject administers the registry as a whole."""
        if self.open_to_users and subject.name in self.users:
            return True
        return bool(self.memberships(subject) & self.admins)

    def may_list_catalog(self, subject: Subject) -> bool:
        """Return whether this subject may list all repositories."""
        return self.is_admin(subject)

    def decide(self, subject: Subject, repository: str) -> Decision:
        """Return what ``subject`` may do with ``repository``, and why."""
        if not is_repository(repository):
            return Decision(frozenset(), (f"{repository} is no name of a repository",))
        project, slash, _rest = repository.partition("/")
        if subject.name == PROBE:
            own = project == OWN_PROJECT and bool(slash)
            return Decision(frozenset(ACTIONS) if own else frozenset(), (f"{PROBE} works in the project {OWN_PROJECT} and nowhere else",))
        words = self.memberships(subject)
        rules = [rule for rule in self.projects.get(project, ()) if rule.members & words and rule.matches(repository)]
        allowed: Set[str] = set()
        reasons: List[str] = []
        if self.is_admin(subject):
            allowed |= set(ACTIONS)
            reasons.append("is an admin" if not self.open_to_users else "is a user, and without projects every user is an admin")
        if project in self.public:
            allowed.add(PULL)
            reasons.append(f"projects.{project}.anonymous_pull: everybody may pull")
        for rule in rules:
            if not rule.deny:
                allowed |= rule.actions
                reasons.append(f"{rule.place}: may {_listed(rule.actions)}{self._through(rule, words, subject)}")
        for rule in rules:
            if rule.deny:
                allowed -= rule.actions
                reasons.append(f"{rule.place}: may not {_listed(rule.actions)}{self._through(rule, words, subject)}")
        if not self.open_to_users or project == OWN_PROJECT:
            fault = ""
            if project not in self.projects:
                fault = f"there is no project {project}" if project != OWN_PROJECT else f"the project {OWN_PROJECT} is the cluster's own"
            elif not slash:
                fault = f"a name has a project and an image, as in {project}/web"
            if fault and PUSH in allowed:
                allowed.discard(PUSH)
                reasons.append(f"nobody pushes to {repository}: {fault}")
            elif fault and not reasons:
                reasons.append(fault)
        return Decision(frozenset(allowed), tuple(reasons) or ("no rule is about this",))

    def is_immutable(self, repository: str, tag: str) -> bool:
        """Return whether this tag stays what it is once it exists."""
        return any(pattern.matches(tag) for pattern in self.immutable.get(repository.partition("/")[0], ()))

    def grant(self, subject: Subject, kind: str, name: str, actions: Sequence[str]) -> List[str]:
        """Return those of the ``actions`` asked for that are allowed, in alphabetical order. ``*`` asks for all of them."""
        if kind == "registry":
            return ["*"] if name == "catalog" and "*" in actions and self.may_list_catalog(subject) else []
        if kind != "repository":
            return []
        wanted = set(ACTIONS) if "*" in actions else set(actions)
        return sorted(wanted & self.decide(subject, name).allowed)

    def explain(self, subject: Subject, repository: str) -> List[str]:
        """Return sentences: what ``subject`` may do with ``repository``, then why."""
        decision = self.decide(subject, repository)
        if subject.name and not self.knows(subject.name):
            return [f"{subject} cannot sign in: there is no such account", *self.explain(Subject(), repository)]
        refused = [action for action in ACTIONS if action not in decision.allowed]
        lines = [f"{subject} may {_listed(decision.allowed) or 'do nothing with'} {repository}"]
        if refused and decision.allowed:
            lines[0] += f", and may not {_listed(refused)}"
        robot = self.robot(subject.name)
        if robot is not None and robot.expires is not None:
            lines.append(f"its last day is {robot.expires.isoformat()}")
        found = self._job(subject.name)
        if found is not None:
            issuer, job = found
            lines.append(f"it signs in as {ci.LOGIN} with a token of {issuer.url} ({issuer.name}) for {issuer.audience}, in which {job}")
        return lines + list(decision.reasons)

    def _through(self, rule: Rule, words: FrozenSet[str], subject: Subject) -> str:
        """Say by which word of the rule the subject is meant, unless it is named."""
        found = sorted(rule.members & words - {subject.member})
        return f" (as {', '.join(found)})" if found and subject.member not in rule.members else ""


def _listed(actions: Iterable[str]) -> str:
    return ", ".join(action for action in ACTIONS if action in set(actions))


def parse_date(value: object) -> Optional[datetime.date]:
    """Return the day that a text like ``2027-06-30`` means; None for nothing.

    Raises:
        ValueError: for anything else.
    """
    if value is None or value == "":
        return None
    if isinstance(value, datetime.date):
        return value
    return datetime.datetime.strptime(str(value), "%Y-%m-%d").date()


def build(model: Mapping[str, Any], users: Iterable[str], robots: Iterable[Mapping[str, Any]]) -> Access:
    """Return the access model of data in which :func:`check.find_problems` finds nothing."""
    projects = model.get("projects") or {}
    made = [Robot(str(robot["name"]), parse_date(robot.get("expires"))) for robot in robots]
    return Access(
        users=frozenset(users),
        robots={robot.login: robot for robot in made},
        groups={name: frozenset(members or ()) for name, members in (model.get("groups") or {}).items()},
        admins=frozenset(model.get("admins") or ()),
        projects={name: tuple(rules_of(name, project or {})) for name, project in projects.items()},
        public=frozenset(name for name, project in projects.items() if (project or {}).get("anonymous_pull")),
        immutable={name: tuple(Glob(text) for text in (project or {}).get("immutable_tags") or ()) for name, project in projects.items()},
        open_to_users=not projects and not model.get("admins"),
        issuers=ci.build(model.get("ci") or {}),
    )


def rules_of(name: str, project: Mapping[str, Any]) -> List[Rule]:
    """Return the rules of one project, first those that its lists of members make."""
    whole = (Glob(f"{name}/**"),)
    rules = [Rule(f"projects.{name}.{key}", frozenset(project[key]), whole, ROLES[role]) for key, role in LISTS.items() if project.get(key)]
    for number, given in enumerate(project.get("rules") or ()):
        patterns = tuple(Glob(text) for text in given["repositories"])
        members = frozenset(given["members"])
        place = f"projects.{name}.rules[{number}]"
        if given.get("deny"):
            rules.append(Rule(place, members, patterns, frozenset(given["deny"]), deny=True))
        else:
            rules.append(Rule(place, members, patterns, ROLES[given["role"]]))
    return rules
