"""What a page of the documentation shows, run as a user would run it.

Every example is a whole file, whose name is in its first line. All of a page's together are a
project, with a configuration of its own. A text behind an example is how its tests fail; examples
without one pass.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

import trioweb

ROOT = Path(trioweb.__file__).parents[1]
SECONDS = 60
"""What one run may take; it takes about one, most of it for imports."""

# By name, and no others: the same whether trioweb is installed with its entry point or not.
PLUGINS = ["-p", "pytest_trio.plugin", "-p", "trioweb.testing.plugin"]

_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_NAME = re.compile(r"# (\S+\.(?:py|toml))\n")


class Example(NamedTuple):
    """A file that is shown.

    Attributes:
        name: in the project.
        source: with the line that tells its name.
        failure: what is shown of how its tests fail; empty if they pass.
    """

    name: str
    source: str
    failure: str = ""

    @property
    def is_test(self) -> bool:
        """Whether pytest runs it."""
        return self.name.startswith("test_")

    @property
    def is_script(self) -> bool:
        """Whether Python runs it."""
        return "__main__" in self.source


def read_examples(text: str) -> list[Example]:
    """All that a page, or a part of it, shows of Python, and of what a project needs beside it.

    Raises:
        ValueError: something is shown that would not be run.
    """
    examples: list[Example] = []
    for language, source in _BLOCK.findall(text):
        if language == "text":
            if not examples or not examples[-1].is_test or examples[-1].failure:
                raise ValueError(f"no test of its own fails with {source!r}")
            examples[-1] = examples[-1]._replace(failure=source.rstrip())
        elif language != "sh":
            name = _NAME.match(source)
            if name is None or name[1] in [one.name for one in examples]:
                raise ValueError(f"no name of its own in the first line of {source!r}")
            examples.append(Example(name[1], source))
    return examples


def find_faults(examples: list[Example], directory: Path, *arguments: str) -> dict[str, str]:
    """Run examples, and tell what does not go as it is shown.

    Args:
        examples: of one project.
        directory: where that is made; empty.
        arguments: of pytest, beside its own.

    Returns:
        What is wrong with an example, by its name.
    """
    for one in examples:
        (directory / one.name).write_text(one.source, encoding="utf-8")
    faults: dict[str, str] = {}
    for script in (one for one in examples if one.is_script):
        done = _run([script.name], directory)
        if done.returncode:
            faults[script.name] = done.stderr
    tests = [one for one in examples if one.is_test]
    if tests:
        report = directory / "report.xml"
        done = _run(
            ["-m", "pytest", *PLUGINS, "-W", "error", f"--junit-xml={report}", *arguments],
            directory,
        )
        if not report.exists():
            raise RuntimeError(f"pytest has not run: {done.stdout}{done.stderr}")
        cases = list(ElementTree.parse(report).getroot().iter("testcase"))
        for test in tests:
            said = [_failure(case) for case in cases if _module(case) == test.name]
            if not said:
                faults[test.name] = "it has no tests"
            elif wrong := [one for one in said if not _is_shown(one, test.failure)]:
                faults[test.name] = "\n".join(wrong) or "it has passed"
    return faults


def _run(arguments: list[str], directory: Path) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=directory,
        env=os.environ | {"PYTHONPATH": path, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        encoding="utf-8",
        timeout=SECONDS,
        check=False,
    )


def _module(case: ElementTree.Element) -> str:
    # A module that can't be imported has its name there.
    return f"{case.get('classname') or case.get('name')}.py"


def _failure(case: ElementTree.Element) -> str:
    """How a test has failed, with its traceback; empty if it has passed."""
    return "\n".join(f"{found.get('message')}\n{found.text}" for found in case)


def _is_shown(failure: str, shown: str) -> bool:
    """Whether a failure has these lines, each behind the same marks of pytest."""
    if not shown:
        return not failure
    wanted = shown.splitlines()
    lines = failure.splitlines()
    for index, line in enumerate(lines):
        mark = line.removesuffix(wanted[0])
        if mark != line and not mark.strip(" |E"):
            found = lines[index : index + len(wanted)]
            if found == [f"{mark}{one}" for one in wanted]:
                return True
    return False
