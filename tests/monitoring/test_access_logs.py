# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What mtail makes of access logs: lines in the formats that the roles give to nginx, and the metrics that they must become.

The lines are built from the `log_format` of the roles' own templates, so a field that is added, removed or moved there is met here.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import jinja2
import pytest
from ruletests import CHECKOUT

sys.path.insert(0, str(CHECKOUT / "tests/lab"))

import images  # noqa: E402  (the lab's own modules, found through the path above)

ROLES = CHECKOUT / "roles"
FORMATS = {
    "edge": ROLES / "registry_edge/templates/wharf_edge.conf.j2",
    "http": ROLES / "nginx_lb/templates/http.conf.j2",
    "stream": ROLES / "nginx_lb/templates/stream.conf.j2",
}
COMMON = {"time_iso8601": "2026-11-25T01:00:00+00:00", "msec": "1795568400.123", "server_port": "5443", "request_completion": "OK"}
EDGE = {
    **COMMON,
    "request_method": "GET",
    "wharf_edge_path": "/v2/shop/web/manifests/latest",
    "status": "200",
    "request_time": "0.050",
    "request_length": "300",
    "bytes_sent": "1000",
    "body_bytes_sent": "700",
    "remote_user": "",
}
HTTP = {
    **COMMON,
    "request_method": "GET",
    "uri": "/v2/shop/web/manifests/latest",
    "status": "200",
    "request_time": "0.050",
    "request_length": "300",
    "bytes_sent": "1000",
    "upstream_addr": "192.0.2.11:5443",
    "upstream_status": "200",
}
STREAM = {**COMMON, "remote_port": "40000", "status": "200", "bytes_sent": "1", "bytes_received": "1", "session_time": "0.5"}
BLOB = "/v2/shop/web/blobs/sha256:abc"
UPLOAD = "/v2/shop/web/blobs/uploads/3b241101-e2bb-4255-8caf-4136c566a962"


@pytest.fixture(scope="module")
def mtail() -> Path:
    """The distribution's mtail, without the service that comes with it."""

    def make(folder: Path) -> Path:
        subprocess.run(["apt-get", "download", "-q", "mtail"], cwd=folder, check=True, capture_output=True, timeout=120)
        subprocess.run(["dpkg-deb", "-x", next(folder.glob("mtail_*.deb")), folder], check=True, timeout=60)
        return folder / "usr/bin/mtail"

    return images.tool("mtail", "Fetching mtail", make)


def line(kind: str, **values: str) -> str:
    """A line of the log, as nginx would write it with these variables."""
    text = FORMATS[kind].read_text()
    parts = re.search(r"log_format wharf_(?:edge|lb) escape=json\s+((?:'[^']*'\s*)+);", text)
    assert parts
    template = "".join(re.findall(r"'([^']*)'", parts[1]))
    defaults = {"edge": EDGE, "http": HTTP, "stream": STREAM}[kind]
    given = {**defaults, **values}
    filled = re.sub(r"\$(\w+)", lambda name: json.dumps(given.get(name[1], "-"))[1:-1], template)
    json.loads(filled)
    return filled


def count(mtail: Path, folder: Path, lines: Iterable[str], mode: str, clients: str) -> dict[str, float]:
    """The metrics after these lines: name with labels → value; those that are 0 are left out."""
    balancer = "" if mode == "none" else str(folder / "balancer.log")
    template = jinja2.Environment(trim_blocks=True, keep_trailing_newline=True).from_string(
        (ROLES / "exporters/templates/wharf.mtail.j2").read_text()
    )
    program = template.render(
        exporters_edge_log=str(folder / "edge.log"),
        exporters_balancer_log=balancer,
        exporters_balancer_mode=mode,
        exporters_clients_at=clients,
    )
    (folder / "wharf.mtail").write_text(program)
    (folder / "edge.log").write_text("".join(f"{one}\n" for one in lines))
    command = [mtail, "--one_shot", "--one_shot_format=prometheus", "--emit_prog_label=false", "--progs", folder / "wharf.mtail"]
    # Otherwise it listens on its usual port.
    command += ["--logs", folder / "edge.log", "--address", "127.0.0.1", "--port", "0"]
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    found = {}
    for one in done.stdout.splitlines():
        name, _space, value = one.rpartition(" ")
        if name and not name.startswith("#") and float(value):
            found[name] = float(value)
    return found


def clients(found: dict[str, float]) -> dict[str, float]:
    """What was counted of clients, in short: `reads`, `read_errors`, `writes`, `write_errors`, and time-outs by their reason."""
    short = {}
    for name, value in found.items():
        if name.startswith("wharf_client_") and not name.endswith("pull_timeouts_total"):
            reason = re.search(r'reason="(\w+)"', name)
            short[reason[1] if reason else name.removeprefix("wharf_client_").removesuffix("_total")] = value
    timeouts = sum(value for name, value in found.items() if "by_reason" in name)
    assert timeouts == found.get("wharf_client_pull_timeouts_total", 0)
    return short


