# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is added to a prometheus.yml is there, nothing else is changed, and it goes again to the byte."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from ansible_collections.wharf.registry.plugins.module_utils._prometheus_config import ConfigError, added, without

JOB = "- job_name: wharf\n  static_configs:\n    - targets: [a]\n"
LISTS = {"rule_files": ["- /etc/wharf.yml"], "scrape_configs": [JOB]}
SECTIONS = {"alerting": "alertmanagers: []"}

FILES = {
    "nothing": "",
    "a comment without an end": "# mine",
    "everything": "global: {}\nalerting:\n  alertmanagers: []\nrule_files:\n  - mine.yml\nscrape_configs:\n  - job_name: mine\n",
    "no end of the last line": "scrape_configs:\n- job_name: mine",
    "a key on the last line": "scrape_configs:\n- job_name: mine\nrule_files:",
    "an empty list": "rule_files:\n\n# none yet\n# - 'first.yml'\n\nscrape_configs:\n  - job_name: mine\n",
    "no indentation": "rule_files:\n# these\n- mine.yml\nscrape_configs:\n-   job_name: mine\n    params:\n      x: [y]\n",
    "much indentation": "rule_files:   # these\n        - mine.yml\nscrape_configs:\n      - job_name: mine\n",
    "quoted keys": "\"rule_files\":\n  - mine.yml\n'scrape_configs' :\n  - job_name: mine\n",
    "line ends of other systems": "rule_files:\r\n  - mine.yml\r\nscrape_configs:\r\n  - job_name: mine\r\n",
}


def read(text: str) -> dict[str, Any]:
    """The file's content, without empty values."""
    return {key: value for key, value in (yaml.safe_load(text) or {}).items() if value}


@pytest.mark.parametrize("before", FILES.values(), ids=FILES)
def test_is_added_and_goes_again(before: str) -> None:
    after = added(before, "c", LISTS, SECTIONS)
    was, now = read(before), read(after)
    assert now.pop("rule_files") == ["/etc/wharf.yml", *was.pop("rule_files", [])]
    jobs = now.pop("scrape_configs")
    assert jobs == [{"job_name": "wharf", "static_configs": [{"targets": ["a"]}]}, *was.pop("scrape_configs", [])]
    assert now.pop("alerting") == was.pop("alerting", {"alertmanagers": []})
    assert now == was
    assert without(after, "c") == before
    assert added(after, "c", LISTS, SECTIONS) == after


@pytest.mark.parametrize("before", FILES.values(), ids=FILES)
def test_two_names_do_not_touch_each_other(before: str) -> None:
    one = added(before, "one", LISTS, {})
    both = added(one, "two", {"rule_files": ["- /etc/two.yml"]}, {})
    assert without(both, "two") == one
    assert "/etc/two.yml" in read(without(both, "one"))["rule_files"]
    assert without(without(both, "two"), "one") == before
    assert without(without(both, "one"), "two") == before
    three = added(both, "three", {"rule_files": ["- /etc/three.yml"]}, {})
    assert read(without(three, "one"))["rule_files"][:2] == ["/etc/three.yml", "/etc/two.yml"]
    assert without(without(without(three, "one"), "two"), "three") == before
    assert without(without(without(three, "one"), "three"), "two") == before


@pytest.mark.parametrize("before", FILES.values(), ids=FILES)
def test_two_names_with_different_lists(before: str) -> None:
    one = added(before, "one", {"rule_files": ["- /etc/one.yml"]}, {})
    both = added(one, "two", {"scrape_configs": [JOB]}, {})
    assert "/etc/one.yml" not in without(both, "one")
    assert read(without(both, "one"))["scrape_configs"][0]["job_name"] == "wharf"
    assert without(without(both, "one"), "two") == without(without(both, "two"), "one") == before


def test_owner_may_change_the_rest_meanwhile() -> None:
    after = added(FILES["everything"], "c", LISTS, SECTIONS).replace("mine.yml", "yours.yml") + "# new\n"
    assert without(after, "c") == FILES["everything"].replace("mine.yml", "yours.yml") + "# new\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("rule_files: [a.yml]\n", "'rule_files' has its value on its own line"),
        ("rule_files: []\n", "'rule_files' has its value on its own line"),
        ("rule_files:\n  a: b\n", "no list"),
        ("rule_files:\n- a\nrule_files:\n- b\n", "twice, on lines 1 and 3"),
        ("# BEGIN wharf.registry c\n", "without '# END wharf.registry c'"),
        ("# END wharf.registry c\n", "without '# BEGIN wharf.registry c'"),
        ("# BEGIN wharf.registry c\n# BEGIN wharf.registry c\n", "twice"),
    ],
)
def test_what_cannot_be_edited_is_refused(text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        added(text, "c", LISTS, {})
