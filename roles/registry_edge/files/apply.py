# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Make prepared files live: all or none of them, and only if the program that reads them accepts them.

Run on the host as ``python3 - [--check] < this file`` with the environment variable WHARF_APPLY: a JSON list of sets. One set:

``install``  triples of prepared file, live file and mode
``watch``    further files that the service reads
``test``     command that must accept the live files
``service``  systemd unit, enabled and active in the end
``reload``   ``reload`` or ``restart``: what the unit needs after a change
``ports``    addresses on which the service must listen in the end
``stamp``    file that says which contents the service has loaded

The stamp is written last. A run that dies anywhere leaves a stamp that differs, so the next run does what is missing; a service never
misses a change because a handler did not come to run. Prints one JSON object: ``changed`` and ``why``. Exit status 1: the reason is on
standard error, and the files are as they were.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time


class ApplyError(Exception):
    """The set cannot be made live."""


def read(path):
    """Return the content of a file, or ``None`` if there is none."""
    try:
        with open(path, "rb") as handle:
            return handle.read()
    except FileNotFoundError:
        return None


def write(path, content, mode):
    """Write a file atomically, with its mode from the first byte."""
    temporary = "%s.%d.tmp" % (path, os.getpid())
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with os.fdopen(descriptor, "wb") as handle:
            os.fchmod(descriptor, mode)
            handle.write(content)
            handle.flush()
            os.fsync(descriptor)
        os.rename(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def command(arguments):
    """Run a command; return its exit status and what it printed."""
    done = subprocess.run(arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    return done.returncode, done.stdout.strip()


def wanted_stamp(one):
    """Return the digest of what the service should have loaded; ``None`` if a file is not there yet."""
    digest = hashlib.sha256()
    for path in [prepared for prepared, _live, _mode in one["install"]] + one["watch"]:
        content = read(path)
        if content is None:
            return None
        digest.update(("%s %d\n" % (path, len(content))).encode())
        digest.update(content)
    return digest.hexdigest()


def reasons(one):
    """Return why the set is not live yet; an empty list if it is."""
    stamp = wanted_stamp(one)
    if stamp is None:
        return ["files are missing"]
    found = []
    for prepared, live, mode in one["install"]:
        if read(live) != read(prepared):
            found.append("%s differs" % live)
        elif os.stat(live).st_mode & 0o7777 != int(mode, 8):
            found.append("mode of %s differs" % live)
    if read(one["stamp"]) != (stamp + "\n").encode():
        found.append("%s has not loaded its files" % one["service"])
    if command(["systemctl", "is-enabled", "-q", one["service"]])[0] != 0:
        found.append("%s is not enabled" % one["service"])
    if command(["systemctl", "is-active", "-q", one["service"]])[0] != 0:
        found.append("%s is not active" % one["service"])
    return found


def keep(one):
    """Copy the live files away if they are the last that the service accepted."""
    if not one["install"] or os.path.exists(one["stamp"] + ".changing"):
        return
    shutil.rmtree(one["stamp"] + ".previous", ignore_errors=True)
    os.mkdir(one["stamp"] + ".previous", 0o700)
    for _prepared, live, mode in one["install"]:
        content = read(live)
        if content is not None:
            write(os.path.join(one["stamp"] + ".previous", os.path.basename(live)), content, int(mode, 8))
    write(one["stamp"] + ".changing", b"", 0o600)


def put_back(one):
    """Undo ``install``."""
    for _prepared, live, mode in one["install"]:
        content = read(os.path.join(one["stamp"] + ".previous", os.path.basename(live)))
        if content is not None:
            write(live, content, int(mode, 8))
        elif os.path.exists(live):
            os.unlink(live)


def forget(one):
    """Drop the kept copies: they hold a private key."""
    shutil.rmtree(one["stamp"] + ".previous", ignore_errors=True)
    if os.path.exists(one["stamp"] + ".changing"):
        os.unlink(one["stamp"] + ".changing")


def listening(address, seconds):
    """Wait until something accepts connections at ``address``."""
    host, _colon, port = address.rpartition(":")
    end = time.monotonic() + seconds
    while True:
        try:
            socket.create_connection((host.strip("[]"), int(port)), 1).close()
            return True
        except OSError:
            if time.monotonic() > end:
                return False
            time.sleep(0.1)


def apply(one):
    """Make the set live. Raises ApplyError."""
    stamp = wanted_stamp(one)
    if stamp is None:
        raise ApplyError("%s: files are missing" % one["name"])
    keep(one)
    for prepared, live, mode in one["install"]:
        write(live, read(prepared), int(mode, 8))
    if one["test"]:
        status, output = command(one["test"])
        if status != 0:
            put_back(one)
            forget(one)
            raise ApplyError("%s refused the new configuration, the old one is back: %s" % (one["test"][0], output))
    command(["systemctl", "daemon-reload"])
    for verb in ("enable", "%s-or-restart" % one["reload"] if one["reload"] == "reload" else one["reload"]):
        status, output = command(["systemctl", verb, one["service"]])
        if status != 0:
            raise ApplyError("systemctl %s %s: %s" % (verb, one["service"], output))
    for address in one["ports"]:
        if not listening(address, 10):
            raise ApplyError(
                "%s does not listen on %s: is the port taken by another program? See journalctl -u %s"
                % (one["service"], address, one["service"])
            )
    write(one["stamp"], (stamp + "\n").encode(), 0o644)
    forget(one)


def main(arguments, sets):
    """Look at all sets, then make those live that are not. Returns the exit status."""
    pending = [(one, reasons(one)) for one in sets]
    pending = [(one, why) for one, why in pending if why]
    if "--check" not in arguments:
        for one, _why in pending:
            try:
                apply(one)
            except (ApplyError, OSError) as error:
                sys.stderr.write("%s\n" % error)
                return 1
    print(json.dumps({"changed": bool(pending), "why": [reason for _one, why in pending for reason in why]}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], json.loads(os.environ["WHARF_APPLY"])))
