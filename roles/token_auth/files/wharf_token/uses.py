# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""When each account last got a token from this node: a metric, and a file, so that a restart forgets nothing."""

from __future__ import annotations

import contextlib
import json
import os
import time
from pathlib import Path
from typing import Callable, Dict, Optional

from prometheus_client import Gauge
from wharf._access.model import Subject

from .jobs import job_words


class LastUse:
    """Times by account; of jobs of CI systems by the name that the model gives them."""

    def __init__(self, path: Optional[Path], gauge: Gauge) -> None:
        self._path = path
        self._gauge = gauge
        self._used: Dict[str, int] = {}
        if path is not None:
            with contextlib.suppress(OSError, ValueError, AttributeError):
                content = json.loads(path.read_text(encoding="utf-8"))
                self._used = {str(name): int(when) for name, when in content.items()}

    def note(self, subject: Subject) -> None:
        """Somebody has got a token."""
        for name in job_words(subject) or [subject.name]:
            if name:
                self._used[name] = int(time.time())
                self._gauge.labels(name).set(self._used[name])

    def keep(self, knows: Callable[[str], bool]) -> None:
        """Forget the accounts that are gone."""
        self._used = {name: when for name, when in self._used.items() if knows(name)}
        self._gauge.clear()
        for name, when in self._used.items():
            self._gauge.labels(name).set(when)

    def save(self) -> None:
        """Write it down."""
        if self._path is None:
            return
        partial = self._path.with_name(self._path.name + ".partial")
        with contextlib.suppress(OSError):
            partial.write_text(json.dumps(self._used, sort_keys=True), encoding="utf-8")
            os.replace(partial, self._path)
