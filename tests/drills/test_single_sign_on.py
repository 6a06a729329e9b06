# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Single sign-on with a real Keycloak and a real browser, through the virtual address, on three nodes; jobs of a CI system; Keycloak killed."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml
from change import deploy
from cluster import EDGE_PORT, TOKENS, Cluster
from test_faults import MODE, all_nodes_in, wait_until

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests/token"), str(ROOT / ".cache/collections")]

from browser import DOWN, ENTER, Browser, browser, sign_in  # noqa: E402  (found through the path above)
from issuer import Issuer  # noqa: E402
from keycloak import CLIENT, CLIENT_SECRET, Keycloak, keycloak, set_up  # noqa: E402
from settings import GATEWAY, S3_SECRET_KEY  # noqa: E402

PASSWORD = "dana-password"
GROUP = "registry-developers"
MINUTE = 60


class Office(NamedTuple):
    """The cluster, and who signs people and jobs in."""

    cluster: Cluster
    keycloak: Keycloak
    ci: Issuer

    def status(self, node: str, name: str, secret: str) -> int:
        """What one node answers to somebody who asks for a token; 0 if it does not."""
        url = f"https://{self.cluster.name}:{EDGE_PORT}"
        script = (
            f"curl -sS -o /dev/null -w '%{{http_code}}' -m 10 -K - --cacert /etc/wharf/edge/ca.crt "
            f"--resolve {self.cluster.name}:{EDGE_PORT}:{self.cluster.address(node)} "
            f"'{url}/auth/token?service={self.cluster.name}&scope=repository:shop/web:pull'"
        )
        return int(self.cluster.on(node, script, stdin=f'user = "{name}:{secret}"\n'))

    def statuses(self, name: str, secret: str) -> list[int]:
        """What each node answers."""
        return [self.status(node, name, secret) for node in self.cluster.nodes]


