# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Look at a host of the cluster: services, health, disks, certificates, the last garbage collection. Prints JSON and changes nothing."""

import json
import os
import ssl
import subprocess
import time
import urllib.error
import urllib.request

WISHES = json.loads(os.environ["WHARF_REPORT"])
FINDINGS = 1000


def services():
    """Each unit that this host has, and its state. A unit that runs once and ends well is inactive afterwards."""
    names = ["Id", "LoadState", "ActiveState", "Type", "Result"]
    command = ["systemctl", "show", "--property", ",".join(names)] + WISHES["units"]
    text = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False).stdout
    found = []
    for block in text.strip().split("\n\n"):
        unit = dict(line.partition("=")[::2] for line in block.splitlines())
        if unit.get("LoadState") != "loaded":
            continue
        once = unit.get("Type") == "oneshot"
        state = "failed" if unit.get("Result") not in ("success", "", None) and unit["ActiveState"] != "active" else unit["ActiveState"]
        found.append({"name": unit["Id"].replace(".service", ""), "state": state, "oneshot": once})
    return found


def health():
    """What the edge says of registry and storage; nothing where there is no edge."""
    if not os.path.exists("/etc/systemd/system/wharf-probe.service"):
        return None
    context = ssl.create_default_context()
    # The host asks itself; the certificate is for the name that clients use.
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context))
    try:
        with opener.open("https://127.0.0.1:%d/healthz" % WISHES["edge_port"], timeout=5) as answer:
            return json.loads(answer.read().decode("utf-8"))
    except urllib.error.HTTPError as error:
        try:
            return json.loads(error.read().decode("utf-8"))
        except ValueError:
            return {"healthy": False, "cause": "the edge answers %d" % error.code}
    except (OSError, ValueError) as error:
        return {"healthy": False, "cause": "the edge does not answer (%s)" % type(error).__name__}


def disks():
    """Size and free bytes of the file systems that matter."""
    found = {}
    for path in ["/", "/var/log"] + WISHES["paths"]:
        try:
            number, state = os.stat(path).st_dev, os.statvfs(path)
        except OSError:
            continue
        # As df counts: without what is kept for root.
        size = (state.f_blocks - state.f_bfree + state.f_bavail) * state.f_frsize
        found.setdefault(number, {"path": path, "size": size, "available": state.f_bavail * state.f_frsize})
    return list(found.values())


def memory():
    """Memory in bytes: all, and what is available."""
    with open("/proc/meminfo", encoding="ascii") as handle:
        values = dict(line.split(":") for line in handle)
    return [int(values[name].split()[0]) * 1024 for name in ("MemTotal", "MemAvailable")]


def certificates():
    """The certificates of this host's services; no keys."""
    found = {}
    for path in WISHES["certificates"]:
        try:
            with open(path, encoding="ascii", errors="replace") as handle:
                found[path] = handle.read(1 << 20)
        except OSError:
            continue
    return found


def collection():
    """The report of the last garbage collection that this host has done."""
    try:
        with open(WISHES["gc"], encoding="utf-8") as handle:
            report = json.load(handle)
            when = os.fstat(handle.fileno()).st_mtime
    except (OSError, ValueError):
        return None
    plan = report.get("plan", report)
    return {
        "time": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(when)),
        "bytes_freed": report.get("bytes_freed", plan.get("bytes_freed")),
        "bytes_pending": report.get("bytes_pending", plan.get("bytes_pending")),
        "findings": (report.get("findings") or plan.get("findings") or [])[:FINDINGS],
    }


TOTAL, AVAILABLE = memory()
print(
    json.dumps(
        {
            "services": services(),
            "health": health(),
            "disks": disks(),
            "memory_total": TOTAL,
            "memory_available": AVAILABLE,
            "certificates": certificates(),
            "gc": collection(),
        }
    )
)
