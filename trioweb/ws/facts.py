"""What can be read off a WebSocket at any time: its state, and what its request says."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import SimpleNamespace

    from trioweb.http.headers import Headers
    from trioweb.http.request import QueryParams, Request
    from trioweb.ws.close import CloseInfo
    from trioweb.ws.connection import Connection
    from trioweb.ws.ending import State


class Facts:
    """The attributes of ``Websocket``, into which this is mixed.

    Attributes:
        request: the handshake's.
        subprotocol: the negotiated one.
    """

    request: Request
    subprotocol: str | None
    _connection: Connection

    # State

    @property
    def accepted(self) -> bool:
        """Whether the handshake was accepted."""
        return self._connection.accepted

    @property
    def open(self) -> bool:
        """Whether messages can be sent."""
        return self._connection.open

    @property
    def closed(self) -> bool:
        """Whether it was accepted once and is not open any more."""
        return self._connection.accepted and not self._connection.open

    @property
    def client_state(self) -> State:
        """The peer's half: CONNECTING, CONNECTED or DISCONNECTED."""
        return self._connection.client_state

    @property
    def server_state(self) -> State:
        """Our half: CONNECTING, CONNECTED or DISCONNECTED."""
        return self._connection.server_state

    @property
    def close_info(self) -> CloseInfo | None:
        """How the connection ended (code, reason, by whom, clean); None until it has."""
        return self._connection.close_info

    @property
    def latency(self) -> float | None:
        """The last round trip of a ping, in seconds; None before the first."""
        return self._connection.heartbeat.latency

    # From the request

    @property
    def id(self) -> str:
        """The request's id."""
        return self.request.id

    @property
    def ctx(self) -> SimpleNamespace:
        """The request's namespace for the application's own data."""
        return self.request.ctx

    @property
    def app(self) -> Any:
        """The application."""
        return self.request.app

    @property
    def headers(self) -> Headers:
        """The handshake's headers."""
        return self.request.headers

    @property
    def cookies(self) -> Mapping[str, str]:
        """The handshake's cookies."""
        return self.request.cookies

    @property
    def query_params(self) -> QueryParams:
        """The query of the handshake's URL."""
        return self.request.query_params

    @property
    def path_params(self) -> Mapping[str, Any]:
        """The converted path parameters."""
        return self.request.path_params

    @property
    def url(self) -> str:
        """The handshake's URL."""
        return self.request.url

    @property
    def client(self) -> tuple[str, int] | None:
        """The peer's address, None where it has none."""
        return self.request.client

    @property
    def remote_addr(self) -> str:
        """The client's address."""
        return self.request.remote_addr

    @property
    def ip(self) -> str:
        """The peer's IP address."""
        return self.request.ip
