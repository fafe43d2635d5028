"""Members that are alive, by what they take."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.rooms.conftest import BUFFER, staying_in
from trioweb import TrioWeb
from trioweb.testing import Link, open_client

if TYPE_CHECKING:
    from trio.testing import MockClock


@pytest.mark.parametrize("is_pinged", [False, True])
async def test_what_a_member_takes_of_a_broadcast_is_life(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, is_pinged: bool
) -> None:
    """A ping that waits behind it can't be answered; whoever wrote what was begun."""
    monkeypatch.setattr("trioweb.ws.fanout.SLICE", 1)
    app = TrioWeb()
    app.add_websocket_route(staying_in("a"), "/")
    slow = Link(buffer=BUFFER, bandwidth=BUFFER / 5)
    async with (
        open_client(app, link=slow) as client,
        client.websocket("/") as first,
        client.websocket("/") as second,
        client.websocket("/") as third,
    ):
        await wait_all_tasks_blocked()
        app.room("a").broadcast(bytes(50 * BUFFER))
        if is_pinged:
            for ws in client.connections:
                await ws.ping()
        await trio.sleep(65)
        assert [ws.open for ws in client.connections] == [True] * 3
        for session in (first, second, third):
            session.abort()  # what is on the way would take minutes
