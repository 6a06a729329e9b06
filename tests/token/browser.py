# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A real browser without a window, used with the keyboard alone: Chromium, spoken to as the W3C's WebDriver says."""

from __future__ import annotations

import base64
import contextlib
import json
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from world import Process, free_ports
from world import apt_install as install

TAB, ENTER, DOWN, SPACE = "\ue004", "\ue007", "\ue015", " "


class Browser:
    """A browser at work."""

    def __init__(self, port: int, hosts: str = "") -> None:
        self._root = f"http://127.0.0.1:{port}"
        options = ["--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--window-size=1100,1000"]
        options += [f"--host-resolver-rules={hosts}"] if hosts else []
        wanted = {"browserName": "chrome", "acceptInsecureCerts": True, "goog:chromeOptions": {"args": options}}
        answer = self._ask("POST", "/session", {"capabilities": {"alwaysMatch": wanted}})
        self._root += f"/session/{answer['sessionId']}"

    def _ask(self, method: str, path: str, content: Any = None) -> Any:
        data = json.dumps(content if content is not None else {}).encode() if method == "POST" else None
        request = urllib.request.Request(self._root + path, data, {"Content-Type": "application/json"}, method=method)
        try:
            with urllib.request.urlopen(request, timeout=120) as answer:
                return json.load(answer)["value"]
        except urllib.error.HTTPError as error:
            raise AssertionError(error.read().decode()[:600]) from None

    def open(self, url: str) -> None:
        """Type an address."""
        self._ask("POST", "/url", {"url": url})

    def press(self, *keys: str) -> None:
        """Press keys, one after the other; a text is many of them."""
        actions = [{"type": kind, "value": key} for text in keys for key in text for kind in ("keyDown", "keyUp")]
        self._ask("POST", "/actions", {"actions": [{"type": "key", "id": "keyboard", "actions": actions}]})

    def script(self, text: str) -> Any:
        """Ask about the page what a person sees."""
        return self._ask("POST", "/execute/sync", {"script": f"return {text}", "args": []})

    @property
    def focus(self) -> str:
        """Where the keyboard is: the words of a button or a link, the label of a field."""
        return str(
            self.script(
                "(e => (e.getAttribute('aria-label') || (e.labels && e.labels.length ? e.labels[0].innerText : '')"
                " || e.textContent || e.tagName).trim())(document.activeElement)"
            )
        )

    def reach(self, name: str, most: int = 30) -> None:
        """Press the tab key until the keyboard is at something of this name."""
        passed = []
        for _key in range(most):
            self.press(TAB)
            passed.append(self.focus)
            if passed[-1].startswith(name):
                return
        raise AssertionError(f"the tab key does not reach {name}: {passed}")

    @property
    def text(self) -> str:
        """What is to be read."""
        return str(self.script("document.body ? document.body.innerText : ''"))

    @property
    def url(self) -> str:
        """Where it is."""
        return str(self._ask("GET", "/url"))

    def until(self, words: str, seconds: float = 60) -> None:
        """Wait until the page has these words."""
        end = time.monotonic() + seconds
        while words not in self.text:
            assert time.monotonic() < end, f"{self.url} never has {words!r}:\n{self.text[:1500]}"
            time.sleep(0.2)

    def picture(self, path: Path) -> None:
        """Keep how the page looks."""
        path.write_bytes(base64.b64decode(self._ask("GET", "/screenshot")))

    def cookies(self) -> list[dict[str, Any]]:
        """Return the cookies of the page."""
        return list(self._ask("GET", "/cookie"))

    def close(self) -> None:
        """Close it."""
        self._ask("DELETE", "")


def sign_in(page: Browser, name: str, password: str) -> None:
    """Go from the page of tokens through Keycloak, by keyboard."""
    page.until("Sign in")
    page.reach("Sign in with single sign-on")
    page.press(ENTER)
    page.until("Username or email")
    page.press(name, TAB, password, ENTER)


@contextlib.contextmanager
def browser(folder: Path, hosts: str = "") -> Iterator[Browser]:
    """Run a browser, which may know hosts that no DNS does: ``MAP name address``."""
    if not (shutil.which("chromium") and shutil.which("chromedriver")):
        install("chromium", "chromium-driver")
    port = free_ports(60)[59]
    with Process(folder, "chromedriver", "chromedriver", f"--port={port}", HOME=str(folder), TMPDIR="/tmp") as process:
        process.wait_for(lambda: urllib.request.urlopen(f"http://127.0.0.1:{port}/status", timeout=5).status == 200)
        opened = Browser(port, hosts)
        try:
            yield opened
        finally:
            opened.close()
