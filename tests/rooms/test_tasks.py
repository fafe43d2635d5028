"""Room tasks live from a room's first join to its last leave."""

from __future__ import annotations

import contextvars
import logging
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.app.conftest import HANDSHAKE
from trioweb import Room, TrioWeb, Websocket
from trioweb.routing.routes import handler_name
from trioweb.testing import open_client
from trioweb.testing.link import link_pair

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")


def make_app(**options: Any) -> TrioWeb:
    """An application whose members stay in a room until they leave, or say "leave"."""
    app = TrioWeb(**options)

    @app.websocket("/join/<name>")
    async def member(ws: Websocket, name: str) -> None:
        variable.set("from the handler")
        async with app.room(name).join(ws, meta=name):
            async for message in ws:
                if message == "leave":
                    break
        async for _ in ws:
            pass

    return app


class Diary:
    """A task that writes down when it starts and ends."""

    def __init__(self, *, cleanup: float = 0) -> None:
        self.cleanup = cleanup
        self.lines: list[str] = []
        self.running = 0

    def take(self) -> list[str]:
        """What was written since the last call."""
        lines, self.lines = self.lines, []
        return lines

    async def keep(self, room: Room) -> None:
        self.lines.append(f"start {room.name}")
        self.running += 1
        assert self.running == 1, "two lives overlap"
        try:
            await trio.sleep_forever()
        except trio.Cancelled:
            self.lines.append(f"cancelled {room.name}")
            raise
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(self.cleanup)
            self.running -= 1
            self.lines.append(f"end {room.name}")


async def test_task_lives_from_the_first_join_to_the_last_leave() -> None:
    """A handle starts nothing, nor does a broadcast; nor does it end while anybody is there."""
    app, diary = make_app(), Diary()
    app.room_task("tea")(diary.keep)
    async with open_client(app) as client:
        app.room("tea").broadcast("to nobody")
        await wait_all_tasks_blocked()
        assert diary.take() == []
        async with client.websocket("/join/tea") as first:
            await wait_all_tasks_blocked()
            assert diary.take() == ["start tea"]
            async with client.websocket("/join/tea"), client.websocket("/join/milk"):
                await first.send("leave")
                await wait_all_tasks_blocked()
                assert diary.take() == []
                assert len(app.room("tea").members) == 1
            assert diary.take() == ["cancelled tea", "end tea"]
        async with client.websocket("/join/tea"):
            await wait_all_tasks_blocked()
            assert diary.take() == ["start tea"]


async def test_loss_of_the_last_member_ends_it() -> None:
    app, diary = make_app(), Diary()
    app.room_task("tea")(diary.keep)
    async with open_client(app) as client, client.websocket("/join/tea") as ws:
        await wait_all_tasks_blocked()
        ws.abort()
        await wait_all_tasks_blocked()
        assert diary.take() == ["start tea", "cancelled tea", "end tea"]


async def test_task_finds_the_first_member_there() -> None:
    app = make_app()
    found: list[object] = []

    @app.room_task("<name>")
    async def look(room: Room, name: str) -> None:
        found.extend(member.meta for member in room.members)
        assert app.rooms[name] == room

    async with open_client(app) as client, client.websocket("/join/tea"):
        await wait_all_tasks_blocked()
        assert found == ["tea"]


async def test_room_that_is_left_in_the_step_of_its_join_runs_nothing() -> None:
    """There was no moment in which a task could have been."""
    app, diary = TrioWeb(), Diary()
    app.room_task("tea")(diary.keep)

    @app.websocket("/")
    async def pass_through(ws: Websocket) -> None:
        async with app.room("tea").join(ws):
            pass
        await ws.send("left")

    async with open_client(app) as client, client.websocket("/") as ws:
        await ws.expect("left")
        await wait_all_tasks_blocked()
        assert diary.take() == []


