# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Rules of retention as data: read, checked and compiled. What they decide is in ``decisions``.

Private to the collection. ``parse_policy`` reports everything that is wrong at once; each message names the rule's number, counted from 1,
and the key.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass, field
from typing import Any, List, Mapping, Optional, Sequence, Tuple

from .._durations import parse_duration
from .._globs import Glob

RULE_KEYS = ("repositories", "tags", "keep", "match")
TAG_KEYS = ("include", "exclude")
NUMBER_KEYS = ("last", "last_semver")
DURATION_KEYS = ("pushed_within", "pulled_within")
KEEP_KEYS = NUMBER_KEYS + DURATION_KEYS
MATCHES = ("any", "all")

_DIGITS = re.compile(r"^[0-9]{1,9}$")

# https://semver.org/spec/v2.0.0.html, with a leading "v", and with "_" for the "+" that no tag can hold (the way of Helm).
_SEMVER = re.compile(
    r"^v?(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)"
    r"(?:-((?:0|[1-9]\d*|\d*[A-Za-z-][0-9A-Za-z-]*)(?:\.(?:0|[1-9]\d*|\d*[A-Za-z-][0-9A-Za-z-]*))*))?"
    r"(?:[+_][0-9A-Za-z.-]+)?$"
)

Version = Tuple[int, int, int, Tuple[Any, ...]]


