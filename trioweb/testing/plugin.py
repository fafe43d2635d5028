"""The pytest plugin: fixtures `trioweb_client` and `trioweb_server` over the user's `trioweb_app`.

Theory of operation. pytest imports this module in every run in whose environment trioweb is, of
projects that never heard of it too. So it imports nothing but pytest, changes no option and no
mark, and adds one ini option, which has no default. What needs pytest-trio is in
`trioweb.testing.fixtures`, and registered only where pytest-trio is active: it may be missing, or
switched off (``-p no:trio``), and then importing it would not be harmless.

An application is looked for when the first test asks for it. A TARGET is loaded once for each run,
as an import is; a factory is called for each test.
"""

from __future__ import annotations

import contextlib
import inspect
import sys
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, NoReturn

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from trioweb import TrioWeb

_NO_APP = """\
the fixture trioweb_app, the application under test, is not defined. Name the application, or \
better a function that makes one, in pyproject.toml:

    [tool.pytest.ini_options]
    trioweb_app = "chat:make_app"

or define the fixture in conftest.py:

    import pytest, chat
    trioweb_app = pytest.fixture(chat.make_app)
"""

_NO_PYTEST_TRIO = (
    "{name} needs pytest-trio, which is not installed or was switched off (-p no:trio); "
    "install trioweb[testing]"
)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds the ini option ``trioweb_app``."""
    parser.addini(
        "trioweb_app",
        "the application of the fixture trioweb_app: module:app or path/file.py:app, "
        "or a function that makes one for each test, module:make_app",
        default="",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Registers the fixtures that there can be."""
    pytest_trio = sys.modules.get("pytest_trio.plugin")
    if pytest_trio is not None and config.pluginmanager.is_registered(pytest_trio):
        from trioweb.testing import fixtures

        config.pluginmanager.register(fixtures, "trioweb-fixtures")
    else:
        config.pluginmanager.register(_WithoutPytestTrio(), "trioweb-fixtures")


@pytest.fixture
def trioweb_app(_trioweb_factory: Callable[[], object]) -> TrioWeb:
    """The application under test, of the ini option trioweb_app; override it with your own."""
    from trioweb.testing.running import require_app

    return require_app(_trioweb_factory(), "the function of the ini option trioweb_app returned")


@pytest.fixture(scope="session")
def _trioweb_factory(pytestconfig: pytest.Config) -> Callable[[], object]:
    """What gives each test its application."""
    target = str(pytestconfig.getini("trioweb_app")).strip()
    if not target:
        pytest.fail(_NO_APP, pytrace=False)
    # As pytest's own paths in a configuration: what counts is where the file is.
    inipath = pytestconfig.inipath
    with contextlib.chdir(pytestconfig.rootpath if inipath is None else inipath.parent):
        return _load(target)


class _WithoutPytestTrio:
    """Stands in for `trioweb.testing.fixtures`."""

    @pytest.fixture
    def trioweb_client(self) -> NoReturn:
        """A client of trioweb_app; needs pytest-trio."""
        pytest.fail(_NO_PYTEST_TRIO.format(name="trioweb_client"), pytrace=False)

    @pytest.fixture
    def trioweb_server(self) -> NoReturn:
        """trioweb_app at a real port; needs pytest-trio."""
        pytest.fail(_NO_PYTEST_TRIO.format(name="trioweb_server"), pytrace=False)


def _load(target: str) -> Callable[[], object]:
    """A function that gives the application of a TARGET, or the factory that the TARGET names."""
    from trioweb.cli import TargetError, load_target

    try:
        app = load_target(_as_imported(target))
        return lambda: app
    except TargetError as error:
        wrong = str(error)
    factory = _find_callable(_as_imported(target))
    if factory is None:
        pytest.fail(f"the ini option trioweb_app is {target!r}: {wrong}", pytrace=False)
    if inspect.iscoroutinefunction(factory):
        pytest.fail(
            f"the ini option trioweb_app is {target!r}, an async function; await it in an "
            "async fixture trioweb_app of your own",
            pytrace=False,
        )
    return factory


def _as_imported(target: str) -> str:
    """Names a file by its module, when it is imported already.

    Loaded once more it would be a second application, another than what the tests import.
    """
    place, colon, name = target.partition(":")
    path = Path(place).resolve()
    for module_name, module in list(sys.modules.items()):
        # Not getattr(): a module may make its attributes on demand.
        file = vars(module).get("__file__") if isinstance(module, ModuleType) else None
        if file and Path(file).name == path.name and Path(file).resolve() == path:
            return f"{module_name}{colon}{name}"
    return target


def _find_callable(target: str) -> Callable[[], object] | None:
    """What can be called of a TARGET whose module was imported, though it is no application."""
    place, _, name = target.partition(":")
    found: object = sys.modules.get(place)
    for part in name.split("."):
        found = getattr(found, part, None)
    return found if callable(found) else None
