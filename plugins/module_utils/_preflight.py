# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What must be true before a cluster is built: pure judgements, without input or output.

Private to the collection. Three kinds of judgement, each a list of findings:

* ``check_settings``: the variables alone, on the controller;
* ``check_host``: one host, from what ``_preflight_host.observe`` saw there;
* ``check_cluster``: what only shows when the observations of all hosts are laid side by side.

A finding is a dictionary of strings: ``check`` (its kind, one of ``CHECKS``), ``variable`` (what to look at), ``value`` (as found, never a
secret), ``cause`` (what is wrong with it) and ``cure`` (what to do, with an example that works). ``report`` makes one text of many.
"""

from __future__ import annotations

import difflib
import ipaddress
import re
from typing import Any, Dict, Iterable, List, Mapping, Optional, Sequence

from ._registry_versions import DEFAULT_VERSION, check_version
from ._s3 import find_endpoint

Finding = Dict[str, str]

#: Kinds of findings. Those of hosts may be skipped by name; ``variables`` are the settings themselves, ``python`` is the host's Python.
CHECKS = (
    "cpu", "disk", "link", "memory", "name", "os", "ports", "ssd", "storage", "systemd", "time", "vip", "variables", "python",
)  # fmt: skip
SKIPPABLE = tuple(name for name in CHECKS if name not in ("variables", "python"))

#: Ports on a node that nobody but its own services may hold.
NODE_PORTS = (5000, 5001, 5003, 5443, 5444)
REDIS_PORT = 6379

_STORAGE_EXAMPLE = (
    'wharf_storage: {s3: {bucket: images, region: us-east-1, regionendpoint: "https://s3.example.com", accesskey: …, secretkey: …}}'
)
_STORAGE_EXAMPLES: Dict[str, str] = {
    "filesystem": "wharf_storage: {filesystem: {rootdirectory: /var/lib/wharf/registry}}",
    "nfs": "wharf_storage: {nfs: {server: nfs.example.com, export: /srv/registry}}",
    "s3": _STORAGE_EXAMPLE,
}
#: Parameters of the storage drivers, from distribution's documentation of 2.8 and 3.x.
_STORAGE_KEYS: Dict[str, Sequence[str]] = {
    "filesystem": ("rootdirectory", "maxthreads"),
    "nfs": ("server", "export", "options", "rootdirectory", "maxthreads"),
    "s3": (
        "accelerate", "accesskey", "bucket", "chunksize", "encrypt", "forcepathstyle", "keyid", "loglevel", "multipartcopychunksize",
        "multipartcopymaxconcurrency", "multipartcopythresholdsize", "objectacl", "redirectendpoint", "region", "regionendpoint",
        "rootdirectory", "secretkey", "secure", "sessiontoken", "skipverify", "storageclass", "usedualstack", "usefipsendpoint",
        "useragent", "v4auth",
    ),
}  # fmt: skip
_NETWORK_FILE_SYSTEMS = {
    "nfs", "nfs4", "ceph", "cephfs", "glusterfs", "gpfs", "lustre", "beegfs", "ocfs2", "gfs2", "cifs", "smb3", "9p", "afs",
}  # fmt: skip
_LABEL = re.compile(r"^(?!-)[a-z0-9-]{1,63}(?<!-)$", re.IGNORECASE)


def finding(check: str, variable: str, value: object, cause: str, cure: str) -> Finding:
    """Return one finding; see the module's text for what its parts mean."""
    return {"check": check, "variable": variable, "value": str(value), "cause": cause, "cure": cure}


def is_set(value: object) -> bool:
    """Return whether a variable has a value: neither undefined (None) nor an empty text, list or dictionary."""
    return value is not None and value != "" and value != [] and value != {}


def nearest(name: str, known: Iterable[str]) -> str:
    """Return the name among ``known`` that ``name`` was probably meant to be, or an empty text."""
    matches = difflib.get_close_matches(name, sorted(known), n=1, cutoff=0.7)
    return matches[0] if matches else ""


