"""What a test can say and expect over a WebSocket, and what it is told when that fails."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from trioweb import TrioWeb, Websocket, WebSocketException
from trioweb.client.wire import RECEIVED, SENT
from trioweb.errors import WebsocketClosed
from trioweb.testing import Frame, Link, Opcode, WebsocketSession, open_client
from trioweb.testing.conversation import MAX_LINES, Conversation

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from trio.testing import MockClock

    from trioweb.testing import Client

app = TrioWeb("told")


@app.websocket("/echo")
async def echo(ws: Websocket) -> None:
    async for message in ws:
        await ws.send(message)


@app.websocket("/json")
async def say_json(ws: Websocket) -> None:
    person = {"name": "Ada", "age": 36, "tags": ["a", "b"], "admin": True, "score": 1}
    async for _ in ws:
        await ws.send(person)


@app.websocket("/hush")
async def hush(ws: Websocket) -> None:
    await ws.wait_closed()


@app.websocket("/late")
async def answer_late(ws: Websocket, seconds: float) -> None:
    async for message in ws:
        await trio.sleep(seconds)
        await ws.send(message)


@app.websocket("/close")
async def close(ws: Websocket, code: int) -> None:
    await ws.send("before")
    await ws.close(code, "as asked")


@app.websocket("/crash")
async def crash(ws: Websocket) -> None:
    raise WebSocketException(1011, "broken")


@app.websocket("/parts")
async def in_parts(ws: Websocket) -> None:
    await ws.send("first")
    await ws.send_fragments(["sec", "ond"])
    await ws.ping(b"are you there")
    await ws.send(b"third")
    await ws.wait_closed()


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    async with open_client(app) as client:
        yield client


@pytest.fixture
async def ws(client: Client) -> AsyncIterator[WebsocketSession]:
    async with client.websocket("/echo") as ws:
        yield ws


async def test_what_the_client_dislikes_of_the_handshake_is_told() -> None:
    """An extension that it has not offered by itself, say."""
    config = {"WEBSOCKET_COMPRESSION": "deflate"}
    offer = {"Sec-WebSocket-Extensions": "permessage-deflate"}
    async with open_client(app, config=config) as client:
        with pytest.raises(WebsocketClosed, match="unrecognized extension permessage-deflate"):
            async with client.websocket("/echo", headers=offer):
                pass


# Expectations


async def test_silence_is_measured(client: Client, autojump_clock: MockClock) -> None:
    """An hour of it passes, pings and all; nothing that comes later is lost."""
    async with client.websocket("/late?seconds=3600") as ws:
        await ws.send("x")
        await ws.expect_silence(3599)
        await ws.expect("x")
    assert trio.current_time() == 3600


async def test_silence_that_is_broken_fails(client: Client, autojump_clock: MockClock) -> None:
    async with client.websocket("/late?seconds=2") as ws:
        await ws.send("x")
        with pytest.raises(AssertionError, match=r"expected 3 s of silence, got 'x'\n"):
            await ws.expect_silence(3)
        assert trio.current_time() == 2
    async with client.websocket("/close?code=4000") as ws:
        await ws.expect("before")
        with pytest.raises(AssertionError, match=r"expected 1 s of silence, got .*4000"):
            await ws.expect_silence(1)


async def test_silence_until_now(client: Client) -> None:
    """No time at all is enough for what comes at once, and for what has come."""
    async with client.websocket("/echo") as ws:
        await ws.expect_silence(0)
        await ws.send("x")
        with pytest.raises(AssertionError, match=r"expected 0 s of silence, got 'x'\n"):
            await ws.expect_silence(0)
        await ws.send_frame(Frame(Opcode.TEXT, b"half of it", fin=False))
        await ws.expect_silence(0)
    async with client.websocket("/parts") as ws:
        for _ in range(4):
            await ws.recv_frame()
        with pytest.raises(AssertionError, match="got b'third'"):
            await ws.expect_silence(0)
        await ws.expect_silence(0)
    async with client.websocket("/close?code=4000") as ws:
        await ws.expect("before")
        with pytest.raises(AssertionError, match=r"expected 0 s of silence, got .*4000"):
            await ws.expect_silence(0)


async def test_no_time_to_wait_is_refused(ws: WebsocketSession) -> None:
    """It would be over before what has come could be taken."""
    await ws.send("x")
    for wait in (ws.recv, ws.recv_json, ws.recv_frame, ws.expect_close, ws.close):
        for timeout in (0, -1):
            with pytest.raises(ValueError, match=f"timeout={timeout} must be more than 0"):
                await wait(timeout=timeout)
    await ws.expect("x")


async def test_a_wait_has_a_deadline_of_its_own(client: Client, autojump_clock: MockClock) -> None:
    """Shorter or longer than five seconds."""
    async with client.websocket("/late?seconds=60") as ws:
        await ws.send("x")
        for seconds, wait in [
            (1, ws.recv(timeout=1)),
            (2, ws.expect("x", timeout=2)),
            (3, ws.expect_json(1, timeout=3)),
            (4, ws.expect_close(timeout=4)),
            (2.5, ws.recv_json(timeout=2.5)),
        ]:
            began = trio.current_time()
            with pytest.raises(trio.TooSlowError, match=f"waited {seconds:g} s for "):
                await wait
            assert trio.current_time() - began == seconds
        await ws.expect("x", timeout=60)
    assert trio.current_time() == 60


async def test_who_never_answers_fails_at_once_and_says_why(
    client: Client, autojump_clock: MockClock
) -> None:
    """The failure tells what was awaited, and all that had come."""
    async with client.websocket("/parts") as ws:
        await ws.expect("first")
        await ws.expect("second")
        await ws.expect(b"third")
        with pytest.raises(trio.TooSlowError) as caught:
            await ws.expect("fourth")
    line = in_parts.__code__.co_firstlineno + 6
    lines = [line.strip() for line in str(caught.value).splitlines()]
    assert lines == [
        "waited 5 s for 'fourth'; its handler in_parts waits at "
        f"{Path(__file__).relative_to(Path.cwd())}:{line} in in_parts",
        "WebSocket /parts, conversation so far:",
        "0.000 < text 'first'",
        "0.000 < text 'sec' …",
        "0.000 < continuation b'ond' …",
        "0.000 < continuation b''",
        "0.000 < ping #1",
        "0.000 > pong #1",
        "0.000 < binary b'third'",
    ]


@pytest.mark.parametrize(
    "like",
    [
        {},
        {"name": "Ada"},
        {"name": str, "age": int, "tags": list, "admin": bool},
        {"name": re.compile("A.a"), "tags": ["a", str]},
        {"tags": [..., "b"]},
        {"age": float},
        dict,
        ...,
    ],
)
async def test_like_is_what_matters(client: Client, like: Any) -> None:
    async with client.websocket("/json") as ws:
        await ws.send("")
        assert (await ws.expect_json(like=like))["name"] == "Ada"


@pytest.mark.parametrize(
    ("like", "found"),
    [
        ({"name": "Bob"}, ".name is 'Ada', not 'Bob'"),
        ({"tags": ["a"]}, ".tags has 2 elements, not 1"),
        ({"tags": ["a", "c"]}, ".tags[1] is 'b', not 'c'"),
        ({"tags": {}}, ".tags is ['a', 'b'], no object"),
        ({"name": []}, ".name is 'Ada', no array"),
        ({"email": ...}, ".email is missing"),
        ({"admin": int}, ".admin is True, no int"),
        ({"admin": 1}, ".admin is True, not 1"),
        ({"score": True}, ".score is 1, not True"),
        ({"name": re.compile("A")}, ".name is 'Ada', which does not match 'A'"),
        ({"age": str}, ".age is 36, no str"),
        ([], "the value is {"),
    ],
)
async def test_what_is_not_like_it_is_named(client: Client, like: Any, found: str) -> None:
    async with client.websocket("/json") as ws:
        await ws.send("")
        with pytest.raises(AssertionError, match=re.escape(found)):
            await ws.expect_json(like=like)


async def test_json_is_compared_as_json(ws: WebsocketSession) -> None:
    """A bool is no number; a tuple is as good as a list."""
    await ws.send_json({"a": [1, True]})
    with pytest.raises(AssertionError, match="expected"):
        await ws.expect_json({"a": [True, 1]})
    await ws.send_json({"a": [1, 2.0]})
    assert await ws.expect_json({"a": (1, 2)}) == {"a": [1, 2.0]}
    for arguments in ({}, {"value": 1, "like": 1}):
        with pytest.raises(TypeError, match="a value or like="):
            await ws.expect_json(**arguments)


@pytest.mark.parametrize("code", [1000, 1001, 1008, 1011, 4000])
@pytest.mark.parametrize("wrong", [1000, 1002, 1006, 4001])
async def test_each_wrong_close_code_is_caught(client: Client, code: int, wrong: int) -> None:
    async with client.websocket(f"/close?code={code}") as ws:
        await ws.expect("before")
        if code == wrong:
            assert await ws.expect_close(wrong) == "as asked"
            return
        with pytest.raises(AssertionError, match=rf"expected close {wrong}, got .*{code}"):
            await ws.expect_close(wrong)


async def test_a_message_is_no_close(client: Client) -> None:
    async with client.websocket("/close?code=1000") as ws:
        with pytest.raises(AssertionError, match="expected close 1000, got 'before'"):
            await ws.expect_close()


async def test_a_crash_that_nobody_looks_at_fails_the_test(client: Client) -> None:
    """The end of the block tells of it, in the words of the connection."""
    with pytest.raises(AssertionError, match=r"nobody looked at .*1011.*broken"):
        async with client.websocket("/crash"):
            pass
    with pytest.raises(AssertionError, match=r"nobody looked at .*1008"):
        async with client.websocket("/close?code=1008") as ws:
            await ws.expect("before")
    # Who has looked, or has failed already, hears nothing.
    async with client.websocket("/crash") as ws:
        await ws.expect_close(1011)
    with pytest.raises(ValueError, match="the test's own"):
        async with client.websocket("/crash"):
            raise ValueError("the test's own")


async def test_who_receives_while_another_task_closes_hears_how_it_ended(
    autojump_clock: MockClock,
) -> None:
    """Not before that is known."""
    heard: list[tuple[int, float]] = []
    link = Link(latency=1)
    async with open_client(app) as client, client.websocket("/hush", link=link) as ws:

        async def receive() -> None:
            try:
                await ws.recv()
            except WebsocketClosed as closed:
                heard.append((closed.code, trio.current_time()))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(receive)
            await wait_all_tasks_blocked()
            await ws.close(4001)
    assert heard == [(4001, 4.0)]


# Frames


async def test_frames_and_messages_are_one_stream(client: Client) -> None:
    """Each frame is handed out once: by itself, or within its message."""
    async with client.websocket("/parts") as ws:
        assert await ws.recv_frame() == Frame(Opcode.TEXT, b"first")
        await ws.expect("second")
        ping = await ws.recv_frame()
        assert (ping.opcode, ping.payload) == (Opcode.PING, b"are you there")
        assert await ws.recv() == b"third"
        await ws.close()
        close = await ws.recv_frame()
        assert (close.opcode, close.close_code, close.text) == (Opcode.CLOSE, 1000, "")
        with pytest.raises(WebsocketClosed):
            await ws.recv_frame()


async def test_a_message_of_which_frames_were_seen_is_whole(client: Client) -> None:
    """Fragments that were looked at don't cut what recv gives; after the last one it goes on."""
    async with client.websocket("/parts") as ws:
        await ws.expect("first")
        assert await ws.recv_frame() == Frame(Opcode.TEXT, b"sec", fin=False)
        await ws.expect("second")
    async with client.websocket("/parts") as ws:
        frames = [await ws.recv_frame() for _ in range(4)]
        assert [frame.fin for frame in frames] == [True, False, False, True]
        await ws.expect(b"third")


