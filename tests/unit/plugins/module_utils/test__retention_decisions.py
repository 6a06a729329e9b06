# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Rules of retention: what they decide, what is refused, and what must hold for any rules and tags."""

from __future__ import annotations

import random
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.wharf.registry.plugins.module_utils._durations import parse_duration
from ansible_collections.wharf.registry.plugins.module_utils._globs import Glob
from ansible_collections.wharf.registry.plugins.module_utils._retention.decisions import (
    DELETE,
    KEEP,
    Image,
    InUse,
    Planner,
    Tag,
    parse_in_use,
    reached,
    table,
)
from ansible_collections.wharf.registry.plugins.module_utils._retention.rules import (
    PolicyError,
    parse_policy,
    parse_version,
)
from ansible_collections.wharf.registry.plugins.module_utils._store.layout import described_by

NOW = 1_764_000_000.0
DAY = 86400.0


def digest(number: int) -> str:
    return f"sha256:{number:064x}"


def plan(rules, tags, *, repository="shop/web", protected=(), floor=1, images=None, **options):
    planner = Planner(parse_policy(rules, list(protected), floor), now=NOW, **options)
    return planner.plan(repository, tags, {tag.digest: Image() for tag in tags} if images is None else images)


def going(decided):
    return {each.tag for each in decided.decisions if each.decision == DELETE}


# ------------------------------------------------------------------------------------------------------------ patterns


@pytest.mark.parametrize(
    ("pattern", "good", "bad"),
    [
        ("shop/**", ["shop/web", "shop/a/b"], ["shop", "shops/web", "my/shop/web"]),
        ("shop/*", ["shop/web"], ["shop/a/b", "shop"]),
        ("**", ["a", "a/b/c"], []),
        ("**/web", ["web", "shop/web", "a/b/web"], ["shop/web2", "shopweb"]),
        ("a/**/z", ["a/z", "a/b/z", "a/b/c/z"], ["az", "a/bz"]),
        ("{shop,tools}/w?b", ["shop/web", "tools/wib"], ["shop/w/b", "other/web"]),
        ("v[0-9].*", ["v1.2", "v9."], ["vx.1", "v10.1"]),
        ("[!a]b", ["bb"], ["ab", "/b"]),
        ("a.b+c", ["a.b+c"], ["aXb+c", "a.bbc"]),
    ],
)
def test_patterns(pattern, good, bad):
    glob = Glob(pattern)
    assert [name for name in good if not glob.matches(name)] == []
    assert [name for name in bad if glob.matches(name)] == []


@pytest.mark.parametrize("pattern", ["a[b", "a{b", "a}b", "[z-a]"])
def test_patterns_that_are_none(pattern):
    with pytest.raises(ValueError):
        Glob(pattern)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("30d", 30 * 86400), ("12h", 43200), ("1w3d", 10 * 86400), ("90m", 5400), ("5s", 5), ("0s", 0)]
    + [(text, None) for text in ("", "30", "d", "3 d", "-1d", "1.5d", "1d1w", "30days", "1y", "P30D")],
)
def test_durations(text, seconds):
    assert parse_duration(text) == seconds


def test_versions_are_ordered_as_semver_says():
    ordered = [
        "1.0.0-alpha",
        "1.0.0-alpha.1",
        "1.0.0-alpha.beta",
        "1.0.0-beta",
        "1.0.0-beta.2",
        "1.0.0-beta.11",
        "1.0.0-rc.1",
        "v1.0.0",
        "1.2.0",
        "1.10.0",
    ]
    versions = [parse_version(text) for text in ordered]
    assert versions == sorted(versions) and len(set(versions)) == len(versions)
    assert parse_version("1.2.3_build5") == parse_version("v1.2.3")
    assert [text for text in ("1.2", "01.2.3", "1.2.3-01", "latest", "1.2.3.4", "1.2.3-") if parse_version(text)] == []


