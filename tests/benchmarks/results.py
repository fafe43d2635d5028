"""Numbers, and what they come to."""

from __future__ import annotations

from dataclasses import dataclass, field
from statistics import median, quantiles
from typing import TYPE_CHECKING, NamedTuple

from tests.benchmarks.roster import TRIOWEB

if TYPE_CHECKING:
    from collections.abc import Iterable


@dataclass(frozen=True, slots=True)
class Sample:
    """One window of one peer.

    Args:
        workload: its name.
        peer: its name.
        round: samples of the same round were neighbours in time.
        count: messages, deliveries, connections or requests.
        spent: seconds of CPU that the server took; bytes of memory, where that is measured.
        seconds: how long it took.
        load: seconds of CPU that the clients took.
        payload: bytes of the answers, as they were on the wire.
        unclean: connections that the server ended without a Close of its own.
    """

    workload: str
    peer: str
    round: int
    count: int
    spent: float
    seconds: float = 0.0
    load: float = 0.0
    payload: int = 0
    unclean: int = 0

    @property
    def cost(self) -> float:
        return self.spent / self.count


class Spread(NamedTuple):
    """A median, and the quartiles around it."""

    low: float
    middle: float
    high: float


@dataclass(slots=True)
class Results:
    """All samples of a run, and why some are missing.

    Args:
        samples: in the order of time.
        failures: why a peer is missing from a workload, by the names of both.
    """

    samples: list[Sample] = field(default_factory=list)
    failures: dict[tuple[str, str], str] = field(default_factory=dict)

    def of(self, workload: str, peer: str) -> list[Sample]:
        """Find samples."""
        return [
            sample for sample in self.samples if sample.workload == workload and sample.peer == peer
        ]

    def cost(self, workload: str, peer: str) -> Spread | None:
        """Tell the seconds of CPU, or the bytes, of one of what is counted."""
        return _spread(sample.cost for sample in self.of(workload, peer))

    def ratio(self, workload: str, peer: str) -> Spread | None:
        """Tell what a peer needs for each that trioweb needs, both of the same round."""
        own = {sample.round: sample.cost for sample in self.of(workload, TRIOWEB.name)}
        return _spread(
            sample.cost / own[sample.round]
            for sample in self.of(workload, peer)
            if own.get(sample.round)
        )

    def rate(self, workload: str, peer: str) -> Spread | None:
        """Tell how many there were in a second."""
        return _spread(
            sample.count / sample.seconds for sample in self.of(workload, peer) if sample.seconds
        )

    def load(self, workload: str, peer: str) -> Spread | None:
        """Tell the seconds of CPU that one of them cost the clients."""
        return _spread(
            sample.load / sample.count for sample in self.of(workload, peer) if sample.seconds
        )

    def payload(self, workload: str, peer: str) -> Spread | None:
        """Tell the bytes of an answer."""
        return _spread(sample.payload / sample.count for sample in self.of(workload, peer))

    def unclean(self, workload: str, peer: str) -> float:
        """Tell the share of connections that the server ended without a Close of its own."""
        samples = self.of(workload, peer)
        return sum(sample.unclean for sample in samples) / max(1, sum(s.count for s in samples))


def _spread(values: Iterable[float]) -> Spread | None:
    found = sorted(values)
    if not found:
        return None
    if len(found) == 1:
        return Spread(found[0], found[0], found[0])
    low, _, high = quantiles(found, n=4, method="inclusive")
    return Spread(low, median(found), high)
