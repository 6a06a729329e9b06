# Copyright (c) 2026 wharf.registry contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""How each client does what people do with it: shell commands for the client host.

They get the password on their standard input where they sign in. Docker and crane keep what they know in ``$DOCKER_CONFIG``, podman and
skopeo in ``$REGISTRY_AUTH_FILE``, regctl in ``$REGCTL_CONFIG``; containerd's own client keeps nothing and is told each time: ``NAME:PASSWORD``.
"""

from __future__ import annotations

import json
from pathlib import Path

# A small image that differs each time, as a docker archive that every client can read.
MAKE_ARCHIVE = "set -e; d=$(mktemp -d); date +%s.%N > $d/content; tar -C $d -c content | docker import - {reference} >/dev/null; docker save -o {archive} {reference}; docker rmi {reference} >/dev/null"

LOGIN = {
    "docker": "docker login --username {user} --password-stdin {name}",
    "podman": "podman login --username {user} --password-stdin {name}",
    "skopeo": "skopeo login --username {user} --password-stdin {name}",
    "crane": "crane auth login --username {user} --password-stdin {name}",
    "regctl": "regctl registry login --user {user} --pass-stdin {name}",
}
PUSH = {
    "docker": "docker load -q -i {archive} && docker push -q {reference} && docker rmi {reference}",
    "podman": "podman load -q -i {archive} && podman push -q {reference} && podman rmi {reference}",
    "skopeo": "skopeo copy -q docker-archive:{archive} docker://{reference}",
    "crane": "crane push {archive} {reference}",
    "regctl": "regctl image import {reference} {archive}",
    "containerd": 'ctr images import --no-unpack {archive} >/dev/null && ctr images push --hosts-dir /etc/containerd/certs.d --user "$(cat)" {reference} && ctr images rm {reference}',
}
PULL = {
    "docker": "docker pull -q {reference} && docker rmi {reference}",
    "podman": "podman pull -q {reference} && podman rmi {reference}",
    "skopeo": "d=$(mktemp -d) && skopeo copy -q docker://{reference} dir:$d && rm -r $d",
    "crane": "crane pull {reference} /dev/null",
    "regctl": "regctl image export {reference} > /dev/null",
    "containerd": 'ctr images pull --hosts-dir /etc/containerd/certs.d --user "$(cat)" {reference} && ctr images rm {reference}',
}
# Of a tag; the others have no such command.
DELETE = {
    "skopeo": "skopeo delete docker://{reference}",
    "crane": 'crane delete "{repository}@$(crane digest {reference})"',
    "regctl": "regctl tag delete {reference}",
}
# What brings an image to the client host, where the client must have it or have seen it, and what pushes it to another repository of the
# same registry.
FETCH = {
    "skopeo": "d=$(mktemp -d) && skopeo copy -q docker://{source} dir:$d && rm -r $d",
    "docker": "docker pull -q {source}",
    "podman": "podman pull -q {source}",
    "containerd": 'ctr images pull --hosts-dir /etc/containerd/certs.d --user "$(cat)" {source}',
}
MOUNT = {
    "docker": "docker tag {source} {reference} && docker push {reference}",
    "podman": "podman push {source} {reference}",
    "skopeo": "skopeo copy docker://{source} docker://{reference}",
    "crane": "crane copy {source} {reference}",
    "regctl": "regctl image copy {source} {reference}",
    "containerd": 'ctr images tag {source} {reference} && ctr images push --hosts-dir /etc/containerd/certs.d --user "$(cat)" {reference}',
}
FORGET = {
    "docker": "docker rmi {source} {reference}",
    "podman": "podman rmi {source}",
    "containerd": "ctr images rm {source} {reference}",
}

OPERATIONS = ("login", "pull", "push", "delete of a tag", "mount")
RECORD = Path(__file__).with_name("clients.json")  # what was seen last, by the registry's release
DOCUMENT = Path(__file__).resolve().parents[2] / "docs/clients.md"
BEGIN, END = "<!-- table: begin -->\n", "<!-- table: end -->\n"
NEVER = "no such command"


def record() -> dict[str, list[dict[str, str]]]:
    """What clients did when it was recorded last: release of the registry → rows."""
    return json.loads(RECORD.read_text(encoding="utf-8"))


def table(recorded: dict[str, list[dict[str, str]]]) -> str:
    """Return the table for the document."""
    releases = sorted(recorded, reverse=True)
    lines = ["| client | | who may | " + " | ".join(f"who may not, on {release}" for release in releases) + " |"]
    lines.append("|---" * (3 + len(releases)) + "|")
    by_place = [{(row["client"], row["operation"]): row for row in recorded[release]} for release in releases]
    for place, row in by_place[0].items():
        refused = [rows[place]["refused"] for rows in by_place]
        allowed = " / ".join(dict.fromkeys(rows[place]["allowed"] for rows in by_place))
        lines.append(f"| {row['client']} | {row['operation']} | {allowed} | " + " | ".join(refused) + " |")
    return "\n".join(lines) + "\n"


def write(release: str, rows: list[dict[str, str]]) -> None:
    """Keep what was seen with a release, and put it into the document."""
    recorded = {**record(), release: rows} if RECORD.exists() else {release: rows}
    RECORD.write_text(json.dumps(dict(sorted(recorded.items())), indent=1) + "\n", encoding="utf-8")
    before, rest = DOCUMENT.read_text(encoding="utf-8").split(BEGIN)
    DOCUMENT.write_text(f"{before}{BEGIN}{table(recorded)}{END}{rest.split(END)[1]}", encoding="utf-8")
