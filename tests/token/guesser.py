#!/usr/bin/env python3
# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Sends wrong passwords to an edge on loopback, so many each second, and tells what was answered. A process of its own.

    guesser.py PORT RATE SECONDS KIND

KIND is ``one`` (all from one address, for one account), ``many`` (from 100 addresses, for one account) or ``names`` (from 100 addresses, for
as many names). Each connection is kept, and each guess is another one. Says ``ready`` when it begins; at last, in JSON, how often each
status came within how many seconds.
"""

from __future__ import annotations

import asyncio
import base64
import collections
import json
import os
import ssl
import sys
import time

CONNECTIONS = 100


async def connect(port: int, number: int, kind: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Open a connection from the address that guesses."""
    source = "127.66.6.6" if kind == "one" else f"127.66.1.{number + 1}"
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return await asyncio.open_connection("127.0.0.1", port, ssl=context, local_addr=(source, 0))


async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, name: str, password: str) -> tuple[str, bool]:
    """Guess once; return the status, and whether the connection stays."""
    secret = base64.b64encode(f"{name}:{password}".encode()).decode()
    writer.write(
        f"GET /auth/token?service=registry.lab.test&scope=repository:team/app:pull HTTP/1.1\r\nHost: localhost\r\n"
        f"Authorization: Basic {secret}\r\n\r\n".encode()
    )
    head = await reader.readuntil(b"\r\n\r\n")
    lines = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:] if b": " in line)
    await reader.readexactly(int(lines[b"content-length"]))
    return head.split(b" ", 2)[1].decode(), lines.get(b"connection") != b"close"


async def main() -> None:
    """Guess on time, each time on a connection that is free: guesses that wait for their answers hold up no others."""
    port, rate, seconds, kind = int(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3]), sys.argv[4]
    # Whoever guesses has a processor of his own; this one has what the node leaves.
    if "WHARF_FLOOD_JUDGED" in os.environ:
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    else:  # beside other tests the node may leave nothing at all
        os.nice(19)
    found: collections.Counter[str] = collections.Counter()
    free = collections.deque([(number, *await connect(port, number, kind)) for number in range(CONNECTIONS)])
    print("ready", flush=True)
    start = time.monotonic()

    async def guess(attempt: int, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        name = f"name{attempt}" if kind == "names" else "alice"
        status, stays = await ask(reader, writer, name, f"guess-{attempt}")
        found[status] += 1
        if not stays:
            writer.close()
            reader, writer = await connect(port, number, kind)
        free.append((number, reader, writer))

    tasks = set()
    for attempt in range(int(rate * seconds)):
        await asyncio.sleep(start + attempt / rate - time.monotonic())
        # Nothing is made up for: where all connections wait, fewer guesses are made.
        if free:
            task = asyncio.create_task(guess(attempt, *free.popleft()))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
    print(json.dumps({"statuses": dict(found), "seconds": time.monotonic() - start}))
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


asyncio.run(main())
