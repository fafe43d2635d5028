"""Every operation of a WebSocket, cancelled before each step that the event loop takes in it.

Each case is run again and again: cancelled at once, before the first step that any task makes
after the operation has begun, before the second, and so on, until the operation ends before its
cancellation comes. Whatever happened, the connection must go on afterwards: the peer, which has a
codec of its own, sees whole messages, each once and in order, and a good end; nothing that came
from the peer is lost; no task is left.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any, ClassVar

import pytest
import trio
from trio.testing import wait_all_tasks_blocked
from wsproto import events
from wsproto.extensions import PerMessageDeflate
from wsproto.utilities import LocalProtocolError

from trioweb import wait_any
from trioweb.errors import WebsocketClosed

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from tests.ws.conftest import Bench, Peer
    from trioweb.ws import Websocket
    from trioweb.ws.close import CloseInfo

# No operation here takes as many steps; one that does has lost its way.
MAX_STEPS = 500
# More than a socket's buffers hold while its peer does not read, and than a Link's of 4096.
FILLING = {"socket": 600_000, "adapter": 10_000, "link": 10_000}


@pytest.fixture(autouse=True)
def _every_operation_yields(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trioweb.ws.budget.FREE_OPERATIONS", 1)


class StepCounter(trio.abc.Instrument):
    """Calls a function before the n-th step of any task from now on; 0 is at once."""

    def __init__(self, step: int, function: Callable[[], object]) -> None:
        self._left = step
        self._function = function
        self.has_called = step == 0
        if step == 0:
            function()

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self._left -= 1
        if self._left == 0:
            self.has_called = True
            self._function()


class Case:
    """One operation: what leads to it, what the peer does meanwhile, what must hold behind it.

    Attributes:
        received: what the handler got, in order.
        sent: what the handler sent and was told so; the peer must get this and no more.
        messages, pings, pongs, close: what the peer got; torn: of a message without an end.
    """

    accepts: ClassVar[bool] = True
    options: ClassVar[dict[str, Any]] = {}
    expected: ClassVar[list[Any]] = []
    expected_close: ClassVar[tuple[int, str]] = (1000, "")
    expected_info: ClassVar[tuple[Any, ...]] = (1000, "", "us", True)

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.begun = trio.Event()
        self.received: list[Any] = []
        self.sent: list[str | bytes] = []
        self.was_cancelled = False
        self.messages: list[Any] = []
        self.pings: list[bytes] = []
        self.pongs: list[bytes] = []
        self.torn: Any = ""
        self.close: tuple[int, str] | None = None

    async def prepare(self, ws: Websocket) -> None:
        """Happens before the operation, uncancelled."""

    async def operate(self, ws: Websocket) -> None:
        """The operation."""
        raise NotImplementedError

    async def finish(self, ws: Websocket) -> None:
        """Goes on behind the operation, uncancelled."""
        await self.send(ws, "end")

    async def say_early(self, peer: Peer) -> None:
        """What the peer says before the operation."""

    async def say(self, peer: Peer) -> None:
        """What the peer says when the operation has begun, before it reads anything."""

    def check(self) -> None:
        assert self.received == self.expected
        assert self.messages == self.sent

    def check_end(self, info: CloseInfo | None) -> None:
        assert self.close == self.expected_close
        assert info == self.expected_info

    # What cases are made of

    async def send(self, ws: Websocket, message: str | bytes) -> None:
        await ws.send(message)
        self.sent.append(message)

    async def receive(self, ws: Websocket, until: int) -> None:
        while len(self.received) < until:
            self.received.append(await ws.recv())

    async def fill(self, ws: Websocket) -> None:
        """Send a message that the peer, which does not read, leaves waiting with us."""
        await self.send(ws, random.Random(0).randbytes(FILLING[self.kind]))
        await wait_all_tasks_blocked()


class RecvWaiting(Case):
    expected: ClassVar = ["a", "b", "c"]

    async def operate(self, ws: Websocket) -> None:
        await self.receive(ws, 1)

    async def finish(self, ws: Websocket) -> None:
        await self.receive(ws, 3)
        await super().finish(ws)

    async def say(self, peer: Peer) -> None:
        await peer.send("a", "b")
        await trio.lowlevel.checkpoint()
        await peer.send("c")


class RecvWhatIsThere(RecvWaiting):
    async def say_early(self, peer: Peer) -> None:
        await super().say(peer)

    async def say(self, peer: Peer) -> None:
        pass


class RecvWithTimeout(RecvWaiting):
    async def operate(self, ws: Websocket) -> None:
        self.received.append(await ws.recv(timeout=60))


class RecvAtOnce(RecvWhatIsThere):
    async def operate(self, ws: Websocket) -> None:
        self.received.append(await ws.recv(timeout=0))


class RecvBesideAnother(RecvWaiting):
    async def operate(self, ws: Websocket) -> None:
        async def receive() -> None:
            await self.receive(ws, 1)

        await wait_any(receive, trio.sleep_forever)


class RecvThroughAFullInbox(RecvWaiting):
    options: ClassVar = {"max_queue": 1}

    async def operate(self, ws: Websocket) -> None:
        await self.receive(ws, 3)

    async def say_early(self, peer: Peer) -> None:
        await super().say(peer)

    async def say(self, peer: Peer) -> None:
        pass


class RecvInPieces(Case):
    expected: ClassVar = ["größer" * 20, b"x" * 100, "c"]

    async def operate(self, ws: Websocket) -> None:
        await self.receive(ws, 1)

    async def finish(self, ws: Websocket) -> None:
        await self.receive(ws, 3)
        await super().finish(ws)

    async def say(self, peer: Peer) -> None:
        wire = b"".join(
            peer.encode(event)
            for event in (
                events.TextMessage("größer" * 10, message_finished=False),
                events.TextMessage("größer" * 10, message_finished=True),
                events.BytesMessage(b"x" * 100),
            )
        )
        for start in range(0, len(wire), 50):
            await peer.stream.send_all(wire[start : start + 50])
            await trio.lowlevel.checkpoint()
        await peer.send("c")


class RecvToTheEnd(Case):
    expected: ClassVar = ["a", "b", 4001]
    expected_close: ClassVar = (4001, "")
    expected_info: ClassVar = (4001, "bye", "peer", True)

    async def operate(self, ws: Websocket) -> None:
        try:
            await self.receive(ws, MAX_STEPS)
        except WebsocketClosed as closed:
            self.received.append(closed.code)

    async def finish(self, ws: Websocket) -> None:
        if self.was_cancelled:
            await RecvToTheEnd.operate(self, ws)

    async def say(self, peer: Peer) -> None:
        await peer.send("a")
        await trio.lowlevel.checkpoint()
        await peer.send("b", events.CloseConnection(4001, "bye"))


class RecvUpToInvalidText(RecvToTheEnd):
    expected: ClassVar = ["a", "b", 1007]
    expected_close: ClassVar = (1007, "text message is not valid UTF-8")
    expected_info: ClassVar = (1007, "text message is not valid UTF-8", "us", False)

    async def say(self, peer: Peer) -> None:
        await peer.send("a", "b")
        await peer.stream.send_all(b"\x81\x82\0\0\0\0\xff\xff")


class Iteration(RecvWaiting):
    async def operate(self, ws: Websocket) -> None:
        async for message in ws:
            self.received.append(message)
            if len(self.received) == 3:
                break


class IterationToTheEnd(RecvToTheEnd):
    async def operate(self, ws: Websocket) -> None:
        async for message in ws:
            self.received.append(message)
        self.received.append(4001)


class ReceiveJson(Case):
    expected: ClassVar = [{"n": 1}, {"n": 2}]

    async def operate(self, ws: Websocket) -> None:
        self.received.append(await ws.receive_json(type=dict[str, int]))

    async def finish(self, ws: Websocket) -> None:
        while len(self.received) < 2:
            await ReceiveJson.operate(self, ws)
        await super().finish(ws)

    async def say(self, peer: Peer) -> None:
        await peer.send('{"n": 1}')
        await trio.lowlevel.checkpoint()
        await peer.send('{"n": 2}')


class IterJson(ReceiveJson):
    async def operate(self, ws: Websocket) -> None:
        async for value in ws.iter_json(dict[str, int]):
            self.received.append(value)
            if len(self.received) == 2:
                break


class Send(Case):
    async def operate(self, ws: Websocket) -> None:
        await self.send(ws, "x")


class SendLarge(Case):
    async def operate(self, ws: Websocket) -> None:
        await self.send(ws, random.Random(1).randbytes(FILLING[self.kind]))


class SendSeveral(Case):
    async def operate(self, ws: Websocket) -> None:
        for n in range(3):
            await self.send(ws, str(n) * 3000)


class SendWithoutRoom(Case):
    options: ClassVar = {"send_queue_bytes": 1000}

    async def prepare(self, ws: Websocket) -> None:
        await self.fill(ws)

    async def operate(self, ws: Websocket) -> None:
        await self.send(ws, "second")


class SendInLine(SendWithoutRoom):
    """One sender waits before the cancelled one and one comes behind it."""

    async def prepare(self, ws: Websocket) -> None:
        await super().prepare(ws)
        self.others = [trio.Event(), trio.Event()]
        ws.nursery.start_soon(self.send_other, ws, "before", self.others[0])
        await wait_all_tasks_blocked()

    async def operate(self, ws: Websocket) -> None:
        ws.nursery.start_soon(self.send_other, ws, "beside", self.others[1])
        await super().operate(ws)

    async def finish(self, ws: Websocket) -> None:
        for other in self.others:
            await other.wait()
        await super().finish(ws)

    async def send_other(self, ws: Websocket, message: str, done: trio.Event) -> None:
        await ws.send(message)
        done.set()

    def check(self) -> None:
        filling, before, *rest, end = self.messages
        assert [filling, end] == [self.sent[0], self.sent[-1]]
        assert before == "before"
        assert sorted(rest) == ["beside", *self.sent[1:-1]]


class Echo(Case):
    expected: ClassVar = ["1", "2", "3"]

    async def operate(self, ws: Websocket) -> None:
        async for message in ws:
            self.received.append(message)
            await self.send(ws, message)
            if len(self.received) == 3:
                break

    async def finish(self, ws: Websocket) -> None:
        for message in self.received[len(self.sent) :]:
            await self.send(ws, message)
        if len(self.received) < 3:
            await Echo.operate(self, ws)
        await super().finish(ws)

    async def say(self, peer: Peer) -> None:
        await peer.send("1", "2")
        await trio.lowlevel.checkpoint()
        await peer.send("3")

    def check(self) -> None:
        super().check()
        assert self.messages == ["1", "2", "3", "end"]


class SendFragments(Case):
    """Either none of it is sent, or all of it, or the connection ends behind a part of it."""

    pieces: ClassVar = ["größer" * 100, "x", "", "größer" * 200]
    was_cut_short = False

    async def operate(self, ws: Websocket) -> None:
        await ws.send_fragments(self.parts())
        self.sent.append("".join(self.pieces))

    async def parts(self) -> AsyncGenerator[str, None]:
        for piece in self.pieces:
            yield piece
            await trio.lowlevel.checkpoint()

    async def finish(self, ws: Websocket) -> None:
        self.was_cut_short = not ws.open
        if self.was_cut_short:
            assert self.was_cancelled
            with pytest.raises(WebsocketClosed):
                await ws.send("end")
        else:
            await super().finish(ws)

    def check(self) -> None:
        assert self.messages == self.sent
        assert bool(self.torn) == self.was_cut_short
        assert "".join(self.pieces).startswith(self.torn)

    def check_end(self, info: CloseInfo | None) -> None:
        code = (1011, "a message was cut short") if self.was_cut_short else (1000, "")
        assert self.close == code
        assert info == (*code, "us", True)


class SendFragmentsOfAList(SendFragments):
    async def operate(self, ws: Websocket) -> None:
        await ws.send_fragments(self.pieces)
        self.sent.append("".join(self.pieces))


class SendFragmentsWithoutRoom(SendFragments):
    options: ClassVar = {"send_queue_bytes": 1000}

    async def prepare(self, ws: Websocket) -> None:
        await self.fill(ws)


class SendFragmentsBesideOthers(SendFragments):
    """Who waits for the end of the message is admitted behind it, or told of the end."""

    async def prepare(self, ws: Websocket) -> None:
        self.beside = trio.Event()
        self.refused: list[int] = []

    async def operate(self, ws: Websocket) -> None:
        ws.nursery.start_soon(self.send_beside, ws)
        await super().operate(ws)

    async def send_beside(self, ws: Websocket) -> None:
        try:
            await ws.send("beside")
        except WebsocketClosed as closed:
            self.refused.append(closed.code)
        finally:
            self.beside.set()

    async def finish(self, ws: Websocket) -> None:
        await self.beside.wait()
        await super().finish(ws)

    def check(self) -> None:
        assert self.messages.count("beside") + len(self.refused) == 1
        if "beside" in self.messages:
            self.messages.remove("beside")
        else:
            assert self.refused == [1011]
        super().check()


class WaitForTheEndOfFragments(Case):
    """Who waits for another's fragmented message can be cancelled, and the message goes on."""

    async def prepare(self, ws: Websocket) -> None:
        self.go_on, self.ended = trio.Event(), trio.Event()
        ws.nursery.start_soon(self.send_other, ws)
        await wait_all_tasks_blocked()

    async def send_other(self, ws: Websocket) -> None:
        await ws.send_fragments(self.parts())
        self.ended.set()

    async def parts(self) -> AsyncGenerator[str, None]:
        yield "other "
        await self.go_on.wait()
        yield "message"

    async def operate(self, ws: Websocket) -> None:
        self.go_on.set()
        await ws.send_fragments(["in ", "turn"])
        self.sent.append("in turn")

    async def finish(self, ws: Websocket) -> None:
        await self.ended.wait()
        if ws.open:
            await super().finish(ws)

    def check(self) -> None:
        assert self.messages == ["other message", *self.sent]
        assert "in turn".startswith(self.torn)

    def check_end(self, info: CloseInfo | None) -> None:
        assert self.close == ((1011, "a message was cut short") if self.torn else (1000, ""))


