# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which tags stay, and why: pure decisions, without input or output.

Private to the collection. ``plan_repository`` decides about one repository; ``Planner`` goes through all of them and says what no tag
matched. The rules come from ``rules``, pulls from ``usage``; ``deletion`` does what was decided.

The semantics, in the order in which they are asked:

1. A tag whose link cannot be read stays.
2. A fallback tag (``sha256-<hex>``, with ``.sig``, ``.att``, ``.sbom`` or another ending) lives and dies with the manifest that it names.
   No rule looks at it, and it does not count for ``floor``. One that points to the very manifest that it names is an ordinary tag.
3. A tag that is protected or in use stays.
4. A tag that no rule looks at stays. Of those that look at it one that keeps it is enough.
5. If fewer than ``floor`` tags of the repository would stay, the youngest of the others stay too.

The *age* of a tag is the time since its push or its last pull, whichever is later. ``last`` goes by age, ``pulled_within`` too (a push
counts like a pull, so a fresh image that nobody has pulled yet is safe), ``pushed_within`` by the push alone.
"""

from __future__ import annotations

import re
import time
from typing import Any, Callable, Dict, FrozenSet, Iterable, List, Mapping, NamedTuple, Optional, Pattern, Sequence, Set, Tuple

from .._globs import Glob, any_of
from .._store.layout import described_by
from .rules import Policy, Rule, Version, parse_version

KEEP = "keep"
DELETE = "delete"

_DIGITS = re.compile(r"(\d+)")
_DIGEST = re.compile(r"^[a-z0-9]+(?:[+._-][a-z0-9]+)*:[0-9a-f]{32,}$")


class Tag(NamedTuple):
    """A tag as the storage has it. ``digest`` is empty if its link cannot be read; ``pushed`` is the link's time."""

    name: str
    digest: str
    pushed: float


class Image(NamedTuple):
    """What decisions need of a manifest: digests of child manifests, of its config, and of what it describes (empty: none)."""

    children: Tuple[str, ...] = ()
    config: str = ""
    subject: str = ""


class Decision(NamedTuple):
    """What becomes of a tag. ``rule`` is the number of the rule that decided, None where none did."""

    repository: str
    tag: str
    digest: str
    decision: str
    rule: Optional[int]
    reason: str
    pushed: float = 0.0
    pulled: Optional[float] = None

    def as_dict(self) -> Dict[str, Any]:
        """Return the decision as it is reported."""
        return {
            "repository": self.repository,
            "tag": self.tag,
            "digest": self.digest,
            "decision": self.decision,
            "rule": self.rule,
            "reason": self.reason,
            "pushed": utc(self.pushed) if self.pushed else None,
            "pulled": None if self.pulled is None else utc(self.pulled),
        }


class InUse(NamedTuple):
    """What running hosts report: digests, and tags of repositories."""

    digests: FrozenSet[str] = frozenset()
    tags: FrozenSet[Tuple[str, str]] = frozenset()


NOTHING_IN_USE = InUse()

#: The last pulls of one repository: tag or digest -> time.
Pulls = Mapping[str, float]
NO_PULLS: Pulls = {}


