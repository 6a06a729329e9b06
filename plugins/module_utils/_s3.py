# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ask an S3 bucket one signed question, and say in one word what is wrong with it.

Private to the collection. Standard library only: it runs on hosts that carry nothing but Python.

Sources: the signing of requests is AWS Signature Version 4 ("Authenticating Requests: Using the Authorization Header"
in the S3 API reference); the error codes are those of the S3 API reference, "Error Responses".
"""

from __future__ import annotations

import datetime
import hashlib
import hmac
import http.client
import re
import socket
import ssl
import urllib.parse
from typing import Any, Callable, Mapping, NamedTuple

#: SHA-256 of no bytes: the payload of a GET.
EMPTY_SHA256 = hashlib.sha256(b"").hexdigest()

#: Error codes of S3 -> what is wrong (the ``kind`` of an Answer).
_KIND_OF_CODE = {
    "InvalidAccessKeyId": "key",
    "SignatureDoesNotMatch": "key",
    "InvalidToken": "key",
    "AccessDenied": "denied",
    "AllAccessDisabled": "denied",
    "NoSuchBucket": "bucket",
    "InvalidBucketName": "bucket",
    "AuthorizationHeaderMalformed": "region",
    "PermanentRedirect": "region",
    "TemporaryRedirect": "region",
    "IllegalLocationConstraintException": "region",
    "RequestTimeTooSkewed": "clock",
}


class Answer(NamedTuple):
    """What a bucket answered.

    ``kind`` is ``ok``, or what is wrong: ``endpoint`` (no usable address), ``silent`` (nobody answers there), ``tls``,
    ``key`` (the store does not know the key or refuses its signature), ``denied`` (the key may not do this), ``bucket``
    (there is none), ``region``, ``clock`` (the host's clock is off) or ``other``. ``detail`` says it in words.
    """

    kind: str
    detail: str


class Endpoint(NamedTuple):
    """Where a bucket is: ``host`` and ``port`` to connect to, the ``Host`` header, and the bucket's path."""

    secure: bool
    host: str
    port: int
    header: str
    path: str

    @property
    def url(self) -> str:
        """The address as a person would write it."""
        return f"{'https' if self.secure else 'http'}://{self.header}"


def quote(text: str, safe: str = "") -> str:
    """Percent-encode ``text`` as Signature Version 4 wants it: all but letters, digits and ``-._~``."""
    return urllib.parse.quote(text, safe=safe + "-._~")


def find_endpoint(settings: Mapping[str, Any]) -> Endpoint:
    """Return where the bucket of a registry's S3 ``settings`` is.

    Without ``regionendpoint`` it is AWS. With one, the bucket is part of the path, as in distribution 2.8 and as this
    collection configures 3.x, unless ``forcepathstyle`` is false. An endpoint without a scheme is https unless ``secure`` is false.

    Raises:
        ValueError: if ``regionendpoint`` is no address.
    """
    bucket, region = str(settings.get("bucket") or ""), str(settings.get("region") or "us-east-1")
    given = str(settings.get("regionendpoint") or "").strip()
    secure = settings.get("secure") is not False
    path_style = bool(given) and settings.get("forcepathstyle") is not False
    address = given or f"s3.{region}.amazonaws.com"
    if "://" in address:
        scheme = address.split("://", 1)[0].lower()
        if scheme not in ("http", "https"):
            raise ValueError(f"{scheme}:// is neither http:// nor https://")
        secure = scheme == "https"
    else:
        address = f"{'https' if secure else 'http'}://{address}"
    parts = urllib.parse.urlsplit(address)
    try:
        port = parts.port
    except ValueError:
        raise ValueError("its port is no number from 1 to 65535") from None
    if not parts.hostname or re.search(r"[\s_]", parts.hostname):
        raise ValueError("it names no host")
    if parts.path not in ("", "/") or parts.query or parts.fragment:
        raise ValueError("it is more than scheme, host and port")
    host = parts.hostname
    header = f"[{host}]" if ":" in host else host
    if not path_style:
        host = header = f"{bucket}.{header}"
    if port and port != (443 if secure else 80):
        header += f":{port}"
    return Endpoint(secure, host, port or (443 if secure else 80), header, f"/{quote(bucket)}" if path_style else "/")


def sign(
    method: str,
    path: str,
    query: Mapping[str, str],
    headers: Mapping[str, str],
    *,
    access_key: str,
    secret_key: str,
    region: str,
    now: datetime.datetime,
    payload_sha256: str = EMPTY_SHA256,
) -> tuple[str, dict[str, str]]:
    """Sign a request to S3.

    Args:
        method: the HTTP method in capitals.
        path: the path, percent-encoded already.
        query: the parameters, not encoded.
        headers: those to sign; ``host`` must be among them.
        access_key: name of the key.
        secret_key: the key.
        region: the region that the store signs for.
        now: the time in UTC.
        payload_sha256: SHA-256 of the body in hexadecimal.

    Returns:
        The encoded query string, and all headers to send.
    """
    stamp, day = now.strftime("%Y%m%dT%H%M%SZ"), now.strftime("%Y%m%d")
    signed = {name.lower(): " ".join(value.split()) for name, value in headers.items()}
    signed.update({"x-amz-content-sha256": payload_sha256, "x-amz-date": stamp})
    names = ";".join(sorted(signed))
    query_string = "&".join(f"{quote(name)}={quote(value)}" for name, value in sorted(query.items()))
    request = "\n".join([method, path, query_string, *(f"{name}:{signed[name]}" for name in sorted(signed)), "", names, payload_sha256])
    scope = f"{day}/{region}/s3/aws4_request"
    to_sign = "\n".join(["AWS4-HMAC-SHA256", stamp, scope, hashlib.sha256(request.encode()).hexdigest()])
    key = b"AWS4" + secret_key.encode()
    for part in (day, region, "s3", "aws4_request", to_sign):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    signed["authorization"] = f"AWS4-HMAC-SHA256 Credential={access_key}/{scope}, SignedHeaders={names}, Signature={key.hex()}"
    return query_string, signed


def read_answer(status: int, headers: Mapping[str, str], body: str, *, signed: bool = True) -> Answer:
    """Translate an HTTP answer of S3 to what it says about the bucket.

    Args:
        status: the HTTP status.
        headers: the headers with names in lower case.
        body: the body, XML where it is an error.
        signed: whether the request carried a signature; without one any refusal proves only that somebody answers.
    """
    if 200 <= status < 300:
        if signed and "<ListBucketResult" not in body:
            return Answer("other", "it answers, but not as an S3 store does (is this another service's port?)")
        return Answer("ok", "")
    if not signed and status in (401, 403):
        return Answer("ok", "")
    code = re.search(r"<Code>([^<]*)</Code>", body)
    message = re.search(r"<Message>([^<]*)</Message>", body)
    region = re.search(r"<Region>([^<]*)</Region>", body)
    name = code.group(1).strip() if code else ""
    detail = f"{status} {name}".strip()
    right = (region.group(1) if region else "") or headers.get("x-amz-bucket-region", "")
    kind = _KIND_OF_CODE.get(name)
    if kind is None:
        kind = {301: "region", 307: "region", 401: "key", 403: "denied"}.get(status, "other")
    if kind == "region" and right:
        detail += f", the right region is {right}"
    elif kind == "other":
        detail += f": {message.group(1).strip()[:200]}" if message else " without an error code of S3 (is this another service's port?)"
    return Answer(kind, detail)


def check_bucket(
    settings: Mapping[str, Any],
    *,
    timeout: float = 5.0,
    ca_pem: str = "",
    now: Callable[[], datetime.datetime] | None = None,
) -> Answer:
    """Ask the bucket for its first key, signed as the registry would, and return what came of it. Writes nothing.

    Args:
        settings: ``bucket``, ``region``, ``regionendpoint``, ``accesskey``, ``secretkey``, ``secure``, ``skipverify``,
            ``forcepathstyle`` as in the registry's configuration. Without the keys nothing is signed.
        timeout: seconds for the connection and again for each read.
        ca_pem: certificates to trust beside the system's.
        now: returns the time in UTC; for tests.
    """
    try:
        endpoint = find_endpoint(settings)
    except ValueError as error:
        return Answer("endpoint", str(error))
    query = {"list-type": "2", "max-keys": "1"}
    access, secret = str(settings.get("accesskey") or ""), str(settings.get("secretkey") or "")
    signed = bool(access and secret)
    headers = {"host": endpoint.header}
    if signed:
        moment = now() if now else datetime.datetime.now(datetime.timezone.utc)
        query_string, headers = sign(
            "GET", endpoint.path, query, headers,
            access_key=access, secret_key=secret, region=str(settings.get("region") or "us-east-1"), now=moment,
        )  # fmt: skip
    else:
        query_string = urllib.parse.urlencode(query)
    try:
        if endpoint.secure:
            context = ssl.create_default_context()
            if ca_pem:
                context.load_verify_locations(cadata=ca_pem)
            if settings.get("skipverify") is True:
                context.check_hostname = False
                context.verify_mode = ssl.CERT_NONE
            connection: http.client.HTTPConnection = http.client.HTTPSConnection(
                endpoint.host, endpoint.port, timeout=timeout, context=context
            )
        else:
            connection = http.client.HTTPConnection(endpoint.host, endpoint.port, timeout=timeout)
        try:
            connection.request("GET", f"{endpoint.path}?{query_string}", headers=headers)
            response = connection.getresponse()
            body = response.read(65536).decode("utf-8", "replace")
            return read_answer(response.status, {k.lower(): v for k, v in response.getheaders()}, body, signed=signed)
        finally:
            connection.close()
    except ssl.SSLCertVerificationError as error:
        return Answer("tls", getattr(error, "verify_message", "") or str(error))
    except ssl.SSLError as error:
        return Answer("tls", f"{error.reason or error} (does it speak TLS at all?)")
    except socket.timeout:
        return Answer("silent", f"no answer within {timeout:g} s")
    except socket.gaierror as error:
        return Answer("silent", f"the name {endpoint.host} does not resolve ({error.strerror})")
    except OSError as error:
        return Answer("silent", error.strerror or str(error))
    except http.client.HTTPException as error:
        return Answer("other", f"it answers, but not in HTTP ({type(error).__name__})")
