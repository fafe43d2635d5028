"""The programs of the second seed document behave as it says."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trioweb.testing import open_client

if TYPE_CHECKING:
    import pytest

    from tests.seeds.conftest import LoadSeed


async def test_client_is_answered_by_name(
    load_seed: LoadSeed, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each text comes back with the client's id, and its leaving is noticed."""
    app = load_seed("ravyn_client").app
    async with open_client(app) as client:
        async with client.websocket("/ws/seven") as ws:
            await ws.send("hello")
            await ws.expect("Message from seven: hello")
            await ws.send("again")
            await ws.expect("Message from seven: again")
        assert capsys.readouterr().out == "Client seven disconnected\n"


async def test_vanished_client_is_a_disconnect(
    load_seed: LoadSeed, capsys: pytest.CaptureFixture[str]
) -> None:
    """``except WebSocketDisconnect`` runs for a peer that sends no Close as well."""
    app = load_seed("ravyn_client").app
    async with open_client(app) as client:
        async with client.websocket("/ws/8") as ws:
            await ws.send("hello")
            await ws.expect("Message from 8: hello")
            ws.abort()
        assert capsys.readouterr().out == "Client 8 disconnected\n"


async def test_broadcast_reaches_everybody(load_seed: LoadSeed) -> None:
    """What one says all hear; who has left is off the list."""
    seed = load_seed("ravyn_broadcast")
    async with open_client(seed.app) as client, client.websocket("/chat") as one:
        async with client.websocket("/chat") as two:
            await one.send("hi")
            await one.expect("Broadcast: hi")
            await two.expect("Broadcast: hi")
            assert len(seed.manager.active_connections) == 2
        assert len(seed.manager.active_connections) == 1
        await one.send("still here")
        await one.expect("Broadcast: still here")
