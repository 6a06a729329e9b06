# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Single sign-on with a real Keycloak, in a real browser without a mouse: in, a token, a push with it, revoked, refused; Keycloak killed."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from browser import DOWN, ENTER, Browser, browser, sign_in
from edge import ask, edge
from keycloak import ADMIN_PASSWORD, CLIENT, CLIENT_SECRET, Keycloak, keycloak, set_up
from people import Person
from test_clients import Crane
from world import MODEL, PASSWORDS, World, basic, free_ports, registry, servers

GROUPS = {"registry-developers": "developers", "registry-readers": "readers"}
PASSWORD = "dana-password"
#: Where pictures of the page go; the last ones stay for whoever wants to look.
PICTURES = Path(os.environ.get("WHARF_TEST_PICTURES", "/var/tmp/wharf-pictures"))


class Place(NamedTuple):
    """All that there is."""

    world: World
    keycloak: Keycloak
    front: str
    folder: Path

    @property
    def url(self) -> str:
        """Where people find the registry."""
        return f"https://{self.front}"

    def configure(self, **sso: object) -> None:
        """Set single sign-on with changes."""
        settings = {"issuer": self.keycloak.issuer, "client_id": CLIENT, "groups": GROUPS, **sso}
        self.world.configure(sso=settings)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """Registry, edge, token service and Keycloak, which the role has set up."""
    folder = tmp_path_factory.mktemp("sso")
    PICTURES.mkdir(exist_ok=True)
    world = World(folder / "token")
    port = free_ports(30)[29]
    model = {**MODEL, "groups": {"developers": [], "readers": ["carol"]}}
    model["projects"] = {**MODEL["projects"], "shop": {"writers": ["group:developers"], "readers": ["group:readers"]}}
    realm = f"https://localhost:{port}/auth/token"
    with (
        world.serve(),
        keycloak(folder / "keycloak") as found,
        registry(servers.settings.REGISTRY_3, folder / "registry", world.directory / "trusted.crt", realm) as (address, _root),
        edge(folder / "edge", address, world, port) as front,
    ):
        made = Place(world, found, front, folder)
        # While it runs, as an operator does.
        world.write("sso.secret", CLIENT_SECRET.encode())
        world.configure(access=model, url=made.url)
        made.configure()
        world.until(lambda: "Sign in with single sign-on" in world.request("GET", "/auth/").text)
        yield made


def test_the_role_sets_keycloak_up_once(place: Place) -> None:
    first = set_up(place.keycloak, place.folder, place.url, list(GROUPS), "-vvv")
    assert "failed=0" in first and "changed=3" in first
    # Nothing is shown, however much is asked for.
    assert ADMIN_PASSWORD not in first and CLIENT_SECRET not in first
    assert "changed=0" in set_up(place.keycloak, place.folder, place.url, list(GROUPS))
    # What somebody has made less strict is put back.
    client = place.keycloak.ask("GET", f"/clients?clientId={CLIENT}")[0]
    client["redirectUris"] = ["*"]
    place.keycloak.ask("PUT", f"/clients/{client['id']}", client)
    checked = set_up(place.keycloak, place.folder, place.url, list(GROUPS), "--check")
    assert "failed=0" in checked and "changed=1" in checked
    assert place.keycloak.ask("GET", f"/clients?clientId={CLIENT}")[0]["redirectUris"] == ["*"]
    assert "changed=1" in set_up(place.keycloak, place.folder, place.url, list(GROUPS))
    assert place.keycloak.ask("GET", f"/clients?clientId={CLIENT}")[0]["redirectUris"] == [f"{place.url}/auth/callback"]
    place.keycloak.add_user("dana", PASSWORD, "/registry-developers")
    place.keycloak.add_user("erin", PASSWORD)
    place.keycloak.add_user("alice", PASSWORD, "/registry-developers")
    # A group of the same name below another one is not the one that is meant.
    outer = place.keycloak.ask("POST", "/groups", {"name": "outer"})
    assert outer is None
    outer = place.keycloak.ask("GET", "/groups?search=outer")[0]
    place.keycloak.ask("POST", f"/groups/{outer['id']}/children", {"name": "registry-developers"})
    place.keycloak.add_user("frank", PASSWORD, "/outer/registry-developers")


@pytest.fixture
def page(place: Place, tmp_path: Path) -> Iterator[Browser]:
    """A new browser, at the page."""
    with browser(tmp_path) as opened:
        opened.open(f"{place.url}/auth/")
        yield opened


