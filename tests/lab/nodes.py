# Copyright (c) 2026 wharf.registry contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lab's network, its package cache and its nodes."""

from __future__ import annotations

import concurrent.futures
import contextlib
import json
import shutil
from pathlib import Path

import images
import settings
from settings import APT_CACHE_PORT, BRIDGE, CAPABILITIES, CHECKOUT, GATEWAY, NETWORK, NODES, STATE, SUBNET
from shell import LabError, alive, apt_install, run, say, step, terminate, wait_for

CACHE = STATE / "apt-cache"
CACHE_PID = CACHE / "apt-cacher-ng.pid"


def start_network() -> None:
    """Create the lab's bridge network, over whatever an interrupted run left of it."""
    if run(["docker", "network", "inspect", NETWORK], check=False).returncode == 0:
        return
    # The engine does not know the network, so a bridge of that name is a left-over.
    if Path(f"/sys/class/net/{BRIDGE}").exists():
        run(["ip", "link", "delete", BRIDGE])
    run(
        [
            "docker",
            "network",
            "create",
            NETWORK,
            "--subnet",
            SUBNET,
            "--gateway",
            GATEWAY,
            "--opt",
            f"com.docker.network.bridge.name={BRIDGE}",
        ]
    )


def start_package_cache() -> None:
    """Run apt-cacher-ng for the lab's addresses only, so that each package crosses the network once."""
    if alive(CACHE_PID, "apt-cacher-ng"):
        return
    apt_install("apt-cacher-ng")
    for directory in ("conf", "data", "log"):
        (CACHE / directory).mkdir(parents=True, exist_ok=True)
    (CACHE / "conf/acng.conf").write_text(
        f"CacheDir: {CACHE}/data\nLogDir: {CACHE}/log\nPort: {APT_CACHE_PORT}\nBindAddress: 127.0.0.1 {GATEWAY}\n"
        f"PidFile: {CACHE_PID}\nSocketPath: {CACHE}/socket\nForeGround: 0\nExThreshold: 4\n"
        # Installed files of the package (report page, mirror lists) stay where Debian put them.
        "SupportDir: /usr/lib/apt-cacher-ng\n"
    )
    run(["apt-cacher-ng", "-c", str(CACHE / "conf")])
    wait_for("apt-cacher-ng did not start", lambda: alive(CACHE_PID, "apt-cacher-ng"), 10)


def state_of(name: str) -> dict[str, str] | None:
    """State of a node's container: ``running`` or not, image and the checkout it belongs to; none if there is none."""
    result = run(["docker", "inspect", name], check=False)
    if result.returncode != 0:
        return None
    data = json.loads(result.stdout)[0]
    return {
        "status": data["State"]["Status"],
        "image": data["Config"]["Image"],
        "checkout": data["Config"]["Labels"].get("wharf.checkout", ""),
    }


def start_nodes(names: list[str]) -> None:
    """Start the named nodes that do not run; those of another checkout or of an older image are made anew."""
    wanted = {name: images.IMAGES[NODES[name].image]() for name in names}
    pending = {name: image for name, image in wanted.items() if not reuse(name, image)}
    if not pending:
        return
    with step(f"Starting {', '.join(pending)}"), concurrent.futures.ThreadPoolExecutor(4) as pool:
        # Consume the results: an exception in a thread must surface.
        list(pool.map(lambda item: start_node(*item), pending.items()))
        for name in pending:
            wait_for(f"{name} did not finish its start", lambda name=name: is_up(name), 60)


def reuse(name: str, image: str) -> bool:
    """Whether the node can stay as it is; a stopped one is started, a foreign or outdated one removed."""
    state = state_of(name)
    if state is None:
        return False
    if state["image"] != image or state["checkout"] != str(CHECKOUT):
        run(["docker", "rm", "--force", "--volumes", name])
        return False
    if state["status"] == "paused":
        run(["docker", "unpause", name])
    elif state["status"] != "running":
        run(["docker", "start", name])
        wait_for(f"{name} did not finish its start", lambda: is_up(name), 60)
    return True


