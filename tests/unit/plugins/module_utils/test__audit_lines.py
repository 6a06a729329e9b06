# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From lines of the access log to lines of the audit log, to operations."""

from __future__ import annotations

import base64
import gzip
import json
import os
import random
import re
from pathlib import Path

import pytest

from ansible_collections.wharf.registry.plugins.module_utils import _tool_config
from ansible_collections.wharf.registry.plugins.module_utils._audit import follow as audit_follow
from ansible_collections.wharf.registry.plugins.module_utils._audit import lines as audit_lines
from ansible_collections.wharf.registry.plugins.module_utils._audit import operations as audit_operations

D = "sha256:" + "a" * 64
CHILD = "sha256:" + "b" * 64
LAYER = "sha256:" + "c" * 64
INDEX = "application/vnd.oci.image.index.v1+json"
IMAGE = "application/vnd.oci.image.manifest.v1+json"
SETTINGS = audit_lines.Settings("registry1", users=frozenset(["alice", "bob"]))
TEMPLATE = Path(__file__).resolve().parents[4] / "roles/registry_edge/templates/wharf_edge.conf.j2"
# As nginx 1.22 wrote it.
REAL = (
    b'{"time":"2026-11-24T10:00:00+00:00","timestamp":1795514400.123,"request_id":"0f9b8c7d6e5f4a3b2c1d0e9f8a7b6c5d","node":"registry1",'
    b'"port":5443,"remote_addr":"192.0.2.7","peer_addr":"10.0.0.5","remote_user":"alice","host":"registry.example.com","method":"GET",'
    b'"uri":"/v2/shop/web/manifests/1.2","digest":"","mount":"","from":"","scope":"","status":200,"completion":"OK","request_time":0.004,'
    b'"request_length":412,"bytes_sent":1200,"body_bytes_sent":735,"content_length":"735","content_digest":"' + D.encode() + b'",'
    b'"upstream_addr":"127.0.0.1:5000","upstream_status":"200","upstream_connect_time":"0.000","upstream_header_time":"0.004",'
    b'"upstream_response_time":"0.004","www_authenticate":"","user_agent":"docker/28.5.2","tls_protocol":"TLSv1.3",'
    b'"tls_cipher":"TLS_AES_256_GCM_SHA384","media_type":"' + IMAGE.encode() + b'","claims":""}'
)
_number = iter(range(10**6))


def claims(**content):
    return base64.urlsafe_b64encode(json.dumps(content).encode()).rstrip(b"=").decode()


def access(method="GET", uri="/v2/shop/web/manifests/1.2", status=200, when=1000.0, **more):
    entry = json.loads(REAL)
    entry.update(method=method, uri=uri, status=status, timestamp=when, request_id=f"id-{next(_number)}", content_digest="")
    entry.update(more)
    return json.dumps(entry).encode()


def record(*args, settings=SETTINGS, **more):
    return audit_lines.from_access(access(*args, **more), settings)


def operations(*lines, settings=SETTINGS):
    found = [audit_lines.from_access(line, settings) for line in lines]
    return audit_operations.fold(entry for entry in found if entry)


def short(found):
    return [(entry["action"], entry.get("tag") or entry.get("digest", ""), entry["result"], entry["requests"]) for entry in found]


def test_a_real_line():
    assert audit_lines.from_access(REAL, SETTINGS) == {
        "time": "2026-11-24T10:00:00.123Z", "node": "registry1", "request_id": "0f9b8c7d6e5f4a3b2c1d0e9f8a7b6c5d", "action": "pull",
        "user": "alice", "address": "192.0.2.7", "client": "docker/28.5.2", "repository": "shop/web", "tag": "1.2", "digest": D,
        "kind": "image", "bytes": 735, "seconds": 0.004, "result": "ok", "status": 200,
    }  # fmt: skip


def test_the_log_has_what_is_read():
    """Each field that is read is one that the edge's template writes."""
    written = set(re.findall(r'"(\w+)":', TEMPLATE.read_text(encoding="utf-8")))
    assert (
        set(audit_lines._TEXTS) | {"method", "uri", "status", "timestamp", "request_time", "body_bytes_sent", "request_length"} <= written
    )


