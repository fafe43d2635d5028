"""Members that read slowly, or not at all, and all the others."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.rooms.conftest import BUFFER, ROUTE, open_stage, sockets, staying_in
from trioweb import BroadcastResult, TrioWeb
from trioweb.testing import Link, open_client

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager

    from tests.rooms.conftest import Peer, Stage
    from trioweb.testing import Client

    TakeWarnings = Callable[[], list[logging.LogRecord]]

MEMBERS = 1000
SIZE = 500  # bytes of a frame
FRAME = SIZE - 4
BOUND = 4 * SIZE
# How many messages a link holds, the one that it holds in part included.
IN_LINK = BUFFER // SIZE + 1


def text(word: object) -> str:
    """A message whose frame has SIZE bytes."""
    return str(word).ljust(FRAME, ".")


def words(messages: list[str]) -> list[str]:
    assert all(len(message) == FRAME for message in messages), "a torn message"
    return [message.rstrip(".") for message in messages]


@pytest.fixture
def take_warnings(caplog: pytest.LogCaptureFixture) -> TakeWarnings:
    """What the logger ``trioweb`` has said since the last call, from WARNING on."""
    caplog.set_level(logging.WARNING, "trioweb")

    def take() -> list[logging.LogRecord]:
        records = [one for one in caplog.records if one.name == "trioweb"]
        caplog.clear()
        return records

    return take


def check_warning(records: list[logging.LogRecord], waiting: range) -> None:
    """One line, with the route, the peer and how many bytes waited."""
    (record,) = records
    assert record.levelno == logging.WARNING
    message = record.getMessage()
    assert "\n" not in message
    assert ROUTE in message.replace(":", " ").split()
    assert "memory" in message
    numbers = [int(word) for word in message.replace(",", " ").split() if word.isdigit()]
    assert any(number in waiting for number in numbers), message


# A thousand members, one of them stalled


async def fill(
    stage: Stage, peers: list[Peer], stalled: Peer, count: int, policy: str
) -> list[BroadcastResult]:
    """Broadcast so often; each time the others have it at once, in no time at all.

    The queue of the stalled one, which the caller has stalled, never grows beyond its bound.
    """
    others = [peer for peer in peers if peer is not stalled]
    began = trio.current_time()
    results = []
    # What is being written is one message here, and of those that wait one may be above the bound.
    bound = BOUND + SIZE if policy == "drop_oldest" else 4 * BOUND + SIZE
    for number in range(count):
        results.append(stage.app.room("a").broadcast(text(number)))
        assert stalled.waiting <= bound + SIZE
        await stage.settle()
        assert all(peer.messages == [text(number)] for peer in others)
        for peer in others:
            peer.messages = []
    assert trio.current_time() == began
    return results


async def test_a_stalled_member_of_a_thousand_is_disconnected_above_four_times_the_bound(
    autojump_clock: trio.testing.MockClock, take_warnings: TakeWarnings
) -> None:
    """At once, with 1013; all others have each message in the moment of its broadcast."""
    async with open_stage(WEBSOCKET_SEND_QUEUE_BYTES=BOUND) as stage:
        peers = await stage.connect_all([staying_in("a")] * MEMBERS)
        stalled = peers[MEMBERS // 3]
        stalled.is_stalled = True
        at_bound = IN_LINK + 4 * BOUND // SIZE
        results = await fill(stage, peers, stalled, at_bound + 2, "disconnect")
        assert results == [
            *[BroadcastResult(MEMBERS, 0, 0)] * at_bound,
            BroadcastResult(MEMBERS - 1, 0, 1),
            BroadcastResult(MEMBERS - 1, 0, 0),
        ]
        assert not stalled.ws.open
        assert stalled.ws not in sockets(stage.app.room("a"))
        check_warning(take_warnings(), range(4 * BOUND, 4 * BOUND + 2 * SIZE))
        stalled.is_stalled = False
        await stage.settle()
        # What was begun is finished; the rest would only keep it from hearing why.
        assert words(stalled.take()) == [str(number) for number in range(IN_LINK)]
        assert stalled.close is not None
        assert stalled.close[0] == 1013
        assert stalled.handler_ended
        assert take_warnings() == []


async def test_a_stalled_member_of_a_thousand_sees_the_newest_when_it_wakes(
    autojump_clock: trio.testing.MockClock, take_warnings: TakeWarnings
) -> None:
    """Under drop_oldest: what arrived and what results counted as dropped is what was sent."""
    async with open_stage(
        WEBSOCKET_SEND_QUEUE_BYTES=BOUND, ROOM_SLOW_POLICY="drop_oldest"
    ) as stage:
        peers = await stage.connect_all([staying_in("a")] * MEMBERS)
        stalled = peers[MEMBERS // 3]
        stalled.is_stalled = True
        count = 25
        results = await fill(stage, peers, stalled, count, "drop_oldest")
        queued = BOUND // SIZE
        assert results == [
            *[BroadcastResult(MEMBERS, 0, 0)] * (IN_LINK + queued),
            *[BroadcastResult(MEMBERS, 1, 0)] * (count - IN_LINK - queued),
        ]
        stalled.is_stalled = False
        await stage.settle()
        got = words(stalled.take())
        assert len(got) + sum(result.dropped for result in results) == count
        assert got == [str(n) for n in (*range(IN_LINK), *range(count - queued, count))]
        assert stage.app.room("a").broadcast(text("on")) == BroadcastResult(MEMBERS, 0, 0)
        await stage.settle()
        assert [words(peer.take()) for peer in peers] == [["on"]] * MEMBERS
    assert take_warnings() == []


async def test_a_stalled_member_of_a_thousand_sees_one_message_for_each_key(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """The newest of each; meanwhile its queue holds no more than that."""
    async with open_stage(WEBSOCKET_SEND_QUEUE_BYTES=100 * SIZE) as stage:
        peers = await stage.connect_all([staying_in("a")] * MEMBERS)
        stalled = peers[MEMBERS // 3]
        stalled.is_stalled = True
        room = stage.app.room("a")
        for number in range(IN_LINK):
            room.broadcast(text(number))
        await stage.settle()
        in_link = stalled.waiting
        for turn in range(10):
            for key in ("x", "y", "z"):
                assert room.broadcast(text(f"{key} {turn}"), key=key).sent == MEMBERS
            assert stalled.waiting == in_link + 3 * SIZE
            await stage.settle()
            fresh = [f"{key} {turn}" for key in ("x", "y", "z")]
            assert all(words(peer.take())[-3:] == fresh for peer in peers if peer is not stalled)
        stalled.is_stalled = False
        await stage.settle()
        assert words(stalled.take())[IN_LINK:] == ["x 9", "y 9", "z 9"]


# Time


def open_room(**options: Any) -> AbstractAsyncContextManager[Client]:
    """An application whose clients stay in room "a", over links as small as a stage's.

    Args:
        options: of ``join``, or in capitals of the config.
    """
    config = {key: options.pop(key) for key in list(options) if key.isupper()}
    app = TrioWeb(config=config)
    app.add_websocket_route(staying_in("a", **options), "/", name=ROUTE)
    return open_client(app, link=Link(buffer=BUFFER))


async def test_a_member_that_takes_nothing_is_disconnected_after_the_stall_time(
    autojump_clock: trio.testing.MockClock, take_warnings: TakeWarnings
) -> None:
    """Long before its bound; the others go on, and it hears why when it reads again."""
    async with (
        open_room(WEBSOCKET_PING_INTERVAL=None) as client,
        client.websocket("/") as stalled,
        client.websocket("/") as one,
        client.websocket("/") as other,
    ):
        await wait_all_tasks_blocked()
        room = client.app.room("a")
        stalled.stall()
        for number in range(IN_LINK):
            room.broadcast(text(number))
        await trio.sleep(29)
        assert room.broadcast(text("late")).sent == 3
        await trio.sleep(0.9)
        assert len(room.members) == 3
        assert take_warnings() == []
        await trio.sleep(0.2)
        assert len(room.members) == 2
        assert room.broadcast(text("rest")) == BroadcastResult(2, 0, 0)
        check_warning(take_warnings(), range(SIZE, 3 * SIZE))
        for ws in (one, other):
            for word in (*range(IN_LINK), "late", "rest"):
                await ws.expect(text(word))
        stalled.resume()
        for number in range(IN_LINK):
            await stalled.expect(text(number))
        await stalled.expect_close(1013)


@pytest.mark.parametrize("policy", ["disconnect", "drop_oldest"])
async def test_a_slow_member_that_takes_something_now_and_then_stays(
    mock_clock: trio.testing.MockClock, take_warnings: TakeWarnings, policy: str
) -> None:
    """Its queue is above the bound all the time; it is its progress that counts."""
    async with open_stage(WEBSOCKET_SEND_QUEUE_BYTES=BOUND, WEBSOCKET_PING_INTERVAL=None) as stage:
        (slow,) = await stage.connect_all([staying_in("a", policy=policy)])
        room = stage.app.room("a")
        slow.is_stalled = True
        sent = dropped = 0
        for turn in range(10):
            for _ in range(IN_LINK - 1 if turn else IN_LINK + BOUND // SIZE):
                result = room.broadcast(text(sent))
                assert (result.sent, result.closed) == (1, 0)
                dropped += result.dropped
                sent += 1
            await stage.settle()
            assert slow.waiting >= BOUND - SIZE
            mock_clock.jump(29)
            await stage.settle()
            assert slow.read()
            await stage.settle()
        assert slow.ws.open
        slow.is_stalled = False
        await stage.settle()
        got = words(slow.take())
        assert len(got) + dropped == sent
        if policy == "disconnect":
            assert got == [str(number) for number in range(sent)]
    assert take_warnings() == []


@pytest.mark.parametrize("policy", ["disconnect", "drop_oldest"])
async def test_the_stall_time_ends_a_member_under_either_policy(
    autojump_clock: trio.testing.MockClock, take_warnings: TakeWarnings, policy: str
) -> None:
    async with (
        open_room(
            WEBSOCKET_SEND_QUEUE_BYTES=BOUND, WEBSOCKET_PING_INTERVAL=None, policy=policy
        ) as client,
        client.websocket("/") as stalled,
    ):
        await wait_all_tasks_blocked()
        stalled.stall()
        for number in range(2 * IN_LINK):
            client.app.room("a").broadcast(text(number))
        await trio.sleep(29.9)
        assert list(client.app.rooms) == ["a"]
        await trio.sleep(0.2)
        assert dict(client.app.rooms) == {}
        check_warning(take_warnings(), range(BOUND, 4 * BOUND))


async def test_a_member_whom_no_ping_reaches_is_gone(
    autojump_clock: trio.testing.MockClock, take_warnings: TakeWarnings
) -> None:
    """Though nothing waits for it; pings end a member under any policy."""
    async with (
        open_room(ROOM_SLOW_POLICY="drop_oldest") as client,
        client.websocket("/") as gone,
        client.websocket("/"),
    ):
        await wait_all_tasks_blocked()
        first, second = client.connections
        gone.stall()
        await trio.sleep(39.9)
        assert sockets(client.app.room("a")) == [first, second]
        await trio.sleep(0.2)
        assert sockets(client.app.room("a")) == [second]
        assert first.close_info is not None
        assert first.close_info.code == 1011
    assert take_warnings() == []  # it is not for being slow


# Policies


async def test_each_membership_has_a_policy_of_its_own(take_warnings: TakeWarnings) -> None:
    """The config's unless ``join`` says another; also of one connection in two rooms."""
    async with open_stage(WEBSOCKET_SEND_QUEUE_BYTES=BOUND) as stage:
        peers = await stage.connect_all(
            [
                staying_in("a"),
                staying_in("a", policy="drop_oldest"),
                staying_in("a", policy="disconnect"),
            ]
        )
        for peer in peers:
            peer.is_stalled = True
        results = [stage.app.room("a").broadcast(text(number)) for number in range(100)]
        assert [peer.ws.open for peer in peers] == [False, True, False]
        assert sum(result.closed for result in results) == 2
        for peer in peers:
            peer.is_stalled = False
        await stage.settle()
        assert len(peers[1].take()) + sum(result.dropped for result in results) == 100
        assert len(take_warnings()) == 2