async def test_a_frame_that_never_comes(client: Client, autojump_clock: MockClock) -> None:
    async with client.websocket("/hush") as ws:
        with pytest.raises(
            trio.TooSlowError, match="waited 3 s for a frame; its handler hush waits at "
        ):
            await ws.recv_frame(timeout=3)


async def test_fragments_can_be_sent(ws: WebsocketSession) -> None:
    await ws.send_frame(Frame(Opcode.TEXT, b"he", fin=False))
    await ws.send_frame(Frame(Opcode.PING, b"between"))
    await ws.send_frame(Frame(Opcode.CONTINUATION, b"llo"))
    pong = await ws.recv_frame()
    assert (pong.opcode, pong.payload) == (Opcode.PONG, b"between")
    await ws.expect("hello")


@pytest.mark.parametrize(
    "frame",
    [
        Frame(Opcode.CONTINUATION, b"of nothing"),
        Frame(Opcode.TEXT, b"", rsv=4),
        Frame(3, b"reserved"),
        Frame(Opcode.PING, b"x" * 126),
        Frame(Opcode.PING, b"", fin=False),
        Frame(Opcode.CLOSE, b"\x03"),
    ],
)
async def test_wrong_frames_can_be_sent(ws: WebsocketSession, frame: Frame) -> None:
    await ws.send_frame(frame)
    await ws.expect_close(1002)


