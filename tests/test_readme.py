"""What the README shows works."""

from __future__ import annotations

import re
from hashlib import sha256
from pathlib import Path

from trioweb import TrioWeb
from trioweb.testing import open_client

README = Path(__file__).parents[1] / "README.md"


async def test_chat_room_in_ten_lines() -> None:
    """The program that is shown lets two talk, and outlives one that vanishes."""
    shown = re.search(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    assert shown is not None
    program: dict[str, object] = {}
    exec(shown[1], program)
    app = program["app"]
    assert isinstance(app, TrioWeb)
    async with open_client(app) as client, client.websocket("/chat/Ada") as ada:
        async with client.websocket("/chat/Bob") as bob:
            await bob.send("hello")
            await ada.expect("Bob: hello")
            await bob.expect("Bob: hello")
            bob.abort()
        await ada.send("still here")
        await ada.expect("Ada: still here")
    assert program["members"] == set()


def test_limits_are_accepted() -> None:
    """The keys and the route's options that are shown exist and may have these values."""
    shown = re.search(r"## Limits.*?```python\n(.*?)```", README.read_text("utf-8"), re.DOTALL)
    assert shown is not None
    program: dict[str, object] = {"TrioWeb": TrioWeb}
    exec(shown[1], program)
    app = program["app"]
    assert isinstance(app, TrioWeb)
    assert app.config.WEBSOCKET_RATE_LIMIT == (50, 10)
    assert app.router.routes[0].overrides["rate_limit"] is None


async def test_messages_larger_than_memory() -> None:
    """The digest is that of all parts, and the fragments are one message."""
    shown = re.search(r"## Messages.*?```python\n(.*?)```", README.read_text("utf-8"), re.DOTALL)
    assert shown is not None
    program: dict[str, object] = {}
    exec(shown[1], program)
    app = program["app"]
    assert isinstance(app, TrioWeb)
    async with open_client(app) as client:
        async with client.websocket("/sha256") as ws:
            await ws.send(bytes(5_000_000))
            await ws.expect(sha256(bytes(5_000_000)).hexdigest())
        async with client.websocket("/count/3") as ws:
            await ws.expect("1\n2\n3\n")


def test_links_lead_somewhere() -> None:
    """Every relative link names a file of the project."""
    for target in re.findall(r"\]\((?!http)([^)#]+)", README.read_text(encoding="utf-8")):
        assert (README.parent / target).exists(), target
