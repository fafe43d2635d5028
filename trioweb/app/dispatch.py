"""From a request to its answer: route, middleware, guards, handler, exceptions.

HTTP and WebSocket handshakes take the same way. They part at the handler: a WebSocket's runs in
``serve_websocket``, which calls back what is made here, so that middleware, guards and binding
happen inside the connection, where a client that leaves cancels them.
"""

from __future__ import annotations

import inspect
import logging
from functools import partial
from typing import TYPE_CHECKING, Any

import trio

from trioweb.app.middleware import run_until_answered
from trioweb.errors import HTTPException, ServerShutdown, ServiceUnavailable
from trioweb.http.response import Response, error_response, to_response
from trioweb.routing import Injection
from trioweb.types import UNSET
from trioweb.ws.nursery import is_end_of
from trioweb.ws.options import ConnectionOptions
from trioweb.ws.serve import check_opening, serve_websocket

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from contextlib import AsyncExitStack

    from trioweb.app.failures import Failures
    from trioweb.app.middleware import Middleware
    from trioweb.config import Config
    from trioweb.http.request import Request
    from trioweb.net import ByteStream
    from trioweb.net.ticker import Ticker
    from trioweb.rooms import Rooms
    from trioweb.routing import Binding, Match, Route, Router
    from trioweb.types import Handler
    from trioweb.ws.caps import ConnectionCaps
    from trioweb.ws.websocket import Websocket

logger = logging.getLogger("trioweb")


