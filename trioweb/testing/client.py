"""The in-memory client: an application under test, served over `Link`s in the test's own process.

Theory of operation. Each request and each WebSocket is a connection of its own: a pair of `Link`s,
one end of which the application serves as if it were a socket. When a test leaves a WebSocket, the
handler has what it needs to go to its end, except time: what waits for that is cancelled. So
nothing is left of a connection when its block ends, and what is all the same is a leak.
"""

from __future__ import annotations

import contextvars
import re
from contextlib import asynccontextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import trio

from trioweb.http.headers import Headers
from trioweb.testing.clock import virtual_clock
from trioweb.testing.leaks import LeakCheck
from trioweb.testing.link import Link
from trioweb.testing.opening import Denied, run_websocket
from trioweb.testing.patience import PATIENCE, bounded, patience
from trioweb.testing.places import place_of_caller
from trioweb.testing.requests import Requests
from trioweb.testing.running import (
    Lifetime,
    changed,
    check_overrides,
    hold_clock_for_threads,
    require_app,
)
from trioweb.testing.serving import Serving, settle
from trioweb.testing.session import WebsocketSession, leave
from trioweb.testing.targets import parse_target
from trioweb.ws.websocket import connection_of

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
    from contextlib import AbstractContextManager

    from trioweb.app import TrioWeb
    from trioweb.http.headers import HeaderSource
    from trioweb.testing.targets import Target
    from trioweb.ws.websocket import Websocket


