# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every key of the configuration file of distribution 2.8 and 3.x, and what may stand there.

Private to the collection. Pure functions without input or output.

The registry itself reads its file leniently: an unknown key is ignored, a number where it wants text may be taken for
octal, a wrong type in some places ends it with a stack trace. The schemas here are the structures of the releases
2.8.3 and 3.1.2 (``configuration/configuration.go``, the storage drivers' ``FromParameters``, ``registry/handlers/app.go``),
and :func:`check` applies them strictly.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass, field
from typing import Any, Callable, Iterator

MIB = 1024 * 1024
GIB = 1024 * MIB

_DURATION = re.compile(r"^(?:0|(?:(?:\d+(?:\.\d*)?|\.\d+)(?:ns|us|µs|ms|s|m|h))+)$")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
_HOST_PORT = re.compile(r"^(?:\[[0-9A-Fa-f:.%]+\]|[A-Za-z0-9._-]*):(\d{1,5})$")
_URL = re.compile(r"^https?://(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::\d{1,5})?(?P<path>/\S*)?$")


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong: where (keys and list indexes), what, and an example of something right.

    An example in parentheses is advice; any other is a value for the place that ``path`` names, or with ``around``
    for the mapping around it.
    """

    path: tuple[Any, ...]
    problem: str
    example: str = ""
    around: bool = False


Problems = Iterator[Problem]


# ------------------------------------------------------------------------------------------------- what may stand there


@dataclass(frozen=True)
class Anything:
    """No demand: the registry hands the value to a plug-in."""

    example: str = ""
    secret: bool = False

    def check(self, value: Any, path: tuple[Any, ...]) -> Problems:
        """Find nothing."""
        return iter(())


@dataclass(frozen=True)
class Text:
    """A string; a number or a boolean is refused, because YAML may have changed it already (0123 is 83)."""

    example: str = ""
    choices: tuple[str, ...] = ()
    test: Callable[[str], str] | None = None
    secret: bool = False
    empty: bool = False

    def check(self, value: Any, path: tuple[Any, ...]) -> Problems:
        """Find what is wrong with *value*."""
        shown = "" if self.secret else f" {_show(value)}"
        if isinstance(value, (bool, int, float)):
            yield Problem(path, f"the value{shown} is {_kind(value)}, not text; put it in quotes", self.example)
        elif not isinstance(value, str):
            yield Problem(path, f"is {_kind(value)}, not text", self.example)
        elif not value and not self.empty:
            yield Problem(path, "is empty", self.example)
        elif _CONTROL.search(value):
            yield Problem(path, "contains a line end or another control character", self.example)
        elif self.choices and value not in self.choices:
            yield Problem(path, f"{_show(value)} is none of {', '.join(self.choices)}{suggest(value, self.choices)}", self.example)
        elif self.test is not None and value:
            problem = self.test(value)
            if problem:
                yield Problem(path, problem if self.secret else f"{_show(value)} {problem}", self.example)


@dataclass(frozen=True)
class Number:
    """A whole number between two bounds."""

    example: str = ""
    minimum: int | None = None
    maximum: int | None = None
    unit: str = ""

    def check(self, value: Any, path: tuple[Any, ...]) -> Problems:
        """Find what is wrong with *value*."""
        if isinstance(value, bool) or not isinstance(value, int):
            yield Problem(path, f"{_show(value)} is {_kind(value)}, not a whole number", self.example)
        elif self.minimum is not None and value < self.minimum:
            yield Problem(path, f"{value} is less than {self.minimum}{self.unit}", self.example)
        elif self.maximum is not None and value > self.maximum:
            yield Problem(path, f"{value} is more than {self.maximum}{self.unit}", self.example)


@dataclass(frozen=True)
class Flag:
    """true or false, not a word for it."""

    example: str = "true"

    def check(self, value: Any, path: tuple[Any, ...]) -> Problems:
        """Find what is wrong with *value*."""
        if not isinstance(value, bool):
            yield Problem(path, f"{_show(value)} is {_kind(value)}, not true or false", self.example)


@dataclass(frozen=True)
class Duration:
    """A duration of Go: numbers with the units ns, us, ms, s, m, h. A bare number would be taken as nanoseconds."""

    example: str = "30s"

    def check(self, value: Any, path: tuple[Any, ...]) -> Problems:
        """Find what is wrong with *value*."""
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            yield Problem(path, f"the bare number {value} would be read as nanoseconds; add a unit (ms, s, m, h)", self.example)
        elif not isinstance(value, str) or not _DURATION.match(value):
            hint = "; there is no unit for days" if isinstance(value, str) and re.match(r"^\d+d$", value) else ""
            yield Problem(path, f"{_show(value)} is no duration{hint}; the units are ms, s, m, h", self.example)


@dataclass(frozen=True)
class Items:
    """A list of values of one kind."""

    item: Any
    example: str = ""
    empty: bool = False

    def check(self, value: Any, path: tuple[Any, ...]) -> Problems:
        """Find what is wrong with *value*."""
        if not isinstance(value, list):
            yield Problem(path, f"is {_kind(value)}, not a list", self.example)
            return
        if not value and not self.empty:
            yield Problem(path, "is an empty list", self.example)
        for index, element in enumerate(value):
            yield from self.item.check(element, path + (index,))


@dataclass(frozen=True)
class Free:
    """A mapping whose keys the user chooses and whose values are of one kind."""

    item: Any
    example: str = ""

    def check(self, value: Any, path: tuple[Any, ...]) -> Problems:
        """Find what is wrong with *value*."""
        if not isinstance(value, dict):
            yield Problem(path, f"is {_kind(value)}, not a mapping", self.example)
            return
        for key, element in value.items():
            if not isinstance(key, str) or not key or _CONTROL.search(key):
                yield Problem(path, f"the key {_show(key)} is no text; put it in quotes", self.example)
            else:
                yield from self.item.check(element, path + (key,))


@dataclass(frozen=True)
class Table:
    """A mapping with known keys. ``rules`` look at the whole once each key by itself is right."""

    keys: dict[str, Any]
    required: tuple[str, ...] = ()
    example: str = ""
    hints: dict[str, str] = field(default_factory=dict)
    rules: tuple[Callable[[dict[str, Any], tuple[Any, ...]], Problems], ...] = ()
    secret: bool = False

    def check(self, value: Any, path: tuple[Any, ...]) -> Problems:
        """Find what is wrong with *value*."""
        if not isinstance(value, dict):
            yield Problem(path, f"is {_kind(value)}, not a mapping with the keys {', '.join(sorted(self.keys))}", self.example)
            return
        sound = True
        for key, element in value.items():
            if key in self.keys:
                for problem in self.keys[key].check(element, path + (key,)):
                    sound = False
                    yield problem
            else:
                sound = False
                yield Problem(path + (key,), self._unknown(key), self.example, around=True)
        for key in self.required:
            if key not in value:
                sound = False
                rule = self.keys[key]
                yield Problem(path + (key,), "is missing", rule.example)
        if sound:
            for rule in self.rules:
                yield from rule(value, path)

    def _unknown(self, key: Any) -> str:
        if key in self.hints:
            return self.hints[key]
        near = suggest(str(key), self.keys)
        if not near and len(self.keys) <= 12:
            near = f"; known are {', '.join(sorted(self.keys))}"
        return f"is no key that this registry knows{near}"


def check(schema: Any, value: Any, path: tuple[Any, ...] = ()) -> list[Problem]:
    """Return all problems that *schema* finds in *value*, in the order of the file."""
    return list(schema.check(value, path))


def secret_paths(schema: Any, value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of each value that must not be shown, as far as *value* follows *schema*."""
    if getattr(schema, "secret", False):
        yield path
    elif isinstance(schema, Table) and isinstance(value, dict):
        for key, element in value.items():
            if key in schema.keys:
                yield from secret_paths(schema.keys[key], element, path + (key,))
    elif isinstance(schema, Free) and isinstance(value, dict):
        for key, element in value.items():
            yield from secret_paths(schema.item, element, path + (key,))
    elif isinstance(schema, Items) and isinstance(value, list):
        for index, element in enumerate(value):
            yield from secret_paths(schema.item, element, path + (index,))


def _kind(value: Any) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "a boolean"
    if isinstance(value, int):
        return "a number"
    if isinstance(value, float):
        return "a number with a fraction"
    if isinstance(value, str):
        return "text"
    if isinstance(value, list):
        return "a list"
    return "a mapping" if isinstance(value, dict) else f"a {type(value).__name__}"


def _show(value: Any) -> str:
    if value is None or isinstance(value, (dict, list)):
        return "the value"
    if isinstance(value, bool):
        return "true" if value else "false"
    text = re.sub(r"://[^/@\s]+@", "://…@", str(value))  # user and password of a URL
    if len(text) > 80:
        text = text[:77] + "..."
    return f'"{text}"' if isinstance(value, str) else text


def suggest(word: str, known: Any) -> str:
    """Return ", did you mean …" for the nearest of the known words, or nothing."""
    near = difflib.get_close_matches(word.lower(), sorted(known), n=1, cutoff=0.6)
    return f"; did you mean {near[0]}?" if near else ""


# ------------------------------------------------------------------------------------------------------ tests for texts


def test_host_port(value: str) -> str:
    match = _HOST_PORT.match(value)
    if match is None:
        return "is no address with port"
    return "" if 0 < int(match.group(1)) < 65536 else "has a port that does not exist"


def test_loopback(value: str) -> str:
    problem = test_host_port(value)
    if problem:
        return problem
    host = value.rpartition(":")[0]
    if host in ("localhost", "[::1]") or re.match(r"^127\.\d+\.\d+\.\d+$", host):
        return ""
    return "is not on loopback, and the debug listener tells the whole configuration with its secrets to whoever asks"


def _test_url(value: str) -> str:
    return "" if _URL.match(value) else "is no complete URL (scheme and host)"


def test_absolute(value: str) -> str:
    if not value.startswith("/"):
        return "is no absolute path"
    return "has .. in it" if ".." in value.split("/") else ""


def _test_root_directory(value: str) -> str:
    problem = test_absolute(value)
    if not problem and value.rstrip("/") in ("", "/etc", "/usr", "/bin", "/lib", "/var", "/var/lib", "/root", "/home", "/tmp", "/boot"):
        problem = "is a directory of the system; the registry needs one of its own"
    return problem


def _test_slash(value: str) -> str:
    return "" if value.startswith("/") else "does not begin with /"


def _test_regex(value: str) -> str:
    try:
        re.compile(value)
    except re.error as error:
        return f"is no regular expression: {error}"
    return ""


def _test_bucket(value: str) -> str:
    if re.match(r"^[A-Za-z0-9][A-Za-z0-9._-]{1,253}[A-Za-z0-9]$", value):
        return ""
    return "is no bucket name (3 or more letters, digits, dots and hyphens; no slash)"


def _test_s3_endpoint(value: str) -> str:
    match = _URL.match(value if "://" in value else f"https://{value}")
    if match is None:
        return "is no endpoint (scheme, host and port)"
    return "has a path; the bucket has an option of its own" if (match.group("path") or "/") != "/" else ""


def _test_redirect_endpoint(value: str) -> str:
    match = _URL.match(value)
    if match is None:
        return "is no URL with scheme and host"
    return "has a path, which the registry refuses" if match.group("path") else ""


# -------------------------------------------------------------------------------------------- rules about whole mappings


def _rule_s3(value: dict[str, Any], path: tuple[Any, ...]) -> Problems:
    for one, other in (("accesskey", "secretkey"), ("secretkey", "accesskey")):
        if one in value and other not in value:
            yield Problem(
                path + (other,),
                f"is missing while {one} is set; without both the registry looks for credentials elsewhere",
                "(both, or none)",
            )
    if "regionendpoint" not in value and not re.match(r"^[a-z]{2,}(-[a-z]+)+-\d+$", value["region"]):
        yield Problem(path + ("region",), f'"{value["region"]}" is no region of AWS, and there is no regionendpoint', "eu-central-1")
    if "keyid" in value and not value.get("encrypt"):
        yield Problem(path + ("keyid",), "has no effect without encrypt", "(set encrypt: true too)")


def _rule_purging(value: dict[str, Any], path: tuple[Any, ...]) -> Problems:
    if value.get("enabled", True):
        for key, example in (("age", "168h"), ("interval", "24h"), ("dryrun", "false")):
            if key not in value:
                yield Problem(
                    path + (key,), "is missing; the registry ends at start unless age, interval and dryrun are all given", example
                )


def _rule_one_of(kinds: str, example: str) -> Callable[[dict[str, Any], tuple[Any, ...]], Problems]:
    def rule(value: dict[str, Any], path: tuple[Any, ...]) -> Problems:
        if len(value) != 1:
            found = ", ".join(sorted(value)) or "none"
            yield Problem(path, f"needs exactly one {kinds}, and has {found}", example)

    return rule


def _rule_storage(value: dict[str, Any], path: tuple[Any, ...]) -> Problems:
    drivers = sorted(set(value) & set(DRIVERS))
    if len(drivers) != 1:
        yield Problem(path, f"needs exactly one storage, and has {', '.join(drivers) or 'none'}", DRIVER_EXAMPLE)


def _rule_cache(value: dict[str, Any], path: tuple[Any, ...]) -> Problems:
    if "blobdescriptorsize" in value and value.get("blobdescriptor") != "inmemory":
        yield Problem(path + ("blobdescriptorsize",), "is only for blobdescriptor: inmemory", "(leave it out)")


def _rule_http(value: dict[str, Any], path: tuple[Any, ...]) -> Problems:
    if value.get("host") and value.get("relativeurls"):
        yield Problem(path + ("relativeurls",), "is ignored when http.host is set", "(leave one of them out)")


def _rule_prometheus(value: dict[str, Any], path: tuple[Any, ...]) -> Problems:
    if value.get("prometheus", {}).get("enabled") and not value.get("addr"):
        yield Problem(path + ("addr",), "is missing, and without it there are no metrics", "127.0.0.1:5001")


def _rule_pair(one: str, other: str) -> Callable[[dict[str, Any], tuple[Any, ...]], Problems]:
    def rule(value: dict[str, Any], path: tuple[Any, ...]) -> Problems:
        for present, absent in ((one, other), (other, one)):
            if present in value and absent not in value:
                yield Problem(path + (absent,), f"is missing while {present} is set", "(give both)")

    return rule


def _rule_tls(value: dict[str, Any], path: tuple[Any, ...]) -> Problems:
    if value.get("minimumtls") == "tls1.3" and value.get("ciphersuites"):
        yield Problem(path + ("ciphersuites",), "is ignored with minimumtls: tls1.3", "(leave it out)")
    if "certificate" in value and "letsencrypt" in value:
        yield Problem(path + ("letsencrypt",), "is set beside certificate; only one can be", "(leave one of them out)")
    if value.get("clientauth", "").startswith(("verify", "require-and")) and not value.get("clientcas"):
        yield Problem(
            path + ("clientcas",), "is missing, so no client certificate could be verified", "[/etc/wharf/registry/client-ca.crt]"
        )


def _rule_index_platforms(value: dict[str, Any], path: tuple[Any, ...]) -> Problems:
    wanted = value.get("platforms") == "list"
    if wanted != bool(value.get("platformlist")):
        yield Problem(path + ("platformlist",), "goes with platforms: list, and only with it", "[{architecture: amd64, os: linux}]")


def _rule_token_2(value: dict[str, Any], path: tuple[Any, ...]) -> Problems:
    if "realm" not in value and not value.get("autoredirect"):
        yield Problem(path + ("realm",), "is missing", "https://registry.example.com/auth/token")


def _rule_token_3(value: dict[str, Any], path: tuple[Any, ...]) -> Problems:
    yield from _rule_token_2(value, path)
    if "rootcertbundle" not in value and "jwks" not in value:
        yield Problem(path + ("rootcertbundle",), "is missing, and so is jwks: no token could be verified", "/etc/wharf/registry/token.crt")


def _rule_redis_2(value: dict[str, Any], path: tuple[Any, ...]) -> Problems:
    if value and "addr" not in value:
        yield Problem(path + ("addr",), "is missing", "redis1:6379")


def _rule_redis_3(value: dict[str, Any], path: tuple[Any, ...]) -> Problems:
    if value and not value.get("addrs"):
        yield Problem(path + ("addrs",), "is missing; without it the registry says nothing and uses no Redis", "[redis1:6379]")


# --------------------------------------------------------------------------------------------------------- the two files

#: Storage drivers that the collection deploys.
DRIVERS = ("filesystem", "s3")
DRIVER_EXAMPLE = "{s3: {bucket: registry, region: eu-central-1}}"

LEVELS = ("error", "warn", "info", "debug")
HEADERS = Free(Items(Text("nosniff", empty=True), "[nosniff]"), "{X-Content-Type-Options: [nosniff]}")
_SECRET_HEADERS = Free(Items(Text("Bearer …", secret=True), "[Bearer …]"), "{Authorization: [Bearer …]}")
_PATH = Text("/etc/wharf/registry/ca.crt", test=test_absolute)
_COUNT = Number("3", 1)

_LOG_HOOK = Table(
    {
        "type": Text("mail", choices=("mail",)),
        "disabled": Flag("false"),
        "levels": Items(Text("panic", choices=("panic", "fatal", "error", "warn", "info", "debug")), "[panic]"),
        "options": Table(
            {
                "smtp": Table(
                    {
                        "addr": Text("mail.example.com:25", test=test_host_port),
                        "username": Text("registry"),
                        "password": Text("…", secret=True),
                        "insecure": Flag("false"),
                    },
                    ("addr",),
                    "{addr: mail.example.com:25}",
                ),
                "from": Text("registry@example.com"),
                "to": Items(Text("ops@example.com"), "[ops@example.com]"),
            },
            ("smtp", "from", "to"),
            "{smtp: {addr: mail.example.com:25}, from: registry@example.com, to: [ops@example.com]}",
        ),
    },
    ("type", "levels", "options"),
    "{type: mail, levels: [panic], options: {…}}",
)


def _log(generation: int) -> Table:
    keys: dict[str, Any] = {
        "level": Text("info", choices=LEVELS),
        "formatter": Text("json", choices=("text", "json", "logstash")),
        "fields": Free(Text("registry"), "{service: registry}"),
        "hooks": Items(_LOG_HOOK, "[{type: mail, levels: [panic], options: {…}}]", empty=True),
        "accesslog": Table({"disabled": Flag()}, (), "{disabled: true}"),
    }
    if generation == 3:
        keys["reportcaller"] = Flag("false")
    return Table(keys, (), "{level: info}")


def _s3(generation: int) -> Table:
    classes = ["NONE", "STANDARD", "REDUCED_REDUNDANCY"]
    keys: dict[str, Any] = {
        "accesskey": Text("AKIA…", secret=True),
        "secretkey": Text('"…"', secret=True),
        "region": Text("us-east-1"),
        "regionendpoint": Text("https://s3.example.com:9000", test=_test_s3_endpoint),
        "bucket": Text("registry", test=_test_bucket),
        "encrypt": Flag("false"),
        "keyid": Text("alias/registry"),
        "secure": Flag(),
        "skipverify": Flag("false"),
        "v4auth": Flag(),
        "chunksize": Number("10485760", 5 * MIB, 5 * GIB, " bytes"),
        "multipartcopychunksize": Number("33554432", 5 * MIB, 5 * GIB, " bytes"),
        "multipartcopymaxconcurrency": Number("100", 1),
        "multipartcopythresholdsize": Number("33554432", 0, 5 * GIB, " bytes"),
        "rootdirectory": Text("/registry"),
        "objectacl": Text(
            "private",
            choices=(
                "private",
                "public-read",
                "public-read-write",
                "authenticated-read",
                "aws-exec-read",
                "bucket-owner-read",
                "bucket-owner-full-control",
            ),
        ),
        "useragent": Text("registry"),
    }
    if generation == 3:
        classes += ["STANDARD_IA", "ONEZONE_IA", "INTELLIGENT_TIERING", "OUTPOSTS", "GLACIER_IR", "EXPRESS_ONEZONE"]
        keys.update(
            {
                "forcepathstyle": Flag(),
                "accelerate": Flag("false"),
                "usedualstack": Flag("false"),
                "usefipsendpoint": Flag("false"),
                "loglevel": Text(
                    "off",
                    choices=(
                        "off",
                        "debug",
                        "debugwithsigning",
                        "debugwithhttpbody",
                        "debugwithrequestretries",
                        "debugwithrequesterrors",
                        "debugwitheventstreambody",
                    ),
                ),
                "redirectendpoint": Text("https://s3.example.com", test=_test_redirect_endpoint),
            }
        )
    keys["storageclass"] = Text("STANDARD", choices=tuple(classes))
    hints = {"useragent": "is ignored by 2.8"} if generation == 2 else {}
    if generation == 2:
        del keys["useragent"]
    return Table(keys, ("bucket", "region"), "{bucket: registry, region: us-east-1}", hints, (_rule_s3,))


def _storage(generation: int) -> Table:
    cache_keys: dict[str, Any] = {"blobdescriptor": Text("redis", choices=("redis", "inmemory"))}
    keys: dict[str, Any] = {
        "filesystem": Table(
            {"rootdirectory": Text("/srv/registry", test=_test_root_directory), "maxthreads": Number("100", 25)},
            ("rootdirectory",),
            "{rootdirectory: /srv/registry}",
        ),
        "s3": _s3(generation),
        "delete": Table({"enabled": Flag()}, ("enabled",), "{enabled: true}"),
        "redirect": Table({"disable": Flag()}, ("disable",), "{disable: true}"),
        "maintenance": Table(
            {
                "readonly": Table({"enabled": Flag("false")}, ("enabled",), "{enabled: false}"),
                "uploadpurging": Table(
                    {"enabled": Flag(), "age": Duration("168h"), "interval": Duration("24h"), "dryrun": Flag("false")},
                    (),
                    "{enabled: true, age: 168h, interval: 24h, dryrun: false}",
                    {},
                    (_rule_purging,),
                ),
            },
            (),
            "{readonly: {enabled: false}}",
        ),
    }
    hints = dict.fromkeys(("azure", "gcs", "inmemory"), "is a storage that this collection does not deploy; filesystem and s3 are")
    hints["s3aws"] = "is another name for s3; write s3"
    gone = "was removed from distribution in 3.0" if generation == 3 else "is a storage that this collection does not deploy"
    hints.update(dict.fromkeys(("oss", "swift"), f"{gone}; filesystem and s3 are there"))
    hints["nfs"] = (
        "is mounted by the role nfs_storage; the registry itself stores in a filesystem: set wharf_storage for both, or filesystem here"
    )
    if generation == 3:
        keys["tag"] = Table({"concurrencylimit": Number("8", 0)}, (), "{concurrencylimit: 8}")
        cache_keys["blobdescriptorsize"] = Number("10000", 0)
    else:
        hints["tag"] = "is only known to 3.x"
    cache_hints = {"layerinfo": "is the old name of blobdescriptor; write blobdescriptor"}
    if generation == 2:
        cache_hints["blobdescriptorsize"] = "is only known to 3.x"
    keys["cache"] = Table(cache_keys, ("blobdescriptor",), "{blobdescriptor: redis}", cache_hints, (_rule_cache,))
    return Table(keys, (), DRIVER_EXAMPLE, hints, (_rule_storage,))


def _auth(generation: int) -> Table:
    token: dict[str, Any] = {
        "realm": Text("https://registry.example.com/auth/token", test=_test_url),
        "service": Text("registry.example.com"),
        "issuer": Text("registry.example.com"),
        "rootcertbundle": _PATH,
        "autoredirect": Flag("false"),
    }
    required: tuple[str, ...] = ("service", "issuer")
    if generation == 3:
        token["jwks"] = _PATH
        token["autoredirectpath"] = Text("/auth/token", test=_test_slash)
        algorithms = tuple(kind + size for kind in ("ES", "RS", "PS") for size in ("256", "384", "512")) + ("EdDSA",)
        token["signingalgorithms"] = Items(Text("ES256", choices=algorithms), "[ES256]")
    else:
        required += ("rootcertbundle",)
    return Table(
        {
            "htpasswd": Table(
                {"realm": Text("registry"), "path": Text("/etc/wharf/registry/auth/htpasswd", test=test_absolute)},
                ("realm", "path"),
                "{realm: registry, path: /etc/wharf/registry/auth/htpasswd}",
            ),
            "token": Table(
                token, required, "{realm: …, service: …, issuer: …}", {}, (_rule_token_3 if generation == 3 else _rule_token_2,)
            ),
        },
        (),
        "{htpasswd: {realm: registry, path: /etc/wharf/registry/auth/htpasswd}}",
        {"silly": "accepts everybody who sends any Authorization header; it is for tests of the registry itself"},
        (_rule_one_of("kind of authentication", "{htpasswd: {…}}"),),
    )


def _http(generation: int) -> Table:
    versions = ("tls1.2", "tls1.3") if generation == 3 else ("tls1.0", "tls1.1", "tls1.2", "tls1.3")
    encrypt: dict[str, Any] = {
        "cachefile": Text("/var/lib/wharf/letsencrypt", test=test_absolute),
        "email": Text("ops@example.com"),
        "hosts": Items(Text("registry.example.com"), "[registry.example.com]"),
    }
    tls: dict[str, Any] = {
        "certificate": _PATH,
        "key": _PATH,
        "clientcas": Items(_PATH, "[/etc/wharf/registry/client-ca.crt]"),
        "minimumtls": Text("tls1.2", choices=versions),
        "ciphersuites": Items(
            Text(
                "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
                test=lambda value: "is no longer known" if generation == 3 and "RC4" in value else "",
            ),
            "[TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256]",
        ),
    }
    tls_hints = {}
    if generation == 3:
        encrypt["directoryurl"] = Text("https://acme.example.com/directory", test=_test_url)
        tls["letsencrypt"] = Table(encrypt, ("cachefile", "email"), "{cachefile: …, email: …}")
        tls["clientauth"] = Text(
            "require-and-verify-client-cert",
            choices=("request-client-cert", "require-any-client-cert", "verify-client-cert-if-given", "require-and-verify-client-cert"),
        )
    else:
        tls_hints["letsencrypt"] = "uses a protocol in 2.8 that Let's Encrypt has switched off"
        tls_hints["clientauth"] = "is only known to 3.x; 2.8 demands a certificate as soon as clientcas is set"
    keys: dict[str, Any] = {
        "addr": Text("127.0.0.1:5000", test=test_host_port),
        "net": Text("tcp", choices=("tcp",)),
        "host": Text("https://registry.example.com", test=_test_url),
        "prefix": Text("/registry/", test=_test_slash),
        "secret": Text("…", secret=True),
        "relativeurls": Flag(),
        "draintimeout": Duration("60s"),
        "headers": HEADERS,
        "tls": Table(tls, (), "{certificate: …, key: …}", tls_hints, (_rule_pair("certificate", "key"), _rule_tls)),
        "debug": Table(
            {
                "addr": Text("127.0.0.1:5001", test=test_loopback),
                "prometheus": Table(
                    {"enabled": Flag(), "path": Text("/metrics", test=_test_slash)},
                    (),
                    "{enabled: true, path: /metrics}",
                ),
            },
            (),
            "{addr: 127.0.0.1:5001, prometheus: {enabled: true}}",
            {},
            (_rule_prometheus,),
        ),
        "http2": Table({"disabled": Flag("false")}, (), "{disabled: false}"),
    }
    hints = {}
    if generation == 3:
        keys["h2c"] = Table({"enabled": Flag("false")}, (), "{enabled: false}")
    else:
        hints["h2c"] = "is only known to 3.x"
    return Table(keys, ("addr", "secret"), "{addr: 127.0.0.1:5000}", hints, (_rule_http,))


def _redis(generation: int) -> Table:
    common: dict[str, Any] = {
        "password": Text("…", secret=True),
        "db": Number("0", 0),
        "dialtimeout": Duration("300ms"),
        "readtimeout": Duration("200ms"),
        "writetimeout": Duration("200ms"),
    }
    address = Text("redis1:6379", test=test_host_port)
    if generation == 2:
        newer = "is only known to 3.x"
        hints = dict.fromkeys(("tls", "username", "mastername", "sentinelusername", "sentinelpassword", "maxretries", "poolsize"), newer)
        hints["addrs"] = "is only known to 3.x; 2.8 reads addr, one address"
        pool = Table(
            {"maxidle": Number("16", 0), "maxactive": Number("64", 0), "idletimeout": Duration("300s")}, (), "{maxidle: 16, maxactive: 64}"
        )
        return Table({**common, "addr": address, "pool": pool}, (), "{addr: redis1:6379}", hints, (_rule_redis_2,))
    keys: dict[str, Any] = {
        **common,
        "addrs": Items(address, "[redis1:6379]"),
        "clientname": Text("registry1"),
        "protocol": Number("3", 2, 3),
        "username": Text("registry"),
        "sentinelusername": Text("registry"),
        "sentinelpassword": Text("…", secret=True),
        "mastername": Text("wharf"),
        "maxretries": Number("-1", -1),
        "minretrybackoff": Duration("8ms"),
        "maxretrybackoff": Duration("100ms"),
        "contexttimeoutenabled": Flag("false"),
        "poolfifo": Flag("false"),
        "poolsize": Number("20", 1),
        "pooltimeout": Duration("300ms"),
        "minidleconns": Number("0", 0),
        "maxidleconns": Number("0", 0),
        "maxactiveconns": Number("0", 0),
        "connmaxidletime": Duration("30m"),
        "connmaxlifetime": Duration("1h"),
        "maxredirects": Number("3", -1),
        "readonly": Flag("false"),
        "routebylatency": Flag("false"),
        "routerandomly": Flag("false"),
        "disableidentity": Flag("false"),
        "identitysuffix": Text("registry1"),
        "unstableresp3": Flag("false"),
        "tls": Table(
            {"certificate": _PATH, "key": _PATH, "rootcas": Items(_PATH, "[/etc/wharf/registry/redis-ca.crt]")},
            (),
            "{rootcas: [/etc/wharf/registry/redis-ca.crt]}",
            {},
            (_rule_pair("certificate", "key"),),
        ),
    }
    hints = {
        "addr": "is only known to 2.8; 3.x reads addrs, a list, and would silently use no Redis",
        "pool": "is only known to 2.8; 3.x reads poolsize, maxidleconns, connmaxidletime",
    }
    return Table(keys, (), "{addrs: [redis1:6379]}", hints, (_rule_redis_3,))


def _health() -> Table:
    headers = _SECRET_HEADERS
    address = Text("10.0.0.1:6379", test=test_host_port)
    timing: dict[str, Any] = {"interval": Duration("10s"), "threshold": _COUNT}
    file_check = Table(
        {"file": _PATH, "interval": Duration("10s")},
        ("file",),
        "{file: /run/registry-is-down, interval: 10s}",
        {"threshold": "is ignored for files by every release"},
    )
    http_check = Table(
        {
            "uri": Text("http://10.0.0.1/ok", test=_test_url),
            "statuscode": Number("200", 100, 599),
            "headers": headers,
            "timeout": Duration("3s"),
            **timing,
        },
        ("uri",),
        "{uri: http://10.0.0.1/ok}",
    )
    return Table(
        {
            "storagedriver": Table({"enabled": Flag(), **timing}, (), "{enabled: true, interval: 10s, threshold: 3}"),
            "file": Items(file_check, "[{file: /run/registry-is-down}]", empty=True),
            "http": Items(http_check, "[{uri: http://10.0.0.1/ok}]", empty=True),
            "tcp": Items(Table({"addr": address, "timeout": Duration("3s"), **timing}, ("addr",), "{addr: 10.0.0.1:6379}"), empty=True),
        },
        (),
        "{storagedriver: {enabled: true}}",
    )


_ACTIONS = Text("pull", choices=("pull", "push", "mount", "delete"))
_NOTIFICATIONS = Table(
    {
        "events": Table({"includereferences": Flag("true")}, (), "{includereferences: true}"),
        "endpoints": Items(
            Table(
                {
                    "name": Text("audit"),
                    "url": Text("https://audit.example.com/events", test=_test_url),
                    "disabled": Flag("false"),
                    "headers": _SECRET_HEADERS,
                    "timeout": Duration("1s"),
                    "threshold": _COUNT,
                    "backoff": Duration("5s"),
                    "ignoredmediatypes": Items(Text("application/octet-stream"), empty=True),
                    "ignore": Table(
                        {"mediatypes": Items(Text("application/octet-stream"), empty=True), "actions": Items(_ACTIONS, empty=True)}
                    ),
                },
                ("name", "url"),
                "{name: audit, url: https://audit.example.com/events}",
            ),
            "[{name: audit, url: https://audit.example.com/events}]",
            empty=True,
        ),
    },
    (),
    "{endpoints: [{name: audit, url: https://audit.example.com/events}]}",
)


def _proxy(generation: int) -> Table:
    keys: dict[str, Any] = {
        "remoteurl": Text("https://registry-1.docker.io", test=_test_url),
        "username": Text("mirror"),
        "password": Text("…", secret=True),
    }
    hints = {}
    if generation == 3:
        keys["ttl"] = Duration("168h")
        keys["cachewritetimeout"] = Duration("5m")
        keys["exec"] = Table(
            {"command": Text("docker-credential-x"), "lifetime": Duration("1h")}, ("command",), "{command: docker-credential-x}"
        )
    else:
        hints = dict.fromkeys(("ttl", "cachewritetimeout", "exec"), "is only known to 3.x")
    return Table(keys, ("remoteurl",), "{remoteurl: https://registry-1.docker.io}", hints)


def _validation(generation: int) -> Table:
    pattern = Text("^https://mirror\\.example\\.com/", test=_test_regex)
    manifests: dict[str, Any] = {
        "urls": Table({"allow": Items(pattern, empty=True), "deny": Items(pattern, empty=True)}, (), "{allow: [^https://…]}")
    }
    hints = {}
    if generation == 3:
        platform = Table({"architecture": Text("amd64"), "os": Text("linux")}, ("architecture", "os"), "{architecture: amd64, os: linux}")
        manifests["indexes"] = Table(
            {
                "platforms": Text("all", choices=("all", "none", "list")),
                "platformlist": Items(platform, "[{architecture: amd64, os: linux}]"),
            },
            ("platforms",),
            "{platforms: all}",
            {},
            (_rule_index_platforms,),
        )
    else:
        hints["indexes"] = "is only known to 3.x"
    return Table(
        {"disabled": Flag("false"), "manifests": Table(manifests, (), "{urls: {allow: []}}", hints)},
        (),
        "{disabled: false}",
        {"enabled": "is outdated; write disabled"},
    )


_MIDDLEWARE = Items(
    Table(
        {"name": Text("cloudfront"), "disabled": Flag("false"), "options": Anything("{…}", secret=True)},
        ("name",),
        "{name: …, options: {…}}",
    ),
    "[{name: …, options: {…}}]",
    empty=True,
)


def schema(generation: int) -> Table:
    """Return the schema of the whole configuration file of a generation (2 or 3)."""
    keys: dict[str, Any] = {
        "version": Text('"0.1"', choices=("0.1",)),
        "log": _log(generation),
        "storage": _storage(generation),
        "auth": _auth(generation),
        "http": _http(generation),
        "redis": _redis(generation),
        "health": _health(),
        "notifications": _NOTIFICATIONS,
        "proxy": _proxy(generation),
        "validation": _validation(generation),
        "policy": Table(
            {"repository": Table({"classes": Items(Text("image"), "[image, plugin]")}, (), "{classes: [image]}")},
            (),
            "{repository: {classes: [image]}}",
        ),
        "catalog": Table({"maxentries": Number("1000", 1)}, (), "{maxentries: 1000}"),
        "middleware": Table(
            dict.fromkeys(("registry", "repository", "storage"), _MIDDLEWARE), (), "{storage: [{name: redirect, options: {…}}]}"
        ),
    }
    hints = {"loglevel": "is outdated; write log: {level: …}"}
    if generation == 3:
        keys["tags"] = Table({"maxtags": Number("1000", 1)}, (), "{maxtags: 1000}")
        hints["reporting"] = hints["compatibility"] = "was removed from distribution in 3.0 and would be ignored"
    else:
        hints["tags"] = "is only known to 3.x"
        keys["reporting"] = Table(
            {
                "bugsnag": Table(
                    {"apikey": Text("…", secret=True), "releasestage": Text("production"), "endpoint": Text("https://bugsnag.example.com")}
                ),
                "newrelic": Table({"licensekey": Text("…", secret=True), "name": Text("registry"), "verbose": Flag("false")}),
            }
        )
        keys["compatibility"] = Table({"schema1": Table({"signingkeyfile": _PATH, "enabled": Flag("false")}, (), "{enabled: false}")})
    return Table(keys, ("version", "storage", "http"), "", hints)


def knows(rules: Any, path: tuple[Any, ...]) -> bool:
    """Return whether the schema *rules* has a place for the key at *path*."""
    for key in path:
        if isinstance(rules, Table):
            if key not in rules.keys:
                return False
            rules = rules.keys[key]
        elif isinstance(rules, (Free, Items)):
            rules = rules.item
        else:
            return isinstance(rules, Anything)
    return True
