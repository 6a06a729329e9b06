# Copyright (c) 2026 wharf.registry contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Each client logs in, pushes and pulls through the registry's name; every edge then serves the same digest."""

from __future__ import annotations

import pytest
from clients import MAKE_ARCHIVE, PULL, PUSH
from cluster import Cluster


@pytest.mark.parametrize("client", PUSH)
def test_login_push_pull_and_the_same_digest_at_each_edge(cluster: Cluster, client: str) -> None:
    reference = cluster.reference()
    names = {"reference": reference, "archive": f"/tmp/{client}.tar"}
    credentials = f"admin:{cluster.password}"
    cluster.on(cluster.client, MAKE_ARCHIVE.format(**names))
    cluster.on(cluster.client, PUSH[client].format(**names), stdin=credentials)
    cluster.on(cluster.client, PULL[client].format(**names), stdin=credentials)
    digests = {node: cluster.digest_at_edge(node, reference) for node in cluster.nodes}
    assert len(set(digests.values())) == 1, digests
    cluster.on(cluster.client, f"rm {names['archive']}")


@pytest.mark.parametrize("user, password", [("admin", "wrong"), ("nobody", "wrong")])
def test_a_wrong_password_is_refused(cluster: Cluster, user: str, password: str) -> None:
    output = cluster.on(
        cluster.client, f"docker --config $(mktemp -d) login --username {user} --password-stdin {cluster.name}", stdin=password, check=False
    )
    assert "unauthorized" in output.lower() or "401" in output


def test_anonymous_pull_is_refused(cluster: Cluster) -> None:
    output = cluster.on(cluster.client, f"DOCKER_CONFIG=$(mktemp -d) crane catalog {cluster.name}", check=False)
    assert "401" in output or "UNAUTHORIZED" in output
