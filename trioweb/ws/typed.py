"""The second vocabulary: ``receive_text``, ``send_json``, ``iter_bytes`` and their like."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

from trioweb.errors import InvalidMessage, WebsocketClosed, WrongFrameType
from trioweb.http import jsoncodec

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

T = TypeVar("T")

OnInvalid = Literal["raise", "reply", "close"]


class TypedMessages:
    """Messages of one known type; mixed into ``Websocket``, which brings ``recv`` and ``send``."""

    if TYPE_CHECKING:

        async def recv(self, timeout: float | None = None) -> str | bytes: ...  # noqa: D102
        async def send(self, data: object, encoding: str = "text") -> None: ...  # noqa: D102
        async def close(self, code: int = 1000, reason: str = "") -> None: ...  # noqa: D102
        def _end_of_iteration(self) -> Exception: ...

    async def receive_text(self) -> str:
        """Receive a text message.

        Raises:
            WrongFrameType: a binary one came; it has been taken.
            WebSocketDisconnect: the connection has ended.
        """
        message = await self.recv()
        if isinstance(message, str):
            return message
        raise WrongFrameType("a text message was expected")

    async def receive_bytes(self) -> bytes:
        """Receive a binary message.

        Raises:
            WrongFrameType: a text one came; it has been taken.
            WebSocketDisconnect: the connection has ended.
        """
        message = await self.recv()
        if isinstance(message, bytes):
            return message
        raise WrongFrameType("a binary message was expected")

    async def receive_json(self, type: Any = Any) -> Any:  # noqa: A002
        """Receive a text message and decode it as JSON.

        Args:
            type: what it must be: any type that msgspec validates, a Struct for one.

        Raises:
            InvalidMessage: it is no JSON, or not of this type; it has been taken.
            WrongFrameType: a binary message came; it has been taken.
            WebSocketDisconnect: the connection has ended.
        """
        text = await self.receive_text()
        try:
            return jsoncodec.decode(text, type)
        except ValueError as error:
            raise InvalidMessage("not valid JSON of the expected type") from error

    async def send_text(self, data: str) -> None:
        """Send a text message; see ``send``."""
        if not isinstance(data, str):
            raise TypeError(f"send_text() takes a str, not {type(data).__name__}")
        await self.send(data)

    async def send_bytes(self, data: bytes | bytearray | memoryview) -> None:
        """Send a binary message; see ``send``."""
        if not isinstance(data, bytes | bytearray | memoryview):
            raise TypeError(f"send_bytes() takes bytes, not {type(data).__name__}")
        await self.send(data)

    async def send_json(self, data: Any) -> None:
        """Send any JSON value as a text message; see ``send``."""
        await self.send(data, "json")

    def iter_text(self, *, on_invalid: OnInvalid = "raise") -> MessageIterator[str]:
        """Iterate over text messages; ends quietly like ``async for message in ws``.

        Args:
            on_invalid: what to do with a message of another kind: ``"raise"`` the error,
                ``"reply"`` with ``{"error": …}`` and go on, or ``"close"`` with its code.
        """
        return MessageIterator(self, self.receive_text, on_invalid)

    def iter_bytes(self, *, on_invalid: OnInvalid = "raise") -> MessageIterator[bytes]:
        """Iterate over binary messages; see ``iter_text``."""
        return MessageIterator(self, self.receive_bytes, on_invalid)

    def iter_json(
        self,
        type: Any = Any,  # noqa: A002
        *,
        on_invalid: OnInvalid = "raise",
    ) -> MessageIterator[Any]:
        """Iterate over JSON messages, validated as by ``receive_json``; see ``iter_text``."""

        async def receive() -> Any:
            return await self.receive_json(type)

        return MessageIterator(self, receive, on_invalid)


class MessageIterator(Generic[T]):
    """Iterates over messages of one type; holds no scope between two steps."""

    def __init__(
        self,
        websocket: TypedMessages,
        receive: Callable[[], Awaitable[T]],
        on_invalid: OnInvalid,
    ) -> None:
        if on_invalid not in ("raise", "reply", "close"):
            raise ValueError(f'on_invalid is "raise", "reply" or "close", not {on_invalid!r}')
        self._websocket = websocket
        self._receive = receive
        self._on_invalid = on_invalid

    def __aiter__(self) -> MessageIterator[T]:
        return self

    async def __anext__(self) -> T:
        while True:
            try:
                return await self._receive()
            except WebsocketClosed:
                raise self._websocket._end_of_iteration() from None
            except (InvalidMessage, WrongFrameType) as error:
                if self._on_invalid == "raise":
                    raise
                if self._on_invalid == "close":
                    await self._websocket.close(error.code, error.reason)
                    raise StopAsyncIteration from None
                await self._reply(error.reason)

    async def _reply(self, reason: str) -> None:
        try:
            await self._websocket.send({"error": reason})
        except WebsocketClosed:
            raise StopAsyncIteration from None
