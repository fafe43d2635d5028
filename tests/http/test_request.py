"""Request: what is derived lazily, and its body."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest

from trioweb.errors import BadRequest
from trioweb.http import Headers, Request

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


def body_of(*pieces: bytes) -> Callable[[], Awaitable[bytes]]:
    left = [*pieces, b""]

    async def receive() -> bytes:
        return left.pop(0) if len(left) > 1 else left[0]

    return receive


def make(target: str = "/", headers: dict[str, str] | None = None, *pieces: bytes) -> Request:
    return Request(
        "POST",
        target,
        Headers(headers),
        client=("10.0.0.1", 5000),
        receive_body=body_of(*pieces) if pieces else None,
    )


def test_the_target_is_taken_apart() -> None:
    request = make("/caf%C3%A9/a%2Fb?token=x%20y&t=1&t=2&e=", {"host": "h:8000"})
    assert request.path == "/café/a/b"
    assert request.raw_path == "/caf%C3%A9/a%2Fb"
    assert request.query_string == "token=x%20y&t=1&t=2&e="
    assert request.url == "http://h:8000/caf%C3%A9/a%2Fb?token=x%20y&t=1&t=2&e="
    assert request.host == "h:8000"
    assert request.args.get("token") == "x y"
    assert request.args["t"] == "1"
    assert request.args.getlist("t") == ["1", "2"]
    assert request.args.get("e") == ""
    assert request.args.get("none") is None
    assert request.query_params is request.args


def test_an_absolute_target_replaces_host() -> None:
    request = make("http://other:81/p?q=1", {"host": "h"})
    assert (request.host, request.path, request.args["q"]) == ("other:81", "/p", "1")
    assert make("http://other?q=1").path == "/"


def test_the_client_is_known() -> None:
    request = make()
    assert request.client is not None
    assert (request.client.host, request.client.port) == request.client == ("10.0.0.1", 5000)
    assert request.ip == request.remote_addr == "10.0.0.1"
    assert request.peer == "10.0.0.1:5000"
    nobody = Request("GET", "/", Headers())
    assert (nobody.client, nobody.ip, nobody.peer) == (None, "", "-")


def test_cookies_are_read_leniently() -> None:
    request = make("/", {"cookie": 'a=1; b="x y"; junk; a=2; c=%20'})
    assert request.cookies == {"a": "1", "b": "x y", "c": " "}


def test_id_and_ctx_stay_the_same() -> None:
    request = make()
    assert request.id == request.id != make().id
    assert make("/", {"x-request-id": "abc"}).id == "abc"
    request.ctx.user = 1
    assert request.ctx.user == 1
    assert request.on_shutdown is request.on_shutdown
    request.match_info["a"] = 1
    assert request.path_params == {"a": 1}


async def test_the_body_can_be_asked_for_again() -> None:
    request = make("/", None, b"ab", b"cd")
    assert await request.body() == b"abcd"
    assert await request.body() == b"abcd"
    assert [chunk async for chunk in request.stream()] == [b"abcd"]


async def test_a_streamed_body_is_gone() -> None:
    request = make("/", None, b"ab", b"cd")
    assert [chunk async for chunk in request.stream()] == [b"ab", b"cd"]
    assert [chunk async for chunk in request.stream()] == []
    with pytest.raises(RuntimeError, match="stream"):
        await request.body()


async def test_no_body_is_empty() -> None:
    assert await make().body() == b""
    assert [chunk async for chunk in make().stream()] == []


async def test_json_is_validated() -> None:
    class Item(msgspec.Struct):
        n: int

    assert await make("/", None, b'{"n": 1}').json() == {"n": 1}
    assert await make("/", None, b'{"n": 1}').json(Item) == Item(1)
    for bad in (b"{", b'{"n": "x"}'):
        with pytest.raises(BadRequest):
            await make("/", None, bad).json(Item)
