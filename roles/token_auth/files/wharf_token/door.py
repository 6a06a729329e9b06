# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who is asking: the limits, the cache and the hashes, in the order in which they are asked."""

from __future__ import annotations

import datetime
import time
from collections import OrderedDict
from typing import List, NamedTuple, Optional, Tuple

from wharf._access.ci import LOGIN
from wharf._access.model import ROBOT_PREFIX, Subject

from .config import Config
from .jobs import Jobs, NoJob
from .limits import Failures, address_key
from .passwords import Busy, Passwords
from .personal import PREFIX, Limit, Personal

#: One more than the longest name that an account may have.
LONGEST_NAME = 129


class Refused(Exception):
    """Nobody is let in. ``result`` is one of audit.RESULTS; ``wait`` is when to come again; of a job's token, whose it is and what is wrong.

    ``personal`` is the personal token that did not do.
    """

    def __init__(self, result: str, wait: int = 0, account: str = "", why: str = "", personal: str = "") -> None:
        super().__init__(result)
        self.result = result
        self.wait = wait
        self.account = account
        self.why = why
        self.personal = personal


class Caller(NamedTuple):
    """Who was let in, and by which of the account's hashes, or by which personal token with which limit."""

    subject: Subject
    digest: str = ""
    personal: str = ""
    limit: Optional[Limit] = None


class Door:
    """Lets accounts in by password, personal token or refresh token, and jobs by the tokens of their CI systems.

    A password that was right a moment ago is never slowed down by those of others. Anything else is charged to the address, and to the
    account too, except where this account has come from this address before: guesses from elsewhere lock nobody out of his own machine.
    """

    def __init__(self, config: Config, passwords: Passwords, personal: Personal) -> None:
        self.passwords = passwords
        self.jobs = Jobs()
        self._personal = personal
        settings = config.settings
        self._addresses = Failures(settings["address_failures"], settings["failure_window"])
        self._accounts = Failures(settings["account_failures"], settings["failure_window"])
        self._seen: OrderedDict[Tuple[str, str], None] = OrderedDict()

    async def by_password(self, config: Config, name: str, password: str, address: str) -> Caller:
        """Let an account in by its password or a personal token, or a job by the token in its place. Raises Refused."""
        if name == LOGIN and config.access.issuers:
            return Caller(await self._by_job_token(config, password, address))
        if password.startswith(PREFIX):
            return self._by_personal_token(config, name[:LONGEST_NAME], password, address)
        secret = password.encode("utf-8", "surrogateescape")
        name = name[:LONGEST_NAME]  # no account has one as long, and the limits keep it
        digests = config.hashes.get(name, [])
        if not self.passwords.remembers(name, secret, digests):
            await self._compute(config, name, secret, address)
        self._not_over(config, name)
        return Caller(Subject(name), digests[0])

    async def _compute(self, config: Config, name: str, secret: bytes, address: str) -> None:
        digests = config.hashes.get(name, [])
        # Robots may have two secrets, so a wrong one takes the time of two, for those that exist and those that do not.
        slots = 2 if name.startswith(ROBOT_PREFIX) else 1
        if self.passwords.computing(name, secret, digests):
            # A client that begins with many requests at once; the first of them is charged.
            if not await self._check(name, secret, digests, config.cost, slots, known=False):
                raise Refused("bad_credentials")
            return
        now = time.monotonic()
        place = address_key(address)
        known_here = (name, place) in self._seen
        wait = max(self._addresses.wait(place, now), 0 if known_here else self._accounts.wait(name, now))
        if wait:
            raise Refused("limited", wait)
        self._addresses.charge(place, now)
        if not known_here:
            self._accounts.charge(name, now)
        try:
            right = await self._check(name, secret, digests, config.cost, slots, known_here)
        except Refused:
            self._give_back(name, place, known_here)
            raise
        if not right:
            raise Refused("bad_credentials")
        self._give_back(name, place, known_here)
        self._seen[(name, place)] = None
        self._seen.move_to_end((name, place))
        while len(self._seen) > 20_000:
            self._seen.popitem(last=False)

    async def _check(self, name: str, secret: bytes, digests: List[str], cost: int, slots: int, known: bool) -> bool:
        try:
            return await self.passwords.check(name, secret, digests, cost, slots, known)
        except Busy:
            raise Refused("busy", 1) from None

    def _give_back(self, name: str, place: str, known_here: bool) -> None:
        now = time.monotonic()
        self._addresses.give_back(place, now)
        if not known_here:
            self._accounts.give_back(name, now)

    def _by_personal_token(self, config: Config, name: str, password: str, address: str) -> Caller:
        entered = self._personal.enter(config, name, password)
        if entered is None:
            self._charge(address_key(address))
            raise Refused("bad_credentials")
        identifier, subject, limit = entered
        if subject is None:
            # No guess: somebody had it once. It costs his neighbours nothing.
            raise Refused("revoked", personal=identifier)
        return Caller(subject, personal=identifier, limit=limit)

    def by_refresh_token(self, config: Config, token: str, address: str) -> Caller:
        """Let an account in by its refresh token. Raises Refused."""
        name = config.own_tokens.refreshed(token, config.hashes)
        if name is None:
            self._charge(address_key(address))
            raise Refused("bad_credentials")
        self._not_over(config, name)
        return Caller(Subject(name))

    async def _by_job_token(self, config: Config, token: str, address: str) -> Subject:
        """Let a job in. Runners share addresses: a good token is never slowed down, and one that was good once is no guess."""
        issuers = config.access.issuers
        place = address_key(address)
        asked = False
        try:
            subject = self.jobs.known(issuers, token)
            if subject is None:
                self._charge(place)
                asked = True
                subject = await self.jobs.ask(issuers, token)
                self._addresses.give_back(place, time.monotonic())
            return subject
        except NoJob as error:
            if error.result == "bad_credentials" and not asked:
                self._charge(place)
            raise Refused(error.result, account=error.account, why=str(error)) from None

    def _charge(self, place: str) -> None:
        now = time.monotonic()
        wait = self._addresses.wait(place, now)
        if wait:
            raise Refused("limited", wait)
        self._addresses.charge(place, now)

    def _not_over(self, config: Config, name: str) -> None:
        robot = config.access.robot(name)
        if robot is not None and robot.expired(datetime.datetime.now(datetime.timezone.utc).date()):
            raise Refused("expired")
