# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where audit logs are sent: what is refused, and by what name."""

from __future__ import annotations

import pytest

from ansible_collections.wharf.registry.plugins.module_utils._audit import forward
from ansible_collections.wharf.registry.plugins.module_utils._preflight import cluster

GOOD = {"host": "logs.example.com"}


@pytest.mark.parametrize(
    "setting",
    [None, "", {}, GOOD, {**GOOD, "port": "6514", "name": "logs"}, {"host": "2001:db8::1"},
     {**GOOD, "certificate_src": "/a.crt", "privatekey_src": "/a.key", "ca_src": "/ca.crt"}],
)  # fmt: skip
def test_what_is_one(setting):
    assert forward.find_problems(setting) == [] == cluster.check_audit_forward(setting)


@pytest.mark.parametrize(
    ("setting", "where", "words"),
    [
        ("logs.example.com", "wharf_audit_forward", "no dictionary"),
        ([GOOD], "wharf_audit_forward", "no dictionary"),
        ({"port": 20514}, "wharf_audit_forward.host", "missing"),
        ({**GOOD, "hots": "x"}, "wharf_audit_forward", "there is no hots"),
        ({"host": 'x" action(type="omprog'}, "wharf_audit_forward.host", "no name and no address"),
        ({**GOOD, "name": 'x"]'}, "wharf_audit_forward.name", "no name and no address"),
        ({"host": 7}, "wharf_audit_forward.host", "no text"),
        ({**GOOD, "port": 0}, "wharf_audit_forward.port", "no number from 1"),
        ({**GOOD, "port": True}, "wharf_audit_forward.port", "no number from 1"),
        ({**GOOD, "port": "syslog"}, "wharf_audit_forward.port", "no number from 1"),
        ({**GOOD, "ca_src": "ca.crt"}, "wharf_audit_forward.ca_src", "no absolute path"),
        ({**GOOD, "certificate_src": "/a.crt"}, "wharf_audit_forward", "needs its key"),
    ],
)
def test_what_is_none(setting, where, words):
    (problem,) = forward.find_problems(setting)
    assert problem.startswith(where + ": ") and words in problem
    assert "for example" in problem or "give certificate_src" in problem
    (found,) = cluster.check_audit_forward(setting)
    assert found["variable"] == where and words in found["cause"] and "for example wharf_audit_forward: {host:" in found["cure"]
