"""HTTP by the in-memory client: against TrioWeb, and against bytes that no server should send."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, cast

import pytest
import trio
import trio.testing

from trioweb import Request, Response, TrioWeb
from trioweb.errors import TrioWebError
from trioweb.http.headers import Headers
from trioweb.response import redirect
from trioweb.testing import Link, open_client
from trioweb.testing.responses import ClientResponse

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

    from trioweb.net import ByteStream
    from trioweb.testing.client import Client


class Played(TrioWeb):
    """An application whose n-th connection is served by the n-th script."""

    def __init__(self, *scripts: Callable[[Link], Awaitable[None]]) -> None:
        super().__init__("played")
        self.scripts = list(scripts)

    async def serve_stream(self, stream: trio.abc.Stream | ByteStream) -> None:
        await self.scripts.pop(0)(cast("Link", stream))


async def read_head(link: Link) -> bytes:
    head = b""
    while b"\r\n\r\n" not in head:
        piece = await link.receive_some(1)
        assert piece
        head += piece
    return head


def answering(*pieces: bytes) -> Callable[[Link], Awaitable[None]]:
    """A script that answers with some bytes and closes."""

    async def script(link: Link) -> None:
        await read_head(link)
        for piece in pieces:
            await link.send_all(piece)
        await link.aclose()

    return script


async def hang(link: Link) -> None:
    await trio.sleep_forever()


def make_app() -> TrioWeb:
    """An application that tells what it was asked, and sends elsewhere."""
    app = TrioWeb("asked")
    methods = ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "PROPFIND"]

    @app.route("/told/<rest:path>", methods=methods)
    async def told(request: Request, rest: str) -> Any:
        headers = {"X-Method": request.method}
        return await tell(request), 200, headers

    @app.route("/to/<status:int>", methods=methods)
    async def to(request: Request, status: int) -> Response:
        await request.body()
        return redirect(request.args["url"], {"Set-Cookie": f"hop={status}; Path=/"}, status)

    @app.get("/round")
    async def round_again(request: Request) -> Response:
        return redirect("/round")

    @app.get("/set")
    async def set_cookie(request: Request) -> Response:
        return Response(
            "set", headers=[("Set-Cookie", value) for value in request.args.getall("c")]
        )

    return app


async def tell(request: Request) -> dict[str, Any]:
    return {
        "method": request.method,
        "target": request.target,
        "url": request.url,
        "args": request.args.multi_items(),
        "cookies": request.cookies,
        "headers": dict(request.headers),
        "body": (await request.body()).decode("latin-1"),
    }


# --- what is sent -------------------------------------------------------------------------------


async def test_every_method_is_sent_as_it_is() -> None:
    """The seven have methods of their own, others go by request; HEAD has no body to wait for."""
    async with open_client(make_app()) as client:
        for method in ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"):
            answer = await getattr(client, method.lower())("/told/x")
            assert (answer.status, answer.json()["method"]) == (200, method)
        assert (await client.request("PROPFIND", "/told/x")).json()["method"] == "PROPFIND"
        answer = await client.head("/told/x")
        assert (answer.headers["X-Method"], answer.body) == ("HEAD", b"")
        assert int(answer.headers["Content-Length"]) > 0


async def test_a_target_is_a_path_or_a_url() -> None:
    """Params join the query, a fragment stays at home, a URL's host and scheme arrive."""
    async with open_client(make_app()) as client:
        answer = await client.get("/told/é b?c=ü#part", params={"d": ["1", 2], "e": "&"})
        asked = answer.json()
        assert asked["target"] == "/told/%C3%A9%20b?c=%C3%BC&d=1&d=2&e=%26"
        assert asked["args"] == [["c", "ü"], ["d", "1"], ["d", "2"], ["e", "&"]]
        assert asked["headers"]["host"] == "app.test"
        assert answer.url == f"http://app.test{asked['target']}"
        asked = (await client.get("https://other.test:8443/told/x", params=[("a", "1")])).json()
        assert asked["url"] == "https://other.test:8443/told/x?a=1"
        asked = (await client.get("HTTP://bücher.test/told/x?", params={"a": 1})).json()
        assert asked["url"] == "http://xn--bcher-kva.test/told/x?a=1"
        asked = (await client.get("/told/x", headers={"host": "given.test"})).json()
        assert asked["url"] == "http://given.test/told/x"
        assert (await client.get("http://other.test")).status == 404


