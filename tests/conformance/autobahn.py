"""The Autobahn test suite against an echo server of ours, driven by kosoku."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

SERVER = Path(__file__).with_name("echo_server.py")
KOSOKU = Path(__file__).with_name("kosoku_runner.py")

CORE = 301
"""Cases that are not about compression: 247, and 54 of 9.*."""
COMPRESSION_GROUPS = [f"12.{n}" for n in range(1, 6)] + [f"13.{n}" for n in range(1, 8)]
"""Five files under the default offer; one file under seven lists of offers."""
SIZES = 18
"""Cases of each such group: 1000 messages of 16 bytes to 128 KiB, in fragments or not."""
LARGE = {9, 10, 14, 15, 16, 17, 18}
"""Those of 64 KiB and more."""
COMPRESSION = len(COMPRESSION_GROUPS) * SIZES

# These ask what the RFC leaves open, so that nothing but INFORMATIONAL can be said of them: a
# Close behind a large message, and codes of 5000 and above.
INFORMATIONAL = {"7.1.6", "7.13.1", "7.13.2"}


def sample_compression() -> list[str]:
    """Choose 60 cases of 12.* and 13.*: five of each group, each size at least once.

    Each of the large ones, which take a hundred times as long as a small one, is there once.
    """
    large = [size for size in range(1, SIZES + 1) if size in LARGE]
    small = [size for size in range(1, SIZES + 1) if size not in LARGE]
    sample: list[str] = []
    for index, group in enumerate(COMPRESSION_GROUPS):
        sizes = [small[(index * 4 + step) % len(small)] for step in range(5)]
        if index < len(large):
            sizes[-1] = large[index]
        sample += [f"{group}.{size}" for size in sizes]
    return sample


class Verdict(NamedTuple):
    """What the suite says of a case: of what was exchanged, and of how it was closed."""

    behavior: str
    close: str
    code: int | None


class Report(NamedTuple):
    """A run of the suite."""

    verdicts: Mapping[str, Verdict]
    exit_code: int
    output: str

    @property
    def wrong(self) -> dict[str, Verdict]:
        """The cases that are anything but OK: non-strict and unimplemented ones too."""
        return {
            number: verdict
            for number, verdict in self.verdicts.items()
            if verdict[:2] != ("OK", "OK")
            and not (number in INFORMATIONAL and verdict[:2] == ("INFORMATIONAL", "INFORMATIONAL"))
        }


@contextmanager
def echo_server(compression: str | None) -> Iterator[int]:
    """Run the echo server in a process of its own, so that it has its own CPU; its port."""
    with subprocess.Popen(
        [sys.executable, str(SERVER), compression or "none"], stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line.strip(), "the echo server ended before it told its port"
            yield int(line)
        finally:
            process.kill()


def run_suite(
    outdir: Path,
    *,
    compression: str | None = None,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    parallel: int = 4,
    timeout: float = 100,
) -> Report:
    """Run cases of the suite, and read its report.

    Args:
        outdir: where the report goes, as JSON and HTML.
        compression: WEBSOCKET_COMPRESSION of the server.
        include: numbers or patterns such as ``12.*``; none: all.
        exclude: likewise.
        parallel: how many cases at once.
        timeout: seconds for all of them.

    Raises:
        subprocess.TimeoutExpired: it took longer.
    """
    options = ["-p", str(parallel), "-o", str(outdir)]
    options += [word for case in include for word in ("-i", case)]
    options += [word for case in exclude for word in ("-x", case)]
    with echo_server(compression) as port:
        finished = subprocess.run(
            [sys.executable, str(KOSOKU), *options, f"127.0.0.1:{port}"],
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
    output = finished.stdout + finished.stderr
    report = outdir / "index.json"
    assert report.exists(), output
    verdicts = {
        number: Verdict(case["behavior"], case["behaviorClose"], case["remoteCloseCode"])
        for agent in json.loads(report.read_text()).values()
        for number, case in agent.items()
    }
    return Report(verdicts, finished.returncode, output)
