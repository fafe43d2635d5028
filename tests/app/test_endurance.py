"""The application under peers that write on, leave, crash it or never answer; real sockets.

These tests use real time, since a kernel is part of what they show (DESIGN invariants 5 to 8).
"""

from __future__ import annotations

import os
import socket
import struct
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
import trio

from tests.app.conftest import HANDSHAKE
from trioweb.app import TrioWeb

if TYPE_CHECKING:
    import logging
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager

    from tests.app.conftest import Client, Serving

    Serve = Callable[[TrioWeb], AbstractAsyncContextManager[Serving]]
    TakeLog = Callable[[], list[logging.LogRecord]]

REPEATS = 200
CONCURRENT = 50
# What a client that is refused has announced, and goes on writing.
ANNOUNCED = 16 * 1024 * 1024
PIECE = bytes(64 * 1024)
WHOLE = HANDSHAKE % b"/ws"


def make_app(**config: Any) -> TrioWeb:
    """An application that echoes, on /ws and /."""
    app = TrioWeb(config=config)

    @app.websocket("/ws")
    async def echo(request: Any, ws: Any) -> None:
        async for message in ws:
            await ws.send(message)

    @app.route("/", methods=["GET", "POST"])
    async def index(request: Any) -> str:
        return f"{len(await request.body())}"

    return app


async def write_while_reading(
    client: Client, head: bytes, piece: bytes, is_answer: Callable[[bytes], bool], stays: bool
) -> str:
    """What becomes of a client that writes and reads at once, and whose failed write is fatal.

    Args:
        client: connected, has sent nothing that is not answered.
        head: what it writes first.
        piece: what it then writes until it has been answered, up to ANNOUNCED bytes.
        is_answer: whether what was read until now is the answer waited for.
        stays: write on after the answer, until the connection is gone.
    """
    outcome = "never answered"
    written = 0

    async def write() -> None:
        nonlocal outcome, written
        try:
            await client.send(head)
            while written < ANNOUNCED:
                await client.send(piece)
                written += len(piece)
        except trio.BrokenResourceError:
            if outcome == "never answered":
                outcome = "the write failed before the answer came"
                nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(write)
        received = b""
        try:
            async for data in client.stream:
                received += bytes(data)
                if outcome == "never answered" and is_answer(received):
                    outcome = "answered" if written < ANNOUNCED else "answered too late"
                    if not stays:
                        break
        except trio.BrokenResourceError:
            pass  # after the answer it may be; before it, the outcome tells
        if not stays:
            nursery.cancel_scope.cancel()
    await client.aclose()
    return outcome


async def repeat(one: Callable[[int], Any]) -> Counter[str]:
    """Run REPEATS clients, some of them at a time, and count their outcomes."""
    outcomes: Counter[str] = Counter()
    limiter = trio.CapacityLimiter(CONCURRENT)

    async def run(number: int) -> None:
        async with limiter:
            outcomes[await one(number)] += 1

    async with trio.open_nursery() as nursery:
        for number in range(REPEATS):
            nursery.start_soon(run, number)
    return outcomes


async def test_too_big_a_message_is_answered_while_its_sender_writes_on(
    serve: Serve, trioweb_log: TakeLog
) -> None:
    """Close 1009 reaches 200 of 200, whether they stop then or not; the header is enough."""
    async with serve(make_app(WEBSOCKET_MAX_SIZE=64 * 1024)) as serving:
        frame = b"\x82\xff" + ANNOUNCED.to_bytes(8, "big") + b"mask"

        def is_close(received: bytes) -> bool:
            return received[:1] == b"\x88" and received[2:4] == (1009).to_bytes(2, "big")

        async def send_too_much(number: int) -> str:
            client = serving.connect()
            await client.open_websocket()
            return await write_while_reading(client, frame, PIECE, is_close, number % 10 == 0)

        assert await repeat(send_too_much) == {"answered": REPEATS}
        await serving.become_idle()
        assert b"200 OK" in await serving.get("/")
    assert not [one for one in trioweb_log() if one.levelname not in ("INFO", "WARNING")]


