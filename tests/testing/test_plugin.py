"""The pytest plugin, in projects of its users: each is a directory and a process of its own."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import pytest

import trioweb.testing.plugin

if TYPE_CHECKING:
    from collections.abc import Sequence

pytest_plugins = ["pytester"]

ROOT = Path(trioweb.testing.plugin.__file__).parents[2]
SECONDS = 60
"""What one run may take; it takes about one, most of it for imports."""

# Where trioweb is installed with its entry point, loading it a second time is an error.
IS_INSTALLED = any(
    entry.value == "trioweb.testing.plugin"
    for entry in importlib.metadata.entry_points(group="pytest11")
)
LOAD = [] if IS_INSTALLED else ["-p", "trioweb.testing.plugin"]
UNLOAD = ["-p", "no:trioweb"] if IS_INSTALLED else []

STRICT = "[pytest]\naddopts = --strict-config --strict-markers\nfilterwarnings = error\n"

CHAT = """
from contextlib import asynccontextmanager
import trio
from trioweb import TrioWeb

def make_app():
    @asynccontextmanager
    async def lifespan(app):
        app.ctx.lived = True
        yield
        app.ctx.lived = False

    app = TrioWeb("chat", lifespan=lifespan)
    count = 0

    @app.get("/count")
    async def show(request):
        nonlocal count
        count += 1
        return str(count)

    @app.post("/break")
    async def break_nursery(request):
        async def crash():
            raise ZeroDivisionError("broken by a test")
        app.nursery.start_soon(crash)

    @app.websocket("/echo")
    async def echo(request, ws):
        async for message in ws:
            await ws.send(message)

    return app

app = make_app()
"""

# The two lines that the plugin's own message shows.
CONFTEST = """
import pytest, chat
trioweb_app = pytest.fixture(chat.make_app)
"""

FETCH = """
import trio

async def fetch(server, method, path):
    async with await trio.open_tcp_stream(server.host, server.port) as stream:
        head = f"{method} {path} HTTP/1.1\\r\\nHost: x\\r\\nConnection: close\\r\\n\\r\\n"
        await stream.send_all(head.encode())
        return b"".join([part async for part in stream]).decode()
"""


class Project(Protocol):
    """Runs pytest in the directory of a project of a user."""

    path: Path

    def __call__(self, *arguments: str) -> pytest.RunResult:
        """Runs it with the plugin, in a process of its own."""

    def check(self, *arguments: str) -> pytest.RunResult:
        """Runs it in this process, which is enough and quick where no test needs trio."""


@pytest.fixture
def project(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A strict project with an application in chat.py, and nothing said about trio."""
    path = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path))
    pytester.makefile(".ini", pytest=STRICT)
    pytester.makepyfile(chat=CHAT, wire=FETCH)

    class _Project:
        path = pytester.path

        def __call__(self, *arguments: str) -> pytest.RunResult:
            return pytester.runpytest_subprocess(*LOAD, *arguments, timeout=SECONDS)

        def check(self, *arguments: str) -> pytest.RunResult:
            plugins = [] if IS_INSTALLED else [trioweb.testing.plugin]
            return pytester.runpytest_inprocess(*arguments, plugins=plugins)

    return _Project()


def write(project: Project, **files: str) -> None:
    for name, source in files.items():
        (project.path / f"{name}.py").write_text(source)


def shows(result: pytest.RunResult, *parts: str) -> None:
    """Says that a run's output has all of these, in any order."""
    output = result.stdout.str()
    assert [part for part in parts if part not in output] == []


MODES = pytest.mark.parametrize("trio_mode", ["true", "false"])


