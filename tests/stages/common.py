# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the stages share: run a check, say how it went, count its cases.

A stage is a script. It prints one line per check that `tests/run` reads,

    [ok] NAME: 12 passed, 0 failed (3 s)        or  [failed] …   or  [skipped] NAME: reason

and whatever the tools print in between, which goes to the stage's log. It exits with 1 if a check failed.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
import xml.etree.ElementTree
from collections.abc import Callable, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / ".cache"
VENV = CACHE / "venv"
COLLECTIONS = CACHE / "collections"
NAMESPACE = "ansible_collections/wharf/registry"

_failures = 0


def environment(**more: str) -> dict[str, str]:
    """Return the environment of the tests: the tools of .cache/venv first, nothing of the user's Ansible settings."""
    result = {name: value for name, value in os.environ.items() if not name.startswith(("ANSIBLE_", "MOLECULE_"))}
    result.update(
        PATH=f"{VENV / 'bin'}:{os.environ['PATH']}",
        LC_ALL="C.UTF-8",
        ANSIBLE_COLLECTIONS_PATH=str(COLLECTIONS),
        ANSIBLE_INJECT_FACT_VARS="false",
        ANSIBLE_NOCOLOR="true",
        NO_COLOR="1",
        PYTHONUNBUFFERED="1",
    )
    result.update(more)
    return result


def report(name: str, passed: int, failed: int, seconds: float) -> bool:
    """Print the line of a check that has ended; return whether it is good."""
    global _failures
    _failures += failed
    print(f"[{'failed' if failed else 'ok'}] {name}: {passed} passed, {failed} failed ({seconds:.0f} s)", flush=True)
    return not failed


def skip(name: str, reason: str) -> None:
    """Print the line of a check that cannot run here."""
    print(f"[skipped] {name}: {reason}", flush=True)


def run(command: Sequence[str | Path], **options: object) -> tuple[int, str]:
    """Run a command, let its output through, return its exit code and that output."""
    options.setdefault("cwd", ROOT)
    options.setdefault("env", environment())
    print("$ " + " ".join(str(part) for part in command), flush=True)
    process = subprocess.Popen(
        [str(part) for part in command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        text=True,
        errors="replace",
        **options,  # type: ignore[call-overload]
    )
    lines = []
    for line in process.stdout:
        lines.append(line)
        sys.stdout.write(line)
        sys.stdout.flush()
    return process.wait(), "".join(lines)


def check(name: str, *command: str | Path, **options: object) -> bool:
    """Run a command that is one test case: good if it exits with 0."""
    started = time.monotonic()
    code, _output = run(command, **options)
    return report(name, int(code == 0), int(code != 0), time.monotonic() - started)


def check_function(name: str, function: Callable[[], str]) -> bool:
    """Run a function that is one test case: good if it returns no complaint."""
    started = time.monotonic()
    complaint = function()
    if complaint:
        print(complaint)
    return report(name, int(not complaint), int(bool(complaint)), time.monotonic() - started)


def count_reports(reports: Path) -> tuple[int, int]:
    """Return how many cases passed and failed in the JUnit reports of a folder."""
    passed = failed = 0
    for path in sorted(reports.glob("*.xml")):
        for suite in xml.etree.ElementTree.parse(path).getroot().iter("testsuite"):
            bad = int(suite.get("failures", 0)) + int(suite.get("errors", 0))
            failed += bad
            passed += int(suite.get("tests", 0)) - bad - int(suite.get("skipped", suite.get("disabled", 0)) or 0)
    return passed, failed


def failed_cases(reports: Path) -> list[str]:
    """Return what failed in the JUnit reports of a folder, and the end of what was said of it."""
    return [
        f"{case.get('classname')}.{case.get('name')}:\n" + "\n".join((bad.text or bad.get("message") or "").splitlines()[-15:])
        for path in sorted(reports.glob("*.xml"))
        for case in xml.etree.ElementTree.parse(path).getroot().iter("testcase")
        for bad in case
        if bad.tag in ("failure", "error")
    ]


def check_suite(name: str, reports: Path, *command: str | Path, **options: object) -> bool:
    """Run a command that leaves JUnit reports in the folder `reports`, and count their cases."""
    started = time.monotonic()
    shutil.rmtree(reports, ignore_errors=True)
    code, _output = run(command, **options)
    passed, failed = count_reports(reports)
    if code and not failed:
        failed = 1
    return report(name, passed, failed, time.monotonic() - started)


def check_sanity(name: str, *command: str | Path, **options: object) -> bool:
    """Run `ansible-test sanity` and count its tests."""
    started = time.monotonic()
    code, output = run(command, **options)
    ran = len(re.findall(r"^Running sanity test ", output, re.M))
    found = re.search(r"The (\d+) sanity test\(s\) listed below \(out of (\d+)\) failed", output)
    failed = int(found[1]) if found else int(code != 0)
    return report(name, max(ran - failed, 0), failed, time.monotonic() - started)


def copy_checkout(target: Path, leave_out: str = "$^") -> Path:
    """Copy what git knows or would know of the checkout below `target`, as ansible-test wants it; return the collection's folder.

    ansible-test refuses a link, and leaves files behind that other tools would take for ours. What matches `leave_out` at the
    beginning of its path is not copied.
    """
    collection = target / NAMESPACE
    shutil.rmtree(collection, ignore_errors=True)
    listing = subprocess.run(
        ["git", "-c", f"safe.directory={ROOT}", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        check=False,
    )
    if listing.returncode:
        sys.exit(f"git cannot list the files of this checkout: {listing.stderr.decode()}")
    for name in filter(None, listing.stdout.decode().split("\0")):
        source, copy = ROOT / name, collection / name
        if source.is_file() and not re.match(leave_out, name):
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, copy)
    # A repository of its own: else the tools would ask the one around it, where everything in .cache is ignored.
    subprocess.run(["git", "init", "-q", "--template=", collection], check=True)
    return collection


def finish() -> None:
    """End the stage."""
    sys.exit(1 if _failures else 0)
