# Copyright (c) 2026 wharf.registry contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A day of five users: what they did is in the audit log once, with the right user, address, tag, digest and bytes.

Each user has a client of their own and keeps a diary. Meanwhile the virtual address moves to the other balancer, and a node is killed and
comes back. What was under way at that moment may have been answered and not been written, or be there twice because the client repeated
it; all else must be as the diaries have it.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable, Iterator, NamedTuple

import pytest
from change import deploy
from cluster import CHECKOUT, Cluster
from test_faults import all_nodes_in, wait_until

sys.path.insert(0, str(CHECKOUT / "tests/acceptance"))

from hosts import host as lab_host  # noqa: E402  (found through the path above)

USERS = ("alice", "bob", "carol", "dave", "erin")
# With tokens: who may do what. Passwords alone let everybody do everything.
ACCESS = {
    "admins": ["admin"],
    "projects": {"day": {"writers": ["alice"], "maintainers": ["bob", "carol", "dave"], "readers": ["erin"]}, "test": {}, "demo": {}},
}
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
LAYER = 300_000  # bytes of a layer, which cannot be packed
# From a kill on: who began before the end of this may have met the dead node or balancer.
AFTERMATH = 4.0


class Expected(NamedTuple):
    """An operation as the audit log should tell it. No digest: any."""

    action: str
    repository: str = ""
    tag: str = ""
    result: str = "ok"
    digest: str = ""
    least: int = 0  # bytes
    most: int = 1 << 40


@dataclass
class Entry:
    """What somebody has done, in the diary."""

    user: str
    address: str
    begun: float
    ended: float
    good: bool
    expected: list[Expected]
    output: str = field(repr=False)


class Person:
    """A user at a host, with credentials where each client looks for them."""

    def __init__(self, cluster: Cluster, name: str, host: str, address: str, password: str) -> None:
        self.cluster, self.name, self.host, self.address = cluster, name, host, address
        self.repository = f"day/{name}"
        self.home = f"/root/day-{name}"
        self.diary: list[Entry] = []
        self.may_push = True
        auth = base64.b64encode(f"{name}:{password}".encode()).decode()
        cluster.on(
            host,
            f"mkdir -p {self.home}/.regctl && cat > {self.home}/config.json && cp {self.home}/config.json {self.home}/auth.json",
            stdin=json.dumps({"auths": {cluster.name: {"auth": auth}}}),
        )

    def does(self, script: str, *expected: Expected, fails: bool = False, stdin: str | None = None) -> Entry:
        """Run a script as this user and write down what the audit log should have of it."""
        environment = (
            f"set -e; export HOME={self.home} DOCKER_CONFIG={self.home} REGISTRY_AUTH_FILE={self.home}/auth.json "
            f"R={self.cluster.name}/{self.repository} N={self.cluster.name}; cd {self.home}; "
        )
        begun = time.time()
        # A client whose balancer is gone may wait for an answer until its connection is found dead.
        self.cluster.on(self.host, f"cat > {self.home}/now", stdin=f"{environment}{script}\n")
        output = self.cluster.on(
            self.host, f"timeout -k 5 60 bash {self.home}/now 2>&1; code=$?; echo; echo CODE $code", stdin=stdin, check=False
        )
        text, _separator, code = output.rpartition("CODE ")
        entry = Entry(self.name, self.address, begun, time.time(), (code.strip() == "0") != fails, list(expected), text)
        self.diary.append(entry)
        return entry

    def pushed(self, script: str, tag: str, least: int = LAYER, action: str = "push", result: str = "ok") -> str:
        """Run a script that pushes a tag and prints the digest; return that."""
        entry = self.does(script, fails=result != "ok")
        digest = (DIGEST.findall(entry.output) or [""])[-1] if result == "ok" else ""
        # Headers come on top of what is uploaded.
        most = least + 30_000 if least else 20_000
        entry.expected = [Expected(action, self.repository, tag, result, digest, least, most)]
        return digest


MAKE_LAYER = f"head -c {LAYER} /dev/urandom > layer && tar cf layer.tar layer"
MAKE_IMAGE = f"{MAKE_LAYER} && crane append -f layer.tar -t $R:{{tag}} -o image.tar"
PULLED = (LAYER, LAYER + 20_000)