async def test_bodies_have_their_types_and_lengths() -> None:
    """JSON and forms say what they are, unless the test says it; other bodies say nothing."""
    async with open_client(make_app()) as client:
        asked = (await client.post("/told/x", json=None)).json()
        assert (asked["body"], asked["headers"]["content-type"]) == ("null", "application/json")
        asked = (await client.post("/told/x", form={"a": "b c", "n": 1})).json()
        assert asked["body"] == "a=b+c&n=1"
        assert asked["headers"]["content-type"] == "application/x-www-form-urlencoded"
        assert asked["headers"]["content-length"] == "9"
        headers = {"Content-Type": "application/odd+json"}
        asked = (await client.post("/told/x", json={}, headers=headers)).json()
        assert asked["headers"]["content-type"] == "application/odd+json"
        asked = (await client.put("/told/x", body="é")).json()
        assert (asked["body"], asked["headers"]["content-length"]) == ("Ã©", "2")
        assert "content-type" not in asked["headers"]
        asked = (await client.post("/told/x", form={})).json()
        assert (asked["body"], asked["headers"]["content-length"]) == ("", "0")
        assert "content-length" not in (await client.get("/told/x")).json()["headers"]
        chunked = {"Transfer-Encoding": "chunked"}
        asked = (await client.post("/told/x", body=bytearray(b"ab"), headers=chunked)).json()
        assert (asked["body"], "content-length" in asked["headers"]) == ("ab", False)


async def test_files_make_a_form_multipart() -> None:
    """The form's fields and its files come in one body with its boundary in the type."""
    async with open_client(make_app()) as client:
        asked = (
            await client.post("/told/x", form={"title": "T"}, files={"f": ("a.txt", "content")})
        ).json()
    boundary = asked["headers"]["content-type"].removeprefix("multipart/form-data; boundary=")
    assert asked["body"] == (
        f'--{boundary}\r\nContent-Disposition: form-data; name="title"\r\n\r\nT\r\n'
        f'--{boundary}\r\nContent-Disposition: form-data; name="f"; filename="a.txt"\r\n'
        f"Content-Type: text/plain\r\n\r\ncontent\r\n--{boundary}--\r\n"
    )


async def test_a_body_is_sent_as_it_comes() -> None:
    """The application has the first piece before the second is made."""
    app, arrived = TrioWeb("reader"), trio.Event()

    @app.post("/")
    async def take(request: Request) -> Any:
        pieces = []
        async for piece in request.stream():
            pieces.append(piece.decode())
            arrived.set()
        return [pieces, request.headers.get("transfer-encoding"), len(request.headers)]

    async def make() -> AsyncGenerator[bytes]:
        yield b"one"
        await arrived.wait()
        yield b""
        yield b"two"

    async with open_client(app) as client:
        answer = await client.post("/", body=make())
        assert answer.json() == [["one", "two"], "chunked", 2]
        headers = {"Content-Length": "6"}
        assert (await client.post("/", body=make(), headers=headers)).json()[1] is None


async def test_a_failing_body_fails_the_request() -> None:
    """Its error comes out as it is, and the application does not take the part for the whole."""
    app, outcome, arrived = TrioWeb("reader"), [], trio.Event()

    @app.post("/")
    async def take(request: Request) -> None:
        try:
            async for piece in request.stream():
                outcome.append(piece)
                arrived.set()
            outcome.append(b"whole")
        finally:
            outcome.append(b"left")

    async def crash() -> AsyncGenerator[bytes]:
        yield b"part"
        await arrived.wait()
        raise LookupError("mine")

    async def give_text() -> AsyncGenerator[str]:
        yield "text"

    async def give_much() -> AsyncGenerator[bytes]:
        yield b"too long"

    async with open_client(app) as client:
        with pytest.raises(LookupError, match="mine"):
            await client.post("/", body=crash())
        await trio.testing.wait_all_tasks_blocked()
        assert outcome == [b"part", b"left"]
        with pytest.raises(TypeError, match="gave 'text'; it must give bytes"):
            await client.post("/", body=cast("Any", give_text()))
        with pytest.raises(ValueError, match="the body is not as its headers say"):
            await client.post("/", body=give_much(), headers={"Content-Length": "3"})


