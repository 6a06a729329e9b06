# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""playbooks/report.yml: a node with a real registry, a Prometheus with recorded samples, a host that is down, and a real browser."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Iterator

import pytest
from recorded import CLUSTER, prometheus
from ruletests import CHECKOUT

sys.path.insert(0, str(CHECKOUT / "tests/acceptance"))
sys.path.insert(0, str(CHECKOUT / "tests/lab"))

from hosts import REGISTRY_3, RELEASES, host  # noqa: E402  (found through the path above)
from shell import apt_install  # noqa: E402

# JSON is YAML, and needs no library on the host.
REGISTRY = {
    "version": 0.1,
    "storage": {"filesystem": {"rootdirectory": "/srv/registry"}, "delete": {"enabled": True}},
    "http": {"addr": "127.0.0.1:5000"},
}
CONFIG = "application/vnd.oci.image.config.v1+json"
IMAGE = "application/vnd.oci.image.manifest.v1+json"
PUSH = """
import hashlib, json, urllib.request
root = "http://127.0.0.1:5000/v2/"
def ask(method, url, body=None, kind="application/octet-stream"):
    request = urllib.request.Request(url, body, {"Content-Type": kind}, method=method)
    return urllib.request.urlopen(request)
for number, name in enumerate(["shop/web", "shop/api", "team/tools"]):
    blobs = []
    for content in (b"{}", b"x" * 3000000 + name.encode()):
        digest = "sha256:" + hashlib.sha256(content).hexdigest()
        where = ask("POST", root + name + "/blobs/uploads/", b"").headers["Location"]
        ask("PUT", where + "&digest=" + digest, content)
        blobs.append({"mediaType": "CONFIG", "size": len(content), "digest": digest})
    manifest = {"schemaVersion": 2, "mediaType": "IMAGE", "config": blobs[0], "layers": blobs[1:]}
    ask("PUT", root + name + "/manifests/1", json.dumps(manifest).encode(), "IMAGE")
""".replace("CONFIG", CONFIG).replace("IMAGE", IMAGE)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The report, as the playbook writes it."""
    folder = tmp_path_factory.mktemp("report")
    with host("report", RELEASES["debian13"], services=True) as machine, prometheus(folder) as (address, end):
        machine.copy(REGISTRY_3, "/usr/local/bin/registry")
        machine.on("cat > /etc/registry.yml", stdin=json.dumps(REGISTRY))
        machine.on("OTEL_TRACES_EXPORTER=none systemd-run --unit registry -E OTEL_TRACES_EXPORTER=none registry serve /etc/registry.yml")
        machine.on("cat > /root/push.py", stdin=PUSH)
        machine.on("for i in $(seq 50); do python3 /root/push.py 2>/dev/null && exit 0; sleep 0.2; done; python3 /root/push.py")
        certificate = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "6"]
        certificate += ["-subj", "/CN=registry1", "-addext", "subjectAltName=DNS:registry.example.test"]
        subprocess.run([*certificate, "-keyout", "/dev/null", "-out", f"{folder}/tls.crt"], check=True, capture_output=True)
        machine.on("mkdir -p /etc/wharf/edge /var/lib/wharf/lifecycle")
        machine.copy(folder / "tls.crt", "/etc/wharf/edge/tls.crt")
        finding = {"kind": "missing-blob", "repository": "shop/<b>web</b>", "digest": "sha256:" + "0" * 64, "detail": "named by nobody"}
        collection = {"bytes_freed": 5 << 30, "bytes_pending": 1 << 20, "findings": [finding]}
        machine.on("cat > /var/lib/wharf/lifecycle/gc.json", stdin=json.dumps(collection))
        docker = {"ansible_connection": "community.docker.docker", "ansible_python_interpreter": "/usr/bin/python3", "ansible_user": "root"}
        nodes = {"registry1": {**docker, "ansible_host": machine.name}, "registry2": {**docker, "ansible_host": "no-such-container"}}
        watching = {"watch1": {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}}
        inventory = {
            "all": {
                "vars": {
                    "wharf_name": CLUSTER,
                    "cluster_report_config": "/etc/registry.yml",
                    "cluster_report_prometheus_url": address,
                    "cluster_report_hours": 1,
                    "cluster_report_until": end,
                },
                "children": {"registry_nodes": {"hosts": nodes}, "registry_monitoring": {"hosts": watching}},
            }
        }
        (folder / "inventory.yml").write_text(json.dumps(inventory))
        command = [str(Path(sys.executable).with_name("ansible-playbook")), "-i", str(folder / "inventory.yml")]
        command += [str(CHECKOUT / "playbooks/report.yml"), "-e", f"output={folder}/report.html", "-e", "hours=1"]
        environment = {
            "PATH": os.environ["PATH"],
            "ANSIBLE_COLLECTIONS_PATH": str(CHECKOUT / ".cache/collections"),
            "ANSIBLE_INJECT_FACT_VARS": "false",
            "ANSIBLE_HOME": f"{folder}/home",
            "LC_ALL": "C.UTF-8",
            **{name: value for name, value in os.environ.items() if name.startswith("DOCKER_")},
        }
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=400, check=False)
        found = folder / "report.html"
        assert found.exists(), done.stdout[-4000:] + done.stderr[-2000:]
        # The host that is down makes the run end as one, after the report was written.
        assert re.search(r"registry1 .*failed=0", done.stdout), done.stdout[-3000:]
        yield found


def test_it_tells_what_is_there(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    plain = re.sub(r"<[^>]+>", " ", text)
    assert "registry2 was not reached: nothing is known of it." in plain
    assert re.search(r"registry1: the certificate /etc/wharf/edge/tls.crt is good for [56] more days", plain)
    assert re.search(r"2 projects with 3 repositories, 3 tags and 3 manifests", plain)
    assert re.search(r"It freed 5\.0 GiB and left 1\.0 MiB", plain)
    assert "missing-blob" in plain
    assert "shop/&lt;b&gt;web&lt;/b&gt;" in text
    assert "<b>" not in text
    # All panels have drawn something.
    assert "no samples" not in plain
    assert "12/s now" in plain, "pulls of the recorded Prometheus"


def test_it_needs_nothing_from_elsewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert not re.search(r"(?i)<(script|link|img|iframe|object|embed|base)\b|@import|url\(|https?://", text)
    assert page.stat().st_mode & 0o777 == 0o600


def test_a_browser_shows_and_prints_it(page: Path) -> None:
    apt_install("chromium")
    folder = page.parent

    def chromium(*arguments: str) -> str:
        command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"]
        command += ["--disable-background-networking", "--disable-component-update", "--disable-sync", f"--user-data-dir={folder}/chromium"]
        done = subprocess.run([*command, *arguments, page.as_uri()], capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stdout

    shown = chromium("--dump-dom")
    # The browser has understood it as it was meant: nothing was closed, moved or left out.
    assert shown.count("<svg") == page.read_text(encoding="utf-8").count("<svg")
    assert shown.count("<tr") == page.read_text(encoding="utf-8").count("<tr")
    for name, width in (("wide", 1200), ("narrow", 400)):
        chromium(f"--screenshot={folder}/{name}.png", f"--window-size={width},2400", "--hide-scrollbars")
        picture = (folder / f"{name}.png").read_bytes()
        assert picture.startswith(b"\x89PNG")
        assert len(picture) > 50000
    chromium(f"--print-to-pdf={folder}/report.pdf", "--no-pdf-header-footer")
    printed = (folder / "report.pdf").read_bytes()
    assert printed.startswith(b"%PDF")
    assert 2 <= len(re.findall(rb"/Type\s*/Page\b", printed)) <= 12
