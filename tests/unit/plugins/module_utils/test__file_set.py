# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tests of files that are written, tested and put back as one."""

from __future__ import annotations

import os

import pytest

from ansible_collections.wharf.registry.plugins.module_utils._file_set import FileSetError, Item, carry_out, plan

ME = {"owner": str(os.getuid()), "group": str(os.getgid())}


def item(path, content=b"new\n", **values):
    return Item(str(path), content, **{**ME, **values})


def execute(work, tmp_path, *, failing=()):
    ran = []

    def run(command):
        ran.append(command)
        return (1, "line 3 is wrong\n") if command in failing else (0, "")

    try:
        carry_out(work, pending=str(tmp_path / "state" / "pending"), validate=["test"], apply=["use it"], run=run)
    finally:
        execute.ran = ran
    return ran


def test_everything_is_written_tested_and_used(tmp_path):
    items = [item(tmp_path / "dir", None, mode="0750"), item(tmp_path / "dir" / "a", mode="0600"), item(tmp_path / "deep" / "b")]
    assert execute(plan(items), tmp_path) == ["test", "use it"]
    assert (tmp_path / "dir" / "a").read_bytes() == b"new\n"
    assert (tmp_path / "dir" / "a").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "dir").stat().st_mode & 0o777 == 0o750
    assert not (tmp_path / "state" / "pending").exists()
    assert plan(items).steps == []


def test_a_failed_test_puts_everything_back(tmp_path):
    (tmp_path / "old").write_text("old\n")
    (tmp_path / "old").chmod(0o640)
    (tmp_path / "unwanted").write_text("keep me\n")
    items = [
        item(tmp_path / "old"),
        item(tmp_path / "fresh"),
        item(tmp_path / "unwanted", None, present=False),
        item(tmp_path / "folder", None, mode="0755"),
    ]
    with pytest.raises(FileSetError, match="'test' refuses the new files, so the old ones are back and in use: line 3 is wrong"):
        execute(plan(items), tmp_path, failing=["test"])
    assert execute.ran == ["test"]
    assert (tmp_path / "old").read_text() == "old\n"
    assert (tmp_path / "old").stat().st_mode & 0o777 == 0o640
    assert (tmp_path / "unwanted").read_text() == "keep me\n"
    assert not (tmp_path / "fresh").exists()
    assert not (tmp_path / "folder").exists()
    assert not (tmp_path / "state" / "pending").exists()


def test_what_was_not_put_to_use_is_pending_for_the_next_run(tmp_path):
    items = [item(tmp_path / "a")]
    with pytest.raises(FileSetError, match="'use it' failed; run this again"):
        execute(plan(items), tmp_path, failing=["use it"])
    assert (tmp_path / "a").exists()
    assert (tmp_path / "state" / "pending").exists()
    assert plan(items).steps == []
    assert execute(plan(items), tmp_path) == ["test", "use it"]
    assert not (tmp_path / "state" / "pending").exists()


def test_a_file_that_cannot_be_written_undoes_the_others(tmp_path):
    (tmp_path / "file").write_text("")
    items = [item(tmp_path / "a"), item(tmp_path / "file" / "below")]
    with pytest.raises(FileSetError, match="cannot write, so the old files are back"):
        execute(plan(items), tmp_path)
    assert not (tmp_path / "a").exists()


def test_create_only_leaves_what_is_there(tmp_path):
    (tmp_path / "a").write_text("theirs\n")
    assert plan([item(tmp_path / "a", replace=False)]).steps == []


def test_the_marker_protects_files_of_others(tmp_path):
    (tmp_path / "a").write_text("theirs\n")
    with pytest.raises(FileSetError, match="does not contain 'ours'"):
        plan([item(tmp_path / "a", marker="ours")])
    assert plan([item(tmp_path / "a", None, present=False, marker="ours")]).steps == []
    (tmp_path / "a").write_text("ours\n")
    assert len(plan([item(tmp_path / "a", marker="ours")]).steps) == 1
    assert len(plan([item(tmp_path / "a", None, present=False, marker="ours")]).steps) == 1


@pytest.mark.parametrize("present", [True, False])
def test_kinds_are_not_confused(tmp_path, present):
    (tmp_path / "a").mkdir()
    with pytest.raises(FileSetError, match="is a directory"):
        plan([item(tmp_path / "a", b"" if present else None, present=present)])


def test_unknown_owners_are_tolerated_only_in_check_mode(tmp_path):
    items = [item(tmp_path / "a", owner="nobody-like-this")]
    with pytest.raises(FileSetError, match="there is no user 'nobody-like-this'"):
        plan(items)
    assert len(plan(items, lenient=True).steps) == 1


def test_secrets_are_not_in_the_difference(tmp_path):
    (tmp_path / "key").write_text("OLDKEY")
    work = plan([item(tmp_path / "key", b"NEWKEY", secret=True), item(tmp_path / "conf", b"port 1\n")])
    text = str(work.diff())
    assert "KEY" not in text
    assert "<old secret>" in text
    assert "<new secret>" in text
    assert "port 1" in text
