"""The harness counts right, and reports what it has counted. Speed is not judged here."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree

import pytest
import trio

from tests.benchmarks.load import Load, LoadError, build_load, find_compiler
from tests.benchmarks.machine import MachineError, check_kernel, choose_processors
from tests.benchmarks.results import Results, Sample
from tests.benchmarks.workloads import BODY, Mode, Workload
from trioweb import TrioWeb, Websocket

if TYPE_CHECKING:
    from tests.benchmarks.load import Run

ROOT = Path(__file__).parents[2]
OPTIONS = [
    *("--peers", "trioweb-context"),
    *("--workloads", "echo-1", "deflate-deep-10"),
    *("--rounds", "2", "--seconds", "0.01"),
]


def why_not() -> str | None:
    """Tell what this machine lacks."""
    try:
        check_kernel()
    except MachineError as error:
        return str(error)
    return None if find_compiler() else "the clients are a C program, and there is no compiler"


pytestmark = pytest.mark.skipif(why_not() is not None, reason=why_not() or "")


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_load(tmp_path_factory.mktemp("load"))


class Counted:
    """An application with the routes of the peers, which counts what it does."""

    def __init__(self) -> None:
        self.count = 0
        self.app = TrioWeb("counted", config={"WEBSOCKET_COMPRESSION": "deflate"})
        self.app.websocket("/echo")(self.echo)
        self.app.websocket("/broadcast")(self.broadcast)
        self.app.get("/")(self.hello)

    async def echo(self, ws: Websocket) -> None:
        async for message in ws:
            self.count += 1
            await ws.send(message)

    async def broadcast(self, ws: Websocket) -> None:
        async with self.app.room("everyone").join(ws) as room:
            async for message in ws:
                self.count += room.broadcast(message).sent

    async def hello(self) -> str:
        self.count += 1
        return BODY

    async def run(self, program: Path, workload: Workload, seconds: float = 0.02) -> Run:
        """Let the load do a workload."""
        async with trio.open_nursery() as nursery:
            addresses = await nursery.start(self.app.serve, "127.0.0.1", 0)
            port, processors = addresses[0][1], choose_processors()
            with Load(program, workload, port, processors) as load:
                if workload.mode is not Mode.CONNECT:
                    await trio.to_thread.run_sync(load.open)
                while workload.mode is Mode.BROADCAST and not self.everyone_is_there(workload):
                    await trio.sleep(0.01)
                run = await trio.to_thread.run_sync(partial(load.run, seconds))
                await trio.to_thread.run_sync(load.close)
            nursery.cancel_scope.cancel()
        return run

    def everyone_is_there(self, workload: Workload) -> bool:
        return len(self.app.room("everyone").members) == workload.connections


@pytest.mark.parametrize(
    "workload",
    [
        Workload("", "", Mode.ECHO, 3),
        Workload("", "", Mode.ECHO, 3, depth=10),
        Workload("", "", Mode.ECHO, 2, depth=3, size=70_000),
        Workload("", "", Mode.ECHO, 2, depth=10, size=1024, compressed=True),
        Workload("", "", Mode.BROADCAST, 7),
        Workload("", "", Mode.HTTP, 3, size=len(BODY), browser=True),
    ],
    ids=lambda workload: f"{workload.mode}-{workload.depth}-{workload.size}",
)
async def test_load_counts_what_the_server_counts(program: Path, workload: Workload) -> None:
    """Each message is counted once, and no other."""
    server = Counted()
    run = await server.run(program, workload)
    assert run.units == server.count >= workload.connections
    if not workload.compressed:
        assert run.payload == run.units * workload.size


async def test_load_counts_connections(program: Path) -> None:
    """A connection counts when it has ended, by Close on both sides."""
    server = Counted()
    run = await server.run(program, Workload("", "", Mode.CONNECT, 3))
    assert run.units >= 3
    assert run.unclean == 0


async def test_one_round_at_least(program: Path) -> None:
    """Each connection has its turn, however short the window."""
    run = await Counted().run(program, Workload("", "", Mode.ECHO, 5, depth=2), seconds=0)
    assert run.units == 10


async def test_load_refuses_a_wrong_answer(program: Path) -> None:
    """An echo that isn't one stops the load, which tells."""

    class Shortening(Counted):
        async def echo(self, ws: Websocket) -> None:
            async for message in ws:
                await ws.send(message[:-1])

    with pytest.RaisesGroup(pytest.RaisesExc(LoadError, match="63 bytes")):
        await Shortening().run(program, Workload("", "", Mode.ECHO, 1))


async def test_load_refuses_a_missing_route(program: Path) -> None:
    """A handshake that fails stops the load, which tells."""
    server = Counted()
    server.app = TrioWeb("empty")
    with pytest.RaisesGroup(pytest.RaisesExc(LoadError, match="no upgrade: HTTP/1.1 404")):
        await server.run(program, Workload("", "", Mode.ECHO, 1))


def test_ratios_are_of_the_same_round() -> None:
    """A machine that was half as fast for a while changes costs, but no ratio."""
    results = Results()
    for number, slowness in enumerate([1, 2, 1, 1]):
        results.samples.append(Sample("echo-1", "trioweb", number, 100, 0.001 * slowness))
        results.samples.append(Sample("echo-1", "sanic", number, 50, 0.001 * slowness))
    assert results.ratio("echo-1", "sanic") == (2, 2, 2)
    assert results.cost("echo-1", "trioweb") == pytest.approx((1e-5, 1e-5, 1.25e-5))
    assert results.ratio("echo-1", "aiohttp") is None


def test_report(tmp_path: Path) -> None:
    """The command measures, and writes tables, raw numbers and a plot."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks", *OPTIONS, "--output", tmp_path],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=50,
    )
    assert done.returncode == 0, done.stderr
    tables = (tmp_path / "benchmarks.md").read_text(encoding="utf-8")
    assert done.stdout == tables + "\n"
    for line in (
        "| date | ",
        "| compressed echo 1 KiB, ten deep | ",
        "| echo 64 B, 1 connection |",
    ):
        assert line in tables
    raw = json.loads((tmp_path / "benchmarks.json").read_text())
    samples = [Sample(**sample) for sample in raw["samples"]]
    assert [(s.workload, s.peer) for s in sorted(samples, key=lambda s: (s.workload, s.peer))] == [
        ("deflate-deep-10", "trioweb"),
        ("deflate-deep-10", "trioweb"),
        ("deflate-deep-10", "trioweb-context"),
        ("deflate-deep-10", "trioweb-context"),
        ("echo-1", "trioweb"),
        ("echo-1", "trioweb"),
    ]
    assert all(1e-6 < sample.cost < 1 and sample.count > 0 for sample in samples)
    plot = ElementTree.parse(tmp_path / "benchmarks.svg").getroot()
    assert "trioweb (deflate-context)" in list(plot.itertext())