async def test_a_connection_in_two_rooms_is_dropped_once(take_warnings: TakeWarnings) -> None:
    """It leaves both in the same step, and one line tells of it."""
    async with open_stage(WEBSOCKET_SEND_QUEUE_BYTES=BOUND) as stage:
        peers = await stage.connect_all([staying_in("a", "b"), staying_in("a"), staying_in("b")])
        peers[0].is_stalled = True
        rooms = [stage.app.room("a"), stage.app.room("b")]
        results: list[BroadcastResult] = []
        while peers[0].ws.open:
            results.append(rooms[len(results) % 2].broadcast(text(len(results))))
        assert [len(room.members) for room in rooms] == [1, 1]
        assert [room.broadcast(text("on")) for room in rooms] == [BroadcastResult(1, 0, 0)] * 2
        assert [result.closed for result in results] == [0] * (len(results) - 1) + [1]
        await stage.settle()
        assert len(take_warnings()) == 1


async def test_dropped_messages_are_counted_beside_those_that_took_it() -> None:
    """A large message makes room by dropping several; one that finds no room is dropped itself."""
    async with open_stage(
        WEBSOCKET_SEND_QUEUE_BYTES=BOUND, ROOM_SLOW_POLICY="drop_oldest"
    ) as stage:
        peers = await stage.connect_all([staying_in("a")] * 2)
        room = stage.app.room("a")
        peers[0].is_stalled = True
        for number in range(IN_LINK + BOUND // SIZE):
            assert room.broadcast(text(number)) == BroadcastResult(2, 0, 0)
            await stage.settle()
        large = "large".ljust(2 * SIZE - 4, ".")
        assert room.broadcast(large) == BroadcastResult(2, 2, 0)
        await stage.settle()
        peers[0].is_stalled = False
        await stage.settle()
        assert [message.rstrip(".") for message in peers[0].take()] == [
            *(str(number) for number in range(IN_LINK)),
            *(str(number) for number in range(IN_LINK + 2, IN_LINK + BOUND // SIZE)),
            "large",
        ]


async def test_what_was_sent_to_one_alone_is_not_dropped_for_a_broadcast() -> None:
    """With nothing else to drop, only the newest broadcast waits beside it."""
    async with open_stage(
        WEBSOCKET_SEND_QUEUE_BYTES=BOUND, ROOM_SLOW_POLICY="drop_oldest"
    ) as stage:
        peers = await stage.connect_all([staying_in("a")] * 2)
        peers[0].is_stalled = True
        sent = [f"sent {number}" for number in range(IN_LINK + BOUND // SIZE)]
        for word in sent:
            await peers[0].ws.send(text(word))
        await wait_all_tasks_blocked()
        results: list[Any] = []
        for number in range(3):
            results.append(stage.app.room("a").broadcast(text(number)))
            await stage.settle()
        peers[0].is_stalled = False
        await stage.settle()
        got = words(peers[0].take())
        dropped = sum(result.dropped for result in results)
        assert got == [*sent, "2"]
        assert dropped == 2
        assert [result.sent for result in results] == [2, 2, 2]
        assert words(peers[1].take()) == ["0", "1", "2"]
