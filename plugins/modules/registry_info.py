#!/usr/bin/python
# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0 or later (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Ansible module: what a registry holds."""

from __future__ import annotations

DOCUMENTATION = r"""
module: registry_info
short_description: Tell what a registry holds, with tags, digests, platforms, and sizes stored and saved
version_added: 0.1.0
author:
  - wharf.registry contributors (@wharf-registry)
description:
  - Reads a Distribution registry (2.8 or 3.x) either from its storage on a file system or S3, or through its API, and returns its
    repositories, with totals for each project (the first part of a repository's name) and overall.
  - The storage tells more, and sooner. The API tells no times, no manifests without a tag, and not what the storage holds besides.
  - Nothing is changed and nobody is locked out; clients may push meanwhile.
extends_documentation_fragment:
  - wharf.registry._attributes
attributes:
  diff_mode:
    support: none
    details: There is nothing to differ.
options:
  config:
    description:
      - Path of the registry's configuration file on the host, as in M(wharf.registry.registry_gc). Its section C(storage) must be valid there.
      - A file that this collection did not write needs the Python library PyYAML.
    type: path
  storage:
    description:
      - The storage itself, in the form of the configuration's section C(storage), instead of O(config). V(filesystem) and V(s3) are
        supported.
      - Secrets in it are not shown.
    type: dict
  url:
    description: Read through the API of the registry under this URL, C(https://name[:port]) or C(http://name[:port]), instead of a storage.
    type: str
  username:
    description:
      - The user to ask O(url) as. Without it the registry is asked without credentials.
      - The user needs the right to pull, and unless O(repositories) names all of them without wildcards, to read the catalog.
    type: str
  password:
    description: The password of O(username).
    type: str
  ca_path:
    description: A PEM file on the host with CAs to trust for O(url), in addition to the system's.
    type: path
  repositories:
    description:
      - Globs of the repositories to tell of. V(*) stays within one part of a name, V(**) is any number of parts. Without it they are all.
      - A pattern that matches nothing gives a warning.
    type: list
    elements: str
    default: []
  gather:
    description:
      - What to tell of each repository beside the numbers of its tags and manifests.
      - V(tags) are its tags and the digests of its manifests.
      - V(sizes) are the bytes that it takes. Manifests are read for them.
      - V(platforms) are the platforms of its images, for which manifests are read, and the configurations of images that are in no index.
    type: list
    elements: str
    choices: [tags, sizes, platforms]
    default: [tags, sizes, platforms]
  workers:
    description: How many requests are sent to the registry or to S3 at the same time.
    type: int
    default: 16
  timeout:
    description: Seconds that one request to the registry or to S3 may take.
    type: int
    default: 30
requirements:
  - boto3 1.26 or later, for S3.
notes:
  - For O(config) and O(storage) run it as the user of the registry, or as root, on a host that reaches the storage.
  - A repository in the storage that has neither tags nor manifests is left out.
  - "Sizes are defined alike for a repository, a project and overall. C(logical) is the sum over all manifests, each of them once however many
    tags it has: its own bytes, its configuration and its layers, that is what a client pulls who has nothing yet, for each image. An
    index adds its own bytes; its images are counted themselves. C(unique) and C(shared) count each blob once, manifests
    among them: C(unique) are the bytes of what nothing outside uses and what would become free if all of it went; C(shared) are the bytes of
    what is used outside too. C(saved) is C(logical) minus C(unique) minus C(shared): what deduplication saves inside. Added up over
    repositories, C(unique) is not what the registry takes, because none of them has what is shared for itself; overall it is."
  - A blob is used by a repository if a manifest names it that the repository has. Outside is every other repository of the storage, whether
    O(repositories) selects it or not. Through the API it is every other one that O(repositories) selects, because others are not read.
  - A layer that the storage does not have, for example because it comes from elsewhere, has no bytes. Through the API sizes are those that
    manifests name, and of damage only what reading manifests shows is found.
  - Through the API it takes a request for each tag and each manifest. A registry with C(htpasswd) takes as many passwords in a second as
    its processors can check, which may be a dozen.
seealso:
  - module: wharf.registry.registry_gc
"""

