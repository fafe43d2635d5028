"""What lies between trio-websocket and a stream: it sees every frame, and tears none.

Theory of operation. trio-websocket has five weaknesses, each with its remedy here.

- A send that is cancelled leaves half a frame. So bytes to be sent are queued, and a task of the
  wire writes them: whoever waits for that and is cancelled leaves a whole frame behind.
- It crashes over a ping that crosses its own Close. So pings are answered here, and it is given
  the rest.
- It tells of an error of the server's as of the server's Close. So what counts are the Close frames
  of both directions, as they were seen here.
- It waits for ever for a server that leaves before 101. So the answer to the handshake is shown to
  the client until it is that, and the client can raise what there is to say.
- It takes an interim answer, say 103 Early Hints, for a refusal. So it is not given any.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Protocol

import trio

from trioweb.client.frame import Frame, FrameReader, Opcode
from trioweb.net.stream import as_byte_stream
from trioweb.ws.encoding import MAX_CONTROL_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable

    from trioweb.net.stream import ByteStream

# The directions of what passes.
SENT, RECEIVED = ">", "<"
# HTTP/1.0 can't upgrade, but that is for trio-websocket to say.
_UPGRADED = (b"HTTP/1.1 101", b"HTTP/1.0 101")
_END_OF_HEAD = b"\r\n\r\n"
# An answer with this is followed by another one, but for 101, which is the last (RFC 9110 §15.2).
_INTERIM = b"HTTP/1.1 1"
# Bytes that are read at once, as trio-websocket is told to.
_READ_SIZE = 64 * 1024
# Pongs that wait to be written before nothing more is read: a server that reads nothing fills no
# memory, and it takes a hundred pings unread.
_MAX_PONGS = 100
# Seconds for a stream to be closed: TLS says goodbye, which has to fit into the connection.
_GOODBYE = 1.0


class Watcher(Protocol):
    """Who is told what passes on a wire."""

    def add(self, direction: str, what: Frame | str) -> None:
        """Take note of a frame, or in words of something else; `SENT` or `RECEIVED`."""


class Wire(trio.abc.Stream):
    """The stream that a client's WebSocket is on; ``send_loop`` is the body of its task.

    Args:
        stream: the connection to the server, closed with the wire.
        check_answer: given what has come in answer to the handshake as long as it is no whole 101,
            without interim answers that are whole, and whether that was all. It may raise, in the
            task of trio-websocket that reads or writes; when that was all it must, lest the client
            waits for ever.
        watcher: told of everything. With one, all that comes is kept for ``next_frame``, and
            frames are whole; without, no more than 125 bytes of each are.

    Attributes:
        frames: what has come, and nobody has taken; empty without a watcher.
        close_frame: the server's.
        our_close: trio-websocket's.
    """

    def __init__(
        self,
        stream: trio.abc.Stream | ByteStream,
        check_answer: Callable[[bytes, bool], None],
        watcher: Watcher | None = None,
    ) -> None:
        self.frames: deque[Frame] = deque()
        self.close_frame: Frame | None = None
        self.our_close: Frame | None = None
        self._stream = as_byte_stream(stream)
        self._check_answer = check_answer
        self._watcher = watcher
        # What has come of the answer until it is 101, without interim ones; and how many bytes of
        # it trio-websocket has.
        self._answer = b""
        self._given = 0
        self._is_open = False  # 101 has come
        keep = MAX_CONTROL_BYTES if watcher is None else None
        self._ours, self._theirs = FrameReader(keep), FrameReader(keep)
        self._pongs: set[bytes] = set()
        self._changed = trio.Event()
        self._has_ended = False
        # To be sent, and how many bytes were queued and written in all.
        self._queue: deque[bytes] = deque()
        self._queued = self._written = 0
        # For each pong of ours that is not written, how many bytes there are up to its end.
        self._unwritten_pongs: deque[int] = deque()
        self._failure: type[trio.BrokenResourceError | trio.ClosedResourceError] | None = None

    @property
    def has_news(self) -> bool:
        """Whether a whole message or the end has come, and nobody has taken it."""
        has_message = any(frame.fin and not frame.is_control for frame in self.frames)
        return has_message or self._has_ended or self.close_frame is not None

    # Sending

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send trio-websocket's bytes; cancelled, they are sent whole, or not at all."""
        await trio.lowlevel.checkpoint()
        if self._is_open:
            for _, frame in self._ours.feed(bytes(data)):
                if frame is not None:
                    self._note(SENT, frame)
                    if frame.opcode == Opcode.CLOSE:
                        self.our_close = frame
        try:
            await self._put(bytes(data))
        except trio.BrokenResourceError:
            self._check_end()
            raise

    async def send_raw(self, data: bytes) -> None:
        """Send bytes of the client's own."""
        await trio.lowlevel.checkpoint()
        self._note(SENT, f"raw {data[:64]!r}" + ("…" if len(data) > 64 else ""))
        await self._put(data)

    async def send_frame(self, frame: Frame) -> None:
        """Send a frame of the client's own."""
        await trio.lowlevel.checkpoint()
        self._note(SENT, frame)
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
        self._note(SENT, frame)
        try:
            until = self._queue_rest(frame.encode())
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return  # the next read says so
        if until > self._written:
            self._unwritten_pongs.append(until)

    async def _put(self, data: bytes) -> None:
        await self._wait_written(self._queue_rest(data))

    def _queue_rest(self, data: bytes) -> int:
        """Write what the stream takes now, and queue the rest; what will be written then in all."""
        if self._queued == self._written:
            data = data[self._stream.try_send(data) :]
        if data:
            self._queue.append(data)
            self._queued += len(data)
            self._change()
        return self._queued

    async def _wait_written(self, until: int) -> None:
        while self._written < until:
            if self._failure is not None:
                raise self._failure("the connection was lost, or closed at this end")
            await self._changed.wait()

    async def send_loop(self) -> None:
        """Write what is queued, until the stream ends or the task is cancelled."""
        try:
            while True:
                while not self._queue:
                    await self._changed.wait()
                data = self._queue.popleft()
                sent = 0
                with memoryview(data) as view:
                    while sent < len(data):
                        sent += await self._stream.send_some(view[sent:])
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
        """Wait until all that was to be sent is written.

        Raises:
            trio.BrokenResourceError: the connection was lost before.
            trio.ClosedResourceError: it was closed at this end before.
        """
        await trio.lowlevel.checkpoint()
        await self._wait_written(self._queued)

    # Receiving

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Receive for trio-websocket.

        The stream is closed at its end, as clients do, lest the server waits for that.
        """
        while True:
            await self._wait_pongs()
            try:
                data = await self._stream.receive_some(max_bytes or _READ_SIZE)
            except trio.BrokenResourceError:
                self._end("the connection is lost")
                self._check_end()
                raise
            except trio.ClosedResourceError:
                self._end(None)
                raise
            if not data:
                self._end(None if self.close_frame is not None else "the stream has ended")
                self._check_end()
                await self._close_stream()
                return b""
            given = self._take(data)
            if given:
                return given

    async def _wait_pongs(self) -> None:
        """Wait while there are too many pongs that the server does not read."""
        pongs = self._unwritten_pongs
        while pongs:
            while pongs and pongs[0] <= self._written:
                pongs.popleft()
            if len(pongs) < _MAX_PONGS or self._failure is not None:
                return
            await self._changed.wait()

    def _take(self, data: bytes) -> bytes:
        """Look at what has come; what of it trio-websocket is to get."""
        given = b""
        if not self._is_open:
            given, data = self._take_answer(data)
        pieces = [given]
        for raw, frame in self._theirs.feed(data):
            if frame is not None:
                self._look_at(frame)
                if _is_ping(frame, raw):
                    if self.our_close is None:
                        self._pong(frame.payload)
                    continue
            pieces.append(raw)
        self._change()
        return b"".join(pieces)

    def _take_answer(self, data: bytes) -> tuple[bytes, bytes]:
        """Look at the answer to the handshake.

        Returns:
            What of it trio-websocket is to get, and the frames that follow it.
        """
        self._answer += data
        while _may_be_interim(self._answer) and _END_OF_HEAD in self._answer:
            self._answer = self._answer.partition(_END_OF_HEAD)[2]
        end = self._answer.find(_END_OF_HEAD)
        if end >= 0 and self._answer.startswith(_UPGRADED):
            end += len(_END_OF_HEAD)
            given, frames = self._answer[self._given : end], self._answer[end:]
            self._is_open = True
            self._answer = b""
            return given, frames
        self._check_answer(self._answer, False)
        if _may_be_interim(self._answer):
            return b"", b""
        given, self._given = self._answer[self._given :], len(self._answer)
        return given, b""

    def _look_at(self, frame: Frame) -> None:
        self._note(RECEIVED, frame)
        if self._watcher is not None:
            self.frames.append(frame)
            if frame.opcode == Opcode.PONG:
                self._pongs.add(frame.payload)
        if frame.opcode == Opcode.CLOSE and self.close_frame is None:
            self.close_frame = frame

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
        """Close the stream, in a second at most."""
        self._end(None)
        await self._close_stream()

    async def _close_stream(self) -> None:
        with trio.move_on_after(_GOODBYE):
            await self._stream.aclose()

    def _end(self, why: str | None) -> None:
        if not self._has_ended and why is not None and self._is_open:
            self._note(RECEIVED, why)
        self._has_ended = True
        self._change()

    def _change(self) -> None:
        changed, self._changed = self._changed, trio.Event()
        changed.set()

    def _note(self, direction: str, what: Frame | str) -> None:
        if self._watcher is not None:
            self._watcher.add(direction, what)

    def _check_end(self) -> None:
        if not self._is_open:
            self._check_answer(self._answer, True)


def _may_be_interim(answer: bytes) -> bool:
    """Whether another answer will follow, as far as this one has come."""
    status = answer[: len(_UPGRADED[0])]
    return (status.startswith(_INTERIM) or _INTERIM.startswith(status)) and status not in _UPGRADED


def _is_ping(frame: Frame, raw: bytes) -> bool:
    """Whether it is a ping as it must be; what is wrong with others trio-websocket says."""
    # RFC 6455 §5.1, §5.5: one frame without reserved bits, not masked, and short.
    return (
        frame.opcode == Opcode.PING
        and raw[:1] == b"\x89"
        and raw[1:2] <= bytes([MAX_CONTROL_BYTES])
    )
