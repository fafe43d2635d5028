"""A fixed sample of Autobahn's compression cases, 12.* and 13.*.

All of them, which take minutes, are a part of ``python -m tests.conformance``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.conformance.autobahn import COMPRESSION_GROUPS, SIZES, run_suite, sample_compression

if TYPE_CHECKING:
    from pathlib import Path

pytest.importorskip("kosoku")

SAMPLE = sample_compression()
SECONDS = 300
"""For the sample, which takes one minute on two busy CPUs."""


def test_the_sample_has_each_group_and_each_size() -> None:
    """Five different cases of each group."""
    assert len(set(SAMPLE)) == 60
    groups = [case.rpartition(".")[0] for case in SAMPLE]
    assert all(groups.count(group) == 5 for group in COMPRESSION_GROUPS)
    assert {case.rpartition(".")[2] for case in SAMPLE} == {str(n + 1) for n in range(SIZES)}


@pytest.mark.parametrize("compression", ["deflate", "deflate-context"])
def test_no_compression_case_of_a_sample_fails(tmp_path: Path, compression: str) -> None:
    """A case in which no compression was agreed on would be UNIMPLEMENTED, and so not OK."""
    report = run_suite(tmp_path, compression=compression, include=SAMPLE, timeout=SECONDS)
    assert not report.wrong, report.output
    assert sorted(report.verdicts) == sorted(SAMPLE)
    assert report.exit_code == 0, report.output
