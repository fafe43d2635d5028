"""The guide to testing: what it shows works, and fails where it shows a failure."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.docs.examples import ROOT, Example, find_faults, read_examples

if TYPE_CHECKING:
    from pathlib import Path

EXAMPLES = read_examples((ROOT / "docs" / "testing.md").read_text(encoding="utf-8"))

# How to break each example: the application that is tested, or the test that fails.
BREAKS = [
    ("room.py", "{name}: {message}", "{name} says {message}"),
    ("shop.py", '"pays"', '"price"'),
    ("shop.py", "all is well", "all is lost"),
    ("test_failing.py", '"Ada has left"', '"Ada is here"'),
    ("test_leaking.py", "trio.lowlevel.spawn_system_task", "ws.nursery.start_soon"),
    ("test_orders.py", "await trio.sleep(60)", "await trio.sleep(58)"),
    ("test_reconnects.py", "news[after:]", "news"),
    ("test_shutdown.py", "trio.sleep(3)", "trio.sleep(6)"),
]


def test_the_examples_do_what_is_shown(tmp_path: Path) -> None:
    """All of them, in one project with the configuration that is shown."""
    assert find_faults(EXAMPLES, tmp_path) == {}


def test_marked_tests_need_no_mode(tmp_path: Path) -> None:
    """The example of that, without trio_mode."""
    marked = [one for one in EXAMPLES if "@pytest.mark.trio" in one.source]
    project = [one for one in EXAMPLES if not one.is_test and not one.is_script]
    assert len(marked) == 1
    assert find_faults(project + marked, tmp_path, "-o", "trio_mode=false") == {}


def test_every_example_that_is_broken_is_found(tmp_path: Path) -> None:
    """None of them passes whatever the application does."""
    broken = {one.name: one for one in EXAMPLES}
    for name, old, new in BREAKS:
        assert broken[name].source.count(old) == 1
        broken[name] = broken[name]._replace(source=broken[name].source.replace(old, new))
    faults = find_faults(list(broken.values()), tmp_path)
    assert sorted(faults) == sorted(one.name for one in EXAMPLES if one.is_test or one.is_script)


def test_what_would_not_be_run_is_refused() -> None:
    """Files without a name, or with that of another one, and failures of no test."""
    shown = "```python\n# room.py\n```\n"
    assert read_examples(shown) == [Example("room.py", "# room.py\n")]
    for wrong in ["```python\nimport trio\n```\n", shown, "```text\nfailed\n```\n"]:
        with pytest.raises(ValueError, match="of its own"):
            read_examples(shown + wrong)
