"""The clients: load.c, built on the spot, and driven by lines."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Self

from tests.benchmarks import wire
from tests.benchmarks.workloads import Mode

if TYPE_CHECKING:
    from types import TracebackType

    from tests.benchmarks.machine import Processors
    from tests.benchmarks.workloads import Workload

_SOURCE = Path(__file__).with_name("load.c")
_COMPILERS = ("cc", "gcc", "clang")
# Different ones, so that no compressor's context holds the message that it is given: windows of
# 32 KiB, the largest, remember 32 of 1 KiB.
_RECORDS = 101
_MASKS = 16


class LoadError(Exception):
    """The load can't be built, or something came back that shouldn't have."""


class Run(NamedTuple):
    """What happened between two commands.

    Attributes:
        units: messages, deliveries, connections or responses.
        payload: bytes of them as they were on the wire.
        unclean: connections whose Close had no answer but the end of the stream.
        seconds: from the first exchange's begin to the last one's end.
        cpu: seconds of CPU that the clients took.
    """

    units: int
    payload: int
    unclean: int
    seconds: float
    cpu: float


def find_compiler() -> str | None:
    """Tell where a C compiler is: the one that ``CC`` names, or one of the usual."""
    named = os.environ.get("CC")
    for name in (named,) if named else _COMPILERS:
        path = shutil.which(name)
        if path is not None:
            return path
    return None


def build_load(directory: Path) -> Path:
    """Compile load.c.

    Raises:
        LoadError: there is no compiler, or it fails.
    """
    compiler = find_compiler()
    if compiler is None:
        raise LoadError(
            "the clients are a C program (tests/benchmarks/load.c), and there is no compiler: "
            f"install {' or '.join(_COMPILERS)}, or name one by CC"
        )
    program = directory / "load"
    done = subprocess.run(
        [compiler, "-O2", "-std=gnu11", "-o", program, _SOURCE], capture_output=True, text=True
    )
    if done.returncode != 0:
        raise LoadError(f"{compiler} can't build {_SOURCE.name}: {done.stderr}")
    return program


class Load:
    """The clients of one workload and one server, until the block ends.

    Args:
        program: what ``build_load`` has built.
        workload: what to do.
        port: to whom.
        processors: which it may use, and whether they are its own: then it never sleeps while it
            is measured, since the server would pay for waking it.
    """

    def __init__(
        self, program: Path, workload: Workload, port: int, processors: Processors
    ) -> None:
        self._files = tempfile.TemporaryDirectory()
        self._process = subprocess.Popen(
            [
                program,
                *_arguments(workload, port, Path(self._files.name)),
                *(["-s"] if processors.are_apart else []),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            bufsize=1,
        )
        os.sched_setaffinity(self._process.pid, processors.load)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._process.kill()
        self._process.communicate()
        self._files.cleanup()

    def open(self) -> None:
        """Connect all, with their handshakes."""
        self._command("open")

    def close(self) -> None:
        """Close all, with their handshakes."""
        self._command("close")

    def run(self, seconds: float) -> Run:
        """Exchange for so long, and until the last answer has come; once at least."""
        units, payload, unclean, duration, cpu = self._command(f"run {seconds:f}").split()
        return Run(int(units), int(payload), int(unclean), float(duration), float(cpu))

    def _command(self, line: str) -> str:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        try:
            self._process.stdin.write(line + "\n")
            answer = self._process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        if not answer:
            raise LoadError(self._process.stderr.read().strip() or "the load has died")
        return answer


def _arguments(workload: Workload, port: int, directory: Path) -> list[str | Path]:
    request = directory / "request"
    if workload.mode is Mode.HTTP:
        request.write_bytes(wire.make_get(port, workload.path, browser=workload.browser))
    else:
        request.write_bytes(
            wire.make_upgrade(
                port, workload.path, offer=workload.compressed, browser=workload.browser
            )
        )
    arguments: list[str | Path] = [
        f"-m{workload.mode}",
        f"-p{port}",
        f"-n{workload.connections}",
        f"-d{workload.depth}",
        f"-l{workload.size}",
        f"-o{wire.TEXT}",
        "-r",
        request,
    ]
    if workload.mode in (Mode.ECHO, Mode.BROADCAST):
        frames = directory / "frames"
        frames.write_bytes(
            b"".join(len(frame).to_bytes(4, "little") + frame for frame in _frames(workload))
        )
        arguments += ["-f", frames]
    if workload.compressed:
        arguments.append("-z")
    return arguments


def _frames(workload: Workload) -> list[bytes]:
    if workload.compressed:
        payloads = [
            wire.deflate(wire.make_record(number, workload.size)) for number in range(_RECORDS)
        ]
    else:
        payloads = [wire.make_text(workload.size)] * _MASKS
    return [
        wire.make_frame(payload, os.urandom(4), compressed=workload.compressed)
        for payload in payloads
    ]
