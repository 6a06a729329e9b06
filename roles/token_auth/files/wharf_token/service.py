# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The service itself: what it answers to whom, and how it takes a new configuration without anybody noticing."""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import datetime
import logging
import os
import signal
import socket
import time
from pathlib import Path
from typing import Any, AsyncIterator, Dict, List, Mapping, Tuple

import prometheus_client
from aiohttp import ClientSession, ClientTimeout, web
from wharf._access.model import PROBE, Subject

from . import config as configuration
from . import peers, scopes
from .audit import Audit, Metrics
from .door import Caller, Door, Refused
from .page import Page
from .passwords import Passwords
from .personal import Personal
from .revocations import Keeper
from .uses import LastUse

LOG = logging.getLogger("wharf_token")
#: The edge sends who the client is; nothing else is believed, X-Forwarded-For included.
_ADDRESS, _REQUEST_ID = "X-Real-IP", "X-Request-Id"
_STATUS = {"bad_credentials": 401, "expired": 401, "revoked": 401, "challenge": 401, "no_job": 401, "limited": 429, "busy": 429}
_MESSAGES = {
    "bad_credentials": "the name or the password is wrong",
    "expired": "the account has ended",
    "revoked": "the personal token has been revoked or has expired, or its account has ended",
    "challenge": "sign in first",
    "no_job": "the job may do nothing here",
    "limited": "too many wrong passwords; wait before the next attempt",
    "busy": "too many people are signing in; try again",
}
_MANIFESTS = ", ".join(
    f"application/vnd.{kind}"
    for kind in (
        "oci.image.manifest.v1+json",
        "oci.image.index.v1+json",
        "docker.distribution.manifest.v2+json",
        "docker.distribution.manifest.list.v2+json",
    )
)
_OAUTH_ERRORS = {"limited": "slow_down", "busy": "temporarily_unavailable"}
LOOK_SECONDS = 1.0
SAVE_SECONDS = 60.0
DRAIN_SECONDS = 10.0


