"""``ConnectionManager``: the second seed's names, safe where the seed's class is not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.rooms.conftest import idle, open_stage
from trioweb import (
    BroadcastResult,
    ConnectionManager,
    NotAccepted,
    TrioWeb,
    WebSocket,
    WebSocketDisconnect,
    websocket,
)
from trioweb.testing import open_client

if TYPE_CHECKING:
    from tests.rooms.conftest import Handler
    from trioweb import Websocket


def connected_to(manager: ConnectionManager, *, forgets: bool = True) -> Handler:
    """A handler that connects, and broadcasts whatever its client says."""

    async def handler(ws: Websocket) -> None:
        await manager.connect(ws)
        async for message in ws:
            await manager.broadcast(message)
        if not forgets:
            manager.disconnect(ws)

    return handler


def make_seed(manager: ConnectionManager) -> TrioWeb:
    """The second seed's program, but for its class."""

    @websocket("/chat")
    async def chat_room(websocket: WebSocket) -> None:
        await manager.connect(websocket)
        try:
            while True:
                data = await websocket.receive_text()
                await manager.broadcast(f"Broadcast: {data}")
        except WebSocketDisconnect:
            manager.disconnect(websocket)

    return TrioWeb(routes=[chat_room])


async def test_the_seeds_program_works_as_the_seed_says() -> None:
    """What one says all hear; who has left is off the list, however it left."""
    manager = ConnectionManager()
    async with open_client(make_seed(manager)) as client, client.websocket("/chat") as one:
        async with client.websocket("/chat") as two, client.websocket("/chat") as three:
            await one.send("hi")
            for ws in (one, two, three):
                await ws.expect("Broadcast: hi")
            assert len(manager.active_connections) == 3
            three.abort()
            await one.send("still here")
            await one.expect("Broadcast: still here")
            await two.expect("Broadcast: still here")
        assert len(manager.active_connections) == 1
        await one.send("alone")
        await one.expect("Broadcast: alone")


async def test_connect_accepts_unless_that_is_done() -> None:
    """For handlers of either kind; before it there is nothing to receive from."""
    manager = ConnectionManager()

    async def manual(ws: Websocket) -> None:
        with pytest.raises(NotAccepted):
            await ws.recv()
        await connected_to(manager)(ws)

    async def accepted(ws: Websocket) -> None:
        await ws.accept()
        await connected_to(manager)(ws)

    async with open_stage() as stage:
        first = await stage.connect(manual, path="/manual")
        second = await stage.connect(accepted, path="/manual")
        third = await stage.connect(connected_to(manager))
        assert manager.active_connections == [first.ws, second.ws, third.ws]
        third.say("hi")
        await stage.settle()
        assert [peer.take() for peer in (first, second, third)] == [["hi"]] * 3


async def test_active_connections_is_a_list_of_ones_own() -> None:
    """Who changes it changes nothing, and nothing changes it."""
    manager = ConnectionManager()
    assert manager.active_connections == []
    async with open_stage() as stage:
        peers = await stage.connect_all([connected_to(manager)] * 3)
        connections = manager.active_connections
        assert type(connections) is list
        for ws in connections:
            manager.disconnect(ws)
        assert manager.active_connections == []
        assert connections == [peer.ws for peer in peers]
        connections.append(peers[0].ws)
        assert manager.active_connections == []


async def test_broadcast_tells_what_became_of_it() -> None:
    manager = ConnectionManager()
    assert await manager.broadcast("nobody") == BroadcastResult(0, 0, 0)
    async with open_stage() as stage:
        peers = await stage.connect_all([connected_to(manager)] * 2 + [idle])
        assert await manager.broadcast({"x": 1}) == BroadcastResult(2, 0, 0)
        assert await manager.broadcast("quoted", "json") == BroadcastResult(2, 0, 0)
        assert await manager.broadcast("raw", encoding="bytes") == BroadcastResult(2, 0, 0)
        await stage.settle()
        for peer in peers[:2]:
            assert peer.take() == ['{"x":1}', '"quoted"', b"raw"]
        assert peers[2].take() == []


