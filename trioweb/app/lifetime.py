"""The time in which an application lives: its lifespan, its nursery, its server.

Theory of operation. ``app.nursery`` must end between the drain and the lifespan's exit, while the
lifespan's own code runs uncancelled. So it is not a nursery around the lifespan's block: a task of
its own holds the nursery, and ``AppNursery.aclose`` cancels it and waits. A crash in it is kept
and begins the drain instead of cancelling the connections; it is raised at the very end.

A nursery wraps what its block raises in a group. What comes out of here is what was raised: it is
kept on its way through the nursery and raised again behind it.
"""

from __future__ import annotations

import inspect
import logging
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from typing import TYPE_CHECKING, TypeVarTuple, cast

import trio

from trioweb.ws.groups import first_failure
from trioweb.ws.held_nursery import HeldNursery
from trioweb.ws.nursery import start_task

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

    from trioweb.net.ticker import Ticker
    from trioweb.rooms import Rooms
    from trioweb.types import Lifespan

logger = logging.getLogger("trioweb")

Ts = TypeVarTuple("Ts")


class AppNursery:
    """``app.nursery``: tasks that live from lifespan to drain.

    A task that raises drains the server, which then raises the same exception.

    Args:
        crashed: called once, when the first task has raised.
    """

    def __init__(self, crashed: Callable[[], None]) -> None:
        self._crashed = crashed
        self._held = HeldNursery()
        self.error: BaseException | None = None

    @property
    def cancel_scope(self) -> trio.CancelScope:
        """Cancelling it ends the tasks; the server goes on."""
        return self._open().cancel_scope

    def start_soon(
        self,
        async_fn: Callable[[*Ts], Awaitable[object]],
        *args: *Ts,
        name: object = None,
    ) -> None:
        """Start a task.

        Args:
            async_fn: the task's body.
            args: its positional arguments.
            name: shown by debuggers; by default the function's.

        Raises:
            RuntimeError: the application does not run.
        """
        self._open().start_soon(self._guard, async_fn, args, name=name or async_fn)

    async def start(
        self, async_fn: Callable[..., Awaitable[object]], *args: object, name: object = None
    ) -> object:
        """Start a task and wait until it calls ``task_status.started()``.

        Returns:
            What the task passed to ``started()``.

        Raises:
            RuntimeError: the application does not run, or the task ended without ``started()``.

        Cancellation:
            Cancels the task, if it has not called ``started()`` yet.
        """
        return await start_task(self._open(), async_fn, args, name or async_fn, self._keep)

    async def hold(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Hold the nursery open until ``aclose``; the body of a task."""
        await self._held.hold(task_status)

    async def aclose(self) -> None:
        """Cancel the tasks and wait for their end, however long they shield themselves."""
        await self._held.aclose()

    def _open(self) -> trio.Nursery:
        if self._held.nursery is None:
            raise RuntimeError("app.nursery is open from the lifespan's start to the drain's end")
        return self._held.nursery

    async def _guard(
        self, async_fn: Callable[..., Awaitable[object]], args: tuple[object, ...]
    ) -> None:
        try:
            await async_fn(*args)
        except Exception as exc:
            self._keep(exc)

    def _keep(self, error: BaseException) -> None:
        if self.error is not None:
            logger.error("another task of app.nursery crashed", exc_info=error)
            return
        logger.error("a task of app.nursery crashed; the server drains")
        self.error = error
        self._crashed()


@asynccontextmanager
async def open_lifetime(
    app: object, lifespan: Lifespan | None, nursery: AppNursery, rooms: Rooms, ticker: Ticker
) -> AsyncGenerator[None, None]:
    """Enter a lifespan with an open nursery; leave the nursery first, then the lifespan.

    Args:
        app: given to the lifespan.
        lifespan: an async context manager function; None: there is none.
        nursery: opened here.
        rooms: run in the lifespan's context.
        ticker: run here.

    Raises:
        Exception: what the block raised, else the first crash of the nursery, as it was raised.
    """
    error: BaseException | None = None
    try:
        async with trio.open_nursery() as holder:
            await holder.start(nursery.hold)
            ticking = HeldNursery()  # around the lifespan, which may serve connections itself
            await holder.start(ticking.hold)
            await trio.lowlevel.checkpoint_if_cancelled()
            assert ticking.nursery is not None
            ticking.nursery.start_soon(ticker.loop)
            try:
                async with _enter(app, lifespan):
                    running = HeldNursery()
                    try:
                        await holder.start(running.hold)
                        # Cancelled meanwhile, it holds nothing any more, and neither should we.
                        await trio.lowlevel.checkpoint_if_cancelled()
                        assert running.nursery is not None
                        await running.nursery.start(rooms.run)
                        yield
                    finally:
                        await nursery.aclose()
                        await running.aclose()
                # Who is still served would be so without a deadline.
                ticker.abandon()
            except BaseException as exc:
                error = exc
            finally:
                await nursery.aclose()
                await ticking.aclose()
    except BaseExceptionGroup as group:
        # Only what must go through comes this way: KeyboardInterrupt in a task, and Cancelled,
        # which says less than what the block has raised.
        leaf = first_failure(group)
        if error is None or not isinstance(leaf, trio.Cancelled):
            raise leaf from None
    if error is not None:
        if nursery.error is not None and nursery.error is not error:
            logger.error("a task of app.nursery had crashed", exc_info=nursery.error)
        raise error
    if nursery.error is not None:
        raise nursery.error


def _enter(app: object, lifespan: Lifespan | None) -> AbstractAsyncContextManager[object]:
    if lifespan is None:
        return nullcontext()
    if inspect.isasyncgenfunction(lifespan):
        # Starlette takes a bare async generator function as well.
        return cast("AbstractAsyncContextManager[object]", asynccontextmanager(lifespan)(app))
    return lifespan(app)
