"""examples/echo.py does what it shows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trioweb.testing import open_client

if TYPE_CHECKING:
    from tests.examples.conftest import LoadExample


async def test_echo_welcomes_and_answers(load_example: LoadExample) -> None:
    """Texts come back with a prefix, bytes as they are."""
    async with (
        open_client(load_example("echo").app) as client,
        client.websocket("/ws") as ws,
    ):
        await ws.expect("Welcome to the echo server!")
        await ws.send("hello")
        await ws.expect("Echo: hello")
        await ws.send(b"\x00\xff")
        await ws.expect(b"\x00\xff")


async def test_page_is_served(load_example: LoadExample) -> None:
    """The page and the WebSocket live on one port."""
    async with open_client(load_example("echo").app) as client:
        page = await client.get("/")
        assert page.status == 200
        assert "new WebSocket" in page.text