# --------------------------------------------------------------------------------------------------------- wrong input


GOOD = {"repositories": ["shop/**"], "keep": {"last": 1}}


@pytest.mark.parametrize(
    ("rules", "options", "words"),
    [
        ("all", {}, ["rules: 'all' is no list"]),
        ([], {}, ["rules: the list is empty"]),
        ([GOOD, 3], {}, ["rule 2: 3 is no rule"]),
        ([GOOD, {**GOOD, "kep": {}}], {}, ["rule 2: kep: there is no such key, did you mean keep?"]),
        ([{"keep": {"last": 1}}], {}, ["rule 1: repositories: it is missing"]),
        ([{**GOOD, "repositories": "shop/**"}], {}, ["rule 1: repositories: 'shop/**' is no list", 'repositories: ["shop/**"]']),
        ([{**GOOD, "repositories": ["Shop/x"]}], {}, ["rule 1: repositories: 'Shop/x' cannot be a repository", "no capitals"]),
        ([{**GOOD, "repositories": ["a[b"]}], {}, ["rule 1: repositories: 'a[b' is no pattern: the bracket"]),
        ([{**GOOD, "tags": ["a"]}], {}, ["rule 1: tags: ['a'] has neither include nor exclude"]),
        ([{**GOOD, "tags": {"includes": ["a"]}}], {}, ["rule 1: tags.includes: there is no such key, did you mean include?"]),
        ([{**GOOD, "tags": {"include": []}}], {}, ["rule 1: tags.include: the list is empty"]),
        ([{**GOOD, "tags": {"exclude": ["web:1"]}}], {}, ["rule 1: tags.exclude: 'web:1' cannot be a tag"]),
        ([{**GOOD, "tags": {"exclude": [1.5]}}], {}, ["rule 1: tags.exclude: 1.5 is no text; put it in quotes"]),
        ([{**GOOD, "match": "both"}], {}, ["rule 1: match: 'both' is neither any"]),
        ([{"repositories": ["a"]}], {}, ["rule 1: keep: it is missing, so the rule would delete everything"]),
        ([{**GOOD, "keep": {}}], {}, ["rule 1: keep: it is missing"]),
        ([{**GOOD, "keep": {"last": -1}}], {}, ["rule 1: keep.last: -1 is no number of tags; for example last: 10"]),
        ([{**GOOD, "keep": {"last": True}}], {}, ["rule 1: keep.last: True is no number"]),
        ([{**GOOD, "keep": {"last_semver": "many"}}], {}, ["rule 1: keep.last_semver: 'many' is no number"]),
        ([{**GOOD, "keep": {"pushed_within": 30}}], {}, ["rule 1: keep.pushed_within: it is 30 without a unit", "pushed_within: 30d"]),
        ([{**GOOD, "keep": {"pushed_within": "month"}}], {}, ["rule 1: keep.pushed_within: it is 'month', which is no duration"]),
        ([{**GOOD, "keep": {"pushed_within": "0d"}}], {}, ["rule 1: keep.pushed_within: 0d keeps nothing"]),
        ([{**GOOD, "keep": {"last": 0}}], {"floor": 0}, ["rule 1: keep.last: 0 together with floor: 0"]),
        ([{**GOOD, "keep": {"last_semver": 0}}], {"floor": 0}, ["rule 1: keep.last_semver: 0 together with floor: 0"]),
        ([{**GOOD, "keep": {"pulled_within": "1d"}}], {"usage_known": False}, ["rule 1: keep.pulled_within: usage is not given"]),
        ([GOOD], {"floor": "one"}, ["floor: 'one' is no number of tags"]),
        ([GOOD], {"protected": "latest"}, ["protected: 'latest' is no list"]),
        ([GOOD], {"protected": ["a/b"]}, ["protected: 'a/b' cannot be a tag"]),
    ],
)
def test_bad_rules_are_refused_by_number_and_key(rules, options, words):
    with pytest.raises(PolicyError) as caught:
        parse_policy(rules, **options)
    for word in words:
        assert word in str(caught.value)


