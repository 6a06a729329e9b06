#!/usr/bin/python
# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: preflight
short_description: Find what stands in the way of a registry on this host
version_added: 0.1.0
description:
  - Looks at a host and at what it can reach, and judges whether it can become a member of a registry cluster.
  - It reads only, and does not fail because of what it finds. The role P(wharf.registry.preflight#role) lays the findings of
    all hosts side by side and fails once.
  - Ports that the collection's own services hold already are no finding, so a running cluster passes.
author:
  - wharf.registry contributors (@wharf-registry)
extends_documentation_fragment:
  - wharf.registry._attributes
attributes:
  check_mode:
    support: full
    details: It never changes anything.
  diff_mode:
    support: N/A
    details: It never changes anything.
  idempotent:
    support: full
options:
  groups:
    description:
      - Groups of this host in the inventory. V(registry_nodes), V(registry_lb), V(registry_storage), V(registry_cache),
        V(registry_monitoring), V(registry_audit) and V(registry_clients) decide what is looked at.
      - Processors, memory, disk and link are judged on nodes and storage hosts, and on hosts in none of these groups.
    type: list
    elements: str
    default: []
  min_cpus:
    description: The least number of processor cores.
    type: int
    default: 4
  min_memory_gb:
    description: The least memory in GB. Six percent less is accepted, because firmware takes its part.
    type: float
    default: 8
  min_disk_gb:
    description: The least size of the file system of O(path) in GB. Eight percent less is accepted.
    type: float
    default: 500
  require_ssd:
    description: Whether the disk below O(path) must be a solid-state disk.
    type: bool
    default: true
  min_link_mbit:
    description: The least speed of the network link in Mbit/s. Links whose driver does not tell are accepted.
    type: int
    default: 1000
  path:
    description: Where the data will be. It need not exist yet.
    type: path
    default: /var/lib
  address:
    description: The host's address on the cluster's network. Its link is the one that is judged.
    type: str
    default: ''
  name:
    description: The registry's name. Nodes and clients tell what it resolves to.
    type: str
    default: ''
  port:
    description: The port of the balancers.
    type: int
    default: 443
  vip:
    description: The virtual IP with its prefix length. Balancers tell whether it fits and who answers for it.
    type: str
    default: ''
  s3:
    description: The S3 bucket that nodes must reach. They ask for its first key, signed; nothing is written.
    type: dict
    suboptions:
      bucket:
        description: Name of the bucket. Without it nothing is asked.
        type: str
      region:
        description: Region for the signature.
        type: str
      regionendpoint:
        description: Address of a store that is not AWS.
        type: str
      accesskey:
        description: Name of the key. Without keys only an answer is asked for.
        type: str
      secretkey:
        description: The secret key.
        type: str
      secure:
        description: Whether an endpoint without a scheme is C(https://).
        type: bool
        default: true
      skipverify:
        description: Whether certificates are not verified.
        type: bool
        default: false
      forcepathstyle:
        description: Whether the bucket is a part of the path. With O(s3.regionendpoint) it is, unless this is V(false).
        type: bool
  ca_certificates:
    description: Certificates in PEM that are trusted beside the system's when S3 is asked.
    type: str
    default: ''
  nfs_server:
    description: The NFS server that nodes must reach.
    type: str
    default: ''
  rootdirectory:
    description: The directory that nodes must be able to write when images are kept on a file system.
    type: path
    default: ''
  skip:
    description: Kinds of findings that are left out.
    type: list
    elements: str
    choices: [cpu, disk, link, memory, name, os, ports, ssd, storage, systemd, time, vip]
    default: []
seealso:
  - module: ansible.builtin.setup
"""

EXAMPLES = r"""
- name: See whether this host could be a registry node
  wharf.registry.preflight:
    groups: [registry_nodes]
    min_memory_gb: 4
    min_disk_gb: 100
    name: registry.example.com
    s3:
      bucket: images
      region: us-east-1
      regionendpoint: https://s3.example.com
      accesskey: wharf
      secretkey: "{{ vault_s3_secretkey }}"
  register: looked

- name: Show what stands in the way
  ansible.builtin.debug:
    var: looked.findings
"""

RETURN = r"""
findings:
  description: What stands in the way. Empty if nothing does.
  returned: always
  type: list
  elements: dict
  contains:
    check:
      description: The kind of the finding, as in O(skip).
      type: str
      sample: disk
    variable:
      description: The variable, or the part of the host, that it is about.
      type: str
      sample: preflight_min_disk_gb
    value:
      description: What was found. Never a secret.
      type: str
      sample: 79 GB
    cause:
      description: What is wrong with it.
      type: str
      sample: the file system of /var/lib is smaller than the 500 GB that are asked for
    cure:
      description: What to do, with an example.
      type: str
      sample: "use a larger disk for /var/lib, or accept it: preflight_min_disk_gb: 79"
observed:
  description: What was seen, for judgements over several hosts.
  returned: always
  type: dict
  sample: {"cpu_cores": 4, "systemd": true}
"""

from ansible.module_utils.basic import AnsibleModule

from ..module_utils._preflight.host import SKIPPABLE, check_host
from ..module_utils._preflight.observe import observe
from ..module_utils._quiet import quiet


def main() -> None:
    """Run the module."""
    module = quiet(AnsibleModule)(
        argument_spec={
            "groups": {"type": "list", "elements": "str", "default": []},
            "min_cpus": {"type": "int", "default": 4},
            "min_memory_gb": {"type": "float", "default": 8},
            "min_disk_gb": {"type": "float", "default": 500},
            "require_ssd": {"type": "bool", "default": True},
            "min_link_mbit": {"type": "int", "default": 1000},
            "path": {"type": "path", "default": "/var/lib"},
            "address": {"type": "str", "default": ""},
            "name": {"type": "str", "default": ""},
            "port": {"type": "int", "default": 443},
            "vip": {"type": "str", "default": ""},
            "s3": {
                "type": "dict",
                "options": {
                    "bucket": {"type": "str"},
                    "region": {"type": "str"},
                    "regionendpoint": {"type": "str"},
                    "accesskey": {"type": "str", "no_log": False},
                    "secretkey": {"type": "str", "no_log": True},
                    "secure": {"type": "bool", "default": True},
                    "skipverify": {"type": "bool", "default": False},
                    "forcepathstyle": {"type": "bool"},
                },
            },
            "ca_certificates": {"type": "str", "default": ""},
            "nfs_server": {"type": "str", "default": ""},
            "rootdirectory": {"type": "path", "default": ""},
            "skip": {"type": "list", "elements": "str", "choices": sorted(SKIPPABLE), "default": []},
        },
        supports_check_mode=True,
    )

    def run(words: list) -> tuple:
        path = module.get_bin_path(words[0])
        if path is None:
            return 127, "", f"{words[0]}: not found"
        return module.run_command([path, *words[1:]])

    wanted = dict(module.params, s3=module.params["s3"] or {})
    seen = observe(wanted, run)
    module.exit_json(changed=False, findings=check_host(seen, wanted), observed=seen)


if __name__ == "__main__":
    main()
