# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From a few options to the whole configuration file of distribution 2.8 or 3.x.

Private to the collection. Pure functions without input or output: :func:`find_problems` says what is wrong with the
options, :func:`build` makes the configuration of them, :func:`render` its text, :func:`masked_pair` what a diff may show.

The file is written by a small renderer of its own, so that the managed host needs no YAML library, every string is in
quotes (the registry would take a bare ``0123`` for the octal number 83) and the same options give the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import replace
from typing import Any, Iterator

from . import schema as rules
from .versions import DEFAULT_VERSION, check_version, generation_of

HEADER = "# Written by wharf.registry.registry_config; changes made by hand are overwritten.\n"

#: What each option is when it is not given. Times are durations of Go.
DEFAULTS: dict[str, Any] = {
    "version": DEFAULT_VERSION,
    "storage": {},
    "redis": {},
    "auth": "htpasswd",
    "htpasswd_path": "/etc/wharf/registry/auth/htpasswd",
    "token": {},
    "http_secret": "",
    "addr": "127.0.0.1:5000",
    "debug_addr": "127.0.0.1:5001",
    "headers": {"X-Content-Type-Options": ["nosniff"]},
    "log_level": "info",
    "log_formatter": "json",
    "delete_enabled": True,
    "redirect": False,
    "drain_timeout": "60s",
    "extra_config": {},
    "nodes": 1,
}

#: Variables of the whole cluster from which the role's variables have their defaults.
_ALIASES = {
    "storage": "wharf_storage",
    "version": "wharf_registry_version",
    "auth": "wharf_auth",
    "http_secret": "wharf_http_secret",
}

#: A Redis that hangs costs each request these times at most; a cache that is slower than this is of no use.
_REDIS_TIMES = {"dialtimeout": "300ms", "readtimeout": "200ms", "writetimeout": "200ms"}

_OPTIONS = rules.Table(
    {
        "version": rules.Text(DEFAULT_VERSION),
        "storage": rules.Anything(),
        "redis": rules.Table(
            {
                "addr": rules.Text("redis1:6379", test=rules.test_host_port),
                "username": rules.Text("registry"),
                "password": rules.Text("…", secret=True),
                "db": rules.Number("0", 0),
                "cafile": rules.Text("/etc/wharf/registry/redis-ca.crt", test=rules.test_absolute),
                "dialtimeout": rules.Duration("300ms"),
                "readtimeout": rules.Duration("200ms"),
                "writetimeout": rules.Duration("200ms"),
            },
            (),
            "{addr: redis1:6379, password: …}",
            {
                "addrs": "is set in extra_config.redis, for a Redis with Sentinel or a Redis Cluster; a single Redis is addr",
                "tls": "is switched on by naming the CA (role: ca_src, module: cafile)",
            },
        ),
        "auth": rules.Text(
            "htpasswd",
            test=lambda value: "" if value in ("none", "htpasswd", "token") else "is none of none, htpasswd, token",
        ),
        "htpasswd_path": rules.Text("/etc/wharf/registry/auth/htpasswd", test=rules.test_absolute),
        "token": rules.Free(rules.Anything(), "{realm: https://registry.example.com/auth/token, service: …, issuer: …, rootcertbundle: …}"),
        "http_secret": rules.Text(
            "\"{{ lookup('ansible.builtin.file', 'secrets/http_secret') }}\"",
            secret=True,
            test=lambda value: "" if len(value) >= 16 else "is shorter than 16 characters",
        ),
        "addr": rules.Text("127.0.0.1:5000", test=rules.test_host_port),
        "debug_addr": rules.Text("127.0.0.1:5001", test=rules.test_loopback),
        "headers": rules.HEADERS,
        "log_level": rules.Text("info", choices=rules.LEVELS),
        "log_formatter": rules.Text("json", choices=("text", "json", "logstash")),
        "delete_enabled": rules.Flag(),
        "redirect": rules.Flag("false"),
        "drain_timeout": rules.Duration("60s"),
        "extra_config": rules.Free(rules.Anything(), "{catalog: {maxentries: 5000}}"),
        "nodes": rules.Number("3", 1),
    },
)

