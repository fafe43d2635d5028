"""examples/cursors.py does what it shows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import trio

from trioweb.testing import Link, open_client

if TYPE_CHECKING:
    from tests.examples.conftest import LoadExample
    from trioweb.testing import WebsocketSession


async def next_of(ws: WebsocketSession, kind: str) -> Any:
    """The next event of a kind; others, which come twenty times a second, are skipped."""
    while True:
        event = await ws.recv_json()
        if event.get("type") == kind:
            return event


async def test_cursors_are_seen_by_the_others_only(load_example: LoadExample) -> None:
    """A cursor is named, moves on the boards of the others, and is gone when its page is."""
    app = load_example("cursors").app
    async with open_client(app) as client, client.websocket("/ws/boards/a?name=Ada") as ada:
        await ada.expect_json({"type": "welcome", "id": 1})
        alone = {"id": 1, "name": "Ada", "at": None, "caught": 0}
        assert (await next_of(ada, "people"))["people"] == [alone]
        async with (
            client.websocket("/ws/boards/a") as bob,
            client.websocket("/ws/boards/b?name=Eve") as eve,
        ):
            await bob.expect_json({"type": "welcome", "id": 2})
            people = (await next_of(bob, "people"))["people"]
            assert [(person["id"], person["name"]) for person in people] == [
                (1, "Ada"),
                (2, "Anonymous"),
            ]
            # Both are at the edge, where the firefly does not come.
            await bob.send_json([0.0, 0.5])
            assert await next_of(ada, "moved") == {"type": "moved", "id": 2, "at": [0.0, 0.5]}
            await ada.send_json([1, 0])
            # Had Bob been told of his own, it would have come first; Eve's is another board.
            assert await next_of(bob, "moved") == {"type": "moved", "id": 1, "at": [1.0, 0.0]}
            people = (await next_of(eve, "people"))["people"]
            assert [person["name"] for person in people] == ["Eve"]
        assert (await next_of(ada, "people"))["people"] == [{**alone, "at": [1.0, 0.0]}]


async def test_firefly_flies_as_long_as_somebody_is_there(
    load_example: LoadExample, autojump_clock: trio.testing.MockClock
) -> None:
    """The room's task ticks twenty times a second, ends with the last leave, and starts anew."""
    app = load_example("cursors").app
    async with open_client(app) as client:
        for _ in range(2):
            async with client.websocket("/ws/boards/a") as ws:
                first = await next_of(ws, "firefly")
                assert first["tick"] == 0
                began = trio.current_time()
                for tick in range(1, 41):
                    firefly = await next_of(ws, "firefly")
                    assert firefly["tick"] == tick
                    assert firefly["at"] != first["at"]
                assert trio.current_time() - began == pytest.approx(2)
            assert app.rooms == {}


async def test_positions_go_out_once_a_tick(
    load_example: LoadExample, autojump_clock: trio.testing.MockClock
) -> None:
    """However often a browser points, the others get the newest position of each tick."""
    app = load_example("cursors").app
    async with (
        open_client(app) as client,
        client.websocket("/ws/boards/a") as ada,
        client.websocket("/ws/boards/a") as bob,
    ):
        await next_of(bob, "firefly")
        for step in range(101):
            await ada.send_json([step / 100, 0])
        assert (await next_of(bob, "moved"))["at"] == [1, 0]


async def test_slow_browser_gets_the_newest_of_each(
    load_example: LoadExample, autojump_clock: trio.testing.MockClock
) -> None:
    """What a browser did not read in time is replaced by what is newer, and never piles up."""
    app = load_example("cursors").app
    async with (
        open_client(app) as client,
        client.websocket("/ws/boards/a") as ada,
        client.websocket("/ws/boards/a", link=Link(buffer=1024)) as sloth,
    ):
        await next_of(sloth, "firefly")
        sloth.stall()
        for step in range(201):
            await ada.send_json([step / 200, 1])
            await next_of(ada, "firefly")
        sloth.resume()
        moves: list[list[float]] = []
        while moves[-1:] != [[1, 1]]:
            moves.append((await next_of(sloth, "moved"))["at"])
        assert moves == sorted(moves)
        assert len(moves) < 30  # what fits into the connection, and the newest


async def test_firefly_is_caught(
    load_example: LoadExample, autojump_clock: trio.testing.MockClock
) -> None:
    """Who touches it is counted, for all to see, and it is somewhere else then."""
    app = load_example("cursors").app
    async with (
        open_client(app) as client,
        client.websocket("/ws/boards/a?name=Ada") as ada,
        client.websocket("/ws/boards/a?name=Bob") as bob,
    ):
        await next_of(ada, "people")
        for ws in (ada, bob):
            await next_of(ws, "people")
        await ada.send_json((await next_of(ada, "firefly"))["at"])
        for ws in (ada, bob):
            people = (await next_of(ws, "people"))["people"]
            assert {person["name"]: person["caught"] for person in people} == {"Ada": 1, "Bob": 0}


@pytest.mark.parametrize("message", ["{", "[1]", '["a", 0]', "[NaN, 0]", "[1e999, 0]", b"\xff"])
async def test_nonsense_is_answered(load_example: LoadExample, message: str | bytes) -> None:
    """What is no point is told to who sent it, and the board lives on."""
    app = load_example("cursors").app
    async with open_client(app) as client, client.websocket("/ws/boards/a") as ws:
        await next_of(ws, "people")
        await ws.send(message)
        while "error" not in await ws.recv_json():
            pass
        await next_of(ws, "firefly")


async def test_points_and_names_are_bounded(load_example: LoadExample) -> None:
    """A point beyond the board is at its edge, and a long name is cut."""
    app = load_example("cursors").app
    async with open_client(app) as client, client.websocket("/ws/boards/a") as ada:
        await next_of(ada, "people")
        async with client.websocket(f"/ws/boards/a?name={'x' * 100}") as bob:
            people = (await next_of(ada, "people"))["people"]
            assert people[1]["name"] == "x" * 24
            await bob.send_json([-5, 1e300])
            assert (await next_of(ada, "moved"))["at"] == [0, 1]


async def test_pages_lead_to_a_board(load_example: LoadExample) -> None:
    """The front page sends to a board, whose page is HTML."""
    async with open_client(load_example("cursors").app) as client:
        front = await client.get("/")
        assert (front.status, front.headers["location"]) == (302, "/boards/meadow")
        page = await client.get("/boards/meadow")
        assert page.status == 200
        assert page.headers["content-type"].startswith("text/html")
