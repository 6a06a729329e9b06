# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tests of the zipapp that node_tools puts on hosts."""

from __future__ import annotations

import subprocess
import sys
import zipfile

from ansible_collections.wharf.registry.plugins.action.node_tools import MODULE_UTILS, zipapp_bytes


def test_the_same_sources_give_the_same_bytes(tmp_path):
    (tmp_path / "_b.py").write_text("B = 1\n")
    (tmp_path / "_a.py").write_text("A = 1\n")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "_c.py").write_text("C = 1\n")
    (tmp_path / "__pycache__").mkdir()
    (tmp_path / "__pycache__" / "_x.py").write_text("")
    first = zipapp_bytes(tmp_path)
    (tmp_path / "_a.py").touch()
    assert zipapp_bytes(tmp_path) == first
    (tmp_path / "archive").write_bytes(first)
    names = zipfile.ZipFile(tmp_path / "archive").namelist()
    assert names == ["__main__.py", "wharf/__init__.py", "wharf/_a.py", "wharf/_b.py", "wharf/sub/__init__.py", "wharf/sub/_c.py"]


def test_it_runs_and_knows_its_commands(tmp_path):
    archive = tmp_path / "wharf.pyz"
    archive.write_bytes(zipapp_bytes(MODULE_UTILS))
    told = subprocess.run([sys.executable, str(archive), "--help"], capture_output=True, text=True, check=True).stdout
    for command in ("check", "drain", "restore", "probe"):
        assert command in told


def test_a_bad_configuration_is_an_exit_status(tmp_path):
    archive = tmp_path / "wharf.pyz"
    archive.write_bytes(zipapp_bytes(MODULE_UTILS))
    done = subprocess.run(
        [sys.executable, str(archive), "check", "--config", str(tmp_path / "none.json")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "none.json" in done.stderr
