"""The last words of a connection: half-close, then read on for a while."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from trioweb.net.stream import ByteStream

LINGER_SECONDS = 1.0
# More than this is not read. A peer that still writes by then is left the rest of the time to
# notice our last words: closing over its bytes would answer them with RST, which eats those words.
LINGER_BYTES = 1 << 20
READ_SIZE = 65536


async def linger(stream: ByteStream, seconds: float = LINGER_SECONDS) -> None:
    """Say that nothing more will come, and wait for the peer to have taken what did.

    Without this, bytes that lie unread when a socket is closed make the kernel send RST, and the
    peer may lose what we sent last: a 413, a Close. The caller closes the stream afterwards.

    Args:
        stream: all has been sent on it.
        seconds: how long to wait for the peer's end; 0 reads only what is there.

    Cancellation:
        Ends the wait.
    """
    try:
        await stream.send_eof()
        with trio.move_on_after(seconds):
            await _read_out(stream)
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        pass  # the peer was quicker


async def linger_until_cancelled(stream: ByteStream) -> None:
    """As ``linger``, for a caller that has a deadline of its own."""
    try:
        await stream.send_eof()
        await _read_out(stream)
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        pass


async def _read_out(stream: ByteStream) -> None:
    left = LINGER_BYTES
    while left > 0:
        data = stream.try_receive(READ_SIZE)  # however little time there is
        if data is None:
            data = await stream.receive_some(READ_SIZE)
        if not data:
            return
        left -= len(data)
    await trio.sleep_forever()