@pytest.mark.parametrize("members", [0, 1])
async def test_broadcast_refuses_what_send_refuses(members: int) -> None:
    manager = ConnectionManager()
    async with open_stage() as stage:
        await stage.connect_all([connected_to(manager)] * members)
        with pytest.raises(TypeError):
            await manager.broadcast(object())
        with pytest.raises(ValueError, match="utf-16"):
            await manager.broadcast("x", "utf-16")


async def test_disconnect_may_be_called_any_number_of_times() -> None:
    """Also for who never was connected; the connection stays open."""
    manager = ConnectionManager()
    async with open_stage() as stage:
        first, second, stranger = await stage.connect_all([connected_to(manager)] * 2 + [idle])
        for _ in range(3):
            manager.disconnect(first.ws)
            manager.disconnect(stranger.ws)
        assert manager.active_connections == [second.ws]
        assert first.ws.open
        assert await manager.broadcast("x") == BroadcastResult(1, 0, 0)
        await stage.settle()
        assert [first.take(), second.take()] == [[], ["x"]]
        await manager.connect(first.ws)
        assert manager.active_connections == [second.ws, first.ws]


async def test_who_is_connected_twice_hears_everything_once() -> None:
    manager = ConnectionManager()
    async with open_stage() as stage:
        peer = await stage.connect(connected_to(manager))
        await manager.connect(peer.ws)
        assert manager.active_connections == [peer.ws]
        assert await manager.broadcast("x") == BroadcastResult(1, 0, 0)
        await stage.settle()
        assert peer.take() == ["x"]
        manager.disconnect(peer.ws)
        assert manager.active_connections == []


async def test_peers_that_die_during_a_broadcast_harm_nobody() -> None:
    """Not the broadcaster, not those behind them, not their own handlers."""
    manager = ConnectionManager()
    async with open_stage() as stage:
        peers = await stage.connect_all([connected_to(manager, forgets=False)] * 6)
        peers[0].abort()
        peers[2].abort()
        peers[5].leave()
        result = await manager.broadcast("x")
        assert result.closed == 2
        await stage.settle()
        survivors = [peers[1], peers[3], peers[4]]
        assert manager.active_connections == [peer.ws for peer in survivors]
        assert [peer.take() for peer in survivors] == [["x"]] * 3
        assert all(peer.handler_ended for peer in peers if peer not in survivors)
        survivors[0].say("y")
        await stage.settle()
        assert [peer.take() for peer in survivors] == [["y"]] * 3


async def test_the_set_may_change_during_broadcasts() -> None:
    """Whoever comes and goes meanwhile, each hears what is said while it is there, once."""
    manager = ConnectionManager()
    said: list[str] = []
    heard: dict[int, list[str]] = {}

    async def come_and_go(ws: Websocket) -> None:
        await ws.recv()
        for turn in range(20):
            await manager.connect(ws)
            since = len(said)
            for _ in range(turn % 3):
                await trio.lowlevel.checkpoint()
            manager.disconnect(ws)
            heard.setdefault(id(ws), []).extend(said[since:])
            await trio.lowlevel.checkpoint()
        await idle(ws)

    async def talk(ws: Websocket) -> None:
        await ws.recv()
        await manager.connect(ws)
        for number in range(20):
            said.append(f"{ws.path_params['number']} says {number}")
            await manager.broadcast(said[-1])

    async with open_stage() as stage:
        peers = await stage.connect_all([come_and_go, talk] * 5)
        for peer in peers:
            peer.say("go")
        await stage.settle()
        assert len(said) == 100
        listeners = peers[::2]
        assert sum(len(heard[id(peer.ws)]) for peer in listeners) > 50
        for peer in listeners:
            assert peer.take() == heard[id(peer.ws)]


@pytest.mark.parametrize("end", ["leave", "abort", "return", "close"])
async def test_a_connection_that_ends_is_taken_off_by_itself(end: str) -> None:
    """The handler forgets to disconnect, or does not even notice."""
    manager = ConnectionManager()

    async def forgetful(ws: Websocket) -> None:
        await manager.connect(ws)
        if end == "return":
            await ws.recv()
        else:
            await trio.sleep_forever()

    async with open_stage() as stage:
        peers = await stage.connect_all([connected_to(manager), forgetful])
        if end == "leave":
            peers[1].leave()
        elif end == "abort":
            peers[1].abort()
        elif end == "return":
            peers[1].say("return")
        else:
            await peers[1].ws.close(4000, wait=False)
            assert manager.active_connections == [peers[0].ws]
        await stage.settle()
        assert manager.active_connections == [peers[0].ws]
        assert await manager.broadcast("x") == BroadcastResult(1, 0, 0)
    assert manager.active_connections == []