@pytest.fixture(scope="module")
def office(tokens: Cluster, report: list[str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Office]:
    """Keycloak and CI system at an address that the nodes reach; the cluster goes by both for as long as these tests last."""
    folder = tmp_path_factory.mktemp("office")
    before = os.environ["WHARF_EXTRA_VARS"]
    with keycloak(folder / "keycloak", GATEWAY) as found, Issuer(folder / "ci", GATEWAY).serve() as ci:
        set_up(found, folder, f"https://{tokens.name}", [GROUP])
        found.add_user("dana", PASSWORD, f"/{GROUP}")
        found.add_user("erin", PASSWORD)
        settings = yaml.safe_load(TOKENS.read_text())
        sso = {"issuer": found.issuer, "client_id": CLIENT, "client_secret": CLIENT_SECRET, "groups": {GROUP: "developers"}}
        access = settings["wharf_access"]
        access["groups"] = {"developers": []}
        access["ci"] = {"lab": ci.section({"shop-main": {"project_path": "shop/web", "ref": "main"}})}
        access["projects"]["shop"]["writers"] += ["group:developers", "job:shop-main"]
        variables = folder / "office.yml"
        variables.write_text(yaml.safe_dump({**settings, "wharf_access": access, "wharf_sso": {**sso, "ca_src": str(found.ca)}}))
        os.environ["WHARF_EXTRA_VARS"] = f"{before} {variables}"
        deploy(tokens, report, "single sign-on and a CI system")
        yield Office(tokens, found, ci)
    os.environ["WHARF_EXTRA_VARS"] = before
    deploy(tokens, report, "without them again")


@pytest.fixture
def page(office: Office, tmp_path: Path) -> Iterator[Browser]:
    """A browser at the page, through the virtual address."""
    with browser(tmp_path, f"MAP {office.cluster.name} {office.cluster.vip}") as opened:
        opened.open(f"https://{office.cluster.name}/auth/")
        yield opened


def make(page: Browser, name: str) -> str:
    """Make a token that pushes; return it."""
    page.reach("Name")
    page.press(name)
    page.reach("Pull")
    page.press(DOWN)
    page.reach("Make token")
    page.press(ENTER)
    page.until("Your new token")
    return str(page.script("document.activeElement.value"))


def revoke(page: Browser, name: str) -> None:
    """Revoke a token."""
    page.open(page.url.rpartition("/auth/")[0] + "/auth/")
    page.until(name)
    page.reach(f"Revoke {name}")
    page.press(ENTER)
    page.until("The token is revoked")


def test_a_token_made_at_one_node_is_good_at_all_and_revoked_at_all(
    office: Office, page: Browser, report: list[str], tmp_path: Path
) -> None:
    cluster = office.cluster
    sign_in(page, "dana", PASSWORD)
    page.until("Signed in as dana")
    token = make(page, "laptop")
    assert office.statuses("dana", token) == [200] * len(cluster.nodes)
    reference = f"{cluster.name}/shop/web:{time.time_ns()}"
    script = f"""
set -e
export DOCKER_CONFIG=$(mktemp -d)
docker login -u dana --password-stdin {cluster.name} < /root/dana
printf 'FROM scratch\\nLABEL made={time.time_ns()}\\nCOPY hosts /\\n' > $DOCKER_CONFIG/Dockerfile; cp /etc/hosts $DOCKER_CONFIG
DOCKER_BUILDKIT=0 docker build -q -t {reference} $DOCKER_CONFIG
docker push -q {reference}
docker rmi {reference}
docker pull -q {reference}
rm -r $DOCKER_CONFIG /root/dana
"""
    cluster.on(cluster.client, "umask 077; cat > /root/dana", stdin=token)
    cluster.on(cluster.client, script)
    # One node is away while the token is revoked.
    away = cluster.nodes[1]
    cluster.on(away, "systemctl stop wharf-token.socket wharf-token.service")
    revoke(page, "laptop")
    revoked = time.monotonic()
    others = [node for node in cluster.nodes if node != away]
    wait_until(
        lambda: [office.status(node, "dana", token) for node in others] == [401] * len(others), MINUTE, "revoked at those that are there"
    )
    told = time.monotonic() - revoked
    cluster.on(away, "systemctl start wharf-token.socket wharf-token.service")
    back = time.monotonic()
    wait_until(lambda: office.status(away, "dana", token) == 401, MINUTE, "revoked at the one that was away")
    report.append(
        f"[{MODE}] a personal token was refused by two nodes {told:.1f} s after it was revoked (each asked in turn), "
        f"by the third {time.monotonic() - back:.1f} s after its token service was started again"
    )


def test_jobs_of_a_ci_system_come_in_at_each_node(office: Office, report: list[str]) -> None:
    """The keys are fetched by the service as systemd runs it."""
    nodes = office.cluster.nodes
    assert office.statuses("ci-job", office.ci.token()) == [200] * len(nodes)
    assert office.statuses("ci-job", office.ci.token(ref="other")) == [401] * len(nodes)
    assert office.ci.askers >= {office.cluster.address(node) for node in nodes}
    for node in nodes:
        assert "ProtectSystem=strict" in office.cluster.on(node, "systemctl show wharf-token.service -p ProtectSystem")
    report.append(f"[{MODE}] each of {len(nodes)} nodes fetched the keys of a CI system and took a job's token")


def test_no_secret_is_where_others_could_read_it(office: Office, page: Browser, report: list[str], tmp_path: Path) -> None:
    """Everything that the cluster, its people, robots and jobs know; looked for in what runs show, in logs, arguments, metrics, files, reports."""
    cluster = office.cluster
    sign_in(page, "dana", PASSWORD)
    page.until("Signed in as dana")
    personal = make(page, "looked for")
    job = office.ci.token()
    for name, secret in (("dana", personal), ("ci-job", job), ("nobody", "a-wrong-password-of-nobody")):
        office.statuses(name, secret)
    kept = ["users/admin", "users/wharf-probe", "robots/reader", "robots/writer", "robots/keeper", "robots/keeper+next"]
    kept += ["http_secret", "redis_password", "token/own_secret"]
    planted = {name: (cluster.secrets / name).read_text().strip() for name in kept}
    planted.update({name: (cluster.secrets / name).read_text().splitlines()[1] for name in ("ca.key", "token/signer.key")})
    planted.update({"S3 secret key": S3_SECRET_KEY, "client secret": CLIENT_SECRET, "wrong password": "a-wrong-password-of-nobody"})
    planted.update({"personal token": personal.rpartition(".")[2], "token of a job": job.rpartition(".")[2]})
    assert len(set(planted.values())) == 16
    facts = tmp_path / "facts"
    os.environ.update(ANSIBLE_CACHE_PLUGIN="jsonfile", ANSIBLE_CACHE_PLUGIN_CONNECTION=str(facts))
    shown = {}
    try:
        for playbook, *arguments in (
            ("site", "--diff"),
            ("verify",),
            ("report", "-e", f"output={tmp_path / 'report.html'}"),
            ("audit", "-e", f"audit_output={tmp_path / 'audit.json'}"),
            ("access", "-e", "user=dana", "-e", "repository=shop/web"),
        ):
            done = cluster.playbook(f"playbooks/{playbook}.yml", "-vvvv", *arguments)
            shown[f"output of {playbook}.yml"] = done.stdout + done.stderr
            assert done.returncode == 0, f"{playbook}: {done.stdout[-3000:]}"
    finally:
        for name in ("ANSIBLE_CACHE_PLUGIN", "ANSIBLE_CACHE_PLUGIN_CONNECTION"):
            del os.environ[name]
    shown["report"] = (tmp_path / "report.html").read_text()
    shown["audit log, asked for"] = (tmp_path / "audit.json").read_text()
    shown["facts on the controller"] = "".join(path.read_text() for path in facts.iterdir())
    assert all(len(text) > 1000 for text in shown.values()), {name: len(text) for name, text in shown.items()}
    found = [f"{name}: {place}" for place, text in shown.items() for name, secret in planted.items() if secret in text]
    patterns = "".join(f"{secret}\n" for secret in planted.values())
    for host in [*cluster.nodes, *cluster.balancers, cluster.client, "store1"]:
        told = cluster.on(host, LOOK, stdin=patterns, timeout=300)
        # The store of the lab is no part of what is deployed, and knows its own key.
        found += [f"{host}: {line}" for line in told.splitlines() if not (host == "store1" and "lab-s3" in line)]
    assert found == []
    report.append(
        f"[{MODE}] {len(planted)} secrets were looked for on {3 + len(cluster.nodes) + 1} hosts and in what five playbooks show: none found"
    )


# Says where one of the texts of its standard input is. What is looked for can be found: root's own file has it.
LOOK = r"""
umask 077; folder=$(mktemp -d); cat > $folder/planted
grep -qF -f $folder/planted $folder/planted || echo "nothing is looked for"
journalctl --no-pager --output=export --all 2>/dev/null | grep -aF -f $folder/planted | head -c 300 | sed 's/^/journal: /'
find /var/log -type f ! -path '*/journal/*' -exec grep -alF -f $folder/planted {} + | sed 's/^/log: /'
cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\0' ' ' | grep -aoF -f $folder/planted | head -c 300 | sed 's/^/arguments: /'
systemctl show '*.service' --property=Id,Environment,ExecStart | grep -F -f $folder/planted | sed 's/^/units: /'
for port in 5001 5003 5004 9100 9113 9115 9121 3903; do
  curl -s -m 5 http://127.0.0.1:$port/metrics | grep -aF -f $folder/planted | sed "s/^/metrics at $port: /"
done
setpriv --reuid=65534 --regid=65534 --clear-groups find / -xdev -type f -readable -size -20M ! -path '/proc/*' ! -path '/sys/*' ! -path '/usr/*' -print0 2>/dev/null   | xargs -0r grep -alF -f $folder/planted 2>/dev/null | sed 's/^/readable: /'
rm -r $folder
"""


def test_who_has_no_group_is_told(office: Office, page: Browser) -> None:
    sign_in(page, "erin", PASSWORD)
    page.until("erin has no rights in this registry")


def test_keycloak_is_killed(office: Office, page: Browser, report: list[str]) -> None:
    """The last test here: nobody starts it again."""
    cluster = office.cluster
    sign_in(page, "dana", PASSWORD)
    page.until("Signed in as dana")
    token = make(page, "kept")
    robot = (cluster.secrets / "robots/writer").read_text().strip()
    office.keycloak.kill()
    # For five seconds a node takes a provider that has answered to be still there.
    time.sleep(6)
    good = [200] * len(cluster.nodes)
    assert office.statuses("dana", token) == good
    assert office.statuses("robot-writer", robot) == good
    assert office.statuses("admin", cluster.password) == good
    assert office.statuses("ci-job", office.ci.token()) == good
    # Who is signed in goes on with the page; who is not is told why.
    revoke(page, "kept")
    wait_until(lambda: office.statuses("dana", token) == [401] * len(cluster.nodes), MINUTE, "revoked")
    page.reach("Sign out")
    page.press(ENTER)
    page.until("You have signed out here.")
    page.reach("Sign in with single sign-on")
    page.press(ENTER)
    page.until("The identity provider does not answer")
    wait_until(lambda: all_nodes_in(cluster), 60, "all nodes in service")
    report.append(f"[{MODE}] Keycloak killed: personal tokens, robots, jobs and passwords go on at all nodes")