def alice(me: Person, tag: str, base: Expected) -> None:
    """Docker: an image, pulled again, under a second name; the image that all use; a wrong password."""
    digest = me.pushed(f"{MAKE_LAYER} && docker import layer.tar $R:{tag} && docker push $R:{tag} && docker rmi $R:{tag} >/dev/null", tag)
    mine = Expected("pull", me.repository, tag, "ok", digest, *PULLED)
    me.does(f"docker pull $R:{tag}", mine)
    me.pushed(
        f"docker tag $R:{tag} $R:{tag}-again && docker push $R:{tag}-again && docker rmi $R:{tag} $R:{tag}-again >/dev/null",
        f"{tag}-again",
        0,
        "tag",
    )
    me.does("docker pull $N/day/base:1 && docker rmi $N/day/base:1", base)
    login = "d=$(mktemp -d); docker --config $d login --username {user} --password-stdin $N"
    me.does(login.format(user="alice"), Expected("login", result="denied"), fails=True, stdin="wrong")


def bob(me: Person, tag: str, base: Expected) -> None:
    """Crane: an image with a second name, both gone with its digest; what is not there."""
    digest = me.pushed(f"{MAKE_LAYER} && crane append -f layer.tar -t $R:{tag}", tag)
    me.does(f"crane pull $R:{tag} image", Expected("pull", me.repository, tag, "ok", digest, *PULLED))
    manifest = Expected("pull", me.repository, tag, "ok", digest, 100, 5_000)
    me.does(f"crane tag $R:{tag} {tag}-latest", manifest, Expected("tag", me.repository, f"{tag}-latest", "ok", digest))
    me.does("crane pull $N/day/base:1 image", base)
    me.does(f"crane delete $R@{digest}", Expected("delete", me.repository, "", "ok", digest))
    me.does(f"crane pull $R:{tag} image", Expected("pull", me.repository, tag, "not_found"), fails=True)


def carol(me: Person, tag: str, base: Expected) -> None:
    """Skopeo: an image, copied away, deleted."""
    digest = me.pushed(
        f"{MAKE_IMAGE.format(tag=tag)} && skopeo copy -q --digestfile digest docker-archive:image.tar docker://$R:{tag} && cat digest", tag
    )
    pull = Expected("pull", me.repository, tag, "ok", digest, *PULLED)
    me.does(f"rm -rf copy; skopeo copy -q docker://$R:{tag} dir:copy", pull)
    me.does("rm -rf copy; skopeo copy -q docker://$N/day/base:1 dir:copy", base)
    manifest = Expected("pull", me.repository, tag, "ok", digest, 100, 5_000)
    me.does(f"skopeo delete docker://$R:{tag}", manifest, Expected("delete", me.repository, "", "ok", digest))


def dave(me: Person, tag: str, base: Expected) -> None:
    """Regctl, at the same address as bob."""
    digest = me.pushed(f"{MAKE_IMAGE.format(tag=tag)} && regctl image import $R:{tag} image.tar && regctl image digest $R:{tag}", tag)
    me.does(f"regctl image export $R:{tag} image", Expected("pull", me.repository, tag, "ok", digest, *PULLED))
    me.does("regctl image export $N/day/base:1 image", base)
    me.does(f"regctl tag delete $R:{tag}", Expected("delete", me.repository, tag))


def erin(me: Person, tag: str, base: Expected) -> None:
    """Podman, at the same address as alice: the image that all use, twice; a push that tokens do not allow."""
    me.does("podman pull -q $N/day/base:1 && podman rmi $N/day/base:1", base)
    allowed = "ok" if me.may_push else "denied"
    script = f"{MAKE_LAYER} && podman import -q layer.tar $R:{tag}; podman push -q --digestfile digest $R:{tag} && cat digest"
    me.pushed(f"trap 'podman rmi $R:{tag} >/dev/null' EXIT; {script}", tag, LAYER if allowed == "ok" else 0, result=allowed)
    me.does("podman pull -q $N/day/base:1 && podman rmi $N/day/base:1", base)


DAYS: dict[str, Callable[[Person, str, Expected], None]] = {"alice": alice, "bob": bob, "carol": carol, "dave": dave, "erin": erin}


