"""Walks the table of docs/closing.md: every row is made to happen, and told in the table's words.

Theory of operation. A ``Stage`` serves one WebSocket of a real application to a peer with wsproto's
codec, on the virtual clock. A row's scenario says what the handler does and what happens; probes
note what each column sees, and when. Every duration of the scenario is a number that no sum of
others gives, so that an instant can be told in words: 1003.5 s are "after the answer and the
grace".

Each row is played three times. Twice with a peer that is well, once for ``recv`` and once for
iteration; this peer starts to read after half a second and answers Close three seconds later, so
that what waits for either is told apart. Then with a peer that says and reads nothing more, which
shows the deadlines.
"""

from __future__ import annotations

import re
import socket
import struct
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
import trio
from trio.testing import wait_all_tasks_blocked
from wsproto import events
from wsproto.connection import ConnectionState

from tests.app.conftest import HANDSHAKE
from tests.ws.conftest import Bench, Peer
from trioweb import TrioWeb, WebsocketClosed
from trioweb.config import Config
from trioweb.errors import HTTPException, WebSocketException
from trioweb.net.stream import SocketStream
from trioweb.testing import Link

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

    from trioweb.net.stream import ByteStream
    from trioweb.ws import Websocket

PAGE = Path(__file__).parents[2] / "docs" / "closing.md"

# The peer that is well begins to read so long after the event, and answers Close so much later.
# Less than the second that a cancelled serve grants, and more than that.
READS_AFTER, ANSWERS_AFTER = 0.5, 3.0
# How long a cancelled handler takes to unwind, so that what waits for it is told apart.
UNWINDING = 0.25
# What the words of the page stand for here. The greatest first: instants are told as sums.
GRACE, STALL_TIME, PING_TIME, TIMEOUT = 1000.0, 100.0, 30.0, 12.0
DURATIONS = {
    "the grace": GRACE,
    "the stall time": STALL_TIME,
    "the ping time": PING_TIME,
    "the timeout": TIMEOUT,
    "the answer": READS_AFTER + ANSWERS_AFTER,
    "1 s": 1.0,
    "Close": READS_AFTER,
    "the unwinding": UNWINDING,
}
# The order in which they pass, where several do.
IN_ORDER = ["the ping time", "the stall time", "the unwinding", "Close", "the answer"]
IN_ORDER += ["1 s", "the timeout", "the grace"]
OPTIONS = {
    "WEBSOCKET_DISCONNECT_GRACE": GRACE,
    "WEBSOCKET_STALL_TIMEOUT": STALL_TIME,
    "WEBSOCKET_PING_INTERVAL": 20.0,
    "WEBSOCKET_PING_TIMEOUT": PING_TIME - 20.0,
    "WEBSOCKET_TIMEOUT": TIMEOUT,
    "WEBSOCKET_MAX_SIZE": 200_000,
    "GRACEFUL_SHUTDOWN_TIMEOUT": 10_000.0,
}
# More than a write takes: the first message is in progress, the others are queued.
QUEUED = [letter * 70_000 for letter in "abc"]
# Instants are multiples of the first; probes that have to look again and again do so in between.
GRID, LOOK_EVERY = 0.25, 0.0625


def tell(seconds: float) -> str:
    """An instant, counted from the event, in the page's words."""
    left = seconds // GRID * GRID
    if not left:
        return "at once"
    words: list[str] = []
    for word, duration in DURATIONS.items():
        if left >= duration:
            left -= duration
            words.append(word)
    words.sort(key=IN_ORDER.index)
    return f"after {' + '.join(words)}" if not left else f"after {seconds} s"


class Note(NamedTuple):
    """What was seen, and when."""

    what: str
    at: float


@dataclass
class Scenario:
    """How a row's event is made to happen.

    Attributes:
        act: makes it happen, in the test's task; the event is when it begins.
        handler: what the handler does once ``stage.go`` is set; it sleeps for ever by default.
        options: config keys of its own.
        queued: whether messages wait to be sent.
        reader_first: whether the reader waits already when it happens.
        chatters: whether the peer sends pongs, though it reads nothing.
        reads_after: when the peer that is well begins to read; None where there is none.
        kinds: the streams in memory that show it.
        takes_time: whether a deadline is part of the event, so that no socket can show it.
    """

    act: Callable[[Stage], Awaitable[None]]
    handler: Callable[[Stage], Awaitable[None]]
    options: dict[str, Any] = field(default_factory=dict)
    queued: bool = True
    reader_first: bool = False
    chatters: bool = False
    reads_after: float | None = READS_AFTER
    takes_time: bool = False
    kinds: Sequence[str] = ("link", "adapter")


