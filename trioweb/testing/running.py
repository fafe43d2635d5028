"""The application under test, as it runs in a test: its lifetime, and what is changed for it."""

from __future__ import annotations

import contextvars
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import trio

from trioweb.app import TrioWeb
from trioweb.routing.dependencies import find_dependencies
from trioweb.testing.clock import HoldingLimiter, virtual_clock
from trioweb.testing.patience import PATIENCE, bounded

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Mapping

    from trioweb.testing.leaks import LeakCheck

# Seconds for a lifespan to start: more than for a message, since it may load what is large.
START_PATIENCE = 60.0


def require_app(app: object, what: str) -> TrioWeb:
    """Return an application as it is.

    Args:
        app: what should be one.
        what: begins the error: who gave it.

    Raises:
        TypeError: it is none; whoever forgot to call a factory reads of that, instead of a missing
            attribute.
    """
    if isinstance(app, TrioWeb):
        return app
    hint = "; call it" if callable(app) else ""
    raise TypeError(f"{what} {app!r}, which is no TrioWeb application{hint}")


def check_overrides(app: TrioWeb, overrides: Iterable[Callable[..., Any]]) -> None:
    """Refuse overrides that would do nothing, so that a test would talk to the real thing.

    Args:
        app: with its handlers bound, and the overrides in force.
        overrides: what is replaced.

    Raises:
        ValueError: neither a handler nor another override depends on one of them.
        RouteError: the signature of one can't be bound.
    """
    known: set[object] = set()
    for route in app.router.routes if overrides else ():
        known |= find_dependencies(route.binding, app.dependency_overrides)
    for function in overrides:
        if function not in known:
            raise ValueError(f"overrides= replaces {function!r}, which no handler depends on")


@contextmanager
def changed(
    app: TrioWeb,
    config: Mapping[str, object] | None,
    overrides: Mapping[Callable[..., Any], Callable[..., Any]] | None,
) -> Generator[None]:
    """Change an application for the time of a block.

    Args:
        app: which is changed.
        config: keys that get other values.
        overrides: functions that stand in for dependencies.

    Raises:
        ConfigError: a key or a value can't be right.
        TypeError: an override can't be called.
    """
    for function in (overrides or {}).values():
        if not callable(function):
            raise TypeError(f"overrides= takes functions, not {function!r}; lambda: ... makes one")
    kept = {key: app.config[key] for key in config or () if key in app.config}
    app.config.update(config or {})
    replaced = {key: app.dependency_overrides.get(key) for key in overrides or ()}
    app.dependency_overrides.update(overrides or {})
    is_held = isinstance(app.limiter, HoldingLimiter)  # by another client of it
    try:
        yield
    finally:
        # The test may have changed them as well.
        for key in config or ():
            if key in app.config:
                del app.config[key]
        app.config.update(kept)
        for function, former in replaced.items():
            app.dependency_overrides.pop(function, None)
            if former is not None:
                app.dependency_overrides[function] = former
        if isinstance(app.limiter, HoldingLimiter) and not is_held:
            app.limiter = app.limiter.limiter


def hold_clock_for_threads(app: TrioWeb) -> None:
    """Let an application's worker threads hold a virtual clock, by the limiter that it has now."""
    clock = virtual_clock()
    if clock is not None and not isinstance(app.limiter, HoldingLimiter):
        app.limiter = HoldingLimiter(app.limiter, clock)


class Lifetime:
    """The time in which an application lives, in a task of its own.

    So it has its own context, in which connections run, as on a real server.

    Args:
        app: which is not running yet.
        leaks: told of what does not end.

    Attributes:
        error: what the lifespan or a task of ``app.nursery`` has raised, when it has ended.
    """

    def __init__(self, app: TrioWeb, leaks: LeakCheck) -> None:
        self.error: BaseException | None = None
        self._app = app
        self._leaks = leaks
        self._scope = trio.CancelScope()
        self._left = trio.Event()
        self._ended = trio.Event()
        self._task: trio.lowlevel.Task | None = None

    async def start(self, nursery: trio.Nursery, *, lifespan: bool) -> contextvars.Context:
        """Enter it.

        Args:
            nursery: where its task lives.
            lifespan: whether the user's lifespan is entered.

        Returns:
            The context in which connections run.

        Raises:
            Exception: what the lifespan has raised.
            trio.TooSlowError: it has not started after 60 s.
        """
        context: contextvars.Context | None = None
        with bounded(START_PATIENCE):
            context = await nursery.start(self._run, lifespan)
        if context is None:
            raise trio.TooSlowError(f"the lifespan had not started after {START_PATIENCE:g} s")
        # It ends when its connections have, even if all is cancelled.
        self._scope.shield = True
        return context

    async def _run(
        self, lifespan: bool, *, task_status: trio.TaskStatus[contextvars.Context]
    ) -> None:
        self._leaks.tasks.adopt()
        self._task = trio.lowlevel.current_task()
        try:
            with self._scope:
                async with self._app.lifetime(lifespan=lifespan):
                    task_status.started(contextvars.copy_context())
                    await self._left.wait()
        except BaseException as exc:
            if not self._left.is_set():
                raise  # before its start, or what ends the process, and cancels the test
            self.error = exc
        finally:
            self._ended.set()

    async def leave(self) -> None:
        """Leave it; ``error`` is what came of it.

        Cancellation:
            It waits on; what it waits for ends in time, or is made to.
        """
        assert self._task is not None
        self._left.set()
        while True:
            with bounded(PATIENCE) as waiting:
                waiting.shield = True
                await self._ended.wait()
            if self._ended.is_set():
                return
            self._leaks.insist(self._task)
            self._scope.shield = False
            self._scope.cancel(reason="the lifespan has not ended")
