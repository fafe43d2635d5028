"""Broadcasts: encoded once, from anywhere, to anybody."""

from __future__ import annotations

import dataclasses
import random
import threading
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
import trio
from trio.testing import assert_no_checkpoints, wait_all_tasks_blocked
from wsproto.extensions import PerMessageDeflate

from tests.rooms.conftest import idle, open_stage, sockets, staying_in
from trioweb import BroadcastResult, TrioWeb, get
from trioweb.http import jsoncodec
from trioweb.testing import open_client
from trioweb.ws.deflate import Compressors

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from tests.rooms.conftest import Peer
    from trioweb import Request, Websocket


# What is sent


@dataclasses.dataclass
class Move:
    x: int


@pytest.mark.parametrize(
    ("data", "encoding", "message"),
    [
        ("grüße", "text", "grüße"),
        (b"raw", "text", b"raw"),
        (bytearray(b"raw"), "text", b"raw"),
        (memoryview(b"raw"), "text", b"raw"),
        ({"x": [1]}, "text", '{"x":[1]}'),
        ([1, 2], "text", "[1,2]"),
        (Move(3), "text", '{"x":3}'),
        ("quoted", "json", '"quoted"'),
        (None, "json", "null"),
        ("bytes", "bytes", b"bytes"),
        ("", "text", ""),
    ],
)
async def test_data_is_encoded_as_by_send(data: Any, encoding: str, message: Any) -> None:
    async with open_stage() as stage:
        peers = await stage.connect_all([staying_in("a")] * 2)
        assert stage.app.room("a").broadcast(data, encoding) == BroadcastResult(2, 0, 0)
        await stage.settle()
        assert [peer.take() for peer in peers] == [[message], [message]]


async def test_what_the_caller_changes_afterwards_is_not_sent() -> None:
    """Also to a member for whom it waits."""
    async with open_stage() as stage:
        peer = await stage.connect(staying_in("a"))
        peer.is_stalled = True
        data = bytearray(b"." * 5000)
        value = {"x": 1}
        stage.app.room("a").broadcast(data)
        stage.app.room("a").broadcast(value)
        data[:] = b"!" * 5000
        value["x"] = 2
        peer.is_stalled = False
        await stage.settle()
        assert peer.take() == [b"." * 5000, '{"x":1}']


async def test_it_is_encoded_once_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever is excluded, slow or gone."""
    encoded: list[Any] = []
    encode = jsoncodec.encode

    def counted(value: Any) -> bytes:
        encoded.append(value)
        return encode(value)

    async with open_stage() as stage:
        peers = await stage.connect_all([staying_in("a")] * 5)
        peers[0].is_stalled = True
        stage.app.room("a").broadcast("x" * 9000)
        await stage.settle()
        peers[1].abort()
        monkeypatch.setattr(jsoncodec, "encode", counted)
        stage.app.room("a").broadcast({"n": 1}, exclude=peers[2].ws)
        assert encoded == [{"n": 1}]
        peers[0].is_stalled = False
        await stage.settle()
        assert encoded == [{"n": 1}]
        assert [peer.take()[-1] for peer in (peers[0], *peers[3:])] == ['{"n":1}'] * 3


async def test_it_is_compressed_once_for_those_that_share_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Who has a window of its own gets its own, who compresses nothing gets it plain."""
    compressed: list[int] = []
    compress = Compressors.compress

    def counted(self: Compressors, payload: bytes, bits: int) -> bytes:
        compressed.append(bits)
        return compress(self, payload, bits)

    monkeypatch.setattr(Compressors, "compress", counted)
    async with open_stage(
        WEBSOCKET_COMPRESSION="deflate", WEBSOCKET_COMPRESSION_THRESHOLD=100
    ) as stage:
        peers = await stage.connect_all([staying_in("a")] * 2)
        for bits in (15, 10, 15, 10, 15):
            deflate = PerMessageDeflate(server_max_window_bits=bits)
            peers.append(await stage.connect(staying_in("a"), deflate=deflate))
        before = [peer.bytes_received for peer in peers]
        for number in range(3):
            stage.app.room("a").broadcast(f"{number}" * 1000)
        stage.app.room("a").broadcast("short")
        await stage.settle()
        assert sorted(compressed) == [10] * 3 + [15] * 3
        sizes = [peer.bytes_received - size for peer, size in zip(peers, before, strict=True)]
        assert min(sizes[:2]) > 3000
        assert max(sizes[2:]) < 200
        for peer in peers:
            assert peer.take() == ["0" * 1000, "1" * 1000, "2" * 1000, "short"]


