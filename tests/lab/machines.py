# Copyright (c) 2026 wharf.registry contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Machines with kernels of their own (User-mode Linux), beside the container nodes and on their network.

For what a container cannot do: mount and serve NFS, lose power. All share one prepared disk and write
to a copy of their own, which stays until it is thrown away: a machine that lost its power finds what its disk had.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
from pathlib import Path

import engine
import images
import nodes
from settings import BRIDGE, GATEWAY, MACHINES, STATE
from shell import LabError, alive, apt_install, run, step, wait_for

HOME = STATE / "machines"
PACKAGES = "nfs-kernel-server nfs-common docker.io docker-cli nftables python3-requests nginx libnginx-mod-stream"
PREFIX_LENGTH = 24

DISK = """\
FROM {node}
RUN apt-get install -y --no-install-recommends {packages} && apt-get clean
COPY lab-machine /usr/local/sbin/lab-machine
COPY lab-machine.service /etc/systemd/system/lab-machine.service
# What a host brings is installed, and runs only where a role starts it. The tables of the kernel are iptables' old ones.
RUN chmod 0755 /usr/local/sbin/lab-machine && systemctl enable lab-machine.service \\
 && systemctl disable nfs-server.service docker.service docker.socket containerd.service nginx.service apt-daily.timer apt-daily-upgrade.timer \\
 && update-alternatives --set iptables /usr/sbin/iptables-legacy \\
 && printf '%s\\n' overlay br_netfilter iptable_nat iptable_filter xt_conntrack xt_MASQUERADE xt_addrtype > /etc/modules-load.d/lab.conf \\
 && echo '/dev/ubda / ext4 noatime 0 1' > /etc/fstab
"""

# The kernel's command line says who a machine is; the disk is the same for all.
SETTLE = """\
#!/bin/sh
for word in $(cat /proc/cmdline); do
  case $word in
    lab.name=*) name=${word#*=} ;;
    lab.address=*) address=${word#*=} ;;
    lab.gateway=*) gateway=${word#*=} ;;
  esac
done
echo "$name" > /proc/sys/kernel/hostname
echo "$name" > /etc/hostname
printf '127.0.0.1 localhost\\n%s %s\\n' "${address%/*}" "$name" > /etc/hosts
ip link set lo up
ip address add "$address" dev vec0
ip link set vec0 up
ip route add default via "$gateway"
"""

SETTLE_UNIT = """\
[Unit]
Description=Name and address of this machine
DefaultDependencies=no
After=systemd-remount-fs.service
Before=network-pre.target network.target sysinit.target
Wants=network-pre.target
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/usr/local/sbin/lab-machine
[Install]
WantedBy=sysinit.target
"""


def modules() -> Path:
    """The kernel's modules, installed with it."""
    apt_install("user-mode-linux", "uml-utilities", "e2fsprogs")
    return max(Path("/usr/lib/uml/modules").iterdir())


def base_disk() -> Path:
    """The disk that all machines begin with, made once from the node image."""
    kernel = modules()
    text = DISK.format(node=images.node_image(), packages=PACKAGES)
    key = images.recipe(text, SETTLE, SETTLE_UNIT, kernel.name)
    disk = HOME / f"base-{key}.img"
    if disk.exists():
        return disk
    image = images.build(
        f"wharf-lab/machine:{key}", text, {"lab-machine": SETTLE, "lab-machine.service": SETTLE_UNIT}, "the machines' image"
    )
    root = STATE / "tmp" / f"machine-{key}"
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir(parents=True)
    HOME.mkdir(parents=True, exist_ok=True)
    for old in HOME.glob("base-*"):
        old.unlink()
    with step("Making the machines' disk"):
        container = run(["docker", "create", image, "true"]).stdout.strip()
        try:
            run(["sh", "-c", f"docker export {container} | tar -C {root} -xf -"])
        finally:
            run(["docker", "rm", container])
        # Files that the engine puts its own in the place of are empty in the image.
        (root / "etc/resolv.conf").write_text(f"nameserver {GATEWAY}\n")
        shutil.copytree(kernel, root / "lib/modules" / kernel.name, symlinks=True)
        partial = disk.with_suffix(".partial")
        with partial.open("wb") as handle:
            handle.truncate(6 * 2**30)
        run(["mkfs.ext4", "-q", "-F", "-E", "root_owner=0:0", "-d", str(root), str(partial)])
        partial.replace(disk)
    shutil.rmtree(root)
    return disk


