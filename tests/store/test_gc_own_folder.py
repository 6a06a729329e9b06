# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What registry_gc keeps in the storage (`wharf-gc/`) is nothing to a registry: neither to one that serves nor to its garbage collection."""

from __future__ import annotations

import subprocess
from typing import Any

import pytest
import servers

from ansible_collections.wharf.registry.plugins.module_utils._store import gc, interface, layout, lock, memo, state
from ansible_collections.wharf.registry.plugins.module_utils._store.driver import Driver
from ansible_collections.wharf.registry.tests.unit.plugins.module_utils.store_builder import Builder, digest_of

RELEASES = [servers.settings.REGISTRY_3, servers.settings.REGISTRY_2]


def fill(driver: Driver, builder: Builder) -> dict[str, bytes]:
    """Write a storage, and all that a killed run of ours may leave in it; return the latter."""
    image = builder.image("shop/web", [b"layer"], ["v1"])
    builder.blob("shop/web", b"orphan")
    for path in builder.files():
        driver.write(path, (builder.root / path).read_bytes())
    request = gc.Request(interface.from_sections({"filesystem": {}}), mode="online", grace=0.0, max_delete_fraction=1.0, settle=0.0)
    gc.run(request, driver=driver)
    driver.write(f"{lock.PREFIX}/0123456789abcdef", b"{}")
    driver.write(layout.trash_path(digest_of(b"on its way out")), b"on its way out")
    left = own(driver)
    assert {state.STATE, memo.PATH} < set(left) and image
    return left


def own(driver: Driver) -> dict[str, bytes]:
    """Return the files of ours."""
    return {entry.path: driver.read(entry.path) for entry in driver.walk(layout.OWN)}


@pytest.fixture(params=["filesystem", "s3"])
def storage(request, tmp_path) -> Any:
    """A section `storage` for each kind."""
    if request.param == "filesystem":
        (tmp_path / "data").mkdir()
        yield {"filesystem": {"rootdirectory": str(tmp_path / "data")}}
    else:
        with servers.s3_store(tmp_path / "s3") as section:
            yield {"s3": section}


@pytest.mark.parametrize("release", RELEASES)
def test_a_registry_serves_and_collects_as_if_it_were_not_there(release, storage, tmp_path):
    driver = interface.open_store(storage)
    left = fill(driver, Builder(tmp_path / "built"))
    sections = {"storage": {**storage, "delete": {"enabled": True}}}
    with servers.registry(release, tmp_path, sections) as (client, config):
        assert client.list_repositories() == ["shop/web"]
        digest = client.put_blob("shop/web", b"another layer")
        assert digest == digest_of(b"another layer")
    for untagged in ([], ["--delete-untagged"]):
        command = [*servers.registry_command(release), "garbage-collect", *untagged, config]
        done = subprocess.run(
            [str(part) for part in command], capture_output=True, text=True, env={"OTEL_TRACES_EXPORTER": "none"}, check=False
        )
        assert done.returncode == 0, done.stderr
        assert layout.OWN not in done.stdout + done.stderr
    assert own(driver) == left
    assert driver.stat(layout.blob_path(digest_of(b"layer"))) is not None
    assert driver.stat(layout.blob_path(digest_of(b"another layer"))) is None
