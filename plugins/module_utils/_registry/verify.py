# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Proof of a registry by use: push a small random image, read it back, pull it with every client that is installed.

It is private to this collection and may change at any time. Passwords never come near a command line: a client gets them on standard
input or in a file below a directory that only its owner can read.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import json
import os
import platform
import shutil
import subprocess
import tarfile
import tempfile
from dataclasses import dataclass
from typing import Callable, Iterable

from .api import Registry, RegistryError, digest_of

MANIFEST_TYPE = "application/vnd.docker.distribution.manifest.v2+json"
CONFIG_TYPE = "application/vnd.docker.container.image.v1+json"
LAYER_TYPE = "application/vnd.docker.image.rootfs.diff.tar.gzip"

# Names of processors: the kernel's to those of the image specification.
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "i686": "386"}

_CONTAINERD_SOCKET = "/run/containerd/containerd.sock"
_CONTAINERD_CERTS = "/etc/containerd/certs.d"
_NAMESPACE = "wharf-verify"


class VerifyError(Exception):
    """The proof failed; the message says where."""


@dataclass(frozen=True)
class Image:
    """An image of one layer, in the docker schema 2 form that every client reads."""

    config: bytes
    layer: bytes
    manifest: bytes

    @property
    def digest(self) -> str:
        """The digest of the manifest: what clients call the image's digest."""
        return digest_of(self.manifest)


def build_image(random: bytes, machine: str) -> Image:
    """Return an image for the processor ``machine`` (as ``uname -m`` names it) whose one layer holds one file with the bytes ``random``."""
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        entry = tarfile.TarInfo("wharf-verify")
        entry.size = len(random)
        entry.mode = 0o644
        archive.addfile(entry, io.BytesIO(random))
    layer = gzip.compress(tar.getvalue())
    config = _json(
        {
            "architecture": _ARCHITECTURES.get(machine, machine),
            "os": "linux",
            "config": {"Labels": {"org.opencontainers.image.title": "wharf.registry verification"}},
            "rootfs": {"type": "layers", "diff_ids": [digest_of(tar.getvalue())]},
            "history": [{"created_by": "wharf.registry registry_verify"}],
        }
    )
    manifest = _json(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST_TYPE,
            "config": {"mediaType": CONFIG_TYPE, "size": len(config), "digest": digest_of(config)},
            "layers": [{"mediaType": LAYER_TYPE, "size": len(layer), "digest": digest_of(layer)}],
        }
    )
    return Image(config, layer, manifest)


def _json(content: object) -> bytes:
    return json.dumps(content, separators=(",", ":"), sort_keys=True).encode("utf-8")


def push(registry: Registry, repository: str, tag: str, size: int) -> str:
    """Push a new image with ``size`` random bytes and return its digest. Raises VerifyError."""
    image = build_image(os.urandom(size), platform.machine())
    try:
        registry.put_blob(repository, image.config)
        registry.put_blob(repository, image.layer)
        return registry.put_manifest(repository, tag, image.manifest, MANIFEST_TYPE)
    except RegistryError as error:
        raise VerifyError("push of %s:%s: %s" % (repository, tag, error)) from error


def pull(registry: Registry, repository: str, tag: str, digest: str) -> None:
    """Read the image behind ``tag`` and all its blobs; raise VerifyError unless the manifest has ``digest`` and every blob its own."""
    try:
        content, _media_type, found = registry.get_manifest(repository, tag)
        if found != digest:
            raise VerifyError("%s:%s has the digest %s, not %s" % (repository, tag, found, digest))
        manifest = json.loads(content.decode("utf-8"))
        for blob in [manifest["config"]] + manifest["layers"]:
            registry.get_blob(repository, blob["digest"])
    except RegistryError as error:
        raise VerifyError("pull of %s:%s: %s" % (repository, tag, error)) from error
    except (ValueError, KeyError, TypeError) as error:
        raise VerifyError("pull of %s:%s: the manifest cannot be read: %s" % (repository, tag, error)) from error


