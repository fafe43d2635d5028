"""``app.run``: ``trio.run`` with signals.

The first SIGINT or SIGTERM drains, a second one ends at once. Signals reach the main thread only;
elsewhere the application is served without them.
"""

from __future__ import annotations

import signal
import sys
import threading
from functools import partial
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from trioweb.app.application import TrioWeb


def run(app: TrioWeb, host: str, port: int, unix: str | None) -> None:
    """Serve an application until a signal ends it.

    Raises:
        Exception: what the lifespan or a task of ``app.nursery`` raised.
    """
    trio.run(partial(_serve_with_signals, app, host, port, unix))


async def _serve_with_signals(app: TrioWeb, host: str, port: int, unix: str | None) -> None:
    if threading.current_thread() is not threading.main_thread():
        await app.serve(host, port, unix=unix, task_status=_Announcement(app.name))
        return
    error: BaseException | None = None
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with trio.open_nursery() as nursery:
            serving = trio.CancelScope()
            nursery.start_soon(_watch_loop, app, signals, serving)
            try:
                with serving:
                    await app.serve(host, port, unix=unix, task_status=_Announcement(app.name))
            except BaseException as exc:
                # Raised behind the nursery, which would wrap it in a group.
                error = exc
            nursery.cancel_scope.cancel()
    if error is not None:
        raise error


async def _watch_loop(app: TrioWeb, signals: AsyncIterator[int], serving: trio.CancelScope) -> None:
    async for _ in signals:
        if app.is_draining:
            _say("stopping at once")
            serving.cancel(reason="a second signal")
            continue
        count = app.connection_count
        app.shutdown()
        if not app.is_draining:
            # The lifespan is still being entered: there is nothing that could be drained.
            serving.cancel(reason="a signal before the server had started")
        remain = "1 connection remains" if count == 1 else f"{count} connections remain"
        _say(f"draining: {remain}; Ctrl-C again stops at once")


class _Announcement:
    """A TaskStatus that prints where the server listens."""

    def __init__(self, name: str) -> None:
        self._name = name

    def started(self, value: list[tuple[str, int] | str]) -> None:
        for address in value:
            _say(f"{self._name} serves at {show_address(address)}")


def show_address(address: tuple[str, int] | str) -> str:
    """An address as a browser takes it; a Unix socket's path with ``unix:``."""
    if isinstance(address, str):
        return f"unix:{address}"
    host, port = address[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _say(line: str) -> None:
    # Who pipes the output (a supervisor, a test) waits for this line.
    print(line, file=sys.stdout, flush=True)
