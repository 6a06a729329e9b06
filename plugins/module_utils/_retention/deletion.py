# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Do what retention has decided: delete tags, then the manifests that nothing needs any more, while clients push and pull.

Private to the collection. What makes it safe:

- A tag or manifest that was pushed again after it was looked at stays. On a file system it is moved away and looked at once more, and
  moved back if it has changed; on S3, and where tags are deleted through the API, the look is right before the deletion.
- Before anything is deleted, a journal in the storage says what is going to be. A run that was killed is finished by the next one: it puts
  back what was moved away and had changed, and knows which manifests have lost their tags.
- At the end the tags of each repository are read again. If one needs a manifest that was just removed (somebody tagged it at that very
  moment), its link is written again; its content was never touched.

Blobs are not deleted here: that is garbage collection's work.
"""

from __future__ import annotations

import json
import secrets
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Callable, Dict, Iterable, List, NamedTuple, Optional, Sequence, Set, Tuple

from .._registry.api import Registry, RegistryError
from .._store import layout
from .._store.driver import Driver, StoreError

FOLDER = layout.OWN + "/retention"
JOURNAL = FOLDER + "/journal.json"
TRASH = FOLDER + "/trash"

_EXACT = 1e-6
_ATTEMPTS = 5
_NOT_NOW = (None, 408, 429, 500, 502, 503, 504)
# S3 tells times of a listing in milliseconds and those of a look in seconds.
_TOLERANCE = 1.0


class ApplyError(Exception):
    """The work had to be given up; the message says why and what to do. What was done until then is done, the rest is as it was."""


class Victim(NamedTuple):
    """A tag (``tag`` is its name) or a manifest (``tag`` is empty) to delete, as it was when it was looked at."""

    repository: str
    tag: str
    digest: str
    modified: float

    @property
    def path(self) -> str:
        """The link that makes it exist."""
        if self.tag:
            return layout.tag_path(self.repository, self.tag)
        return layout.revision_path(self.repository, self.digest)


class Outcome:
    """What came of it. ``changed_since`` are those that were left alone because they had changed; ``findings`` says what went wrong."""

    def __init__(self) -> None:
        self.tags: List[Victim] = []
        self.manifests: List[Victim] = []
        self.changed_since: List[Victim] = []
        self.restored: List[Victim] = []
        self.findings: List[Dict[str, str]] = []


def finding(repository: str, tag: str, problem: str) -> Dict[str, str]:
    """Return one finding."""
    return {"repository": repository, "tag": tag, "problem": problem}


# ------------------------------------------------------------------------------------------------------------- journal


class Journal(NamedTuple):
    """What a run is deleting, in the order in which it numbers what it moves away. ``run`` names its part of the trash."""

    run: str = ""
    victims: Sequence[Victim] = ()


def read_journal(driver: Driver) -> Journal:
    """Return what a run that did not end was deleting; an empty journal if the last run has ended."""
    try:
        content = json.loads(driver.read(JOURNAL).decode("utf-8"))
        victims = [
            Victim(str(repository), str(tag), str(digest), float(modified)) for repository, tag, digest, modified in content["deleting"]
        ]
        return Journal(str(content["run"]), victims)
    except FileNotFoundError:
        return Journal()
    except (ValueError, KeyError, TypeError):
        return Journal()  # not ours, or damaged: nobody can tell what was going on


def _write_journal(driver: Driver, journal: Journal) -> None:
    content = {"run": journal.run, "deleting": list(journal.victims)}
    driver.write(JOURNAL, json.dumps(content, separators=(",", ":")).encode("utf-8"))


def condemned(driver: Driver, journal: Journal) -> Dict[str, Set[str]]:
    """Return by repository the manifests of a journal that are still there as they were."""
    found: Dict[str, Set[str]] = {}
    manifests = [victim for victim in journal.victims if not victim.tag]
    for victim, same in zip(manifests, driver.each(lambda victim: _same(driver, victim), manifests)):
        if same:
            found.setdefault(victim.repository, set()).add(victim.digest)
    return found


def recover(driver: Driver, journal: Journal) -> List[Victim]:
    """Put back what a run has moved away although it had changed; return what has changed. The rest of its trash is thrown away."""
    changed = []
    if driver.local and journal.run:
        for number, victim in enumerate(journal.victims):
            if _put_back_if_changed(driver, _trash(journal.run, number), victim):
                changed.append(victim)
        _empty_trash(driver)
    return changed


def _same(driver: Driver, victim: Victim) -> bool:
    entry = driver.stat(victim.path)
    return entry is not None and abs(entry.modified - victim.modified) < (_EXACT if driver.local else _TOLERANCE)


# ------------------------------------------------------------------------------------------- one file system, moved away


def _trash(run: str, number: int) -> str:
    return "%s/%s/%d" % (TRASH, run, number)


def _place(victim: Victim) -> str:
    """The directory that is moved."""
    return layout.tag_folder(victim.repository, victim.tag) if victim.tag else victim.path.rpartition("/")[0]


def _put_back_if_changed(driver: Driver, trash: str, victim: Victim) -> bool:
    """Look at what was moved away. Return whether somebody has written it since it was planned; then it is back in its place."""
    link = trash + ("/current/link" if victim.tag else "/link")
    entry = driver.stat(link)
    if entry is None or abs(entry.modified - victim.modified) < _EXACT:
        return False
    if driver.stat(victim.path) is None:
        content = driver.read(link)
        # A registry of 2.8 empties the file before it writes: wait for the rest.
        for _attempt in range(20):
            if layout.is_digest(content.decode("ascii", "replace")):
                break
            time.sleep(0.05)
            content = driver.read(link)
        driver.write(victim.path, content)
    # else: it was written once more in its place, and that is what counts.
    return True


def _move_away(driver: Driver, trash: str, victim: Victim) -> Optional[bool]:
    """Delete one tag or manifest on a file system. Returns whether it is gone; None if it was gone before."""
    entry = driver.stat(victim.path)
    if entry is None:
        return None
    if abs(entry.modified - victim.modified) >= _EXACT:
        return False
    driver.move(_place(victim), trash)
    return not _put_back_if_changed(driver, trash, victim)


def _empty_trash(driver: Driver) -> None:
    entries = [entry.path for entry in driver.walk(TRASH)]
    driver.remove(path for path in entries if not path.endswith("/"))
    folders = set()
    for path in entries:
        folder = path.rpartition("/")[0]
        while len(folder) > len(TRASH):
            folders.add(folder)
            folder = folder.rpartition("/")[0]
    driver.remove_empty(sorted(folders, key=len, reverse=True))


# ------------------------------------------------------------------------------------------------------------- objects


def _delete_objects(driver: Driver, victim: Victim) -> Optional[bool]:
    """Delete one tag or manifest on S3. The link goes last, so that a killed run leaves a tag that the next one plans again."""
    if driver.stat(victim.path) is None:
        return None
    if not _same(driver, victim):
        return False
    stayed = []
    if victim.tag:
        history = [entry.path for entry in driver.walk(layout.tag_folder(victim.repository, victim.tag) + "/index")]
        stayed = driver.remove(history)
        if not _same(driver, victim):
            return False
    stayed = stayed or driver.remove([victim.path])
    if stayed:
        raise OSError("%s: %s" % stayed[0])
    return True


# ----------------------------------------------------------------------------------------------------------------- API


class _Api:
    """Deletes tags through the registry. Once the registry has said that it cannot (2.8), nobody asks it again."""

    def __init__(self, registry: Registry, sleep: Callable[[float], None] = time.sleep) -> None:
        self._registry = registry
        self._sleep = sleep
        self.cannot = False

    def untag(self, victim: Victim) -> bool:
        """Delete a tag; return False if this registry cannot do that without taking other tags along."""
        if self.cannot:
            return False
        for attempt in range(_ATTEMPTS):
            try:
                self._registry.untag(victim.repository, victim.tag)
                return True
            except RegistryError as error:
                if error.status == 400 and error.code in ("DIGEST_INVALID", "UNSUPPORTED"):
                    self.cannot = True
                    return False
                if error.status == 405:
                    raise ApplyError(
                        "url: the registry does not allow deleting; set storage.delete.enabled in its configuration, or leave url out to delete "
                        "on the storage"
                    ) from error
                if error.status in (401, 403):
                    raise ApplyError(
                        "username, password: the registry does not let this user delete %s:%s (HTTP %d)"
                        % (victim.repository, victim.tag, error.status)
                    ) from error
                if error.status not in _NOT_NOW or attempt == _ATTEMPTS - 1:
                    raise
                # A little chance keeps the workers from coming back all at once.
                self._sleep(0.2 * 2**attempt * (0.5 + secrets.randbelow(100) / 100))
        return False


# ---------------------------------------------------------------------------------------------------------------- work


def apply(
    driver: Driver,
    tags: Sequence[Victim],
    manifests: Sequence[Victim],
    *,
    registry: Optional[Registry] = None,
    workers: int = 8,
    needed_now: Optional[Callable[[str, Set[str]], Set[str]]] = None,
    require: Callable[[], None] = lambda: None,
) -> Outcome:
    """Delete tags, then manifests. Call it while nobody else deletes on the storage (with its lock held), after :func:`recover`.

    :param manifests: each index before its children.
    :param registry: delete tags through it; otherwise, and where it cannot (2.8), on the storage.
    :param needed_now: ``needed_now(repository, digests)`` reads the repository's tags again and returns those of ``digests`` that they
        lead to.
    :param require: raises StoreError unless the storage's lock is held; asked before each deletion.
    :raises ApplyError: if the registry refuses; what was deleted until then is deleted, and the journal knows the rest.
    """
    outcome = Outcome()
    if not tags and not manifests:
        driver.remove([JOURNAL])
        return outcome
    journal = Journal(secrets.token_hex(6), list(tags) + list(manifests))
    _write_journal(driver, journal)
    job = _Job(driver, journal.run, outcome, None if registry is None else _Api(registry), max(1, workers), require)
    try:
        job.run(0, tags)
        if needed_now is not None:
            job.leave_alone(needed_now, manifests)
        job.run(len(tags), manifests)
    finally:
        late = set(recover(driver, journal))
    if late:
        outcome.tags = [victim for victim in outcome.tags if victim not in late]
        outcome.manifests = [victim for victim in outcome.manifests if victim not in late]
        outcome.changed_since += sorted(victim for victim in late if victim.tag and victim not in outcome.changed_since)
    if driver.local:
        driver.remove_empty(_place(victim) for victim in outcome.manifests)
    if needed_now is not None:
        _restore_needed(driver, outcome, needed_now)
    for victim in outcome.changed_since:
        outcome.findings.append(finding(victim.repository, victim.tag, "was pushed again after it was looked at, so it stays"))
    # Manifests that were left because something in their repository has changed: the next run looks at them again.
    done = set(outcome.manifests) | set(outcome.restored) | late
    left = [victim for victim in manifests if victim not in done and victim not in job.needed]
    if left:
        _write_journal(driver, Journal(journal.run, left))
    else:
        driver.remove([JOURNAL])
    return outcome


class _Job:
    """One run of deletions."""

    def __init__(self, driver: Driver, run: str, outcome: Outcome, api: Optional[_Api], workers: int, require: Callable[[], None]) -> None:
        self._driver = driver
        self._run = run
        self._outcome = outcome
        self._api = api
        self._workers = workers
        self._require = require
        self._stop = threading.Event()
        #: Repositories in which something has changed or failed: their manifests are left alone.
        self._unsure: Set[str] = set()
        #: Manifests that somebody needs by now.
        self.needed: Set[Victim] = set()

    def leave_alone(self, needed_now: Callable[[str, Set[str]], Set[str]], manifests: Iterable[Victim]) -> None:
        """Pass those manifests over to which tags lead by now."""
        for repository, victims in _by_repository(manifests).items():
            if repository not in self._unsure:
                self.needed.update(victims[digest] for digest in needed_now(repository, set(victims)))

    def run(self, first: int, victims: Sequence[Victim]) -> None:
        """Delete ``victims``, the first of which has the number ``first``."""
        asks = self._api is not None and bool(victims) and bool(victims[0].tag)
        many = self._workers if asks or not self._driver.local else 1
        numbered = list(enumerate(victims, first))
        if many == 1:
            for each in numbered:
                self._note(*self._delete(each))
            return
        with ThreadPoolExecutor(max_workers=many) as pool:
            for victim, gone, problem in pool.map(self._delete, numbered):
                self._note(victim, gone, problem)

    def _note(self, victim: Victim, gone: Optional[bool], problem: str) -> None:
        if problem:
            self._outcome.findings.append(finding(victim.repository, victim.tag or victim.digest, "could not be deleted: " + problem))
        elif gone:
            (self._outcome.tags if victim.tag else self._outcome.manifests).append(victim)
        elif gone is False and victim.tag:
            self._outcome.changed_since.append(victim)

    def _delete(self, numbered: Tuple[int, Victim]) -> Tuple[Victim, Optional[bool], str]:
        number, victim = numbered
        if self._stop.is_set() or victim in self.needed or (not victim.tag and victim.repository in self._unsure):
            return victim, None, ""
        problem = ""
        try:
            self._require()
            gone = self._delete_one(number, victim)
        except (OSError, RegistryError) as error:
            gone, problem = False, getattr(error, "strerror", None) or str(error)
        except (ApplyError, StoreError):
            self._stop.set()
            raise
        if gone is False:
            self._unsure.add(victim.repository)
        return victim, gone, problem

    def _delete_one(self, number: int, victim: Victim) -> Optional[bool]:
        if victim.tag and self._api is not None and not self._api.cannot:
            if self._driver.stat(victim.path) is None:
                return None
            if not _same(self._driver, victim):
                return False
            if self._api.untag(victim):
                return True
        if self._driver.local:
            return _move_away(self._driver, _trash(self._run, number), victim)
        return _delete_objects(self._driver, victim)


def _by_repository(victims: Iterable[Victim]) -> Dict[str, Dict[str, Victim]]:
    found: Dict[str, Dict[str, Victim]] = {}
    for victim in victims:
        found.setdefault(victim.repository, {})[victim.digest] = victim
    return found


def _restore_needed(driver: Driver, outcome: Outcome, needed_now: Callable[[str, Set[str]], Set[str]]) -> None:
    for repository, victims in _by_repository(outcome.manifests).items():
        for digest in sorted(needed_now(repository, set(victims))):
            if driver.stat(victims[digest].path) is None:
                driver.write(victims[digest].path, digest.encode("ascii"))
            outcome.restored.append(victims[digest])
    again = set(outcome.restored)
    outcome.manifests = [victim for victim in outcome.manifests if victim not in again]
