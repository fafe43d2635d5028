"""trioweb beside its peers: ``python -m tests.benchmarks``; docs/benchmarks.md tells all.

Prints the tables when it is done, and how it goes to stderr meanwhile.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from tests.benchmarks.contest import Contest, Pace
from tests.benchmarks.load import LoadError, build_load
from tests.benchmarks.machine import (
    MachineError,
    allow_files,
    check_kernel,
    choose_processors,
    describe,
)
from tests.benchmarks.plot import draw_ratios
from tests.benchmarks.report import make_raw, make_tables
from tests.benchmarks.roster import PEERS, TRIOWEB
from tests.benchmarks.workloads import WORKLOADS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from tests.benchmarks.workloads import Workload

_PACE = Pace(rounds=12, seconds=0.3, memory_rounds=3)
_QUICK = Pace(rounds=3, seconds=0.1, memory_rounds=1)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line.

    Raises:
        SystemExit: with 2 when the benchmark can't run here.
    """
    options = _parser().parse_args(arguments)
    quick = _QUICK if options.quick else _PACE
    pace = Pace(
        options.rounds or quick.rounds,
        options.seconds or quick.seconds,
        min(options.rounds or quick.memory_rounds, quick.memory_rounds),
    )
    # Whoever ends us by SIGTERM wants the blocks, and so the processes, ended as well.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    names = dict.fromkeys([TRIOWEB.name, *(options.peers or PEERS)])
    workloads = [WORKLOADS[name] for name in options.workloads or WORKLOADS]
    processors = choose_processors()
    with tempfile.TemporaryDirectory() as directory:
        try:
            check_kernel()
            program = build_load(Path(directory))
        except (MachineError, LoadError) as error:
            _say(str(error))
            raise SystemExit(2) from error
        # Before the servers start, which inherit the limit.
        workloads = [workload for workload in workloads if _is_possible(workload)]
        os.sched_setaffinity(0, processors.load)
        head = describe(processors)
        with Contest([PEERS[name] for name in names], program, processors, pace, _say) as contest:
            for workload in workloads:
                contest.measure(workload)
                if options.output is not None:
                    # Each time: who loses patience has what was measured so far.
                    _write(options.output, contest, head, pace)
    print(make_tables(contest.results, contest.absent, head, pace))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks", description="Measure trioweb beside its peers."
    )
    parser.add_argument(
        "--workloads", nargs="+", choices=WORKLOADS, metavar="NAME", help=", ".join(WORKLOADS)
    )
    parser.add_argument(
        "--peers",
        nargs="+",
        choices=PEERS,
        metavar="NAME",
        help=f"{', '.join(PEERS)}; trioweb takes part in any case",
    )
    parser.add_argument(
        "--rounds",
        type=_positive(int),
        help=f"turns of each peer ({_PACE.rounds}), of memory {_PACE.memory_rounds} at most",
    )
    parser.add_argument("--seconds", type=_positive(float), help=f"of a window ({_PACE.seconds})")
    parser.add_argument(
        "--quick",
        action="store_true",
        help=f"{_QUICK.rounds} rounds of {_QUICK.seconds} s: to see it work, not for numbers",
    )
    parser.add_argument(
        "--output",
        type=Path,
        metavar="DIR",
        help="write the tables, the raw numbers and a plot there",
    )
    return parser


def _positive(kind: type[int | float]) -> Callable[[str], float]:
    def parse(text: str) -> float:
        number = kind(text)
        if not 0 < number < 3600:
            raise argparse.ArgumentTypeError(f"{text} is not above 0 and below 3600")
        return number

    return parse


def _write(directory: Path, contest: Contest, head: Mapping[str, str], pace: Pace) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    for name, text in (
        ("benchmarks.md", make_tables(contest.results, contest.absent, head, pace)),
        ("benchmarks.json", make_raw(contest.results, contest.absent, head, pace)),
        ("benchmarks.svg", draw_ratios(contest.results, head)),
    ):
        (directory / name).write_text(text, encoding="utf-8")


def _is_possible(workload: Workload) -> bool:
    try:
        allow_files(workload.connections)
    except MachineError as error:
        _say(f"{workload.title} is left out: {error}")
        return False
    return True


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
