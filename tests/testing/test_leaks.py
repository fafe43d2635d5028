"""Wrong applications: whatever they leave behind, the test fails, and is told what and who."""

from __future__ import annotations

import os
import socket
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.app.conftest import HANDSHAKE
from trioweb import TrioWeb, Websocket
from trioweb.testing import Leaked, Link, open_client

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

    from trio.testing import MockClock

    from trioweb.net import ByteStream


async def leave(app: TrioWeb, path: str = "/", **options: Any) -> str:
    """What is said of an application when its only client has come and gone."""
    with pytest.raises(Leaked) as caught:
        async with open_client(app, **options) as client, client.websocket(path):
            await wait_all_tasks_blocked()
    return str(caught.value)


async def poll_forever() -> None:
    await trio.sleep_forever()


async def poll_shielded() -> None:
    with trio.CancelScope(shield=True):
        await trio.sleep_forever()


async def poll_shielded_deep() -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(poll_shielded)
        with trio.fail_after(3600, shield=True):
            await trio.sleep_forever()


async def poll_in_a_shielded_nursery() -> None:
    async with trio.open_nursery() as nursery:
        nursery.cancel_scope.shield = True
        await trio.sleep_forever()


# Tasks


async def test_a_task_in_somebody_elses_nursery(nursery: trio.Nursery) -> None:
    """It is named, with the line of the handler that started it, and the line where it waits."""
    app = TrioWeb("wrong")

    @app.websocket("/")
    async def handler(ws: Websocket) -> None:
        nursery.start_soon(poll_forever)

    said = await leave(app)
    assert "1 thing has outlived the connections of <TrioWeb wrong>:" in said
    assert "the task tests.testing.test_leaks.poll_forever, started at " in said
    assert "test_leaks.py:" in said.partition(", started at ")[2].partition(" in handler; ")[0]
    assert said.endswith(" in poll_forever")


async def test_a_task_of_a_task_in_a_system_nursery() -> None:
    app = TrioWeb("wrong")

    async def spawn() -> None:
        trio.lowlevel.spawn_system_task(poll_forever)

    @app.websocket("/")
    async def handler(ws: Websocket) -> None:
        ws.nursery.start_soon(spawn)
        await ws.wait_closed()

    said = await leave(app)
    assert "poll_forever, started at " in said
    assert " in spawn; it waits at " in said


async def test_a_task_of_an_http_handler(nursery: trio.Nursery) -> None:
    app = TrioWeb("wrong")

    @app.get("/")
    async def handler() -> str:
        nursery.start_soon(poll_forever)
        return "ok"

    with pytest.raises(Leaked, match=r"poll_forever, started at .* in handler; "):
        async with open_client(app) as client:
            await client.get("/")


@pytest.mark.parametrize("poll", [poll_shielded, poll_shielded_deep, poll_in_a_shielded_nursery])
async def test_a_handler_that_shields_itself(poll: Any, autojump_clock: MockClock) -> None:
    """The test fails, and does not hang."""
    app = TrioWeb("wrong")

    @app.websocket("/")
    async def handler(ws: Websocket) -> None:
        await poll()

    said = await leave(app)
    assert "1 thing has outlived" in said
    assert "the WebSocket / of the handler handler has ended, but not its handler" in said
    assert "opened at " in said
    assert "in leave; it waits at " in said
    assert trio.current_time() == 5


async def test_a_task_of_ws_nursery_that_shields_itself(autojump_clock: MockClock) -> None:
    app = TrioWeb("wrong")

    @app.websocket("/")
    async def handler(ws: Websocket) -> None:
        ws.nursery.start_soon(poll_shielded)

    assert "the WebSocket / of the handler handler has ended" in await leave(app)


async def test_a_task_of_app_nursery_that_shields_itself(autojump_clock: MockClock) -> None:
    app = TrioWeb("wrong")

    @app.websocket("/")
    async def handler(ws: Websocket) -> None:
        app.nursery.start_soon(poll_shielded)

    said = await leave(app)
    assert "poll_shielded, started at " in said
    assert " in handler; it waits at " in said


async def test_a_room_task_that_shields_itself(autojump_clock: MockClock) -> None:
    """Who joined first is who started it."""
    app = TrioWeb("wrong")

    @app.room_task("tea")
    async def brew() -> None:
        await poll_shielded()

    @app.websocket("/")
    async def handler(ws: Websocket) -> None:
        async with app.room("tea").join(ws):
            await ws.wait_closed()

    said = await leave(app)
    assert "1 thing has" in said
    assert "brew, started at " in said
    assert " in handler; it waits at " in said


