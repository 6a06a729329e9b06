# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A small client of the distribution API, from the standard library alone.

It speaks what the collection needs of https://github.com/opencontainers/distribution-spec/blob/v1.1.1/spec.md: blobs, manifests,
tags and upload sessions. It is private to this collection and may change at any time.
"""

from __future__ import annotations

import base64
import hashlib
import http.client
import json
import re
import socket
import ssl
import time
from dataclasses import dataclass, field
from typing import Callable
from urllib.parse import quote, urlencode, urlsplit

# What a manifest may be. The registry answers 404 to a reader who does not say that he knows the manifest's type.
MANIFEST_TYPES = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)

_CHUNK = 1024 * 1024
_BODY_LIMIT = 64 * 1024
#: Methods that may be sent again over another connection.
_AGAIN = ("GET", "HEAD")
_REPOSITORY = re.compile(r"/v2/(.+)/(?:manifests|blobs|tags)/")


class RegistryError(Exception):
    """The registry did not do what was asked.

    ``status`` is the HTTP status, or ``None`` when there was no answer. ``body`` holds the first 64 KiB of the answer.
    """

    def __init__(self, message: str, status: int | None = None, body: bytes = b"") -> None:
        super().__init__(message)
        self.status = status
        self.body = body

    @property
    def code(self) -> str:
        """The first error code of the answer's JSON body, for example ``NAME_UNKNOWN``; empty if there is none."""
        try:
            return str(json.loads(self.body.decode("utf-8"))["errors"][0]["code"])
        except (ValueError, KeyError, IndexError, TypeError):
            return ""


class RegistryTimeout(RegistryError):
    """The deadline passed before the answer was complete."""


@dataclass(frozen=True)
class Answer:
    """One answer: status, headers with lower-case names, and the body (empty for HEAD)."""

    status: int
    headers: dict = field(default_factory=dict)
    body: bytes = b""


class Deadline:
    """A point in time after which nothing may wait any more. ``seconds`` counts from now."""

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._end = clock() + seconds
        self.seconds = seconds

    def left(self) -> float:
        """Seconds left. Raises RegistryTimeout when there are none."""
        left = self._end - self._clock()
        if left <= 0:
            raise RegistryTimeout("no answer within %g s" % self.seconds)
        return left


class _Connection(http.client.HTTPConnection):
    """A connection that may go to another address than the one in the URL; the name of the URL stays in SNI and in Host."""

    def __init__(self, host: str, port: int, connect_to: tuple, context: ssl.SSLContext | None, timeout: float) -> None:
        super().__init__(host, port, timeout=timeout)
        self._connect_to = connect_to
        self._context = context
        if context is not None:
            self.default_port = 443

    def connect(self) -> None:
        self.sock = socket.create_connection(self._connect_to, self.timeout)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._context is not None:
            self.sock = self._context.wrap_socket(self.sock, server_hostname=self.host)


def parse_address(text: str, default_port: int) -> tuple:
    """Split ``host``, ``host:port``, ``[v6]:port`` or a bare IPv6 address. Raises ValueError."""
    text = text.strip()
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise ValueError("%r is no address" % text)
        return host, int(rest[1:]) if rest else default_port
    if text.count(":") == 1:
        host, _colon, port = text.partition(":")
        return host, int(port)
    if not text:
        raise ValueError("the address is empty")
    return text, default_port


def digest_of(content: bytes) -> str:
    """Return the canonical digest ``sha256:<hex>`` of ``content``."""
    return "sha256:" + hashlib.sha256(content).hexdigest()


