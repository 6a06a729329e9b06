# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How preflight reads what the kernel tells."""

from __future__ import annotations

import os
import socket

import pytest

from ansible_collections.wharf.registry.plugins.module_utils._preflight import observe


def test_os_release():
    text = '# comment\nID=debian\nVERSION_ID="13"\nPRETTY_NAME="Debian GNU/Linux 13 (trixie)"\n\n'
    assert observe.read_os_release(text) == {"ID": "debian", "VERSION_ID": "13", "PRETTY_NAME": "Debian GNU/Linux 13 (trixie)"}


MOUNTS = r"""22 1 8:1 / / rw,relatime - ext4 /dev/sda1 rw
40 22 0:35 / /srv/my\040images rw shared:5 - nfs4 nfs.example.com:/srv rw,vers=4.2
41 22 8:16 / /var rw - xfs /dev/mapper/vg-var rw
broken line
"""


@pytest.mark.parametrize(
    ("path", "kind", "source"),
    [
        ("/srv", "ext4", "/dev/sda1"),
        ("/srv/my images/registry", "nfs4", "nfs.example.com:/srv"),
        ("/var/lib", "xfs", "/dev/mapper/vg-var"),
        ("/variable", "ext4", "/dev/sda1"),
        ("/", "ext4", "/dev/sda1"),
    ],
)
def test_mounts(path, kind, source):
    mount = observe.find_mount(path, MOUNTS)
    assert (mount["type"], mount["source"]) == (kind, source)


def test_listening_sockets():
    header = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
    tcp = "   0: 0100007F:1388 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1 0 100 0 0 10 0\n"
    other = "   1: 0100007F:1389 0100007F:9999 01 00000000:00000000 00:00000000 00000000     0        0 4712 1 0 100 0 0 10 0\n"
    assert observe.read_listeners(header + tcp + other) == [("127.0.0.1", 5000, "4711")]
    tcp6 = "   0: 00000000000000000000000000000000:01BB 00000000000000000000000000000000:0000 0A 0:0 0:0 0 0 0 99 1 0\n"
    assert observe.read_listeners(header + tcp6) == [("::", 443, "99")]


def test_own_listener_is_found():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        port = server.getsockname()[1]
        (item,) = observe.listeners_on([port])
    assert item["address"] == "127.0.0.1"
    assert item["pid"] == os.getpid()
    assert observe.listeners_on([port]) == []


def test_interfaces():
    text = """[{"ifname": "lo", "link_type": "loopback", "address": "00:00:00:00:00:00", "addr_info": [{"local": "127.0.0.1", "prefixlen": 8}]},
              {"ifname": "eth0", "link_type": "ether", "address": "02:42:ac:1d:63:04", "addr_info": [{"local": "192.0.2.4", "prefixlen": 24}]}, {}]"""
    addresses, macs = observe.read_interfaces(text)
    assert addresses == [{"interface": "lo", "address": "127.0.0.1/8"}, {"interface": "eth0", "address": "192.0.2.4/24"}]
    assert macs == ["02:42:ac:1d:63:04"]
    assert observe.read_interfaces("no json") == ([], [])


def test_directories(tmp_path):
    wanted = tmp_path / "a" / "b"
    assert observe.existing_parent(str(wanted)) == str(tmp_path)
    seen = observe.look_at_directory(str(wanted))
    assert seen["problem"] == ""
    assert seen["type"]
    assert not wanted.exists()
    (tmp_path / "a").write_text("")
    assert "no directory" in observe.look_at_directory(str(wanted))["problem"]
    assert observe.disk_of(str(wanted))["bytes"] > 0


def test_names():
    assert observe.resolve("localhost")
    assert observe.resolve("no-such-host.invalid") == []
    assert observe.resolve("a" * 300) == []


def test_knocking():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        port = server.getsockname()[1]
        assert observe.knock("127.0.0.1", port) == "Connection refused"
        server.listen()
        assert observe.knock("127.0.0.1", port) == ""


def test_nothing_here_raises():
    def run(words):
        return 127, "", "not found"

    wanted = {
        "groups": ["registry_nodes", "registry_lb", "registry_clients"], "address": "", "path": "/var/lib", "name": "localhost",
        "port": 443, "vip": "192.0.2.10/24", "s3": {}, "nfs_server": "", "rootdirectory": "/srv", "ca_certificates": "",
    }  # fmt: skip
    seen = observe.observe(wanted, run)
    assert seen["cpu_cores"] >= 1
    assert seen["memory_bytes"] > 0
    assert seen["vip"]["held"] is False
