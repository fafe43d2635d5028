"""The whole Autobahn suite: ``python -m tests.conformance [DIRECTORY]``.

301 cases without compression, and each of the 216 of 12.* and 13.* under either kind of it. The
reports go to the directory (``build/autobahn``), the exit code is 1 when a case is not OK.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from tests.conformance.autobahn import COMPRESSION, CORE, run_suite

SECONDS = 3600
"""For each of the three runs; far more than they take, so that a hang ends some day."""


def main() -> int:
    outdir = Path(sys.argv[1] if len(sys.argv) > 1 else "build/autobahn")
    failed = False
    for compression, include, exclude, expected in (
        (None, (), ("12.*", "13.*"), CORE),
        ("deflate", ("12.*", "13.*"), (), COMPRESSION),
        ("deflate-context", ("12.*", "13.*"), (), COMPRESSION),
    ):
        began = time.monotonic()
        report = run_suite(
            outdir / (compression or "plain"),
            compression=compression,
            include=include,
            exclude=exclude,
            timeout=SECONDS,
        )
        print(
            f"compression {compression}: {len(report.verdicts)} of {expected} cases, "
            f"{len(report.wrong)} not OK, {time.monotonic() - began:.0f} s",
            flush=True,
        )
        for number, verdict in report.wrong.items():
            print(f"  {number}: {verdict}", flush=True)
        complete = len(report.verdicts) == expected and report.exit_code == 0
        failed = failed or bool(report.wrong) or not complete
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
