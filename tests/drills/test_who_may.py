# Copyright (c) 2026 wharf.registry contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Each client, through the registry's name, on a cluster with tokens: it does what its account may, and is told that it may not do the rest.

What was seen is kept in tests/cluster/clients.json and makes the table of docs/clients.md; a run that sees anything else fails.
`WHARF_RECORD=1` keeps what this run sees instead.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import uuid
from typing import NamedTuple

import clients
import pytest
from cluster import Cluster

pytestmark = pytest.mark.core

PATIENCE = 30  # seconds within which a client has been told
# What a client says when it may not, the most telling first.
REFUSALS = (
    "unauthorized: the name or the password is wrong",
    "invalid username/password",
    "denied: requested access to the resource is denied",
    "requested access to the resource is denied",
    "insufficient_scope: authorization failed",
    "unauthorized: authentication required",
    "unauthorized",
)


class Done(NamedTuple):
    """How a command of a client ended."""

    code: int
    output: str

    def good(self) -> Done:
        """It must have ended well."""
        assert self.code == 0, f"ended with {self.code}:\n{self.output}"
        return self

    def refusal(self) -> str:
        """What the client says; it must have failed, soon, and say why."""
        assert self.code not in (0, 124), f"ended with {self.code}:\n{self.output}"
        assert not re.search(r"panic|goroutine|\b50\d\b", self.output), self.output
        for words in REFUSALS:
            found = re.search(re.escape(words), self.output, re.I)
            if found:
                return f"`{found[0]}`"
        raise AssertionError(f"it does not say why:\n{self.output}")


class Desk:
    """The client host, where each account has a place of its own for each client, and the images of this run."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.run = uuid.uuid4().hex[:8]
        self.secrets = {name: (cluster.secrets / "robots" / name).read_text().strip() for name in ("reader", "writer", "keeper")}
        self.secrets["admin"] = cluster.password
        self.rows: list[dict[str, str]] = []

    def reference(self, project: str, image: str) -> str:
        """An image's name."""
        return f"{self.cluster.name}/{project}/{image}-{self.run}:1"

    def does(self, account: str, client: str, command: str, *, secret: str = "", reference: str = "", **names: str) -> Done:
        """Let an account do something with a client."""
        user = account if account == "admin" else f"robot-{account}"
        secret = secret or self.secrets[account]
        home = f"/root/accounts/{client}/{account}"
        names = {"name": self.cluster.name, "user": user, "reference": reference, "repository": reference.rpartition(":")[0], **names}
        script = f"mkdir -p {home}; export DOCKER_CONFIG={home} REGISTRY_AUTH_FILE={home}/auth.json REGCTL_CONFIG={home}/regctl.json\n"
        script += command.format(**names)
        output = self.cluster.on(
            self.cluster.client,
            f"exec 2>&1; timeout {PATIENCE} bash -c {shlex.quote(script)}; code=$?; echo; echo $code",
            stdin=f"{user}:{secret}" if client == "containerd" else secret,
        )
        *lines, code = output.rstrip().splitlines()
        return Done(int(code), "\n".join(lines).strip())

    def archive(self, reference: str) -> str:
        """Make an image that is like no other, of that name; return its archive."""
        path = "/tmp/who-may.tar"
        self.cluster.on(self.cluster.client, clients.MAKE_ARCHIVE.format(reference=reference, archive=path))
        return path

    def seed(self, reference: str) -> None:
        """Push an image that is like no other."""
        self.does("admin", "crane", clients.PUSH["crane"], reference=reference, archive=self.archive(reference)).good()

    def digest(self, reference: str) -> str:
        """A tag's digest, as an admin sees it; nothing if there is no such tag."""
        done = self.does("admin", "crane", "crane digest {reference}", reference=reference)
        assert done.code == 0 or "_UNKNOWN" in done.output, done.output
        return done.output.splitlines()[-1] if done.code == 0 else ""

    def mounts(self, source: str, reference: str) -> set[int]:
        """How the edges have answered those who wanted a layer of one repository in another."""
        wanted = {"from": source, "uri": f"/v2/{reference}/blobs/uploads/"}
        found = set()
        for node in self.cluster.nodes:
            log = self.cluster.on(node, f"grep -F {reference}/blobs/uploads/ /var/log/wharf/access.log || true")
            for line in map(json.loads, log.splitlines()):
                if line["method"] == "POST" and {"from": line["from"].replace("%2F", "/"), "uri": line["uri"]} == wanted:
                    found.add(line["status"])
        return found

    def row(self, client: str, operation: str, refused: str, allowed: str = "yes") -> None:
        """Keep what was seen."""
        self.rows.append({"client": client, "operation": operation, "allowed": allowed, "refused": refused})


