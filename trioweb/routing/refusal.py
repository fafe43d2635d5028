"""Depends where nothing makes it: in guards, middleware and exception handlers.

These are called with what they always get, and nobody reads their signatures; so a default of
``Depends(f)`` would be taken for the value. A guard that asks for the user would let everybody in.
"""

from __future__ import annotations

import inspect
from functools import partial
from typing import TYPE_CHECKING, Any

from trioweb.errors import RouteError
from trioweb.routing.annotations import resolve
from trioweb.routing.dependencies import Dependency, find_dependency, show_name

if TYPE_CHECKING:
    from collections.abc import Iterator

    from trioweb.types import Handler


def refuse_dependencies(function: Handler, what: str) -> None:
    """Refuse a function that asks for a dependency.

    Args:
        function: a guard, for one.
        what: it is one of these, as the error message calls them.

    Raises:
        RouteError: it asks for a dependency, by itself or in what it wraps.
    """
    for name in _asking(function):
        raise RouteError(
            f"{show_name(function)!r}: {name}: Depends is for handlers, not for {what}; "
            f"call what makes it yourself"
        )


def _asking(function: Handler) -> Iterator[str]:
    """The parameters of a function, and of what it passes the rest to, that ask for Depends."""
    layer: Any = function
    while layer is not None:
        inner = getattr(layer, "__wrapped__", None)
        if isinstance(layer, partial):
            given = [*layer.args, *layer.keywords.values()]
            if any(isinstance(one, Dependency) for one in given):
                yield "an argument of partial()"
            inner = layer.func
        elif inner is None:  # an object, whose class may have decorated its call
            inner = getattr(type(layer).__call__, "__wrapped__", None)
        try:
            parameters = inspect.signature(layer, follow_wrapped=False).parameters.values()
        except (TypeError, ValueError):  # functools.cache is written in C
            layer = inner
            continue
        for one in parameters:
            if isinstance(one.default, Dependency) or _annotated(layer, one):
                yield repr(one.name)
        rest = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
        layer = inner if any(one.kind in rest for one in parameters) else None


def _annotated(function: Handler, parameter: inspect.Parameter) -> bool:
    """Whether an annotation asks for Depends, wherever in it."""
    try:
        annotation = resolve(function, parameter, {})
    except RouteError:
        return False  # nothing but this question needs it, and many are for type checkers alone
    try:
        return find_dependency(annotation) is not None
    except RouteError:
        return True
