# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Plain values for filters: since ansible-core 2.19 the templating engine wraps what it hands on, and checks of types would not know it."""

from __future__ import annotations

import json
from typing import Any


def plain(value: Any) -> Any:
    """Return a value as JSON has it: dictionaries, lists, texts, numbers. Dates, as YAML reads them, become texts."""
    return json.loads(json.dumps(value, default=str))
