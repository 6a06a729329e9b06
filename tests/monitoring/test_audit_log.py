# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""audit_log on bare hosts of both Debian releases, behind a real edge with a real registry: installed, asked, rotated, killed, removed."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, Iterator

import pytest
from ruletests import CHECKOUT

sys.path.insert(0, str(CHECKOUT / "tests/acceptance"))

from hosts import REGISTRY_3, RELEASES, Host, ansible, host, must  # noqa: E402  (found through the path above)

REGISTRY = """\
version: 0.1
storage: {filesystem: {rootdirectory: /srv/registry}, delete: {enabled: true}}
auth: {htpasswd: {realm: registry, path: /etc/htpasswd}}
http: {addr: "127.0.0.1:5000", secret: "long enough", debug: {addr: "127.0.0.1:5001", prometheus: {enabled: true}}}
"""
UNIT = """\
[Service]
Environment=OTEL_TRACES_EXPORTER=none
ExecStart=/usr/local/bin/registry serve /etc/registry.yml
"""
MANIFEST = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": []}


class Node:
    """A registry node, and how playbooks are run on it."""

    def __init__(self, machine: Host, folder: Path) -> None:
        self.host = machine
        self.folder = folder
        self.variables: dict[str, Any] = {
            "wharf_name": "registry.example.test",
            "wharf_secrets_dir": str(folder / "secrets"),
            "wharf_users": [{"name": "alice", "password": "alice-password"}],
            "registry_edge_balancers": [],
            "registry_edge_monitoring": [],
            "registry_edge_peers": [],
        }

    def run(self, role: str, verb: str = "main", *arguments: str, **variables: Any) -> subprocess.CompletedProcess[str]:
        """Run a verb of a role."""
        play = {"hosts": "all", "gather_facts": True, "vars": {**self.variables, **variables}}
        play["tasks"] = [{"name": verb, "ansible.builtin.include_role": {"name": f"wharf.registry.{role}", "tasks_from": verb}}]
        return ansible(self.folder, [play], {"registry1": self.host}, *arguments)

    def changes(self, verb: str = "main", *arguments: str, **variables: Any) -> int:
        """Run a verb of audit_log that has to be good; return how many tasks changed something."""
        return int(re.findall(r"changed=(\d+)", must(self.run("audit_log", verb, *arguments, **variables)))[-1])

    def ask(self, path: str, *options: str, user: str = "alice:alice-password") -> str:
        """Ask the edge from the node itself; return the status."""
        words = " ".join(f"'{option}'" for option in options)
        return self.host.on(f"curl -sk -o /dev/null -w '%{{http_code}}' -u '{user}' {words} https://127.0.0.1:5443{path}")

    def operations(self) -> list[dict[str, Any]]:
        """What the node's own command tells."""
        lines = self.host.on("python3 /usr/local/lib/wharf/wharf.pyz audit-query").splitlines()
        return [json.loads(line) for line in lines if '"wharf-probe"' not in line]

    def wait_for(self, count: int) -> list[dict[str, Any]]:
        """Wait until there are so many operations."""
        self.host.on(
            "for i in $(seq 100); do "
            f'test "$(python3 /usr/local/lib/wharf/wharf.pyz audit-query | grep -cv wharf-probe)" -ge {count} && exit 0; sleep 0.2; done',
            check=False,
        )
        found = self.operations()
        assert len(found) == count, found
        return found


