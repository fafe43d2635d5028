"""Annotations as objects, also where they were written as text."""

from __future__ import annotations

import inspect
import sys
import typing
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from trioweb.errors import RouteError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from trioweb.types import Handler


class UnresolvedAnnotation(RouteError):
    """An annotation names what does not exist yet; it may by the time that the app starts."""


def resolve(function: Handler, parameter: inspect.Parameter, known: Mapping[str, type]) -> object:
    """The annotation of a parameter; ``Parameter.empty`` when it has none.

    Args:
        function: whose parameter it is.
        parameter: of its signature.
        known: types of ours by name. They are found although the handler's module imports them
            under ``TYPE_CHECKING`` only.

    Raises:
        UnresolvedAnnotation: a name in it is not defined.
        RouteError: it is no annotation at all.
    """
    annotation = parameter.annotation
    if annotation is inspect.Parameter.empty:
        return annotation
    namespace = {**known, **_globals(function)}
    holder = SimpleNamespace(__annotations__={"it": annotation})
    try:
        hints: dict[str, Any] = typing.get_type_hints(
            holder, globalns=namespace, localns=namespace, include_extras=True
        )
    except (NameError, AttributeError) as exc:
        if isinstance(annotation, str) and annotation.rpartition(".")[2] in known:
            return known[annotation.rpartition(".")[2]]
        raise UnresolvedAnnotation(
            f"the annotation of {str(parameter)!r} can't be resolved: {exc}; "
            f"import it where the handler is defined, not under TYPE_CHECKING"
        ) from exc
    except (TypeError, SyntaxError) as exc:
        raise RouteError(f"the annotation of {str(parameter)!r} is none: {exc}") from exc
    return hints["it"]


def _globals(function: Handler) -> dict[str, object]:
    """The module namespace in which a function's annotations were written.

    ``functools.wraps`` copies the annotations of what is wrapped, so the innermost counts.
    """
    innermost: Any = function
    while True:
        if hasattr(innermost, "__wrapped__"):
            innermost = innermost.__wrapped__
        elif hasattr(innermost, "func") and not hasattr(innermost, "__globals__"):
            innermost = innermost.func
        else:
            break
    if isinstance(innermost, type):
        # Of a dataclass or a NamedTuple they are made elsewhere, so the class's module counts.
        makers = ("__new__", "__init__")
        own = next(one for one in innermost.__mro__ if any(name in vars(one) for name in makers))
        return vars(sys.modules[own.__module__]) if own.__module__ in sys.modules else {}
    if not hasattr(innermost, "__globals__"):
        innermost = getattr(type(innermost), "__call__", innermost)  # noqa: B004
        innermost = inspect.unwrap(innermost)
    namespace: dict[str, object] = getattr(innermost, "__globals__", {})
    return namespace