class Service:
    """Everything that lives as long as the process."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._signature = configuration.signature(directory)
        self.config = configuration.load(directory)
        settings = self.config.settings
        self.metrics = Metrics()
        self.audit = Audit(settings["audit_log"])
        self.keeper = Keeper(Path(settings["personal_state"]) if settings["personal_state"] else None)
        self.personal = Personal(self.keeper)
        self.peers = peers.Peers(directory, self.keeper, lambda peer: self.metrics.peer_heard.labels(peer).set(time.time()))
        self.door = Door(self.config, Passwords(settings["cache_seconds"]), self.personal)
        self._last_use = LastUse(Path(settings["state"]) if settings["state"] else None, self.metrics.last_use)
        self._open = 0
        self._client: ClientSession | None = None
        if self.keeper.broken:
            LOG.error("personal tokens rest until another node has told what is in this file: %s", self.keeper.broken)
        self._told()

    # -- answers --------------------------------------------------------------------------------------------------------------------

    def app(self) -> web.Application:
        """Return the application."""
        app = web.Application(middlewares=[self._counted], client_max_size=64 * 1024)
        app.router.add_get("/auth/token", self.get_token, allow_head=False)
        app.router.add_post("/auth/token", self.post_token)
        app.router.add_get("/auth/exchange", self.exchange, allow_head=False)
        app.router.add_post(peers.PATH, self.answer_peer)
        Page(self).add_to(app)
        app.router.add_get("/metrics", self.show_metrics)
        app.router.add_get("/healthz", self.show_health)
        return app

    @web.middleware
    async def _counted(self, request: web.Request, handler: Any) -> web.StreamResponse:
        self._open += 1
        started = time.monotonic()
        try:
            return await handler(request)
        except web.HTTPException:
            raise
        except (ConnectionError, asyncio.CancelledError):
            raise
        except Exception:
            LOG.exception("a request failed")
            return _error(500, "UNKNOWN", "the token service failed; its log says why")
        finally:
            self._open -= 1
            if request.path != "/metrics":
                self.metrics.seconds.observe(time.monotonic() - started)

    async def get_token(self, request: web.Request) -> web.Response:
        """Answer ``GET``: who is asking is in the header Authorization, or it is nobody."""
        query = request.query
        fields = self.fields(request, query.get("client_id", ""), "password")
        try:
            wanted = scopes.parse(query.getall("scope", []))
            self._check_service(query.get("service"))
        except ValueError as error:
            return self._bad_request(fields, str(error))
        config = self.config
        try:
            caller = await self._basic(config, request, fields)
        except Refused as refused:
            return self._refuse(fields, refused)
        offline = query.get("offline_token", "") == "true" and bool(caller.digest) and caller.subject.name != PROBE
        return self._answer(config, caller, wanted, fields, offline, oauth=False)

    async def post_token(self, request: web.Request) -> web.Response:
        """Answer ``POST`` as in OAuth 2: a password or a refresh token is in the form."""
        try:
            form: Mapping[str, Any] = await request.post()
        except ValueError:
            form = {}
        text = {name: value for name, value in form.items() if isinstance(value, str)}
        kind = text.get("grant_type", "")
        fields = self.fields(request, text.get("client_id", ""), kind if kind in ("password", "refresh_token") else "")
        if kind not in ("password", "refresh_token"):
            return self._bad_request(fields, "grant_type is password or refresh_token", "unsupported_grant_type")
        try:
            wanted = scopes.parse(value for value in form.getall("scope", []) if isinstance(value, str))  # type: ignore[attr-defined]
            self._check_service(text.get("service"))
        except ValueError as error:
            return self._bad_request(fields, str(error))
        config = self.config
        try:
            if kind == "password":
                fields["account"] = text.get("username", "")
                caller = await self.door.by_password(config, text.get("username", ""), text.get("password", ""), fields["address"])
            else:
                caller = self.door.by_refresh_token(config, text.get("refresh_token", ""), fields["address"])
        except Refused as refused:
            return self._refuse(fields, refused, oauth=True)
        offline = text.get("access_type", "") == "offline" and bool(caller.digest) and caller.subject.name != PROBE
        again = text.get("refresh_token", "") if kind == "refresh_token" else ""
        return self._answer(config, caller, wanted, fields, offline, oauth=True, again=again)

    async def exchange(self, request: web.Request) -> web.Response:
        """Say whether a request may go on to the registry, and turn its password into a token for it, if it has one.

        The edge asks here first (auth_request); there is no way to this from outside. Passwords come from clients that a registry with
        htpasswd has told to send them. A tag that is immutable and exists is not written again, whoever asks.
        """
        fields = self.fields(request, "", "exchange")
        config = self.config
        written = scopes.tag_written(request.headers.get("X-Original-Method", ""), request.headers.get("X-Original-URI", ""))
        if written and config.access.is_immutable(*written) and await self._exists(config, *written):
            self.audit.write(event="exchange", result="immutable", **fields, asked=[":".join(written)])
            self.metrics.requests.labels("immutable").inc()
            return _error(403, "DENIED", "the tag exists, and is immutable")
        if not request.headers.get("Authorization", "").lower().startswith("basic "):
            return web.Response(status=204)
        try:
            wanted = scopes.needed(request.headers.get("X-Original-URI", ""))
            caller = await self._basic(config, request, fields)
        except Refused as refused:
            # auth_request knows 401 and 403 only.
            return self._refuse(fields, refused, status=401)
        access, granted = self._granted(config, caller, wanted)
        token = config.signer.token(caller.subject.name, config.service, access)
        fields["account"] = caller.subject.name or "(anonymous)"
        fields["personal"] = caller.personal
        self.audit.write(event="exchange", result="granted", **fields, granted=granted, jti=token.identifier)
        self.metrics.requests.labels("granted").inc()
        self._last_use.note(caller.subject)
        return web.Response(status=204, headers={"X-Wharf-Authorization": f"Bearer {token.token}"})

    async def _exists(self, config: configuration.Config, repository: str, tag: str) -> bool:
        """Ask this node's registry for a tag, with a token of our own. What cannot be answered is an error: the push is not let through."""
        access = [{"type": "repository", "name": repository, "actions": ["pull"]}]
        token = config.signer.token(PROBE, config.service, access)
        headers = {"Authorization": f"Bearer {token.token}", "Accept": _MANIFESTS}
        url = f"{config.settings['registry']}/v2/{repository}/manifests/{tag}"
        if self._client is None:
            self._client = ClientSession(timeout=ClientTimeout(total=10))
        async with self._client.head(url, headers=headers) as answer:
            if answer.status not in (200, 404):
                raise RuntimeError(f"the registry answers {answer.status} when asked for {repository}:{tag}")
            return answer.status == 200

    async def answer_peer(self, request: web.Request) -> web.Response:
        """Answer the service of another node."""
        return await self.peers.answer(self.config, request)

    async def show_metrics(self, _request: web.Request) -> web.Response:
        """Answer Prometheus."""
        self.metrics.waiting.set(self.door.passwords.waiting)
        self.metrics.show_issuers(self.door.jobs.states(self.config.access.issuers))
        self.metrics.state_ok.set(not self.keeper.broken)
        body = prometheus_client.generate_latest(self.metrics.registry)
        return web.Response(body=body, headers={"Content-Type": prometheus_client.CONTENT_TYPE_LATEST})

    async def show_health(self, _request: web.Request) -> web.Response:
        """Say that the service is there."""
        return web.json_response({"healthy": True})

    # -- parts of answers -----------------------------------------------------------------------------------------------------------

    def fields(self, request: web.Request, client: str, kind: str) -> Dict[str, Any]:
        """Return what every line of the audit log says about a request."""
        return {
            "kind": kind,
            "address": request.headers.get(_ADDRESS, ""),
            "request_id": request.headers.get(_REQUEST_ID, ""),
            "client": client,
            "user_agent": request.headers.get("User-Agent", ""),
        }

    def _check_service(self, service: str | None) -> None:
        if service != self.config.service:
            raise ValueError("the parameter service is missing, or is not the service of these registries")

    async def _basic(self, config: configuration.Config, request: web.Request, fields: Dict[str, Any]) -> Caller:
        header = request.headers.get("Authorization", "")
        if not header:
            if not config.access.anybody:
                raise Refused("challenge")
            return Caller(Subject())
        name, password = _credentials(header)
        fields["account"] = name
        return await self.door.by_password(config, name, password, fields["address"])

    def _granted(self, config: configuration.Config, caller: Caller, wanted: List[scopes.Scope]) -> Tuple[List[Dict[str, Any]], List[str]]:
        access = []
        granted = []
        for scope in wanted:
            actions = config.access.grant(caller.subject, scope.kind, scope.name, scope.actions)
            if caller.limit is not None:
                actions = caller.limit.cut(scope.kind, scope.name, actions)
            if actions:
                access.append({"type": scope.kind, "name": scope.name, "actions": actions})
                granted.append(f"{scope.kind}:{scope.name}:{','.join(actions)}")
        return access, granted

    def _answer(
        self,
        config: configuration.Config,
        caller: Caller,
        wanted: List[scopes.Scope],
        fields: Dict[str, Any],
        offline: bool,
        oauth: bool,
        again: str = "",
    ) -> web.Response:
        access, granted = self._granted(config, caller, wanted)
        token = config.signer.token(caller.subject.name, config.service, access)
        body: Dict[str, Any] = {
            "access_token": token.token,
            "expires_in": token.lifetime,
            "issued_at": datetime.datetime.fromtimestamp(token.issued, datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
        }
        if oauth:
            body["scope"] = " ".join(granted)
        else:
            body["token"] = token.token
        if again:
            body["refresh_token"] = again
        elif offline:
            body["refresh_token"] = config.own_tokens.refresh_token(caller.subject.name, caller.digest)
        whole = all(_is_whole(scope, access) for scope in wanted)
        result = "granted" if whole else "reduced"
        fields["account"] = caller.subject.name or "(anonymous)"
        fields["personal"] = caller.personal
        self.audit.write(
            event="token", result=result, **fields, asked=[str(scope) for scope in wanted], granted=granted, jti=token.identifier
        )
        self.metrics.requests.labels(result).inc()
        self._last_use.note(caller.subject)
        return web.json_response(body, headers={"Cache-Control": "no-store"})

    def note(self, event: str, result: str, fields: Dict[str, Any]) -> None:
        """Write down what somebody did on the page."""
        self.audit.write(event=event, result=result, **fields)
        self.metrics.page.labels(event, result).inc()

    def note_refused(self, event: str, fields: Dict[str, Any], refused: Refused) -> None:
        """Write down that somebody was not let in, and who that was if there is such an account."""
        account = fields.pop("account", "")
        # A name that nobody has may be a password, typed into the wrong field.
        fields["account"] = refused.account or (account if self._knows(account) else "(unknown)" if account else "")
        fields["personal"] = refused.personal
        self.audit.write(event=event, result=refused.result, why=refused.why, **fields)
        self.metrics.requests.labels(refused.result).inc()

    def _refuse(self, fields: Dict[str, Any], refused: Refused, oauth: bool = False, status: int = 0) -> web.Response:
        self.note_refused("token", fields, refused)
        message = refused.why or _MESSAGES[refused.result]
        status = status or _STATUS[refused.result]
        headers = {"Retry-After": str(refused.wait)} if refused.wait else {}
        if status == 401:
            headers["WWW-Authenticate"] = f'Basic realm="{_quoted(self.config.service)}"'
        body: Dict[str, Any] = {}
        if oauth:
            body = {"error": _OAUTH_ERRORS.get(refused.result, "invalid_grant"), "error_description": message}
        return _error(status, "TOOMANYREQUESTS" if status == 429 else "UNAUTHORIZED", message, headers, body)

    def _bad_request(self, fields: Dict[str, Any], message: str, error: str = "invalid_request") -> web.Response:
        self.audit.write(event="token", result="bad_request", **fields)
        self.metrics.requests.labels("bad_request").inc()
        return _error(400, "UNSUPPORTED", message, {}, {"error": error, "error_description": message})

    def _knows(self, account: str) -> bool:
        return self.config.access.knows(account) or account in self.keeper.state.accounts

    # -- time passes ----------------------------------------------------------------------------------------------------------------

    def _told(self) -> None:
        metrics = self.metrics
        metrics.config_ok.set(1)
        metrics.config_loaded.set(time.time())
        metrics.certificate_ends.set(self.config.signer.ends)
        metrics.robot_ends.clear()
        for robot in self.config.access.robots.values():
            if robot.expires is not None:
                day = datetime.datetime.combine(robot.expires, datetime.time(), datetime.timezone.utc) + datetime.timedelta(days=1)
                metrics.robot_ends.labels(robot.name).set(day.timestamp())
        self._last_use.keep(self._knows)

    async def look(self) -> None:
        """Take the configuration on disk if it has changed and is good; requests go on with the one that they began with."""
        found = configuration.signature(self._directory)
        if found == self._signature:
            return
        try:
            config = await asyncio.get_running_loop().run_in_executor(None, configuration.load, self._directory)
        except configuration.ConfigError as error:
            self._signature = found
            self.metrics.config_ok.set(0)
            LOG.error("the new configuration is refused, the present one stays: %s", error)
            return
        self._signature = found
        self.config = config
        self._told()
        LOG.info("the configuration has been read again")

    async def keep_looking(self) -> None:
        """Watch the configuration and the audit log's file for ever."""
        saved = time.monotonic()
        computed = 0
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                await self.look()
                self.door.jobs.keep_fresh(self.config.access.issuers)
                self.audit.reopen()
                self.metrics.computed.inc(self.door.passwords.computed - computed)
                computed = self.door.passwords.computed
                if time.monotonic() - saved > SAVE_SECONDS:
                    saved = time.monotonic()
                    self._last_use.save()
            except Exception:
                LOG.exception("looking for changes failed; the next look is in a second")

    async def save(self) -> None:
        """Write down what is to be known after a restart."""
        self._last_use.save()
        await self.keeper.save()

    async def drained(self) -> None:
        """Wait until no request is open, though not for ever."""
        end = time.monotonic() + DRAIN_SECONDS
        await asyncio.sleep(0.2)
        while self._open and time.monotonic() < end:
            await asyncio.sleep(0.05)
        if self._client is not None:
            await self._client.close()


def _credentials(header: str) -> Tuple[str, str]:
    scheme, _space, encoded = header.partition(" ")
    if scheme.lower() != "basic":
        raise Refused("bad_credentials")
    try:
        name, colon, password = base64.b64decode(encoded.strip(), validate=True).decode("utf-8").partition(":")
    except (binascii.Error, ValueError):
        raise Refused("bad_credentials") from None
    if not colon:
        raise Refused("bad_credentials")
    return name, password


def _is_whole(scope: scopes.Scope, access: List[Dict[str, Any]]) -> bool:
    wanted = set(scope.actions)
    for entry in access:
        if (entry["type"], entry["name"]) == (scope.kind, scope.name):
            return wanted <= set(entry["actions"]) or wanted == {"*"} and len(entry["actions"]) == 3
    return not wanted


def _quoted(text: str) -> str:
    return text.replace("\\", "").replace('"', "")


def _error(
    status: int, code: str, message: str, headers: Mapping[str, str] | None = None, body: Mapping[str, Any] | None = None
) -> web.Response:
    content = {**(body or {}), "errors": [{"code": code, "message": message}]}
    return web.json_response(content, status=status, headers={"Cache-Control": "no-store", **(headers or {})})


def sockets(listen: str) -> List[socket.socket]:
    """Return the sockets that systemd has opened, or one of our own."""
    if os.environ.get("LISTEN_PID") == str(os.getpid()):
        return [socket.socket(fileno=3 + number) for number in range(int(os.environ.get("LISTEN_FDS", "0")))]
    host, _colon, port = listen.rpartition(":")
    family = socket.AF_INET6 if host.startswith("[") else socket.AF_INET
    opened = socket.socket(family, socket.SOCK_STREAM)
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    opened.bind((host.strip("[]"), int(port)))
    return [opened]


@contextlib.asynccontextmanager
async def _serving(service: Service) -> AsyncIterator[None]:
    runner = web.AppRunner(service.app(), access_log=None, keepalive_timeout=30, max_line_size=32768, max_field_size=32768)
    await runner.setup()
    sites = [web.SockSite(runner, opened, backlog=1024) for opened in sockets(service.config.settings["listen"])]
    for site in sites:
        await site.start()
    watchers = [
        asyncio.create_task(service.keep_looking()),
        asyncio.create_task(peers.keep_exchanging(lambda: service.config, service.peers, service.keeper)),
    ]
    try:
        yield
    finally:
        for watcher in watchers:
            watcher.cancel()
        for site in sites:
            await site.stop()
        await service.drained()
        await runner.cleanup()
        await service.save()


async def serve(directory: Path) -> None:
    """Serve until SIGTERM or SIGINT; what is open then is finished first."""
    service = Service(directory)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with _serving(service):
        LOG.info("serving")
        await stop.wait()
