#!/usr/bin/python
# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Ansible module: the configuration file of a registry."""

from __future__ import annotations

DOCUMENTATION = r"""
module: registry_config
short_description: The whole configuration file of a Distribution registry, checked strictly
version_added: 0.1.0
author:
  - wharf.registry contributors (@wharf-registry)
description:
  - Writes the configuration of CNCF Distribution, of the 2.8 or of the 3.x format, from one set of options.
  - Checks it before it is written. Unknown keys, wrong types and values that make the registry end at start, or that it would
    silently ignore, are refused with the option's name, what is wrong and an example.
  - Refuses releases and combinations that lose or leak data, for example 2.8 with Redis.
  - The registry reads its file only when it starts. Compare RV(checksum) with what the running registry was started with.
extends_documentation_fragment:
  - wharf.registry._attributes
attributes:
  diff_mode:
    details:
      - Secrets are shown as V(<secret>), and as V(<old secret>) and V(<new secret>) where they differ.
      - A file that this module did not write is not shown.
options:
  path:
    description: The configuration file. Its directory must exist.
    type: path
    default: /etc/wharf/registry/config.yml
  version:
    description: The release of Distribution that reads the file, for example V(3.1.2). It decides the format.
    type: str
    required: true
  storage:
    description:
      - Exactly one storage with its options, V(filesystem) or V(s3), with the names that Distribution gives them.
      - V(filesystem) needs C(rootdirectory). V(s3) needs C(bucket) and C(region), and usually C(regionendpoint), C(accesskey)
        and C(secretkey). Path style is switched on for every C(regionendpoint).
    type: dict
    required: true
  redis:
    description:
      - The Redis that remembers blob descriptors for all nodes. Empty for none.
      - C(addr) with host and port, and if need be C(username), C(password), C(db), C(cafile) (a file on the node; TLS is used if
        it is there), C(dialtimeout), C(readtimeout) and C(writetimeout).
    type: dict
    default: {}
  auth:
    description:
      - Who is let in. V(none) is everybody. V(htpasswd) asks for users of O(htpasswd_path). V(token) goes by tokens, see O(token).
    type: str
    default: htpasswd
  htpasswd_path:
    description: The htpasswd file as the registry sees it.
    type: path
    default: /etc/wharf/registry/auth/htpasswd
  token:
    description:
      - With O(auth=token), whose tokens are good. C(realm) is where clients get them, C(service) what this registry calls itself, C(issuer) who
        signs them, C(rootcertbundle) the file with the certificates that are trusted, as the registry sees it.
    type: dict
    default: {}
  http_secret:
    description: The secret that signs the state of uploads, of at least 16 characters. It must be the same on all nodes.
    type: str
    required: true
  addr:
    description: Address and port on which the registry listens.
    type: str
    default: 127.0.0.1:5000
  debug_addr:
    description: Address and port of metrics and debugging. It must be on loopback, because it tells the configuration.
    type: str
    default: 127.0.0.1:5001
  headers:
    description: Headers of every answer, each with a list of values.
    type: dict
    default: {X-Content-Type-Options: [nosniff]}
  log_level:
    description: V(error), V(warn), V(info) or V(debug).
    type: str
    default: info
  log_formatter:
    description: V(text), V(json) or V(logstash).
    type: str
    default: json
  delete_enabled:
    description: Whether manifests, tags and blobs may be deleted through the API.
    type: bool
    default: true
  redirect:
    description: Whether clients are sent to the storage for blobs. They must be able to reach it then.
    type: bool
    default: false
  drain_timeout:
    description: How long requests may go on after the registry was told to stop.
    type: str
    default: 60s
  extra_config:
    description:
      - Anything else of the configuration file, merged over the rest. Mappings are merged key by key, everything else is
        replaced, V(null) leaves a key out. It is checked like the rest.
    type: dict
    default: {}
  nodes:
    description: How many nodes serve this storage. A cache in memory is refused for more than one.
    type: int
    default: 1
  owner:
    description: Owner of the file, a name or a number.
    type: str
  group:
    description: Group of the file, a name or a number. The registry must be able to read the file through it.
    type: str
  mode:
    description: Permissions of the file.
    type: raw
    default: "0640"
"""

EXAMPLES = r"""
- name: Configure a registry on one host
  wharf.registry.registry_config:
    version: 3.1.2
    storage:
      filesystem:
        rootdirectory: /srv/registry
    http_secret: "{{ vault_http_secret }}"
    owner: root
    group: "65532"

- name: Configure one of three nodes on S3, with Redis
  wharf.registry.registry_config:
    version: 3.1.2
    storage:
      s3:
        bucket: registry
        region: us-east-1
        regionendpoint: https://s3.example.com:9000
        accesskey: "{{ vault_s3_accesskey }}"
        secretkey: "{{ vault_s3_secretkey }}"
    redis:
      addr: redis1.example.com:6379
      password: "{{ vault_redis_password }}"
      cafile: /etc/wharf/registry/redis-ca.crt
    http_secret: "{{ vault_http_secret }}"
    nodes: 3
    extra_config:
      catalog:
        maxentries: 5000
    owner: root
    group: "65532"
"""