@MODES
def test_a_client_and_a_server_are_ready_for_a_test(project: Project, trio_mode: str) -> None:
    """In both modes of pytest-trio; each test has an application in a clean state."""
    write(
        project,
        conftest=CONFTEST,
        test_chat="""
import pytest, trio, socket
from trio_websocket import open_websocket_url
from trioweb.testing import LiveServer
from wire import fetch

@pytest.mark.trio
async def test_client(trioweb_client):
    assert (await trioweb_client.get("/count")).text == "1"

@pytest.mark.trio
async def test_client_again(trioweb_client, trioweb_app):
    assert (await trioweb_client.get("/count")).text == "1"
    assert trioweb_app.ctx.lived
    async with trioweb_client.websocket("/echo") as ws:
        await ws.send("hello")
        assert await ws.recv() == "hello"

@pytest.mark.trio
async def test_an_hour(trioweb_client, autojump_clock):
    async with trioweb_client.websocket("/echo") as ws:
        await trio.sleep(3600)
        await ws.send("still here")
        assert await ws.recv() == "still here"
    assert trio.current_time() >= 3600

@pytest.mark.trio
async def test_an_hour_of_the_other_order(autojump_clock, trioweb_client):
    await trio.sleep(3600)
    assert (await trioweb_client.get("/count")).text == "1"

@pytest.mark.trio
async def test_server(trioweb_server, trioweb_app):
    assert isinstance(trioweb_server, LiveServer)
    assert trioweb_server.app is trioweb_app
    assert trioweb_server.url == f"http://127.0.0.1:{trioweb_server.port}"
    assert trioweb_server.ws_url == f"ws://127.0.0.1:{trioweb_server.port}"
    assert (await fetch(trioweb_server, "GET", "/count")).endswith("1")
    async with open_websocket_url(trioweb_server.ws_url + "/echo") as ws:
        await ws.send_message("hello")
        assert await ws.get_message() == "hello"

@pytest.mark.trio
async def test_server_again(trioweb_server):
    assert (await fetch(trioweb_server, "GET", "/count")).endswith("1")
    trioweb_server.shutdown()
    # Returns when the port is closed, and fails where it isn't.
    with trio.fail_after(5):
        while True:
            try:
                await fetch(trioweb_server, "GET", "/count")
            except OSError:
                break
""",
    )
    result = project("-o", f"trio_mode={trio_mode}")
    result.assert_outcomes(passed=6)


@MODES
def test_both_have_ended_before_what_the_application_uses(project: Project, trio_mode: str) -> None:
    """A fixture under trioweb_app goes when the port is closed and the lifespan left."""
    write(
        project,
        conftest="""
import socket
import chat, pytest

@pytest.fixture
async def database(request):
    found = []
    yield found
    app, port = found
    assert app.ctx.lived is False
    if port is not None:
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port))
    print("the database saw the end")

@pytest.fixture
async def trioweb_app(database):
    app = chat.make_app()
    database.append(app)
    yield app
""",
        test_order="""
import pytest

@pytest.mark.trio
async def test_server(database, trioweb_server):
    assert trioweb_server.app.ctx.lived
    database.append(trioweb_server.port)

@pytest.mark.trio
async def test_client(database, trioweb_client):
    database.append(None)
    assert database[0].ctx.lived

@pytest.mark.trio
async def test_a_failure(database, trioweb_server):
    database.append(trioweb_server.port)
    raise AssertionError("as the test says")
""",
    )
    result = project("-o", f"trio_mode={trio_mode}", "-rA")
    result.assert_outcomes(passed=2, failed=1)
    assert result.stdout.str().count("the database saw the end") == 3
    shows(result, "as the test says")


def test_the_server_refuses_a_clock_that_jumps(project: Project) -> None:
    """In any order of the fixtures, by whatever name the clock comes, before the test begins."""
    write(
        project,
        conftest=CONFTEST,
        test_jump="""
import pytest, trio.testing

@pytest.fixture
def my_clock():
    return trio.testing.MockClock(autojump_threshold=0.1)

async def test_before(autojump_clock, trioweb_server):
    print("it began")

async def test_after(trioweb_server, autojump_clock):
    print("it began")

async def test_mine(trioweb_server, my_clock):
    print("it began")

async def test_a_clock_that_stands_still(trioweb_server, mock_clock):
    pass
""",
    )
    result = project("-o", "trio_mode=true")
    result.assert_outcomes(passed=1, failed=3)
    output = result.stdout.str()
    assert "it began" not in output
    assert output.count("trioweb_server can't be used with autojump_clock: bytes take") >= 3
    shows(result, "use trioweb_client", "or drop autojump_clock")


def test_a_crash_of_the_applications_nursery_fails_the_test(project: Project) -> None:
    """With what was raised; who waits for the server waits no longer."""
    write(
        project,
        conftest=CONFTEST,
        test_crash="""
import trio
from wire import fetch

async def test_server(trioweb_server):
    await fetch(trioweb_server, "POST", "/break")
    await trio.sleep_forever()

async def test_client(trioweb_client):
    await trioweb_client.post("/break")
""",
    )
    result = project("-o", "trio_mode=true")
    result.assert_outcomes(failed=2)
    assert result.stdout.str().count("ZeroDivisionError: broken by a test") >= 2


TWO_TESTS = """
async def test_first(trioweb_client):
    assert (await trioweb_client.get("/count")).text == "1"

async def test_second(trioweb_client):
    assert (await trioweb_client.get("/count")).text == "1"
"""


