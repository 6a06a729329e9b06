# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A real Keycloak, and the role keycloak_realm that sets it up."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import ssl
import subprocess
import sys
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from edge import certificate
from world import ROOT, Process, free_ports, servers
from world import apt_install as install

VERSION = "26.4.0"
REALM = "company"
ADMIN, ADMIN_PASSWORD = "keeper", "keeper-of-the-lab"
CLIENT, CLIENT_SECRET = "registry", "known-to-both-sides-only"
THREADS = "io.quarkus.bootstrap.forkjoin.QuarkusForkJoinWorkerThreadFactory"
#: Without files.
BUILD = ("--db=dev-mem", "--health-enabled=false", "--metrics-enabled=false")


def program() -> Path:
    """Return a Keycloak that is built for a quick start, fetched once."""
    if not shutil.which("java"):
        install("openjdk-17-jre-headless")

    def make(folder: Path) -> Path:
        if not shutil.which("mvn"):
            install("maven")
        artifact = f"-Dartifact=org.keycloak:keycloak-quarkus-dist:{VERSION}:zip"
        repository = folder / "m2"
        command = ["mvn", "-q", "-B", f"-Dmaven.repo.local={repository}", "dependency:get", artifact, "-Dtransitive=false"]
        subprocess.run(command, check=True, timeout=600, cwd=folder)
        with zipfile.ZipFile(next(repository.rglob("keycloak-quarkus-dist-*.zip"))) as archive:
            archive.extractall(folder)
        made = folder / f"keycloak-{VERSION}"
        (made / "bin/kc.sh").chmod(0o755)
        return made

    home = servers.images.tool(f"keycloak-{VERSION}", f"Fetching Keycloak {VERSION}", make)
    stamp = home / ".built"
    if not stamp.exists():
        # Here and not above: it remembers where it was built.
        done = subprocess.run([home / "bin/kc.sh", "build", *BUILD], check=False, timeout=300, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        stamp.touch()
    return home


class Keycloak:
    """A Keycloak that runs."""

    def __init__(self, url: str, ca: Path | None, process: Process) -> None:
        self.url = url
        self.ca = ca
        self.issuer = f"{self.url}/realms/{REALM}"
        self._process = process

    def kill(self) -> None:
        """End it at once."""
        self._process._process.kill()
        self._process._process.wait()

    @property
    def context(self) -> ssl.SSLContext | None:
        """How its certificate is checked, if it has one."""
        return ssl.create_default_context(cafile=str(self.ca)) if self.ca else None

    def ask(self, method: str, path: str, content: Any = None) -> Any:
        """Ask its administration."""
        # A new one each time: it lasts a minute.
        form = {"grant_type": "password", "client_id": "admin-cli", "username": ADMIN, "password": ADMIN_PASSWORD}
        url = f"{self.url}/realms/master/protocol/openid-connect/token"
        with urllib.request.urlopen(url, urlencode(form).encode(), timeout=60, context=self.context) as answer:
            token = json.load(answer)["access_token"]
        data = None if content is None else json.dumps(content).encode()
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        request = urllib.request.Request(f"{self.url}/admin/realms/{REALM}{path}", data, headers, method=method)
        with urllib.request.urlopen(request, timeout=60, context=self.context) as answer:
            text = answer.read()
        return json.loads(text) if text else None

    def add_user(self, name: str, password: str, *groups: str) -> None:
        """Make a person who need not say more about himself."""
        person = {
            "username": name,
            "enabled": True,
            "email": f"{name}@lab.test",
            "emailVerified": True,
            "firstName": name,
            "lastName": "Lab",
            "credentials": [{"type": "password", "value": password, "temporary": False}],
            "groups": list(groups),
        }
        self.ask("POST", "/users", person)


@contextlib.contextmanager
def keycloak(folder: Path, address: str = "") -> Iterator[Keycloak]:
    """Run a Keycloak, empty but for its administrator: on loopback, or with TLS at an address that others reach."""
    home = program()
    port = free_ports(50)[49]
    folder.mkdir()
    # Not by kc.sh, which may leave its Java behind when it is ended.
    command: list[str | Path] = ["java", "-Xms128m", "-Xmx640m", "-XX:TieredStopAtLevel=1", f"-Dkc.home.dir={home}"]
    command += [f"-Djboss.server.config.dir={home}/conf", "-Djava.util.logging.manager=org.jboss.logmanager.LogManager"]
    command += ["-Dpicocli.disable.closures=true", "-Djava.util.concurrent.ForkJoinPool.common.threadFactory=" + THREADS]
    command += ["-cp", home / "lib/quarkus-run.jar", "io.quarkus.bootstrap.runner.QuarkusEntryPoint"]
    command += [
        "start",
        "--optimized",
        "--cache=local",
        "--hostname-strict=false",
        f"--http-host={address or '127.0.0.1'}",
    ]
    ca = None
    if address:
        certificate(folder, address)
        ca = folder / "tls.crt"
        command += [f"--https-port={port}", f"--https-certificate-file={ca}", f"--https-certificate-key-file={folder / 'tls.key'}"]
    else:
        command += ["--http-enabled=true", f"--http-port={port}"]
    environment = {
        "KC_BOOTSTRAP_ADMIN_USERNAME": ADMIN,
        "KC_BOOTSTRAP_ADMIN_PASSWORD": ADMIN_PASSWORD,
    }
    with Process(folder, "keycloak", *command, **environment) as process:
        made = Keycloak(f"https://{address}:{port}" if address else f"http://localhost:{port}", ca, process)
        process.wait_for(lambda: urllib.request.urlopen(f"{made.url}/realms/master", timeout=5, context=made.context).status == 200, 300)
        yield made


def set_up(found: Keycloak, folder: Path, url: str, groups: list[str], *options: str) -> str:
    """Run the role; return what Ansible says."""
    play = folder / "keycloak.yml"
    play.write_text("- {hosts: localhost, connection: local, gather_facts: false, roles: [wharf.registry.keycloak_realm]}\n")
    variables = {
        "ansible_python_interpreter": sys.executable,
        "keycloak_realm_url": found.url,
        "keycloak_realm_admin_user": ADMIN,
        "keycloak_realm_admin_password": ADMIN_PASSWORD,
        "keycloak_realm_registry_url": url,
        "wharf_sso": {
            "issuer": found.issuer,
            "client_id": CLIENT,
            "client_secret": CLIENT_SECRET,
            "groups": dict.fromkeys(groups, "developers"),
        },
    }
    command = [Path(sys.executable).with_name("ansible-playbook"), "-i", "localhost,", play, "-e", json.dumps(variables), *options]
    environment = {**os.environ, **({"SSL_CERT_FILE": str(found.ca)} if found.ca else {})}
    done = subprocess.run(
        [str(part) for part in command], cwd=ROOT, capture_output=True, text=True, check=False, timeout=300, env=environment
    )
    print(done.stdout[-4000:])
    return done.stdout + done.stderr