def _tap(name: str) -> str:
    return f"wharf-{name}"


def _pid_file(name: str) -> Path:
    return HOME / f"{name}.pid"


def running(name: str) -> int:
    """The process of a machine; 0 if it is off."""
    return alive(_pid_file(name), "linux")


def connect(name: str) -> None:
    """Put the machine's cable into the lab's network."""
    tap = _tap(name)
    if not Path(f"/sys/class/net/{tap}").exists():
        run(["ip", "tuntap", "add", "dev", tap, "mode", "tap"])
    run(["ip", "link", "set", tap, "master", BRIDGE, "up"])


def switch_on(name: str) -> None:
    """Switch a machine on."""
    if running(name):
        return
    disk = base_disk()
    machine = MACHINES[name]
    cow = HOME / f"{name}.{disk.stem}.cow"
    for old in HOME.glob(f"{name}.*.cow"):
        if old != cow:
            old.unlink()
    connect(name)
    arguments = [
        "linux.uml", f"mem={machine.memory}M", f"ubd0={cow},{disk}", "root=/dev/ubda", "rw", "con=null", "con0=null,fd:1", f"umid=wharf-{name}",
        f"vec0:transport=tap,ifname={_tap(name)},depth=128,gro=1",
        f"lab.name={name}", f"lab.address={machine.address}/{PREFIX_LENGTH}", f"lab.gateway={GATEWAY}",
    ]  # fmt: skip
    # Its memory is a file, which must not be on a disk.
    with (HOME / f"{name}.log").open("ab") as log:
        process = subprocess.Popen(  # pylint: disable=consider-using-with
            arguments,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            cwd="/",
            env={**os.environ, "TMPDIR": "/dev/shm"},
        )
    _pid_file(name).write_text(f"{process.pid}\n")


def ssh(name: str, command: str, *, check: bool = True, timeout: float = 60) -> subprocess.CompletedProcess[str]:
    """Run a shell command on a machine as root."""
    options = ["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR", "-o", "ConnectTimeout=5"]
    target = f"ops@{MACHINES[name].address}"
    return run(
        ["ssh", "-i", str(images.SSH / "id_ed25519"), *options, target, f"sudo sh -c {_quoted(command)}"], check=check, timeout=timeout
    )


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


def answers(name: str) -> bool:
    """Whether the machine can be worked on."""
    with contextlib.suppress(LabError):
        return ssh(name, "true", check=False, timeout=10).returncode == 0
    return False


def up(names: list[str], patience: float = 120) -> None:
    """Switch machines on, one beside the other, and wait until they answer."""
    if not engine.connect():
        raise LabError("no engine runs; `lab.py up` starts it")
    nodes.start_network()
    HOME.mkdir(parents=True, exist_ok=True)
    base_disk()
    with step(f"Switching on {', '.join(names)}"):
        for name in names:
            switch_on(name)
        for name in names:
            wait_for(f"{name} did not answer (see {HOME}/{name}.log)", lambda name=name: answers(name), patience, 0.5)


def cut(names: list[str]) -> None:
    """Cut the power of machines: nothing of what they held in memory is written."""
    for name in names:
        pid = running(name)
        if pid:
            # The kernel and the processes of the machine are one group of processes here.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
            wait_for(f"{name} did not stop", lambda pid=pid: _gone(pid), 10, 0.05)


def _gone(pid: int) -> bool:
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
    return not Path(f"/proc/{pid}").exists()


def down(names: list[str], keep_disks: bool = False) -> None:
    """Cut the power and throw the machines' own disks away."""
    cut(names)
    for name in names:
        if Path(f"/sys/class/net/{_tap(name)}").exists():
            run(["ip", "link", "delete", _tap(name)])
        with contextlib.suppress(FileNotFoundError):
            _pid_file(name).unlink()
        if not keep_disks:
            for file in [*HOME.glob(f"{name}.*.cow"), HOME / f"{name}.log"]:
                with contextlib.suppress(FileNotFoundError):
                    file.unlink()


def status() -> None:
    """Print each machine and whether it is on."""
    for name, machine in MACHINES.items():
        print(f"{name:10} {machine.address:15} {'on' if running(name) else '-'}")


VERBS = {"up": up, "down": down, "cut": cut}