RETURN = r"""
checksum:
  description: SHA-256 of the file as it is afterwards, and in check mode as it would be.
  returned: success
  type: str
  sample: 0b7c2a1f0f4e2c0e2f1d8ab5b1d1b9d7e8a3c7d1e5f60718293a4b5c6d7e8f90
generation:
  description: Which format the file has, V(2) or V(3).
  returned: success
  type: int
  sample: 3
path:
  description: The configuration file.
  returned: success
  type: str
  sample: /etc/wharf/registry/config.yml
reasons:
  description: What was different. Any of V(content), V(mode), V(owner), V(group), or V(absent) if there was no file.
  returned: success
  type: list
  elements: str
  sample: [content]
"""

from ansible.module_utils.basic import AnsibleModule

from ..module_utils import _files
from ..module_utils._quiet import quiet
from ..module_utils._registry import config as registry_config
from ..module_utils._registry.versions import generation_of

_FOREIGN = "# (a file that wharf.registry.registry_config did not write, not shown because of the secrets in it)\n"


def main() -> None:
    """Run the module."""
    defaults = registry_config.DEFAULTS
    module = quiet(AnsibleModule)(
        argument_spec={
            "path": {"type": "path", "default": "/etc/wharf/registry/config.yml"},
            "version": {"type": "str", "required": True},
            "storage": {"type": "dict", "required": True},
            "redis": {"type": "dict", "default": {}},
            "auth": {"type": "str", "default": defaults["auth"]},
            "htpasswd_path": {"type": "path", "default": defaults["htpasswd_path"], "no_log": False},
            "token": {"type": "dict", "default": {}, "no_log": False},
            "http_secret": {"type": "str", "required": True, "no_log": True},
            "addr": {"type": "str", "default": defaults["addr"]},
            "debug_addr": {"type": "str", "default": defaults["debug_addr"]},
            "headers": {"type": "dict", "default": defaults["headers"]},
            "log_level": {"type": "str", "default": defaults["log_level"]},
            "log_formatter": {"type": "str", "default": defaults["log_formatter"]},
            "delete_enabled": {"type": "bool", "default": True},
            "redirect": {"type": "bool", "default": False},
            "drain_timeout": {"type": "str", "default": defaults["drain_timeout"]},
            "extra_config": {"type": "dict", "default": {}},
            "nodes": {"type": "int", "default": 1},
            "owner": {"type": "str"},
            "group": {"type": "str"},
            "mode": {"type": "raw", "default": "0640"},
        },
        supports_check_mode=True,
    )
    options = {name: module.params[name] for name in defaults}
    hidden = {"storage": options["storage"], "redis": options["redis"]}
    for tree in (hidden, options["extra_config"]):
        module.no_log_values.update(registry_config.secret_values(tree))

    problems = registry_config.messages(options)
    if problems:
        module.fail_json(msg="\n".join(problems), problems=problems)
    try:
        config = registry_config.build(options)
        text = registry_config.render(config)
        result = _write(module, config, text)
    except (_files.FileRefused, OSError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(
        checksum=registry_config.checksum(text),
        generation=generation_of(options["version"]),
        path=module.params["path"],
        **result,
    )


def _write(module: AnsibleModule, config: dict, text: str) -> dict:
    path = module.params["path"]
    _files.resolve_path(path, follow=False)
    attributes, unknown = _files.resolve_attributes(
        path, mode=module.params["mode"], owner=module.params["owner"], group=module.params["group"], lenient=module.check_mode
    )
    content = text.encode("utf-8")
    there = _files.read_if_there(path)
    if there is None:
        reasons = ["absent"]
    else:
        reasons = (["content"] if there != content else []) + _files.differing_attributes(path, attributes) + list(unknown)
    if reasons and not module.check_mode:
        _files.require_directory(path)
        with _files.locked(path):
            _files.remove_leftovers(path)
            if there == content:
                _files.apply_attributes(path, attributes)
            else:
                _files.write_atomically(path, content, mode=attributes.mode or 0o640, uid=attributes.uid, gid=attributes.gid)
    before, after = _show(there, config)
    return {
        "changed": bool(reasons),
        "reasons": reasons,
        "diff": {"before_header": path, "after_header": path, "before": before, "after": after},
    }


def _show(there: bytes | None, config: dict) -> tuple[str, str]:
    """Return what a diff may show of the file as it was and as it is to be."""
    if there is None:
        return registry_config.masked_pair({}, config)
    try:
        old = registry_config.parse(there.decode("utf-8"))
    except ValueError:
        return _FOREIGN, registry_config.masked_pair({}, config)[1]
    return registry_config.masked_pair(old, config)


if __name__ == "__main__":
    main()
