# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The edge in front of a registry and the token service, and a balancer before edges: the roles' own templates, run by nginx on loopback."""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import json
import shutil
import ssl
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from world import ROOT, Process, World, servers
from world import apt_install as install


def nginx() -> list[str | Path]:
    """Return how to start nginx: the package's program, without the service that comes with it."""
    installed = shutil.which("nginx", path="/usr/sbin:/usr/bin")
    if installed:
        return [installed]

    def make(folder: Path) -> Path:
        subprocess.run(["apt-get", "download", "-q", "nginx"], cwd=folder, check=True, capture_output=True, timeout=120)
        subprocess.run(["dpkg-deb", "-x", next(folder.glob("nginx_*.deb")), folder], check=True, timeout=60)
        return folder / "usr/sbin/nginx"

    install("libpcre2-8-0")
    return [servers.images.tool("nginx", "Fetching nginx", make)]


def certificate(folder: Path, *addresses: str) -> None:
    """Write a certificate for localhost and further addresses, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    # Not the same for all: who trusts several of them would look for one by its name.
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, folder.name)])
    now = datetime.datetime.now(datetime.UTC)
    names: list[x509.GeneralName] = [x509.DNSName("localhost")]
    names += [x509.IPAddress(ipaddress.ip_address(address)) for address in ("127.0.0.1", *addresses)]
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(x509.random_serial_number()).not_valid_before(now).not_valid_after(now + datetime.timedelta(days=1))
    builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    made = builder.sign(key, hashes.SHA256())
    (folder / "tls.crt").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / "tls.key").write_bytes(private)


@contextlib.contextmanager
def edge(folder: Path, registry: str, world: World | None, port: int, **settings: Any) -> Iterator[str]:
    """Run an edge in front of a registry, and of the token service if there is one; yield its address."""
    folder.mkdir(parents=True)
    (folder / "logs").mkdir()
    certificate(folder)
    variables = {
        "folder": str(folder),
        "wharf_name": "localhost",
        "inventory_dir": str(folder),
        "registry_edge_port": port,
        "registry_edge_proxy_protocol_port": 0,
        "registry_edge_ipv6": False,
        "registry_edge_balancers": [],
        "registry_edge_monitoring": [],
        "registry_edge_peers": [],
        "registry_edge_registry_address": registry,
        "registry_edge_token_address": f"127.0.0.1:{world.port}" if world else "",
        "token_auth_listen": f"127.0.0.1:{world.port}" if world else "127.0.0.1:1",
        "token_auth_monitoring": [],
        "token_auth_peers": [],
        "registry_edge_access_log": str(folder / "logs/access.log"),
        **settings,
    }
    render(
        variables,
        {
            "registry_edge/templates/wharf_edge.conf.j2": "wharf_edge.conf",
            "registry_edge/templates/wharf_edge_server.conf.j2": "wharf_edge_server.conf",
            "token_auth/templates/location.conf.j2": "locations.conf",
            "token_auth/templates/upstream.conf.j2": "upstream.conf",
        },
    )
    for name in ("wharf_edge.conf", "wharf_edge_server.conf"):
        text = (folder / name).read_text()
        text = text.replace("/etc/nginx/wharf_edge_server.conf", str(folder / "wharf_edge_server.conf"))
        text = text.replace("/etc/nginx/wharf_edge_locations.d/*.conf", str(folder / ("locations.conf" if world else "none*.conf")))
        (folder / name).write_text(text.replace("/etc/wharf/edge/", f"{folder}/"))
    # In the order in which nginx reads them on a node.
    with run(folder, port, "wharf_edge.conf", "upstream.conf") as address:
        yield address


@contextlib.contextmanager
def balancer(folder: Path, edges: dict[str, Path], port: int) -> Iterator[str]:
    """Run a balancer that gives each request to the next edge in turn; edges are their addresses with the folders of their certificates."""
    folder.mkdir()
    (folder / "logs").mkdir()
    certificate(folder)
    (folder / "ca.crt").write_text("".join((place / "tls.crt").read_text() for place in edges.values()))
    variables = {
        "folder": str(folder),
        "wharf_name": "localhost",
        "inventory_dir": str(folder),
        "nginx_lb_port": port,
        "nginx_lb_listen_addresses": ["127.0.0.1"],
        "nginx_lb_method": "round_robin",
        "nginx_lb_log": str(folder / "logs/access.log"),
    }
    render(variables, {"nginx_lb/templates/http.conf.j2": "http.conf"})
    text = (folder / "http.conf").read_text().replace("/etc/nginx/wharf_lb_upstream_http.conf", str(folder / "upstream.conf"))
    (folder / "http.conf").write_text(text.replace("/etc/wharf/balancer/", f"{folder}/"))
    # On a balancer the checker writes this file.
    (folder / "upstream.conf").write_text(
        "".join(f"server {address.replace('localhost', '127.0.0.1')} max_fails=0;\n" for address in edges)
    )
    with run(folder, port, "http.conf") as address:
        yield address


def render(variables: dict[str, Any], files: dict[str, str]) -> None:
    """Render templates of the roles into the folder that the variables name."""
    more = {"ansible_python_interpreter": sys.executable, "templates": [{"src": source, "dest": name} for source, name in files.items()]}
    command: list[str | Path] = [Path(sys.executable).with_name("ansible-playbook"), "-i", "localhost,", ROOT / "tests/token/edge.yml"]
    command += ["-e", json.dumps({**variables, **more})]
    done = subprocess.run([str(part) for part in command], cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout[-2000:]


@contextlib.contextmanager
def run(folder: Path, port: int, *files: str) -> Iterator[str]:
    """Run nginx with these files of a folder; yield its address."""
    included = " ".join(f"include {folder}/{name};" for name in files)
    (folder / "nginx.conf").write_text(
        f"daemon off; pid {folder}/pid; error_log {folder}/logs/error.log; events {{ worker_connections 1024; }}\n"
        f"http {{ access_log off; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/f;"
        f" uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s; {included} }}\n"
    )
    address = f"localhost:{port}"
    with Process(folder, "nginx", *nginx(), "-p", folder, "-c", folder / "nginx.conf", "-e", folder / "logs/error.log") as process:
        process.wait_for(lambda: ask(address, "/").status == 404)
        yield address


class Reply:
    """An answer of the edge."""

    def __init__(self, response: Any) -> None:
        self.status = response.status
        self.headers = {name.lower(): value for name, value in response.headers.items()}
        self.text = response.read().decode(errors="replace")


def ask(address: str, path: str, headers: dict[str, str] | None = None, method: str = "GET", body: bytes | None = None) -> Reply:
    """Ask an edge on loopback; its certificate is not looked at."""
    request = urllib.request.Request(f"https://{address}{path}", headers=headers or {}, method=method, data=body)
    context = ssl._create_unverified_context()
    try:
        with urllib.request.urlopen(request, timeout=30, context=context) as response:
            return Reply(response)
    except urllib.error.HTTPError as error:
        return Reply(error)