@pytest.fixture(scope="module")
def guests(cluster: Cluster) -> Iterator[list[str]]:
    """Two client hosts more, at addresses of their own."""
    with contextlib.ExitStack() as stack:
        found = [stack.enter_context(lab_host("guest", "trixie", "client")).name for _number in range(2)]
        bundle = cluster.on(cluster.client, "cat /etc/ssl/certs/ca-certificates.crt")
        for guest in found:
            cluster.on(guest, f"echo '{cluster.vip} {cluster.name}' >> /etc/hosts; cat > /etc/ssl/certs/ca-certificates.crt", stdin=bundle)
        yield found


@pytest.fixture(params=["htpasswd", "token"])
def people(
    request: pytest.FixtureRequest, cluster: Cluster, guests: list[str], report: list[str], tmp_path: Path
) -> Iterator[dict[str, Person]]:
    """The five, with the cluster's accounts that it has, else those that it gets for as long as the test lasts."""
    passwords = {name: f"{name}-has-a-password" for name in USERS}
    variables = {
        "wharf_auth": request.param,
        "wharf_users": [{"name": name, "password": word} for name, word in {"admin": cluster.password, **passwords}.items()],
        **({"wharf_access": ACCESS} if request.param == "token" else {}),
    }
    (tmp_path / "people.yml").write_text(json.dumps(variables))
    before = os.environ.get("WHARF_EXTRA_VARS", "")
    os.environ["WHARF_EXTRA_VARS"] = str(tmp_path / "people.yml")
    there = {"htpasswd": "/v2/", "token": f"/auth/token?service={cluster.name}&scope="}[request.param]
    asked = f"curl -s -o /dev/null -w '%{{http_code}}' -m 10 -u 'erin:{passwords['erin']}' 'https://{cluster.name}{there}'"
    own = cluster.on(cluster.client, asked, check=False).strip() != "200"
    if own:
        deploy(cluster, report, f"five users, {request.param}")
        cluster.login()
    places = {"alice": cluster.client, "bob": guests[0], "carol": guests[1], "dave": guests[0], "erin": cluster.client}
    addresses = {place: cluster.on(place, "hostname -I").split()[0] for place in set(places.values())}
    found = {name: Person(cluster, name, place, addresses[place], passwords[name]) for name, place in places.items()}
    found["erin"].may_push = request.param == "htpasswd"
    yield found
    os.environ["WHARF_EXTRA_VARS"] = before
    if own and "MOLECULE_SCENARIO_NAME" not in os.environ:
        deploy(cluster, report, "back to what it was")
        cluster.login()


def told_by(cluster: Cluster, folder: Path, begun: float) -> list[dict[str, Any]]:
    """What audit.yml tells of the five since a moment."""
    since = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(begun))
    output = folder / "answer.json"
    result = cluster.playbook("playbooks/audit.yml", "-e", json.dumps({"audit_from": since, "audit_output": str(output)}))
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-1000:]
    return [
        entry for entry in json.loads(output.read_text()) if entry.get("user") in USERS or entry.get("repository", "").startswith("day/")
    ]


def moment_of(entry: dict[str, Any]) -> float:
    """When an operation of the audit log was."""
    return time.mktime(time.strptime(entry["time"][:19], "%Y-%m-%dT%H:%M:%S")) - time.timezone + float(f"0{entry['time'][19:-1]}")


def fits(entry: dict[str, Any], expected: Expected) -> bool:
    """Whether the log tells of an operation what was expected."""
    return (
        (entry["action"], entry.get("repository", ""), entry.get("tag", ""), entry["result"])
        == (expected.action, expected.repository, expected.tag, expected.result)
        and expected.digest in ("", entry.get("digest", ""))
        and expected.least <= entry.get("bytes", 0) <= expected.most
    )


