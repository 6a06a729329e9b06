# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Somebody at the page /auth/, without a browser: keeps cookies, fills in the forms that are there, and sends them from where he is."""

from __future__ import annotations

import html
import re
from urllib.parse import urlencode

from world import PASSWORDS, SERVICE, Answer, World

ORIGIN = f"https://{SERVICE}"


class Person:
    """A person with cookies."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.cookies: dict[str, str] = {}
        self.text = ""

    def _keep(self, answer: Answer) -> Answer:
        set_cookie = answer.headers.get("set-cookie", "")
        if set_cookie:
            name, _equals, value = set_cookie.split(";")[0].partition("=")
            self.cookies[name] = value
        self.text = answer.text
        return answer

    def _headers(self, **more: str) -> dict[str, str]:
        return {"Cookie": "; ".join(f"{name}={value}" for name, value in self.cookies.items()), **more}

    def look(self, path: str = "/auth/") -> Answer:
        """Open a page."""
        return self._keep(self.world.request("GET", path, self._headers()))

    def send(self, path: str, origin: str | None = ORIGIN, **fields: str) -> Answer:
        """Send a form."""
        headers = self._headers(**{"Content-Type": "application/x-www-form-urlencoded"})
        if origin is not None:
            headers["Origin"] = origin
        return self._keep(self.world.request("POST", path, headers, urlencode(fields)))

    def sign_in(self, name: str, password: str | None = None) -> Answer:
        """Sign in with a password, and look at the page."""
        answer = self.send("/auth/signin", name=name, password=PASSWORDS[name] if password is None else password)
        if answer.status == 303:
            self.look(answer.headers["location"])
        return answer

    @property
    def csrf(self) -> str:
        """What the forms of the page have in them."""
        return html.unescape(re.search(r'name="csrf" value="([^"]*)"', self.text)[1])

    def make(self, name: str, role: str = "maintainer", repositories: str = "", days: str = "30") -> str:
        """Make a token."""
        answer = self.send("/auth/create", csrf=self.csrf, name=name, role=role, repositories=repositories, days=days)
        assert answer.status == 200, answer.text
        return html.unescape(re.search(r'id="token" value="([^"]*)"', answer.text)[1])

    def identifier(self, name: str) -> str:
        """Return the identifier of a token in the list."""
        return re.search(rf'<th scope="row">{name}</th>.*?name="token" value="([^"]*)"', self.look().text)[1]

    def revoke(self, name: str) -> Answer:
        """Revoke a token."""
        return self.send("/auth/revoke", token=self.identifier(name), csrf=self.csrf)
