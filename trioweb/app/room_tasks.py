"""Room tasks as they are registered, and which of them a room has.

A signature is read once, at registration, as a handler's is. What the name of a room says is
converted when its tasks are looked up, before any of them starts: a value that an annotation
refuses means that the pattern does not match. The room itself is put in when the task starts.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from trioweb.errors import RouteError
from trioweb.rooms.room import Room
from trioweb.rooms.tasks import RoomTask
from trioweb.routing import TextPattern, UnresolvedAnnotation
from trioweb.routing.annotations import resolve
from trioweb.routing.conversion import bare, value_converter
from trioweb.routing.dependencies import Dependency, find_dependency
from trioweb.routing.routes import handler_name, is_plain_def
from trioweb.routing.signature import NOTHING, Plan, SignatureReader, Slot

if TYPE_CHECKING:
    import inspect
    from collections.abc import Sequence

    from trioweb.types import Handler

TaskFunction: TypeAlias = Callable[..., Awaitable[object]]
"""What is registered as a room task: its signature is read, hence the ``...``."""

# Where the room goes, until there is one.
_ROOM: Final = object()

_Source: TypeAlias = Callable[[Mapping[str, object]], object]
"""Makes a value from the pattern's; raises ValueError for what an annotation refuses."""


class RoomTasks:
    """The room tasks of an application.

    Args:
        app: given to tasks that ask for it.
        app_types: the annotations that mean the application.
    """

    def __init__(self, app: object, app_types: Sequence[type]) -> None:
        self._app = app
        self._app_types = tuple(app_types)
        self._records: list[_Record] = []

    def add(self, pattern: str, function: TaskFunction, name: str | None = None) -> None:
        """Register a task.

        Args:
            pattern: matches the whole name of a room.
            function: async; called once for each life of such a room.
            name: for logs; the function's by default.

        Raises:
            RouteError: the pattern or the signature can't be.
        """
        record = _Record(TextPattern(pattern), function, name or handler_name(function))
        if not callable(function):
            raise RouteError(f"{record}: {function!r} can't be called")
        if is_plain_def(function):
            raise RouteError(f"{record} must be an `async def` function")
        try:
            self._bind(record)
        except UnresolvedAnnotation:
            pass  # bind_rest tries again at start
        self._records.append(record)

    def bind_rest(self) -> None:
        """Bind the tasks whose annotations could not be resolved at registration.

        Raises:
            RouteError: an annotation still can't be resolved.
        """
        for record in self._records:
            self._bind(record)

    def find(self, room_name: str) -> list[RoomTask]:
        """The tasks of a room, in the order of registration.

        Raises:
            RouteError: an annotation of a task that was registered after the start can't be
                resolved.
        """
        found: list[RoomTask] = []
        for record in self._records:
            values = record.pattern.match(room_name)
            if values is None:
                continue
            plan = self._bind(record)
            try:
                args = [slot.source(values) for slot in plan.args]
                kwargs = {slot.name: slot.source(values) for slot in plan.kwargs}
            except ValueError:
                continue
            found.append(RoomTask(record.name, partial(_run, record.function, args, kwargs)))
        return found

    def _bind(self, record: _Record) -> Plan[_Source]:
        if record.plan is None:
            reader = _TaskReader(str(record), record.pattern.names, self._app, self._app_types)
            record.plan = reader.plan(record.function)
        return record.plan


@dataclass(slots=True)
class _Record:
    """One registered task; its plan is None until every annotation could be resolved."""

    pattern: TextPattern
    function: TaskFunction
    name: str
    plan: Plan[_Source] | None = None

    def __str__(self) -> str:
        return f"room task {self.name!r} of {self.pattern.text!r}"


async def _run(
    function: TaskFunction, args: list[object], kwargs: dict[str, object], room: Room
) -> object:
    return await function(
        *(room if one is _ROOM else one for one in args),
        **{name: room if one is _ROOM else one for name, one in kwargs.items()},
    )


class _TaskReader(SignatureReader[_Source]):
    """Reads the signatures of one room task and of what it wraps."""

    def __init__(
        self, what: str, names: Sequence[str], app: object, app_types: tuple[type, ...]
    ) -> None:
        super().__init__(what, names)
        self._app = app
        self._app_types = app_types

    def _slot(self, function: Handler, parameter: inspect.Parameter) -> Slot[_Source] | None:
        name, default = parameter.name, parameter.default
        only = parameter.kind is parameter.POSITIONAL_ONLY
        known = {kind.__name__: kind for kind in (Room, *self._app_types)}
        annotation = resolve(function, parameter, known)
        if name in self._names:
            convert = value_converter(annotation)
            return self._from_pattern(name, convert, only) if convert else None
        kind = bare(annotation)
        says_nothing = annotation in (NOTHING, Any, object)
        if kind is Room or (name == "room" and says_nothing):
            return Slot(name, "room", lambda _values: _ROOM, only)
        if kind in self._app_types or (name == "app" and says_nothing):
            return Slot(name, "app", lambda _values: self._app, only)
        if isinstance(default, Dependency) or find_dependency(annotation) is not None:
            raise RouteError(f"{self._what}: {name!r}: Depends is for handlers, not for room tasks")
        if default is not NOTHING:
            return Slot(name, f"default:{name}", lambda _values: default, only)
        return None

    def _add_unsaid(self, own: Plan[_Source], has_args: bool, has_kwargs: bool) -> Plan[_Source]:
        """What ``*args`` and ``**kwargs`` can mean: the room, and the pattern's parameters."""
        args, kwargs = list(own.args), list(own.kwargs)
        taken = {slot.label for slot in [*args, *kwargs]}
        if "room" not in taken:
            room: Slot[_Source] = Slot("room", "room", lambda _values: _ROOM)
            (args if has_args else kwargs).append(room)
        if has_kwargs:
            unsaid = [name for name in self._names if f"path:{name}" not in taken]
            kwargs += [self._from_pattern(name, lambda value: value, False) for name in unsaid]
        return Plan(args, kwargs)

    def _could_be(self, name: str) -> list[str]:
        if name in self._names:
            return ["unannotated", "annotated with what text can become (str, int, a Literal ...)"]
        names = ", ".join(self._names)
        types = ", ".join(kind.__name__ for kind in (Room, *self._app_types))
        return [
            f"a parameter of the pattern ({names})" if names else f"<{name}> in the pattern",
            f"annotated with one of {types}",
            "named room or app",
            "given a default",
        ]

    def _from_pattern(
        self, name: str, convert: Callable[[object], object], only: bool
    ) -> Slot[_Source]:
        return Slot(name, f"path:{name}", lambda values: convert(values[name]), only)
