#!/usr/bin/python
# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Ansible module: proof that a registry works, by a push and by pulls with every installed client."""

from __future__ import annotations

DOCUMENTATION = r"""
module: registry_verify
short_description: Prove by a push and by pulls that a registry works
version_added: 0.1.0
author:
  - wharf.registry contributors (@wharf-registry)
description:
  - Pushes a small image of random bytes, reads it back, and pulls it with every client that is installed on the host (Docker, Podman,
    skopeo, containerd), after a login where the registry wants one. The digest must be the same everywhere.
  - What a client has pulled is removed from the host again. The tag stays in the registry until O(state=absent), so that others may look
    at the same image; the blobs stay until the next garbage collection.
  - Follows the C(Location) headers of the registry as a client does, and fails if they lead to another name or port.
  - Never reports a change.
extends_documentation_fragment:
  - wharf.registry._attributes
attributes:
  check_mode:
    support: partial
    details:
      - In check mode nothing is pushed, pulled or removed; with O(digest) the tag is read.
  diff_mode:
    support: none
options:
  name:
    description:
      - The name of the registry, as clients write it.
    type: str
    required: true
  port:
    description:
      - The port of that name.
    type: int
    default: 443
  address:
    description:
      - Connect to this address or C(address:port) instead of looking O(name) up; the certificate must still be that of O(name).
      - The clients look O(name) up all the same.
    type: str
  tls:
    description:
      - Whether the registry speaks TLS. Without it only O(clients=[]) makes sense, because clients insist on TLS.
    type: bool
    default: true
  ca_path:
    description:
      - A PEM file on the host with CAs to trust, in addition to the system's. The clients use what they are set up with.
    type: path
  username:
    description:
      - The user. If it is empty, nobody logs in.
    type: str
    default: ''
  password:
    description:
      - The user's password. It is never put on a command line.
    type: str
    default: ''
  repository:
    description:
      - The repository to use.
    type: str
    default: wharf/verify
  tag:
    description:
      - The tag to use. If it is not given, a random one is made up with O(state=present).
      - Required with O(digest) and with O(state=absent).
    type: str
  digest:
    description:
      - Push nothing; the tag is there and must have this digest.
    type: str
  clients:
    description:
      - The clients to try. Those that are not installed are passed over.
    type: list
    elements: str
    choices: [docker, podman, skopeo, containerd]
    default: [docker, podman, skopeo, containerd]
  size:
    description:
      - How many random bytes the image holds.
    type: int
    default: 65536
  timeout:
    description:
      - Seconds that one request may take. A command of a client may take four times as long.
    type: int
    default: 30
  state:
    description:
      - V(present) proves the registry.
      - V(absent) removes the tag. Registries of the 2.8 series remove every tag of the image with it. Where the registry does not allow
        deleting, the tag stays, with a warning.
    type: str
    choices: [present, absent]
    default: present
"""

EXAMPLES = r"""
- name: Prove the registry with all clients of this host
  wharf.registry.registry_verify:
    name: registry.example.com
    username: ci
    password: "{{ vault_ci_password }}"
  register: proof

- name: Remove the tag again
  wharf.registry.registry_verify:
    name: registry.example.com
    username: ci
    password: "{{ vault_ci_password }}"
    tag: "{{ proof.tag }}"
    state: absent

- name: See whether one node serves the same image
  wharf.registry.registry_verify:
    name: registry.example.com
    port: 5443
    address: 127.0.0.1
    tag: "{{ proof.tag }}"
    digest: "{{ proof.digest }}"
    clients: []
"""

RETURN = r"""
repository:
  description: The repository that was used.
  returned: always
  type: str
  sample: wharf/verify
tag:
  description: The tag that was used. Empty if none was pushed.
  returned: always
  type: str
  sample: verify-5f2c9a0e41d7
digest:
  description: The image's digest. Empty if none was pushed.
  returned: with O(state=present)
  type: str
  sample: sha256:0d2b37fcd1d3f2fe3f5bcd0a5f1be5c9b5a1c1c4e8a2f4f2b1c5ac1d8f0f8c11
clients:
  description: What each installed client made of it.
  returned: with O(state=present)
  type: list
  elements: dict
  contains:
    name:
      description: The client.
      type: str
      sample: docker
    version:
      description: Its version.
      type: str
      sample: 26.1.5
    result:
      description: V(ok) or V(failed).
      type: str
      sample: ok
    digest:
      description: The digest that the client saw.
      type: str
      sample: sha256:0d2b37fcd1d3f2fe3f5bcd0a5f1be5c9b5a1c1c4e8a2f4f2b1c5ac1d8f0f8c11
    message:
      description: Why it failed.
      type: str
      sample: ''
removed:
  description: Whether the tag was there and has been removed.
  returned: with O(state=absent)
  type: bool
  sample: true
"""

