#!/usr/bin/python
# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Ansible module: decide which tags of a registry stay, and delete the others."""

from __future__ import annotations

DOCUMENTATION = r"""
module: registry_retention
short_description: Decide which tags of a registry stay, say why, and delete the others
version_added: 0.1.0
author:
  - wharf.registry contributors (@wharf-registry)
description:
  - Decides by rules which tags of a registry stay, and gives the reason for each. Deletes the other tags, and then the manifests that no
    tag, no kept index and no kept subject needs. C(wharf.registry.registry_gc) frees the space afterwards.
  - A tag that no rule looks at stays. A tag that several rules look at stays if one of them keeps it.
  - The age of a tag is the time since its push or its last pull, whichever is later. The date of creation inside an image is not looked at.
  - Signatures, attestations and SBOMs under tags such as C(sha256-....sig), and referrers, live and die with what they describe.
  - Works while clients push and pull. A tag that is pushed again after it was looked at stays.
  - A run that was killed is finished by the next one.
extends_documentation_fragment:
  - wharf.registry._attributes
attributes:
  check_mode:
    details:
      - Check mode is the preview. It reads the whole storage and returns the decisions that the run would carry out.
  diff_mode:
    details:
      - The difference is a table of the decisions. With more than 1000 tags it lists only those that go.
options:
  config:
    description:
      - A registry's configuration file whose storage section is valid where the module runs.
      - Either O(config) or O(storage) is required, also with O(url), because the API does not know when a tag was pushed.
    type: path
  storage:
    description:
      - The storage as in the registry's configuration, C(filesystem) with C(rootdirectory), or C(s3).
    type: dict
  url:
    description:
      - Delete tags through the registry under this URL, C(https://name[:port]) or C(http://name[:port]), so that it tells its subscribers.
        Without it they are deleted on the storage.
      - Distribution 2.8 cannot delete a single tag through the API; there the storage is used all the same.
    type: str
  username:
    description: User to ask O(url) as. Empty for a registry that lets everybody in.
    type: str
    default: ''
  password:
    description: Password of O(username).
    type: str
    default: ''
  ca_path:
    description: A PEM file with CAs to trust for O(url), in addition to the system's.
    type: path
  rules:
    description:
      - The rules, each a dictionary with C(repositories), C(tags), C(keep) and C(match).
      - "C(repositories): patterns of the repositories that the rule is for. C(*) and C(?) stop at a slash, C(**) does not; C([0-9]) and
        C({one,two}) are as in a shell."
      - "C(tags): dictionary of C(include) (patterns of the tags that the rule looks at, default all) and C(exclude) (patterns of tags that it
        does not look at)."
      - "C(keep): dictionary of at least one condition. C(last): so many of the youngest tags. C(last_semver): so many of the highest semantic
        versions. C(pushed_within): pushed within this time. C(pulled_within): pulled or pushed within this time; needs O(usage). Times have the
        units C(w), C(d), C(h), C(m) and C(s), for example C(30d)."
      - "C(match): C(any) (default) keeps a tag if one of the conditions holds, C(all) only if every one does."
    type: list
    elements: dict
    required: true
  protected:
    description: Patterns of tags that never go, in any repository.
    type: list
    elements: str
    default: []
  floor:
    description: So many tags stay in each repository, whatever the rules say.
    type: int
    default: 1
  in_use:
    description:
      - What running hosts report as in use, digests and references such as C(registry.example.com/shop/web:1.2). These tags stay, and so do
        those of an index with a child in use.
      - A reference counts whatever registry it names.
    type: list
    elements: str
    default: []
  usage:
    description:
      - Files that tell what was pulled, with the wildcards of a shell. They may be access logs of the edges (packed ones too) and files of
        last pulls, JSON of the form V({"shop/web":{"1.2":"2026-11-24T10:00:00Z"}}). What a file is, its content tells.
      - A rule with C(pulled_within) is refused without it. V([]) says that nothing was pulled.
    type: list
    elements: str
  workers:
    description: How many deletions go on at the same time, through the API and on S3.
    type: int
    default: 8
  timeout:
    description: Seconds that one request to the registry or to S3 may take.
    type: int
    default: 30
  report:
    description: Write what is returned to this file too, as JSON. Not in check mode.
    type: path
requirements:
  - boto3 for storages on S3.
  - PyYAML for an O(config) that this collection has not written.
notes:
  - Run it as the user of the registry, or as root, on one host that reaches the storage.
"""