@pytest.fixture(scope="module")
def desk(tokens: Cluster) -> Desk:
    """There is an image to pull in each of these projects."""
    desk = Desk(tokens)
    desk.does("admin", "crane", clients.LOGIN["crane"]).good()
    for project in ("shop", "vault"):
        desk.seed(desk.reference(project, "app"))
    return desk


@pytest.mark.parametrize("client", clients.PUSH)
def test_a_client(desk: Desk, client: str) -> None:
    if client in clients.LOGIN:
        first = clients.LOGIN[client]
        if client == "crane":
            # It keeps what it is told, and asks nobody before its first use.
            first += " && crane digest {reference}"
        refused = desk.does("reader", client, first, secret="wrong", reference=desk.reference("shop", "app")).refusal()
        for account in ("reader", "writer", "keeper"):
            desk.does(account, client, first, reference=desk.reference("shop", "app")).good()
        desk.row(client, "login", refused)
    else:
        desk.row(client, "login", clients.NEVER, clients.NEVER)

    desk.does("reader", client, clients.PULL[client], reference=desk.reference("shop", "app")).good()
    desk.row(client, "pull", desk.does("reader", client, clients.PULL[client], reference=desk.reference("vault", "app")).refusal())

    mine, theirs = desk.reference("shop", client), desk.reference("shop", f"{client}-refused")
    desk.does("writer", client, clients.PUSH[client], reference=mine, archive=desk.archive(mine)).good()
    assert desk.digest(mine)
    desk.row(client, "push", desk.does("reader", client, clients.PUSH[client], reference=theirs, archive=desk.archive(theirs)).refusal())
    assert not desk.digest(theirs)

    if client in clients.DELETE:
        before = desk.digest(mine)
        refused = desk.does("writer", client, clients.DELETE[client], reference=mine).refusal()
        assert desk.digest(mine), "the tag is gone though its deletion was refused"
        if desk.digest(mine) != before:
            refused += ", the tag is another image now"
        desk.does("keeper", client, clients.DELETE[client], reference=mine).good()
        assert not desk.digest(mine)
        desk.row(client, "delete of a tag", refused)
    else:
        desk.row(client, "delete of a tag", clients.NEVER, clients.NEVER)

    assert mount(desk, client, "base", holder="writer") == "mounted"
    desk.row(client, "mount", mount(desk, client, "vault", holder="keeper"))


def mount(desk: Desk, client: str, project: str, holder: str) -> str:
    """Let the writer push an image of another project, which the holder has pulled on the same host; return what came of it."""
    # An image for each client: some remember where else a layer is.
    source, reference = desk.reference(project, client), desk.reference("shop", f"{client}-{project}")
    desk.seed(source)
    names = {"source": source, "reference": reference}
    if client in clients.FETCH:
        desk.does(holder, client, clients.FETCH[client], **names).good()
    done = desk.does("writer", client, clients.MOUNT[client], **names)
    if client in clients.FORGET:
        desk.does(holder, client, clients.FORGET[client], **names)
    repositories = [name.removeprefix(f"{desk.cluster.name}/").rpartition(":")[0] for name in (source, reference)]
    asked = desk.mounts(*repositories)
    if done.code == 0 and 201 in asked:
        return "mounted"
    assert 201 not in asked
    if done.code == 0:
        assert desk.digest(reference)
        return "nothing is mounted: the client sends its own copy"
    assert not desk.digest(reference)
    return done.refusal()


def test_the_document_tells_what_was_seen(desk: Desk) -> None:
    image = desk.cluster.on(desk.cluster.nodes[0], "docker inspect -f '{{.Config.Image}}' wharf-registry").strip()
    release = image.rpartition(":")[2]
    places = [(row["client"], row["operation"]) for row in desk.rows]
    assert places == [(client, operation) for client in clients.PUSH for operation in clients.OPERATIONS]
    if os.environ.get("WHARF_RECORD"):
        clients.write(release, desk.rows)
    assert desk.rows == clients.record()[release]
