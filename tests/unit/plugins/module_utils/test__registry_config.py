# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The configuration of both generations: what is built, what is refused, what a diff shows."""

from __future__ import annotations

import pytest

from ansible_collections.wharf.registry.plugins.module_utils._registry import config, schema

yaml = pytest.importorskip("yaml")
SECRET = "0123456789abcdef" * 4
S3 = {
    "bucket": "registry",
    "region": "us-east-1",
    "regionendpoint": "https://s3.example.com:9000",
    "accesskey": "AKIDENTIFIER",
    "secretkey": "0123SECRETKEY",
}


def options(**changes):
    """Options of a sound cluster on S3, with changes."""
    return {"version": "3.1.2", "storage": {"s3": dict(S3)}, "http_secret": SECRET, "nodes": 3, **changes}


def extra(**tree):
    """The same with extra_config."""
    return options(extra_config=tree)


def refusals(wanted, prefix="registry_"):
    """Variable names and problems, without the name of the cluster-wide variable."""
    return [(finding["variable"].split(" (")[0], finding["problem"]) for finding in config.find_problems(wanted, prefix)]


# ------------------------------------------------------------------------------------------------------------ building


@pytest.mark.parametrize("version", ["2.8.3", "3.1.2"])
@pytest.mark.parametrize("storage", [{"s3": S3}, {"filesystem": {"rootdirectory": "/srv/registry"}}])
@pytest.mark.parametrize("auth", ["none", "htpasswd"])
def test_one_set_of_options_is_sound_for_both_generations(version, storage, auth):
    wanted = options(version=version, storage=storage, auth=auth)
    assert config.find_problems(wanted) == []
    built = config.build(wanted)
    assert ("htpasswd" in built.get("auth", {})) == (auth == "htpasswd")
    assert built["http"]["secret"] == SECRET
    assert built["http"]["debug"]["addr"].startswith("127.")
    # The purge of 2.8 panics on S3.
    purges = not (version.startswith("2.") and "s3" in storage)
    assert built["storage"]["maintenance"]["uploadpurging"] == {"enabled": purges, "age": "168h", "interval": "24h", "dryrun": False}
    assert "cache" not in built["storage"]


def test_path_style_is_added_where_3_needs_it():
    assert config.build(options())["storage"]["s3"]["forcepathstyle"] is True
    assert "forcepathstyle" not in config.build(options(version="2.8.3"))["storage"]["s3"]
    told = {"s3": {**S3, "forcepathstyle": True}}
    assert config.find_problems(options(version="2.8.3", storage=told)) == []
    assert "forcepathstyle" not in config.build(options(version="2.8.3", storage=told))["storage"]["s3"]
    assert config.build(options(storage={"s3": {**S3, "forcepathstyle": False}}))["storage"]["s3"]["forcepathstyle"] is False
    assert "forcepathstyle" not in config.build(options(storage={"s3": {"bucket": "registry", "region": "eu-central-1"}}))["storage"]["s3"]


def test_a_hung_redis_costs_little():
    wanted = options(redis={"addr": "redis1:6379", "password": "PW", "cafile": "/etc/wharf/registry/redis-ca.crt"})
    assert config.find_problems(wanted) == []
    built = config.build(wanted)
    assert built["redis"] == {
        "addrs": ["redis1:6379"],
        "password": "PW",
        "dialtimeout": "300ms",
        "readtimeout": "200ms",
        "writetimeout": "200ms",
        "pooltimeout": "300ms",
        "maxretries": -1,
        "tls": {"rootcas": ["/etc/wharf/registry/redis-ca.crt"]},
    }
    assert built["storage"]["cache"] == {"blobdescriptor": "redis"}


def test_extra_config_is_merged_and_null_removes():
    built = config.build(
        extra(health=None, catalog={"maxentries": 5}, storage={"s3": {"chunksize": 10485760}}, http={"headers": {"X-A": ["b"]}})
    )
    assert "health" not in built
    assert built["catalog"] == {"maxentries": 5}
    assert built["storage"]["s3"]["chunksize"] == 10485760
    assert built["storage"]["s3"]["bucket"] == "registry"
    assert built["http"]["headers"] == {"X-Content-Type-Options": ["nosniff"], "X-A": ["b"]}


