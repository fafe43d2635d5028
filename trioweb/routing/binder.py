"""One binder for every handler: from a signature to the arguments of a call.

A signature is read once, at registration. Each parameter becomes a ``Slot``: a label that says
what it is (``request``, ``socket``, ``path:room`` ...) and a source that makes its value from the
request and the socket. A wrapper with ``*args`` or ``**kwargs`` is planned from the outside in: it
gets its own slots, and those of the function that it wraps which it does not name itself, so that
what it passes on is what that function needs. The call itself then only runs the sources.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from trioweb.errors import RouteError
from trioweb.routing.annotations import UnresolvedAnnotation, resolve
from trioweb.routing.conversion import bare
from trioweb.routing.routes import handler_name
from trioweb.routing.sources import body_source, path_source, query_source

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from trioweb.http.request import Request
    from trioweb.routing.sources import Source
    from trioweb.types import Handler

__all__ = ["Binding", "Injectable", "UnresolvedAnnotation", "bind"]

SOCKET_NAMES = ("ws", "websocket", "socket")
_NOTHING = inspect.Parameter.empty
_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


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


@dataclass(frozen=True, slots=True)
class Slot:
    """One argument: its parameter's name, what it is, and where its value comes from."""

    name: str
    label: str
    source: Source
    positional_only: bool = False

    @property
    def is_injected(self) -> bool:
        """Whether it is one of ours, and not a value from the path, the query or the body."""
        return self.label.partition(":")[0] not in ("path", "query", "body")


class Plan(NamedTuple):
    """The arguments of a call, in order."""

    args: list[Slot]
    kwargs: list[Slot]


