# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a host tells of itself and no exporter of the distribution knows, as a text file for node exporter.

Private to the collection; behind ``wharf.pyz metrics``, which a timer starts every minute. It writes what it can find out: whatever cannot be
read is left out and told on standard error, so that one broken part does not blind the others.

The configuration is JSON; the role ``exporters`` writes it. An empty value leaves that part out::

    {"output": "/var/lib/wharf/metrics/wharf_host.prom",
     "storage": {"name": "nfs.example.com:/export", "path": "/srv/wharf/nfs/registry"},
     "probe": {"url": "http://127.0.0.1:5003/healthz", "storage": "storage_write"},
     "vip": "192.0.2.10", "balancer": "/var/lib/wharf/balancer/status.json",
     "certificates": {"edge": "/run/wharf-metrics/edge.crt"},
     "registry_config": "/etc/wharf/registry/config.yml", "image": "/run/wharf-metrics/image"}
"""

from __future__ import annotations

import base64
import hashlib
import http.client
import json
import os
import re
import subprocess
import sys
import threading
import time
import urllib.parse
from typing import Any, Callable, Dict, Iterable, List, Mapping, NamedTuple, Tuple

from . import _ca_trust, _files
from ._registry import config as registry_config
from ._store.driver import StoreError
from ._store.settings import load_yaml

#: Seconds for a file system or a program to answer; a hung NFS server must not keep the rest from being told.
PATIENCE = 5.0
#: The digest of a secret is for comparing; guessing the secret from it is made slow all the same.
_ROUNDS = 20000

_PEM = re.compile(r"-----BEGIN CERTIFICATE-----\s+([0-9A-Za-z+/=\s]+?)-----END CERTIFICATE-----")
_HELP = {
    "wharf_host_last_look_timestamp_seconds": "When this file was written.",
    "wharf_storage_size_bytes": "Size of the file system that the registry's storage is on, without what it keeps for root.",
    "wharf_storage_available_bytes": "Bytes of it that the registry can still write.",
    "wharf_storage_files": "Inodes of that file system.",
    "wharf_storage_files_free": "Inodes of it that are free.",
    "wharf_probe_healthy": "What the health probe of this node found.",
    "wharf_vip_held": "Whether this balancer holds the virtual address.",
    "wharf_balancer_node_healthy": "Whether this balancer's checker finds the node healthy.",
    "wharf_balancer_node_serving": "Whether this balancer sends requests to the node.",
    "wharf_balancer_node_drained": "Whether the node is drained at this balancer.",
    "wharf_certificate_not_after_timestamp_seconds": "When the first certificate of the file ends.",
    "wharf_setting_info": "What all nodes must have alike.",
}


class Sample(NamedTuple):
    """One line of the file."""

    name: str
    value: float
    labels: Tuple[Tuple[str, str], ...] = ()


class MetricsError(Exception):
    """A part cannot be found out, or the configuration cannot be used."""


def _sample(name: str, number: float, /, **labels: str) -> Sample:
    return Sample(name, float(number), tuple(sorted(labels.items())))


def render(samples: Iterable[Sample]) -> str:
    """Return samples in the format of Prometheus' text files: those of one name together, each name explained once."""
    by_name: Dict[str, List[Sample]] = {}
    for sample in samples:
        by_name.setdefault(sample.name, []).append(sample)
    lines = []
    for name, group in by_name.items():
        lines += ["# HELP %s %s" % (name, _HELP[name]), "# TYPE %s gauge" % name]
        for sample in group:
            labels = ",".join('%s="%s"' % (key, _escape(value)) for key, value in sample.labels)
            lines.append("%s%s %r" % (name, "{%s}" % labels if labels else "", sample.value))
    return "\n".join(lines) + "\n"