class RecvStreaming(Case):
    """The iterator goes on where it was cancelled."""

    whole: ClassVar[Any] = "größer" * 300

    async def prepare(self, ws: Websocket) -> None:
        self.parts = ws.recv_streaming()
        self.got: list[Any] = []

    async def operate(self, ws: Websocket) -> None:
        async for part in self.parts:
            self.got.append(part)

    async def finish(self, ws: Websocket) -> None:
        async for part in self.parts:
            self.got.append(part)
        await self.receive_next(ws)
        await super().finish(ws)

    async def receive_next(self, ws: Websocket) -> None:
        self.received.append(await ws.recv())

    async def say(self, peer: Peer) -> None:
        middle = len(self.whole) // 2
        kind: Any = events.TextMessage if isinstance(self.whole, str) else events.BytesMessage
        wire = peer.encode(kind(self.whole[:middle], message_finished=False))
        wire += peer.encode(kind(self.whole[middle:]))
        for start in range(0, len(wire), 401):
            await peer.stream.send_all(wire[start : start + 401])
            await trio.lowlevel.checkpoint()
        await peer.send("next")

    def check(self) -> None:
        assert type(self.whole)().join(self.got) == self.whole
        assert all(self.got)
        assert self.received == ["next"]
        assert self.messages == self.sent


