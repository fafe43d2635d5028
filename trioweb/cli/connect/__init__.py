"""``trioweb connect``: a WebSocket client for the terminal, over trio-websocket."""

from trioweb.cli.connect.command import add_options, connect

__all__ = ["add_options", "connect"]
