# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json

import pytest

from ansible_collections.wharf.registry.plugins.module_utils import _tool_config

KINDS = {"name": str, "port": int, "seconds": (int, float), "on": bool}
GOOD = {"name": "one", "port": 1, "seconds": 0.5, "on": True}


def parse(content: object) -> dict[str, object]:
    return _tool_config.checked(content, KINDS, optional=("on",))


def test_what_is_right(tmp_path):
    path = tmp_path / "good.json"
    path.write_text(json.dumps(GOOD))
    assert _tool_config.load(str(path), parse) == GOOD
    assert parse({key: GOOD[key] for key in ("name", "port", "seconds")})


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "Expecting value"),
        ("[]", "must be a JSON object"),
        (json.dumps({**GOOD, "nmae": "one"}), "unknown key nmae; known are name, port, seconds, on"),
        (json.dumps({"name": "one"}), "missing key port, seconds"),
        (json.dumps({**GOOD, "port": "1"}), "port: '1' is of the wrong type"),
        (json.dumps({**GOOD, "port": True}), "port: True is of the wrong type"),
        (json.dumps({**GOOD, "on": 1}), "on: 1 is of the wrong type"),
    ],
)
def test_what_is_wrong_is_named_with_the_file(tmp_path, content, words):
    path = tmp_path / "wrong.json"
    path.write_text(content)
    with pytest.raises(_tool_config.ConfigError) as caught:
        _tool_config.load(str(path), parse)
    assert str(caught.value).startswith(f"{path}: ") and words in str(caught.value)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(_tool_config.ConfigError, match="No such file"):
        _tool_config.load(str(tmp_path / "none.json"), parse)


def test_paths_are_absolute():
    _tool_config.absolute({"log": "/var/log/x"}, "log", example="/var/log/x")
    with pytest.raises(_tool_config.ConfigError, match="log: x is no absolute path; for example /var/log/x"):
        _tool_config.absolute({"log": "x"}, "log", example="/var/log/x")
