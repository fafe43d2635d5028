"""A virtual clock beside worker threads, and what can't be seen by it."""

from __future__ import annotations

import threading
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
import trio

from trioweb import TrioWeb, Websocket
from trioweb.testing import clock, link_pair, open_client, serving

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from trio.testing import MockClock


class Threaded:
    """An application with a handler that runs in a worker thread until it is let go."""

    def __init__(self) -> None:
        self.app = TrioWeb("threaded")
        self.has_begun, self.may_end = threading.Event(), threading.Event()
        self.app.get("/")(self.compute)

        @self.app.websocket("/ws")
        async def echo(ws: Websocket) -> None:
            async for message in ws:
                await ws.send(message)

    def compute(self) -> str:
        self.has_begun.set()
        assert self.may_end.wait(10)
        return "done"

    async def begin(self) -> None:
        """Wait for the thread, by a thread that holds the clock as well."""
        await trio.to_thread.run_sync(self.has_begun.wait, 10, limiter=self.app.limiter)  # type: ignore[arg-type]  # trio takes what has its two methods


async def let_real_time_pass() -> None:
    """By a thread that the clock does not see, so that it would jump if nobody held it."""
    await trio.to_thread.run_sync(time.sleep, 0.02, limiter=trio.CapacityLimiter(1))


async def test_threads_of_the_users_own_hold_the_clock(autojump_clock: MockClock) -> None:
    """Those that Trio's own limiter counts, in a handler's last words as well."""
    app = TrioWeb("saving")
    saved: list[float] = []

    @app.websocket("/")
    async def save(ws: Websocket) -> None:
        await ws.recv()
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(time.sleep, 0.02)
        saved.append(trio.current_time())

    async with open_client(app) as client, client.websocket("/") as ws:
        await ws.send("x")
        await ws.expect_close()
        assert saved == [0.0]
        await trio.sleep(60)
    assert trio.current_time() == 60


async def test_time_stands_still_while_a_thread_computes(autojump_clock: MockClock) -> None:
    """No deadline passes meanwhile: not that of the request, nor any other."""
    threaded = Threaded()
    async with open_client(threaded.app) as client, trio.open_nursery() as nursery:
        nursery.start_soon(trio.sleep, 3600)

        async def get() -> None:
            assert (await client.get("/")).text == "done"

        nursery.start_soon(get)
        await threaded.begin()
        await let_real_time_pass()
        assert trio.current_time() == 0
        threaded.may_end.set()
    assert trio.current_time() == 3600
    assert autojump_clock.autojump_threshold == 0


async def test_a_thread_that_was_abandoned_holds_the_clock_too(autojump_clock: MockClock) -> None:
    """It computes on behalf of nobody, but what it does next may matter."""
    threaded = Threaded()
    ours, theirs = link_pair()
    scope = trio.CancelScope()

    async def serve() -> None:
        with scope:
            await threaded.app.serve_stream(theirs)

    async with open_client(threaded.app), trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        await ours.send_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        await threaded.begin()
        scope.cancel()
        nursery.start_soon(trio.sleep, 60)
        await let_real_time_pass()
        assert trio.current_time() == 0
        threaded.may_end.set()
    assert trio.current_time() == 60


async def test_real_time(autojump_clock: MockClock) -> None:
    """In its block a second is a second; behind it an hour is none."""
    async with open_client(Threaded().app) as client, client.websocket("/ws") as ws:
        began = time.perf_counter()
        with client.real_time():
            with client.real_time():
                await trio.sleep(0.02)
            await let_real_time_pass()
            assert trio.current_time() < 5
            await ws.send("x")
            await ws.expect("x")
        assert time.perf_counter() - began >= 0.02
        await trio.sleep(3600)
        assert 3600 < trio.current_time() < 3605
    assert (autojump_clock.autojump_threshold, autojump_clock.rate) == (0, 0)


async def test_with_a_real_clock_nothing_is_held() -> None:
    threaded = Threaded()
    threaded.may_end.set()
    limiter = threaded.app.limiter
    async with open_client(threaded.app) as client:
        assert threaded.app.limiter is limiter
        with client.real_time():
            assert (await client.get("/")).text == "done"


async def test_a_second_client_lets_the_first_ones_limiter_be(autojump_clock: MockClock) -> None:
    app = TrioWeb()
    async with open_client(app):
        holding = app.limiter
        async with open_client(app):
            assert app.limiter is holding
        assert app.limiter is holding
    assert app.limiter is not holding


