"""The parser: heads, bodies, and what it refuses."""

from __future__ import annotations

import contextlib
import itertools

import h11
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from trioweb.errors import BadRequest, HTTPException, PayloadTooLarge
from trioweb.http.http1 import RequestHead, RequestParser


def make(max_head: int = 8192, max_body: int = 1000) -> RequestParser:
    return RequestParser(max_head, max_body)


def head_of(data: bytes, parser: RequestParser | None = None) -> RequestHead:
    parser = parser or make()
    parser.receive(data)
    head = parser.next_head()
    assert head is not None
    return head


def read_body(parser: RequestParser) -> bytes | None:
    body = b""
    while (chunk := parser.next_chunk()) is not None:
        if not chunk:
            return body
        body += chunk
    return None


def test_a_plain_request() -> None:
    head = head_of(b"GET /a?b=c HTTP/1.1\r\nHost: h:80\r\nX-A:  b \r\nX-A: c\r\n\r\n")
    assert (head.method, head.target, head.http_version) == ("GET", "/a?b=c", "1.1")
    assert head.headers.getall("x-a") == ["b", "c"]
    assert head.keep_alive
    assert not head.has_body
    assert not head.is_websocket


def test_pipelined_requests_come_one_after_the_other() -> None:
    parser = make()
    parser.receive(
        b"\r\nPOST /1 HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc"
        b"POST /2 HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"2\r\nde\r\n0\r\nTrailer: x\r\n\r\nGET /3 HTTP/1.1\r\nHost: h\r\n\r\nGET /4"
    )
    head = parser.next_head()
    assert head is not None
    assert head.target == "/1"
    assert read_body(parser) == b"abc"
    head = parser.next_head()
    assert head is not None
    assert head.target == "/2"
    assert not parser.body_ended
    assert read_body(parser) == b"de"
    assert parser.body_ended
    head = parser.next_head()
    assert head is not None
    assert head.target == "/3"
    assert parser.next_head() is None
    assert parser.has_partial_head


STREAM = (
    b"GET /0 HTTP/1.1\r\nHost: h\r\n\r\n"
    b"POST /1 HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc"
    b"POST /2 HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"2;x=y\r\nde\r\n3\r\nfgh\r\n0\r\n\r\n"
    b"GET /3 HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"
)


@given(st.sets(st.integers(1, len(STREAM) - 1)))
def test_any_split_gives_the_same_requests(cuts: set[int]) -> None:
    places = [0, *sorted(cuts), len(STREAM)]
    pieces = [STREAM[a:b] for a, b in itertools.pairwise(places)]
    parser = make()
    found: list[tuple[str, bytes]] = []
    for _ in range(4):
        while (head := parser.next_head()) is None:
            parser.receive(pieces.pop(0))
        body = b""
        while (chunk := parser.next_chunk()) != b"":
            if chunk is None:
                parser.receive(pieces.pop(0))
            else:
                body += chunk
        found.append((head.target, body))
    assert found == [("/0", b""), ("/1", b"abc"), ("/2", b"defgh"), ("/3", b"")]
    assert not pieces


@given(st.binary(max_size=200))
def test_noise_is_refused_or_waits(noise: bytes) -> None:
    parser = make()
    parser.receive(noise)
    with contextlib.suppress(HTTPException):
        assert parser.next_head() is None


