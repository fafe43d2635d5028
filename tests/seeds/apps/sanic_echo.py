"""The first document's echo server with its test page."""
# mypy: ignore-errors
# ruff: noqa

from trioweb import TrioWeb as Sanic
from trioweb.response import html

app = Sanic("WebSocketApp")


@app.websocket("/ws")
async def websocket_echo(request, ws):
    """Simple echo WebSocket handler."""
    await ws.send("Welcome to WebSocket echo server!")
    async for msg in ws:
        print(f"Received: {msg}")
        await ws.send(f"Echo: {msg}")


@app.route("/")
async def index(request):
    """Serve WebSocket test page."""
    return html("""
<!DOCTYPE html>
<html>
<head><title>WebSocket Test</title></head>
<body>
    <div id="messages"></div>
    <input type="text" id="messageInput" placeholder="Type a message...">
    <button onclick="sendMessage()">Send</button>
    <script>
        const ws = new WebSocket('ws://localhost:8000/ws');
        const messages = document.getElementById('messages');
        ws.onmessage = function(event) {
            const div = document.createElement('div');
            div.textContent = event.data;
            messages.appendChild(div);
        };
        function sendMessage() {
            const input = document.getElementById('messageInput');
            ws.send(input.value);
            input.value = '';
        }
    </script>
</body>
</html>
""")


if __name__ == "__main__":
    app.run(host="0.0.0.0", port=8000)
