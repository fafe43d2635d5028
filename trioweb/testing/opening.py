"""Opens a WebSocket over a `Link`: the handshake, and what trio-websocket runs behind it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import h11
import trio
from trio_websocket import ConnectionRejected, wrap_client_stream

from trioweb.client.wire import Wire
from trioweb.errors import TrioWebError, WebsocketClosed
from trioweb.testing.conversation import Conversation
from trioweb.testing.session import WebsocketSession, read_headers

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from trioweb.http.headers import Headers
    from trioweb.testing.link import Link
    from trioweb.testing.targets import Target

# Messages that the client holds unread: a client that reads no more is one that was stalled.
CLIENT_QUEUE = math.inf
# The server's limits are what is tested, not the client's: above all of them.
CLIENT_MAX_SIZE = 256 * 1024 * 1024


class Denied(TrioWebError):
    """The server answered a WebSocket handshake with an HTTP response instead of 101.

    Args:
        status: of the response.
        headers: of the response.
        body: of the response.
    """

    def __init__(self, status: int, headers: Headers, body: bytes) -> None:
        super().__init__(status, headers, body)
        self.status = status
        self.headers = headers
        self.body = body

    def __str__(self) -> str:
        return f"the handshake was answered with {self.status}: {self.body[:500]!r}"


async def run_websocket(
    link: Link,
    target: Target,
    subprotocols: Sequence[str],
    headers: Headers,
    tell_handler: Callable[[], str],
    *,
    task_status: trio.TaskStatus[WebsocketSession],
) -> None:
    """Open a WebSocket over a link, and run what trio-websocket runs, to its end.

    Args:
        link: the client's end.
        target: host and path of the handshake.
        subprotocols: offered, the preferred one first.
        headers: sent with the handshake.
        tell_handler: says where the handler is, for failures.
        task_status: given the session.

    Raises:
        Denied: the server refused it.
        WebsocketClosed: the server went away before it answered.
    """
    talk = Conversation(target.path)
    wire = Wire(link, _check_answer, talk)
    try:
        async with trio.open_nursery() as writer:
            writer.start_soon(wire.send_loop)
            async with trio.open_nursery() as nursery:
                connection = await wrap_client_stream(
                    nursery,
                    wire,  # type: ignore[arg-type]  # it wants any Stream really
                    target.host,
                    target.path,
                    subprotocols=subprotocols,
                    extra_headers=headers.raw,
                    message_queue_size=CLIENT_QUEUE,  # type: ignore[arg-type]  # as for trio's channels
                    max_message_size=CLIENT_MAX_SIZE,
                    receive_buffer_size=64 * 1024,
                )
                task_status.started(WebsocketSession(connection, link, wire, talk, tell_handler))
            writer.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        await _raise_refusal(group, link)


def _check_answer(answer: bytes, has_ended: bool) -> None:
    if has_ended:
        raise WebsocketClosed(1006, "the server left before it had answered the handshake")


async def _raise_refusal(group: BaseExceptionGroup[BaseException], link: Link) -> None:
    """Raise what says in a test's terms why there is no WebSocket."""
    _, rest = group.split(trio.Cancelled)
    failure: BaseException | None = rest
    while isinstance(failure, BaseExceptionGroup) and len(failure.exceptions) == 1:
        failure = failure.exceptions[0]
    if isinstance(failure, ConnectionRejected):
        await link.aclose()
        headers = read_headers(failure.headers)
        raise Denied(failure.status_code, headers, failure.body or b"") from None
    if isinstance(failure, WebsocketClosed):
        raise failure from None
    if isinstance(failure, h11.LocalProtocolError):
        # How trio-websocket takes an answer that it can't take: it tries to refuse it.
        why: BaseException = failure
        while why.__context__ is not None:
            why = why.__context__
        reason = f"the client can't take the answer to the handshake: {why}"
        raise WebsocketClosed(1006, reason) from failure
    raise group
