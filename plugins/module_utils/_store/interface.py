# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The package's front door. A registry's storage as data, on a file system or S3: read in one pass and understood.

Private to the collection. Plain Python, no Ansible. To read a storage::

    settings = read_config("/etc/distribution/config.yml")      # or from_sections(storage, redis)
    driver = open_store(settings.storage, workers=16)
    snapshot = read_store(driver)                               # one listing
    graph = read_graph(driver, snapshot, memo.load(driver))     # each manifest read once, by digest

Then, for each ``repository`` of ``snapshot.repositories.values()``:

- ``repository.tags[name].digest`` and ``.pushed`` (seconds since 1970);
- ``repository.revisions``: its manifests by digest; ``repository.layers``: its blobs by digest; each a ``Link(modified, size)``;
- ``repository.faults``: why it could not be read whole, empty if it could.

``snapshot.blobs[digest].size`` is the size of any blob or manifest that is there, ``graph.manifests[digest]`` a ``Manifest`` (media
type, size, children, config, layers, subject, platforms), ``snapshot.findings + graph.findings`` what is wrong.

``find_alive(graph, Policy(delete_untagged=True))`` says what must stay: ``.manifests[repository]`` and ``.blobs``.

Rooms: ``layout`` (names of files), ``driver`` with ``filesystem`` and ``s3``, ``settings`` (from a registry's configuration),
``listing``, ``manifests``, ``memo``, ``graph``, ``findings``.

All errors that a caller should show are :class:`StoreError`.
"""

from __future__ import annotations

from .driver import Driver, StoreError
from .findings import Finding, as_dicts
from .graph import Alive, Graph, Policy, compile_globs, find_alive, read_graph
from .listing import Link, Repository, Snapshot, Tag, read_store
from .manifests import Manifest
from .settings import Settings, from_sections, open_store, read_config

__all__ = [
    "Alive",
    "Driver",
    "Finding",
    "Graph",
    "Link",
    "Manifest",
    "Policy",
    "Repository",
    "Settings",
    "Snapshot",
    "StoreError",
    "Tag",
    "as_dicts",
    "compile_globs",
    "find_alive",
    "from_sections",
    "open_store",
    "read_config",
    "read_graph",
    "read_store",
]
