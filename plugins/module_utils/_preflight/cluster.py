# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What must be true of a cluster before it is built: pure judgements, without input or output.

Private to the collection, for the controller. Two kinds of judgement, each a list of findings as ``host`` describes them:

* ``check_settings``: the variables alone;
* ``check_cluster``: what only shows when the observations of all hosts are laid side by side.

``report`` makes one text of all findings.
"""

from __future__ import annotations

import difflib
import ipaddress
import re
from typing import Any, Callable, Dict, Iterable, List, Mapping, Optional, Sequence

from .._access import check as access_check
from .._access import sso as access_sso
from .._audit import forward as audit_forward
from .._nfs.options import storage_problems
from .._registry.config import find_problems
from .._registry.versions import DEFAULT_VERSION
from .._sizes import size_problem
from .host import NODE_PORTS, REDIS_PORT, Finding, check_vip, finding, is_set

#: Variables that are judged here, beside the options of the registry.
SETTINGS = (
    "wharf_name", "wharf_port", "wharf_vip", "wharf_users", "wharf_access", "wharf_robots", "wharf_sso", "wharf_balancer_mode", "wharf_address",
    "ansible_host", "wharf_storage_quota", "wharf_audit_forward",
    "registry_storage_shared", "registry_image_archive", "wharf_registry_image_archive", "virtual_ip_priority", "virtual_ip_router_id",
)  # fmt: skip
_NETWORK_FILE_SYSTEMS = {
    "nfs", "nfs4", "ceph", "cephfs", "glusterfs", "gpfs", "lustre", "beegfs", "ocfs2", "gfs2", "cifs", "smb3", "9p", "afs",
}  # fmt: skip
_MAY_BE_SECRET = re.compile(r"pas|pw|secr|key|token|cred|user|vault|auth", re.IGNORECASE)
_LABEL = re.compile(r"^(?!-)[a-z0-9-]{1,63}(?<!-)$", re.IGNORECASE)


#: What the registry is told of tokens, in its form.
_TOKEN = {
    "realm": "https://registry.example.com/auth/token",
    "service": "registry.example.com",
    "issuer": "registry.example.com",
    "rootcertbundle": "/etc/wharf/registry/token.crt",
}


def nearest(name: str, known: Iterable[str]) -> str:
    """Return the name among ``known`` that ``name`` was probably meant to be, or an empty text."""
    matches = difflib.get_close_matches(name, sorted(known), n=1, cutoff=0.7)
    return matches[0] if matches else ""


#: Facts that roles of this collection publish for playbooks; they are no misspelt variables when a play comes after them.
PUBLISHED_FACTS = ("registry_pending", "registry_edge_pending", "registry_edge_serving", "nfs_storage_pending")


# --- the variables ---------------------------------------------------------------------------------------------------------------------


def find_unknown(names: Iterable[str], known: Iterable[str], prefixes: Optional[Iterable[str]] = None) -> List[Dict[str, str]]:
    """Return those of ``names`` that begin with a prefix and are not known: a list of ``name`` and ``nearest``, sorted by name.

    Args:
        names: names of variables.
        known: the documented ones.
        prefixes: without the underscore at their end; by default what stands before the first underscore of each known name.
    """
    accepted = {str(name) for name in known}
    heads = {name.split("_", 1)[0] for name in accepted} if prefixes is None else set(prefixes)
    begins = tuple(f"{head}_" for head in heads)
    unknown = sorted({str(name) for name in names if str(name).startswith(begins)} - accepted - set(PUBLISHED_FACTS))
    return [{"name": name, "nearest": nearest(name, accepted)} for name in unknown]


def check_unknown(unknown: Iterable[Mapping[str, Any]]) -> List[Finding]:
    """Return a finding for each of ``unknown``: what ``find_unknown`` returns, and the ``value`` if it is known."""
    found = []
    for item in unknown:
        cause = "no role of this collection knows this variable, so it would be ignored silently"
        if item["nearest"]:
            cure = f"did you mean {item['nearest']}? Rename it"
        else:
            cure = "remove it"
        cure += f"; a variable of your own needs another prefix, or: preflight_foreign_variables: [{item['name']}]"
        value = item.get("value")
        told = str(value) if isinstance(value, (bool, int, float, str)) and len(str(value)) <= 60 else "(set)"
        if _MAY_BE_SECRET.search(f"{item['name']} {item['nearest']}"):
            told = "(not shown)"
        found.append(finding("variables", item["name"], told, cause, cure))
    return found


def _name_problem(name: str, port: object) -> str:
    """Return why ``name`` cannot be the registry's name, or an empty text."""
    if "://" in name:
        return "it has a scheme; it is a name alone"
    if "/" in name:
        return "it has a path; it is a name alone"
    bare = name.strip("[]")
    try:
        ipaddress.ip_address(bare)
    except ValueError:
        pass
    else:
        return "it is an address; certificates, credentials and image names would be bound to that address for ever"
    if re.search(r":\d+$", name):
        return "it has a port; the port is wharf_port"
    if len(name) > 253 or not all(_LABEL.match(label) for label in name.split(".")):
        wrong = sorted(set(re.findall(r"[^A-Za-z0-9.-]", name)))
        what = f" ({' '.join(repr(char) for char in wrong)})" if wrong else ""
        return f"it is no host name: labels of letters, digits and hyphens, joined by dots{what}"
    if re.match(r"^[\d.]+$", name):
        return "it has digits and dots only, so it would be taken for an address"
    if "." not in name and name != "localhost" and port in (None, "", 443, "443"):
        return "it has no dot: on port 443 clients take such a word for a user of Docker Hub, not for a registry"
    return ""


