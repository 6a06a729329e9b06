# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The role lifecycle's listener on a host: from the announcement of garbage to the edge's answer, and away again."""

from __future__ import annotations

import hashlib
import json
import re
import sys
from pathlib import Path
from typing import Iterator

import pytest

TESTS = Path(__file__).resolve().parents[1]
sys.path += [str(TESTS / "monitoring"), str(TESTS / "acceptance")]

from hosts import RELEASES, host  # noqa: E402  (found through the path above)
from single import NODE, Single  # noqa: E402

ALICE = "--user alice:alice-has-a-long-password"
LISTENER = f"/srv/registry/wharf-gc/listeners/{NODE}"
CONTENT = "nobody needs this"
DIGEST = hashlib.sha256(CONTENT.encode()).hexdigest()
COLLECT = (
    "setpriv --reuid 65532 --regid 65532 --clear-groups python3 /usr/local/lib/wharf/wharf.pyz gc --config /etc/wharf/registry/config.yml"
    " --grace 1s --max-delete-fraction 1"
)


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Single]:
    """A host with a registry and nothing else."""
    with host("announced", RELEASES["debian13"], services=True) as machine:
        found = Single(tmp_path_factory.mktemp("announced"), machine)
        # With so short a grace the probe's own blob would go, too.
        found.variables.update(registry_edge_probe_write=False, registry_edge_read_timeout=10)
        found.secrets()
        found.start_registry()
        yield found


def collect(single: Single) -> dict:
    return json.loads(single.host.on(f"sleep 2; {COLLECT}").splitlines()[-1])


def test_it_runs_and_a_second_run_changes_nothing(single: Single) -> None:
    assert single.changes(["registry_edge", "lifecycle"]) > 0
    assert single.changes(["registry_edge", "lifecycle"]) == 0
    assert single.changes(["registry_edge", "lifecycle"], "--check") == 0
    single.wait(20, "the listener tells that it lives", lambda: single.host.answers(f"test -e {LISTENER}/alive")[0] == 0)
    status = single.host.on("cat /proc/$(systemctl show --property MainPID --value wharf-announced)/status")
    assert "Uid:\t65532" in status and re.search(r"CapEff:\s*0+$", status, re.M)
    shown = single.host.on("systemd-analyze security --no-pager wharf-announced.service").strip().splitlines()[-1]
    level = re.search(r"(\d+\.\d+) ", shown)
    assert level and float(level[1]) < 3, shown


def test_what_is_announced_is_not_there_for_who_asks(single: Single) -> None:
    upload = (
        f"at=$(curl -sk {ALICE} -X POST -D - -o /dev/null https://127.0.0.1:5443/v2/shop/web/blobs/uploads/ | tr -d '\\r'"
        " | sed -n 's/^[Ll]ocation: //p');"
        f" curl -sk {ALICE} -X PUT -H 'Content-Type: application/octet-stream' --data-binary '{CONTENT}' -o /dev/null -w '%{{http_code}}' \"$at&digest=sha256:{DIGEST}\""
    )
    path = f"/v2/shop/web/blobs/sha256:{DIGEST}"
    assert single.host.on(upload).strip() == "201"
    assert single.get(path, ALICE, "--head", port=5443) == "200"
    assert collect(single)["blobs_announced"] >= 1
    single.wait(20, "it is acknowledged", lambda: single.host.answers(f"test -e {LISTENER}/ack-1")[0] == 0)
    assert single.get(path, ALICE, "--head", port=5443) == "404"
    assert single.get(path, ALICE, port=5443) == "200" and single.get(path, "--head", port=5443) == "401"
    single.wait(20, "it is wanted", lambda: DIGEST in single.host.on(f"cat {LISTENER}/wanted.json", check=False))
    assert collect(single)["blobs_deleted"] == 0
    single.wait(20, "it is acknowledged anew", lambda: single.host.answers(f"test -e {LISTENER}/ack-2")[0] == 0)
    assert collect(single)["blobs_deleted"] == 1
    single.wait(20, "no marker is left", lambda: not single.host.on("find /var/lib/wharf/announced -type f"))
    assert "trying again" not in single.host.on("journalctl -u wharf-announced.service -o cat")


def test_it_goes_without_a_trace(single: Single) -> None:
    assert single.changes(["lifecycle remove"], "--check") > 0
    assert single.changes(["lifecycle remove"]) > 0
    left = f"/etc/systemd/system/wharf-announced.service /etc/wharf/announced.json /var/lib/wharf/announced {LISTENER}/alive"
    assert single.host.on(f"ls -d {left} 2>/dev/null", check=False) == ""
    assert single.changes(["lifecycle remove"]) == 0
