# Copyright (c) 2026 wharf.registry contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Kills on a cluster with tokens, while clients sign in, fetch tokens, pull and push all the time: none of them should notice."""

from __future__ import annotations

import json
import time
from typing import Iterator

import pytest
from cluster import Cluster
from load import Load, push_image
from test_faults import FAULTS, MODE, Fault, all_nodes_in, judge, on, wait_until

SECONDS = 12  # that something stays broken
UNITS = "wharf-token.socket wharf-token.service"
KILLS = {
    "token service killed": Fault(
        on("registry1", f"systemctl kill -s KILL wharf-token.service; systemctl stop {UNITS}"), on("registry1", f"systemctl start {UNITS}")
    ),
    "token service killed again and again": Fault(
        on("registry2", f"for i in $(seq {SECONDS // 3}); do systemctl kill -s KILL wharf-token.service; sleep 3; done"),
        on("registry2", f"systemctl start {UNITS}"),
    ),
    "token service frozen": Fault(
        on("registry3", "systemctl kill -s STOP wharf-token.service"), on("registry3", "systemctl kill -s CONT wharf-token.service")
    ),
    "node killed": FAULTS["node stopped"],
    "redis killed": FAULTS["redis killed"],
}
CORE = ("token service killed", "node killed")
# Small images, so that they ask for many tokens: docker with a refresh token, crane with a password, containerd with one in a form.
CLIENTS = {
    "docker": "docker push -q {reference}",
    "crane": "head -c 20000 /dev/urandom > /tmp/layer && crane append -f /tmp/layer -t {reference}-crane",
    "containerd": "ctr images pull --hosts-dir /etc/containerd/certs.d --user $(cat /root/admin) {reference} > /dev/null && ctr images rm {reference}",
}


@pytest.fixture(scope="module")
def small(tokens: Cluster) -> Iterator[str]:
    """A small image in the registry and on the client host, and the account beside it."""
    reference = push_image(tokens, megabytes=2, layers=2)
    tokens.on(tokens.client, f"docker pull -q {reference}; cat > /root/admin", stdin=f"admin:{tokens.password}")
    yield reference
    tokens.on(tokens.client, f"rm /root/admin; docker rmi {reference}")


@pytest.mark.parametrize("kill", [pytest.param(name, marks=pytest.mark.core if name in CORE else ()) for name in KILLS])
def test_clients_go_on(tokens: Cluster, small: str, report: list[str], kill: str) -> None:
    wait_until(lambda: all_nodes_in(tokens), 60, "all nodes in service before the kill")
    load = Load(tokens, small, CLIENTS)
    with load:
        time.sleep(4)
        begun = time.monotonic()
        KILLS[kill].inflict(tokens)
        try:
            time.sleep(max(0.0, begun + SECONDS - time.monotonic()))
        finally:
            KILLS[kill].mend(tokens)
        time.sleep(4)
    wait_until(lambda: all_nodes_in(tokens), 60, f"all nodes back in service after: {kill}")
    if kill == "node killed":
        judge(load, kill, report)
        return
    for seen in load.seen:
        report.append(f"[{MODE}] {kill}: {seen.summary()}")
        report += [f"    failed: {failure['output'].strip()[-300:]}" for failure in seen.failures()]
    assert all(len(seen.pulls) > 5 and not seen.failures() for seen in load.seen), "\n".join(report[-12:])


@pytest.mark.core
def test_who_holds_a_token_goes_on_without_any_token_service(tokens: Cluster, small: str, report: list[str]) -> None:
    repository, tag = small.removeprefix(f"{tokens.name}/").rsplit(":", 1)
    url = f"https://{tokens.name}"
    scope = f"scope=repository:{repository}:pull&service={tokens.name}"
    answer = tokens.on(tokens.client, f"curl -sSf -K - '{url}/auth/token?{scope}'", stdin=f'user = "admin:{tokens.password}"\n')
    token = json.loads(answer)["token"]
    pull = f"curl -sS -m 10 -o /dev/null -w '%{{http_code}}\\n' -H @- -H 'Accept: */*' {url}/v2/{repository}/manifests/{tag}"
    fetch = f"curl -sS -m 10 -o /dev/null -w '%{{http_code}}' '{url}/auth/token?{scope}'"
    for node in tokens.nodes:
        tokens.on(node, f"systemctl kill -s KILL wharf-token.service; systemctl stop {UNITS}")
    try:
        assert tokens.on(tokens.client, fetch).strip() in ("502", "503")
        codes = tokens.on(tokens.client, f't=$(cat); for i in $(seq 50); do {pull} <<< "$t"; done', stdin=f"Authorization: Bearer {token}")
    finally:
        for node in tokens.nodes:
            tokens.on(node, f"systemctl start {UNITS}")
    assert codes.split() == ["200"] * 50
    wait_until(lambda: tokens.on(tokens.client, fetch).strip() == "401", 20, "tokens again")
    wait_until(lambda: all_nodes_in(tokens), 60, "all nodes in service after that")
    report.append(f"[{MODE}] all token services killed: 50 manifests read with a token of before, none refused")
