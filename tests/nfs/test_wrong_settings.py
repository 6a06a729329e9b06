# Copyright (c) 2026 wharf.registry contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Settings with which registries go wrong on NFS are refused before, and told of when they are there: by the option's name."""

from __future__ import annotations

import contextlib
import json
from typing import Iterator

import pytest
from settings import MACHINES
from storage import PATH, SERVER, Storage

NODE = "machine3"
SOURCE = f"{MACHINES[SERVER].address}:/srv/nfs/registry"
GOOD = "vers=4.2,hard,sync,lookupcache=positive,actimeo=1,noatime,nodev,nosuid,noexec"
MOUNTED_BY_HAND = {
    "soft": GOOD.replace("hard", "soft"),
    "sync": GOOD.replace("sync,", ""),
    # What mount does when nobody says anything about caches.
    "lookupcache": "vers=4.2,hard,sync,nodev,nosuid,noexec",
    "actimeo": GOOD.replace("actimeo=1,", ""),
}


def told(storage: Storage, name: str) -> dict[str, str]:
    """Causes that the probe of a node tells, by option."""
    return {problem["option"]: problem["cause"] for problem in storage.state(name)["problems"]}


@contextlib.contextmanager
def instead_of_the_mount(storage: Storage, options: str) -> Iterator[None]:
    """The node's mount made by hand with these options; none: nothing is mounted."""
    storage.ssh(NODE, f"systemctl stop wharf-nfs srv-wharf-nfs.mount; ! mountpoint -q {PATH}")
    if options:
        storage.ssh(NODE, f"mount -t nfs4 -o {options} {SOURCE} {PATH}")
    try:
        yield
    finally:
        storage.ssh(NODE, f"! mountpoint -q {PATH} || umount -l {PATH}; systemctl restart wharf-nfs")
        storage.wait("the good mount did not come back", storage.healthy, 60)


@pytest.mark.parametrize("option", ["soft", "async", "lookupcache=all", "actimeo=60", "nocto", "vers=3"])
def test_options_are_refused_before_anything_is_touched(storage: Storage, option: str) -> None:
    wanted = {"wharf_storage": {"nfs": {"server": MACHINES[SERVER].address, "export": "/srv/nfs/registry", "options": [option]}}}
    code, output = storage.play("-e", json.dumps(wanted), "--limit", "machine1")
    assert code != 0
    assert f"wharf_storage.nfs.options: {option.split('=')[0]}" in output
    assert "changed=0" in output


def test_another_uid_on_one_node_is_refused(storage: Storage) -> None:
    code, output = storage.play("-e", '{"registry_uid": "{{ 1234 if inventory_hostname == \'machine2\' else 65532 }}"}')
    assert code != 0
    assert "registry_uid" in output and "65532:65532" in output and "1234:65532" in output


@pytest.mark.parametrize("option", list(MOUNTED_BY_HAND))
def test_a_wrong_mount_is_told_by_option(storage: Storage, option: str) -> None:
    """When the registry is to be started, and by the probe that runs."""
    with instead_of_the_mount(storage, MOUNTED_BY_HAND[option]):
        code, output = storage.once(NODE)
        assert code == 1 and any(line.startswith(f"{option} ") for line in output.splitlines()), output
        storage.wait(f"the probe did not tell {option}", lambda: option in told(storage, NODE), 20)


def test_a_client_that_remembers_too_much_is_found_by_what_it_does(storage: Storage) -> None:
    """Not only by its options: a blob that another node has written is not seen there."""
    with instead_of_the_mount(storage, MOUNTED_BY_HAND["lookupcache"]):
        storage.wait(
            "the probe did not see that a blob was missing",
            lambda: (
                "is not seen here" in told(storage, NODE).get("lookupcache", "") or "still seen" in told(storage, NODE).get("actimeo", "")
            ),
            60,
        )


def test_a_local_directory_instead_of_the_mount_is_told(storage: Storage) -> None:
    with instead_of_the_mount(storage, ""):
        code, output = storage.once(NODE)
        assert code == 1 and output.startswith(f"mount ({PATH})"), output
        storage.wait("the probe did not tell that the mount is missing", lambda: "mount" in told(storage, NODE), 20)
        # Nothing of the registry is there, and who is not root cannot make it.
        assert storage.ssh(NODE, f"ls -A {PATH}; stat -c '%U %a' {PATH}").strip() == "root 0"
        assert storage.code(NODE, f"setpriv --reuid 65532 --regid 65532 --clear-groups mkdir {PATH}/registry") != 0


def test_a_node_with_another_uid_is_told(storage: Storage) -> None:
    storage.ssh(NODE, 'cp /etc/wharf/nfs.json /root/nfs.json && sed -i \'s/"uid": 65532/"uid": 1234/\' /etc/wharf/nfs.json')
    try:
        code, output = storage.once(NODE)
        assert code == 1 and output.startswith("anonuid "), output
    finally:
        storage.ssh(NODE, "cp /root/nfs.json /etc/wharf/nfs.json")


def test_an_export_without_the_registrys_user_is_refused(storage: Storage) -> None:
    """An administrator's own line in /etc/exports wins over the role's; the role does not go on with it, and no node starts on it."""
    line = f"/srv/nfs/registry {MACHINES[NODE].address}(rw,sync,no_wdelay,no_subtree_check,root_squash)"
    try:
        # It complains of two lines for one directory, and takes the first.
        storage.ssh(SERVER, f"echo '{line}' > /etc/exports; exportfs -ra", check=False)
        code, output = storage.play("--limit", SERVER)
        assert code != 0 and "anonuid (" in output, output[-2000:]
        code, output = storage.once(NODE)
        assert code == 1 and "anonuid" in output, output
    finally:
        storage.ssh(SERVER, ": > /etc/exports; exportfs -ra")
    storage.wait("the nodes did not get well again", storage.healthy, 60)
