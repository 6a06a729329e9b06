# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The filters of preflight: one verdict from variables and results."""

from __future__ import annotations

from ansible_collections.wharf.registry.plugins.filter.preflight_report import documented_variables, preflight_report
from ansible_collections.wharf.registry.plugins.filter.unknown_variables import FilterModule


def test_unknown_variables_is_a_filter():
    unknown = FilterModule().filters()["unknown_variables"]
    assert unknown(["wharf_nmae", "mine"], ["wharf_name"]) == [{"name": "wharf_nmae", "nearest": "wharf_name"}]


def write_spec(directory, role, options):
    meta = directory / role / "meta"
    meta.mkdir(parents=True)
    lines = "".join(f"      {name}: {{type: str}}\n" for name in options)
    meta.joinpath("argument_specs.yml").write_text(f"argument_specs:\n  main:\n    options:\n{lines}")


def test_verdict(tmp_path):
    write_spec(tmp_path, "registry", ["registry_storage"])
    write_spec(tmp_path, "preflight", ["wharf_name"])
    assert documented_variables(str(tmp_path)) == ({"wharf", "registry", "preflight"}, {"registry_storage", "wharf_name"})
    finding = {"check": "cpu", "variable": "preflight_min_cpus", "value": "2 cores", "cause": "few", "cure": "more"}
    hostvars = {
        "a": {"registry_storge": 1, "result": {"findings": [finding], "observed": {}}},
        "b": {"result": {"msg": "the module broke"}},
        "c": {"result": {"unreachable": True}},
        "d": {"wharf_name": "bad_name.example.com"},
    }
    verdict = preflight_report(list("abcd"), hostvars, {}, result="result", reached=list("abc"), roles=str(tmp_path))
    assert verdict["passed"] is False
    for words in ("did you mean registry_storage?", "[a]", "the module broke", "bad_name", "not looked at: c, d."):
        assert words in verdict["text"]


def test_nothing_to_say():
    hostvars = {"a": {"result": {"findings": [], "observed": {}}}}
    verdict = preflight_report(["a"], hostvars, {}, result="result", reached=["a"])
    assert verdict == {"passed": True, "findings": {"": [], "a": []}, "text": "Nothing stands in the way on 1 host."}


def test_settings_of_the_play_count(tmp_path):
    hostvars = {"a": {"result": {"findings": [], "observed": {}}}}
    verdict = preflight_report(["a"], hostvars, {}, result="result", reached=["a"], settings={"wharf_balancer_mode": "tcp"})
    assert "wharf_balancer_mode = tcp" in verdict["text"]


def test_the_access_model_is_judged_where_it_counts(tmp_path):
    def told(**settings):
        hostvars = {"a": {"result": {"findings": [], "observed": {}}, "wharf_access": {"projects": {"shop": {"readers": ["bob"]}}}}}
        return preflight_report(["a"], hostvars, {}, result="result", reached=["a"], settings=settings)["text"]

    assert "there is no user bob" in told(wharf_auth="token")
    assert "there is no user bob" not in told(wharf_auth="htpasswd")
    assert "there is no user bob" not in told(wharf_auth="token", wharf_users=[{"name": "bob", "password": "x"}])
    accounts = tmp_path / "htpasswd"
    accounts.write_text("# accounts\nbob:x\nrobot-x:y\nwharf-probe:z\n")
    assert "there is no user bob" not in told(wharf_auth="token", token_auth_htpasswd_src=str(accounts))
