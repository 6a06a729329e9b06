# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The settings of single sign-on, judged. Private to the collection.

One implementation for all who ask: the controller, which refuses what is incomplete, and the token service on the nodes, which goes by it.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from typing import Any, Dict, FrozenSet, Iterable, List, Mapping, Tuple

#: Without encryption only on this machine, for tests.
_ISSUER = re.compile(r"(?:https://[^/?#\s]+|http://(?:localhost|127\.0\.0\.1)(?::\d+)?)(?:/[^?#\s]*)?\Z")
#: Keys with what each is when it is left out. None: it must be there.
_KEYS: Dict[str, Any] = {
    "issuer": None,
    "client_id": None,
    "client_secret": None,
    "groups": None,
    "name_claim": "preferred_username",
    "groups_claim": "groups",
    "scopes": ["openid", "profile"],
    "blocked": [],
    "remember_days": 90,
}
#: What only the controller goes by.
_CONTROLLER_KEYS = ("ca_src",)

EXAMPLE = (
    "{issuer: https://keycloak.example.com/realms/company, client_id: registry, "
    'client_secret: "{{ vault_registry_sso }}", groups: {registry-developers: developers}}'
)


@dataclass(frozen=True)
class Sso:
    """An identity provider: any OpenID Connect issuer with discovery."""

    issuer: str
    client_id: str
    client_secret: str
    #: From what the provider calls a group to the group of the access model.
    groups: Mapping[str, str]
    name_claim: str
    groups_claim: str
    scopes: Tuple[str, ...]
    blocked: FrozenSet[str]
    remember_days: int

    @property
    def remember_seconds(self) -> int:
        """How long what the provider said about a person counts."""
        return self.remember_days * 86400

    def groups_of(self, claimed: Iterable[str]) -> FrozenSet[str]:
        """Return the groups of the access model that the provider's groups stand for. The slash with which Keycloak's begin is optional."""
        wanted = {str(name).lstrip("/") for name in claimed}
        return frozenset(group for name, group in self.groups.items() if name.lstrip("/") in wanted)


def groups_from_outside(settings: Any) -> FrozenSet[str]:
    """Return the groups of the access model that get members from the identity provider."""
    groups = settings.get("groups") if isinstance(settings, dict) else None
    return frozenset(str(group) for group in groups.values()) if isinstance(groups, dict) else frozenset()


def find_problems(settings: Any, access: Any, variable: str = "sso") -> List[str]:
    """Return a sentence for everything that is wrong with the settings, none of which tells the secret.

    Args:
        settings: the settings; empty for none, which is right too.
        access: the access model, whose groups they name.
        variable: what the sentences call the settings.
    """
    if not settings:
        return []
    if not isinstance(settings, dict):
        return [f"{variable}: is no mapping. Example: {variable}: {EXAMPLE}"]
    known = (*_KEYS, *_CONTROLLER_KEYS)
    found = []
    for key in sorted(set(settings) - set(known), key=str):
        near = difflib.get_close_matches(str(key), known, 1, 0.6)
        found.append(f"{variable}.{key}: is no setting of single sign-on" + (f"; did you mean {near[0]}?" if near else ""))
    for key, default in _KEYS.items():
        if default is None and not settings.get(key):
            found.append(f"{variable}.{key}: is missing. Example: {variable}: {EXAMPLE}")
    issuer = settings.get("issuer")
    if issuer and not _ISSUER.match(str(issuer)):
        found.append(f"{variable}.issuer: {issuer} is no https address. Example: https://keycloak.example.com/realms/company")
    scopes = settings.get("scopes", _KEYS["scopes"])
    if not isinstance(scopes, list) or "openid" not in scopes:
        found.append(f"{variable}.scopes: is no list with openid in it. Example: [openid, profile, groups]")
    if not isinstance(settings.get("blocked", []), list):
        found.append(f"{variable}.blocked: is no list of names. Example: [dana]")
    days = settings.get("remember_days", _KEYS["remember_days"])
    if isinstance(days, bool) or not isinstance(days, int) or not 1 <= days <= 365:
        found.append(f"{variable}.remember_days: {days} is no number from 1 to 365. Example: 90")
    return found + _group_problems(settings.get("groups"), access, variable)


def _group_problems(groups: Any, access: Any, variable: str) -> List[str]:
    if not groups:
        return []
    if not isinstance(groups, dict):
        return [f"{variable}.groups: is no mapping. Example: {{registry-developers: developers}}"]
    model = access.get("groups") if isinstance(access, dict) else None
    known = [str(name) for name in model] if isinstance(model, dict) else []
    return [
        f"{variable}.groups: {name}: the access model has no group {group}. Example: wharf_access: {{groups: {{{group}: []}}, …}}"
        for name, group in groups.items()
        if str(group) not in known
    ]


def build(settings: Mapping[str, Any]) -> Sso:
    """Return the provider of settings in which :func:`find_problems` finds nothing."""
    whole = {**_KEYS, **settings}
    return Sso(
        issuer=str(whole["issuer"]),
        client_id=str(whole["client_id"]),
        client_secret=str(whole["client_secret"]),
        groups={str(name): str(group) for name, group in whole["groups"].items()},
        name_claim=str(whole["name_claim"]),
        groups_claim=str(whole["groups_claim"]),
        scopes=tuple(str(scope) for scope in whole["scopes"]),
        blocked=frozenset(str(name) for name in whole["blocked"]),
        remember_days=whole["remember_days"],
    )
