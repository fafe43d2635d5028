"""A notice board in the style of route lists: handlers accept their own connections.

Run it with ``trioweb run examples/ravyn_style.py``.
"""

from __future__ import annotations

from trioweb import (
    ConnectionManager,
    Include,
    TrioWeb,
    WebSocket,
    WebSocketDisconnect,
    get,
    websocket,
)

board = ConnectionManager()


@websocket("/board/{client_id}")
async def read_board(websocket: WebSocket, client_id: str) -> None:
    await board.connect(websocket)
    try:
        while True:
            notice = await websocket.receive_text()
            await board.broadcast(f"{client_id}: {notice}")
    except WebSocketDisconnect:
        # Who has gone is off the board already.
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
    return sorted(reader.path_params["client_id"] for reader in board.active_connections)


app = TrioWeb("board", routes=[Include("/ws", routes=[read_board, add_up]), list_readers])

if __name__ == "__main__":
    app.run()
