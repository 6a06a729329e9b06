# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""audit_log sends the lines of two nodes to a third host, over its absence, kills of all parts and of a node: each is there, and none twice."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Iterator

import pytest
from ruletests import CHECKOUT

sys.path.insert(0, str(CHECKOUT / "tests/acceptance"))

from hosts import RELEASES, Host, ansible, host, must  # noqa: E402  (found through the path above)

# What an edge's nginx writes of a pull.
LINE = (
    '{"timestamp":%.3f,"request_id":"%s","remote_addr":"192.0.2.7","remote_user":"alice","method":"GET","uri":"/v2/shop/web/manifests/1",'
    '"status":200,"completion":"OK","request_time":0.004,"request_length":412,"body_bytes_sent":735,"content_digest":"","user_agent":"docker",'
    '"media_type":"application/vnd.oci.image.manifest.v1+json","claims":""}'
)
COLLECTED = "/var/log/wharf-audit-collected/audit.log"
NODES = ("node1", "node2")


class Cluster:
    """Two nodes and the host that collects."""

    def __init__(self, folder: Path, hosts: dict[str, Host]) -> None:
        self.folder, self.hosts = folder, hosts
        self.sent: list[str] = []
        addresses = {name: machine.on("hostname -I").split()[0] for name, machine in hosts.items()}
        self.variables: dict[str, Any] = {
            "wharf_name": "registry.example.test",
            "wharf_secrets_dir": str(folder / "secrets"),
            "audit_log_users": ["alice"],
            "wharf_audit_forward": {"host": addresses["logs"]},
        }
        secrets: dict[str, Any] = {"hosts": "localhost", "connection": "local", "gather_facts": False, "vars": {**self.variables}}
        secrets["vars"]["ansible_python_interpreter"] = sys.executable
        secrets["vars"]["cluster_secrets_hosts"] = [{"name": name, "address": address} for name, address in addresses.items()]
        secrets["roles"] = [{"role": "wharf.registry.cluster_secrets"}]
        must(ansible(folder, [secrets], {}))

    def run(self, hosts: str, verb: str, *arguments: str, **variables: Any) -> subprocess.CompletedProcess[str]:
        """Run a verb of audit_log."""
        play = {"hosts": hosts, "gather_facts": True, "vars": {**self.variables, **variables}}
        play["tasks"] = [{"name": verb, "ansible.builtin.include_role": {"name": "wharf.registry.audit_log", "tasks_from": verb}}]
        return ansible(self.folder, [play], self.hosts, *arguments)

    def changes(self, hosts: str, verb: str, *arguments: str, **variables: Any) -> int:
        """Run a verb that has to be good; return how many tasks changed something."""
        return sum(map(int, re.findall(r"changed=(\d+)", must(self.run(hosts, verb, *arguments, **variables)))))

    def pulls(self, count: int) -> None:
        """Let both nodes serve pulls."""
        for node in NODES:
            numbers = [f"{node}-{len(self.sent) + number}" for number in range(count)]
            self.sent += numbers
            text = "".join(LINE % (time.time(), number) + "\n" for number in numbers)
            self.hosts[node].on("mkdir -p /var/log/wharf && cat >> /var/log/wharf/access.log", stdin=text)

    def collected(self) -> list[str]:
        """What has arrived: the requests' ids."""
        lines = self.hosts["logs"].on(f"cat {COLLECTED} {COLLECTED}.1 2>/dev/null", check=False).splitlines()
        return [json.loads(line)["request_id"] for line in lines]

    def wait(self, seconds: float = 60) -> list[str]:
        """Wait until all has arrived; return it."""
        end = time.monotonic() + seconds
        while (missing := set(self.sent) - set(found := self.collected())) and time.monotonic() < end:
            time.sleep(0.5)
        assert not missing, f"{len(missing)} of {len(self.sent)} lines have not arrived: {sorted(missing)[:5]}"
        return found


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """One node of each release."""
    with (
        host("sender", RELEASES["debian12"], services=True) as first,
        host("sender", RELEASES["debian13"], services=True) as second,
        host("logs", RELEASES["debian13"], services=True) as third,
    ):
        yield Cluster(tmp_path_factory.mktemp("forward"), {"node1": first, "node2": second, "logs": third})


def test_lines_arrive(cluster: Cluster) -> None:
    assert cluster.changes("logs", "collect", "--check", "--diff") > 0
    assert cluster.changes("node*", "main", "--check", "--diff") > 0
    assert cluster.changes("logs", "collect") > 0
    assert cluster.changes("node*", "main") > 0
    assert cluster.changes("logs", "collect") == cluster.changes("node*", "main") == 0
    assert cluster.changes("logs", "collect", "--check") == cluster.changes("node*", "main", "--check") == 0
    cluster.pulls(20)
    assert sorted(cluster.wait()) == sorted(cluster.sent)
    modes = cluster.hosts["logs"].on(f"stat -c '%a %U %G' {Path(COLLECTED).parent} {COLLECTED}").splitlines()
    assert modes == ["750 wharf-audit adm", "640 wharf-audit adm"]