H = b"Host: h\r\n"


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),  # a TLS hello
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
        (b"GET / HTTP/2.0\r\n" + H + b"\r\n", 505),
        (b"GET / HTTP/1.2\r\n" + H + b"\r\n", 505),
        (b"GET / HTTP/0.9\r\n\r\n", 505),
        (b"GET /\r\n", 400),
        (b"GET / HTTP/1.1\n", 400),
        (b"GET / HTTP/11\r\n" + H + b"\r\n", 400),
        (b"GET /\xff HTTP/1.1\r\n" + H + b"\r\n", 400),
        (b"GET  / HTTP/1.1\r\n" + H + b"\r\n", 400),
        (b"G(T / HTTP/1.1\r\n" + H + b"\r\n", 400),
        (b"GET x HTTP/1.1\r\n" + H + b"\r\n", 400),
        (b"GET * HTTP/1.1\r\n" + H + b"\r\n", 400),
        (b"GET http:// HTTP/1.1\r\n" + H + b"\r\n", 400),
        (b"GET http://a@b/ HTTP/1.1\r\n" + H + b"\r\n", 400),
        (b"CONNECT h:443 HTTP/1.1\r\n" + H + b"\r\n", 501),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n" + H + H + b"\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: u@b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a:b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n" + H + b"X: a\x00b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n" + H + b"X: a\x0bb\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n" + H + b"X: a\x7fb\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n" + H + b"X: a\rb\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n" + H + b"X: a\nY: b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n" + H + b"X: a\r\n b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n" + H + b"X: a\r\n\tb: c\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n X: a\r\n" + H + b"\r\n", 400),
        (b"GET / HTTP/1.1\r\n" + H + b"X: a\rb\nc\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n" + H + b"X : a\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n" + H + b": a\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n" + H + b"X\xe9: a\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n" + H + b"X Y: a\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n" + H + b"Content-Length : 1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n" + H + b"Transfer-Encoding\xa0: chunked\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n" + H + b"X\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\n" + H + b"Content-Length: -1\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\n" + H + b"Content-Length: +1\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\n" + H + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\n" + H + b"Content-Length: 1001\r\n\r\n", 413),
        (b"POST / HTTP/1.1\r\n" + H + b"Transfer-Encoding: gzip\r\n\r\n", 501),
        (
            b"POST / HTTP/1.1\r\n" + H + b"Transfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n",
            400,
        ),
        (b"POST / HTTP/1.0\r\n" + H + b"Transfer-Encoding: chunked\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n" + H + b"X: " + b"a" * 8192 + b"\r\n\r\n", 431),
        (b"GET /" + b"a" * 8192, 431),
        (b"GET / HTTP/1.1\r\n" + H + b"Upgrade: websocket\r\nContent-Length: 1\r\n\r\n", 400),
    ],
)
def test_what_is_refused(data: bytes, status: int) -> None:
    parser = make()
    parser.receive(data)
    with pytest.raises(HTTPException) as caught:
        parser.next_head()
    assert caught.value.status == status


FIELDS = st.one_of(
    st.sampled_from(
        [
            b"Host: h",
            b"hOST:h",
            b"Content-Length: 3",
            b"content-length:3 ,3",
            b"Content-Length: 4",
            b"Content-Length:",
            b"Transfer-Encoding: Chunked",
            b"Transfer-Encoding: gzip, chunked",
            b"X-Text: \ta \xe9\tb, c\t ",
            b"X : a",
            b"X",
            b"",
            b": a",
            b" X: folded",
            b"X:a:b",
        ]
    ),
    st.binary(max_size=20),
)


@given(
    st.one_of(
        st.sampled_from([b"GET / HTTP/1.1", b"POST /a?b HTTP/1.0", b"GET / HTTP/2.0"]),
        st.binary(max_size=20),
    ),
    st.lists(FIELDS, max_size=5),
)
def test_h11_would_have_read_every_head_the_same(line: bytes, fields: list[bytes]) -> None:
    """Which of the two reads a head must make no difference; ours may only be stricter."""
    raw = b"\r\n".join([line, *fields, b"", b""])
    assume(raw.find(b"\r\n\r\n") == len(raw) - 4 and not raw.startswith(b"\r\n"))
    reader = h11.Connection(h11.SERVER)
    reader.receive_data(raw)
    try:
        theirs = reader.next_event()
    except h11.RemoteProtocolError:
        with pytest.raises(HTTPException):
            head_of(raw)
        return
    assert isinstance(theirs, h11.Request)
    try:
        ours = head_of(raw)
    except HTTPException:
        return
    assert [
        (name.encode(), value.encode("latin-1")) for name, value in ours.headers.multi_items()
    ] == [*theirs.headers]
    assert (ours.method, ours.target, ours.http_version) == (
        theirs.method.decode(),
        theirs.target.decode(),
        theirs.http_version.decode(),
    )


