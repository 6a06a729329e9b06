# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Configurations of the services in the zipapp: a file with one JSON object each, below /etc/wharf. Private to the collection."""

from __future__ import annotations

import json
from typing import Any, Callable, Dict, Iterable, Mapping, Tuple, Type, TypeVar, Union

Result = TypeVar("Result")
Kind = Union[Type[Any], Tuple[Type[Any], ...]]


class ConfigError(ValueError):
    """A configuration cannot be used; the message names the key or the file."""


def load(path: str, parse: Callable[[object], Result]) -> Result:
    """Return what ``parse`` makes of the JSON in a file. Raises ConfigError, whose message begins with the path."""
    try:
        with open(path, encoding="utf-8") as handle:
            return parse(json.load(handle))
    except (OSError, ValueError) as error:
        raise ConfigError("%s: %s" % (path, error)) from None


def checked(content: object, kinds: Mapping[str, Kind], optional: Iterable[str] = ()) -> Dict[str, Any]:
    """Return a configuration that has the keys of ``kinds``, each of its type. A truth value is a number for nobody.

    Raises ConfigError for what is no object, for unknown and missing keys (``optional`` ones may be missing) and wrong types.
    """
    if not isinstance(content, dict):
        raise ConfigError("the configuration must be a JSON object")
    for key, value in content.items():
        if key not in kinds:
            raise ConfigError("unknown key %s; known are %s" % (key, ", ".join(kinds)))
        if not isinstance(value, kinds[key]) or (isinstance(value, bool) and kinds[key] is not bool):
            raise ConfigError("%s: %r is of the wrong type" % (key, value))
    missing = [key for key in kinds if key not in content and key not in optional]
    if missing:
        raise ConfigError("missing key %s" % ", ".join(missing))
    return dict(content)


def absolute(content: Mapping[str, Any], *keys: str, example: str) -> None:
    """Raise ConfigError if one of these is no absolute path."""
    for key in keys:
        if not content[key].startswith("/"):
            raise ConfigError("%s: %s is no absolute path; for example %s" % (key, content[key], example))
