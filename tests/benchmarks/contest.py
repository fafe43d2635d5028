"""Rounds of short windows, in which all peers have their turns.

What differs between two moments of a machine (its clock, its neighbours, the temperature) is the
same for all who are measured in the same round, so a ratio is made of the samples of one round.
All servers stand ready; none of them has anything to do while another one has its window.
"""

from __future__ import annotations

import random
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.benchmarks.checks import JOINING, CheckError, check_peer
from tests.benchmarks.load import Load, LoadError
from tests.benchmarks.results import Results, Sample
from tests.benchmarks.server import Server, ServerError
from tests.benchmarks.workloads import Mode, Workload

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path
    from typing import Self

    from tests.benchmarks.machine import Processors
    from tests.benchmarks.roster import Peer

_ERRORS = (LoadError, ServerError, CheckError)
# Before each window, a part of its length: connections that have rested get their segments
# acknowledged at once for a while (Linux, after the retransmission timeout), which costs the
# sender; and caches are cold.
_LEAD = 0.25
# Rounds of windows that are thrown away: what is imported, cached or specialized at first use.
_WARM_UP = 1
# Of a memory's measurement: connections before it, for the same reason.
_WARM_UP_CONNECTIONS = 50
# Seconds until memory is looked at, in which servers may tidy up.
_SETTLING = 0.5


@dataclass(frozen=True, slots=True)
class Pace:
    """How long it takes.

    Args:
        rounds: how often each peer has its turn.
        seconds: of a window.
        memory_rounds: the same for memory, where each turn is a new server.
    """

    rounds: int
    seconds: float
    memory_rounds: int


class Contest:
    """All servers, until the block ends.

    Args:
        peers: who takes part.
        program: the load.
        processors: who runs where.
        pace: how long it takes.
        say: takes lines about how it goes.

    Attributes:
        results: grow with each workload.
        absent: why a peer doesn't take part at all, by its name.
    """

    def __init__(
        self,
        peers: Iterable[Peer],
        program: Path,
        processors: Processors,
        pace: Pace,
        say: Callable[[str], None],
    ) -> None:
        self._peers = list(peers)
        self._program = program
        self._processors = processors
        self._pace = pace
        self._say = say
        self._servers: dict[str, Server] = {}
        self._order = random.Random(0)
        self.results = Results()
        self.absent: dict[str, str] = {}

    def __enter__(self) -> Self:
        try:
            for peer in self._peers:
                self._start(peer)
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def _start(self, peer: Peer) -> None:
        missing = peer.missing()
        if missing is not None:
            self.absent[peer.name] = f"{missing} is not installed"
        else:
            try:
                server = Server(peer, self._processors.server)
                self._servers[peer.name] = server
                check_peer(peer, server.port)
            except _ERRORS as error:
                self.absent[peer.name] = str(error)
                if peer.name in self._servers:
                    self._servers.pop(peer.name).stop()
        if peer.name in self.absent:
            self._say(f"{peer.name} is left out: {self.absent[peer.name]}")

    def _stop(self) -> None:
        for server in self._servers.values():
            server.stop()
        self._servers.clear()

    def measure(self, workload: Workload) -> None:
        """Let all who can have their turns at a workload."""
        began = time.monotonic()
        able = [
            peer
            for peer in self._peers
            if peer.name in self._servers and workload.feature in peer.features
        ]
        if workload.memory:
            self._measure_memory(workload, able)
        else:
            self._measure_cpu(workload, able)
        self._say(f"{workload.title}: {time.monotonic() - began:.0f} s")

    def _measure_cpu(self, workload: Workload, peers: Sequence[Peer]) -> None:
        loads: dict[str, Load] = {}
        with ExitStack() as stack:
            for peer in peers:
                port = self._servers[peer.name].port
                load = Load(self._program, workload, port, self._processors)
                loads[peer.name] = stack.enter_context(load)
                with self._failing(workload, peer, loads):
                    if workload.mode is not Mode.HTTP:
                        load.open()
            if workload.mode is Mode.BROADCAST:
                time.sleep(JOINING)
            for number in range(-_WARM_UP, self._pace.rounds):
                turns = [peer for peer in peers if peer.name in loads]
                self._order.shuffle(turns)
                for peer in turns:
                    with self._failing(workload, peer, loads):
                        sample = self._window(workload, peer, loads[peer.name], number)
                        if number >= 0:
                            self.results.samples.append(sample)
            for peer in peers:
                if peer.name in loads and workload.mode is not Mode.HTTP:
                    with self._failing(workload, peer, loads):
                        loads[peer.name].close()

    def _window(self, workload: Workload, peer: Peer, load: Load, number: int) -> Sample:
        server = self._servers[peer.name]
        if workload.mode is Mode.HTTP:
            # Servers close connections that rest for longer than the other peers' turns take.
            load.open()
        load.run(self._pace.seconds * _LEAD)
        before = server.cpu()
        run = load.run(self._pace.seconds)
        spent = (server.cpu() - before) / 1e9
        if workload.mode is Mode.HTTP:
            load.close()
        return Sample(
            workload.name,
            peer.name,
            number,
            run.units,
            spent,
            seconds=run.seconds,
            load=run.cpu,
            payload=run.payload,
            unclean=run.unclean,
        )

    @contextmanager
    def _failing(self, workload: Workload, peer: Peer, loads: dict[str, Load]) -> Iterator[None]:
        """After a failure of one peer the others go on."""
        try:
            yield
        except _ERRORS as error:
            loads.pop(peer.name)
            self._fail(workload, peer, error)
            # What it has left behind in the server is not to be seen in the next workload.
            self._servers.pop(peer.name).stop()
            self._start(peer)

    def _fail(self, workload: Workload, peer: Peer, error: Exception) -> None:
        self.results.failures[workload.name, peer.name] = str(error)
        self._say(f"{workload.title}, {peer.name}: {error}")

    def _measure_memory(self, workload: Workload, peers: Sequence[Peer]) -> None:
        for number in range(self._pace.memory_rounds):
            for peer in peers:
                if (workload.name, peer.name) in self.results.failures:
                    continue
                try:
                    self.results.samples.append(self._memory(workload, peer, number))
                except _ERRORS as error:
                    self._fail(workload, peer, error)

    def _memory(self, workload: Workload, peer: Peer, number: int) -> Sample:
        """Take a server of its own: one that has served has memory to give again."""
        few = Workload("", "", workload.mode, _WARM_UP_CONNECTIONS, size=workload.size)
        with Server(peer, self._processors.server) as server:
            with Load(self._program, few, server.port, self._processors) as load:
                load.open()
                load.run(0)
                load.close()
            time.sleep(_SETTLING)
            before = server.memory()
            with Load(self._program, workload, server.port, self._processors) as load:
                load.open()
                # An exchange of each: so its handler is in its loop, and has all that it needs.
                load.run(0)
                time.sleep(_SETTLING)
                spent = server.memory() - before
        return Sample(workload.name, peer.name, number, workload.connections, spent)
