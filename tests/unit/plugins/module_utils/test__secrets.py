# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Generated secrets: made once, never changed, never guessable."""

from __future__ import annotations

import os

import pytest

from ansible_collections.wharf.registry.plugins.module_utils import _secrets
from ansible_collections.wharf.registry.plugins.module_utils._secrets import Secret

WANTED = [Secret("http_secret", 64), Secret("users/admin"), Secret("pin", 20, "0123456789")]


def mode_of(path):
    return os.stat(path).st_mode & 0o777


def test_missing_ones_are_made_once(tmp_path):
    folder = tmp_path / "a" / "secrets"
    names = [secret.name for secret in WANTED]
    assert _secrets.manage(str(folder), WANTED, check=True) == (True, names)
    assert os.listdir(tmp_path) == []
    assert _secrets.manage(str(folder), WANTED, check=False) == (True, names)
    values = {secret.name: (folder / secret.name).read_text() for secret in WANTED}
    assert [len(values[secret.name]) for secret in WANTED] == [64, 32, 20]
    assert set(values["pin"]) <= set("0123456789")
    assert (mode_of(folder), mode_of(folder / "users"), mode_of(folder / "pin")) == (0o700, 0o700, 0o600)
    assert _secrets.manage(str(folder), WANTED, check=False) == (False, [])
    assert _secrets.manage(str(folder), [*WANTED, Secret("new")], check=False) == (True, ["new"])
    assert values == {secret.name: (folder / secret.name).read_text() for secret in WANTED}


def test_existing_ones_are_kept_and_closed(tmp_path):
    tmp_path.chmod(0o755)
    (tmp_path / "mine").write_text("short\n")
    (tmp_path / "mine").chmod(0o644)
    assert _secrets.manage(str(tmp_path), [Secret("mine")], check=True) == (True, [])
    assert mode_of(tmp_path) == 0o755
    assert _secrets.manage(str(tmp_path), [Secret("mine")], check=False) == (True, [])
    assert ((tmp_path / "mine").read_text(), mode_of(tmp_path / "mine"), mode_of(tmp_path)) == ("short\n", 0o600, 0o700)
    assert _secrets.manage(str(tmp_path), [Secret("mine")], check=False) == (False, [])


@pytest.mark.parametrize("name", ["", "/etc/passwd", "../up", "a/../b", "a//b", "a/", ".hidden", "a b", "a\n", "~x"])
def test_names_outside_the_folder_are_refused(tmp_path, name):
    with pytest.raises(_secrets.SecretsRefused, match=r"secrets\[1\]: the name .* an example that works: users/admin"):
        _secrets.manage(str(tmp_path / "x"), [Secret("fine"), Secret(name)], check=False)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("secret", "message"),
    [
        (Secret("a", 10), "10 is no length for a"),
        (Secret("a", 0), "no length"),
        (Secret("a", 9999), "no length"),
        (Secret("a", 19, "0123456789"), "could be guessed"),
        (Secret("a", 99, "0"), "alphabet"),
        (Secret("a", 99, "aab"), "alphabet"),
        (Secret("a", 99, "äb"), "alphabet"),
        (Secret("a", 99, "a\n"), "alphabet"),
    ],
)
def test_secrets_that_can_be_guessed_are_refused(tmp_path, secret, message):
    with pytest.raises(_secrets.SecretsRefused, match=message):
        _secrets.manage(str(tmp_path / "x"), [secret], check=True)


def test_what_is_there_and_no_secret_is_refused(tmp_path):
    (tmp_path / "empty").write_text("")
    (tmp_path / "folder").mkdir()
    for name, message in (("empty", "is empty; write the secret into it, or remove it"), ("folder", "no regular file")):
        for check in (True, False):
            with pytest.raises(_secrets.SecretsRefused, match=message):
                _secrets.manage(str(tmp_path), [Secret("new"), Secret(name)], check=check)
    with pytest.raises(_secrets.SecretsRefused, match="no directory"):
        _secrets.manage(str(tmp_path / "empty"), [Secret("new")], check=False)
    with pytest.raises(_secrets.SecretsRefused, match="twice"):
        _secrets.manage(str(tmp_path), [Secret("new"), Secret("new")], check=False)
    assert sorted(os.listdir(tmp_path)) == ["empty", "folder"]
