# Copyright (c) 2026 wharf.registry contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The other nodes: what one service knows of personal tokens and revocations, all know shortly after.

A service asks the edge of each other node every few seconds, and at once after a revocation. Both sides are sure of the other: the edge by
its certificate, the one who asks by a token that only a node can have made, and that is good for this very message only.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import socket
import ssl
import time
from pathlib import Path
from typing import Any, Callable, Dict, List

from aiohttp import ClientSession, ClientTimeout, TCPConnector, web
from aiohttp.abc import AbstractResolver

from .config import Config
from .revocations import Keeper, StateError

LOG = logging.getLogger("wharf_token")
PURPOSE = "peer"
PATH = "/auth/peers"
EVERY_SECONDS = 10.0
AT_ONCE_SECONDS = 3.0
MOST_BYTES = 32 * 1024 * 1024
_MESSAGE_SECONDS = 60


class _To(AbstractResolver):
    """Sends a connection to one address, whatever name its certificate must have."""

    def __init__(self, address: str) -> None:
        self._address = address

    async def resolve(self, host: str, port: int = 0, family: int = socket.AF_UNSPEC) -> List[Any]:
        """Return where to connect to."""
        found = await asyncio.get_running_loop().getaddrinfo(self._address, port, type=socket.SOCK_STREAM)
        return [
            {"hostname": host, "host": place[0], "port": place[1], "family": kind, "proto": 0, "flags": socket.AI_NUMERICHOST}
            for kind, _type, _protocol, _name, place in found
        ]

    async def close(self) -> None:
        """Nothing is open."""


class Peers:
    """Asks the other nodes, and answers them."""

    def __init__(self, directory: Path, keeper: Keeper, succeeded: Callable[[str], None]) -> None:
        self._directory = directory
        self._keeper = keeper
        self._succeeded = succeeded
        self._complained: Dict[str, str] = {}

    # -- asking ---------------------------------------------------------------------------------------------------------------------

    async def exchange(self, config: Config, eager: bool = False, seconds: float = EVERY_SECONDS) -> int:
        """Ask all other nodes; return how many of them now know what this one knows. ``eager``: tell them at once, there is news."""
        peers: List[str] = config.settings["peers"]
        if not peers:
            return 0
        done = await asyncio.gather(*(self._with_one(config, peer, eager, seconds) for peer in peers))
        await self._keeper.save()
        return sum(done)

    async def _with_one(self, config: Config, peer: str, eager: bool, seconds: float) -> bool:
        try:
            await asyncio.wait_for(self._talk(config, peer, eager), seconds)
        except (OSError, asyncio.TimeoutError, ValueError, RuntimeError) as error:
            text = str(error) or type(error).__name__
            if self._complained.get(peer) != text:
                self._complained[peer] = text
                LOG.warning("the token service of %s does not hear of revocations: %s", peer, text)
            return False
        self._complained.pop(peer, None)
        self._succeeded(peer)
        return True

    async def _talk(self, config: Config, peer: str, eager: bool) -> None:
        address, _colon, port = peer.rpartition(":")
        context = ssl.create_default_context(cafile=str(self._directory / "ca.crt"))
        connector = TCPConnector(resolver=_To(address.strip("[]")), ssl=context, force_close=True)
        url = f"https://{config.settings['peer_name']}:{port}{PATH}"
        async with ClientSession(connector=connector, timeout=ClientTimeout(total=EVERY_SECONDS)) as session:
            state = self._keeper.state
            answer = await _post(session, url, config, _message(state, eager))
            if "state" in answer:
                state.merge(answer["state"])
                self._keeper.heal()
            elif answer["digest"] == state.digest():
                self._keeper.heal()
            if not eager and answer["digest"] != state.digest():
                # It does not know all of ours.
                await _post(session, url, config, _message(state, True))

    # -- answering ------------------------------------------------------------------------------------------------------------------

    async def answer(self, config: Config, request: web.Request) -> web.Response:
        """Answer another node: take what it tells, and tell what it does not know."""
        scheme, _space, token = request.headers.get("Authorization", "").partition(" ")
        claims = config.own_tokens.read(PURPOSE, token) if scheme.lower() == "bearer" else None
        if claims is None:
            return web.json_response({"error": "who are you?"}, status=401)
        body = await _read(request)
        if body is None or claims.get("body") != hashlib.sha256(body).hexdigest():
            return web.json_response({"error": "the message is not the one that was signed"}, status=403)
        if self._keeper.broken:
            return web.json_response({"error": "this node has lost its file, and must ask others itself"}, status=503)
        try:
            message = json.loads(body.decode("utf-8"))
            digest = str(message["digest"])
            if "state" in message and self._keeper.state.merge(message["state"]):
                await self._keeper.save()
        except (StateError, ValueError, KeyError, TypeError) as error:
            return web.json_response({"error": f"the message cannot be read: {error}"}, status=400)
        return web.json_response(_message(self._keeper.state, self._keeper.state.digest() != digest))


def _message(state: Any, whole: bool) -> Dict[str, Any]:
    message: Dict[str, Any] = {"digest": state.digest()}
    if whole:
        message["state"] = state.content()
    return message


async def _post(session: ClientSession, url: str, config: Config, message: Dict[str, Any]) -> Dict[str, Any]:
    body = json.dumps(message).encode("utf-8")
    token = config.own_tokens.make(PURPOSE, "node", _MESSAGE_SECONDS, {"body": hashlib.sha256(body).hexdigest()})
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    async with session.post(url, data=body, headers=headers, allow_redirects=False) as response:
        if response.status != 200:
            raise RuntimeError(f"it answers {response.status}")
        answer = json.loads((await _all(response)).decode("utf-8"))
    if not isinstance(answer, dict) or not isinstance(answer.get("digest"), str):
        raise ValueError("its answer cannot be read")
    return answer


async def _all(response: Any) -> bytes:
    parts = []
    size = 0
    async for part in response.content.iter_any():
        size += len(part)
        if size > MOST_BYTES:
            raise ValueError("its answer is too long")
        parts.append(part)
    return b"".join(parts)


async def _read(request: web.Request) -> Any:
    try:
        return await _all(request)
    except ValueError:
        return None


async def keep_exchanging(current: Callable[[], Config], peers: Peers, keeper: Keeper) -> None:
    """Ask the others for ever, first at once: this node may have been away."""
    while True:
        started = time.monotonic()
        try:
            keeper.state.drop_expired()
            await peers.exchange(current())
            await keeper.save()
        except Exception:
            LOG.exception("talking to the other nodes failed; the next try is in a few seconds")
        await asyncio.sleep(max(1.0, EVERY_SECONDS - (time.monotonic() - started)))
