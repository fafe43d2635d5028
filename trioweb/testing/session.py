"""A test's end of a WebSocket: trio-websocket over a `Link`, with every wait bounded."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import trio
from trio_websocket import ConnectionClosed

from trioweb.client.wire import SENT
from trioweb.errors import WebsocketClosed
from trioweb.http import jsoncodec
from trioweb.http.headers import Headers
from trioweb.testing.conversation import show
from trioweb.testing.likeness import difference, is_same
from trioweb.testing.patience import (
    PATIENCE,
    STOOD_STILL,
    bounded,
    check_timeout,
    is_standing_still,
    patience,
)
from trioweb.testing.serving import settle
from trioweb.ws.close import check_code
from trioweb.ws.encoding import MAX_CONTROL_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence
    from contextlib import AbstractContextManager
    from typing import Self

    from trio_websocket import WebSocketConnection

    from trioweb.client.frame import Frame
    from trioweb.client.wire import Wire
    from trioweb.testing.conversation import Conversation
    from trioweb.testing.link import Link

# How a server may close without the test having to look: in good order, or because it shuts down.
_QUIET_ENDS = frozenset((1000, 1001, 1005))
# What trio-websocket says of a server that breaks the protocol.
_DISLIKES = frozenset((1002, 1007, 1009))
_MISSING: Any = object()


class WebsocketSession:
    """One WebSocket of a test; ``client.websocket(path)`` opens it.

    Every wait ends after ``timeout`` seconds, > 0, of the clock in use, 5 by default, with
    ``trio.TooSlowError``. Its text, and that of an expectation that is not met, shows the
    conversation so far. The session answers pings and the server's Close by itself.

    ``async for message in ws`` receives until the end of the connection, however that came; it is
    for ``expect_close`` to say how it should have come.

    Cancelling a wait loses nothing: what was not handed out is there for the next call, and what
    has begun to be sent is sent whole.
    """

    def __init__(
        self,
        connection: WebSocketConnection,
        link: Link,
        wire: Wire,
        talk: Conversation,
        tell_handler: Callable[[], str],
    ) -> None:
        self._connection = connection
        self._link = link
        self._wire = wire
        self._talk = talk
        self._tell_handler = tell_handler
        # Messages of which recv_frame has handed out the last frame, and recv must skip.
        self._skipped = 0
        self._is_deaf = False  # to the server's answer to our Close
        self._has_seen_end = False

    @property
    def subprotocol(self) -> str | None:
        """What the server chose of the offered subprotocols."""
        return self._connection.subprotocol

    @property
    def headers(self) -> Headers:
        """The headers of the 101, but for those of the handshake itself."""
        return read_headers(self._connection.handshake_headers)

    def transcript(self, *, times: bool = True) -> str:
        """What was said so far, a frame a line, for snapshots.

        The same conversation at the same times of a virtual clock gives the same text: pings are
        numbered, and masks left out. What several tasks do in one moment comes in any order. ``>``
        was sent, ``<`` has come, received by the test or not.
        Of one frame the first 4096 bytes are kept, of a conversation the last 10 000 lines.

        Args:
            times: begin each line with the seconds since the handshake.
        """
        return self._talk.transcript(times=times)

    # Sending

    async def send(self, data: str | bytes, *, timeout: float = PATIENCE) -> None:
        """Send a text or a binary message.

        Args:
            data: str is text, bytes are binary.
            timeout: seconds until the server must have taken it from the link.

        Raises:
            WebsocketClosed: the connection has ended.
            trio.TooSlowError: it was not taken in time; it may be later.
        """
        if not isinstance(data, (str, bytes)):
            raise TypeError(f"send() takes str or bytes, not {data!r}; send_json() takes it")
        with self._patience("the message to be taken", timeout), self._translated():
            await self._connection.send_message(data)

    async def send_json(self, value: Any, *, timeout: float = PATIENCE) -> None:
        """Send a value as JSON text; otherwise as ``send``."""
        await self.send(jsoncodec.encode(value).decode(), timeout=timeout)

    async def send_frame(self, frame: Frame, *, timeout: float = PATIENCE) -> None:
        """Send one frame, valid or not: fragments, reserved bits, what no client would send.

        Raises:
            WebsocketClosed: the connection has ended.
            trio.TooSlowError: it was not taken in time; it may be later.
        """
        with self._patience("the frame to be taken", timeout), self._translated():
            await self._wire.send_frame(frame)

    async def send_raw(self, data: bytes, *, timeout: float = PATIENCE) -> None:
        """Send bytes as they are: half a frame, rubbish; otherwise as ``send_frame``."""
        with self._patience("the bytes to be taken", timeout), self._translated():
            await self._wire.send_raw(data)

    async def ping(self, data: bytes = b"", *, timeout: float = PATIENCE) -> float:
        """Send a ping and wait for its pong.

        Args:
            data: at most 125 bytes; empty: random ones.
            timeout: seconds until the pong must have come.

        Returns:
            The round trip in seconds.

        Raises:
            ValueError: more than 125 bytes.
            WebsocketClosed: the connection has ended.
            trio.TooSlowError: it did not come in time.
        """
        if len(data) > MAX_CONTROL_BYTES:
            raise ValueError(f"a ping carries at most 125 bytes, not {len(data)}")
        began = trio.current_time()
        with self._patience("a pong", timeout), self._translated():
            # Not trio-websocket's, which waits on when the connection has ended.
            await self._wire.ping(data or os.urandom(4))
        return trio.current_time() - began

    # Receiving

    async def recv(self, *, timeout: float = PATIENCE) -> str | bytes:
        """Receive the next message.

        Raises:
            WebsocketClosed: the connection has ended and everything before was handed out.
            trio.TooSlowError: nothing came in time.
        """
        return await self._recv("a message", timeout)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> str | bytes:
        """The next message, as ``recv``; the connection's end, whatever its code, ends the loop."""
        try:
            with self._patience("a message, or the end", PATIENCE), self._translated(by_test=False):
                return await self._next_message()
        except WebsocketClosed:
            raise StopAsyncIteration from None

    async def recv_json(self, *, timeout: float = PATIENCE) -> Any:
        """Receive the next message and decode it; otherwise as ``recv``."""
        return jsoncodec.decode(await self.recv(timeout=timeout))

    async def recv_frame(self, *, timeout: float = PATIENCE) -> Frame:
        """Receive the next frame, control frames too.

        Messages and frames are one stream: a message of which the last frame was handed out here
        is not handed out by ``recv``, and ``recv`` passes over the frames before it.

        Raises:
            WebsocketClosed: the connection has ended and everything before was handed out.
            trio.TooSlowError: nothing came in time.
        """
        with self._patience("a frame", timeout), self._translated():
            frame = await self._wire.next_frame()
        if not frame.is_control and frame.fin:
            self._skipped += 1
        if frame is self._wire.close_frame:
            self._has_seen_end = True
        return frame

    async def expect(self, value: str | bytes, *, timeout: float = PATIENCE) -> None:
        """Receive the next message, which must be this one.

        Raises:
            AssertionError: another one came, or the connection has ended.
            trio.TooSlowError: nothing came in time.
        """
        if not isinstance(value, (str, bytes)):
            raise TypeError(f"expect() takes str or bytes, not {value!r}; expect_json() takes it")
        got = await self._recv_expected(show(value), timeout)
        if type(got) is not type(value) or got != value:
            raise AssertionError(self._explain(f"expected {show(value)}, got {show(got)}"))

    async def expect_json(
        self, value: Any = _MISSING, *, like: Any = _MISSING, timeout: float = PATIENCE
    ) -> Any:
        """Receive the next message, which must be this value as JSON.

        Args:
            value: exactly this one.
            like: or one like this: a dict stands for objects with at least these members, a list
                for as many elements, a type for its values, a compiled pattern for strings that
                match as a whole, ``...`` for anything; all else for itself.
            timeout: seconds until it must have come.

        Returns:
            What was received.

        Raises:
            AssertionError: another one came, or the connection has ended.
            trio.TooSlowError: nothing came in time.
        """
        if (value is _MISSING) == (like is _MISSING):
            raise TypeError("expect_json() takes a value or like=, one of them")
        wanted = show(value) if like is _MISSING else f"something like {like!r}"
        got = await self._recv_expected(f"{wanted} as JSON", timeout)
        try:
            decoded = jsoncodec.decode(got)
        except ValueError as exc:
            what = f"expected {wanted} as JSON, got {show(got)}"
            raise AssertionError(self._explain(what)) from exc
        if like is not _MISSING:
            found = difference(decoded, like)
            if found is not None:
                what = f"expected {wanted}, got {show(decoded)}: {found}"
                raise AssertionError(self._explain(what))
        elif not is_same(decoded, value):
            raise AssertionError(self._explain(f"expected {wanted}, got {show(decoded)}"))
        return decoded

    async def expect_close(self, code: int = 1000, *, timeout: float = PATIENCE) -> str:
        """Wait for the end of the connection, which must come before another message.

        Args:
            code: 1005 is a Close without a code, 1006 a loss without a Close.
            timeout: seconds until it must have come.

        Returns:
            The reason that the server gave.

        Raises:
            AssertionError: a message came, or another code.
            trio.TooSlowError: nothing came in time.
        """
        try:
            got = await self._recv(f"close {code}", timeout)
        except WebsocketClosed as closed:
            if closed.code != code:
                what = f"expected close {code}, got {closed}"
                raise AssertionError(self._explain(what)) from None
            return closed.reason
        raise AssertionError(self._explain(f"expected close {code}, got {show(got)}"))

    async def expect_silence(self, seconds: float) -> None:
        """Wait so long, in which no message comes, and the connection does not end.

        Pings and their pongs are no noise.

        Args:
            seconds: of the clock in use, which a virtual one spends at once; 0 waits until all
                that goes on without time has gone on.

        Raises:
            AssertionError: something came.
        """
        await settle()
        # What has come must be found; a scope that expires at once would not let it be taken.
        waited = PATIENCE if self._wire.has_news else seconds
        try:
            with bounded(waited), self._translated():
                got = await self._next_message()
                what = f"expected {seconds:g} s of silence, got {show(got)}"
                raise AssertionError(self._explain(what))
        except WebsocketClosed as closed:
            what = f"expected {seconds:g} s of silence, got {closed}"
            raise AssertionError(self._explain(what)) from None
        if is_standing_still():
            raise trio.TooSlowError(self._explain(f"{STOOD_STILL} for {seconds:g} s of silence"))

    async def _recv(self, what: str, timeout: float) -> str | bytes:
        with self._patience(what, timeout), self._translated():
            return await self._next_message()

    async def _recv_expected(self, what: str, timeout: float) -> str | bytes:
        try:
            return await self._recv(what, timeout)
        except WebsocketClosed as closed:
            raise AssertionError(self._explain(f"expected {what}, got {closed}")) from None

    async def _next_message(self) -> str | bytes:
        try:
            while self._skipped:
                await self._connection.get_message()
                self._skipped -= 1
            message: str | bytes = await self._connection.get_message()
        except ConnectionClosed:
            # Told as soon as another task closes; how the connection ends is known later.
            await self._wire.wait_ended()
            raise
        frames = self._wire.frames
        while frames and (frames[0].is_control or not frames[0].fin):
            frames.popleft()
        if frames:
            frames.popleft()
        return message

    # Ending

    async def close(self, code: int = 1000, reason: str = "", *, timeout: float = PATIENCE) -> None:
        """Close with a handshake, then the stream; a second time does nothing.

        After ``stall`` and ``drop`` the answer could not be read, and only the stream is closed.

        Args:
            code: 1000-1003, 1007-1014 or 3000-4999; ``send_frame`` sends others.
            reason: at most 123 bytes of UTF-8.
            timeout: seconds until the server must have answered.

        Raises:
            ValueError: a code that no client may send.
            trio.TooSlowError: it has not; the stream is closed all the same.

        Cancellation:
            The stream is closed all the same.
        """
        check_timeout(timeout)
        check_code(code)
        self._has_seen_end = True
        await self._close(code, reason, timeout)

    async def _close(self, code: int, reason: str, timeout: float) -> None:
        try:
            # Who reads nothing any more could not read the answer; its stream just ends.
            if not (self._is_deaf or self._link.is_dropped):
                with self._patience("the answer to our Close", timeout):
                    await self._connection.aclose(code, reason or None)
        finally:
            await self._wire.aclose()

    def abort(self) -> None:
        """Vanish without a Close, as by a reset."""
        self._is_deaf = self._has_seen_end = True
        self._talk.add(SENT, "(aborted)")
        self._link.abort()

    def stall(self) -> None:
        """Read nothing more until `resume`, as a client that was stopped."""
        self._is_deaf = True
        self._talk.add(SENT, "(stalled)")
        self._link.stall()

    def resume(self) -> None:
        """Read again after `stall`."""
        self._is_deaf = False
        self._talk.add(SENT, "(resumed)")
        self._link.resume()

    def drop(self) -> None:
        """Pull the cable: nothing arrives any more, at either end, and neither is told."""
        self._is_deaf = self._has_seen_end = True
        self._talk.add(SENT, "(dropped)")
        self._link.drop()

    def _closed_error(self) -> WebsocketClosed:
        frame = self._wire.close_frame
        return (
            WebsocketClosed(1006)
            if frame is None
            else WebsocketClosed(frame.close_code, frame.text)
        )

    def _explain(self, what: str) -> str:
        return self._talk.explain(what)

    def _patience(self, what: str, timeout: float) -> AbstractContextManager[None]:
        def explain(waited: str) -> str:
            return self._explain(f"{waited} for {what}; {self._tell_handler()}")

        return patience(timeout, explain)

    @contextmanager
    def _translated(self, *, by_test: bool = True) -> Generator[None]:
        """Raise what the kit raises, and note whether the test is told how the connection ended."""
        try:
            yield
        except ConnectionClosed as exc:
            self._has_seen_end |= by_test
            # What is on the wire counts: trio-websocket also says so when it dislikes what came.
            ours = exc.reason
            if self._wire.close_frame is None and ours is not None and ours.code in _DISLIKES:
                self._talk.add(SENT, f"(can't read what came: {ours.code} {ours.reason})")
            raise self._closed_error() from None
        except (trio.BrokenResourceError, trio.ClosedResourceError, trio.EndOfChannel):
            self._has_seen_end |= by_test
            raise self._closed_error() from None


async def leave(session: WebsocketSession, *, has_failed: bool) -> None:
    """Close a session as a test does that has nothing more to say.

    Args:
        session: which is closed.
        has_failed: say nothing of it, since the test failed already.

    Raises:
        AssertionError: the server had closed for an error, and the test did not look at it.
    """
    try:
        await session._close(1000, "", PATIENCE)
    except trio.TooSlowError:
        return  # its handler does not read, or the line is slow: nothing that the test asked for
    has_looked = has_failed or session._has_seen_end
    if has_looked or session._is_deaf or session._link.is_dropped:
        return
    closed = session._closed_error()
    if closed.code not in _QUIET_ENDS:
        what = f"nobody looked at how the connection had ended: {closed}; expect_close() does"
        raise AssertionError(session._explain(what))


def read_headers(pairs: Sequence[tuple[bytes, bytes]]) -> Headers:
    """Header fields from the wire."""
    return Headers([(name.decode("latin-1"), value.decode("latin-1")) for name, value in pairs])
