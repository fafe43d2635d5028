"""What is refused when a handler is registered."""

from __future__ import annotations

from typing import Any

import pytest

from trioweb import ConfigError, Request, RouteError, TrioWeb, Websocket


@pytest.mark.parametrize("override", [{"max_size": "big"}, {"ping_interval": -1}, {"origins": 7}])
def test_overrides_are_checked_like_their_keys(override: dict[str, Any]) -> None:
    """A route's own limit is refused at registration with its key's name."""
    app = TrioWeb()
    with pytest.raises(ConfigError, match="WEBSOCKET_"):

        @app.websocket("/ws", **override)
        async def handler(request: Request, ws: Websocket) -> None: ...


def test_a_plain_function_is_no_websocket_handler() -> None:
    """``def`` instead of ``async def`` is found at registration, not at the first client."""
    app = TrioWeb()
    with pytest.raises(RouteError, match="async def"):

        @app.websocket("/ws")
        def handler(request: Request, ws: Websocket) -> None: ...


@pytest.mark.parametrize("mistake", [{"subprotocols": "chat"}, {"guards": [3]}])
def test_mistakes_that_would_be_found_late(mistake: dict[str, Any]) -> None:
    app = TrioWeb()
    with pytest.raises(RouteError):

        @app.websocket("/ws", **mistake)
        async def handler(request: Request, ws: Websocket) -> None: ...