@pytest.mark.parametrize(
    ("method", "uri", "status", "more", "expected"),
    [
        ("GET", "/v2/a/manifests/1", 200, {}, ("pull", None, "a", "ok")),
        ("HEAD", "/v2/a/manifests/1", 200, {}, ("pull", "look", "a", "ok")),
        ("HEAD", "/v2/a/manifests/1", 401, {}, ("pull", None, "a", "denied")),
        ("PUT", "/v2/a/manifests/1", 201, {}, ("push", None, "a", "ok")),
        ("PUT", "/v2/a/manifests/1", 403, {}, ("push", None, "a", "denied")),
        ("DELETE", "/v2/a/manifests/" + D, 202, {}, ("delete", None, "a", "ok")),
        ("DELETE", "/v2/a/manifests/" + D, 405, {}, ("delete", None, "a", "invalid")),
        ("DELETE", "/v2/a/blobs/" + D, 202, {}, ("delete", "blob", "a", "ok")),
        ("GET", "/v2/a/blobs/" + D, 307, {}, ("pull", "blob", "a", "ok")),
        ("GET", "/v2/a/blobs/" + D, 200, {"completion": ""}, ("pull", "blob", "a", "cut")),
        ("POST", "/v2/a/blobs/uploads/", 401, {}, ("push", None, "a", "denied")),
        ("POST", "/v2/a/blobs/uploads/", 201, {"mount": D, "from": "b"}, ("push", "mount", "a", "ok")),
        ("POST", "/v2/a/blobs/uploads/", 201, {"digest": D}, ("push", "blob", "a", "ok")),
        ("PATCH", "/v2/a/blobs/uploads/0000-1", 202, {}, ("push", "blob", "a", "ok")),
        ("PUT", "/v2/a/blobs/uploads/0000-1", 201, {"digest": D}, ("push", "blob", "a", "ok")),
        ("GET", "/v2/", 200, {}, ("login", None, None, "ok")),
        ("GET", "/v2/", 401, {}, ("login", None, None, "denied")),
        # Names of repositories that look like something else.
        ("GET", "/v2/blobs/uploads/manifests/1", 200, {}, ("pull", None, "blobs/uploads", "ok")),
        ("GET", "/v2/a/manifests/b/manifests/c", 200, {}, ("pull", None, "a/manifests/b", "ok")),
        ("GET", "/v2/team/%61pp/%6danifests/v1", 200, {}, ("pull", None, "team/app", "ok")),
        ("GET", "/v2/a/manifests/1", 504, {}, ("pull", None, "a", "failed")),
        ("GET", "/v2/a/manifests/1", 499, {"completion": ""}, ("pull", None, "a", "cut")),
    ],
)  # fmt: skip
def test_what_a_request_is(method, uri, status, more, expected):
    found = record(method, uri, status, **more)
    assert (found["action"], found.get("part"), found.get("repository"), found["result"]) == expected


@pytest.mark.parametrize(
    ("method", "uri", "status", "more"),
    [
        ("GET", "/v2/", 401, {"remote_user": ""}),
        ("GET", "/v2/a/manifests/1", 401, {"remote_user": ""}),
        ("GET", "/v2/", 200, {"remote_user": "", "claims": claims(sub="alice")}),
        ("HEAD", "/v2/a/manifests/1", 404, {}),
        ("HEAD", "/v2/a/manifests/" + D, 200, {}),
        ("HEAD", "/v2/a/blobs/" + D, 200, {}),
        ("POST", "/v2/a/blobs/uploads/", 202, {}),
        ("GET", "/v2/a/tags/list", 200, {}),
        ("GET", "/v2/_catalog", 200, {}),
        ("GET", "/auth/token", 200, {}),
        ("GET", "/v2/manifests/1", 404, {}),
        ("GET", "/", 404, {}),
        ("BREW", "/v2/a/manifests/1", 405, {}),
    ],
)
def test_what_is_none_of_it(method, uri, status, more):
    assert record(method, uri, status, **more) is None


def test_parameters_are_as_they_were_meant():
    found = record("PUT", "/v2/a/blobs/uploads/1", 201, digest=LAYER.replace(":", "%3A"))
    assert found["digest"] == LAYER and "tag" not in found
    found = record("POST", "/v2/a/blobs/uploads/", 201, mount=LAYER.replace(":", "%3A"), **{"from": "shop%2Fweb"})
    assert found["digest"] == LAYER and found["from"] == "shop/web" and "tag" not in found