def test_all_faults_are_reported_at_once():
    with pytest.raises(PolicyError) as caught:
        parse_policy([{"keep": {"lats": 1}}, {**GOOD, "match": 1}], floor=-1)
    assert len(caught.value.problems) == 4


def test_numbers_may_come_from_templates():
    assert parse_policy([{**GOOD, "keep": {"last": "10"}}], floor="2").rules[0].keep.last == 10


def test_patterns_that_match_nothing_are_named():
    rules = [
        {"repositories": ["shop/**", "shpo/**"], "tags": {"include": ["*", "release-*"], "exclude": ["lates"]}, "keep": {"last": 1}},
        {"repositories": ["none/**"], "tags": {"include": ["x"]}, "keep": {"last": 1}},
    ]
    planner = Planner(parse_policy(rules, ["stabel"]), now=NOW)
    planner.plan("shop/web", [Tag("1", digest(1), NOW)], {})
    assert planner.warnings() == [
        "protected: the pattern 'stabel' matches no tag",
        "rule 1: repositories: the pattern 'shpo/**' matches no repository",
        "rule 1: tags.exclude: the pattern 'lates' matches no tag of the rule's repositories",
        "rule 1: tags.include: the pattern 'release-*' matches no tag of the rule's repositories",
        "rule 2: repositories: the pattern 'none/**' matches no repository",
    ]


# ---------------------------------------------------------------------------------------------------------- decisions


def test_age_is_the_later_of_push_and_pull():
    tags = [Tag("old-but-pulled", digest(1), NOW - 300 * DAY), Tag("b", digest(2), NOW - 9 * DAY), Tag("c", digest(3), NOW - 10 * DAY)]
    pulls = {"old-but-pulled": NOW - DAY, "c": NOW - 400 * DAY}
    decided = plan([{"repositories": ["**"], "keep": {"last": 2}}], tags, pulls=lambda name: pulls)
    assert going(decided) == {"c"}
    decided = plan([{"repositories": ["**"], "keep": {"pushed_within": "20d"}}], tags, pulls=lambda name: pulls)
    assert going(decided) == {"old-but-pulled"}
    decided = plan([{"repositories": ["**"], "keep": {"pulled_within": "9d"}}], tags, pulls=lambda name: pulls)
    assert going(decided) == {"c"}, "a push counts like a pull"


def test_a_pull_of_a_child_by_digest_is_a_pull_of_the_index():
    tags = [Tag("multi", digest(1), NOW - 90 * DAY), Tag("other", digest(9), NOW)]
    images = {digest(1): Image((digest(2),)), digest(2): Image(), digest(9): Image()}
    rules = [{"repositories": ["**"], "keep": {"pulled_within": "9d"}}]
    assert going(plan(rules, tags, images=images)) == {"multi"}
    assert going(plan(rules, tags, images=images, pulls=lambda name: {digest(2): NOW - DAY})) == set()


@pytest.mark.parametrize(
    ("entry", "kept"),
    [
        (digest(1), {"index", "same"}),
        (digest(2), {"index", "same"}),  # a child
        (digest(5), {"index", "same"}),  # a child's configuration: what docker calls the image's ID
        ("registry.example.com:5000/shop/web:plain", {"plain"}),
        ("shop/web:plain", {"plain"}),
        ("docker://mirror.example/shop/web:plain", {"plain"}),
        (f"registry.example.com/shop/web@{digest(3)}", {"plain"}),
        (f"registry.example.com/shop/web:index@{digest(3)}", {"plain", "index"}),
        ("registry.example.com/shop/web", {"latest"}),
        ("registry.example.com/other/web:plain", set()),
    ],
)
def test_what_is_in_use_stays(entry, kept):
    tags = [Tag(name, digest(number), NOW - 90 * DAY) for name, number in (("index", 1), ("same", 1), ("plain", 3), ("latest", 4))]
    tags.append(Tag("young", digest(9), NOW))
    images = {digest(1): Image((digest(2),)), digest(2): Image((), digest(5)), digest(3): Image(), digest(4): Image(), digest(9): Image()}
    in_use, warnings = parse_in_use([entry])
    decided = plan([{"repositories": ["**"], "keep": {"last": 1}}], tags, images=images, in_use=in_use)
    assert warnings == []
    assert {each.tag for each in decided.decisions if each.decision == KEEP} == kept | {"young"}


