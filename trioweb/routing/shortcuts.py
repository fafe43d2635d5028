"""``@get``, ``@post`` and the other methods: ``@route`` with its method written as a name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeVar

from trioweb.routing.routes import route

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from trioweb.types import Handler

H = TypeVar("H", bound="Handler")


class MethodDecorator(Protocol):
    """The signature that all shortcuts share: ``route``'s without ``methods``."""

    def __call__(
        self,
        path: str = "/",
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
        """Give the decorator."""


def _shortcut(method: str) -> MethodDecorator:
    def shortcut(
        path: str = "/",
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
        return route(
            path,
            (method,),
            host,
            strict_slashes,
            name,
            apply,
            version,
            version_prefix,
            error_format,
            guards=guards,
        )

    shortcut.__name__ = shortcut.__qualname__ = method.lower()
    shortcut.__doc__ = f"Make a function a {method} route; see ``route``."
    return shortcut


get = _shortcut("GET")
post = _shortcut("POST")
put = _shortcut("PUT")
patch = _shortcut("PATCH")
delete = _shortcut("DELETE")
head = _shortcut("HEAD")
options = _shortcut("OPTIONS")