def utc(seconds: float) -> str:
    """Return a time as text, in UTC."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def natural(name: str) -> List[Any]:
    """Return what orders names like people do: ``b2`` before ``b10``."""
    return [int(part) if index % 2 else part for index, part in enumerate(_DIGITS.split(name))]


def parse_in_use(entries: Iterable[object]) -> Tuple[InUse, List[str]]:
    """Read what hosts report as in use.

    :param entries: digests, and references such as ``registry.example.com/shop/web:1.2`` or ``shop/web@sha256:…``. A reference counts
        whatever registry it names: an image that was pulled through a mirror or another name is in use all the same.
    :returns: what was read, and one warning for each entry that is neither.
    """
    digests: Set[str] = set()
    tags: Set[Tuple[str, str]] = set()
    warnings = []
    for entry in entries:
        text = str(entry).strip()
        text = text.partition("://")[2] or text
        if _DIGEST.match(text):
            digests.add(text)
            continue
        name, _at, digest = text.partition("@")
        if digest and _DIGEST.match(digest):
            digests.add(digest)
        folder, slash, last = name.rpartition("/")
        last, colon, tag = last.partition(":")
        if not last or (_at and not _DIGEST.match(digest)) or re.search(r"\s", text) or (colon and not tag):
            if text:
                warnings.append(
                    "in_use: %r is neither a digest nor a reference; for example registry.example.com/shop/web:1.2" % text[:100]
                )
            continue
        if not digest or colon:
            path = folder + slash + last
            tags.add((path, tag or "latest"))
            host, _slash, rest = path.partition("/")
            if rest and ("." in host or ":" in host or host == "localhost"):
                tags.add((rest, tag or "latest"))
    return InUse(frozenset(digests), frozenset(tags)), warnings


class _Looked:
    """What one rule says about the tags that it looks at: which it keeps, with the words for both."""

    def __init__(self, rule: Rule, tags: Sequence[Tag], ages: Mapping[str, float], pulled: Mapping[str, float], now: float) -> None:
        self.rule = rule
        self._ages = ages
        self._pulled = pulled
        self._now = now
        self._total = len(tags)
        keep = rule.keep
        self._place: Dict[str, int] = {}
        if keep.last is not None:
            ranked = sorted(tags, key=lambda tag: (ages[tag.name], natural(tag.name)), reverse=True)
            self._place = {tag.name: place for place, tag in enumerate(ranked, 1)}
        self._rank: Dict[str, int] = {}
        if keep.last_semver is not None:
            versions: Dict[Version, List[str]] = {}
            for tag in tags:
                version = parse_version(tag.name)
                if version is not None:
                    versions.setdefault(version, []).append(tag.name)
            # Tags that write the same version differently (1.2.3, v1.2.3) have one place together.
            for place, version in enumerate(sorted(versions, reverse=True), 1):
                for name in versions[version]:
                    self._rank[name] = place
        self._asked = keep.asked()

    def judge(self, tag: Tag) -> Tuple[bool, str]:
        """Return whether the rule keeps the tag, and why or why not."""
        good: List[str] = []
        bad: List[str] = []
        for name in self._asked:
            holds, words = getattr(self, "_" + name)(tag)
            (good if holds else bad).append(words)
        if self.rule.match == "all":
            return (True, "; ".join(good)) if not bad else (False, "; ".join(bad))
        return (True, good[0]) if good else (False, "; ".join(bad))

    def _last(self, tag: Tag) -> Tuple[bool, str]:
        place, last = self._place[tag.name], self.rule.keep.last or 0
        if place <= last:
            return True, "number %d of the last %d" % (place, last)
        return False, "number %d of %d, not among the last %d" % (place, self._total, last)

    def _last_semver(self, tag: Tag) -> Tuple[bool, str]:
        rank, last = self._rank.get(tag.name), self.rule.keep.last_semver or 0
        if rank is None:
            return False, "no semantic version"
        if rank <= last:
            return True, "number %d of the %d highest versions" % (rank, last)
        return False, "version number %d from the top, not among the %d highest" % (rank, last)

    def _pushed_within(self, tag: Tag) -> Tuple[bool, str]:
        within = self.rule.keep.pushed_within or 0
        holds = tag.pushed >= self._now - within
        return holds, "pushed %s ago, %swithin %s" % (
            ago(self._now - tag.pushed),
            "" if holds else "not ",
            self.rule.written["pushed_within"],
        )

    def _pulled_within(self, tag: Tag) -> Tuple[bool, str]:
        within = self.rule.keep.pulled_within or 0
        holds = self._ages[tag.name] >= self._now - within
        pulled = self._pulled.get(tag.name)
        if pulled is not None and pulled >= tag.pushed:
            words = "pulled %s ago" % ago(self._now - pulled)
        else:
            words = "not pulled since its push %s ago" % ago(self._now - tag.pushed)
        return holds, "%s, %swithin %s" % (words, "" if holds else "not ", self.rule.written["pulled_within"])


def ago(seconds: float) -> str:
    """Return a time span in the largest unit that it fills: ``40d``, ``3h``."""
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= length:
            return "%d%s" % (seconds // length, unit)
    return "%ds" % max(seconds, 0)


class Plan(NamedTuple):
    """What is decided about one repository. ``manifests`` are the digests that nothing needs once its tags are gone."""

    repository: str
    decisions: List[Decision]
    manifests: List[str]
    problem: str = ""


class Planner:
    """Decides about one repository after the other, and remembers which patterns have matched something.

    :param policy: the rules.
    :param in_use: what running hosts report.
    :param pulls: gives the last pulls of a repository.
    :param now: seconds since 1970.
    """

    def __init__(
        self,
        policy: Policy,
        *,
        in_use: InUse = NOTHING_IN_USE,
        pulls: Optional[Callable[[str], Pulls]] = None,
        now: Optional[float] = None,
    ) -> None:
        self._policy = policy
        self._in_use = in_use
        self._pulls = pulls or (lambda repository: NO_PULLS)
        self._now = time.time() if now is None else now
        self._protected = any_of(policy.protected)
        self._include: List[Pattern[str]] = [any_of(rule.include) for rule in policy.rules]
        self._exclude: List[Pattern[str]] = [any_of(rule.exclude) for rule in policy.rules]
        # Patterns that have not matched yet, each with where it stands.
        self._unused: Dict[Tuple[int, str], List[Glob]] = {(0, "protected"): list(policy.protected)}
        for rule in policy.rules:
            self._unused[(rule.number, "repositories")] = list(rule.repositories)
            self._unused[(rule.number, "tags.include")] = list(rule.include)
            self._unused[(rule.number, "tags.exclude")] = list(rule.exclude)

    def warnings(self) -> List[str]:
        """Return one sentence for each pattern that has matched nothing in all repositories so far."""
        found = []
        for (number, key), globs in sorted(self._unused.items()):
            lost = number and len(self._unused[(number, "repositories")]) == len(self._policy.rules[number - 1].repositories)
            for glob in globs:
                if key == "repositories":
                    found.append("rule %d: repositories: the pattern %r matches no repository" % (number, glob.text))
                elif key == "protected":
                    found.append("protected: the pattern %r matches no tag" % glob.text)
                elif not lost:
                    found.append("rule %d: %s: the pattern %r matches no tag of the rule's repositories" % (number, key, glob.text))
        return found

    def _mark_used(self, number: int, key: str, names: Sequence[str]) -> None:
        globs = self._unused[(number, key)]
        if globs:
            self._unused[(number, key)] = [glob for glob in globs if not any(map(glob.matches, names))]

    def plan(
        self,
        repository: str,
        tags: Sequence[Tag],
        images: Optional[Mapping[str, Image]] = None,
        revisions: Optional[Iterable[str]] = None,
        condemned: Iterable[str] = (),
        unsure: str = "",
    ) -> Plan:
        """Decide about the tags of one repository. Its tags may come in any order, and each name once.

        :param images: the manifests of the repository that could be read, by digest.
        :param revisions: all manifests that the repository links, also those that could not be read. None: those of ``images``.
        :param condemned: manifests whose tags an earlier run has deleted before it was stopped: they go too, unless something needs them now.
        :param unsure: why the repository could not be listed whole; then its tags may go, but no manifest.
        """
        images = {} if images is None else images
        revisions = set(images if revisions is None else revisions)
        pulls = self._pulls(repository)
        pulled = _pulled(tags, images, pulls) if pulls else {}
        ages = {tag.name: max(tag.pushed, pulled.get(tag.name, tag.pushed)) for tag in tags}
        used = _holders(images, self._in_use.digests) if self._in_use.digests else frozenset()

        ordinary = [tag for tag in tags if not described_by(tag.name, tag.digest)]
        names = [tag.name for tag in ordinary]
        self._mark_used(0, "protected", names)
        looked: List[Tuple[_Looked, FrozenSet[str]]] = []
        for index, rule in enumerate(self._policy.rules):
            if not any(glob.matches(repository) for glob in rule.repositories):
                continue
            self._mark_used(rule.number, "repositories", [repository])
            self._mark_used(rule.number, "tags.include", names)
            self._mark_used(rule.number, "tags.exclude", names)
            include, exclude = self._include[index].match, self._exclude[index].match
            chosen = [tag for tag in ordinary if tag.digest and include(tag.name) and not exclude(tag.name)]
            looked.append((_Looked(rule, chosen, ages, pulled, self._now), frozenset(tag.name for tag in chosen)))

        verdicts: Dict[str, Tuple[str, Optional[int], str]] = {tag.name: self._judge(repository, tag, looked, used) for tag in ordinary}
        self._hold_floor(ordinary, verdicts, ages)

        kept = {tag.digest for tag in ordinary if verdicts[tag.name][0] == KEEP and tag.digest}
        deleted = {tag.digest for tag in ordinary if verdicts[tag.name][0] == DELETE} | revisions.intersection(condemned)
        fallbacks = [tag for tag in tags if described_by(tag.name, tag.digest)]
        if not unsure and not all(tag.digest for tag in tags):
            unsure = "a tag cannot be read, so what it needs is not known"
        gone, problem = (set(), unsure) if unsure else _needless(images, revisions, kept, deleted, fallbacks)
        problem = problem if deleted - kept else ""
        for tag in fallbacks:
            subject = described_by(tag.name, tag.digest)
            if not tag.digest:
                verdicts[tag.name] = (KEEP, None, "its link cannot be read")
            elif subject in gone:
                verdicts[tag.name] = (DELETE, None, "belongs to %s, which goes" % subject)
            elif subject in revisions:
                verdicts[tag.name] = (KEEP, None, "belongs to %s, which stays" % subject)
            else:
                verdicts[tag.name] = (KEEP, None, "belongs to %s, which is not in this repository" % subject)
        decisions = [
            Decision(repository, tag.name, tag.digest, *verdicts[tag.name], tag.pushed, pulled.get(tag.name))
            for tag in sorted(tags, key=lambda tag: natural(tag.name))
        ]
        return Plan(repository, decisions, sorted(gone & revisions), problem)

    def _judge(
        self, repository: str, tag: Tag, looked: Sequence[Tuple[_Looked, FrozenSet[str]]], used: FrozenSet[str]
    ) -> Tuple[str, Optional[int], str]:
        if not tag.digest:
            return KEEP, None, "its link cannot be read"
        if self._protected.match(tag.name):
            return KEEP, None, "protected"
        if tag.digest in used or tag.digest in self._in_use.digests or (repository, tag.name) in self._in_use.tags:
            return KEEP, None, "in use by a running host"
        against = []
        first = None
        for judge, names in looked:
            if tag.name not in names:
                continue
            kept, words = judge.judge(tag)
            if kept:
                return KEEP, judge.rule.number, words
            first = first or judge.rule.number
            against.append((judge.rule.number, words))
        if first is None:
            return KEEP, None, "no rule looks at it"
        if len(against) == 1:
            return DELETE, first, against[0][1]
        return DELETE, first, " / ".join("rule %d: %s" % each for each in against)

    def _hold_floor(self, tags: Sequence[Tag], verdicts: Dict[str, Tuple[str, Optional[int], str]], ages: Mapping[str, float]) -> None:
        floor = self._policy.floor
        missing = floor - sum(1 for tag in tags if verdicts[tag.name][0] == KEEP)
        if missing <= 0:
            return
        going = [tag for tag in tags if verdicts[tag.name][0] == DELETE]
        for tag in sorted(going, key=lambda tag: (ages[tag.name], natural(tag.name)), reverse=True)[:missing]:
            verdicts[tag.name] = (KEEP, None, "floor: %d %s in each repository" % (floor, "tag stays" if floor == 1 else "tags stay"))


def _pulled(tags: Sequence[Tag], images: Mapping[str, Image], pulls: Pulls) -> Dict[str, float]:
    """Return the last pull of each tag that was pulled: by its name, by its digest, or by that of a child (whoever has the index asks for it)."""
    parents = _parents(images)
    times: Dict[str, float] = {}
    # The latest pull first, so that what it reaches is settled.
    for reference, when in sorted(pulls.items(), key=lambda pull: pull[1], reverse=True):
        ahead = [reference]
        while ahead:
            digest = ahead.pop()
            if digest not in times:
                times[digest] = when
                ahead.extend(parents.get(digest, ()))
    found = {}
    for tag in tags:
        latest = max(pulls.get(tag.name, 0.0), times.get(tag.digest, 0.0))
        if latest:
            found[tag.name] = latest
    return found


def _parents(images: Mapping[str, Image]) -> Dict[str, List[str]]:
    """Return by digest the manifests that have it as a child."""
    parents: Dict[str, List[str]] = {}
    for digest, image in images.items():
        for child in image.children:
            parents.setdefault(child, []).append(digest)
    return parents


def _holders(images: Mapping[str, Image], digests: FrozenSet[str]) -> FrozenSet[str]:
    """Return the manifests that are one of ``digests``, have it as config, or lead to such a manifest."""
    parents = _parents(images)
    found = {digest for digest, image in images.items() if digest in digests or image.config in digests}
    ahead = list(found | digests)
    while ahead:
        for parent in parents.get(ahead.pop(), ()):
            if parent not in found:
                found.add(parent)
                ahead.append(parent)
    return frozenset(found)


def _reach(starts: Iterable[str], *edges: Mapping[str, Sequence[str]]) -> Set[str]:
    found = set(starts)
    ahead = list(found)
    while ahead:
        digest = ahead.pop()
        for edge in edges:
            for other in edge.get(digest, ()):
                if other not in found:
                    found.add(other)
                    ahead.append(other)
    return found


def _edges(images: Mapping[str, Image], tags: Iterable[Tag]) -> Tuple[Dict[str, Sequence[str]], Dict[str, List[str]]]:
    """Return by digest what it needs, and what describes it."""
    children: Dict[str, Sequence[str]] = {digest: image.children for digest, image in images.items() if image.children}
    described: Dict[str, List[str]] = {}
    for digest, image in images.items():
        if image.subject:
            described.setdefault(image.subject, []).append(digest)
    for tag in tags:
        subject = described_by(tag.name, tag.digest)
        if subject and tag.digest:
            described.setdefault(subject, []).append(tag.digest)
    return children, described


def reached(roots: Iterable[str], images: Mapping[str, Image], tags: Iterable[Tag]) -> Set[str]:
    """Return the digests that ``roots`` need: themselves, their children, what describes them, and so on. ``tags`` may be all tags."""
    tags = list(tags)
    starts = set(roots)
    found = _reach(starts, *_edges(images, tags))
    # A fallback tag that describes nothing of these leads to something all the same.
    others = {
        tag.digest for tag in tags if tag.digest and described_by(tag.name, tag.digest) and described_by(tag.name, tag.digest) not in found
    }
    return _reach(found | others, *_edges(images, tags)) if others else found


def _needless(
    images: Mapping[str, Image], revisions: Set[str], kept: Set[str], deleted: Set[str], fallbacks: Sequence[Tag]
) -> Tuple[Set[str], str]:
    """Return the digests to which only deleted tags lead, and, if that cannot be told, why not.

    What is not reached from a deleted tag stays as it is: untagged manifests are none of this function's business, but they may need
    what is reached.
    """
    if not deleted - kept:
        return set(), ""
    children, described = _edges(images, fallbacks)
    candidates = _reach(deleted, children, described)
    stays = (revisions - candidates) | kept
    # A tag that describes nothing of what may go stays, and what it points to does.
    stays.update(tag.digest for tag in fallbacks if tag.digest and described_by(tag.name, tag.digest) not in candidates)
    unreadable = sorted(digest for digest in stays if digest in revisions and digest not in images)
    if unreadable:
        return set(), "%d of the manifests that stay cannot be read (%s, for one), so what they need is not known" % (
            len(unreadable),
            unreadable[0],
        )
    return candidates - _reach(stays, children, described), ""


def table(decisions: Iterable[Decision], now: float, keep: bool = True) -> str:
    """Return decisions as a table for people: what goes first, then what stays, each repository for itself.

    :param keep: whether to list the tags that stay too; otherwise each repository only says how many there are.
    """
    rows: Dict[str, List[Tuple[str, ...]]] = {}
    stays: Dict[str, int] = {}
    for decision in decisions:
        rows.setdefault(decision.repository, [])
        stays.setdefault(decision.repository, 0)
        if decision.decision == KEEP:
            stays[decision.repository] += 1
            if not keep:
                continue
        rows[decision.repository].append(
            (
                decision.decision,
                decision.tag,
                decision.digest[:19] or "?",
                ago(now - decision.pushed) if decision.pushed else "?",
                "-" if decision.pulled is None else ago(now - decision.pulled),
                "-" if decision.rule is None else str(decision.rule),
                decision.reason,
            )
        )
    lines = []
    head = ("", "TAG", "DIGEST", "PUSHED", "PULLED", "RULE", "REASON")
    for repository in sorted(rows):
        entries = rows[repository]
        entries.sort(key=lambda row: row[0] != DELETE)
        going = sum(1 for row in entries if row[0] == DELETE)
        lines.append("%s: %d to delete, %d to keep" % (repository, going, stays[repository]))
        if entries:
            widths = [max(len(row[column]) for row in [head] + entries) for column in range(len(head) - 1)]
            for row in [head] + entries:
                lines.append("  " + "  ".join(text.ljust(width) for text, width in zip(row, widths)) + "  " + row[-1])
    return "".join(line.rstrip() + "\n" for line in lines)
