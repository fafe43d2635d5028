"""A server to talk to, and the command in a process of its own."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from contextlib import ExitStack, contextmanager
from pathlib import Path
from threading import Timer
from typing import IO, TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).parents[3]
# Seconds after which a client is killed, so that whoever reads it comes to an end and fails.
PATIENCE = 30.0

# Takes stdin for the terminal whose keys send signals, and becomes the rest of its command line.
_CONTROLLED = (
    "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); "
    "os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
)


class Client:
    """The command, its pipes, and its end.

    Args:
        process: with pipes for stdin, stdout and stderr where the test wants them.
    """

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process

    def send(self, text: str | bytes) -> None:
        """Write to its stdin."""
        assert self.process.stdin is not None
        self.process.stdin.write(text if isinstance(text, bytes) else text.encode())
        self.process.stdin.flush()

    def end_input(self) -> None:
        """Close its stdin."""
        assert self.process.stdin is not None
        self.process.stdin.close()

    def read_line(self) -> str:
        """The next line of stdout."""
        return self._read_line(self.process.stdout)

    def read_remark(self) -> str:
        """The next line of stderr."""
        return self._read_line(self.process.stderr)

    def interrupt(self, number: signal.Signals = signal.SIGINT) -> None:
        """Send it a signal."""
        self.process.send_signal(number)

    def wait(self) -> int:
        """Its exit code, when it has ended by itself."""
        return self.process.wait(PATIENCE)

    def finish(self) -> tuple[str, str, int]:
        """End its input; the rest of stdout and stderr, and the exit code.

        What has no pipe is empty.
        """
        out, err = self.process.communicate(timeout=PATIENCE)
        return (out or b"").decode(), (err or b"").decode(), self.process.returncode

    @staticmethod
    def _read_line(stream: IO[bytes] | None) -> str:
        assert stream is not None
        line = stream.readline().decode()
        assert line.endswith("\n"), f"ended with {line!r}"
        return line[:-1]


@pytest.fixture(scope="session")
def server() -> Iterator[str]:
    """The address of a server with ``app.py``, without a scheme."""
    app = str(Path(__file__).with_name("app.py"))
    command = [sys.executable, "-m", "trioweb", "run", app, "--port", "0"]
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        try:
            assert process.stdout is not None
            found = re.search(r"http://(\S+)", process.stdout.readline())
            assert found is not None
            yield found[1].rstrip("/")
        finally:
            process.terminate()
            process.wait(timeout=10)


@pytest.fixture
def start() -> Iterator[Callable[..., Client]]:
    """Starts ``trioweb connect`` with arguments; what still runs at the end is killed."""
    with ExitStack() as clients:

        def start_client(*arguments: str, **pipes: int | IO[bytes] | None) -> Client:
            return clients.enter_context(run_client(arguments, pipes))

        yield start_client


def is_terminal(stream: int | IO[bytes] | None) -> bool:
    """Whether a stream for a process is a descriptor of a terminal."""
    return isinstance(stream, int) and stream >= 0 and os.isatty(stream)


@contextmanager
def run_client(
    arguments: tuple[str, ...], pipes: dict[str, int | IO[bytes] | None]
) -> Iterator[Client]:
    """The command in a process of its own, for `PATIENCE` seconds at most."""
    streams = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE) | pipes
    environment = {**os.environ, "PYTHONFAULTHANDLER": "1", "TERM": "xterm"}
    environment.pop("NO_COLOR", None)
    prefix = ["-c", _CONTROLLED] if is_terminal(pipes.get("stdin")) else []
    process: subprocess.Popen[bytes] = subprocess.Popen(
        [sys.executable, *prefix, "-m", "trioweb", "connect", *arguments],
        cwd=ROOT,
        env=environment,
        start_new_session=True,
        **streams,  # type: ignore[call-overload]
    )
    killer = Timer(PATIENCE, process.kill)
    killer.start()
    try:
        yield Client(process)
    finally:
        killer.cancel()
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream is not None:
                try:
                    stream.close()
                except BrokenPipeError:
                    pass  # what was never flushed has nobody to go to