def test_whose_request_it_was():
    assert record(remote_user="carol")["user"] == "carol"
    assert record(remote_user="", claims=claims(sub="robot:ci"))["user"] == "robot:ci"
    assert record(remote_user="", claims=claims(sub=""))["user"] == "(anonymous)"
    # What was refused may be anything: names that there are, or a password in the wrong field.
    assert record(status=401, remote_user="alice")["user"] == "alice"
    assert record(status=401, remote_user="my-secret-password")["user"] == "(unknown)"
    assert record(status=401, remote_user="", claims=claims(sub="mallory"))["user"] == "(unknown)"
    # The registry has believed this token, and found that it does not allow that.
    scope = 'Bearer realm="x",scope="repository:a:push",error="insufficient_scope"'
    assert record(status=401, remote_user="", claims=claims(sub="robot:ci"), www_authenticate=scope)["user"] == "robot:ci"
    # A registry that asks nobody believes nobody.
    nobody = SETTINGS._replace(authenticated=False)
    assert record(remote_user="alice", settings=nobody)["user"] == "(anonymous)"
    old = json.loads(access(remote_user=""))
    del old["claims"]
    assert audit_lines.from_access(json.dumps(old).encode(), SETTINGS)["user"] == "(unknown)"


@pytest.mark.parametrize("sent", ["", "!", "AAAA", claims(sub=5), claims(sub={"a": 1}), "W10", "eyJ", "A" * 30000, "Ww" * 9000])
def test_claims_that_are_none(sent):
    assert record(remote_user="", claims=sent)["user"] == "(anonymous)"


@pytest.mark.parametrize("name", ['"', "\\", "a\nb", "\x1b[31m", "\u202e", "\x00", "x" * 5000, "{}", '","user":"root'])
def test_hostile_names_stay_in_their_line(name):
    line = audit_lines.as_line(record(remote_user=name, user_agent=name, uri="/v2/" + name + "/manifests/" + name))
    assert line.count(b"\n") == 1 and line.endswith(b"\n") and line.isascii() and not re.search(rb"[\x00-\x09\x0b-\x1f\x7f]", line)
    found = json.loads(line)
    assert found["user"] == name[:300] and found["repository"] == name[:300]
    assert all(cell.isprintable() for cell in audit_operations.table(audit_operations.fold([found])))


@pytest.mark.parametrize(
    "line", [b"", b"{", b"[]", b"1", b"null", b'{"a":1}', b"\xff\xfe", b'{"method":"GET","uri":"/v2/","status":"x","timestamp":1}', b"[" * 100000]
)  # fmt: skip
def test_broken_lines(line):
    with pytest.raises(audit_lines.LineError):
        audit_lines.from_access(line, SETTINGS)


def test_bytes_beyond_ascii_and_no_status():
    assert record()["result"] == "ok"
    raw = access(user_agent="XYZ").replace(b"XYZ", b"\xff\xc3").replace(b'"status": 200,', b'"status":000,')
    found = audit_lines.from_access(raw, SETTINGS)
    assert found["result"] == "cut" and found["client"] == "\ufffd\ufffd"


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ({"kind": "password", "result": "granted", "account": "alice"}, ("alice", "ok")),
        (
            {"kind": "password", "result": "bad_credentials", "account": "(unknown)", "asked": ["repository:a:pull"]},
            ("(unknown)", "denied"),
        ),
        ({"kind": "refresh_token", "result": "bad_credentials"}, ("(unknown)", "denied")),
        ({"kind": "password", "result": "limited", "account": "alice"}, ("alice", "denied")),
        ({"kind": "password", "result": "granted", "account": "alice", "asked": ["repository:a:pull"]}, None),
        ({"kind": "refresh_token", "result": "granted", "account": "alice"}, None),
        ({"kind": "password", "result": "granted", "account": "(anonymous)"}, None),
        ({"kind": "exchange", "result": "bad_credentials", "account": "alice"}, None),
        ({"kind": "password", "result": "challenge"}, None),
    ],
)
def test_logins_at_the_token_service(line, expected):
    line = {"time": "2026-11-24T10:00:00Z", "event": "token", "address": "192.0.2.1", "request_id": "x" * 32, **line}
    found = audit_lines.from_token(json.dumps(line).encode(), SETTINGS)
    assert (found and (found["user"], found["result"])) == expected


