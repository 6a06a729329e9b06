# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""NFS options: read from where they stand, merged, and judged with the name of the one to change."""

from __future__ import annotations

import pytest

from ansible_collections.wharf.registry.plugins.module_utils._nfs import options as nfs

# As kernels write them: an export mounted by the role, and one mounted with nothing said.
MOUNTINFO = """\
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/root rw
80 22 0:44 / /srv/wharf/nfs rw,nosuid,nodev,noexec,noatime shared:9 - nfs4 192.0.2.31:/srv/nfs/registry \
rw,sync,vers=4.2,rsize=1048576,wsize=1048576,namlen=255,acregmin=1,acregmax=1,acdirmin=1,acdirmax=1,hard,proto=tcp,timeo=100,retrans=2,sec=sys,\
clientaddr=192.0.2.11,lookupcache=pos,local_lock=none,addr=192.0.2.31
81 22 0:45 / /srv/my\\040nfs rw,relatime shared:10 - nfs4 192.0.2.31:/srv rw,vers=4.2,rsize=1048576,hard,proto=tcp,local_lock=none
"""
ETAB = (
    "/srv/nfs/registry\t192.0.2.11(rw,sync,no_wdelay,hide,nocrossmnt,secure,root_squash,no_all_squash,no_subtree_check,secure_locks,acl,no_pnfs,"
    "anonuid=65532,anongid=65532,sec=sys,rw,secure,root_squash,no_all_squash)\n"
    "/home\t*(ro,async,wdelay,root_squash,no_subtree_check,anonuid=65534,anongid=65534)\n"
)


def names(problems):
    return [problem.option for problem in problems]


def test_the_roles_own_mount_is_good():
    mount = nfs.find_mount(MOUNTINFO, "/srv/wharf/nfs")
    assert (mount.kind, mount.source) == ("nfs4", "192.0.2.31:/srv/nfs/registry")
    assert nfs.mount_problems(mount.options) == []
    assert nfs.mount_problems(nfs.mount_options("")) == []


def test_a_mount_with_nothing_said_is_not():
    mount = nfs.find_mount(MOUNTINFO, "/srv/my nfs")
    assert names(nfs.mount_problems(mount.options)) == ["lookupcache", "actimeo", "sync", "nodev", "nosuid", "noexec"]
    assert nfs.find_mount(MOUNTINFO, "/srv/wharf") is None


@pytest.mark.parametrize(
    "own, option, cure",
    [
        ("soft", "soft", "hard"),
        ("softerr", "softerr", "hard"),
        (["lookupcache=all"], "lookupcache", "lookupcache=positive"),
        ("actimeo=60", "actimeo", "actimeo=1"),
        ("acdirmax=30,acregmax=1,acregmin=1,acdirmin=1", "actimeo", "actimeo=1"),
        ("ac", "actimeo", "actimeo=1"),
        ("actimeo=soon", "actimeo", "actimeo=1"),
        ("vers=3", "vers", "vers=4.2"),
        ("vers=4,minorversion=0", "vers", "vers=4.2"),
        ("async", "async", "sync"),
        ("nocto", "nocto", "remove"),
        ("nolock", "nolock", "remove"),
        ("ro", "ro", "rw"),
        ("bg", "bg", "remove"),
        ("udp", "udp", "proto=tcp"),
        ("exec", "noexec", "noexec"),
        ("suid", "nosuid", "nosuid"),
    ],
)
def test_bad_mount_options_are_named(own, option, cure):
    found = nfs.mount_problems(nfs.mount_options(own))
    assert names(found) == [option]
    assert cure in found[0].cure
    assert option in found[0].told()


@pytest.mark.parametrize(
    "own", ["", "noac", "actimeo=0", "actimeo=3", "lookupcache=none", "vers=4.1", "v4.2", "rsize=65536", "nconnect=4", []]
)
def test_good_mount_options(own):
    assert nfs.mount_problems(nfs.mount_options(own)) == []


def test_an_own_option_takes_the_place_of_its_opposite():
    merged = nfs.render(nfs.mount_options("noac,nconnect=4"))
    assert "actimeo" not in merged
    assert merged.endswith("noac,nconnect=4")
    assert nfs.render(nfs.mount_options("soft")).split(",").count("hard") == 0


def test_the_roles_own_export_is_good_as_the_server_tells_it():
    assert nfs.etab_problems(ETAB, "/srv/nfs/registry", ["192.0.2.11"], 65532, 65532) == []
    assert nfs.export_problems(nfs.parse(nfs.export_options(7, 8)), 7, 8) == []


@pytest.mark.parametrize(
    "change, option",
    [
        (("sync", "async"), "async"),
        (("no_wdelay", "wdelay"), "wdelay"),
        (("no_subtree_check", "subtree_check"), "subtree_check"),
        (("root_squash", "no_root_squash"), "no_root_squash"),
        (("anonuid=65532", "anonuid=65534"), "anonuid"),
        (("anongid=65532", "anongid=-2"), "anongid"),
        (("rw", "ro"), "ro"),
        (("192.0.2.11", "192.0.2.0/24"), "export"),
    ],
)
def test_bad_exports_are_named(change, option):
    text = ETAB.replace("rw,secure,root_squash,no_all_squash)", "rw)").replace(*change)
    assert option in names(nfs.etab_problems(text, "/srv/nfs/registry", ["192.0.2.11"], 65532, 65532))


def test_a_node_without_an_export_is_named():
    found = nfs.etab_problems(ETAB, "/srv/nfs/registry", ["192.0.2.11", "192.0.2.12"], 65532, 65532)
    assert [problem.cause for problem in found] == ["it is not exported to 192.0.2.12"]


@pytest.mark.parametrize(
    "storage, option",
    [
        ("nfs:/srv", "wharf_storage.nfs"),
        ({"server": "nfs"}, "wharf_storage.nfs.export"),
        ({"export": "/srv"}, "wharf_storage.nfs.server"),
        ({"server": "nfs:/srv", "export": "/srv"}, "wharf_storage.nfs.server"),
        ({"server": "-o", "export": "/srv"}, "wharf_storage.nfs.server"),
        ({"server": "nfs", "export": "srv"}, "wharf_storage.nfs.export"),
        ({"server": "nfs", "export": "/srv/my nfs"}, "wharf_storage.nfs.export"),
        ({"server": "nfs", "export": "/srv/../etc"}, "wharf_storage.nfs.export"),
        ({"server": "nfs", "export": "/srv", "option": "x"}, "wharf_storage.nfs.option"),
        ({"server": "nfs", "export": "/srv", "options": {"soft": True}}, "wharf_storage.nfs.options"),
        ({"server": "nfs", "export": "/srv", "options": "hard, so ft"}, "wharf_storage.nfs.options"),
        ({"server": "nfs", "export": "/srv", "options": "soft"}, "wharf_storage.nfs.options: soft"),
        ({"server": "nfs", "export": "/srv", "options": ["lookupcache=all"]}, "wharf_storage.nfs.options: lookupcache"),
    ],
)
def test_bad_variables_are_named(storage, option):
    assert option in names(nfs.storage_problems(storage))


@pytest.mark.parametrize("server", ["nfs", "nfs.example.com", "192.0.2.31", "2001:db8::31"])
def test_good_variables(server):
    assert nfs.storage_problems({"server": server, "export": "/srv/nfs/registry", "options": ["nconnect=4"]}) == []