class PolicyError(ValueError):
    """The rules cannot be used. ``problems`` has one sentence for each fault; nothing has been changed."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = list(problems)


def parse_version(tag: str) -> Optional[Version]:
    """Return what orders semantic versions by their precedence; None if the tag is no full version."""
    match = _SEMVER.match(tag)
    if match is None:
        return None
    pre: Tuple[Any, ...] = (1,)
    if match.group(4):
        # Numbers come before words; of two that begin alike the longer one is higher.
        pre = (0, tuple((0, int(part), "") if part.isdigit() else (1, 0, part) for part in match.group(4).split(".")))
    return int(match.group(1)), int(match.group(2)), int(match.group(3)), pre


# --------------------------------------------------------------------------------------------------------------- rules


@dataclass(frozen=True)
class Keep:
    """What keeps a tag; None: not asked. Durations are in seconds."""

    last: Optional[int] = None
    last_semver: Optional[int] = None
    pushed_within: Optional[int] = None
    pulled_within: Optional[int] = None

    def asked(self) -> List[str]:
        """Return the names of the conditions that are asked, in their order."""
        return [name for name in KEEP_KEYS if getattr(self, name) is not None]


@dataclass(frozen=True)
class Rule:
    """One rule. ``number`` counts from 1; ``written`` has each duration as it was given, for reasons."""

    number: int
    repositories: Tuple[Glob, ...]
    include: Tuple[Glob, ...]
    exclude: Tuple[Glob, ...]
    keep: Keep
    match: str = "any"
    written: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Policy:
    """All rules together with what stands above them."""

    rules: Tuple[Rule, ...] = ()
    protected: Tuple[Glob, ...] = ()
    floor: int = 1


def parse_policy(rules: object, protected: object = (), floor: object = 1, usage_known: bool = True) -> Policy:
    """Return the policy that ``rules``, ``protected`` and ``floor`` describe, as they come from YAML or JSON.

    :param usage_known: whether the caller knows what was pulled; without that a rule with ``pulled_within`` is refused, because it would
        delete what is pulled every day.
    :raises PolicyError: with one sentence for each fault.
    """
    problems: List[str] = []
    lowest = _number(floor, "floor: %r is no number of tags; for example floor: 1" % (floor,), problems)
    guards = _globs(protected, "protected", '["latest", "v*"]', problems, tags=True)
    parsed = []
    if not isinstance(rules, (list, tuple)):
        problems.append("rules: %s is no list of rules; for example rules: [{repositories: ['shop/**'], keep: {last: 10}}]" % _show(rules))
    else:
        if not rules:
            problems.append(
                "rules: the list is empty, so nothing is to be done; for example rules: [{repositories: ['shop/**'], keep: {last: 10}}]"
            )
        parsed = [_rule(number, rule, lowest, usage_known, problems) for number, rule in enumerate(rules, 1)]
    if problems:
        raise PolicyError(problems)
    return Policy(tuple(rule for rule in parsed if rule is not None), guards, 1 if lowest is None else lowest)


def _rule(number: int, rule: object, floor: Optional[int], usage_known: bool, problems: List[str]) -> Optional[Rule]:
    where = "rule %d: " % number
    before = len(problems)
    if not isinstance(rule, Mapping):
        problems.append(where + "%s is no rule; for example {repositories: ['shop/**'], keep: {last: 10}}" % _show(rule))
        return None
    _unknown(rule, RULE_KEYS, where, "", problems)
    if rule.get("repositories") in (None, [], ()):
        problems.append(
            where + "repositories: it is missing; say which repositories the rule is for, for example repositories: ['shop/**']"
        )
    repositories = _globs(rule.get("repositories"), where + "repositories", '["shop/**"]', problems)

    tags = rule.get("tags")
    if tags is not None and not isinstance(tags, Mapping):
        problems.append(
            where + "tags: %s has neither include nor exclude; for example tags: {include: ['*'], exclude: [latest]}" % _show(tags)
        )
        tags = None
    tags = tags or {}
    _unknown(tags, TAG_KEYS, where, "tags.", problems)
    include = _globs(tags.get("include"), where + "tags.include", '["v*"]', problems, tags=True)
    if tags.get("include") is not None and not tags.get("include"):
        problems.append(
            where + "tags.include: the list is empty, so the rule is for no tag; leave it out for all tags, or name some: ['v*']"
        )
    exclude = _globs(tags.get("exclude"), where + "tags.exclude", '["latest"]', problems, tags=True)

    match = rule.get("match", "any")
    if match not in MATCHES:
        problems.append(
            where + "match: %s is neither any (one condition is enough) nor all (each must hold); for example match: any" % _show(match)
        )
    keep, written = _keep(rule.get("keep"), where, floor, usage_known, problems)
    if len(problems) > before or keep is None:
        return None
    return Rule(number, repositories, include or (Glob("*"),), exclude, keep, str(match), written)


def _keep(
    given: object, where: str, floor: Optional[int], usage_known: bool, problems: List[str]
) -> Tuple[Optional[Keep], Mapping[str, str]]:
    example = "for example keep: {last: 10}, or {last: 0} to keep nothing but the floor"
    if given is None or given == {}:
        problems.append(where + "keep: it is missing, so the rule would delete everything; " + example)
        return None, {}
    if not isinstance(given, Mapping):
        problems.append(where + "keep: %s has no conditions; %s" % (_show(given), example))
        return None, {}
    _unknown(given, KEEP_KEYS, where, "keep.", problems)
    values = {}
    written = {}
    for key in NUMBER_KEYS:
        if given.get(key) is not None:
            example = "%skeep.%s: %s is no number of tags; for example %s: 10" % (where, key, _show(given[key]), key)
            values[key] = _number(given[key], example, problems)
            if values[key] == 0 and floor == 0:
                problems.append(
                    "%skeep.%s: 0 together with floor: 0 would leave nothing in a repository; set %s: 1 or more, or floor: 1"
                    % (where, key, key)
                )
    for key in DURATION_KEYS:
        if given.get(key) is None:
            continue
        text = given[key].strip() if isinstance(given[key], str) else ""
        seconds = parse_duration(text)
        if seconds is None:
            hint = "%s without a unit" % given[key] if _DIGITS.match(str(given[key])) else "%s, which is no duration" % _show(given[key])
            problems.append("%skeep.%s: it is %s; the units are w, d, h, m (minutes) and s, for example %s: 30d" % (where, key, hint, key))
        elif seconds == 0:
            problems.append("%skeep.%s: %s keeps nothing; for example %s: 30d" % (where, key, text, key))
        elif key == "pulled_within" and not usage_known:
            problems.append(
                "%skeep.pulled_within: usage is not given, so nobody knows what was pulled, and what is pulled every day would go; give the "
                "access logs, for example usage: [/var/log/wharf/access.log*], or leave pulled_within out" % where
            )
        values[key] = seconds
        written[key] = text
    return Keep(**values), written


def _number(value: object, problem: str, problems: List[str]) -> Optional[int]:
    """A number, or the text that a template has made of one."""
    if isinstance(value, bool) or not isinstance(value, (int, str)) or not _DIGITS.match(str(value).strip()):
        problems.append(problem)
        return None
    return int(value)


def _globs(value: object, where: str, example: str, problems: List[str], tags: bool = False) -> Tuple[Glob, ...]:
    if value is None:
        return ()
    key = where.rpartition(" ")[2]
    if not isinstance(value, (list, tuple)):
        problems.append("%s: %s is no list of patterns; for example %s: %s" % (where, _show(value), key, example))
        return ()
    found = []
    for entry in value:
        fault = ""
        if not isinstance(entry, str):
            fault = "is no text; put it in quotes"
        elif not entry or entry != entry.strip():
            fault = "is empty" if not entry.strip() else "has white space at an end"
        elif tags and re.search(r"[:/@]", entry):
            fault = "cannot be a tag, which has neither : nor / nor @"
        elif not tags and re.search(r"[:@]", entry):
            fault = "cannot be a repository; name neither registry nor tag (tags have their own place: tags.include)"
        elif not tags and (entry.startswith("/") or entry.endswith("/") or re.search(r"[A-Z]", entry)):
            fault = "cannot be a repository: its name neither begins nor ends with a slash, and has no capitals"
        else:
            try:
                found.append(Glob(entry))
            except ValueError as error:
                fault = "is no pattern: %s" % error
        if fault:
            problems.append("%s: %s %s; for example %s: %s" % (where, _show(entry), fault, key, example))
    return tuple(found)


def _unknown(given: Mapping[Any, Any], known: Sequence[str], where: str, prefix: str, problems: List[str]) -> None:
    for key in given:
        if key not in known:
            near = difflib.get_close_matches(str(key).lower(), known, n=1, cutoff=0.6)
            problems.append(
                "%s%s%s: there is no such key%s; the keys are %s"
                % (where, prefix, key, ", did you mean %s?" % near[0] if near else "", ", ".join(known))
            )


def _show(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
