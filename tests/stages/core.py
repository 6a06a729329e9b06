#!/usr/bin/env python3
# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Stage: `ansible-test` sanity, unit and integration tests under one release of ansible-core (2.17, 2.19 or 2.21).

ansible-test wants the collection at ansible_collections/wharf/registry: it gets a copy. It fetches pip from a server of the
Ansible project: here pip comes from the package index like everything else, through a file of the name that
ansible-test looks for first. Its home and its environments stay in .cache/ansible-test/RELEASE, so that the next run is quick.

The newest release needs a newer Python than Debian 12 has. Where PATH has none, the stage runs in a container of the lab's node
image, which has.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from common import CACHE, NAMESPACE, ROOT, VENV, check_sanity, check_suite, copy_checkout, environment, finish, report, run, skip

PYTHONS = {"2.17": ((3, 10), (3, 12)), "2.19": ((3, 11), (3, 13)), "2.21": ((3, 12), (3, 14))}
# The version of pip that each release's ansible-test asks for names the file.
PIP_FILES = {"2.17": "get_pip_23_1_2.py", "2.19": "get_pip_24_2.py", "2.21": "get_pip_25_2.py"}
BOOTSTRAP = """\
# Stands in for get-pip.py: runs the pip that lies beside it.
import os, subprocess, sys

here = os.path.dirname(os.path.abspath(os.environ["GET_PIP"]))
pip = os.path.join(here, "{wheel}", "pip")
wanted = [item for item in sys.argv[1:] if item not in ("--no-setuptools", "--no-wheel")]
sys.exit(subprocess.call([sys.executable, pip, "install", "--quiet"] + wanted))
"""
# Its rules are for collections and their tests; the tools beside them are not shipped, and the stage `lint` looks after them.
NOT_THE_COLLECTION = r"tests/(?!unit/|integration/|sanity/|config\.yml)|molecule/|\.ci/"
CA_BUNDLE = Path("/etc/ssl/certs/ca-certificates.crt")


def find_python(release: str) -> str | None:
    """Return an interpreter that this release runs on, or None."""
    oldest, newest = PYTHONS[release]
    names = [f"python3.{minor}" for minor in range(newest[1], oldest[1] - 1, -1)]
    for name in [os.environ.get("WHARF_TEST_PYTHON", ""), str(VENV / "bin/python"), "/usr/bin/python3", *names]:
        if not name:
            continue
        try:
            result = subprocess.run([name, "-c", "import sys; print(*sys.version_info[:2])"], capture_output=True, text=True, check=False)
        except OSError:
            continue
        found = re.fullmatch(r"(\d+) (\d+)\s*", result.stdout)
        if result.returncode == 0 and found and oldest <= (int(found[1]), int(found[2])) <= newest:
            return name
    return None


def name_of(version: tuple[int, int]) -> str:
    """Return a Python version as people write it."""
    return f"{version[0]}.{version[1]}"


def pip_settings() -> str:
    """Return pip's settings of this user and environment as a file: ansible-test passes neither PIP_* nor the user's home on."""
    result = subprocess.run([VENV / "bin/pip", "config", "list"], capture_output=True, text=True, check=True)
    settings = {"cache-dir": repr(str(CACHE / "pip")), "disable-pip-version-check": "'1'"}
    for line in result.stdout.splitlines():
        name, _equals, value = line.partition("=")
        settings.setdefault(name.rpartition(".")[2], value)
    return "[global]\n" + "".join(f"{name} = {value[1:-1]}\n" for name, value in sorted(settings.items()))


def prepare_home(release: str) -> Path:
    """Make the home that ansible-test runs with; return it."""
    home = CACHE / "ansible-test" / release
    cache = home / ".ansible/test/cache"
    cache.mkdir(parents=True, exist_ok=True)
    wheels = list(cache.glob("pip-*.whl"))
    wanted = re.search(r"^pip==(\S+)", (ROOT / "requirements/pip.txt").read_text(encoding="utf-8"), re.M)
    if [wheel.name.split("-")[1] for wheel in wheels] != [wanted[1]]:
        for wheel in wheels:
            wheel.unlink()
        subprocess.run(
            [VENV / "bin/pip", "download", "-q", "--no-deps", "-d", cache, "-r", ROOT / "requirements/pip.txt"],
            check=True,
            env=environment(),
        )
        wheels = list(cache.glob("pip-*.whl"))
    (cache / PIP_FILES[release]).write_text(BOOTSTRAP.format(wheel=wheels[0].name), encoding="utf-8")
    config = home / ".config/pip/pip.conf"
    config.parent.mkdir(parents=True, exist_ok=True)
    config.write_text(pip_settings(), encoding="utf-8")
    return home