async def test_connecting_what_has_ended_is_no_error() -> None:
    """It is not active, and what had come from it can be received."""
    manager = ConnectionManager()
    received: list[Any] = []
    go_on = trio.Event()

    async def handler(ws: Websocket) -> None:
        await go_on.wait()
        await manager.connect(ws)
        received.append(list(manager.active_connections))
        received.extend([message async for message in ws])

    async with open_stage() as stage:
        peer = await stage.connect(handler)
        peer.say("last words")
        peer.leave()
        await stage.settle()
        go_on.set()
        await stage.settle()
        assert received == [[], "last words"]


async def test_a_client_that_left_before_connect_is_an_end_and_nothing_stays() -> None:
    manager = ConnectionManager()
    ends: list[str] = []
    go_on = trio.Event()

    async def handler(ws: Websocket) -> None:
        with trio.CancelScope(shield=True):
            await go_on.wait()
        try:
            await manager.connect(ws)
        except BaseException as error:
            ends.append(type(error).__name__)
            raise

    async with open_stage() as stage:
        peer = await stage.connect(handler, path="/manual")
        await peer.hang_up()
        await wait_all_tasks_blocked()
        go_on.set()
        await wait_all_tasks_blocked()
        assert ends in (["Cancelled"], ["WebsocketClosed"])
        assert manager.active_connections == []


async def test_a_cancelled_connect_connects_nothing() -> None:
    manager = ConnectionManager()

    async def handler(ws: Websocket) -> None:
        with trio.CancelScope() as scope:
            scope.cancel()
            await manager.connect(ws)
        assert scope.cancelled_caught
        assert manager.active_connections == []
        await manager.connect(ws)
        await idle(ws)

    async with open_stage() as stage:
        for path in ("/member", "/manual"):
            peer = await stage.connect(handler, path=path)
            assert manager.active_connections == [peer.ws]
            manager.disconnect(peer.ws)


async def test_a_farewell_reaches_the_others_from_a_cancelled_handler() -> None:
    """As it is said before the handler hears of its cancellation again."""
    manager = ConnectionManager()

    async def handler(ws: Websocket) -> None:
        await manager.connect(ws)
        try:
            await trio.sleep_forever()
        finally:
            manager.disconnect(ws)
            await manager.broadcast("bye")

    async with open_stage() as stage:
        peers = await stage.connect_all([handler, connected_to(manager)])
        peers[0].ws.nursery.cancel_scope.cancel()
        await stage.settle()
        assert peers[1].take() == ["bye"]
        assert manager.active_connections == [peers[1].ws]


async def test_one_manager_may_serve_several_applications() -> None:
    """It belongs to none: a module makes it before there is one."""
    manager = ConnectionManager()
    async with open_stage() as one, open_stage() as other:
        peers = [await stage.connect(connected_to(manager)) for stage in (one, other)]
        assert await manager.broadcast("x") == BroadcastResult(2, 0, 0)
        for stage in (one, other):
            await stage.settle()
        assert [peer.take() for peer in peers] == [["x"], ["x"]]


def test_a_manager_of_the_module_outlives_a_run() -> None:
    """What it remembers of a run that has ended stands in nobody's way."""
    manager = ConnectionManager()
    app = TrioWeb()

    app.add_websocket_route(connected_to(manager), "/chat")

    async def run() -> None:
        assert await manager.broadcast("to nobody") == BroadcastResult(0, 0, 0)
        async with open_client(app) as client, client.websocket("/chat") as ws:
            await ws.send("hello")
            await ws.expect("hello")

    for _ in range(2):
        trio.run(run)


async def test_another_run_is_refused_while_somebody_is_connected() -> None:
    """Connections can be written to in the thread of their application only."""
    manager = ConnectionManager()
    async with open_stage() as stage:
        peer = await stage.connect(connected_to(manager))
        with pytest.raises(RuntimeError, match="rooms live in the thread of their application"):
            await trio.to_thread.run_sync(lambda: trio.run(manager.broadcast, "from elsewhere"))
        await stage.settle()
        assert peer.take() == []
