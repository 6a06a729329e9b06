# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How the page looks: HTML without scripts, and nothing from elsewhere. Whatever comes from people is escaped here."""

from __future__ import annotations

import datetime
from html import escape
from typing import List, Optional, Sequence

from wharf._access.model import ACTIONS, ROLES

from .personal import LONGEST_NAME, Limit, Shown

STYLE = """\
:root { color-scheme: light dark; --line: #8a8f98; --accent: #0b57d0; --warn: #b3261e; }
@media (prefers-color-scheme: dark) { :root { --accent: #8ab4f8; --warn: #f2b8b5; } }
* { box-sizing: border-box; }
body { font: 1rem/1.5 system-ui, sans-serif; max-width: 60rem; margin: 0 auto; padding: 1rem 1.25rem 4rem; }
header { display: flex; flex-wrap: wrap; gap: .5rem 1.5rem; align-items: baseline; justify-content: space-between;
  border-bottom: 1px solid var(--line); margin-bottom: 1.5rem; }
h1 { font-size: 1.35rem; margin: .5rem 0; }
h2 { font-size: 1.1rem; margin: 2.25rem 0 .5rem; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; vertical-align: top; padding: .45rem .75rem .45rem 0; border-bottom: 1px solid var(--line); }
.wide { overflow-x: auto; }
form p, fieldset { margin: 0 0 1rem; }
form.inline, form.inline p { display: inline; margin: 0; }
fieldset { border: 1px solid var(--line); border-radius: .3rem; padding: .35rem .9rem .6rem; }
label { display: block; font-weight: 600; }
legend { font-weight: 600; }
fieldset label { font-weight: 400; }
input:not([type=radio]) { font: inherit; width: 100%; max-width: 30rem; padding: .4rem .5rem; border: 1px solid var(--line); border-radius: .3rem; }
input.token { font-family: ui-monospace, monospace; max-width: none; }
button, a.button { font: inherit; font-weight: 600; padding: .4rem .9rem; border: 1px solid var(--accent); border-radius: .3rem;
  background: transparent; color: var(--accent); cursor: pointer; text-decoration: none; display: inline-block; }
:focus-visible { outline: 3px solid var(--accent); outline-offset: 2px; }
.hint { display: block; font-weight: 400; font-size: .9rem; }
.note { border-left: .3rem solid var(--accent); padding: .5rem .9rem; margin: 0 0 1.5rem; }
.wrong { border-color: var(--warn); }
pre { overflow-x: auto; }
"""
_RIGHTS = {"reader": "Pull", "writer": "Pull and push", "maintainer": "Everything that I may do: pull, push, delete"}
assert set(_RIGHTS) == set(ROLES) and len(ACTIONS) == 3  # noqa: S101


def _page(registry: str, title: str, body: str, account: str = "", csrf: str = "") -> str:
    signed_in = ""
    if account:
        signed_in = (
            f'<form class="inline" method="post" action="/auth/signout"><p>Signed in as <strong>{escape(account)}</strong> '
            f'<input type="hidden" name="csrf" value="{escape(csrf)}"><button>Sign out</button></p></form>'
        )
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<meta name="viewport" content="width=device-width">\n'
        f'<title>{escape(title)} – {escape(registry)}</title>\n<link rel="stylesheet" href="/auth/style.css">\n</head>\n<body>\n'
        f"<header><h1>{escape(registry)}</h1>{signed_in}</header>\n<main>\n{body}</main>\n</body>\n</html>\n"
    )


def _note(text: str, wrong: bool) -> str:
    if not text:
        return ""
    return f'<p class="note{" wrong" if wrong else ""}" role="{"alert" if wrong else "status"}">{escape(text)}</p>\n'


def sign_in(registry: str, sso: bool, wrong: str = "", note: str = "") -> str:
    """Return the page for those who have not signed in."""
    form = (
        '<form method="post" action="/auth/signin">\n'
        '<p><label for="name">Name</label><input id="name" name="name" autocomplete="username" required maxlength="128"></p>\n'
        '<p><label for="password">Password</label><input id="password" name="password" type="password" '
        'autocomplete="current-password" required></p>\n'
        "<p><button>Sign in</button></p>\n</form>\n"
    )
    body = "<h2>Sign in</h2>\n" + _note(wrong, True) + _note(note, False)
    if sso:
        body += '<p><a class="button" href="/auth/sso">Sign in with single sign-on</a></p>\n'
        body += f"<details{' open' if wrong else ''}><summary>Sign in with an account of this registry</summary>\n{form}</details>\n"
    else:
        body += form
    body += "<p>Here you make the tokens with which you use the registry on the command line.</p>\n"
    return _page(registry, "Sign in", body)


