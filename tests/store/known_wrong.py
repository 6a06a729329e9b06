#!/usr/bin/env python3
# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where `garbage-collect --delete-untagged` of distribution 3.1.2 is known to be wrong, by name. Run as a program it prints the list.

The generated storages of test_gc_oracle.py hold none of these; each is a storage and a test of its own.
"""

from __future__ import annotations

from pathlib import Path
from typing import Callable, NamedTuple

from ansible_collections.wharf.registry.tests.unit.plugins.module_utils.store_builder import OCI_IMAGE, OCI_INDEX, Builder


class Case(NamedTuple):
    """A storage that the stock tool treats wrongly.

    ``build`` fills it and returns a blob; ``kept`` says whether it must stay. The stock tool does the opposite.
    """

    name: str
    stock: str
    ours: str
    build: Callable[[Builder], str]
    kept: bool


def _artifact(store: Builder) -> str:
    subject = store.image("a", [b"x"], ["v1"])
    return store.image("a", [b"sbom"], config=b"a", subject=store.descriptor(subject, OCI_IMAGE))


def _fallback_tag(store: Builder) -> str:
    store.image("a", [b"kept"], ["v1"], config=b"kept")
    subject = store.image("a", [b"x"])
    return store.image("a", [b"sig"], [subject.replace(":", "-") + ".sig"], config=b"s")


def _child_seen_elsewhere(store: Builder) -> str:
    """The stock tool walks `a` first: it notes the child as seen there, and looks into it nowhere."""
    child = store.image("b", [b"the layer"], config=b"child")
    tree = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [store.descriptor(child, OCI_IMAGE)]}
    store.blob("a", b"of some image")
    store.manifest("a", tree, ["sparse"])
    store.manifest("b", tree, ["whole"])
    return store.data(b"the layer")


CASES = (
    Case(
        "an untagged artifact whose `subject` is kept",
        "deletes it: it does not know `subject`",
        "keeps it as long as its subject",
        _artifact,
        True,
    ),
    Case(
        "a fallback tag (`sha256-<hex>`, `.sig` and the like) of an image that goes",
        "keeps it, with all it refers to, for ever",
        "goes with the image",
        _fallback_tag,
        False,
    ),
    Case(
        "a multi-arch image whose child another repository's index names without having it (a sparse index)",
        "deletes the child's layers, and the image that has the child is broken",
        "keeps them",
        _child_seen_elsewhere,
        True,
    ),
)


def table() -> str:
    """Return the cases as a table for the documents."""
    rows = [f"| {case.name} | {case.stock} | {case.ours} |" for case in CASES]
    return "\n".join(["| case | stock 3.1.2 | `registry_gc` |", "|---|---|---|", *rows])


def fresh(folder: Path, case: Case) -> tuple[Builder, str]:
    """Build a case's storage; return it and the blob in question."""
    store = Builder(folder)
    return store, case.build(store)


if __name__ == "__main__":
    print(table())