async def test_raw_bytes_can_be_sent(ws: WebsocketSession) -> None:
    """A frame in two halves is one, rubbish is none."""
    frame = Frame(Opcode.TEXT, b"halves").encode()
    await ws.send_raw(frame[:3])
    await ws.send_raw(frame[3:])
    await ws.expect("halves")
    await ws.send_raw(b"\xff\xff\xff\xff")
    await ws.expect_close(1002)
    assert "> raw b'\\xff\\xff\\xff\\xff'" in ws.transcript()


async def test_ping_measures(client: Client, autojump_clock: MockClock) -> None:
    async with client.websocket("/echo", link=Link(latency=0.25)) as ws:
        assert await ws.ping() == 0.5


async def test_a_ping_hears_of_the_end(client: Client) -> None:
    """Of a connection that ends while it waits, or has ended."""
    async with client.websocket("/close?code=4000") as ws:
        await ws.expect("before")
        for _ in range(2):
            with pytest.raises(WebsocketClosed) as closed:
                await ws.ping()
            assert closed.value.code == 4000
    async with client.websocket("/echo") as ws:
        with pytest.raises(ValueError, match="at most 125 bytes"):
            await ws.ping(b"x" * 126)


@pytest.mark.parametrize(("timeout", "error"), [(None, TypeError), (0, ValueError)])
async def test_timeouts_are_seconds(
    ws: WebsocketSession, timeout: Any, error: type[Exception]
) -> None:
    with pytest.raises(error, match="timeout="):
        await ws.recv(timeout=timeout)


