"""What users test their applications with: an in-memory client and its streams, a server."""

from trioweb.testing.client import open_client
from trioweb.testing.link import Link, link_pair
from trioweb.testing.server import LiveServer, open_server
from trioweb.testing.session import Denied

__all__ = ["Denied", "Link", "LiveServer", "link_pair", "open_client", "open_server"]
