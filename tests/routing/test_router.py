"""The router finds routes, and says why it finds none."""

from __future__ import annotations

from typing import Any

import pytest

from trioweb.errors import MethodNotAllowed, NotFound, RouteError, UpgradeRequired
from trioweb.routing import Include, Route, Router, flatten, get, websocket


async def handler(request: object) -> None: ...


def make(*specs: tuple[Any, ...]) -> Router:
    """A router of (name, path, methods, options); methods None is a WebSocket."""
    router = Router()
    for name, path, methods, *options in specs:
        route = Route(
            handler,
            path,
            name=name,
            methods=frozenset(methods or ()),
            websocket=methods is None,
            **(options[0] if options else {}),
        )
        route.finish()
        router.add(route)
    return router


def test_specific_patterns_are_tried_first() -> None:
    """Literal before typed before any text before path, whatever the order of registration."""
    router = make(
        ("path", "/<x:path>", ["GET"]),
        ("str", "/<x>", ["GET"]),
        ("int", "/<x:int>", ["GET"]),
        ("literal", "/me", ["GET"]),
    )
    found = [router.resolve("GET", path).route.name for path in ("/me", "/7", "/x", "/x/y")]
    assert found == ["literal", "int", "str", "path"]


def test_method_decides_between_patterns() -> None:
    """A static route of another method does not hide a dynamic one."""
    router = make(("a", "/x", ["POST"]), ("b", "/<x>", ["GET"]))
    assert router.resolve("GET", "/x").route.name == "b"
    with pytest.raises(MethodNotAllowed) as caught:
        router.resolve("PUT", "/x")
    assert caught.value.headers == {"Allow": "GET, HEAD, POST"}


def test_head_is_answered_by_get() -> None:
    """RFC 9110 §9.1: GET and HEAD go together."""
    assert make(("a", "/x", ["GET"])).resolve("HEAD", "/x").route.name == "a"


def test_plain_get_of_a_websocket_is_426() -> None:
    """With one line of help."""
    router = make(("ws", "/ws", None))
    with pytest.raises(UpgradeRequired) as caught:
        router.resolve("GET", "/ws")
    assert caught.value.message.count("\n") == 1
    assert router.resolve("GET", "/ws", upgrade=True).route.name == "ws"
    with pytest.raises(MethodNotAllowed):
        router.resolve("POST", "/ws")


def test_page_and_websocket_share_a_path() -> None:
    """An upgrade goes to the one, a plain GET to the other."""
    router = make(("page", "/", ["GET"]), ("ws", "/", None))
    assert router.resolve("GET", "/").route.name == "page"
    assert router.resolve("GET", "/", upgrade=True).route.name == "ws"


def test_unknown_path_is_404() -> None:
    with pytest.raises(NotFound):
        make(("a", "/x", ["GET"])).resolve("GET", "/y")


def test_host_and_version() -> None:
    """A route with a host comes first for it; a version goes before the path."""
    router = make(
        ("any", "/x", ["GET"]),
        ("one", "/x", ["GET"], {"hosts": ("a.example",)}),
        ("sub", "/x", ["GET"], {"hosts": ("*.b.example",)}),
        ("old", "/x", ["GET"], {"version": 1}),
    )
    found = {
        host: router.resolve("GET", "/x", host).route.name
        for host in ("a.example:8000", "c.b.example", "other")
    }
    assert found == {"a.example:8000": "one", "c.b.example": "sub", "other": "any"}
    assert router.resolve("GET", "/v1/x").route.name == "old"


@pytest.mark.parametrize(
    ("first", "second", "hint"),
    [
        (("a", "/x", ["GET"]), ("b", "/x", ["GET"]), "the path"),
        (("a", "/x", ["GET"]), ("b", "/x/", ["GET"]), "the path"),
        (("a", "/<x>", ["GET"]), ("b", "/{y}", ["GET"]), "the path"),
        (("a", "/x", None), ("b", "/x", None), "the path"),
        (("a", "/x", ["GET"]), ("a", "/y", ["GET"]), "the name"),
    ],
)
def test_collisions_are_refused(first: Any, second: Any, hint: str) -> None:
    """At registration, and the message names both."""
    with pytest.raises(RouteError, match=hint):
        make(first, second)


def test_url_for_puts_the_rest_into_the_query() -> None:
    """A list becomes several, None is left out."""
    router = make(("a", "/x/<id:int>", ["GET"]))
    params = {"id": 3, "q": "a b", "tag": ["s", "t"], "none": None}
    assert router.url_for("a", params)[1] == "/x/3?q=a%20b&tag=s&tag=t"
    with pytest.raises(RouteError, match="there are: a"):
        router.url_for("b", {})


def test_module_level_decorators_and_include() -> None:
    """What was decorated stays callable; prefixes add up, an Include's name goes before."""

    @websocket("/{room}")
    async def chat(ws: object, room: str) -> str:
        return room

    @get("/")
    def index() -> str:
        return "index"

    assert index() == "index"
    routes = list(flatten([Include("/a", [index, Include("/chat", [chat], name="rooms")])]))
    assert [(one.name, one.path, one.accept) for one in routes] == [
        ("index", "/a", None),
        ("rooms.chat", "/a/chat/{room}", "manual"),
    ]


def test_flatten_refuses_what_is_no_route() -> None:
    with pytest.raises(RouteError, match="is no route"):
        list(flatten([print]))