def check_name(name: object, port: object = 443) -> List[Finding]:
    """Judge ``wharf_name``: a DNS name that clients cannot mistake for something else."""
    cure = "give the DNS name that clients use, for example wharf_name: registry.example.com"
    if not is_set(name):
        return [finding("variables", "wharf_name", "(not set)", "the registry needs a name that clients use", cure)]
    problem = _name_problem(str(name), port)
    return [finding("variables", "wharf_name", name, problem, cure)] if problem else []


def check_port(port: object, *, shared_with_node: bool, shared_with_cache: bool) -> List[Finding]:
    """Judge ``wharf_port``; ``shared_with_…``: a balancer is also a registry node, or carries the Redis."""
    cure = "take a free port, for example wharf_port: 443"
    if not is_set(port):
        return []
    if isinstance(port, bool) or not re.match(r"^\d+$", str(port)) or not 1 <= int(str(port)) <= 65535:
        return [finding("variables", "wharf_port", port, "it is no number from 1 to 65535", cure)]
    number = int(str(port))
    if (shared_with_node and number in (*NODE_PORTS, 5002)) or (shared_with_cache and number == REDIS_PORT):
        return [finding("variables", "wharf_port", port, "the cluster itself needs this port on a host that is also a balancer", cure)]
    return []


def check_choice(name: str, value: object, choices: Sequence[str]) -> List[Finding]:
    """Judge a variable that takes one of a few words."""
    if not is_set(value) or value in choices:
        return []
    near = nearest(str(value).lower(), choices) or choices[0]
    return [finding("variables", name, value, f"it is none of {', '.join(choices)}", f"for example {name}: {near}")]


#: Options of the registry that are judged before any host is changed -> the cluster-wide variable that they come from.
REGISTRY_OPTIONS: Dict[str, str] = {
    "version": "wharf_registry_version",
    "storage": "wharf_storage",
    "auth": "wharf_auth",
    "redis": "",
    "headers": "",
    "log_level": "",
    "extra_config": "",
}
_SECRET = re.compile(r"password|secret|accesskey|token|credential", re.IGNORECASE)


