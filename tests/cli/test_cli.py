"""The command line finds applications, and says in one line why it can't."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from trioweb.cli import TargetError, load_target, main

ROOT = Path(__file__).parents[2]

APP = "from trioweb import TrioWeb\napp = TrioWeb('{name}')\n"


@pytest.fixture(autouse=True)
def _own_imports(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Each test imports from its own directory and leaves nothing behind."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "modules", dict(sys.modules))


@pytest.mark.parametrize(
    "target", ["shop_a.py", "./shop_a.py", "shop_a.py:app", "shop_a:app", "shop_a"]
)
def test_target_is_a_file_or_a_module(tmp_path: Path, target: str) -> None:
    """A path, a path with a name, a module with a name, and a module."""
    (tmp_path / "shop_a.py").write_text(APP.format(name="shop"))
    assert load_target(target).name == "shop"


def test_module_in_a_package(tmp_path: Path) -> None:
    """Dots lead into packages, on both sides of the colon."""
    (tmp_path / "store_b").mkdir()
    (tmp_path / "store_b" / "web.py").write_text(
        "from trioweb import TrioWeb\nclass Apps:\n    main = TrioWeb('inner')\n"
    )
    assert load_target("store_b.web:Apps.main").name == "inner"


def test_only_application_needs_no_name(tmp_path: Path) -> None:
    """One application under another name is found; two are a question."""
    path = tmp_path / "shop_c.py"
    path.write_text("from trioweb import TrioWeb\nserver = TrioWeb('only')\n")
    assert load_target(str(path)).name == "only"
    path.write_text("from trioweb import TrioWeb\none = TrioWeb('a')\ntwo = TrioWeb('b')\n")
    with pytest.raises(TargetError, match=r"several applications.*:one.*:two"):
        load_target(str(path))


def test_file_imports_its_neighbours_and_shadows_nothing(tmp_path: Path) -> None:
    """A file may be named as a module of the standard library."""
    (tmp_path / "beside_d.py").write_text("NAME = 'neighbour'\n")
    (tmp_path / "json.py").write_text(
        "from trioweb import TrioWeb\nimport beside_d\napp = TrioWeb(beside_d.NAME)\n"
    )
    import json

    assert load_target(str(tmp_path / "json.py")).name == "neighbour"
    assert sys.modules["json"] is json


@pytest.mark.parametrize(
    ("source", "target", "said"),
    [
        (None, "missing.py", "no file missing.py"),
        (None, "missing_e:app", "no module missing_e"),
        ("x = 1", "broken_f.py", "no TrioWeb application"),
        ("app = 1", "broken_f.py:app", "is no TrioWeb application, but a int"),
        ("app = 1", "broken_f.py:other", "nothing that is named other"),
        ("import nowhere_g", "broken_f.py", r"nowhere_g.*broken_f\.py:1"),
        ("def (", "broken_f.py", r"broken_f\.py:1"),
        (
            "from trioweb import TrioWeb\nTrioWeb(config={'WEBSOCKET_TIMEOT': 1})",
            "broken_f.py",
            r"did you mean WEBSOCKET_TIMEOUT\? \(at .*broken_f\.py:2\)",
        ),
    ],
)
def test_errors_are_one_line_and_code_2(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    source: str | None,
    target: str,
    said: str,
) -> None:
    """What is wrong with the target is said in its terms, without a traceback."""
    if source is not None:
        (tmp_path / "broken_f.py").write_text(source)
    with pytest.raises(SystemExit) as exit_info:
        main(["run", target])
    assert exit_info.value.code == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert re.search(said, error)


def test_crash_of_the_users_module_keeps_its_traceback(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An error in the user's own code can't be mended without its traceback."""
    (tmp_path / "crash_h.py").write_text("1 / 0\n")
    with pytest.raises(SystemExit):
        main(["run", "crash_h.py"])
    error = capsys.readouterr().err
    assert "ZeroDivisionError: division by zero" in error
    assert error.splitlines()[-1] == "trioweb: can't import crash_h.py: ZeroDivisionError"


@pytest.mark.parametrize("port", ["-1", "65536", "http"])
def test_port_is_checked(port: str, capsys: pytest.CaptureFixture[str]) -> None:
    """What is no port is an error of the command line."""
    with pytest.raises(SystemExit) as exit_info:
        main(["run", "app.py", f"--port={port}"])
    assert exit_info.value.code == 2
    assert "--port" in capsys.readouterr().err


def test_port_in_use_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The address that can't be had is named."""
    (tmp_path / "shop_i.py").write_text(APP.format(name="shop"))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(SystemExit) as exit_info:
            main(["run", "shop_i.py", "--port", str(port)])
    assert exit_info.value.code == 2
    assert f"can't listen at 127.0.0.1 port {port}" in capsys.readouterr().err


def test_routes_are_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Methods, path, name and handler, a line each."""
    (tmp_path / "shop_j.py").write_text(
        "from trioweb import TrioWeb\n"
        "app = TrioWeb('shop')\n"
        "@app.get('/items/<item:int>')\n"
        "async def show_item(request, item): ...\n"
        "@app.websocket('/live')\n"
        "async def live(request, ws): ...\n"
    )
    main(["routes", "shop_j.py"])
    lines = capsys.readouterr().out.splitlines()
    assert any("GET" in line and "/items/<item:int>" in line for line in lines)
    assert any("WEBSOCKET" in line and "/live" in line for line in lines)


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_run_prints_its_url_and_ends_on_a_signal(stop: signal.Signals) -> None:
    """The port that 0 became is printed; both signals end it cleanly."""
    command = [sys.executable, "-m", "trioweb", "run", str(ROOT / "examples/echo.py"), "--port=0"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            found = re.search(r"http://127\.0\.0\.1:(\d+)", server.stdout.readline())
            assert found is not None
            with socket.create_connection(("127.0.0.1", int(found[1])), timeout=5) as client:
                client.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                assert client.recv(15) == b"HTTP/1.1 200 OK"
        finally:
            os.kill(server.pid, stop)
            assert server.wait(timeout=10) == 0


def test_unix_socket_is_served(tmp_path: Path) -> None:
    """``--unix`` listens at a path instead, and removes it at the end."""
    path = tmp_path / "web.sock"
    echo = str(ROOT / "examples/echo.py")
    command = [sys.executable, "-m", "trioweb", "run", echo, "--unix", str(path)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            assert str(path) in server.stdout.readline()
            with socket.socket(socket.AF_UNIX) as client:
                client.settimeout(5)
                client.connect(str(path))
                client.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                assert client.recv(15) == b"HTTP/1.1 200 OK"
        finally:
            server.terminate()
            assert server.wait(timeout=10) == 0
    assert not path.exists()
