# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This file is private to the collection: it may change in any release.

"""An nftables table of our own that refuses connections to named ports from strangers, and nothing else.

A packet is refused only if it opens a TCP connection to one of the ports and its source is neither this host nor an
address that the port's rule allows. Whatever the table does not refuse goes on to the rules of others (Docker,
firewalld, ufw) as if the table were not there. Syntax: nft(8).
"""

from __future__ import annotations

import hashlib
import ipaddress
import re
import socket
from dataclasses import dataclass
from typing import Any, Callable, Iterable, Mapping, Sequence, Union

TABLE = "wharf"
_NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9 ._-]{0,62}$")
_PORTS = re.compile(r"^(?P<first>[0-9]{1,5})(?:-(?P<last>[0-9]{1,5}))?$")

Network = Union[ipaddress.IPv4Network, ipaddress.IPv6Network]
Resolve = Callable[[str], "list[str]"]


class RuleRefused(ValueError):
    """A rule cannot be used; the message says which, why, and what to write instead."""


@dataclass(frozen=True)
class Rule:
    """Ports, as inclusive ranges, and the networks that may connect to them."""

    name: str
    ports: tuple[tuple[int, int], ...]
    allow: tuple[Network, ...]


def resolve(name: str) -> list[str]:
    """Return the addresses of a host name as this host sees them; an unknown name has none."""
    try:
        answers = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return []
    return sorted({str(answer[4][0]).split("%", maxsplit=1)[0] for answer in answers})


def read_rules(rules: Iterable[Mapping[str, Any]], allow: Sequence[str], never: Sequence[int], resolver: Resolve = resolve) -> list[Rule]:
    """Return the rules of the option ``rules``, checked and with host names resolved.

    :param allow: addresses, networks or names that every rule allows.
    :param never: ports that must not be closed, because the host is administered through them.
    :raises RuleRefused: naming the rule.
    """
    everywhere = [network for item in allow for network in _networks(item, "allow", resolver)]
    read = []
    names: set[str] = set()
    for rule in rules:
        name = str(rule["name"])
        if not _NAME.match(name) or name in names:
            raise RuleRefused(
                f"rules: {name!r} is no name, or is there twice; letters, digits, blanks and ._- may stand in it, e.g. 'redis'"
            )
        names.add(name)
        ports = tuple(sorted(_port_range(item, name) for item in rule["ports"]))
        if not ports:
            raise RuleRefused(f"rules: {name} names no ports; write for example ports: [6379]")
        for first, last in ports:
            for port in never:
                if first <= port <= last:
                    raise RuleRefused(f"rules: {name} would close port {port}, through which this host is administered")
        networks = everywhere + [network for item in rule.get("allow") or [] for network in _networks(item, name, resolver)]
        read.append(Rule(name, ports, tuple(_collapsed(networks))))
    return read


def _port_range(text: Any, rule: str) -> tuple[int, int]:
    match = _PORTS.match(str(text).strip())
    if match:
        first = int(match.group("first"))
        last = int(match.group("last") or first)
        if 1 <= first <= last <= 65535:
            return first, last
    raise RuleRefused(f"rules: {rule}: {text!r} is no port; write a number or a range, for example 6379 or 5443-5444")


def _networks(text: Any, rule: str, resolver: Resolve) -> list[Network]:
    value = str(text).strip()
    try:
        return [ipaddress.ip_network(value, strict=False)]
    except ValueError:
        pass
    addresses = resolver(value) if value else []
    if not addresses:
        raise RuleRefused(
            f"rules: {rule}: {value!r} is neither address nor network, and this host cannot resolve it as a name; "
            "write for example 192.0.2.10 or 2001:db8::/64 (for a host of the inventory: set its wharf_address)"
        )
    return [ipaddress.ip_network(address) for address in addresses]


def _collapsed(networks: Iterable[Network]) -> list[Network]:
    """Return the networks without overlaps, which a set of intervals must not have."""
    every = list(networks)
    four: list[Network] = list(ipaddress.collapse_addresses(n for n in every if isinstance(n, ipaddress.IPv4Network)))
    six: list[Network] = list(ipaddress.collapse_addresses(n for n in every if isinstance(n, ipaddress.IPv6Network)))
    return four + six


def render(rules: Iterable[Rule]) -> str:
    """Return the nft script that puts the table in place of any older one, in one transaction."""
    lines = []
    for rule in rules:
        ports = ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in rule.ports)
        lines.append(f"        # {rule.name}")
        for version, family, protocol in ((4, "ip", "ipv4"), (6, "ip6", "ipv6")):
            allowed = ", ".join(_element(network) for network in rule.allow if network.version == version)
            source = f"{family} saddr != {{ {allowed} }}" if allowed else f"meta nfproto {protocol}"
            lines.append(
                f"        {source} tcp dport {{ {ports} }} tcp flags & (fin | syn | rst | ack) == syn "
                f'counter reject with tcp reset comment "{rule.name}"'
            )
    body = "\n".join(lines)
    mark = hashlib.sha256(body.encode()).hexdigest()[:16]
    return f"""#!/usr/sbin/nft -f
# Managed by the role wharf.registry.closed_ports; changes are overwritten.
# Refuses connections to the ports below from everybody but this host and the addresses listed.

table inet {TABLE}
delete table inet {TABLE}

table inet {TABLE} {{
    chain input {{
        type filter hook input priority -10; policy accept;
        iifname "lo" accept comment "rules {mark}"
{body}
    }}
}}
"""


def _element(network: Network) -> str:
    return str(network.network_address) if network.num_addresses == 1 else str(network)


def is_loaded(script: str, listing: str) -> bool:
    """Say whether a listing of the table (``nft list table``) shows the rules of *script*."""
    mark = re.search(r'comment "rules ([0-9a-f]{16})"', script)
    return (
        mark is not None
        and f'"rules {mark.group(1)}"' in listing
        and listing.count("reject with tcp reset") == script.count("reject with tcp reset")
    )
