# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filter: the results of the module preflight on all hosts, and the variables, to one verdict."""

from __future__ import annotations

DOCUMENTATION = r"""
name: preflight_report
short_description: One verdict on the variables and all hosts
version_added: 0.1.0
author:
  - wharf.registry contributors (@wharf-registry)
description:
  - Judges the variables of a cluster, adds what M(wharf.registry.preflight) found on each host and what shows only when hosts are
    compared, and makes one text of it.
  - It is what the role P(wharf.registry.preflight#role) ends with.
positional: hostvars, groups
options:
  _input:
    description: Names of all hosts of the play, also of those that could not be reached.
    type: list
    elements: str
    required: true
  hostvars:
    description: Ansible's C(hostvars).
    type: dict
    required: true
  groups:
    description: Ansible's C(groups).
    type: dict
    required: true
  result:
    description: Name of the variable of each host that holds the result of the module.
    type: str
    default: __preflight_result
  reached:
    description: Names of the hosts that are still in the play.
    type: list
    elements: str
    default: []
  settings:
    description: Values of the cluster's variables as the play sees them, beside those that C(hostvars) tells.
    type: dict
    default: {}
  names:
    description: Names of variables that the play sees, beside those that C(hostvars) tells.
    type: list
    elements: str
    default: []
  roles:
    description: Directory of the roles whose argument specifications say which variables there are. Without it none is refused.
    type: path
    default: ''
  foreign:
    description: Names of variables that look like the collection's, but belong to something else.
    type: list
    elements: str
    default: []
  skip:
    description: Kinds of findings that are left out.
    type: list
    elements: str
    default: []
"""

EXAMPLES = r"""
- name: Fail once, with everything that stands in the way
  ansible.builtin.assert:
    that: __report.passed
    fail_msg: "{{ __report.text }}"
  vars:
    __report: >-
      {{ ansible_play_hosts_all | wharf.registry.preflight_report(hostvars, groups, reached=ansible_play_hosts, result='looked') }}
  run_once: true
"""

RETURN = r"""
_value:
  description: The verdict.
  type: dict
  contains:
    passed:
      description: Whether nothing stands in the way.
      type: bool
    findings:
      description: Host name to its findings as M(wharf.registry.preflight) returns them; an empty name for those of the variables.
      type: dict
    text:
      description: The report for a person.
      type: str
"""

import functools
import glob
import os

import yaml

from ansible_collections.wharf.registry.plugins.module_utils import _plain
from ansible_collections.wharf.registry.plugins.module_utils._access.model import PROBE, ROBOT_PREFIX
from ansible_collections.wharf.registry.plugins.module_utils._preflight import cluster
from ansible_collections.wharf.registry.plugins.module_utils._preflight.host import is_set, module_failure

_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

_SETTINGS = (
    *cluster.SETTINGS,
    *(f"registry_{option}" for option in cluster.REGISTRY_OPTIONS),
    *filter(None, cluster.REGISTRY_OPTIONS.values()),
)


@functools.cache
def documented_variables(roles):
    """Return the prefixes and the names of the variables in the argument specifications of the roles in a directory."""
    names: set[str] = set()
    prefixes = {"wharf"}
    for path in sorted(glob.glob(os.path.join(roles, "*", "meta", "argument_specs.yml"))):
        prefixes.add(os.path.basename(os.path.dirname(os.path.dirname(path))))
        with open(path, encoding="utf-8") as handle:
            document = yaml.load(handle, Loader=_Loader) or {}
        for entry in (document.get("argument_specs") or {}).values():
            names.update((entry or {}).get("options") or {})
    return frozenset(prefixes), frozenset(names)


def _values(variables):
    """Return the settings among the variables of one host; what is not set is left out."""
    return {name: variables[name] for name in _SETTINGS if name in variables}


def _value(hostvars, host, name):
    """Return the value of an unknown variable for the report; None if it has none that can be told."""
    try:
        return hostvars[host][name] if host else None
    except Exception:  # its template may need what is not there; that it is unknown is enough
        return None


def _accounts(users, htpasswd):
    """Return the names that people sign in with for tokens: of the variable, or of the file, or of the account that is made without either."""
    named = [user.get("name") for user in users or () if isinstance(user, dict)] if isinstance(users, list) else []
    if not named and htpasswd and os.path.isfile(htpasswd):
        with open(htpasswd, encoding="utf-8", errors="replace") as handle:
            listed = [line.split(":")[0].strip() for line in handle if line.strip() and not line.startswith("#")]
        named = [name for name in listed if name != PROBE and not name.startswith(ROBOT_PREFIX)]
    return [str(name) for name in named if name] or ["admin"]


def preflight_report(
    hosts, hostvars, groups, result="__preflight_result", reached=(), settings=None, names=(), roles="", foreign=(), skip=()
):
    """Return ``passed``, ``findings`` and ``text``; see DOCUMENTATION."""
    hosts, reached = [str(host) for host in hosts], [str(host) for host in reached]
    own = {name: value for name, value in (settings or {}).items() if is_set(value)}
    variables = {host: _values(hostvars[host]) for host in hosts}
    for host in reached[:1]:
        variables[host].update(own)
    found = {"": cluster.check_settings(variables, groups)}
    common = {}
    for values in variables.values():
        common.update({name: value for name, value in values.items() if name not in common and is_set(value)})
    common.update(own)
    if groups.get("registry_nodes"):
        found[""] += cluster.check_archive(common, lambda path: os.path.isfile(os.path.expanduser(path)))
    if common.get("wharf_auth") == "token":
        asked = [common.get(name) for name in ("wharf_access", "wharf_robots", "wharf_users")]
        access, robots, users = _plain.plain(asked)
        found[""] += cluster.check_access(access, robots, _accounts(users, common.get("token_auth_htpasswd_src")))

    if roles:
        prefixes, known = documented_variables(os.path.realpath(roles))
        hosts_of: dict[str, str] = {}
        for host in hosts:
            for name in hostvars[host]:
                hosts_of.setdefault(str(name), host)
        used = {*hosts_of, *map(str, names)}
        unknown = cluster.find_unknown(used, known.union(map(str, foreign)), prefixes)
        for item in unknown:
            item["value"] = _value(hostvars, hosts_of.get(item["name"]), item["name"])
        found[""] += cluster.check_unknown(unknown)

    seen, missing = {}, [host for host in hosts if host not in reached]
    for host in reached:
        answer = hostvars[host].get(result) or {}
        if answer.get("unreachable"):
            missing.append(host)
        elif "findings" in answer:
            found[host] = list(answer["findings"])
            seen[host] = answer["observed"]
        else:
            found[host] = [module_failure(answer, str(hostvars[host].get("ansible_python_interpreter") or ""))]
    for host, items in cluster.check_cluster(seen, groups, common).items():
        found.setdefault(host, []).extend(item for item in items if item["check"] not in skip)
    return {
        "passed": not any(found.values()),
        "findings": found,
        "text": cluster.report(found, missing, count=len(seen)),
    }


class FilterModule:
    """Filters of this file."""

    def filters(self):
        """Return the filters by name."""
        return {"preflight_report": preflight_report}
