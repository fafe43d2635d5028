"""Dependencies: arguments of a handler that functions of the application make, by ``Depends``.

Theory of operation. At registration the binder reads the signature of a dependency's function as
it reads the handler's own; what comes of it is a ``Provider``, one for each function and route.
When a request is served, an ``Injection`` makes the values in the order of the signature, what
others need first, and enters those that yield into a stack. Whoever calls the handler leaves the
stack behind it, in the same task, so what a dependency opens around its ``yield`` (a nursery, a
cancel scope, a context variable) is around the handler.

An override is looked up by the function that it stands for, in the moment in which that would be
called. What was read at registration can't need itself in a circle, overrides can: the functions
that are being made are passed down, so that this is found out.
"""

from __future__ import annotations

import inspect
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    AsyncExitStack,
    asynccontextmanager,
    contextmanager,
)
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, TypeVar, get_args, get_origin

from trioweb.errors import RouteError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Generator, Mapping, Sequence
    from types import TracebackType

    from trioweb.http.request import Request
    from trioweb.routing.binder import Binding
    from trioweb.types import Handler

T = TypeVar("T")


class Dependency(NamedTuple):
    """What ``Depends`` returns; a function of None means the annotation's type."""

    function: Handler | None
    is_shared: bool


# Any: as a default it must fit every annotation, `db: Database = Depends(connect)`.
def Depends(f: Handler | None = None, *, cache: bool = True) -> Any:
    """Ask for what a function makes, as an argument of a handler.

    ::

        async def open_session(app: TrioWeb, token: str):
            async with app.ctx.pool.session(token) as session:
                yield session

        @app.get("/me")
        async def me(session: Annotated[Session, Depends(open_session)]): ...

        @app.websocket("/feed")
        async def feed(request, ws, session=Depends(open_session)): ...

    The function's parameters are what a handler of the same route could have: the request, the
    application, path and query parameters, other dependencies, and for a WebSocket the socket. It
    is made after guards, for a WebSocket before it is accepted: an ``HTTPException`` denies the
    handshake. One that yields is cleaned up behind the handler, the last made first, in the
    handler's task; what the handler raises, or its cancellation, is raised at the ``yield``. What
    the cleanup raises counts as raised by the handler. A dependency of plain HTTP that catches the
    handler's failure must raise it, or another, again.

    Behind the handler means: before the answer is sent, and before Close is written to a WebSocket.
    Tasks of ``ws.nursery`` may still run then, as may the thread of a ``def`` handler that was
    cancelled.

    For handlers of routes, and for dependencies. Middleware, guards, exception handlers and room
    tasks have none, and are refused if they ask. A parameter that is named as one of the path is
    that one, whatever it says. As a keyword of ``functools.partial`` it is the default.

    Args:
        f: a function or async function, a class or another callable object; a generator function
            or async generator function that yields once, also with ``@contextmanager`` or
            ``@asynccontextmanager`` above it. Other context managers are given as they are. What
            is not async runs in the event loop, so it must not block. By default the annotation's
            type.
        cache: make it once for each request, however many ask for it. False: for this parameter
            alone.

    Raises:
        TypeError: f can't be called.
    """
    if f is not None and not callable(f):
        raise TypeError(f"Depends() takes a function, a class or another callable, not {f!r}")
    return Dependency(f, cache)


class Provider:
    """A function that makes a dependency, bound for one route.

    Args:
        function: what is called.
        what: the function as error messages call it.
        binding: its arguments.
        replace: binds an override of it.
    """

    __slots__ = (
        "_override",
        "_replace",
        "binding",
        "function",
        "is_class",
        "key",
        "what",
        "yields",
    )

    def __init__(
        self, function: Handler, what: str, binding: Binding, replace: Callable[[Handler], Provider]
    ) -> None:
        self.function = function
        self.what = what
        self.binding = binding
        self.key = key_of(function)
        self.is_class = isinstance(function, type)
        self.yields = _is_generator(function)
        self._replace = replace
        self._override: Provider | None = None  # the last, since mostly it is the only one

    def overridden_by(self, function: Handler) -> Provider:
        """The provider of an override, bound when it is first asked for.

        Raises:
            TypeError: it can't be called.
            RouteError: its signature can't be bound.
        """
        if self._override is None or self._override.function is not function:
            if not callable(function):
                raise TypeError(f"the override of {self.what} can't be called: {function!r}")
            self._override = self._replace(function)
        return self._override