def failed(registry: str, text: str) -> str:
    """Return a page that says what went wrong."""
    return _page(registry, "Not possible", _note(text, True) + '<p><a href="/auth/">Back to the beginning</a></p>\n')


def tokens(
    registry: str,
    account: str,
    csrf: str,
    shown: Sequence[Shown],
    most_days: int,
    new: Optional[str] = None,
    wrong: str = "",
    note: str = "",
    kept: Optional[dict[str, str]] = None,
) -> str:
    """Return the page of somebody who has signed in: the new token, the list, the form. ``kept`` is what was typed into it."""
    body = _note(wrong, True) + _note(note, False)
    if new:
        body += (
            '<section aria-labelledby="new">\n<h2 id="new">Your new token</h2>\n<div class="note" role="status">\n'
            "<p>Copy it now; it is shown this once.</p>\n"
            f'<p><label for="token">Token</label><input class="token" id="token" value="{escape(new)}" readonly autofocus spellcheck="false" '
            'autocomplete="off"></p>\n'
            f"<p>It is your password for the command line:</p>\n<pre>docker login -u {escape(account)} {escape(registry)}</pre>\n"
            "</div>\n</section>\n"
        )
    body += '<section aria-labelledby="list">\n<h2 id="list">Your tokens</h2>\n'
    if shown:
        rows = "".join(_row(token, csrf) for token in shown)
        body += (
            '<div class="wide"><table>\n<thead><tr><th scope="col">Name</th><th scope="col">Rights</th><th scope="col">Repositories</th>'
            '<th scope="col">Made</th><th scope="col">Last use</th><th scope="col">Ends</th><th scope="col"><span>Revoke</span></th></tr></thead>\n'
            f"<tbody>\n{rows}</tbody>\n</table></div>\n"
        )
    else:
        body += "<p>You have none.</p>\n"
    body += "</section>\n" + _form(csrf, most_days, kept or {})
    return _page(registry, "Tokens", body, account, csrf)


def _row(token: Shown, csrf: str) -> str:
    name = escape(token.name)
    return (
        f'<tr><th scope="row">{name}</th><td>{_rights(token.limit)}</td>'
        f"<td>{escape(' '.join(token.limit.repositories)) or 'all'}</td><td>{_time(token.created)}</td>"
        f"<td>{_time(token.used) if token.used else 'not yet'}</td><td>{_time(token.expires)}</td>"
        '<td><form class="inline" method="post" action="/auth/revoke">'
        f'<input type="hidden" name="csrf" value="{escape(csrf)}"><input type="hidden" name="token" value="{escape(token.identifier)}">'
        f'<button aria-label="Revoke {name}">Revoke</button></form></td></tr>\n'
    )


def _form(csrf: str, most_days: int, kept: dict[str, str]) -> str:
    chosen = kept.get("role", "reader")
    radios = "".join(
        f'<label><input type="radio" name="role" value="{role}"{" checked" if role == chosen else ""}> {escape(text)}</label>\n'
        for role, text in _RIGHTS.items()
    )
    days = kept.get("days", str(min(90, most_days)))
    return (
        '<section aria-labelledby="make">\n<h2 id="make">Make a token</h2>\n<form method="post" action="/auth/create">\n'
        f'<input type="hidden" name="csrf" value="{escape(csrf)}">\n'
        '<p><label for="name">Name <span class="hint">What you use it for, such as laptop</span></label>'
        f'<input id="name" name="name" required maxlength="{LONGEST_NAME}" autocomplete="off" value="{escape(kept.get("name", ""))}"></p>\n'
        f"<fieldset><legend>Rights</legend>\n{radios}</fieldset>\n"
        '<p><label for="repositories">Repositories <span class="hint">Empty: all that I may use. Else patterns with spaces between, '
        "such as shop/** or shop/web</span></label>"
        f'<input id="repositories" name="repositories" autocomplete="off" spellcheck="false" value="{escape(kept.get("repositories", ""))}"></p>\n'
        f'<p><label for="days">Days <span class="hint">It ends after so many, at most {most_days}</span></label>'
        f'<input id="days" name="days" type="number" min="1" max="{most_days}" required value="{escape(days)}"></p>\n'
        "<p><button>Make token</button></p>\n</form>\n"
        "<p>A token never allows more than your account does at the time when it is used.</p>\n</section>\n"
    )


def _rights(limit: Limit) -> str:
    granted: List[str] = [action for action in ACTIONS if action in ROLES.get(limit.role, ())]
    return escape(", ".join(granted))


def _time(seconds: int) -> str:
    when = datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc)
    return f'<time datetime="{when.strftime("%Y-%m-%dT%H:%M:%SZ")}">{when.strftime("%Y-%m-%d %H:%M")} UTC</time>'