# ----------------------------------------------------------------------------------------------------------- refusing


@pytest.mark.parametrize(
    "wanted, variable, words",
    [
        (options(storage={}), "registry_storage", "missing"),
        (options(storage={"s3": {**S3}, "filesystem": {"rootdirectory": "/srv/r"}}), "registry_storage", "filesystem and s3"),
        (options(storage={"ceph": {}}), "registry_storage.ceph", "no storage"),
        (options(storage={"filesytem": {}}), "registry_storage.filesytem", "did you mean filesystem"),
        (options(storage={"swift": {}}), "registry_storage.swift", "removed"),
        (options(storage={"nfs": {"server": "x"}}), "registry_storage.nfs", "nfs_storage"),
        (options(storage={"s3": {"region": "eu-central-1"}}), "registry_storage.s3.bucket", "missing"),
        (options(storage={"s3": {"bucket": "registry", "regionendpoint": "http://x"}}), "registry_storage.s3.region", "missing"),
        (options(storage={"s3": {"bucket": "registry", "region": "here"}}), "registry_storage.s3.region", "no region of AWS"),
        (options(storage={"s3": {**S3, "buckt": "x"}}), "registry_storage.s3.buckt", "did you mean bucket"),
        (options(storage={"s3": {**S3, "accesskey": 83}}), "registry_storage.s3.accesskey", "put it in quotes"),
        (options(storage={"s3": {**S3, "secure": "yes"}}), "registry_storage.s3.secure", "not true or false"),
        (options(storage={"s3": {**S3, "chunksize": 1024}}), "registry_storage.s3.chunksize", "less than 5242880"),
        (options(storage={"s3": {**S3, "regionendpoint": "http://x/bucket"}}), "registry_storage.s3.regionendpoint", "has a path"),
        (
            options(storage={"s3": {key: S3[key] for key in S3 if key != "secretkey"}}),
            "registry_storage.s3.secretkey",
            "missing while accesskey",
        ),
        (options(version="2.8.3", storage={"s3": {**S3, "accelerate": True}}), "registry_storage.s3.accelerate", "only known to 3.x"),
        (options(storage={"filesystem": {}}), "registry_storage.filesystem.rootdirectory", "missing"),
        (options(storage={"filesystem": {"rootdirectory": "srv"}}), "registry_storage.filesystem.rootdirectory", "no absolute path"),
        (options(storage={"filesystem": {"rootdirectory": "/"}}), "registry_storage.filesystem.rootdirectory", "directory of the system"),
        (options(auth="token"), "registry_token", "missing"),
        (options(auth="ldap"), "registry_auth", "none of none, htpasswd, token"),
        (options(http_secret=""), "registry_http_secret", "empty"),
        (options(http_secret="short"), "registry_http_secret", "16 characters"),
        (options(headers={"X-A": "b"}), "registry_headers.X-A", "not a list"),
        (options(log_level="verbose"), "registry_log_level", "none of error, warn, info, debug"),
        (options(drain_timeout="30"), "registry_drain_timeout", "no duration"),
        (options(debug_addr="0.0.0.0:5001"), "registry_debug_addr", "not on loopback"),
        (options(addr="5000"), "registry_addr", "no address with port"),
        (options(redis={"adr": "x:1"}), "registry_redis.adr", "did you mean addr"),
        (options(redis={"addr": "redis1"}), "registry_redis.addr", "no address with port"),
        (options(version="3.1.1"), "registry_version", "CVE-2026-85747"),
        (options(version="2.8.3", redis={"addr": "redis1:6379"}), "registry_redis", "CVE-2026-35172"),
    ],
)
def test_options_are_refused(wanted, variable, words):
    found = refusals(wanted)
    assert variable in [name for name, _problem in found]
    assert any(words in problem for name, problem in found if name == variable)
    assert all(finding["example"] for finding in config.find_problems(wanted))


