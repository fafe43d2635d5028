"""``app.get``, ``app.post`` and the other methods: ``route`` with its method as a name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from trioweb.types import Handler

H = TypeVar("H", bound="Handler")


class MethodShortcut:
    """A descriptor that gives ``route`` with one method settled.

    Args:
        method: in upper case.
    """

    def __init__(self, method: str) -> None:
        self._method = method
        self.__doc__ = f"Register a handler of {method}; the arguments are those of ``route``."

    def __get__(self, app: Shortcuts, owner: type[Shortcuts]) -> BoundShortcut:
        return BoundShortcut(app, self._method)


class BoundShortcut:
    """``app.get``: a decorator maker.

    Args:
        app: where the handlers are registered.
        method: of their routes.
    """

    def __init__(self, app: Shortcuts, method: str) -> None:
        self._app = app
        self._method = method

    def __call__(
        self,
        uri: str,
        host: str | Sequence[str] | None = None,
        strict_slashes: bool | None = None,
        name: str | None = None,
        apply: Sequence[Callable[[Handler], Handler]] | bool | None = None,
        version: float | str | None = None,
        version_prefix: str = "/v",
        error_format: str | None = None,
        *,
        guards: Sequence[Handler] = (),
    ) -> Callable[[H], H]:
        """Register a handler; returns it unchanged. See ``TrioWeb.route``."""
        return self._app.route(
            uri,
            (self._method,),
            host,
            strict_slashes,
            name,
            apply,
            version,
            version_prefix,
            error_format,
            guards=guards,
        )


class Shortcuts:
    """The method shortcuts over a ``route`` that the subclass has."""

    get = MethodShortcut("GET")
    post = MethodShortcut("POST")
    put = MethodShortcut("PUT")
    patch = MethodShortcut("PATCH")
    delete = MethodShortcut("DELETE")
    head = MethodShortcut("HEAD")
    options = MethodShortcut("OPTIONS")

    def route(
        self, uri: str, methods: Iterable[str] = ("GET",), *args: Any, **kwargs: Any
    ) -> Callable[[H], H]:
        """Register a handler of plain HTTP."""
        raise NotImplementedError
