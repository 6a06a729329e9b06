# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Patterns of repositories and tags, one language wherever an option takes them. Private to the collection."""

from __future__ import annotations

import re
from typing import Iterable, List, Pattern


class Glob:
    """A pattern of names. ``*`` and ``?`` stop at a slash, ``**`` does not; ``[a-z]`` and ``{one,two}`` are as in a shell.

    ``**/`` also stands for nothing, so ``**/web`` matches ``web``. Raises ValueError with the reason for a pattern that is none.
    """

    __slots__ = ("matches", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        self.matches = re.compile(_translate(text) + r"\Z").match

    def __repr__(self) -> str:
        return "Glob(%r)" % self.text

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Glob) and other.text == self.text

    def __hash__(self) -> int:
        return hash(self.text)


def _translate(text: str) -> str:
    pieces: List[str] = []
    braces = 0
    position = 0
    while position < len(text):
        letter = text[position]
        position += 1
        if letter == "*":
            if text[position : position + 1] != "*":
                pieces.append("[^/]*")
            elif text[position + 1 : position + 2] == "/" and (position == 1 or text[position - 2] in "/{,"):
                position += 2
                pieces.append("(?:.*/)?")
            else:
                position += 1
                pieces.append(".*")
        elif letter == "?":
            pieces.append("[^/]")
        elif letter == "[":
            end = text.find("]", position + 1)
            if end < 0:
                raise ValueError("the bracket [ is never closed")
            inside = text[position:end]
            negate = inside[:1] in "!^"
            piece = "[" + ("^/" if negate else "") + inside[int(negate) :].replace("\\", "\\\\").replace("[", "\\[") + "]"
            try:
                re.compile(piece)
            except re.error as error:
                raise ValueError("the class [%s] cannot be read (%s)" % (inside, error.msg)) from None
            pieces.append(piece)
            position = end + 1
        elif letter == "{":
            braces += 1
            pieces.append("(?:")
        elif letter == "}":
            if not braces:
                raise ValueError("the brace } closes nothing")
            braces -= 1
            pieces.append(")")
        elif letter == "," and braces:
            pieces.append("|")
        else:
            pieces.append(re.escape(letter))
    if braces:
        raise ValueError("the brace { is never closed")
    return "".join(pieces)


def any_of(globs: Iterable[Glob]) -> Pattern[str]:
    """Return one expression that matches what any of the patterns matches, and nothing for none."""
    pieces = [_translate(glob.text) for glob in globs]
    return re.compile("(?:" + "|".join(pieces) + r")\Z" if pieces else r"(?!)")