class Dispatch:
    """The server's view of an application (``trioweb.server.Application``)."""

    config: Config
    limiter: Any
    dependency_overrides: dict[Handler, Handler]
    _rooms: Rooms
    router: Router
    _caps: ConnectionCaps
    _ticker: Ticker
    _middleware: Middleware
    _failures: Failures
    _guards: tuple[Handler, ...]
    _websockets: dict[Request, Websocket]

    @property
    def ticker(self) -> Ticker:
        """Minds the deadlines of all connections."""
        return self._ticker

    async def handle(self, request: Request) -> Response:
        """Answer a request of plain HTTP; every Exception becomes an answer.

        Cancellation:
            Cancels the handler; a ``def`` handler's thread is abandoned.
        """
        return await self._answer(request, self._find(request))

    def handle_upgrade(
        self,
        request: Request,
        stream: ByteStream,
        trailing: bytes,
        take_scope: Callable[[trio.CancelScope], None],
    ) -> Awaitable[Response | None]:
        """Serve a request that asks for a WebSocket, when it is awaited.

        Returns:
            The refusal, or the answer of a route that is no WebSocket; None when a WebSocket was
            served and the stream is closed.
        """
        found = self._find(request, upgrade=True)
        if isinstance(found, HTTPException) or not found.route.websocket:
            return self._answer_in_time(request, found, take_scope)
        route, config = found.route, self.config
        options = ConnectionOptions.from_config(config, stream=route.stream, **route.overrides)
        try:
            opening = check_opening(
                request,
                subprotocols=route.subprotocols,
                subprotocol_required=route.subprotocol_required,
                origins=config.WEBSOCKET_ORIGINS if route.origins is UNSET else route.origins,
                compression=options.compression,
            )
            self._caps.take(
                request.ip,
                limit=config.WEBSOCKET_MAX_CONNECTIONS,
                limit_per_address=config.WEBSOCKET_MAX_CONNECTIONS_PER_IP,
            )
        except HTTPException as refusal:
            return self._answer_in_time(request, refusal, take_scope)
        endpoint = _Endpoint(self, request, route)
        try:
            return serve_websocket(
                request,
                stream,
                trailing,
                opening=opening,
                options=options,
                fanout=self._rooms.fanout,
                ticker=self.ticker,
                endpoint=endpoint,
                take_scope=take_scope,
            )
        except BaseException:
            endpoint.ended()
            raise

    def is_being_cancelled(self) -> None:
        """Let all leave their rooms, so that a room of many is not told of each of them."""
        self._rooms.disband()

    def _find(self, request: Request, *, upgrade: bool = False) -> Match | HTTPException:
        """Find the route; a failure is kept for after the request middleware, which runs anyway."""
        request.app = self
        router = self.router
        try:
            found = router.resolve(
                request.method,
                request.raw_path,
                request.host if router.knows_hosts else "",
                upgrade=upgrade,
            )
        except HTTPException as exc:
            return exc
        request.route = found.route
        request.match_info = found.params
        return found

    async def _answer(self, request: Request, found: Match | HTTPException) -> Response:
        try:
            response = await self._respond(request, found)
        except Exception as exc:
            response = await self._failures.respond(request, exc)
        except BaseExceptionGroup as group:
            _log_beside_cancelled(group, request)
            raise
        if self._middleware.response:
            return await self._finish(request, response)
        return response

    async def _answer_in_time(
        self,
        request: Request,
        found: Match | HTTPException,
        take_scope: Callable[[trio.CancelScope], None],
    ) -> Response:
        """Answer an upgrade that leads to no WebSocket; nobody else minds the time any more."""
        seconds = self.config.RESPONSE_TIMEOUT
        with trio.move_on_after(seconds) as scope:
            take_scope(scope)
            return await self._answer(request, found)
        if trio.current_time() < scope.deadline:
            logger.warning("%s %s was cut off by the shutdown", request.method, request.raw_path)
            return error_response(ServerShutdown("The server is shutting down"))
        logger.error(
            "%s %s was not answered within RESPONSE_TIMEOUT=%g s",
            request.method,
            request.raw_path,
            seconds,
        )
        return error_response(ServiceUnavailable("Response Timeout"))

    async def _finish(self, request: Request, response: Response) -> Response:
        return await self._middleware.after(request, response, self._failures.respond)

    async def _respond(self, request: Request, found: Match | HTTPException) -> Response:
        if self._middleware.request:
            early = await run_until_answered(self._middleware.request, request)
            if early is not None:
                return early
        if isinstance(found, HTTPException):
            raise found
        route = found.route
        if self._guards or route.guards:
            early = await self._pass_guards(request, route)
            if early is not None:
                return early
        binding = route.binding
        assert binding is not None  # lifetime() binds all
        if binding.dependencies:
            return await self._respond_with_dependencies(request, route, binding)
        body = await request.body() if binding.needs_body else b""
        args, kwargs = binding.arguments(request, None, body)
        return await self._call(route, args, kwargs)

    async def _respond_with_dependencies(
        self, request: Request, route: Route, binding: Binding
    ) -> Response:
        injection = Injection(request, None, self.dependency_overrides)
        async with injection.cleanup:
            args, kwargs = await injection.arguments(binding)
            return await self._call(route, args, kwargs)
        raise _swallowed(route)

    async def _pass_guards(self, request: Request, route: Route) -> Response | None:
        return await run_until_answered((*self._guards, *route.guards), request)

    async def _call(self, route: Route, args: list[object], kwargs: dict[str, object]) -> Response:
        if route.is_threaded:
            result: object = await trio.to_thread.run_sync(
                partial(route.handler, *args, **kwargs),
                limiter=self.limiter,
                abandon_on_cancel=True,
            )
        else:
            result = route.handler(*args, **kwargs)
        if inspect.isawaitable(result):
            result = await result
        return to_response(result)

    async def _open_websocket(
        self, request: Request, route: Route, ws: Websocket
    ) -> Response | Awaitable[object]:
        """Middleware, guards, binding and accept of one WebSocket.

        Returns:
            The answer that denies the handshake, or the handler, called and to be awaited.
        """
        early: Response | None = None
        if self._middleware.request:
            early = await run_until_answered(self._middleware.request, request)
        if early is None:
            early = await self._pass_guards(request, route)
        if early is not None:
            return early
        binding = route.binding
        assert binding is not None  # lifetime() binds all
        if binding.dependencies:
            return await self._open_with_dependencies(request, route, ws, binding)
        args, kwargs = binding.arguments(request, ws)
        if route.accept != "manual":
            await ws.accept()
        return self._call_websocket_handler(request, ws, route, args, kwargs)

    async def _open_with_dependencies(
        self, request: Request, route: Route, ws: Websocket, binding: Binding
    ) -> Awaitable[object]:
        injection = Injection(request, ws, self.dependency_overrides)
        async with injection.cleanup as made:
            args, kwargs = await injection.arguments(binding)
            if route.accept != "manual":
                await ws.accept()
            handler = self._call_websocket_handler(request, ws, route, args, kwargs)
            # What has nothing to clean up costs nothing for as long as the connection lasts.
            return _run_within(made.pop_all(), handler) if injection.needs_cleanup else handler
        raise _swallowed(route)

    def _call_websocket_handler(
        self,
        request: Request,
        ws: Websocket,
        route: Route,
        args: list[object],
        kwargs: dict[str, object],
    ) -> Awaitable[object]:
        self._websockets[request] = ws
        handler = route.handler(*args, **kwargs)
        if not inspect.isawaitable(handler):
            raise TypeError(f"WebSocket handler {route.name!r} must be an async function")
        return handler

    async def _websocket_failed(
        self, request: Request, ws: Websocket, error: Exception
    ) -> Response | None:
        """Let exception handlers see what a WebSocket's handler raised.

        Returns:
            Before accept, the answer that denies the handshake.
        """
        if ws.accepted:
            await self._failures.observe(request, error, ws)
            return None
        if is_end_of(ws, error):
            return None  # denied, or the client has left: the connection knows the answer, if any
        return await self._failures.respond(request, error)

    def _websocket_ended(self, request: Request) -> None:
        self._websockets.pop(request, None)
        self._caps.give_back(request.ip)


