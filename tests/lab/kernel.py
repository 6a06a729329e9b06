# Copyright (c) 2026 wharf.registry contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The kernel of the machines: User-mode Linux, of a Debian that is younger than this host.

From Linux 6.16 on it runs its processes under seccomp, where older ones trace each of their system calls and page faults: a Python that starts
takes a fifth of the time. It is unpacked with the C library that it wants, and not installed.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import images
from settings import APT_CACHE_PORT, KERNEL_RELEASE, MIRROR
from shell import LabError, apt_install, run

KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
LIBRARIES = "usr/lib/x86_64-linux-gnu"


class Kernel(NamedTuple):
    """The program that is the kernel, and the folder of its modules, which is named after its version."""

    program: Path
    modules: Path


def _fetch(folder: Path) -> None:
    """Unpack the packages of the release into a folder."""
    (folder / "sources.list").write_text(f"deb [signed-by={KEYRING}] {MIRROR} {KERNEL_RELEASE} main\n")
    (folder / "lists/partial").mkdir(parents=True)
    settings = {
        "Dir::Etc::SourceList": folder / "sources.list",
        "Dir::Etc::SourceParts": "-",
        "Dir::State::Lists": folder / "lists",
        "Dir::Cache": folder / "cache",
        "Acquire::http::Proxy": f"http://127.0.0.1:{APT_CACHE_PORT}",
        "Acquire::Languages": "none",
        "APT::Sandbox::User": "root",
    }
    apt = ["apt-get", "-qq", *(f"-o{name}={value}" for name, value in settings.items())]
    run([*apt, "update"], cwd=folder)
    run([*apt, "download", "user-mode-linux", "libc6"], cwd=folder)
    for package in folder.glob("*.deb"):
        run(["dpkg-deb", "-x", str(package), str(folder / "root")])


def kernel() -> Kernel:
    """Return the kernel, fetched once.

    Raises:
        LabError: the packages are not what they are taken for.
    """
    home = images.TOOLS / f"kernel-{KERNEL_RELEASE}"

    def make(folder: Path) -> Path:
        apt_install("patchelf", "debian-archive-keyring")
        _fetch(folder)
        made = folder / "root"
        # Its loader and its C library are those beside it.
        libraries = home / LIBRARIES
        loader = str(libraries / "ld-linux-x86-64.so.2")
        run(["patchelf", "--set-interpreter", loader, "--set-rpath", str(libraries), str(made / "usr/bin/linux.uml")])
        return made

    images.tool(home.name, f"Fetching the machines' kernel from Debian {KERNEL_RELEASE}", make)
    modules = sorted((home / "usr/lib/uml/modules").glob("*"))
    if not modules:
        raise LabError(f"user-mode-linux of Debian {KERNEL_RELEASE} brings no modules")
    return Kernel(home / "usr/bin/linux.uml", modules[-1])
