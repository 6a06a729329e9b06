#!/usr/bin/env python3
# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A wire that is longer than it is: passes TCP on, and what the client sends arrives later. Counts HTTP requests on their way.

    delay.py PORT TARGET-PORT MILLISECONDS COUNTS-FILE

Both ports are of 127.0.0.1. Chunks are delayed beside each other, as on a real wire, so the throughput stays. When it is ended it writes
what it counted to the file as JSON: ``LIST``, ``GET manifest or blob``, ``GET link``, and the other methods.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import json
import re
import signal
import sys
from pathlib import Path

REQUEST = re.compile(rb"^(GET|HEAD|PUT|POST|DELETE) (\S+) HTTP/1\.1\r$", re.M)
counts: collections.Counter[str] = collections.Counter()


def count(chunk: bytes) -> None:
    """Count the requests that begin in a chunk."""
    for method, path in REQUEST.findall(chunk):
        name = method.decode()
        if name == "GET":
            last = path.partition(b"?")[0].rpartition(b"/")[2]
            name = (
                "LIST" if b"?" in path and b"prefix=" in path else {b"data": "GET manifest or blob", b"link": "GET link"}.get(last, "GET")
            )
        counts[name] += 1


async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seconds: float) -> None:
    """Pass one direction on, each chunk so many seconds after it came."""
    loop = asyncio.get_running_loop()
    waiting: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()

    async def send() -> None:
        while True:
            due, chunk = await waiting.get()
            await asyncio.sleep(max(0.0, due - loop.time()))
            if not chunk:
                writer.close()
                return
            writer.write(chunk)
            await writer.drain()

    sender = asyncio.create_task(send())
    with contextlib.suppress(ConnectionError):
        while chunk := await reader.read(1 << 16):
            if seconds:
                count(chunk)
            waiting.put_nowait((loop.time() + seconds, chunk))
    waiting.put_nowait((loop.time() + seconds, b""))
    with contextlib.suppress(ConnectionError):
        await sender


async def main(port: int, target: int, seconds: float, report: Path) -> None:
    """Serve until SIGTERM."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", target)
        await asyncio.gather(pump(reader, back, seconds), pump(there, writer, 0.0))

    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    async with await asyncio.start_server(serve, "127.0.0.1", port):
        await ended.wait()
        report.write_text(json.dumps(counts))


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]) / 1000, Path(sys.argv[4])))
