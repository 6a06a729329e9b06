# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The probe across nodes: several of them in one directory, as processes too, and storages that lie.

A client that remembers too much is shown by copies of the directory that are brought up to date too late.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest

from ansible_collections.wharf.registry.plugins.module_utils._nfs import probe as nfs
from ansible_collections.wharf.registry.plugins.module_utils._probe import check_nfs
from ansible_collections.wharf.registry.plugins.module_utils._tool_config import ConfigError

NAMES = ("one", "two", "three")


def config(path, name, nodes=NAMES, **more):
    more = {"interval": 0.1, "patience": 0.2, **more}
    return nfs.Config(name, list(nodes), str(path), "nfs:/srv", str(path / "registry"), os.geteuid(), os.getegid(), **more)


def options(problems):
    return sorted({problem.option for problem in problems})


def test_nodes_that_share_a_directory_are_content(tmp_path):
    probes = [nfs.Probe(config(tmp_path, name)) for name in NAMES]
    for _round in range(30):
        for probe in probes:
            assert probe.play() == []
    for probe in probes:
        assert all(probe.alive.values())
        # Files went both ways between each pair, and blobs do not pile up.
        assert all(peer.taken and peer.beat["count"] >= 29 for peer in probe.peers.values())
        assert len(os.listdir(tmp_path / nfs.DIRECTORY / probe.config.name / "blobs")) == nfs.KEPT


def test_a_node_that_stops_or_begins_anew_is_no_problem(tmp_path):
    now = [0.0]
    probes = {
        name: nfs.Probe(config(tmp_path, name), clock=lambda: now[0], pause=lambda seconds: now.__setitem__(0, now[0] + seconds))
        for name in NAMES
    }

    def play(*names):
        found = []
        for name in names:
            now[0] += 0.1
            found += probes[name].play()
        return found

    for _round in range(5):
        assert play(*NAMES) == []
    for _round in range(10):
        assert play("one", "two") == []
    assert probes["one"].alive == {"two": True, "three": False}
    probes["three"] = nfs.Probe(config(tmp_path, "three"), clock=lambda: now[0])
    for _round in range(5):
        assert play(*NAMES) == []
    assert probes["one"].alive == {"two": True, "three": True}


def pair(tmp_path, forget):
    """Play two nodes of which the second sees the storage as ``forget`` leaves it; return what the second finds."""
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    writer = nfs.Probe(config(here, "one", ["one", "two"]))
    reader = nfs.Probe(config(there, "two", ["one", "two"]))
    found = []
    for _round in range(4):
        assert writer.play() == []
        # What the writer has written arrives at the reader's side, except for what that remembers otherwise.
        shutil.copytree(here / nfs.DIRECTORY / "one", there / nfs.DIRECTORY / "one", dirs_exist_ok=True)
        forget(there / nfs.DIRECTORY / "one", writer.count)
        found += reader.play()
    return found


def test_a_blob_that_is_remembered_as_missing_is_found_out(tmp_path):
    def forget(directory, count):
        (directory / "blobs" / str(count)).unlink()

    assert options(pair(tmp_path, forget)) == ["lookupcache"]


def test_a_blob_whose_size_is_remembered_is_found_out(tmp_path):
    def forget(directory, count):
        os.truncate(directory / "blobs" / str(count), 100)

    assert options(pair(tmp_path, forget)) == ["actimeo"]


def test_a_blob_that_comes_late_but_in_time_is_good(tmp_path):
    assert pair(tmp_path, lambda directory, count: None) == []


def test_a_file_that_was_moved_away_but_is_still_seen_is_found_out(tmp_path):
    one, two = (nfs.Probe(config(tmp_path, name, ["one", "two"])) for name in ("one", "two"))
    found = []
    for _round in range(6):
        found += one.play()
        gift = tmp_path / nfs.DIRECTORY / "from-one-to-two" / "gift"
        before = gift.read_bytes() if gift.exists() else None
        two.play()
        if before is not None and not gift.exists():
            gift.write_bytes(before)
    assert options(found) == ["actimeo"]
    assert "two has moved away" in found[0].cause


@pytest.mark.skipif(os.geteuid() != 0, reason="root alone can become another user")
def test_another_user_is_refused_with_the_name_of_the_option(tmp_path):
    tmp_path.chmod(0o755)
    storage = tmp_path / "storage"
    storage.mkdir(mode=0o750)
    script = (
        "import os, sys; os.setgid(4711); os.setuid(4711);"
        "from ansible_collections.wharf.registry.plugins.module_utils._nfs import probe as n;"
        f"c = n.Config('one', [], {str(storage)!r}, 'nfs:/srv', '/x', 4711, 4711);"
        "print([p.option for p in n.Probe(c).play()])"
    )
    answer = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": ":".join(sys.path)}
    )
    assert answer.stdout.strip() == "['anonuid']"


def test_files_that_become_anothers_are_refused(tmp_path):
    probe = nfs.Probe(nfs.Config("one", [], str(tmp_path), "nfs:/srv", "/x", os.geteuid() + 1, os.getegid()))
    assert options(probe.play()) == ["anonuid"]