@pytest.fixture(scope="module", params=RELEASES)
def node(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """A node with a registry and the collection's edge."""
    folder = tmp_path_factory.mktemp("audit")
    with host("audit", RELEASES[request.param], services=True) as machine:
        node = Node(machine, folder)
        secrets = {"hosts": "localhost", "connection": "local", "gather_facts": False, "vars": {**node.variables}}
        secrets["vars"]["ansible_python_interpreter"] = sys.executable
        secrets["vars"]["cluster_secrets_hosts"] = [{"name": "registry1", "address": "127.0.0.1"}]
        secrets["roles"] = [{"role": "wharf.registry.cluster_secrets"}]
        must(ansible(folder, [secrets], {}))
        machine.copy(REGISTRY_3, "/usr/local/bin/registry")
        machine.copy(folder / "secrets/htpasswd", "/etc/htpasswd")
        machine.on("cat > /etc/registry.yml", stdin=REGISTRY)
        machine.on("cat > /etc/systemd/system/registry.service && systemctl daemon-reload && systemctl start registry", stdin=UNIT)
        must(node.run("registry_edge"))
        yield node


def test_it_is_installed_and_says_who_did_what(node: Node) -> None:
    assert node.changes("main", "--check", "--diff") > 0
    assert node.host.answers("test -e /etc/wharf/audit.json")[0] != 0, "check mode left something"
    # What the log has from before is taken over.
    assert node.ask("/v2/") == "200"
    assert node.changes() > 0
    assert node.changes() == 0
    assert node.changes("main", "--check") == 0
    node.host.on("cat > /tmp/manifest", stdin=json.dumps(MANIFEST))
    kind = f"Content-Type: {MANIFEST['mediaType']}"
    assert node.ask("/v2/shop/web/manifests/1", "-T", "/tmp/manifest", "-H", kind) == "201"
    assert node.ask("/v2/shop/web/manifests/1", "-H", f"Accept: {MANIFEST['mediaType']}") == "200"
    assert node.ask("/v2/", user="password-in-the-wrong-field:x") == "401"
    found = node.wait_for(4)
    assert [(entry["user"], entry["action"], entry.get("tag", ""), entry["result"]) for entry in found] == [
        ("alice", "login", "", "ok"),
        ("alice", "push", "1", "ok"),
        ("alice", "pull", "1", "ok"),
        ("(unknown)", "login", "", "denied"),
    ]
    assert {entry["address"] for entry in found} == {"127.0.0.1"}
    assert found[1]["kind"] == "index"
    assert "wrong-field" not in node.host.on("cat /var/log/wharf-audit/*")


def test_nobody_else_reads_it_and_the_service_may_do_nothing_else(node: Node) -> None:
    modes = node.host.on("stat -c '%a %U %G' /var/log/wharf-audit /var/log/wharf-audit/audit.log /var/lib/wharf-audit/state.json").split(
        "\n"
    )
    assert modes[:2] == ["750 wharf-audit adm", "640 wharf-audit adm"]
    assert modes[2].startswith("600 wharf-audit")
    assert node.host.answers("su -s /bin/sh nobody -c 'cat /var/log/wharf-audit/audit.log'")[0] != 0
    status = node.host.on("cat /proc/$(systemctl show -p MainPID --value wharf-audit)/status")
    assert re.search(r"CapEff:\s+0+\n", status)
    assert re.search(r"NoNewPrivs:\s+1", status)
    assert node.host.on("systemctl show -p NRestarts --value wharf-audit").strip() == "0"


def test_nothing_is_lost_or_doubled_by_kills_and_rotations(node: Node) -> None:
    before = len(node.operations())
    script = """
    for number in $(seq 60); do
      curl -sk -o /dev/null -u alice:alice-password https://127.0.0.1:5443/v2/shop/web/manifests/1 -H 'Accept: TYPE'
      case $number in
        10|20|30|50) systemctl kill -s KILL wharf-audit ;;
        15|35|45) logrotate -f /etc/logrotate.d/wharf_edge ;;
        25|40) logrotate -f /etc/logrotate.d/wharf_audit ;;
      esac
      sleep 0.05
    done
    """.replace("TYPE", str(MANIFEST["mediaType"]))
    node.host.on(script)
    found = node.wait_for(before + 60)
    assert [entry["action"] for entry in found[before:]] == ["pull"] * 60
    assert len({entry["request_id"] for entry in found}) == len(found)
    assert node.host.on("stat -c '%a %U %G' /var/log/wharf-audit/audit.log").strip() == "640 wharf-audit adm"


def test_the_playbook_answers(node: Node) -> None:
    """The playbook itself, with the node as the only one of the group."""
    inventory = json.loads((node.folder / "inventory.yml").read_text())
    hosts = inventory["all"].pop("hosts")
    inventory["all"]["children"] = {"registry_nodes": {"hosts": hosts}}
    (node.folder / "nodes.yml").write_text(json.dumps(inventory))
    command = [str(Path(sys.executable).with_name("ansible-playbook")), "-i", str(node.folder / "nodes.yml")]
    command += [str(CHECKOUT / "playbooks/audit.yml"), "-e", "audit_repository=shop/*", "-e", f"audit_output={node.folder}/answer.json"]
    # The engine of the lab is not where engines are by default.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")}
    environment.update(ANSIBLE_COLLECTIONS_PATH=str(CHECKOUT / ".cache/collections"), LC_ALL="C.UTF-8")
    done = subprocess.run([*command, "-e", "audit_action=push"], env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    assert re.search(r"alice +push +shop/web:1 +ok", done.stdout)
    answer = json.loads((node.folder / "answer.json").read_text())
    assert [(entry["action"], entry["nodes"]) for entry in answer] == [("push", ["registry1"])]
    assert "[WARNING]" not in done.stdout + done.stderr, "a name of Ansible's own among the variables"
    for wrong, told in {
        "audit_from=yesterday": "audit_from: 'yesterday' is no time; for example",
        "audit_repo=shop": "audit_repo: this playbook knows audit_from",
        '{"audit_user": ["alice"]}': "audit_user: ['alice'] is no text; for example",
    }.items():
        done = subprocess.run([*command, "-e", wrong], env=environment, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode != 0, wrong
        assert told in done.stdout + done.stderr
        assert "registry1" not in done.stdout, "a node was asked"


# The rsyslog of the other release is in test_audit_send.py.
@pytest.mark.parametrize("node", ["debian13"], indirect=True)
def test_its_lines_go_to_one_place(node: Node) -> None:
    """The node is the place as well."""
    there = {"wharf_audit_forward": {"host": "127.0.0.1"}}
    assert node.changes("collect", "--check", "--diff", **there) > 0
    assert node.changes("collect", **there) > 0
    assert node.changes("main", "--check", "--diff", **there) > 0
    assert node.changes("main", **there) > 0
    assert node.changes("collect", **there) == node.changes("main", **there) == 0
    assert node.ask("/v2/shop/web/manifests/1", "-H", f"Accept: {MANIFEST['mediaType']}") == "200"
    collected = "/var/log/wharf-audit-collected/audit.log"
    same = "cat $(ls -rv /var/log/wharf-audit/audit.log* | grep -v gz$); zcat -f /var/log/wharf-audit/*.gz 2>/dev/null"
    compare = f'test -s {collected} && test "$( ({same}) | sort | sha256sum)" = "$(sort {collected} | sha256sum)"'
    said = node.host.on(
        f"for i in $(seq 150); do {compare} && exit 0; sleep 0.2; done; journalctl -u wharf-audit-forward | tail -5; exit 1"
    )
    assert not said
    assert node.host.on(f"stat -c '%a %U %G' {collected}").strip() == "640 wharf-audit adm"
    assert node.host.on("stat -c '%a %U' /etc/wharf/audit-forward/tls.key").strip() == "400 wharf-audit"
    node.host.on("logrotate -f /etc/logrotate.d/wharf_audit_collected")
    assert node.ask("/v2/shop/web/manifests/1", "-H", f"Accept: {MANIFEST['mediaType']}") == "200"
    node.host.on(f"for i in $(seq 100); do test -s {collected} && exit 0; sleep 0.2; done; exit 1")
    wrong = node.run("audit_log", "main", wharf_audit_forward={"hots": "x", "port": 0})
    assert wrong.returncode != 0
    assert "there is no hots" in wrong.stdout + wrong.stderr
    assert node.changes("main") > 0
    assert node.host.answers("ls -d /etc/wharf/audit-forward /etc/systemd/system/wharf-audit-forward.service")[0] != 0
    assert node.changes("collect_remove", audit_log_keep_data=False) > 0
    assert node.changes("collect_remove", audit_log_keep_data=False) == 0
    assert node.host.on("systemctl is-active wharf-audit").strip() == "active"


def test_it_goes_and_the_log_stays(node: Node) -> None:
    assert node.changes("remove") > 0
    assert node.host.answers("test -e /etc/systemd/system/wharf-audit.service -o -e /etc/wharf/audit.json")[0] != 0
    assert node.host.on("ls /var/log/wharf-audit")
    # The edge still uses it.
    assert node.host.on("test -e /usr/local/lib/wharf/wharf.pyz && echo there").strip() == "there"
    assert node.changes("remove", audit_log_keep_data=False) > 0
    assert node.host.answers("test -e /var/log/wharf-audit -o -e /var/lib/wharf-audit")[0] != 0
    assert node.changes("remove", audit_log_keep_data=False) == 0
