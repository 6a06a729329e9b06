# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""htpasswd files: every refusal, what is kept and what is rewritten, and properties that hold for any file."""

from __future__ import annotations

import os
import re
import sys
import threading
import types

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.wharf.registry.plugins.module_utils import _files, _htpasswd
from ansible_collections.wharf.registry.plugins.module_utils._htpasswd import User

SHA1 = "{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g="
BCRYPT = "$2y${cost:02d}$" + "a" * 21 + "." + "b" * 31


def fake_hash(password, cost):
    """A hash with bcrypt's form that says its password, so that plans can be tested without computing."""
    return f"$2y${cost:02d}$" + password.encode().hex().ljust(53, ".")[:53]


def fake_verify(password, digest):
    return digest[7:] == fake_hash(password, 4)[7:]


def request(path, users, **options):
    options.setdefault("cost", 4)
    return _htpasswd.Request(path=str(path), users=users, attributes=_files.Attributes(0o640), **options)


def manage(path, users, check=False, **options):
    return _htpasswd.manage(request(path, users, **options), check=check)


@pytest.fixture
def library():
    """The bcrypt of this machine."""
    return _htpasswd.load_bcrypt()


# ------------------------------------------------------------------------------------------------------------ refusals


@pytest.mark.parametrize(
    ("users", "message"),
    [
        ([User("a:b", "p")], r"users\[0\]: the name 'a:b' contains a colon"),
        ([User("a\nb", "p")], r"users\[0\]: .* contains a control character"),
        ([User("a\x7f", "p")], "control character"),
        ([User("a\x85", "p")], "control character"),
        ([User("ä" * 128, "p")], "is 256 bytes long; at most 255"),
        ([User("", "p")], "is empty"),
        ([User(" a", "p")], "white space"),
        ([User("#a", "p")], "comment"),
        ([User("a", "p"), User("b", "")], r"users\[1\]: the password of 'b' is empty"),
        ([User("a", None)], r"users\[0\]: the password of 'a' is missing"),
        ([User("a", "ä" * 36 + "b")], "is 73 bytes long; bcrypt would silently ignore"),
        ([User("a", "x\0y")], "NUL"),
        ([User("a", "p"), User("b", "p"), User("a", "q")], r"users\[2\]: the name 'a' is in users twice \(also at users\[0\]\)"),
        ([User("a", "p"), User("a", present=False)], "twice"),
    ],
)
@pytest.mark.parametrize("check", [False, True])
def test_bad_users_are_refused_and_nothing_changes(tmp_path, users, message, check):
    path = tmp_path / "htpasswd"
    path.write_text("old:{SHA}x\n")
    os.utime(path, (1, 1))
    with pytest.raises(_htpasswd.HtpasswdRefused, match=message) as refusal:
        manage(path, users, check=check)
    assert "an example that works" in str(refusal.value) or "once" in str(refusal.value)
    assert (path.read_text(), path.stat().st_mtime, os.listdir(tmp_path)) == ("old:{SHA}x\n", 1, ["htpasswd"])


def test_the_short_form_names_its_own_options():
    with pytest.raises(_htpasswd.HtpasswdRefused, match="^password: "):
        _htpasswd.check_users([User("a", None)], "name")
    with pytest.raises(_htpasswd.HtpasswdRefused, match="^name: "):
        _htpasswd.check_users([User("a:", "p")], "name")


def test_the_longest_name_and_password_work(tmp_path, library):
    name, password = "n" * 255, "p" * 72
    manage(tmp_path / "htpasswd", [User(name, password)])
    _name, digest = (tmp_path / "htpasswd").read_text().strip().split(":")
    assert library.verify(password, digest)
    assert not library.verify("p" * 71, digest)


def test_refusals_never_say_a_password():
    for users in ([User("a", "geheim" * 20)], [User("a", "ge\0heim")], [User("a", "geheim"), User("a", "geheim")]):
        with pytest.raises(_htpasswd.HtpasswdRefused) as refusal:
            _htpasswd.check_users(users)
        assert "geheim" not in str(refusal.value)
    assert "geheim" not in repr(User("a", "geheim"))


