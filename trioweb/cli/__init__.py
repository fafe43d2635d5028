"""The command ``trioweb``: run an application, list its routes, talk to a WebSocket."""

from trioweb.cli.command import main
from trioweb.cli.targets import TargetError, load_target

__all__ = ["TargetError", "load_target", "main"]
