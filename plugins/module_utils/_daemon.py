# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""When a service in the zipapp is to end. Private to the collection."""

from __future__ import annotations

import signal
from typing import Callable, List


def told_to_end() -> Callable[[], bool]:
    """Catch SIGTERM and SIGINT from now on; return what says whether one has come."""
    received: List[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda came, _frame: received.append(came))
    return lambda: bool(received)