class RecvStreamingOfBytes(RecvStreaming):
    whole: ClassVar = bytes(range(256)) * 8


class RecvStreamingOnItsRoute(RecvStreaming):
    options: ClassVar = {"stream": True, "max_queue": 1}

    async def receive_next(self, ws: Websocket) -> None:
        parts: list[Any] = [part async for part in ws.recv_streaming()]
        self.received.append("".join(parts))


class RecvStreamingLeft(RecvStreaming):
    """What was begun and left is skipped; what was not begun is the next message."""

    async def finish(self, ws: Websocket) -> None:
        if not self.got:
            self.got.append(await ws.recv())
        await self.receive_next(ws)
        await self.send(ws, "end")

    def check(self) -> None:
        assert self.whole.startswith("".join(self.got))
        assert self.received == ["next"]
        assert self.messages == self.sent


class RecvStreamingLeftForAnother(RecvStreamingLeft):
    async def finish(self, ws: Websocket) -> None:
        if not self.got:
            self.got += [part async for part in ws.recv_streaming()]
            assert "".join(self.got) == self.whole
        parts: list[Any] = [part async for part in ws.recv_streaming()]
        self.received.append("".join(parts))
        await self.send(ws, "end")


class RecvBurst(Case):
    expected: ClassVar = ["a", "b", "c", "d"]

    async def operate(self, ws: Websocket) -> None:
        self.received.extend(await ws.recv_burst(3))

    async def finish(self, ws: Websocket) -> None:
        while len(self.received) < 4:
            await RecvBurst.operate(self, ws)
        await super().finish(ws)

    async def say(self, peer: Peer) -> None:
        await peer.send("a", "b")
        await trio.lowlevel.checkpoint()
        await peer.send("c", "d")


