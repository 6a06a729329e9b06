# Copyright (c) 2026 wharf.registry contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Real clients accept what selfsigned_cert makes where ca_trust has been, and nowhere else; also while the CA changes."""

from __future__ import annotations

import contextlib
import json
import re
import time
from pathlib import Path
from typing import Any, Iterator

import pytest
import settings
from hosts import REGISTRY_3, Host, ansible, host, must

NAME = "registry.example.test"
OTHER_NAMES = ["*.wild.example.test", "127.0.0.1", "::1"]
# What is served: port, key of the server, and the CA that signs (none: the certificate itself).
SERVERS: dict[str, tuple[int, dict[str, Any], str]] = {
    "rsa 4096 by an rsa CA": (5001, {}, "rsa"),
    "rsa 2048": (5002, {"key_size": 2048}, "ecdsa"),
    "ecdsa secp256r1": (5003, {"key_type": "ecdsa"}, "ecdsa"),
    "ecdsa secp384r1": (5004, {"key_type": "ecdsa", "curve": "secp384r1"}, "ecdsa"),
    "ecdsa secp521r1": (5005, {"key_type": "ecdsa", "curve": "secp521r1"}, "ecdsa"),
    "ed25519 by an ed25519 CA": (5006, {"key_type": "ed25519"}, "ed25519"),
    "self-signed": (5007, {}, ""),
}
AUTHORITIES: dict[str, dict[str, Any]] = {
    "rsa": {},
    "ecdsa": {"key_type": "ecdsa", "curve": "secp384r1"},
    "ed25519": {"key_type": "ed25519"},
}
# Each gets as far as an answer of the registry, and fails at anything that is wrong with the certificate.
JAVA = "KEYTOOL -printcrl -file https://{address}/v2/ 2>&1 | grep -E 'CRLException|FileNotFound|response code'"
CLIENTS = {
    "curl": "curl -sSf https://{address}/v2/",
    "openssl": "openssl s_client -connect {address} -servername {name} -verify_hostname {name} -verify_return_error -x509_strict -brief </dev/null",
    "crane": "crane catalog {address}",
    "podman": "echo {port} > /tmp/content && tar -C /tmp -c content | podman import -q - {address}/test/podman && podman push -q {address}/test/podman"
    " && podman rmi -f {address}/test/podman && podman pull -q {address}/test/podman && podman rmi -f {address}/test/podman",
    "skopeo": "skopeo login --username a --password-stdin {address} <<<b",
    "java": JAVA.replace("KEYTOOL", "keytool"),
    "java with a key store of its own": JAVA.replace("KEYTOOL", "/opt/java/bin/keytool"),
}
# Every client's words for a certificate that it refuses have one of these.
REFUSAL = "x509|certificate verify failed|certificate problem|no alternative certificate|hostname mismatch|PKIX|No subject alternative"
CONTROLLER = {
    "hosts": "localhost",
    "connection": "local",
    "gather_facts": False,
    "vars": {"ansible_python_interpreter": "{{ ansible_playbook_python }}"},
}
SERVE = """\
mkdir -p /srv/{port} && cat > /srv/{port}/config.yml <<'END'
version: 0.1
storage: {{inmemory: {{}}}}
http: {{addr: ":{port}", tls: {{certificate: {certificate}.crt, key: {certificate}.key}}}}
END
OTEL_TRACES_EXPORTER=none setsid /usr/local/bin/registry serve /srv/{port}/config.yml >/srv/{port}/log 2>&1 &
echo $! > /srv/{port}/pid
"""


def address(port: int, name: str = NAME) -> str:
    """How clients write a registry's address."""
    return f"{name}:{port}"


@contextlib.contextmanager
def new_client(folder: Path) -> Iterator[Host]:
    """A host with every client and a registry's program."""
    with host("client", settings.RELEASE, "client") as client:
        client.copy(REGISTRY_3, "/usr/local/bin/registry")
        client.on(
            f"printf '127.0.0.1 {NAME} any.wild.example.test\\n' >> /etc/hosts; mkdir -p /srv/tls"
            # A Java whose key store does not follow the system's, as those that are not from Debian.
            "; cp -a $(dirname $(dirname $(readlink -f $(command -v keytool)))) /opt/java"
            "; rm /opt/java/lib/security/cacerts && cp -L /etc/ssl/certs/java/cacerts /opt/java/lib/security/"
        )
        yield client