#: Places in the file that an option owns, because the role relies on them elsewhere.
_OWNED = {
    ("version",): "is fixed",
    ("http", "addr"): "is set by addr",
    ("http", "net"): "is fixed: the edge reaches the registry by TCP on loopback",
    ("http", "secret"): "is set by http_secret",
    ("http", "debug", "addr"): "is set by debug_addr",
    ("storage", "filesystem", "rootdirectory"): "is set by storage",
    ("auth", "htpasswd", "path"): "is set by the role",
}

#: Places in the file and the option that fills them, longest first.
_ORIGINS: tuple[tuple[tuple[str, ...], str], ...] = (
    (("redis", "tls", "rootcas"), "redis.cafile"),
    (("redis", "addrs"), "redis.addr"),
    (("auth", "token"), "token"),
    (("storage", "delete"), "delete_enabled"),
    (("storage", "redirect"), "redirect"),
    (("http", "secret"), "http_secret"),
    (("http", "headers"), "headers"),
    (("http", "addr"), "addr"),
    (("http", "debug", "addr"), "debug_addr"),
    (("http", "draintimeout"), "drain_timeout"),
    (("log", "level"), "log_level"),
    (("log", "formatter"), "log_formatter"),
)


def complete(options: dict[str, Any]) -> dict[str, Any]:
    """Return the options with the defaults of those that are absent or null."""
    given = {key: value for key, value in options.items() if value is not None}
    return {**DEFAULTS, **given}


# ------------------------------------------------------------------------------------------------- the configuration


def build(options: dict[str, Any]) -> dict[str, Any]:
    """Return the whole configuration that the (sound) options ask for, in the form of their version's generation.

    ``extra_config`` is merged in last: mappings key by key, everything else replaced; null leaves a key out.

    Raises:
        ValueError: if ``version`` is no version that the collection knows.
    """
    options = complete(options)
    generation = generation_of(options["version"])
    config: dict[str, Any] = {
        "version": "0.1",
        "log": {
            "level": options["log_level"],
            "formatter": options["log_formatter"],
            "fields": {"service": "registry"},
            "accesslog": {"disabled": True},  # the edge has one line per request, with the client's address
        },
        "storage": {
            **_storage_for(options["storage"], generation),
            "delete": {"enabled": options["delete_enabled"]},
            "redirect": {"disable": not options["redirect"]},
            "maintenance": {
                # What an interrupted push left; a push that lasts for a week is none. On S3 the purge of 2.8 panics where the
                # listing has a key that ends in a slash, and takes the registry with it (distribution#4713, mended in 3.x).
                "uploadpurging": {
                    "enabled": generation == 3 or "s3" not in options["storage"],
                    "age": "168h",
                    "interval": "24h",
                    "dryrun": False,
                },
                "readonly": {"enabled": False},
            },
        },
        "http": {
            "addr": options["addr"],
            "secret": options["http_secret"],
            "draintimeout": options["drain_timeout"],
            "headers": options["headers"],
            "debug": {"addr": options["debug_addr"], "prometheus": {"enabled": True, "path": "/metrics"}},
        },
        "health": {"storagedriver": {"enabled": True, "interval": "10s", "threshold": 3}},
    }
    if options["auth"] == "htpasswd":
        config["auth"] = {"htpasswd": {"realm": "registry", "path": options["htpasswd_path"]}}
    if options["auth"] == "token":
        config["auth"] = {"token": dict(options["token"])}
    if options["redis"].get("addr"):
        config["redis"] = _redis_for(options["redis"], generation)
        config["storage"]["cache"] = {"blobdescriptor": "redis"}
    merged = merge(config, options["extra_config"])
    return merged if isinstance(merged, dict) else {}


