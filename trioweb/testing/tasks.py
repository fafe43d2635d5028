"""Which tasks an application has started, where, and how to end those that won't."""

from __future__ import annotations

import contextlib
import gc
from types import AsyncGeneratorType, CoroutineType, GeneratorType, MethodType
from typing import TYPE_CHECKING, NamedTuple

import trio

from trioweb.testing.openings import Openings
from trioweb.testing.places import NOWHERE, is_in_users_code, place_of_caller, waits_at

if TYPE_CHECKING:
    from collections.abc import Iterator

# What leads from a coroutine to the scopes that it waits in: other coroutines and generators, the
# context managers that are made of these, and the methods that ``with`` will call.
_LEADING = (
    CoroutineType,
    GeneratorType,
    AsyncGeneratorType,
    MethodType,
    contextlib.AbstractContextManager,
    contextlib.AbstractAsyncContextManager,
)
_STEPS = frozenset(("async_generator_asend", "async_generator_athrow", "coroutine_wrapper"))


class Started(NamedTuple):
    """A task of the application's.

    Attributes:
        task: which may have ended.
        place: where it was started.
    """

    task: trio.lowlevel.Task
    place: str

    def __str__(self) -> str:
        return f"the task {_name(self.task)}, started {self.place}; it {waits_at(self.task)}"


class TaskWatch(trio.abc.Instrument):
    """Keeps an account of the tasks that an application starts, in whatever nursery.

    What is started by one of its tasks is its task. A test's own are none of its business.

    Attributes:
        openings: what these tasks open.
        has_started: set when the application runs, or could not be started.
    """

    def __init__(self) -> None:
        self.openings = Openings()
        self.has_started = trio.Event()
        self._adopted: set[trio.lowlevel.Task] = set()
        self._started: dict[trio.lowlevel.Task, Started] = {}

    def adopt(self) -> None:
        """Count what this task starts and opens as the application's; itself is the kit's."""
        self.openings.watch()
        self._adopted.add(trio.lowlevel.current_task())

    def alive(self) -> list[Started]:
        """The application's tasks that have not ended: those of its own code, if there are any.

        What trioweb started around them ends with them.
        """
        started = list(self._started.values())
        return [one for one in started if is_in_users_code(one.task)] or started

    def task_spawned(self, task: trio.lowlevel.Task) -> None:
        """Trio's."""
        try:
            parent = trio.lowlevel.current_task()
        except RuntimeError:
            return  # the run's own
        if parent in self._adopted or parent in self._started:
            place = place_of_caller()
            if place == NOWHERE and parent in self._started:
                place = self._started[parent].place
            self._started[task] = Started(task, place)

    def task_exited(self, task: trio.lowlevel.Task) -> None:
        """Trio's."""
        self._adopted.discard(task)
        self._started.pop(task, None)


def break_shields(task: trio.lowlevel.Task) -> None:
    """Take the shields from a task and those in its nurseries, so that a cancellation reaches them.

    A test shall fail, and not hang, for what shields itself for ever.
    """
    for one in _family(task):
        for scope in _scopes(one.coro):
            scope.shield = False


def _family(task: trio.lowlevel.Task) -> Iterator[trio.lowlevel.Task]:
    yield task
    for nursery in task.child_nurseries:
        nursery.cancel_scope.shield = False
        for child in nursery.child_tasks:
            yield from _family(child)


def _scopes(coroutine: object) -> Iterator[trio.CancelScope]:
    """The cancel scopes that a suspended coroutine has entered.

    They are on its stack, if nowhere else, by way of what its ``with`` will call.
    """
    seen: set[int] = set()
    todo = [coroutine]
    while todo:
        one = todo.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        if isinstance(one, trio.CancelScope):
            yield one
        elif isinstance(one, _LEADING) or type(one).__name__ in _STEPS:
            todo += gc.get_referents(one)


def _name(task: trio.lowlevel.Task) -> str:
    return task.name.replace(".<locals>", "")