EXAMPLES = r"""
- name: Show what would go and what would stay
  wharf.registry.registry_retention:
    config: /etc/wharf/registry/config.yml
    rules:
      - repositories: ["shop/**"]
        tags: {exclude: [latest]}
        keep: {last: 10, pushed_within: 30d}
  check_mode: true
  diff: true

- name: Keep versions, what was pulled lately, and what runs
  wharf.registry.registry_retention:
    storage:
      filesystem:
        rootdirectory: /srv/registry
    usage: [/var/log/wharf/access.log*]
    in_use: [registry.example.com/shop/web:1.2, "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"]
    protected: [stable]
    rules:
      - repositories: ["**"]
        keep: {last_semver: 5, pulled_within: 14d}
  become: true

- name: Delete through the registry's API
  wharf.registry.registry_retention:
    config: /etc/wharf/registry/config.yml
    url: https://registry.example.com
    username: retention
    password: "{{ vault_retention_password }}"
    rules:
      - repositories: ["ci/**"]
        keep: {last: 20, pushed_within: 7d}
        match: all
"""

RETURN = r"""
decisions:
  description: What is decided about each tag, sorted by repository and tag.
  returned: success
  type: list
  elements: dict
  contains:
    repository:
      description: Name of the repository.
      type: str
      returned: success
      sample: shop/web
    tag:
      description: Name of the tag.
      type: str
      returned: success
      sample: "1.2"
    digest:
      description: The manifest it points to. Empty if its link is broken.
      type: str
      returned: success
      sample: sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08
    decision:
      description: V(keep) or V(delete).
      type: str
      returned: success
      sample: delete
    rule:
      description: Number of the rule that decided, counted from 1. None where none did.
      type: int
      returned: success
      sample: 1
    reason:
      description: Why.
      type: str
      returned: success
      sample: number 14 of 20, not among the last 10; pushed 40d ago, not within 30d
    pushed:
      description: When it was pushed.
      type: str
      returned: success
      sample: "2026-10-15T08:00:00Z"
    pulled:
      description: When it was last pulled, as far as O(usage) tells. None if that is not known.
      type: str
      returned: success
      sample: null
  sample: []
deleted:
  description: How many tags were deleted, or would be in check mode.
  returned: success
  type: int
  sample: 10
kept:
  description: How many tags stay.
  returned: success
  type: int
  sample: 25
manifests_deleted:
  description: How many manifests were removed with them, or would be in check mode.
  returned: success
  type: int
  sample: 8
bytes_reclaimable:
  description: What garbage collection can free once the tags and manifests are gone.
  returned: success
  type: int
  sample: 734003200
findings:
  description: What is wrong with the storage, and what stays although the rules do not keep it.
  returned: success
  type: list
  elements: dict
  sample: []
preview:
  description: The decisions as the lines of a table. With more than 1000 tags it lists only those that go.
  returned: in check mode
  type: list
  elements: str
  sample: ["shop/web: 1 to delete, 10 to keep"]
duration:
  description: Seconds that the run took.
  returned: success
  type: float
  sample: 1.7
"""

from ansible.module_utils.basic import AnsibleModule

from ..module_utils._quiet import quiet
from ..module_utils._registry.config import secret_values
from ..module_utils._retention.run import ERRORS, Request, open_registry, run


def main() -> None:
    """Run the module."""
    module = quiet(AnsibleModule)(
        argument_spec={
            "config": {"type": "path"},
            "storage": {"type": "dict", "no_log": False},
            "url": {"type": "str"},
            "username": {"type": "str", "default": ""},
            "password": {"type": "str", "default": "", "no_log": True},
            "ca_path": {"type": "path"},
            "rules": {"type": "list", "elements": "dict", "required": True},
            "protected": {"type": "list", "elements": "str", "default": []},
            "floor": {"type": "int", "default": 1},
            "in_use": {"type": "list", "elements": "str", "default": []},
            "usage": {"type": "list", "elements": "str"},
            "workers": {"type": "int", "default": 8},
            "timeout": {"type": "int", "default": 30},
            "report": {"type": "path"},
        },
        required_one_of=[("config", "storage")],
        mutually_exclusive=[("config", "storage")],
        supports_check_mode=True,
    )
    params = module.params
    module.no_log_values.update(secret_values({"storage": params["storage"] or {}}))
    try:
        result = run(
            Request(
                rules=params["rules"],
                config=params["config"],
                storage=params["storage"],
                protected=params["protected"],
                floor=params["floor"],
                in_use=params["in_use"],
                usage=params["usage"],
                registry=open_registry(params["url"] or "", params["username"], params["password"], params["ca_path"], params["timeout"]),
                workers=params["workers"],
                timeout=params["timeout"],
                report=params["report"] or "",
            ),
            check=module.check_mode,
        )
    except ERRORS as error:
        module.fail_json(msg=str(error))
    for warning in result.pop("warnings"):
        module.warn(warning)
    table = result.pop("table")
    if module.check_mode:
        result["preview"] = table.splitlines()
    if module._diff:
        result["diff"] = {"prepared": table}
    module.exit_json(**result)


if __name__ == "__main__":
    main()