#: Facts that roles of this collection publish for playbooks; they are no misspelt variables when a play comes after them.
PUBLISHED_FACTS = ("registry_pending", "registry_edge_pending", "registry_edge_serving")


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
    """Return a finding for each of ``unknown``, as ``find_unknown`` returns them."""
    found = []
    for item in unknown:
        cause = "no role of this collection knows this variable, so it would be ignored silently"
        if item["nearest"]:
            cure = f"did you mean {item['nearest']}? Rename it"
        else:
            cure = "remove it"
        cure += f"; a variable of your own needs another prefix, or: preflight_foreign_variables: [{item['name']}]"
        found.append(finding("variables", item["name"], "(set)", cause, cure))
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


def check_storage(storage: object, *, nodes: int) -> List[Finding]:
    """Judge ``wharf_storage`` for a cluster of ``nodes`` nodes."""
    kinds = ", ".join(sorted(_STORAGE_EXAMPLES))

    def wrong(variable: str, value: object, cause: str, cure: str) -> Finding:
        return finding("variables", variable, value, cause, cure)

    choose = f"give exactly one of {kinds}, for example {_STORAGE_EXAMPLES['filesystem'] if nodes == 1 else _STORAGE_EXAMPLE}"
    if not is_set(storage):
        return [wrong("wharf_storage", "(not set)", "the registry needs to know where images are kept", choose)]
    if not isinstance(storage, Mapping):
        told = storage if re.match(r"^\w{1,20}$", str(storage)) else "(a text)"  # anything longer may hold a secret
        return [wrong("wharf_storage", told, "it is no dictionary with the kind of storage as its key", choose)]
    found = []
    for kind in storage:
        if kind not in _STORAGE_EXAMPLES:
            near = nearest(str(kind), _STORAGE_EXAMPLES)
            hint = f"did you mean {near}? " if near else ""
            found.append(wrong("wharf_storage", kind, f"unknown storage type; known are {kinds}", hint + choose))
    if len(storage) > 1:
        found.append(wrong("wharf_storage", " and ".join(sorted(map(str, storage))), "the registry keeps images in one place only", choose))
    if found:
        return found
    kind = next(iter(storage))
    parameters = storage[kind]
    example = f"for example {_STORAGE_EXAMPLES[kind]}"
    if not isinstance(parameters, Mapping):
        told = "(a text)" if is_set(parameters) else "(empty)"
        return [wrong(f"wharf_storage.{kind}", told, "it is no dictionary", example)]
    for name in parameters:
        if name not in _STORAGE_KEYS[kind]:
            near = nearest(str(name), _STORAGE_KEYS[kind])
            cure = f"did you mean {near}? {example}" if near else f"remove it; {example}"
            found.append(wrong(f"wharf_storage.{kind}.{name}", "(set)", f"{kind} storage has no such parameter", cure))
    required = {"filesystem": ["rootdirectory"], "nfs": ["server", "export"], "s3": ["bucket", "region"]}[kind]
    for name in required:
        if not is_set(parameters.get(name)):
            cause = f"{kind} storage needs a {name}"
            if name == "region":
                cause += ", also where the store is not AWS and any word will do"
            found.append(wrong(f"wharf_storage.{kind}.{name}", "(not set)", cause, example))
    for name in ("rootdirectory", "export"):
        value = parameters.get(name)
        if kind != "s3" and is_set(value) and not str(value).startswith("/"):
            found.append(wrong(f"wharf_storage.{kind}.{name}", value, "it is no absolute path", example))
    if kind == "s3":
        if is_set(parameters.get("accesskey")) != is_set(parameters.get("secretkey")):
            missing = "secretkey" if is_set(parameters.get("accesskey")) else "accesskey"
            found.append(wrong(f"wharf_storage.s3.{missing}", "(not set)", "accesskey and secretkey belong together", example))
        bucket = parameters.get("bucket")
        if is_set(bucket) and not re.match(r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$", str(bucket)):
            cause = "it is no bucket name: 3 to 63 lower-case letters, digits, hyphens and dots"
            found.append(wrong("wharf_storage.s3.bucket", bucket, cause, example))
        try:
            find_endpoint(parameters)
        except ValueError as error:
            found.append(wrong("wharf_storage.s3.regionendpoint", parameters.get("regionendpoint"), str(error), example))
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


def check_vip(vip: object) -> List[Finding]:
    """Judge ``wharf_vip`` as such: an address of a host, with the length of its network's prefix."""
    if not is_set(vip):
        return []
    cure = "give a free address of the balancers' network with its prefix length, for example wharf_vip: 192.0.2.10/24"
    try:
        interface = ipaddress.ip_interface(str(vip))
    except ValueError:
        return [finding("variables", "wharf_vip", vip, "it is no address with a prefix length", cure)]
    cause = ""
    address, network = interface.ip, interface.network
    if "/" not in str(vip):
        cause = "its prefix length is missing"
    elif address.is_loopback or address.is_multicast or address.is_unspecified:
        cause = "it is no address that a host on a network can have"
    elif network.num_addresses > 2 and address == network.network_address:
        cause = f"it is the address of the network {network} itself"
    elif network.num_addresses > 2 and network.version == 4 and address == network.broadcast_address:
        cause = f"it is the broadcast address of {network}"
    return [finding("variables", "wharf_vip", vip, cause, cure)] if cause else []


def check_balancers(balancers: Mapping[str, Mapping[str, Any]]) -> List[Finding]:
    """Judge the VRRP variables of the balancers: host name -> its ``virtual_ip_priority`` and ``virtual_ip_router_id``.

    Priorities that are not set are chosen by the role, so only those that are set are compared.
    """
    found: List[Finding] = []
    by_priority: Dict[int, List[str]] = {}
    router_ids: Dict[str, List[str]] = {}
    for host in sorted(balancers):
        priority = balancers[host].get("virtual_ip_priority")
        if is_set(priority):
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


def check_addresses(addresses: Mapping[str, object], vip: object = "") -> List[Finding]:
    """Judge the hosts' addresses: host name -> ``wharf_address`` (None where not set). Each host has one, and none is the virtual IP."""
    found: List[Finding] = []
    hosts_of: Dict[str, List[str]] = {}
    for host, address in sorted(addresses.items()):
        if not is_set(address):
            continue
        hosts_of.setdefault(str(address), []).append(host)
        try:
            ipaddress.ip_address(str(address))
        except ValueError:
            if len(str(address)) > 253 or not all(_LABEL.match(label) for label in str(address).split(".")):
                cause, cure = f"{host}: it is neither an address nor a host name", f"for example wharf_address: 192.0.2.11 for {host}"
                found.append(finding("variables", "wharf_address", address, cause, cure))
    for address, hosts in sorted(hosts_of.items()):
        if len(hosts) > 1:
            cause, cure = f"{' and '.join(hosts)} have the same address", "give each host its own, for example wharf_address: 192.0.2.11"
            found.append(finding("variables", "wharf_address", address, cause, cure))
        if is_set(vip) and str(vip).split("/")[0] == address:
            cause = f"it is the own address of {', '.join(hosts)}; the virtual IP belongs to no host"
            found.append(
                finding("variables", "wharf_vip", vip, cause, "take a free address of the same network, for example 192.0.2.10/24")
            )
    return found


def check_release(version: object, *, redis: bool, nodes: int) -> List[Finding]:
    """Judge ``wharf_registry_version`` by the version gate."""
    text = str(version) if is_set(version) else DEFAULT_VERSION
    found = []
    for item in check_version(text, redis=redis, nodes=nodes):
        variable = item["variable"]
        if variable == "registry_version":
            variable = "wharf_registry_version"
        example = re.sub(r"\bregistry_version\b", "wharf_registry_version", item["example"])
        value = re.sub(r"\bregistry_version\b", "wharf_registry_version", item["value"])
        found.append(finding("variables", variable, value, item["problem"], f"for example {example}"))
    return found


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
        found += check_storage(value_of("wharf_storage"), nodes=len(nodes))
        version = value_of("wharf_registry_version") or value_of("registry_version")
        redis = value_of("registry_redis")
        found += check_release(version, redis=is_set(redis) if redis is not None else bool(caches), nodes=len(nodes))
    elif is_set(value_of("wharf_name")):
        found += check_name(value_of("wharf_name"), value_of("wharf_port"))
    found += check_port(
        value_of("wharf_port"),
        shared_with_node=bool(set(nodes) & set(balancers)),
        shared_with_cache=bool(set(caches) & set(balancers)),
    )
    found += check_choice("wharf_auth", value_of("wharf_auth"), ("none", "htpasswd", "token"))
    found += check_choice("wharf_balancer_mode", value_of("wharf_balancer_mode"), ("http", "stream"))
    found += check_users(value_of("wharf_users"))
    found += check_vip(value_of("wharf_vip"))
    found += check_balancers({name: hosts[name] for name in balancers if name in hosts})
    found += check_addresses({name: variables.get("wharf_address") for name, variables in hosts.items()}, value_of("wharf_vip"))
    return found


# --- one host --------------------------------------------------------------------------------------------------------------------------


def _version_of(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", text)[:2])


def check_os(release: Mapping[str, str]) -> List[Finding]:
    """Judge the operating system by its ``/etc/os-release``."""
    name, version = release.get("ID", ""), release.get("VERSION_ID", "")
    value = release.get("PRETTY_NAME") or f"{name} {version}".strip() or "(unknown)"
    numbers = _version_of(version)
    family = {name, *release.get("ID_LIKE", "").split()}
    supported = "Debian 12 and 13 (tested), Ubuntu 20.04 and later, the RHEL 9 family"
    cure = f"use one of {supported}"
    cause = ""
    if name == "centos" and numbers and numbers[0] in (7, 8) and "stream" not in value.lower():
        cause = f"CentOS {numbers[0]} has reached its end of life, and no supported Ansible runs on its Python"
    elif name == "debian":
        if numbers and numbers[0] < 12:  # testing and unstable have no number
            cause = f"Debian {numbers[0]} is too old"
    elif name == "ubuntu":
        if numbers < (20, 4):
            cause = f"Ubuntu {version} is too old"
    elif family & {"rhel", "centos", "rocky", "almalinux", "ol"} and name != "fedora":
        if not numbers or numbers[0] < 9:
            cause = f"the {version} family of RHEL is too old: no supported Ansible runs on its Python"
    else:
        cause = "the collection does not know this system"
        cure += "; to go on at your own risk: preflight_skip: [os]"
    return [finding("os", "operating system", value, cause, cure)] if cause else []


def check_hardware(seen: Mapping[str, Any], wanted: Mapping[str, Any]) -> List[Finding]:
    """Judge processors, memory, disk and network link by the thresholds in ``wanted``.

    What could not be seen (None) is not judged. Firmware and file systems take their part of what is sold as 8 or 500 GB,
    so memory may be 6 % and a disk 8 % smaller than its name.
    """
    found = []
    cores, least = seen.get("cpu_cores"), int(wanted["cpu_cores"])
    if cores is not None and cores < least:
        cure = f"give the host more, or accept it: preflight_cpu_cores: {cores}"
        found.append(finding("cpu", "preflight_cpu_cores", f"{cores} cores", f"fewer than the {least} that are asked for", cure))
    memory, least_gb = seen.get("memory_bytes"), float(wanted["memory_gb"])
    if memory is not None and memory < least_gb * 1e9 * 0.94:
        cure = f"give the host more, or accept it: preflight_memory_gb: {int(memory / 1e8) / 10:g}"
        found.append(
            finding("memory", "preflight_memory_gb", f"{memory / 1e9:.1f} GB", f"less than the {least_gb:g} GB that are asked for", cure)
        )
    disk, least_gb = seen.get("disk") or {}, float(wanted["disk_gb"])
    size = disk.get("bytes")
    if size is not None and size < least_gb * 1e9 * 0.92:
        where = disk.get("path", "")
        cure = f"use a larger disk for {where}, or accept it: preflight_disk_gb: {int(size / 1e9)}"
        cause = f"the file system of {where} is smaller than the {least_gb:g} GB that are asked for"
        found.append(finding("disk", "preflight_disk_gb", f"{size / 1e9:.0f} GB", cause, cure))
    if wanted["ssd"] and disk.get("rotational"):
        cure = "use a solid-state disk; where a hypervisor hides that it is one, or a slow one will do: preflight_ssd: false"
        cause = f"the kernel calls the disk under {disk.get('path')} a rotating one"
        found.append(finding("ssd", "preflight_ssd", disk.get("device") or "rotating disk", cause, cure))
    speed, least = seen.get("link_mbit"), int(wanted["link_mbit"])
    if speed is not None and 0 < speed < least:
        cure = f"use a faster link, or accept it: preflight_link_mbit: {speed}"
        cause = f"the link of {seen.get('link_interface')} is slower than the {least} Mbit/s that are asked for"
        found.append(finding("link", "preflight_link_mbit", f"{speed} Mbit/s", cause, cure))
    return found


def check_system(seen: Mapping[str, Any]) -> List[Finding]:
    """Judge systemd, Python and the clock."""
    found = []
    if not seen.get("systemd"):
        cause = "services of this collection are units of systemd, which does not run here"
        found.append(finding("systemd", "init system", seen.get("init") or "(unknown)", cause, "use a system that boots with systemd"))
    python = tuple(seen.get("python") or ())
    if python < (3, 8):
        text = ".".join(map(str, python))
        cure = "install Python 3.8 or later and set ansible_python_interpreter: /usr/bin/python3.9, for example"
        found.append(finding("python", "ansible_python_interpreter", text, "modules of this collection need Python 3.8 or later", cure))
    if not seen.get("container") and seen.get("clock_synchronised") is False:
        cause = "the kernel says that no service keeps this host's clock right; S3, TLS and tokens refuse hosts with a wrong clock"
        cure = "install chrony (or enable systemd-timesyncd: timedatectl set-ntp true), then wait until timedatectl says it is synchronised"
        found.append(finding("time", "clock", "not synchronised", cause, cure))
    return found


def wanted_ports(groups: Iterable[str], wharf_port: int) -> List[Dict[str, Any]]:
    """Return what a host of these groups will listen on.

    Each is a dictionary: ``port``, ``address`` (empty: all), ``purpose``, and what tells our own process from another's: ``command``
    (a text in its command line), ``program`` (its name), ``marker`` (the beginning of the name of a file of ours below /etc/nginx).
    """
    ports: List[Dict[str, Any]] = []

    def want(port: int, purpose: str, address: str = "", command: str = "", program: str = "", marker: str = "") -> None:
        ports.append({"port": port, "address": address, "purpose": purpose, "command": command, "program": program, "marker": marker})

    names = set(groups)
    if "registry_nodes" in names:
        want(5000, "the registry", "127.0.0.1", command="/etc/wharf/registry/")
        want(5001, "the registry's metrics", "127.0.0.1", command="/etc/wharf/registry/")
        want(5003, "the health probe", "127.0.0.1", command="wharf.pyz")
        want(5443, "the edge", program="nginx", marker="wharf_edge")
        want(5444, "the edge behind stream balancers", program="nginx", marker="wharf_edge")
    if "registry_lb" in names:
        want(wharf_port, "the balancer (wharf_port)", program="nginx", marker="wharf_lb")
    if "registry_cache" in names:
        want(REDIS_PORT, "Redis", program="redis-server")
    return ports


def check_ports(listeners: Iterable[Mapping[str, Any]], wanted: Iterable[Mapping[str, Any]], markers: Iterable[str]) -> List[Finding]:
    """Judge who holds the ports that the cluster needs.

    Args:
        listeners: ``port``, ``address``, and ``pid``, ``program`` and ``command`` of the holder (None where it cannot be seen).
        wanted: what ``wanted_ports`` returned.
        markers: names of files below /etc/nginx; nginx is ours if a file of the wanted service is among them.
    """
    found = []
    markers = list(markers)
    listeners = list(listeners)
    for want in wanted:
        for listener in listeners:
            if listener["port"] != want["port"]:
                continue
            address, wildcards = listener["address"], ("0.0.0.0", "::")  # noqa: S104 (these are read, not bound)
            if want["address"] and address not in (want["address"], *wildcards):
                continue
            program, command = listener.get("program") or "", listener.get("command") or ""
            ours = bool(want["command"]) and want["command"] in command
            ours = ours or (bool(want["program"]) and program == want["program"] and not want["marker"])
            ours = ours or (
                bool(want["marker"]) and program == want["program"] and any(name.startswith(want["marker"]) for name in markers)
            )
            if ours:
                continue
            holder = f"{program} (process {listener['pid']})" if program else "a process that only root can see"
            cause = f"{holder} listens on {address}, and {want['purpose']} needs this port"
            cure = f"stop it or let it use another port; look at it with: ss -ltnp 'sport = :{want['port']}'"
            if want["purpose"].endswith("(wharf_port)"):
                cure += "; or take another port, for example wharf_port: 8443"
            found.append(finding("ports", f"port {want['port']}", f"held by {program or 'unknown'}", cause, cure))
            break
    return found


def _s3_finding(answer: Mapping[str, str], settings: Mapping[str, Any]) -> List[Finding]:
    """Translate the kind of answer that ``_s3.check_bucket`` got to a finding."""
    kind, detail = answer["kind"], answer["detail"]
    bucket, region, endpoint = (str(settings.get(name) or "") for name in ("bucket", "region", "regionendpoint"))
    endpoint = endpoint or f"https://s3.{region}.amazonaws.com"
    variable, value, cause, cure = {
        "endpoint": ("regionendpoint", endpoint, f"it is no usable address: {detail}", "for example regionendpoint: https://s3.example.com"),
        "silent": (
            "regionendpoint", endpoint, f"the S3 endpoint does not answer: {detail}",
            "start the store, open the way to it, or correct the address, for example regionendpoint: https://s3.example.com:9000",
        ),
        "tls": (
            "regionendpoint", endpoint, f"no TLS connection to it: {detail}",
            "add its CA, for example wharf_ca_certificates: [files/s3-ca.crt], or for a store without TLS: regionendpoint: "
            + endpoint.replace("https://", "http://"),
        ),
        "key": (
            "accesskey", settings.get("accesskey") or "(not set)", f"the store refuses this access key or its secret key ({detail})",
            "correct the pair, for example wharf_storage.s3: {accesskey: wharf, secretkey: \"{{ vault_s3_secretkey }}\"}",
        ),
        "denied": (
            "accesskey", settings.get("accesskey") or "(not set)", f"the key is not allowed to list the bucket {bucket} ({detail})",
            "correct the pair of keys, or allow it s3:ListBucket, s3:GetBucketLocation, s3:ListBucketMultipartUploads on the bucket and "
            "s3:PutObject, s3:GetObject, s3:DeleteObject, s3:ListMultipartUploadParts, s3:AbortMultipartUpload in it",
        ),
        "bucket": (
            "bucket", bucket, f"there is no such bucket at {endpoint} ({detail})",
            f"create it, for example: aws s3 mb s3://{bucket} --endpoint-url {endpoint}; or correct the name",
        ),
        "region": ("region", region, f"the bucket is in another region ({detail})", "correct it, for example region: eu-central-1"),
        "clock": ("regionendpoint", endpoint, f"the store and this host disagree about the time ({detail})", "synchronise the host's clock"),
    }.get(kind, ("regionendpoint", endpoint, f"the S3 store answers with an error: {detail}", "see the log of the store"))  # fmt: skip
    return [finding("storage", f"wharf_storage.s3.{variable}", value, cause, cure)]


def check_seen_storage(seen: Mapping[str, Any], wanted: Mapping[str, Any]) -> List[Finding]:
    """Judge whether the storage answers, or the directory for it is usable, as seen from a node."""
    storage = seen.get("storage") or {}
    found: List[Finding] = []
    if "s3" in storage and storage["s3"]["kind"] != "ok":
        found += _s3_finding(storage["s3"], wanted["s3"])
    if storage.get("nfs"):
        server = wanted["nfs_server"]
        cure = (
            "start the server or open port 2049 to the nodes, or correct it, for example wharf_storage: {nfs: {server: nfs.example.com, …}}"
        )
        found.append(finding("storage", "wharf_storage.nfs.server", server, f"the NFS server does not answer: {storage['nfs']}", cure))
    directory = storage.get("filesystem") or {}
    if directory.get("problem"):
        cure = "mount it writable, or choose another, for example wharf_storage: {filesystem: {rootdirectory: /var/lib/wharf/registry}}"
        variable = "wharf_storage.filesystem.rootdirectory"
        found.append(finding("storage", variable, wanted["rootdirectory"], directory["problem"], cure))
    return found


def check_vip_network(seen: Mapping[str, Any], vip: str) -> List[Finding]:
    """Judge from a balancer whether the virtual IP is inside a network of it, and no permanent address of the host itself."""
    if not vip or check_vip(vip):
        return []
    interface = ipaddress.ip_interface(vip)
    own = [ipaddress.ip_interface(item["address"]) for item in seen.get("addresses") or []]
    others = [item for item in own if item.ip != interface.ip and not item.is_loopback and not item.is_link_local]
    have = ", ".join(str(item) for item in others) or "none"
    if seen.get("vip", {}).get("held") and not seen.get("vip", {}).get("managed"):
        cause = "this host has the address already, and not from its keepalived"
        return [finding("vip", "wharf_vip", vip, cause, f"take a free address; this host has {have}")]
    if not own or any(interface.ip in item.network for item in others):
        return []
    cause = f"no interface of this balancer is in its network (the host has {have})"
    example = next((item for item in others if item.version == interface.version and item.network.num_addresses > 4), None)
    free = f", for example one of {example.network}, as in wharf_vip: {example.network[-6]}/{example.network.prefixlen}" if example else ""
    return [finding("vip", "wharf_vip", vip, cause, f"take a free address of the balancers' own network{free}")]


def check_host(seen: Mapping[str, Any], wanted: Mapping[str, Any]) -> List[Finding]:
    """Judge one host: ``seen`` is what ``_preflight_host.observe`` returned, ``wanted`` the options of the module ``preflight``."""
    found = check_os(seen["os"]) + check_system(seen)
    groups = set(wanted["groups"])
    known = groups & {"registry_nodes", "registry_lb", "registry_storage", "registry_cache", "registry_monitoring", "registry_clients"}
    if not known or known & {"registry_nodes", "registry_storage"}:
        found += check_hardware(seen, wanted)
    found += check_ports(seen["listeners"], wanted_ports(groups, wanted["port"]), seen["nginx_files"])
    if "registry_nodes" in groups:
        found += check_seen_storage(seen, wanted)
    if "registry_lb" in groups:
        found += check_vip_network(seen, wanted["vip"])
    return [item for item in found if item["check"] not in wanted["skip"]]


def module_failure(result: Mapping[str, Any]) -> Finding:
    """Return the finding for a host where the module could not run, from what came back instead."""
    text = str(result.get("module_stderr") or result.get("msg") or "no answer").strip()
    cause = f"the host could not be looked at: {text.splitlines()[-1][:300] if text else 'no answer'}"
    cure = "see that Python 3.8 or later runs there, for example with ansible_python_interpreter: /usr/bin/python3"
    cure += " (CentOS 7 and 8 have reached their end of life, and no supported Ansible runs on their Python)"
    return finding("python", "ansible_python_interpreter", result.get("ansible_python_interpreter") or "(as found)", cause, cure)


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
        right.add(str(settings["wharf_vip"]).split("/")[0])
    complete = bool(right) or bool(balancers)
    for host in balancers:
        if host in seen:
            right |= {item["address"].split("/")[0] for item in seen[host].get("addresses") or []}
        else:
            complete = False
    right = {address for address in right if not ipaddress.ip_address(address).is_loopback}
    target = str(settings.get("wharf_vip") or "").split("/")[0] or next(iter(sorted(right)), "192.0.2.10")
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
    if not isinstance(storage, Mapping) or not isinstance(storage.get("filesystem"), Mapping) or len(nodes) < 2:
        return {}
    path = storage["filesystem"].get("rootdirectory")
    cure = f"mount one network file system there on every node, or use S3, for example {_STORAGE_EXAMPLE}"
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