async def test_an_early_answer_ends_the_sending() -> None:
    """An endless body is left when the answer is there, and what made it runs its finally."""

    async def make() -> AsyncGenerator[bytes]:
        try:
            while True:
                yield bytes(1000)
        finally:
            unwound.set()

    async def refuse(link: Link) -> None:
        await read_head(link)
        await link.send_all(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")
        await trio.sleep_forever()

    async def refuse_and_close(link: Link) -> None:
        await read_head(link)
        await trio.testing.wait_all_tasks_blocked()
        await link.send_all(b"HTTP/1.1 413 Too Large\r\nContent-Length: 4\r\n\r\n")
        await link.send_all(b"much")
        await link.aclose()

    scripts = (refuse, refuse_and_close)
    async with open_client(Played(*scripts, *scripts)) as client:
        for text in ("", "much"):
            unwound = trio.Event()
            answer = await client.post("/", body=make())
            assert (answer.status, answer.text, unwound.is_set()) == (413, text, True)
        for text in ("", "much"):
            assert (await client.post("/", body=bytes(1_000_000))).text == text


async def test_a_body_may_be_a_channel() -> None:
    """It is left as it is when the answer comes early: nothing but generators is closed."""
    send, receive = trio.open_memory_channel[bytes](1)
    with send, receive:
        async with open_client(Played(answering(b"HTTP/1.1 204 No Content\r\n\r\n"))) as client:
            assert (await client.post("/", body=receive)).status == 204
        send.send_nowait(b"x")
        assert receive.receive_nowait() == b"x"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"body": b"x", "json": 1}, "one body; got body=, json="),
        ({"json": 1, "form": {}}, "got json=, form or files="),
        ({"body": 3}, "body= is bytes, str or an async iterable of bytes, not int; json="),
        ({"headers": {"Content-Type": "multipart/x"}, "files": {"f": b""}}, "goes not with files="),
        ({"headers": {"X": 1}}, "header 'X' is 1"),
        ({"headers": "X: 1"}, "headers= is a mapping or pairs"),
        ({"headers": {"X": "a\nb"}}, "can't be sent: .*client.connect"),
        ({"headers": {"X": "\u20ac"}}, "can't be sent"),
        ({"headers": {"Content-Length": "3"}, "body": b"x"}, "Content-Length is 3, .* has 1 bytes"),
        ({"headers": [("Host", "a"), ("Host", "b")]}, "one Host"),
        ({"headers": {"Cookie": "a=1"}, "cookies": {"a": "1"}}, "either cookies= or"),
        ({"cookies": "a=1"}, "cookies= is a mapping"),
        ({"cookies": {"a": "b;"}}, "cookie a is 'b;'"),
        ({"params": {"a": None}}, "params= has a=None"),
        ({"timeout": 0}, "timeout=0 must be more than 0"),
        ({"timeout": math.nan}, "timeout=nan"),
        ({"timeout": None}, "timeout=None must be a number"),
    ],
)
async def test_a_wrong_option_fails_at_once(options: Any, message: str) -> None:
    """Nothing is sent: the application has no script for a connection."""
    async with open_client(Played()) as client:
        with pytest.raises((TypeError, ValueError), match=message):
            await client.post("/", **options)
        with pytest.raises((TypeError, ValueError), match=message):
            async with client.stream("POST", "/", **options):
                pass


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("x", "path 'x' must begin with a slash"),
        ("", "must begin with a slash"),
        ("ftp://a/x", "is not HTTP"),
        ("mailto:me", "'mailto:me' is not HTTP"),
        ("http:///x", "names no host"),
        ("http://me:pw@a/x", "has a user in it"),
        ("http://" + "ä" * 70 + "/", "names a host that is none"),
        (b"/", "a path is a str"),
    ],
)
async def test_a_wrong_path_fails_at_once(path: Any, message: str) -> None:
    """It says what is wrong with it."""
    async with open_client(Played()) as client:
        with pytest.raises((TypeError, ValueError), match=message):
            await client.get(path)
        with pytest.raises(ValueError, match="names a host, and so does Host: a"):
            await client.get("http://b/", headers={"Host": "a"})
        with pytest.raises(ValueError, match="'GE T' /"):
            await client.request("GE T", "/")


# --- what is read -------------------------------------------------------------------------------