def _storage_for(storage: dict[str, Any], generation: int) -> dict[str, Any]:
    """Return the storage section, with what one generation does by itself and the other must be told."""
    if not isinstance(storage.get("s3"), dict):
        return dict(storage)
    s3 = dict(storage["s3"])
    if s3.get("regionendpoint"):
        if generation == 3:
            s3.setdefault("forcepathstyle", True)  # 2.8 uses path style with every endpoint of one's own; 3.x does not
        elif s3.get("forcepathstyle") is True:
            del s3["forcepathstyle"]
    return {**storage, "s3": s3}


def _redis_for(redis: dict[str, Any], generation: int) -> dict[str, Any]:
    section: dict[str, Any] = {key: redis.get(key, default) for key, default in _REDIS_TIMES.items()}
    for key in ("password", "db", "username"):
        if redis.get(key):
            section[key] = redis[key]
    if generation == 2:
        section.pop("username", None)
        return {**section, "addr": redis["addr"], "pool": {"maxidle": 16, "maxactive": 64, "idletimeout": "300s"}}
    section.update({"addrs": [redis["addr"]], "maxretries": -1, "pooltimeout": "300ms"})
    if redis.get("cafile"):
        section["tls"] = {"rootcas": [redis["cafile"]]}
    return section


def merge(base: Any, extra: Any) -> Any:
    """Return *base* with *extra* put over it: mappings are merged, null removes, everything else replaces."""
    if not isinstance(base, dict) or not isinstance(extra, dict):
        return extra
    merged = dict(base)
    for key, value in extra.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = merge(merged.get(key, {} if isinstance(value, dict) else None), value)
    return merged


# --------------------------------------------------------------------------------------------------------- validation


def find_problems(options: dict[str, Any], prefix: str = "") -> list[dict[str, str]]:
    """Return everything that is wrong with the options; nothing if :func:`build` makes a sound file of them.

    Args:
        options: as for :func:`build`.
        prefix: of the variables that hold the options, ``registry_`` in the role.

    Returns:
        A list of findings with the keys ``variable`` (dotted), ``problem`` and ``example``. Values of secrets are not in it.
    """
    options = complete(options)
    unknown = sorted(set(options) - set(DEFAULTS))
    if unknown:
        raise ValueError("unknown options: " + ", ".join(unknown))
    try:
        generation = generation_of(options["version"])
    except ValueError:
        generation = 0

    findings = [_finding(problem, prefix) for problem in rules.check(_OPTIONS, options)]
    if generation:
        findings += [_finding(problem, prefix) for problem in _storage_problems(options["storage"], generation)]
    if not findings and generation:
        findings += [_finding(problem, prefix) for problem in _file_problems(options, generation)]
    return _gate(options, prefix) + findings


def messages(options: dict[str, Any], prefix: str = "") -> list[str]:
    """Return :func:`find_problems` as sentences: the variable, what is wrong, an example."""
    return [
        finding["variable"]
        + ": "
        + finding["problem"]
        + ("" if finding["problem"].endswith("?") else ".")
        + (f" Example: {finding['example']}" if finding["example"] else "")
        for finding in find_problems(options, prefix)
    ]


def _gate(options: dict[str, Any], prefix: str) -> list[dict[str, str]]:
    extra = options["extra_config"] if isinstance(options["extra_config"], dict) else {}
    redis = bool(options["redis"]) or bool(extra.get("redis"))
    cache = _look(extra, ("storage", "cache", "blobdescriptor"))
    nodes = options["nodes"] if isinstance(options["nodes"], int) else 1
    found = check_version(
        str(options["version"]), redis=redis, nodes=nodes, proxy=bool(extra.get("proxy")), cache=cache if isinstance(cache, str) else ""
    )
    findings = []
    for finding in found:
        variable = finding["variable"][len("registry_") :]
        findings.append(
            {
                "variable": _name(variable, prefix),
                "problem": f"{finding['value']}: {finding['problem']}"
                if variable != "version"
                else f'"{finding["value"]}": {finding["problem"]}',
                "example": finding["example"].replace("registry_", prefix),
            }
        )
    return findings


