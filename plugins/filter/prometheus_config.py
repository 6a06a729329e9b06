# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filter: a prometheus.yml with entries added, or without them again."""

from __future__ import annotations

DOCUMENTATION = r"""
name: prometheus_config
short_description: Add entries to the text of a prometheus.yml, or take them out again to the byte
version_added: 0.1.0
author:
  - wharf.registry contributors (@wharf-registry)
description:
  - The text is edited, not written anew, so comments and style of its owner stay. What is added stands between two marks.
options:
  _input:
    description: The text of the file.
    type: str
    required: true
  name:
    description: Whose entries they are. It stands in the marks.
    type: str
    required: true
  lists:
    description:
      - Keys of lists at the top level, such as C(rule_files), each with the list of its new entries. An entry is a text that begins with C(-).
      - Without any, what an earlier call added is taken out.
    type: dict
    default: {}
  sections:
    description: Keys at the top level, each with the text that it is to have if the file has no such key.
    type: dict
    default: {}
"""

EXAMPLES = r"""
- name: Show the file with one more file of rules
  ansible.builtin.debug:
    msg: "{{ text | wharf.registry.prometheus_config('shop', {'rule_files': ['- /etc/prometheus/shop.yml']}) }}"
  vars:
    text: "{{ lookup('ansible.builtin.file', 'prometheus.yml', rstrip=False) }}"
"""

RETURN = r"""
_value:
  description: The text of the file, changed.
  type: str
"""

from ansible.errors import AnsibleFilterError

from ansible_collections.wharf.registry.plugins.module_utils import _prometheus_config


def prometheus_config(text, name, lists=None, sections=None):
    """Return *text* with the entries of *name* replaced by those given."""
    try:
        if not lists and not sections:
            return _prometheus_config.without(str(text), str(name))
        entries = {str(key): [str(entry) for entry in values] for key, values in (lists or {}).items()}
        whole = {str(key): str(content) for key, content in (sections or {}).items()}
        return _prometheus_config.added(str(text), str(name), entries, whole)
    except _prometheus_config.ConfigError as error:
        raise AnsibleFilterError("the configuration of Prometheus cannot be edited: %s" % error) from error


class FilterModule:
    """Filters of this file."""

    def filters(self):
        """Return the filters by name."""
        return {"prometheus_config": prometheus_config}
