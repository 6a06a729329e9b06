# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What happened: one JSON line for each decision, and counters. Neither ever holds a secret."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from typing import Any, Dict, Mapping, Optional

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from .jobs import State

#: How a request may end. An alert on failures counts bad_credentials; challenges are no failures, since every client begins with one.
RESULTS = (
    "granted",
    "reduced",
    "challenge",
    "bad_credentials",
    "expired",
    "revoked",
    "no_job",
    "limited",
    "busy",
    "bad_request",
    "immutable",
)
LONGEST = 300


class Audit:
    """Appends lines to a file, which others may rotate away, or to standard output."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._descriptor: Optional[int] = None
        self._inode = 0
        self.reopen()

    def reopen(self) -> None:
        """Open the file anew if it is another one now."""
        if not self._path:
            return
        with contextlib.suppress(FileNotFoundError):
            if self._descriptor is not None and os.stat(self._path).st_ino == self._inode:
                return
        descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
        if self._descriptor is not None:
            os.close(self._descriptor)
        self._descriptor, self._inode = descriptor, os.fstat(descriptor).st_ino

    def write(self, **fields: Any) -> None:
        """Write one line. What came from a client is cut to a length, and cannot end the line: JSON escapes it."""
        line: Dict[str, Any] = {"time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}
        for name, value in fields.items():
            if value in (None, "", []):
                continue
            if isinstance(value, list):
                line[name] = [str(part)[:LONGEST] for part in value[:64]]
            else:
                line[name] = value[:LONGEST] if isinstance(value, str) else value
        text = (json.dumps(line) + "\n").encode("ascii")
        if self._descriptor is None:
            sys.stdout.buffer.write(text)
            sys.stdout.buffer.flush()
        else:
            os.write(self._descriptor, text)


class Metrics:
    """The counters, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter("wharf_token_requests", "Requests for tokens by their result", ["result"], registry=self.registry)
        for result in RESULTS:
            self.requests.labels(result)
        self.seconds = Histogram(
            "wharf_token_request_seconds",
            "Time until a request was answered",
            buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5),
            registry=self.registry,
        )
        self.computed = Counter("wharf_token_passwords_computed", "Passwords that bcrypt had to compute", registry=self.registry)
        self.waiting = Gauge("wharf_token_passwords_waiting", "Passwords that are being computed or wait for it", registry=self.registry)
        self.config_ok = Gauge("wharf_token_config_ok", "1: the configuration on disk is in use; 0: it is refused", registry=self.registry)
        self.config_loaded = Gauge(
            "wharf_token_config_loaded_timestamp_seconds", "When the configuration in use was read", registry=self.registry
        )
        self.certificate_ends = Gauge(
            "wharf_token_certificate_expiry_timestamp_seconds", "When the certificate of the signing key ends", registry=self.registry
        )
        self.robot_ends = Gauge(
            "wharf_token_robot_expiry_timestamp_seconds", "End of a robot's last day (UTC)", ["robot"], registry=self.registry
        )
        self.page = Counter("wharf_token_page", "What people did on the page", ["event", "result"], registry=self.registry)
        self.peer_heard = Gauge(
            "wharf_token_peer_heard_timestamp_seconds",
            "When this node last shared revocations with another one",
            ["peer"],
            registry=self.registry,
        )
        self.state_ok = Gauge(
            "wharf_token_personal_ok", "1: the file of personal tokens and revocations is in use; 0: it is not", registry=self.registry
        )
        self.last_use = Gauge(
            "wharf_token_last_use_timestamp_seconds", "When an account last got a token from this node", ["account"], registry=self.registry
        )
        self.issuer_keys = Gauge("wharf_token_issuer_keys", "Keys known of a CI system", ["issuer"], registry=self.registry)
        self.issuer_failing = Gauge(
            "wharf_token_issuer_failing",
            "1: the keys of a CI system could not be fetched the last time",
            ["issuer"],
            registry=self.registry,
        )
        self.issuer_fetched = Gauge(
            "wharf_token_issuer_fetched_timestamp_seconds",
            "When the keys of a CI system were last fetched",
            ["issuer"],
            registry=self.registry,
        )

    def show_issuers(self, states: Mapping[str, State]) -> None:
        """Take over how it stands with the keys of CI systems."""
        for gauge in (self.issuer_keys, self.issuer_failing, self.issuer_fetched):
            gauge.clear()
        for name, state in states.items():
            self.issuer_keys.labels(name).set(state.keys)
            self.issuer_failing.labels(name).set(state.failing)
            self.issuer_fetched.labels(name).set(state.fetched)
