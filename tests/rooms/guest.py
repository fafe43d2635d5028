"""A trio run for tests that are not async: it stands still between two calls."""

from __future__ import annotations

import queue
from typing import TYPE_CHECKING, Any, TypeVar

import outcome
import trio

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

T = TypeVar("T")

# Seconds in which some task of the run has to do something; only a test that hangs needs them.
PATIENCE = 30


class PausedRun:
    """Runs trio as a guest of a loop that turns only while something is asked of it.

    Args:
        serve: the run's main function; given an async iterator of what it has to call.
        clock: of the run.
    """

    def __init__(
        self,
        serve: Callable[[trio.MemoryReceiveChannel[Any]], Awaitable[None]],
        clock: trio.testing.MockClock,
    ) -> None:
        self._clock = clock
        self._turns: queue.SimpleQueue[Callable[[], object]] = queue.SimpleQueue()
        self._end: outcome.Outcome[None] | None = None
        self._serve = serve
        self._calls: trio.MemorySendChannel[Any]
        self._scope = trio.CancelScope()
        self._token: trio.lowlevel.TrioToken | None = None
        trio.lowlevel.start_guest_run(
            self._main,
            run_sync_soon_threadsafe=self._turns.put,
            done_callback=self._done,
            clock=clock,
        )
        self._turn_until(lambda: self._token is not None)

    def call(self, function: Callable[[], Awaitable[T]]) -> T:
        """Run an async function in the run's main task; everything goes on until it returns.

        Raises:
            BaseException: what it raised, or what ended the run.
        """
        results: list[outcome.Outcome[T]] = []

        async def call() -> None:
            results.append(await outcome.acapture(function))

        self._soon(lambda: self._calls.send_nowait(call))
        self._turn_until(lambda: bool(results))
        return results[0].unwrap()

    def close(self) -> None:
        """Let the main function come to its end.

        Raises:
            BaseException: what it raised.
        """
        self._soon(lambda: self._calls.close())
        self._turn_until(lambda: False)
        assert self._end is not None
        self._end.unwrap()

    def cancel(self) -> None:
        """End it at once, if it has not ended, whatever comes of it."""

        def cancel() -> None:
            self._scope.cancel()
            self._clock.autojump_threshold = 0  # what is shielded from this may take its time

        if self._end is None:
            self._soon(cancel)
            self._turn_until(lambda: False)

    async def _main(self) -> None:
        self._calls, calls = trio.open_memory_channel[Any](1)
        with self._scope:
            self._token = trio.lowlevel.current_trio_token()
            await self._serve(calls)

    def _done(self, end: outcome.Outcome[None]) -> None:
        self._end = end

    def _soon(self, function: Callable[[], object]) -> None:
        assert self._token is not None
        try:
            self._token.run_sync_soon(function)
        except trio.RunFinishedError:
            pass

    def _turn_until(self, is_done: Callable[[], bool]) -> None:
        while not is_done() and self._end is None:
            self._turns.get(timeout=PATIENCE)()