class RecvBurstOfWhatIsThere(RecvBurst):
    options: ClassVar = {"max_queue": 2}

    async def say_early(self, peer: Peer) -> None:
        await super().say(peer)

    async def say(self, peer: Peer) -> None:
        pass


class Flush(Case):
    async def prepare(self, ws: Websocket) -> None:
        await self.fill(ws)

    async def operate(self, ws: Websocket) -> None:
        await ws.flush()

    async def finish(self, ws: Websocket) -> None:
        await super().finish(ws)
        await ws.flush()


class Ping(Case):
    """Its frame is queued whatever happens."""

    expected_pings: ClassVar = [b"p"]

    async def operate(self, ws: Websocket) -> None:
        await ws.ping(b"p")

    def check(self) -> None:
        super().check()
        assert self.pings == self.expected_pings


class PingBehindAQueue(Ping):
    async def prepare(self, ws: Websocket) -> None:
        await self.fill(ws)


class PingAndWait(Ping):
    expected_pings: ClassVar = [b"p", b"q"]

    async def operate(self, ws: Websocket) -> None:
        await (await ws.ping(b"p"))

    async def finish(self, ws: Websocket) -> None:
        await (await ws.ping(b"q"))
        await super().finish(ws)


class PingWaiterOfTwo(Ping):
    """Who is cancelled in waiting for a pong takes nothing from others who wait for it."""

    async def prepare(self, ws: Websocket) -> None:
        self.waiter = await ws.ping(b"p")
        self.others = 0
        for _ in range(2):
            ws.nursery.start_soon(self.wait)

    async def operate(self, ws: Websocket) -> None:
        await self.waiter

    async def wait(self) -> None:
        await self.waiter
        self.others += 1

    async def finish(self, ws: Websocket) -> None:
        assert await self.waiter == ws.latency
        await wait_all_tasks_blocked()
        assert self.others == 2
        await super().finish(ws)


