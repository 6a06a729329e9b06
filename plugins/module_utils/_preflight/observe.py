# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Look at a host, and change nothing: what ``host`` judges.

Private to the collection. What cannot be seen is None (not judged), never an exception: a host where the kernel hides something is no
reason to refuse it.

Sources: proc(5) (``/proc/net/tcp``, ``mountinfo``), sysfs ABI (``block/*/queue/rotational``, ``net/*/speed``), adjtimex(2),
os-release(5), RFC 5227 (ARP probes).
"""

from __future__ import annotations

import ctypes
import ipaddress
import json
import os
import re
import socket
import struct
import sys
import time
from typing import Any, Callable, Dict, List, Mapping, Optional, Tuple

from .._s3 import check_bucket
from .host import wanted_ports

#: Runs a command: takes its words, returns exit code, standard output and standard error; 127 or more if it is not there.
Run = Callable[[List[str]], Tuple[int, str, str]]

_ST_RDONLY = 1


def _read(path: str) -> str:
    """Return the text of a file, or an empty one if it cannot be read."""
    try:
        with open(path, encoding="utf-8", errors="replace") as handle:
            return handle.read()
    except OSError:
        return ""


def read_os_release(text: str) -> Dict[str, str]:
    """Return the assignments of an ``os-release`` file."""
    pairs = (line.split("=", 1) for line in text.splitlines() if "=" in line and not line.startswith("#"))
    return {name.strip(): value.strip().strip("\"'") for name, value in pairs}


def in_container(run: Run) -> bool:
    """Return whether this host is a container, whose clock is that of its host."""
    if any(os.path.exists(path) for path in ("/run/systemd/container", "/.dockerenv", "/run/.containerenv")):
        return True
    return run(["systemd-detect-virt", "--container", "--quiet"])[0] == 0


def clock_synchronised() -> Optional[bool]:
    """Return whether the kernel thinks that its clock is right: maximum error under 16 s, as systemd's timedatectl judges."""
    try:
        buffer = ctypes.create_string_buffer(512)  # struct timex is 208 bytes; modes = 0 only reads
        if ctypes.CDLL(None, use_errno=True).adjtimex(buffer) < 0:
            return None
        offset = 3 * ctypes.sizeof(ctypes.c_long)  # modes (padded), offset, freq, maxerror
        return bool(ctypes.c_long.from_buffer_copy(buffer.raw, offset).value < 16_000_000)
    except (AttributeError, OSError, ValueError):
        return None


def memory_bytes() -> Optional[int]:
    """Return the memory of the machine, or the container's limit if that is smaller."""
    sizes = []
    for line in _read("/proc/meminfo").splitlines():
        if line.startswith("MemTotal:"):
            sizes.append(int(line.split()[1]) * 1024)
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        text = _read(path).strip()
        if text.isdigit():
            sizes.append(int(text))
    return min(sizes) if sizes else None


# --- file systems ----------------------------------------------------------------------------------------------------------------------


def existing_parent(path: str) -> str:
    """Return ``path``, or the nearest directory above it that exists."""
    path = os.path.abspath(path)
    while not os.path.exists(path) and path != "/":
        path = os.path.dirname(path)
    return path


def find_mount(path: str, mountinfo: str) -> Dict[str, str]:
    """Return mount ``point``, ``type`` and ``source`` of the file system that ``path`` is on, by the text of ``/proc/self/mountinfo``."""
    best: Dict[str, str] = {}
    for line in mountinfo.splitlines():
        before, separator, after = line.partition(" - ")
        fields, tail = before.split(), after.split()
        if not separator or len(fields) < 5 or len(tail) < 2:
            continue
        point = fields[4].encode().decode("unicode_escape")
        inside = path == point or path.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(best.get("point", "")):
            best = {"point": point, "type": tail[0], "source": tail[1].encode().decode("unicode_escape")}
    return best


def _disks_below(device: str) -> List[str]:
    """Return the sysfs directories of the whole disks that a block device (partition, LVM, RAID) is made of."""
    slaves = os.path.join(device, "slaves")
    parts = sorted(os.listdir(slaves)) if os.path.isdir(slaves) else []
    if parts:
        return [disk for part in parts for disk in _disks_below(os.path.realpath(os.path.join(slaves, part)))]
    if os.path.exists(os.path.join(device, "partition")):
        return [os.path.dirname(device)]
    return [device]