def test_strangers_are_not_let_in(cluster: Cluster) -> None:
    """Without a certificate of the cluster's CA nobody sends, and the nodes send to nobody else."""
    node, logs = cluster.hosts["node1"], cluster.hosts["logs"]
    address = cluster.variables["wharf_audit_forward"]["host"]
    node.on(
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 3 -subj /CN=x -keyout /tmp/k -out /tmp/c 2>/dev/null"
    )
    said = node.on(f"echo | timeout 5 openssl s_client -connect {address}:20514 -cert /tmp/c -key /tmp/k -quiet 2>&1", check=False)
    assert "rsp" not in said
    before = len(cluster.collected())
    config = node.on(
        "sed 's#wharf-audit-forward/tls#wharf-stranger/tls#; s#wharf-audit-forward\"#x\"#' /etc/rsyslog.d/wharf-audit-forward/rsyslog.conf"
    )
    stranger = re.sub(r"spool/rsyslog/wharf-audit-forward|lib/rsyslog/wharf-audit-forward", "tmp/stranger", config)
    node.on(
        "mkdir -p /var/tmp/stranger /etc/rsyslog.d/wharf-stranger; cp /tmp/c /etc/rsyslog.d/wharf-stranger/tls.crt; cp /tmp/k /etc/rsyslog.d/wharf-stranger/tls.key"
    )
    node.on("cat > /tmp/stranger.conf; timeout 8 rsyslogd -n -i /tmp/pid -f /tmp/stranger.conf", stdin=stranger, check=False)
    assert len(cluster.collected()) == before
    assert "wharf-audit-forward/ca.crt" in stranger
    assert logs.on("systemctl is-active wharf-audit-collect").strip() == "active"


def test_nothing_is_lost_while_the_receiver_is_away(cluster: Cluster) -> None:
    logs = cluster.hosts["logs"]
    logs.on("systemctl stop wharf-audit-collect")
    cluster.pulls(300)
    # The node's log is rotated twice meanwhile, and the sender killed.
    for node in NODES:
        cluster.hosts[node].on("sleep 4; logrotate -f /etc/logrotate.d/wharf_audit")
    cluster.pulls(50)
    for node in NODES:
        cluster.hosts[node].on("sleep 3; logrotate -f /etc/logrotate.d/wharf_audit; systemctl kill -s KILL wharf-audit-forward")
    cluster.pulls(50)
    time.sleep(2)
    logs.on("systemctl start wharf-audit-collect")
    found = cluster.wait()
    assert len(found) <= len(cluster.sent) * 1.1, "a kill may repeat a few lines, not all"


def test_kills_lose_nothing(cluster: Cluster) -> None:
    """The receiver is killed while lines come in, its log rotated, and then a whole node."""
    logs, node = cluster.hosts["logs"], cluster.hosts["node2"]
    for turn in range(4):
        cluster.pulls(100)
        time.sleep(0.7)
        logs.on("systemctl kill -s KILL wharf-audit-collect" if turn != 2 else "logrotate -f /etc/logrotate.d/wharf_audit_collected")
    cluster.pulls(100)
    # Its service has them from the access log, and perhaps not sent yet.
    subprocess.run(["docker", "kill", node.name], check=True, capture_output=True)
    subprocess.run(["docker", "start", node.name], check=True, capture_output=True)
    found = cluster.wait(90)
    repeated = len(found) - len(set(found))
    print(f"audit_log: {len(set(found))} lines sent, {repeated} of them twice after five kills")
    # Who asks sees each once.
    answer = logs.on(f"python3 /usr/local/lib/wharf/wharf.pyz audit-query --from 1h --log {COLLECTED} | wc -l").strip()
    assert int(answer) == len(set(cluster.sent))


def test_it_goes(cluster: Cluster) -> None:
    assert cluster.changes("node*", "main", wharf_audit_forward={}) > 0
    for node in NODES:
        assert (
            cluster.hosts[node].answers("ls -d /etc/systemd/system/wharf-audit-forward.service /etc/rsyslog.d/wharf-audit-forward")[0] != 0
        )
        assert cluster.hosts[node].on("systemctl is-active wharf-audit").strip() == "active"
    assert cluster.changes("node*", "main", wharf_audit_forward={}) == 0
    assert cluster.changes("logs", "collect_remove", audit_log_keep_data=False) > 0
    assert cluster.hosts["logs"].answers("ls -d /etc/rsyslog.d/wharf-audit-collect /var/log/wharf-audit-collected")[0] != 0
    assert cluster.changes("logs", "collect_remove", audit_log_keep_data=False) == 0
    wrong = cluster.run("node1", "main", wharf_audit_forward={"hots": "x", "port": 0})
    assert wrong.returncode != 0
    assert "there is no hots" in wrong.stdout and "port: 0 is no number from 1 to 65535; for example" in wrong.stdout