class Pong(Case):
    async def operate(self, ws: Websocket) -> None:
        await ws.pong(b"u")

    def check(self) -> None:
        super().check()
        assert self.pongs == [b"u"]


class Close(Case):
    """Its frame is sent whatever happens, behind what was sent before."""

    expected_close: ClassVar = (4000, "bye")
    expected_info: ClassVar = (4000, "bye", "us", True)

    async def prepare(self, ws: Websocket) -> None:
        await self.send(ws, "last")

    async def operate(self, ws: Websocket) -> None:
        await ws.close(4000, "bye")

    async def finish(self, ws: Websocket) -> None:
        with pytest.raises(WebsocketClosed) as caught:
            await ws.send("too late")
        assert (caught.value.code, caught.value.reason) == (4000, "bye")
        await ws.close(4999)


class CloseBehindAQueue(Close):
    async def prepare(self, ws: Websocket) -> None:
        await self.fill(ws)


class CloseWithoutWaiting(Close):
    async def operate(self, ws: Websocket) -> None:
        await ws.close(4000, "bye", wait=False)


class CloseOverSendersInLine(CloseBehindAQueue):
    options: ClassVar = {"send_queue_bytes": 1000}

    async def prepare(self, ws: Websocket) -> None:
        await self.fill(ws)
        ws.nursery.start_soon(self.send, ws, "never")
        await wait_all_tasks_blocked()


