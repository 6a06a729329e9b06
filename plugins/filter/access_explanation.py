# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filter: what an account may do with a repository, and why."""

from __future__ import annotations

DOCUMENTATION = r"""
name: access_explanation
short_description: What an account may do with a repository, and why
version_added: 0.1.0
author:
  - wharf.registry contributors (@wharf-registry)
description:
  - Asks the access model what the token service would grant.
options:
  _input:
    description: The access model, in which P(wharf.registry.access_problems#filter) finds nothing.
    type: dict
    required: true
  users:
    description: Names of all users.
    type: list
    elements: str
    required: true
  robots:
    description: The robots.
    type: list
    elements: dict
    required: true
  user:
    description:
      - The name to sign in with; for a robot with C(robot-) or C(robot:) before its name, for a job of a CI system with C(job:).
      - Empty for somebody who has not signed in.
    type: str
    required: true
  repository:
    description: The repository.
    type: str
    required: true
"""

EXAMPLES = r"""
- name: Say what alice may do
  ansible.builtin.debug:
    msg: "{{ {'projects': {'shop': {'writers': ['alice']}}} | wharf.registry.access_explanation(['alice'], [], 'alice', 'shop/web') }}"
"""

RETURN = r"""
_value:
  description: Sentences. What is allowed, then a reason for each part of it.
  type: list
  elements: str
"""

from ansible_collections.wharf.registry.plugins.module_utils import _plain
from ansible_collections.wharf.registry.plugins.module_utils._access.model import build


def access_explanation(model, users, robots, user, repository):
    """Return sentences about what ``user`` may do with ``repository``."""
    model, users, robots = _plain.plain([model, users, robots])
    access = build(model, users, robots)
    return access.explain(access.who(user), repository)


class FilterModule:
    """Filters of this file."""

    def filters(self):
        """Return the filters by name."""
        return {"access_explanation": access_explanation}
