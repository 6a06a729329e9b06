# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The proof by use: the image, the clients' commands, and that no password reaches a command line or a message."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import stat
import tarfile

import pytest

from ansible_collections.wharf.registry.plugins.module_utils._registry import verify
from ansible_collections.wharf.registry.plugins.module_utils._registry.api import RegistryError, digest_of

SECRET = "s3cret-passw0rd"


def test_the_image_is_what_clients_check():
    image = verify.build_image(b"random", "x86_64")
    manifest = json.loads(image.manifest)
    config = json.loads(image.config)
    assert image.digest == "sha256:" + hashlib.sha256(image.manifest).hexdigest()
    assert manifest["config"]["digest"] == digest_of(image.config) and manifest["config"]["size"] == len(image.config)
    assert [layer["digest"] for layer in manifest["layers"]] == [digest_of(image.layer)]
    tar = gzip.decompress(image.layer)
    assert config["rootfs"]["diff_ids"] == [digest_of(tar)]
    assert (config["architecture"], config["os"]) == ("amd64", "linux")
    with tarfile.open(fileobj=io.BytesIO(tar)) as archive:
        assert archive.extractfile("wharf-verify").read() == b"random"


@pytest.mark.parametrize(
    "name, port, host",
    [
        ("registry.example.com", 443, "registry.example.com"),
        ("registry.example.com", 8443, "registry.example.com:8443"),
        ("registry", 443, "registry:443"),
        ("localhost", 443, "localhost"),
    ],
)
def test_reference_host(name, port, host):
    assert verify.reference_host(name, port) == host


class FakeRegistry:
    def __init__(self, image):
        self.image = image
        self.broken = None

    def get_manifest(self, repository, reference):
        if self.broken:
            raise self.broken
        return self.image.manifest, verify.MANIFEST_TYPE, self.image.digest

    def get_blob(self, repository, digest):
        return b""


def test_pull_compares_the_digest():
    registry = FakeRegistry(verify.build_image(b"1", "x86_64"))
    verify.pull(registry, "wharf/verify", "t", registry.image.digest)
    with pytest.raises(verify.VerifyError, match="wharf/verify:t has the digest sha256:.*, not sha256:0"):
        verify.pull(registry, "wharf/verify", "t", "sha256:0")
    registry.broken = RegistryError("GET /v2/wharf/verify/manifests/t: HTTP 404 MANIFEST_UNKNOWN", 404)
    with pytest.raises(verify.VerifyError, match="pull of wharf/verify:t: GET .* HTTP 404 MANIFEST_UNKNOWN"):
        verify.pull(registry, "wharf/verify", "t", "sha256:0")


@pytest.mark.parametrize(
    "text, version",
    [
        ("Docker version 26.1.5+dfsg1, build a72d7cd", "26.1.5+dfsg1"),
        ("podman version 5.4.2\n", "5.4.2"),
        ("skopeo version 1.18.0 commit: x", "1.18.0"),
        ("ctr github.com/containerd/containerd 1.7.24~ds1", "1.7.24~ds1"),
        ("ctr github.com/containerd/containerd/v2 v2.1.4", "2.1.4"),
        ("unknown", "unknown"),
    ],
)
def test_version(text, version):
    assert verify._version(text) == version


def target(**values):
    values = dict({"username": "ci", "password": SECRET}, **values)
    return verify.Target("registry.example:8443", "wharf/verify", "t", "sha256:" + "a" * 64, **values)


def test_hosts_toml_carries_credentials_and_cas():
    text = verify.hosts_toml(target(password='p"w'), ["/etc/containerd/certs.d/x/ca.crt"])
    assert text.splitlines() == [
        'server = "https://registry.example:8443"',
        '[host."https://registry.example:8443"]',
        'capabilities = ["pull", "resolve"]',
        'ca = ["/etc/containerd/certs.d/x/ca.crt"]',
        '[host."https://registry.example:8443".header]',
        'Authorization = ["Basic Y2k6cCJ3"]',
    ]
    assert "Authorization" not in verify.hosts_toml(target(username=""), [])


def test_cas_that_containerd_trusts(tmp_path, monkeypatch):
    monkeypatch.setattr(verify, "_CONTAINERD_CERTS", str(tmp_path))
    folder = tmp_path / "registry.example_8443_"
    folder.mkdir()
    for name in ("ca.crt", "hosts.toml"):
        (folder / name).write_text("")
    assert verify.containerd_cas("registry.example:8443") == [str(folder / "ca.crt")]
    assert verify.containerd_cas("other.example") == []


