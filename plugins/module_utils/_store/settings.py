# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From a registry's configuration to its storage: which kind it is, where it is, and which cache stands before it."""

from __future__ import annotations

import json
from typing import Any, Dict, Mapping, NamedTuple, Optional, Tuple

from .._registry import config as registry_config
from .driver import Driver, StoreError
from .filesystem import Filesystem
from .s3 import S3

#: Keys of ``storage`` that are no storage.
_OTHER = ("cache", "delete", "maintenance", "redirect", "tag")
_EXAMPLE = "write for example storage: {filesystem: {rootdirectory: /var/lib/registry}}"


class Settings(NamedTuple):
    """The parts of a registry's configuration that concern its storage."""

    storage: Dict[str, Any]
    redis: Optional[Dict[str, Any]]
    #: ``redis``, ``inmemory`` or empty.
    cache: str


def read_config(path: str) -> Settings:
    """Read a registry's configuration file.

    Raises:
        StoreError: if there is no such file, it is no configuration, or it has no storage.
    """
    try:
        with open(path, encoding="utf-8") as handle:
            text = handle.read()
    except OSError as error:
        raise StoreError(f"config: {path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise StoreError(f"config: {path} is no text") from None
    try:
        tree = registry_config.parse(text)  # what this collection writes needs no YAML library
    except ValueError:
        tree = load_yaml(text, path, "config")
    if not isinstance(tree, dict) or not tree.get("storage"):
        raise StoreError(f"config: {path} has no storage section; {_EXAMPLE}")
    return from_sections(tree["storage"], tree.get("redis"), where=f"config: {path}: ")


def load_yaml(text: str, path: str, option: str) -> Any:
    """Return what a file of YAML or JSON holds; JSON needs no library.

    Raises:
        StoreError: if it is neither, or YAML and there is no library.
    """
    try:
        return json.loads(text)
    except ValueError:
        pass
    try:
        import yaml
    except ImportError:
        raise StoreError(
            f"{option}: {path} is YAML, and there is no library to read it with; install python3-yaml, or write JSON"
        ) from None
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise StoreError(f"{option}: {path} is no YAML: {' '.join(str(error).split())[:200]}") from None


def _find_kind(storage: Any, where: str = "") -> Tuple[Mapping[str, Any], str]:
    """Return a ``storage`` dictionary and the name of the one storage in it, or raise :class:`StoreError`."""
    if isinstance(storage, str):
        storage = {storage: {}}
    if not isinstance(storage, Mapping):
        raise StoreError(f"{where}storage is no dictionary; {_EXAMPLE}")
    kinds = [name for name in storage if name not in _OTHER]
    if len(kinds) != 1:
        found = f"names {' and '.join(sorted(kinds))}" if kinds else "names no storage"
        raise StoreError(f"{where}storage {found}, it must name exactly one; {_EXAMPLE}")
    if kinds[0] not in ("filesystem", "s3", "s3aws"):
        raise StoreError(f"{where}storage.{kinds[0]} is not supported; filesystem and s3 are")
    return storage, kinds[0]


def from_sections(storage: Any, redis: Any = None, where: str = "") -> Settings:
    """Check the sections ``storage`` and ``redis`` of a configuration.

    Raises:
        StoreError: if ``storage`` is not exactly one storage of a kind that can be worked on.
    """
    storage, _kind = _find_kind(storage, where)
    cache = storage.get("cache") or {}
    cached = ""
    if isinstance(cache, Mapping):
        cached = str(cache.get("blobdescriptor") or cache.get("layerinfo") or "")
    if redis is not None and not isinstance(redis, Mapping):
        raise StoreError(f"{where}redis is no dictionary; write for example redis: {{addrs: ['127.0.0.1:6379']}}")
    if cached == "redis" and not redis:
        raise StoreError(f"{where}the cache is Redis, but there is no redis section that says where it is")
    return Settings(dict(storage), dict(redis) if redis else None, cached)


def open_store(storage: Mapping[str, Any], *, workers: int = 16, timeout: float = 30.0) -> Driver:
    """Return the storage that a configuration's ``storage`` dictionary names.

    Args:
        storage: as in a registry's configuration: ``{"filesystem": {"rootdirectory": ...}}`` or ``{"s3": {...}}``.
        workers: requests at the same time, for S3.
        timeout: seconds that one request to S3 may take.

    Raises:
        StoreError: if it is not exactly one of them. Nothing is read yet; ``check()`` of the result does.
    """
    sections, kind = _find_kind(storage)
    options = sections[kind] or {}
    if not isinstance(options, Mapping):
        raise StoreError(f"storage.{kind} is no dictionary; {_EXAMPLE}")
    if kind == "filesystem":
        root = str(options.get("rootdirectory") or "/var/lib/registry")
        if not root.startswith("/"):
            raise StoreError(f"storage.filesystem.rootdirectory: {root} is no absolute path; write for example /var/lib/registry")
        return Filesystem(root, workers)
    return S3(options, workers, timeout)
