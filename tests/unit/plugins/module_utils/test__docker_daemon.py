# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""daemon.json: three writers, one file; nothing of others is ever lost, nothing of ours is left behind."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.wharf.registry.plugins.module_utils import _docker_daemon as docker_daemon

scalars = st.one_of(st.booleans(), st.integers(0, 5), st.sampled_from(["a", "b", "c"]))
values = st.one_of(
    scalars,
    st.lists(st.sampled_from(["a", "b", "c", "d"]), unique=True, max_size=3),
    st.dictionaries(st.sampled_from("xyz"), scalars, max_size=3),
)
# Each name has one kind of value, as in the engine's format.
options = st.fixed_dictionaries(
    {},
    optional={
        "live-restore": st.booleans(),
        "mtu": st.integers(1, 9),
        "registry-mirrors": st.lists(st.sampled_from(["a", "b", "c", "d"]), unique=True, max_size=3),
        "log-opts": st.dictionaries(st.sampled_from(["max-size", "max-file", "tag"]), st.sampled_from(["1", "2"]), max_size=3),
    },
)


def plan(current, record, wanted):
    return docker_daemon.plan(current, record, wanted)


def test_others_keep_their_options_entries_and_items():
    theirs = {"labels": ["a=b"], "log-opts": {"tag": "x"}, "registry-mirrors": ["https://theirs.example.com"]}
    first = plan(theirs, {}, {"live-restore": True, "log-opts": {"max-size": "20m"}, "registry-mirrors": ["https://ours.example.com"]})
    assert first.after == {
        "labels": ["a=b"],
        "live-restore": True,
        "log-opts": {"tag": "x", "max-size": "20m"},
        "registry-mirrors": ["https://ours.example.com", "https://theirs.example.com"],
    }
    assert plan(first.after, first.record, {}).after == theirs


def test_an_option_that_was_there_before_us_is_not_ours_to_remove():
    first = plan({"live-restore": True}, {}, {"live-restore": True})
    assert not first.changed
    assert plan(first.after, first.record, {}).after == {"live-restore": True}


def test_null_takes_a_former_option_of_ours_away_and_leaves_others_alone():
    first = plan({}, {}, {"mtu": 1400, "log-opts": {"max-size": "1m", "max-file": "2"}})
    second = plan(first.after, first.record, {"mtu": None, "log-opts": {"max-size": "1m", "max-file": None}})
    assert second.after == {"log-opts": {"max-size": "1m"}}
    assert plan({"mtu": 1400}, {}, {"mtu": None}).after == {"mtu": 1400}


def test_what_somebody_changed_since_is_theirs():
    first = plan({}, {}, {"mtu": 1400})
    assert plan({"mtu": 9000}, first.record, {}).after == {"mtu": 9000}


@pytest.mark.parametrize(
    ("before", "wanted", "restart"),
    [
        ({}, {"registry-mirrors": ["https://m.example.com"]}, []),
        ({}, {"live-restore": True}, []),
        ({}, {"log-driver": "local", "debug": True}, ["log-driver"]),
    ],
)
def test_restart_only_for_what_a_reload_does_not_bring(before, wanted, restart):
    assert plan(before, {}, wanted).restart_keys == restart


def test_a_removed_option_needs_a_restart_because_a_reload_keeps_its_value():
    first = plan({}, {}, {"registry-mirrors": ["https://m.example.com"]})
    assert plan(first.after, first.record, {}).restart_keys == ["registry-mirrors"]


@given(theirs=options, wanted=options)
def test_second_run_changes_nothing_and_says_so(theirs, wanted):
    first = plan(theirs, {}, wanted)
    second = plan(first.after, first.record, wanted)
    assert not second.changed
    assert second.record == first.record


@given(theirs=options, wanted=options)
def test_wanted_options_are_in_force_and_foreign_items_survive(theirs, wanted):
    after = plan(theirs, {}, wanted).after
    for name, value in wanted.items():
        if isinstance(value, dict):
            assert {**after[name], **value} == after[name]
        elif isinstance(value, list):
            assert after[name][: len(value)] == value
        else:
            assert after[name] == value
    assert set(after) == {*theirs, *wanted}
    assert set(theirs.get("registry-mirrors", [])) <= set(after.get("registry-mirrors", []))


@given(theirs=options, wanted=options)
def test_removal_leaves_what_was_there_apart_from_values_that_ours_replaced(theirs, wanted):
    first = plan(theirs, {}, wanted)
    rest = plan(first.after, first.record, {}).after
    for name, value in theirs.items():
        if name not in wanted:
            assert rest[name] == value
        elif isinstance(value, list):
            assert set(rest.get(name, [])) == set(value)
    assert set(rest) <= set(theirs)


@given(first=options, second=options)
def test_moving_on_equals_starting_with_the_new_options(first, second):
    one = plan({}, {}, first)
    assert plan(one.after, one.record, second).after == plan({}, {}, second).after


@given(value=st.dictionaries(st.sampled_from("abc"), values))
def test_what_is_rendered_is_read_again(value):
    assert docker_daemon.parse(docker_daemon.render(value), "daemon.json") == value


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"debug": tru}', "line 1, column 11"),
        ("[]", "no JSON object"),
        ('{"debug": true, "debug": false}', "debug twice"),
    ],
)
def test_a_broken_file_is_refused_and_said_where(text, message):
    with pytest.raises(docker_daemon.ConfigurationRefused, match=message):
        docker_daemon.parse(text, "/etc/docker/daemon.json")


def test_an_empty_file_means_no_options():
    assert docker_daemon.parse(" \n", "daemon.json") == {}


def test_options_unknown_to_an_old_engine_are_named():
    docker_daemon.refuse_unknown({"live-restore": True, "log-opts": {}, "registry-mirrors": []})
    with pytest.raises(docker_daemon.ConfigurationRefused, match="live-restor;"):
        docker_daemon.refuse_unknown({"live-restor": True})


@pytest.mark.parametrize(
    ("words", "flags"),
    [
        ("/usr/sbin/dockerd -H fd:// $DOCKER_OPTS", ["-H", "fd://"]),
        (
            "/usr/bin/dockerd -H fd:// --containerd=/run/containerd/containerd.sock",
            ["-H", "fd://", "--containerd=/run/containerd/containerd.sock"],
        ),
        ("/usr/bin/dockerd --config-file /etc/x.json --pidfile=/run/p --debug", ["--debug"]),
    ],
)
def test_flags_of_the_unit_without_its_files_and_variables(words, flags):
    shown = f"{{ path=/usr/bin/dockerd ; argv[]={words} ; ignore_errors=no ; start_time=[n/a] }}"
    assert docker_daemon.daemon_flags(shown) == flags


def test_no_unit_has_no_flags():
    assert docker_daemon.daemon_flags("") == []


def test_a_diff_shows_no_tokens_and_no_passwords():
    shown = json.dumps(
        docker_daemon.public(
            {"log-opts": {"splunk-token": "t0p"}, "proxies": {"http-proxy": "http://me:hush@proxy:3128"}, "labels": ["a=b"]}
        )
    )
    assert "t0p" not in shown
    assert "hush" not in shown
    assert "proxy:3128" in shown
    assert "a=b" in shown