# Ends


async def test_a_cancelled_send_tears_nothing(autojump_clock: MockClock) -> None:
    """What did not fit is sent later, whole, and what comes next behind it."""
    got: list[str | bytes] = []
    slow = TrioWeb("slow", config={"WEBSOCKET_MAX_QUEUE": 1})

    @slow.websocket("/")
    async def read_late(ws: Websocket) -> None:
        await trio.sleep(60)
        async for message in ws:
            got.append(message)
            await ws.send(str(len(message)))

    async with (
        open_client(slow, link=Link(buffer=1000)) as client,
        client.websocket("/") as ws,
    ):
        sent = 0
        with trio.move_on_after(3) as scope:
            while True:
                await ws.send("x" * 70_000)
                sent += 1
        assert scope.cancelled_caught
        for _ in range(sent + 1):
            await ws.expect("70000", timeout=100)
        await ws.send("behind")
        await ws.expect("6")
    assert got[-1] == "behind"


async def test_a_dropped_cable_is_told_to_nobody(autojump_clock: MockClock) -> None:
    """Until a heartbeat is missed."""
    ended: list[float] = []
    beating = TrioWeb(
        "beating", config={"WEBSOCKET_PING_INTERVAL": 20, "WEBSOCKET_PING_TIMEOUT": 10}
    )

    @beating.websocket("/")
    async def wait(ws: Websocket) -> None:
        await ws.wait_closed()
        ended.append(trio.current_time())

    async with open_client(beating) as client, client.websocket("/") as ws:
        await trio.sleep(50)
        ws.drop()
        await trio.sleep(19)
        assert len(client.connections) == 1
        await trio.sleep(60)
    assert ended == [70.0]


async def test_a_session_whose_cable_is_pulled_can_be_left(autojump_clock: MockClock) -> None:
    """By the test or by the link, whether the server has noticed or not."""
    async with open_client(app) as client:
        for link in (None, Link(drop_after=3)):
            async with client.websocket("/hush", link=link) as ws:
                if link is None:
                    ws.drop()
                await trio.sleep(100)
        assert trio.current_time() == 200


async def test_a_stalled_client_can_go_on(autojump_clock: MockClock) -> None:
    async with open_client(app) as client, client.websocket("/echo") as ws:
        ws.stall()
        await ws.send("waits")
        await ws.expect_silence(3)
        ws.resume()
        await ws.expect("waits")


async def test_handlers_end_with_their_block(autojump_clock: MockClock) -> None:
    """They go on as long as they need no time, and are cancelled then, without the grace."""
    diary: list[str] = []
    going = TrioWeb("going")

    @going.websocket("/")
    async def handle(ws: Websocket) -> None:
        try:
            async for message in ws:
                await trio.lowlevel.checkpoint()
                diary.append(str(message))
            diary.append("left")
            await trio.sleep(1)
            diary.append("too late")
        finally:
            diary.append("cleaned up")

    async with open_client(going) as client:
        async with client.websocket("/") as ws:
            for number in range(20):
                await ws.send(str(number))
            assert client.connections
        assert not client.connections
        assert diary == [*map(str, range(20)), "left", "cleaned up"]
        assert trio.current_time() == 0


