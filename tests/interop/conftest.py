"""Foreign clients, each in a process of its own, and an application on a real port."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pytest
import trio

from tests.interop.app import make_app
from tests.interop.clients.conversation import decode_message, encode_message
from tests.interop.wire import open_relay
from trioweb.testing import open_server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence
    from contextlib import AbstractAsyncContextManager

    from tests.interop.wire import Relay, Wire
    from trioweb import TrioWeb

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
SECONDS = 20
"""What one test may take; an echo of the largest message takes a hundredth of it."""


def _command(name: str) -> list[str]:
    """How to start a client; skips where it is not installed."""
    if name == "ws":
        node = shutil.which("node")
        if node is None:
            pytest.skip("Node is not installed")
        if not (HERE / "node_modules" / "ws").is_dir():
            pytest.skip("Node's ws is not installed: run `npm ci` in tests/interop")
        return [node, str(HERE / "clients" / "ws_client.mjs")]
    package = {"trio": "trio_websocket"}.get(name, name)
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed: it is in trioweb[test]")
    return [sys.executable, "-m", f"tests.interop.clients.{name}_client"]


class Driver:
    """A client's program, which stays for all tests: starting it takes longer than a test."""

    def __init__(self, name: str) -> None:
        self._command = _command(name)
        self._process: subprocess.Popen[bytes] | None = None

    async def ask(self, do: str, **arguments: object) -> dict[str, Any]:
        """Tell the client what to do, and return its answer."""
        line = json.dumps({"do": do, **arguments}).encode() + b"\n"
        try:
            answer = json.loads(
                await trio.to_thread.run_sync(self._exchange, line, abandon_on_cancel=True)
            )
        except BaseException:
            # Nobody knows what it is doing; the next test gets a fresh one.
            self.kill()
            raise
        assert "error" not in answer, answer["error"]
        assert isinstance(answer, dict)
        return answer

    def kill(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            with process:
                process.kill()

    def _exchange(self, line: bytes) -> bytes:
        if self._process is None:
            self._process = subprocess.Popen(
                self._command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
            )
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(line)
        process.stdin.flush()
        answer = process.stdout.readline()
        assert answer, "the client's program has ended"
        return answer


class Peer:
    """A connection of a foreign client."""

    def __init__(self, driver: Driver, wire: Wire, subprotocol: str | None) -> None:
        self._driver = driver
        self.wire = wire
        self.subprotocol = subprotocol

    async def send(self, message: str | bytes) -> None:
        answer = await self._driver.ask("send", message=encode_message(message))
        assert answer == {}

    async def send_fragments(self, *parts: str | bytes) -> None:
        answer = await self._driver.ask(
            "send_fragments", parts=[encode_message(part) for part in parts]
        )
        assert answer == {}

    async def recv(self) -> str | bytes:
        answer = await self._driver.ask("recv")
        assert "message" in answer, answer
        return decode_message(answer["message"])

    async def ping(self, data: str) -> None:
        assert await self._driver.ask("ping", data=data) == {}

    async def recv_close(self) -> tuple[int, str]:
        """The end of the connection, as the client tells its user."""
        code, reason = (await self._driver.ask("recv"))["closed"]
        return code, reason

    async def close(self, code: int = 1000, reason: str = "") -> tuple[int, str]:
        code, reason = (await self._driver.ask("close", code=code, reason=reason))["closed"]
        return code, reason


class Serving:
    """The application on a port, behind a relay."""

    def __init__(self, app: TrioWeb, relay: Relay, driver: Driver) -> None:
        self.app = app
        self._relay = relay
        self._driver = driver

    async def refused(self, path: str) -> int:
        """The status with which a handshake is refused, as the client tells its user."""
        answer = await self._open(path)
        assert "refused" in answer, answer
        status = answer["refused"]
        assert isinstance(status, int)
        return status

    @asynccontextmanager
    async def open(
        self, path: str, *, subprotocols: Sequence[str] = (), deflate: str = "off"
    ) -> AsyncIterator[Peer]:
        answer = await self._open(path, subprotocols, deflate)
        assert "subprotocol" in answer, answer
        try:
            yield Peer(self._driver, self._relay.wires[-1], answer["subprotocol"])
        finally:
            await self._driver.ask("drop")

    async def become_idle(self) -> None:
        """Wait until the last connection has ended."""
        while self.app.connection_count:
            await trio.sleep(0.005)

    async def _open(
        self, path: str, subprotocols: Sequence[str] = (), deflate: str = "off"
    ) -> dict[str, Any]:
        return await self._driver.ask(
            "open",
            url=f"ws://127.0.0.1:{self._relay.port}{path}",
            subprotocols=list(subprotocols),
            deflate=deflate,
        )


class Serve(Protocol):
    """Serve the tests' application, with this WEBSOCKET_COMPRESSION, to the test's client."""

    def __call__(self, compression: str | None = None) -> AbstractAsyncContextManager[Serving]: ...


@pytest.fixture(scope="session")
def drivers() -> Iterator[dict[str, Driver]]:
    """The clients' programs that run, by name."""
    started: dict[str, Driver] = {}
    yield started
    for driver in started.values():
        driver.kill()


@pytest.fixture
def serve(drivers: dict[str, Driver], client: str) -> Serve:
    """Serve the application on a real port, to the client that the test is parametrized with."""
    if client not in drivers:
        drivers[client] = Driver(client)
    driver = drivers[client]

    @asynccontextmanager
    async def serve(compression: str | None = None) -> AsyncIterator[Serving]:
        app = make_app(compression)
        with trio.fail_after(SECONDS):
            async with AsyncExitStack() as stack:
                server = await stack.enter_async_context(open_server(app))
                relay = await stack.enter_async_context(open_relay((server.host, server.port)))
                yield Serving(app, relay, driver)

    return serve
