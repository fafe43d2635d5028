"""What a test and a client's program say to each other: one JSON object a line.

A client's program does what it is told on stdin and answers each line with one line on stdout.
So there is one set of tests, and each client is used as its own documentation says, in a process
and an event loop of its own. ``ws_client.mjs`` speaks the same.
"""

from __future__ import annotations

import base64
import json
import sys
import traceback
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence


class Refused(Exception):
    """The handshake was answered with another status than 101."""


class Closed(Exception):
    """The connection has ended: the code and the reason that the client's user sees."""


class Client(Protocol):
    """A WebSocket client under test."""

    async def open(self, url: str, subprotocols: Sequence[str], deflate: str) -> str | None:
        """Connect; returns the subprotocol.

        Args:
            url: ws://...
            subprotocols: what to offer.
            deflate: ``"off"``, ``"default"``, ``"no-takeover"`` (either way) or
                ``"small-windows"`` (of 2 ** 10 bytes).

        Raises:
            Refused: another status than 101.
        """

    async def send(self, message: str | bytes) -> None: ...

    async def send_fragments(self, parts: Sequence[str | bytes]) -> None: ...

    async def recv(self) -> str | bytes:
        """Receive one message, or raise Closed."""

    async def ping(self, data: bytes) -> None: ...

    async def close(self, code: int, reason: str) -> Closed: ...

    async def drop(self) -> None:
        """Let go of the connection, whatever its state."""


def encode_message(message: str | bytes) -> dict[str, str]:
    if isinstance(message, str):
        return {"text": message}
    return {"binary": base64.b64encode(message).decode()}


def decode_message(message: dict[str, str]) -> str | bytes:
    if "text" in message:
        return message["text"]
    return base64.b64decode(message["binary"])


async def _obey(client: Client, command: dict[str, Any]) -> dict[str, Any]:
    match command.pop("do"):
        case "open":
            return {"subprotocol": await client.open(**command)}
        case "send":
            await client.send(decode_message(command["message"]))
        case "send_fragments":
            await client.send_fragments([decode_message(one) for one in command["parts"]])
        case "recv":
            return {"message": encode_message(await client.recv())}
        case "ping":
            await client.ping(command["data"].encode())
        case "close":
            return {"closed": (await client.close(**command)).args}
        case "drop":
            await client.drop()
        case other:
            raise ValueError(f"no command {other!r}")
    return {}


async def converse(client: Client, read_line: Callable[[], Awaitable[bytes]]) -> None:
    """Do what each line says until stdin ends."""
    while line := await read_line():
        try:
            answer = await _obey(client, json.loads(line))
        except Refused as refused:
            answer = {"refused": refused.args[0]}
        except Closed as closed:
            answer = {"closed": closed.args}
        except Exception:
            # The test shows it; a client's failure is the finding.
            answer = {"error": traceback.format_exc()}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()