# -- operations ------------------------------------------------------------------------------------------------------------------------


def test_a_pull_by_tag_then_by_digest_of_an_index_then_its_child():
    found = operations(
        access("HEAD", when=10.0, content_digest=D),
        access(uri="/v2/shop/web/manifests/" + D, when=10.1, content_digest=D, media_type=INDEX, body_bytes_sent=100),
        access(uri="/v2/shop/web/manifests/" + CHILD, when=10.2, content_digest=CHILD, body_bytes_sent=10),
        access(uri="/v2/shop/web/blobs/" + LAYER, when=700.0, request_time=689.7, body_bytes_sent=10**9),
        access(uri="/v2/shop/web/blobs/" + CHILD, when=11.0, body_bytes_sent=5),
    )
    assert short(found) == [("pull", "1.2", "ok", 4)]
    assert found[0]["bytes"] == 10**9 + 115 and found[0]["digest"] == D


def test_two_pulls_are_two():
    assert len(operations(access(when=10), access(when=11))) == 2
    assert len(operations(access(when=10, uri="/v2/a/manifests/" + D), access(when=11, uri="/v2/a/manifests/" + CHILD))) == 2
    assert len(operations(access(when=10), access(when=11, remote_user="bob"))) == 2
    assert len(operations(access(when=10), access(when=11, remote_addr="192.0.2.8"))) == 2
    # Long after the index, its child is somebody's wish.
    late = access(uri="/v2/shop/web/manifests/" + CHILD, when=100)
    assert len(operations(access(when=10, media_type=INDEX), late)) == 2


def test_a_pull_by_tag_and_again_by_the_digest():
    by_digest = access(uri="/v2/shop/web/manifests/" + D, when=11, content_digest=D)
    assert short(operations(access(when=10, content_digest=D), by_digest)) == [("pull", "1.2", "ok", 2)]


def test_a_read_that_was_repeated_on_another_node_counts_once():
    first = access(when=10, status=504, request_id="same-request-id")
    second = access(when=11, request_id="same-request-id")
    found = audit_operations.fold(
        [audit_lines.from_access(first, SETTINGS._replace(node="registry2")), audit_lines.from_access(second, SETTINGS)]
    )
    assert short(found) == [("pull", "1.2", "ok", 1)] and found[0]["nodes"] == ["registry1"]


def push(when, uri="/v2/shop/web/manifests/1.2", layers=2, **more):
    uploads = [
        line
        for number in range(layers)
        for line in (
            access("POST", "/v2/shop/web/blobs/uploads/", 202, when - 1),
            access("PATCH", "/v2/shop/web/blobs/uploads/1", 202, when - 0.9, request_length=1000),
            access("PUT", "/v2/shop/web/blobs/uploads/1", 201, when - 0.8, request_length=10, digest=f"sha256:{number:064}"),
        )
    ]
    return [*uploads, access("PUT", uri, 201, when, request_length=100, **more)]


def test_a_push_with_its_layers_and_a_tag_without():
    found = operations(*push(10), access("PUT", "/v2/shop/web/manifests/1.3", 201, 20))
    assert short(found) == [("push", "1.2", "ok", 5), ("tag", "1.3", "ok", 1)]
    assert found[0]["bytes"] == 2120


def test_an_index_is_pushed_with_its_children():
    child = push(10, "/v2/shop/web/manifests/" + CHILD, content_digest=CHILD)
    index = access("PUT", status=201, when=12, media_type=INDEX + "; charset=utf-8", content_digest=D)
    assert short(operations(*child, index)) == [("push", "1.2", "ok", 6)]
    assert short(operations(*child)) == [("push", CHILD, "ok", 5)]


def test_layers_without_a_manifest_are_told():
    found = operations(*push(10)[:-1])
    assert [(entry["action"], entry["result"], entry["bytes"]) for entry in found] == [("push", "unfinished", 2020)]
    assert [entry["result"] for entry in operations(*push(10)[:-1], *push(99999))] == ["unfinished", "ok"]


