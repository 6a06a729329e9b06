# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This file is private to the collection: it may change in any release.

"""Adds entries to a ``prometheus.yml`` that somebody else wrote, and takes them out again to the byte.

The text is edited, not parsed and written anew: comments, order and style are the owner's. What is added stands between two marks.
"""

from __future__ import annotations

import re
from typing import List, Mapping, Tuple

_JOINED = " (joined)"  # the last line before had no end


class ConfigError(ValueError):
    """The text cannot be edited; the message says why and what would help."""


def _marks(name: str) -> Tuple[str, str]:
    return "# BEGIN wharf.registry %s" % name, "# END wharf.registry %s" % name


def without(text: str, name: str) -> str:
    """Return *text* as it was before entries of that name were added.

    Raises:
        ConfigError: if somebody removed one mark of two.
    """
    begin, end = _marks(name)
    kept: List[str] = []
    block: List[str] = []
    inside = joined = False
    seam = -1
    for line in text.splitlines(keepends=True):
        word = line.strip()
        if word in (begin, begin + _JOINED):
            if inside:
                raise ConfigError("the mark '%s' stands there twice without '%s'; remove what lies between them by hand" % (begin, end))
            inside, joined, block = True, word.endswith(_JOINED), []
        elif word == end:
            if not inside:
                raise ConfigError("the mark '%s' is there without '%s'; remove it by hand" % (end, begin))
            inside = False
            left = _left_by_others(block, joined)
            if joined and not left:
                seam = len(kept)
            kept += left
        else:
            (block if inside else kept).append(line)
    if inside:
        raise ConfigError("the mark '%s' is there without '%s'; remove by hand what was added" % (begin, end))
    if seam > 0:
        _take_end_away(kept, seam)
    return "".join(kept)


def _take_end_away(lines: List[str], seam: int) -> None:
    """Take the end of the line before *seam* away, which a block that was there had given it; where others still need it, let them know."""
    if seam == len(lines):
        before = seam - 1
        if lines[before].strip().startswith("# END wharf.registry "):
            # Others' entries lie between: whoever of them goes last takes the end away.
            while not lines[before].strip().startswith("# BEGIN wharf.registry "):
                before -= 1
            lines[before] = lines[before].rstrip("\n") + _JOINED + "\n"
            return
        lines[before] = lines[before].rstrip("\r\n")
    elif lines[seam].strip().startswith("# BEGIN wharf.registry "):
        lines[seam] = lines[seam].rstrip("\n") + _JOINED + "\n"


def _left_by_others(block: List[str], joined: bool) -> List[str]:
    """Return what stays of a block that goes: entries that others have added since under a key that came with it, now with that key."""
    begins = [number for number, line in enumerate(block) if line.strip().startswith("# BEGIN wharf.registry ")]
    if not begins:
        return []
    # Others add theirs right below the key, the youngest first; ours are below all of them.
    ends = [number for number, line in enumerate(block) if line.strip().startswith("# END wharf.registry ")]
    key, first = block[begins[0] - 1], block[begins[-1]].rstrip("\n")
    oldest = [first + (_JOINED if joined else "") + "\n", key]
    return [*oldest, *block[begins[0] : begins[-1]], *block[begins[-1] + 1 : ends[-1] + 1]]


def _indentation(lines: List[str], after: int, key: str) -> str:
    """Return what stands before the first entry of the list whose key is on line *after*."""
    for line in lines[after + 1 :]:
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        entry = re.match(r"( *)-(?:\s|$)", line)
        if entry:
            return entry.group(1)
        if line[0] in " \t":
            raise ConfigError("what is under '%s' is no list; write each entry on a line that begins with '-'" % key)
        break
    return "  "


def _block(name: str, entries: List[str], indentation: str, *head: str) -> List[str]:
    begin, end = _marks(name)
    lines = [begin, *head]
    for entry in entries:
        lines += [indentation + line if line else line for line in entry.rstrip("\n").split("\n")]
    return [line + "\n" for line in [*lines, end]]


def added(text: str, name: str, lists: Mapping[str, List[str]], sections: Mapping[str, str]) -> str:
    """Return *text* with entries added, in place of those that an earlier call added.

    Args:
        name: whose entries they are; it stands in the marks.
        lists: key of a list at the top level -> its new entries, each a text that begins with ``-``.
        sections: key at the top level -> what it is to have, if there is no such key.

    Raises:
        ConfigError: if a list is written in a way that cannot be edited.
    """
    text = without(text, name)
    for key, entries in lists.items():
        lines = text.splitlines(keepends=True)
        found = [number for number, line in enumerate(lines) if re.match(r"""(['"]?)%s\1\s*:""" % re.escape(key), line)]
        if len(found) > 1:
            raise ConfigError("'%s' is there twice, on lines %d and %d; join them" % (key, found[0] + 1, found[1] + 1))
        if found:
            value = lines[found[0]].split(":", 1)[1].strip()
            if value and not value.startswith("#"):
                raise ConfigError("'%s' has its value on its own line; write it as a list, with '- …' on a line for each entry" % key)
            indentation = _indentation(lines, found[0], key)
            block = _block(name, entries, indentation)
            if found[0] == len(lines) - 1:
                text = _appended(text, name, block)
            else:
                lines[found[0] + 1 : found[0] + 1] = block
                text = "".join(lines)
        else:
            text = _appended(text, name, _block(name, entries, "  ", key + ":"))
    for key, content in sections.items():
        if not re.search(r"""(?m)^(['"]?)%s\1\s*:""" % re.escape(key), text):
            text = _appended(text, name, _block(name, [content], "  ", key + ":"))
    return text


def _appended(text: str, name: str, block: List[str]) -> str:
    """Return *text* with a block at its end, on lines of its own."""
    begin, _end = _marks(name)
    if text and not text.endswith("\n"):
        return text + "\n" + "".join([begin + _JOINED + "\n", *block[1:]])
    return text + "".join(block)
