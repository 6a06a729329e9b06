#!/usr/bin/python
# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Ansible module: garbage collection of a registry's storage."""

from __future__ import annotations

DOCUMENTATION = r"""
module: registry_gc
short_description: Remove what nothing refers to from a registry's storage, while the registry serves
version_added: 0.1.0
author:
  - wharf.registry contributors (@wharf-registry)
description:
  - Finds blobs that no manifest refers to, and if told so manifests without a tag, in the storage of a Distribution registry
    (2.8 or 3.x) on a file system or S3, and removes them.
  - Children of kept indexes live, and so do the signatures, attestations and other artifacts that describe a kept manifest. They
    go with what they describe.
  - With O(mode=online) clients push and pull meanwhile. A run hides what nothing has referred to and nobody has touched for
    O(grace), so that a client that asks uploads it again; a later run, at least O(grace) after, deletes what is still hidden.
  - Where the role P(wharf.registry.lifecycle#role) runs on the nodes, a run does not hide but announce, and the nodes' edges tell clients who
    ask that it is not there; a later run, at least O(grace) after all nodes knew, deletes what is still not needed. Then no push can count
    on what goes.
  - One run at a time works on a storage, whichever host it is started on. A run that was killed is finished by the next.
  - A repository that cannot be read whole loses nothing, and nothing that it may refer to is removed.
extends_documentation_fragment:
  - wharf.registry._attributes
attributes:
  diff_mode:
    details:
      - The diff lists the tags, manifests, blobs and uploads that go.
  idempotent:
    support: partial
    details:
      - With O(mode=online) a later run deletes what an earlier one hid or announced, so it changes something again once O(grace) has passed.
options:
  config:
    description:
      - Path of the registry's configuration file on the host. Its sections C(storage) and C(redis) must be valid there.
      - A file that this collection did not write needs the Python library PyYAML.
    type: path
  storage:
    description:
      - The storage itself, in the form of the configuration's section C(storage), instead of O(config). V(filesystem) and V(s3) are
        supported.
      - Secrets in it are not shown.
    type: dict
  redis:
    description:
      - The section C(redis) of the configuration, for O(storage), if the registry has its cache there. What is removed is removed
        from the cache too.
      - Secrets in it are not shown.
    type: dict
  mode:
    description:
      - V(online) works while the registry serves. It takes two runs to delete something.
      - V(offline) deletes at once. Take it only while the registry is stopped or takes no pushes.
    type: str
    choices: [online, offline]
    default: online
  grace:
    description:
      - What is younger than this stays, and what is hidden or announced stays for as long. It must be longer than any push lasts.
      - A number with V(s), V(m), V(h), V(d) or V(w), for example V(24h) or V(1d12h).
    type: str
    default: 24h
  delete_untagged:
    description: Whether manifests go that no tag, no kept index and no kept subject needs.
    type: bool
    default: false
  max_delete_fraction:
    description: The largest share of all blobs that one run may announce, hide or delete. A run that would take more is refused and changes nothing.
    type: float
    default: 0.5
  repositories:
    description:
      - Globs of the repositories whose manifests may go, for O(delete_untagged=true). V(*) stays within one part of a name, V(**) is
        any number of parts. Without it they are all.
      - Blobs that nothing refers to go wherever they are.
    type: list
    elements: str
    default: []
  report:
    description: A file on the host for the whole plan in JSON, with the digest, repository, size and reason of everything. Check mode writes it too.
    type: path
  workers:
    description: How many requests are sent to S3 at the same time.
    type: int
    default: 16
  timeout:
    description: Seconds after which the run stops between two steps; the next run goes on. V(0) is no limit.
    type: int
    default: 0
requirements:
  - boto3 1.26 or later, for S3.
  - redis (python3-redis) 4.3 or later, for a cache in Redis.
notes:
  - Run it as the user of the registry, or as root, on a host that reaches the storage; with Redis, one that reaches that as well.
  - A registry with a cache in its own memory is refused with O(mode=online), because nobody can make it forget.
  - Below C(wharf-gc) in the storage it keeps its lock, what is hidden, and what manifests say. The registry does not look there.
seealso:
  - module: wharf.registry.registry_config
"""