class Client(Requests):
    """The client of one application; `open_client` makes it.

    Attributes:
        app: the application.
        cookies: what the application has set and the test has put there, by name.
    """

    def __init__(
        self,
        app: TrioWeb,
        nursery: trio.Nursery,
        link: Link,
        leaks: LeakCheck,
        context: contextvars.Context,
    ) -> None:
        super().__init__(nursery)
        self.app = app
        self._link = link
        self._leaks = leaks
        self._context = context
        self._servings: dict[Link, Serving] = {}
        self._is_left = False

    @property
    def connections(self) -> list[Websocket]:
        """The application's ends of this client's WebSockets whose handlers have not ended."""
        served = {connection_of(ws).stream: ws for ws in self.app.websockets}
        return [served[stream] for stream in self._servings if stream in served]

    def connect(self, *, link: Link | None = None) -> Link:
        """Open a bare connection to the application, for bytes of the test's own.

        Args:
            link: it is made like this one; None: like the client's.

        Raises:
            RuntimeError: the client's block has been left.
            ConnectionRefusedError: the application is shutting down.
        """
        if self._is_left:
            raise RuntimeError("this client has been left: it lives as long as open_client's block")
        if self.app.is_draining:
            # Its port is closed by now.
            raise ConnectionRefusedError(f"{self.app!r} is shutting down, and takes no connections")
        ours, theirs = (link or self._link).another_pair()
        serving = self._servings[theirs] = Serving(self.app, theirs, place_of_caller())
        self._context.copy().run(self._nursery.start_soon, self._serve, serving)
        return ours

    async def _serve(self, serving: Serving) -> None:
        try:
            await serving.run(self._leaks.tasks)
        finally:
            del self._servings[serving.stream]

    @asynccontextmanager
    async def websocket(
        self,
        path: str,
        *,
        headers: HeaderSource | None = None,
        subprotocols: Sequence[str] = (),
        origin: str | None = None,
        link: Link | None = None,
        timeout: float = PATIENCE,
    ) -> AsyncGenerator[WebsocketSession]:
        """Open a WebSocket; when the block is left, close it with 1000 and end its handler.

        The handler gets what was sent, and may go on as long as it need not wait for time; then it
        is cancelled, without WEBSOCKET_DISCONNECT_GRACE. It has ended when the block has, also
        where that is cancelled, which ends the stream without a Close.

        Args:
            path: with its query, if any; or a URL, ``ws://other.test/x``, whose host the
                application sees.
            headers: sent with the handshake.
            subprotocols: offered, the preferred one first.
            origin: sent as the Origin header.
            link: the connection is made like this one; None: like the client's.
            timeout: seconds until the application must have answered.

        Raises:
            Denied: the application refused the handshake.
            WebsocketClosed: it left without an answer.
            ConnectionRefusedError: it is shutting down.
            trio.TooSlowError: it has not answered in time.
            AssertionError: at the end: the server has closed with another code than 1000 and
                1001, or vanished, and nobody has looked at it.
        """
        if isinstance(subprotocols, str):
            raise TypeError(f"subprotocols= takes a list of names, not {subprotocols!r}")
        sent = Headers(headers)
        if origin is not None:
            sent["Origin"] = origin
        # A WebSocket's URL is that of the handshake, by another name (RFC 6455 §3).
        url = re.sub(r"^ws(s?)://", r"http\1://", path)
        target = parse_target(url, host=sent.pop("host", None))
        secure = target.scheme == "https"
        cookies = self.cookies.header_for(target.path, host=target.host, secure=secure)
        if cookies and "cookie" not in sent:
            sent["Cookie"] = cookies
        ours = self.connect(link=link)
        ours.other.scheme = target.scheme  # which it sees, as if TLS had been below
        serving = self._servings[ours.other]
        session: WebsocketSession | None = None
        failure: BaseException | None = None
        try:
            session = await self._open(ours, target, tuple(subprotocols), sent, timeout)
            yield session
        except BaseException as exc:
            failure = exc
            raise
        finally:
            try:
                if session is not None and not isinstance(failure, trio.Cancelled):
                    await settle()  # what a handler does with the last message counts too
                    await leave(session, has_failed=failure is not None)
            finally:
                # As a nursery waits for its tasks, cancelled or not.
                with trio.CancelScope(shield=True):
                    await ours.aclose()
                    await settle()
                    await self._end([serving])

    async def _open(
        self,
        link: Link,
        target: Target,
        subprotocols: tuple[str, ...],
        headers: Headers,
        timeout: float,
    ) -> WebsocketSession:
        answered: Headers | None = None
        serving = self._servings[link.other]

        def explain(waited: str) -> str:
            return f"{waited} for the handshake of {target.path}; {serving.tell_handler()}"

        try:
            with patience(timeout, explain):
                session: WebsocketSession = await self._nursery.start(
                    run_websocket, link, target, subprotocols, headers, serving.tell_handler
                )
                answered = session.headers
                return session
        except Denied as denied:
            answered = denied.headers
            raise
        finally:
            if answered is not None:
                secure = target.scheme == "https"
                self.cookies.take(answered, target.path, host=target.host, secure=secure)

    async def _end(self, servings: Sequence[Serving]) -> None:
        """Cancel handlers; what does not end in time fails the test when the client is left."""
        for one in servings:
            one.cancel()
        for one in servings:
            with bounded(max(0, one.cancelled_at + PATIENCE - trio.current_time())):
                await one.ended.wait()
        for one in servings:
            if not one.ended.is_set():
                self._leaks.note(str(one))

    async def settle(self) -> None:
        """Let every task go as far as it comes without waiting for time, or for a thread.

        A handler has done then what it does by itself. Where some task is busy all the time this
        ends after a second of real time.
        """
        await settle()

    def shutdown(self) -> None:
        """Begin the application's drain, as SIGTERM does; see ``TrioWeb.shutdown``."""
        self.app.shutdown()

    def real_time(self) -> AbstractContextManager[None]:
        """A block in which a virtual clock does not jump, but goes as real time does.

        For what the clock can't see: processes, sockets, and threads that are not Trio's. Worker
        threads hold the clock by themselves, for a second; then they have real time.
        """
        clock = virtual_clock()
        return nullcontext() if clock is None else clock.real_time()

    async def aclose(self) -> None:
        """End all connections, and wait for that, cancelled or not."""
        self._is_left = True
        servings = list(self._servings.values())
        try:
            for one in servings:
                await one.stream.other.aclose()
            await settle()
        finally:
            with trio.CancelScope(shield=True):
                await self._end(servings)
                for one in servings:
                    if not one.ended.is_set():
                        one.break_shields()
                        await one.ended.wait()