@pytest.mark.parametrize(
    "mountinfo, option, words",
    [
        ("", "mount", "nothing is mounted"),
        ("80 22 254:0 / {path} rw,nodev,nosuid,noexec - ext4 /dev/vdb rw", "mount", "of the kind ext4"),
        ("80 22 0:4 / {path} rw,nodev,nosuid,noexec - nfs4 other:/srv rw,sync,vers=4.2,hard,lookupcache=pos,acregmax=1,acdirmin=1,acdirmax=1,acregmin=1",
         "mount", "other:/srv is mounted instead of nfs:/srv"),
        ("80 22 0:4 / {path} rw,nodev,nosuid,noexec - nfs4 nfs:/srv rw,sync,vers=4.2,soft,lookupcache=pos,noac", "soft", "damaged"),
    ],
)  # fmt: skip
def test_a_local_directory_or_a_wrong_mount_is_refused_and_nothing_is_written(tmp_path, mountinfo, option, words):
    text = mountinfo.format(path=tmp_path)
    found = nfs.look_at_mount(config(tmp_path, "one"), text)
    assert options(found) == [option]
    assert words in found[0].cause
    if option == "mount" and "nfs4" not in text:
        assert nfs.prepare(config(tmp_path, "one"), text) == found
        assert os.listdir(tmp_path) == []


def test_prepare_makes_the_registrys_directory_on_the_mount(tmp_path):
    text = f"80 22 0:4 / {tmp_path} rw,nodev,nosuid,noexec - nfs4 nfs:/srv rw,sync,vers=4.2,hard,lookupcache=pos,noac"
    assert nfs.prepare(config(tmp_path, "one"), text) == []
    assert (tmp_path / "registry").is_dir()
    assert os.listdir(tmp_path / nfs.DIRECTORY) == []
    assert nfs.prepare(config(tmp_path, "one"), text) == []


def test_three_processes_find_each_other_and_tell(tmp_path, monkeypatch):
    """The daemon itself, three times, on a directory that is declared to be an export; one is killed."""
    mountinfo = tmp_path / "mountinfo"
    storage = tmp_path / "storage"
    storage.mkdir()
    mountinfo.write_text(f"80 22 0:4 / {storage} rw,nodev,nosuid,noexec - nfs4 nfs:/srv rw,sync,vers=4.2,hard,lookupcache=pos,noac\n")
    processes = {}
    try:
        for name in NAMES:
            path = tmp_path / f"{name}.json"
            path.write_text(json.dumps({
                **config(storage, name, interval=0.2, patience=2.0).__dict__,
                "state": str(tmp_path / f"{name}.state"), "metrics": str(tmp_path / f"{name}.prom"),
            }))  # fmt: skip
            script = (
                "from ansible_collections.wharf.registry.plugins.module_utils import _cli;"
                "from ansible_collections.wharf.registry.plugins.module_utils._nfs import probe;"
                f"probe.MOUNTINFO = {str(mountinfo)!r}; raise SystemExit(_cli.main(['nfs-probe', '--config', {str(path)!r}]))"
            )
            processes[name] = subprocess.Popen([sys.executable, "-c", script], env={**os.environ, "PYTHONPATH": ":".join(sys.path)})

        def state(name):
            path = tmp_path / f"{name}.state"
            return json.loads(path.read_text()) if path.exists() else {}

        def wait(condition):
            end = time.monotonic() + 30
            while not condition():
                assert time.monotonic() < end, {name: state(name) for name in NAMES}
                time.sleep(0.1)

        wait(lambda: all(len(state(name).get("peers", {})) == 2 and all(state(name)["peers"].values()) for name in NAMES))
        assert all(state(name)["healthy"] for name in NAMES)
        assert check_nfs(str(tmp_path / "one.state")) is None
        processes["three"].kill()
        processes["three"].wait()
        wait(lambda: state("one")["peers"] == {"two": True, "three": False})
        assert state("one")["healthy"]
        # The state is written first, the metrics a moment after it.
        wait(lambda: 'wharf_nfs_peer_seen{node="three"} 0\n' in (tmp_path / "one.prom").read_text())
        assert "wharf_nfs_healthy 1\n" in (tmp_path / "one.prom").read_text()
        # The export is gone, and a directory lies there instead.
        mountinfo.write_text("22 1 254:0 / / rw - ext4 /dev/root rw\n")
        wait(lambda: not state("one")["healthy"])
        assert check_nfs(str(tmp_path / "one.state")).startswith(f"mount: nothing is mounted at {storage}")
        wait(lambda: 'wharf_nfs_problem{option="mount"} 1\n' in (tmp_path / "one.prom").read_text())
        processes["one"].send_signal(signal.SIGTERM)
        assert processes["one"].wait(10) == 0
    finally:
        for process in processes.values():
            process.kill()
            process.wait()


@pytest.mark.parametrize(
    "state, words",
    [
        (None, "has not told anything yet"),
        ({"monotonic": 10.0, "healthy": True, "problems": []}, "the storage hangs"),
        ({"monotonic": 500.0, "healthy": True, "problems": []}, "the storage hangs"),
        (
            {"monotonic": 95.0, "healthy": False, "problems": [{"option": "soft", "cause": "bad", "cure": "use hard"}]},
            "soft: bad; use hard",
        ),
        ({"monotonic": 95.0}, "no cause"),
    ],
)
def test_cause_for_the_health_probe(state, words):
    assert words in nfs.cause_in(state, 100.0, 30.0)
    assert nfs.cause_in({"monotonic": 95.0, "healthy": True, "problems": []}, 100.0, 30.0) is None


@pytest.mark.parametrize(
    "change, words",
    [
        ({"nme": "x"}, "unknown key nme"),
        ({"uid": "65532"}, "uid"),
        ({"nodes": ["../x"]}, "no name of a host"),
        ({"path": None}, "path"),
    ],
)
def test_a_configuration_that_cannot_be_used_is_refused(tmp_path, change, words):
    good = config(tmp_path, "one").__dict__
    assert nfs.parse_config(good) == config(tmp_path, "one")
    with pytest.raises(ConfigError, match=words):
        nfs.parse_config({**good, **change})
    with pytest.raises(ConfigError, match="missing key uid"):
        nfs.parse_config({key: value for key, value in good.items() if key != "uid"})