def _told(value: Any, path: Sequence[str]) -> str:
    """Return how the report shows the value at a path of the registry's options: never a secret, and never much."""
    for number, part in enumerate(path):
        if not isinstance(value, Mapping):
            return "(not set)" if value is None else "(a text)"
        if part not in value:
            return "(not set)"
        value = value[part]
        if path[0] == "storage" and number == 1 and number == len(path) - 1:
            return part  # the kind of storage says it
    if value is None or value == "":
        return "(not set)"
    if any(_SECRET.search(part) for part in path):
        return "(secret)"
    if isinstance(value, Mapping):
        return " and ".join(sorted(map(str, value))) or "{}"
    if isinstance(value, (bool, int, float)):
        return str(value).lower() if isinstance(value, bool) else str(value)
    # A longer text in place of a dictionary may hold a secret.
    return str(value) if len(path) > 2 or re.match(r"^[\w.+-]{1,30}$", str(value)) else "(a text)"


def check_registry(values: Mapping[str, Any], *, nodes: int) -> List[Finding]:
    """Judge what the registry is told, by the same rules as its role: storage, release, authentication and the rest.

    Args:
        values: variables by name, those of the role (``registry_storage``) and those of the cluster (``wharf_storage``).
        nodes: how many nodes there are.
    """
    options: Dict[str, Any] = {}
    names: Dict[str, str] = {}
    for option, alias in REGISTRY_OPTIONS.items():
        own = values.get(f"registry_{option}")
        if is_set(own) or not alias:
            options[option], names[option] = own, f"registry_{option}"
        else:
            options[option], names[option] = values.get(alias), alias
    if not is_set(options["version"]):
        options["version"] = DEFAULT_VERSION
    if is_set(options["version"]):
        options["version"] = str(options["version"])
    if isinstance(options["redis"], Mapping):
        options["redis"] = {key: value for key, value in options["redis"].items() if key != "ca_src"}  # a file on the controller
    given = {option: value for option, value in options.items() if is_set(value)}
    found = []
    storage = given.get("storage")
    if names["storage"] == "wharf_storage" and isinstance(storage, Mapping) and list(storage) == ["nfs"]:
        found += [finding("variables", item.option, item.value, item.cause, item.cure) for item in storage_problems(storage["nfs"])]
        given["storage"] = {"filesystem": {"rootdirectory": "/srv/wharf/nfs/registry"}}  # what the registry sees of it
    if given.get("auth") == "token":
        given["token"] = _TOKEN  # the role makes it of wharf_name
    for item in find_problems({"nodes": nodes, "http_secret": "0" * 64, **given}, "registry_"):
        path = item["variable"].split(" ")[0][len("registry_") :].split(".")
        variable = ".".join([names.get(path[0], f"registry_{path[0]}"), *path[1:]])
        example = item["example"]
        for option, name in names.items():
            example = re.sub(rf"\bregistry_{option}\b", name, example)
        cure = f"for example {example}" if example else "remove it"
        found.append(finding("variables", variable, _told(options, path), item["problem"], cure))
    return found


def check_quota(quota: object) -> List[Finding]:
    """Judge what the bucket may hold."""
    if not size_problem(quota, ""):
        return []
    cure = "write a size, for example wharf_storage_quota: 2TB (10^12 bytes each) or 500GiB (2^30)"
    return [finding("variables", "wharf_storage_quota", quota, "it is no size above 0", cure)]


def check_audit_forward(setting: object) -> List[Finding]:
    """Judge where the audit logs are to be sent."""
    cure = f"write for example wharf_audit_forward: {audit_forward.EXAMPLE}"
    found = []
    for sentence in audit_forward.find_problems(setting):
        where, _colon, cause = sentence.partition(": ")
        found.append(finding("variables", where, "(as set)", cause.partition("; ")[0], cure))
    return found


