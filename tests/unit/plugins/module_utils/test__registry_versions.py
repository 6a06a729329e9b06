# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The version gate."""

from __future__ import annotations

import pytest

from ansible_collections.wharf.registry.plugins.module_utils._registry.versions import check_version, generation_of, parse_version


@pytest.mark.parametrize("text, release", [("3.1.2", (3, 1, 2)), ("v2.8.3", (2, 8, 3)), (" 3.10.0 ", (3, 10, 0))])
def test_versions_are_read(text, release):
    assert parse_version(text).release == release


@pytest.mark.parametrize("text", ["", "latest", "3", "3.1", "3.1.2.1", "3.1.x", "3.1.2-debian", "registry:3.1.2"])
def test_what_is_no_version_is_refused(text):
    with pytest.raises(ValueError, match=r"3\.1\.2"):
        parse_version(text)


def test_releases_are_in_order():
    texts = ["2.8.2", "2.8.3", "3.0.0-alpha.1", "3.0.0-beta.1", "3.0.0-rc.1", "3.0.0-rc.4", "3.0.0", "3.1.2", "3.10.0"]
    assert sorted(texts, key=parse_version) == texts


def test_generations():
    assert (generation_of("2.8.3"), generation_of("3.1.2")) == (2, 3)
    with pytest.raises(ValueError, match="not known"):
        generation_of("1.0.0")


@pytest.mark.parametrize(
    "version, options",
    [
        ("3.1.2", {"redis": True, "nodes": 3, "cache": "redis"}),
        ("3.1.2", {"redis": True, "nodes": 3, "cache": "redis", "proxy": True}),
        ("3.2.0", {"redis": False, "nodes": 1, "cache": "inmemory"}),
        ("2.8.3", {"redis": False, "nodes": 3}),
        ("2.8.2", {"redis": False, "nodes": 1, "cache": "inmemory"}),
    ],
)
def test_safe_combinations_pass(version, options):
    assert check_version(version, **options) == []


@pytest.mark.parametrize(
    "version, options, variable, words",
    [
        ("latest", {}, "registry_version", "no complete version"),
        ("4.0.0", {}, "registry_version", "not known"),
        ("2.7.1", {}, "registry_version", "only 2.8.x"),
        ("2.8.1", {}, "registry_version", "CVE-2023-2253"),
        ("3.0.0", {}, "registry_version", "CVE-2026-35172"),
        ("3.1.0", {}, "registry_version", "CVE-2026-41888"),
        ("3.1.1", {}, "registry_version", "CVE-2026-85747"),
        ("3.2.0-rc.1", {}, "registry_version", "pre-release"),
        ("2.8.3", {"redis": True}, "registry_redis", "CVE-2026-35172"),
        ("2.8.3", {"cache": "redis"}, "registry_redis", "CVE-2026-35172"),
        ("2.8.3", {"proxy": True}, "registry_extra_config.proxy", "CVE-2026-33540"),
        ("3.1.2", {"cache": "inmemory", "nodes": 2}, "registry_extra_config.storage.cache.blobdescriptor", "each node"),
    ],
)
def test_dangerous_combinations_are_refused(version, options, variable, words):
    findings = check_version(version, **{"redis": False, "nodes": 1, **options})
    assert [finding["variable"] for finding in findings] == [variable]
    assert words in findings[0]["problem"]
    assert findings[0]["example"]
    assert all(isinstance(value, str) for value in findings[0].values())


def test_all_reasons_are_told_at_once():
    findings = check_version("2.8.1", redis=True, nodes=2, proxy=True, cache="inmemory")
    assert len(findings) == 4
