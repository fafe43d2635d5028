"""A board of live cursors, and a firefly to catch.

Run it with ``trioweb run examples/cursors.py`` and open the printed address in two windows.

What it shows beside the hunt:

- A room task. ``fly`` starts when the first browser joins a board and is cancelled when the last
  one has left; so the firefly, which belongs to the board and to none of its members, is a few
  local variables. However often browsers point, their positions go out 20 times a second.
- Conflation. A broadcast with a ``key`` replaces the one of the same key that still waits for a
  slow browser: of each cursor it gets the newest position, and nothing piles up. The page counts
  the ticks that were skipped so.
- What belongs to a member is its ``meta``: there is no second list of who is there.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from random import uniform

import trio

from trioweb import Request, Response, Room, TrioWeb, Websocket
from trioweb.response import html, redirect

TICK = 0.05  # seconds
REACH = 0.04  # of the board's width and height; a cursor this near has caught the firefly
MAX_NAME = 24  # characters

PAGE = Path(__file__).with_name("cursors.html").read_text(encoding="utf-8")

app = TrioWeb("cursors")
ids = count(1)


@dataclass
class Cursor:
    """What a board knows of one browser.

    Attributes:
        at: from (0, 0), top left, to (1, 1); None until it points somewhere.
        caught: how many fireflies.
    """

    id: int
    name: str
    at: tuple[float, float] | None = None
    caught: int = 0


@app.websocket("/ws/boards/<board_id>")
async def point(request: Request, ws: Websocket, board_id: str, name: str = "") -> None:
    cursor = Cursor(next(ids), name.strip()[:MAX_NAME] or "Anonymous")
    await ws.send({"type": "welcome", "id": cursor.id})
    room = app.room(f"board:{board_id}")
    try:
        async with room.join(ws, meta=cursor):
            show_people(room)
            async for x, y in ws.iter_json(tuple[float, float], on_invalid="reply"):
                cursor.at = min(max(x, 0), 1), min(max(y, 0), 1)
    finally:
        show_people(room)


def show_people(room: Room) -> None:
    """Tells the members who is there; of these lists, too, only the newest waits."""
    people = [member.meta for member in room.members]
    room.broadcast({"type": "people", "people": people}, key="people")


@app.room_task("board:<board_id>")
async def fly(room: Room) -> None:
    """Moves the firefly, and tells where it and the cursors are."""
    shown: dict[Websocket, tuple[float, float] | None] = {}
    phase = uniform(0, 100)
    for tick in count():
        phase += TICK
        firefly = 0.5 + 0.4 * math.sin(0.7 * phase), 0.5 + 0.4 * math.sin(1.1 * phase)
        room.broadcast({"type": "firefly", "at": firefly, "tick": tick}, key="firefly")
        for ws, cursor in room.members:
            if cursor.at != shown.get(ws):
                moved = {"type": "moved", "id": cursor.id, "at": cursor.at}
                room.broadcast(moved, exclude=ws, key=cursor.id)
            if cursor.at and math.dist(cursor.at, firefly) < REACH:
                cursor.caught += 1
                phase = uniform(0, 100)  # the next one comes from somewhere else
                show_people(room)
        shown = {ws: cursor.at for ws, cursor in room.members}
        await trio.sleep(TICK)


@app.get("/")
async def index(request: Request) -> Response:
    return redirect("/boards/meadow")


@app.get("/boards/<board_id>")
async def board_page(request: Request, board_id: str) -> Response:
    return html(PAGE)


if __name__ == "__main__":
    app.run(host="127.0.0.1", port=8000)