EXAMPLES = r"""
- name: See what the registry holds
  wharf.registry.registry_info:
    config: /etc/wharf/registry/config.yml
  register: registry
  become: true

- name: Show the five repositories that would free most if they went
  ansible.builtin.debug:
    msg: "{{ item.name }}: {{ item.size.unique | ansible.builtin.human_readable }}"
  loop: "{{ (registry.repositories | sort(attribute='size.unique', reverse=true))[:5] }}"
  loop_control:
    label: "{{ item.name }}"

- name: Find the tags of one project through the API, from anywhere
  wharf.registry.registry_info:
    url: https://registry.example.com
    username: ci
    password: "{{ vault_ci_password }}"
    repositories: ["shop/**"]
    gather: [tags]
  delegate_to: localhost
  register: shop

- name: Refuse to go on unless an image is there for ARM
  wharf.registry.registry_info:
    url: https://registry.example.com
    username: ci
    password: "{{ vault_ci_password }}"
    repositories: [shop/web]
    gather: [platforms]
  register: web
  failed_when: "'linux/arm64' not in web.totals.platforms"
"""

RETURN = r"""
repositories:
  description: One entry for each repository, in order of their names.
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: Its name.
      type: str
      sample: shop/web
    project:
      description: The first part of its name.
      type: str
      sample: shop
    tag_count:
      description: How many tags it has.
      type: int
      sample: 2
    manifest_count:
      description: How many manifests RV(repositories[].digests) counts, whether they are returned or not.
      type: int
      sample: 3
    last_push:
      description: When a tag or manifest was pushed last, in UTC. Null over the API.
      type: str
      sample: "2026-11-24T10:00:00Z"
    tags:
      description: Its tags, in order of their names.
      returned: with O(gather) of V(tags)
      type: list
      elements: dict
      contains:
        name:
          description: The tag.
          type: str
          sample: "1.2"
        digest:
          description: The digest of what it points to. Null if nobody can tell; then there is a finding.
          type: str
          sample: sha256:0d2b37fcd1d3f2fe3f5bcd0a5f1be5c9b5a1c1c4e8a2f4f2b1c5ac1d8f0f8c11
        pushed:
          description: When it was pushed last, in UTC. Null over the API.
          type: str
          sample: "2026-11-24T10:00:00Z"
        size:
          description: Bytes of its manifest, configuration and layers; of an index its own and those of each of its images.
          returned: with O(gather) of V(sizes) too
          type: int
          sample: 31457280
        platforms:
          description: Its platforms.
          returned: with O(gather) of V(platforms) too
          type: list
          elements: str
          sample: [linux/amd64, linux/arm64]
    digests:
      description:
        - The digests of its manifests. Over the storage they are all, without a tag too; over the API those of its tags, and with V(sizes) or
          V(platforms) what these name in turn.
      returned: with O(gather) of V(tags)
      type: list
      elements: str
      sample: ["sha256:0d2b37fcd1d3f2fe3f5bcd0a5f1be5c9b5a1c1c4e8a2f4f2b1c5ac1d8f0f8c11"]
    platforms:
      description:
        - The platforms of its tags, as C(os/architecture) or C(os/architecture/variant). An index says it of its images; of others their
          configuration does. Artifacts such as charts and signatures have none.
      returned: with O(gather) of V(platforms)
      type: list
      elements: str
      sample: [linux/amd64, linux/arm64]
    size:
      description: Its bytes. See the notes for what they mean.
      returned: with O(gather) of V(sizes)
      type: dict
      contains:
        logical:
          description: What it would take if each image were stored on its own.
          type: int
          sample: 94371840
        unique:
          description: What only it uses.
          type: int
          sample: 31457280
        shared:
          description: What others use too.
          type: int
          sample: 20971520
        saved:
          description: What deduplication saves inside of it.
          type: int
          sample: 41943040
projects:
  description: One entry for each project, in order of their names.
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: Its name.
      type: str
      sample: shop
    repository_count:
      description: How many repositories it has.
      type: int
      sample: 1
    tag_count:
      description: How many tags they have.
      type: int
      sample: 2
    manifest_count:
      description: How many manifests they have.
      type: int
      sample: 3
    last_push:
      description: When something was pushed last, in UTC. Null over the API.
      type: str
      sample: "2026-11-24T10:00:00Z"
    platforms:
      description: The platforms of their tags.
      returned: with O(gather) of V(platforms)
      type: list
      elements: str
      sample: [linux/amd64, linux/arm64]
    size:
      description: Their bytes together, as those of a repository.
      returned: with O(gather) of V(sizes)
      type: dict
      sample: {logical: 94371840, unique: 31457280, shared: 20971520, saved: 41943040}
totals:
  description: The same over all repositories that are returned.
  returned: success
  type: dict
  contains:
    project_count:
      description: How many projects there are.
      type: int
      sample: 1
    repository_count:
      description: How many repositories there are.
      type: int
      sample: 1
    tag_count:
      description: How many tags they have.
      type: int
      sample: 2
    manifest_count:
      description: How many manifests they have; one that several have counts for each.
      type: int
      sample: 3
    last_push:
      description: When something was pushed last, in UTC. Null over the API.
      type: str
      sample: "2026-11-24T10:00:00Z"
    platforms:
      description: The platforms of their tags.
      returned: with O(gather) of V(platforms)
      type: list
      elements: str
      sample: [linux/amd64, linux/arm64]
    size:
      description: Their bytes together. Without O(repositories), C(unique) is what the registry stores for all manifests, and C(shared) is 0.
      returned: with O(gather) of V(sizes)
      type: dict
      sample: {logical: 94371840, unique: 52428800, shared: 0, saved: 41943040}
    storage:
      description:
        - What the storage holds, whatever O(repositories) selects. Null over the API.
      returned: with O(gather) of V(sizes)
      type: dict
      contains:
        blobs:
          description: How many blobs, manifests among them.
          type: int
          sample: 12
        bytes:
          description: Their bytes.
          type: int
          sample: 53477376
        unreferenced_bytes:
          description: Bytes of those that no manifest names. M(wharf.registry.registry_gc) can free them.
          type: int
          sample: 1048576
findings:
  description: What is wrong with the repositories, as M(wharf.registry.registry_gc) tells it.
  returned: success
  type: list
  elements: dict
  sample: [{kind: missing-blob, repository: shop/web, digest: "sha256:…", detail: "named by sha256:…"}]
"""

