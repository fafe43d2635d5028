"""The tables, as Markdown, and the raw numbers, as JSON."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

from tests.benchmarks.roster import PEERS, TRIOWEB
from tests.benchmarks.workloads import WORKLOADS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from tests.benchmarks.contest import Pace
    from tests.benchmarks.results import Results, Spread
    from tests.benchmarks.workloads import Workload

# Of a cell.
_NOTHING = "-"


def make_tables(
    results: Results, absent: Mapping[str, str], head: Mapping[str, str], pace: Pace
) -> str:
    """Make the whole report.

    Args:
        results: what was measured.
        absent: why peers are missing.
        head: what the numbers depend on.
        pace: of the run.
    """
    workloads = [
        workload
        for workload in WORKLOADS.values()
        if any(sample.workload == workload.name for sample in results.samples)
    ]
    names = [name for name in PEERS if any(sample.peer == name for sample in results.samples)]
    timed = [workload for workload in workloads if not workload.memory]
    others = [name for name in names if name != TRIOWEB.name]
    compressed = [workload for workload in timed if workload.compressed]
    parts = ["# trioweb beside its peers", _table(["", ""], [[k, v] for k, v in head.items()])]
    parts.append(
        _table(["peer", "versions"], [[PEERS[n].title, PEERS[n].versions()] for n in names])
    )
    missing = [f"- {PEERS[name].title} is left out: {why}" for name, why in absent.items()]
    missing += [
        f"- {PEERS[peer].title} is missing from {WORKLOADS[workload].title!r}: {why}"
        for (workload, peer), why in results.failures.items()
    ]
    missing += [
        f"- {PEERS[name].title} ended {share:.0%} of the connections of {workload.title!r} "
        "without answering Close"
        for workload in timed
        for name in names
        if (share := results.unclean(workload.name, name))
    ]
    parts.append("\n".join(missing))
    if others:
        parts.append(
            "## Ratios\n\nWhat the peer's server needs for each that trioweb's needs, of CPU or of "
            "memory: above 1 trioweb needs less. Medians of the ratios within a round, with "
            f"their quartiles; {pace.rounds} rounds of windows of {pace.seconds:g} s, "
            f"{pace.memory_rounds} for memory."
        )
        parts.append(_grid(workloads, others, lambda w, n: _show_ratio(results.ratio(w.name, n))))
    if timed:
        parts.append(
            "## CPU of the server\n\nµs for each message, delivery, connection or request."
        )
        parts.append(_grid(timed, names, lambda w, n: _show(results.cost(w.name, n), 1e6, 1)))
    if len(workloads) > len(timed):
        parts.append("## Memory of the server\n\nKiB (RSS) for each connection.")
        rest = [workload for workload in workloads if workload.memory]
        parts.append(_grid(rest, names, lambda w, n: _show(results.cost(w.name, n), 1 / 1024, 1)))
    if timed:
        parts.append("## Rates\n\nThe same in a second, on one processor.")
        parts.append(_grid(timed, names, lambda w, n: _show(results.rate(w.name, n), 1, 0)))
        parts.append("## CPU of the load\n\nµs for each of them: it must not be what is measured.")
        parts.append(_grid(timed, names, lambda w, n: _show(results.load(w.name, n), 1e6, 1)))
    if compressed:
        parts.append("## Compressed size\n\nBytes of an answer on the wire.")
        parts.append(_grid(compressed, names, lambda w, n: _show(results.payload(w.name, n), 1, 0)))
    return "\n\n".join(part for part in parts if part) + "\n"


def make_raw(
    results: Results, absent: Mapping[str, str], head: Mapping[str, str], pace: Pace
) -> str:
    """Make the JSON; the arguments are those of ``make_tables``."""
    names = {sample.peer for sample in results.samples}
    return json.dumps(
        {
            "head": dict(head),
            "pace": asdict(pace),
            "versions": {name: PEERS[name].versions() for name in PEERS if name in names},
            "absent": dict(absent),
            "failures": [
                {"workload": workload, "peer": peer, "why": why}
                for (workload, peer), why in results.failures.items()
            ],
            "workloads": {
                name: {"title": workload.title, "unit": workload.unit}
                for name, workload in WORKLOADS.items()
            },
            "samples": [asdict(sample) for sample in results.samples],
        },
        indent=1,
    )


def _grid(
    workloads: Sequence[Workload], names: Sequence[str], show: Callable[[Workload, str], str]
) -> str:
    rows = [[workload.title, *(show(workload, name) for name in names)] for workload in workloads]
    return _table(["", *(PEERS[name].title for name in names)], rows)


def _table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [titles, ["---", *("---:" for _ in titles[1:])], *rows]
    if len(titles) == 2:
        lines[1] = ["---", "---"]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _show_ratio(spread: Spread | None) -> str:
    if spread is None:
        return _NOTHING
    return f"{spread.middle:.2f} ({spread.low:.2f} to {spread.high:.2f})"


def _show(spread: Spread | None, scale: float, digits: int) -> str:
    return _NOTHING if spread is None else f"{spread.middle * scale:.{digits}f}"