@pytest.mark.parametrize(
    "wanted, place, words",
    [
        # Keys that the registry would silently ignore.
        (extra(catalogue={"maxentries": 5}), "catalogue", "did you mean catalog"),
        (extra(http={"drainTimeout": "5s"}), "http.drainTimeout", "did you mean draintimeout"),
        (extra(redis={"addr": "x:1"}, storage={"cache": {"blobdescriptor": "redis"}}), "redis.addr", "silently use no Redis"),
        (extra(reporting={"bugsnag": {}}), "reporting", "removed"),
        (extra(compatibility={"schema1": {"enabled": True}}), "compatibility", "removed"),
        (extra(loglevel="debug"), "loglevel", "outdated"),
        (extra(log={"hooks": [{"type": "slack", "levels": ["panic"], "options": {}}]}), "log.hooks[0].type", "none of mail"),
        (extra(health={"file": [{"file": "/run/down", "threshold": 3}]}), "health.file[0].threshold", "ignored"),
        (extra(http={"host": "https://a.example.com", "relativeurls": True}), "http.relativeurls", "ignored"),
        (
            extra(http={"tls": {"certificate": "/c", "key": "/k", "minimumtls": "tls1.3", "ciphersuites": ["X"]}}),
            "http.tls.ciphersuites",
            "ignored",
        ),
        (
            extra(validation={"manifests": {"indexes": {"platforms": "all", "platformlist": [{"architecture": "amd64", "os": "linux"}]}}}),
            "validation.manifests.indexes.platformlist",
            "only with it",
        ),
        # What ends the registry at start.
        (extra(storage={"maintenance": {"readonly": True}}), "storage.maintenance.readonly", "not a mapping"),
        (extra(storage={"maintenance": {"uploadpurging": {"age": None}}}), "storage.maintenance.uploadpurging.age", "missing"),
        (extra(storage={"maintenance": {"uploadpurging": {"age": 168}}}), "storage.maintenance.uploadpurging.age", "nanoseconds"),
        (extra(storage={"maintenance": {"uploadpurging": {"age": "7d"}}}), "storage.maintenance.uploadpurging.age", "no unit for days"),
        (extra(storage={"redirect": {"disable": None}}), "storage.redirect.disable", "missing"),
        (extra(storage={"cache": {"blobdescriptor": "redis"}}), "storage.cache.blobdescriptor", "no Redis is configured"),
        (extra(storage={"cache": {"layerinfo": "redis"}}), "storage.cache.layerinfo", "old name"),
        (extra(storage={"azure": {}}), "storage.azure", "does not deploy"),
        (extra(http={"tls": {"minimumtls": "tls1.0"}}), "http.tls.minimumtls", "none of tls1.2, tls1.3"),
        (extra(http={"tls": {"certificate": "/c"}}), "http.tls.key", "missing while certificate"),
        (extra(http={"host": "registry.example.com"}), "http.host", "no complete URL"),
        (extra(log={"level": "verbose"}), "log.level", "none of error"),
        (extra(validation={"manifests": {"urls": {"allow": ["("]}}}), "validation.manifests.urls.allow[0]", "no regular expression"),
        (extra(notifications={"endpoints": [{"name": "a"}]}), "notifications.endpoints[0].url", "missing"),
        # What is unsafe, or would break what the role relies on.
        (extra(auth={"silly": {"realm": "x", "service": "y"}}), "auth.silly", "accepts everybody"),
        (extra(auth={"token": {"realm": "https://a/t", "service": "a", "issuer": "a", "rootcertbundle": "/c"}}), "auth", "exactly one"),
        (extra(http={"addr": "0.0.0.0:5000"}), "http.addr", "set by addr"),
        (extra(http={"debug": {"addr": "0.0.0.0:5001"}}), "http.debug.addr", "set by debug_addr"),
        (extra(http={"secret": "x" * 20}), "http.secret", "set by http_secret"),
        (extra(storage={"cache": {"blobdescriptor": "inmemory"}}), "storage.cache.blobdescriptor", "each node would remember"),
        (options(version="2.8.3", extra_config={"proxy": {"remoteurl": "https://a.example.com"}}), "proxy", "CVE-2026-33540"),
        # What only the other generation knows.
        (options(version="2.8.3", extra_config={"tags": {"maxtags": 5}}), "tags", "only known to 3.x"),
        (options(version="2.8.3", extra_config={"http": {"h2c": {"enabled": True}}}), "http.h2c", "only known to 3.x"),
        (options(version="2.8.3", extra_config={"log": {"reportcaller": True}}), "log.reportcaller", "only known to 3.x"),
    ],
)
def test_the_file_is_refused(wanted, place, words):
    found = refusals(wanted)
    name = f"registry_extra_config.{place}"
    assert any(words in problem for variable, problem in found if variable == name), found