def test_the_same_failure_again_and_again_is_one_line():
    found = operations(*[access("GET", "/v2/", 401, when) for when in range(10, 300, 20)], access("GET", "/v2/", 401, 9000))
    assert short(found) == [("login", "", "denied", 15), ("login", "", "denied", 1)]


def test_the_order_of_lines_does_not_matter():
    lines = [
        line
        for start in range(0, 5000, 500)
        for line in (*push(start + 5), access(when=start + 50, content_digest=D), access("DELETE", "/v2/shop/web/manifests/" + D, 202, start + 90))
    ]  # fmt: skip
    first = operations(*lines)
    random.Random(1).shuffle(lines)
    assert operations(*lines) == first and len(first) == 30
    assert operations(*lines, *lines) == first, "a line that came twice counts once"


def test_the_question():
    found = [
        audit_lines.from_access(line, SETTINGS) for line in (*push(3600 * 5), access(when=3600 * 9), access("GET", "/v2/", when=3600 * 9))
    ]
    lines = [audit_lines.as_line(entry).decode() for entry in found if entry] + ["broken", "[]", '{"time":5}']

    def ask(begin="1970-01-01", end="1970-01-02", **more):
        query = audit_operations.parse_query(begin, end, now=86400.0, **more)
        return [entry["action"] for entry in audit_operations.answer(audit_operations.parse_lines(lines), query)]

    assert sorted(ask()) == ["login", "pull", "push"]
    assert ask(action="pull") == ["pull"]
    assert ask(repository="shop/*") == ["push", "pull"]
    assert ask(repository="shop") == [] and ask(user="ali*", action="push") == ["push"] and ask(user="bob") == []
    assert ask("1970-01-01 05:00:00", "1970-01-01T05:00Z") == ["push"]
    assert ask("16h", "") == ["pull", "login"] or sorted(ask("16h", "")) == ["login", "pull"]


@pytest.mark.parametrize("bad", [{"begin": "yesterday"}, {"end": "2026-13-01"}, {"action": "pulled"}, {"begin": "1d", "end": "2d"}])
def test_questions_that_are_none(bad):
    with pytest.raises(audit_operations.QueryError, match="for example"):
        audit_operations.parse_query(**{"begin": "7d", "end": "", "now": 1e9, **bad})
    with pytest.raises(audit_operations.QueryError, match="^audit_.*for example audit_"):
        audit_operations.parse_query(**{"begin": "7d", "end": "", "now": 1e9, "prefix": "audit_", **bad})


def test_a_line_is_short_whatever_was_sent():
    """Syslog carries 8 KiB."""
    evil = "\U0001f980" * 5000
    found = record(
        user_agent=evil, remote_user=evil, remote_addr=evil, content_digest=evil, uri="/v2/" + evil + "/manifests/" + evil, request_id=evil
    )
    assert len(audit_lines.as_line(found)) < 4000
    assert record(user_agent="x" * 299)["client"] == "x" * 299
    assert len(json.dumps(found["client"])) <= 302


# -- following -------------------------------------------------------------------------------------------------------------------------


class Log:
    """A log as nginx and logrotate treat it, and who follows it."""

    def __init__(self, folder):
        self.path = folder / "access.log"
        self.out = folder / "audit.log"
        content = {
            "node": "registry1", "access_log": str(self.path), "token_log": "", "output": str(self.out), "state": str(folder / "state.json"),
            "authenticated": True, "users": [],
        }  # fmt: skip
        self.config = audit_follow.parse_config(content)
        self.handle = self.path.open("ab")
        self.count = 0

    def write(self, lines=1):
        for _line in range(lines):
            self.handle.write(access(uri=f"/v2/r/manifests/{self.count}") + b"\n")
            self.count += 1
        self.handle.flush()

    def rotate(self, path=None):
        path = path or self.path
        for number in range(9, 0, -1):
            for ending in ("", ".gz"):
                old = path.with_name(f"{path.name}.{number}{ending}")
                if old.exists():
                    old.rename(path.with_name(f"{path.name}.{number + 1}{ending}"))
        second = path.with_name(path.name + ".2")
        if second.exists():
            packed = path.with_name(path.name + ".2.gz")
            times = os.stat(second)
            packed.write_bytes(gzip.compress(second.read_bytes()))
            os.utime(packed, ns=(times.st_atime_ns, times.st_mtime_ns))
            second.unlink()
        if path.exists():
            path.rename(path.with_name(path.name + ".1"))

    def reopen(self):
        self.handle.close()
        self.handle = self.path.open("ab")

    def follow(self):
        follower = audit_follow.Follower(self.config)
        for _step in range(40):
            follower.step()
        return follower

    def numbers(self):
        found = []
        for path in audit_follow.generations(str(self.out)):
            with audit_follow.open_log(path) as handle:
                found += [int(json.loads(line)["tag"]) for line in handle]
        return found

    def whole(self):
        assert self.numbers() == list(range(self.count))


