# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the audit logs of all nodes are sent to: what is wrong with the setting. Private to the collection."""

from __future__ import annotations

import re
from typing import List, Mapping

EXAMPLE = "{host: logs.example.com, name: logs.example.com}"
_TEXTS = ("host", "name", "ca_src", "certificate_src", "privatekey_src")
_KEYS = (*_TEXTS, "port")
#: What is written into a configuration in quotes.
_PLAIN = re.compile(r"[A-Za-z0-9:._-]+")


def find_problems(setting: object, where: str = "wharf_audit_forward") -> List[str]:
    """Return one sentence for each fault of a setting, with the key's name and an example; none for an empty one."""
    if setting is None or setting == "" or setting == {}:
        return []
    example = "for example %s: %s" % (where, EXAMPLE)
    if not isinstance(setting, Mapping):
        return ["%s: it is no dictionary; %s" % (where, example)]
    found = []
    unknown = sorted(str(key) for key in setting if key not in _KEYS)
    if unknown:
        found.append("%s: there is no %s, only %s; %s" % (where, ", ".join(unknown), ", ".join(_KEYS), example))
    if not setting.get("host"):
        found.append("%s.host: it is missing; %s" % (where, example))
    for key in _TEXTS:
        value = setting.get(key, "")
        if not isinstance(value, str):
            found.append("%s.%s: %r is no text; %s" % (where, key, value, example))
        elif key in ("host", "name") and value and not _PLAIN.fullmatch(value):
            found.append("%s.%s: %r is no name and no address; %s" % (where, key, value, example))
        elif key.endswith("_src") and value and not value.startswith("/"):
            found.append("%s.%s: %r is no absolute path on the controller; for example /etc/pki/audit/ca.crt" % (where, key, value))
    if bool(setting.get("certificate_src")) != bool(setting.get("privatekey_src")):
        found.append("%s: a certificate needs its key; give certificate_src and privatekey_src, or neither" % where)
    port = setting.get("port", 20514)
    if isinstance(port, bool) or not str(port).isdigit() or not 0 < int(str(port)) < 65536:
        found.append("%s.port: %r is no number from 1 to 65535; for example port: 20514" % (where, port))
    return found
