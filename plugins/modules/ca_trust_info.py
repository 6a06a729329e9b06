#!/usr/bin/python

# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: ca_trust_info
short_description: Prove by real TLS handshakes which clients of a host trust a registry
version_added: 0.1.0
author:
  - wharf.registry contributors (@wharf-registry)
description:
  - Lets each container client that is installed ask each registry for an image that does not exist, without credentials. A client that
    trusts the registry's certificate gets as far as being told "unauthorized" or "not found"; one that does not complains of the certificate.
  - Python's ssl and curl stand for the programs that use the system store. Java is asked through C(keytool), which every installation of Java
    has; it asks for a revocation list, by HTTPS as any Java program speaks it.
  - Nothing is changed and nothing is downloaded. A registry that does not answer on its port is reported as unreachable at once.
extends_documentation_fragment:
  - wharf.registry._attributes
attributes:
  diff_mode:
    support: none
    details: There is nothing to differ.
options:
  registries:
    description: The registries, as V(host) or V(host:port).
    type: list
    elements: str
    required: true
  clients:
    description: The clients to ask. V(auto) means all that are installed.
    type: list
    elements: str
    choices: [auto, python, curl, docker, containerd, podman, buildah, skopeo, java]
    default: [auto]
  timeout:
    description: Seconds that one client may take.
    type: int
    default: 20
"""

EXAMPLES = r"""
- name: Ask each client
  wharf.registry.ca_trust_info:
    registries: [registry.example.com]
  register: trust
  become: true

- name: Refuse a host with a client that does not trust the registry
  ansible.builtin.assert:
    that: trust.handshakes | selectattr('result', 'equalto', 'untrusted') | length == 0
"""

RETURN = r"""
handshakes:
  description: One entry for each registry and client.
  returned: always
  type: list
  elements: dict
  contains:
    registry:
      description: The registry's name and port.
      returned: always
      type: str
      sample: registry.example.com:443
    client:
      description: The client.
      returned: always
      type: str
      sample: docker
    result:
      description: V(trusted), V(untrusted), V(unreachable), or V(unknown) if the client's answer says nothing of TLS.
      returned: always
      type: str
      sample: trusted
    detail:
      description: The last thing that the client said.
      returned: always
      type: str
      sample: "unauthorized: authentication required"
"""

import concurrent.futures
import os
import shutil
import socket
import ssl
import subprocess

from ansible.module_utils.basic import AnsibleModule

from ..module_utils import _ca_trust as ca_trust

SECONDS_TO_CONNECT = 3
IMAGE = "wharf/ca-trust-probe:none"


def find_clients(asked):
    """Return the clients to ask, and the program of each."""
    path = os.environ.get("PATH", "") + ":/usr/local/bin:/usr/bin:/usr/sbin"
    programs = {
        "curl": "curl",
        "docker": "docker",
        "containerd": "ctr",
        "podman": "podman",
        "buildah": "buildah",
        "skopeo": "skopeo",
        "java": "keytool",
    }
    found = {client: shutil.which(program, path=path) for client, program in programs.items()}
    if not os.path.exists("/var/run/docker.sock"):
        found["docker"] = None
    if not os.path.exists("/run/containerd/containerd.sock"):
        found["containerd"] = None
    every = {"python": "python", **{client: program for client, program in found.items() if program}}
    return every if "auto" in asked else {client: every[client] for client in asked if client in every}


def command(client, program, registry, timeout):
    """Return the command by which a client asks for what does not exist."""
    image = f"{registry.names[0]}/{IMAGE}"
    return {
        "curl": [
            program,
            "--silent",
            "--show-error",
            "--fail",
            "--max-time",
            str(timeout),
            "--output",
            "/dev/null",
            f"https://{registry.address}/v2/{IMAGE}",
        ],
        "docker": [program, "pull", "--quiet", image],
        "containerd": [program, "images", "pull", "--hosts-dir", ca_trust.CONTAINERD_DIRECTORY, image],
        "podman": [program, "pull", "--quiet", image],
        "buildah": [program, "pull", "--quiet", image],
        "skopeo": [program, "inspect", f"docker://{image}"],
        "java": [program, "-printcrl", "-file", f"https://{registry.address}/v2/{IMAGE}"],
    }[client]


def ask_python(registry, timeout):
    try:
        host = registry.host.strip("[]")
        context = ssl.create_default_context()
        with socket.create_connection((host, registry.port), timeout=timeout) as plain, context.wrap_socket(
            plain, server_hostname=host
        ) as secure:
            return "trusted", secure.version() or ""
    except ssl.SSLCertVerificationError as error:
        return "untrusted", error.verify_message
    except (OSError, ssl.SSLError) as error:
        return ca_trust.judge(str(error)), str(error)


def ask(client, program, registry, timeout):
    """Return what a client says of a registry's certificate, and its words."""
    if client == "python":
        return ask_python(registry, timeout)
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("DOCKER_", "CONTAINER"))}
    environment.update(LC_ALL="C", HOME=os.environ.get("HOME", "/root"))
    try:
        # run_command has no time limit, and a client that hangs must not hang the play.
        answer = subprocess.run(  # pylint: disable=ansible-bad-function
            command(client, program, registry, timeout),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=timeout,
            env=environment,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return "unreachable", f"no answer within {timeout} seconds"
    text = answer.stdout.decode(errors="replace").strip()
    result = "trusted" if answer.returncode == 0 else ca_trust.judge(text)
    lines = text.splitlines() or [""]
    telling = next((line for line in lines if ca_trust.judge(line) == result), lines[-1])
    return result, telling.strip()[-300:]


def reachable(registry):
    try:
        socket.create_connection((registry.host.strip("[]"), registry.port), timeout=SECONDS_TO_CONNECT).close()
        return ""
    except OSError as error:
        return str(error)


def main():
    module = AnsibleModule(
        argument_spec={
            "registries": {"type": "list", "elements": "str", "required": True},
            "clients": {
                "type": "list",
                "elements": "str",
                "choices": ["auto", "python", "curl", "docker", "containerd", "podman", "buildah", "skopeo", "java"],
                "default": ["auto"],
            },
            "timeout": {"type": "int", "default": 20},
        },
        supports_check_mode=True,
    )
    try:
        registries = [ca_trust.read_registry(name) for name in module.params["registries"]]
    except ca_trust.TrustRefused as refusal:
        module.fail_json(msg=str(refusal))
    clients = find_clients(module.params["clients"])
    timeout = module.params["timeout"]
    handshakes = []
    with concurrent.futures.ThreadPoolExecutor(max_workers=4) as pool:
        for registry in registries:
            problem = reachable(registry)
            if problem:
                answers = dict.fromkeys(clients, ("unreachable", problem))
            else:
                futures = {client: pool.submit(ask, client, program, registry, timeout) for client, program in clients.items()}
                answers = {client: future.result() for client, future in futures.items()}
            for client, (result, detail) in sorted(answers.items()):
                handshakes.append({"registry": registry.address, "client": client, "result": result, "detail": detail})
    module.exit_json(changed=False, handshakes=handshakes)


if __name__ == "__main__":
    main()
