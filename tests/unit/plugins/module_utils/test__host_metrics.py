# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a host tells of itself: each part from what is really there, and no part that is kept from telling by another."""

from __future__ import annotations

import calendar
import datetime
import json
import os
import subprocess
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from ansible_collections.wharf.registry.plugins.module_utils import _cli, _host_metrics
from ansible_collections.wharf.registry.plugins.module_utils._registry import config as registry_config


def values(samples):
    """The samples by name and labels."""
    return {(sample.name, *(value for _key, value in sample.labels)): sample.value for sample in samples}


def certificate(not_after):
    """A certificate that ends then, as PEM and as DER."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "registry.example.com")])
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key()).serial_number(7)
    made = builder.not_valid_before(datetime.datetime(2020, 1, 1)).not_valid_after(not_after).sign(key, hashes.SHA256())
    return made.public_bytes(serialization.Encoding.PEM).decode(), made.public_bytes(serialization.Encoding.DER)


@pytest.mark.parametrize(
    "moment", [datetime.datetime(2026, 12, 31, 23, 59, 59), datetime.datetime(2049, 12, 31), datetime.datetime(2051, 2, 3, 4, 5, 6)]
)
def test_the_end_of_a_certificate(moment):
    # From 2050 on the time is written in another form.
    _pem, der = certificate(moment)
    assert _host_metrics.not_after(der) == calendar.timegm(moment.timetuple())


def test_what_is_no_certificate_is_refused():
    _pem, der = certificate(datetime.datetime(2030, 1, 1))
    for broken in (b"", b"0", der[:60], b"\x30\x82\xff\xff" + der[4:], bytes(500), os.urandom(300)):
        with pytest.raises(_host_metrics.MetricsError):
            _host_metrics.not_after(broken)


def test_the_first_certificate_of_a_file_counts(tmp_path):
    first, _der = certificate(datetime.datetime(2030, 1, 1))
    second, _der = certificate(datetime.datetime(2040, 1, 1))
    (tmp_path / "tls.crt").write_text("# a comment\n" + first + second)
    assert values(_host_metrics.certificate("edge", str(tmp_path / "tls.crt"))) == {
        ("wharf_certificate_not_after_timestamp_seconds", "edge"): calendar.timegm((2030, 1, 1, 0, 0, 0))
    }


def test_the_storage_is_its_file_system_as_df_counts(tmp_path):
    found = values(_host_metrics.storage({"name": "nfs:/export", "path": str(tmp_path)}))
    columns = subprocess.run(
        ["df", "--block-size=1", "--output=used,avail", str(tmp_path)], capture_output=True, text=True, check=True
    ).stdout.splitlines()[1]
    used, available = map(int, columns.split())
    # Others write to it meanwhile.
    assert found["wharf_storage_size_bytes", "nfs:/export"] == pytest.approx(used + available, rel=0.01)
    assert found["wharf_storage_available_bytes", "nfs:/export"] == pytest.approx(available, rel=0.05)


def test_what_is_kept_for_root_is_not_the_registrys(monkeypatch):
    kept = os.statvfs_result((4096, 4096, 1000, 300, 200, 0, 0, 0, 0, 255))
    monkeypatch.setattr(_host_metrics.os, "statvfs", lambda path: kept)
    found = values(_host_metrics.storage({"name": "local", "path": "/srv"}))
    assert found["wharf_storage_size_bytes", "local"] == 900 * 4096
    assert found["wharf_storage_available_bytes", "local"] == 200 * 4096


def test_a_storage_that_hangs_is_given_up(monkeypatch):
    monkeypatch.setattr(_host_metrics, "PATIENCE", 0.1)
    monkeypatch.setattr(_host_metrics.os, "statvfs", lambda path: time.sleep(30))
    begun = time.monotonic()
    with pytest.raises(_host_metrics.MetricsError, match="/srv/gone does not answer"):
        _host_metrics.storage({"name": "nfs", "path": "/srv/gone"})
    assert time.monotonic() - begun < 5


class Healthz(BaseHTTPRequestHandler):
    """Answers what the test says."""

    answer: tuple = ()

    def do_GET(self):
        status, body = self.answer
        self.send_response(status)
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())

    def log_message(self, *_arguments):
        pass


@pytest.mark.parametrize(
    "answer, found",
    [
        ((200, {"checks": {"registry": {"healthy": True}, "storage_write": {"healthy": True}}}), {"registry": 1, "storage_write": 1}),
        ((503, {"checks": {"registry": {"healthy": True}, "storage_write": {"healthy": False}}}), {"registry": 1, "storage_write": 0}),
        (
            (503, {"checks": {"registry": {"healthy": True}, "storage_write": {"healthy": True}, "nfs": {"healthy": False}}}),
            {"nfs": 0, "registry": 1, "storage_write": 1},
        ),
        ((503, {}), {"registry": 0, "storage_write": 0}),
    ],
)
def test_the_probe_tells_the_same_here(answer, found):
    Healthz.answer = answer
    with ThreadingHTTPServer(("127.0.0.1", 0), Healthz) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        part = {"url": "http://127.0.0.1:%d/healthz" % server.server_port, "storage": "storage_write"}
        assert values(_host_metrics.probe(part)) == {("wharf_probe_healthy", check): value for check, value in found.items()}
        server.shutdown()


def test_a_probe_that_does_not_answer_is_no_good_news():
    part = {"url": "http://127.0.0.1:9/healthz", "storage": "storage_read"}
    assert values(_host_metrics.probe(part)) == {("wharf_probe_healthy", "registry"): 0, ("wharf_probe_healthy", "storage_read"): 0}


def test_an_address_is_held_or_not(monkeypatch, tmp_path):
    (tmp_path / "ip").write_text('#!/bin/sh\n[ "$5" = 192.0.2.1 ] && echo "1: eth0 inet 192.0.2.1/24"; exit 0\n')
    (tmp_path / "ip").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert values(_host_metrics.vip("192.0.2.1")) == {("wharf_vip_held",): 1}
    assert values(_host_metrics.vip("192.0.2.2")) == {("wharf_vip_held",): 0}


def test_what_the_checker_thinks(tmp_path):
    nodes = {
        "r1": {"healthy": True, "reason": "", "drained_until": None, "serving": True},
        "r2": {"healthy": False, "reason": "no answer", "drained_until": 5.0, "serving": False},
    }
    (tmp_path / "status.json").write_text(json.dumps({"nodes": nodes, "applied": True, "problem": ""}))
    found = values(_host_metrics.balancer(str(tmp_path / "status.json")))
    assert [found["wharf_balancer_node_" + what, "r1"] for what in ("healthy", "serving", "drained")] == [1, 1, 0]
    assert [found["wharf_balancer_node_" + what, "r2"] for what in ("healthy", "serving", "drained")] == [0, 0, 1]


def test_secrets_that_differ_look_different_and_are_not_told(tmp_path):
    told = {}
    for name, secret in (("a", "one secret of the nodes"), ("b", "one secret of the nodes"), ("c", "another one")):
        path = tmp_path / name
        path.write_text(registry_config.render({"version": 0.1, "http": {"addr": ":5000", "secret": secret}}))
        (sample,) = _host_metrics.http_secret(str(path))
        told[name] = dict(sample.labels)["value"]
        assert secret not in _host_metrics.render([sample])
    assert told["a"] == told["b"] != told["c"]


def test_one_broken_part_keeps_no_other_from_telling(tmp_path):
    said = []
    config = {
        "storage": {"name": "x", "path": str(tmp_path / "gone")},
        "balancer": str(tmp_path / "gone"),
        "certificates": {"edge": str(tmp_path / "gone")},
        "registry_config": str(tmp_path / "gone"),
        "image": str(tmp_path / "image"),
    }
    (tmp_path / "image").write_text("sha256:abc\n")
    found = values(_host_metrics.collect(config, said.append))
    assert ("wharf_setting_info", "image", "sha256:abc") in found
    assert len(found) == 2 and ("wharf_host_last_look_timestamp_seconds",) in found
    assert [line.split(":")[0] for line in said] == ["storage", "balancer", "certificate edge", "http_secret"]


def test_the_file_explains_each_name_once_and_quotes_values():
    text = _host_metrics.render(
        [
            _host_metrics.Sample("wharf_setting_info", 1.0, (("setting", "image"), ("value", 'a"b\\c\nd'))),
            _host_metrics.Sample("wharf_vip_held", 0.0),
            _host_metrics.Sample("wharf_setting_info", 1.0, (("setting", "http_secret"), ("value", "x"))),
        ]
    )
    assert text.splitlines()[1:4] == [
        "# TYPE wharf_setting_info gauge",
        'wharf_setting_info{setting="image",value="a\\"b\\\\c\\nd"} 1.0',
        'wharf_setting_info{setting="http_secret",value="x"} 1.0',
    ]
    assert text.count("# TYPE") == 2 and text.endswith("wharf_vip_held 0.0\n")


def test_the_command_writes_the_file(tmp_path, capsys):
    output = tmp_path / "host.prom"
    (tmp_path / "metrics.json").write_text(json.dumps({"output": str(output)}))
    assert _cli.main(["metrics", "--config", str(tmp_path / "metrics.json")]) == 0
    assert "wharf_host_last_look_timestamp_seconds " in output.read_text()
    assert oct(output.stat().st_mode)[-3:] == "644"
    (tmp_path / "metrics.json").write_text("[]")
    assert _cli.main(["metrics", "--config", str(tmp_path / "metrics.json")]) == 2
    (tmp_path / "metrics.json").write_text(json.dumps({"output": str(tmp_path / "no/such/host.prom")}))
    assert _cli.main(["metrics", "--config", str(tmp_path / "metrics.json")]) == 1
    assert "cannot be written" in capsys.readouterr().err
