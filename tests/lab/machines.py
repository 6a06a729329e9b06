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
import time
from pathlib import Path

import engine
import images
import nodes
from kernel import kernel
from settings import BRIDGE, GATEWAY, MACHINES, STATE
from shell import LabError, alive, apt_install, run, step, wait_for

HOME = STATE / "machines"
# Whatever a role would install, since installing is slow on these machines.
PACKAGES = (
    "nfs-kernel-server nfs-common docker.io docker-cli apparmor nftables nginx libnginx-mod-stream keepalived redis-server "
    "logrotate python3-requests python3-boto3 python3-redis python3-yaml"
)
PREFIX_LENGTH = 24

DISK = """\
FROM {node}
RUN apt-get install -y --no-install-recommends {packages} && apt-get clean
COPY lab-machine /usr/local/sbin/lab-machine
COPY lab-machine.service /etc/systemd/system/lab-machine.service
# What a host brings is installed, and runs only where a role starts it.
# Masked is what a machine without devices of its own has no use for: udev alone took most of its start.
# Root may come in by its key: asking sudo for each task costs these machines a good part of the task.
RUN chmod 0755 /usr/local/sbin/lab-machine && systemctl enable lab-machine.service \\
 && install -D -m 600 /home/ops/.ssh/authorized_keys /root/.ssh/authorized_keys \\
 && systemctl unmask systemd-modules-load.service \\
 && systemctl disable nfs-server.service docker.service docker.socket containerd.service nginx.service keepalived.service redis-server.service apt-daily.timer apt-daily-upgrade.timer \\
 && systemctl mask systemd-udevd.service systemd-udevd-control.socket systemd-udevd-kernel.socket systemd-udev-trigger.service \\
      systemd-udev-load-credentials.service systemd-binfmt.service proc-sys-fs-binfmt_misc.automount systemd-logind.service \\
      console-getty.service getty@tty1.service nfs-blkmap.service \\
 && printf '%s\\n' overlay bridge > /etc/modules-load.d/lab.conf
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


def base_disk() -> Path:
    """The disk that all machines begin with, made once from the node image."""
    modules = kernel().modules
    text = DISK.format(node=images.node_image(), packages=PACKAGES)
    key = images.recipe(text, SETTLE, SETTLE_UNIT, modules.name)
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
    if not any(running(name) for name in MACHINES):
        for old in HOME.glob("base-*"):
            old.unlink()
    apt_install("e2fsprogs")
    with step("Making the machines' disk"):
        container = run(["docker", "create", image, "true"]).stdout.strip()
        try:
            run(["sh", "-c", f"docker export {container} | tar -C {root} -xf -"])
        finally:
            run(["docker", "rm", container])
        # Files that the engine puts its own in the place of are empty in the image.
        (root / "etc/resolv.conf").write_text(f"nameserver {GATEWAY}\n")
        shutil.copytree(modules, root / "lib/modules" / modules.name, symlinks=True)
        # Younger than /usr: else each new machine begins with making the caches that the disk has.
        for mark in (root / "etc/.updated", root / "var/.updated"):
            mark.touch()
        partial = disk.with_suffix(".partial")
        with partial.open("wb") as handle:
            handle.truncate(6 * 2**30)
        run(["mkfs.ext4", "-q", "-F", "-E", "root_owner=0:0", "-d", str(root), str(partial)])
        partial.replace(disk)
    shutil.rmtree(root)
    return disk


def _tap(name: str) -> str:
    return f"wharf-{name}"


def _mac(name: str) -> str:
    """The machine's hardware address, always the same: others remember it, and would send to the old one for half a minute."""
    return ":".join(["02:00", *(f"{int(part):02x}" for part in MACHINES[name].address.split("."))])


def _pid_file(name: str) -> Path:
    return HOME / f"{name}.pid"


def running(name: str) -> int:
    """The process of a machine; 0 if it is off."""
    return alive(_pid_file(name), "linux")


def plug(names: list[str]) -> None:
    """Put the machines' cables into the lab's network."""
    for name in names:
        tap = _tap(name)
        if not Path(f"/sys/class/net/{tap}").exists():
            run(["ip", "tuntap", "add", "dev", tap, "mode", "tap"])
        run(["ip", "link", "set", tap, "master", BRIDGE, "up"])


def unplug(names: list[str]) -> None:
    """Cut the network of machines. They do not notice: packets get lost in both directions."""
    for name in names:
        run(["ip", "link", "set", _tap(name), "nomaster"])


def part(names: list[str], apart: bool = True) -> None:
    """Let machines reach each other no more, or again; all others reach them. Nobody is told: packets get lost."""
    for name in names:
        run(["bridge", "link", "set", "dev", _tap(name), "isolated", "on" if apart else "off"])


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
    plug([name])
    arguments = [
        str(kernel().program), "seccomp=auto", f"mem={machine.memory}M", f"ubd0={cow},{disk}", "root=/dev/ubda", "rw", "con=null", "con0=null,fd:1", f"umid=wharf-{name}",
        f"vec0:transport=tap,ifname={_tap(name)},mac={_mac(name)},depth=128,gro=1",
        "rootfstype=ext4", f"lab.name={name}", f"lab.address={machine.address}/{PREFIX_LENGTH}", f"lab.gateway={GATEWAY}",
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
    # For a moment the process still has the name of the one that started it, and would be taken for somebody else's.
    wait_for(f"{name} did not start (see {HOME}/{name}.log)", lambda: running(name), 5, 0.01)


def shell(name: str, command: str) -> list[str]:
    """What runs a shell command on a machine as root."""
    options = ["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR", "-o", "ConnectTimeout=5"]
    return ["ssh", "-i", str(images.SSH / "id_ed25519"), *options, f"root@{MACHINES[name].address}", command]


def ssh(name: str, command: str, *, check: bool = True, timeout: float = 60) -> subprocess.CompletedProcess[str]:
    """Run a shell command on a machine as root."""
    return run(shell(name, command), check=check, timeout=timeout)


def answers(name: str) -> bool:
    """Whether the machine can be worked on."""
    if not running(name):
        raise LabError(f"{name} has ended; the end of {HOME}/{name}.log says why")
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


def halt(names: list[str], patience: float = 300) -> None:
    """Shut machines down as their operator does, one beside the other, and wait until they are off.

    A process that waits for an NFS server which is gone cannot be killed; systemd waits three minutes for it.
    """
    pids = {name: pid for name in names if (pid := running(name))}
    for name in pids:
        # The connection may end before the answer.
        with contextlib.suppress(LabError):
            ssh(name, "systemctl poweroff", check=False, timeout=20)
    for name, pid in pids.items():
        wait_for(f"{name} did not stop (see {HOME}/{name}.log)", lambda pid=pid: _gone(pid), patience, 0.1)


def reboot(names: list[str]) -> None:
    """Shut machines down and switch them on again. What User-mode Linux does itself leaves it without its network."""
    halt(names)
    up(names)


def clock(names: list[str], offset: float = 0) -> None:
    """Set the clocks of machines: ours, and ``offset`` seconds more."""
    for name in names:
        # The way there takes a machine some seconds, so the time is told when it listens.
        command = shell(name, "echo listening; read -r now; date --set=@$now")
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdin is not None and process.stdout is not None
            heard = process.stdout.readline()
            process.communicate(f"{time.time() + offset:.3f}\n")
        if heard != "listening\n" or process.returncode:
            raise LabError(f"the clock of {name} could not be set")


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


VERBS = {"up": up, "down": down, "cut": cut, "halt": halt, "reboot": reboot, "unplug": unplug, "plug": plug}