async def test_the_limiter_is_given_back(autojump_clock: MockClock) -> None:
    threaded = Threaded()
    limiter = threaded.app.limiter
    async with open_client(threaded.app):
        assert threaded.app.limiter is not limiter
    assert threaded.app.limiter is limiter


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What takes so long in real time that nobody would wait for it takes less."""
    monkeypatch.setattr(clock, "STANDSTILL", 0.05)
    monkeypatch.setattr(serving, "SETTLING", 0.02)


def make_spinning_app() -> TrioWeb:
    app = TrioWeb("spinning")

    @app.websocket("/spin")
    async def spin(ws: Websocket) -> None:
        while True:
            await trio.lowlevel.checkpoint()

    @app.websocket("/echo")
    async def echo(ws: Websocket) -> None:
        async for message in ws:
            await ws.send(message)

    return app


async def test_who_spins_does_not_hold_up_the_test_for_ever(
    autojump_clock: MockClock, impatient: None
) -> None:
    """The clock can't jump, so that what waits for time is ended by real time."""
    async with open_client(make_spinning_app()) as client, client.websocket("/spin") as ws:
        with pytest.raises(trio.TooSlowError, match=r"the virtual clock has stood still .* spin"):
            await ws.recv()
        with pytest.raises(trio.TooSlowError, match="the virtual clock has stood still"):
            await ws.expect_close()
    assert trio.current_time() == 0


async def test_a_session_can_be_left_while_others_are_busy(impatient: None) -> None:
    """It is not waited until nobody has anything to do."""
    async with open_client(make_spinning_app()) as client, client.websocket("/spin"):
        for _ in range(3):
            async with client.websocket("/echo") as ws:
                await ws.send("x")
                await ws.expect("x")


async def test_much_work_in_one_moment_is_no_standstill(
    autojump_clock: MockClock, impatient: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As long as it takes less than the bound, whatever was before."""
    monkeypatch.setattr(clock, "STANDSTILL", 30)
    async with open_client(make_spinning_app()) as client, client.websocket("/echo") as ws:
        for number in range(1000):
            await ws.send(str(number))
            await ws.expect(str(number))
        await ws.expect_silence(3600)


async def test_a_thread_that_waits_for_time_gets_real_time(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may call back, and wait there; then the clock is as it was."""
    monkeypatch.setattr(clock, "HELD_STILL", 0.02)
    app = TrioWeb("calling back")

    @app.get("/")
    def call_back() -> str:
        trio.from_thread.run(trio.sleep, 0.05)
        return "done"

    async with open_client(app) as client:
        assert (await client.get("/")).text == "done"
        assert 0.05 <= trio.current_time() < 5
        assert (autojump_clock.autojump_threshold, autojump_clock.rate) == (0, 0)


async def test_a_thread_that_hangs_fails_the_test(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clock, "HELD_STILL", 0.02)
    threaded = Threaded()
    async with open_client(threaded.app) as client:
        with pytest.raises(trio.TooSlowError, match=r"waited 0.05 s"):
            await client.get("/", timeout=0.05)
        threaded.may_end.set()


async def test_blocks_of_real_time_overlap(autojump_clock: MockClock) -> None:
    """Time is real until the last one is left."""
    async with open_client(TrioWeb()) as client:
        left = trio.Event()

        async def leave_first() -> None:
            with client.real_time():
                await trio.sleep(0.01)
            left.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(leave_first)
            with client.real_time():
                await left.wait()
                await trio.sleep(0.01)
    assert (autojump_clock.autojump_threshold, autojump_clock.rate) == (0, 0)


async def test_silence_is_no_standstill(autojump_clock: MockClock, impatient: None) -> None:
    """Nothing came, but no time has gone by either."""
    async with open_client(make_spinning_app()) as client, client.websocket("/spin") as ws:
        with pytest.raises(trio.TooSlowError, match=r"stood still .* for 3600 s of silence"):
            await ws.expect_silence(3600)


async def test_a_limiter_of_the_lifespan_holds_the_clock_too(autojump_clock: MockClock) -> None:
    """It is the user's own again afterwards, with what was set meanwhile."""
    own = trio.CapacityLimiter(2)

    @asynccontextmanager
    async def lifespan(app: TrioWeb) -> AsyncGenerator[None]:
        app.limiter = own
        yield

    threaded = Threaded()
    app = TrioWeb(lifespan=lifespan)
    app.get("/")(threaded.compute)
    async with open_client(app) as client, trio.open_nursery() as nursery:
        nursery.start_soon(trio.sleep, 60)
        nursery.start_soon(client.get, "/")
        await trio.to_thread.run_sync(
            threaded.has_begun.wait,
            10,
            limiter=app.limiter,  # type: ignore[arg-type]
        )
        await let_real_time_pass()
        assert trio.current_time() == 0
        limiter: Any = app.limiter
        assert limiter.borrowed_tokens == 1
        limiter.total_tokens = 3
        threaded.may_end.set()
    assert app.limiter is own
    assert own.total_tokens == 3


async def test_a_clock_that_nobody_moves_fails_the_test(
    mock_clock: MockClock, impatient: None
) -> None:
    """It does not jump by itself, and the test that could move it waits."""
    async with open_client(make_spinning_app()) as client, client.websocket("/echo") as ws:
        with pytest.raises(trio.TooSlowError, match="the virtual clock has stood still"):
            await ws.recv()
        await ws.send("x")
        await ws.expect("x")
        mock_clock.jump(5)
