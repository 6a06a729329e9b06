# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Edges in front of registries that take anybody: the role's own templates, run by the distribution's nginx on loopback."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import Iterator

import servers

sys.path.append(str(Path(__file__).resolve().parents[1] / "token"))

import edge as token_edge  # noqa: E402

from ansible_collections.wharf.registry.plugins.module_utils._registry.api import Registry  # noqa: E402


@contextlib.contextmanager
def edge(folder: Path, registry: str, markers: Path, **settings: object) -> Iterator[Registry]:
    """Run an edge in front of a registry; yield a client of it. Markers in a folder say what is announced."""
    (port,) = servers.local.free_ports(1)
    options = {"registry_edge_announced": str(markers), "registry_edge_anonymous": True, **settings}
    with token_edge.edge(folder, registry, None, port, **options) as address:
        yield Registry(f"https://{address}", ca_path=str(folder / "tls.crt"), keep_alive=True)