SCENARIOS: dict[str, Scenario] = {}


async def sleep(stage: Stage) -> None:
    await trio.sleep_forever()


async def let_go(stage: Stage) -> None:
    """The event is the handler's: it begins when it may go on."""
    stage.go.set()


def peer_does(event: str, **more: Any) -> Callable[[Any], Any]:
    """Register a scenario in which something happens to a handler that sleeps."""

    def register(act: Callable[[Stage], Awaitable[None]]) -> object:
        SCENARIOS[event] = Scenario(act, sleep, **more)
        return act

    return register


def handler_does(event: str, **more: Any) -> Callable[[Any], Any]:
    """Register a scenario in which the handler does something."""

    def register(handler: Callable[[Stage], Awaitable[None]]) -> object:
        SCENARIOS[event] = Scenario(let_go, handler, **more)
        return handler

    return register


@handler_does("the handler returns")
async def _(stage: Stage) -> None:
    pass


@handler_does("the handler crashes")
async def _(stage: Stage) -> None:
    raise ValueError("secret")


@handler_does("the handler raises `HTTPException(404)`")
async def _(stage: Stage) -> None:
    raise HTTPException("gone", 404)


@handler_does("the handler raises `WebSocketException(4321)`")
async def _(stage: Stage) -> None:
    raise WebSocketException(4321, "mine")


@peer_does("a task in `ws.nursery` crashes")
async def _(stage: Stage) -> None:
    async def crash() -> None:
        raise ValueError("secret")

    stage.ws.nursery.start_soon(crash)


@handler_does("the handler calls `ws.close(4000)`")
async def _(stage: Stage) -> None:
    await stage.ws.close(4000)
    stage.note("goes on")
    await trio.sleep_forever()


@peer_does("another task calls `ws.close(4000)`")
async def _(stage: Stage) -> None:
    stage.nursery.start_soon(stage.ws.close, 4000)


@peer_does("`ws.close(4000)` while a task is in `recv`", reader_first=True)
async def _(stage: Stage) -> None:
    stage.nursery.start_soon(stage.ws.close, 4000)


@peer_does("`ws.close(4000)` with nothing queued", queued=False)
async def _(stage: Stage) -> None:
    stage.nursery.start_soon(stage.ws.close, 4000)


@peer_does("`ws.nursery.cancel_scope.cancel()`")
async def _(stage: Stage) -> None:
    stage.ws.nursery.cancel_scope.cancel()


@peer_does("the peer closes with 4001")
async def _(stage: Stage) -> None:
    await stage.peer.close(4001, "bye")


@peer_does("the peer closes without a code")
async def _(stage: Stage) -> None:
    await stage.peer.send_raw(b"\x88\x80\0\0\0\0")


@peer_does("both close at once, we with 4000")
async def _(stage: Stage) -> None:
    await stage.ws.close(4000, wait=False)
    await stage.peer.close(4001)  # it has not read ours


@peer_does("the peer closes in the middle of a message of its own")
async def _(stage: Stage) -> None:
    part = stage.peer.encode(events.TextMessage("cut", message_finished=False))
    await stage.peer.stream.send_all(part + stage.peer.encode(events.CloseConnection(4001)))


async def send_parts(stage: Stage) -> None:
    """Begin a fragmented message, and go on with it once the connection has begun to end."""

    async def parts() -> AsyncIterator[str]:
        yield "first"
        while stage.ws.open:
            await stage.pause(LOOK_EVERY)
        yield "second"

    try:
        await stage.ws.send_fragments(parts())
    except WebsocketClosed:
        stage.note("`send_fragments` raises")
    await trio.sleep_forever()


async def begin_message(stage: Stage) -> None:
    stage.go.set()
    await wait_all_tasks_blocked()
    stage.happens_now()


