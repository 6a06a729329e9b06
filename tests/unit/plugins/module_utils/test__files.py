# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Atomic files: mode and owner, links, leftovers, locks."""

from __future__ import annotations

import multiprocessing
import os
import stat
import time

import pytest

from ansible_collections.wharf.registry.plugins.module_utils import _files


def mode_of(path):
    return stat.S_IMODE(os.stat(path).st_mode)


@pytest.mark.parametrize(
    ("value", "bits"),
    [("0640", 0o640), ("640", 0o640), ("0o600", 0o600), (0o640, 0o640), ("u=rw,g=r,o=", 0o640), ("a=r,u+w", 0o644), ("go-rwx", 0o700)],
)
def test_modes_are_understood(value, bits):
    assert _files.parse_mode(value, current=0o755) == bits


@pytest.mark.parametrize("value", [640, 0o1640, "8", "rw", "u=rws", "", True, None, -1, [], "4755"])
def test_other_modes_are_refused_with_the_option(value):
    with pytest.raises(_files.FileRefused, match='privatekey_mode: .*for example privatekey_mode: "0640"'):
        _files.parse_mode(value, "privatekey_mode")


def test_owners_by_name_and_number():
    assert _files.find_uid(None) is None
    assert _files.find_uid("65532") == 65532
    assert _files.find_uid("root") == 0
    assert _files.find_gid("root") == 0
    with pytest.raises(_files.FileRefused, match="privatekey_owner: there is no user 'nobody-like-that'"):
        _files.find_uid("nobody-like-that", "privatekey_owner")
    with pytest.raises(_files.FileRefused, match="group: there is no group"):
        _files.find_gid("nobody-like-that")


def test_unknown_owners_are_tolerated_on_paper_only(tmp_path):
    wanted = {"mode": "0600", "owner": "nobody-like-that", "group": "nobody-like-that"}
    attributes, unknown = _files.resolve_attributes(str(tmp_path / "file"), lenient=True, **wanted)
    assert (attributes, unknown) == (_files.Attributes(0o600, None, None), ["owner", "group"])
    with pytest.raises(_files.FileRefused):
        _files.resolve_attributes(str(tmp_path / "file"), **wanted)


def test_the_mode_is_exact_whatever_the_umask(tmp_path):
    path = str(tmp_path / "file")
    before = os.umask(0o077)
    try:
        _files.write_atomically(path, b"one", mode=0o644)
    finally:
        os.umask(before)
    assert mode_of(path) == 0o644
    _files.write_atomically(path, b"two", mode=0o600)
    assert (mode_of(path), (tmp_path / "file").read_bytes()) == (0o600, b"two")
    assert os.listdir(tmp_path) == ["file"]


def test_content_is_never_readable_under_a_wider_mode(tmp_path, monkeypatch):
    """When the first byte is written, mode and owner are final."""
    seen = []
    write = os.write

    def spy(descriptor, data):
        status = os.fstat(descriptor)
        seen.append((stat.S_IMODE(status.st_mode), status.st_uid, status.st_size))
        return write(descriptor, data[:2])

    monkeypatch.setattr(os, "write", spy)
    _files.write_atomically(str(tmp_path / "file"), b"secret", mode=0o640, uid=os.getuid())
    assert seen == [(0o640, os.getuid(), size) for size in (0, 2, 4)]
    assert (tmp_path / "file").read_bytes() == b"secret"


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give files away")
def test_owners_are_kept_unless_asked_for(tmp_path):
    path = str(tmp_path / "file")
    _files.write_atomically(path, b"one", mode=0o600, uid=65532, gid=65533)
    _files.write_atomically(path, b"two", mode=0o600)
    assert (os.stat(path).st_uid, os.stat(path).st_gid) == (65532, 65533)
    _files.write_atomically(path, b"two", mode=0o600, uid=0)
    assert (os.stat(path).st_uid, os.stat(path).st_gid) == (0, 65533)
    assert _files.differing_attributes(path, _files.Attributes(0o640, 1, 2)) == ["mode", "owner", "group"]
    _files.apply_attributes(path, _files.Attributes(0o640, 1, 2))
    assert _files.read_attributes(path) == _files.Attributes(0o640, 1, 2)


def test_a_failed_write_leaves_everything_as_it_was(tmp_path, monkeypatch):
    path = str(tmp_path / "file")
    _files.write_atomically(path, b"old", mode=0o600)

    def fail(_descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space left"):
        _files.write_atomically(path, b"new", mode=0o600)
    assert ((tmp_path / "file").read_bytes(), os.listdir(tmp_path)) == (b"old", ["file"])


def test_leftovers_of_this_file_only_are_removed(tmp_path):
    for name in (".file.0123.wharf-tmp", ".other.0123.wharf-tmp", ".file.mine", "file"):
        (tmp_path / name).write_bytes(b"")
    _files.remove_leftovers(str(tmp_path / "file"))
    assert sorted(os.listdir(tmp_path)) == [".file.mine", ".other.0123.wharf-tmp", "file"]


def test_links_are_refused_or_followed(tmp_path):
    target, link, loop = tmp_path / "target", tmp_path / "link", tmp_path / "loop"
    target.write_bytes(b"")
    link.symlink_to("target")
    loop.symlink_to("loop")
    assert _files.resolve_path(str(target), follow=False) == str(target)
    assert _files.resolve_path(str(link), follow=True) == str(target)
    with pytest.raises(_files.FileRefused, match="path: .* is a symbolic link to target; name that file, or set follow: true"):
        _files.resolve_path(str(link), follow=False)
    with pytest.raises(_files.FileRefused, match="loop"):
        _files.resolve_path(str(loop), follow=True)
    with pytest.raises(_files.FileRefused, match="no regular file"):
        _files.resolve_path(str(tmp_path), follow=False)


def test_a_backup_has_the_original_s_mode(tmp_path):
    path = str(tmp_path / "file")
    _files.write_atomically(path, b"secret", mode=0o600)
    copy = _files.back_up(path)
    assert copy.startswith(path + ".") and copy.endswith("~")
    assert (mode_of(copy), _files.read_if_there(copy)) == (0o600, b"secret")
    with pytest.raises(FileNotFoundError):
        _files.back_up(str(tmp_path / "nothing"))


def hold(path, seconds, ready):
    with _files.locked(path):
        ready.set()
        time.sleep(seconds)


def test_the_lock_makes_others_wait_and_ends_with_its_process(tmp_path):
    path = str(tmp_path / "file")
    context = multiprocessing.get_context("fork")
    ready = context.Event()
    other = context.Process(target=hold, args=(path, 60, ready))
    other.start()
    assert ready.wait(10)
    with pytest.raises(TimeoutError, match="another process has held the lock"), _files.locked(path, timeout=0.2):
        pass
    other.kill()
    other.join()
    with _files.locked(path, timeout=5):
        pass
    assert os.listdir(tmp_path) == []