def test_what_is_no_reference_is_named():
    assert parse_in_use([" ", "shop/web@sha256:12", "a b"])[0] == InUse()
    assert len(parse_in_use([" ", "shop/web@sha256:12", "a b"])[1]) == 2


def test_a_broken_tag_stays_and_no_manifest_goes():
    tags = [Tag("broken", "", NOW - 9 * DAY), Tag("old", digest(1), NOW - 9 * DAY), Tag("new", digest(2), NOW)]
    decided = plan([{"repositories": ["**"], "keep": {"last": 1}}], tags)
    assert going(decided) == {"old"} and decided.manifests == [] and "cannot be read" in decided.problem


def test_children_that_a_kept_index_needs_stay():
    tags = [Tag("old", digest(1), NOW - 9 * DAY), Tag("new", digest(2), NOW)]
    images = {
        digest(1): Image((digest(10), digest(11))),
        digest(2): Image((digest(11), digest(12))),
        **{digest(n): Image() for n in (10, 11, 12)},
    }
    decided = plan([{"repositories": ["**"], "keep": {"last": 1}}], tags, images=images)
    assert decided.manifests == [digest(1), digest(10)]


def test_untagged_manifests_are_left_alone_and_keep_what_they_need():
    tags = [Tag("old", digest(1), NOW - 9 * DAY), Tag("new", digest(2), NOW)]
    images = {digest(1): Image(), digest(2): Image(), digest(3): Image((digest(1),))}
    assert plan([{"repositories": ["**"], "keep": {"last": 1}}], tags, images=images).manifests == []


def test_an_unreadable_manifest_that_stays_keeps_all():
    tags = [Tag("old", digest(1), NOW - 9 * DAY), Tag("new", digest(2), NOW)]
    policy = parse_policy([{"repositories": ["**"], "keep": {"last": 1}}])
    decided = Planner(policy, now=NOW).plan("a", tags, {digest(1): Image()}, [digest(1), digest(2)])
    assert going(decided) == {"old"} and decided.manifests == [] and digest(2) in decided.problem


def test_artifacts_die_with_their_subject():
    signature = digest(1).replace(":", "-") + ".sig"
    of_signature = digest(5).replace(":", "-")
    tags = [Tag("old", digest(1), NOW - 9 * DAY), Tag("new", digest(2), NOW), Tag(signature, digest(5), 0), Tag(of_signature, digest(6), 0)]
    images = {digest(n): Image() for n in (1, 2, 5, 6)}
    images[digest(7)] = Image((), "", digest(1))
    images[digest(8)] = Image((), "", digest(2))
    decided = plan([{"repositories": ["**"], "keep": {"last": 1}}], tags, images=images)
    assert going(decided) == {"old", signature, of_signature}
    assert decided.manifests == [digest(n) for n in (1, 5, 6, 7)]


def test_a_tag_that_holds_the_manifest_it_names_is_an_ordinary_one():
    held = digest(1).replace(":", "-") + ".imgpkg"
    tags = [Tag("old", digest(1), NOW - 9 * DAY), Tag("new", digest(2), NOW), Tag(held, digest(1), NOW - 9 * DAY)]
    decided = plan([{"repositories": ["**"], "tags": {"include": ["old", "new"]}, "keep": {"last": 1}}], tags)
    assert (going(decided), decided.manifests) == ({"old"}, [])