def reference_host(name: str, port: int) -> str:
    """How clients write the registry in an image's name. A name without a dot needs its port, or it would be a path on Docker Hub."""
    if port == 443 and ("." in name or name == "localhost"):
        return name
    return "%s:%d" % (name, port)


@dataclass(frozen=True)
class Target:
    """What a client is to pull, and as whom."""

    host: str
    repository: str
    tag: str
    digest: str
    username: str = ""
    password: str = ""

    @property
    def reference(self) -> str:
        """The image's name with its tag."""
        return "%s/%s:%s" % (self.host, self.repository, self.tag)


class Runner:
    """Runs commands under one time limit in seconds each, and keeps ``secret`` out of what it reports.

    ``folder`` is where they look for Docker's configuration: podman and skopeo read it too, and refuse to log in where it has a token.
    """

    def __init__(self, timeout: float, secret: str, folder: str) -> None:
        self._timeout = timeout
        self._secret = secret
        self._environment = dict(os.environ, LC_ALL="C", DOCKER_CONFIG=folder)

    def __call__(self, *command: str, stdin: str | None = None) -> str:
        """Return what the command printed. Raises VerifyError with its last words if it fails."""
        try:
            done = subprocess.run(  # pylint: disable=ansible-bad-function  # no AnsibleModule in here
                command,
                input=stdin,
                stdin=subprocess.DEVNULL if stdin is None else None,
                capture_output=True,
                text=True,
                timeout=self._timeout,
                env=self._environment,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise VerifyError("%s did not end within %g s" % (" ".join(command[:3]), self._timeout)) from None
        except OSError as error:
            raise VerifyError("%s cannot be run: %s" % (command[0], error.strerror)) from error
        if done.returncode != 0:
            words = (done.stderr.strip() or done.stdout.strip())[-600:]
            if self._secret:
                words = words.replace(self._secret, "********")
            raise VerifyError("%s: %s" % (" ".join(command[:3]), words or "exit status %d" % done.returncode))
        return done.stdout

    def quietly(self, *command: str) -> None:
        """Run a command that cleans up; it does not matter whether it succeeds."""
        try:
            self(*command)
        except VerifyError:
            pass


# Each client: logs in, pulls by tag, returns the digest it saw, and removes what it pulled. ``folder`` is private and empty.


def _docker(target: Target, run: Runner, folder: str) -> str:
    docker = ("docker", "--config", folder)
    if target.username:
        run(*docker, "login", "--username", target.username, "--password-stdin", target.host, stdin=target.password)
    try:
        run(*docker, "pull", "--quiet", target.reference)
        digests = json.loads(run(*docker, "image", "inspect", "--format", "{{json .RepoDigests}}", target.reference))
        prefix = "%s/%s@" % (target.host, target.repository)
        return next((text[len(prefix) :] for text in digests or [] if text.startswith(prefix)), "")
    finally:
        run.quietly(*docker, "image", "rm", "--force", target.reference)


def _podman(target: Target, run: Runner, folder: str) -> str:
    authfile = os.path.join(folder, "auth.json")
    login = ["--authfile", authfile] if target.username else []
    if target.username:
        run(
            "podman", "login", "--authfile", authfile, "--username", target.username, "--password-stdin", target.host, stdin=target.password
        )
    try:
        run("podman", "pull", "--quiet", *login, target.reference)
        return run("podman", "image", "inspect", "--format", "{{.Digest}}", target.reference).strip()
    finally:
        run.quietly("podman", "image", "rm", "--force", target.reference)


def _skopeo(target: Target, run: Runner, folder: str) -> str:
    authfile = os.path.join(folder, "auth.json")
    login = ["--authfile", authfile] if target.username else []
    if target.username:
        run(
            "skopeo", "login", "--authfile", authfile, "--username", target.username, "--password-stdin", target.host, stdin=target.password
        )
    copied = os.path.join(folder, "image")
    run("skopeo", "copy", "--quiet", *login, "docker://" + target.reference, "dir:" + copied)
    with open(os.path.join(copied, "manifest.json"), "rb") as handle:
        return "sha256:" + hashlib.sha256(handle.read()).hexdigest()


def _containerd(target: Target, run: Runner, folder: str) -> str:
    place = os.path.join(folder, target.host)
    os.mkdir(place, 0o700)
    with open(os.open(os.path.join(place, "hosts.toml"), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as handle:
        handle.write(hosts_toml(target, containerd_cas(target.host)))
    ctr = ("ctr", "--namespace", _NAMESPACE)
    try:
        # ctr takes a password on its command line only; a header in a file of our own does without.
        run(*ctr, "images", "pull", "--hosts-dir", folder, target.reference)
        for line in run(*ctr, "images", "ls", "name==" + target.reference).splitlines():
            fields = line.split()
            if len(fields) > 2 and fields[0] == target.reference:
                return fields[2]
        return ""
    finally:
        run.quietly(*ctr, "images", "rm", "--sync", target.reference)
        run.quietly("ctr", "namespaces", "rm", _NAMESPACE)


def containerd_cas(host: str) -> list[str]:
    """The CA files that containerd is set up to trust for ``host``."""
    found = []
    for name in (host, host.replace(":", "_") + "_" if ":" in host else host):
        folder = os.path.join(_CONTAINERD_CERTS, name)
        if os.path.isdir(folder):
            found += [os.path.join(folder, entry) for entry in sorted(os.listdir(folder)) if entry.endswith((".crt", ".pem"))]
    return sorted(set(found))


def hosts_toml(target: Target, cas: Iterable[str]) -> str:
    """Return a ``hosts.toml`` (https://github.com/containerd/containerd/blob/main/docs/hosts.md) that carries the credentials."""
    url = _toml("https://" + target.host)
    lines = ["server = " + url, "[host." + url + "]", 'capabilities = ["pull", "resolve"]']
    cas = list(cas)
    if cas:
        lines.append("ca = [" + ", ".join(_toml(path) for path in cas) + "]")
    if target.username:
        token = base64.b64encode(("%s:%s" % (target.username, target.password)).encode("utf-8")).decode("ascii")
        lines += ["[host." + url + ".header]", "Authorization = [" + _toml("Basic " + token) + "]"]
    return "\n".join(lines) + "\n"


def _toml(text: str) -> str:
    """A TOML basic string; JSON's escapes are among TOML's."""
    return json.dumps(text)


_CLIENTS: dict[str, tuple[str, Callable[[Target, Runner, str], str]]] = {
    "docker": ("docker", _docker),
    "podman": ("podman", _podman),
    "skopeo": ("skopeo", _skopeo),
    "containerd": ("ctr", _containerd),
}
CLIENT_NAMES = tuple(_CLIENTS)


def try_clients(target: Target, names: Iterable[str], timeout: float) -> list[dict]:
    """Pull ``target`` with each of the clients ``names`` that is installed.

    Returns for each: ``name``, ``version``, ``result`` (``ok`` or ``failed``), ``digest`` and ``message``. Never raises for a client's failure.
    """
    results = []
    for name in names:
        program, pull_with = _CLIENTS[name]
        if shutil.which(program) is None or (name == "containerd" and not os.path.exists(_CONTAINERD_SOCKET)):
            continue
        result = {"name": name, "version": "", "result": "failed", "digest": "", "message": ""}
        # Made by mkdtemp: 0700 from the start.
        folder = tempfile.mkdtemp(prefix="wharf-verify-")
        run = Runner(timeout, target.password, folder)
        try:
            result["version"] = _version(run(program, "--version"))
            result["digest"] = pull_with(target, run, folder)
            if result["digest"] == target.digest:
                result["result"] = "ok"
            else:
                result["message"] = "%s has the digest %s, not %s" % (target.reference, result["digest"] or "nothing", target.digest)
        except (VerifyError, OSError, ValueError) as error:
            result["message"] = str(error)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        results.append(result)
    return results


def _version(text: str) -> str:
    """The version in the output of ``--version``: the first word with a digit and a dot."""
    for word in text.replace(",", " ").split():
        if word[:1] in "v0123456789" and "." in word and any(letter.isdigit() for letter in word):
            return word.lstrip("v")
    return text.strip()[:60]
