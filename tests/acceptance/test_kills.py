# Copyright (c) 2026 wharf.registry contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""kill -9 of the modules as Ansible runs them, 200 times each, at random moments of their run.

What is run is the file that Ansible itself would copy to the host. tests/unit kills the logic alone, at more telling moments.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Callable

from hosts import CHECKOUT

from ansible_collections.wharf.registry.plugins.module_utils import _certificates, _files, _htpasswd

KILLS = int(os.environ.get("WHARF_KILLS", "200"))
WORKERS = 2


def payload(folder: Path, module: str, arguments: dict[str, Any]) -> list[str]:
    """Let Ansible pack the module with its arguments, and keep what it would run on the host; return the command."""
    folder.mkdir()
    remote = folder / "remote"
    environment = {
        **os.environ,
        "ANSIBLE_COLLECTIONS_PATH": str(CHECKOUT / ".cache/collections"),
        "ANSIBLE_KEEP_REMOTE_FILES": "true",
        "ANSIBLE_LOCAL_TEMP": str(folder / "local"),
        "ANSIBLE_REMOTE_TEMP": str(remote),
        "ANSIBLE_PYTHON_INTERPRETER": sys.executable,
    }
    ansible = str(Path(sys.executable).with_name("ansible"))
    command = [ansible, "localhost", "-i", "localhost,", "-c", "local", "-m", f"wharf.registry.{module}", "-a", json.dumps(arguments)]
    result = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    return [sys.executable, str(next(remote.rglob(f"AnsiballZ_{module}.py")))]


def begin(command: list[str], folder: Path) -> subprocess.Popen[bytes]:
    """Start a module."""
    # Where a killed AnsiballZ leaves its unpacked archive.
    environment = {**os.environ, "TMPDIR": str(folder / "payload0")}
    return subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def end(process: subprocess.Popen[bytes]) -> bool:
    """Wait for a module's end; return whether it ended by itself."""
    output, _ = process.communicate()
    assert process.returncode in (0, -signal.SIGKILL), output.decode()
    return process.returncode == 0


def sight(folder: Path) -> list[tuple[str, int]]:
    """What can be seen of the files from outside."""
    return sorted((entry.name, entry.inode()) for entry in os.scandir(folder))


def kill_often(folder: Path, commands: list[list[str]], look: Callable[[], None], seed: int) -> tuple[int, int]:
    """Run one command after the other, kill each, look at the files; return the number of kills and how many came too late."""
    started = time.monotonic()
    assert end(begin(commands[0], folder))
    duration = time.monotonic() - started
    chance = random.Random(seed)
    late = 0
    for number in range(KILLS // WORKERS):
        before = sight(folder)
        process = begin(commands[number % len(commands)], folder)
        if number % 2:
            time.sleep(chance.uniform(0, 1.05) * duration)
        else:  # most of a run only computes: every other kill waits for the first change of a file
            while process.poll() is None and sight(folder) == before:
                time.sleep(0.0005)
            time.sleep(chance.uniform(0, 0.02))
        process.kill()
        late += end(process)
        look()
    return KILLS // WORKERS, late


def everywhere(folders: list[Path], work: Callable[[Path, int], tuple[int, int]]) -> None:
    """Kill in several folders at a time; say what it came to."""
    with ThreadPoolExecutor(WORKERS) as pool:
        results = list(pool.map(work, folders, range(len(folders))))
    kills, late = sum(kills for kills, _late in results), sum(late for _kills, late in results)
    print(f"{kills} kills, {late} of them too late")
    assert kills == KILLS and late < KILLS * 3 / 4


def test_htpasswd_user(tmp_path: Path) -> None:
    """Never a file that the registry would refuse: all old users or all new ones, each line whole."""
    generations = [[{"name": f"user{number}", "password": f"{start} {number}"} for number in range(start, start + 20)] for start in (0, 10)]
    names = [{user["name"] for user in users} for users in generations]

    def look(folder: Path) -> None:
        content = (folder / "htpasswd").read_bytes()
        lines = _htpasswd.parse(content)
        assert content.endswith(b"\n") and not any(line.fault for line in lines)
        assert {line.name for line in lines} in names and len(lines) == 20
        assert all(_htpasswd.cost_of(line.digest) == 5 for line in lines)
        assert (folder / "htpasswd").stat().st_mode & 0o777 == 0o640

    def work(folder: Path, seed: int) -> tuple[int, int]:
        options = {"path": str(folder / "htpasswd"), "exclusive": True, "cost": 5}
        commands = [
            payload(folder / f"payload{number}", "htpasswd_user", {**options, "users": users}) for number, users in enumerate(generations)
        ]
        result = kill_often(folder, commands, lambda: look(folder), seed)
        assert end(begin(commands[0], folder))
        verify = _htpasswd.load_bcrypt().verify
        digests = {line.name: line.digest for line in _htpasswd.parse((folder / "htpasswd").read_bytes())}
        assert all(verify(user["password"], digests[user["name"]]) for user in generations[0])
        assert sorted(path.name for path in folder.iterdir()) == ["htpasswd", "payload0", "payload1"]
        return result

    everywhere(folders(tmp_path), work)


def test_selfsigned_cert(tmp_path: Path) -> None:
    """Certificate and key are each whole at any time, and the next run leaves a pair without issuing anything again."""

    def work(folder: Path, seed: int) -> tuple[int, int]:
        options = {
            "path": str(folder / "tls.crt"),
            "fullchain_path": str(folder / "chain.crt"),
            "privatekey_path": str(folder / "tls.key"),
            "common_name": "registry.example.com",
            "key_type": "ed25519",
        }
        request = _certificates.Request(**options, attributes=_files.Attributes(0o644), privatekey_attributes=_files.Attributes(0o600))
        commands = [
            payload(folder / f"payload{number}", "selfsigned_cert", {**options, "force": True, "new_key_on_renewal": new_key})
            for number, new_key in enumerate((True, True, False))
        ]
        again = payload(folder / "payload3", "selfsigned_cert", options)
        repairs = [0]

        def look() -> None:
            certificate = _certificates.load_certificates((folder / "tls.crt").read_bytes())[0]
            _certificates.load_key((folder / "tls.key").read_bytes())
            assert (folder / "tls.key").stat().st_mode & 0o777 == 0o600
            # A run that would change something is made; it must do no more than complete what was begun.
            outcome = _certificates.manage(request, check=True)
            assert outcome.reasons == []
            if outcome.changed or sorted(path.name for path in folder.glob("[!p]*")) != ["chain.crt", "tls.crt", "tls.key"]:
                repairs[0] += outcome.changed
                assert end(begin(again, folder))
            assert _certificates.load_certificates((folder / "tls.crt").read_bytes()) == [certificate]
            assert _certificates.load_certificates((folder / "chain.crt").read_bytes()) == [certificate]
            assert _certificates.belongs_to(certificate, _certificates.load_key((folder / "tls.key").read_bytes()))
            assert sorted(path.name for path in folder.glob("[!p]*")) == ["chain.crt", "tls.crt", "tls.key"]

        result = kill_often(folder, commands, look, seed)
        print(f"{repairs[0]} runs were completed by the next one")
        return result

    everywhere(folders(tmp_path), work)


def folders(place: Path) -> list[Path]:
    """A folder for each worker."""
    found = [place / str(number) for number in range(WORKERS)]
    for folder in found:
        folder.mkdir()
    return found