def check_users(users: object) -> List[Finding]:
    """Judge ``wharf_users``; passwords are looked at but never told."""
    example = 'for example wharf_users: [{name: ci, password: "{{ vault_ci_password }}"}]'
    if not is_set(users):
        return []
    if isinstance(users, (str, Mapping)) or not isinstance(users, Sequence):
        return [finding("variables", "wharf_users", "(not a list)", "it is no list of users", example)]
    found, seen = [], set()
    for number, user in enumerate(users):
        where = f"wharf_users[{number}]"
        if not isinstance(user, Mapping):
            found.append(finding("variables", where, "(not a dictionary)", "a user has a name and a password", example))
            continue
        for key in user:
            if key not in ("name", "password", "state"):
                found.append(finding("variables", f"{where}.{key}", "(set)", "a user has a name, a password and a state only", example))
        name = user.get("name")
        text = "" if name is None else str(name)
        if not text:
            found.append(finding("variables", f"{where}.name", "(not set)", "a user needs a name", example))
        elif ":" in text or re.search(r"[\x00-\x1f\x7f]", text):
            cause = "a name must have neither colons nor control characters"
            found.append(finding("variables", f"{where}.name", ascii(text), cause, example))
        elif len(text.encode()) > 255:
            found.append(finding("variables", f"{where}.name", f"{text[:20]}…", "a name has at most 255 bytes", example))
        elif text == "wharf-probe":
            cause = "this name belongs to the cluster's own health probe"
            found.append(finding("variables", f"{where}.name", text, cause, example))
        if text and text in seen:
            found.append(finding("variables", f"{where}.name", text, "this user is listed twice", "keep one entry for each name"))
        seen.add(text)
        state = user.get("state", "present")
        if state not in ("present", "absent"):
            found.append(finding("variables", f"{where}.state", state, "it is neither present nor absent", "for example state: present"))
        password = user.get("password")
        if state == "absent" and password is None:
            continue
        if password is None or password == "":
            found.append(finding("variables", f"{where}.password", "(empty)", f"user {text or number} has no password", example))
        elif len(str(password).encode()) > 72:
            cause = "it is longer than 72 bytes; bcrypt would ignore the rest silently"
            found.append(
                finding("variables", f"{where}.password", "(secret)", cause, "take at most 72 bytes, for example 32 random characters")
            )
    return found


def check_sso(sso: object, access: object, auth: object) -> List[Finding]:
    """Judge ``wharf_sso``; its secret is looked at but never told."""
    if not is_set(sso):
        return []
    if auth != "token":
        cure = "set wharf_auth: token, or leave wharf_sso away"
        return [finding("variables", "wharf_sso", "(set)", "people sign in for tokens, and this registry does not go by tokens", cure)]
    found = []
    for sentence in access_sso.find_problems(sso, access, "wharf_sso"):
        variable, _colon, rest = sentence.partition(": ")
        cause, _example, cure = rest.partition(". Example: ")
        found.append(finding("variables", variable, "(not told)", cause, f"for example {cure or access_sso.EXAMPLE}"))
    return found


def check_access(model: object, robots: object, users: Sequence[str]) -> List[Finding]:
    """Judge ``wharf_access`` and ``wharf_robots`` as the role token_auth does.

    Args:
        model: who may do what; nothing means that all users may do everything.
        robots: the accounts of machines.
        users: the names that people sign in with.
    """
    found = []
    model, robots = model if is_set(model) else {}, access_check.without_secrets(robots if is_set(robots) else [])
    for sentence in access_check.find_problems(model, users, robots, "wharf_access", "wharf_robots"):
        variable, _colon, cause = sentence.partition(": ")
        cause, example, cure = cause.partition(" Example: ")
        if not example:
            cause, _meant, meant = cause.partition("; did you mean ")
            cure = meant.rstrip("?")
        cure = f"for example {cure}" if cure else "see docs/access.md; playbooks/access.yml judges it without a host"
        found.append(finding("variables", variable, "(set)", cause.rstrip("."), cure))
    return found


