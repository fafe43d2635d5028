"""How a conversation goes on and ends, in virtual time."""

from __future__ import annotations

import math
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing
from trio_websocket import ConnectionClosed, wrap_server_stream

from trioweb.cli.connect import opening
from trioweb.cli.connect.address import parse_address
from trioweb.cli.connect.conversation import Conversation, Ending
from trioweb.cli.connect.lines import Line, LineSource
from trioweb.cli.connect.opening import shake_hands
from trioweb.cli.connect.screen import Manner, OutputClosed, Screen
from trioweb.testing import link_pair

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Sequence

    from trio_websocket import WebSocketConnection

    from trioweb.client.wire import Wire
    from trioweb.testing import Link


class Script(LineSource):
    """Lines that are there at once; then the end of the input, or silence."""

    def __init__(self, texts: Sequence[str], *, ends: bool = True) -> None:
        super().__init__(None)
        self._texts = iter(enumerate(texts, 1))
        self._ends = ends

    async def receive(self) -> Line | None:
        await trio.lowlevel.checkpoint()
        for number, text in self._texts:
            return Line(number, text)
        if not self._ends:
            await trio.sleep_forever()
        return None


class Transcript(Screen):
    """Keeps what a screen would show."""

    def __init__(self, *, marks: bool = False, takes: float = math.inf) -> None:
        super().__init__(-1, None, Manner(marks=marks))
        self.messages: list[str | bytes] = []
        self.remarks: list[str] = []
        self._takes = takes
        self.left = trio.Event()
        """Set when nobody reads the output any more."""
        self.on_sent: Callable[[], None] = lambda: None
        """Called right before a line is sent."""

    async def show_received(self, message: str | bytes) -> None:
        await trio.lowlevel.checkpoint()
        if len(self.messages) >= self._takes:
            raise OutputClosed
        self.messages.append(message)

    async def show_sent(self, text: str, *, has_end: bool = True) -> None:
        await trio.lowlevel.checkpoint()
        self.on_sent()

    async def remark(self, text: str) -> None:
        await trio.lowlevel.checkpoint()
        self.remarks.append(text)

    async def wait_closed(self) -> None:
        await self.left.wait()


class Meeting:
    """Both ends of a connection: ours in a conversation, the server's in the test's hand."""

    def __init__(
        self, ours: WebSocketConnection, wire: Wire, theirs: WebSocketConnection, link: Link
    ) -> None:
        self._ours = ours
        self._wire = wire
        self.server = theirs
        self.link = link
        """The server's stream."""
        self.screen = Transcript()

    def talk(
        self,
        texts: Sequence[str] = (),
        *,
        ends: bool = True,
        json: bool = False,
        linger: float = 1,
    ) -> Conversation:
        """A conversation that sends these lines."""
        return Conversation(
            self._ours, self._wire, Script(texts, ends=ends), self.screen, json=json, linger=linger
        )


@asynccontextmanager
async def meet(buffer: int = 65536) -> AsyncGenerator[Meeting]:
    """Two ends over a link with a buffer of so many bytes in each direction."""
    ours, theirs = link_pair(buffer)
    servers = []

    async def serve(nursery: trio.Nursery) -> None:
        request = await wrap_server_stream(nursery, theirs)
        servers.append(await request.accept())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve, nursery)
        client, wire = await shake_hands(nursery, ours, parse_address("ws://a/"))
        yield Meeting(client, wire, servers[0], theirs)
        nursery.cancel_scope.cancel()


async def run(conversation: Conversation, patience: float = 5) -> Ending:
    """A conversation from its beginning to its end."""
    await conversation.run()
    return await conversation.close(patience)


async def echo_slowly(server: WebSocketConnection, seconds: float) -> None:
    """A server that thinks about each answer."""
    try:
        while True:
            message = await server.get_message()
            await trio.sleep(seconds)
            await server.send_message(message)
    except ConnectionClosed:
        pass