class Registry:
    """One registry, reached under one URL.

    :param url: ``https://name[:port]`` or ``http://name[:port]``.
    :param address: connect to this ``host[:port]`` instead; SNI, certificate check and Host stay those of ``url``.
    :param username: user of Basic authentication, or of the token service that the registry names (Bearer); empty: anonymous.
    :param ca_path: PEM bundle to trust in addition to the system's; ignored for ``http``.
    :param timeout: seconds for each operation as a whole, connection included.
    :param keep_alive: use connections again for GET and HEAD, from several threads too. One that the registry has closed meanwhile is replaced.
    :param token_origin: fetch tokens there, ``http://127.0.0.1:5004``, whatever origin the registry names: for those who are beside it.
    :param strict_location: raise if a ``Location`` header leads away from ``url``: what a client behind a proxy would see.
        Otherwise only its path and query are used.
    """

    def __init__(
        self,
        url: str,
        address: str | None = None,
        username: str = "",
        password: str = "",
        ca_path: str | None = None,
        timeout: float = 30.0,
        strict_location: bool = False,
        user_agent: str = "wharf.registry",
        keep_alive: bool = False,
        token_origin: str = "",
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("%r is no http or https URL" % url)
        self._secure = parts.scheme == "https"
        self._host = parts.hostname
        self._port = parts.port or (443 if self._secure else 80)
        self._connect_to = parse_address(address, self._port) if address else (self._host, self._port)
        self._username = username
        self._password = password
        self._timeout = timeout
        self._strict_location = strict_location
        self._user_agent = user_agent
        self._keep_alive = keep_alive
        self._token_origin = token_origin
        self._idle: list = []
        self._others: dict = {}
        # By method and repository: what a token is good for.
        self._tokens: dict = {}
        self._context: ssl.SSLContext | None = None
        if self._secure:
            self._context = ssl.create_default_context()
            self._context.minimum_version = ssl.TLSVersion.TLSv1_2
            if ca_path:
                self._context.load_verify_locations(cafile=ca_path)

    # -- what the registry is asked ------------------------------------------------------------------------------------------------

    def ping(self) -> Answer:
        """GET ``/v2/``: the credentials are accepted. Raises RegistryError."""
        return self._request("GET", "/v2/", expect=(200,))

    def root(self) -> Answer:
        """GET ``/``: the process answers. It needs no credentials; 503 while the registry itself finds its storage unhealthy."""
        return self._request("GET", "/", expect=(200,), anonymous=True)

    def start_upload(self, repository: str) -> str:
        """Start an upload session and return its location (path and query).

        Finish what you start: a session that is cancelled (DELETE) leaves its hash state in the storage, in 2.8 and in 3.1, and without the
        date of its start, so that the registry's purging never removes it.
        """
        answer = self._request("POST", "/v2/%s/blobs/uploads/" % repository, headers={"Content-Length": "0"}, expect=(202,))
        return self._location(answer)

    def put_blob(self, repository: str, content: bytes) -> str:
        """Upload ``content`` in one piece and return its digest."""
        digest = digest_of(content)
        location = self.start_upload(repository)
        location += ("&" if "?" in location else "?") + "digest=" + quote(digest, safe="")
        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(len(content))}
        answer = self._request("PUT", location, body=content, headers=headers, expect=(201,))
        self._location(answer)
        return digest

    def has_blob(self, repository: str, digest: str) -> bool:
        """Whether the repository holds the blob."""
        return self._request("HEAD", "/v2/%s/blobs/%s" % (repository, digest), expect=(200, 307, 404)).status != 404

    def get_blob(self, repository: str, digest: str) -> bytes:
        """Return a blob whose digest has been checked; a redirect to the object store is followed without credentials."""
        answer = self._request("GET", "/v2/%s/blobs/%s" % (repository, digest), expect=(200, 302, 307))
        content = answer.body
        if answer.status != 200:
            content = self._ask_elsewhere("GET", answer.headers.get("location", "")).body
        if digest_of(content) != digest:
            raise RegistryError("the blob %s of %s came back as %s" % (digest, repository, digest_of(content)), answer.status)
        return content

    def blob_size(self, repository: str, digest: str) -> int | None:
        """Return the size of a blob in bytes; None if the repository does not hold it. A redirect is followed without credentials."""
        answer = self._request("HEAD", "/v2/%s/blobs/%s" % (repository, digest), expect=(200, 302, 307, 404))
        if answer.status in (302, 307):
            answer = self._ask_elsewhere("HEAD", answer.headers.get("location", ""))
        length = answer.headers.get("content-length", "")
        return int(length) if answer.status == 200 and length.isdigit() else None

    def check_blob(self, repository: str, digest: str) -> None:
        """Read a blob from the registry. Raises RegistryError unless it comes whole; a redirect to the object store is good, and not followed."""
        answer = self._request("GET", "/v2/%s/blobs/%s" % (repository, digest), expect=(200, 302, 307))
        if answer.status == 200 and digest_of(answer.body) != digest:
            raise RegistryError("the blob %s of %s came back as %s" % (digest, repository, digest_of(answer.body)), answer.status)

    def put_manifest(self, repository: str, reference: str, content: bytes, media_type: str) -> str:
        """Put a manifest under a tag or digest and return its digest. Raises RegistryError if the registry stored another."""
        headers = {"Content-Type": media_type, "Content-Length": str(len(content))}
        answer = self._request("PUT", "/v2/%s/manifests/%s" % (repository, reference), body=content, headers=headers, expect=(201,))
        self._location(answer)
        digest = answer.headers.get("docker-content-digest", "")
        if digest != digest_of(content):
            raise RegistryError("the registry stored the manifest %s as %s" % (digest_of(content), digest or "nothing"))
        return digest

    def get_manifest(self, repository: str, reference: str) -> tuple:
        """Return ``(content, media type, digest)`` of a manifest; the digest is computed from the content."""
        answer = self._request(
            "GET", "/v2/%s/manifests/%s" % (repository, reference), headers={"Accept": ", ".join(MANIFEST_TYPES)}, expect=(200,)
        )
        return answer.body, answer.headers.get("content-type", ""), digest_of(answer.body)

    def head_manifest(self, repository: str, reference: str) -> str:
        """Return the digest of a manifest as the registry names it; empty if there is no such manifest."""
        answer = self._request(
            "HEAD", "/v2/%s/manifests/%s" % (repository, reference), headers={"Accept": ", ".join(MANIFEST_TYPES)}, expect=(200, 404)
        )
        return answer.headers.get("docker-content-digest", "") if answer.status == 200 else ""

    def delete_manifest(self, repository: str, digest: str) -> bool:
        """Delete a manifest by digest and with it all of its tags. Returns whether it was there."""
        return self._request("DELETE", "/v2/%s/manifests/%s" % (repository, digest), expect=(202, 404)).status == 202

    def delete_tag(self, repository: str, tag: str) -> bool:
        """Delete a tag. Returns whether it was there.

        Distribution 2.8 cannot delete a tag (400 DIGEST_INVALID): there the manifest goes by its digest, **and all its other tags with
        it**, so use this on 2.8 only for manifests that have one tag.
        """
        try:
            return self._request("DELETE", "/v2/%s/manifests/%s" % (repository, tag), expect=(202, 404)).status == 202
        except RegistryError as error:
            if error.status != 400 or error.code not in ("DIGEST_INVALID", "UNSUPPORTED"):
                raise
        digest = self.head_manifest(repository, tag)
        return bool(digest) and self.delete_manifest(repository, digest)

    def untag(self, repository: str, tag: str) -> bool:
        """Delete a tag and nothing else. Returns whether it was there.

        Raises RegistryError: with status 400 from distribution 2.8, which cannot do that, and with 405 where deleting is not enabled.
        """
        return self._request("DELETE", "/v2/%s/manifests/%s" % (repository, tag), expect=(202, 404)).status == 202

    def list_tags(self, repository: str) -> list:
        """Return the tags of a repository, all pages of them; empty if there is no such repository."""
        return self._pages("/v2/%s/tags/list" % repository, "tags", "the list of tags of %s" % repository)

    def list_repositories(self) -> list:
        """Return the names of all repositories, all pages of them."""
        return self._pages("/v2/_catalog", "repositories", "the catalog")

    def _pages(self, path: str, key: str, what: str) -> list:
        found: list = []
        while path:
            answer = self._request("GET", path, expect=(200, 404))
            if answer.status == 404:
                break
            try:
                page = list(json.loads(answer.body.decode("utf-8")).get(key) or [])
            except (ValueError, AttributeError):
                raise RegistryError("%s is no JSON" % what, answer.status, answer.body[:_BODY_LIMIT]) from None
            found += page
            # Link: </v2/_catalog?last=b&n=100>; rel="next"
            target = urlsplit(answer.headers.get("link", "").partition(">")[0].lstrip(" <"))
            path = target.path + "?" + target.query if page and target.path and target.query else ""
        return found

    # -- how it is asked -----------------------------------------------------------------------------------------------------------

    @property
    def origin(self) -> str:
        """Scheme, name and port of the URL as a client writes it: the port only when it is not the scheme's own."""
        default = 443 if self._secure else 80
        host = "[%s]" % self._host if ":" in self._host else self._host
        return "%s://%s%s" % ("https" if self._secure else "http", host, "" if self._port == default else ":%d" % self._port)

    def _authorization(self) -> dict:
        """Headers that say who asks."""
        if not self._username:
            return {}
        token = base64.b64encode(("%s:%s" % (self._username, self._password)).encode("utf-8")).decode("ascii")
        return {"Authorization": "Basic " + token}

    def _fetch_token(self, challenge: str, deadline: Deadline) -> str:
        """Get a token from the service that a 401 names: ``Bearer realm="https://…",service="…",scope="repository:a:pull"``.

        Form: https://distribution.github.io/distribution/spec/auth/token/. Raises RegistryError, with the service's status if it refuses.
        """
        fields = dict(re.findall(r'(\w+)="([^"]*)"', challenge))
        parts = urlsplit(fields.get("realm", ""))
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise RegistryError("the registry names no token service: WWW-Authenticate is %s" % challenge, 401)
        if self._secure and parts.scheme != "https":
            raise RegistryError("the registry names a token service without TLS, %s: it gets no password" % fields["realm"], 401)
        origin = self._token_origin or "%s://%s" % (parts.scheme, parts.netloc)
        service = self._other(origin)
        if service.origin == self.origin:
            service = self
        query = urlencode([(name, fields[name]) for name in ("service", "scope") if fields.get(name)])
        path = (parts.path or "/") + "?" + "&".join(text for text in (parts.query, query) if text)
        headers = {"User-Agent": self._user_agent}
        headers.update(self._authorization())
        answer = service._exchange("GET", path, None, headers, (200,), deadline)
        if answer.status != 200:
            raise RegistryError("no token from %s: HTTP %d" % (origin + parts.path, answer.status), answer.status, answer.body)
        try:
            tree = json.loads(answer.body.decode("utf-8"))
            return str(tree.get("token") or tree["access_token"])
        except (ValueError, KeyError, AttributeError):
            raise RegistryError("what %s sent is no token" % (origin + parts.path), answer.status) from None

    def _location(self, answer: Answer) -> str:
        location = answer.headers.get("location", "")
        parts = urlsplit(location)
        if not parts.path:
            raise RegistryError("the registry sent no Location header", answer.status)
        if self._strict_location and parts.netloc and "%s://%s" % (parts.scheme, parts.netloc) != self.origin:
            raise RegistryError(
                "the registry leads clients away from %s: Location is %s://%s%s" % (self.origin, parts.scheme, parts.netloc, parts.path),
                answer.status,
            )
        return parts.path + ("?" + parts.query if parts.query else "")

    def _other(self, origin: str) -> Registry:
        """Return a client of another server, without credentials, which trusts the same CAs; it is made once."""
        found = self._others.get(origin)
        if found is None:
            found = Registry(origin, timeout=self._timeout, user_agent=self._user_agent, keep_alive=self._keep_alive)
            if found._context is not None and self._context is not None:
                found._context = self._context
            self._others[origin] = found
        return found

    def _ask_elsewhere(self, method: str, url: str) -> Answer:
        """Follow a redirect to the object store, without credentials."""
        parts = urlsplit(url)
        other = "%s://%s" % (parts.scheme, parts.netloc)
        return self._other(other)._request(method, parts.path + ("?" + parts.query if parts.query else ""), expect=(200,))

    def _request(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: dict | None = None,
        expect: tuple = (200,),
        anonymous: bool = False,
    ) -> Answer:
        deadline = Deadline(self._timeout)
        sent = {"User-Agent": self._user_agent}
        sent.update(headers or {})
        found = _REPOSITORY.match(path)
        place = ("GET" if method == "HEAD" else method, found.group(1) if found else "")
        if not anonymous:
            token = self._tokens.get(place)
            sent.update({"Authorization": "Bearer " + token} if token else self._authorization())
        answer = self._exchange(method, path, body, sent, expect, deadline)
        challenge = answer.headers.get("www-authenticate", "")
        if answer.status == 401 and not anonymous and challenge.lower().startswith("bearer "):
            # There was no token yet, or it has expired.
            self._tokens[place] = self._fetch_token(challenge, deadline)
            sent["Authorization"] = "Bearer " + self._tokens[place]
            answer = self._exchange(method, path, body, sent, expect, deadline)
        if answer.status not in expect:
            code = RegistryError("", answer.status, answer.body).code
            code = " " + code if code else ""
            raise RegistryError("%s %s: HTTP %d%s" % (method, urlsplit(path).path, answer.status, code), answer.status, answer.body)
        return answer

    def _exchange(self, method: str, path: str, body: bytes | None, headers: dict, expect: tuple, deadline: Deadline) -> Answer:
        """Send one request and return the answer, with no more than the first 64 KiB of a body whose status is not in ``expect``."""
        if self._keep_alive and method in _AGAIN:
            try:
                connection = self._idle.pop()
                return self._use(connection, method, path, body, headers, expect, deadline)
            except IndexError:
                pass
            except RegistryTimeout:
                raise
            except RegistryError:
                pass  # the registry has closed it, or it broke: a new one tells
        connection = _Connection(self._host, self._port, self._connect_to, self._context, deadline.left())
        return self._use(connection, method, path, body, headers, expect, deadline)

    def _use(
        self, connection: _Connection, method: str, path: str, body: bytes | None, headers: dict, expect: tuple, deadline: Deadline
    ) -> Answer:
        kept = False
        try:
            if connection.sock is not None:
                connection.sock.settimeout(deadline.left())
            connection.request(method, path, body=body, headers=headers)
            # A reference of our own: http.client forgets its socket when the other side is going to close it.
            sock = connection.sock
            sock.settimeout(deadline.left())
            response = connection.getresponse()
            content = _read(method, response, sock, deadline, None if response.status in expect else _BODY_LIMIT)
            # Only what may take it again leaves one: there are never more than have been in use at once.
            kept = self._keep_alive and method in _AGAIN and response.isclosed() and connection.sock is not None
            return Answer(response.status, {name.lower(): value for name, value in response.getheaders()}, content)
        except socket.timeout:
            raise RegistryTimeout("no answer within %g s" % self._timeout) from None
        except ssl.SSLError as error:
            raise RegistryError("TLS with %s failed: %s" % (self.origin, error)) from error
        except (OSError, http.client.HTTPException) as error:
            raise RegistryError("no answer from %s:%d: %s" % (self._connect_to + (_reason(error),))) from error
        finally:
            if kept:
                self._idle.append(connection)
            else:
                connection.close()


def _reason(error: BaseException) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def _read(method: str, response: http.client.HTTPResponse, sock: socket.socket, deadline: Deadline, limit: int | None) -> bytes:
    """Read a body under a deadline, at most about ``limit`` bytes of it; raise IncompleteRead if it ends early."""
    pieces = []
    size = 0
    # Where the other side is going to close the connection, the socket is closed with the last byte.
    while (limit is None or size < limit) and not response.isclosed():
        sock.settimeout(deadline.left())
        piece = response.read(_CHUNK)
        if not piece:
            break
        pieces.append(piece)
        size += len(piece)
    content = b"".join(pieces)
    length = response.getheader("Content-Length")
    if limit is None and length is not None and method != "HEAD" and response.status not in (204, 304):
        missing = int(length) - len(content)
        if missing:
            raise http.client.IncompleteRead(content, missing)
    return content
