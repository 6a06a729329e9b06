# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This file is private to the collection: it may change in any release.

"""What a Docker engine's ``daemon.json`` becomes when our options meet those that others put there.

The file has one owner for the engine but often several writers: an administrator, a GPU toolkit, this collection. So
it is merged in three ways: what is there, what we put there last time, what we want there now. Format and option names:
https://docs.docker.com/reference/cli/dockerd/#daemon-configuration-file
"""

from __future__ import annotations

import copy
import json
import re
import shlex
from dataclasses import dataclass, field
from typing import Any

# Options that a running engine takes over at SIGHUP (the same page, "Configuration reload behavior").
RELOADABLE = frozenset(
    """
    debug labels live-restore max-concurrent-downloads max-concurrent-uploads max-download-attempts default-runtime
    runtimes authorization-plugins insecure-registries registry-mirrors shutdown-timeout features
    """.split()
)

# Options of Docker 20.10, the last generation that cannot validate its configuration by itself.
KNOWN_TO_20_10 = frozenset(
    """
    allow-nondistributable-artifacts api-cors-header authorization-plugins bip bridge builder cgroup-parent cluster-advertise
    cluster-store cluster-store-opts containerd containerd-namespace containerd-plugin-namespace cpu-rt-period cpu-rt-runtime
    data-root debug default-address-pools default-cgroupns-mode default-gateway default-gateway-v6 default-ipc-mode
    default-runtime default-shm-size default-ulimits deprecated-key-path dns dns-opts dns-search exec-opts exec-root
    experimental features fixed-cidr fixed-cidr-v6 group hosts host-gateway-ip icc init init-path insecure-registries ip
    ip-forward ip-masq iptables ip6tables ipv6 labels live-restore log-driver log-level log-opts max-concurrent-downloads
    max-concurrent-uploads max-download-attempts metrics-addr mtu network-control-plane-mtu no-new-privileges
    node-generic-resources oom-score-adjust pidfile raw-logs registry-mirrors rootless runtimes seccomp-profile
    selinux-enabled shutdown-timeout storage-driver storage-opts swarm-default-advertise-addr tls tlscacert tlscert tlskey
    tlsverify userland-proxy userland-proxy-path userns-remap
    """.split()
)

_MISSING = object()
_SECRET_NAME = re.compile(r"token|password|passwd|secret|access-?key", re.IGNORECASE)
_URL_CREDENTIALS = re.compile(r"(?<=://)[^/@\s]+(?=@)")


class ConfigurationRefused(ValueError):
    """The options, or the file that is there, cannot be used; the message says why and what to write instead."""


@dataclass(frozen=True)
class Plan:
    """What the file and our record of it become, and what the engine has to do about it."""

    before: dict[str, Any]
    after: dict[str, Any]
    record: dict[str, Any]
    changed_keys: list[str] = field(default_factory=list)

    @property
    def changed(self) -> bool:
        """Whether the file's meaning changes; its formatting alone never counts."""
        return bool(self.changed_keys)

    @property
    def restart_keys(self) -> list[str]:
        """Changed options that a running engine does not take over. A removed option keeps its value until a restart."""
        return [key for key in self.changed_keys if key not in RELOADABLE or key not in self.after]


def parse(text: str, path: str) -> dict[str, Any]:
    """Return the options in the text of a ``daemon.json``; an empty file means none.

    :raises ConfigurationRefused: if it is no JSON object, or names an option twice (the engine would take either).
    """
    if not text.strip():
        return {}

    def refuse_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        names = [name for name, _value in pairs]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ConfigurationRefused(f"{path} names {', '.join(twice)} twice; keep one of them, then run again")
        return dict(pairs)

    try:
        options = json.loads(text, object_pairs_hook=refuse_twice)
    except json.JSONDecodeError as error:
        raise ConfigurationRefused(
            f"{path} is no valid JSON: {error.msg} in line {error.lineno}, column {error.colno}; repair or remove it, then run again"
        ) from None
    if not isinstance(options, dict):
        raise ConfigurationRefused(f'{path} holds no JSON object; it looks for example like {{"live-restore": true}}')
    return options


