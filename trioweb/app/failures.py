"""Exceptions of handlers: who handles them, and what the peer is told."""

from __future__ import annotations

import html as html_escape
import logging
from http import HTTPStatus
from typing import TYPE_CHECKING

from trioweb.app.middleware import call
from trioweb.errors import ConfigError, HTTPException, WebsocketClosed, WebSocketException
from trioweb.http.response import Response, error_response, html, json, to_response
from trioweb.routing.refusal import refuse_dependencies
from trioweb.ws.groups import as_leaf
from trioweb.ws.nursery import is_end_of

if TYPE_CHECKING:
    from trioweb.http.request import Request
    from trioweb.routing.routes import Route
    from trioweb.types import Handler

logger = logging.getLogger("trioweb")


class Failures:
    """The exception handlers of an application, and the answers where there is none."""

    def __init__(self) -> None:
        self._handlers: dict[type[BaseException], Handler] = {}

    def add(self, kind: type[Exception], handler: Handler) -> None:
        """Register a handler for a type and those below it.

        Raises:
            ConfigError: the type is no Exception, or has a handler already.
            RouteError: the handler asks for a dependency.
        """
        if not (isinstance(kind, type) and issubclass(kind, Exception)):
            raise ConfigError(f"@app.exception takes exception types, not {kind!r}")
        if kind in self._handlers:
            raise ConfigError(f"{kind.__name__} has an exception handler already")
        refuse_dependencies(handler, "exception handlers")
        self._handlers[kind] = handler

    def find(self, error: BaseException) -> tuple[type[BaseException], Handler] | None:
        """The handler for an exception: that of its nearest type."""
        for kind in type(error).__mro__:
            if kind in self._handlers:
                return kind, self._handlers[kind]
        return None

    async def respond(self, request: Request, error: Exception) -> Response:
        """Turn an exception into the answer to a request, or to a handshake.

        A handler's answer counts; one that returns None leaves the answer to us. A group of one
        counts as what is in it.
        """
        leaf = as_leaf(error)
        if isinstance(leaf, Exception):
            error = leaf
        found = self.find(error)
        if found is not None:
            try:
                result = await call(found[1], request, error)
                if result is not None:
                    return to_response(result)
            except Exception as raised:
                if raised is not error:
                    error = raised
        return _default_response(request, error)

    async def observe(self, request: Request, error: BaseException, websocket: object) -> None:
        """Run the handler of an exception that came after a WebSocket was accepted.

        Its result is ignored: what the peer is told is the close code. The end of this very
        connection is no failure, so only a handler that asks for it by type sees it.
        """
        found = self.find(error)
        if found is None:
            return
        kind, handler = found
        if is_end_of(websocket, error) and not issubclass(kind, WebsocketClosed):
            return
        try:
            await call(handler, request, error)
        except Exception as raised:
            if raised is not error:
                logger.exception("the exception handler for %s crashed", kind.__name__)


def _default_response(request: Request, error: Exception) -> Response:
    route: Route | None = request.route
    if isinstance(error, HTTPException):
        return _formatted(request, error, route)
    if isinstance(error, WebSocketException) and route is not None and route.websocket:
        # A handler's own refusal before accept; its reason is meant for the peer.
        return _formatted(request, HTTPException(error.reason or None, 403), route)
    logger.error(
        "%s %s from %s crashed in %s",
        request.method,
        request.raw_path,
        request.peer,
        route.name if route is not None else "middleware",
        exc_info=error,
    )
    return _formatted(request, HTTPException(status=500), route)


def _formatted(request: Request, error: HTTPException, route: Route | None) -> Response:
    """The answer in the route's ``error_format``; plain text when it has none."""
    style = (route.error_format if route is not None else None) or "text"
    if style == "auto":
        accepted = request.headers.get("accept") or ""
        style = next(
            (one for one in ("json", "html") if f"/{one}" in accepted),
            "text",
        )
    if style == "json":
        body = {"status": error.status, "message": error.message}
        return json(body, error.status, error.headers)
    if style == "html":
        try:
            title = f"{error.status} {HTTPStatus(error.status).phrase}"
        except ValueError:
            title = str(error.status)
        page = (
            f"<!doctype html><meta charset=utf-8><title>{title}</title>"
            f"<h1>{title}</h1><p>{html_escape.escape(error.message)}</p>\n"
        )
        return html(page, error.status, error.headers)
    return error_response(error)
