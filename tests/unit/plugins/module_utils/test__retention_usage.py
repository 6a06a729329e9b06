# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Last pulls from access logs and files."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path

import pytest

from ansible_collections.wharf.registry.plugins.module_utils._retention.usage import Usage, UsageError, read_usage, write_pulls

D = "sha256:" + "a" * 64
TEMPLATE = Path(__file__).resolve().parents[4] / "roles/registry_edge/templates/wharf_edge.conf.j2"


def line(when, method="GET", uri="/v2/shop/web/manifests/1.2", status=200, digest=D):
    entry = {"time": "x", "timestamp": when, "method": method, "uri": uri, "status": status, "content_digest": digest}
    return json.dumps(entry) + "\n"


def test_a_pull_is_a_good_get_of_a_manifest(tmp_path):
    log = tmp_path / "access.log"
    log.write_text(
        line(100, "HEAD", "/v2/")
        + line(200)
        + line(150)
        + line(300, "HEAD")
        + line(301, status=404)
        + line(302, "PUT", status=201)
        + line(303, uri="/v2/shop/web/blobs/" + D)
        + line(250, uri="/v2/a/manifests/manifests/" + D.replace(":", "%3A"), digest="")
    )
    usage = read_usage([str(log)])
    assert usage.of("shop/web") == {"1.2": 200.0, D: 200.0}
    assert usage.of("a/manifests") == {D: 250.0}
    assert usage.of("other") == {} and usage.since == 100 and usage.warnings == []


def test_packed_logs_and_files_of_last_pulls_are_told_apart(tmp_path):
    (tmp_path / "access.log").write_text("")
    (tmp_path / "access.log.1").write_text(line(200))
    with gzip.open(tmp_path / "access.log.2.gz", "wt") as handle:
        handle.write(line(100) + line(120, uri="/v2/b/manifests/x"))
    (tmp_path / "pulls.json").write_text(json.dumps({"shop/web": {"1.2": "1970-01-01T00:10:00Z", "old": 5}}, indent=1))
    usage = read_usage([str(tmp_path / "access.log*"), str(tmp_path / "pulls.json")])
    assert usage.of("shop/web") == {"1.2": 600.0, D: 200.0, "old": 5.0}
    assert usage.of("b")["x"] == 120 and usage.since == 100


def test_half_written_lines_are_counted(tmp_path):
    log = tmp_path / "access.log"
    log.write_text(line(200) + line(300)[:-30] + "\n" + line(400))
    usage = read_usage([str(log)])
    assert usage.of("shop/web")["1.2"] == 400 and "1 lines" in usage.warnings[0]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("no log", "is no JSON"),
        ("[1]", "does not hold repositories"),
        ('{"shop/web": 3}', "has no tags or digests"),
        ('{"shop/web": {"1": "yesterday"}}', "'yesterday' of shop/web:1 is no time"),
        ('{"shop/web": {"1": true}}', "is no time"),
    ],
)
def test_what_is_neither_is_refused(tmp_path, content, words):
    (tmp_path / "x").write_text(content)
    with pytest.raises(UsageError, match=re.escape(words)):
        read_usage([str(tmp_path / "x")])


def test_paths_that_are_not_there_are_refused(tmp_path):
    for patterns, words in (
        ([str(tmp_path / "*.log")], "matches no file"),
        (["access.log"], "no absolute path"),
        ("x", "no list of paths"),
    ):
        with pytest.raises(UsageError, match=words):
            read_usage(patterns)


def test_a_file_of_last_pulls_remembers(tmp_path):
    path = str(tmp_path / "pulls.json")
    first = Usage()
    first.add("a", "1", 100)
    assert write_pulls(path, first)
    second = Usage()
    second.add("a", "1", 90)
    second.add("b", D, 200)
    assert write_pulls(path, second)
    assert not write_pulls(path, Usage())
    assert read_usage([path]).of("a") == {"1": 100.0} and read_usage([path]).of("b") == {D: 200.0}


def test_the_edge_logs_what_is_read_here():
    text = TEMPLATE.read_text(encoding="utf-8")
    for name in ("timestamp", "method", "uri", "status", "content_digest"):
        assert f'"{name}":' in text
