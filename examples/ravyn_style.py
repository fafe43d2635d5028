"""A notice board in the style of route lists: handlers accept their own connections.

Run it with ``trioweb run examples/ravyn_style.py``.
"""

from __future__ import annotations

from trioweb import Include, TrioWeb, WebSocket, WebSocketDisconnect, get, websocket


class Board:
    """Who is connected, and how to tell all of them."""

    def __init__(self) -> None:
        self.readers: dict[WebSocket, str] = {}

    async def connect(self, reader: WebSocket, client_id: str) -> None:
        """Accepts a reader and remembers who it is."""
        await reader.accept()
        self.readers[reader] = client_id

    def disconnect(self, reader: WebSocket) -> None:
        """Forgets a reader."""
        self.readers.pop(reader, None)

    async def broadcast(self, message: str) -> None:
        """Sends a message to every reader and forgets those that have gone."""
        # A copy: somebody may come or go while a send waits.
        for reader in list(self.readers):
            try:
                await reader.send_text(message)
            except WebSocketDisconnect:
                self.disconnect(reader)


board = Board()


@websocket("/board/{client_id}")
async def read_board(websocket: WebSocket, client_id: str) -> None:
    await board.connect(websocket, client_id)
    try:
        while True:
            notice = await websocket.receive_text()
            await board.broadcast(f"{client_id}: {notice}")
    except WebSocketDisconnect:
        board.disconnect(websocket)
        await board.broadcast(f"{client_id} has left")


@websocket("/sum")
async def add_up(websocket: WebSocket) -> None:
    await websocket.accept()
    total = 0.0
    async for number in websocket.iter_json():
        total += number
        await websocket.send_json({"total": total})


@get("/readers")
async def list_readers() -> list[str]:
    return sorted(board.readers.values())


app = TrioWeb("board", routes=[Include("/ws", routes=[read_board, add_up]), list_readers])

if __name__ == "__main__":
    app.run()