def serve(client: Host, port: int, certificate: str) -> None:
    """Start a registry with a certificate on a port of the client's host, or start it anew."""
    client.on(f"[ ! -e /srv/{port}/pid ] || kill $(cat /srv/{port}/pid)")
    end = time.monotonic() + 30
    while client.answers(f"</dev/tcp/127.0.0.1/{port}")[0] == 0:
        assert time.monotonic() < end, "the old registry does not end"
    client.on(SERVE.format(port=port, certificate=certificate))
    while client.answers(f"</dev/tcp/127.0.0.1/{port}")[0] != 0:
        assert time.monotonic() < end, client.on(f"cat /srv/{port}/log")


def complaint(client: Host, program: str, **values: Any) -> str:
    """Run a client that must refuse the certificate; return what it did, if that was something else."""
    # What it says is wanted here, not only whether the right answer is in it.
    code, output = client.answers(CLIENTS[program].split(" 2>&1 |")[0].format(**values))
    return "" if code and re.search(REFUSAL, output) else f"{code}: {output[-500:]}"


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """The client's host with a registry for each kind of certificate; who complains before it trusts them is in `distrust`."""
    folder = tmp_path_factory.mktemp("client")
    tasks = []
    for name, key in AUTHORITIES.items():
        files = {"path": f"{folder}/ca-{name}.crt", "privatekey_path": f"{folder}/ca-{name}.key"}
        tasks.append(
            {"name": name, "wharf.registry.selfsigned_cert": {**files, **key, "usage": "ca", "common_name": f"Example CA, {name}"}}
        )
    for name, (port, key, authority) in SERVERS.items():
        files = {"path": f"{folder}/{port}.crt", "privatekey_path": f"{folder}/{port}.key"}
        if authority:
            files.update(ca_path=f"{folder}/ca-{authority}.crt", ca_privatekey_path=f"{folder}/ca-{authority}.key")
        names = {"common_name": NAME, "subject_alt_names": OTHER_NAMES}
        tasks.append({"name": name, "wharf.registry.selfsigned_cert": {**files, **key, **names}})
    must(ansible(folder, [{**CONTROLLER, "tasks": tasks}], {}))
    with new_client(folder) as client:
        for file in [*folder.glob("*.crt"), *folder.glob("*.key")]:
            client.copy(file, "/srv/tls/")
        for port, _key, _authority in SERVERS.values():
            serve(client, port, f"/srv/tls/{port}")
        yield client


@pytest.fixture(scope="module")
def distrust(client: Host) -> dict[str, str]:
    """What is wrong with each client's refusal of a certificate before the host trusts its CA."""
    return {name: complaint(client, name, address=address(5001), name=NAME, port=5001) for name in CLIENTS}