async def test_next_life_waits_for_the_end_of_the_one_before(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """The room works meanwhile; lives that are over before they could start never do."""
    app, diary = make_app(), Diary(cleanup=3)
    app.room_task("tea")(diary.keep)
    async with open_client(app) as client:
        async with client.websocket("/join/tea"):
            await wait_all_tasks_blocked()
        left = trio.current_time()
        for _ in range(3):
            async with client.websocket("/join/tea") as ws:
                await wait_all_tasks_blocked()
                assert app.room("tea").broadcast("hello").sent == 1
                await ws.expect("hello")
        assert trio.current_time() == left
        assert diary.take() == ["start tea", "cancelled tea"]
        async with client.websocket("/join/tea"):
            await trio.sleep(2.9)
            assert diary.take() == []
            await trio.sleep(0.2)
            assert diary.take() == ["end tea", "start tea"]
    assert diary.take() == ["cancelled tea", "end tea"]


async def test_rooms_of_one_pattern_have_lives_of_their_own() -> None:
    app = make_app()
    lines: list[str] = []

    @app.room_task("<name>")
    async def keep(name: str) -> None:
        lines.append(f"start {name}")
        try:
            await trio.sleep_forever()
        finally:
            lines.append(f"end {name}")

    async with open_client(app) as client, client.websocket("/join/a"):
        async with client.websocket("/join/b"):
            await wait_all_tasks_blocked()
        assert lines == ["start a", "start b", "end b"]


async def test_all_tasks_that_match_run() -> None:
    """The one's early return ends neither the other nor the room, and is for good."""
    app, diary = make_app(), Diary()
    app.room_task("tea")(diary.keep)
    returned: list[str] = []

    @app.room_task("<name>")
    async def greet(name: str) -> None:
        returned.append(name)

    async with open_client(app) as client:
        for times in (1, 2):
            async with client.websocket("/join/tea"), client.websocket("/join/tea"):
                await wait_all_tasks_blocked()
                assert diary.take() == ["start tea"]
                assert returned == ["tea"] * times
                assert len(app.room("tea").members) == 2
            assert diary.take() == ["cancelled tea", "end tea"]


async def test_room_outlives_its_only_task() -> None:
    app = make_app()
    returned: list[str] = []

    @app.room_task("<name>")
    async def greet(room: Room, name: str) -> None:
        returned.append(name)
        room.broadcast("welcome")

    async with open_client(app) as client:
        for times in (1, 2):
            async with client.websocket("/join/tea") as ws:
                await ws.expect("welcome")
                assert app.room("tea").broadcast("still here").sent == 1
                await ws.expect("still here")
                assert returned == ["tea"] * times


async def test_typed_parameter_decides_and_converts() -> None:
    app = make_app()
    numbers: list[object] = []

    @app.room_task("game:<number:int>")
    async def by_type(number: object) -> None:
        numbers.append(number)

    @app.room_task("game:<number>")
    async def by_annotation(number: int) -> None:
        numbers.append(number)

    async with (
        open_client(app) as client,
        client.websocket("/join/game:x"),
        client.websocket("/join/game:7"),
    ):
        await wait_all_tasks_blocked()
        assert numbers == [7, 7]
        assert list(app.rooms) == ["game:x", "game:7"]


async def test_task_runs_in_the_context_of_the_lifespan() -> None:
    """Not in that of the handler that happens to join first."""
    seen: list[str] = []

    @asynccontextmanager
    async def lifespan(app: TrioWeb) -> AsyncGenerator[None, None]:
        variable.set("from the lifespan")
        yield

    app = make_app(lifespan=lifespan)

    @app.room_task("<name>")
    async def look(name: str) -> None:
        seen.append(variable.get())
        variable.set("from a task")

    async with (
        open_client(app) as client,
        client.websocket("/join/a"),
        client.websocket("/join/b"),
    ):
        await wait_all_tasks_blocked()
    assert seen == ["from the lifespan"] * 2


async def test_task_broadcasts_and_closes(autojump_clock: trio.testing.MockClock) -> None:
    """Its room is what the members hold; when it closes it, it has ended itself."""
    app, lines = make_app(), []

    @app.room_task("<name>")
    async def play(room: Room, this: TrioWeb) -> None:
        assert this is app
        try:
            for tick in range(3):
                await trio.sleep(1)
                room.broadcast(f"{tick} for {len(room.members)}")
            room.close(4000, "game over")
            assert room.members == ()
            await trio.sleep(1)
        finally:
            lines.append("end")

    async with (
        open_client(app) as client,
        client.websocket("/join/a") as first,
        client.websocket("/join/a") as second,
    ):
        for ws in (first, second):
            for tick in range(3):
                await ws.expect(f"{tick} for 2")
        for ws in (first, second):
            assert await ws.expect_close(4000) == "game over"
        await wait_all_tasks_blocked()
        assert lines == ["end"]


def errors(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    """What was logged, warnings included."""
    return [record for record in caplog.records if record.levelno > logging.INFO]


class SecretError(Exception):
    """What only the log may tell."""


async def test_crash_closes_the_room_and_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    """Its members come again, and so does the task; whoever is in other rooms sees nothing."""
    app, diary = make_app(), Diary()
    crash = trio.Event()
    starts: list[str] = []

    @app.room_task("tea", name="crasher")
    async def crash_once(room: Room) -> None:
        starts.append(room.name)
        await crash.wait()
        raise SecretError("the password")

    app.room_task("tea")(diary.keep)
    async with open_client(app) as client, client.websocket("/join/milk") as other:
        async with (
            client.websocket("/join/tea") as first,
            client.websocket("/join/tea") as second,
        ):
            await wait_all_tasks_blocked()
            app.room("tea").broadcast("last words")
            crash.set()
            for ws in (first, second):
                await ws.expect("last words")
                assert await ws.expect_close(1011) == "internal error"
        assert diary.take() == ["start tea", "cancelled tea", "end tea"]
        assert list(app.rooms) == ["milk"]
        (record,) = errors(caplog)
        assert record.levelname == "ERROR"
        assert record.name == "trioweb"
        assert "crasher" in record.getMessage()
        assert "'tea'" in record.getMessage()
        assert record.exc_info is not None
        assert isinstance(record.exc_info[1], SecretError)
        assert record.exc_info[1].__traceback__ is not None

        crash = trio.Event()
        async with client.websocket("/join/tea") as ws:
            await wait_all_tasks_blocked()
            assert starts == ["tea", "tea"]
            assert diary.take() == ["start tea"]
            app.room("tea").broadcast("again")
            await ws.expect("again")
        app.room("milk").broadcast("still here")
        await other.expect("still here")
    assert len(errors(caplog)) == 1


async def raise_group() -> None:
    raise ExceptionGroup("several", [SecretError("a"), SecretError("b")])


async def crash_in_a_nursery() -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.sleep_forever)
        raise SecretError("in a nursery")


async def time_out() -> None:
    raise trio.TooSlowError


@pytest.mark.parametrize(
    "task", [raise_group, crash_in_a_nursery, time_out, lambda: None], ids=handler_name
)
async def test_crash_of_any_kind_counts(
    task: Callable[[], Awaitable[None]], caplog: pytest.LogCaptureFixture
) -> None:
    """In the first step, in a group of the user's, and of what was no async function after all."""
    app = make_app()
    app.room_task("tea")(task)
    async with open_client(app) as client, client.websocket("/join/tea") as ws:
        assert await ws.expect_close(1011) == "internal error"
    (record,) = errors(caplog)
    assert handler_name(task) in record.getMessage()


async def test_what_ends_the_process_goes_through(caplog: pytest.LogCaptureFixture) -> None:
    """As from everywhere else, and as itself."""
    app = make_app()

    @app.room_task("tea")
    async def leave() -> None:
        raise SystemExit(3)

    with pytest.raises(SystemExit) as caught:
        async with open_client(app) as client, client.websocket("/join/tea") as ws:
            await ws.expect_close(1001)
    assert caught.value.code == 3
    assert errors(caplog) == []


async def test_crash_in_the_cleanup_leaves_the_next_members_alone(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """It is logged; those who are in the room now are not of that life."""
    app = make_app()
    starts: list[float] = []

    @app.room_task("tea")
    async def task() -> None:
        starts.append(trio.current_time())
        try:
            await trio.sleep_forever()
        finally:
            if len(starts) == 1:
                with trio.CancelScope(shield=True):
                    await trio.sleep(1)
                raise SecretError("in the cleanup")

    async with open_client(app) as client:
        async with client.websocket("/join/tea"):
            await wait_all_tasks_blocked()
        left = trio.current_time()
        async with client.websocket("/join/tea") as ws:
            await trio.sleep(2)
            assert starts == [starts[0], left + 1]
            app.room("tea").broadcast("still here")
            await ws.expect("still here")
    assert len(errors(caplog)) == 1


async def test_drain_ends_it_before_the_lifespan_is_left(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Its members leave as the drain begins; it has the lifespan's things for its cleanup."""
    diary = Diary(cleanup=3)

    @asynccontextmanager
    async def lifespan(app: TrioWeb) -> AsyncGenerator[None, None]:
        yield
        diary.lines.append("lifespan left")

    app = make_app(lifespan=lifespan)
    app.room_task("tea")(diary.keep)
    async with open_client(app) as client, client.websocket("/join/tea") as ws:
        await wait_all_tasks_blocked()
        app.shutdown()
        await wait_all_tasks_blocked()
        assert dict(app.rooms) == {}
        assert diary.take() == ["start tea", "cancelled tea"]
        await ws.expect_close(1001)
    assert diary.take() == ["end tea", "lifespan left"]


async def test_cancelled_serve_ends_it(autojump_clock: trio.testing.MockClock) -> None:
    diary = Diary(cleanup=1)

    @asynccontextmanager
    async def lifespan(app: TrioWeb) -> AsyncGenerator[None, None]:
        try:
            yield
        finally:
            diary.lines.append("lifespan left")

    app = make_app(lifespan=lifespan)
    app.room_task("tea")(diary.keep)
    ours, theirs = link_pair(4096)
    scope = trio.CancelScope()

    async def serve() -> None:
        with scope:
            await app.serve_stream(theirs)
        diary.lines.append("served")

    async with ours, trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        await ours.send_all(HANDSHAKE % b"/join/tea")
        await wait_all_tasks_blocked()
        assert diary.take() == ["start tea"]
        scope.cancel()
    assert diary.take() == ["cancelled tea", "end tea", "lifespan left", "served"]
    assert dict(app.rooms) == {}


@pytest.mark.parametrize("how", ["drain", "cancel"])
async def test_life_that_waits_for_the_one_before_ends_with_the_server(
    autojump_clock: trio.testing.MockClock, how: str
) -> None:
    """It has not begun, and never does; the one before has its time to end."""
    app, diary = make_app(config={"WEBSOCKET_TIMEOUT": 1}), Diary(cleanup=3)
    app.room_task("tea")(diary.keep)
    async with open_client(app) as client:
        for _ in range(2):
            async with client.websocket("/join/tea") as ws:
                await wait_all_tasks_blocked()
                await ws.send("leave")
                await wait_all_tasks_blocked()
        async with client.websocket("/join/tea"):
            await wait_all_tasks_blocked()
            if how == "drain":
                app.shutdown()
    assert diary.lines == ["start tea", "cancelled tea", "end tea"]


async def test_application_runs_again_with_its_tasks() -> None:
    app, diary = make_app(), Diary()
    app.room_task("tea")(diary.keep)
    for _ in range(2):
        async with open_client(app) as client, client.websocket("/join/tea"):
            await wait_all_tasks_blocked()
            assert diary.take() == ["start tea"]
        assert diary.take() == ["cancelled tea", "end tea"]


async def test_task_registered_at_run_time_is_for_rooms_that_come_to_be() -> None:
    """As a route that is registered then is for requests that come from then on."""
    app, diary = make_app(), Diary()
    async with open_client(app) as client:
        async with client.websocket("/join/tea"):
            await wait_all_tasks_blocked()
            app.room_task("tea")(diary.keep)
            async with client.websocket("/join/tea"):
                await wait_all_tasks_blocked()
                assert diary.take() == []
        async with client.websocket("/join/tea"):
            await wait_all_tasks_blocked()
            assert diary.take() == ["start tea"]