def render(options: dict[str, Any]) -> str:
    """Return the text of a ``daemon.json``."""
    return json.dumps(options, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def plan(current: dict[str, Any], record: dict[str, Any], wanted: dict[str, Any]) -> Plan:
    """Merge the options *wanted* into the *current* ones.

    :param record: what an earlier run put there (:attr:`Plan.record`), so that options no longer wanted go and those of
        others stay.
    :param wanted: the options; ``None`` as a value means "none of ours".
    """
    after, new_record = _merge(current, record, _without_none(wanted))
    changed = sorted(key for key in {*current, *after} if current.get(key, _MISSING) != after.get(key, _MISSING))
    return Plan(before=current, after=after, record=new_record, changed_keys=changed)


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_none(item) for key, item in value.items() if item is not None}
    return value


def _merge(theirs: Any, ours_before: Any, ours: Any) -> tuple[Any, Any]:
    """Return the merged value and which part of it is ours."""
    if isinstance(ours, dict):
        merged = copy.deepcopy(theirs) if isinstance(theirs, dict) else {}
        before = ours_before if isinstance(ours_before, dict) else {}
        mine: dict[str, Any] = {}
        for key in sorted(set(before) - set(ours)):
            value = _without_ours(merged.get(key, _MISSING), before[key])
            if value is _MISSING:
                merged.pop(key, None)
            else:
                merged[key] = value
        for key, value in ours.items():
            merged[key], part = _merge(merged.get(key, _MISSING), before.get(key, _MISSING), value)
            if part is not _MISSING:
                mine[key] = part
        return merged, mine
    if isinstance(ours, list):
        before_list = ours_before if isinstance(ours_before, list) else []
        foreign = [item for item in theirs if item not in before_list] if isinstance(theirs, list) else []
        mine_list = [item for item in ours if item not in foreign]
        return ours + [item for item in foreign if item not in ours], mine_list
    if theirs == ours and type(theirs) is type(ours) and ours_before is _MISSING:
        return ours, _MISSING  # it was there before us, so it is not ours to remove
    return ours, ours


def _without_ours(theirs: Any, ours_before: Any) -> Any:
    """Return what others have in a value after our part is gone, ``_MISSING`` if nothing."""
    if isinstance(theirs, dict) and isinstance(ours_before, dict):
        rest = dict(theirs)
        for key, value in ours_before.items():
            part = _without_ours(rest.get(key, _MISSING), value)
            if part is _MISSING:
                rest.pop(key, None)
            else:
                rest[key] = part
        return rest or _MISSING
    if isinstance(theirs, list) and isinstance(ours_before, list):
        rest_list = [item for item in theirs if item not in ours_before]
        return rest_list or _MISSING
    return _MISSING if theirs == ours_before else theirs


def refuse_unknown(options: dict[str, Any]) -> None:
    """Refuse options that Docker 20.10 does not know (newer engines check by themselves).

    :raises ConfigurationRefused: naming them.
    """
    unknown = sorted(set(options) - KNOWN_TO_20_10)
    if unknown:
        raise ConfigurationRefused(
            f"this engine (20.10 or older) does not know the option {', '.join(unknown)}; "
            "see https://docs.docker.com/reference/cli/dockerd/#daemon-configuration-file"
        )


def daemon_flags(exec_start: str) -> list[str]:
    """Return the flags a unit gives ``dockerd``, from ``systemctl show --property ExecStart``.

    They matter because an option that is both a flag and in the file keeps the engine from starting. Variables of the
    unit's environment are not known here and left out.
    """
    match = re.search(r"argv\[\]=(.*?) ; ignore_errors=", exec_start)
    if match is None:
        return []
    try:
        words = shlex.split(match.group(1))[1:]
    except ValueError:
        return []
    flags: list[str] = []
    skip = False
    for word in words:
        if skip:
            skip = False
        elif word in ("--config-file", "--pidfile", "-p"):
            skip = True
        elif not word.startswith(("$", "--config-file=", "--pidfile=")):
            flags.append(word)
    return flags


def public(value: Any, name: str = "") -> Any:
    """Return a copy fit for a diff: log drivers' tokens and the passwords in proxy addresses are hidden."""
    if isinstance(value, dict):
        return {key: public(item, str(key)) for key, item in value.items()}
    if isinstance(value, list):
        return [public(item, name) for item in value]
    if isinstance(value, str):
        return "<secret>" if _SECRET_NAME.search(name) else _URL_CREDENTIALS.sub("<secret>", value)
    return value
