"""The in-memory client, against a small application of the tests' own and against TrioWeb."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, cast

import pytest
import trio
import trio.testing

from trioweb import TrioWeb
from trioweb.errors import TrioWebError, WebsocketClosed
from trioweb.testing import Denied, Link, open_client

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from trioweb import Websocket
    from trioweb.net import ByteStream


class Scripted(TrioWeb):
    """Answers every connection with the same bytes, once a whole head has come, and closes."""

    def __init__(self, answer: bytes | None) -> None:
        super().__init__("scripted")
        self.answer = answer
        self.requests: list[bytes] = []
        self.lived: list[str] = []

    @asynccontextmanager
    async def lifetime(self, *, lifespan: bool = True) -> AsyncGenerator[None]:
        self.lived.append("entered")
        try:
            yield
        finally:
            self.lived.append("left")

    async def serve_stream(self, stream: trio.abc.Stream | ByteStream) -> None:
        link = cast("Link", stream)
        request = b""
        while b"\r\n\r\n" not in request:
            data = await link.receive_some(10_000)
            if not data:
                return
            request += data
        self.requests.append(request)
        if self.answer is None:
            await trio.sleep_forever()
        else:
            await link.send_all(self.answer)
            await link.aclose()


async def test_a_request_is_real_bytes() -> None:
    """Method, path, headers and JSON body are on the wire; the answer is read to its end."""
    app = Scripted(b"HTTP/1.1 201 Created\r\nX-A: 1\r\nContent-Length: 7\r\n\r\n[1, 2]\n")
    async with open_client(app) as client:
        answer = await client.post("/a b?c=é", json={"x": 1}, headers={"X-B": "2"})
    assert (answer.status, answer.headers["x-a"], answer.json()) == (201, "1", [1, 2])
    head, _, body = app.requests[0].partition(b"\r\n\r\n")
    assert head.startswith(b"POST /a%20b?c=%C3%A9 HTTP/1.1\r\n")
    assert b"x-b: 2" in head.lower()
    assert b"application/json" in head
    assert body == b'{"x":1}'
    assert app.lived == ["entered", "left"]


async def test_every_wait_is_bounded(autojump_clock: trio.testing.MockClock) -> None:
    """An application that never answers fails the test after 5 s, for HTTP and WebSocket."""
    async with open_client(Scripted(None)) as client:
        with pytest.raises(trio.TooSlowError, match="GET /slow"):
            await client.get("/slow")
        assert trio.current_time() == pytest.approx(5)
        with pytest.raises(trio.TooSlowError, match="handshake of /ws"):
            async with client.websocket("/ws"):
                pass
        assert trio.current_time() == pytest.approx(10)


@pytest.mark.parametrize(
    "answer", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab", b"\0\0"]
)
async def test_an_answer_cut_short_is_an_error(answer: bytes) -> None:
    """Neither an early end nor garbage passes for a response, or hangs the handshake."""
    async with open_client(Scripted(answer)) as client:
        with pytest.raises(TrioWebError):
            await client.get("/")
        with pytest.raises((WebsocketClosed, Denied)):
            async with client.websocket("/ws"):
                pass


async def test_what_the_block_raises_comes_out_as_itself() -> None:
    """No group of ours is around a test's failure."""

    async def fail() -> None:
        async with open_client(Scripted(None)) as client:
            client.connect()
            raise AssertionError("mine")

    with pytest.raises(AssertionError, match="mine"):
        await fail()
    group = ExceptionGroup("mine", [ValueError()])
    with pytest.raises(ExceptionGroup) as caught:
        async with open_client(Scripted(None)):
            raise group
    assert caught.value is group


def make_app() -> TrioWeb:
    """An application with an echo, a refusal and a flood."""
    app = TrioWeb("tested")

    @app.websocket("/echo", subprotocols=["a", "b"])
    async def echo(ws: Websocket) -> None:
        async for message in ws:
            if message == "bye":
                await ws.close(4001, "as you wish")
            await ws.send(message)

    @app.websocket("/hush")
    async def hush(ws: Websocket) -> None:
        await ws.recv()

    @app.websocket("/no", accept="manual")
    async def no(ws: Websocket) -> None:
        await ws.deny(409, "not now", {"X-Why": "busy"})

    @app.post("/size")
    async def size(request: object) -> dict[str, int]:
        return {"bytes": len(await request.body())}  # type: ignore[attr-defined]

    return app


async def test_messages_of_all_kinds_go_there_and_back() -> None:
    """Text, bytes and JSON; expectations that are not met say what came instead."""
    async with (
        open_client(make_app()) as client,
        client.websocket("/echo", subprotocols=["b"]) as ws,
    ):
        assert ws.subprotocol == "b"
        await ws.send("hé")
        await ws.expect("hé")
        await ws.send(b"\x00")
        assert await ws.recv() == b"\x00"
        await ws.send_json({"a": [1]})
        await ws.expect_json({"a": [1]})
        await ws.send("x")
        with pytest.raises(AssertionError, match="expected 'y', got 'x'"):
            await ws.expect("y")
        await ws.send("x")
        with pytest.raises(AssertionError, match="expected close 1000, got 'x'"):
            await ws.expect_close(1000)
        await ws.send("bye")
        assert await ws.expect_close(4001) == "as you wish"
        with pytest.raises(WebsocketClosed):
            await ws.recv()
        with pytest.raises(WebsocketClosed):
            await ws.send("too late")


async def test_a_refusal_is_told_whole() -> None:
    """Status, headers and body of the answer are in Denied."""
    async with open_client(make_app()) as client:
        with pytest.raises(Denied, match="not now") as caught:
            async with client.websocket("/no"):
                pass
        assert (caught.value.status, caught.value.body) == (409, b"not now")
        assert caught.value.headers["X-Why"] == "busy"
        with pytest.raises(Denied) as caught:
            async with client.websocket("/echo", origin="https://evil.example"):
                pass
        assert caught.value.status == 403


async def test_silence_fails_with_the_conversation(autojump_clock: trio.testing.MockClock) -> None:
    """A message that never comes ends the wait after 5 s, and the error shows what was said."""
    async with open_client(make_app()) as client, client.websocket("/hush") as ws:
        with pytest.raises(
            trio.TooSlowError,
            match=r"waited 5 s for a message; its handler hush waits at .* in hush\n.*/hush",
        ):
            await ws.recv()


async def test_bytes_squeeze_through_a_small_link() -> None:
    """With a buffer of 50 bytes everything is written partially, and arrives."""
    async with open_client(make_app(), link=Link(buffer=50)) as client:
        assert (await client.post("/size", body=bytes(10_000))).json() == {"bytes": 10_000}
        async with client.websocket("/echo") as ws:
            await ws.send("long " * 2000)
            await ws.expect("long " * 2000)


async def test_an_aborted_session_ends_quietly() -> None:
    """After abort the session reads a loss, and leaving it is no error."""
    async with open_client(make_app()) as client, client.websocket("/echo") as ws:
        ws.abort()
        await ws.expect_close(1006)


async def test_a_stalled_session_can_be_left(autojump_clock: trio.testing.MockClock) -> None:
    """Who reads nothing more does not wait for the answer to a Close either."""
    async with open_client(make_app()) as client, client.websocket("/echo") as ws:
        ws.stall()
    assert trio.current_time() == 0