async def test_odd_answers_are_read() -> None:
    """Informational ones are skipped; bodies end where HTTP says, at the end of the stream too."""
    ok = b"HTTP/1.1 200 OK\r\n"
    scripts = [
        answering(
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nLink: </a>\r\n\r\n",
            ok + b"Content-Length: 2\r\n\r\nab",
        ),
        answering(ok + b"Connection: close\r\n\r\nto the", b" end"),
        answering(b"HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\n\r\n"),
        answering(b"HTTP/1.1 204 No Content\r\n\r\n"),
        answering(b"HTTP/1.0 200 OK\r\n\r\nold"),
        answering(ok + b"Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\nX-Trailer: 1\r\n\r\n"),
        answering(ok + b"X-Big: " + b"a" * 100_000 + b"\r\nContent-Length: 0\r\n\r\n"),
    ]
    async with open_client(Played(*scripts)) as client:
        answers = [await client.get("/") for _ in scripts]
    assert [(answer.status, answer.body) for answer in answers] == [
        (200, b"ab"),
        (200, b"to the end"),
        (304, b""),
        (204, b""),
        (200, b"old"),
        (200, b"ab"),
        (200, b""),
    ]


async def vanish(link: Link) -> None:
    await read_head(link)
    await link.send_all(b"HTTP/1.1 200 OK\r\n\r\npart")
    await trio.testing.wait_all_tasks_blocked()
    link.abort()