async def close_amid_parts(stage: Stage) -> None:
    await begin_message(stage)
    stage.nursery.start_soon(stage.ws.close, 4000)


async def peer_closes_amid_parts(stage: Stage) -> None:
    await begin_message(stage)
    await stage.peer.close(4001)


SCENARIOS["`ws.close(4000)` in the middle of `send_fragments`"] = Scenario(
    close_amid_parts, send_parts, queued=False
)
SCENARIOS["the peer closes in the middle of `send_fragments`"] = Scenario(
    peer_closes_amid_parts, send_parts, queued=False
)


@handler_does("`send_fragments` is cancelled in its middle", queued=False)
async def _(stage: Stage) -> None:
    with trio.CancelScope() as scope:

        async def parts() -> AsyncIterator[str]:
            yield "first"
            scope.cancel()
            await trio.sleep_forever()

        await stage.ws.send_fragments(parts())
    stage.note("goes on")
    await trio.sleep_forever()


@peer_does("the peer is lost: the stream ends", reads_after=None)
async def _(stage: Stage) -> None:
    await stage.peer.stream.aclose()


@peer_does("the peer is lost: the stream breaks", reads_after=None)
async def _(stage: Stage) -> None:
    stage.reset()


@peer_does(
    "the peer vanishes",
    queued=False,
    takes_time=True,
    reads_after=PING_TIME + READS_AFTER,
)
async def _(stage: Stage) -> None:
    pass


@peer_does(
    "the peer lives and reads nothing",
    chatters=True,
    takes_time=True,
    reads_after=STALL_TIME + READS_AFTER,
)
async def _(stage: Stage) -> None:
    pass


@peer_does("the peer breaks the protocol")
async def _(stage: Stage) -> None:
    await stage.peer.send_raw(b"\x83\x80\0\0\0\0")


@peer_does("the peer sends invalid UTF-8, and it is received", reader_first=True)
async def _(stage: Stage) -> None:
    await stage.peer.send_raw(b"\x81\x82\0\0\0\0\xff\xff")


@peer_does("the peer sends a message over `WEBSOCKET_MAX_SIZE`")
async def _(stage: Stage) -> None:
    await stage.peer.send_raw(b"\x82\xff" + (200_001).to_bytes(8, "big") + bytes(4))


@peer_does("`app.shutdown()`")
async def _(stage: Stage) -> None:
    stage.app.shutdown()


@peer_does(
    "the peer sends more than `WEBSOCKET_RATE_LIMIT`",
    options={"WEBSOCKET_RATE_LIMIT": (2, 3600.0)},
)
async def _(stage: Stage) -> None:
    await stage.peer.send("3")


@peer_does("the grace is over", takes_time=True, reads_after=None)
async def _(stage: Stage) -> None:
    await stage.peer.close(4001)
    await trio.sleep(GRACE)
    stage.happens_now()


@peer_does("`serve` is cancelled")
async def _(stage: Stage) -> None:
    stage.serve_scope.cancel()


