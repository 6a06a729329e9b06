# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The worked examples of docs/retention.md come true, word for word."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml

from ansible_collections.wharf.registry.plugins.module_utils import _durations
from ansible_collections.wharf.registry.plugins.module_utils._retention.decisions import Image, Planner, Tag, parse_in_use
from ansible_collections.wharf.registry.plugins.module_utils._retention.rules import parse_policy

NOW = 1_764_000_000.0
DOCUMENT = Path(__file__).resolve().parents[4] / "docs/retention.md"
HEAD = "| tag | image | pushed | pulled | | why |"


class Row(NamedTuple):
    repository: str
    tag: str
    digest: str
    pushed: float
    pulled: float | None
    verdict: str
    why: str


def seconds(text: str) -> float:
    found = _durations.parse_duration(text)
    assert found is not None, text
    return NOW - found


def rows(text: str) -> list[Row]:
    found = []
    for line in text[text.index(HEAD) :].splitlines()[2:]:
        if not line.startswith("|"):
            break
        name, image, pushed, pulled, verdict, why = (cell.strip() for cell in line.strip("|").split("|"))
        repository, _colon, tag = name.strip("`").partition(":")
        tag = re.sub(r"-(\w)\1{3}…", lambda match: "-" + match[1] * 64, tag)
        found.append(Row(repository, tag, "sha256:" + image * 64, seconds(pushed), seconds(pulled) if pulled else None, verdict, why))
    return found


EXAMPLES = [part for part in re.split(r"^### ", DOCUMENT.read_text(encoding="utf-8"), flags=re.M)[1:] if HEAD in part]


def test_there_are_examples():
    assert len(EXAMPLES) >= 8


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda text: text.splitlines()[0])
def test_example(example):
    options = yaml.safe_load(re.search(r"```yaml\n(.*?)```", example, re.S)[1])
    table = rows(example)
    in_use, warnings = parse_in_use(options.pop("in_use", []))
    assert not warnings
    pulls: dict[str, dict[str, float]] = {}
    for row in table:
        if row.pulled is not None:
            pulls.setdefault(row.repository, {})[row.tag] = row.pulled
    planner = Planner(parse_policy(**options), in_use=in_use, pulls=lambda name: pulls.get(name, {}), now=NOW)
    decisions = {}
    for repository in {row.repository for row in table}:
        tags = [Tag(row.tag, row.digest, row.pushed) for row in table if row.repository == repository]
        for decision in planner.plan(repository, tags, {tag.digest: Image() for tag in tags}).decisions:
            decisions[(decision.repository, decision.tag)] = decision
    for row in table:
        decision = decisions[(row.repository, row.tag)]
        assert decision.decision == {"stays": "keep", "goes": "delete"}[row.verdict], row
        prefix = "" if decision.rule is None or decision.reason.startswith("rule ") else f"rule {decision.rule}: "
        assert re.sub(r"(\w)\1{63}", r"\1\1\1\1…", prefix + decision.reason) == row.why, row


def test_the_block_that_shows_every_key_is_accepted():
    text = DOCUMENT.read_text(encoding="utf-8")
    options = yaml.safe_load(re.search(r"## Rules\n\n```yaml\n(.*?)```", text, re.S)[1])
    assert len(parse_policy(**options).rules) == 1