async def test_with_context_takeover_broadcasts_do_not_disturb_the_context() -> None:
    """They go plain between messages that refer to each other."""

    async def handler(ws: Websocket) -> None:
        async with ws.app.room("a").join(ws) as room:
            for number in range(3):
                await ws.send("context " * 50 + str(number))
                room.broadcast("broadcast " * 50 + str(number))
            await idle(ws)

    async with open_stage(
        WEBSOCKET_COMPRESSION="deflate-context", WEBSOCKET_COMPRESSION_THRESHOLD=10
    ) as stage:
        peer = await stage.connect(handler, deflate=PerMessageDeflate())
        # Of which the context compresses its own.
        assert 3 * len("broadcast " * 50) < peer.bytes_received < 4 * len("broadcast " * 50)
        assert peer.take() == [
            f"{word} " * 50 + str(number)
            for number in range(3)
            for word in ("context", "broadcast")
        ]


@pytest.mark.parametrize("policy", ["disconnect", "drop_oldest"])
async def test_a_message_may_be_larger_than_the_bound_of_its_members(policy: str) -> None:
    """It arrives whole, one after the other; only one that waits can be in its way."""
    async with open_stage(WEBSOCKET_SEND_QUEUE_BYTES=1000) as stage:
        peers = await stage.connect_all([staying_in("a", policy=policy)] * 5)
        for seed in range(3):
            large = random.Random(seed).randbytes(1_500_000)
            assert stage.app.room("a").broadcast(large) == BroadcastResult(5, 0, 0)
            await stage.settle()
            assert [peer.take() for peer in peers] == [[large]] * 5


@pytest.mark.parametrize("policy", ["disconnect", "drop_oldest"])
async def test_whoever_was_not_written_to_is_not_slow(policy: str) -> None:
    """A large message takes the others' part of the slice; a member's fate is not its place."""
    async with open_stage(buffer=1 << 20, WEBSOCKET_SEND_QUEUE_BYTES=1000) as stage:
        peers = await stage.connect_all([staying_in("a", policy=policy)] * 40)
        large = bytes(100_000)
        results = [stage.app.room("a").broadcast(large) for _ in range(3)]
        await stage.settle()
        assert results == [BroadcastResult(40, 0, 0)] * 3
        assert [len(peer.take()) for peer in peers] == [3] * 40


# Who broadcasts


async def test_an_http_handler_broadcasts_be_it_async_or_a_thread() -> None:
    """It is no member; a ``def`` handler does it by way of ``trio.from_thread``."""

    @get("/async")
    async def tell(request: Request) -> dict[str, int]:
        return request.app.room("a").broadcast("async")._asdict()  # type: ignore[no-any-return]

    @get("/thread")
    def tell_from_thread(request: Request) -> dict[str, int]:
        result = trio.from_thread.run_sync(request.app.room("a").broadcast, "thread")
        return result._asdict()  # type: ignore[no-any-return]

    app = TrioWeb(routes=[tell, tell_from_thread])
    app.add_websocket_route(staying_in("a"), "/")
    async with (
        open_client(app) as client,
        client.websocket("/") as first,
        client.websocket("/") as second,
    ):
        await wait_all_tasks_blocked()
        for path in ("async", "thread"):
            answer = await client.get(f"/{path}")
            assert answer.json() == {"sent": 2, "dropped": 0, "closed": 0}
            for ws in (first, second):
                await ws.expect(path)
                await ws.expect_silence(0)


