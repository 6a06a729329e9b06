# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The registry's cache in Redis: forget exactly what was hidden, and learn what clients asked for lately.

Keys, the same in 2.8 and 3.x: the hash ``blobs::<digest>``, the set ``repository::<name>::blobs``, and the hash
``repository::<name>::blobs::<digest>``. The registry reads the last one whenever a client asks whether a repository has a blob; how long
ago that was, Redis tells by ``OBJECT IDLETIME`` (unless its eviction policy counts frequencies instead). That is the only trace
that such a question leaves anywhere.
"""

from __future__ import annotations

import re
from typing import Any, Dict, Iterable, List, Mapping, Set, Tuple

from .driver import StoreError

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


def _seconds(text: Any, default: float) -> float:
    parts = re.findall(r"(\d+(?:\.\d+)?)(ms|s|m|h)", str(text or ""))
    return sum(float(number) * _UNITS[unit] for number, unit in parts) or default


class Cache:
    """The Redis that a registry's ``redis`` section names."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        try:
            import redis
        except ImportError:
            raise StoreError("the cache is Redis, which needs redis for the Python that runs this; install python3-redis") from None
        self._error = redis.exceptions.RedisError
        addresses = settings.get("addrs") or settings.get("addr") or []
        if isinstance(addresses, str):
            addresses = [addresses]
        pairs = []
        for address in addresses:
            host, _colon, port = str(address).rpartition(":")
            if not host or not port.isdigit():
                raise StoreError(f"redis: {address} is no address; write for example addrs: ['127.0.0.1:6379']")
            pairs.append((host.strip("[]"), int(port)))
        if not pairs:
            raise StoreError("redis: no address; write for example addrs: ['127.0.0.1:6379']")
        common: Dict[str, Any] = {
            "password": settings.get("password") or None,
            "username": settings.get("username") or None,
            "socket_connect_timeout": _seconds(settings.get("dialtimeout"), 5.0),
            "socket_timeout": max(2.0, _seconds(settings.get("readtimeout"), 5.0)),
        }
        tls = settings.get("tls")
        if isinstance(tls, Mapping) and tls:
            roots = tls.get("rootcas") or []
            common.update(
                ssl=True,
                ssl_ca_certs=(roots[0] if isinstance(roots, list) and roots else roots) or None,
                ssl_certfile=tls.get("certificate") or None,
                ssl_keyfile=tls.get("key") or None,
            )
        self.label = "Redis at " + ", ".join(f"{host}:{port}" for host, port in pairs)
        if settings.get("mastername"):
            from redis.sentinel import Sentinel

            secrets = {"username": settings.get("sentinelusername"), "password": settings.get("sentinelpassword")}
            sentinel = Sentinel(pairs, sentinel_kwargs={name: value for name, value in secrets.items() if value}, **common)
            self._client = sentinel.master_for(str(settings["mastername"]), db=int(settings.get("db") or 0))
        elif len(pairs) > 1:
            raise StoreError("redis: a Redis Cluster is not supported; one address, or mastername with those of the sentinels")
        else:
            self._client = redis.Redis(pairs[0][0], pairs[0][1], db=int(settings.get("db") or 0), **common)

    def _fail(self, error: Exception) -> StoreError:
        return StoreError(f"{self.label} does not answer as it must: {error}; what it remembers would outlive the blobs")

    def check(self) -> None:
        """Raise :class:`StoreError` unless Redis answers."""
        try:
            self._client.ping()
        except self._error as error:
            raise self._fail(error) from None

    def asked(self, pairs: Iterable[Tuple[str, str]], within: float) -> Set[str]:
        """Return the digests of those (repository, digest) that a client asked for within so many seconds."""
        wanted = list(pairs)
        found = set()
        for start in range(0, len(wanted), 1000):
            part = wanted[start : start + 1000]
            for (_repository, digest), idle in zip(part, self._idle(part, forget=False)):
                if isinstance(idle, int) and idle < within:
                    found.add(digest)
        return found

    def forget(self, pairs: Iterable[Tuple[str, str]], within: float = 0.0) -> Set[Tuple[str, str]]:
        """Drop (repository, digest) from the cache; return those that a client asked for within so many seconds before."""
        wanted = list(pairs)
        found = set()
        for start in range(0, len(wanted), 1000):
            part = wanted[start : start + 1000]
            for pair, idle in zip(part, self._idle(part, forget=True)):
                if isinstance(idle, int) and idle < within:
                    found.add(pair)
        return found

    def _idle(self, pairs: List[Tuple[str, str]], *, forget: bool) -> List[Any]:
        """Return how many seconds each was not asked for: None if it is not there, an error if Redis cannot tell."""
        pipe = self._client.pipeline(transaction=True)
        for repository, digest in pairs:
            key = f"repository::{repository}::blobs::{digest}"
            pipe.object("IDLETIME", key)
            if forget:
                pipe.srem(f"repository::{repository}::blobs", digest)
                pipe.delete(key, f"blobs::{digest}")
        try:
            answers = pipe.execute(raise_on_error=False)
        except self._error as error:
            raise self._fail(error) from None
        step = 3 if forget else 1
        for place, answer in enumerate(answers):
            if place % step and isinstance(answer, Exception):
                raise self._fail(answer)
        return answers[::step]