@given(st.lists(FIELDS, max_size=5))
def test_what_h11_accepts_is_refused_for_a_reason(fields: list[bytes]) -> None:
    """Control characters, folded lines, and what would leave the framing in doubt."""
    raw = b"\r\n".join([b"GET / HTTP/1.1", b"Host: h", *fields, b"", b""])
    assume(raw.find(b"\r\n\r\n") == len(raw) - 4)
    reader = h11.Connection(h11.SERVER)
    reader.receive_data(raw)
    try:
        theirs = reader.next_event()
    except h11.RemoteProtocolError:
        return
    assert isinstance(theirs, h11.Request)
    names = [name for name, _ in theirs.headers]
    text = b"".join(field for pair in theirs.headers for field in pair)
    reasons = (
        any(octet < 32 or octet == 127 for octet in text.replace(b"\t", b"")),
        raw.count(b"\n") != raw.count(b"\r\n") or raw.count(b"\r") != raw.count(b"\r\n"),
        b"\n " in raw or b"\n\t" in raw,
        b"content-length" in names and b"transfer-encoding" in names,
    )
    if not any(reasons):
        head_of(raw)


@pytest.mark.parametrize(
    ("lines", "keep_alive"),
    [
        (b"GET / HTTP/1.1\r\nHost: h\r\n", True),
        (b"GET / HTTP/1.1\r\nHost: h\r\nConnection: x, Close\r\n", False),
        (b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\nConnection: x\r\n", False),
        (b"GET / HTTP/1.0\r\n", False),
        (b"GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n", True),
    ],
)
def test_keep_alive(lines: bytes, keep_alive: bool) -> None:
    assert head_of(lines + b"\r\n").keep_alive is keep_alive


@pytest.mark.parametrize("host", [b"", b"a.b:8000", b"[::1]:80", b"[::1]", b"a_b"])
def test_good_hosts(host: bytes) -> None:
    head_of(b"GET / HTTP/1.1\r\nHost: " + host + b"\r\n\r\n")


@pytest.mark.parametrize("target", [b"http://h/x", b"http://h", b"ws://h:1/x?y", b"/%zz"])
def test_good_targets(target: bytes) -> None:
    head_of(b"GET " + target + b" HTTP/1.1\r\nHost: h\r\n\r\n")
    head_of(b"OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n")


def test_an_upgrade_hands_over_what_follows() -> None:
    parser = make()
    head = head_of(
        b"GET / HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: foo, WebSocket\r\n\r\n\x81",
        parser,
    )
    assert head.is_websocket
    assert parser.take_trailing() == b"\x81"
    assert not parser.has_partial_head
    old = head_of(b"GET / HTTP/1.0\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
    assert not old.is_websocket


def test_framing_is_what_h11_makes_of_it() -> None:
    parser = make()
    repeated = b"Content-Length: 3 , 3\r\ncontent-length:3\r\n"
    head = head_of(b"POST / HTTP/1.1\r\nHost: h\r\n" + repeated + b"\r\nabcGET", parser)
    assert head.headers.getall("Content-Length") == ["3"]
    assert read_body(parser) == b"abc"
    assert parser.take_trailing() == b"GET"
    assert not head_of(b"GET / HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n").has_body


def test_expect_is_seen_where_there_is_a_body() -> None:
    post = b"POST / HTTP/1.1\r\nHost: h\r\nExpect: 100-Continue\r\n"
    assert head_of(post + b"Content-Length: 1\r\n\r\n").expects_continue
    assert not head_of(post + b"Content-Length: 0\r\n\r\n").expects_continue


def test_a_chunked_body_is_bounded_as_it_comes() -> None:
    parser = make(max_body=5)
    head_of(b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n", parser)
    parser.receive(b"4\r\nabcd\r\n")
    assert parser.next_chunk() == b"abcd"
    parser.receive(b"4\r\nabcd\r\n")
    with pytest.raises(PayloadTooLarge):
        parser.next_chunk()
    assert not parser.body_ended
    with pytest.raises(BadRequest):
        parser.next_chunk()


@pytest.mark.parametrize(
    "rest", [b"x\r\n", b"1\r\nabc", b"0" * 9000, b"1;" + b"x" * 9000, b"4\r\nab", b""]
)
def test_a_malformed_or_cut_body_is_refused(rest: bytes) -> None:
    parser = make()
    head_of(b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n" + rest, parser)
    parser.receive(b"")
    with pytest.raises(BadRequest):
        read_body(parser)