@pytest.mark.parametrize(
    "wanted",
    [
        extra(
            notifications={
                "endpoints": [{"name": "a", "url": "https://a.example.com/e", "headers": {"Authorization": ["Bearer x"]}, "timeout": "1s"}]
            }
        ),
        extra(storage={"maintenance": {"uploadpurging": {"enabled": False, "age": None}}}),
        extra(storage={"maintenance": {"readonly": {"enabled": True}}}),
        extra(redis={"addrs": ["a:1", "b:2"], "mastername": "m"}, storage={"cache": {"blobdescriptor": "redis"}}),
        extra(validation={"manifests": {"urls": {"allow": ["^https://mirror/"]}, "indexes": {"platforms": "none"}}}),
        extra(tags={"maxtags": 500}, catalog={"maxentries": 5000}, policy={"repository": {"classes": ["image"]}}),
        extra(middleware={"storage": [{"name": "cloudfront", "options": {"baseurl": "https://x", "ttl": "20m"}}]}),
        options(auth="none", extra_config={"auth": {"token": {"realm": "https://a/t", "service": "a", "issuer": "a", "jwks": "/j"}}}),
        options(version="2.8.3", extra_config={"compatibility": {"schema1": {"enabled": False}}}),
    ],
)
def test_what_the_registry_understands_is_accepted(wanted):
    assert config.find_problems(wanted) == []


def test_an_unknown_option_is_a_mistake_of_the_caller():
    with pytest.raises(ValueError, match="storge"):
        config.find_problems({"storge": {}})


def test_a_message_names_variable_problem_and_example():
    (message,) = config.messages(options(storage={"s3": {"region": "eu-central-1"}}), "registry_")
    assert message == (
        "registry_storage.s3.bucket (wharf_storage.s3.bucket): is missing. "
        "Example: registry_storage: {s3: {bucket: registry, region: us-east-1}}"
    )
    (message,) = config.messages(options(storage={"s3": {"region": "eu-central-1"}}))
    assert message.startswith("storage.s3.bucket: is missing. Example: storage: {s3: ")


def test_no_message_holds_a_secret():
    wanted = options(
        http_secret="SHORTSECRET",
        redis={"addr": "x", "password": 4711},
        storage={"s3": {**S3, "secretkey": "SECRET\nKEY"}},
        extra_config={"notifications": {"endpoints": [{"name": "a", "url": "ftp://user:URLSECRET@host/"}]}},
    )
    text = "\n".join(config.messages(wanted))
    for secret in ("SHORTSECRET", "4711", "SECRET\nKEY", "URLSECRET"):
        assert secret not in text


# ---------------------------------------------------------------------------------------------------------- rendering


def test_the_text_is_yaml_of_the_same_and_does_not_depend_on_order():
    built = config.build(
        extra(notifications={"endpoints": [{"name": "a", "url": "https://a/e", "headers": {"X": ["1", "2"]}}, {"name": "b"}]})
    )
    text = config.render(built)
    assert yaml.safe_load(text) == built
    assert config.parse(text) == built
    backwards = dict(
        reversed([(key, dict(reversed(list(value.items()))) if isinstance(value, dict) else value) for key, value in built.items()])
    )
    assert config.render(backwards) == text
    assert config.checksum(text) == config.checksum(config.render(backwards))


@pytest.mark.parametrize(
    "text", ["0123", "yes", "1e3", "0x1f", "null", "~", "a: b", "# x", "é", "\u2028", '"', "\\", "{{ x }}", "\U0001f600", " a ", "1:30"]
)
def test_every_text_stays_that_text(text):
    built = {"storage": {"s3": {"secretkey": text, "list": [text, {text: text}]}}}
    assert yaml.safe_load(config.render(built)) == built
    assert config.parse(config.render(built)) == built


