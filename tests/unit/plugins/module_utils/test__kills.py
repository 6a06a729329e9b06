# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""kill -9 at random moments, many times each: files stay whole, and the next run finishes the work.

Each run is a forked process, so that a kill costs milliseconds. The moments are spread over the time that a whole run takes;
a tenth of the processes are let through to their end.
"""

from __future__ import annotations

import os
import random
import signal
import time

import pytest

from ansible_collections.wharf.registry.plugins.module_utils import _certificates, _files, _htpasswd

KILLS = 60  # `WHARF_KILLS=200 make acceptance` kills the modules themselves


def run_and_kill(work, seconds):
    """Run *work* in a process of its own and kill that after *seconds*; return whether it had ended by itself."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    status = os.waitpid(child, 0)[1]
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, "the work itself failed"
    return not os.WIFSIGNALED(status)


def time_of(work):
    """Return how long a whole run in a process of its own takes; the slower of three."""
    times = []
    for _attempt in range(3):
        started = time.monotonic()
        child = os.fork()
        if child == 0:
            work()
            os._exit(0)
        os.waitpid(child, 0)
        times.append(time.monotonic() - started)
    return max(times)


def test_htpasswd_file(tmp_path):
    """Never a file that the registry would refuse: all old users or all new ones, each line whole."""
    path = tmp_path / "htpasswd"
    library = _htpasswd.load_bcrypt()
    generations = [
        [_htpasswd.User(f"user{number}", f"{generation} {number}") for number in range(generation, generation + 12)]
        for generation in (0, 6)
    ]

    def request(generation):
        attributes = _files.Attributes(0o640)
        return _htpasswd.Request(path=str(path), users=generations[generation], attributes=attributes, exclusive=True, cost=4)

    _htpasswd.manage(request(0), check=False)
    duration = time_of(lambda: _htpasswd.manage(request(1), check=False))
    randomness = random.Random(1)
    ended = 0
    for kill in range(KILLS):
        generation = kill % 2
        ended += run_and_kill(lambda: _htpasswd.manage(request(generation), check=False), randomness.uniform(0, duration * 1.1))  # noqa: B023
        content = path.read_bytes()
        lines = _htpasswd.parse(content)
        assert content.endswith(b"\n") and not any(line.fault for line in lines)
        names = [line.name for line in lines]
        assert set(names) in ({user.name for user in generations[0]}, {user.name for user in generations[1]})
        assert all(_htpasswd.cost_of(line.digest) == 4 for line in lines)
        assert path.stat().st_mode & 0o777 == 0o640
    assert ended < KILLS
    _htpasswd.manage(request(0), check=False)
    assert not _htpasswd.manage(request(0), check=False).changed
    digests = {line.name: line.digest for line in _htpasswd.parse(path.read_bytes())}
    assert all(library.verify(user.password, digests[user.name]) for user in generations[0])
    assert os.listdir(tmp_path) == ["htpasswd"]


def test_certificate_and_key(tmp_path):
    """Both are whole at any time; the next run leaves a pair, and issues nothing again."""
    pytest.importorskip("cryptography")

    def request(**options):
        return _certificates.Request(
            path=str(tmp_path / "tls.crt"),
            fullchain_path=str(tmp_path / "chain.crt"),
            privatekey_path=str(tmp_path / "tls.key"),
            common_name="registry.example.com",
            key_type="ed25519",
            attributes=_files.Attributes(0o644),
            privatekey_attributes=_files.Attributes(0o600),
            **options,
        )

    def renew(new_key=True):
        _certificates.manage(request(force=True, new_key_on_renewal=new_key), check=False)

    _certificates.manage(request(), check=False)
    duration = time_of(renew)
    randomness = random.Random(2)
    repaired = ended = 0
    for kill in range(KILLS):
        ended += run_and_kill(lambda: renew(kill % 4 > 0), randomness.uniform(0, duration * 1.1))  # noqa: B023
        certificate = _certificates.load_certificates((tmp_path / "tls.crt").read_bytes())[0]
        _certificates.load_key((tmp_path / "tls.key").read_bytes())
        assert (tmp_path / "tls.key").stat().st_mode & 0o777 == 0o600
        outcome = _certificates.manage(request(), check=False)
        assert outcome.reasons == []
        repaired += outcome.changed
        assert _certificates.load_certificates((tmp_path / "tls.crt").read_bytes()) == [certificate]
        assert _certificates.load_certificates((tmp_path / "chain.crt").read_bytes()) == [certificate]
        assert _certificates.belongs_to(certificate, _certificates.load_key((tmp_path / "tls.key").read_bytes()))
        assert sorted(os.listdir(tmp_path)) == ["chain.crt", "tls.crt", "tls.key"]
    assert ended < KILLS
    print(f"{KILLS} kills, {ended} too late, {repaired} repaired")