async def test_silence_begins_anew_with_each_message(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Each answer takes nearly as long as the silence that we wait for."""
    async with meet() as meeting, trio.open_nursery() as nursery:
        nursery.start_soon(echo_slowly, meeting.server, 0.9)
        ending = await run(meeting.talk(["a", "b", "c"]))
    assert ending == Ending(1000, "", by_us=True)
    assert meeting.screen.messages == ["a", "b", "c"]
    assert trio.current_time() == pytest.approx(3 * 0.9 + 1)


async def test_without_end_the_silence_is_the_servers(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """``--linger inf`` waits until the server closes."""
    async with meet() as meeting, trio.open_nursery() as nursery:

        async def close_late() -> None:
            await trio.sleep(3600)
            await meeting.server.aclose(4000, "enough")

        nursery.start_soon(close_late)
        ending = await run(meeting.talk(linger=math.inf))
    assert ending == Ending(4000, "enough")
    assert trio.current_time() == pytest.approx(3600)


async def test_server_that_takes_nothing_is_lost(autojump_clock: trio.testing.MockClock) -> None:
    """After a minute; there is no Close in the middle of a message."""
    async with meet(buffer=1000) as meeting:
        meeting.link.stall()
        ending = await run(meeting.talk(["x" * 5000]))
    assert ending == Ending(1006, "the server took nothing for 60 s")
    assert trio.current_time() == pytest.approx(60)


async def test_server_that_takes_slowly_is_not_lost(autojump_clock: trio.testing.MockClock) -> None:
    """Each message has its own minute."""
    async with meet(buffer=1000) as meeting, trio.open_nursery() as nursery:
        received = []

        async def take_slowly() -> None:
            try:
                while True:
                    await trio.sleep(50)
                    received.append(await meeting.server.get_message())
            except ConnectionClosed:
                pass

        nursery.start_soon(take_slowly)
        ending = await run(meeting.talk(["x" * 900] * 9, linger=500))
    assert ending == Ending(1000, "", by_us=True)
    assert len(received) == 9


async def test_server_that_does_not_answer_a_close(autojump_clock: trio.testing.MockClock) -> None:
    """It has so many seconds, and that is told."""
    async with meet() as meeting:
        meeting.link.stall()
        ending = await run(meeting.talk(linger=0), patience=5)
    assert ending == Ending(1006, "the server did not answer our Close within 5 s")
    assert ending.exit_code == 1
    assert trio.current_time() == pytest.approx(5)


async def test_leaving_gives_a_message_a_moment_to_go_out(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """A message that is taken within it is whole, and the Close comes behind it."""
    async with meet(buffer=1000) as meeting, trio.open_nursery() as nursery:
        received = []
        reasons = []

        async def take_late() -> None:
            await trio.sleep(10.5)
            try:
                while True:
                    received.append(await meeting.server.get_message())
            except ConnectionClosed as closed:
                reasons.append(closed.reason)

        # Its reader holds one message back, so the second one stays where it is.
        nursery.start_soon(take_late)
        conversation = meeting.talk(["a", "b", "x" * 5000], ends=False)
        with trio.move_on_after(10):
            await conversation.run()
        assert await conversation.close(1) == Ending(1000, "", by_us=True)
        assert trio.current_time() == pytest.approx(10.5)
    assert received == ["a", "b", "x" * 5000]
    assert [reason and reason.code for reason in reasons] == [1000]


async def test_leaving_in_the_middle_of_a_message(autojump_clock: trio.testing.MockClock) -> None:
    """A message that nobody takes is left after a second, without a Close."""
    async with meet(buffer=1000) as meeting:
        meeting.link.stall()
        conversation = meeting.talk(["x" * 5000])
        with trio.move_on_after(10):
            await conversation.run()
        ending = await conversation.close(1)
    assert ending == Ending(1006, "we left in the middle of a message")
    assert trio.current_time() == pytest.approx(11)


async def test_connection_lost_in_the_middle_of_a_message(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Nothing is waited for any more."""
    async with meet(buffer=1000) as meeting, trio.open_nursery() as nursery:
        meeting.link.stall()
        conversation = meeting.talk(["x" * 5000])
        with trio.move_on_after(10):
            await conversation.run()

        async def vanish() -> None:
            await trio.sleep(0.5)
            meeting.link.abort()

        nursery.start_soon(vanish)
        ending = await conversation.close(1)
    assert ending == Ending(1006, "the connection ended without a Close")
    assert trio.current_time() == pytest.approx(10.5)


async def test_server_that_closes_while_we_send(autojump_clock: trio.testing.MockClock) -> None:
    """Its code is told, though our message never went out."""
    async with meet() as meeting:
        await meeting.server.send_message("last words")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(meeting.server.aclose, 1011, "bug")
            ending = await run(meeting.talk(["a"] * 1000))
    assert meeting.screen.messages == ["last words"]
    assert ending == Ending(1011, "bug")


async def test_connection_that_is_lost(autojump_clock: trio.testing.MockClock) -> None:
    """No Close came."""
    async with meet() as meeting:
        await meeting.server.send_message("a")
        meeting.link.abort()
        ending = await run(meeting.talk(ends=False))
    assert ending == Ending(1006, "the connection ended without a Close")


@pytest.mark.parametrize(
    "frame", [b"\x83\x00", b"\xf1\x00", b"\x81\x01\xff", b"\x89\x7e\x00\xff", b"\x88\x01x"]
)
async def test_server_that_breaks_the_protocol(
    frame: bytes, autojump_clock: trio.testing.MockClock
) -> None:
    """A wrong opcode, reserved bits, no UTF-8, a long ping, half a close code."""
    async with meet() as meeting:
        await meeting.link.send_all(frame)
        ending = await run(meeting.talk(ends=False))
    assert str(ending).startswith("lost: the server broke the WebSocket protocol")
    assert ending.exit_code == 1


async def test_error_of_the_servers_after_our_close(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Our Close went out, but what came is none of the server's."""
    async with meet() as meeting, trio.open_nursery() as nursery:
        meeting.link.stall()

        async def send_nonsense() -> None:
            await trio.testing.wait_all_tasks_blocked()
            await meeting.link.send_all(b"\x83\x00")

        conversation = meeting.talk(linger=0)
        await conversation.run()
        nursery.start_soon(send_nonsense)
        ending = await conversation.close(5)
    assert str(ending).startswith("lost: the server broke the WebSocket protocol (")
    assert trio.current_time() == 0


async def test_pings_are_answered_until_we_close(autojump_clock: trio.testing.MockClock) -> None:
    """One that crosses our Close is no reason to crash."""
    async with meet() as meeting, trio.open_nursery() as nursery:
        conversation = meeting.talk(linger=2)

        async def ping() -> None:
            await meeting.server.ping()
            assert trio.current_time() == 0
            await trio.sleep(1)
            meeting.link.stall()
            await trio.sleep(2)
            # Our Close waits at the server by now.
            await meeting.link.send_all(b"\x89\x00")
            meeting.link.resume()

        nursery.start_soon(ping)
        assert await run(conversation) == Ending(1000, "", by_us=True)
    assert trio.current_time() == pytest.approx(3)


async def test_message_that_is_too_large(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one Close that trio-websocket sends of itself is ours."""
    monkeypatch.setattr(opening, "MAX_MESSAGE", 1000)
    async with meet() as meeting:
        await meeting.server.send_message("x" * 1001)
        ending = await run(meeting.talk(ends=False))
    assert str(ending) == "closed with 1009 (Exceeded maximum message size: 1000 bytes) by us"
    assert ending.exit_code == 1


async def test_output_that_ends_closes(autojump_clock: trio.testing.MockClock) -> None:
    """Nobody reads the second message, so there is nothing left to do."""
    async with meet() as meeting, trio.open_nursery() as nursery:
        nursery.start_soon(echo_slowly, meeting.server, 0)
        meeting.screen = Transcript(takes=1)
        conversation = meeting.talk(["a", "b", "c"])
        assert await run(conversation) == Ending(1000, "", by_us=True)
    assert conversation.output_error == ""
    assert meeting.screen.messages == ["a"]


async def test_output_that_ends_unwritten_closes(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Nothing comes, so that nobody reads is not found by writing."""
    async with meet() as meeting:
        meeting.screen.left.set()
        conversation = meeting.talk(ends=False)
        assert await run(conversation) == Ending(1000, "", by_us=True)
    assert conversation.output_error == ""


async def test_nothing_is_begun_when_the_end_has_come(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """A line that comes at the same time as the end is not sent, and holds nothing up."""
    async with meet(buffer=1000) as meeting:
        meeting.link.stall()
        conversation = meeting.talk(["x" * 5000])
        with trio.CancelScope() as scope:
            meeting.screen.on_sent = scope.cancel
            await conversation.run()
        assert trio.current_time() == 0
        ending = await conversation.close(1)
    assert ending == Ending(1006, "the server did not answer our Close within 1 s")


async def test_json_is_indented_for_a_terminal(autojump_clock: trio.testing.MockClock) -> None:
    """As it was written, with a line for each value."""
    async with meet() as meeting, trio.open_nursery() as nursery:
        nursery.start_soon(echo_slowly, meeting.server, 0)
        meeting.screen = Transcript(marks=True)
        conversation = meeting.talk(['{"a": [1.0, {}]}', "{"], json=True)
        await run(conversation)
    assert meeting.screen.messages == ['{\n  "a": [\n    1.0,\n    {}\n  ]\n}']
    assert conversation.unsent == 1
    assert len(meeting.screen.remarks) == 1


@pytest.mark.parametrize(
    ("ending", "said", "exit_code"),
    [
        (Ending(1000, "", by_us=True), "closed with 1000 by us", 0),
        (Ending(1001, "bye"), "closed with 1001 (bye) by the server", 0),
        (Ending(1005), "closed with 1005 (no code was given) by the server", 0),
        (Ending(3000), "closed with 3000 by the server", 1),
        (Ending(4000, "a\x1b\nb"), "closed with 4000 (a\\x1b\\nb) by the server", 1),
        (Ending(1006, "it rained"), "lost: it rained", 1),
    ],
)
def test_endings_are_told(ending: Ending, said: str, exit_code: int) -> None:
    """In one line, and to the shell."""
    assert str(ending) == said
    assert ending.exit_code == exit_code