@pytest.mark.parametrize("text", ["a: &x 1\n", "a:\n   b: 1\n", "a: b\n", "- 1\n", "a:\n", "a: 'x'\n", "{a: 1}\n"])
def test_other_yaml_is_not_guessed(text):
    with pytest.raises(ValueError):
        config.parse(text)


def test_any_tree_survives():
    hypothesis = pytest.importorskip("hypothesis")
    strategies = pytest.importorskip("hypothesis.strategies")
    text = strategies.text(strategies.characters(codec="utf-8", exclude_categories=("Cs", "Cc")), max_size=8)
    scalars = strategies.one_of(text, strategies.booleans(), strategies.integers(-(2**40), 2**40))
    trees = strategies.recursive(
        scalars,
        lambda inner: strategies.one_of(strategies.lists(inner, max_size=3), strategies.dictionaries(text, inner, max_size=3)),
        max_leaves=10,
    )

    @hypothesis.settings(max_examples=150, deadline=None)
    @hypothesis.given(strategies.dictionaries(text, trees, max_size=4))
    def survives(tree):
        rendered = config.render(tree)
        assert (config.parse(rendered) if tree else {}) == tree
        assert (yaml.safe_load(rendered) or {}) == tree

    survives()


# ------------------------------------------------------------------------------------------------------------ secrets

HIDDEN = extra(
    notifications={"endpoints": [{"name": "a", "url": "https://u:URLSECRET@a/e", "headers": {"Authorization": ["Bearer HEADERSECRET"]}}]},
    proxy={"remoteurl": "https://a", "password": "PROXYSECRET"},
    log={"hooks": [{"type": "mail", "options": {"smtp": {"addr": "a:25", "password": "MAILSECRET"}}}]},
    middleware={"storage": [{"name": "cloudfront", "options": {"privatekey": "KEYSECRET"}}]},
)
HIDDEN["redis"] = {"addr": "r:1", "password": "REDISSECRET"}


def test_a_diff_shows_no_secret_and_that_it_differs():
    first = config.build(HIDDEN)
    second = config.build({**HIDDEN, "http_secret": "f" * 64, "log_level": "debug"})
    before, after = config.masked_pair(first, second)
    for secret in (
        "URLSECRET",
        "HEADERSECRET",
        "PROXYSECRET",
        "MAILSECRET",
        "KEYSECRET",
        "REDISSECRET",
        S3["secretkey"],
        S3["accesskey"],
        SECRET,
        "f" * 64,
    ):
        assert secret not in before + after
    assert '  secret: "<old secret>"' in before.splitlines()
    assert '  secret: "<new secret>"' in after.splitlines()
    assert '    secretkey: "<secret>"' in before.splitlines()
    assert {tuple(pair) for pair in zip(before.splitlines(), after.splitlines(), strict=False) if pair[0] != pair[1]} == {
        ('  level: "info"', '  level: "debug"'),
        ('  secret: "<old secret>"', '  secret: "<new secret>"'),
    }


def test_nothing_before_is_an_empty_file():
    before, after = config.masked_pair({}, config.build(HIDDEN))
    assert before == ""
    assert "<new secret>" in after


def test_secret_values_are_found_for_no_log():
    found = config.secret_values(config.build(HIDDEN))
    assert {"REDISSECRET", "Bearer HEADERSECRET", "PROXYSECRET", "MAILSECRET", "KEYSECRET", SECRET, S3["secretkey"]} <= set(found)
    assert "registry" not in found


# ------------------------------------------------------------------------------------------------------------- schema


@pytest.mark.parametrize("generation", [2, 3])
def test_examples_in_the_schema_are_right_themselves(generation):
    """Each example that is a value must pass the rule that tells it."""

    def walk(rule, path):
        example = getattr(rule, "example", "")
        if (
            example
            and "…" not in example
            and "..." not in example
            and isinstance(rule, (schema.Text, schema.Number, schema.Flag, schema.Duration))
        ):
            value = yaml.safe_load(example) if not isinstance(rule, (schema.Text, schema.Duration)) else example.strip('"')
            assert schema.check(rule, value) == [], path
        if isinstance(rule, schema.Table):
            for key, inner in rule.keys.items():
                walk(inner, path + (key,))
        elif isinstance(rule, (schema.Items, schema.Free)):
            walk(rule.item, path)

    walk(schema.schema(generation), ())
