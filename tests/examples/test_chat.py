"""examples/chat.py does what it shows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from trioweb.testing import open_client

if TYPE_CHECKING:
    import trio.testing

    from tests.examples.conftest import LoadExample


async def test_members_hear_each_other_and_no_other_room(load_example: LoadExample) -> None:
    """Joining, talking and leaving are told to the members of the same room."""
    app = load_example("chat").app
    async with open_client(app) as client, client.websocket("/ws/chat/tea?name=Ada") as ada:
        await ada.expect_json({"type": "joined", "name": "Ada", "people": ["Ada"]})
        async with client.websocket("/ws/chat/tea?name=Bob") as bob:
            joined = {"type": "joined", "name": "Bob", "people": ["Ada", "Bob"]}
            await ada.expect_json(joined)
            await bob.expect_json(joined)
            async with client.websocket("/ws/chat/cellar") as other:
                alone = {"type": "joined", "name": "Anonymous", "people": ["Anonymous"]}
                await other.expect_json(alone)
                assert (await client.get("/api/rooms")).json() == {"tea": 2, "cellar": 1}
            await bob.send_json({"text": "hi"})
            said = {"type": "chat", "name": "Bob", "text": "hi"}
            await ada.expect_json(said)
            await bob.expect_json(said)
        await ada.expect_json({"type": "left", "name": "Bob", "people": ["Ada"]})
        assert (await client.get("/api/rooms")).json() == {"tea": 1}


async def test_vanished_member_is_announced(load_example: LoadExample) -> None:
    """A peer that is gone without a Close has left as well."""
    app = load_example("chat").app
    async with (
        open_client(app) as client,
        client.websocket("/ws/chat/tea?name=Ada") as ada,
        client.websocket("/ws/chat/tea?name=Bob") as bob,
    ):
        for _ in range(2):
            await ada.expect_json(like={"type": "joined"})
        bob.abort()
        await ada.expect_json({"type": "left", "name": "Bob", "people": ["Ada"]})


@pytest.mark.parametrize("message", ["{", "[]", "[" * 100_000, '{"text": 1}', b"\xff"])
async def test_nonsense_is_answered_to_its_sender_only(
    load_example: LoadExample, message: str | bytes
) -> None:
    """What is not a message is told to who sent it, and the chat goes on."""
    app = load_example("chat").app
    async with open_client(app) as client, client.websocket("/ws/chat/tea?name=Ada") as ada:
        await ada.expect_json(like={"type": "joined"})
        await ada.send(message)
        await ada.expect_json(like={"error": str})
        await ada.send_json({"text": "fine"})
        await ada.expect_json(like={"text": "fine"})


async def test_blank_lines_are_ignored_and_long_ones_cut(load_example: LoadExample) -> None:
    """What the page would not send is no reason to answer."""
    app = load_example("chat").app
    async with open_client(app) as client, client.websocket("/ws/chat/tea?name=Ada") as ada:
        await ada.expect_json(like={"type": "joined"})
        await ada.send_json({"text": " "})
        await ada.send_json({"text": "x" * 5000})
        await ada.expect_json(like={"text": "x" * 4000})


async def test_slow_member_holds_nobody_up(
    load_example: LoadExample, autojump_clock: trio.testing.MockClock
) -> None:
    """Who reads nothing is sent away; the others get every message meanwhile."""
    app = load_example("chat").app
    async with (
        open_client(app, config={"WEBSOCKET_SEND_QUEUE_BYTES": 1024}) as client,
        client.websocket("/ws/chat/tea?name=Ada") as ada,
        client.websocket("/ws/chat/tea?name=Sloth") as sloth,
    ):
        for _ in range(2):
            await ada.expect_json(like={"type": "joined"})
        sloth.stall()
        # More than the connection to the sloth and four times its bound hold.
        texts = [f"{number} " + "x" * 2000 for number in range(50)]
        for text in texts:
            await ada.send_json({"text": text})
        # The goodbye that the sloth does not read may take WEBSOCKET_TIMEOUT.
        events = [await ada.recv_json(timeout=60) for _ in range(51)]
        assert [event["text"] for event in events if event["type"] == "chat"] == texts
        assert {"type": "left", "name": "Sloth", "people": ["Ada"]} in events


async def test_pages_lead_to_a_room(load_example: LoadExample) -> None:
    """The front page sends to the lobby, whose page is HTML."""
    async with open_client(load_example("chat").app) as client:
        front = await client.get("/")
        assert (front.status, front.headers["location"]) == (302, "/rooms/lobby")
        page = await client.get("/rooms/lobby")
        assert page.status == 200
        assert page.headers["content-type"].startswith("text/html")
