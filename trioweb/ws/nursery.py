"""``ws.nursery``: tasks that live as long as the handler and fail as a part of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar, TypeVarTuple

from trioweb.errors import WebsocketClosed
from trioweb.ws.groups import leaves, without_cancelled

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    import trio

    from trioweb.ws.ending import Owner

Ts = TypeVarTuple("Ts")
T = TypeVar("T")


class ConnectionNursery:
    """The tasks of one connection's handler.

    A task that ends with ``WebsocketClosed`` of this connection just ends. Any other exception
    cancels the handler and counts as the handler's own. When the handler has returned and the
    Close frame is written, what is left is cancelled.
    """

    __slots__ = ("_nursery", "_open", "_owner", "_websocket", "was_used")

    def __init__(
        self,
        nursery: trio.Nursery,
        websocket: object,
        owner: Owner,
    ) -> None:
        self._nursery = nursery
        self._websocket = websocket
        self._owner = owner
        self._open = True
        self.was_used = False  # by a task that may still be there

    @property
    def cancel_scope(self) -> trio.CancelScope:
        """Cancelling it ends the handler and its tasks, and closes with 1000."""
        return self._nursery.cancel_scope

    def start_soon(
        self,
        async_fn: Callable[[*Ts], Awaitable[object]],
        *args: *Ts,
        name: object = None,
    ) -> None:
        """Start a task that runs beside the handler.

        Args:
            async_fn: the task's body.
            args: its positional arguments.
            name: shown by debuggers; by default the function's.

        Raises:
            RuntimeError: the handler has returned.
        """
        self._check_open()
        self._nursery.start_soon(self._guard, async_fn, args, name=name or async_fn)

    async def start(
        self, async_fn: Callable[..., Awaitable[object]], *args: object, name: object = None
    ) -> object:
        """Start a task and wait until it calls ``task_status.started()``.

        Returns:
            What the task passed to ``started()``.

        Raises:
            RuntimeError: the handler has returned, or the task ended without ``started()``.

        Cancellation:
            Cancels the task, if it has not called ``started()`` yet.
        """
        self._check_open()
        websocket, owner = self._websocket, self._owner  # the caller may be told behind our end

        def report(error: BaseException) -> None:
            if not is_end_of(websocket, error):
                owner.crashed(error)

        return await start_task(self._nursery, async_fn, args, name or async_fn, report)

    def refuse_tasks(self) -> None:
        """Take no more tasks: the handler has returned."""
        self._open = False

    def let_go(self) -> None:
        """The connection has ended, and all its tasks."""
        del self._websocket, self._owner

    def _check_open(self) -> None:
        if not self._open:
            raise RuntimeError("ws.nursery takes no tasks after the handler has returned")
        self.was_used = True

    async def _guard(
        self, async_fn: Callable[..., Awaitable[object]], args: tuple[object, ...]
    ) -> None:
        try:
            await async_fn(*args)
        except BaseException as raised:
            rest = without_cancelled(raised)
            if rest is None:
                raise
            if not is_end_of(self._websocket, rest):
                self._owner.crashed(rest)


def is_end_of(websocket: object, error: BaseException) -> bool:
    """Whether an exception, or all that is in a group, tells that this connection has ended."""
    return all(
        isinstance(leaf, WebsocketClosed) and leaf.websocket is websocket for leaf in leaves(error)
    )


async def start_task(
    nursery: trio.Nursery,
    async_fn: Callable[..., Awaitable[object]],
    args: tuple[object, ...],
    name: object,
    report: Callable[[BaseException], None],
) -> object:
    """``nursery.start`` for nurseries whose tasks never raise into them.

    Args:
        nursery: where the task lives.
        async_fn: takes ``task_status``.
        args: its positional arguments.
        name: shown by debuggers.
        report: told what the task raises once it has started, or when nobody waits for it.

    Returns:
        What the task passed to ``started()``.

    Raises:
        BaseException: what the task raised before that, as it was raised.
    """
    failures: list[BaseException] = []

    async def run(task_status: trio.TaskStatus[object]) -> None:
        status = _Status(task_status)
        try:
            await async_fn(*args, task_status=status)
        except BaseException as raised:
            rest = without_cancelled(raised)
            if rest is None:
                raise
            if status.has_started:
                report(rest)
                return
            # The caller is still waiting: the error is the caller's, and in no group.
            failures.append(rest)
            task_status.started(None)

    try:
        value: object = await nursery.start(run, name=name)
    except BaseException:
        # The caller was cancelled meanwhile and can't be told.
        for failure in failures:
            report(failure)
        raise
    if failures:
        raise failures[0]
    return value


class _Status:
    """A TaskStatus that remembers whether it was used."""

    def __init__(self, status: trio.TaskStatus[object]) -> None:
        self._status = status
        self.has_started = False

    def started(self, value: object = None) -> None:
        self.has_started = True
        self._status.started(value)
