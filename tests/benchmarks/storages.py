#!/usr/bin/env python3
# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Throughput through the balancers on NFS, on S3 and on local disks: the same images, pushed and pulled by the same clients, one storage after
the other on the same machines (those of the scenario `nfs`, which must be off or deployed).

The machine that serves NFS runs the S3 store too. A local disk is each node's own, so each client sees what went through its node alone: what
a cluster cannot do, but what the other two can be compared with. Each storage is deployed with site.yml, as an operator changes it.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Callable

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests" / folder) for folder in ("lab", "cluster", "nfs")]

import client as http_client  # noqa: E402
import engine  # noqa: E402
import images  # noqa: E402
import machines  # noqa: E402
import settings  # noqa: E402
from cluster import CLUSTERS  # noqa: E402
from storage import NODES, SERVER, Storage, deploy, registry  # noqa: E402

SOURCES = [f"172.30.200.{number}" for number in range(201, 207)]
S3 = f"http://{settings.MACHINES[SERVER].address}:8333"
STORAGES: dict[str, dict[str, Any]] = {
    "nfs": {"wharf_storage": {"nfs": {"server": settings.MACHINES[SERVER].address, "export": "/srv/nfs/registry"}}},
    "s3": {
        "wharf_storage": {
            "s3": {
                "bucket": settings.S3_BUCKET, "region": "us-east-1", "regionendpoint": S3,
                "accesskey": settings.S3_ACCESS_KEY, "secretkey": settings.S3_SECRET_KEY,
            }
        }
    },
    "local disk": {"wharf_storage": {"filesystem": {"rootdirectory": "/srv/wharf/local"}}, "registry_storage_shared": True},
}  # fmt: skip


def serve_s3() -> None:
    """Run the S3 store on the machine that serves NFS."""
    address = settings.MACHINES[SERVER].address
    if machines.ssh(SERVER, "systemctl is-active lab-s3", check=False).stdout.strip() == "active":
        return
    identity = {"credentials": [{"accessKey": settings.S3_ACCESS_KEY, "secretKey": settings.S3_SECRET_KEY}], "name": "wharf"}
    config = json.dumps({"identities": [{**identity, "actions": ["Admin", "Read", "Write", "List", "Tagging"]}]})
    put = machines.shell(SERVER, "cat > /usr/local/bin/weed && chmod 0755 /usr/local/bin/weed")
    with images.weed().open("rb") as binary:
        subprocess.run(put, stdin=binary, check=True, timeout=300)
    unit = images.STORE_UNIT.format(address=address)
    machines.ssh(SERVER, f"cat > /etc/lab-s3.json <<'END'\n{config}\nEND\ncat > /etc/systemd/system/lab-s3.service <<'END'\n{unit}\nEND")
    machines.ssh(SERVER, "systemctl daemon-reload && systemctl start lab-s3")
    command = f"echo 's3.bucket.create -name {settings.S3_BUCKET}' | weed shell -master={address}:9333"
    for _attempt in range(30):
        if (
            settings.S3_BUCKET
            in machines.ssh(SERVER, f"{command}; echo s3.bucket.list | weed shell -master={address}:9333", check=False).stdout
        ):
            return
        time.sleep(1)
    sys.exit("the S3 store did not start")


def timed(work: Callable[[Any], None], parts: list[Any]) -> float:
    """Let all clients work at the same time; return the seconds until the last has finished."""
    begun = time.monotonic()
    with concurrent.futures.ThreadPoolExecutor(len(parts)) as pool:
        list(pool.map(work, parts))
    return time.monotonic() - begun


def main() -> int:
    """Measure each storage; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--megabytes", type=int, default=30, help="of an image, in three layers (default: 30)")
    parser.add_argument("--images", type=int, default=2, help="for each client (default: 2)")
    parser.add_argument("--pulls", type=int, default=3, help="of each image (default: 3)")
    options = parser.parse_args()
    cluster = CLUSTERS["nfs"]
    if not (engine.connect() and all(machines.running(name) for name in (SERVER, *NODES))):
        deploy(cluster)
    serve_s3()
    for source in SOURCES:
        subprocess.run(["ip", "address", "replace", f"{source}/32", "dev", settings.BRIDGE], check=True)
    sizes = (options.megabytes * 1_000_000 // 3,) * 3
    wanted = [
        [http_client.make_image(f"bench/{number}-{count}:1", sizes) for count in range(options.images)] for number in range(len(SOURCES))
    ]
    rows = {}
    try:
        for name, variables in STORAGES.items():
            result = cluster.playbook("playbooks/site.yml", "-e", json.dumps({"nginx_lb_method": "client_hash", **variables}), timeout=1500)
            if result.returncode:
                sys.exit(f"{name}: {result.stdout[-3000:]}")
            Storage(cluster).wait("not all nodes are in service", Storage(cluster).served, 60)
            clients = [registry(cluster, cluster.vip, source=source, patience=120) for source in SOURCES]

            def push(part: tuple[http_client.Registry, list[http_client.Image]]) -> None:
                for image in part[1]:
                    part[0].push(image)

            def pull(part: tuple[http_client.Registry, list[http_client.Image]]) -> None:
                for _round in range(options.pulls):
                    for image in part[1]:
                        part[0].pull(image)

            def small(client: http_client.Registry) -> None:
                for number in range(5):
                    client.push(http_client.make_image(f"bench/small-{client.source}:{number}", (1000,)))

            parts = list(zip(clients, wanted, strict=True))
            megabytes = options.megabytes * options.images * len(SOURCES)
            pushed, pulled, few = timed(push, parts), timed(pull, parts), timed(small, clients)
            rows[name] = (megabytes / pushed, megabytes * options.pulls / pulled, 5 * len(SOURCES) / few)
            print(f"{name}: push {rows[name][0]:.1f} MB/s, pull {rows[name][1]:.1f} MB/s, small images {rows[name][2]:.1f}/s", flush=True)
    finally:
        for source in SOURCES:
            subprocess.run(["ip", "address", "delete", f"{source}/32", "dev", settings.BRIDGE], check=False)
    print("\n| storage | push | pull | small images pushed |\n|---|---|---|---|")
    for name, row in rows.items():
        ratios = [
            f"{value:.1f}{unit} ({value / best:.2f})"
            for value, unit, best in zip(row, (" MB/s", " MB/s", "/s"), rows["local disk"], strict=True)
        ]
        print(f"| {name} | {' | '.join(ratios)} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
