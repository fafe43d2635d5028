"""Members that are alive, by what they take."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.rooms.conftest import BUFFER, open_stage, staying_in

if TYPE_CHECKING:
    import trio


@pytest.mark.parametrize("is_pinged", [False, True])
async def test_what_a_member_takes_of_a_broadcast_is_life(
    mock_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch, is_pinged: bool
) -> None:
    """A ping that waits behind it can't be answered; whoever wrote what was begun."""
    monkeypatch.setattr("trioweb.ws.fanout.SLICE", 1)
    async with open_stage() as stage:
        peers = await stage.connect_all([staying_in("a")] * 3)
        stage.app.room("a").broadcast(bytes(50 * BUFFER))
        for peer in peers:
            peer.is_stalled = True
            if is_pinged:
                await peer.ws.ping()
        for _ in range(13):
            mock_clock.jump(5)
            await stage.settle()
            for peer in peers:
                assert peer.read()
            await stage.settle()
        assert [peer.ws.open for peer in peers] == [True] * 3
