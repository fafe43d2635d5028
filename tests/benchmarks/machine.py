"""What the numbers depend on, and which processors the processes may use."""

from __future__ import annotations

import os
import platform
import resource
import time
from dataclasses import dataclass
from pathlib import Path

_CPUS = Path("/sys/devices/system/cpu")
# Beside the connections, of any of the processes.
_OTHER_FILES = 100


class MachineError(Exception):
    """This machine can't run the benchmark, or not all of it."""


@dataclass(frozen=True, slots=True)
class Processors:
    """Who runs where: the servers on one processor, in turns, the load on others."""

    server: int
    load: frozenset[int]

    @property
    def are_apart(self) -> bool:
        return self.server not in self.load


def choose_processors() -> Processors:
    """Choose among those that we may use.

    The load stays off the server's core, the one that two processors are threads of included,
    where others are left.
    """
    allowed = os.sched_getaffinity(0)
    server = max(allowed)
    load = allowed - _siblings(server) or allowed - {server} or allowed
    return Processors(server, frozenset(load))


def _siblings(processor: int) -> set[int]:
    """The processors that are threads of the same core; written as ``0,4`` or ``0-1``."""
    try:
        text = (_CPUS / f"cpu{processor}/topology/thread_siblings_list").read_text()
    except OSError:
        return {processor}
    found: set[int] = set()
    for part in text.strip().split(","):
        first, _, last = part.partition("-")
        found.update(range(int(first), int(last or first) + 1))
    return found


def check_kernel() -> None:
    """Look for what is read of a process.

    Raises:
        MachineError: it isn't there.
    """
    for name in ("schedstat", "smaps_rollup"):
        if not Path(f"/proc/self/{name}").exists():
            raise MachineError(f"there is no /proc/PID/{name} here; a Linux kernel has it")


def allow_files(connections: int) -> None:
    """Raise the limit of open files, which child processes inherit, to what they need.

    Args:
        connections: of one process.

    Raises:
        MachineError: the hard limit is below.
    """
    needed = connections + _OTHER_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < needed:
        if hard != resource.RLIM_INFINITY and hard < needed:
            raise MachineError(
                f"{needed} open files are needed, and the hard limit is {hard} (ulimit -Hn)"
            )
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))


def describe(processors: Processors) -> dict[str, str]:
    """Tell of the machine and of the moment."""
    if processors.are_apart:
        where = f"servers on {processors.server}, load on {_join(processors.load)}"
    else:
        where = "servers and load share one"
    return {
        "date": time.strftime("%Y-%m-%d %H:%M:%S %z"),
        "machine": f"{_model()}, {os.cpu_count()} processors: {where}",
        "kernel": f"{platform.system()} {platform.release()}, "
        f"load average {os.getloadavg()[0]:.1f} at the start",
        "Python": f"{platform.python_implementation()} {platform.python_version()}",
    }


def _join(processors: frozenset[int]) -> str:
    return ", ".join(map(str, sorted(processors)))


def _model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
