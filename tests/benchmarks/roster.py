"""Who takes part, and with what.

A peer is a module of ``tests.benchmarks.peers``, which is a process of its own: one worker, as its
documentation has it run, without an access log. It prints ``port N`` when connections to that port
are accepted, or wait in the listener's queue. All have the routes ``/echo`` and ``/broadcast``, and
frameworks ``/`` as well.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Final

from tests.benchmarks.workloads import Feature

if TYPE_CHECKING:
    from collections.abc import Mapping

_ALL_FEATURES = frozenset(Feature)


@dataclass(frozen=True, slots=True)
class Peer:
    """One of them.

    Args:
        name: for the command line.
        title: for the tables.
        command: the module, and its arguments.
        packages: what has to be installed; versions are reported in this order.
        features: what it can take part in.
    """

    name: str
    title: str
    command: tuple[str, ...]
    packages: tuple[str, ...]
    features: frozenset[Feature] = _ALL_FEATURES

    def versions(self) -> str:
        """Tell what is installed.

        Raises:
            PackageNotFoundError: something is not.
        """
        return ", ".join(f"{package} {version(package)}" for package in self.packages)

    def missing(self) -> str | None:
        """Name a package that is not installed."""
        for package in self.packages:
            try:
                version(package)
            except PackageNotFoundError:
                return package
        return None


TRIOWEB: Final = Peer(
    "trioweb", "trioweb", ("trioweb", "deflate"), ("trioweb", "trio", "h11", "websockets", "isal")
)

_ALL = [
    TRIOWEB,
    # The other ones keep their compressor's context between messages when they may, which trioweb
    # does only when it is told to.
    Peer(
        "trioweb-context",
        "trioweb (deflate-context)",
        ("trioweb", "deflate-context"),
        TRIOWEB.packages,
        frozenset({Feature.DEFLATE}),
    ),
    Peer(
        "sanic",
        "sanic",
        ("sanic",),
        ("sanic", "websockets", "uvloop", "httptools"),
        frozenset({Feature.WEBSOCKET, Feature.HTTP}),
    ),
    Peer(
        "starlette-websockets",
        "starlette (websockets)",
        ("starlette", "websockets"),
        ("starlette", "uvicorn", "websockets", "uvloop", "httptools"),
    ),
    Peer(
        "starlette-sansio",
        "starlette (websockets-sansio)",
        ("starlette", "websockets-sansio"),
        ("starlette", "uvicorn", "websockets", "uvloop", "httptools"),
    ),
    Peer("aiohttp", "aiohttp", ("aiohttp",), ("aiohttp", "uvloop")),
    Peer(
        "websockets",
        "websockets",
        ("websockets_asyncio",),
        ("websockets", "uvloop"),
        frozenset({Feature.WEBSOCKET, Feature.DEFLATE}),
    ),
    Peer(
        "websockets-trio",
        "websockets.trio",
        ("websockets_trio",),
        ("websockets", "trio"),
        frozenset({Feature.WEBSOCKET, Feature.DEFLATE}),
    ),
    Peer(
        "trio-websocket",
        "trio-websocket",
        ("trio_websocket",),
        ("trio-websocket", "wsproto", "trio"),
        frozenset({Feature.WEBSOCKET}),
    ),
    Peer(
        "quart-trio",
        "quart-trio",
        ("quart_trio",),
        ("quart-trio", "quart", "hypercorn", "wsproto", "h11", "trio"),
    ),
    Peer("picows", "picows", ("picows",), ("picows", "uvloop"), frozenset({Feature.WEBSOCKET})),
]
PEERS: Final[Mapping[str, Peer]] = {peer.name: peer for peer in _ALL}