def _is_virtual(disk: str) -> bool:
    """Return whether a disk is one of a hypervisor, which mostly claims to rotate whatever it is made of."""
    if re.match(r"^(vd|xvd|ubd)", os.path.basename(disk)):
        return True
    maker = _read(os.path.join(disk, "device", "vendor")) + _read(os.path.join(disk, "device", "model"))
    return bool(re.search(r"qemu|vmware|virtual|vbox|msft", maker, re.IGNORECASE))


def disk_of(path: str) -> Dict[str, Any]:
    """Return ``bytes``, ``device`` and ``rotational`` (None if unknown) of the disk that ``path`` is, or will be, on."""
    where = existing_parent(path)
    result: Dict[str, Any] = {"path": path, "bytes": None, "device": "", "rotational": None}
    try:
        numbers = os.statvfs(where)
        result["bytes"] = numbers.f_blocks * numbers.f_frsize
        device = os.stat(where).st_dev
        mount = find_mount(os.path.realpath(where), _read("/proc/self/mountinfo"))
        sysfs = f"/sys/dev/block/{os.major(device)}:{os.minor(device)}"
        if os.major(device) == 0 and mount.get("source", "").startswith("/dev/"):  # btrfs has a device number of its own
            sysfs = f"/sys/class/block/{os.path.basename(os.path.realpath(mount['source']))}"
        if os.path.exists(sysfs):
            disks = _disks_below(os.path.realpath(sysfs))
            kinds = [_read(os.path.join(disk, "queue", "rotational")).strip() for disk in disks]
            result["device"] = ", ".join(f"/dev/{os.path.basename(disk)}" for disk in disks)
            if kinds and all(kind in ("0", "1") for kind in kinds) and not any(_is_virtual(disk) for disk in disks):
                result["rotational"] = "1" in kinds
    except OSError:
        pass
    return result


def look_at_directory(path: str) -> Dict[str, Any]:
    """Return ``type`` and ``source`` of the file system below ``path``, and a ``problem`` if the registry could not write there."""
    where = existing_parent(path)
    mount = find_mount(os.path.realpath(where), _read("/proc/self/mountinfo"))
    problem = ""
    try:
        if not os.path.isdir(where):
            problem = f"{where} is no directory"
        elif os.statvfs(where).f_flag & _ST_RDONLY:
            problem = f"the file system of {where} is mounted read-only"
        elif os.geteuid() == 0 and not os.access(where, os.W_OK | os.X_OK):
            problem = f"{where} cannot be written"
    except OSError as error:
        problem = f"{where}: {error.strerror}"
    return {"type": mount.get("type", ""), "source": mount.get("source", ""), "problem": problem}


# --- ports -----------------------------------------------------------------------------------------------------------------------------


def read_listeners(text: str) -> List[Tuple[str, int, str]]:
    """Return address, port and inode of the listening sockets in the text of ``/proc/net/tcp`` or ``/proc/net/tcp6``."""
    result = []
    for line in text.splitlines()[1:]:
        fields = line.split()
        if len(fields) < 10 or fields[3] != "0A":
            continue
        raw, port = fields[1].split(":")
        words = [struct.pack("=I", int(raw[start : start + 8], 16)) for start in range(0, len(raw), 8)]
        address = ipaddress.ip_address(b"".join(words))
        mapped = getattr(address, "ipv4_mapped", None)
        result.append((str(mapped or address), int(port, 16), fields[9]))
    return result


def _holders(inodes: List[str]) -> Dict[str, Dict[str, Any]]:
    """Return inode -> ``pid``, ``program``, ``command`` of the process that holds that socket; the oldest where several do."""
    wanted = {f"socket:[{inode}]": inode for inode in inodes}
    found: Dict[str, Dict[str, Any]] = {}
    for pid in sorted(int(name) for name in os.listdir("/proc") if name.isdigit()):
        if len(found) == len(wanted):
            break
        try:
            for descriptor in os.listdir(f"/proc/{pid}/fd"):
                inode = wanted.get(os.readlink(f"/proc/{pid}/fd/{descriptor}"))
                if inode and inode not in found:
                    command = _read(f"/proc/{pid}/cmdline").replace("\0", " ").strip()
                    found[inode] = {"pid": pid, "program": _read(f"/proc/{pid}/comm").strip(), "command": command}
        except OSError:
            continue  # it ended, or is not ours to look at
    return found