class _Endpoint:
    """What ``serve_websocket`` calls back, of one handshake (``trioweb.ws.serve.Endpoint``)."""

    __slots__ = ("_dispatch", "_request", "_route")

    def __init__(self, dispatch: Dispatch, request: Request, route: Route) -> None:
        self._dispatch = dispatch
        self._request = request
        self._route = route

    @property
    def name(self) -> str:
        return self._route.name

    @property
    def accepts(self) -> bool:
        return self._route.accept != "manual"

    @property
    def sees_responses(self) -> bool:
        return bool(self._dispatch._middleware.response)

    def open(self, ws: Websocket) -> Awaitable[Response | Awaitable[object]]:
        return self._dispatch._open_websocket(self._request, self._route, ws)

    def answer(self, ws: Websocket, returned: object) -> Response | None:
        if returned is None:
            return None
        if ws.accepted:
            logger.warning(
                "WebSocket handler %s returned %s, which goes nowhere: send it before",
                self._route.name,
                type(returned).__name__,
            )
            return None
        return to_response(returned)

    def failed(self, ws: Websocket, error: Exception) -> Awaitable[Response | None]:
        return self._dispatch._websocket_failed(self._request, ws, error)

    def finish(self, response: Response) -> Awaitable[Response]:
        return self._dispatch._finish(self._request, response)

    def ended(self) -> None:
        self._dispatch._websocket_ended(self._request)


async def _run_within(made: AsyncExitStack, handler: Awaitable[object]) -> object:
    """Run a WebSocket's handler, and clean up its dependencies behind it."""
    async with made:
        return await handler
    return None  # a dependency has caught what the handler raised, and that was the end of it


def _swallowed(route: Route) -> RuntimeError:
    return RuntimeError(
        f"handler {route.name!r} of {route.uri!r} has no answer: it or one of its dependencies "
        "raised an exception, which another dependency caught at its yield; there it must be "
        "raised again"
    )


def _log_beside_cancelled(group: BaseExceptionGroup[BaseException], request: Request) -> None:
    """Log what a cancelled handler raised while it unwound; the group itself goes on."""
    _, rest = group.split(trio.Cancelled)
    if isinstance(rest, Exception):
        logger.error(
            "%s %s from %s was cancelled and crashed while it ended",
            request.method,
            request.raw_path,
            request.peer,
            exc_info=rest,
        )
