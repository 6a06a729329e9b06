# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filter: options of NFS mounts and exports, made and judged."""

from __future__ import annotations

DOCUMENTATION = r"""
name: nfs_options
short_description: Make and judge the options of NFS mounts and exports
version_added: 0.1.0
author:
  - wharf.registry contributors (@wharf-registry)
description:
  - Knows with which options several registries can share one NFS export.
positional: what
options:
  _input:
    description:
      - "For V(mount): the operator's own mount options, a list or a text with commas."
      - "For V(export): C(uid) and C(gid) of the registry."
      - "For V(problems): C(server), C(export) and C(options), as in C(wharf_storage.nfs)."
      - "For V(exported): C(etab), the text of the server's C(/var/lib/nfs/etab), with C(export), C(clients), C(uid) and C(gid)."
    type: raw
    required: true
  what:
    description: What is asked for.
    type: str
    choices: [mount, export, problems, exported]
    required: true
"""

EXAMPLES = r"""
- name: Show how an export is mounted
  ansible.builtin.debug:
    msg: "{{ ['actimeo=3'] | wharf.registry.nfs_options('mount') }}"
"""

RETURN = r"""
_value:
  description: The options as one text (V(mount), V(export)), or one sentence for each problem (V(problems), V(exported)).
  type: raw
"""

from ansible.errors import AnsibleFilterError

from ansible_collections.wharf.registry.plugins.module_utils import _plain
from ansible_collections.wharf.registry.plugins.module_utils._nfs import options


def nfs_options(value, what):
    """Return options or sentences; see DOCUMENTATION."""
    value = _plain.plain(value)
    if what == "mount":
        return options.render(options.mount_options(value))
    if what == "export":
        return options.export_options(value["uid"], value["gid"])
    if what == "problems":
        return [problem.told() for problem in options.storage_problems(value)]
    if what == "exported":
        found = options.etab_problems(value["etab"], value["export"], value["clients"], value["uid"], value["gid"])
        return [problem.told() for problem in found]
    raise AnsibleFilterError(f"nfs_options knows mount, export, problems and exported, not {what}")


class FilterModule:
    """Filters of this file."""

    def filters(self):
        """Return the filters by name."""
        return {"nfs_options": nfs_options}
