"""WebSockets: codec, handshake, and the nursery of each connection."""

from trioweb.ws.close import CloseInfo
from trioweb.ws.ending import State
from trioweb.ws.fragments import MessageParts
from trioweb.ws.heartbeat import PingWaiter
from trioweb.ws.nursery import ConnectionNursery
from trioweb.ws.options import ConnectionOptions
from trioweb.ws.serve import check_opening, serve_websocket
from trioweb.ws.wait_any import wait_any
from trioweb.ws.websocket import Websocket

__all__ = [
    "CloseInfo",
    "ConnectionNursery",
    "ConnectionOptions",
    "MessageParts",
    "PingWaiter",
    "State",
    "Websocket",
    "check_opening",
    "serve_websocket",
    "wait_any",
]