def listeners_on(ports: List[int]) -> List[Dict[str, Any]]:
    """Return who listens on any of ``ports``: ``port``, ``address``, ``pid``, ``program``, ``command`` (None where it cannot be seen)."""
    sockets = [
        item
        for path in ("/proc/net/tcp", "/proc/net/tcp6")
        for item in read_listeners(_read(path))
        if item[1] in ports
    ]  # fmt: skip
    holders = _holders([inode for _address, _port, inode in sockets]) if sockets else {}
    nobody = {"pid": None, "program": None, "command": None}
    return [{"port": port, "address": address, **holders.get(inode, nobody)} for address, port, inode in sockets]


def nginx_files() -> List[str]:
    """Return the names of this collection's files below /etc/nginx."""
    return sorted({name for _top, _dirs, names in os.walk("/etc/nginx") for name in names if name.startswith("wharf_")})


# --- network ---------------------------------------------------------------------------------------------------------------------------


def read_interfaces(text: str) -> Tuple[List[Dict[str, str]], List[str]]:
    """Return the addresses (``interface``, ``address`` with prefix length) and hardware addresses in the output of ``ip -j address``."""
    addresses, macs = [], []
    try:
        links = json.loads(text or "[]")
    except ValueError:
        return [], []
    for link in links:
        if not link.get("ifname"):
            continue
        if link.get("link_type") == "ether" and link.get("address"):
            macs.append(link["address"])
        for item in link.get("addr_info") or []:
            if item.get("local"):
                addresses.append({"interface": link["ifname"], "address": f"{item['local']}/{item['prefixlen']}"})
    return addresses, macs


def link_of(addresses: List[Dict[str, str]], address: str) -> Tuple[str, Optional[int]]:
    """Return the interface that has ``address`` (else that of the default route) and its speed in Mbit/s, if the driver tells it."""
    name = next((item["interface"] for item in addresses if item["address"].partition("/")[0] == address), "")
    if not name:
        routes = (line.split() for line in _read("/proc/net/route").splitlines()[1:])
        name = next((fields[0] for fields in routes if len(fields) > 7 and fields[1] == "00000000"), "")
    try:
        speed = int(_read(f"/sys/class/net/{name}/speed").strip() or -1) if name else -1
    except ValueError:
        speed = -1
    return name, speed if speed > 0 else None


def resolve(name: str) -> List[str]:
    """Return the addresses that this host's resolver knows for ``name``; none if it does not resolve."""
    try:
        answers = socket.getaddrinfo(name, None, proto=socket.IPPROTO_TCP)
    except (OSError, UnicodeError):
        return []
    return sorted({str(answer[4][0]).partition("%")[0] for answer in answers})


def probe_arp(interface: str, address: str, seconds: float = 0.9) -> Optional[str]:
    """Ask the network of ``interface`` who has the IPv4 ``address``, and return the hardware address of the first that answers.

    It is an ARP probe (RFC 5227): its sender address is 0.0.0.0, so nobody learns anything from it. An empty text means that nobody
    answered, None that it could not be asked (it needs root).
    """
    try:
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0806)) as wire:
            wire.bind((interface, 0))
            own = wire.getsockname()[4]
            target = socket.inet_aton(address)
            question = b"\xff" * 6 + own + struct.pack("!HHHBBH", 0x0806, 1, 0x0800, 6, 4, 1)
            question += own + b"\0" * 4 + b"\0" * 6 + target
            end = time.monotonic() + seconds
            next_question = 0.0
            while time.monotonic() < end:
                if time.monotonic() >= next_question:
                    wire.send(question)
                    next_question = time.monotonic() + 0.3
                wire.settimeout(max(0.01, min(next_question, end) - time.monotonic()))
                try:
                    answer = wire.recv(2048)
                except socket.timeout:
                    continue
                if len(answer) >= 42 and answer[20:22] == b"\0\x02" and answer[28:32] == target:
                    return ":".join(f"{byte:02x}" for byte in answer[22:28])
        return ""
    except (AttributeError, OSError):
        return None


