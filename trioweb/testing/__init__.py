"""What users test their applications with: an in-memory client and its streams."""

from trioweb.client.frame import Frame, Opcode
from trioweb.testing.client import Client, open_client
from trioweb.testing.cookies import Cookies
from trioweb.testing.leaks import Leaked
from trioweb.testing.link import Link, link_pair
from trioweb.testing.opening import Denied
from trioweb.testing.responses import ClientResponse, StreamedResponse
from trioweb.testing.server import LiveServer, open_server
from trioweb.testing.session import WebsocketSession

__all__ = [
    "Client",
    "ClientResponse",
    "Cookies",
    "Denied",
    "Frame",
    "Leaked",
    "Link",
    "LiveServer",
    "Opcode",
    "StreamedResponse",
    "WebsocketSession",
    "link_pair",
    "open_client",
    "open_server",
]