@asynccontextmanager
async def open_client(
    app: TrioWeb,
    *,
    config: Mapping[str, object] | None = None,
    overrides: Mapping[Callable[..., Any], Callable[..., Any]] | None = None,
    lifespan: bool = True,
    link: Link | None = None,
    check_leaks: bool = True,
) -> AsyncGenerator[Client]:
    """Run an application and give a client to it; no socket is opened.

    What the block raises comes out as itself, in no group. With a virtual clock
    (``autojump_clock``) time passes at once, except while a worker thread runs. A crash of a task
    in ``app.nursery`` drains the application, as ever, and is raised at the end of the block.

    Args:
        app: if it runs already, for another client or a server, this is one more client of it.
        config: keys of its config that have other values meanwhile.
        overrides: functions that stand in for dependencies meanwhile.
        lifespan: whether its lifespan is run.
        link: connections are made like this one, ``Link(buffer=1024)``; it is not used itself.
        check_leaks: whether what outlives the block fails the test.

    Raises:
        TypeError: an argument is of the wrong type.
        ValueError: an override is of what no handler depends on.
        ConfigError: a key of config, or its value, can't be right.
        Leaked: at the end: a task, a WebSocket, a member of a room or a descriptor of the
            application is left, 5 s after what had it was cancelled. Where the block has raised,
            this is a note of its exception.

    Cancellation:
        Cancels what the application still serves.
    """
    require_app(app, "open_client() was given")
    if link is not None and not isinstance(link, Link):
        raise TypeError(f"link= takes a Link, as in Link(buffer=1024), not {link!r}")
    leaks = LeakCheck(app)
    failure: BaseException | None = None
    if not leaks.is_first:
        # As when pytest-trio sets fixtures up side by side.
        await leaks.tasks.has_started.wait()
    lifetime = None if app.is_running else Lifetime(app, leaks)
    try:
        async with trio.open_nursery() as nursery:
            try:
                with changed(app, config, overrides):
                    hold_clock_for_threads(app)
                    context = contextvars.copy_context()
                    if lifetime is not None:
                        context = await lifetime.start(nursery, lifespan=lifespan)
                    leaks.tasks.has_started.set()
                    try:
                        check_overrides(app, overrides or ())
                        hold_clock_for_threads(app)  # its lifespan may have set another limiter
                        client = Client(app, nursery, link or Link(), leaks, context)
                        try:
                            yield client
                        finally:
                            await client.aclose()
                        if lifetime is not None:
                            leaks.look_at_connections()
                    finally:
                        if lifetime is not None:
                            await lifetime.leave()
            except BaseException as exc:
                failure = exc
            nursery.cancel_scope.cancel(reason="the test has left its client")
    except BaseExceptionGroup as group:
        failure = _choose(failure, group)
    finally:
        leaks.stop_watching()
    if lifetime is not None:
        failure = _choose_crash(failure, lifetime.error)
        leaks.look_at_tasks()
        leaks.look_at_descriptors()
    if check_leaks:
        leaks.report(failure)
    if failure is not None:
        raise failure


def _choose(
    failure: BaseException | None, group: BaseExceptionGroup[BaseException]
) -> BaseException:
    """What to raise: the test's failure, unless a crash has cancelled the test."""
    if failure is not None and not isinstance(failure, trio.Cancelled):
        return failure
    crashes = [exc for exc in group.exceptions if not isinstance(exc, trio.Cancelled)]
    return crashes[0] if len(crashes) == 1 else group


def _choose_crash(
    failure: BaseException | None, crash: BaseException | None
) -> BaseException | None:
    """What to raise: the test's failure, with a note of what the application has raised."""
    if failure is None or crash is None:
        return failure or crash
    failure.add_note(f"the application had crashed: {crash!r}")
    return failure