@pytest.mark.parametrize("cost", [3, 18, 0, -1])
def test_costs_out_of_range_are_refused(tmp_path, cost):
    for options, users in (({"cost": cost}, [User("a", "p")]), ({}, [User("a", "p", cost=cost)])):
        with pytest.raises(_htpasswd.HtpasswdRefused, match=f"cost: {cost} is not between 4 and 17"):
            manage(tmp_path / "htpasswd", users, **options)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a:x\nnonsense\n", "line 2 has no colon"),
        (":x\n", "line 1 has no name"),
        ("# c\n\na\x01b:x\n", "line 3 has a control character"),
        ("a:" + "x" * 65536 + "\n", "line 1 is longer than 64 KiB"),
    ],
)
def test_malformed_lines_are_named_and_removed_by_force_only(tmp_path, content, message):
    path = tmp_path / "htpasswd"
    path.write_text(content)
    for check in (True, False):
        with pytest.raises(_htpasswd.HtpasswdRefused, match=f"{message}.*force: true"):
            manage(path, [User("b", "p")], check=check)
    assert path.read_text() == content
    outcome = manage(path, [], force=True)
    assert outcome.changed and len(outcome.warnings) == 1
    assert not any(line.fault for line in _htpasswd.parse(path.read_bytes()))


def test_paths_that_cannot_be_used_are_refused(tmp_path):
    with pytest.raises(_htpasswd.HtpasswdRefused, match="does not exist; .* create: true"):
        manage(tmp_path / "htpasswd", [User("a", "p")], create=False)
    with pytest.raises(_files.FileRefused, match="the directory .*/nowhere does not exist"):
        manage(tmp_path / "nowhere" / "htpasswd", [User("a", "p")])
    assert manage(tmp_path / "nowhere" / "htpasswd", [User("a", "p")], check=True).added == ["a"]
    (tmp_path / "link").symlink_to("htpasswd")
    with pytest.raises(_files.FileRefused, match="symbolic link"):
        manage(tmp_path / "link", [User("a", "p")])
    assert os.listdir(tmp_path) == ["link"]
    manage(tmp_path / "link", [User("a", "p")], follow=True)
    assert (tmp_path / "link").is_symlink() and (tmp_path / "htpasswd").is_file()


# ---------------------------------------------------------------------------------------------------------- what is kept


def test_second_run_changes_nothing(tmp_path, library):
    path = tmp_path / "htpasswd"
    users = [User("alice", "one"), User("bob", "two")]
    predicted = manage(path, users, check=True)
    assert os.listdir(tmp_path) == []
    first = manage(path, users)
    assert (predicted.changed, predicted.added, predicted.after) == (first.changed, first.added, first.after)
    assert first.users == ["alice", "bob"]
    content = path.read_bytes()
    os.utime(path, (1, 1))
    again = manage(path, users)
    assert (again.changed, again.added, again.updated, again.removed) == (False, [], [], [])
    assert (path.read_bytes(), path.stat().st_mtime) == (content, 1)
    digests = {line.name: line.digest for line in _htpasswd.parse(content)}
    assert all(re.fullmatch(r"\$2y\$04\$[./A-Za-z0-9]{53}", digest) for digest in digests.values())
    assert library.verify("one", digests["alice"]) and library.verify("two", digests["bob"])


