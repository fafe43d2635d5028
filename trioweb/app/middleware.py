"""Request and response middleware, and guards: one chain for HTTP and for handshakes."""

from __future__ import annotations

import inspect
import logging
from typing import TYPE_CHECKING

from trioweb.errors import ConfigError, Forbidden
from trioweb.http.response import Response, to_response
from trioweb.routing.refusal import refuse_dependencies

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from trioweb.http.request import Request
    from trioweb.types import Handler

logger = logging.getLogger("trioweb")


async def call(function: Handler, *args: object) -> object:
    """Call a function that may be async."""
    result = function(*args)
    if inspect.isawaitable(result):
        return await result
    return result


async def run_until_answered(functions: Iterable[Handler], request: Request) -> Response | None:
    """Run request middleware or guards in order, until one has an answer.

    None and True let the request pass; False refuses it.

    Raises:
        Forbidden: one returned False.
    """
    for function in functions:
        result = await call(function, request)
        if result is None or result is True:
            continue
        if result is False:
            raise Forbidden
        return to_response(result)
    return None


class Middleware:
    """The functions around every request.

    Request middleware runs in the order in which it was registered, response middleware in the
    reverse, so that what comes first is outermost.
    """

    def __init__(self) -> None:
        self.request: list[Handler] = []
        self.response: list[Handler] = []

    def add(self, kind: str, function: Handler) -> None:
        """Add a function.

        Args:
            kind: ``"request"`` or ``"response"``.
            function: takes the request, and for a response the response too; may be async.

        Raises:
            ConfigError: there is no such kind, or the function can't be called.
            RouteError: the function asks for a dependency.
        """
        if not callable(function):
            raise ConfigError(f"middleware {function!r} can't be called")
        refuse_dependencies(function, "middleware")
        if kind == "request":
            self.request.append(function)
        elif kind == "response":
            self.response.insert(0, function)
        else:
            raise ConfigError(f'middleware is for "request" or "response", not {kind!r}')

    async def after(
        self,
        request: Request,
        response: Response,
        failed: Callable[[Request, Exception], Awaitable[Response]],
    ) -> Response:
        """Run response middleware; each may change the response or return another.

        Args:
            request: whose answer it is.
            response: the answer so far.
            failed: turns an exception of a middleware into the answer that replaces it.
        """
        for function in self.response:
            try:
                result = await call(function, request, response)
                if result is not None:
                    response = to_response(result)
            except Exception as exc:
                response = await failed(request, exc)
        return response