CHUNK = b"10000\r\n" + PIECE + b"\r\n"


@pytest.mark.parametrize(
    ("framing", "piece"),
    [
        (b"Content-Length: %d" % ANNOUNCED, PIECE),
        (b"Transfer-Encoding: chunked", CHUNK),
    ],
    ids=["sized", "chunked"],
)
async def test_too_big_a_body_is_answered_while_its_sender_writes_on(
    serve: Serve, framing: bytes, piece: bytes, trioweb_log: TakeLog
) -> None:
    """The 413 reaches 200 of 200, refused by the head as well as within the body."""
    head = b"POST / HTTP/1.1\r\nHost: h\r\n" + framing + b"\r\n\r\n"

    def is_refusal(received: bytes) -> bool:
        return received.startswith(b"HTTP/1.1 413 ") and b"\r\n\r\n" in received

    async with serve(make_app(REQUEST_MAX_SIZE=256 * 1024)) as serving:

        async def post_too_much(number: int) -> str:
            client = serving.connect()
            return await write_while_reading(client, head, piece, is_refusal, number % 10 == 0)

        assert await repeat(post_too_much) == {"answered": REPEATS}
        await serving.become_idle()
        assert b"200 OK" in await serving.get("/")
    assert not trioweb_log()


async def test_body_that_nobody_reads_does_not_eat_the_answer(serve: Serve) -> None:
    """A handler that answers without the body, 200 times, to clients that are still writing it."""
    app = make_app()

    @app.post("/deaf")
    async def deaf(request: Any) -> str:
        return "no, thanks"

    def is_answer(received: bytes) -> bool:
        return b"no, thanks" in received

    head = b"POST /deaf HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n" % ANNOUNCED
    async with serve(app) as serving:

        async def post(number: int) -> str:
            client = serving.connect()
            return await write_while_reading(client, head, PIECE, is_answer, number % 10 == 0)

        assert await repeat(post) == {"answered": REPEATS}


# --- clients that leave -----------------------------------------------------------------------


def leave(sock: socket.socket, *, reset: bool) -> None:
    if reset:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def count_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


