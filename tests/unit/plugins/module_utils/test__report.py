# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The page: whole, escaped, and honest about what is not known."""

from __future__ import annotations

import html.parser
import re

import pytest

from ansible_collections.wharf.registry.plugins.module_utils import _report

EVIL = "<script>alert(1)</script>\"'&\x1b[31m\u202e<img src=x onerror=alert(1)>"
VOID = {"meta", "path", "line", "br"}


class Reader(html.parser.HTMLParser):
    """Sees that every element is closed, and remembers what there is."""

    def __init__(self):
        super().__init__()
        self.open, self.tags, self.attributes, self.text = [], set(), [], ""

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes += attrs

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def look(**more):
    return {
        "services": [{"name": "nginx", "state": "active", "oneshot": False}], "health": {"healthy": True}, "memory_total": 8 << 30,
        "disks": [{"path": "/", "size": 100, "available": 50}], "memory_available": 4 << 30, "certificates": {}, "gc": None, **more,
    }  # fmt: skip


def data(text="shop", **more):
    size = {"logical": 1 << 31, "unique": 1 << 30, "shared": 5, "saved": 7}
    entry = {"name": text, "tag_count": 2, "manifest_count": 3, "last_push": "2026-11-24T10:00:00Z", "size": size}
    total = {"project_count": 1, "repository_count": 1, "tag_count": 2, "manifest_count": 3, "size": size}
    total["storage"] = {"blobs": 4, "bytes": 5 << 30, "unreferenced_bytes": 6 << 20}
    points = [(when, when * 1.0) for when in range(0, 3600, 60)]
    panel = {"title": text, "unit": "ops", "series": [{"name": text, "points": points}]}
    return {
        "name": text, "time": 1.8e9, "hosts": [{"name": text, "groups": [text], "look": look()}],
        "storage": {"totals": total, "projects": [entry], "repositories": [entry], "findings": []},
        "trends": {"begin": 0, "end": 3600, "panels": [panel], "alerts": []}, **more,
    }  # fmt: skip


def read(**more):
    reader = Reader()
    page = _report.render(data(**more))
    reader.feed(page)
    assert reader.open == []
    return page, reader


def test_a_good_cluster():
    page, reader = read()
    assert "Nothing to complain of." in page
    assert "5.0 GiB" in page and "1.0 GiB" in page and "6.0 MiB" in page
    assert reader.tags & {"script", "img", "link", "iframe", "object"} == set()
    assert not [value for name, value in reader.attributes if name in ("src", "href", "xlink:href") and not value.startswith("#")]
    assert "url(" not in page and "@import" not in page


def test_everything_from_outside_is_a_text():
    host = {"name": EVIL, "groups": [EVIL], "look": look(
        services=[{"name": EVIL, "state": "failed", "oneshot": False}], health={"healthy": False, "cause": EVIL},
        disks=[{"path": EVIL, "size": 10, "available": 0}], certificates={EVIL: EVIL},
        gc={"time": EVIL, "bytes_freed": 1, "bytes_pending": None, "findings": [{"kind": EVIL, "repository": EVIL, "detail": EVIL}]},
    )}  # fmt: skip
    good = data(EVIL)
    good["trends"]["alerts"] = [{"name": EVIL, "summary": EVIL}]
    page = _report.render({**good, "hosts": [host]})
    reader = Reader()
    reader.feed(page)
    assert reader.open == []
    assert reader.tags & {"script", "img"} == set()
    assert not [name for name, _value in reader.attributes if name.startswith("on")]
    assert "\x1b" not in page and "\u202e" not in page
    assert page.count("&lt;script&gt;") > 15


def test_what_is_wrong_is_in_the_summary():
    sick = look(
        services=[{"name": "wharf-probe", "state": "failed", "oneshot": False}, {"name": "wharf-lifecycle", "state": "inactive", "oneshot": True}],
        health={"healthy": False, "cause": "the storage takes no write"},
        disks=[{"path": "/var", "size": 100, "available": 10}],
        certificates={"/etc/x.crt": "none"},
    )  # fmt: skip
    hosts = [{"name": "registry1", "groups": [], "look": sick}, {"name": "registry2", "groups": [], "look": {}}]
    page, _reader = read(hosts=hosts, trends={}, storage={})
    for sentence in (
        "5 things to look at",
        "registry2 was not reached: nothing is known of it.",
        "registry1: wharf-probe is failed.",
        "registry1 is not healthy: the storage takes no write.",
        "registry1: /var is 90 % full.",
        "No node could be asked what the storage holds.",
        "There is no Prometheus",
    ):
        assert sentence in page, sentence
    assert "wharf-lifecycle is inactive" not in page


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (5e15, "4547.5 TiB"), (None, "unknown"), (float("nan"), "unknown")]
)
def test_bytes_for_people(value, text):
    assert _report.bytes_text(value) == text


@pytest.mark.parametrize(("value", "text"), [(0.004, "4 ms"), (1.5, "1.5 s"), (90, "1.5 min"), (86400 * 90, "90 d"), (-7200, "-2 h")])
def test_durations_for_people(value, text):
    assert _report.duration_text(value) == text


@pytest.mark.parametrize(
    "points", [[], [(0, 0.0)], [(0, float("nan"))], [(0, 5.0), (1, 5.0)], [(0, -1.0), (1, 1e300)], [(0, 1e-12), (3600, 2e-12)]]
)
def test_graphs_of_odd_samples(points):
    drawn = _report.graph("t", "ops", [("a", points)], 0, 3600)
    assert "nan" not in drawn and "inf" not in drawn
    Reader().feed(drawn)


def test_a_gap_in_the_samples_is_a_gap():
    points = [(when, 1.0) for when in (0, 60, 120, 1800, 1860)]
    drawn = _report.graph("t", "ops", [("a", points)], 0, 3600)
    assert re.search(r'<path d="([^"]+)"', drawn).group(1).count("M") == 2
