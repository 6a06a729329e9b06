# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filter: what is wrong with the options of a registry, told on the controller before any host is touched."""

from __future__ import annotations

DOCUMENTATION = r"""
name: registry_config_problems
short_description: What is wrong with the options of a registry
version_added: 0.1.0
author:
  - wharf.registry contributors (@wharf-registry)
description:
  - Checks the options of M(wharf.registry.registry_config) on the controller, as strictly as the module does on the node.
  - Each problem is one sentence with the variable, what is wrong and an example. It never holds a secret.
positional: prefix
options:
  _input:
    description: The options of M(wharf.registry.registry_config) that make up the file.
    type: dict
    required: true
  prefix:
    description: What the names of the variables begin with.
    type: str
    default: registry_
"""

EXAMPLES = r"""
- name: Refuse what the registry would not understand
  ansible.builtin.assert:
    that: problems | length == 0
    fail_msg: "{{ problems | join('\n') }}"
  vars:
    problems: "{{ {'version': '3.1.2', 'storage': {'s3': {'bucket': 'registry'}}} | wharf.registry.registry_config_problems }}"
"""

RETURN = r"""
_value:
  description: One sentence for each problem. An empty list if there is none.
  type: list
  elements: str
"""

from ansible.errors import AnsibleFilterError

from ansible_collections.wharf.registry.plugins.module_utils import _plain
from ansible_collections.wharf.registry.plugins.module_utils._registry.config import messages


def registry_config_problems(options, prefix="registry_"):
    """Return the sentences about what is wrong with *options*, whose variables begin with *prefix*."""
    if not isinstance(options, dict):
        raise AnsibleFilterError("registry_config_problems needs the options as a dictionary")
    # Through JSON: plain types, as the module gets them, whatever the templating engine wraps them in.
    plain = _plain.plain(options)
    if isinstance(plain.get("nodes"), str) and plain["nodes"].isdigit():
        plain["nodes"] = int(plain["nodes"])  # older releases of ansible-core make text of every number in a template
    return messages(plain, prefix)


class FilterModule:
    """Filters of this file."""

    def filters(self):
        """Return the filters by name."""
        return {"registry_config_problems": registry_config_problems}