def check_balancers(balancers: Mapping[str, Mapping[str, Any]]) -> List[Finding]:
    """Judge the VRRP variables of the balancers, in the inventory's order: host -> ``virtual_ip_priority``, ``virtual_ip_router_id``.

    Where no priority is set it is what the role virtual_ip takes: 254 for the first host, and 10 less for each that follows.
    """
    found: List[Finding] = []
    by_priority: Dict[int, List[str]] = {}
    router_ids: Dict[str, List[str]] = {}
    for number, host in enumerate(balancers):
        priority = balancers[host].get("virtual_ip_priority")
        if not is_set(priority):
            by_priority.setdefault(254 - 10 * min(24, number), []).append(host)
        else:
            if isinstance(priority, bool) or not re.match(r"^\d+$", str(priority)) or not 1 <= int(str(priority)) <= 254:
                cure = f"for example virtual_ip_priority: 100 for {host}"
                found.append(finding("variables", "virtual_ip_priority", priority, f"{host}: it is no number from 1 to 254", cure))
            else:
                by_priority.setdefault(int(str(priority)), []).append(host)
        router = balancers[host].get("virtual_ip_router_id")
        if is_set(router):
            router_ids.setdefault(str(router), []).append(host)
            if isinstance(router, bool) or not re.match(r"^\d+$", str(router)) or not 1 <= int(str(router)) <= 255:
                cure = "for example virtual_ip_router_id: 51"
                found.append(finding("variables", "virtual_ip_router_id", router, f"{host}: it is no number from 1 to 255", cure))
    for priority, hosts in sorted(by_priority.items()):
        if len(hosts) > 1:
            cure = ", ".join(f"{host}: virtual_ip_priority: {max(1, priority - 10 * number)}" for number, host in enumerate(hosts))
            cause = f"{' and '.join(hosts)} have the same keepalived priority, so which of them holds the virtual IP is chance"
            found.append(finding("variables", "virtual_ip_priority", priority, cause, f"give each host its own, for example {cure}"))
    if len(router_ids) > 1:
        value = ", ".join(f"{value} on {', '.join(hosts)}" for value, hosts in sorted(router_ids.items()))
        cause = "balancers with different router ids do not know of each other, and each takes the virtual IP"
        found.append(finding("variables", "virtual_ip_router_id", value, cause, "the same on all, for example virtual_ip_router_id: 51"))
    return found


def check_addresses(hosts: Mapping[str, Mapping[str, Any]], groups: Mapping[str, Sequence[str]], vip: object = "") -> List[Finding]:
    """Judge the hosts' addresses on the cluster's network: ``wharf_address``, else ``ansible_host``.

    Each node and each balancer has one of its own, and none of them is the virtual IP.
    """
    found: List[Finding] = []
    address_of: Dict[str, str] = {}
    for host, variables in sorted(hosts.items()):
        address = variables.get("wharf_address")
        if not is_set(address):
            if is_set(variables.get("ansible_host")):
                address_of[host] = str(variables["ansible_host"])
            continue
        address_of[host] = str(address)
        try:
            ipaddress.ip_address(str(address))
        except ValueError:
            if len(str(address)) > 253 or not all(_LABEL.match(label) for label in str(address).split(".")):
                cause, cure = f"{host}: it is neither an address nor a host name", f"for example wharf_address: 192.0.2.11 for {host}"
                found.append(finding("variables", "wharf_address", address, cause, cure))
    for group in ("registry_nodes", "registry_lb"):
        hosts_of: Dict[str, List[str]] = {}
        for host in groups.get(group) or []:
            if host in address_of:
                hosts_of.setdefault(address_of[host], []).append(str(host))
        for address, names in sorted(hosts_of.items()):
            if len(names) > 1:
                cause = f"{' and '.join(sorted(names))} of group {group} have the same address"
                cure = "give each host its own, for example wharf_address: 192.0.2.11"
                found.append(finding("variables", "wharf_address", address, cause, cure))
    for host in groups.get("registry_lb") or []:
        if is_set(vip) and not re.match(r"^\d+\.\d+\.\d+\.\d+$", address_of.get(host, "192.0.2.21")):
            cause = f"{host}: keepalived needs the IPv4 address of each balancer"
            cure = f"for example wharf_address: 192.0.2.21 for {host}"
            found.append(finding("variables", "wharf_address", address_of[host], cause, cure))
    own = sorted(host for host, address in address_of.items() if is_set(vip) and str(vip).partition("/")[0] == address)
    if own:
        cause = f"it is the own address of {', '.join(own)}; the virtual IP belongs to no host"
        cure = "take a free address of the same network, for example wharf_vip: 192.0.2.10/24"
        found.append(finding("variables", "wharf_vip", vip, cause, cure))
    return found