@dataclass(frozen=True, slots=True)
class Wanted:
    """The source of an argument that a provider makes."""

    provider: Provider
    is_shared: bool

    def __call__(self, _request: Request, _socket: object, _body: bytes) -> None:
        """Keep the argument's place: it is made when all that costs nothing could be bound."""


class Injection:
    """The dependencies of one call of a handler.

    Args:
        request: with its ``match_info`` set.
        socket: the WebSocket of a WebSocket route.
        overrides: what stands for which function; looked at whenever one is to be made.

    Attributes:
        cleanup: what yields is entered here; the caller leaves it.
        needs_cleanup: whether anything was.
    """

    __slots__ = ("_made", "_overrides", "_request", "_socket", "cleanup", "needs_cleanup")

    def __init__(
        self, request: Request, socket: object, overrides: Mapping[Handler, Handler]
    ) -> None:
        self._request = request
        self._socket = socket
        self._overrides = overrides
        self._made: dict[object, object] = {}
        self.cleanup = AsyncExitStack()
        self.needs_cleanup = False

    async def arguments(
        self, binding: Binding, needing: tuple[Handler, ...] = ()
    ) -> tuple[list[object], dict[str, object]]:
        """Make the arguments of a call, dependencies included.

        Args:
            binding: of the handler, or of a dependency.
            needing: the dependencies that are being made now, each for the one before it.

        Raises:
            BadRequest: a value from the path, the query or the body is refused; it is named.
            RouteError: an override can't be bound.
            BaseException: what a dependency raised.

        Cancellation:
            Cancels the dependency that is being made; those that were made wait for the cleanup.
        """
        body = await self._request.body() if binding.needs_body else b""
        args, kwargs = binding.arguments(self._request, self._socket, body)
        for place, wanted in binding.dependencies:
            value = await self._provide(wanted, needing)
            if isinstance(place, int):
                args[place] = value
            else:
                kwargs[place] = value
        return args, kwargs

    async def _provide(self, wanted: Wanted, needing: tuple[Handler, ...]) -> object:
        provider = wanted.provider
        key = provider.key
        if wanted.is_shared and key in self._made:
            return self._made[key]
        original = provider.function
        # What can't be hashed has a key of its own, and can't be in a dict of overrides either.
        if key in self._overrides:
            provider = provider.overridden_by(self._overrides[original])
            if original in needing:
                raise circle([*needing, original], f"handler of {self._request.path}")
            needing = (*needing, original)
        needing = (*needing, provider.function)
        args, kwargs = await self.arguments(provider.binding, needing)
        value = provider.function(*args, **kwargs)
        # An instance that can be awaited is what was asked for.
        if not provider.is_class and inspect.isawaitable(value):
            value = await value
        if provider.yields:
            value = await self._enter(value, provider.what)
        if wanted.is_shared:
            self._made[key] = value
        return value

    async def _enter(self, opened: object, what: str) -> object:
        if inspect.isasyncgen(opened):
            opened = _as_async_context(opened)
        elif inspect.isgenerator(opened):
            opened = _as_context(opened)
        if not isinstance(opened, (AbstractAsyncContextManager, AbstractContextManager)):
            return opened  # a decorator has taken care of the generator
        self.needs_cleanup = True
        return await self.cleanup.enter_async_context(_Opened(opened, what))


class _Opened(AbstractAsyncContextManager[object]):
    """A context manager of either kind that says whose it is when contextlib complains."""

    def __init__(
        self,
        inner: AbstractAsyncContextManager[object] | AbstractContextManager[object],
        what: str,
    ) -> None:
        self._inner = inner
        self._what = what

    async def __aenter__(self) -> object:
        try:
            if isinstance(self._inner, AbstractAsyncContextManager):
                return await self._inner.__aenter__()
            return self._inner.__enter__()
        except RuntimeError as exc:  # "generator didn't yield" names nobody
            exc.add_note(f"in the {self._what}")
            raise

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        try:
            if isinstance(self._inner, AbstractAsyncContextManager):
                return await self._inner.__aexit__(kind, error, traceback)
            return self._inner.__exit__(kind, error, traceback)
        except RuntimeError as exc:  # "generator didn't stop", neither
            exc.add_note(f"in the cleanup of the {self._what}")
            raise