from urllib.parse import urlsplit

from ansible.module_utils.basic import AnsibleModule

from ..module_utils._info.api import read_registry
from ..module_utils._info.contents import GATHER, InfoError, report
from ..module_utils._info.store import read_storage
from ..module_utils._quiet import quiet
from ..module_utils._registry.api import Registry
from ..module_utils._registry.config import secret_values
from ..module_utils._store import interface


def open_registry(module):
    """Return a client of the registry under ``url``; end the module if the options cannot be used."""
    options = module.params
    try:
        parts = urlsplit(options["url"])
        if parts.password:
            module.no_log_values.add(parts.password)
        if parts.username is not None or parts.path not in ("", "/") or parts.query or parts.fragment:
            raise ValueError("only scheme, name and port can be used, and credentials have options of their own")
        return Registry(
            options["url"],
            username=options["username"] or "",
            password=options["password"] or "",
            ca_path=options["ca_path"],
            timeout=options["timeout"],
            keep_alive=True,
        )
    except ValueError as error:
        module.fail_json(msg="url: %s; write for example url: https://registry.example.com" % error)
    except OSError as error:
        module.fail_json(msg="ca_path: %s cannot be used: %s; it must be a PEM file with certificates" % (options["ca_path"], error))


def main():
    """Run the module."""
    module = quiet(AnsibleModule)(
        argument_spec={
            "config": {"type": "path"},
            "storage": {"type": "dict"},
            "url": {"type": "str"},
            "username": {"type": "str"},
            "password": {"type": "str", "no_log": True},
            "ca_path": {"type": "path"},
            "repositories": {"type": "list", "elements": "str", "default": []},
            "gather": {"type": "list", "elements": "str", "choices": list(GATHER), "default": list(GATHER)},
            "workers": {"type": "int", "default": 16},
            "timeout": {"type": "int", "default": 30},
        },
        required_one_of=[("config", "storage", "url")],
        mutually_exclusive=[("config", "storage", "url")],
        required_together=[("username", "password")],
        required_by={"username": ["url"], "ca_path": ["url"]},
        supports_check_mode=True,
    )
    options = module.params
    module.no_log_values.update(secret_values({"storage": options["storage"] or {}}))
    for name in ("workers", "timeout"):
        if options[name] < 1:
            module.fail_json(msg="%s: %d is too few; write for example %s: 16" % (name, options[name], name))
    try:
        if options["url"] is not None:
            contents = read_registry(open_registry(module), options["repositories"], options["gather"], options["workers"])
        else:
            if options["config"]:
                settings = interface.read_config(options["config"])
            else:
                settings = interface.from_sections(options["storage"])
            driver = interface.open_store(settings.storage, workers=options["workers"], timeout=options["timeout"])
            contents = read_storage(driver, options["repositories"], options["gather"])
        values = report(contents, options["gather"])
    except (interface.StoreError, InfoError) as error:
        module.fail_json(msg=str(error))
    for warning in contents.warnings:
        module.warn(warning)
    module.exit_json(changed=False, **values)


if __name__ == "__main__":
    main()
