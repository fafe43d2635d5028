"""What lies between trio-websocket and a `Link`: it sees every frame, and tears none.

Theory of operation. Bytes to be sent are queued, and a task of the wire writes them: whoever waits
for that and is cancelled leaves a whole frame behind, which trio-websocket by itself does not. The
frames of both directions go to the conversation; those that came wait for ``next_frame`` as well.
Pings are answered here, and trio-websocket is given whole frames of the rest: it would crash over a
ping that crosses its own Close.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import trio

from trioweb.errors import WebsocketClosed
from trioweb.testing.conversation import RECEIVED, SENT
from trioweb.testing.frame import Frame, FrameReader, Opcode

if TYPE_CHECKING:
    from trioweb.testing.conversation import Conversation
    from trioweb.testing.link import Link

_UPGRADED = b"HTTP/1.1 101"
_END_OF_HEAD = b"\r\n\r\n"


class Wire(trio.abc.Stream):
    """The stream that a client's WebSocket is on; ``send_loop`` is the body of its task.

    Args:
        link: closed with it.
        conversation: told of every frame.

    Attributes:
        frames: what has come, and nobody has taken.
        close_frame: the server's.
    """

    def __init__(self, link: Link, conversation: Conversation) -> None:
        self.link = link
        self.frames: deque[Frame] = deque()
        self.close_frame: Frame | None = None
        self._conversation = conversation
        self._head = b""  # of the server's answer
        self._is_open = False  # the handshake is over, on either side
        self._is_closing = False
        self._ours, self._theirs = FrameReader(), FrameReader()
        self._pongs: set[bytes] = set()
        self._changed = trio.Event()
        self._has_ended = False
        # To be sent, and how many bytes were queued and written in all.
        self._queue: deque[bytes] = deque()
        self._queued = self._written = 0
        self._failure: type[trio.BrokenResourceError | trio.ClosedResourceError] | None = None

    @property
    def is_upgraded(self) -> bool:
        """Whether the server has said 101."""
        return self._head.startswith(_UPGRADED)

    @property
    def has_news(self) -> bool:
        """Whether a whole message or the end has come, and nobody has taken it."""
        has_message = any(frame.fin and not frame.is_control for frame in self.frames)
        return has_message or self._has_ended or self.close_frame is not None

    # Sending

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send trio-websocket's bytes; cancelled, they are sent all the same."""
        if self._is_open:
            for frame, _ in self._ours.feed(bytes(data)):
                self._conversation.add(SENT, frame)
                self._is_closing |= frame.opcode == Opcode.CLOSE
        try:
            await self._put(bytes(data))
        except trio.BrokenResourceError:
            self._check_upgraded()
            raise

    async def send_raw(self, data: bytes) -> None:
        """Send a test's own bytes."""
        self._conversation.add(SENT, f"raw {data[:64]!r}" + ("…" if len(data) > 64 else ""))
        await self._put(data)

    async def send_frame(self, frame: Frame) -> None:
        """Send a test's own frame."""
        self._conversation.add(SENT, frame)
        await self._put(frame.encode())

    async def ping(self, data: bytes) -> None:
        """Send a ping and wait for its pong.

        Raises:
            trio.EndOfChannel: the connection has ended.
        """
        self._pongs.discard(data)
        await self.send_frame(Frame(Opcode.PING, data))
        while data not in self._pongs:
            if self._has_ended or self.close_frame is not None:
                raise trio.EndOfChannel
            await self._changed.wait()

    def _pong(self, data: bytes) -> None:
        frame = Frame(Opcode.PONG, data)
        self._conversation.add(SENT, frame)
        try:
            self._queue_rest(frame.encode())
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # the next read says so

    async def _put(self, data: bytes) -> None:
        await trio.lowlevel.checkpoint()
        until = self._queue_rest(data)
        while self._written < until:
            if self._failure is not None:
                raise self._failure("the connection was lost, or closed at this end")
            await self._changed.wait()

    def _queue_rest(self, data: bytes) -> int:
        """Write what the link takes now, and queue the rest; what will be written then in all."""
        if self._queued == self._written:
            data = data[self.link.try_send(data) :]
        if data:
            self._queue.append(data)
            self._queued += len(data)
            self._change()
        return self._queued

    async def send_loop(self) -> None:
        """Write what is queued, until the link ends or the task is cancelled."""
        try:
            while True:
                while not self._queue:
                    await self._changed.wait()
                data = self._queue.popleft()
                await self.link.send_all(data)
                self._written += len(data)
                self._change()
        except trio.BrokenResourceError:
            self._failure = trio.BrokenResourceError
        except trio.ClosedResourceError:
            self._failure = trio.ClosedResourceError
        finally:
            self._failure = self._failure or trio.ClosedResourceError
            self._change()

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until the link has room."""
        await self.link.wait_send_all_might_not_block()

    # Receiving

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Receive for trio-websocket.

        It is told when the server leaves before 101, which it would wait for for ever, and the
        link is closed at its end, as clients do, lest the server waits for that.
        """
        while True:
            try:
                data = await self.link.receive_some(max_bytes)
            except trio.BrokenResourceError:
                self._end("the connection is lost")
                self._check_upgraded()
                raise
            except trio.ClosedResourceError:
                self._end(None)
                raise
            if not data:
                self._end(None if self.close_frame is not None else "the stream has ended")
                self._check_upgraded()
                await self.link.aclose()
                return b""
            given = self._take(data)
            if given:
                return given

    def _take(self, data: bytes) -> bytes:
        """Look at what has come; what of it trio-websocket is to get."""
        given = b""
        if not self._is_open:
            before = len(self._head)
            self._head += data
            end = self._head.find(_END_OF_HEAD)
            if end < 0 or not self.is_upgraded:
                return data
            self._is_open = True
            given, data = data[: end + 4 - before], data[end + 4 - before :]
        for frame, raw in self._theirs.feed(data):
            self._conversation.add(RECEIVED, frame)
            self.frames.append(frame)
            if frame.opcode == Opcode.CLOSE and self.close_frame is None:
                self.close_frame = frame
            elif frame.opcode == Opcode.PONG:
                self._pongs.add(frame.payload)
            if frame.opcode != Opcode.PING:
                given += raw
            elif not self._is_closing:
                self._pong(frame.payload)
        self._change()
        return given

    async def next_frame(self) -> Frame:
        """Wait for the next frame.

        Raises:
            trio.EndOfChannel: there is none, and there will be none.

        Cancellation:
            Loses nothing.
        """
        await trio.lowlevel.checkpoint()
        while not self.frames:
            if self._has_ended:
                raise trio.EndOfChannel
            await self._changed.wait()
        return self.frames.popleft()

    async def wait_ended(self) -> None:
        """Wait until it is known how the connection has ended."""
        while not self._has_ended and self.close_frame is None:
            await self._changed.wait()

    async def aclose(self) -> None:
        """Close the link."""
        self._end(None)
        await self.link.aclose()

    def _end(self, why: str | None) -> None:
        if not self._has_ended and why is not None and self.is_upgraded:
            self._conversation.add(RECEIVED, why)
        self._has_ended = True
        self._change()

    def _change(self) -> None:
        changed, self._changed = self._changed, trio.Event()
        changed.set()

    def _check_upgraded(self) -> None:
        if not self.is_upgraded:
            raise WebsocketClosed(1006, "the server left before it had answered the handshake")