@pytest.fixture(scope="module")
def trusting(client: Host, distrust: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Host:
    """The client's host after ca_trust."""
    certificates = [*(f"ca-{name}" for name in AUTHORITIES), "5007"]
    options = {
        "certificates": [client.on(f"cat /srv/tls/{name}.crt") for name in certificates],
        "registries": [address(port) for port, _key, _authority in SERVERS.values()],
        "java_homes": ["/opt/java"],
    }
    play = {"hosts": "all", "gather_facts": False, "tasks": [{"name": "Trust", "wharf.registry.ca_trust": options}]}
    must(ansible(tmp_path_factory.mktemp("trust"), [play], {"client": client}))
    return client


@pytest.mark.parametrize("name", CLIENTS)
def test_who_does_not_trust_the_ca_refuses(distrust: dict[str, str], name: str) -> None:
    assert distrust[name] == ""


@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize("name", CLIENTS)
def test_clients_accept(trusting: Host, name: str, server: str) -> None:
    port = SERVERS[server][0]
    code, output = trusting.answers(CLIENTS[name].format(address=address(port), name=NAME, port=port))
    # Without users the registry lets nobody log in, but it must have been asked.
    assert code == 0 or (name == "skopeo" and "certificate" not in output and "401" in output), output[-2000:]


@pytest.mark.parametrize("server", SERVERS)
def test_openssl_verifies_strictly(trusting: Host, server: str) -> None:
    port, _key, authority = SERVERS[server]
    anchor = f"ca-{authority}" if authority else str(port)
    for check in (f"-verify_hostname {NAME}", "-verify_hostname any.wild.example.test", "-verify_ip 127.0.0.1", "-verify_ip ::1"):
        trusting.on(f"cd /srv/tls && openssl verify -x509_strict -purpose sslserver {check} -CAfile {anchor}.crt {port}.crt")
    code, _output = trusting.answers(f"cd /srv/tls && openssl verify -verify_hostname other.example.test -CAfile {anchor}.crt {port}.crt")
    assert code != 0


@pytest.mark.parametrize("name", ["any.wild.example.test", "127.0.0.1"])
def test_every_name_of_the_certificate_works(trusting: Host, name: str) -> None:
    for client in ("curl", "java"):
        code, output = trusting.answers(CLIENTS[client].format(address=address(5003, name)))
        assert code == 0, f"{client}: {output}"


def test_no_other_name_works(trusting: Host) -> None:
    trusting.on("echo 127.0.0.1 other.example.test >> /etc/hosts")
    wrong = {name: complaint(trusting, name, address=address(5003, "other.example.test")) for name in ("curl", "crane", "java")}
    assert not any(wrong.values()), wrong


# ----------------------------------------------------------------------------------------------------------- roll-over


class RollOver:
    """A registry whose certificates cluster_secrets makes on the controller, and a host of clients that ca_trust serves."""

    PORT, OLD_PORT = 5001, 5002

    def __init__(self, client: Host, folder: Path) -> None:
        self.client = client
        self.folder = folder
        self.secrets = folder / "secrets"
        self.variables = {
            "wharf_name": NAME,
            "cluster_secrets_directory": str(self.secrets),
            "cluster_secrets_hosts": [{"name": "node1", "address": "127.0.0.1"}],
            "cluster_secrets_auth": "none",
            "ca_trust_certificates": [str(self.secrets / "ca.crt")],
            "ca_trust_registries": [address(self.PORT), address(self.OLD_PORT)],
            "ca_trust_java_homes": ["/opt/java"],
        }

    def run(self, *steps: str) -> list[dict[str, str]]:
        """Run roles, each as `role.verb`; for each step `ask` return what ca_trust_info says: the handshakes of both registries."""
        plays = []
        for number, step in enumerate(steps):
            role, _dot, verb = step.partition(".")
            play = dict(CONTROLLER) if role == "cluster_secrets" else {"hosts": "client", "gather_facts": False}
            play["vars"] = {**play.get("vars", {}), **self.variables}
            if role == "ask":
                registries = self.variables["ca_trust_registries"]
                text = "{{ proof.handshakes | to_json }}"
                play["tasks"] = [
                    {"name": "Ask", "wharf.registry.ca_trust_info": {"registries": registries}, "register": "proof"},
                    {"name": "Keep", "ansible.builtin.copy": {"dest": f"/srv/proof-{number}", "mode": "0644", "content": text}},
                ]
            else:
                play["tasks"] = [{"name": step, "ansible.builtin.include_role": {"name": f"wharf.registry.{role}", "tasks_from": verb}}]
            plays.append(play)
        must(ansible(self.folder, plays, {"client": self.client}))
        return [self.answers(number) for number, step in enumerate(steps) if step == "ask"]

    def answers(self, number: int) -> dict[str, str]:
        """What every client said of the registry that goes along with the roll-over, and of the one that does not."""
        proof = json.loads(self.client.on(f"cat /srv/proof-{number}"))
        asked = {entry["client"] for entry in proof}
        assert {"python", "curl", "podman", "buildah", "skopeo", "java"} <= asked, asked
        results = {port: {entry["result"] for entry in proof if entry["registry"] == address(port)} for port in (self.PORT, self.OLD_PORT)}
        assert all(len(found) == 1 for found in results.values()), proof
        return {"server": results[self.PORT].pop(), "late server": results[self.OLD_PORT].pop()}

    def install(self, port: int) -> None:
        """Bring the node's present certificate to the registry on a port."""
        for kind in ("crt", "key"):
            self.client.copy(self.secrets / f"certificates/node1.{kind}", f"/srv/tls/{port}.{kind}")
        serve(self.client, port, f"/srv/tls/{port}")


def test_roll_over_to_a_new_ca(tmp_path: Path) -> None:
    """Two CAs are trusted at once, the server changes, the old CA goes: no client distrusts the server at any time."""
    with new_client(tmp_path) as client:
        both, old = {"server": "trusted", "late server": "trusted"}, {"server": "trusted", "late server": "untrusted"}
        run = RollOver(client, tmp_path)
        run.run("cluster_secrets.main", "ca_trust.main")
        run.install(run.PORT)
        run.install(run.OLD_PORT)  # this one will never hear of the new CA
        before = client.on(f"cat /srv/tls/{run.PORT}.crt")

        assert run.run("ask", "cluster_secrets.rollover_begin", "ca_trust.main", "ask", "cluster_secrets.rollover_switch") == [both, both]
        run.install(run.PORT)
        assert client.on(f"cat /srv/tls/{run.PORT}.crt") != before, "the server has a certificate of the new CA"

        steps = ("ask", "cluster_secrets.rollover_finish", "ca_trust.main", "ask", "ca_trust.remove", "ask")
        assert run.run(*steps) == [both, old, {"server": "untrusted", "late server": "untrusted"}]