import re
import uuid

from ansible.module_utils.basic import AnsibleModule

from ..module_utils._registry.api import Registry, RegistryError
from ..module_utils._registry.verify import CLIENT_NAMES, Target, VerifyError, pull, push, reference_host, try_clients

_REPOSITORY = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


def refuse_bad_input(module):
    """End the module if a value cannot be used."""
    params = module.params
    for option, pattern, example in (
        ("repository", _REPOSITORY, "wharf/verify"),
        ("tag", _TAG, "verify-1"),
        ("digest", _DIGEST, "sha256: and 64 hexadecimal digits"),
    ):
        if params[option] is not None and not pattern.fullmatch(params[option]):
            module.fail_json(msg="%s: %r cannot be used; an example: %s" % (option, params[option], example))
    if not 1 <= params["port"] <= 65535:
        module.fail_json(msg="port: %d is no port; an example: 443" % params["port"])
    if params["username"] and not params["password"] and not module.check_mode:
        module.fail_json(
            msg="password: it is empty, and username is %r; for a registry without authentication leave both out" % params["username"]
        )


def prove(module, registry):
    """Push (unless a digest is given), pull, try the clients; return the result."""
    params = module.params
    tag = params["tag"] or "verify-" + uuid.uuid4().hex[:12]
    digest = params["digest"]
    result = {"changed": False, "repository": params["repository"], "tag": tag, "digest": digest or "", "clients": []}
    if module.check_mode and not digest:
        return dict(result, tag="", msg="check mode: nothing was pushed or pulled")
    try:
        if not digest:
            result["digest"] = push(registry, params["repository"], tag, params["size"])
        pull(registry, params["repository"], tag, result["digest"])
    except VerifyError as error:
        module.fail_json(msg=str(error), **result)
    if module.check_mode:
        return result
    target = Target(
        host=reference_host(params["name"], params["port"]),
        repository=params["repository"],
        tag=tag,
        digest=result["digest"],
        username=params["username"],
        password=params["password"],
    )
    result["clients"] = try_clients(target, params["clients"], 4.0 * params["timeout"])
    failed = [
        "%s %s: %s" % (client["name"], client["version"], client["message"]) for client in result["clients"] if client["result"] != "ok"
    ]
    if failed:
        module.fail_json(msg="clients cannot pull %s: %s" % (target.reference, "; ".join(failed)), **result)
    return result


def remove(module, registry):
    """Remove the tag; return the result."""
    params = module.params
    result = {"changed": False, "repository": params["repository"], "tag": params["tag"], "removed": False}
    if module.check_mode:
        return dict(result, msg="check mode: nothing was removed")
    try:
        result["removed"] = registry.delete_tag(params["repository"], params["tag"])
    except RegistryError as error:
        if error.status != 405:
            module.fail_json(msg="the tag %s:%s cannot be removed: %s" % (params["repository"], params["tag"], error), **result)
        module.warn("The registry does not allow deleting: the tag %s:%s stays." % (params["repository"], params["tag"]))
    return result


def main():
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "port": {"type": "int", "default": 443},
            "address": {"type": "str"},
            "tls": {"type": "bool", "default": True},
            "ca_path": {"type": "path"},
            "username": {"type": "str", "default": ""},
            "password": {"type": "str", "default": "", "no_log": True},
            "repository": {"type": "str", "default": "wharf/verify"},
            "tag": {"type": "str"},
            "digest": {"type": "str"},
            "clients": {"type": "list", "elements": "str", "choices": list(CLIENT_NAMES), "default": list(CLIENT_NAMES)},
            "size": {"type": "int", "default": 65536},
            "timeout": {"type": "int", "default": 30},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
        },
        required_if=[("state", "absent", ["tag"])],
        required_by={"digest": ["tag"]},
        supports_check_mode=True,
    )
    refuse_bad_input(module)
    params = module.params
    name = "[%s]" % params["name"] if ":" in params["name"] else params["name"]
    try:
        registry = Registry(
            "%s://%s:%d" % ("https" if params["tls"] else "http", name, params["port"]),
            address=params["address"],
            username=params["username"],
            password=params["password"],
            ca_path=params["ca_path"],
            timeout=params["timeout"],
            strict_location=True,
        )
    except (OSError, ValueError) as error:
        module.fail_json(msg="name, port, address or ca_path cannot be used: %s" % error)
    module.exit_json(**(prove(module, registry) if params["state"] == "present" else remove(module, registry)))


if __name__ == "__main__":
    main()