def test_only_what_differs_is_rewritten(tmp_path, library):
    path = tmp_path / "htpasswd"
    good = library.hash("same", 4).replace("$2y$", "$2a$")
    cheap = library.hash("same", 5)
    path.write_text(f"# people\nkept:{good}\n\ncheap:{cheap}\nweak:{SHA1}\nother:{good}\nstranger:{SHA1}\n")
    outcome = manage(path, [User("other", "new"), User("weak", "same"), User("cheap", "same"), User("kept", "same"), User("new", "same")])
    assert (outcome.added, outcome.updated, outcome.removed) == (["new"], ["other", "weak", "cheap"], [])
    lines = path.read_text().splitlines()
    assert [line.split(":")[0] for line in lines] == ["# people", "kept", "", "cheap", "weak", "other", "stranger", "new"]
    assert lines[1] == f"kept:{good}" and lines[6] == f"stranger:{SHA1}"
    assert "other: bcrypt, cost 4 (other password)" in outcome.after
    assert "weak: bcrypt, cost 4 (was no bcrypt)" in outcome.after
    assert "cheap: bcrypt, cost 4 (had cost 5)" in outcome.after
    assert "$2" not in outcome.before + outcome.after and "SHA" not in outcome.before + outcome.after


def test_on_create_leaves_hashes_alone(tmp_path):
    path = tmp_path / "htpasswd"
    path.write_text(f"old:{SHA1}\n")
    outcome = manage(path, [User("old", "p"), User("new", "p")], on_create=True)
    assert (outcome.added, outcome.updated) == (["new"], [])
    assert path.read_text().startswith(f"old:{SHA1}\n")


def test_exclusive_removes_strangers_and_keeps_comments(tmp_path):
    path = tmp_path / "htpasswd"
    path.write_text(f"# people\nx:{SHA1}\ny:{SHA1}\nx:{SHA1}\n")
    outcome = manage(path, [User("a", "p"), User("y", present=False)], exclusive=True)
    assert (outcome.users, outcome.removed) == (["a"], ["y", "x"])
    assert path.read_text().startswith("# people\na:$2y$04$")


def test_nothing_is_created_for_nobody(tmp_path):
    for options in ({}, {"exclusive": True}):
        assert not manage(tmp_path / "htpasswd", [User("a", present=False)], **options).changed
    assert os.listdir(tmp_path) == []


def test_a_user_listed_twice_in_the_file_becomes_one(tmp_path, library):
    """The registry believes the last line, other servers the first."""
    path = tmp_path / "htpasswd"
    last = library.hash("p", 4)
    path.write_text(f"a:{SHA1}\nb:{SHA1}\na:{last}\n")
    outcome = manage(path, [User("a", "p")])
    assert outcome.updated == ["a"]
    assert path.read_text() == f"a:{last}\nb:{SHA1}\n"


def test_each_user_may_have_a_cost(tmp_path):
    path = tmp_path / "htpasswd"
    users = [User("a", "p", cost=5), User("b", "p")]
    manage(path, users)
    assert [line.digest[:7] for line in _htpasswd.parse(path.read_bytes())] == ["$2y$05$", "$2y$04$"]
    assert not manage(path, users).changed


def test_equal_passwords_get_different_hashes(tmp_path):
    manage(tmp_path / "htpasswd", [User("a", "p"), User("b", "p")])
    first, second = _htpasswd.parse((tmp_path / "htpasswd").read_bytes())
    assert first.digest != second.digest


def test_mode_alone_is_corrected_without_touching_the_content(tmp_path):
    path = tmp_path / "htpasswd"
    manage(path, [User("a", "p")])
    path.chmod(0o644)
    os.utime(path, (1, 1))
    inode = path.stat().st_ino
    assert manage(path, [User("a", "p")], check=True).changed
    outcome = manage(path, [User("a", "p")])
    assert outcome.changed and not outcome.updated and "mode 0644" in outcome.before and "mode 0640" in outcome.after
    assert (path.stat().st_mode & 0o777, path.stat().st_mtime, path.stat().st_ino) == (0o640, 1, inode)


def test_backup(tmp_path):
    path = tmp_path / "htpasswd"
    assert manage(path, [User("a", "p")], backup=True).backup_file is None
    content = path.read_bytes()
    copy = manage(path, [User("a", "q")], backup=True).backup_file
    with open(copy, "rb") as handle:
        assert handle.read() == content
    assert manage(path, [User("a", "q")], backup=True).backup_file is None