def check_archive(values: Mapping[str, Any], is_file: Callable[[str], bool]) -> List[Finding]:
    """Judge whether the controller has the file with the image, if one is named. ``is_file`` tells whether there is a file."""
    for name in ("registry_image_archive", "wharf_registry_image_archive"):
        path = values.get(name)
        if is_set(path):
            if is_file(str(path)):
                break
            cure = f"docker save -o {path} registry:3.1.2, or correct it, for example {name}: /srv/images/registry-3.1.2.tar"
            return [finding("variables", name, path, "there is no such file on the controller", cure)]
    return []


def check_settings(hosts: Mapping[str, Mapping[str, Any]], groups: Mapping[str, Sequence[str]]) -> List[Finding]:
    """Judge the variables of a cluster, without touching any host.

    Args:
        hosts: host name -> the values of the variables that are looked at (those that are not set: missing or None).
        groups: the inventory's groups -> names of their hosts.

    What belongs to the whole cluster must be the same on all hosts; a host that does not set it is no contradiction.
    """
    found: List[Finding] = []

    def members(group: str) -> List[str]:
        return [str(name) for name in groups.get(group) or []]

    def value_of(name: str) -> Any:
        values = [variables.get(name) for variables in hosts.values() if is_set(variables.get(name))]
        return values[0] if values else None

    for name in ("wharf_name", "wharf_port", "wharf_vip", "wharf_auth", "wharf_balancer_mode", "wharf_storage"):
        hosts_of: Dict[str, List[str]] = {}
        for host, variables in hosts.items():
            value = variables.get(name)
            if not is_set(value):
                continue
            if isinstance(value, Mapping):  # keys and endpoints may differ from host to host; where images are must not
                value = ", ".join(
                    f"{kind} {parameters.get('bucket') or parameters.get('export') or parameters.get('rootdirectory')}"
                    for kind, parameters in value.items()
                    if isinstance(parameters, Mapping)
                )
            hosts_of.setdefault(str(value), []).append(host)
        if len(hosts_of) > 1:
            value = "; ".join(f"{value} on {', '.join(sorted(names))}" for value, names in sorted(hosts_of.items()))
            cause, cure = "it differs between hosts of one cluster", f"set {name} once, in group_vars/all"
            found.append(finding("variables", name, value, cause, cure))

    nodes, balancers, caches = members("registry_nodes"), members("registry_lb"), members("registry_cache")
    if nodes:
        found += check_name(value_of("wharf_name"), value_of("wharf_port"))
        names = [*(f"registry_{option}" for option in REGISTRY_OPTIONS), *filter(None, REGISTRY_OPTIONS.values())]
        found += check_registry({name: value_of(name) for name in names}, nodes=len(nodes))
    elif is_set(value_of("wharf_name")):
        found += check_name(value_of("wharf_name"), value_of("wharf_port"))
    found += check_port(
        value_of("wharf_port"),
        shared_with_node=bool(set(nodes) & set(balancers)),
        shared_with_cache=bool(set(caches) & set(balancers)),
    )
    found += check_choice("wharf_balancer_mode", value_of("wharf_balancer_mode"), ("http", "stream"))
    found += check_quota(value_of("wharf_storage_quota"))
    found += check_audit_forward(value_of("wharf_audit_forward"))
    found += check_users(value_of("wharf_users"))
    found += check_sso(value_of("wharf_sso"), value_of("wharf_access"), value_of("wharf_auth"))
    found += check_vip(value_of("wharf_vip"))
    found += check_balancers({name: hosts[name] for name in balancers if name in hosts})
    found += check_addresses(hosts, groups, value_of("wharf_vip"))
    return found


