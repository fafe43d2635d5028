"""Chat rooms, one for each id, with a page for the browser.

Run it with ``trioweb run examples/chat.py`` and open the printed address in two tabs.

What it shows beside the chat itself:

- ``name`` of the handler is read from the query string, ``room_id`` from the path.
- ``app.room(room_id)`` is there for the asking. ``broadcast`` waits for nobody: a slow browser is
  the room's business, which lets messages wait for it up to a bound and then sends it away.
- ``iter_json`` takes messages that are a ``Line`` and answers all others itself.
- ``finally`` runs however the connection ended: closed tab, pulled cable, crash, shutdown. That
  is why a member that vanishes is announced like one that says goodbye.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from trioweb import Request, Response, Room, TrioWeb, Websocket
from trioweb.response import html, json, redirect

MAX_NAME = 40  # characters
MAX_TEXT = 4000  # characters

PAGE = Path(__file__).with_name("chat.html").read_text(encoding="utf-8")

app = TrioWeb("chat")


@dataclass
class Line:
    """What a browser says."""

    text: str


@app.websocket("/ws/chat/<room_id>")
async def chat(request: Request, ws: Websocket, room_id: str, name: str = "") -> None:
    name = name.strip()[:MAX_NAME] or "Anonymous"
    room = app.room(room_id)
    try:
        async with room.join(ws, meta=name):
            announce(room, "joined", name)
            async for line in ws.iter_json(Line, on_invalid="reply"):
                if line.text.strip():
                    room.broadcast({"type": "chat", "name": name, "text": line.text[:MAX_TEXT]})
    finally:
        announce(room, "left", name)


def announce(room: Room, event: str, name: str) -> None:
    """Tells the members who came or went, and who is there now."""
    people = sorted(member.meta for member in room.members)
    room.broadcast({"type": event, "name": name, "people": people})


@app.get("/")
async def index(request: Request) -> Response:
    return redirect("/rooms/lobby")


@app.get("/rooms/<room_id>")
async def room_page(request: Request, room_id: str) -> Response:
    return html(PAGE)


@app.get("/api/rooms")
async def list_rooms(request: Request) -> Response:
    return json({room_id: len(room.members) for room_id, room in app.rooms.items()})


if __name__ == "__main__":
    app.run(host="127.0.0.1", port=8000)