def test_parallel_writers_lose_nobody(tmp_path):
    path = tmp_path / "htpasswd"
    threads = [threading.Thread(target=manage, args=(path, [User(f"user{number}", "p")])) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(line.name for line in _htpasswd.parse(path.read_bytes())) == sorted(f"user{number}" for number in range(12))


# ----------------------------------------------------------------------------------------------------------- libraries


@pytest.mark.parametrize("prefix", ["$2a$", "$2b$", "$2y$"])
def test_hashes_of_others_are_verified(library, prefix):
    digest = prefix + library.hash("wörd", 4)[4:]
    assert library.verify("wörd", digest) and not library.verify("word", digest)


def test_each_distinct_work_is_done_once():
    lines = [_htpasswd.make_line(f"u{number}", fake_hash("p", 4)) for number in range(9)] + [_htpasswd.make_line("v", fake_hash("q", 5))]
    calls = []

    def verify(password, digest):
        calls.append((password, digest))
        return fake_verify(password, digest)

    users = [User(line.name, "p") for line in lines]
    plan = _htpasswd.plan_users(lines, users, exclusive=False, cost=4, on_create=False, force=False, verify=verify)
    assert calls == [("p", fake_hash("p", 4))]
    assert plan.updated == ["v"]


def test_passlib_serves_where_bcrypt_is_missing(monkeypatch):
    scheme = types.SimpleNamespace(
        get_backend=lambda: "os_crypt",
        verify=lambda password, digest: digest == _htpasswd._SELF_TEST[1].replace("$2y$", "$2b$") and password == "wharf",
    )
    monkeypatch.setitem(sys.modules, "bcrypt", None)
    monkeypatch.setitem(sys.modules, "passlib", types.ModuleType("passlib"))
    monkeypatch.setitem(sys.modules, "passlib.hash", types.SimpleNamespace(bcrypt=scheme))
    assert _htpasswd.load_bcrypt().library == "passlib"


def test_a_broken_passlib_is_explained(monkeypatch):
    def fail():
        raise ValueError("password cannot be longer than 72 bytes")

    monkeypatch.setitem(sys.modules, "bcrypt", None)
    monkeypatch.setitem(sys.modules, "passlib", types.ModuleType("passlib"))
    monkeypatch.setitem(sys.modules, "passlib.hash", types.SimpleNamespace(bcrypt=types.SimpleNamespace(get_backend=fail)))
    with pytest.raises(_htpasswd.BcryptMissing, match="passlib: ValueError: password cannot be longer than 72 bytes"):
        _htpasswd.load_bcrypt()


def test_without_any_library_nothing_is_written(tmp_path, monkeypatch):
    for name in ("bcrypt", "passlib", "passlib.hash"):
        monkeypatch.setitem(sys.modules, name, None)
    path = tmp_path / "htpasswd"
    with pytest.raises(_htpasswd.BcryptMissing, match="neither .* bcrypt nor a passlib"):
        manage(path, [User("a", "p")])
    assert os.listdir(tmp_path) == []
    assert manage(path, [User("a", "p")], check=True).added == ["a"], "check mode on a bare host needs no library"
    path.write_text(f"a:{SHA1}\n")
    assert manage(path, [User("a", present=False)]).removed == ["a"], "neither does removing"


@pytest.mark.parametrize(
    ("release", "advice"),
    [
        ("ID=debian\n", "apt install python3-bcrypt"),
        ('ID=ubuntu\nID_LIKE="debian"\n', "apt install python3-bcrypt"),
        ('ID="rocky"\nID_LIKE="rhel centos fedora"\n', "dnf install python3-bcrypt .*EPEL"),
        ("ID=alpine\n", "apk add py3-bcrypt"),
        ("", "python3-bcrypt"),
    ],
)
def test_the_missing_library_is_named_as_this_system_calls_it(tmp_path, release, advice):
    (tmp_path / "os-release").write_text(release)
    assert re.search(advice, _htpasswd._describe_missing([], str(tmp_path / "os-release"), "/usr/bin/python3.8"))
    assert "/opt/venv/bin/python -m pip install bcrypt" in _htpasswd._describe_missing(
        [], str(tmp_path / "os-release"), "/opt/venv/bin/python"
    )


# ---------------------------------------------------------------------------------------------------------- properties

names = st.text(min_size=1, max_size=20).filter(lambda name: _htpasswd._fault_of_name(name) is None)
passwords = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=17)
raw_lines = st.one_of(
    st.binary(max_size=40).map(lambda raw: raw.replace(b"\n", b"")),
    st.just(b""),
    st.text(max_size=20).map(lambda text: b"# " + text.encode("utf-8", "replace").replace(b"\n", b"")),
    st.builds(lambda name, cost: f"{name}:{BCRYPT.format(cost=cost)}".encode(), names, st.integers(4, 12)),
)
contents = st.builds(lambda lines, end: b"\n".join(lines) + end, st.lists(raw_lines, max_size=8), st.sampled_from([b"", b"\n"]))
users = st.lists(st.builds(User, names, passwords, st.booleans()), max_size=6, unique_by=lambda user: user.name)


