# Copyright (c) 2026 wharf.registry contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Commands, progress and refusals of the lab."""

from __future__ import annotations

import contextlib
import fcntl
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Iterator, Sequence


class LabError(Exception):
    """The machine cannot do what the lab needs; the message says why and what would help."""


def say(text: str) -> None:
    """Print one line of progress."""
    print(f"lab: {text}", flush=True)


@contextlib.contextmanager
def step(text: str) -> Iterator[None]:
    """Say what begins, remind every 20 s that it goes on, and say how long it took."""
    say(f"{text} …")
    start = time.monotonic()
    done = threading.Event()

    def remind() -> None:
        while not done.wait(20):
            say(f"  still: {text} ({time.monotonic() - start:.0f} s)")

    threading.Thread(target=remind, daemon=True).start()
    try:
        yield
    finally:
        done.set()
    say(f"  done in {time.monotonic() - start:.0f} s")


def run(
    command: Sequence[str],
    *,
    check: bool = True,
    stdin: str | None = None,
    env: dict[str, str] | None = None,
    cwd: Path | None = None,
    timeout: float | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run a command with its output captured.

    Raises:
        LabError: when it fails and ``check`` is set; the message holds the command and the end of its output.
    """
    try:
        result = subprocess.run(
            list(command),
            input=stdin,
            text=True,
            capture_output=True,
            timeout=timeout,
            cwd=cwd,
            env=None if env is None else {**os.environ, **env},
            check=False,
        )
    except FileNotFoundError as error:
        raise LabError(f"{command[0]} is not installed") from error
    except subprocess.TimeoutExpired as error:
        raise LabError(f"{' '.join(command)} did not end within {timeout} s") from error
    if check and result.returncode != 0:
        tail = "\n".join((result.stdout + result.stderr).strip().splitlines()[-15:])
        raise LabError(f"{' '.join(command)} failed with code {result.returncode}:\n{tail}")
    return result


def wait_for(what: str, condition, seconds: float, interval: float = 0.2) -> None:
    """Wait until ``condition()`` is true.

    Raises:
        LabError: when it is not within ``seconds``.
    """
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise LabError(f"{what} within {seconds:.0f} s")
        time.sleep(interval)


def apt_install(*packages: str) -> None:
    """Install Debian packages on the controller, those that are missing only. Stages that run side by side take turns: apt itself would fail."""
    with Path(tempfile.gettempdir(), f"wharf-lab-apt-{os.getuid()}.lock").open("w") as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)
        missing = [
            name
            for name in packages
            if "install ok installed" not in run(["dpkg-query", "-W", "-f", "${Status}", name], check=False).stdout
        ]
        if not missing:
            return
        with step(f"Installing {', '.join(missing)}"):
            environment = {"DEBIAN_FRONTEND": "noninteractive"}
            run(["apt-get", "update", "-qq"], env=environment)
            run(["apt-get", "install", "-y", "-qq", "-o", "DPkg::Lock::Timeout=120", "--no-install-recommends", *missing], env=environment)


def alive(pid_file: Path, name: str) -> int:
    """The process id in ``pid_file`` if that process lives and is a ``name``; 0 otherwise.

    A pid file of an interrupted run may name a process that is somebody else's by now.
    """
    try:
        pid = int(pid_file.read_text().strip())
        if name in Path(f"/proc/{pid}/comm").read_text():
            return pid
    except (OSError, ValueError):
        pass
    return 0


def terminate(pid: int, seconds: float = 20) -> None:
    """End one process by its id: SIGTERM, then SIGKILL after ``seconds``."""
    for signal, patience in ((15, seconds), (9, 5.0)):
        try:
            os.kill(pid, signal)
        except ProcessLookupError:
            return
        end = time.monotonic() + patience
        while time.monotonic() < end and Path(f"/proc/{pid}").exists():
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
            time.sleep(0.1)


def die(error: LabError) -> int:
    """Print the reason on standard error and return the exit code."""
    print(f"lab: cannot go on: {error}", file=sys.stderr, flush=True)
    return 1