# What else comes


async def test_iteration_ends_with_the_connection(client: Client) -> None:
    """However it ends; that is looked at afterwards, or by the end of the block."""
    async with client.websocket("/parts") as ws:
        got = []
        async for message in ws:
            got.append(message)
            if message == b"third":
                break
        assert got == ["first", "second", b"third"]
    async with client.websocket("/close?code=4000") as ws:
        assert [message async for message in ws] == ["before"]
        await ws.expect_close(4000)
    with pytest.raises(AssertionError, match=r"nobody looked at .*4001"):
        async with client.websocket("/close?code=4001") as ws:
            assert [message async for message in ws] == ["before"]


async def test_large_messages_are_shown_in_part(ws: WebsocketSession) -> None:
    await ws.send("x" * 10_000)
    with pytest.raises(AssertionError) as caught:
        await ws.expect("y" * 10_000)
    assert len(str(caught.value)) < 1000
    assert "… (10000 characters), got 'xxxx" in str(caught.value)


async def test_values_of_other_types_are_refused_with_a_hint(ws: WebsocketSession) -> None:
    value: Any = {"a": 1}
    with pytest.raises(TypeError, match=r"send_json\(\) takes it"):
        await ws.send(value)
    with pytest.raises(TypeError, match=r"expect_json\(\) takes it"):
        await ws.expect(value)


async def test_a_url_of_a_websocket_will_do(client: Client) -> None:
    async with client.websocket("ws://other.test/echo?x=1"):
        assert client.connections[0].request.host == "other.test"
        assert client.connections[0].request.scheme == "http"


async def test_who_goes_on_after_a_stall_closes_in_good_order(client: Client) -> None:
    async with client.websocket("/hush") as ws:
        (server_end,) = client.connections
        ws.stall()
        ws.resume()
    assert server_end.close_info is not None
    assert (server_end.close_info.code, server_end.close_info.clean) == (1000, True)


async def test_sends_of_several_tasks_stay_whole(autojump_clock: MockClock) -> None:
    """Over a link that takes a part of each, and with bytes of the test's own among them."""
    sizes: list[int] = []
    reading = TrioWeb("reading")

    @reading.websocket("/")
    async def read(ws: Websocket) -> None:
        async for message in ws:
            sizes.append(len(message))
            await trio.sleep(0.01)

    async with (
        open_client(reading, link=Link(buffer=100)) as client,
        client.websocket("/") as ws,
    ):
        async with trio.open_nursery() as nursery:
            for size in (200, 300, 400):
                nursery.start_soon(ws.send, "x" * size)
                nursery.start_soon(ws.send_frame, Frame(Opcode.BINARY, bytes(size + 1)))
        await ws.expect_silence(1)
    assert sorted(sizes) == [200, 201, 300, 301, 400, 401]


async def test_a_send_that_waits_hears_of_the_end(client: Client) -> None:
    """The server does not take it, and goes."""
    async with client.websocket("/late?seconds=1000", link=Link(buffer=1000)) as ws:
        outcome: list[int] = []

        async def send() -> None:
            try:
                while True:
                    await ws.send("x" * 100_000)
            except WebsocketClosed as closed:
                outcome.append(closed.code)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            await wait_all_tasks_blocked()
            ws.abort()
        assert outcome == [1006]


async def test_a_ping_that_comes_while_the_session_closes(autojump_clock: MockClock) -> None:
    """trio-websocket would crash over it; it is shown, and has no answer any more."""
    link = Link(latency=1)
    async with open_client(app) as client, client.websocket("/hush", link=link) as ws:
        # Accepted at 1 s; the ping of 21 s arrives at 22 s.
        await trio.sleep(19.5)
        await ws.close(timeout=10)
        said = ws.transcript(times=False).splitlines()
    assert said == ["> close 1000", "< ping #1", "< close 1000"]


# Transcripts


