"""What the README shows works."""

from __future__ import annotations

import re
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.docs.examples import Example, find_faults, read_examples
from trioweb import TrioWeb, WebsocketClosed
from trioweb.testing import Denied, open_client

if TYPE_CHECKING:
    import trio.testing

README = Path(__file__).parents[1] / "README.md"


def read_shown(section: str) -> str:
    """A section's first program.

    Args:
        section: as its heading begins.
    """
    text = README.read_text(encoding="utf-8")
    shown = re.search(rf"## {section}.*?```python\n(.*?)```", text, re.DOTALL)
    assert shown is not None
    return shown[1]


def run_shown(section: str, **names: object) -> TrioWeb:
    """The application of a section's first program.

    Args:
        section: as its heading begins.
        names: what the program has from others.
    """
    program = dict(names)
    exec(read_shown(section), program)
    app = program["app"]
    assert isinstance(app, TrioWeb)
    return app


async def test_chat_room_in_ten_lines() -> None:
    """The program that is shown lets two talk, and outlives one that vanishes."""
    app = run_shown("A chat room")
    async with open_client(app) as client, client.websocket("/chat/Ada") as ada:
        async with client.websocket("/chat/Bob") as bob:
            await bob.send("hello")
            await ada.expect("Bob: hello")
            await bob.expect("Bob: hello")
            bob.abort()
        await ada.send("still here")
        await ada.expect("Ada: still here")
        assert [len(room.members) for room in app.rooms.values()] == [1]


async def test_rooms() -> None:
    """Members hear each other, requests and threads reach them, and leaving is told."""
    async with (
        open_client(run_shown("Rooms")) as client,
        client.websocket("/games/chess?player=Ada") as ada,
    ):
        async with client.websocket("/games/chess?player=Bob") as bob:
            await bob.send("e4")
            await ada.expect("Bob: e4")
            assert (await client.get("/games/chess/players")).json() == ["Ada", "Bob"]
            told = await client.post("/games/chess/notices?text=tea")
            assert told.json() == {"sent": 2, "dropped": 0, "closed": 0}
            for ws in (ada, bob):
                await ws.expect("tea")
        await ada.expect("Bob has left")


async def test_rooms_have_tasks(autojump_clock: trio.testing.MockClock) -> None:
    """The room's own ticks each second; one of the application counts down and ends the game."""
    async with (
        open_client(run_shown("Rooms")) as client,
        client.websocket("/games/go") as ws,
    ):
        await ws.expect("1 s")
        await ws.expect("2 s")
        assert (await client.post("/games/go/end")).status == 204
        heard = []
        with suppress(WebsocketClosed):
            while True:
                heard.append(await ws.recv())
        assert await ws.expect_close() == "the game is over"
        ends = [f"the game ends in {left} s" for left in (3, 2, 1)]
        assert [line for line in heard if line in ends] == ends


async def test_dependencies() -> None:
    """Payments are whole or not there, for users alone; an override stands for who it is."""
    app = run_shown("Dependencies")
    async with open_client(app) as client:
        paid = await client.post("/payments?token=Ada&to=Bob&amount=4")
        assert paid.json() == {"Ada": 6, "Bob": 4}
        assert (await client.post("/payments?token=Ada&to=Eve&amount=4")).status == 500
        assert (await client.post("/payments?token=Eve&to=Bob&amount=4")).status == 401
        with pytest.raises(Denied) as denied:
            async with client.websocket("/balance?token=Eve"):
                pass
        assert denied.value.status == 401
        handler = app.router.routes[0].handler
        find_user = handler.__globals__["find_user"]
        app.dependency_overrides[find_user] = lambda: "Ada"
        async with client.websocket("/balance") as ws:
            await ws.send("?")
            await ws.expect("6")


def test_limits_are_accepted() -> None:
    """The keys and the route's options that are shown exist and may have these values."""
    app = run_shown("Limits", TrioWeb=TrioWeb)
    assert app.config.WEBSOCKET_RATE_LIMIT == (50, 10)
    assert app.router.routes[0].overrides["rate_limit"] is None


async def test_messages_larger_than_memory() -> None:
    """The digest is that of all parts, and the fragments are one message."""
    async with open_client(run_shown("Messages")) as client:
        async with client.websocket("/sha256") as ws:
            await ws.send(bytes(5_000_000))
            await ws.expect(sha256(bytes(5_000_000)).hexdigest())
        async with client.websocket("/count/3") as ws:
            await ws.expect("1\n2\n3\n")


def test_testing(tmp_path: Path) -> None:
    """The test that is shown passes for the chat room that is shown, and fails for another one."""
    text = README.read_text(encoding="utf-8")
    project = read_examples(text.partition("## Testing\n")[2].partition("\n## ")[0])
    assert [one.name for one in project] == ["pyproject.toml", "test_room.py"]
    room = read_shown("A chat room")
    assert find_faults([Example("room.py", room), *project], tmp_path) == {}
    other = Example("room.py", room.replace("{name}: {message}", "{message}"))
    assert list(find_faults([other, *project], tmp_path)) == ["test_room.py"]


def test_links_lead_somewhere() -> None:
    """Every relative link names a file of the project."""
    for target in re.findall(r"\]\((?!http)([^)#]+)", README.read_text(encoding="utf-8")):
        assert (README.parent / target).exists(), target