def test_a_run_that_was_killed_is_finished():
    """The tags of a manifest are gone already: the journal says that it was to go."""
    images = {digest(1): Image((digest(3),)), digest(2): Image(), digest(3): Image()}
    planner = Planner(parse_policy([{"repositories": ["**"], "keep": {"last": 1}}]), now=NOW)
    assert planner.plan("a", [Tag("new", digest(2), NOW)], images).manifests == []
    assert planner.plan("a", [Tag("new", digest(2), NOW)], images, condemned=[digest(1)]).manifests == [digest(1), digest(3)]
    assert planner.plan("a", [Tag("new", digest(1), NOW)], images, condemned=[digest(1)]).manifests == []


def test_table_lists_what_goes_first():
    tags = [Tag("1", digest(1), NOW - 9 * DAY), Tag("2", digest(2), NOW)]
    decided = plan([{"repositories": ["**"], "keep": {"last": 1}}], tags)
    lines = table(decided.decisions, NOW).splitlines()
    assert lines[0] == "shop/web: 1 to delete, 1 to keep"
    assert lines[2].split()[:5] == ["delete", "1", "sha256:000000000000", "9d", "-"]
    assert lines[3].split()[0] == "keep"
    assert len(table(decided.decisions, NOW, keep=False).splitlines()) == 3


# ---------------------------------------------------------------------------------------------------------- properties

TAGS = st.lists(
    st.tuples(
        st.sampled_from(
            [
                "latest",
                "stable",
                "v1",
                "build-7",
                *(f"{a}.{b}.{c}" for a in (0, 1) for b in (2, 10) for c in (0, 3)),
                "1.2.3-rc.1",
                "v1.2.3",
            ]
        )
        | st.integers(0, 5).map(lambda number: digest(number).replace(":", "-") + ".sig"),
        st.integers(0, 9),
        st.integers(0, 60),
    ),
    max_size=12,
    unique_by=lambda each: each[0],
).map(lambda found: [Tag(name, digest(number), NOW - days * DAY) for name, number, days in found])
KEEPS = st.fixed_dictionaries(
    {},
    optional={
        "last": st.integers(0, 4),
        "last_semver": st.integers(0, 3),
        "pushed_within": st.integers(1, 50).map(lambda days: f"{days}d"),
        "pulled_within": st.integers(1, 50).map(lambda days: f"{days}d"),
    },
).filter(bool)
RULE = st.fixed_dictionaries(
    {"repositories": st.sampled_from([["**"], ["shop/*"], ["other"]]), "keep": KEEPS},
    optional={
        "tags": st.fixed_dictionaries(
            {},
            optional={"include": st.sampled_from([["*"], ["v*", "1.*"], ["build-*"]]), "exclude": st.sampled_from([["latest"], ["1.*"]])},
        ),
        "match": st.sampled_from(["any", "all"]),
    },
)
RULES = st.lists(RULE, min_size=1, max_size=4)
IMAGES = st.dictionaries(
    st.integers(0, 12),
    st.tuples(st.lists(st.integers(0, 12), max_size=3), st.one_of(st.none(), st.integers(0, 12))),
    max_size=13,
).map(
    lambda found: {
        digest(n): Image(tuple(map(digest, children)), "", "" if subject is None else digest(subject))
        for n, (children, subject) in found.items()
    }
)
PULLS = st.dictionaries(
    st.integers(0, 9).map(digest) | st.sampled_from(["latest", "v1"]), st.integers(0, 60).map(lambda days: NOW - days * DAY), max_size=6
)


def ordinary(decided, decision):
    return {each.tag for each in decided.decisions if each.decision == decision and not described_by(each.tag, each.digest)}