def _storage_problems(storage: Any, generation: int) -> Iterator[rules.Problem]:
    if not isinstance(storage, dict) or not storage:
        yield rules.Problem(("storage",), "is missing" if not storage else "is no mapping", rules.DRIVER_EXAMPLE)
        return
    managed = {"delete": "delete_enabled", "redirect": "redirect", "cache": "redis", "maintenance": "extra_config", "tag": "extra_config"}
    for key in storage:
        if key in managed:
            yield rules.Problem(("storage", key), f"is not set here, but with {managed[key]}", rules.DRIVER_EXAMPLE, around=True)
    drivers = {key: value for key, value in _storage_for(storage, generation).items() if key not in managed}
    if len(drivers) > 1:
        names = " and ".join(sorted(map(str, drivers)))
        yield rules.Problem(("storage",), f"names {len(drivers)} storages, {names}; a registry has exactly one", rules.DRIVER_EXAMPLE)
        return
    schema = rules.schema(generation).keys["storage"]
    for driver, parameters in drivers.items():
        if driver in rules.DRIVERS:
            for problem in rules.check(schema.keys[driver], parameters, ("storage", driver)):
                yield _other_generation(problem, generation)
        else:
            told = schema.hints.get(driver) or rules.suggest(str(driver), rules.DRIVERS) or "; known are filesystem and s3"
            problem_text = told if driver in schema.hints else f"is no storage that this registry knows{told}"
            yield rules.Problem(("storage", driver), problem_text, rules.DRIVER_EXAMPLE, around=True)


def _file_problems(options: dict[str, Any], generation: int) -> Iterator[rules.Problem]:
    """Look at the file as it would be. The place of each problem is then told as the option that led to it."""
    extra = options["extra_config"]
    for path, owner in _OWNED.items():
        if _look(extra, path) is not None:
            yield rules.Problem(("extra_config",) + path, owner, "(leave it out)")
    config = build(options)
    for problem in rules.check(rules.schema(generation), config):
        problem = _other_generation(problem, generation)
        yield replace(problem, path=_origin(problem.path, extra))
    if _look(config, ("storage", "cache", "blobdescriptor")) == "redis" and not config.get("redis"):
        where = _origin(("storage", "cache", "blobdescriptor"), extra)
        yield rules.Problem(where, "is redis, and no Redis is configured; the registry would end at start", "(set redis too)")
    if _look(extra, ("redis",)) and not _look(config, ("storage", "cache", "blobdescriptor")):
        yield rules.Problem(("extra_config", "redis"), "is used for nothing without storage.cache.blobdescriptor: redis", "(set both)")


def _other_generation(problem: rules.Problem, generation: int) -> rules.Problem:
    """Say of a key that is unknown here and known to the other generation just that."""
    if not problem.problem.startswith("is no key"):
        return problem
    other = 5 - generation
    if rules.knows(rules.schema(other), problem.path):
        name = "3.x" if other == 3 else "2.8"
        return replace(problem, problem=f"is only known to {name}")
    return problem


