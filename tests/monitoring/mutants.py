# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Rules with one small fault each: what the cases of the alerts have to notice."""

from __future__ import annotations

import copy
import re
from typing import Callable, Iterator, NamedTuple

from ruletests import Rule

# In an expression, what is inside of braces or quotes is a matcher; a number in brackets is a window.
TOKEN = re.compile(
    r"""(?P<matcher>\{[^}]*\})|\[(?P<window>\d+[smhd])\]|(?P<comparator>[<>]=?|==|!=)|(?P<number>(?<![\w:.])\d+(?:\.\d+)?(?![\w:.]))"""
    r"""|(?P<labels>\b(?:by|on)\s*\([^)]*\))"""
)
MATCHER = re.compile(r'(\w+)(=~|!~|!=|=)("[^"]*")')
COMPARATORS = {">": ("<", ">="), "<": (">", "<="), "==": ("!=",), "!=": ("==",)}
OPPOSITE = {"=": "!=", "!=": "=", "=~": "!~", "!~": "=~"}
SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


class Mutant(NamedTuple):
    """A rule's place in the list, its faulty form, and what is wrong with it."""

    number: int
    rule: Rule
    fault: str


def _times(duration: str, factor: float) -> str:
    return f"{round(int(duration[:-1]) * SECONDS[duration[-1]] * factor)}s"


def _matchers(text: str) -> Iterator[str]:
    found = list(MATCHER.finditer(text))
    for match in found:
        label, operator, value = match.groups()
        yield text[: match.start()] + label + OPPOSITE[operator] + value + text[match.end() :]
        others = [other.group() for other in found if other is not match]
        yield "{" + ",".join(others) + "}"


def _replacements(match: re.Match[str]) -> Iterator[str]:
    if match["matcher"]:
        yield from _matchers(match["matcher"])
    elif match["window"]:
        yield from (f"[{_times(match['window'], factor)}]" for factor in (3, 1 / 3))
    elif match["comparator"]:
        yield from COMPARATORS[match["comparator"]]
    elif match["number"]:
        value = float(match["number"])
        # What is counted in ones is off by one.
        yield from (repr(value + step) for step in (1, -1)) if value in (0, 1) else (repr(value * factor) for factor in (1.2, 0.8))
    elif match["labels"]:
        head, names = match["labels"].split("(")
        labels = [name.strip() for name in names.rstrip(")").split(",")]
        for label in labels:
            yield f"{head}({', '.join(other for other in labels if other != label)})"


def mutants(rules: list[Rule]) -> list[Mutant]:
    """Every mutant of every rule: comparators, thresholds and other numbers, windows, label matchers, grouping, waiting times."""
    found = []
    for number, rule in enumerate(rules):

        def add(change: Callable[[Rule], None], fault: str, number: int = number, rule: Rule = rule) -> None:
            faulty = copy.deepcopy(rule)
            change(faulty)
            found.append(Mutant(number, faulty, f"{rule.get('alert') or rule['record']}: {fault}"))

        expression = rule["expr"]
        for match in TOKEN.finditer(expression):
            for text in _replacements(match):
                changed = expression[: match.start()] + text + expression[match.end() :]
                add(lambda faulty, changed=changed: faulty.update(expr=changed), f"{match.group()} at {match.start()} → {text}")
        for factor in (3, 1 / 3) if "for" in rule else ():
            waiting = _times(rule["for"], factor)
            add(lambda faulty, waiting=waiting: faulty.update({"for": waiting}), f"for {rule['for']} → {waiting}")
        if "record" in rule:
            other = {"read": "write", "write": "read"}[rule["labels"]["operation"]]
            add(lambda faulty, other=other: faulty.update(labels={"operation": other}), f"labelled as {other}")
    return found