async def test_clients_that_leave_during_the_handshake_leave_nothing(
    serve: Serve, trioweb_log: TakeLog
) -> None:
    """A thousand of them, at every byte, orderly or not, seen at once or after a while."""
    app = make_app(WEBSOCKET_DISCONNECT_GRACE=0.05)

    @app.on_request
    async def think(request: Any) -> None:
        if "slow" in request.args:
            await trio.sleep_forever()

    @app.websocket("/sleep")
    async def sleep(request: Any, ws: Any) -> None:
        await trio.sleep_forever()

    @app.websocket("/unanswered", accept="manual")
    async def unanswered(request: Any, ws: Any) -> None:
        await trio.sleep_forever()

    targets = [b"/ws", b"/sleep", b"/unanswered", b"/ws?slow=1"]
    whole = [HANDSHAKE % target for target in targets]
    prefixes = [WHOLE[:size] for size in range(len(WHOLE))] + whole
    # Before, within and behind a first frame, whether the 101 was read or not.
    prefixes += [WHOLE + b"\x81\x85maskhello"[:size] for size in range(1, 12)]
    async with serve(app) as serving:
        assert b"200 OK" in await serving.get("/")
        await (await serving.open_websocket()).client.aclose()
        await serving.become_idle()
        await serving.aclose()
        await trio.testing.wait_all_tasks_blocked()
        tasks = trio.lowlevel.current_statistics().tasks_living
        descriptors = count_descriptors()
        made = 0
        while made < 1000 or made % (4 * len(prefixes)):
            prefix = prefixes[made // 4 % len(prefixes)]
            sock = socket.create_connection(serving.address)
            if prefix:
                sock.send(prefix)
            if made & 2:
                # Let the server see what came; at most a few turns of its loop.
                for _ in range(4):
                    await trio.lowlevel.checkpoint()
            leave(sock, reset=bool(made & 1))
            made += 1
            if made % 8 == 0:
                await trio.lowlevel.checkpoint()
        await serving.become_idle()
        await trio.testing.wait_all_tasks_blocked()
        assert count_descriptors() == descriptors
        assert trio.lowlevel.current_statistics().tasks_living == tasks
        assert b"200 OK" in await serving.get("/")
    assert made >= 1000
    assert not [one for one in trioweb_log() if one.levelname != "INFO"]


# --- cancelling serve -------------------------------------------------------------------------


async def silent_peer(serving: Serving) -> Client:
    return (await serving.open_websocket()).client


async def full_socket(serving: Serving) -> Client:
    client = serving.connect(receive_buffer=4096)
    await client.open_websocket("/flood")
    return client


async def half_a_message(serving: Serving) -> Client:
    client = (await serving.open_websocket()).client
    await client.send(b"\x81\xfe\xff\xffmaskhalf")
    return client


async def sleeping_request(serving: Serving) -> Client:
    client = serving.connect()
    await client.send(b"GET /sleep HTTP/1.1\r\nHost: h\r\n\r\n")
    return client


async def unread_response(serving: Serving) -> Client:
    client = serving.connect(receive_buffer=4096)
    await client.send(b"GET /large HTTP/1.1\r\nHost: h\r\n\r\n")
    return client


async def half_a_body(serving: Serving) -> Client:
    client = serving.connect()
    await client.send(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 100\r\n\r\nhalf")
    return client


async def half_a_head(serving: Serving) -> Client:
    client = serving.connect()
    await client.send(WHOLE[:50])
    return client


PEERS = [
    silent_peer,
    full_socket,
    half_a_message,
    sleeping_request,
    unread_response,
    half_a_body,
    half_a_head,
]


async def test_cancelled_serve_ends_within_two_seconds(serve: Serve) -> None:
    """Whatever the peers do; all of them at once, and the server waits for each alone."""
    app = make_app()

    @app.websocket("/flood")
    async def flood(request: Any, ws: Any) -> None:
        while True:
            await ws.send(bytes(4 * 1024 * 1024))

    @app.get("/sleep")
    async def sleep(request: Any) -> str:
        await trio.sleep_forever()
        return "never"

    @app.get("/large")
    async def large(request: Any) -> bytes:
        return bytes(32 * 1024 * 1024)

    async with serve(app) as serving:
        clients = {peer.__name__: await peer(serving) for peer in PEERS}
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert app.connection_count == len(PEERS)
        before = trio.current_time()
        serving.scope.cancel()
        await serving.ended.wait()
        assert trio.current_time() - before < 2
        # Those that can be told are told.
        for name in ("silent_peer", "half_a_message"):
            received = await clients[name].stream.receive_some(100)
            assert received[:1] == b"\x88"
            assert received[2:4] == (1001).to_bytes(2, "big")


@pytest.mark.parametrize("peer", PEERS, ids=[one.__name__ for one in PEERS])
async def test_cancelled_serve_leaves_nothing(serve: Serve, peer: Any) -> None:
    """One kind of peer at a time: no task remains and the socket is closed."""
    app = make_app()

    @app.websocket("/flood")
    async def flood(request: Any, ws: Any) -> None:
        await ws.send(bytes(4 * 1024 * 1024))
        await ws.send("behind it")

    @app.get("/sleep")
    async def sleep(request: Any) -> str:
        await trio.sleep_forever()
        return "never"

    @app.get("/large")
    async def large(request: Any) -> bytes:
        return bytes(32 * 1024 * 1024)

    tasks = trio.lowlevel.current_statistics().tasks_living
    descriptors = count_descriptors()
    async with serve(app) as serving:
        await peer(serving)
        await trio.testing.wait_all_tasks_blocked(0.02)
        before = trio.current_time()
        serving.scope.cancel()
        await serving.ended.wait()
        assert trio.current_time() - before < 2
    assert trio.lowlevel.current_statistics().tasks_living == tasks
    assert count_descriptors() == descriptors


# --- handlers that crash, clean up or never look ----------------------------------------------


async def test_crash_of_a_handler_stays_its_own(serve: Serve, trioweb_log: TakeLog) -> None:
    """1011 without a word of it, one record with the traceback, and everyone else goes on."""
    app = make_app()

    @app.websocket("/crash")
    async def crash(request: Any, ws: Any) -> None:
        await ws.recv()
        raise RuntimeError("the password is hunter2")

    @app.websocket("/group")
    async def group(request: Any, ws: Any) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(crash, request, ws)
            await trio.sleep_forever()

    @app.websocket("/helper")
    async def helper(request: Any, ws: Any) -> None:
        ws.nursery.start_soon(crash, request, ws)
        await trio.sleep_forever()

    @app.get("/crash-http")
    async def crash_http(request: Any) -> str:
        raise RuntimeError("the password is hunter2")

    async with serve(app) as serving:
        other = await serving.open_websocket()
        for path in ("/crash", "/group", "/helper"):
            peer = await serving.open_websocket(path)
            await peer.send("go")
            code, reason = await peer.next_close()
            assert code == 1011
            assert "hunter2" not in reason
            assert "RuntimeError" not in reason
            [record] = trioweb_log()
            assert record.levelname == "ERROR"
            assert record.exc_info is not None
            await other.send(path)
            assert await other.next_text() == path
        answer = await serving.get("/crash-http")
        assert answer.startswith(b"HTTP/1.1 500 ")
        assert b"hunter2" not in answer
        [record] = trioweb_log()
        assert record.levelname == "ERROR"
        assert b"200 OK" in await serving.get("/")


async def test_cleanup_after_an_abort_still_sends_to_the_others(
    serve: Serve, trioweb_log: TakeLog
) -> None:
    """`finally` runs after a RST, whether the handler was receiving, sending or asleep."""
    app = TrioWeb(config={"WEBSOCKET_DISCONNECT_GRACE": 0.1, "WEBSOCKET_PING_INTERVAL": None})
    members: set[Any] = set()

    @app.websocket("/<way>")
    async def member(request: Any, ws: Any, way: str) -> None:
        members.add(ws)
        try:
            await ws.send("welcome")
            if way == "receiving":
                async for _ in ws:
                    pass
            elif way == "sending":
                while True:
                    await ws.send("tick")
                    await trio.sleep(0.005)
            else:
                await trio.sleep_forever()
        finally:
            members.discard(ws)
            with trio.CancelScope(shield=True, deadline=trio.current_time() + 1):
                for other in set(members):
                    await other.send(f"{way} has left")

    async with serve(app) as serving:
        watcher = await serving.open_websocket("/receiving")
        assert await watcher.next_text() == "welcome"
        for way in ("receiving", "sending", "sleeping"):
            peer = await serving.open_websocket(f"/{way}")
            assert await peer.next_text() == "welcome"
            await peer.client.abort()
            assert await watcher.next_text() == f"{way} has left"
        assert len(members) == 1
    assert not [one for one in trioweb_log() if one.levelname != "INFO"]


@pytest.mark.parametrize("leaving", ["close", "end", "reset"])
async def test_handler_that_never_receives_ends_after_its_peer(
    serve: Serve, leaving: str, trioweb_log: TakeLog
) -> None:
    """One that sends, one that sleeps, one with a pusher in ws.nursery; within the grace."""
    app = TrioWeb(config={"WEBSOCKET_DISCONNECT_GRACE": 0.2})
    ended: list[str] = []

    @app.websocket("/<way>")
    async def handler(request: Any, ws: Any, way: str) -> None:
        async def push() -> None:
            try:
                while True:
                    await ws.send("tick")
                    await trio.sleep(0.005)
            finally:
                ended.append(f"{way} push")

        try:
            if way == "sends":
                await push()
            elif way == "pusher":
                ws.nursery.start_soon(push)
            await trio.sleep_forever()
        finally:
            ended.append(way)

    async with serve(app) as serving:
        for way in ("sends", "sleeps", "pusher"):
            ended.clear()
            peer = await serving.open_websocket(f"/{way}")
            await trio.testing.wait_all_tasks_blocked()
            before = trio.current_time()
            if leaving == "close":
                await peer.client.send(b"\x88\x82mask" + bytes([0x03 ^ 0x6D, 0xE8 ^ 0x61]))
                code, _ = await peer.next_close(answer=False)
                assert code == 1000
                await peer.client.aclose()
            elif leaving == "end":
                await peer.client.aclose()
            else:
                await peer.client.abort()
            await serving.become_idle()
            assert trio.current_time() - before < 1.5
            expected = {"sends": ["sends push", "sends"], "sleeps": ["sleeps"]}
            if way == "pusher":
                assert set(ended) == {"pusher", "pusher push"}
            else:
                assert ended == expected[way]
            assert len(trioweb_log()) <= 1


async def test_no_handler_outlives_its_grace(serve: Serve) -> None:
    """Of hundreds that sleep on behind their peers' Close, not one is forgotten.

    The Close and the end of the stream a moment later both set the grace's deadline.
    """
    app = TrioWeb(config={"WEBSOCKET_DISCONNECT_GRACE": 0.1})

    @app.websocket("/ws")
    async def sleep(request: Any, ws: Any) -> None:
        await trio.sleep_forever()

    async with serve(app) as serving:
        for _ in range(2):
            peers = [await serving.open_websocket() for _ in range(300)]
            for peer in peers:
                await peer.client.send(b"\x88\x82mask" + bytes([0x03 ^ 0x6D, 0xE8 ^ 0x61]))
                await peer.next_close(answer=False)
                await peer.client.aclose()
            await trio.sleep(0.1)
            with trio.move_on_after(1):
                await serving.become_idle()
            assert app.connection_count == 0


# --- shutdown ---------------------------------------------------------------------------------


async def test_shutdown_tells_every_websocket_and_serve_returns(
    serve: Serve, trioweb_log: TakeLog
) -> None:
    """1001 to all of them, whatever their handlers do; idle keep-alive connections just end."""
    app = make_app(WEBSOCKET_DISCONNECT_GRACE=0.2)

    @app.websocket("/sleep")
    async def sleep(request: Any, ws: Any) -> None:
        await trio.sleep_forever()

    @app.websocket("/push")
    async def push(request: Any, ws: Any) -> None:
        while True:
            await ws.send("tick")
            await trio.sleep(0.005)

    @app.get("/slow")
    async def slow(request: Any) -> str:
        await trio.sleep(0.3)
        return "finished"

    async with serve(app) as serving:
        peers = [await serving.open_websocket(path) for path in ("/ws", "/sleep", "/push") * 10]
        idle = [serving.connect() for _ in range(10)]
        for number, client in enumerate(idle):
            if number % 2:  # the others have not asked anything yet
                await client.send(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
                head, _ = await client.read_head()
                assert b" 200 OK" in head
        busy = serving.connect()
        await busy.send(b"GET /slow HTTP/1.1\r\nHost: h\r\n\r\n")
        await trio.testing.wait_all_tasks_blocked()
        before = trio.current_time()
        app.shutdown()
        for client in idle:
            assert await client.read_all() in (b"", b"0")
        assert trio.current_time() - before < 0.25
        for peer in peers:
            assert (await peer.next_close())[0] == 1001
        answer = await busy.read_all()
        assert b"Connection: close" in answer
        assert answer.endswith(b"finished")
        with trio.fail_after(2):
            await serving.ended.wait()
        assert not serving.scope.cancel_called
        with pytest.raises(ConnectionRefusedError):
            serving.connect()
    assert not [one for one in trioweb_log() if one.levelname not in ("INFO",)]
