"""``wait_any``: the first of several async functions to end ends them all."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import trio

from trioweb.ws.groups import leaves, without_cancelled

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

logger = logging.getLogger("trioweb")


async def wait_any(*functions: Callable[[], Awaitable[object]]) -> None:
    """Run async functions and end when the first of them ends, cancelling the others.

    Args:
        functions: called without arguments; at least one.

    Raises:
        TypeError: nothing to run.
        BaseException: what the first function to fail raised, as it was raised and in no group;
            what others raise while they unwind is logged.

    Cancellation:
        Cancels every function and waits until they have unwound.
    """
    if not functions:
        raise TypeError("wait_any() needs at least one async function")
    first: list[BaseException] = []

    async def run(function: Callable[[], Awaitable[object]]) -> None:
        try:
            await function()
        except BaseException as raised:
            rest = without_cancelled(raised)
            if rest is None:
                raise
            if first:
                logger.error("wait_any: another function failed as well", exc_info=rest)
            else:
                first.append(rest)
        nursery.cancel_scope.cancel(reason="wait_any: the first function has ended")

    try:
        async with trio.open_nursery() as nursery:
            for function in functions:
                nursery.start_soon(run, function)
    except BaseExceptionGroup as group:
        # Only cancellations pass the functions, so it is we who are cancelled.
        if not first:
            raise leaves(group)[0] from None
    if first:
        raise first[0]
