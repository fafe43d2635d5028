"""One binder for every handler: from a signature to the arguments of a call.

A signature is read once, at registration, and becomes a plan (``signature.py``). The sources of its
slots make their values from the request and the socket; the call itself then only runs them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from trioweb.errors import RouteError
from trioweb.routing.annotations import UnresolvedAnnotation, resolve
from trioweb.routing.conversion import bare
from trioweb.routing.dependencies import (
    Dependency,
    Provider,
    Wanted,
    circle,
    find_dependency,
    key_of,
    show_name,
)
from trioweb.routing.routes import handler_name
from trioweb.routing.signature import NOTHING, Plan, SignatureReader, Slot
from trioweb.routing.sources import Source, body_source, path_source, query_source

if TYPE_CHECKING:
    import inspect
    from collections.abc import Callable, Mapping, Sequence

    from trioweb.http.request import Request
    from trioweb.types import Handler

__all__ = ["Binding", "Injectable", "UnresolvedAnnotation", "bind"]

SOCKET_NAMES = ("ws", "websocket", "socket")


class Injectable(NamedTuple):
    """What a handler can be given by type.

    Args:
        label: ``"request"`` and ``"socket"`` can be asked for by name and place as well; others
            have labels of their own.
        source: makes it from the request and the socket.
    """

    label: str
    source: Callable[[Request, Any], object]


Injectables: TypeAlias = "Mapping[type, Injectable]"


class Binding:
    """A handler's signature, ready to be called.

    Args:
        plan: the arguments.

    Attributes:
        needs_body: whether ``arguments`` needs the request's body.
        dependencies: which arguments, by place or name, are still to be made by an ``Injection``.
    """

    __slots__ = ("_args", "_kwargs", "dependencies", "needs_body")

    def __init__(self, plan: Plan[Source]) -> None:
        self._args = tuple(slot.source for slot in plan.args)
        self._kwargs = tuple((slot.name, slot.source) for slot in plan.kwargs)
        self.needs_body = any(slot.label == "body" for slot in [*plan.args, *plan.kwargs])
        places: list[tuple[int | str, Source]] = [*enumerate(self._args), *self._kwargs]
        self.dependencies = tuple(
            (place, source) for place, source in places if isinstance(source, Wanted)
        )

    def arguments(
        self, request: Request, socket: object = None, body: bytes = b""
    ) -> tuple[list[object], dict[str, object]]:
        """Make the arguments of one call; ``dependencies`` are None for now.

        Args:
            request: with its ``match_info`` set.
            socket: the WebSocket of a WebSocket route.
            body: the request's whole body, where ``needs_body``.

        Raises:
            BadRequest: a value from the path, the query or the body is refused; it is named.
        """
        args = [source(request, socket, body) for source in self._args]
        if not self._kwargs:
            return args, {}
        return args, {name: source(request, socket, body) for name, source in self._kwargs}


def bind(
    handler: Handler, *, path: str, path_names: Sequence[str], injectables: Injectables
) -> Binding:
    """Read a handler's signature.

    Args:
        handler: a function, bound method, callable object or partial.
        path: the route's path, for error messages.
        path_names: the path's parameters.
        injectables: what can be given by type. With a ``"socket"`` among them it is a WebSocket
            route, which has no body and whose handler must take the socket.

    Raises:
        UnresolvedAnnotation: an annotation's name is not known yet; try again at start.
        RouteError: a parameter can't be bound; the message names it and what it could be.
    """
    what = f"handler {handler_name(handler)!r} of {path!r}"
    reader = _HandlerReader(what, path_names, injectables)
    plan = reader.plan(handler)
    if reader.is_websocket and not any(
        slot.label == "socket" for slot in [*plan.args, *plan.kwargs]
    ):
        raise RouteError(
            f"handler {handler_name(handler)!r} of WebSocket route {path!r} takes no socket; "
            f"give it a parameter named {', '.join(SOCKET_NAMES[:-1])} or {SOCKET_NAMES[-1]}, "
            f"or one annotated Websocket"
        )
    return _bound(plan, what)


def _bound(plan: Plan[Source], what: str) -> Binding:
    if sum(slot.label == "body" for slot in [*plan.args, *plan.kwargs]) > 1:
        raise RouteError(f"{what} takes the JSON body twice; make one type of both")
    return Binding(plan)


class _HandlerReader(SignatureReader[Source]):
    """Reads the signatures of one handler, or of a dependency, and of what it wraps.

    Args:
        what: the function as error messages call it.
        path_names: the path's parameters.
        injectables: what can be given by type.
        providers: of the handler's dependencies, as far as they have been read.
        needing: the dependencies that are being read now, each for the one before it.
    """

    def __init__(
        self,
        what: str,
        path_names: Sequence[str],
        injectables: Injectables,
        providers: dict[object, Provider] | None = None,
        needing: Sequence[Handler] = (),
    ) -> None:
        super().__init__(what, path_names)
        self._by_type = injectables
        self._by_label = {one.label: one for one in injectables.values()}
        self.is_websocket = "socket" in self._by_label
        self._providers = {} if providers is None else providers
        self._needing = needing

    def _slot(self, function: Handler, parameter: inspect.Parameter) -> Slot[Source] | None:
        """Rules 1 to 3 and 5 of API.md, "Handlers"; None where only the place can tell."""
        name = parameter.name
        only = parameter.kind is parameter.POSITIONAL_ONLY
        default = parameter.default if isinstance(parameter.default, Dependency) else None
        if default is not None and default.function is not None and name not in self._names:
            # Whatever its annotation says, which need not exist when the program runs.
            return self._wanted(name, default.function, default.is_shared, only)
        known = {kind.__name__: kind for kind in self._by_type}
        annotation = resolve(function, parameter, known)
        dependency = default or self._find_dependency(name, annotation)
        if name in self._names:
            source = path_source(name, annotation)
            if source is None and dependency is not None:
                raise RouteError(
                    f"{self._what}: {name!r} is a parameter of the path, and so it can't be made "
                    f"by Depends; rename one of them"
                )
            return Slot(name, f"path:{name}", source, only) if source else None
        kind = bare(annotation)
        if dependency is not None:
            function = dependency.function or self._class_of(name, kind)
            return self._wanted(name, function, dependency.is_shared, only)
        if isinstance(kind, type) and kind in self._by_type:
            return self._injected(name, self._by_type[kind], only)
        if annotation in (NOTHING, Any, object):
            if name == "request":
                return self._injected(name, self._by_label["request"], only)
            if self.is_websocket and name in SOCKET_NAMES:
                return self._injected(name, self._by_label["socket"], only)
        if annotation is NOTHING and parameter.default is NOTHING:
            return None
        if not self.is_websocket:
            body = body_source(annotation)
            if body is not None:
                return Slot(name, "body", body, only)
        query = query_source(name, annotation, parameter.default)
        return Slot(name, f"query:{name}", query, only) if query else None

    def _injected(self, name: str, injectable: Injectable, only: bool) -> Slot[Source]:
        make = injectable.source

        def source(request: Request, socket: object, body: bytes) -> object:
            return make(request, socket)

        return Slot(name, injectable.label, source, only)

    def _find_dependency(self, name: str, annotation: object) -> Dependency | None:
        try:
            return find_dependency(annotation)
        except RouteError as exc:
            raise RouteError(f"{self._what}: the parameter {name!r}: {exc}") from None

    def _class_of(self, name: str, kind: object) -> Handler:
        """What ``Depends()`` calls."""
        if kind is NOTHING or not callable(kind):
            raise RouteError(
                f"{self._what}: Depends() of the parameter {name!r} calls its annotation, which "
                f"is no class; write Depends(f)"
            )
        return kind

    def _wanted(self, name: str, function: Handler, is_shared: bool, only: bool) -> Slot[Source]:
        source = Wanted(self._provider(function), is_shared)
        return Slot(name, f"depends:{name}", source, only)

    def _provider(self, function: Handler) -> Provider:
        key = key_of(function)
        if any(key == key_of(one) for one in self._needing):
            raise circle([*self._needing, function], self._what)
        if key not in self._providers:
            what = f"dependency {show_name(function)!r} of {self._what}"
            reader = _HandlerReader(
                what,
                self._names,
                self._by_type,
                self._providers,
                [*self._needing, function],
            )
            self._providers[key] = reader.provide(function)
        return self._providers[key]

    def provide(self, function: Handler) -> Provider:
        """Read the signature of a dependency, and of those that it needs."""
        binding = _bound(self.plan(function), self._what)
        return Provider(function, self._what, binding, self._override)

    def _override(self, function: Handler) -> Provider:
        # With providers of its own: they are there for as long as the override is.
        what = f"override {show_name(function)!r} of {self._what}"
        reader = _HandlerReader(what, self._names, self._by_type, needing=[function])
        return reader.provide(function)

    def _fill_by_place(
        self,
        positional: list[inspect.Parameter],
        slots: dict[str, Slot[Source] | None],
        has_args: bool,
    ) -> None:
        """Rule 4: ``(request, socket)`` whatever their names."""
        labels = ["request", "socket"] if self.is_websocket else ["request"]
        first_two = positional[: len(labels)]
        if len(first_two) < len(labels) and not has_args:
            return
        for index, one in enumerate(first_two):
            others = [slots[other.name] for other in first_two if other is not one]
            fits = all(
                slot is None or slot.label == label
                for slot, label in zip(
                    others, [label for label in labels if label != labels[index]], strict=False
                )
            )
            if self._is_open(one, slots) and fits and one.name not in ("self", "cls"):
                slots[one.name] = self._injected(one.name, self._by_label[labels[index]], False)

    def _add_unsaid(self, own: Plan[Source], has_args: bool, has_kwargs: bool) -> Plan[Source]:
        """A wrapper that doesn't say what it wraps: ``(request, ws, **path parameters)``."""
        args, kwargs = list(own.args), list(own.kwargs)
        taken = {slot.label for slot in [*args, *kwargs]}
        bare_kwargs = not taken
        for label, name in (("request", "request"), ("socket", "ws")):
            if label in taken or label not in self._by_label:
                continue
            slot = self._injected(name, self._by_label[label], False)
            if has_args:
                args.append(slot)
            elif label == "socket" or bare_kwargs:
                kwargs.append(slot)
        if has_kwargs:
            for name in self._names:
                source = path_source(name, NOTHING)
                if f"path:{name}" not in taken and source:
                    kwargs.append(Slot(name, f"path:{name}", source))
        return Plan(args, kwargs)

    def _could_be(self, name: str) -> list[str]:
        types = ", ".join(dict.fromkeys(kind.__name__ for kind in self._by_type))
        paths = ", ".join(self._names)
        could = [
            f"a parameter of the path ({paths})" if paths else f"<{name}> in the path",
            f"annotated with one of {types}",
            "named request" + (f", {', '.join(SOCKET_NAMES)}" if self.is_websocket else ""),
            "made by a function, with Depends(f) as its default or in Annotated",
            "a query parameter with a scalar annotation (str, int, bool ...) or a default",
        ]
        if not self.is_websocket:
            could.append("the JSON body, annotated with a Struct, dataclass or TypedDict")
        return could
