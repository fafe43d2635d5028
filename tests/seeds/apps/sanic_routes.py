"""The first document's API examples: routes, subprotocols, authentication."""
# mypy: ignore-errors
# ruff: noqa

from trioweb import TrioWeb as Sanic

app = Sanic("Routes")
received = []


@app.websocket("/ws")
async def websocket_handler(request, ws):
    await ws.send("Hello WebSocket!")
    msg = await ws.recv()
    received.append(msg)


async def added_handler(request, ws):
    await ws.send(f"added at {request.path}")


app.add_websocket_route(added_handler, "/added", name="added")


async def handle_chat_protocol(ws):
    await ws.send("chat spoken here")


async def handle_notification_protocol(ws):
    await ws.send("notification spoken here")


@app.websocket("/ws/subprotocols", subprotocols=["chat", "notification"])
async def websocket_with_subprotocols(request, ws):
    selected_protocol = ws.subprotocol
    if selected_protocol == "chat":
        await handle_chat_protocol(ws)
    elif selected_protocol == "notification":
        await handle_notification_protocol(ws)
    else:
        await ws.close(code=1002, reason="Unsupported subprotocol")


class AuthenticationError(Exception):
    pass


async def validate_websocket_token(token):
    if token != "Bearer valid":
        raise AuthenticationError
    return {"name": "Ada"}


async def handle_authenticated_websocket(request, ws):
    await ws.send(f"hello {request.ctx.user['name']}")


@app.websocket("/ws/authenticated")
async def authenticated_websocket(request, ws):
    # Authenticate using request headers
    auth_header = request.headers.get("Authorization")
    if not auth_header:
        await ws.close(code=1008, reason="Authentication required")
        return

    try:
        user = await validate_websocket_token(auth_header)
        request.ctx.user = user
    except AuthenticationError:
        await ws.close(code=1008, reason="Invalid authentication")
        return

    # Continue with authenticated WebSocket handling
    await handle_authenticated_websocket(request, ws)
