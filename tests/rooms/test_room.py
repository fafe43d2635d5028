"""Rooms: handles, what there is of them, and what can be done to one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import trio
from trio.testing import assert_no_checkpoints

from tests.rooms.conftest import idle, open_stage, sockets, staying_in
from trioweb import BroadcastResult, Member, Room, TrioWeb

if TYPE_CHECKING:
    from tests.rooms.conftest import Peer
    from trioweb import Websocket

# Handles


def test_a_handle_creates_nothing() -> None:
    """Nor does anything that is asked of it; a room is there when somebody is in it."""
    app = TrioWeb()
    room = app.room("a")
    assert isinstance(room, Room)
    assert room.name == "a"
    assert room.members == ()
    assert dict(app.rooms) == {}
    assert "a" not in app.rooms
    assert len(app.rooms) == 0
    assert app.connections == frozenset()


def test_handles_are_equal_by_app_and_name() -> None:
    one, other = TrioWeb("same"), TrioWeb("same")
    assert one.room("a") == one.room("a")
    assert hash(one.room("a")) == hash(one.room("a"))
    assert one.room("a") != one.room("b")
    assert one.room("a") != other.room("a")
    assert one.room("a") != "a"
    assert {one.room("a"): 1}[one.room("a")] == 1


@pytest.mark.parametrize("name", [None, 1, b"a", ["a"]])
def test_the_name_of_a_room_is_a_str(name: Any) -> None:
    with pytest.raises(TypeError, match="str"):
        TrioWeb().room(name)


async def test_an_empty_room_takes_whatever_is_done_to_it() -> None:
    async with open_stage() as stage:
        room = stage.app.room("nobody")
        assert room.broadcast("x") == BroadcastResult(0, 0, 0)
        await room.flush()
        room.close(4000, "bye")
        assert dict(stage.app.rooms) == {}


# What there is


async def test_members_are_listed_in_the_order_of_joining_with_their_meta() -> None:
    async with open_stage() as stage:
        metas: list[Any] = [None, {"name": "Ann"}, 3]
        peers = await stage.connect_all([staying_in("a", meta=meta) for meta in metas])
        room = stage.app.room("a")
        assert room.members == tuple(
            Member(peer.ws, meta) for peer, meta in zip(peers, metas, strict=True)
        )
        assert room.members[1].ws is peers[1].ws
        assert room.members[1].meta is metas[1]
        socket, meta = room.members[2]
        assert (socket, meta) == (peers[2].ws, 3)
        peers[1].leave()
        await stage.settle()
        assert sockets(room) == [peers[0].ws, peers[2].ws]


async def test_a_room_is_there_from_the_first_join_to_the_last_leave() -> None:
    async with open_stage() as stage:
        rooms = stage.app.rooms
        first, second = await stage.connect_all([staying_in("a"), staying_in("a", "b")])
        assert dict(rooms) == {"a": stage.app.room("a"), "b": stage.app.room("b")}
        assert len(rooms) == 2
        first.leave()
        await stage.settle()
        assert set(rooms) == {"a", "b"}
        second.leave()
        await stage.settle()
        assert set(rooms) == set()
        with pytest.raises(KeyError):
            rooms["a"]
        await stage.connect(staying_in("a"))
        assert set(rooms) == {"a"}


async def test_going_through_the_rooms_is_not_disturbed_by_their_change() -> None:
    """Iteration is over a snapshot, and so are the members that were asked for."""
    async with open_stage() as stage:
        await stage.connect_all([staying_in(name) for name in "abcb"])
        members = stage.app.room("b").members
        seen = []
        for name, room in stage.app.rooms.items():
            seen.append(name)
            room.close()
        assert seen == ["a", "b", "c"]
        assert len(members) == 2
        assert dict(stage.app.rooms) == {}


async def test_rooms_may_be_closed_while_one_goes_through_their_names() -> None:
    async with open_stage() as stage:
        await stage.connect_all([staying_in(name) for name in "abc"])
        for name in stage.app.rooms:
            stage.app.room(name).close()
        assert dict(stage.app.rooms) == {}


@pytest.mark.parametrize("view", ["keys", "values", "items"])
async def test_closing_one_room_may_empty_the_next(view: str) -> None:
    """A view of the rooms is of those that existed when it was made."""
    async with open_stage() as stage:
        peer = await stage.connect(staying_in("a", "b"))
        seen = []
        for one in getattr(stage.app.rooms, view)():
            seen.append(one)
            stage.app.room("a").close()
        a, b = stage.app.room("a"), stage.app.room("b")
        assert seen == {"keys": ["a", "b"], "values": [a, b], "items": [("a", a), ("b", b)]}[view]
        await stage.settle()
        assert peer.close == (1000, "")


async def test_connections_are_those_that_are_open() -> None:
    """In a room or not; from accept to the step in which either side closes, or the loss."""
    accept, close = trio.Event(), trio.Event()

    async def slow(ws: Websocket) -> None:
        await accept.wait()
        await ws.accept()
        await idle(ws)

    async def closing(ws: Websocket) -> None:
        await close.wait()
        await ws.close(4000, wait=False)
        assert ws not in ws.app.connections
        await trio.sleep_forever()

    async with open_stage() as stage:
        app = stage.app
        first, second, third = await stage.connect_all([staying_in("a"), idle, closing])
        connections = app.connections
        assert isinstance(connections, frozenset)
        assert connections == {first.ws, second.ws, third.ws}
        late = await stage.connect(slow, path="/manual")
        assert app.connections == connections
        accept.set()
        await stage.settle()
        assert app.connections == {first.ws, second.ws, third.ws, late.ws}
        close.set()
        await stage.settle()
        assert app.connections == {first.ws, second.ws, late.ws}
        second.leave()
        late.abort()
        await stage.settle()
        assert app.connections == {first.ws}
        # It is a snapshot, and nobody's to change.
        assert connections == {first.ws, second.ws, third.ws}


# What is refused


@pytest.mark.parametrize("members", [0, 2])
@pytest.mark.parametrize(
    ("data", "encoding", "error"),
    [
        (object(), "text", TypeError),
        (3, "text", TypeError),
        (b"x", "json", TypeError),
        ({}, "bytes", TypeError),
        ("x", "utf-16", ValueError),
        ("\udc00", "text", ValueError),
    ],
)
async def test_what_send_refuses_broadcast_refuses(
    members: int, data: Any, encoding: str, error: type[Exception]
) -> None:
    """In an empty room too, and nobody gets anything."""
    async with open_stage() as stage:
        peers = await stage.connect_all([staying_in("a")] * members)
        with pytest.raises(error):
            stage.app.room("a").broadcast(data, encoding)
        await stage.settle()
        assert [peer.take() for peer in peers] == [[]] * members


async def test_a_key_that_is_not_hashable_is_an_error() -> None:
    async with open_stage() as stage:
        peers = await stage.connect_all([staying_in("a")] * 2)
        with pytest.raises(TypeError):
            stage.app.room("a").broadcast("x", key=["list"])  # type: ignore[arg-type]
        await stage.settle()
        assert [peer.take() for peer in peers] == [[], []]


@pytest.mark.parametrize("members", [0, 1])
@pytest.mark.parametrize("code", [999, 1004, 1005, 1006, 1015, 2999, 5000])
async def test_a_code_that_close_refuses_is_refused_here(members: int, code: int) -> None:
    async with open_stage() as stage:
        peers = await stage.connect_all([staying_in("a")] * members)
        with pytest.raises(ValueError, match=str(code)):
            stage.app.room("a").close(code)
        await stage.settle()
        assert [peer.ws.open for peer in peers] == [True] * members


# Excluding, keys


async def test_those_excluded_get_nothing() -> None:
    """One, a collection of them, or who is no member anyway."""
    async with open_stage() as stage:
        peers = await stage.connect_all([staying_in("a")] * 3 + [idle])
        room = stage.app.room("a")
        one, two, three, stranger = [peer.ws for peer in peers]
        exclusions: list[tuple[Any, set[int]]] = [
            (None, {0, 1, 2}),
            (one, {1, 2}),
            ([two], {0, 2}),
            ((one, three), {1}),
            ({one, two}, {2}),
            (frozenset({one, two, three}), set()),
            ([], {0, 1, 2}),
            (stranger, {0, 1, 2}),
            ([stranger, one], {1, 2}),
        ]
        for number, (exclude, reached) in enumerate(exclusions):
            result = room.broadcast(str(number), exclude=exclude)
            assert result == BroadcastResult(len(reached), 0, 0)
            await stage.settle()
            got = {index for index, peer in enumerate(peers) if peer.take() == [str(number)]}
            assert got == reached


async def test_what_cannot_be_excluded_is_an_error() -> None:
    """In an empty room as well; a member is excluded by its socket."""
    async with open_stage() as stage:
        peer = await stage.connect(staying_in("a", meta={}))
        (member,) = stage.app.room("a").members
        wrong: list[Any] = [member, [member], "Ada", peer.ws.id, 5, {"Ada": peer.ws}, [None]]
        for room in (stage.app.room("a"), stage.app.room("empty")):
            for exclude in wrong:
                with pytest.raises(TypeError, match="exclude= takes a Websocket or several"):
                    room.broadcast("x", exclude=exclude)
            assert room.broadcast("x", exclude=[member.ws]).sent == 0
        await stage.settle()
        assert peer.take() == []


async def test_a_key_belongs_to_its_room() -> None:
    """The same key in two rooms conflates nothing on a connection that is in both."""
    async with open_stage() as stage:
        peer = await stage.connect(staying_in("a", "b"))
        peer.is_stalled = True
        rooms = [stage.app.room("a"), stage.app.room("b")]
        rooms[0].broadcast("fills the link".ljust(5000, "."))
        for number in range(3):
            for room in rooms:
                room.broadcast(f"{room.name}{number}", key="k")
        await stage.settle()
        peer.is_stalled = False
        await stage.settle()
        assert peer.take()[1:] == ["a2", "b2"]


@pytest.mark.parametrize("key", ["k", ("a", 1), 0, False, "", frozenset({1})])
async def test_a_newer_message_takes_the_place_of_a_queued_one_of_its_key(key: Any) -> None:
    """Whatever the key is, but for None; what is written is not replaced any more."""
    async with open_stage() as stage:
        peer = await stage.connect(staying_in("a"))
        room = stage.app.room("a")
        room.broadcast("first", key=key)
        await stage.settle()
        peer.is_stalled = True
        room.broadcast("fills the link".ljust(5000, "."), key=key)
        for number in range(3):
            assert room.broadcast(f"key {number}", key=key) == BroadcastResult(1, 0, 0)
            room.broadcast(f"other {number}", key="other")
            room.broadcast(f"plain {number}")
        peer.is_stalled = False
        await stage.settle()
        assert [message.rstrip(".") for message in peer.take()] == [
            "first",
            "fills the link",
            "key 2",
            "other 2",
            "plain 0",
            "plain 1",
            "plain 2",
        ]


# Closing


async def test_close_closes_every_member_behind_what_was_broadcast() -> None:
    """It waits for nobody: they are no members any more when it returns."""
    async with open_stage() as stage:
        peers = await stage.connect_all([staying_in("a"), staying_in("b", "a"), staying_in("b")])
        room = stage.app.room("a")
        peers[0].is_stalled = True
        room.broadcast("long ".ljust(9000, "."))
        room.broadcast("last")
        with assert_no_checkpoints():
            room.close(4321, "the game is over")
        assert room.members == ()
        assert set(stage.app.rooms) == {"b"}
        assert sockets(stage.app.room("b")) == [peers[2].ws]
        assert stage.app.connections == {peers[2].ws}
        assert room.broadcast("too late") == BroadcastResult(0, 0, 0)
        await stage.settle()
        assert peers[0].close is None
        peers[0].is_stalled = False
        await stage.settle()
        for peer in peers[:2]:
            assert [message.rstrip(".") for message in peer.take()] == ["long ", "last"]
            assert peer.close == (4321, "the game is over")
            assert peer.ended
            assert peer.handler_ended
        assert peers[2].close is None


async def test_a_reason_that_is_no_text_closes_nobody() -> None:
    """It is refused before anything has happened."""
    reason: Any = None
    async with open_stage() as stage:
        peers = await stage.connect_all([staying_in("a")] * 2)
        with pytest.raises(TypeError, match="reason must be a str"):
            stage.app.room("a").close(4000, reason)
        assert len(stage.app.room("a").members) == 2
        await stage.settle()
        assert [peer.close for peer in peers] == [None, None]


async def test_close_is_1000_by_itself_and_cancels_nobody() -> None:
    """The handlers go on, as after ``ws.close``."""
    ends: list[Any] = []

    async def handler(ws: Websocket) -> None:
        async with ws.app.room("a").join(ws):
            ends.append([message async for message in ws])
            await trio.lowlevel.checkpoint()
        ends.append(ws.close_info)

    async with open_stage() as stage:
        peer = await stage.connect(handler)
        peer.say("unread")
        stage.app.room("a").close()
        await stage.settle()
        assert peer.close == (1000, "")
        assert ends[1] == (1000, "", "us", True)


async def test_a_member_may_close_the_room_that_it_is_in() -> None:
    async def handler(ws: Websocket) -> None:
        async with ws.app.room("a").join(ws) as room:
            await ws.recv()
            room.close(4001)
            assert room.members == ()

    async with open_stage() as stage:
        peers: list[Peer] = await stage.connect_all([handler, staying_in("a")])
        peers[0].say("close")
        await stage.settle()
        assert [peer.close for peer in peers] == [(4001, ""), (4001, "")]
