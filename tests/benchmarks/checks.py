"""Whether a peer does what is measured, asked by the client of ``websockets``.

The load counts and measures what comes back; that it is what it should be is seen here, before.
"""

from __future__ import annotations

import time
import urllib.request
from contextlib import ExitStack
from typing import TYPE_CHECKING

from websockets.exceptions import WebSocketException
from websockets.sync.client import connect

from tests.benchmarks import wire
from tests.benchmarks.workloads import BODY, Feature

if TYPE_CHECKING:
    from tests.benchmarks.roster import Peer

# Seconds until an answer must have come.
_PATIENCE = 10.0
# Seconds between the handshake and the moment in which the handler has surely joined.
JOINING = 0.5
_MEMBERS = 3


class CheckError(Exception):
    """A peer doesn't do what is to be measured."""


def check_peer(peer: Peer, port: int) -> None:
    """Try each route.

    Raises:
        CheckError: an answer is not what it should be.
    """
    try:
        if Feature.WEBSOCKET in peer.features:
            _check_echo(port, compressed=False)
            _check_broadcast(port)
        if Feature.DEFLATE in peer.features:
            _check_echo(port, compressed=True)
        if Feature.HTTP in peer.features:
            _check_get(port)
    except (OSError, WebSocketException) as error:
        raise CheckError(f"{peer.name}: {type(error).__name__}: {error}") from error


def _check_echo(port: int, *, compressed: bool) -> None:
    with connect(
        f"ws://127.0.0.1:{port}/echo", compression="deflate" if compressed else None
    ) as client:
        if bool(client.protocol.extensions) is not compressed:
            raise CheckError(f"with compression {compressed} there is {client.protocol.extensions}")
        # More than one: what a compressor keeps between messages is to be right as well.
        messages = [wire.make_record(number, 1024).decode() for number in range(5)]
        messages += [wire.make_text(size).decode() for size in (1, 64, 1 << 16)]
        for message in messages:
            client.send(message)
        for message in messages:
            if client.recv(_PATIENCE) != message:
                raise CheckError(f"not the message of {len(message)} bytes that was sent")


def _check_broadcast(port: int) -> None:
    with ExitStack() as stack:
        clients = [
            stack.enter_context(connect(f"ws://127.0.0.1:{port}/broadcast", compression=None))
            for _ in range(_MEMBERS)
        ]
        time.sleep(JOINING)
        for sender in clients:
            sender.send("to all")
            for client in clients:
                if client.recv(_PATIENCE) != "to all":
                    raise CheckError("a broadcast is not what was sent")


def _check_get(port: int) -> None:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=_PATIENCE) as response:
        kind, body = response.headers.get_content_type(), response.read().decode()
    if (kind, body) != ("text/plain", BODY):
        raise CheckError(f"GET / is {kind} {body!r}")