@asynccontextmanager
def _as_async_context(generator: AsyncGenerator[T, Any]) -> AsyncGenerator[T, Any]:
    """The context manager of a generator that exists already."""
    return generator


@contextmanager
def _as_context(generator: Generator[T, Any, Any]) -> Generator[T, Any, Any]:
    """The context manager of a generator that exists already."""
    return generator


def find_dependency(annotation: object) -> Dependency | None:
    """The ``Depends(...)`` of an ``Annotated``; other metadata is not ours.

    Raises:
        RouteError: there are several, it is not called, or it is not of the whole annotation.
    """
    if get_origin(annotation) is not Annotated:
        _refuse_within(get_args(annotation))
        return None
    kind, *metadata = get_args(annotation)
    if any(one is Depends for one in metadata):
        raise RouteError("Annotated[..., Depends] says nothing; write Depends() or Depends(f)")
    _refuse_within(get_args(kind))
    found = [one for one in metadata if isinstance(one, Dependency)]
    if len(found) > 1:
        raise RouteError(f"one Depends too many in {annotation}: a parameter has one value")
    return found[0] if found else None


def _refuse_within(parts: tuple[object, ...]) -> None:
    """Refuse Depends in a part of an annotation, lest the parameter is one of the query."""
    for part in parts:
        metadata = get_args(part)[1:] if get_origin(part) is Annotated else ()
        if any(one is Depends or isinstance(one, Dependency) for one in metadata):
            raise RouteError(
                "Depends is for the whole parameter, and not for a part of its annotation; write "
                "Annotated[T | None, Depends(f)] instead of Annotated[T, Depends(f)] | None"
            )
        _refuse_within(get_args(part))


def find_dependencies(binding: Binding | None, overrides: Mapping[Handler, Handler]) -> set[object]:
    """What a handler depends on, by itself or by way of others: keys of functions.

    Args:
        binding: the handler's, if it has one yet.
        overrides: what stands for which function; what these depend on counts too.

    Raises:
        TypeError: an override can't be called.
        RouteError: the signature of an override can't be bound.
    """
    found: set[object] = set()
    todo = [] if binding is None else [binding]
    while todo:
        for _, wanted in todo.pop().dependencies:
            provider = wanted.provider
            if provider.key in found:
                continue
            found.add(provider.key)
            todo.append(provider.binding)
            if provider.key in overrides:
                todo.append(provider.overridden_by(overrides[provider.function]).binding)
    return found


def key_of(function: Handler) -> object:
    """What a function is known by: itself, or its identity when it can't be hashed."""
    try:
        hash(function)
    except TypeError:
        return id(function)
    return function


def show_name(function: object) -> str:
    """A function's name for error messages."""
    while isinstance(function, partial):
        function = function.func
    name = getattr(function, "__name__", None)
    return name if isinstance(name, str) else type(function).__name__


def circle(needing: Sequence[Handler], what: str) -> RouteError:
    """The error that dependencies need each other.

    Args:
        needing: each needs the next; the last is among those before it.
        what: whose dependencies they are.
    """
    begin = list(needing).index(needing[-1])
    names = " → ".join(show_name(one) for one in needing[begin:])
    return RouteError(f"{what}: its dependencies need each other in a circle: {names}")


def _is_generator(function: object) -> bool:
    """Whether a function yields: it, or what it wraps, is a generator function of either kind."""
    while function is not None and not isinstance(function, type):
        for one in (function, getattr(type(function), "__call__", None)):  # noqa: B004
            if inspect.isgeneratorfunction(one) or inspect.isasyncgenfunction(one):
                return True
        if isinstance(function, partial):
            function = function.func
        else:
            function = getattr(function, "__wrapped__", None)
    return False
