"""The Autobahn test suite without 12.* and 13.*, for which see ``test_compression.py``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.conformance.autobahn import CORE, run_suite

if TYPE_CHECKING:
    from pathlib import Path

pytest.importorskip("kosoku")


def test_no_case_fails_or_is_non_strict_or_unclean(tmp_path: Path) -> None:
    """Every case is OK, in what was exchanged and in how it was closed."""
    report = run_suite(tmp_path, exclude=["12.*", "13.*"])
    assert not report.wrong, report.output
    assert len(report.verdicts) == CORE
    assert report.exit_code == 0, report.output