def look_at_vip(vip: str, addresses: List[Dict[str, str]], run: Run) -> Dict[str, Any]:
    """Return whether this host has the virtual IP (``held``), by its keepalived (``managed``), and who else answers for it (``answer``).

    ``answer`` is a hardware address, or ``ping`` if only an echo could be had, or empty.
    """
    try:
        interface = ipaddress.ip_interface(vip)
    except ValueError:
        return {}
    address = str(interface.ip)
    held = any(item["address"].partition("/")[0] == address for item in addresses)
    managed = any(address in _read(os.path.join(top, name)) for top, _dirs, names in os.walk("/etc/keepalived") for name in names)
    answer: Optional[str] = ""
    near = [
        item["interface"]
        for item in addresses
        if interface.ip in ipaddress.ip_interface(item["address"]).network and item["address"].partition("/")[0] != address
    ]
    if not held and near:
        answer = probe_arp(near[0], address) if interface.version == 4 else None
        if answer is None:
            family = "-4" if interface.version == 4 else "-6"
            answer = "ping" if run(["ping", family, "-n", "-q", "-c", "1", "-W", "1", address])[0] == 0 else ""
    return {"held": held, "managed": managed, "answer": answer}


def knock(host: str, port: int, timeout: float = 5.0) -> str:
    """Return why a TCP connection to ``host`` cannot be made, or an empty text."""
    try:
        socket.create_connection((host, port), timeout=timeout).close()
        return ""
    except socket.timeout:
        return f"no answer within {timeout:g} s"
    except OSError as error:
        return error.strerror or str(error)


def look_at_storage(wanted: Mapping[str, Any]) -> Dict[str, Any]:
    """Return what the storage answers, under the name of its kind: ``s3`` (kind, detail), ``nfs`` (problem), ``filesystem``."""
    if wanted["s3"].get("bucket"):
        answer = check_bucket(wanted["s3"], ca_pem=wanted["ca_certificates"])
        return {"s3": {"kind": answer.kind, "detail": answer.detail}}
    if wanted["nfs_server"]:
        return {"nfs": knock(wanted["nfs_server"], 2049)}
    if wanted["rootdirectory"]:
        return {"filesystem": look_at_directory(wanted["rootdirectory"])}
    return {}


def observe(wanted: Mapping[str, Any], run: Run) -> Dict[str, Any]:
    """Return what ``host.check_host`` and ``cluster.check_cluster`` judge. ``wanted`` are the options of the module ``preflight``."""
    groups = set(wanted["groups"])
    code, output, _errors = run(["ip", "-j", "address"])
    addresses, macs = read_interfaces(output if code == 0 else "")
    link, speed = link_of(addresses, wanted["address"])
    node, balancer = "registry_nodes" in groups, "registry_lb" in groups
    asks_name = node or "registry_clients" in groups
    return {
        "os": read_os_release(_read("/etc/os-release")),
        "python": list(sys.version_info[:3]),
        "systemd": os.path.isdir("/run/systemd/system"),
        "init": _read("/proc/1/comm").strip(),
        "container": in_container(run),
        "clock_synchronised": clock_synchronised(),
        "cpu_cores": len(os.sched_getaffinity(0)),
        "memory_bytes": memory_bytes(),
        "disk": disk_of(wanted["path"]),
        "link_interface": link,
        "link_mbit": speed,
        "addresses": addresses,
        "cluster_address": wanted["address"],
        "macs": macs,
        "resolved": resolve(wanted["name"]) if wanted["name"] and asks_name else None,
        "listeners": listeners_on([item["port"] for item in wanted_ports(groups, wanted["port"])]),
        "nginx_files": nginx_files(),
        "vip": look_at_vip(wanted["vip"], addresses, run) if wanted["vip"] and balancer else {},
        "storage": look_at_storage(wanted) if node else {},
    }