PROGRAM = """#!/bin/sh
echo "$0 $*" >> {log}
case "$*" in
    *--version*) echo "tool version 1.2.3";;
    *login*) read password; echo "stdin $password" >> {log};;
    *"image inspect"*RepoDigests*) echo '["registry.example:8443/wharf/verify@{digest}"]';;
    *"image inspect"*) echo {digest};;
    *"images ls"*) echo "REF TYPE DIGEST"; echo "registry.example:8443/wharf/verify:t type {digest} 1KiB linux -";;
    *"images pull"*)
        folder=$(echo "$*" | sed 's/.*--hosts-dir \\([^ ]*\\).*/\\1/')
        stat -c %a "$folder" >> {log}; stat -c %a "$folder"/*/hosts.toml >> {log};;
    *fail*) exit 1;;
esac
case "$*" in {fail}) echo "pull failed for {secret}" >&2; exit 1;; esac
"""


@pytest.fixture
def programs(tmp_path, monkeypatch):
    def install(*names, digest=None, fail="nothing"):
        for name in names:
            path = tmp_path / name
            content = PROGRAM.format(log=tmp_path / "log", digest=digest or target().digest, fail=fail, secret=SECRET)
            path.write_text(content)
            path.chmod(path.stat().st_mode | stat.S_IXUSR)
        return tmp_path / "log"

    monkeypatch.setenv("PATH", "%s:/usr/bin:/bin" % tmp_path)
    monkeypatch.setattr(verify, "_CONTAINERD_SOCKET", str(tmp_path))
    real = verify.shutil.which
    monkeypatch.setattr(verify.shutil, "which", lambda name: real(name, path=str(tmp_path)))
    return install


@pytest.mark.parametrize("name, program", [("docker", "docker"), ("podman", "podman"), ("containerd", "ctr")])
def test_a_client_logs_in_pulls_and_cleans_up(programs, name, program):
    log = programs(program)
    (result,) = verify.try_clients(target(), verify.CLIENT_NAMES, 20)
    assert result == {"name": name, "version": "1.2.3", "result": "ok", "digest": target().digest, "message": ""}
    words = log.read_text()
    lines = [line for line in words.splitlines() if not line.startswith("stdin")]
    assert SECRET not in "\n".join(lines)
    if name == "containerd":
        assert [line for line in lines if line.isdigit()] == ["700", "600"]
        assert any("images rm --sync registry.example:8443/wharf/verify:t" in line for line in lines)
    else:
        assert "stdin " + SECRET in words
        assert "image rm --force registry.example:8443/wharf/verify:t" in lines[-1]


def test_skopeo_is_judged_by_the_manifest_that_it_stored(programs, monkeypatch):
    programs("skopeo")

    def run(self, *command, stdin=None):
        if "copy" in command:
            folder = command[-1].partition(":")[2]
            os.mkdir(folder)
            with open(os.path.join(folder, "manifest.json"), "wb") as handle:
                handle.write(b"manifest")
        return "skopeo version 1.18.0"

    monkeypatch.setattr(verify.Runner, "__call__", run)
    (result,) = verify.try_clients(target(), ["skopeo"], 20)
    assert result["digest"] == digest_of(b"manifest")
    assert result["result"] == "failed" and "has the digest" in result["message"]


def test_nobody_logs_in_without_a_user(programs):
    log = programs("docker", "podman")
    results = verify.try_clients(target(username="", password=""), verify.CLIENT_NAMES, 20)
    assert [result["result"] for result in results] == ["ok", "ok"]
    assert "login" not in log.read_text()


def test_another_digest_is_a_failure(programs):
    programs("docker", digest="sha256:" + "b" * 64)
    (result,) = verify.try_clients(target(), verify.CLIENT_NAMES, 20)
    assert result["result"] == "failed"
    assert result["message"] == "registry.example:8443/wharf/verify:t has the digest sha256:%s, not %s" % ("b" * 64, target().digest)


def test_a_failing_client_cleans_up_and_hides_the_password(programs):
    log = programs("docker", fail="*pull*")
    (result,) = verify.try_clients(target(), verify.CLIENT_NAMES, 20)
    assert result["result"] == "failed"
    assert "pull failed for ********" in result["message"]
    assert SECRET not in result["message"]
    assert "image rm" in log.read_text().splitlines()[-1]


def test_a_hung_client_ends_in_time(programs, tmp_path):
    path = tmp_path / "docker"
    path.write_text("#!/bin/sh\nexec sleep 20\n")
    path.chmod(0o755)
    (result,) = verify.try_clients(target(), ["docker"], 0.3)
    assert result["message"] == "docker --version did not end within 0.3 s"


def test_clients_that_are_not_installed_are_passed_over(programs):
    programs()
    assert verify.try_clients(target(), verify.CLIENT_NAMES, 20) == []