class CloseWhatThePeerCloses(Close):
    """Both at once; who was first on the wire decides."""

    async def operate(self, ws: Websocket) -> None:
        await trio.lowlevel.checkpoint()
        await ws.close(4000, "bye")

    async def finish(self, ws: Websocket) -> None:
        await ws.close(4000, "bye")

    async def say(self, peer: Peer) -> None:
        await peer.close(4001)

    def check_end(self, info: CloseInfo | None) -> None:
        ours = ((4000, "bye"), (4000, "bye", "us", True))
        theirs = ((4001, ""), (4001, "", "peer", True))
        assert (self.close, info) in (ours, theirs)


class WaitClosed(Case):
    """Throws messages away, but none that comes behind its cancellation."""

    options: ClassVar = {"max_queue": 2}
    expected_info: ClassVar = (1000, "", "peer", True)

    async def operate(self, ws: Websocket) -> None:
        await ws.wait_closed()

    async def finish(self, ws: Websocket) -> None:
        self.received += [message async for message in ws]

    async def say(self, peer: Peer) -> None:
        for n in range(4):
            await peer.send(str(n))
            await trio.lowlevel.checkpoint()
        await wait_all_tasks_blocked()
        self.said = "0123"
        if self.was_cancelled:
            await peer.send(*"4567")
            self.said += "4567"
        await peer.close()

    def check(self) -> None:
        received = "".join(self.received)
        assert self.said.endswith(received)
        assert received.endswith(self.said[4:])


class Accept(Case):
    """Answers 101 once."""

    accepts: ClassVar = False

    async def operate(self, ws: Websocket) -> None:
        await ws.accept()

    async def finish(self, ws: Websocket) -> None:
        await ws.accept()
        await super().finish(ws)


class NurseryStart(Case):
    """A task whose start was cancelled has ended."""

    async def operate(self, ws: Websocket) -> None:
        self.is_running = False
        self.has_started = False
        await ws.nursery.start(self.run)
        self.has_started = True

    async def run(self, task_status: trio.TaskStatus[None]) -> None:
        self.is_running = True
        try:
            await trio.lowlevel.checkpoint()
            task_status.started()
            await trio.sleep_forever()
        finally:
            self.is_running = False

    async def finish(self, ws: Websocket) -> None:
        await wait_all_tasks_blocked()
        assert self.is_running == self.has_started
        await super().finish(ws)


def all_cases(case: type[Case] = Case) -> list[type[Case]]:
    return [one for child in case.__subclasses__() for one in (child, *all_cases(child))]


@pytest.mark.parametrize("case", all_cases(), ids=lambda case: case.__name__)
async def test_cancelled_at_any_step(bench: Bench, case: type[Case]) -> None:
    """It loses, doubles and tears nothing, and leaves no task."""
    await run_at_every_step(bench, case)


@pytest.mark.parametrize("case", all_cases(), ids=lambda case: case.__name__)
async def test_cancelled_at_any_step_of_a_compressed_connection(
    memory: Bench, case: type[Case]
) -> None:
    """What is compressed in the context that the peer shares is sent, and in that order."""
    await run_at_every_step(memory, case, "deflate-context")


async def run_at_every_step(bench: Bench, case: type[Case], compression: str | None = None) -> None:
    steps = 0
    while await run(bench, case(bench.kind), steps, compression):
        steps += 1
        assert steps < MAX_STEPS
    # Cancelled at once, and at least where it yields: each case has been cancelled twice.
    assert steps >= 2


async def run(bench: Bench, case: Case, step: int, compression: str | None) -> bool:
    """Run a case and cancel its operation at a step; tells whether that was reached."""
    before = all_tasks()
    failed: list[BaseException] = []
    served: list[Websocket] = []
    was_reached: list[bool] = []

    async def handler(ws: Websocket) -> None:
        try:
            await case.prepare(ws)
            await wait_all_tasks_blocked()
            with trio.CancelScope() as scope:
                case.begun.set()
                counter = StepCounter(step, scope.cancel)
                trio.lowlevel.add_instrument(counter)
                try:
                    await case.operate(ws)
                finally:
                    trio.lowlevel.remove_instrument(counter)
            was_reached.append(counter.has_called)
            case.was_cancelled = scope.cancelled_caught
            await case.finish(ws)
        except Exception as error:
            failed.append(error)
            raise
        finally:
            served.append(ws)

    with trio.fail_after(10):
        async with bench.connect(
            handler,
            auto=case.accepts,
            deflate=PerMessageDeflate() if compression else None,
            compression=compression,
            compression_threshold=0,
            **case.options,
        ) as peer:
            await case.say_early(peer)
            await case.begun.wait()
            await case.say(peer)
            await converse(peer, case)
            await peer.stream.aclose()
            if failed:
                raise failed[0]
            # Without being cancelled the server has ended, or ends in a moment.
            while all_tasks() - before:
                await wait_all_tasks_blocked(0.0001)
    case.check()
    case.check_end(served[0].close_info)
    return was_reached[0]


