"""What is measured. A row of the tables each."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping


class Mode(StrEnum):
    """What an exchange is; load.c tells."""

    ECHO = "echo"
    BROADCAST = "broadcast"
    CONNECT = "connect"
    HTTP = "http"


class Feature(StrEnum):
    """What a peer must have to take part."""

    WEBSOCKET = "WebSockets"
    DEFLATE = "permessage-deflate"
    HTTP = "HTTP"


@dataclass(frozen=True, slots=True)
class Workload:
    """One of them.

    Args:
        name: for the command line.
        title: for the tables.
        mode: what is repeated.
        connections: at once.
        depth: messages that a connection sends before it awaits the answers.
        size: bytes of a message, uncompressed.
        compressed: whether the messages are JSON under permessage-deflate, else they are text.
        browser: whether requests have the headers of a browser.
        memory: whether it is the server's memory that is measured, not its CPU.
    """

    name: str
    title: str
    mode: Mode
    connections: int
    depth: int = 1
    size: int = 64
    compressed: bool = False
    browser: bool = False
    memory: bool = False

    @property
    def feature(self) -> Feature:
        if self.mode is Mode.HTTP:
            return Feature.HTTP
        return Feature.DEFLATE if self.compressed else Feature.WEBSOCKET

    @property
    def path(self) -> str:
        if self.mode is Mode.HTTP:
            return "/"
        return "/broadcast" if self.mode is Mode.BROADCAST else "/echo"

    @property
    def unit(self) -> str:
        """What is counted; a cost is of one of these."""
        if self.memory:
            return "connection"
        return {
            Mode.ECHO: "message",
            Mode.BROADCAST: "delivery",
            Mode.CONNECT: "connection",
            Mode.HTTP: "request",
        }[self.mode]


# The body of GET /, and its text in all peers.
BODY: Final = "Hello, world!"

_ALL = [
    Workload("echo-1", "echo 64 B, 1 connection", Mode.ECHO, 1),
    Workload("echo-100", "echo 64 B, 100 connections", Mode.ECHO, 100),
    Workload("echo-deep-10", "echo 64 B, ten deep", Mode.ECHO, 10, depth=10),
    Workload("echo-deep-100", "echo 64 B, a hundred deep", Mode.ECHO, 10, depth=100),
    Workload("echo-64k", "echo 64 KiB", Mode.ECHO, 10, size=1 << 16),
    Workload("deflate", "compressed echo 1 KiB", Mode.ECHO, 100, size=1024, compressed=True),
    Workload(
        "deflate-deep-10",
        "compressed echo 1 KiB, ten deep",
        Mode.ECHO,
        10,
        depth=10,
        size=1024,
        compressed=True,
    ),
    Workload("broadcast-500", "broadcast to 500", Mode.BROADCAST, 500),
    Workload("broadcast-2000", "broadcast to 2000", Mode.BROADCAST, 2000),
    Workload("connect", "connect, handshake, close", Mode.CONNECT, 10),
    Workload("connect-browser", "connect, a browser's headers", Mode.CONNECT, 10, browser=True),
    Workload("get", "HTTP GET", Mode.HTTP, 100, size=len(BODY)),
    Workload(
        "get-browser",
        "HTTP GET, a browser's headers",
        Mode.HTTP,
        100,
        size=len(BODY),
        browser=True,
    ),
    Workload("idle", "memory, 2000 idle connections", Mode.ECHO, 2000, memory=True),
]
WORKLOADS: Final[Mapping[str, Workload]] = {workload.name: workload for workload in _ALL}
