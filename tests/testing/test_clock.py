"""A virtual clock beside worker threads, and what can't be seen by it."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import trio

from trioweb import TrioWeb, Websocket
from trioweb.testing import link_pair, open_client

if TYPE_CHECKING:
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
    await trio.to_thread.run_sync(time.sleep, 0.02)


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


async def test_the_limiter_is_given_back(autojump_clock: MockClock) -> None:
    threaded = Threaded()
    limiter = threaded.app.limiter
    async with open_client(threaded.app):
        assert threaded.app.limiter is not limiter
    assert threaded.app.limiter is limiter