@pytest.mark.parametrize(
    ("script", "message"),
    [
        (answering(), "GET /x: the connection was closed before anything had come"),
        (answering(b"HTTP/1.1 20"), r"GET /x.* 11 bytes of it b'HTTP/1.1 20'"),
        (answering(b"\0\0\r\n\r\n"), r"no complete HTTP response .* b'\\x00"),
        (
            answering(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc"),
            "after 200 and 3 bytes of it b'abc'",
        ),
        (vanish, "after 200 and 4 bytes of it b'part': connection lost"),
    ],
)
async def test_an_answer_cut_short_says_what_had_come(
    script: Callable[[Link], Awaitable[None]], message: str
) -> None:
    """Neither an early end, nor garbage, nor a reset passes for an answer."""
    async with open_client(Played(script)) as client:
        with pytest.raises(TrioWebError, match=message):
            await client.get("/x")


async def test_an_upgrade_is_no_answer() -> None:
    """A 101 is told from a response."""
    switch = b"HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: odd\r\n\r\n"
    async with open_client(Played(answering(switch))) as client:
        with pytest.raises(TrioWebError, match="answered with 101"):
            await client.get("/", headers={"Connection": "upgrade", "Upgrade": "odd"})


def make_response(body: bytes, content_type: str = "text/plain") -> ClientResponse:
    return ClientResponse(200, Headers({"Content-Type": content_type}), body)


def test_text_is_decoded_as_its_type_says() -> None:
    """The charset counts, UTF-8 where there is none; an unknown one and wrong bytes are errors."""
    assert make_response("é".encode()).text == "é"
    assert make_response(b"\xe9", 'text/html; Charset="ISO-8859-1"').text == "é"
    assert make_response("é".encode("utf-16"), "text/plain; charset=utf-16").text == "é"
    for charset in ("klingon", "hex"):
        with pytest.raises(TrioWebError, match=f"charset={charset} names a charset"):
            _ = make_response(b"", f"text/plain; charset={charset}").text
    with pytest.raises(UnicodeDecodeError):
        _ = make_response(b"\xe9").text


def test_a_response_shows_itself() -> None:
    """A failing assert shows status, type and the first of the body, whatever it is."""
    assert repr(make_response(b"hello")) == "<ClientResponse 200 OK text/plain 'hello'>"
    assert repr(make_response(b"\xff")) == "<ClientResponse 200 OK text/plain b'\\xff'>"
    assert repr(make_response(b"a", "text/x; charset=odd")).endswith(" b'a'>")
    # Cut in the middle of a character.
    shown = repr(make_response(b"a" + "é".encode() * 300))
    assert shown.endswith("éé'… (601 bytes)>")
    assert len(shown) < 300
    with pytest.raises(ValueError, match="in <ClientResponse 200 OK text/plain 'oops'>"):
        make_response(b"oops").json()


# --- cookies ------------------------------------------------------------------------------------


async def get_cookies(client: Client, path: str = "/told/x", **options: Any) -> Any:
    return (await client.get(path, **options)).json()["cookies"]


async def test_cookies_are_kept() -> None:
    """What an answer sets is sent from then on, and what a test sets too."""
    async with open_client(make_app()) as client:
        client.cookies["mine"] = "0"
        answer = await client.get("/set", params={"c": ["a=1", "b=2; Path=/other"]})
        assert answer.cookies == {"a": "1", "b": "2"}
        assert await get_cookies(client) == {"mine": "0", "a": "1"}
        assert await get_cookies(client, "http://other.test/told/x") == {}
        answer = await client.get("/set", params={"c": "a=; Max-Age=0"})
        assert answer.cookies == {}
        assert client.cookies == {"mine": "0", "b": "2"}
        await client.get("https://app.test/set", params={"c": "s=1; Secure"})
        assert await get_cookies(client) == {"mine": "0"}
        assert await get_cookies(client, "https://app.test/told/x") == {"mine": "0", "s": "1"}


async def test_a_request_may_have_cookies_of_its_own() -> None:
    """They stand in for kept ones of the same name, once; a Cookie header stands in for all."""
    async with open_client(make_app()) as client:
        client.cookies.update({"a": "1", "b": "2"})
        assert await get_cookies(client, cookies={"a": "9", "c": "3"}) == {
            "a": "9",
            "b": "2",
            "c": "3",
        }
        assert await get_cookies(client, headers={"Cookie": "z=1"}) == {"z": "1"}
        assert await get_cookies(client) == {"a": "1", "b": "2"}


async def test_cookies_of_a_cut_answer_are_kept() -> None:
    """They came with the head."""
    cut = b"HTTP/1.1 200 OK\r\nSet-Cookie: a=1\r\nContent-Length: 9\r\n\r\n"
    async with open_client(Played(answering(cut))) as client:
        with pytest.raises(TrioWebError):
            await client.get("/")
        assert client.cookies == {"a": "1"}


# --- redirects ----------------------------------------------------------------------------------


async def test_redirects_are_not_followed_unasked() -> None:
    """A test sees where it would go."""
    async with open_client(make_app()) as client:
        answer = await client.get("/to/302?url=/told/x")
        assert (answer.status, answer.headers["location"], answer.history) == (302, "/told/x", ())


@pytest.mark.parametrize(
    ("status", "method", "then"),
    [
        (301, "GET", "GET"),
        (301, "POST", "GET"),
        (301, "PUT", "PUT"),
        (302, "POST", "GET"),
        (302, "DELETE", "DELETE"),
        (303, "PUT", "GET"),
        (303, "GET", "GET"),
        (307, "POST", "POST"),
        (308, "PATCH", "PATCH"),
    ],
)
async def test_a_redirect_keeps_or_changes_the_method(status: int, method: str, then: str) -> None:
    """A body goes along with the method; what a GET sends has no word about a body."""
    async with open_client(make_app()) as client:
        path = f"/to/{status}?url=../told/x%3Fa=1"
        answer = await client.request(method, path, json=[1], follow_redirects=True)
        asked = answer.json()
        assert (asked["method"], asked["target"]) == (then, "/told/x?a=1")
        keeps = then == method and status != 303
        assert asked["body"] == ("[1]" if keeps else "")
        assert ("content-type" in asked["headers"]) is keeps
        assert ("content-length" in asked["headers"]) is keeps
        assert [first.status for first in answer.history] == [status]
        assert answer.url == "http://app.test/told/x?a=1"
        assert asked["cookies"] == {"hop": str(status)}


async def test_a_head_stays_a_head() -> None:
    """A 303 of a HEAD is not made a GET."""
    async with open_client(make_app()) as client:
        answer = await client.head("/to/303?url=/told/x", follow_redirects=True)
        assert (answer.headers["X-Method"], len(answer.history)) == ("HEAD", 1)


async def test_credentials_stay_with_their_host() -> None:
    """On the same host all headers go along; to another one, or out of TLS, no secrets do."""
    headers = {"Authorization": "Basic x", "Cookie": "secret=1", "X-Other": "1"}
    async with open_client(make_app()) as client:

        async def follow(url: str, start: str = "", **options: Any) -> dict[str, Any]:
            path = f"{start}/to/307"
            options = {"params": {"url": url}, "follow_redirects": True, **options}
            asked: dict[str, Any] = (await client.get(path, **options)).json()
            return asked

        asked = await follow("http://APP.test/told/x#part", headers=headers)
        assert asked["headers"]["authorization"] == "Basic x"
        assert asked["headers"]["cookie"] == "secret=1"
        for url, start in (
            ("//other.test/told/x", ""),
            ("http://app.test/told/x", "https://app.test"),
        ):
            asked = await follow(url, start, headers=headers)
            assert asked["headers"]["x-other"] == "1"
            assert "authorization" not in asked["headers"]
            assert "secret" not in asked["cookies"]
        assert asked["headers"]["host"] == "app.test"
        asked = await follow("/told/x", cookies={"own": "1", "hop": "old"})
        assert asked["cookies"] == {"hop": "307", "own": "1"}
        assert (await follow("//other.test/told/x", cookies={"own": "1"}))["cookies"] == {}
        asked = await follow("/told/x", headers={"Host": "given.test"})
        assert asked["url"] == "http://given.test/told/x"


async def test_a_location_may_be_unencoded() -> None:
    """UTF-8 as some servers write it is understood."""
    head = "HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation: /é b\r\n\r\n".encode()
    ok = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
    async with open_client(Played(answering(head), answering(ok))) as client:
        answer = await client.get("/", follow_redirects=True)
    assert answer.url == "http://app.test/%C3%A9%20b"


async def test_a_loop_is_told() -> None:
    """After 20 redirects it is enough; the error shows the chain."""
    async with open_client(make_app()) as client:
        with pytest.raises(TrioWebError, match="GET /round was redirected 21 times") as caught:
            await client.get("/round", follow_redirects=True)
        told = str(caught.value)
        assert told.count("http://app.test/round answered 302, Location: /round") == 21


async def test_what_can_not_be_followed_is_told() -> None:
    """Another scheme, and a streamed body that would be needed again."""

    async def make() -> AsyncGenerator[bytes]:
        yield b"x"

    async with open_client(make_app()) as client:
        with pytest.raises(TrioWebError, match=r"302 and Location 'myapp://back'.*is not HTTP"):
            await client.get("/to/302?url=myapp://back", follow_redirects=True)
        with pytest.raises(TrioWebError, match=r"307 .*streamed.*pass it as bytes"):
            await client.post("/to/307?url=/told/x", body=make(), follow_redirects=True)
        answer = await client.post("/to/303?url=/told/x", body=make(), follow_redirects=True)
        assert answer.json()["body"] == ""
    bare = b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\n\r\n"
    async with open_client(Played(answering(bare))) as client:
        assert (await client.get("/", follow_redirects=True)).status == 302


# --- streams ------------------------------------------------------------------------------------


class Ticking:
    """An application whose answer goes on when the test says so."""

    def __init__(self) -> None:
        self.send, self.receive = trio.open_memory_channel[bytes](math.inf)
        self.app = TrioWeb("ticking")
        self.app.get("/ticks")(self.serve)

    async def serve(self, request: Request) -> Response:
        headers = {"Set-Cookie": "t=1"}
        return Response(self.receive, content_type="text/event-stream", headers=headers)


async def test_a_stream_is_read_as_it_comes() -> None:
    """The head is there before the body, each piece before the next one is made."""
    ticking = Ticking()
    async with (
        open_client(ticking.app) as client,
        client.stream("GET", "/ticks", params={"a": 1}) as response,
    ):
        assert (response.status, response.headers["content-type"]) == (200, "text/event-stream")
        assert response.url == "http://app.test/ticks?a=1"
        assert response.cookies == client.cookies == {"t": "1"}
        assert repr(response) == "<StreamedResponse 200 OK text/event-stream>"
        got = []
        ticking.send.send_nowait(b"one")
        async for piece in response:
            got.append(piece)
            if len(got) == 3:
                break
            ticking.send.send_nowait(b"more")
        assert got == [b"one", b"more", b"more"]
        for piece in (b"the ", b"rest"):
            ticking.send.send_nowait(piece)
        ticking.send.close()
        assert await response.read() == b"the rest"
        assert await response.read() == b""


async def test_lines_are_read_as_they_come() -> None:
    """Whatever ends a line, and wherever a piece ends, also in the middle of a character."""
    ticking = Ticking()
    async with open_client(ticking.app) as client, client.stream("GET", "/ticks") as response:
        lines = response.iter_lines()
        ticking.send.send_nowait(b"data: \xc3")
        ticking.send.send_nowait(b"\xa9\r\n\r")
        assert await anext(lines) == "data: é"
        ticking.send.send_nowait(b"\na\rb\n\xe2\x80\xa8")
        ticking.send.close()
        assert [line async for line in lines] == ["", "a", "b", "\u2028"]


async def test_leaving_a_stream_closes_the_connection() -> None:
    """The application finds nobody at its next piece; reading outside of the block is an error."""
    ticking = Ticking()
    async with open_client(ticking.app) as client:
        async with client.stream("GET", "/ticks") as response:
            ticking.send.send_nowait(b"one")
            assert await anext(response) == b"one"
        for _ in range(3):
            ticking.send.send_nowait(b"unheard")
            await trio.testing.wait_all_tasks_blocked()
        assert ticking.receive.statistics().current_buffer_used > 0
        with pytest.raises(trio.ClosedResourceError, match=r"block of client.stream.. was left"):
            await anext(response)


async def test_a_stream_may_be_redirected() -> None:
    """History and URL are those of the way."""
    async with (
        open_client(make_app()) as client,
        client.stream("POST", "/to/307?url=/told/x", body="b", follow_redirects=True) as response,
    ):
        assert [answer.status for answer in response.history] == [307]
        assert response.url == "http://app.test/told/x"
        assert b'"body":"b"' in await response.read()


async def test_each_redirect_is_closed_before_the_next() -> None:
    """The application has seen the end of the first connection when the second one begins."""
    ended: list[bool] = []

    async def lead_on(link: Link) -> None:
        await read_head(link)
        await link.send_all(b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation: /b\r\n\r\n")
        assert await link.receive_some(1) == b""
        ended.append(True)

    async def finish(link: Link) -> None:
        await trio.testing.wait_all_tasks_blocked()
        assert ended == [True]
        await answering(b"HTTP/1.1 204 No Content\r\n\r\n")(link)

    async with open_client(Played(lead_on, finish)) as client:
        assert (await client.get("/a", follow_redirects=True)).status == 204


async def test_a_stream_is_opened_once() -> None:
    """To ask again is to call again."""
    async with open_client(make_app()) as client:
        stream = client.stream("GET", "/told/x")
        async with stream:
            pass
        with pytest.raises(
            RuntimeError, match=r"GET /told/x was sent already; call client\.stream"
        ):
            await stream.__aenter__()


async def test_a_failure_in_the_block_comes_out_as_itself() -> None:
    """It is in no group, and the connection is closed."""
    ticking = Ticking()
    async with open_client(ticking.app) as client:
        with pytest.raises(LookupError, match="mine"):
            async with client.stream("GET", "/ticks"):
                raise LookupError("mine")


async def test_a_failing_body_fails_the_stream() -> None:
    """At the read that finds out, or at the end of the block, where nothing was read."""

    async def crash(go_on: trio.Event) -> AsyncGenerator[bytes]:
        yield b"x"
        await go_on.wait()
        raise LookupError("mine")

    async def begin(link: Link) -> None:
        await read_head(link)
        await link.send_all(b"HTTP/1.1 200 OK\r\n\r\n")
        await trio.sleep_forever()

    async def upload(*, is_read: bool) -> None:
        go_on = trio.Event()
        async with client.stream("POST", "/", body=crash(go_on)) as response:
            go_on.set()
            await trio.testing.wait_all_tasks_blocked()
            if is_read:
                with pytest.raises(LookupError, match="mine"):
                    await response.read()

    async with open_client(Played(begin, begin)) as client:
        for is_read in (True, False):
            with pytest.raises(LookupError, match="mine"):
                await upload(is_read=is_read)


# --- waiting ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pieces", "message"),
    [
        ([], r"^GET /x: waited 3 s for the status and headers .* before anything had come$"),
        ([b"HTTP/1.1 1"], "after 10 bytes of it b'HTTP/1.1 1'"),
        ([b"HTTP/1.1 103 Early\r\n\r\n"], "headers of the answer after 103"),
        (
            [b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n"],
            "waited 3 s for the rest of the body .* after 200 and nothing of its body",
        ),
        (
            [b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n", bytes(300)],
            "after 200 and 300 bytes of it, beginning with b'",
        ),
    ],
)
async def test_a_wait_ends_and_says_what_had_come(
    pieces: list[bytes], message: str, autojump_clock: trio.testing.MockClock
) -> None:
    """The error of a request that takes too long is enough to see how far it came."""

    async def script(link: Link) -> None:
        await read_head(link)
        for piece in pieces:
            await link.send_all(piece)
        await trio.sleep_forever()

    async with open_client(Played(script)) as client:
        with pytest.raises(trio.TooSlowError, match=message):
            await client.get("/x", timeout=3)
    assert trio.current_time() == pytest.approx(3)


async def test_a_body_that_nobody_takes_is_told(autojump_clock: trio.testing.MockClock) -> None:
    """The usual cause of such silence: the application reads no further."""
    async with open_client(Played(hang), link=Link(buffer=100)) as client:
        with pytest.raises(trio.TooSlowError, match="the request was not sent whole yet"):
            await client.post("/", body=bytes(1000))


async def test_the_way_that_was_slow_is_told(autojump_clock: trio.testing.MockClock) -> None:
    """The timeout is for all redirects, which are shown."""
    found = answering(b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation: /b\r\n\r\n")
    async with open_client(Played(found, hang)) as client:
        with pytest.raises(trio.TooSlowError, match=r"(?s)GET /a: .*/a answered 302, Location: /b"):
            await client.get("/a", follow_redirects=True)


async def test_a_stream_bounds_each_wait(autojump_clock: trio.testing.MockClock) -> None:
    """A stream that takes longer goes on as long as pieces come; after an error it can go on."""

    async def script(link: Link) -> None:
        await read_head(link)
        await link.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n")
        for delay in (4, 4, 4, 6, 4):
            await trio.sleep(delay)
            await link.send_all(b"x")
        await trio.sleep_forever()

    async with open_client(Played(script)) as client, client.stream("GET", "/") as response:
        for _ in range(3):
            assert await anext(response) == b"x"
        with pytest.raises(trio.TooSlowError, match=r"GET /: waited 5 s .* after 200 and 3 bytes"):
            await anext(response)
        assert trio.current_time() == pytest.approx(17)
        assert await response.read() == b"xx"
        assert trio.current_time() == pytest.approx(22)


async def test_a_head_that_does_not_come_ends_the_stream(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Entering the block is a wait, too."""
    async with open_client(Played(hang)) as client:
        with pytest.raises(trio.TooSlowError, match="GET /: waited 2 s"):
            async with client.stream("GET", "/", timeout=2):
                pass


async def test_a_wait_may_have_no_end(autojump_clock: trio.testing.MockClock) -> None:
    """math.inf leaves it to the test's own scopes."""

    async def script(link: Link) -> None:
        await read_head(link)
        await trio.sleep(3600)
        await link.send_all(b"HTTP/1.1 204 No Content\r\n\r\n")

    async with open_client(Played(script)) as client:
        assert (await client.get("/", timeout=math.inf)).status == 204


async def test_a_cancelled_request_leaves_nothing() -> None:
    """The connection is closed, and the body's iterator has unwound when the caller goes on."""
    events: list[str] = []
    closed = trio.Event()

    async def make() -> AsyncGenerator[bytes]:
        try:
            yield b"x"
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await trio.lowlevel.checkpoint()
                events.append("unwound")

    async def script(link: Link) -> None:
        while await link.receive_some(1000):
            pass
        closed.set()

    async with open_client(Played(script, script)) as client:
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(lambda: client.post("/", body=make()))
                await trio.testing.wait_all_tasks_blocked()
                scope.cancel()
        assert events == ["unwound"]
        await closed.wait()
        closed = trio.Event()
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(enter_stream, client, make())
                await trio.testing.wait_all_tasks_blocked()
                scope.cancel()
        assert events == ["unwound", "unwound"]
        await closed.wait()


async def enter_stream(client: Client, body: AsyncGenerator[bytes]) -> None:
    async with client.stream("POST", "/", body=body):
        pass


async def test_a_cancelled_piece_is_not_lost() -> None:
    """What came while nobody waited is for the next one who does."""
    ticking = Ticking()
    async with open_client(ticking.app) as client, client.stream("GET", "/ticks") as response:
        lines = response.iter_lines()
        ticking.send.send_nowait(b"a\nb")
        assert await anext(lines) == "a"
        for wait in (lines.__anext__, response.__anext__):
            with trio.CancelScope() as scope:
                scope.cancel()
                ticking.send.send_nowait(b"c")
                await wait()
            assert scope.cancelled_caught
        ticking.send.send_nowait(b"\n")
        assert await anext(lines) == "bcc"


async def test_small_links_squeeze_it_through() -> None:
    """With a buffer of 7 bytes head and body go both ways in parts."""
    async with open_client(make_app(), link=Link(buffer=7)) as client:
        asked = (await client.post("/told/x", body="b" * 500, headers={"X": "h" * 500})).json()
        assert (asked["body"], asked["headers"]["x"]) == ("b" * 500, "h" * 500)
        async with client.stream("GET", "/told/x") as response:
            assert len(b"".join([piece async for piece in response])) > 100


async def test_lines_go_on_where_they_stopped() -> None:
    """Though more of them came in one piece."""
    app = TrioWeb()

    @app.get("/")
    async def tell() -> str:
        return "one\ntwo\nthree"

    async with open_client(app) as client, client.stream("GET", "/") as response:
        async for line in response.iter_lines():
            assert line == "one"
            break
        assert [line async for line in response.iter_lines()] == ["two", "three"]
