# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The page ``/auth/``, on which people make, see and revoke their personal tokens.

Who has signed in is in a signed cookie, so that any node answers. A request that changes something must come from the page itself: its
``Origin`` is looked at, the cookie is not sent along from other sites, and the form has a value that is in the cookie only.
"""

from __future__ import annotations

import hmac
import logging
import secrets
from typing import TYPE_CHECKING, Any, Awaitable, Callable, Dict, NamedTuple, Optional
from urllib.parse import urlsplit

from aiohttp import web
from wharf._access.model import Subject

from . import markup, peers
from .config import Config
from .door import Refused
from .personal import Limit, NotMade, parse_patterns
from .sso import CALLBACK, LOGIN, LOGIN_SECONDS, NotSignedIn, Provider

if TYPE_CHECKING:
    from .service import Service

LOG = logging.getLogger("wharf_token")
SESSION = "__Host-wharf-session"
PURPOSE = "session"
SESSION_SECONDS = 3600
_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    # Not no-referrer: with that, forms would come from the origin "null".
    "Referrer-Policy": "same-origin",
    "X-Frame-Options": "DENY",
}


class Session(NamedTuple):
    """Somebody who has signed in."""

    subject: Subject
    csrf: str
    identifier: str
    expires: int


class Form(NamedTuple):
    """A form of the page that somebody who has signed in has sent."""

    request: web.Request
    config: Config
    session: Session
    text: Dict[str, str]


class Page:
    """Answers people."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._provider = Provider()

    def add_to(self, app: web.Application) -> None:
        """Add the page's addresses."""
        app.router.add_get("/auth/", self.show, allow_head=False)
        app.router.add_get("/auth/style.css", self.show_style, allow_head=False)
        app.router.add_post("/auth/signin", self.sign_in)
        app.router.add_get("/auth/sso", self.begin, allow_head=False)
        app.router.add_get(CALLBACK, self.finish, allow_head=False)
        for name, change in (("signout", self.sign_out), ("create", self.create), ("revoke", self.revoke)):
            app.router.add_post(f"/auth/{name}", self._of_the_page(change))

    # -- addresses ------------------------------------------------------------------------------------------------------------------

    async def show(self, request: web.Request) -> web.Response:
        """Show the tokens, or how to sign in."""
        config = self._service.config
        session = self.session(config, request)
        if session is None:
            return self._sign_in_page(config)
        return self._tokens(config, session)

    async def show_style(self, _request: web.Request) -> web.Response:
        """Answer with the only file that belongs to the page."""
        headers = {**_HEADERS, "Cache-Control": "public, max-age=3600"}
        return web.Response(text=markup.STYLE, content_type="text/css", headers=headers)

    async def sign_in(self, request: web.Request) -> web.Response:
        """Sign in with an account of our own."""
        config = self._service.config
        if not _from_here(config, request):
            return self._elsewhere(config)
        form = await _form(request)
        name = form.get("name", "")
        fields = self._service.fields(request, "", "page")
        fields["account"] = name
        try:
            caller = await self._service.door.by_password(config, name, form.get("password", ""), fields["address"])
            # A token that may do little would otherwise make one that may do more.
            if caller.personal or name not in config.access.users:
                raise Refused("bad_credentials")
        except Refused as refused:
            self._service.note_refused("signin", fields, refused)
            status, text = (429, "Too many attempts. Wait a little.") if refused.wait else (401, "The name or the password is wrong.")
            answer = self._sign_in_page(config, wrong=text, status=status)
            if refused.wait:
                answer.headers["Retry-After"] = str(refused.wait)
            return answer
        return self._welcome(config, request, caller.subject)

    async def begin(self, _request: web.Request) -> web.Response:
        """Send somebody to the identity provider."""
        config = self._service.config
        try:
            address, cookie = await self._provider.begin(config)
        except NotSignedIn as error:
            return self._not_signed_in(config, error)
        answer = web.Response(status=303, headers={**_HEADERS, "Location": address})
        set_cookie(answer, LOGIN, cookie, LOGIN_SECONDS)
        return answer

    async def finish(self, request: web.Request) -> web.Response:
        """Take somebody who comes back from there."""
        config = self._service.config
        fields = self._service.fields(request, "", "sso")
        try:
            identity = await self._provider.finish(config, request.query, request.cookies.get(LOGIN, ""))
            subject = self._service.personal.arrive(config, identity.name, identity.account)
            if subject is None:
                fields["account"] = identity.name
                shown = f"{identity.name} has no rights in this registry. Ask those who run it which group you need."
                raise NotSignedIn("no group of the access model, blocked, or a name that is another account's", shown, 403)
            await self._spread(config)
            answer = self._welcome(config, request, subject)
        except NotSignedIn as error:
            self._service.note("signin", "refused", {**fields, "why": str(error)})
            answer = self._not_signed_in(config, error)
        set_cookie(answer, LOGIN, "", 0)
        return answer

    def _welcome(self, config: Config, request: web.Request, subject: Subject) -> web.Response:
        """Begin a session, and go to the page."""
        token = config.own_tokens.make(PURPOSE, subject.name, SESSION_SECONDS, {"csrf": secrets.token_urlsafe(24)})
        self._service.note("signin", "granted", {**self._service.fields(request, "", "page"), "account": subject.name})
        answer = web.Response(status=303, headers={**_HEADERS, "Location": "/auth/"})
        set_cookie(answer, SESSION, token, SESSION_SECONDS)
        return answer

    async def sign_out(self, form: Form) -> web.Response:
        """End a session, on all nodes."""
        self._service.keeper.state.revoked[form.session.identifier] = form.session.expires + 120
        await self._spread(form.config)
        answer = self._sign_in_page(form.config, note="You have signed out here.")
        set_cookie(answer, SESSION, "", 0)
        return answer

    async def create(self, form: Form) -> web.Response:
        """Make a token, and show it this once."""
        text = form.text
        try:
            limit = Limit(text.get("role", ""), parse_patterns(text.get("repositories", "")))
            days = int(text["days"]) if text.get("days", "").isdecimal() and len(text["days"]) < 6 else 0
            token, identifier = self._service.personal.make(form.config, form.session.subject.name, text.get("name", ""), limit, days)
        except NotMade as error:
            return self._tokens(form.config, form.session, wrong=str(error), kept=text, status=400)
        await self._spread(form.config)
        self._note("created", form, identifier)
        return self._tokens(form.config, form.session, new=token)

    async def revoke(self, form: Form) -> web.Response:
        """Revoke a token."""
        identifier = form.text.get("token", "")
        if not self._service.personal.revoke(form.session.subject.name, identifier):
            return self._tokens(form.config, form.session, wrong="You have no such token.", status=404)
        known = await self._spread(form.config)
        self._note("revoked", form, identifier)
        others = len(form.config.settings["peers"])
        note = "The token is revoked. Who has pulled with it just now may go on for a few minutes."
        if known < others:
            note += f" {others - known} of {others + 1} nodes could not be told yet; they ask when they are back."
        return self._tokens(form.config, form.session, note=note)

    # -- parts ----------------------------------------------------------------------------------------------------------------------

    def session(self, config: Config, request: web.Request) -> Optional[Session]:
        """Return who has signed in, if his account is still there."""
        claims = config.own_tokens.read(PURPOSE, request.cookies.get(SESSION, ""))
        state = self._service.keeper.state
        if claims is None or claims["jti"] in state.revoked:
            return None
        name = str(claims["sub"])
        subject = self._service.personal.subject(config, name)
        return Session(subject, str(claims.get("csrf", "")), str(claims["jti"]), int(claims["exp"])) if subject else None

    def _of_the_page(self, change: Callable[[Form], Awaitable[web.Response]]) -> Callable[[web.Request], Awaitable[web.Response]]:
        """Let a change be asked for by the forms of the page alone, and by who has signed in."""

        async def answer(request: web.Request) -> web.Response:
            config = self._service.config
            if not _from_here(config, request):
                return self._elsewhere(config)
            session = self.session(config, request)
            if session is None:
                return self._sign_in_page(config, wrong="Your session has ended. Sign in again.", status=401)
            text = await _form(request)
            if not session.csrf or not hmac.compare_digest(session.csrf.encode(), text.get("csrf", "").encode()):
                return self._elsewhere(config)
            return await change(Form(request, config, session, text))

        return answer

    async def _spread(self, config: Config) -> int:
        """Write down what has changed and tell the other nodes; return how many of them know."""
        await self._service.keeper.save()
        return await self._service.peers.exchange(config, eager=True, seconds=peers.AT_ONCE_SECONDS)

    def _note(self, result: str, form: Form, identifier: str) -> None:
        fields = self._service.fields(form.request, "", "page")
        self._service.note("personal", result, {**fields, "account": form.session.subject.name, "personal": identifier})

    def _sign_in_page(self, config: Config, wrong: str = "", note: str = "", status: int = 200) -> web.Response:
        return page(markup.sign_in(_registry(config), config.sso is not None, wrong, note), status)

    def _not_signed_in(self, config: Config, error: NotSignedIn) -> web.Response:
        LOG.info("single sign-on: %s", error)
        return page(markup.failed(_registry(config), error.shown), error.status)

    def _elsewhere(self, config: Config) -> web.Response:
        return page(markup.failed(_registry(config), "The request did not come from this page, so nothing was done."), 403)

    def _tokens(self, config: Config, session: Session, status: int = 200, **more: Any) -> web.Response:
        shown = self._service.personal.list_of(session.subject.name)
        most = config.settings["personal_days"]
        return page(markup.tokens(_registry(config), session.subject.name, session.csrf, shown, most, **more), status)


def page(text: str, status: int = 200) -> web.Response:
    """Return a page as an answer that nobody keeps, frames or adds anything to."""
    return web.Response(text=text, status=status, content_type="text/html", charset="utf-8", headers=_HEADERS)


def set_cookie(answer: web.Response, name: str, value: str, seconds: int) -> None:
    """Set a cookie that only this very host gets, over TLS, and no script sees. Lax: people come back from the identity provider."""
    answer.headers.add("Set-Cookie", f"{name}={value}; Path=/; Max-Age={seconds}; Secure; HttpOnly; SameSite=Lax")


def _registry(config: Config) -> str:
    return urlsplit(config.settings["url"]).netloc or config.service


def _from_here(config: Config, request: web.Request) -> bool:
    """Return whether a form was sent by this very page; all browsers say so."""
    return bool(config.settings["url"]) and request.headers.get("Origin", "") == config.settings["url"]


async def _form(request: web.Request) -> Dict[str, str]:
    try:
        form = await request.post()
    except ValueError:
        return {}
    return {name: value for name, value in form.items() if isinstance(value, str)}