@pytest.mark.parametrize("shielded", [True, False])
async def test_a_lifespan_that_does_not_end(shielded: bool, autojump_clock: MockClock) -> None:
    @asynccontextmanager
    async def lifespan(app: TrioWeb) -> AsyncGenerator[None]:
        yield
        with trio.CancelScope(shield=shielded):
            await trio.sleep_forever()

    with pytest.raises(Leaked, match=r"the lifespan; it waits at .* in lifespan"):
        async with open_client(TrioWeb("wrong", lifespan=lifespan)):
            pass


async def test_cleanup_that_takes_its_time_is_no_leak(autojump_clock: MockClock) -> None:
    """Up to five seconds, wherever it is."""
    diary: list[str] = []

    async def clean_up(who: str) -> None:
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(2)
            diary.append(who)

    app = TrioWeb("right")

    @app.websocket("/")
    async def handler(ws: Websocket) -> None:
        ws.nursery.start_soon(clean_up, "task")
        app.nursery.start_soon(clean_up, "app")
        await clean_up("handler")

    async with open_client(app) as client:
        async with client.websocket("/"):
            pass
        assert sorted(diary) == ["handler", "task"]  # of one moment, in any order
    assert diary[2:] == ["app"]


# WebSockets, with what waits there


class Detached(TrioWeb):
    """Serves connections behind the back of who asked for it, over streams that never end."""

    async def serve_stream(self, stream: trio.abc.Stream | ByteStream) -> None:
        ours, theirs = Link(buffer=1000).another_pair()
        self.clients = [*getattr(self, "clients", []), ours]
        self.nursery.start_soon(super().serve_stream, theirs)
        assert isinstance(stream, Link)
        while data := await stream.receive_some():
            await ours.send_all(data)
            await stream.send_all(await ours.receive_some())


async def test_what_waits_in_a_connection_that_goes_on(autojump_clock: MockClock) -> None:
    """Its handler, its bytes, its pings, and its place in a room."""
    app = Detached("wrong", config={"WEBSOCKET_PING_INTERVAL": None})

    @app.websocket("/<name>")
    async def handler(ws: Websocket, name: str) -> None:
        async with app.room("tea").join(ws, meta=name):
            for _ in range(3):
                await ws.ping()
            for _ in range(2):
                app.room("tea").broadcast("x" * 1000)
            await ws.wait_closed()

    async def shake_hands() -> None:
        async with open_client(app, config={"WEBSOCKET_STALL_TIMEOUT": 10_000}) as client:
            await client.connect().send_all(HANDSHAKE % b"/ada")
            await wait_all_tasks_blocked()

    with pytest.raises(Leaked) as caught:
        await shake_hands()
    said = str(caught.value)
    assert "the WebSocket /ada of the handler handler is open; " in said
    assert " bytes wait to be sent; 3 pings wait for their pongs" in said
    assert "a member of the room 'tea': /ada with meta 'ada'" in said


# Descriptors


async def test_a_file_that_stays_open(tmp_path: Path) -> None:
    app, kept = TrioWeb("wrong"), []

    @app.websocket("/")
    async def handler(ws: Websocket) -> None:
        kept.append((tmp_path / "log.txt").open("w"))

    said = await leave(app)
    assert f"the descriptor of {tmp_path}/log.txt, opened at " in said
    assert said.endswith(" in handler")
    kept[0].close()


async def test_a_socket_that_stays_open() -> None:
    app, kept = TrioWeb("wrong"), []

    @app.get("/")
    async def handler() -> str:
        kept.append(socket.socket())
        return "ok"

    with pytest.raises(
        Leaked, match=r"descriptor \d+, <socket\.socket .*, opened at .* in handler"
    ):
        async with open_client(app) as client:
            await client.get("/")
    kept[0].close()


async def test_a_file_that_a_thread_has_opened(tmp_path: Path) -> None:
    app, kept = TrioWeb("wrong"), []

    @app.get("/")
    def handler() -> str:
        kept.append(os.open(tmp_path, os.O_RDONLY))
        return "ok"

    with pytest.raises(Leaked, match=r"the descriptor of .*, opened at .* in handler"):
        async with open_client(app) as client:
            await client.get("/")
    os.close(kept[0])