CASES = {
    "manifest": ({}, {"reads": 1}),
    "blob": ({"path": BLOB}, {"reads": 1}),
    "head": ({"request_method": "HEAD"}, {"reads": 1}),
    "not found": ({"status": "404"}, {"reads": 1}),
    "redirect": ({"path": BLOB, "status": "307"}, {"reads": 1}),
    "error": ({"status": "500"}, {"reads": 1, "read_errors": 1}),
    "unavailable": ({"status": "503"}, {"reads": 1, "read_errors": 1}),
    "gateway": ({"status": "504"}, {"reads": 1, "read_errors": 1, "gateway": 1}),
    "gateway, of a head": ({"status": "504", "request_method": "HEAD"}, {"reads": 1, "read_errors": 1}),
    "given up at once": ({"status": "499", "request_time": "4.999", "request_completion": ""}, {"reads": 1}),
    "given up late": ({"status": "499", "request_time": "5.000", "request_completion": ""}, {"reads": 1, "read_errors": 1, "stalled": 1}),
    "cut": ({"path": BLOB, "request_completion": ""}, {"reads": 1, "read_errors": 1, "cut": 1}),
    "cut part": ({"path": BLOB, "status": "206", "request_completion": ""}, {"reads": 1, "read_errors": 1, "cut": 1}),
    "head without a body": ({"request_method": "HEAD", "request_completion": ""}, {"reads": 1}),
    "list": ({"path": "/v2/shop/web/tags/list", "status": "504"}, {}),
    "catalogue": ({"path": "/v2/_catalog"}, {}),
    "ping": ({"path": "/v2/", "status": "401"}, {}),
    "begun upload": ({"path": "/v2/shop/web/blobs/uploads/", "request_method": "POST", "status": "202"}, {"writes": 1}),
    "part of an upload": ({"path": UPLOAD, "request_method": "PATCH", "status": "202"}, {"writes": 1}),
    "upload that failed": ({"path": UPLOAD, "request_method": "PUT", "status": "502"}, {"writes": 1, "write_errors": 1}),
    "upload that was given up": ({"path": UPLOAD, "request_method": "PATCH", "status": "499", "request_time": "60.000"}, {"writes": 1}),
    "state of an upload": ({"path": UPLOAD, "status": "204"}, {}),
    "tag": ({"request_method": "PUT", "status": "201"}, {"writes": 1}),
    "deletion": ({"request_method": "DELETE", "status": "202"}, {}),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("kind", ["edge", "http"])
def test_what_counts_for_clients(mtail: Path, tmp_path: Path, kind: str, case: str) -> None:
    values, wanted = CASES[case]
    values = dict(values)
    if "path" in values:
        values["wharf_edge_path" if kind == "edge" else "uri"] = values.pop("path")
    found = count(mtail, tmp_path, [line(kind, **values)], *(("none", "edge") if kind == "edge" else ("http", "balancer")))
    assert clients(found) == wanted
    assert "wharf_log_lines_unparsed_total" not in found


@pytest.mark.parametrize(
    "attempts, statuses, status, wanted",
    [
        ("192.0.2.11:5443, 192.0.2.12:5443", "504, 200", "200", {"reads": 1}),
        ("192.0.2.11:5443, 192.0.2.12:5443", "504, 504", "503", {"reads": 1, "read_errors": 1, "gateway": 1}),
        ("192.0.2.11:5443, 192.0.2.12:5443, 192.0.2.13:5443", "502, 502, 504", "503", {"reads": 1, "read_errors": 1, "gateway": 1}),
        ("192.0.2.11:5443, 192.0.2.12:5443", "504, 502", "503", {"reads": 1, "read_errors": 1}),
        ("[2001:db8::1]:5443, [2001:db8::2]:5443", "504, 200", "200", {"reads": 1}),
    ],
)
def test_a_repeated_read_counts_once(
    mtail: Path, tmp_path: Path, attempts: str, statuses: str, status: str, wanted: dict[str, int]
) -> None:
    found = count(mtail, tmp_path, [line("http", upstream_addr=attempts, upstream_status=statuses, status=status)], "http", "balancer")
    assert clients(found) == wanted
    for address, answer in zip(attempts.split(", "), statuses.split(", "), strict=True):
        assert found[f'wharf_balancer_requests_total{{status="{answer}",upstream="{address}"}}'] == 1


def test_an_edge_behind_a_balancer_counts_no_clients(mtail: Path, tmp_path: Path) -> None:
    found = count(mtail, tmp_path, [line("edge")], "http", "balancer")
    assert clients(found) == {}
    assert found['wharf_edge_requests_total{operation="manifest_get",project="shop",status="200"}'] == 1


@pytest.mark.parametrize(
    "user, status, wanted",
    [
        ("alice", "200", {"credentials_checked": 1}),
        ("alice", "404", {"credentials_checked": 1}),
        ("alice", "401", {"credentials_checked": 1, "credentials_refused": 1}),
        ("alice", "403", {"credentials_checked": 1}),
        ("alice", "429", {}),
        ("alice", "503", {}),
        ("", "401", {"challenges": 1}),
        ("", "200", {}),
    ],
)
def test_credentials(mtail: Path, tmp_path: Path, user: str, status: str, wanted: dict[str, int]) -> None:
    found = count(mtail, tmp_path, [line("edge", remote_user=user, status=status)], "none", "")
    told = {name.removeprefix("wharf_").removesuffix("_total"): value for name, value in found.items() if re.match("wharf_c", name)}
    assert told == wanted


OPERATIONS = [
    ("GET", "/v2/shop/web/manifests/latest", "manifest_get"),
    ("HEAD", "/v2/shop/a/b/manifests/sha256:0", "manifest_head"),
    ("PUT", "/v2/shop/web/manifests/latest", "manifest_put"),
    ("DELETE", "/v2/shop/web/manifests/sha256:0", "manifest_delete"),
    ("GET", BLOB, "blob_get"),
    ("HEAD", BLOB, "blob_head"),
    ("DELETE", BLOB, "blob_delete"),
    ("POST", "/v2/shop/web/blobs/uploads/", "blob_upload"),
    ("PATCH", UPLOAD, "blob_upload"),
    ("GET", "/v2/shop/web/tags/list", "tags"),
    ("GET", "/v2/shop/web/referrers/sha256:0", "referrers"),
]


def test_operations_and_projects(mtail: Path, tmp_path: Path) -> None:
    lines = [line("edge", request_method=method, wharf_edge_path=path) for method, path, _operation in OPERATIONS]
    others = [("/v2/", "ping"), ("/v2", "ping"), ("/v2/_catalog", "catalog"), ("/auth/token", "token"), ("/robots.txt", "other")]
    found = count(mtail, tmp_path, lines + [line("edge", wharf_edge_path=path) for path, _operation in others], "none", "")
    wanted: dict[str, float] = {}
    for operation, project in [(one[2], "shop") for one in OPERATIONS] + [(one[1], "") for one in others]:
        name = f'wharf_edge_requests_total{{operation="{operation}",project="{project}",status="200"}}'
        wanted[name] = wanted.get(name, 0) + 1
    assert {name: value for name, value in found.items() if name.startswith("wharf_edge_requests_total")} == wanted
    assert found['wharf_edge_bytes_sent_total{operation="blob_upload",project="shop"}'] == 2000
    assert found['wharf_edge_request_duration_seconds_count{operation="blob_upload"}'] == 2


@pytest.mark.parametrize("status, named", [("200", True), ("307", True), ("500", True), ("401", False), ("403", False), ("404", False)])
def test_nobody_makes_series_with_names_that_do_not_exist(mtail: Path, tmp_path: Path, status: str, named: bool) -> None:
    found = count(mtail, tmp_path, [line("edge", status=status)], "none", "")
    assert any('project="shop"' in name for name in found) == named


@pytest.mark.parametrize(
    "hostile", ['"', '\\"', '","status":500,"x":"', "\\", "a\nb", "\x01", "é", "%22", "/v2/shop/web/manifests/x\\\\", "x" * 5000]
)
def test_what_a_client_sends_is_never_read_as_something_else(mtail: Path, tmp_path: Path, hostile: str) -> None:
    lines = [
        line("edge", remote_user=hostile, http_host=hostile, wharf_edge_path=f"/v2/{hostile}", arg_digest=hostile, http_user_agent=hostile),
        line("http", host=hostile, uri=f"/v2/{hostile}", http_user_agent=hostile),
    ]
    found = count(mtail, tmp_path, lines, "http", "balancer")
    assert "wharf_log_lines_unparsed_total" not in found
    assert not any('status="500"' in name for name in found)


def test_connections_of_a_stream_balancer(mtail: Path, tmp_path: Path) -> None:
    lines = [
        line("stream", upstream_addr="192.0.2.11:5444"),
        line("stream", upstream_addr="192.0.2.11:5444, 192.0.2.12:5444", status="502"),
    ]
    found = count(mtail, tmp_path, lines, "stream", "edge")
    assert found == {
        'wharf_balancer_sessions_total{status="200",upstream="192.0.2.11:5444"}': 1,
        'wharf_balancer_sessions_total{status="502",upstream="192.0.2.12:5444"}': 1,
    }


@pytest.mark.parametrize("stranger", ['127.0.0.1 - - [25/Nov/2026] "GET / HTTP/1.1" 200', "{}", '{"time":"x"}', '{"status":200}'])
def test_other_lines_are_told(mtail: Path, tmp_path: Path, stranger: str) -> None:
    assert count(mtail, tmp_path, [stranger, line("edge")], "http", "balancer")["wharf_log_lines_unparsed_total"] == 1


def test_counters_begin_at_zero(mtail: Path, tmp_path: Path) -> None:
    """Else the first failure after a start would be no increase."""
    count(mtail, tmp_path, [], "none", "edge")
    command = [
        str(mtail),
        "--one_shot",
        "--one_shot_format=prometheus",
        "--emit_prog_label=false",
        "--progs",
        str(tmp_path / "wharf.mtail"),
    ]
    command += ["--logs", str(tmp_path / "edge.log"), "--address", "127.0.0.1", "--port", "0"]
    text = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    for name in ("reads", "read_errors", "writes", "write_errors", "pull_timeouts"):
        assert f"\nwharf_client_{name}_total 0\n" in f"\n{text}"