async def slow_socket_pair() -> tuple[ByteStream, trio.abc.HalfCloseableStream]:
    """A TCP connection whose peer's kernel holds little: what is queued stays with us."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        client = socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(listener.getsockname())
        server, _ = listener.accept()
    return SocketStream(server), trio.SocketStream(trio.socket.from_stdlib_socket(client))


class RawPeer(Peer):
    """A peer that can break rules as well."""

    async def send_raw(self, wire: bytes) -> None:
        await self.stream.send_all(wire)

    @property
    def has_ended(self) -> bool:
        return self._codec.state is ConnectionState.CLOSED

    @property
    def has_part(self) -> bool:
        """Whether a message has begun and has no end."""
        return bool(self._parts)


class Stage:
    """One play of a scenario; see the module's docstring.

    Attributes:
        seen: the notes of each column.
    """

    app: TrioWeb
    nursery: trio.Nursery
    ws: Websocket
    peer: RawPeer
    theirs: trio.abc.HalfCloseableStream

    def __init__(self, scenario: Scenario, kind: str) -> None:
        self.scenario = scenario
        self.kind = kind
        self.go = trio.Event()
        self.serve_scope = trio.CancelScope()
        self.handler_notes: list[Note] = []
        self.helper_note: Note | None = None
        self.handler_ended_at: float | None = None
        self.has_served = trio.Event()
        self._happened_at = 0.0
        self.is_set = trio.Event()

    def happens_now(self) -> None:
        """The event: all instants are counted from here."""
        self._happened_at = trio.current_time()

    def tell(self, note: Note) -> str:
        """A note in the page's words."""
        when = self.tell_instant(note.at)
        return note.what if when == "at once" else f"{note.what} {when}"

    def tell_instant(self, at: float) -> str:
        return tell(at - self._happened_at)

    def note(self, what: str) -> None:
        self.handler_notes.append(Note(what, trio.current_time()))

    async def handle(self, ws: Websocket) -> None:
        self.ws = ws
        ws.nursery.start_soon(self._help)
        if self.scenario.queued:
            for message in QUEUED:
                await ws.send(message)
        self.is_set.set()
        try:
            await self.go.wait()
            await self.scenario.handler(self)
            self.note("returns")
        except trio.Cancelled:
            self.note("cancelled")
            with trio.CancelScope(shield=True):
                await self.pause(UNWINDING)
            raise
        except Exception:
            self.note("raises")
            raise
        finally:
            self.handler_ended_at = trio.current_time()

    async def _help(self) -> None:
        try:
            await trio.sleep_forever()
        finally:
            self.helper_note = Note("cancelled", trio.current_time())

    async def serve(self) -> None:
        pair = slow_socket_pair if self.kind == "socket" else Bench(self.kind).pair
        ours, self.theirs = await pair()

        @self.app.websocket("/ws")
        async def handler(request: object, ws: Websocket) -> None:
            await self.handle(ws)

        async with self.app.lifetime():
            self.nursery.start_soon(self._connect)
            with self.serve_scope:
                await self.app.serve_stream(ours)
            self.has_served.set()

    async def _connect(self) -> None:
        await self.theirs.send_all(HANDSHAKE % b"/ws")
        head = b""
        while b"\r\n\r\n" not in head:
            head += await self.theirs.receive_some(1024)
        self.peer = RawPeer(self.theirs, head)

    def reset(self) -> None:
        stream = self.theirs
        if isinstance(stream, Link):
            stream.abort()
        else:
            assert isinstance(stream, trio.SocketStream)
            linger = struct.pack("ii", 1, 0)
            stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            stream.socket.close()

    async def begin(self) -> None:
        """Come to the moment at which the event happens, and let it happen."""
        await self.is_set.wait()
        await wait_all_tasks_blocked()
        await self.peer.send("1", "2")
        await wait_all_tasks_blocked()
        self.happens_now()
        await self.scenario.act(self)
        if self.scenario.chatters:
            self.nursery.start_soon(self._chatter)

    async def _chatter(self) -> None:
        while self.ws.open:
            await trio.sleep(20)
            await self.peer.send(events.Pong(b"alive"))

    async def pause(self, seconds: float) -> None:
        """Let time pass; on the real clock only what is under way."""
        if self.kind == "socket":
            await wait_all_tasks_blocked()
        else:
            await trio.sleep(seconds)

    # Probes

    async def try_send(self) -> Note:
        while True:
            try:
                if not self.ws.open:
                    await self.ws.send("x")
            except WebsocketClosed as error:
                return Note(f"`{type(error).__name__}` {error.code}", trio.current_time())
            await self.pause(LOOK_EVERY)

    async def receive(self) -> Note:
        taken: list[Any] = []
        while True:
            try:
                taken.append(await self.ws.recv())
            except WebsocketClosed as error:
                what = f"`{type(error).__name__}` {error.code}"
                return Note(_came(taken) + what, trio.current_time())

    async def iterate(self) -> Note:
        taken: list[Any] = []
        try:
            async for message in self.ws:
                taken.append(message)  # noqa: PERF401 - what came before an error counts
        except WebSocketException as error:
            return Note(f"{_came(taken)}`{type(error).__name__}`", trio.current_time())
        return Note(_came(taken) + "ends", trio.current_time())

    async def read_as_peer(self) -> str:
        """What the wire brings to a peer that is well and answers."""
        assert self.scenario.reads_after is not None
        await self.pause(self.scenario.reads_after)
        messages: list[Any] = []
        closes: list[str] = []
        try:
            while (event := await self.peer.next_event()) is not None:
                if isinstance(event, events.Message):
                    messages.append(event.data)
                elif isinstance(event, events.CloseConnection):
                    closes.append(f"Close {event.code}" if event.code != 1005 else "an empty Close")
                    if not self.peer.has_ended:
                        await self.pause(ANSWERS_AFTER)
                        await self.peer.send(event.response())
                        await self.peer.stream.send_eof()
        except (AssertionError, trio.BrokenResourceError):
            pass  # torn in a message, or reset: then the row says so by what is missing
        if self.peer.has_part:
            closes.insert(0, "a part of the message")
        if len(messages) == len(QUEUED):
            closes.insert(0, "what is queued")
        elif messages:
            # A socket may have taken the first as a whole.
            assert len(messages) == 1 or self.kind == "socket"
            closes.insert(0, "the frame in progress")
        return ", ".join(closes) or "nothing"

    def tell_how_it_ended(self) -> str:
        info = self.ws.close_info
        assert info is not None
        by = {"us": " by us", "peer": " by the peer", "lost": ", lost"}[info.by]
        return f"{info.code}{by}{', clean' * info.clean}"

    def tell_of_helper(self) -> str:
        note = self.helper_note
        assert note is not None
        if note.at == self.handler_ended_at and note.at > self._happened_at:
            return "cancelled when the handler has ended"
        return self.tell(note)