EXAMPLES = r"""
- name: Show what would go
  wharf.registry.registry_gc:
    config: /etc/wharf/registry/config.yml
    delete_untagged: true
    report: /var/lib/wharf/gc-plan.json
  check_mode: true
  diff: true

- name: Clean up while the registry serves; run it daily
  wharf.registry.registry_gc:
    config: /etc/wharf/registry/config.yml
    delete_untagged: true

- name: Clean up a stopped registry at once
  wharf.registry.registry_gc:
    storage:
      filesystem:
        rootdirectory: /var/lib/registry
    mode: offline
    grace: 0s

- name: Collect only the nightly builds' manifests, on S3
  wharf.registry.registry_gc:
    storage:
      s3:
        bucket: registry
        region: us-east-1
        regionendpoint: https://s3.example.com
        accesskey: "{{ vault_s3_access_key }}"
        secretkey: "{{ vault_s3_secret_key }}"
    redis:
      addrs: ["redis.example.com:6379"]
      password: "{{ vault_redis_password }}"
    delete_untagged: true
    repositories: ["nightly/**"]
"""

RETURN = r"""
blobs_marked:
  description: Blobs that something living refers to, manifests among them.
  returned: success
  type: int
  sample: 4511
manifests_deleted:
  description: Manifests that repositories lost. In check mode, as all that follow, what the run would do.
  returned: success
  type: int
  sample: 12
blobs_announced:
  description: Blobs that are to go and that stay until the edges of all nodes have known that for O(grace).
  returned: success
  type: int
  sample: 48
blobs_hidden:
  description: Blobs that were hidden and stay for a later run.
  returned: success
  type: int
  sample: 48
blobs_deleted:
  description: Blobs that were deleted.
  returned: success
  type: int
  sample: 31
bytes_freed:
  description: Sizes of all files or objects that were removed.
  returned: success
  type: int
  sample: 73400320
bytes_pending:
  description: Sizes of the blobs that nothing refers to and that stay for a later run.
  returned: success
  type: int
  sample: 104857600
bytes_stored:
  description: Sizes of all files or objects of the registry that the run saw and left.
  returned: success
  type: int
  sample: 52428800000
uploads_purged:
  description: Unfinished uploads that were removed.
  returned: success
  type: int
  sample: 1
findings:
  description: What is wrong with the storage. None of it makes anything go.
  returned: success
  type: list
  elements: dict
  sample: [{kind: missing-blob, repository: shop/web, digest: "sha256:…", detail: "named by sha256:…"}]
duration:
  description: Seconds that the run took.
  returned: success
  type: float
  sample: 12.4
plan:
  description: What the run decided, in numbers. O(report) has all of it.
  returned: success
  type: dict
  sample: {repositories: [shop/web], manifests: 12, announce: 48, hide: 0, delete: 31, bytes_freed: 73400320}
"""

from ansible.module_utils.basic import AnsibleModule

from ..module_utils._quiet import quiet
from ..module_utils._registry.config import secret_values
from ..module_utils._store import gc, interface


def main() -> None:
    """Run the module."""
    module = quiet(AnsibleModule)(
        argument_spec={
            "config": {"type": "path"},
            "storage": {"type": "dict"},
            "redis": {"type": "dict"},
            "mode": {"type": "str", "choices": ["online", "offline"], "default": "online"},
            "grace": {"type": "str", "default": "24h"},
            "delete_untagged": {"type": "bool", "default": False},
            "max_delete_fraction": {"type": "float", "default": 0.5},
            "repositories": {"type": "list", "elements": "str", "default": []},
            "report": {"type": "path"},
            "workers": {"type": "int", "default": 16},
            "timeout": {"type": "int", "default": 0},
        },
        required_one_of=[("config", "storage")],
        mutually_exclusive=[("config", "storage"), ("config", "redis")],
        supports_check_mode=True,
    )
    options = module.params
    hidden = {"storage": options["storage"] or {}, "redis": options["redis"] or {}}
    module.no_log_values.update(secret_values(hidden))
    try:
        if options["config"]:
            settings = interface.read_config(options["config"])
        else:
            settings = interface.from_sections(options["storage"], options["redis"])
        result = gc.run(
            gc.Request(
                settings=settings,
                mode=options["mode"],
                grace=gc.read_grace(options["grace"]),
                delete_untagged=options["delete_untagged"],
                max_delete_fraction=options["max_delete_fraction"],
                repositories=tuple(options["repositories"]),
                report=options["report"] or "",
                workers=options["workers"],
                timeout=float(options["timeout"]),
            ),
            check=module.check_mode,
        )
    except interface.StoreError as error:
        module.fail_json(msg=str(error))
    for warning in result.warnings:
        module.warn(warning)
    values = dict(result.values, changed=result.changed, plan=result.plan.summary())
    if module._diff:
        before, after = result.plan.diff()
        values["diff"] = {"before_header": "storage", "after_header": "storage", "before": before, "after": after}
    module.exit_json(**values)


if __name__ == "__main__":
    main()
