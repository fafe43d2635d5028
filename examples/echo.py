"""An echo server with its test page, all in one file.

Run it with ``trioweb run examples/echo.py``, or as an ordinary script.
"""

from __future__ import annotations

from trioweb import Request, Response, TrioWeb, Websocket
from trioweb.response import html

app = TrioWeb("echo")

PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Echo</title>
<style>
  :root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif; }
  body { max-width: 36rem; margin: 3rem auto; padding: 0 1rem; }
  form { display: flex; gap: .5rem; }
  input { flex: 1; font: inherit; padding: .4rem .6rem; }
  button { font: inherit; padding: .4rem 1rem; }
</style>
</head>
<body>
<h1>Echo</h1>
<form id="form">
  <input id="text" placeholder="Say something" aria-label="Message" autofocus autocomplete="off">
  <button>Send</button>
</form>
<ul id="messages" aria-live="polite"></ul>
<script>
  const url = new URL("ws", location.href);
  url.protocol = url.protocol.replace("http", "ws");
  const ws = new WebSocket(url);
  const show = text => {
    const item = document.createElement("li");
    item.textContent = text;
    messages.append(item);
  };
  ws.onmessage = event => show(event.data);
  ws.onclose = event => show(`(closed with ${event.code})`);
  form.onsubmit = event => {
    event.preventDefault();
    ws.send(text.value);
    text.value = "";
  };
</script>
</body>
</html>
"""


@app.websocket("/ws")
async def echo(request: Request, ws: Websocket) -> None:
    await ws.send("Welcome to the echo server!")
    async for message in ws:
        await ws.send(f"Echo: {message}" if isinstance(message, str) else message)


@app.route("/")
async def index(request: Request) -> Response:
    return html(PAGE)


if __name__ == "__main__":
    app.run(host="127.0.0.1", port=8000)
