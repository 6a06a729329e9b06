# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Real clients against real registries of both generations: each does what its account may, and is refused the rest."""

from __future__ import annotations

import base64
import json
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from world import PASSWORDS, World, servers
from world import apt_install as install

#: Who may do what in the project `team` (and what of another project may be mounted there).
ALLOWED = {
    "carol": {"pull"},
    "alice": {"pull", "push"},
    "bob": {"pull", "push", "mount", "delete"},
    "robot-ci": {"pull", "push"},
    "root": {"pull", "push", "mount", "delete", "catalog"},
    "": set(),
}


class Client:
    """A client that has signed in as somebody, with a folder for what it keeps."""

    def __init__(self, folder: Path, address: str, who: str, password: str | None = None) -> None:
        self.folder = folder
        self.address = address
        folder.mkdir()
        auth = base64.b64encode(f"{who}:{PASSWORDS.get(who, '') if password is None else password}".encode()).decode()
        (folder / "config.json").write_text(json.dumps({"auths": {address: {"auth": auth}} if who else {}}))
        (folder / "file").write_text(who)
        with tarfile.open(folder / "layer.tar", "w") as layer:
            layer.add(folder / "file", "file")

    def run(self, *command: str | Path) -> bool:
        """Return whether a command succeeds."""
        environment = {"DOCKER_CONFIG": str(self.folder), "HOME": str(self.folder), "PATH": "/usr/bin:/bin"}
        done = subprocess.run([str(part) for part in command], env=environment, capture_output=True, text=True, check=False, timeout=60)
        print(f"$ {' '.join(str(part) for part in command)}\n{done.stdout[-300:]}{done.stderr[-600:]}")
        return done.returncode == 0


class Crane(Client):
    """crane of go-containerregistry."""

    def crane(self, *arguments: str | Path) -> bool:
        return self.run(servers.images.crane(), "--insecure", *arguments)

    def pull(self, name: str) -> bool:
        return self.crane("pull", f"{self.address}/{name}", self.folder / "pulled.tar")

    def push(self, name: str) -> bool:
        return self.crane("append", "-f", self.folder / "layer.tar", "-t", f"{self.address}/{name}")

    def mount(self, source: str, name: str) -> bool:
        return self.crane("copy", f"{self.address}/{source}", f"{self.address}/{name}")

    def delete(self, name: str) -> bool:
        digest = subprocess.run(
            [str(servers.images.crane()), "--insecure", "digest", f"{self.address}/{name}"],
            env={"DOCKER_CONFIG": str(self.folder), "PATH": "/usr/bin"},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        ).stdout.strip()
        return bool(digest) and self.crane("delete", f"{self.address}/{name.split(':')[0]}@{digest}")

    def catalog(self) -> bool:
        return self.crane("catalog", self.address)


class Skopeo(Client):
    """skopeo, and with it podman's way of asking."""

    def skopeo(self, verb: str, *arguments: str) -> bool:
        return self.run("skopeo", "--insecure-policy", verb, "--authfile", self.folder / "config.json", *arguments)

    def pull(self, name: str) -> bool:
        return self.skopeo("copy", "--src-tls-verify=false", f"docker://{self.address}/{name}", f"dir:{self.folder}/pulled")

    def push(self, name: str) -> bool:
        image = self.folder / "image"
        if not image.exists():
            made = [str(servers.images.crane()), "append", "-f", str(self.folder / "layer.tar"), "-t", "local/image:1", "-o"]
            subprocess.run([*made, str(self.folder / "image.tar")], check=True, capture_output=True, timeout=60)
            image.mkdir()
            assert self.run("skopeo", "--insecure-policy", "copy", f"docker-archive:{self.folder}/image.tar", f"dir:{image}")
        return self.skopeo("copy", "--dest-tls-verify=false", f"dir:{image}", f"docker://{self.address}/{name}")

    def mount(self, source: str, name: str) -> bool:
        tls = ("--src-tls-verify=false", "--dest-tls-verify=false")
        return self.skopeo("copy", *tls, f"docker://{self.address}/{source}", f"docker://{self.address}/{name}")

    def delete(self, name: str) -> bool:
        return self.skopeo("delete", "--tls-verify=false", f"docker://{self.address}/{name}")


@pytest.fixture(scope="module")
def seeded(world: World, address: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The registry, with an image in each project."""
    install("skopeo")
    seed = Crane(tmp_path_factory.mktemp("seed") / "root", address, "root")
    assert seed.push("team/app:1")
    assert Crane(tmp_path_factory.mktemp("seed") / "bob", address, "bob").push("other/app:1")
    return address


@pytest.mark.parametrize("who", list(ALLOWED), ids=lambda who: who or "anonymous")
@pytest.mark.parametrize("kind", [Crane, Skopeo])
def test_each_may_what_it_may(seeded: str, tmp_path: Path, kind: type[Crane] | type[Skopeo], who: str) -> None:
    client = kind(tmp_path / "client", seeded, who)
    mine = f"team/{kind.__name__.lower()}-{who or 'anonymous'}"
    done: dict[str, Callable[[], bool]] = {
        "pull": lambda: client.pull("team/app:1"),
        "push": lambda: client.push(f"{mine}:1"),
        "mount": lambda: client.mount("other/app:1", f"{mine}:mounted"),
        "delete": lambda: client.delete(f"{mine}:1" if "push" in ALLOWED[who] else "team/app:1"),
    }
    if isinstance(client, Crane):
        done["catalog"] = client.catalog
    outcome = {name for name, action in done.items() if action()}
    assert outcome == ALLOWED[who] & set(done)