def test_a_transcript_keeps_what_one_wants_to_read() -> None:
    """Of large frames a part, of long conversations the end, with what is left out."""

    async def talk() -> None:
        conversation = Conversation("/long")
        conversation.add(RECEIVED, Frame(Opcode.BINARY, bytes(10_000)))
        assert conversation.transcript().endswith("… (10000 bytes)")
        assert len(conversation.transcript()) < 20_000
        for number in range(MAX_LINES + 4):
            conversation.add(SENT, Frame(Opcode.TEXT, f"{number}".encode()))
        lines = conversation.transcript(times=False).splitlines()
        assert lines[0] == "… 5 lines before"
        assert lines[1] == "> text '4'"
        assert len(lines) == MAX_LINES + 1
        shown = conversation.explain("it failed").splitlines()
        assert shown[0] == "it failed"
        assert shown[2] == f"  … {MAX_LINES - 35} lines before"
        assert len(shown) == 43

    trio.run(talk)


@pytest.mark.parametrize(
    ("frame", "shown"),
    [
        (Frame(Opcode.CLOSE), "close"),
        (Frame(Opcode.CLOSE, b"\x03\xe8bye"), "close 1000 'bye'"),
        (Frame(Opcode.TEXT, b"\xc3", fin=False), "text '\\\\xc3' …"),
        (Frame(Opcode.BINARY, b"\x00", rsv=4), "binary b'\\x00' rsv=4"),
        (Frame(11, b"x"), "opcode 11 b'x'"),
        (Frame(Opcode.PONG, b"unasked"), "pong b'unasked'"),
    ],
)
def test_frames_are_shown_as_what_they_are(frame: Frame, shown: str) -> None:
    async def talk() -> None:
        conversation = Conversation("/")
        conversation.add(SENT, frame)
        assert conversation.transcript(times=False) == f"> {shown}"

    trio.run(talk)


# More of sessions


async def test_a_client_that_is_busy_elsewhere_is_not_slow(autojump_clock: MockClock) -> None:
    """Messages are read as they come, however many, and pings are answered."""
    ticking = TrioWeb("ticking")

    @ticking.websocket("/")
    async def tick(ws: Websocket) -> None:
        number = 0
        while True:
            await trio.sleep(1)
            number += 1
            await ws.send(str(number))

    async with open_client(ticking) as client, client.websocket("/") as ws:
        await trio.sleep(3600.5)
        for number in range(1, 3601):
            await ws.expect(str(number))


async def test_a_wss_url_is_https_for_the_application(client: Client) -> None:
    """Cookies that are for it alone are sent there, and kept."""
    client.cookies.set("secret", "x", secure=True)
    async with client.websocket("wss://app.test/echo"):
        assert client.connections[0].request.scheme == "https"
        assert client.connections[0].cookies == {"secret": "x"}
    async with client.websocket("/echo"):
        assert client.connections[0].cookies == {}


@pytest.mark.parametrize("code", [999, 1004, 1005, 1006, 1015, 5000])
async def test_codes_that_no_client_may_send(ws: WebsocketSession, code: int) -> None:
    with pytest.raises(ValueError, match="can't be sent"):
        await ws.close(code)
    await ws.send_frame(Frame(Opcode.CLOSE, code.to_bytes(2, "big")))
    await ws.expect_close(1002)


async def test_one_subprotocol_is_a_list_of_one(client: Client) -> None:
    with pytest.raises(TypeError, match="takes a list of names, not 'chat'"):
        async with client.websocket("/echo", subprotocols="chat"):
            pass


async def test_a_handler_that_reads_nothing_can_be_left(autojump_clock: MockClock) -> None:
    """Its inbox is full, so that it can't find our Close."""
    full = TrioWeb("full", config={"WEBSOCKET_MAX_QUEUE": 2})

    @full.websocket("/")
    async def sleep(ws: Websocket) -> None:
        await trio.sleep_forever()

    async with open_client(full) as client:
        async with client.websocket("/") as ws:
            for _ in range(10):
                await ws.send("x")
        assert client.connections == []


@pytest.mark.parametrize("steps", [0, 1, 2, 10])
async def test_a_crash_over_the_last_message_is_seen(steps: int) -> None:
    """The handler has its turn before the session closes, however many it needs."""
    crashing = TrioWeb("crashing")

    @crashing.websocket("/")
    async def crash_late(ws: Websocket) -> None:
        await ws.recv()
        for _ in range(steps):
            await trio.lowlevel.checkpoint()
        raise LookupError

    async with open_client(crashing) as client:
        with pytest.raises(AssertionError, match=r"nobody looked at .*1011"):
            async with client.websocket("/") as ws:
                await ws.send("x")