def _look(tree: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        if not isinstance(tree, dict) or key not in tree:
            return None
        tree = tree[key]
    return tree


def _origin(path: tuple[Any, ...], extra: dict[str, Any]) -> tuple[Any, ...]:
    """Return where the user wrote what stands at *path* of the file."""
    tree: Any = extra
    depth = 0
    for key in path:
        if isinstance(tree, dict) and key in tree or isinstance(tree, list) and isinstance(key, int) and key < len(tree):
            tree = tree[key]
            depth += 1
        else:
            break
    drivers = len(path) > 1 and path[0] == "storage" and path[1] in rules.DRIVERS
    if depth == len(path) or (depth == len(path) - 1 and depth > 0 and not drivers):
        return ("extra_config",) + path
    for start, option in _ORIGINS:
        if path[: len(start)] == start:
            return tuple(option.split(".")) + (path[len(start) :] if option == "headers" else ())
    if drivers or path[0] == "redis":
        return path
    return ("extra_config",) + path


def _finding(problem: rules.Problem, prefix: str) -> dict[str, str]:
    example = problem.example
    if example and not example.startswith("("):
        example = prefix + _write_example(problem, example)
    return {"variable": _name(_dotted(problem.path), prefix), "problem": problem.problem, "example": example}


def _name(dotted: str, prefix: str) -> str:
    """Return the variable's full name, with that of the cluster-wide variable from which it has its default."""
    top, dot, rest = dotted.partition(".")
    alias = _ALIASES.get(top) if prefix == "registry_" else None
    return f"{prefix}{dotted}" + (f" ({alias}{dot}{rest})" if alias else "")


def _dotted(path: tuple[Any, ...]) -> str:
    text = ""
    for key in path:
        text += f"[{key}]" if isinstance(key, int) else f"{'.' if text else ''}{key}"
    return text


def _write_example(problem: rules.Problem, example: str) -> str:
    """Return *example* as the value at its place in an option, in the flow style of YAML."""
    path = problem.path
    if path[:2] == ("storage", "s3") and len(path) == 3 and not problem.around:
        beside = {"bucket": "registry", "region": "us-east-1", path[2]: example}
        return "storage: {s3: {" + ", ".join(f"{key}: {value}" for key, value in beside.items()) + "}}"
    text = example
    for key in reversed(path[1:-1] if problem.around else path[1:]):
        text = f"[{text}]" if isinstance(key, int) else f"{{{key}: {text}}}"
    return f"{path[0]}: {text}"


# ---------------------------------------------------------------------------------------------------------- rendering

_ORDER = ("version", "log", "storage", "auth", "http", "redis", "health")
_PLAIN_KEY = re.compile(r"^[A-Za-z][A-Za-z0-9_-]*$")
_NOT_PLAIN = frozenset("y n yes no on off true false null".split())
_ESCAPE = re.compile("[\x7f-\x9f\u2028\u2029\ufeff]")


def render(config: dict[str, Any]) -> str:
    """Return the configuration as YAML; the same configuration gives the same text, whatever the order of its keys."""
    keys = [key for key in _ORDER if key in config] + sorted(set(config) - set(_ORDER))
    return HEADER + "".join(f"{line}\n" for key in keys for line in _render_entry(_quote_key(key), config[key], 0))


def checksum(text: str) -> str:
    """Return the SHA-256 of a rendered file in hexadecimal."""
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def _render_entry(key: str, value: Any, depth: int) -> Iterator[str]:
    indent = "  " * depth
    if isinstance(value, dict) and value:
        yield f"{indent}{key}:"
        for name in sorted(value):
            yield from _render_entry(_quote_key(name), value[name], depth + 1)
    elif isinstance(value, list) and value:
        yield f"{indent}{key}:"
        for element in value:
            yield from _render_item(element, depth + 1)
    else:
        yield f"{indent}{key}: {_render_scalar(value)}"


def _render_item(value: Any, depth: int) -> Iterator[str]:
    indent = "  " * depth
    if isinstance(value, dict) and value:
        yield f"{indent}-"
        for name in sorted(value):
            yield from _render_entry(_quote_key(name), value[name], depth + 1)
    elif isinstance(value, list) and value:
        yield f"{indent}-"
        for element in value:
            yield from _render_item(element, depth + 1)
    else:
        yield f"{indent}- {_render_scalar(value)}"


def _render_scalar(value: Any) -> str:
    if isinstance(value, (dict, list)) or value is None or isinstance(value, (bool, int, float)):
        return json.dumps(value)
    return _quote(str(value))


def _quote(text: str) -> str:
    return _ESCAPE.sub(lambda match: f"\\u{ord(match.group()):04x}", json.dumps(text, ensure_ascii=False))


def _quote_key(key: Any) -> str:
    text = str(key)
    return text if _PLAIN_KEY.match(text) and text.lower() not in _NOT_PLAIN else _quote(text)


_LINE = re.compile(
    r'^(?P<indent>(?:  )*)(?:(?P<dash>-)(?: (?P<item>.+))?|(?P<key>"(?:[^"\\]|\\.)*"|[A-Za-z][A-Za-z0-9_-]*):(?: (?P<value>.+))?)$'
)


def parse(text: str) -> dict[str, Any]:
    """Return the configuration that :func:`render` made *text* of.

    Raises:
        ValueError: if the text is not of :func:`render`; other YAML is not understood.
    """
    lines: list[tuple[int, Any]] = []
    for line in text.split("\n"):
        if line and not line.startswith("#"):
            match = _LINE.match(line)
            if match is None:
                raise ValueError("not written by this collection")
            lines.append((len(match.group("indent")) // 2, match))
    tree, rest = _parse_block(lines, 0, 0)
    if rest != len(lines) or not isinstance(tree, dict):
        raise ValueError("not written by this collection")
    return tree


def _parse_block(lines: list[tuple[int, Any]], start: int, depth: int) -> tuple[Any, int]:
    if start >= len(lines) or lines[start][0] != depth:
        raise ValueError("not written by this collection")
    is_list = bool(lines[start][1].group("dash"))
    items: list[Any] = []
    table: dict[str, Any] = {}
    position = start
    while position < len(lines) and lines[position][0] == depth:
        match = lines[position][1]
        if bool(match.group("dash")) != is_list:
            raise ValueError("not written by this collection")
        scalar = match.group("item") if is_list else match.group("value")
        position += 1
        value: Any
        if scalar is None:
            value, position = _parse_block(lines, position, depth + 1)
        else:
            value = json.loads(scalar)
        if is_list:
            items.append(value)
        else:
            key = match.group("key")
            table[json.loads(key) if key.startswith('"') else key] = value
    return (items if is_list else table), position


# ------------------------------------------------------------------------------------------------------------ secrets

_SECRET_NAME = re.compile(r"(?:password|secret|token|accesskey|apikey|licensekey|credential|accountkey|authorization)", re.IGNORECASE)
_URL_USER = re.compile(r"://[^/@\s]+@")


def secret_places(config: dict[str, Any]) -> list[tuple[Any, ...]]:
    """Return the places in a configuration whose values nobody may see: by the schemas, and by name where they say nothing."""
    places: list[tuple[Any, ...]] = []
    for generation in (3, 2):
        places += [path for path in rules.secret_paths(rules.schema(generation), config) if path not in places]
    for path, value in _leaves(config, ()):
        name = next((key for key in reversed(path) if isinstance(key, str)), "")
        if isinstance(value, str) and _SECRET_NAME.search(name) and path not in places:
            places.append(path)
    return places


def secret_values(config: Any) -> list[str]:
    """Return the texts at :func:`secret_places`, also inside lists and mappings there."""
    found = []
    for path in secret_places(config) if isinstance(config, dict) else []:
        for _unused, value in _leaves(_at(config, path), ()):
            if isinstance(value, str) and value:
                found.append(value)
    return found


def masked_pair(before: dict[str, Any], after: dict[str, Any]) -> tuple[str, str]:
    """Return the two files as a diff may show them: a secret that differs is told as that, and never shown."""
    old_places, new_places = secret_places(before), secret_places(after)
    old, new = before, after
    for path in old_places:
        same = path in new_places and _at(before, path) == _at(after, path)
        old = _put(old, path, "<secret>" if same else "<old secret>")
    for path in new_places:
        same = path in old_places and _at(before, path) == _at(after, path)
        new = _put(new, path, "<secret>" if same else "<new secret>")
    return _hide_users(render(old)) if old else "", _hide_users(render(new))


def _hide_users(text: str) -> str:
    return _URL_USER.sub("://<secret>@", text)


def _leaves(tree: Any, path: tuple[Any, ...]) -> Iterator[tuple[tuple[Any, ...], Any]]:
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield from _leaves(value, path + (key,))
    elif isinstance(tree, list):
        for index, value in enumerate(tree):
            yield from _leaves(value, path + (index,))
    else:
        yield path, tree


def _at(tree: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        tree = tree[key]
    return tree


def _put(tree: Any, path: tuple[Any, ...], value: Any) -> Any:
    """Return a copy of *tree* with *value* at *path*."""
    if not path:
        return value
    copy = dict(tree) if isinstance(tree, dict) else list(tree)
    copy[path[0]] = _put(tree[path[0]], path[1:], value)
    return copy