def test_lines_are_taken_once_over_restarts_and_rotations(tmp_path):
    log = Log(tmp_path)
    log.write(3)
    log.follow()
    log.whole()
    log.write(2)
    log.rotate()
    log.write(2)  # into the old file, which nginx still has open
    log.reopen()
    log.write(2)
    log.follow()
    log.whole()
    # Stopped while it is rotated three times; the file that it was in is packed by then.
    for _rotation in range(3):
        log.write(2)
        log.rotate()
        log.reopen()
    log.write(2)
    log.follow()
    log.whole()


def test_a_running_follower_goes_over_to_the_new_file(tmp_path):
    log = Log(tmp_path)
    follower = audit_follow.Follower(log.config)
    for _round in range(5):
        log.write(3)
        follower.step()
        log.rotate()
        log.write(1)
        follower.step()
        log.reopen()
        log.write(1)
        for _step in range(8):
            follower.step()
        log.whole()


def test_a_half_line_waits(tmp_path):
    log = Log(tmp_path)
    log.handle.write(access(uri="/v2/r/manifests/0")[:50])
    log.handle.flush()
    follower = log.follow()
    assert log.numbers() == []
    log.handle.write(b"broken\n")
    log.write()
    log.count = 1
    follower.step()
    assert follower.unreadable == 1
    log.whole()


def test_a_log_that_was_emptied_in_place(tmp_path):
    log = Log(tmp_path)
    log.write(3)
    follower = log.follow()
    os.truncate(log.path, 0)
    log.write(2)
    for _step in range(8):
        follower.step()
    log.whole()


class Killed(Exception):
    """The process is gone."""


@pytest.mark.parametrize("rotated", [False, True])
@pytest.mark.parametrize("place", range(1, 12))
def test_a_kill_at_any_system_call_loses_and_doubles_nothing(tmp_path, monkeypatch, place, rotated):
    """The process dies at its n-th write, rename or flush; half of what it was writing may have arrived."""
    log = Log(tmp_path)
    log.write(4)
    log.follow()
    log.write(4)
    calls = {"left": place}
    real = {name: getattr(os, name) for name in ("write", "rename", "fsync")}

    def dying(name):
        def call(*args):
            if calls["left"] <= 0:
                raise Killed
            calls["left"] -= 1
            if calls["left"] == 0:
                if name == "write":
                    real[name](args[0], args[1][: len(args[1]) // 2])
                raise Killed
            return real[name](*args)

        return call

    with monkeypatch.context() as patched:
        for name in real:
            patched.setattr(os, name, dying(name))
        try:
            log.follow()
        except Killed:
            pass
    if rotated:
        log.rotate(log.out)
    log.write(1)
    log.follow()
    log.whole()


def test_a_full_disk_is_waited_for(tmp_path, monkeypatch):
    log = Log(tmp_path)
    log.write(3)
    real, failures = os.write, [28, 28, 28]

    def full(descriptor, content):
        if failures:
            real(descriptor, content[:7])
            raise OSError(failures.pop(), "No space left on device")
        return real(descriptor, content)

    monkeypatch.setattr(os, "write", full)
    monkeypatch.setattr(audit_follow, "PAUSE", 0.0)
    rounds = iter(range(30))
    audit_follow.run(log.config, lambda: next(rounds) == 29)
    log.whole()


@pytest.mark.parametrize("change", [{"node": 5}, {"access_log": "x"}, {"more": 1}])
def test_configurations_that_cannot_be_used(tmp_path, change):
    content = {**Log(tmp_path).config._asdict(), "users": [], **change}
    with pytest.raises(_tool_config.ConfigError):
        audit_follow.parse_config(content)