@given(TAGS, RULES, IMAGES, PULLS, st.integers(1, 3), st.randoms())
def test_the_order_of_tags_and_rules_does_not_matter(tags, rules, images, pulls, floor, chance: random.Random):
    first = plan(rules, tags, floor=floor, images=images, pulls=lambda name: pulls)
    tags, rules = list(tags), list(rules)
    chance.shuffle(tags)
    chance.shuffle(rules)
    second = plan(rules, tags, floor=floor, images=images, pulls=lambda name: pulls)
    assert [(each.tag, each.decision) for each in first.decisions] == [(each.tag, each.decision) for each in second.decisions]
    assert first.manifests == second.manifests


@given(TAGS, RULES, RULE, IMAGES, PULLS)
def test_one_more_rule_deletes_nothing_that_a_rule_keeps(tags, rules, more, images, pulls):
    before = plan(rules, tags, images=images, pulls=lambda name: pulls)
    after = plan([*rules, more], tags, images=images, pulls=lambda name: pulls)
    kept = {each.tag for each in before.decisions if each.rule is not None and each.decision == KEEP}
    assert kept & going(after) == set()


@given(TAGS, RULES, IMAGES, st.integers(0, 5))
def test_the_floor_holds_and_no_more_than_it(tags, rules, images, floor):
    if floor == 0:
        rules = [{**rule, "keep": {name: value or 1 for name, value in rule["keep"].items()}} for rule in rules]
    decided = plan(rules, tags, floor=floor, images=images)
    many = sum(1 for tag in tags if not described_by(tag.name, tag.digest))
    assert len(ordinary(decided, KEEP)) >= min(floor, many)
    if any("floor" in each.reason for each in decided.decisions):
        assert len(ordinary(decided, KEEP)) == min(floor, many)


@given(TAGS, RULES, IMAGES, st.sets(st.integers(0, 12).map(digest), max_size=2), st.sampled_from([[], ["v*"], ["latest", "stable"]]))
def test_nothing_that_stays_loses_what_it_needs(tags, rules, images, used, protected):
    decided = plan(rules, tags, images=images, protected=protected, in_use=InUse(frozenset(used)))
    staying = [tag for tag in tags if tag.name not in going(decided)]
    # What stays: tags, and manifests that are not removed.
    roots = {tag.digest for tag in staying} | (set(images) - set(decided.manifests))
    assert reached(roots, images, staying) & set(decided.manifests) == set()
    assert {each.tag for each in decided.decisions} == {tag.name for tag in tags}
    for each in decided.decisions:
        assert each.reason
        if each.decision == DELETE and not described_by(each.tag, each.digest):
            assert each.rule is not None
            assert not any(Glob(pattern).matches(each.tag) for pattern in protected) and each.digest not in used


@given(TAGS, RULES, IMAGES)
def test_a_second_run_has_nothing_to_do(tags, rules, images):
    first = plan(rules, tags, images=images)
    left = [tag for tag in tags if tag.name not in going(first)]
    fallbacks = {tag.name for tag in tags if described_by(tag.name, tag.digest)}
    second = plan(rules, left, images={name: image for name, image in images.items() if name not in first.manifests})
    # What the floor or the number of tags keeps stays so; conditions go by what is there.
    assert {tag for tag in going(second) if tag not in fallbacks} == set()


def test_a_hundred_thousand_tags_are_planned_quickly():
    tags = [Tag(f"1.{n // 1000}.{n % 1000}", digest(n), NOW - n * 600) for n in range(100_000)]
    rules = [{"repositories": ["**"], "keep": {"last": 10, "last_semver": 5, "pushed_within": "30d", "pulled_within": "14d"}}]
    images = {tag.digest: Image() for tag in tags}
    started = time.process_time()
    decided = plan(rules, tags, images=images)
    assert len(going(decided)) == 100_000 - 4321 - 5, "those of the last 30 days and the five highest versions"
    assert time.process_time() - started < 20, "it takes about 3 s; far more would mean that it is no longer linear"
