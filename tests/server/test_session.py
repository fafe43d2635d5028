"""Sessions: one connection's requests and answers, over memory streams.

The testing kit needs a TrioWeb; this is the server alone.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeAlias

import pytest
import trio
from trio.testing import MockClock, memory_stream_pair, wait_all_tasks_blocked

from trioweb.config import Config
from trioweb.errors import HTTPException
from trioweb.http import Request, Response, error_response, text
from trioweb.net.stream import ByteStream, StreamAdapter
from trioweb.net.ticker import Ticker
from trioweb.server import Server
from trioweb.testing.link import link_pair

Handler: TypeAlias = Callable[[Request], Awaitable[Response]]


async def greet(request: Request) -> Response:
    return text(f"{request.method} {request.path}")


async def read_body(request: Request) -> Response:
    try:
        return text(f"{len(await request.body())} bytes")
    except HTTPException as error:
        return error_response(error)


class App:
    """An application of one handler."""

    def __init__(self, handler: Handler = greet, **config: object) -> None:
        self.handler = handler
        self.config = Config(config)
        self.ticker = Ticker()
        trio.lowlevel.spawn_system_task(self.ticker.loop)  # as an application's lifetime does
        self.upgraded: list[tuple[Request, bytes]] = []
        self.refusal: Response | None = None

    def is_being_cancelled(self) -> None:
        pass

    async def handle(self, request: Request) -> Response:
        return await self.handler(request)

    async def handle_upgrade(
        self,
        request: Request,
        stream: ByteStream,
        trailing: bytes,
        take_scope: Callable[[trio.CancelScope], None],
    ) -> Response | None:
        self.upgraded.append((request, trailing))
        if self.refusal is None:
            await stream.send_some(b"upgraded")
            await stream.aclose()
        return self.refusal


async def talk(app: App, *sent: bytes, eof: bool = False) -> str:
    """Send all of it at once, wait until the server closes, and return what it said."""
    ours, theirs = memory_stream_pair()
    received = b""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(Server(app).serve_stream, StreamAdapter(theirs))
        for piece in sent:
            await ours.send_all(piece)
            await wait_all_tasks_blocked()
        if eof:
            await ours.send_eof()
        async for data in ours:
            received += bytes(data)
        await ours.aclose()
    return without_dates(received)


def without_dates(received: bytes) -> str:
    lines = received.decode("latin-1").split("\r\n")
    return "\n".join(line for line in lines if not line.startswith(("Date: ", "Content-Type: ")))


GET = b"GET /a HTTP/1.1\r\nHost: h\r\n\r\n"
LAST = b"GET /z HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"
OK_LAST = "HTTP/1.1 200 OK\nContent-Length: 6\nConnection: close\n\nGET /z"


def post(body: bytes, *fields: str) -> bytes:
    lines = "".join(f"{field}\r\n" for field in fields)
    return f"POST /p HTTP/1.1\r\nHost: h\r\n{lines}\r\n".encode() + body


async def test_pipelined_requests_are_answered_in_order() -> None:
    answer = await talk(App(), GET + GET + LAST)
    one = "HTTP/1.1 200 OK\nContent-Length: 6\n\nGET /a"
    assert answer == one + one + OK_LAST


async def test_many_pipelined_requests_let_others_run() -> None:
    answer = await talk(App(), GET * 100 + LAST)
    assert answer.count("GET /a") == 100


async def test_a_client_that_half_closes_gets_its_answer() -> None:
    assert "GET /a" in await talk(App(), GET, eof=True)


async def test_a_client_that_leaves_within_a_request_is_let_go() -> None:
    assert await talk(App(), GET[:10], eof=True) == ""
    assert await talk(App(), eof=True) == ""


async def test_http_1_0_is_closed_unless_it_asks() -> None:
    old = b"GET /a HTTP/1.0\r\n"
    assert "Connection: close" in await talk(App(), old + b"\r\n")
    answer = await talk(App(), old + b"Connection: keep-alive\r\n\r\n" + LAST)
    assert "Connection: keep-alive" in answer
    assert "GET /z" in answer


async def test_head_has_the_length_and_no_body() -> None:
    answer = await talk(App(), GET.replace(b"GET", b"HEAD") + LAST)
    assert answer == "HTTP/1.1 200 OK\nContent-Length: 7\n\n" + OK_LAST


async def test_a_body_is_read_and_the_next_request_follows() -> None:
    chunked = post(b"3\r\nabc\r\n0\r\n\r\n", "Transfer-Encoding: chunked")
    answer = await talk(App(read_body), post(b"ab", "Content-Length: 2") + chunked, LAST)
    assert [line for line in answer.split("\n") if "bytes" in line] == [
        "2 bytesHTTP/1.1 200 OK",
        "3 bytesHTTP/1.1 200 OK",
        "0 bytes",
    ]


async def test_a_body_may_come_late() -> None:
    answer = await talk(App(read_body), post(b"a", "Content-Length: 3"), b"b", b"c", LAST)
    assert "3 bytes" in answer


async def test_an_unread_body_that_has_come_is_skipped() -> None:
    answer = await talk(App(), post(b"abc", "Content-Length: 3") + LAST)
    assert answer.endswith("POST /p" + OK_LAST)


async def test_an_unread_body_that_has_not_come_closes(autojump_clock: MockClock) -> None:
    answer = await talk(App(), post(b"abc", "Content-Length: 30"), LAST)
    assert answer == "HTTP/1.1 200 OK\nContent-Length: 7\nConnection: close\n\nPOST /p"


async def test_100_continue_is_sent_when_the_body_is_asked_for(autojump_clock: MockClock) -> None:
    expecting = post(b"", "Content-Length: 3", "Expect: 100-continue")
    answer = await talk(App(read_body), expecting, b"abc", LAST)
    assert answer.startswith("HTTP/1.1 100 Continue\n\nHTTP/1.1 200 OK\n")
    assert "100 Continue" not in await talk(App(), expecting)
    assert "100 Continue" not in await talk(App(read_body), expecting + b"abc" + LAST)


async def test_a_body_that_grows_too_large_is_a_413(autojump_clock: MockClock) -> None:
    app = App(read_body, REQUEST_MAX_SIZE=4)
    chunked = post(b"3\r\nabc\r\n3\r\nabc\r\n", "Transfer-Encoding: chunked")
    assert (await talk(app, chunked)).startswith("HTTP/1.1 413 ")
    assert (await talk(app, post(b"", "Content-Length: 5"))).startswith("HTTP/1.1 413 ")


async def test_a_body_cut_off_is_a_400() -> None:
    answer = await talk(App(read_body), post(b"a", "Content-Length: 3"), eof=True)
    assert answer.startswith("HTTP/1.1 400 ")


@pytest.mark.parametrize(
    ("garbage", "status"),
    [
        (b"\x16\x03\x01\x02\x00", "400"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "505"),
        (b"\x00\xff" * 500, "400"),
        (b"GET / HTTP/1.1\r\nX: " + b"a" * 9000, "431"),
    ],
)
async def test_garbage_is_refused_with_one_line(
    garbage: bytes, status: str, caplog: pytest.LogCaptureFixture, autojump_clock: MockClock
) -> None:
    caplog.set_level(logging.INFO)
    answer = await talk(App(), garbage)
    assert answer.startswith(f"HTTP/1.1 {status} ")
    assert "Connection: close" in answer
    assert len(caplog.records) == 1


async def test_half_a_request_and_silence_is_a_408(autojump_clock: MockClock) -> None:
    start = trio.current_time()
    answer = await talk(App(REQUEST_TIMEOUT=7), GET[:20])
    assert answer.startswith("HTTP/1.1 408 ")
    assert 7 <= trio.current_time() - start < 10


async def test_a_body_that_stalls_is_a_408(autojump_clock: MockClock) -> None:
    answer = await talk(App(read_body, REQUEST_TIMEOUT=7), post(b"a", "Content-Length: 3"))
    assert answer.startswith("HTTP/1.1 408 ")


async def test_silence_is_closed_without_a_word(autojump_clock: MockClock) -> None:
    start = trio.current_time()
    assert await talk(App(REQUEST_TIMEOUT=7)) == ""
    assert trio.current_time() - start == pytest.approx(7)
    answer = await talk(App(KEEP_ALIVE_TIMEOUT=9), GET)
    assert answer.count("HTTP/1.1") == 1
    assert trio.current_time() - start == pytest.approx(16)


async def nap(request: Request) -> Response:
    await trio.sleep(1)
    return text("rested")


async def test_an_idle_connection_outlives_the_handlers_deadline(
    autojump_clock: MockClock,
) -> None:
    """It ends KEEP_ALIVE_TIMEOUT after its last answer, whenever its requests came."""
    app = App(nap, RESPONSE_TIMEOUT=5, KEEP_ALIVE_TIMEOUT=20)
    ours, theirs = memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(Server(app).serve_stream, StreamAdapter(theirs))
        for pause in (0, 3, 4, 5, 19, 7.5):  # the deadline passes before, as, and after it comes
            await trio.sleep(pause)
            await ours.send_all(GET)
            assert b"rested" in await ours.receive_some()
        start = trio.current_time()
        assert await ours.receive_some() == b""
        assert trio.current_time() - start == pytest.approx(20)


async def test_a_request_that_comes_as_an_old_deadline_passes_has_its_own(
    mock_clock: MockClock,
) -> None:
    app = App(nap, RESPONSE_TIMEOUT=5, KEEP_ALIVE_TIMEOUT=20)
    ours, theirs = memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(Server(app).serve_stream, StreamAdapter(theirs))
        for late in (0, 5):
            await wait_all_tasks_blocked()
            await ours.send_all(GET)
            mock_clock.jump(late)  # between the arrival and the session's turn
            await wait_all_tasks_blocked()
            mock_clock.jump(1)
            assert b"rested" in await ours.receive_some()
        await ours.aclose()


async def test_an_idle_connection_in_a_new_scope_is_drained_at_once(
    autojump_clock: MockClock,
) -> None:
    server = Server(App(RESPONSE_TIMEOUT=5, KEEP_ALIVE_TIMEOUT=20))
    ours, theirs = memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.serve_stream, StreamAdapter(theirs))
        await ours.send_all(GET)
        await trio.sleep(10)
        assert server.connections == 1
        server.shutdown()
        assert b"GET /a" in await ours.receive_some()
        start = trio.current_time()
        assert await ours.receive_some() == b""
        assert trio.current_time() == start


async def test_a_handler_that_does_not_answer_is_a_503(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async def sleep(request: Request) -> Response:
        await trio.sleep_forever()
        raise AssertionError

    answer = await talk(App(sleep, RESPONSE_TIMEOUT=5), GET)
    assert answer.startswith("HTTP/1.1 503 ")
    assert "RESPONSE_TIMEOUT=5" in caplog.text


async def test_an_application_that_raises_is_a_500(caplog: pytest.LogCaptureFixture) -> None:
    async def crash(request: Request) -> Response:
        raise RuntimeError("secret")

    answer = await talk(App(crash), GET + LAST)
    assert answer.count("HTTP/1.1 500 ") == 2
    assert "secret" not in answer
    assert len(caplog.records) == 2


async def test_a_response_that_can_not_be_sent_is_a_500(caplog: pytest.LogCaptureFixture) -> None:
    async def split(request: Request) -> Response:
        return text("x", headers={"X": "a\r\nb: c"})

    answer = await talk(App(split), LAST)
    assert answer.startswith("HTTP/1.1 500 ")
    assert "control character" in caplog.text


class Pieces:
    """An async body; crashes after its pieces when told to."""

    def __init__(self, *pieces: bytes, error: Exception | None = None) -> None:
        self._pieces = list(pieces)
        self._error = error

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        await trio.sleep(100)
        if self._pieces:
            return self._pieces.pop(0)
        raise self._error or StopAsyncIteration


async def test_a_body_in_pieces_is_chunked(autojump_clock: MockClock) -> None:
    async def pieces(request: Request) -> Response:
        return Response(Pieces(b"ab", b"", b"cde"))

    answer = await talk(App(pieces), GET + LAST)
    assert answer.startswith(
        "HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n2\nab\n3\ncde\n0\n\nHTTP/1.1 200 OK\n"
    )
    old = await talk(App(pieces), b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
    assert old == "HTTP/1.1 200 OK\nConnection: close\n\nabcde"


async def test_a_body_that_crashes_is_cut(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async def pieces(request: Request) -> Response:
        return Response(Pieces(b"ab", error=RuntimeError("boom")))

    assert (await talk(App(pieces), GET)).endswith("\n\n2\nab\n")
    assert "boom" in caplog.text


async def test_a_body_made_of_the_request_s(autojump_clock: MockClock) -> None:
    async def echo(request: Request) -> Response:
        return Response(request.stream())

    answer = await talk(App(echo), post(b"abc", "Content-Length: 6"), b"def")
    assert answer.endswith("\n\n3\nabc\n3\ndef\n0\n\n")


async def test_an_echo_that_stalls_is_cut_not_answered_again(autojump_clock: MockClock) -> None:
    async def echo(request: Request) -> Response:
        return Response(request.stream())

    answer = await talk(App(echo), post(b"abc", "Content-Length: 6"))
    assert answer.endswith("\n\n3\nabc\n")


async def test_each_request_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="trioweb.access")
    await talk(App(), GET + LAST)
    first, second = caplog.records
    assert first.name == "trioweb.access"
    assert vars(first) | {"method": "GET", "path": "/a", "status": 200} == vars(first)
    assert second.getMessage().startswith("GET /z 200 ")
    assert second.getMessage().endswith(" memory")


UPGRADE = b"GET /ws HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"


async def test_an_upgrade_takes_the_stream_and_what_follows() -> None:
    app = App()
    assert await talk(app, UPGRADE + b"\x81\x00") == "upgraded"
    ((request, trailing),) = app.upgraded
    assert request.path == "/ws"
    assert trailing == b"\x81\x00"


async def test_a_refused_upgrade_is_answered_and_closed(autojump_clock: MockClock) -> None:
    app = App()
    app.refusal = text("no", 403)
    answer = await talk(app, UPGRADE)
    assert answer == "HTTP/1.1 403 Forbidden\nContent-Length: 2\nConnection: close\n\nno"


async def test_a_handler_may_close() -> None:
    async def close(request: Request) -> Response:
        return text("bye", headers={"Connection": "close"})

    assert (await talk(App(close), GET, eof=True)).endswith("Connection: close\n\nbye")


async def test_a_client_that_vanishes_hurts_nobody(caplog: pytest.LogCaptureFixture) -> None:
    ours, theirs = memory_stream_pair()

    async def vanish(request: Request) -> Response:
        await ours.aclose()
        return text("x" * 1_000_000)

    await ours.send_all(GET)
    await Server(App(vanish)).serve_stream(StreamAdapter(theirs))
    assert not caplog.records


async def test_cancelling_ends_a_session_and_closes_its_stream() -> None:
    ours, theirs = memory_stream_pair()
    server = Server(App())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.serve_stream, StreamAdapter(theirs))
        await wait_all_tasks_blocked()
        assert server.connections == 1
        nursery.cancel_scope.cancel()
    assert server.connections == 0
    assert await ours.receive_some() == b""


async def test_a_path_can_not_forge_a_log_line(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    await talk(App(), LAST.replace(b"/z", b"/%0aERROR"))
    assert "\n" not in caplog.records[0].getMessage()


async def large(request: Request) -> Response:
    return text("x" * 1_000_000)


async def test_a_large_answer_goes_out_in_parts(autojump_clock: MockClock) -> None:
    ours, theirs = link_pair(buffer=1000)
    received = 0
    async with trio.open_nursery() as nursery:
        nursery.start_soon(Server(App(large)).serve_stream, theirs)
        await ours.send_all(LAST)
        while data := await ours.receive_some(65536):
            received += len(data)
            await trio.sleep(1)  # slower in all than RESPONSE_TIMEOUT
        await ours.aclose()
    assert received > 1_000_000


async def test_a_peer_that_takes_nothing_is_dropped(autojump_clock: MockClock) -> None:
    ours, theirs = link_pair(buffer=1000)
    start = trio.current_time()
    await ours.send_all(LAST)
    await Server(App(large, RESPONSE_TIMEOUT=8)).serve_stream(theirs)
    assert trio.current_time() - start == pytest.approx(8)
