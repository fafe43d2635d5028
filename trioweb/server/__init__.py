"""The server: listeners, and a session for each connection."""

from trioweb.server.application import Application
from trioweb.server.server import Server

__all__ = ["Application", "Server"]
