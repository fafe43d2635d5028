"""What is public, and that it says so."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING

import pytest

import trioweb
import trioweb.response
import trioweb.testing

if TYPE_CHECKING:
    from types import ModuleType

PUBLIC = [trioweb, trioweb.testing, trioweb.response]

# API.md's names of the foundation, in both vocabularies.
PROMISED = [
    "TrioWeb",
    "Request",
    "Response",
    "Websocket",
    "WebSocket",
    "ConnectionNursery",
    "Include",
    "websocket",
    "route",
    "get",
    "post",
    "put",
    "patch",
    "delete",
    "head",
    "options",
    "text",
    "html",
    "json",
    "raw",
    "empty",
    "redirect",
    "wait_any",
    "WebsocketClosed",
    "WebSocketDisconnect",
    "SendFailed",
    "RecvTimeout",
    "NotAccepted",
    "WebSocketException",
    "ProtocolError",
    "WrongFrameType",
    "InvalidMessage",
    "MessageTooBig",
    "PingTimeout",
    "SlowConsumer",
    "HTTPException",
    "BadRequest",
    "Unauthorized",
    "Forbidden",
    "OriginDenied",
    "NotFound",
    "UpgradeRequired",
    "RateLimited",
    "TooManyConnections",
    "ServerShutdown",
    "Config",
    "Room",
    "Member",
    "BroadcastResult",
    "ConnectionManager",
    "Depends",
]

# Parts of later issues: a name that does nothing is a defect.
NOT_YET = [
    "Blueprint",
    "Header",
    "Cookie",
    "file",
    "file_stream",
]


@pytest.mark.parametrize("name", PROMISED)
def test_promised_name_is_there(name: str) -> None:
    assert hasattr(trioweb, name)
    assert name in trioweb.__all__


@pytest.mark.parametrize("name", NOT_YET)
def test_name_of_a_later_part_is_not_there(name: str) -> None:
    assert not hasattr(trioweb, name)


@pytest.mark.parametrize("module", PUBLIC, ids=lambda module: module.__name__)
def test_all_names_exactly_what_is_public(module: ModuleType) -> None:
    """No name slips out by way of an import, and none is promised in vain."""
    visible = {
        name
        for name, value in vars(module).items()
        if not name.startswith("_")
        and not inspect.ismodule(value)
        and name not in ("annotations", "TYPE_CHECKING")
    }
    # A function may be named as its module: trioweb.websocket, trioweb.wait_any.
    promised = set(module.__all__) - {"__version__"}
    assert promised - visible <= set()
    assert visible - promised == set()
    assert len(module.__all__) == len(set(module.__all__))


@pytest.mark.parametrize("module", PUBLIC, ids=lambda module: module.__name__)
def test_every_public_name_has_a_docstring(module: ModuleType) -> None:
    for name in module.__all__:
        value = getattr(module, name)
        if inspect.isclass(value) or inspect.isroutine(value):
            assert inspect.getdoc(value), name


def test_the_vocabularies_share_their_classes() -> None:
    assert trioweb.WebSocket is trioweb.Websocket
    assert trioweb.WebSocketDisconnect is trioweb.WebsocketClosed
