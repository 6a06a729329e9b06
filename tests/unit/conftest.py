# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Settings of all unit tests."""

from __future__ import annotations

import hypothesis

# A busy machine must not fail a property for its time, nor leave a folder of examples behind; the same examples on every run.
hypothesis.settings.register_profile("wharf", deadline=None, derandomize=True, database=None)
hypothesis.settings.load_profile("wharf")
