# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What must be true of a host before it joins a cluster: pure judgements, without input or output.

Private to the collection. ``check_host`` judges what ``observe`` saw; ``cluster`` judges variables and the whole cluster.

A finding is a dictionary of strings: ``check`` (its kind, one of ``CHECKS``), ``variable`` (what to look at), ``value`` (as found, never a
secret), ``cause`` (what is wrong with it) and ``cure`` (what to do, with an example that works).
"""

from __future__ import annotations

import ipaddress
import re
from typing import Any, Dict, Iterable, List, Mapping

Finding = Dict[str, str]

#: Kinds of findings. Those of hosts may be skipped by name; ``variables`` are the settings themselves, ``python`` is the host's Python.
CHECKS = (
    "cpu", "disk", "link", "memory", "name", "os", "ports", "ssd", "storage", "systemd", "time", "vip", "variables", "python",
)  # fmt: skip
SKIPPABLE = tuple(name for name in CHECKS if name not in ("variables", "python"))

#: Ports on a node that nobody but its own services may hold.
NODE_PORTS = (5000, 5001, 5003, 5443, 5444)
REDIS_PORT = 6379
AUDIT_PORT = 20514


def finding(check: str, variable: str, value: object, cause: str, cure: str) -> Finding:
    """Return one finding; see the module's text for what its parts mean."""
    return {"check": check, "variable": variable, "value": str(value), "cause": cause, "cure": cure}


def is_set(value: object) -> bool:
    """Return whether a variable has a value: neither undefined (None) nor an empty text, list or dictionary."""
    return value is not None and value != "" and value != [] and value != {}


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
    elif interface.version != 4 or not network.prefixlen >= 8:
        cause = "it is no IPv4 address with a prefix length from 8 to 32"
    elif address.is_loopback or address.is_multicast or address.is_unspecified:
        cause = "it is no address that a host on a network can have"
    elif network.num_addresses > 2 and address == network.network_address:
        cause = f"it is the address of the network {network} itself"
    elif network.num_addresses > 2 and network.version == 4 and address == network.broadcast_address:
        cause = f"it is the broadcast address of {network}"
    return [finding("variables", "wharf_vip", vip, cause, cure)] if cause else []


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
    cores, least = seen.get("cpu_cores"), int(wanted["min_cpus"])
    if cores is not None and cores < least:
        cause = f"the host has {cores} processor core{'' if cores == 1 else 's'} only"
        found.append(finding("cpu", "preflight_min_cpus", least, cause, f"give it more, or accept it: preflight_min_cpus: {cores}"))
    memory, least_gb = seen.get("memory_bytes"), float(wanted["min_memory_gb"])
    if memory is not None and memory < least_gb * 1e9 * 0.94:
        cause, enough = f"the host has {memory / 1e9:.1f} GB of memory only", f"{int(memory / 1e8) / 10:g}"
        cure = f"give it more, or accept it: preflight_min_memory_gb: {enough}"
        found.append(finding("memory", "preflight_min_memory_gb", f"{least_gb:g}", cause, cure))
    disk, least_gb = seen.get("disk") or {}, float(wanted["min_disk_gb"])
    size, where = disk.get("bytes"), disk.get("path", "")
    if size is not None and size < least_gb * 1e9 * 0.92:
        cause = f"too little disk: the file system of {where} has {size / 1e9:.0f} GB only"
        cure = f"use a larger disk for {where}, or accept it: preflight_min_disk_gb: {int(size / 1e9)}"
        found.append(finding("disk", "preflight_min_disk_gb", f"{least_gb:g}", cause, cure))
    if wanted["require_ssd"] and disk.get("rotational"):
        cause = f"the kernel calls {disk.get('device') or 'the disk'}, which holds {where}, a rotating disk"
        cure = "use a solid-state disk; where a controller hides that it is one, or a slow one will do: preflight_require_ssd: false"
        found.append(finding("ssd", "preflight_require_ssd", "true", cause, cure))
    speed, least = seen.get("link_mbit"), int(wanted["min_link_mbit"])
    if speed is not None and 0 < speed < least:
        cause = f"the link of {seen.get('link_interface')} carries {speed} Mbit/s only"
        found.append(
            finding("link", "preflight_min_link_mbit", least, cause, f"use a faster one, or accept it: preflight_min_link_mbit: {speed}")
        )
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
    if "registry_audit" in names:
        want(AUDIT_PORT, "what collects audit logs", program="rsyslogd")
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
            if not program:
                cure = f"run with become: true, so that it is seen whether it is the cluster's own; or {cure}"
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
    """Judge from a balancer whether the virtual IP is inside a network of it, and no permanent address of the host itself.

    The host must also have the address that keepalived is to speak from: ``cluster_address`` (``wharf_address``, else ``ansible_host``).
    """
    if not vip or check_vip(vip):
        return []
    interface = ipaddress.ip_interface(vip)
    own = [ipaddress.ip_interface(item["address"]) for item in seen.get("addresses") or []]
    others = [item for item in own if item.ip != interface.ip and not item.is_loopback and not item.is_link_local]
    have = ", ".join(str(item) for item in others) or "none"
    if seen.get("vip", {}).get("held") and not seen.get("vip", {}).get("managed"):
        cause = "this host has the address already, and not from its keepalived"
        return [finding("vip", "wharf_vip", vip, cause, f"take a free address of {have}'s network, for example wharf_vip: 192.0.2.10/24")]
    address = str(seen.get("cluster_address") or "")
    if own and address and all(str(item.ip) != address for item in own):
        cause = f"no interface of this balancer has this address (it has {have}), so keepalived could not speak from it"
        example = next((str(item.ip) for item in others), "192.0.2.21")
        return [
            finding(
                "vip",
                "wharf_address",
                address,
                cause,
                f"set the address of the host on the cluster's network, for example wharf_address: {example}",
            )
        ]
    if not own or any(interface.ip in item.network for item in others):
        return []
    cause = f"no interface of this balancer is in its network (the host has {have})"
    network = next((item.network for item in others if item.version == interface.version and item.network.num_addresses > 4), None)
    free = f", for example one of {network}, as in wharf_vip: {network[-6]}/{network.prefixlen}" if network else ""
    return [finding("vip", "wharf_vip", vip, cause, f"take a free address of the balancers' own network{free}")]


