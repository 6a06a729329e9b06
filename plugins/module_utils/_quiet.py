# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Modules whose parameters hold secrets where Ansible does not find them. Private to the collection."""

from __future__ import annotations

from typing import Any


def quiet(base: Any) -> Any:
    """Return AnsibleModule, given as ``base``, as one that tells the host's log that it was called, and nothing of its parameters.

    Ansible logs the parameters as the module begins: before the module can name the secrets in its dictionaries, and of a list it takes
    secrets out only if they are one line without quotes.
    """

    class Module(base):
        def _log_invocation(self) -> None:
            self.log("Invoked; its parameters may hold secrets")

    return Module