async def converse(peer: Peer, case: Case) -> None:
    """Read all that the server says, answer its pings and its Close; the stream must end then."""
    while await hear(peer, case):
        pass


async def hear(peer: Peer, case: Case) -> bool:
    """Take and answer one thing that the server says; False at the end of the stream."""
    event = await peer.next_event()
    if event is None:
        return False
    assert case.close is None, f"{event} behind Close"
    if isinstance(event, events.Message):
        case.messages.append(event.data)
    elif isinstance(event, events.Ping):
        case.pings.append(bytes(event.payload))
        await say(peer, event.response())
    elif isinstance(event, events.Pong):
        case.pongs.append(bytes(event.payload))
    else:
        assert isinstance(event, events.CloseConnection)
        case.close = (int(event.code), event.reason or "")
        case.torn, peer._parts = "".join(peer._parts), []
        await say(peer, event.response())
    return True


async def say(peer: Peer, message: str | events.Event) -> None:
    """Send what a server that has left need not hear."""
    try:
        await peer.send(message)
    except (LocalProtocolError, trio.BrokenResourceError):
        pass  # Close went out before, or the server has closed the stream


def all_tasks() -> set[trio.lowlevel.Task]:
    """Every task of this run, of which there are more than the test's own."""
    root = trio.lowlevel.current_root_task()
    assert root is not None
    found, pending = set(), [root]
    while pending:
        task = pending.pop()
        found.add(task)
        pending += [child for nursery in task.child_nurseries for child in nursery.child_tasks]
    return found


@pytest.mark.parametrize("handling", ["echo", "push", "fragments"])
async def test_a_server_cancelled_at_any_step_says_1001(bench: Bench, handling: str) -> None:
    """Behind whole messages only, each once and in order."""
    expected = [str(n) * 3000 for n in range(4)]

    async def handler(ws: Websocket) -> None:
        if handling == "echo":
            async for message in ws:
                assert isinstance(message, str)
                await ws.send(message * 3000)
        elif handling == "fragments":
            await ws.send_fragments(expected)
            await ws.wait_closed()
        else:
            for message in expected:
                await ws.send(message)
            await ws.wait_closed()

    async def run(step: int) -> bool:
        case = Case(bench.kind)
        before = all_tasks()
        with trio.fail_after(10):
            async with bench.connect(handler) as peer:
                with trio.CancelScope(shield=True):
                    counter = StepCounter(step, peer.cancel_server)
                    trio.lowlevel.add_instrument(counter)
                    try:
                        if handling == "echo":
                            # Small, so that the peer is soon there to read the answers: who
                            # reads nothing for a second is left in the middle of a frame.
                            for n in range(len(expected)):
                                await say(peer, str(n))
                        while case.close is None and "".join(case.messages) != "".join(expected):
                            await hear(peer, case)
                        if case.close is None:
                            await peer.close(4000)
                        await converse(peer, case)
                    finally:
                        trio.lowlevel.remove_instrument(counter)
                    await peer.stream.aclose()
                    while all_tasks() - before:
                        await wait_all_tasks_blocked(0.0001)
        if handling == "fragments":
            assert case.messages == ([] if case.torn else ["".join(expected)][: len(case.messages)])
            assert "".join(expected).startswith(case.torn)
        else:
            assert case.messages == expected[: len(case.messages)]
            assert not case.torn
        assert case.close in [(1001, "server is shutting down"), (4000, "")]
        return counter.has_called

    steps = 0
    while await run(steps):
        steps += 1
        assert steps < MAX_STEPS
    assert steps > len(expected)
