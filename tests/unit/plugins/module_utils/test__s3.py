# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The S3 question of preflight: signing by the published examples, and what each answer means."""

from __future__ import annotations

import datetime
import http.server
import socket
import threading

import pytest

from ansible_collections.wharf.registry.plugins.module_utils import _s3

# "Signature Calculations for the Authorization Header", examples of the S3 API reference.
EXAMPLE = {
    "access_key": "AKIAIOSFODNN7EXAMPLE",
    "secret_key": "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
    "region": "us-east-1",
    "now": datetime.datetime(2013, 5, 24, tzinfo=datetime.timezone.utc),  # noqa: UP017 (runs on Python 3.8, too)
}
HOST = {"Host": "examplebucket.s3.amazonaws.com"}


@pytest.mark.parametrize(
    ("path", "query", "headers", "signature"),
    [
        (
            "/test.txt",
            {},
            {**HOST, "Range": "bytes=0-9"},
            "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41",
        ),
        ("/", {"lifecycle": ""}, HOST, "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543"),
        ("/", {"prefix": "J", "max-keys": "2"}, HOST, "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7"),
    ],
)
def test_signatures_are_those_of_the_reference(path, query, headers, signature):
    _query, signed = _s3.sign("GET", path, query, headers, **EXAMPLE)
    assert signed["authorization"].endswith(f"Signature={signature}")


def test_query_is_encoded_and_sorted():
    query, _headers = _s3.sign("GET", "/", {"prefix": "a b/ü", "delimiter": "/"}, HOST, **EXAMPLE)
    assert query == "delimiter=%2F&prefix=a%20b%2F%C3%BC"


@pytest.mark.parametrize(
    ("settings", "url", "path"),
    [
        ({"bucket": "b", "region": "eu-central-1"}, "https://b.s3.eu-central-1.amazonaws.com", "/"),
        ({"bucket": "b", "regionendpoint": "http://store:9000"}, "http://store:9000", "/b"),
        ({"bucket": "b", "regionendpoint": "http://store:80/"}, "http://store", "/b"),
        ({"bucket": "b", "regionendpoint": "store"}, "https://store", "/b"),
        ({"bucket": "b", "regionendpoint": "store:9000", "secure": False}, "http://store:9000", "/b"),
        ({"bucket": "b", "regionendpoint": "https://store", "forcepathstyle": False}, "https://b.store", "/"),
        ({"bucket": "b", "regionendpoint": "http://[2001:db8::1]:9000"}, "http://[2001:db8::1]:9000", "/b"),
    ],
)
def test_endpoints(settings, url, path):
    endpoint = _s3.find_endpoint(settings)
    assert (endpoint.url, endpoint.path) == (url, path)


@pytest.mark.parametrize("address", ["ftp://store", "http://", "http://store:99999", "http://sto re", "https://store/bucket"])
def test_useless_endpoints_are_refused(address):
    assert _s3.check_bucket({"bucket": "b", "regionendpoint": address}).kind == "endpoint"


def error(code: str, more: str = "") -> str:
    return f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>text</Message>{more}</Error>"


@pytest.mark.parametrize(
    ("status", "body", "kind", "words"),
    [
        (200, "<ListBucketResult></ListBucketResult>", "ok", ""),
        (200, "<html>hello</html>", "other", "another service"),
        (403, error("InvalidAccessKeyId"), "key", "InvalidAccessKeyId"),
        (403, error("SignatureDoesNotMatch"), "key", "SignatureDoesNotMatch"),
        (403, error("AccessDenied"), "denied", "AccessDenied"),
        (403, "", "denied", "403"),
        (404, error("NoSuchBucket"), "bucket", "NoSuchBucket"),
        (404, "not found", "other", "404"),
        (400, error("AuthorizationHeaderMalformed", "<Region>eu-west-1</Region>"), "region", "eu-west-1"),
        (403, error("RequestTimeTooSkewed"), "clock", "RequestTimeTooSkewed"),
        (503, error("SlowDown"), "other", "text"),
    ],
)
def test_answers(status, body, kind, words):
    answer = _s3.read_answer(status, {}, body)
    assert answer.kind == kind
    assert words in answer.detail


def test_redirect_tells_the_right_region():
    assert "eu-west-1" in _s3.read_answer(301, {"x-amz-bucket-region": "eu-west-1"}, "").detail


def test_without_keys_a_refusal_is_an_answer():
    assert _s3.read_answer(403, {}, error("AccessDenied"), signed=False).kind == "ok"


class Store(http.server.BaseHTTPRequestHandler):
    seen: list = []

    def do_GET(self):
        self.seen.append((self.path, dict(self.headers)))
        body = b"<ListBucketResult></ListBucketResult>"
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format, *args):
        pass


@pytest.fixture
def store():
    server = http.server.HTTPServer(("127.0.0.1", 0), Store)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_port
    server.shutdown()
    server.server_close()


def settings_for(port: int, scheme: str = "http") -> dict:
    address = f"{scheme}://127.0.0.1:{port}"
    return {"bucket": "images", "region": "r", "regionendpoint": address, "accesskey": "k", "secretkey": "do-not-tell"}


def test_one_signed_listing_is_asked_for(store):
    Store.seen.clear()
    assert _s3.check_bucket(settings_for(store)) == _s3.Answer("ok", "")
    path, headers = Store.seen[0]
    assert path == "/images?list-type=2&max-keys=1"
    assert headers["authorization"].startswith("AWS4-HMAC-SHA256 Credential=k/")
    assert len(Store.seen) == 1


def test_tls_to_a_port_without_it(store):
    answer = _s3.check_bucket(settings_for(store, "https"), timeout=2)
    assert answer.kind == "tls"


def test_nobody_there():
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        answer = _s3.check_bucket(settings_for(unused.getsockname()[1]))
    assert answer == _s3.Answer("silent", "Connection refused")


def test_hung_store_is_given_up():
    with socket.socket() as hung:
        hung.bind(("127.0.0.1", 0))
        hung.listen()
        answer = _s3.check_bucket(settings_for(hung.getsockname()[1]), timeout=0.2)
    assert answer == _s3.Answer("silent", "no answer within 0.2 s")