def _escape(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


# -- the parts ------------------------------------------------------------------------------------------------------------------------


def storage(part: Mapping[str, str]) -> List[Sample]:
    """How full the file system of the registry's storage is."""
    found = _in_time(lambda: os.statvfs(part["path"]), part["path"])
    # As df counts: what the file system keeps for root is not the registry's to fill, so it is no part of its size.
    size = (found.f_blocks - found.f_bfree + found.f_bavail) * found.f_frsize
    samples = [
        _sample("wharf_storage_size_bytes", size, storage=part["name"]),
        _sample("wharf_storage_available_bytes", found.f_bavail * found.f_frsize, storage=part["name"]),
    ]
    if found.f_files:  # btrfs and some others make inodes as they need them
        samples += [
            _sample("wharf_storage_files", found.f_files, storage=part["name"]),
            _sample("wharf_storage_files_free", found.f_favail, storage=part["name"]),
        ]
    return samples


def _in_time(action: Callable[[], Any], what: str) -> Any:
    """Return what an action returns; give up after some seconds on one that hangs. Its thread ends with this process."""
    results: List[Any] = []
    errors: List[OSError] = []

    def work() -> None:
        try:
            results.append(action())
        except OSError as error:
            errors.append(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(PATIENCE)
    if errors:
        raise errors[0]
    if not results:
        raise MetricsError("%s does not answer" % what)
    return results[0]


def probe(part: Mapping[str, str]) -> List[Sample]:
    """What the probe found. One that does not answer is no good news: then registry and storage are sick."""
    answer: Any = {}
    place = urllib.parse.urlsplit(part["url"])
    connection = http.client.HTTPConnection(place.hostname or "", place.port, timeout=PATIENCE)
    try:
        connection.request("GET", place.path)
        answer = json.loads(connection.getresponse().read(65536).decode("utf-8"))  # 503 has the same body as 200
    except (OSError, http.client.HTTPException):
        pass
    finally:
        connection.close()
    checks = {"registry": False, part["storage"]: False}
    checks.update((name, check["healthy"] is True) for name, check in answer.get("checks", {}).items())
    return [_sample("wharf_probe_healthy", healthy, check=name) for name, healthy in sorted(checks.items())]


def vip(address: str) -> List[Sample]:
    """Whether an address is on one of this host's interfaces."""
    command = ["ip", "-oneline", "address", "show", "to", address]
    result = subprocess.run(  # pylint: disable=ansible-bad-function  # the timer's program has no AnsibleModule
        command, capture_output=True, timeout=PATIENCE, check=False
    )
    if result.returncode:
        raise MetricsError("ip ended with %d: %s" % (result.returncode, result.stderr.decode("utf-8", "replace").strip()))
    return [_sample("wharf_vip_held", bool(result.stdout.strip()))]


def balancer(path: str) -> List[Sample]:
    """What this balancer's checker thinks of the nodes."""
    samples = []
    nodes = json.loads(_read(path))["nodes"]
    for name, node in sorted(nodes.items()):
        samples += [
            _sample("wharf_balancer_node_healthy", bool(node["healthy"]), backend=name),
            _sample("wharf_balancer_node_serving", bool(node["serving"]), backend=name),
            _sample("wharf_balancer_node_drained", bool(node["drained_until"]), backend=name),
        ]
    return samples


def certificate(use: str, path: str) -> List[Sample]:
    """When the first certificate of a file ends."""
    found = _PEM.search(_read(path))
    if not found:
        raise MetricsError("%s holds no certificate" % path)
    return [_sample("wharf_certificate_not_after_timestamp_seconds", not_after(base64.b64decode(found.group(1))), use=use)]


def not_after(der: bytes) -> int:
    """Return when an X.509 certificate ends, in seconds since 1970.

    Raises:
        MetricsError: if these bytes are none.
    """
    try:
        return int(_ca_trust.read_der(der).not_after.timestamp())
    except (IndexError, ValueError):
        raise MetricsError("this is no certificate") from None


def http_secret(path: str) -> List[Sample]:
    """A digest of the secret that all nodes must share."""
    text = _read(path)
    try:
        tree = registry_config.parse(text)  # what this collection writes needs no YAML library
    except ValueError:
        tree = load_yaml(text, path, "registry_config")
    secret = str(((tree or {}).get("http") or {}).get("secret") or "")
    digest = hashlib.pbkdf2_hmac("sha256", secret.encode("utf-8"), b"wharf_setting_info", _ROUNDS).hex()[:12] if secret else "none"
    return [_sample("wharf_setting_info", 1, setting="http_secret", value=digest)]


def image(path: str) -> List[Sample]:
    """The image that the registry runs, as the engine identifies it."""
    value = _read(path).strip()
    if not value:
        raise MetricsError("the engine did not tell the registry's image")
    return [_sample("wharf_setting_info", 1, setting="image", value=value)]


def _read(path: str) -> str:
    with open(path, encoding="utf-8") as handle:
        return handle.read()


# -- run ------------------------------------------------------------------------------------------------------------------------------


def collect(config: Mapping[str, Any], say: Callable[[str], None]) -> List[Sample]:
    """Find out what the configuration asks for; tell what cannot be found out."""
    jobs: List[Tuple[str, Callable[[], List[Sample]]]] = []
    for name, part in (("storage", storage), ("probe", probe), ("vip", vip), ("balancer", balancer)):
        if config.get(name):
            jobs.append((name, lambda part=part, value=config[name]: part(value)))  # type: ignore[misc]
    for use, path in sorted((config.get("certificates") or {}).items()):
        jobs.append(("certificate " + use, lambda use=use, path=path: certificate(use, path)))  # type: ignore[misc]
    if config.get("registry_config"):
        jobs.append(("http_secret", lambda: http_secret(config["registry_config"])))
    if config.get("image"):
        jobs.append(("image", lambda: image(config["image"])))
    samples: List[Sample] = []
    for name, job in jobs:
        try:
            samples += job()
        except (MetricsError, StoreError, OSError, ValueError, KeyError, TypeError, AttributeError, subprocess.SubprocessError) as error:
            say("%s: %s" % (name, error))
    samples.append(_sample("wharf_host_last_look_timestamp_seconds", time.time()))
    return samples


def command(path: str) -> int:
    """Write the file that the configuration names. Returns 0, or 2 for a configuration that cannot be used."""

    def say(text: str) -> None:
        sys.stderr.write("metrics: %s\n" % text)

    try:
        config = json.loads(_read(path))
        output = config["output"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        say("%s is no configuration of this command: %s" % (path, error))
        return 2
    try:
        _files.write_atomically(output, render(collect(config, say)).encode("utf-8"), mode=0o644)
    except OSError as error:
        say("%s cannot be written: %s" % (output, error.strerror))
        return 1
    return 0