def check_host(seen: Mapping[str, Any], wanted: Mapping[str, Any]) -> List[Finding]:
    """Judge one host: ``seen`` is what ``observe`` returned, ``wanted`` the options of the module ``preflight``."""
    found = check_os(seen["os"]) + check_system(seen)
    groups = set(wanted["groups"])
    known = groups & {
        "registry_nodes", "registry_lb", "registry_storage", "registry_cache", "registry_monitoring", "registry_clients", "registry_audit",
    }  # fmt: skip
    if not known or known & {"registry_nodes", "registry_storage"}:
        found += check_hardware(seen, wanted)
    found += check_ports(seen["listeners"], wanted_ports(groups, wanted["port"]), seen["nginx_files"])
    if "registry_nodes" in groups:
        found += check_seen_storage(seen, wanted)
    if "registry_lb" in groups:
        found += check_vip_network(seen, wanted["vip"])
    return [item for item in found if item["check"] not in wanted["skip"]]


def module_failure(result: Mapping[str, Any], interpreter: str = "") -> Finding:
    """Return the finding for a host where the module could not run, from what came back instead."""
    text = str(result.get("module_stderr") or result.get("msg") or "no answer").strip()
    cause = f"the host could not be looked at: {text.splitlines()[-1][:300] if text else 'no answer'}"
    cure = "see that Python 3.8 or later runs there, for example with ansible_python_interpreter: /usr/bin/python3"
    cure += " (CentOS 7 and 8 have reached their end of life, and no supported Ansible runs on their Python)"
    return finding("python", "ansible_python_interpreter", interpreter or "(as found)", cause, cure)
