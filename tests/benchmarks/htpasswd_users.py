#!/usr/bin/env python3
# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Time `htpasswd_user` on a file whose users are all unchanged, beside `community.general.htpasswd` in a loop.

Both work on the same file, on this machine, with the same Python and libraries: an environment of its own in .cache/bench, because
community.general needs passlib, and passlib needs an older bcrypt. Prints the wall time of each, startup of ansible-playbook
included, and their ratio; fails if a run changes something or the ratio is below --at-least.

The loop takes long (at cost 10 about half a second for each user): --sample 100 loops over a tenth of 1,000 users and multiplies.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import secrets
import subprocess
import sys
import tempfile
import time
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BENCH = ROOT / ".cache/bench"
LIBRARIES = ["passlib==1.7.4", "bcrypt==4.0.1"]

PLAY = """\
- hosts: localhost
  connection: local
  gather_facts: false
  tasks:
    - name: All at once
      wharf.registry.htpasswd_user:
        path: "{{ path }}"
        users: "{{ users }}"
        cost: "{{ cost }}"
      when: not looped
    - name: One by one
      community.general.htpasswd:
        path: "{{ path }}"
        name: "{{ item.name }}"
        password: "{{ item.password }}"
        hash_scheme: bcrypt
        mode: "0640"
      loop: "{{ users[:sample] }}"
      loop_control: {label: "{{ item.name }}"}
      no_log: true
      when: looped
"""


def prepare() -> Path:
    """Make the environment with community.general, passlib and bcrypt if it is missing; return its Python."""
    python = BENCH / "venv/bin/python"
    stamp = BENCH / ".complete"
    if not stamp.exists():
        print(f"making {BENCH.relative_to(ROOT)} …", flush=True)
        venv.create(BENCH / "venv", with_pip=True, clear=True)
        subprocess.run([python, "-m", "pip", "install", "-q", *LIBRARIES], check=True)
        pin = re.search(r"^ansible==\S+", (ROOT / "requirements/collections.txt").read_text(encoding="utf-8"), re.M)
        with tempfile.TemporaryDirectory() as folder:
            subprocess.run([python, "-m", "pip", "download", "-q", "--no-deps", "-d", folder, pin[0]], check=True)
            with zipfile.ZipFile(next(Path(folder).glob("*.whl"))) as wheel:
                names = [name for name in wheel.namelist() if name.startswith("ansible_collections/community/general/")]
                wheel.extractall(BENCH / "collections", names)
        stamp.touch()
    return python


def play(python: Path, folder: Path, collections: str, **variables: object) -> float:
    """Run the play; return the seconds it took. It must change nothing."""
    (folder / "play.yml").write_text(PLAY, encoding="utf-8")
    (folder / "variables.json").write_text(json.dumps({**variables, "ansible_python_interpreter": str(python)}), encoding="utf-8")
    environment = {
        **os.environ,
        "ANSIBLE_COLLECTIONS_PATH": f"{collections}:{BENCH / 'collections'}",
        "ANSIBLE_NOCOLOR": "1",
        "ANSIBLE_PIPELINING": "1",
    }
    command = ["ansible-playbook", "-i", "localhost,", "-e", f"@{folder / 'variables.json'}", str(folder / "play.yml")]
    started = time.monotonic()
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    seconds = time.monotonic() - started
    if result.returncode or (" changed=0 " not in result.stdout and variables["check"]):
        sys.exit(f"{result.stdout[-3000:]}\n{result.stderr[-3000:]}")
    return seconds


def main() -> int:
    """Run the benchmark; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--users", type=int, default=1000)
    parser.add_argument("--costs", type=int, nargs="+", default=[10, 5])
    parser.add_argument("--sample", type=int, default=0, help="loop over so many users only, and multiply (0: all)")
    parser.add_argument("--at-least", type=float, nargs="+", default=[5, 50], help="the ratio to reach, for each cost")
    parser.add_argument("--collections", default=str(ROOT / ".cache/collections"), help="where wharf.registry is")
    options = parser.parse_args()
    os.environ["PATH"] = f"{ROOT / '.cache/venv/bin'}:{os.environ['PATH']}"
    python = prepare()
    sample = options.sample or options.users
    good = True
    for cost, wanted in zip(options.costs, options.at_least, strict=False):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            users = [{"name": f"user{number:05}", "password": secrets.token_urlsafe(24)} for number in range(options.users)]
            common = {"path": str(folder / "htpasswd"), "users": users, "cost": cost, "sample": sample}
            play(python, folder, options.collections, looped=False, check=False, **common)  # makes the file
            ours = play(python, folder, options.collections, looped=False, check=True, **common)
            loop = play(python, folder, options.collections, looped=True, check=True, **common) * options.users / sample
        ratio = loop / ours
        good &= ratio >= wanted
        extrapolated = f", by {sample} of them" if sample < options.users else ""
        print(
            f"cost {cost}, {options.users} users, all unchanged: htpasswd_user {ours:.1f} s,"
            f" community.general.htpasswd {loop:.0f} s{extrapolated}: {ratio:.0f} times (wanted: {wanted:g})",
            flush=True,
        )
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