def apply(content, wanted, **options):
    """Plan and apply with the fake bcrypt; return the new content and the plan."""
    options = {"exclusive": False, "cost": 4, "on_create": False, "force": True, **options}
    lines = _htpasswd.parse(content)
    plan = _htpasswd.plan_users(lines, wanted, verify=fake_verify, **options)
    given_passwords = {user.name: user.password for user in wanted}
    digests = {name: fake_hash(given_passwords[name], options["cost"]) for name in plan.to_hash}
    return _htpasswd.render(_htpasswd.apply_plan(lines, plan, digests)), plan


@given(contents)
def test_reading_and_writing_is_stable(content):
    once = _htpasswd.render(_htpasswd.parse(content))
    assert once in (content, content + b"\n")
    assert _htpasswd.render(_htpasswd.parse(once)) == once


@given(contents, users, st.booleans(), st.booleans())
def test_the_second_time_is_no_change(content, wanted, exclusive, on_create):
    after, _plan = apply(content, wanted, exclusive=exclusive, on_create=on_create)
    again, plan = apply(after, wanted, exclusive=exclusive, on_create=on_create)
    assert not plan.changed
    assert again == after


@given(contents, users)
def test_lines_of_others_survive_in_order(content, wanted):
    asked = {user.name for user in wanted}
    kept = [line.raw for line in _htpasswd.parse(content) if not line.fault and line.name not in asked]
    after, _plan = apply(content, wanted)
    assert [line.raw for line in _htpasswd.parse(after) if line.name not in asked] == kept


@given(contents, users)
def test_exclusive_never_leaves_a_stranger(content, wanted):
    after, plan = apply(content, wanted, exclusive=True)
    present = {user.name for user in wanted if user.present}
    assert {line.name for line in _htpasswd.parse(after)} - {None} == present
    assert set(plan.added) | set(plan.updated) <= present
    assert not present & set(plan.removed)


@given(contents, users, st.booleans())
def test_the_registry_can_read_the_result(content, wanted, exclusive):
    """The registry's rules, written down once more: trimmed, comments skipped, a colon in every other line, short enough."""
    after, _plan = apply(content, wanted, exclusive=exclusive)
    passwords_of = {user.name: user.password for user in wanted if user.present}
    entries = {}
    for raw in after.split(b"\n"):
        line = raw.decode("utf-8", "surrogateescape").strip(_htpasswd._WHITE_SPACE)
        if line and line[0] != "#":
            assert ":" in line and len(raw) < 65536
            name, digest = line.split(":", 1)
            entries[name] = digest
    for name, password in passwords_of.items():
        assert fake_verify(password, entries[name])
    assert not {user.name for user in wanted if not user.present} & set(entries)
