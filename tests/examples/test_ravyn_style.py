"""examples/ravyn_style.py does what it shows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trioweb.testing import open_client

if TYPE_CHECKING:
    from tests.examples.conftest import LoadExample


async def test_board_reaches_all_and_announces_leaving(load_example: LoadExample) -> None:
    """A notice reaches every reader; one that vanishes is announced to the others."""
    async with (
        open_client(load_example("ravyn_style").app) as client,
        client.websocket("/ws/board/ada") as ada,
        client.websocket("/ws/board/bob") as bob,
    ):
        await ada.send("tea is ready")
        await ada.expect("ada: tea is ready")
        await bob.expect("ada: tea is ready")
        assert (await client.get("/readers")).json() == ["ada", "bob"]
        bob.abort()
        await ada.expect("bob has left")
        assert (await client.get("/readers")).json() == ["ada"]


async def test_sum_adds_numbers(load_example: LoadExample) -> None:
    """JSON in, JSON out."""
    async with (
        open_client(load_example("ravyn_style").app) as client,
        client.websocket("/ws/sum") as ws,
    ):
        await ws.send_json(1)
        await ws.expect_json({"total": 1.0})
        await ws.send_json(2.5)
        await ws.expect_json({"total": 3.5})