class Binding:
    """A handler's signature, ready to be called.

    Args:
        plan: the arguments.
    """

    __slots__ = ("_args", "_kwargs", "needs_body")

    def __init__(self, plan: Plan) -> None:
        self._args = tuple(slot.source for slot in plan.args)
        self._kwargs = tuple((slot.name, slot.source) for slot in plan.kwargs)
        self.needs_body = any(slot.label == "body" for slot in [*plan.args, *plan.kwargs])

    def arguments(
        self, request: Request, socket: object = None, body: bytes = b""
    ) -> tuple[list[object], dict[str, object]]:
        """Make the arguments of one call.

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
    reader = _Reader(handler, path, tuple(path_names), injectables)
    plan = reader.plan(handler)
    if reader.is_websocket and not any(
        slot.label == "socket" for slot in [*plan.args, *plan.kwargs]
    ):
        raise RouteError(
            f"handler {handler_name(handler)!r} of WebSocket route {path!r} takes no socket; "
            f"give it a parameter named {', '.join(SOCKET_NAMES[:-1])} or {SOCKET_NAMES[-1]}, "
            f"or one annotated Websocket"
        )
    if sum(slot.label == "body" for slot in [*plan.args, *plan.kwargs]) > 1:
        raise RouteError(
            f"handler {handler_name(handler)!r} of {path!r} takes the JSON body twice; "
            f"make one type of both"
        )
    return Binding(plan)


class _Reader:
    """Reads the signatures of one handler and of what it wraps."""

    def __init__(
        self, handler: Handler, path: str, path_names: tuple[str, ...], injectables: Injectables
    ) -> None:
        self._handler = handler
        self._path = path
        self._path_names = path_names
        self._by_type = injectables
        self._by_label = {one.label: one for one in injectables.values()}
        self.is_websocket = "socket" in self._by_label

    def plan(self, function: Handler) -> Plan:
        """The arguments for a function, which may wrap another."""
        try:
            signature = inspect.signature(function, follow_wrapped=False)
        except (TypeError, ValueError) as exc:
            raise RouteError(
                f"handler {handler_name(self._handler)!r} of {self._path!r} has no signature "
                f"that could be read: {exc}"
            ) from exc
        parameters = list(signature.parameters.values())
        has_args = any(one.kind is one.VAR_POSITIONAL for one in parameters)
        has_kwargs = any(one.kind is one.VAR_KEYWORD for one in parameters)
        wrapped = getattr(function, "__wrapped__", None)
        inner = self.plan(wrapped) if wrapped and (has_args or has_kwargs) else None
        own = self._own_plan(function, parameters, inner, has_args)
        if inner is not None:
            return _merge(own, inner, has_args, has_kwargs)
        if has_args or has_kwargs:
            return self._add_unsaid(own, has_args, has_kwargs)
        return own

    def _own_plan(
        self,
        function: Handler,
        parameters: list[inspect.Parameter],
        inner: Plan | None,
        has_args: bool,
    ) -> Plan:
        # What a partial has bound by name is no question any more, but inspect still lists it.
        settled = function.keywords if isinstance(function, partial) else {}
        named = [
            one for one in parameters if one.kind in _POSITIONAL or one.kind is one.KEYWORD_ONLY
        ]
        asked = [one for one in named if one.name not in settled or one.name in self._path_names]
        slots = {one.name: self._slot(function, one) for one in asked}
        positional = [one for one in asked if one.kind in _POSITIONAL]
        self._fill_by_place(positional, slots, inner, has_args)
        plan = Plan([], [])
        for one in asked:
            slot = slots[one.name]
            if slot is None:
                raise self._cannot_bind(one)
            (plan.args if one.kind in _POSITIONAL else plan.kwargs).append(slot)
        return plan

    def _slot(self, function: Handler, parameter: inspect.Parameter) -> Slot | None:
        """Rules 1 to 3 and 5 of API.md, "Handlers"; None where only the place can tell."""
        name = parameter.name
        only = parameter.kind is parameter.POSITIONAL_ONLY
        known = {kind.__name__: kind for kind in self._by_type}
        annotation = resolve(function, parameter, known)
        if name in self._path_names:
            source = path_source(name, annotation)
            return Slot(name, f"path:{name}", source, only) if source else None
        kind = bare(annotation)
        if isinstance(kind, type) and kind in self._by_type:
            return self._injected(name, self._by_type[kind], only)
        if annotation in (_NOTHING, Any, object):
            if name == "request":
                return self._injected(name, self._by_label["request"], only)
            if self.is_websocket and name in SOCKET_NAMES:
                return self._injected(name, self._by_label["socket"], only)
        if annotation is _NOTHING and parameter.default is _NOTHING:
            return None
        if not self.is_websocket:
            body = body_source(annotation)
            if body is not None:
                return Slot(name, "body", body, only)
        query = query_source(name, annotation, parameter.default)
        return Slot(name, f"query:{name}", query, only) if query else None

    def _injected(self, name: str, injectable: Injectable, only: bool) -> Slot:
        make = injectable.source

        def source(request: Request, socket: object, body: bytes) -> object:
            return make(request, socket)

        return Slot(name, injectable.label, source, only)

    def _fill_by_place(
        self,
        positional: list[inspect.Parameter],
        slots: dict[str, Slot | None],
        inner: Plan | None,
        has_args: bool,
    ) -> None:
        """Rule 4: ``(request, socket)`` whatever their names, or what the wrapped one has there."""

        def is_open(one: inspect.Parameter) -> bool:
            return (
                slots[one.name] is None
                and one.annotation is _NOTHING
                and one.default is _NOTHING
                and one.name not in self._path_names
            )

        labels = ["request", "socket"] if self.is_websocket else ["request"]
        first_two = positional[: len(labels)]
        if inner is not None:
            for one, slot in zip(positional, inner.args, strict=False):
                if is_open(one):
                    slots[one.name] = Slot(one.name, slot.label, slot.source)
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
            if is_open(one) and fits and one.name not in ("self", "cls"):
                slots[one.name] = self._injected(one.name, self._by_label[labels[index]], False)

    def _add_unsaid(self, own: Plan, has_args: bool, has_kwargs: bool) -> Plan:
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
            for name in self._path_names:
                source = path_source(name, _NOTHING)
                if f"path:{name}" not in taken and source:
                    kwargs.append(Slot(name, f"path:{name}", source))
        return Plan(args, kwargs)

    def _cannot_bind(self, parameter: inspect.Parameter) -> RouteError:
        name = parameter.name
        annotation = parameter.annotation
        shown = name if annotation is _NOTHING else f"{name}: {_show(annotation)}"
        types = ", ".join(dict.fromkeys(kind.__name__ for kind in self._by_type))
        paths = ", ".join(self._path_names)
        could = [
            f"a parameter of the path ({paths})" if paths else f"<{name}> in the path",
            f"annotated with one of {types}",
            "named request" + (f", {', '.join(SOCKET_NAMES)}" if self.is_websocket else ""),
            "a query parameter with a scalar annotation (str, int, bool ...) or a default",
        ]
        if not self.is_websocket:
            could.append("the JSON body, annotated with a Struct, dataclass or TypedDict")
        hint = "; register the bound method of an object" if name in ("self", "cls") else ""
        return RouteError(
            f"handler {handler_name(self._handler)!r} of {self._path!r}: the parameter "
            f"{shown!r} can't be bound; it could be {'; '.join(could)}{hint}"
        )


def _show(annotation: object) -> str:
    return annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)


def _merge(own: Plan, inner: Plan, has_args: bool, has_kwargs: bool) -> Plan:
    """A wrapper's own arguments, and those of what it wraps that it does not name itself."""
    args, kwargs = list(own.args), list(own.kwargs)
    taken = {slot.label for slot in [*args, *kwargs]}
    open_positional = [slot for slot in inner.args if slot.label not in taken]
    open_keyword = [slot for slot in inner.kwargs if slot.label not in taken]
    by_name: list[Slot] = []
    for slot in open_positional:
        # By place as long as it is (request, socket), as wrappers of Sanic's kind expect in
        # args[0]; the rest by name, which survives a wrapper that puts something before it.
        by_place = slot.is_injected or slot.positional_only or not has_kwargs
        if has_args and by_place and not by_name:
            args.append(slot)
        else:
            by_name.append(slot)
    if has_kwargs:
        kwargs += [*by_name, *open_keyword]
    return Plan(args, kwargs)
