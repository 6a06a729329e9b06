# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This fragment is private to the collection: it may change in any release.

"""The attributes that every module of the collection documents."""

from __future__ import annotations


class ModuleDocFragment:
    """Standard attributes; a module overrides what differs (for example C(support: none) with details)."""

    DOCUMENTATION = r"""
options: {}
attributes:
  check_mode:
    description: Can run in C(check_mode) and return changed status prediction without modifying target.
    support: full
  diff_mode:
    description: Will return details on what has changed (or possibly needs changing in C(check_mode)), when in diff mode.
    support: full
  idempotent:
    description: When run twice in a row outside check mode, with the same arguments, the second invocation indicates no change.
    support: full
  action_group:
    description: Use C(group/wharf.registry.registry) in C(module_defaults) to set defaults for this module.
    support: full
    membership:
      - wharf.registry.registry
"""