# --- all hosts together ----------------------------------------------------------------------------------------------------------------


def _check_names(
    seen: Mapping[str, Mapping[str, Any]], groups: Mapping[str, Sequence[str]], settings: Mapping[str, Any]
) -> Dict[str, List[Finding]]:
    """Judge what the registry's name resolves to on nodes and clients."""
    name = settings.get("wharf_name")
    if not is_set(name) or check_name(name, settings.get("wharf_port")):
        return {}
    balancers = list(groups.get("registry_lb") or [])
    right = {str(address) for address in settings.get("preflight_name_addresses") or []}
    if is_set(settings.get("wharf_vip")):
        right.add(str(settings["wharf_vip"]).partition("/")[0])
    complete = bool(right) or bool(balancers)
    for host in balancers:
        if host in seen:
            right |= {item["address"].partition("/")[0] for item in seen[host].get("addresses") or []}
        else:
            complete = False
    right = {address for address in right if not ipaddress.ip_address(address).is_loopback}
    target = str(settings.get("wharf_vip") or "").partition("/")[0] or next(iter(sorted(right)), "192.0.2.10")
    found: Dict[str, List[Finding]] = {}
    for host, observed in seen.items():
        client = host in (groups.get("registry_clients") or [])
        if not client and host not in (groups.get("registry_nodes") or []):
            continue
        addresses = observed.get("resolved")
        if addresses is None:
            continue
        if not addresses:
            if client:
                cause = "clients cannot resolve the registry's name"
                cure = f"add it to the DNS (or /etc/hosts), for example: {target} {name}"
                found.setdefault(host, []).append(finding("name", "wharf_name", name, cause, cure))
            continue
        wrong = [
            address for address in addresses
            if address not in right and not (ipaddress.ip_address(address).is_loopback and host in balancers)
        ]  # fmt: skip
        if wrong and complete:
            what = "the virtual IP or a balancer's address" if is_set(settings.get("wharf_vip")) else "a balancer's address"
            cause = f"here the name resolves to {', '.join(wrong)}, which is not {what}"
            cure = f"correct the DNS (or /etc/hosts), for example: {target} {name}"
            cure += f"; if the way leads over another address (NAT): preflight_name_addresses: [{wrong[0]}]"
            found.setdefault(host, []).append(finding("name", "wharf_name", name, cause, cure))
    return found


def _check_strangers(seen: Mapping[str, Mapping[str, Any]], groups: Mapping[str, Sequence[str]], vip: str) -> Dict[str, List[Finding]]:
    """Judge whether the address of the virtual IP is answered by somebody who is no balancer of ours."""
    balancers = [str(host) for host in groups.get("registry_lb") or []]
    if not vip or any(host not in seen for host in balancers):
        return {}  # one that is down for us may still hold the address
    ours = {mac.lower() for host in balancers for mac in seen[host].get("macs") or []}
    held = any(seen[host].get("vip", {}).get("held") for host in balancers)
    found: Dict[str, List[Finding]] = {}
    for host in balancers:
        answer = seen[host].get("vip", {}).get("answer") or ""
        if not answer or answer.lower() in ours or (answer == "ping" and held):
            continue
        who = "a host" if answer == "ping" else f"a host with the hardware address {answer}"
        cause = f"{who} that is no balancer answers for this address"
        cure = "take a free address of the network, or remove it from that host; for example wharf_vip: 192.0.2.10/24"
        found.setdefault(host, []).append(finding("vip", "wharf_vip", vip, cause, cure))
    return found


