# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filter: what was done, from the lines of the audit logs of all nodes."""

from __future__ import annotations

DOCUMENTATION = r"""
name: audit_operations
short_description: What was done, from the lines of the audit logs of all nodes
version_added: 0.1.0
author:
  - wharf.registry contributors (@wharf-registry)
description:
  - Puts requests together that belong to one operation, also where they went to several nodes, and picks those that were asked for.
options:
  _input:
    description: Lines of audit logs, those of all nodes together, in any order.
    type: list
    elements: str
    required: true
  begin:
    description: Begin of the time that is asked about, in UTC, or how long ago that is.
    type: str
    default: 24h
  until:
    description: Its end. By default now.
    type: str
    default: ""
  user:
    description: User, with the wildcards of a shell. Empty is everybody.
    type: str
    default: ""
  repository:
    description: Repository, with the wildcards of a shell. Empty is all.
    type: str
    default: ""
  action:
    description: What was done. Empty is everything.
    type: str
    default: ""
  prefix:
    description: What the names of these options begin with where the question comes from. Messages about a wrong one call it so.
    type: str
    default: ""
"""

EXAMPLES = r"""
- name: Show who pushed
  ansible.builtin.debug:
    msg: "{{ (lines | wharf.registry.audit_operations(begin='7d', action='push')).table }}"
"""

RETURN = r"""
_value:
  description: The answer.
  type: dict
  contains:
    operations:
      description: One dictionary for each operation, see docs/audit.md.
      type: list
      elements: dict
    table:
      description: The same as lines for people.
      type: list
      elements: str
"""

from ansible.errors import AnsibleFilterError

from ansible_collections.wharf.registry.plugins.module_utils._audit.operations import QueryError, answer, parse_lines, parse_query, table


def _text(name, value):
    """Return a part of the question as text."""
    if isinstance(value, (list, tuple, set, dict, bool)) or value is None:
        raise AnsibleFilterError(f"{name}: {value!r} is no text; for example {name}={_EXAMPLES[name.rsplit('_', maxsplit=1)[-1]]}")
    return str(value)


_EXAMPLES = {"from": "7d", "until": "24h", "user": "alice", "repository": "'shop/*'", "action": "pull"}


def audit_operations(lines, begin="24h", until="", user="", repository="", action="", prefix=""):
    """Return the operations that were asked for, and a table of them."""
    parts = zip(("from", "until", "user", "repository", "action"), (begin, until, user, repository, action), strict=True)
    try:
        query = parse_query(*(_text(f"{prefix}{name}", value) for name, value in parts), prefix=prefix)
    except QueryError as error:
        raise AnsibleFilterError(str(error)) from error
    operations = answer(parse_lines([str(line) for line in lines]), query)
    return {"operations": operations, "table": table(operations)}


class FilterModule:
    """Filters of this file."""

    def filters(self):
        """Return the filters by name."""
        return {"audit_operations": audit_operations}
