# Copyright (c) 2026 wharf.registry contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the lab consists of. `inventories/lab` names the same hosts and addresses."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

CHECKOUT = Path(__file__).resolve().parents[2]
# Everything that the lab keeps: engine data, images' sources, package cache, ssh key. `lab.py down` removes it.
STATE = Path("/var/lib/wharf-lab")
RELEASE = os.environ.get("LAB_RELEASE", "trixie")  # or bookworm
KERNEL_RELEASE = "forky"  # the Debian whose User-mode Linux the machines run
MIRROR = os.environ.get("LAB_MIRROR", "http://deb.debian.org/debian")

NETWORK = "wharf-lab"
BRIDGE = "wharf-lab0"
SUBNET = "172.30.200.0/24"
GATEWAY = "172.30.200.1"
APT_CACHE_PORT = 3199
VIP = "172.30.200.100"
NFS_VIP = "172.30.200.101"
# Names that a DNS server would answer for outside the lab.
NAMES = {"registry.lab.test": VIP, "nfs.lab.test": NFS_VIP, "solo.lab.test": "172.30.200.51"}

REGISTRY_3 = "3.1.2"
REGISTRY_2 = "2.8.3"
CRANE = "v0.22.1"
REGCTL = "v0.11.7"
GO = "1.26.6"
SEAWEEDFS = "4.48"

S3_BUCKET = "wharf"
S3_ACCESS_KEY = "wharf-lab"
S3_SECRET_KEY = "only-for-the-lab"


class Node(NamedTuple):
    """One lab node: its address and which image it runs (`node`, `client`, `desk` or `store`)."""

    address: str
    image: str


NODES = {
    "registry1": Node("172.30.200.11", "node"),
    "registry2": Node("172.30.200.12", "node"),
    "registry3": Node("172.30.200.13", "node"),
    "registry4": Node("172.30.200.14", "node"),
    "lb1": Node("172.30.200.21", "node"),
    "lb2": Node("172.30.200.22", "node"),
    "lb3": Node("172.30.200.23", "node"),
    "lb4": Node("172.30.200.24", "node"),
    "store1": Node("172.30.200.31", "store"),
    "monitor1": Node("172.30.200.35", "node"),
    "client1": Node("172.30.200.41", "client"),
    "client2": Node("172.30.200.42", "desk"),
    "solo1": Node("172.30.200.51", "node"),
}


class Machine(NamedTuple):
    """One machine with a kernel of its own: its address and its memory in megabytes."""

    address: str
    memory: int


MACHINES = {
    "nfs1": Machine("172.30.200.32", 512),
    "machine1": Machine("172.30.200.61", 1024),
    "machine2": Machine("172.30.200.62", 1024),
    "machine3": Machine("172.30.200.63", 1024),
    "clock1": Machine("172.30.200.64", 512),
}

# What `up` starts when no node is named; the others join when a test wants them.
DEFAULT_NODES = ("registry1", "registry2", "registry3", "lb1", "lb2", "store1", "client1")

# A systemd container needs these and no `--privileged`, which fails on hosts that lack some capability.
CAPABILITIES = (
    "SYS_ADMIN NET_ADMIN SYS_PTRACE SYS_MODULE SYS_RAWIO SYS_NICE LINUX_IMMUTABLE IPC_LOCK IPC_OWNER DAC_READ_SEARCH "
    "NET_BROADCAST SYSLOG LEASE MAC_ADMIN AUDIT_CONTROL AUDIT_READ BLOCK_SUSPEND WAKE_ALARM SYS_TTY_CONFIG SYS_BOOT SYS_PACCT"
).split()