def _check_shared_directory(
    seen: Mapping[str, Mapping[str, Any]], groups: Mapping[str, Sequence[str]], settings: Mapping[str, Any]
) -> Dict[str, List[Finding]]:
    """Judge file system storage of several nodes: all must see the same directory."""
    storage = settings.get("wharf_storage")
    nodes = [str(host) for host in groups.get("registry_nodes") or []]
    if settings.get("registry_storage_shared") is True or len(nodes) < 2:
        return {}
    if not isinstance(storage, Mapping) or not isinstance(storage.get("filesystem"), Mapping):
        return {}
    path = storage["filesystem"].get("rootdirectory")
    cure = "mount one network file system there on every node, or use S3, for example wharf_storage: {s3: {bucket: images, region: us-east-1, …}}"
    cure += "; if the directory is shared all the same: registry_storage_shared: true"
    found: Dict[str, List[Finding]] = {}
    sources: Dict[str, List[str]] = {}
    for host in nodes:
        directory = (seen.get(host, {}).get("storage") or {}).get("filesystem")
        if not directory:
            continue
        kind = str(directory.get("type") or "unknown")
        if kind not in _NETWORK_FILE_SYSTEMS and not kind.startswith("fuse."):
            cause = f"{len(nodes)} nodes must share their storage, but this directory is on a local file system here ({kind})"
            found.setdefault(host, []).append(finding("storage", "wharf_storage.filesystem.rootdirectory", path, cause, cure))
        else:
            sources.setdefault(str(directory.get("source")), []).append(host)
    if len(sources) > 1:
        told = "; ".join(f"{source} on {', '.join(hosts)}" for source, hosts in sorted(sources.items()))
        item = finding("storage", "wharf_storage.filesystem.rootdirectory", path, f"the nodes have mounted different things: {told}", cure)
        for hosts in sources.values():
            for host in hosts:
                found.setdefault(host, []).append(item)
    return found


def check_cluster(
    seen: Mapping[str, Mapping[str, Any]], groups: Mapping[str, Sequence[str]], settings: Mapping[str, Any]
) -> Dict[str, List[Finding]]:
    """Judge what shows only when the observations of all hosts are laid side by side.

    Args:
        seen: host name -> what ``observe`` saw; hosts that could not be reached are missing.
        groups: the inventory's groups -> names of their hosts.
        settings: the cluster's variables, and ``preflight_name_addresses``.

    Returns:
        Host name -> its findings.
    """
    vip = str(settings.get("wharf_vip") or "")
    found: Dict[str, List[Finding]] = {}
    for part in (
        _check_names(seen, groups, settings),
        _check_strangers(seen, groups, "" if check_vip(vip) else vip),
        _check_shared_directory(seen, groups, settings),
    ):
        for host, items in part.items():
            found.setdefault(host, []).extend(items)
    return found


# --- the report ------------------------------------------------------------------------------------------------------------------------


def report(found: Mapping[str, Iterable[Finding]], missing: Iterable[str] = (), count: int = 0) -> str:
    """Return the one text that an operator reads.

    Args:
        found: host name -> its findings; an empty name for those of the variables.
        missing: hosts that could not be reached.
        count: how many hosts were looked at.

    The variables come first, then the hosts' findings sorted by their subject; the same finding of many hosts is told once.
    """
    groups: Dict[tuple[str, ...], List[str]] = {}
    for host in sorted(found):
        for item in found[host]:
            key = (item["variable"], item["value"], item["cause"], item["cure"])
            hosts = groups.setdefault(key, [])
            if host and host not in hosts:
                hosts.append(host)
    absent = sorted(missing)
    left_out = f"Not reached, and therefore not looked at: {', '.join(absent)}." if absent else ""
    if not groups:
        return f"Nothing stands in the way on {count} host{'' if count == 1 else 's'}. {left_out}".strip()
    lines = [f"Preflight found {len(groups)} problem{'' if len(groups) == 1 else 's'}; nothing was changed on any host.", ""]
    order = sorted(groups.items(), key=lambda pair: (bool(pair[1]), pair[0], pair[1]))
    for number, ((variable, value, cause, cure), hosts) in enumerate(order, 1):
        lines.append(f"{number}. {variable} = {value}" + (f"   [{', '.join(hosts)}]" if hosts else ""))
        lines.append(f"   wrong: {cause}")
        lines.append(f"   cure:  {cure}")
    if left_out:
        lines += ["", left_out]
    return "\n".join(lines)