def compare(told: list[dict[str, Any]], diary: list[Entry], shaken: Callable[[Entry], bool]) -> list[str]:
    """Return what the log and the diaries do not agree on; take each operation of the log for one entry."""
    wrong = []
    left = list(told)
    for calm in (True, False):
        for entry in diary:
            if shaken(entry) == calm:
                continue
            for expected in entry.expected:
                place = next(
                    (
                        number
                        for number, found in enumerate(left)
                        if (found.get("user"), found.get("address")) == (entry.user, entry.address)
                        and entry.begun - 1.5 <= moment_of(found) <= entry.ended + 1.5
                        and fits(found, expected)
                    ),
                    None,
                )
                if place is not None:
                    left.pop(place)
                elif calm:
                    wrong.append(f"not in the log: {entry.user} {entry.address} {expected} at {entry.begun:.1f} to {entry.ended:.1f}")
            if calm and not entry.good:
                wrong.append(f"did not go as planned: {entry.user} {entry.expected}: {entry.output[-300:]}")
    # A client may have repeated what was cut; it did so as the same user at the same address, in the same time.
    for found in left:
        near = [
            entry
            for entry in diary
            if shaken(entry)
            and (found.get("user"), found.get("address")) == (entry.user, entry.address)
            and entry.begun - 1.5 <= moment_of(found) <= entry.ended + 1.5
        ]
        if not near:
            wrong.append(f"only in the log: {found}")
    return wrong


def test_every_operation_of_a_day_once(cluster: Cluster, people: dict[str, Person], report: list[str], tmp_path: Path) -> None:
    wait_until(lambda: all_nodes_in(cluster), 60, "all nodes in service before the day")
    morning = time.time()
    time.sleep(1)
    layers = f"{MAKE_LAYER} && crane append -f layer.tar -t $N/day/base:1"
    digest = DIGEST.findall((made := people["bob"].does(layers)).output)[-1]
    made.expected = [Expected("push", "day/base", "1", "ok", digest, LAYER, LAYER + 30_000)]
    base = Expected("pull", "day/base", "1", "ok", digest, *PULLED)
    evening = threading.Event()
    broken: list[BaseException] = []

    def live(name: str) -> None:
        hour = 0
        try:
            while not evening.is_set():
                hour += 1
                DAYS[name](people[name], str(hour), base)
        except BaseException as error:  # noqa: BLE001  (told by the test)
            broken.append(error)

    threads = [threading.Thread(target=live, args=(name,)) for name in DAYS]
    for thread in threads:
        thread.start()
    shocks: list[float] = []
    holder, killed = cluster.holder_of_vip(), cluster.nodes[1]
    other = next(balancer for balancer in cluster.balancers if balancer != holder)
    time.sleep(15)
    try:
        shocks.append(time.time())
        cluster.on(holder, "systemctl stop keepalived")
        wait_until(
            lambda: f" {cluster.vip}/" in cluster.on(other, "ip -o -4 address show"), 30, "the virtual address at the other balancer"
        )
        time.sleep(15)
        shocks.append(time.time())
        cluster.docker("kill", killed)
        time.sleep(12)
    finally:
        cluster.docker("start", killed)
        cluster.on(holder, "systemctl start keepalived")
    wait_until(lambda: all_nodes_in(cluster), 60, "all nodes back in service")
    time.sleep(10)
    evening.set()
    for thread in threads:
        thread.join(180)
    diary = [entry for person in people.values() for entry in person.diary]
    kept = CHECKOUT / ".cache/audit-day.json"
    kept.write_text(json.dumps({"shocks": shocks, "diary": [vars(entry) for entry in diary]}, indent=1))
    assert not broken, broken

    def shaken(entry: Entry) -> bool:
        return any(entry.begun < shock + AFTERMATH and entry.ended > shock - 0.5 for shock in shocks)

    # The services write what the last second brought.
    time.sleep(4)
    told = told_by(cluster, tmp_path, morning)
    kept.write_text(json.dumps({"told": told, "shocks": shocks, "diary": [vars(entry) for entry in diary]}, indent=1))
    wrong = compare(told, diary, shaken)
    report.append(
        f"a day of five users: {len(diary)} commands, {sum(len(entry.expected) for entry in diary)} operations expected, {len(told)} told, "
        f"{sum(map(shaken, diary))} commands under way when something broke, {sum(not entry.good for entry in diary)} of them failed"
    )
    assert not wrong, "\n".join(wrong)
    assert {node for entry in told for node in entry["nodes"]} == set(cluster.nodes)
    assert Counter(entry["user"] for entry in told).keys() == set(USERS)
    # A request is on one node, and there once.
    lines = [json.loads(line) for node in cluster.nodes for line in cluster.on(node, "cat /var/log/wharf-audit/audit.log").splitlines()]
    seen = Counter((line["node"], line.get("request_id", id(line)), line["action"], line.get("part", "")) for line in lines)
    assert not [key for key, count in seen.items() if count > 1]