async def test_what_the_test_itself_opens_is_its_own(tmp_path: Path) -> None:
    """And what its fixtures open meanwhile; pytest-trio runs them side by side."""
    async with open_client(TrioWeb("right")) as client:
        assert (await client.get("/")).status == 404
        own = socket.socket()
        file = (tmp_path / "own.txt").open("w")
    own.close()
    file.close()


async def test_what_is_closed_in_time_is_no_leak(tmp_path: Path) -> None:
    app = TrioWeb("right")

    @app.websocket("/")
    async def handler(ws: Websocket) -> None:
        with (tmp_path / "log.txt").open("w") as log:
            async for message in ws:
                log.write(str(message))

    with (tmp_path / "log.txt").open("a"):  # the test has it open as well
        async with open_client(app) as client, client.websocket("/") as ws:
            await ws.send("x")


async def test_a_socket_that_is_closed_in_time_is_no_leak() -> None:
    app, kept = TrioWeb("right"), []

    @app.get("/")
    async def handler() -> str:
        with socket.socket() as one:
            kept.append(one)
        return "ok"

    async with open_client(app) as client:
        await client.get("/")


class Descriptor:
    """Is part of a cycle, so that it is not closed before somebody looks for garbage."""

    def __init__(self, path: Path) -> None:
        self.number = os.open(path, os.O_RDONLY)
        self.itself = self

    def __del__(self) -> None:
        os.close(self.number)


async def test_what_only_waits_to_be_found_as_garbage_is_no_leak(tmp_path: Path) -> None:
    app = TrioWeb("right")

    @app.websocket("/")
    async def handler(ws: Websocket) -> None:
        Descriptor(tmp_path)

    async with open_client(app) as client, client.websocket("/"):
        pass


# What the test itself does


async def test_a_failure_of_the_test_is_what_comes_out(nursery: trio.Nursery) -> None:
    """What is left is a note then."""
    app = TrioWeb("wrong")

    @app.websocket("/")
    async def handler(ws: Websocket) -> None:
        nursery.start_soon(poll_forever)

    error = ValueError("the test's own")

    async def fail() -> None:
        async with open_client(app) as client, client.websocket("/"):
            await wait_all_tasks_blocked()
            raise error

    with pytest.raises(ValueError, match="the test's own") as caught:
        await fail()
    assert caught.value is error
    assert "poll_forever" in "\n".join(error.__notes__)


async def test_a_tests_own_tasks_are_its_own(nursery: trio.Nursery) -> None:
    async with open_client(TrioWeb()) as client:
        nursery.start_soon(poll_forever)
        client.connect()


async def test_looking_can_be_left_out(nursery: trio.Nursery) -> None:
    app = TrioWeb("wrong")

    @app.websocket("/")
    async def handler(ws: Websocket) -> None:
        nursery.start_soon(poll_forever)

    async with open_client(app, check_leaks=False) as client, client.websocket("/"):
        pass


# Other clients


async def test_a_task_that_a_second_client_has_started(nursery: trio.Nursery) -> None:
    """It is the first one's to find, who ends the application."""
    app = TrioWeb("wrong")

    @app.websocket("/")
    async def handler(ws: Websocket) -> None:
        app.nursery.start_soon(poll_forever)  # ends with the application
        nursery.start_soon(poll_forever)

    async def visit() -> None:
        async with open_client(app), open_client(app) as second, second.websocket("/"):
            pass

    with pytest.raises(Leaked, match=r"1 thing has .*\n.*poll_forever, started at .* in handler"):
        await visit()


async def test_a_session_whose_cable_is_pulled_leaks_nothing(autojump_clock: MockClock) -> None:
    """Though the closing handshake of the server has no answer."""
    app = TrioWeb("right")

    @app.websocket("/")
    async def handler(ws: Websocket) -> None:
        await ws.recv()
        await ws.close(4000)

    async with open_client(app) as client, client.websocket("/") as ws:
        await ws.send("x")
        ws.drop()
        await trio.sleep(1)


async def test_a_cancelled_block_waits_for_its_handler(autojump_clock: MockClock) -> None:
    """Which hears of the end before it is cancelled."""
    diary: list[object] = []
    app = TrioWeb("right")

    @app.websocket("/")
    async def handler(ws: Websocket) -> None:
        async for _ in ws:
            pass
        diary.append(ws.close_info and ws.close_info.code)
        try:
            await trio.sleep(1)
        finally:
            diary.append("cleaned up")

    async with open_client(app) as client:
        with trio.move_on_after(3):
            async with client.websocket("/"):
                await trio.sleep_forever()
        assert diary == [1006, "cleaned up"]
        assert client.connections == []