@pytest.mark.parametrize(
    ("target", "applications"),
    [
        ("chat:app", 1),
        ("chat", 1),
        ("chat.py", 1),
        ("./chat.py:app", 1),
        ("chat:make_app", 2),
        ("chat.py:make_app", 2),
    ],
)
def test_the_ini_option_names_an_application_or_a_factory(
    project: Project, target: str, applications: int
) -> None:
    """A TARGET is one object for all tests, as for the server; a function is called for each."""
    write(
        project,
        test_ini=f"""
from trioweb import TrioWeb
seen = set()

def test_first(trioweb_app):
    assert isinstance(trioweb_app, TrioWeb)
    seen.add(trioweb_app)

def test_second(trioweb_app):
    seen.add(trioweb_app)
    assert len(seen) == {applications}
""",
    )
    project.check("-o", f"trioweb_app={target}").assert_outcomes(passed=2)


def test_a_target_is_found_from_anywhere_and_is_what_the_tests_import(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It begins where the configuration is; a file is not loaded beside its own module."""
    inner = project.path / "tests" / "inner"
    inner.mkdir(parents=True)
    (inner / "test_deep.py").write_text("""
import sys
sys.path.insert(0, __file__.split("/tests/")[0])
import chat

async def test_deep(trioweb_client, trioweb_app):
    assert trioweb_app is chat.app
    assert (await trioweb_client.get("/count")).text == "1"
""")
    (project.path / "pytest.ini").write_text(f"{STRICT}trio_mode = true\ntrioweb_app = chat.py:app")
    monkeypatch.chdir(inner)
    project().assert_outcomes(passed=1)


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("missing:app", "the ini option trioweb_app is 'missing:app': there is no module missing"),
        ("missing.py", "the ini option trioweb_app is 'missing.py': there is no file"),
        ("chat:other", "chat has nothing that is named other"),
        ("chat:asynccontextmanager.x", "chat has nothing that is named asynccontextmanager.x"),
        ("chat:make_later", "an async function; await it in an async fixture trioweb_app"),
        ("chat:make_nothing", "trioweb_app returned None, which is no TrioWeb application"),
        ("broken:app", "can't import broken:app: ZeroDivisionError"),
    ],
)
def test_a_wrong_target_is_told_in_its_own_terms(project: Project, target: str, said: str) -> None:
    """It names the option and its value, and fails each test that asks."""
    write(
        project,
        chat=f"{CHAT}\nasync def make_later(): ...\ndef make_nothing(): ...\n",
        broken="1 / 0\n",
        test_ini="def test_first(trioweb_app): ...\ndef test_second(trioweb_app): ...\n",
    )
    result = project.check("-o", f"trioweb_app={target}")
    result.assert_outcomes(errors=2)
    assert said in " ".join(result.stdout.str().split())


def test_without_an_application_both_ways_are_shown(project: Project) -> None:
    """And the shown ways work as they stand."""
    write(project, test_chat=TWO_TESTS)
    result = project.check("-o", "trio_mode=true")
    result.assert_outcomes(errors=2)
    lines = [line.strip() for line in result.stdout.lines]
    shows(result, "the fixture trioweb_app, the application under test, is not defined")

    ini = ["[tool.pytest.ini_options]", 'trioweb_app = "chat:make_app"']
    start = lines.index(ini[0])
    assert lines[start : start + 2] == ini
    (project.path / "pytest.ini").unlink()
    (project.path / "pyproject.toml").write_text("\n".join([*ini, "trio_mode = true", ""]))
    project().assert_outcomes(passed=2)

    conftest = CONFTEST.strip().splitlines()
    start = lines.index(conftest[0])
    assert lines[start : start + 2] == conftest
    (project.path / "pyproject.toml").unlink()
    write(project, conftest=CONFTEST)
    project("-o", "trio_mode=true").assert_outcomes(passed=2)


@MODES
def test_the_users_fixture_may_be_of_any_kind(project: Project, trio_mode: str) -> None:
    """Sync or async, with or without an end, of any scope, over the ini option's own."""
    kinds = {
        "sync": "@pytest.fixture\ndef trioweb_app():\n    return chat.make_app()",
        "sync_end": "@pytest.fixture\ndef trioweb_app():\n    yield chat.make_app()",
        "coro": "@pytest.fixture\nasync def trioweb_app():\n    return chat.make_app()",
        "coro_end": "@pytest.fixture\nasync def trioweb_app():\n    yield chat.make_app()",
        "module": '@pytest.fixture(scope="module")\ndef trioweb_app():\n    return chat.make_app()',
        "extended": "@pytest.fixture\ndef trioweb_app(trioweb_app):\n    return trioweb_app",
    }
    test = """
@pytest.mark.trio
async def test_client(trioweb_client, trioweb_app):
    assert (await trioweb_client.get("/count")).text == "1"
    assert trioweb_app.name == "chat"
"""
    write(
        project,
        **{f"test_{name}": f"import chat, pytest\n{kind}\n{test}" for name, kind in kinds.items()},
    )
    result = project("-o", f"trio_mode={trio_mode}", "-o", "trioweb_app=chat:make_app")
    result.assert_outcomes(passed=len(kinds))


def test_a_fixture_that_gives_no_application_is_told(project: Project) -> None:
    """As where the factory was not called."""
    write(
        project,
        conftest="import pytest, chat\ntrioweb_app = pytest.fixture(lambda: chat.make_app)\n",
        test_chat="""
async def test_client(trioweb_client): ...
async def test_server(trioweb_server): ...
""",
    )
    result = project("-o", "trio_mode=true")
    result.assert_outcomes(failed=2)
    shows(result, "the fixture trioweb_app gave <function make_app", "no TrioWeb application; call")


def test_who_else_runs_the_test_can_not_have_them(project: Project) -> None:
    """A sync test, one that nobody marked, one of another loop, and one that wants both."""
    (project.path / "pytest.ini").write_text(f"{STRICT}markers =\n    asyncio\n    anyio\n")
    write(
        project,
        conftest=CONFTEST,
        test_other="""
import pytest

def test_sync(trioweb_client): ...

async def test_unmarked(trioweb_server): ...

@pytest.mark.asyncio
async def test_asyncio(trioweb_client): ...

@pytest.mark.trio
@pytest.mark.asyncio
async def test_two_loops(trioweb_client): ...

@pytest.mark.anyio
async def test_anyio(trioweb_client): ...

@pytest.mark.trio
async def test_both(trioweb_client, trioweb_server): ...
""",
    )
    # Their own plugins, where they are installed, would act on the marks first.
    result = project.check("-p", "no:asyncio", "-p", "no:anyio")
    result.assert_outcomes(errors=6)
    shows(
        result,
        "trioweb_client is for tests that pytest-trio runs, and test_sync is none of them: it is "
        "no async function; write `async def`, and mark it with @pytest.mark.trio, or set",
        "trioweb_server is for tests that pytest-trio runs, and test_unmarked is none of them: "
        "pytest-trio was not told to; mark it",
        "test_asyncio is none of them: the mark asyncio gives it to another plugin; take that away",
        "test_two_loops is none of them: the mark asyncio gives it to another plugin",
        "test_anyio is none of them: the mark anyio gives it to another plugin",
        "trioweb_client and trioweb_server would both run the one application",
    )


def test_anyio_can_not_run_the_fixtures(project: Project) -> None:
    """Its plugin takes the async fixtures of every test that has its own fixture, marked or not."""
    write(
        project,
        conftest=CONFTEST,
        test_mine="""
import pytest

pytestmark = pytest.mark.trio

@pytest.fixture
def anyio_backend():  # stands for anyio's, which gives this name as well
    return "trio"

async def test_asks(anyio_backend, trioweb_client): ...

@pytest.mark.usefixtures("anyio_backend")
async def test_is_given_it(trioweb_server): ...

async def test_is_trios(trioweb_client): ...
""",
    )
    result = project("-p", "no:asyncio", "-p", "no:anyio")
    result.assert_outcomes(passed=1, errors=2)
    for name in ("asks", "is_given_it"):
        result.stdout.fnmatch_lines(
            [f"*test_{name} is none of them: the fixture anyio_backend gives it to anyio's plugin*"]
        )


@pytest.mark.parametrize("way", ["switched off", "not installed", "not autoloaded"])
def test_without_pytest_trio_only_who_asks_hears_of_it(
    project: Project, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    """The plugin loads without a word; the fixtures name the extra."""
    write(
        project,
        blocker="import sys\nsys.modules['pytest_trio'] = None\n",
        conftest=CONFTEST,
        test_plain="""
def test_plain(): pass
def test_app(trioweb_app): assert trioweb_app.name == "chat"
def test_client(trioweb_client): ...
def test_server(trioweb_server): ...
""",
    )
    if way == "not autoloaded":
        monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
        arguments = ["-p", "trioweb.testing.plugin"] if IS_INSTALLED else []
    else:
        arguments = ["-p", "no:trio", *(["-p", "blocker"] if way == "not installed" else [])]
    result = project(*arguments)
    result.assert_outcomes(passed=2, errors=2)
    shows(
        result,
        "trioweb_client needs pytest-trio, which is not installed or was switched off",
        "trioweb_server needs pytest-trio, which is not installed or was switched off",
        "install trioweb[testing]",
    )


STATE = """
import asyncio, json, logging, os, signal, sys, threading, warnings

OPTIONS = (
    "trio_mode", "trio_run", "addopts", "filterwarnings", "markers", "usefixtures", "testpaths",
    "python_files", "python_functions", "xfail_strict", "log_level", "asyncio_mode", "anyio_mode",
    "asyncio_default_fixture_loop_scope", "asyncio_default_test_loop_scope",
)

def pytest_sessionfinish(session):
    config = session.config
    state = {}
    for name in OPTIONS:
        try:
            state[name] = config.getini(name)
        except (KeyError, ValueError):
            state[name] = "unknown"
    state["options"] = {
        name: value
        for name, value in vars(config.option).items()
        if name not in ("plugins", "basetemp")
    }
    state["policy"] = type(asyncio.get_event_loop_policy()).__name__
    state["signals"] = [signal.getsignal(number) for number in signal.valid_signals()]
    state["hooks"] = [sys.excepthook, sys.unraisablehook, threading.excepthook]
    state["handlers"] = [len(logging.root.handlers), logging.root.level]
    state["filters"] = warnings.filters
    state["path"] = sys.path
    state["cwd"] = os.getcwd()
    state["marks"] = [
        [mark.name for mark in item.iter_markers()] for item in session.items
    ]
    def show(value):
        return getattr(value, "__qualname__", type(value).__name__)

    with open(os.environ["STATE"], "w") as file:
        json.dump(state, file, default=show)
"""


def test_a_project_that_knows_nothing_of_it_is_left_alone(
    project: Project, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Options, marks, event loop policy, signals and hooks are the same with and without it."""
    (project.path / "pytest.ini").write_text(
        f"{STRICT}markers =\n    asyncio\nlog_level = INFO\nxfail_strict = true\n"
    )
    write(
        project,
        conftest=STATE,
        test_asyncio="""
import asyncio, pytest

@pytest.fixture
def trio_word():
    return "mine"

@pytest.mark.asyncio
def test_a_loop(trio_word):
    async def work():
        await asyncio.sleep(0)
        return trio_word
    assert asyncio.run(work()) == "mine"
""",
    )
    states = []
    for name, arguments in [("with", LOAD), ("without", UNLOAD)]:
        path = project.path / f"{name}.json"
        monkeypatch.setenv("STATE", str(path))
        result = pytester.runpytest_subprocess("-p", "no:asyncio", *arguments, timeout=SECONDS)
        result.assert_outcomes(passed=1)
        assert "warning" not in result.stdout.str().lower() + result.stderr.str().lower()
        states.append(json.loads(path.read_text()))
    assert states[0] == states[1]
    assert states[0]["trio_mode"] is False
    assert states[0]["markers"][0] == "asyncio"


def test_the_ini_option_is_not_looked_at_where_nobody_asks(project: Project) -> None:
    """A wrong TARGET costs nothing but to those who want it."""
    write(project, test_plain="def test_plain(): pass\n", broken="1 / 0\n")
    project.check("-o", "trioweb_app=broken:app").assert_outcomes(passed=1)


@pytest.mark.skipif(importlib.util.find_spec("xdist") is None, reason="pytest-xdist is missing")
def test_it_works_in_the_processes_of_xdist(project: Project) -> None:
    """Each has an application of its own."""
    write(project, test_ini=TWO_TESTS)
    result = project("-n2", "-o", "trio_mode=true", "-o", "trioweb_app=chat:make_app")
    result.assert_outcomes(passed=2)


def run_python(source: str) -> Sequence[str]:
    result = subprocess.run(
        [sys.executable, "-c", source],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=True,
    )
    return result.stdout.split()


def test_the_plugin_itself_imports_nothing_but_pytest() -> None:
    """It is part of every run in its environment; only its packages' own imports come with it."""
    loaded = run_python(f"""
import sys, types
for name in ("trioweb", "trioweb.testing"):
    sys.modules[name] = package = types.ModuleType(name)
    package.__path__ = [{str(ROOT)!r} + "/" + name.replace(".", "/")]
import trioweb.testing.plugin
print(*sys.modules)
""")
    assert "trioweb.testing.plugin" in loaded
    assert "pytest" in loaded
    heavy = {"trio", "h11", "msgspec", "trio_websocket", "asyncio", "pytest_trio"}
    assert heavy.isdisjoint(loaded)
    assert {name for name in loaded if name.startswith("trioweb.")} == {
        "trioweb.testing",
        "trioweb.testing.plugin",
    }
