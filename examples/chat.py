"""Chat rooms, one for each id, with a page for the browser.

Run it with ``trioweb run examples/chat.py`` and open the printed address in two tabs.

What it shows beside the chat itself:

- ``name`` of the handler is read from the query string, ``room_id`` from the path.
- Every member has a bounded mailbox and a task of its own that empties it, so that one slow
  browser never holds up the others. The task lives in ``ws.nursery`` and ends with the
  connection. ``Room.tell`` only fills mailboxes: it never waits, so it can't be interrupted.
- ``finally`` runs however the connection ended: closed tab, pulled cable, crash, shutdown. That
  is why a member that vanishes is announced like one that says goodbye.
"""

from __future__ import annotations

import json as json_codec
from pathlib import Path

import trio

from trioweb import Request, Response, TrioWeb, Websocket
from trioweb.response import html, json, redirect

MAILBOX_SIZE = 256  # messages; who is further behind than this is not reading any more
MAX_NAME = 40  # characters
MAX_TEXT = 4000  # characters

PAGE = Path(__file__).with_name("chat.html").read_text(encoding="utf-8")

app = TrioWeb("chat")


class Member:
    """One browser in a room."""

    def __init__(self, ws: Websocket, name: str) -> None:
        self.ws = ws
        self.name = name
        self.is_behind = False
        self._put, self._take = trio.open_memory_channel[dict](MAILBOX_SIZE)

    def tell(self, event: dict) -> None:
        """Leaves a message in the mailbox; a member whose mailbox is full is sent away."""
        if self.is_behind:
            return
        try:
            self._put.send_nowait(event)
        except trio.WouldBlock:
            self.is_behind = True
            self.ws.nursery.start_soon(self.ws.close, 1013, "you are too far behind")

    async def deliver(self) -> None:
        """Sends what comes into the mailbox for as long as the connection lives."""
        async for event in self._take:
            await self.ws.send(event)


class Room:
    """The members of one room."""

    def __init__(self) -> None:
        self.members: set[Member] = set()

    def tell(self, event: dict) -> None:
        """Tells every member, without waiting for any of them."""
        people = sorted(member.name for member in self.members)
        for member in self.members:
            member.tell({**event, "people": people})


rooms: dict[str, Room] = {}


@app.websocket("/ws/chat/<room_id>")
async def chat(request: Request, ws: Websocket, room_id: str, name: str = "") -> None:
    member = Member(ws, name.strip()[:MAX_NAME] or "Anonymous")
    ws.nursery.start_soon(member.deliver)
    room = rooms.setdefault(room_id, Room())
    room.members.add(member)
    room.tell({"type": "joined", "name": member.name})
    try:
        async for message in ws:
            text = read_text(message)
            if text is None:
                member.tell({"type": "error", "text": 'expected {"text": "…"}'})
            else:
                room.tell({"type": "chat", "name": member.name, "text": text})
    finally:
        room.members.remove(member)
        room.tell({"type": "left", "name": member.name})
        if not room.members and rooms.get(room_id) is room:
            del rooms[room_id]


def read_text(message: str | bytes) -> str | None:
    """The text that a browser sent, or None when its message is not what it should be."""
    try:
        text = json_codec.loads(message)["text"]
    except (ValueError, KeyError, TypeError):
        return None
    return text[:MAX_TEXT] if isinstance(text, str) and text.strip() else None


@app.get("/")
async def index(request: Request) -> Response:
    return redirect("/rooms/lobby")


@app.get("/rooms/<room_id>")
async def room_page(request: Request, room_id: str) -> Response:
    return html(PAGE)


@app.get("/api/rooms")
async def list_rooms(request: Request) -> Response:
    return json({room_id: len(room.members) for room_id, room in rooms.items()})


if __name__ == "__main__":
    app.run(host="127.0.0.1", port=8000)
