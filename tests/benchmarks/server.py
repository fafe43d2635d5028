"""A peer's process, and what the kernel tells of it."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from types import TracebackType

    from tests.benchmarks.roster import Peer

_ROOT = Path(__file__).parents[2]
# Seconds. An import takes one; far more is a hang.
_START_PATIENCE = 30.0
# Seconds between two looks at whether a server has come to rest, and how many at most.
_LOOK = 0.001
_LOOKS = 500
# <linux/prctl.h>
_PR_SET_PDEATHSIG = 1


class ServerError(Exception):
    """A peer doesn't start, or has died."""


class Server:
    """One that runs until the block ends.

    Args:
        peer: what to run.
        processor: the only one that it may use.

    Attributes:
        port: at 127.0.0.1.

    Raises:
        ServerError: it doesn't start; what it printed last is told.
    """

    def __init__(self, peer: Peer, processor: int) -> None:
        self.peer = peer
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed by stop()
        module, *arguments = peer.command
        self._process = subprocess.Popen(
            [sys.executable, "-m", f"tests.benchmarks.peers.{module}", *arguments],
            cwd=_ROOT,
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
            preexec_fn=partial(_prepare, processor),
        )
        self._proc = Path("/proc") / str(self._process.pid)
        try:
            self.port = self._wait_port()
        except BaseException:
            self.stop()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def _wait_port(self) -> int:
        deadline = time.monotonic() + _START_PATIENCE
        while time.monotonic() < deadline:
            for line in self.last_lines(1000):
                if line.startswith("port "):
                    return int(line.removeprefix("port "))
            self.check()
            time.sleep(0.01)
        raise ServerError(f"{self.peer.name} has printed no port within {_START_PATIENCE:g} s")

    def last_lines(self, count: int) -> list[str]:
        """Tell what it has printed."""
        # The offset is the child's as well, which writes at it: read without moving it.
        data = os.pread(self._log.fileno(), os.fstat(self._log.fileno()).st_size, 0)
        return data.decode(errors="replace").splitlines()[-count:]

    def check(self) -> None:
        """Make sure that it runs.

        Raises:
            ServerError: it doesn't.
        """
        code = self._process.poll()
        if code is not None:
            lines = " / ".join(self.last_lines(3))
            raise ServerError(f"{self.peer.name} has ended with exit code {code}: {lines}")

    def cpu(self) -> int:
        """Tell the nanoseconds of CPU of all its threads, once they have come to rest.

        Until then the kernel's number lags by as much as a tick.
        """
        rested = 0
        for _ in range(_LOOKS):
            # Twice: between two looks it may have been asleep for a moment in the middle of work.
            rested = rested + 1 if self._is_asleep() else 0
            if rested == 2:
                break
            time.sleep(_LOOK)
        return sum(int((task / "schedstat").read_text().split()[0]) for task in self._tasks())

    def _is_asleep(self) -> bool:
        # The state is what comes first behind the name, which is in parentheses.
        return all(
            (task / "stat").read_text().rpartition(")")[2].split()[0] == "S"
            for task in self._tasks()
        )

    def _tasks(self) -> list[Path]:
        self.check()
        return list((self._proc / "task").iterdir())

    def memory(self) -> int:
        """Tell the bytes of memory that it has in use (RSS)."""
        self.check()
        for line in (self._proc / "smaps_rollup").read_text().splitlines():
            if line.startswith("Rss:"):
                return int(line.split()[1]) * 1024
        raise ServerError(f"the kernel doesn't tell the memory of {self.peer.name}")

    def stop(self) -> None:
        """End it at once; it has nothing to save."""
        self._process.kill()
        self._process.wait()
        self._log.close()


def _prepare(processor: int) -> None:
    """Pin the child, and let it die with us, however we die."""
    os.sched_setaffinity(0, {processor})
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
