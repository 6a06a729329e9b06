# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tests of the zipapp that node_tools puts on hosts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from ansible_collections.wharf.registry.plugins.action.node_tools import MODULE_UTILS, zipapp_bytes
from ansible_collections.wharf.registry.tests.unit.plugins.module_utils.store_builder import Builder


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
    for command in ("check", "drain", "restore", "gc", "retention", "lifecycle", "usage", "probe"):
        assert command in told


@pytest.fixture
def registry(tmp_path):
    """A registry's configuration over a storage with the tags 1, 2 and 3, and the zipapp that works on it."""
    store = Builder(tmp_path / "data")
    for number in (1, 2, 3):
        store.image("shop/web", [b"layer %d" % number], [str(number)], config=b"%d" % number)
    config = tmp_path / "config.yml"
    config.write_text(json.dumps({"version": 0.1, "storage": {"filesystem": {"rootdirectory": str(store.root)}}}))
    archive = tmp_path / "wharf.pyz"
    archive.write_bytes(zipapp_bytes(MODULE_UTILS))

    def run(*arguments):
        command = [sys.executable, "-I", str(archive), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path, env={})

    return run, store, str(config), tmp_path / "rules.json"


def test_it_carries_retention_and_collection(registry):
    run, store, config, rules = registry
    rules.write_text(json.dumps({"rules": [{"repositories": ["shop/*"], "keep": {"last": 1}}], "protected": ["1"]}))
    before = store.files()
    preview = run("retention", "--config", config, "--rules", str(rules), "--check", "--in-use", "shop/web:none")
    assert preview.returncode == 0, preview.stderr
    told = json.loads(preview.stdout)
    assert (told["deleted"], told["kept"], store.files()) == (1, 2, before)
    assert told["preview"][0] == "shop/web: 1 to delete, 2 to keep"
    report = rules.with_name("report.json")
    done = run("retention", "--config", config, "--rules", str(rules), "--report", str(report))
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["deleted"] == 1 and json.loads(report.read_text())["decisions"] == told["decisions"]
    collected = run("gc", "--config", config, "--mode", "offline", "--grace", "0s", "--max-delete-fraction", "1")
    assert collected.returncode == 0, collected.stderr
    assert json.loads(collected.stdout)["blobs_deleted"] == 3
    assert len(store.blobs()) == 6


@pytest.mark.parametrize(
    ("text", "options", "words"),
    [
        ('[{"repositories": ["shop/*"], "keep": {"lats": 1}}]', [], "did you mean last?"),
        ('[{"repositories": ["shop/*"], "keep": {"last": 0}}]', ["--floor", "0"], "0 together with floor: 0"),
        ('{"rules": [], "floors": 1}', [], "there is no floors; the keys are rules, protected, floor, in_use"),
        ('"shop"', [], "holds neither a list of rules nor a dictionary with rules"),
        ('[{"repositories": ["shop/*"], "keep": {"last": 1}}]', ["--report", "/nowhere/report.json"], "report"),
        ('[{"repositories": ["shop/*"], "keep": {"last": 1}}]', ["--workers", "0"], "workers and timeout must be 1 or more"),
        ('[{"repositories": ["shop/*"], "keep": {"last": 1}}]', ["--url", "shop"], "for example url: https://registry.example.com"),
        ('[{"repositories": ["shop/*"], "keep": {"last": 1}}]', ["--password-file", "/nowhere"], "/nowhere"),
        ('[{"repositories": ["shop/*"], "keep": {"pulled_within": "1d"}}]', [], "usage is not given"),
    ],
)
def test_what_retention_refuses(registry, text, options, words):
    run, store, config, rules = registry
    rules.write_text(text)
    before = store.files()
    done = run("retention", "--config", config, "--rules", str(rules), *options)
    assert (done.returncode, done.stdout, store.files()) == (1, "", before)
    assert words in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("content", "words"),
    [('{"version": 0.1}', "has no storage section"), ('{"storage": {"inmemory": {}}}', "not supported"), (None, "cannot be read")],
)
def test_configurations_that_retention_refuses(registry, content, words):
    run, _store, config, rules = registry
    rules.write_text('[{"repositories": ["shop/*"], "keep": {"last": 1}}]')
    if content is None:
        os.unlink(config)
    else:
        Path(config).write_text(content)
    done = run("retention", "--config", config, "--rules", str(rules))
    assert done.returncode == 1 and words in done.stderr


def test_a_pattern_that_matches_nothing_is_a_warning(registry):
    run, _store, config, rules = registry
    rules.write_text('[{"repositories": ["shpo/*"], "keep": {"last": 1}}]')
    done = run("retention", "--config", config, "--rules", str(rules))
    assert done.returncode == 0 and json.loads(done.stdout)["deleted"] == 0
    assert "warning: rule 1: repositories: the pattern 'shpo/*' matches no repository" in done.stderr


def test_a_bad_configuration_is_an_exit_status(tmp_path):
    archive = tmp_path / "wharf.pyz"
    archive.write_bytes(zipapp_bytes(MODULE_UTILS))
    done = subprocess.run(
        [sys.executable, str(archive), "check", "--config", str(tmp_path / "none.json")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "none.json" in done.stderr