def prepare_venv(release: str, python: str, home: Path) -> Path:
    """Return a virtual environment with this release: .cache/venv if it is the one, else one of its own, made if it is missing."""
    if release == "2.19":
        return VENV
    venv = home / "venv"
    requirements = [ROOT / "requirements" / name for name in (f"ansible-{release}.txt", "units.txt", "constraints.txt")]
    mark = python + "".join(path.read_text(encoding="utf-8") for path in requirements)
    stamp = venv / ".complete"
    if not stamp.exists() or stamp.read_text(encoding="utf-8") != mark:
        shutil.rmtree(venv, ignore_errors=True)
        wheel = next((home / ".ansible/test/cache").glob("pip-*.whl"))
        clean = environment(HOME=str(home))
        for command in (
            [python, "-m", "venv", "--without-pip", venv],
            [python, wheel / "pip", "--python", venv / "bin/python", "install", "-q", "-r", requirements[0]],
        ):
            if run(command, env=clean)[0]:
                report(f"environment of ansible-core {release}", 0, 1, 0)
                finish()
        stamp.write_text(mark, encoding="utf-8")
    return venv


def run_in_container(release: str, tree: Path, arguments: list[str]) -> None:
    """Run this script in a container of the lab's node image, which has a newer Python, with the checkout at the same path."""
    lab = [VENV / "bin/python", ROOT / "tests/lab/lab.py"]
    image = os.environ.get("WHARF_TEST_IMAGE")
    settings = dict(os.environ)
    if not image:
        exports = subprocess.run([*lab, "env"], capture_output=True, text=True, check=False)
        found = subprocess.run([*lab, "image", "node"], stdout=subprocess.PIPE, text=True, check=False)
        image = found.stdout.strip().splitlines()[-1] if found.returncode == 0 and found.stdout.strip() else None
        settings.update(re.findall(r"^export (\w+)=(\S+)$", exports.stdout, re.M))
    if not image:
        skip(f"ansible-core {release}", f"no Python {name_of(PYTHONS[release][0])} on PATH, and the lab has no engine: make demo")
        report(f"ansible-core {release}", 0, 1, 0)
        finish()
    command: list[str | Path] = ["docker", "run", "--rm", "--network", "host", "--entrypoint", "/usr/bin/python3", "-e", "LC_ALL=C.UTF-8"]
    # Not the whole checkout: the container has no git, and ansible-test asks for it where it sees a repository.
    shutil.rmtree(tree / NAMESPACE / ".git")
    command += ["-v", f"{CACHE}:{CACHE}", "-w", str(CACHE)]
    command += [part for name in ("tests", "requirements") for part in ("-v", f"{ROOT / name}:{ROOT / name}:ro")]
    if CA_BUNDLE.exists():
        command += ["-v", f"{CA_BUNDLE}:{CA_BUNDLE}:ro", "-e", f"PIP_CERT={CA_BUNDLE}"]
    command += [image, str(Path(__file__).resolve()), release, "--prepared", *arguments]
    sys.exit(subprocess.call([str(part) for part in command], env=settings))


def main() -> None:
    """Run the stage."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("release", choices=PYTHONS)
    parser.add_argument("--prepared", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("commands", nargs="*", default=[], help="sanity, units, integration (default: the first two)")
    options = parser.parse_args()
    release = options.release
    tree = CACHE / "trees" / "-".join([release, *options.commands])
    home = CACHE / "ansible-test" / release
    if not options.prepared:
        home = prepare_home(release)
        copy_checkout(tree, NOT_THE_COLLECTION)
    oldest, newest = PYTHONS[release]
    python = find_python(release)
    if python is None:
        if release != "2.21":
            skip(f"ansible-core {release}", f"needs Python {name_of(oldest)} to {name_of(newest)}, and PATH has none (WHARF_TEST_PYTHON)")
            finish()
        run_in_container(release, tree, options.commands)
    venv = prepare_venv(release, python, home)
    collection = tree / NAMESPACE
    found = subprocess.run(
        [venv / "bin/python", "-c", "import sys; print('%d.%d' % sys.version_info[:2])"], capture_output=True, text=True, check=True
    )
    where = ["--local", "--python", found.stdout.strip()]
    settings = environment(HOME=str(home), PATH=f"{venv / 'bin'}:{os.environ['PATH']}")
    settings["ANSIBLE_COLLECTIONS_PATH"] = f"{tree}:{CACHE / 'collections'}"
    test = venv / "bin/ansible-test"
    commands = options.commands or ["units", "sanity"]
    junit = collection / "tests/output/junit"
    if "units" in commands and (collection / "tests/unit/plugins").is_dir():
        check_suite(f"units on {release}", junit, test, "units", *where, cwd=collection, env=settings)
    if "sanity" in commands:
        check_sanity(f"sanity on {release}", test, "sanity", *where, cwd=collection, env=settings)
    if "integration" in commands:
        for target in sorted((collection / "tests/integration/targets").glob("*/tasks/main.yml")):
            name = target.parents[1].name
            if "destructive" in (target.parents[1] / "aliases").read_text(encoding="utf-8").split():
                continue  # for hosts that exist for tests only: the stage `acceptance`
            check_suite(f"integration {name} on {release}", junit, test, "integration", *where, name, cwd=collection, env=settings)
    finish()


if __name__ == "__main__":
    main()