@pytest.mark.parametrize("members", [0, 2])
@pytest.mark.parametrize("kind", ["of trio", "raw"])
async def test_a_broadcast_straight_from_a_thread_is_an_error_that_says_what_to_do(
    members: int, kind: str
) -> None:
    """In an empty room too, lest it is found out when there are members."""
    async with open_stage() as stage:
        peers = await stage.connect_all([staying_in("a")] * members)
        errors: list[BaseException] = []

        def broadcast() -> None:
            try:
                stage.app.room("a").broadcast("x")
            except RuntimeError as error:
                errors.append(error)

        if kind == "raw":
            thread = threading.Thread(target=broadcast)
            thread.start()
            thread.join()
        else:
            await trio.to_thread.run_sync(broadcast)
        assert len(errors) == 1
        assert "trio.from_thread.run_sync" in str(errors[0])
        await stage.settle()
        assert [peer.take() for peer in peers] == [[]] * members


async def test_the_lifespan_and_its_tasks_broadcast(autojump_clock: trio.testing.MockClock) -> None:
    """Before anybody is there, from a task of app.nursery, and when all have left."""
    results: list[BroadcastResult] = []

    async def tick(app: TrioWeb) -> None:
        while True:
            await trio.sleep(60)
            results.append(app.room("a").broadcast("tick"))

    @asynccontextmanager
    async def lifespan(app: TrioWeb) -> AsyncGenerator[None]:
        results.append(app.room("a").broadcast("nobody is there"))
        app.nursery.start_soon(tick, app)
        yield
        results.append(app.room("a").broadcast("nobody is left"))

    app = TrioWeb(lifespan=lifespan)
    app.add_websocket_route(staying_in("a"), "/")
    async with (
        open_client(app) as client,
        client.websocket("/") as first,
        client.websocket("/") as second,
    ):
        for ws in (first, second):
            for _ in range(2):
                await ws.expect("tick", timeout=61)
        assert trio.current_time() == 120
        await second.expect_silence(59)
    nobody = BroadcastResult(0, 0, 0)
    both = BroadcastResult(2, 0, 0)
    assert results == [nobody, both, both, nobody]


# What comes of it


async def test_the_result_counts_members() -> None:
    """Those that took it, those that turned out to be lost; not those that had left before."""
    async with open_stage() as stage:
        peers = await stage.connect_all([staying_in("a")] * 6)
        room = stage.app.room("a")
        peers[0].leave()
        await stage.settle()
        peers[1].is_stalled = True
        assert room.broadcast("x" * 5000) == BroadcastResult(5, 0, 0)
        await stage.settle()
        # Nothing of this is known until it is tried.
        peers[2].abort()
        peers[3].abort()
        assert room.broadcast("y", exclude=peers[4].ws) == BroadcastResult(2, 0, 2)
        assert room.broadcast("z", exclude=[peers[4].ws]) == BroadcastResult(2, 0, 0)
        assert sockets(room) == [peer.ws for peer in (peers[1], peers[4], peers[5])]
        peers[1].is_stalled = False
        await stage.settle()
        assert [peer.take() for peer in peers[1:]] == [
            ["x" * 5000, "y", "z"],
            ["x" * 5000],
            ["x" * 5000],
            ["x" * 5000],
            ["x" * 5000, "y", "z"],
        ]


async def test_a_broadcast_takes_no_checkpoint_and_works_in_a_cancelled_scope() -> None:
    async with open_stage() as stage:
        peers: list[Peer] = await stage.connect_all([staying_in("a")] * 2)
        with trio.CancelScope() as scope:
            scope.cancel()
            try:
                await trio.sleep_forever()
            finally:
                with assert_no_checkpoints():
                    result = stage.app.room("a").broadcast("x")
        assert result == BroadcastResult(2, 0, 0)
        await stage.settle()
        assert [peer.take() for peer in peers] == [["x"], ["x"]]
