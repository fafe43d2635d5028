"""What an application answered: whole, or piece by piece as it arrives."""

from __future__ import annotations

import codecs
import io
from collections import deque
from dataclasses import dataclass, field
from email.message import Message
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import trio

from trioweb.errors import TrioWebError
from trioweb.http import jsoncodec
from trioweb.testing.exchange import SAMPLE
from trioweb.testing.patience import patience

if TYPE_CHECKING:
    from collections.abc import Mapping

    from trioweb.http.headers import Headers
    from trioweb.testing.redirects import Journey


@dataclass(frozen=True, repr=False)
class ClientResponse:
    """What the application answered to a request.

    Attributes:
        status: the status code.
        headers: the header fields.
        body: the whole body.
        url: what was asked for, after redirects.
        cookies: what this answer set; ``client.cookies`` has what was set before, too.
        history: the answers that led here by redirects, the first one first.
    """

    status: int
    headers: Headers
    body: bytes
    url: str = ""
    cookies: Mapping[str, str] = field(default_factory=dict)
    history: tuple[ClientResponse, ...] = ()

    @property
    def text(self) -> str:
        """The body, decoded as Content-Type says; as UTF-8 where it says nothing.

        Raises:
            TrioWebError: Python knows no such charset.
            UnicodeDecodeError: the body is not of it.
        """
        return self.body.decode(_find_charset(self.headers))

    def json(self) -> Any:
        """Decode the body as JSON.

        Raises:
            ValueError: it is none.
        """
        try:
            return jsoncodec.decode(self.body)
        except ValueError as exc:
            raise ValueError(f"{exc}, in {self!r}") from exc

    def __repr__(self) -> str:
        first: str | bytes = self.body[:SAMPLE]
        try:
            first = codecs.getincrementaldecoder(_find_charset(self.headers))().decode(
                self.body[:SAMPLE]
            )
        except (UnicodeDecodeError, TrioWebError):
            pass
        cut = f"… ({len(self.body)} bytes)" if len(self.body) > SAMPLE else ""
        return f"<ClientResponse {_describe(self.status, self.headers)} {first!r}{cut}>"


class StreamedResponse:
    """An answer that is read as it arrives; ``async with client.stream(...)`` gives it.

    ``async for piece in response`` gives the pieces of the body, each as soon as it has come and
    never empty. Every wait ends after the timeout of the request, for itself.

    Attributes:
        status: the status code.
        headers: the header fields.
        url: what was asked for, after redirects.
        cookies: what this answer set.
        history: the answers that led here by redirects, the first one first.
    """

    def __init__(self, journey: Journey, timeout: float) -> None:
        self._journey = journey
        self._exchange = journey.exchange
        self._timeout = timeout
        self._is_left = False
        self._lines: ResponseLines | None = None
        self.status = self._exchange.status
        self.headers = self._exchange.headers
        self.url = self._exchange.outgoing.target.url
        self.cookies = journey.cookies_set
        self.history = tuple(journey.history)

    def __aiter__(self) -> StreamedResponse:
        return self

    async def __anext__(self) -> bytes:
        piece = await self._receive()
        if not piece:
            raise StopAsyncIteration
        return piece

    async def read(self) -> bytes:
        """Wait for the rest of the body.

        Raises:
            trio.TooSlowError: nothing came within the timeout, counted from the last piece.
            TrioWebError: the body was cut short.

        Cancellation: what was read since the call is lost.
        """
        body = bytearray()
        while piece := await self._receive():
            body += piece
        return bytes(body)

    def iter_lines(self) -> ResponseLines:
        r"""The lines of the body, decoded, each as soon as it is complete; for server-sent events.

        They end at ``\n``, ``\r\n`` or ``\r``, which is not part of them. Who asks again goes on
        where the last one stopped. What has come behind a line that was handed out waits there, and
        not for ``read``.
        """
        if self._lines is None:
            self._lines = ResponseLines(self)
        return self._lines

    def __repr__(self) -> str:
        return f"<StreamedResponse {_describe(self.status, self.headers)}>"

    async def _receive(self) -> bytes:
        if self._is_left:
            raise trio.ClosedResourceError(
                f"the block of client.stream() was left; read {self!r} inside of it"
            )
        with patience(self._timeout, self._journey.explain):
            return await self._exchange.receive()

    def _leave(self) -> None:
        self._is_left = True


class ResponseLines:
    """Iterates over the lines of a streamed answer.

    Cancellation: nothing is lost; iterate on.
    """

    def __init__(self, response: StreamedResponse) -> None:
        decoder = codecs.getincrementaldecoder(_find_charset(response.headers))()
        # Makes one line end of the three, also where a piece ends between \r and \n.
        self._decoder = io.IncrementalNewlineDecoder(decoder, translate=True)
        self._response = response
        self._rest = ""
        self._lines: deque[str] = deque()
        self._has_all = False

    def __aiter__(self) -> ResponseLines:
        return self

    async def __anext__(self) -> str:
        while not self._lines and not self._has_all:
            piece = await self._response._receive()
            *lines, self._rest = (self._rest + self._decoder.decode(piece, not piece)).split("\n")
            self._lines.extend(lines)
            if not piece:
                self._has_all = True
                if self._rest:
                    self._lines.append(self._rest)
        if not self._lines:
            raise StopAsyncIteration
        return self._lines.popleft()


class Streaming:
    """The block of a streamed answer: opened on entering, closed on leaving.

    Args:
        journey: not begun yet.
        timeout: seconds, > 0, for each wait.

    Cancellation:
        The connection is closed.
    """

    def __init__(self, journey: Journey, timeout: float) -> None:
        self._journey = journey
        self._timeout = timeout
        self._is_used = False
        self._response: StreamedResponse | None = None

    async def __aenter__(self) -> StreamedResponse:
        if self._is_used:
            raise RuntimeError(f"{self._journey} was sent already; call client.stream() again")
        self._is_used = True
        try:
            with patience(self._timeout, self._journey.explain):
                await self._journey.begin()
        except BaseException:
            await self._journey.aclose()
            raise
        self._response = StreamedResponse(self._journey, self._timeout)
        return self._response

    async def __aexit__(self, exc_type: object, exc: object, traceback: object) -> None:
        assert self._response is not None
        self._response._leave()
        await self._journey.aclose()
        if exc is None:
            self._journey.check_sent()


def _find_charset(headers: Headers) -> str:
    message = Message()
    message["Content-Type"] = headers.get("content-type", "")
    charset = message.get_content_charset("utf-8")
    try:
        "a".encode(charset)  # an empty text would not be looked at
    except LookupError as exc:
        raise TrioWebError(
            f"Content-Type: {headers['content-type']} names a charset that Python does not know; "
            "read .body"
        ) from exc
    return charset


def _describe(status: int, headers: Headers) -> str:
    try:
        phrase = f" {HTTPStatus(status).phrase}"
    except ValueError:
        phrase = ""
    return f"{status}{phrase} {headers.get('content-type', '(no content type)')}"
