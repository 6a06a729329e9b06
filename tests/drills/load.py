# Copyright (c) 2026 wharf.registry contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Clients that pull in a loop while something breaks, and what they saw."""

from __future__ import annotations

import json
import statistics
import time
from dataclasses import dataclass, field

from cluster import Cluster

# One pull after the other until the stop file appears; a line of JSON for each. Bounded in time, whatever happens.
LOOP = r"""
end=$(( $(date +%s) + {seconds} ))
while [ ! -e {stop} ] && [ "$(date +%s)" -lt "$end" ]; do
  start=$(date +%s.%N)
  output=$({command} 2>&1); code=$?
  finish=$(date +%s.%N)
  python3 -c 'import json,sys; print(json.dumps(dict(start=float(sys.argv[1]), end=float(sys.argv[2]), code=int(sys.argv[3]), output=sys.argv[4][-400:])), flush=True)' \
    "$start" "$finish" "$code" "$output"
  # Who repeats a command that failed does so a moment later, not in the same millisecond.
  [ "$code" = 0 ] || sleep 1
done
"""
COMMANDS = {
    "docker": "docker pull -q {reference} && docker rmi {reference} >/dev/null",
    "crane": "crane pull {reference} /dev/null",
}


@dataclass
class Seen:
    """What one client's loop saw."""

    client: str
    pulls: list[dict] = field(default_factory=list)

    def failures(self) -> list[dict]:
        """Pulls that ended with an error."""
        return [pull for pull in self.pulls if pull["code"] != 0]

    def usual(self) -> float:
        """Median duration of a pull, in seconds."""
        return statistics.median(pull["end"] - pull["start"] for pull in self.pulls)

    def worst(self) -> float:
        """Duration of the longest pull, in seconds."""
        return max(pull["end"] - pull["start"] for pull in self.pulls)

    def summary(self) -> str:
        """One line for the report."""
        return (
            f"{self.client:10} {len(self.pulls):3} times, {len(self.failures())} failed, usual {self.usual():.1f} s, "
            f"longest {self.worst():.1f} s"
        )


class Load:
    """Loops of several clients on the client host, pulls unless others are wanted, for as long as the context lasts."""

    def __init__(self, cluster: Cluster, reference: str, commands: dict[str, str] | None = None, seconds: int = 120) -> None:
        self.cluster = cluster
        self.reference = reference
        self.commands = commands or COMMANDS
        self.seconds = seconds
        self.seen: list[Seen] = []

    def __enter__(self) -> Load:
        self.stop = f"/tmp/stop-{time.monotonic_ns()}"
        self.processes = {
            client: self.cluster.spawn(
                self.cluster.client,
                LOOP.format(seconds=self.seconds, stop=self.stop, command=command.format(reference=self.reference)),
            )
            for client, command in self.commands.items()
        }
        return self

    def __exit__(self, *_: object) -> None:
        self.cluster.on(self.cluster.client, f"touch {self.stop}")
        for client, process in self.processes.items():
            output, _ = process.communicate(timeout=self.seconds + 120)
            self.seen.append(Seen(client, [json.loads(line) for line in output.splitlines() if line.startswith("{")]))
        self.cluster.on(self.cluster.client, f"rm -f {self.stop}")


def push_image(cluster: Cluster, megabytes: int, layers: int = 3) -> str:
    """Push an image of random layers with Docker; return its reference."""
    reference = cluster.reference()
    size = megabytes // layers
    script = f"""
set -e
d=$(mktemp -d); cd $d
echo 'FROM scratch' > Dockerfile
for i in $(seq {layers}); do head -c {size}M /dev/urandom > layer$i; echo "COPY layer$i /" >> Dockerfile; done
DOCKER_BUILDKIT=0 docker build -q -t {reference} . >/dev/null
docker push -q {reference}
docker rmi {reference} >/dev/null; docker image prune -f >/dev/null
rm -r $d
"""
    cluster.on(cluster.client, script, timeout=300)
    return reference
