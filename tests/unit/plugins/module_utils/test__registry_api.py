# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The registry client, against a small server that can be told to misbehave."""

from __future__ import annotations

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from ansible_collections.wharf.registry.plugins.module_utils._registry import api


class Server(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def _do(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.seen.append((self.command, self.path, dict(self.headers), body))
        self.server.clients.append(self.client_address)
        status, headers, content = self.server.answers.pop(0)
        if content == b"hang":
            time.sleep(2)
            content = b""
        self.send_response(status)
        if "Content-Length" not in headers and status != 204:
            headers = dict(headers, **{"Content-Length": str(len(content))})
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)
        self.close_connection = self.server.closes

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = do_PATCH = _do

    def log_message(self, *args):
        pass


@pytest.fixture
def server():
    instance = ThreadingHTTPServer(("127.0.0.1", 0), Server)
    instance.daemon_threads = True
    instance.seen, instance.answers, instance.clients, instance.closes = [], [], [], True
    threading.Thread(target=instance.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    yield instance
    instance.shutdown()
    instance.server_close()


def client(server, **options):
    options.setdefault("timeout", 5.0)
    return api.Registry("http://registry.example:8443", address="127.0.0.1:%d" % server.server_address[1], **options)


@pytest.mark.parametrize(
    "text, wanted",
    [
        ("10.0.0.1", ("10.0.0.1", 443)),
        ("10.0.0.1:5443", ("10.0.0.1", 5443)),
        ("[fd00::1]:5443", ("fd00::1", 5443)),
        ("[fd00::1]", ("fd00::1", 443)),
        ("fd00::1", ("fd00::1", 443)),
        ("host.example:1", ("host.example", 1)),
    ],
)
def test_parse_address(text, wanted):
    assert api.parse_address(text, 443) == wanted


@pytest.mark.parametrize("text", ["", "host:port", "[fd00::1", "[fd00::1]5443"])
def test_parse_address_refuses(text):
    with pytest.raises(ValueError):
        api.parse_address(text, 443)


def test_the_name_stays_in_host_when_another_address_is_used(server):
    server.answers = [(200, {}, b"{}")]
    client(server, username="u", password="p").ping()
    headers = server.seen[0][2]
    assert headers["Host"] == "registry.example:8443"
    assert headers["Authorization"] == "Basic dTpw"


@pytest.mark.parametrize(
    "url, origin",
    [
        ("https://r.example", "https://r.example"),
        ("https://r.example:443", "https://r.example"),
        ("https://r.example:8443", "https://r.example:8443"),
        ("http://r.example:80", "http://r.example"),
        ("https://[fd00::1]:5443", "https://[fd00::1]:5443"),
    ],
)
def test_origin(url, origin):
    assert api.Registry(url).origin == origin


def test_push_of_a_blob(server):
    server.answers = [
        (202, {"Location": "http://registry.example:8443/v2/a/blobs/uploads/1?_state=x%3D"}, b""),
        (201, {"Location": "/v2/a/blobs/sha256:1"}, b""),
    ]
    digest = client(server, strict_location=True).put_blob("a", b"content")
    assert [(method, path) for method, path, _headers, _body in server.seen] == [
        ("POST", "/v2/a/blobs/uploads/"),
        ("PUT", "/v2/a/blobs/uploads/1?_state=x%3D&digest=" + digest.replace(":", "%3A")),
    ]
    assert server.seen[1][3] == b"content"


@pytest.mark.parametrize("location", ["http://registry.example/v2/a/1", "https://registry.example:8443/v2/a/1", "http://other:8443/v2/a/1"])
def test_a_location_that_leads_away_is_an_error_only_if_strict(server, location):
    server.answers = [(202, {"Location": location}, b"")] * 2
    with pytest.raises(api.RegistryError, match="leads clients away from http://registry.example:8443"):
        client(server, strict_location=True).start_upload("a")
    assert client(server).start_upload("a") == "/v2/a/1"


def test_an_error_has_status_code_and_body_but_no_secret(server):
    body = json.dumps({"errors": [{"code": "DENIED", "message": "no"}]}).encode()
    server.answers = [(403, {}, body)]
    with pytest.raises(api.RegistryError) as caught:
        client(server, username="u", password="hunter2").ping()
    assert (caught.value.status, caught.value.code, caught.value.body) == (403, "DENIED", body)
    assert str(caught.value) == "GET /v2/: HTTP 403 DENIED"


def test_a_blob_that_came_back_changed_or_cut_is_an_error(server):
    digest = api.digest_of(b"content")
    server.answers = [(200, {}, b"content"), (200, {}, b"CONTENT"), (200, {"Content-Length": "9"}, b"content")]
    assert client(server).get_blob("a", digest) == b"content"
    with pytest.raises(api.RegistryError, match="came back as"):
        client(server).get_blob("a", digest)
    with pytest.raises(api.RegistryError):
        client(server).get_blob("a", digest)


def test_a_redirected_blob_is_fetched_without_credentials(server):
    digest = api.digest_of(b"content")
    url = "http://127.0.0.1:%d/bucket/key?X-Amz-Signature=1" % server.server_address[1]
    server.answers = [(307, {"Location": url}, b""), (200, {}, b"content")]
    assert client(server, username="u", password="p").get_blob("a", digest) == b"content"
    assert server.seen[1][1] == "/bucket/key?X-Amz-Signature=1"
    assert "Authorization" not in server.seen[1][2]


def test_a_hung_registry_ends_at_the_deadline(server):
    server.answers = [(200, {}, b"hang")]
    begun = time.monotonic()
    with pytest.raises(api.RegistryTimeout, match=r"no answer within 0\.3 s"):
        client(server, timeout=0.3).ping()
    assert time.monotonic() - begun < 1.5


def test_a_refused_connection_says_so():
    with pytest.raises(api.RegistryError, match=r"no answer from 127\.0\.0\.1:1: Connection refused") as caught:
        api.Registry("http://127.0.0.1:1", timeout=2).ping()
    assert caught.value.status is None


def test_delete_tag_on_3(server):
    server.answers = [(202, {}, b""), (404, {}, b"")]
    assert client(server).delete_tag("a", "t") is True
    assert client(server).delete_tag("a", "t") is False


def test_delete_tag_on_2_8_goes_by_digest(server):
    refusal = json.dumps({"errors": [{"code": "DIGEST_INVALID"}]}).encode()
    server.answers = [(400, {}, refusal), (200, {"Docker-Content-Digest": "sha256:1"}, b""), (202, {}, b"")]
    assert client(server).delete_tag("a", "t") is True
    assert server.seen[2][:2] == ("DELETE", "/v2/a/manifests/sha256:1")


def test_delete_tag_keeps_other_errors(server):
    server.answers = [(405, {}, b"")]
    with pytest.raises(api.RegistryError) as caught:
        client(server).delete_tag("a", "t")
    assert caught.value.status == 405


def test_tags(server):
    server.answers = [(200, {}, b'{"name":"a","tags":null}'), (200, {}, b'{"tags":["x"]}'), (404, {}, b""), (200, {}, b"<html>")]
    assert client(server).list_tags("a") == []
    assert client(server).list_tags("a") == ["x"]
    assert client(server).list_tags("a") == []
    with pytest.raises(api.RegistryError, match="no JSON"):
        client(server).list_tags("a")


def test_lists_are_read_to_their_last_page(server):
    server.answers = [
        (200, {"Link": '</v2/_catalog?last=b&n=2>; rel="next"'}, b'{"repositories":["a","b"]}'),
        (200, {}, b'{"repositories":["c"]}'),
        (200, {"Link": '<http://registry.example:8443/v2/a/tags/list?last=1&n=1>; rel="next"'}, b'{"tags":["1"]}'),
        (200, {"Link": '</v2/a/tags/list?last=2&n=1>; rel="next"'}, b'{"tags":[]}'),
    ]
    assert client(server).list_repositories() == ["a", "b", "c"]
    assert client(server).list_tags("a") == ["1"]
    assert [path for _method, path, _headers, _body in server.seen] == [
        "/v2/_catalog", "/v2/_catalog?last=b&n=2", "/v2/a/tags/list", "/v2/a/tags/list?last=1&n=1",
    ]  # fmt: skip


@pytest.mark.parametrize("status", [200, 404])
def test_an_answer_after_which_the_connection_is_closed(server, status):
    server.answers = [(status, {"Connection": "close"}, b'{"tags":["x"]}')]
    assert client(server).list_tags("a") == (["x"] if status == 200 else [])


def test_untag_never_goes_by_digest(server):
    server.answers = [(202, {}, b""), (400, {}, json.dumps({"errors": [{"code": "DIGEST_INVALID"}]}).encode())]
    assert client(server).untag("a", "t") is True
    with pytest.raises(api.RegistryError) as caught:
        client(server).untag("a", "t")
    assert caught.value.status == 400 and len(server.seen) == 2


def test_the_size_of_a_blob(server):
    url = "http://127.0.0.1:%d/bucket/key" % server.server_address[1]
    server.answers = [
        (200, {"Content-Length": "7"}, b""),
        (404, {}, b""),
        (307, {"Location": url}, b""),
        (200, {"Content-Length": "8"}, b""),
    ]
    assert [client(server).blob_size("a", "sha256:1") for _number in range(3)] == [7, None, 8]
    assert server.seen[3][:2] == ("HEAD", "/bucket/key")


def challenge(server, scope):
    realm = "http://127.0.0.1:%d/auth/token?x=1" % server.server_address[1]
    return (401, {"WWW-Authenticate": 'Bearer realm="%s",service="r",scope="repository:%s:pull"' % (realm, scope)}, b"")


def test_a_token_is_fetched_once_for_a_repository_and_again_when_it_has_expired(server):
    tags = (200, {}, b'{"tags":["x"]}')
    server.answers = [
        *(challenge(server, "a"), (200, {}, b'{"token":"one"}'), tags),
        tags,
        *(challenge(server, "a"), (200, {}, b'{"access_token":"two"}'), tags),
        *(challenge(server, "b/c"), (200, {}, b'{"token":"three"}'), tags),
    ]
    asking = client(server, username="u", password="p")
    for repository in ("a", "a", "a", "b/c"):
        assert asking.list_tags(repository) == ["x"]
    assert [headers.get("Authorization") for _method, _path, headers, _body in server.seen] == [
        *("Basic dTpw", "Basic dTpw", "Bearer one"),
        "Bearer one",
        *("Bearer one", "Basic dTpw", "Bearer two"),
        *("Basic dTpw", "Basic dTpw", "Bearer three"),
    ]
    assert server.seen[1][1] == "/auth/token?x=1&service=r&scope=repository%3Aa%3Apull"


def test_a_token_service_beside_it_is_asked_instead_of_the_realm(server):
    far = (401, {"WWW-Authenticate": 'Bearer realm="https://registry.example/auth/token",service="r",scope="repository:a:pull"'}, b"")
    server.answers = [far, (200, {}, b'{"token":"one"}'), (200, {}, b'{"tags":["x"]}')]
    origin = "http://127.0.0.1:%d" % server.server_address[1]
    assert client(server, username="u", password="p", token_origin=origin).list_tags("a") == ["x"]
    assert server.seen[1][1] == "/auth/token?service=r&scope=repository%3Aa%3Apull"
    assert server.seen[2][2]["Authorization"] == "Bearer one"


def test_a_token_service_that_refuses(server):
    server.answers = [challenge(server, "a"), (401, {}, b"")]
    with pytest.raises(api.RegistryError, match="no token from http://127.0.0.1:.*/auth/token: HTTP 401") as caught:
        client(server, username="u", password="p").ping()
    assert caught.value.status == 401
    server.answers = [challenge(server, "a"), (200, {}, b"<html>")]
    with pytest.raises(api.RegistryError, match="is no token"):
        client(server).ping()


def test_a_token_service_without_tls_gets_no_password():
    with pytest.raises(api.RegistryError, match="without TLS"):
        api.Registry("https://r.example", username="u", password="p")._fetch_token('Bearer realm="http://r.example/t"', api.Deadline(5))


def test_connections_are_kept_and_replaced(server):
    server.closes = False
    server.answers = [(200, {}, b"{}"), (404, {}, b"x" * 100), (200, {}, b'{"tags":["x"]}')]
    asking = client(server, keep_alive=True)
    asking.ping()
    assert asking.list_tags("a") == []
    server.closes = True
    assert asking.list_tags("a") == ["x"]
    assert len(set(server.clients)) == 1
    server.closes = False
    server.answers = [(200, {}, b"{}"), (202, {}, b""), (200, {}, b"{}")]
    asking.ping()
    # What changes something never goes over a connection that may have been closed.
    asking.untag("a", "t")
    assert len(set(server.clients)) == 3
    # Nor does it leave one: it would never be used up.
    assert len(asking._idle) == 1
    # One that the other side has closed meanwhile.
    for connection in asking._idle:
        connection.sock.shutdown(2)
    asking.ping()
    assert len(set(server.clients)) == 4


@pytest.mark.parametrize("url", ["registry.example", "ftp://registry.example", "https://"])
def test_bad_urls_are_refused(url):
    with pytest.raises(ValueError, match="no http or https URL"):
        api.Registry(url)
