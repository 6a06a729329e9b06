# Copyright (c) 2026 wharf.registry contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The role nfs_storage and its probe on real kernel NFS."""

from __future__ import annotations

import re

from conftest import NODES, PATH, SERVER, Storage
from settings import MACHINES


def test_the_server_speaks_one_version_and_exports_to_the_nodes_alone(storage: Storage) -> None:
    versions = storage.ssh(SERVER, "cat /proc/fs/nfsd/versions").split()
    assert [version for version in versions if version.startswith("+")] == ["+4", "+4.2"]
    assert storage.ssh(SERVER, "cat /proc/fs/nfsd/nfsv4leasetime /proc/fs/nfsd/nfsv4gracetime").split() == ["10", "10"]
    exported = [line.split("\t")[1].split("(")[0] for line in storage.ssh(SERVER, "cat /var/lib/nfs/etab").splitlines()]
    assert sorted(exported) == sorted(MACHINES[name].address for name in NODES)


def test_a_second_run_changes_nothing(storage: Storage) -> None:
    code, output = storage.play()
    assert code == 0, output[-3000:]
    for name in (SERVER, *NODES):
        assert re.search(rf"{name} : ok=\d+ changed=0 unreachable=0 failed=0", output), output[-1000:]


def test_the_nodes_have_mounted_it_and_see_each_other(storage: Storage) -> None:
    storage.wait("the nodes did not see each other", storage.healthy, 40)
    for name in NODES:
        mounted = storage.ssh(name, f"grep ' {PATH} ' /proc/mounts")
        for option in ("vers=4.2", "hard", "lookupcache=pos", "acregmax=1", "acdirmax=1", "nosuid", "nodev", "noexec"):
            assert option in mounted
        assert storage.ssh(name, f"stat -c '%u:%g %a' {PATH}/registry").strip() == "65532:65532 750"
        assert "wharf_nfs_healthy 1" in storage.ssh(name, "cat /var/lib/wharf/metrics/wharf_nfs.prom")
    # What root writes is the registry's; others may not even look.
    storage.ssh("machine1", f"echo hello > {PATH}/registry/by-root")
    assert storage.ssh("machine2", f"stat -c %u {PATH}/registry/by-root; rm {PATH}/registry/by-root").strip() == "65532"
    assert storage.code("machine1", f"su -s /bin/sh nobody -c 'ls {PATH}'") != 0