def test_from_the_browser_to_the_command_line(place: Place, page: Browser, tmp_path: Path) -> None:
    page.picture(PICTURES / "signin.png")
    sign_in(page, "dana", PASSWORD)
    page.until("Signed in as dana")
    assert page.url == f"{place.url}/auth/"
    (cookie,) = [cookie for cookie in page.cookies() if cookie["name"].startswith("__Host-")]
    assert cookie["secure"] and cookie["httpOnly"] and cookie["sameSite"] == "Lax" and cookie["domain"] == "localhost"
    page.reach("Name")
    page.press("laptop")
    page.reach("Pull")
    page.press(DOWN)
    page.reach("Repositories")
    page.press("shop/**")
    page.reach("Make token")
    page.press(ENTER)
    page.until("Your new token")
    # The keyboard is at the token already, all of it chosen for copying when the tab key comes by.
    assert page.focus.startswith("Token")
    page.picture(PICTURES / "new.png")
    token = page.script("document.activeElement.value")
    assert token.startswith("wpt_")
    dana = Crane(tmp_path / "dana", place.front, "dana", token)
    assert dana.push("shop/web:1")
    assert dana.pull("shop/web:1")
    assert not dana.push("team/web:1")
    assert not dana.delete("shop/web:1")
    page.open(f"{place.url}/auth/")
    page.until("shop/**")
    assert "not yet" not in page.text
    page.picture(PICTURES / "tokens.png")
    page.reach("Revoke laptop")
    page.press(ENTER)
    page.until("The token is revoked")
    page.until("You have none.")
    page.picture(PICTURES / "revoked.png")
    assert not dana.push("shop/web:2")
    assert not dana.pull("shop/web:1")
    page.reach("Sign out")
    page.press(ENTER)
    page.until("You have signed out here.")


@pytest.mark.parametrize("name", ["erin", "frank", "alice"])
def test_who_may_not_come_in(place: Place, page: Browser, name: str) -> None:
    """Somebody without a group, with a group that only has the same name, and with the name of an account of the registry's own."""
    sign_in(page, name, PASSWORD)
    page.until(f"{name} has no rights in this registry")
    page.open(f"{place.url}/auth/")
    page.until("Sign in")
    assert "Signed in as" not in page.text
    assert place.world.lines()[-1]["result"] == "refused"


def test_answers_that_are_none(place: Place) -> None:
    """Codes and states that the provider has not given, cookies of others."""
    begun = ask_once(place, "/auth/sso")
    assert begun.status == 303
    address = begun.headers["location"]
    assert address.startswith(f"{place.keycloak.issuer}/protocol/openid-connect/auth?response_type=code&")
    for part in (
        "code_challenge_method=S256",
        "code_challenge=",
        "state=",
        "nonce=",
        f"redirect_uri=https%3A%2F%2F{place.front.replace(':', '%3A')}",
    ):
        assert part in address
    cookie = begun.headers["set-cookie"].split(";")[0]
    state = address.partition("state=")[2].partition("&")[0]
    for path, header, status in (
        ("/auth/callback", cookie, 400),
        (f"/auth/callback?code=x&state={state}", "", 400),
        (f"/auth/callback?code=x&state={state[:-1]}", cookie, 400),
        (f"/auth/callback?code=x&state={state}&iss=https://evil.example", cookie, 400),
        (f"/auth/callback?error=access_denied&state={state}", cookie, 400),
        (f"/auth/callback?code=x&state={state}", cookie, 424),
    ):
        answer = ask_once(place, path, {"Cookie": header} if header else {})
        assert answer.status == status, path
        assert "__Host-wharf-session" not in answer.headers.get("set-cookie", "")


def ask_once(place: Place, path: str, headers: dict[str, str] | None = None):  # noqa: ANN201
    """Ask the service behind the edge, without following anything."""
    return place.world.request("GET", path, headers)


def test_blocked_without_a_group_and_without_keycloak(place: Place, page: Browser) -> None:
    sign_in(page, "dana", PASSWORD)
    page.until("Signed in as dana")
    page.reach("Name")
    page.press("kept")
    page.press(ENTER)
    page.until("Your new token")
    token = page.script("document.activeElement.value")

    def answer() -> int:
        return place.world.get("repository:shop/web:pull", headers=basic("dana", token)).status

    assert answer() == 200
    for change in ({"blocked": ["dana"]}, {"groups": {"registry-readers": "readers"}}, {"issuer": "https://other.example"}):
        place.configure(**change)
        place.world.until(lambda: answer() == 401)
        assert place.world.lines()[-1]["result"] == "revoked"
        place.configure()
        place.world.until(lambda: answer() == 200)
    # Another group of the model, at the next token.
    place.configure(groups={"registry-developers": "readers"})
    place.world.until(lambda: not place.world.get("repository:shop/web:push", headers=basic("dana", token)).granted)
    assert answer() == 200
    place.configure()
    place.keycloak.kill()
    time.sleep(1)
    assert answer() == 200
    assert place.world.get(headers=basic("robot-ci")).status == 200
    carol = Person(place.world)
    assert carol.send("/auth/signin", origin=place.url, name="carol", password=PASSWORDS["carol"]).status == 303
    # Who is signed in goes on with the page, and revokes; who is not is told.
    page.open(f"{place.url}/auth/")
    page.until("Signed in as dana")
    page.reach("Revoke kept")
    page.press(ENTER)
    page.until("The token is revoked")
    assert answer() == 401
    assert ask(place.front, "/auth/token?service=x").status == 400
    page.reach("Sign out")
    page.press(ENTER)
    page.until("You have signed out here.")