def _came(taken: list[Any]) -> str:
    return "what came, then " if taken == ["1", "2"] else f"{taken}, then "


@asynccontextmanager
async def playing(scenario: Scenario, kind: str) -> AsyncIterator[Stage]:
    stage = Stage(scenario, kind)
    stage.app = TrioWeb(config={**OPTIONS, **scenario.options})
    async with trio.open_nursery() as stage.nursery:
        stage.nursery.start_soon(stage.serve)
        try:
            yield stage
        finally:
            await trio.aclose_forcefully(stage.theirs)
            stage.nursery.cancel_scope.cancel()


async def play(scenario: Scenario, kind: str, reader: str) -> dict[str, str]:
    """Play a row with a peer that is well; returns what the columns saw."""
    seen = {"wire": "nothing"}

    async with playing(scenario, kind) as stage:

        async def keep(column: str, probe: Callable[[], Awaitable[Note]]) -> None:
            seen[column] = stage.tell(await probe())

        async def keep_wire() -> None:
            seen["wire"] = await stage.read_as_peer()

        read = {"`recv`": stage.receive, "iteration": stage.iterate}[reader]
        async with trio.open_nursery() as probes:
            if scenario.reader_first:
                await stage.is_set.wait()
                probes.start_soon(keep, reader, read)
            await stage.begin()
            if not scenario.reader_first:
                probes.start_soon(keep, reader, read)
            probes.start_soon(keep, "`send`", stage.try_send)
            if scenario.reads_after is not None:
                probes.start_soon(keep_wire)
        seen["`close_info`"] = stage.tell_how_it_ended()
        if kind == "socket":
            return seen
        await stage.has_served.wait()
        seen["handler"] = ", ".join(map(stage.tell, stage.handler_notes))
        seen["`ws.nursery`"] = stage.tell_of_helper()
    return seen


async def play_deadlines(scenario: Scenario, kind: str) -> dict[str, str]:
    """Play a row with a peer that does nothing more, and nobody who receives."""
    async with playing(scenario, kind) as stage:
        if scenario.reader_first:
            await stage.is_set.wait()
            stage.nursery.start_soon(stage.receive)
        await stage.begin()
        await stage.ws.wait_closed()
        closed_at = trio.current_time()
        await stage.has_served.wait()
        return {
            "stream closed": stage.tell_instant(closed_at),
            "handler ended": stage.tell_instant(stage.handler_notes[-1].at),
        }


# The page


