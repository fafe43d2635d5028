"""What handlers can be given by type: the one place that tells the binder."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trioweb.http.request import Request
from trioweb.routing import Injectable
from trioweb.ws.nursery import ConnectionNursery
from trioweb.ws.websocket import Websocket

if TYPE_CHECKING:
    from trioweb.routing.binder import Injectables


def http_injectables(app: object, app_types: tuple[type, ...]) -> Injectables:
    """What handlers of plain HTTP can be given.

    Args:
        app: the application.
        app_types: the annotations that mean the application.
    """
    injectables: dict[type, Injectable] = {
        Request: Injectable("request", lambda request, _socket: request)
    }
    for kind in app_types:
        injectables[kind] = Injectable("app", lambda _request, _socket: app)
    return injectables


def websocket_injectables(app: object, app_types: tuple[type, ...]) -> Injectables:
    """What handlers of WebSockets can be given; the arguments are the same."""
    return {
        **http_injectables(app, app_types),
        Websocket: Injectable("socket", lambda _request, socket: socket),
        ConnectionNursery: Injectable("nursery", lambda _request, socket: socket.nursery),
    }
