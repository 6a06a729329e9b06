# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The process that computes bcrypt, with what the rest of the node leaves: ``python3 -m wharf_token.hashing`` reads questions, writes answers.

A process, and no thread of the service: a thread that gets no processor may be the one that holds the interpreter's lock, or is to take it
next, and then all requests wait for it.
"""

from __future__ import annotations

import base64
import json
import os
import signal
import sys
from typing import Sequence

import bcrypt


def cost_of(digest: str) -> int:
    """Return the cost of a bcrypt hash."""
    return int(digest.split("$")[2])


def verify(password: bytes, digests: Sequence[str], cost: int, slots: int) -> bool:
    """Return whether one of the hashes is that of the password.

    A wrong password takes the time of ``slots`` hashes of ``cost``, whether there are hashes and whatever theirs cost: 2^c + 2^c + 2^(c+1) …
    + 2^(cost-1) is 2^cost.
    """
    for digest in digests:
        if bcrypt.checkpw(password, digest.replace("$2y$", "$2b$", 1).encode("ascii")):
            return True
        for padding in range(cost_of(digest), cost):
            bcrypt.hashpw(password, bcrypt.gensalt(padding))
    for _slot in range(slots - len(digests)):
        bcrypt.hashpw(password, bcrypt.gensalt(cost))
    return False


def question(password: bytes, digests: Sequence[str], cost: int, slots: int) -> bytes:
    """Return the line that asks the process for :func:`verify`."""
    return json.dumps([base64.b64encode(password).decode("ascii"), list(digests), cost, slots]).encode("ascii") + b"\n"


def main() -> None:
    """Answer until the service ends. systemd tells both to; what the service has begun to ask is answered first."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    os.setpriority(os.PRIO_PROCESS, 0, 19)
    for line in sys.stdin.buffer:
        password, digests, cost, slots = json.loads(line)
        sys.stdout.buffer.write(b"1\n" if verify(base64.b64decode(password), digests, cost, slots) else b"0\n")
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
