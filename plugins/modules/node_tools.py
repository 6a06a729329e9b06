#!/usr/bin/python
# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of ``node_tools``; the work is done by the action plugin of the same name."""

from __future__ import annotations

DOCUMENTATION = r"""
module: node_tools
short_description: Put the collection's command line on a host
version_added: 0.1.0
author:
  - wharf.registry contributors (@wharf-registry)
description:
  - Builds one executable Python archive (zipapp) from the collection's C(module_utils) on the controller and copies it to the host.
  - Hosts run the daemons and timers of this collection from it, for example C(python3 /usr/local/lib/wharf/wharf.pyz probe), so they
    need neither Ansible nor any package from PyPI.
  - The same collection gives the same bytes on every controller, so a second run changes nothing.
extends_documentation_fragment:
  - wharf.registry._attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
    details: The difference shows mode and checksum.
  idempotent:
    support: full
options:
  dest:
    description: Where the archive lies on the host. Its directory is created.
    type: path
    default: /usr/local/lib/wharf/wharf.pyz
  state:
    description:
      - Whether the archive is there.
      - With V(absent) it stays as long as a unit file in C(/etc/systemd/system) names it, because several roles share it.
    type: str
    choices: [present, absent]
    default: present
"""

EXAMPLES = r"""
- name: Put the tools on the host
  wharf.registry.node_tools:

- name: Remove them once no service uses them
  wharf.registry.node_tools:
    state: absent
"""

RETURN = r"""
dest:
  description: Path of the archive.
  returned: always
  type: str
  sample: /usr/local/lib/wharf/wharf.pyz
checksum:
  description: SHA-1 of the archive.
  returned: when O(state=present)
  type: str
  sample: 6b1f7a5b7c1f0a3b3b0c2b6f3f1f1f0d5a3c9f10
used_by:
  description: Unit files that still name the archive; it stays while there are any.
  returned: when O(state=absent) and the archive is there
  type: list
  elements: str
  sample: [/etc/systemd/system/wharf-probe.service]
"""
