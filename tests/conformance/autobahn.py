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
KOSOKU = "from kosoku._cli import main; main()"

CORE = 301
"""Cases that are not about compression: 247, and 54 of 9.*."""
COMPRESSION_GROUPS = [f"12.{n}" for n in range(1, 6)] + [f"13.{n}" for n in range(1, 8)]
"""Five files under the default offer; one file under seven lists of offers."""
SIZES = 18
"""Cases of each such group: 1000 messages of 16 bytes to 128 KiB, in fragments or not."""
COMPRESSION = len(COMPRESSION_GROUPS) * SIZES

# These ask what the RFC leaves open, so that nothing but INFORMATIONAL can be said of them: a
# Close behind a large message, and codes of 5000 and above.
INFORMATIONAL = {"7.1.6", "7.13.1", "7.13.2"}


def sample_compression(count: int) -> list[str]:
    """Choose some cases of 12.* and 13.*: as many of each group, and of each size.

    Args:
        count: how many, a multiple of the number of groups (12).
    """
    of_each = count // len(COMPRESSION_GROUPS)
    # 7 and the number of sizes have no common factor: a walk in such steps meets every size
    # before it meets one again, and small ones next to large ones.
    return [
        f"{group}.{(index * of_each + step) * 7 % SIZES + 1}"
        for index, group in enumerate(COMPRESSION_GROUPS)
        for step in range(of_each)
    ]


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
            [sys.executable, "-c", KOSOKU, *options, f"127.0.0.1:{port}"],
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