def read_page() -> tuple[dict[str, dict[str, str]], dict[str, tuple[str, ...]]]:
    """The page's tables: each event's cells, and the rows of its legend."""
    tables: list[list[list[str]]] = [[]]
    for line in PAGE.read_text("utf-8").splitlines():
        if line.startswith("|"):
            tables[-1].append([cell.strip() for cell in line.strip("|").split("|")])
        elif tables[-1]:
            tables.append([])
    legend, events_table = [table for table in tables if table]
    columns, _, *rows = events_table
    cells = {row[0]: dict(zip(columns[1:], row[1:], strict=True)) for row in rows}
    return cells, {word: tuple(rest) for word, *rest in legend[2:]}


ROWS, LEGEND = read_page()


def test_every_event_of_the_page_has_a_scenario_and_the_other_way_round() -> None:
    assert list(ROWS) == list(SCENARIOS)


def test_the_legend_tells_the_keys_and_their_defaults() -> None:
    config = Config()
    for word, (keys, default) in LEGEND.items():
        values = [getattr(config, key) for key in re.findall("`([A-Z_]+)`", keys)]
        assert f"{sum(values):g} s" == default, word
    assert set(LEGEND) <= set(DURATIONS)


@pytest.mark.parametrize(
    ("event", "kind"),
    [(event, kind) for event in ROWS if event in SCENARIOS for kind in SCENARIOS[event].kinds],
)
async def test_what_everybody_sees(
    event: str, kind: str, autojump_clock: trio.testing.MockClock
) -> None:
    scenario = SCENARIOS[event]
    seen = await play(scenario, kind, "`recv`")
    seen |= await play(scenario, kind, "iteration")
    seen |= await play_deadlines(scenario, kind)
    assert seen == ROWS[event]


@pytest.mark.parametrize(
    "event", [event for event in ROWS if event in SCENARIOS and not SCENARIOS[event].takes_time]
)
async def test_what_a_socket_shows_without_the_times(event: str) -> None:
    for reader in ("`recv`", "iteration"):
        with trio.fail_after(10):
            seen = await play(SCENARIOS[event], "socket", reader)
        for column, cell in seen.items():
            assert without_time(cell) == without_time(ROWS[event][column]), column


def without_time(cell: str) -> str:
    return re.sub(" after .*", "", cell)


# Races that the page need not tell


async def test_our_close_finds_the_answer_behind_a_full_inbox(bench: Bench) -> None:
    """What is read on the way is thrown away; what had come stays for the reader."""
    received: list[Any] = []
    may_close = trio.Event()

    async def handler(ws: Websocket) -> None:
        await may_close.wait()
        await ws.close(4000)
        assert ws.close_info == (4000, "", "us", True)
        async for message in ws:
            received.append(message)  # noqa: PERF401 - checked as far as it came

    async with bench.connect(handler, max_queue=1) as peer:
        with trio.fail_after(5):
            async with trio.open_nursery() as nursery:
                await peer.send("1")
                await wait_all_tasks_blocked()
                nursery.start_soon(peer.send, *["later" * 10_000] * 50)
                await wait_all_tasks_blocked()
                may_close.set()
            assert await peer.next_close() == (4000, "")
            assert await peer.next_event() is None
        await wait_all_tasks_blocked()
    assert received[0] == "1"
    assert len(received) < 50


async def test_everybody_who_closes_waits_for_the_answer_and_the_first_decides(
    bench: Bench,
) -> None:
    returned: list[int] = []

    async def close(ws: Websocket, code: int) -> None:
        await ws.close(code)
        assert ws.close_info == (4001, "", "us", True)
        returned.append(code)

    async def handler(ws: Websocket) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(close, ws, 4001)
            await wait_all_tasks_blocked()
            nursery.start_soon(close, ws, 4002)
            nursery.start_soon(close, ws, 4003)
            await ws.close(4004, wait=False)
            assert not returned

    async with bench.connect(handler) as peer:
        event = await peer.next_event()
        assert isinstance(event, events.CloseConnection)
        assert event.code == 4001
        await wait_all_tasks_blocked()
        assert not returned
        await peer.send(event.response())
        assert await peer.next_event() is None
        await wait_all_tasks_blocked()  # leaving cancels
    assert sorted(returned) == [4001, 4002, 4003]