def container(name: str) -> list[str]:
    """The command that starts a systemd container which can carry an engine of its own; the image is to follow."""
    command = [
        "docker",
        "run",
        "--detach",
        "--name",
        name,
        "--hostname",
        name,
        "--network",
        NETWORK,
        "--label",
        f"wharf.checkout={CHECKOUT}",
        "--cgroupns=host",
        "--volume",
        "/sys/fs/cgroup:/sys/fs/cgroup:rw",
        "--tmpfs",
        "/run",
        "--tmpfs",
        "/run/lock",
        "--stop-signal",
        "SIGRTMIN+3",
        "--volume",
        "/var/lib/docker",
        "--volume",
        "/var/lib/containerd",
        "--volume",
        "/var/lib/containers",
        "--device-cgroup-rule",
        "a *:* rwm",
    ]
    for option in ("seccomp=unconfined", "apparmor=unconfined", "systempaths=unconfined"):
        command += ["--security-opt", option]
    for capability in CAPABILITIES:
        command += ["--cap-add", capability]
    return command


def start_node(name: str, image: str) -> None:
    """Start a node of the lab: a container with its address, that knows the lab's names."""
    command = [*container(name), "--ip", NODES[name].address]
    for host, address in settings.NAMES.items():
        command += ["--add-host", f"{host}:{address}"]
    run([*command, image])


def is_up(name: str) -> bool:
    """Whether systemd in the node has finished its start and ssh answers."""
    status = run(["docker", "exec", name, "systemctl", "is-system-running"], check=False).stdout.strip()
    if status == "degraded":
        failed = run(["docker", "exec", name, "systemctl", "--failed", "--plain", "--no-legend"], check=False).stdout
        say(f"  {name} is degraded: {failed.strip()}")
    return status in ("running", "degraded")


def remember_host_keys() -> None:
    """The nodes' ssh host keys come from their common image: one line is true for all."""
    key = run(
        ["docker", "run", "--rm", "--network", "none", "--entrypoint", "cat", images.node_image(), "/etc/ssh/ssh_host_ed25519_key.pub"]
    ).stdout.split()[:2]
    addresses = ",".join(node.address for node in NODES.values())
    (images.SSH / "known_hosts").write_text(f"{addresses} {' '.join(key)}\n")


def create_bucket() -> None:
    """Create the lab's bucket in the S3 store unless it is there."""
    listing = ["docker", "exec", "-i", "store1", "weed", "shell", f"-master={NODES['store1'].address}:9333"]

    def shell(commands: str) -> str:
        return run(listing, stdin=commands, check=False, timeout=30).stdout

    wait_for(
        "the S3 store did not come up",
        lambda: (
            run(
                ["docker", "exec", "store1", "curl", "-s", "-o", "/dev/null", "-m", "2", f"http://{NODES['store1'].address}:8333/"],
                check=False,
            ).returncode
            == 0
        ),
        60,
    )
    if settings.S3_BUCKET not in shell("s3.bucket.list\n"):
        shell(f"s3.bucket.create -name {settings.S3_BUCKET}\n")
        if settings.S3_BUCKET not in shell("s3.bucket.list\n"):
            raise LabError(f"the bucket {settings.S3_BUCKET} could not be created in the S3 store on store1")


def remove_nodes() -> None:
    """Remove every node of the lab with its volumes, the network and what is left of its bridge."""
    names = run(["docker", "ps", "--all", "--quiet", "--filter", "label=wharf.checkout"], check=False).stdout.split()
    if names:
        with step("Removing the nodes"):
            run(["docker", "rm", "--force", "--volumes", *names])
    run(["docker", "network", "rm", NETWORK], check=False)
    if Path(f"/sys/class/net/{BRIDGE}").exists():
        run(["ip", "link", "delete", BRIDGE], check=False)


def stop_package_cache() -> None:
    """Stop the package cache."""
    pid = alive(CACHE_PID, "apt-cacher-ng")
    if pid:
        terminate(pid)
    with contextlib.suppress(FileNotFoundError):
        CACHE_PID.unlink()


def remove_images() -> None:
    """Remove the lab's images from the engine."""
    listing = run(["docker", "images", "--format", "{{.Repository}}:{{.Tag}}"], check=False).stdout.split()
    ours = [
        name
        for name in listing
        if name.startswith("wharf-lab/") or name in (f"registry:{settings.REGISTRY_2}", f"registry:{settings.REGISTRY_3}")
    ]
    if ours:
        run(["docker", "rmi", "--force", *ours], check=False)


def remove_state() -> None:
    """Remove everything that the lab keeps on this machine."""
    # The engine leaves the mount of its network namespace behind.
    mounts = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
    for mount in reversed([path for path in mounts if path.startswith(f"{STATE}/")]):
        run(["umount", mount], check=False)
    run(["chmod", "-R", "u+w", str(STATE)], check=False)  # Go's module cache is read-only
    shutil.rmtree(STATE, ignore_errors=True)
