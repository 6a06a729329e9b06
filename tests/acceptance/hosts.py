# Copyright (c) 2026 wharf.registry contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Hosts for a test alone: containers of the lab's images that nobody else uses, and Ansible runs against them."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any, Iterator

CHECKOUT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(CHECKOUT / "tests/lab"))

import engine  # noqa: E402  (the lab's own modules, found through the path above)
import nodes  # noqa: E402
import settings  # noqa: E402

RELEASES = {"debian12": "bookworm", "debian13": "trixie"}
REGISTRY_3 = settings.STATE / f"tools/registry-v{settings.REGISTRY_3}"


def run(command: list[str], *, check: bool = True, stdin: str | None = None, timeout: float = 300) -> str:
    """Run a command; return its output, both streams.

    Raises:
        AssertionError: when it fails and ``check`` is set; the message has the end of its output.
    """
    result = subprocess.run(
        command, input=stdin, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", timeout=timeout, check=False
    )
    assert not check or result.returncode == 0, f"{' '.join(command[-3:])} ended with {result.returncode}:\n{result.stdout[-4000:]}"
    return result.stdout


class Host:
    """A running container."""

    def __init__(self, name: str) -> None:
        self.name = name

    def on(self, script: str, *, check: bool = True, stdin: str | None = None) -> str:
        """Run a shell script as root; return its output, both streams."""
        return run(["docker", "exec", "-i", self.name, "bash", "-c", script], check=check, stdin=stdin)

    def answers(self, script: str) -> tuple[int, str]:
        """Run a shell script that may fail; return its exit code and its output."""
        output = self.on(f"{{ {script}\n}} 2>&1; code=$?; echo; echo $code", check=False)
        text, _separator, code = output.rstrip().rpartition("\n")
        return int(code), text

    def copy(self, source: Path, target: str) -> None:
        """Copy a file into the container."""
        run(["docker", "cp", str(source), f"{self.name}:{target}"])


@contextlib.contextmanager
def host(name: str, release: str, image: str = "node", *, services: bool = False) -> Iterator[Host]:
    """A host of a Debian release with the lab's image of that kind, for as long as the context lasts; systemd runs where ``services`` says.

    ``lab.py down`` removes what an interrupted run leaves behind.
    """
    assert engine.connect(), "the lab's engine does not run; `tests/lab/lab.py up` starts it"
    lab = [sys.executable, str(CHECKOUT / "tests/lab/lab.py"), "image", image]
    found = subprocess.run(lab, env={**os.environ, "LAB_RELEASE": release}, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout + found.stderr
    name = f"wharf-{name}-{uuid.uuid4().hex[:8]}"
    # An init that only waits, unless a test needs the system's services.
    started = [*nodes.container(name), *([] if services else ["--init", "--entrypoint", "sleep"]), found.stdout.split()[-1]]
    run(started if services else [*started, "infinity"])
    try:
        if services:
            up = "case $(systemctl is-system-running 2>/dev/null) in running | degraded) exit 0 ;; esac"
            Host(name).on(f"for i in $(seq 300); do {up}; sleep 0.2; done; exit 1")
        yield Host(name)
    finally:
        run(["docker", "rm", "--force", "--volumes", name], check=False)


def ansible(folder: Path, play: list[dict[str, Any]], hosts: dict[str, Host], *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a playbook against hosts (their names in the play → the hosts), with all paths of the run in *folder*."""
    inventory = {
        "all": {
            "hosts": {
                name: {
                    "ansible_connection": "community.docker.docker",
                    "ansible_host": host.name,
                    "ansible_user": "root",
                    "ansible_python_interpreter": "/usr/bin/python3",
                }
                for name, host in hosts.items()
            }
        }
    }
    # YAML is a superset of JSON.
    (folder / "inventory.yml").write_text(json.dumps(inventory))
    (folder / "play.yml").write_text(json.dumps(play))
    (folder / "ansible.cfg").touch()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")}
    environment.update(
        ANSIBLE_CONFIG=str(folder / "ansible.cfg"),
        ANSIBLE_COLLECTIONS_PATH=str(CHECKOUT / ".cache/collections"),
        ANSIBLE_ROLES_PATH=str(CHECKOUT / "tests/integration/targets"),
        ANSIBLE_HOME=str(folder / "home"),
        ANSIBLE_INJECT_FACT_VARS="false",
        ANSIBLE_PIPELINING="true",
        ANSIBLE_NOCOLOR="true",
        ANSIBLE_LOCALHOST_WARNING="false",
        ANSIBLE_DEPRECATION_WARNINGS="false",
    )
    return subprocess.run(
        [
            str(Path(sys.executable).with_name("ansible-playbook")),
            "-i",
            str(folder / "inventory.yml"),
            *arguments,
            str(folder / "play.yml"),
        ],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


def must(result: subprocess.CompletedProcess[str]) -> str:
    """Return the output of an Ansible run that has to be good."""
    assert result.returncode == 0, f"{result.stdout[-5000:]}\n{result.stderr[-2000:]}"
    return result.stdout


def registry_2(folder: Path) -> list[str]:
    """Unpack distribution 2.8 from the lab's image archive; return the command that runs it."""
    archive = settings.STATE / f"archives/registry-{settings.REGISTRY_2}.tar"
    image, root = folder / "image", folder / "root"
    for directory in (image, root):
        directory.mkdir()
    run(["tar", "-C", str(image), "-xf", str(archive)])
    for layer in json.loads((image / "manifest.json").read_text())[0]["Layers"]:
        run(["tar", "-C", str(root), "-xf", str(image / layer)])
    # Debian's binary is dynamic; the image has its loader and libraries.
    loader = next(root.rglob("ld-linux-*.so.*"))
    libraries = sorted({str(path.parent) for path in root.rglob("*.so*")})
    return [str(loader), "--library-path", ":".join(libraries), str(root / "bin/registry")]