@pytest.mark.parametrize("crashes", [False, True])
async def test_the_first_code_stands_when_the_handler_ends_before_the_answer(
    bench: Bench, crashes: bool, caplog: pytest.LogCaptureFixture
) -> None:
    connected: list[Websocket] = []

    async def handler(ws: Websocket) -> None:
        connected.append(ws)
        await ws.close(4000, "done", wait=False)
        if crashes:
            raise ValueError("late")

    async with bench.connect(handler) as peer:
        assert await peer.next_close() == (4000, "done")
        assert await peer.next_event() is None
        await wait_all_tasks_blocked()
    assert connected[0].close_info == (4000, "done", "us", True)
    assert len([r for r in caplog.records if r.levelname == "ERROR"]) == crashes


async def test_a_peer_that_closes_and_half_closes_reads_our_answer(bench: Bench) -> None:
    async with bench.connect(lambda ws: ws.wait_closed()) as peer:
        await peer.send("1", events.CloseConnection(4001, "bye"))
        await peer.stream.send_eof()
        assert await peer.next_close() == (4001, "")
        assert await peer.next_event() is None


async def test_a_peer_lost_instead_of_answering_leaves_our_code_unclean(bench: Bench) -> None:
    told: list[Any] = []

    async def handler(ws: Websocket) -> None:
        await ws.close(4000, "mine")
        told.append(ws.close_info)

    async with bench.connect(handler) as peer:
        assert isinstance(await peer.next_event(), events.CloseConnection)
        await peer.stream.aclose()
        with trio.fail_after(5):
            while not told:
                await wait_all_tasks_blocked()
    assert told == [(4000, "mine", "us", False)]


async def test_how_it_ended_is_known_before_any_reader_wakes(bench: Bench) -> None:
    """And never changes: neither by our own close afterwards, nor by the loss of the stream."""
    told: list[Any] = []

    async def handler(ws: Websocket) -> None:
        with pytest.raises(WebsocketClosed) as caught:
            await ws.recv()
        told.append(ws.close_info)
        assert (caught.value.code, caught.value.reason) == (4001, "bye")
        assert not ws.open
        assert ws.closed
        await ws.close(4002)
        await wait_all_tasks_blocked()
        told.append(ws.close_info)

    async with bench.connect(handler) as peer:
        await wait_all_tasks_blocked()
        await peer.close(4001, "bye")
        assert await peer.next_close() == (4001, "")
        await peer.stream.aclose()
        with trio.fail_after(5):
            while len(told) < 2:
                await wait_all_tasks_blocked()
    assert told == [(4001, "bye", "peer", True)] * 2


async def test_the_grace_counts_again_from_each_message_taken(
    memory: Bench, autojump_clock: trio.testing.MockClock
) -> None:
    """A handler that works off what had come is not cut off; one that stops is, with a reason."""
    taken: list[tuple[str | bytes, float]] = []
    reasons: list[Any] = []

    async def handler(ws: Websocket) -> None:
        try:
            async for message in ws:
                await trio.sleep(4)
                taken.append((message, trio.current_time()))
            await trio.sleep_forever()
        except trio.Cancelled as cancelled:
            reasons.append((cancelled.reason, trio.current_time()))
            raise

    async with memory.connect(handler) as peer:
        await peer.send("1", "2", "3", events.CloseConnection(1000))
        await peer.next_close()
        await trio.sleep(30)
    assert taken == [("1", 4), ("2", 8), ("3", 12)]
    [(reason, cancelled_at)] = reasons
    assert reason.startswith("the connection ended and the handler ran on for 5")
    assert cancelled_at == 8 + 5


async def test_a_shutdown_while_we_close_changes_nothing(
    memory: Bench, autojump_clock: trio.testing.MockClock
) -> None:
    connected: list[Websocket] = []

    async def handler(ws: Websocket) -> None:
        connected.append(ws)
        await ws.close(4000)

    async with memory.connect(handler) as peer:
        event = await peer.next_event()
        assert isinstance(event, events.CloseConnection)
        for drain in connected[0].request.on_shutdown.copy():
            drain()
        await trio.sleep(3)
        await peer.send(event.response())
        assert await peer.next_event() is None
    assert connected[0].close_info == (4000, "", "us", True)
