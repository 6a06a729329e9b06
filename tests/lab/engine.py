# Copyright (c) 2026 wharf.registry contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The Docker engine that carries the lab: one that runs already, or our own."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
from pathlib import Path

from settings import STATE
from shell import LabError, alive, apt_install, run, say, step, terminate, wait_for

HOME = STATE / "engine"
SOCKET = HOME / "docker.sock"
PID_FILE = HOME / "dockerd.pid"
LOG = HOME / "dockerd.log"


def answers(host: str | None) -> bool:
    """Whether an engine answers at ``host`` (none: where the client looks by itself). Settles the API version too."""
    environment = {} if host is None else {"DOCKER_HOST": host}
    result = run(["docker", "version", "--format", "{{.Server.Version}}"], check=False, env=environment, timeout=15)
    # A client that is newer than the engine must be told to speak its older dialect.
    limit = re.search(r"[Mm]aximum supported API version is (\d+\.\d+)", result.stderr)
    if limit:
        os.environ["DOCKER_API_VERSION"] = limit.group(1)
        result = run(["docker", "version", "--format", "{{.Server.Version}}"], check=False, env=environment, timeout=15)
    if result.returncode == 0 and host is not None:
        os.environ["DOCKER_HOST"] = host
    return result.returncode == 0


def own_engine_runs() -> bool:
    """Whether the engine that the lab started still lives."""
    return bool(alive(PID_FILE, "dockerd")) and SOCKET.exists()


def connect() -> bool:
    """Point this process at the lab's engine, if there is one; start nothing."""
    if shutil.which("docker") is None:
        return False
    if own_engine_runs():
        return answers(f"unix://{SOCKET}")
    return answers(None)


def start() -> None:
    """Use the engine that runs, or install and start one.

    Raises:
        LabError: no engine can be had here; the message says why.
    """
    if connect():
        return
    apt_install("docker.io", "iptables", "ca-certificates")
    if Path("/run/systemd/system").is_dir():
        run(["systemctl", "start", "docker"], check=False)
        if answers(None):
            return
    check_kernel()
    HOME.mkdir(parents=True, exist_ok=True)
    # Left behind by a run that was interrupted or a machine that was switched off.
    for stale in (PID_FILE, SOCKET, HOME / "exec/containerd/containerd.pid"):
        with contextlib.suppress(FileNotFoundError):
            stale.unlink()
    with step("Starting a Docker engine of the lab's own"):
        with LOG.open("ab") as log:
            process = subprocess.Popen(  # pylint: disable=consider-using-with
                [
                    "dockerd",
                    "--data-root",
                    str(HOME / "data"),
                    "--exec-root",
                    str(HOME / "exec"),
                    "--pidfile",
                    str(PID_FILE),
                    "--host",
                    f"unix://{SOCKET}",
                    "--bridge",
                    "none",
                ],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
                cwd="/",
            )

        def ready() -> bool:
            if process.poll() is not None:
                tail = "\n".join(LOG.read_text(errors="replace").splitlines()[-5:])
                raise LabError(f"dockerd ended with code {process.returncode}; the end of {LOG}:\n{tail}")
            return SOCKET.exists() and answers(f"unix://{SOCKET}")

        wait_for("dockerd did not answer", ready, 60)


def check_kernel() -> None:
    """Refuse a kernel without overlay, the one thing that Docker in Docker cannot do without."""

    def overlay() -> bool:
        return "\toverlay\n" in Path("/proc/filesystems").read_text()

    if not overlay():
        run(["modprobe", "overlay"], check=False)
        if not overlay():
            raise LabError("this kernel has no overlay file system; use a kernel with CONFIG_OVERLAY_FS")


def stop() -> None:
    """Stop the engine if the lab started it."""
    pid = alive(PID_FILE, "dockerd")
    if pid:
        say("Stopping the lab's Docker engine")
        terminate(pid, 40)
