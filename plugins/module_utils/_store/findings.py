# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is wrong with a storage, named so that a person can look at it. A finding never makes anything go."""

from __future__ import annotations

from typing import Dict, Iterable, List, NamedTuple

#: kind -> what it means.
KINDS = {
    "broken-link": "a tag or link whose file holds no digest",
    "zero-length": "a file of no bytes where there must be some",
    "missing-blob": "a manifest names a blob that is not in the storage",
    "missing-child": "an index names a manifest that is not in the storage",
    "missing-manifest": "a tag or link names a manifest that is not in the storage",
    "wrong-digest": "a manifest's content is not what its digest says",
    "invalid-manifest": "a manifest that cannot be understood",
    "unknown-type": "a manifest of an unknown media type; it is kept",
    "describes-nothing": "a signature or referrer of something that is not in this storage; it is kept",
    "unreadable": "a directory or file that could not be read",
    "orphaned-upload": "an upload that nobody finished",
    "unfinished-multipart": "a multipart upload of S3 that nobody finished",
    "silent-node": "a node that is to answer for what is announced and that has not been heard of",
    "junk": "a file that no registry puts there",
}


class Finding(NamedTuple):
    """One thing that is wrong, and where."""

    kind: str
    repository: str = ""
    tag: str = ""
    digest: str = ""
    path: str = ""
    detail: str = ""

    def as_dict(self) -> Dict[str, str]:
        """Return the finding without empty parts, as JSON can hold it."""
        return {name: printable(value) for name, value in self._asdict().items() if value}


def printable(text: str) -> str:
    """Return the text with bytes that are no UTF-8 (file names may have them) written out."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def as_dicts(findings: Iterable[Finding]) -> List[Dict[str, str]]:
    """Return findings in a steady order, each once."""
    return [finding.as_dict() for finding in sorted(set(findings))]
