"""The first document's chat rooms; the set that is sent to is iterated as a copy."""
# mypy: ignore-errors
# ruff: noqa

import json as json_lib

from trioweb import TrioWeb as Sanic
from trioweb.response import json

app = Sanic("ChatApp")

# Store active connections
connected_clients = set()
chat_rooms = {}


@app.websocket("/ws/chat/<room_id>")
async def chat_room(request, ws, room_id):
    """Multi-room chat WebSocket handler."""
    # Initialize room if it doesn't exist
    if room_id not in chat_rooms:
        chat_rooms[room_id] = set()

    # Add client to room
    chat_rooms[room_id].add(ws)
    connected_clients.add(ws)

    try:
        # Send welcome message
        await ws.send(
            json_lib.dumps(
                {"type": "system", "message": f"Welcome to chat room {room_id}", "room": room_id}
            )
        )

        # Broadcast user joined
        await broadcast_to_room(
            room_id,
            {"type": "user_joined", "message": "A user joined the room", "room": room_id},
            exclude=ws,
        )

        # Handle messages
        async for message in ws:
            try:
                data = json_lib.loads(message)

                if data.get("type") == "chat":
                    # Broadcast chat message to room
                    await broadcast_to_room(
                        room_id,
                        {
                            "type": "chat",
                            "message": data.get("message", ""),
                            "user": data.get("user", "Anonymous"),
                            "room": room_id,
                        },
                    )

            except json_lib.JSONDecodeError:
                await ws.send(json_lib.dumps({"type": "error", "message": "Invalid JSON format"}))

    except Exception as e:
        print(f"WebSocket error: {e}")

    finally:
        # Clean up when client disconnects
        if ws in connected_clients:
            connected_clients.remove(ws)

        if room_id in chat_rooms and ws in chat_rooms[room_id]:
            chat_rooms[room_id].remove(ws)

            # Broadcast user left
            await broadcast_to_room(
                room_id,
                {"type": "user_left", "message": "A user left the room", "room": room_id},
            )

            # Remove empty rooms
            if not chat_rooms[room_id]:
                del chat_rooms[room_id]


async def broadcast_to_room(room_id, message, exclude=None):
    """Broadcast message to all clients in a room."""
    if room_id not in chat_rooms:
        return

    message_str = json_lib.dumps(message)
    disconnected = set()

    for client in chat_rooms[room_id].copy():
        if client == exclude:
            continue

        try:
            await client.send(message_str)
        except Exception:
            # Mark disconnected clients for removal
            disconnected.add(client)

    # Remove disconnected clients
    chat_rooms[room_id] -= disconnected


@app.route("/api/rooms")
async def get_active_rooms(request):
    """Get list of active chat rooms."""
    return json({"rooms": list(chat_rooms.keys()), "total_clients": len(connected_clients)})
