"""``wss://``: whose certificate is trusted, and what is told of TLS that fails."""

from __future__ import annotations

import socket
import ssl
import subprocess
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.cli.connect.conftest import Client

    Start = Callable[..., Client]


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A key and a certificate for localhost, signed by itself, in one file."""
    path = tmp_path_factory.mktemp("tls") / "cert.pem"
    key = path.with_name("key.pem")
    command = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost"
    command += f" -addext subjectAltName=DNS:localhost -keyout {key} -out {path}"
    try:
        subprocess.run(command.split(), check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("openssl is not installed")
    path.write_text(path.read_text() + key.read_text())
    return path


@contextmanager
def tls_front(certificate: Path, server: str) -> Iterator[str]:
    """A TLS front before the server, for one connection."""
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(certificate)
    host, port = server.split(":")

    def copy(source: socket.socket, sink: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # one side has gone; the test sees what the client makes of it

    def serve() -> None:
        connection, _ = listener.accept()
        try:
            with (
                connection,
                tls.wrap_socket(connection, server_side=True) as front,
                socket.create_connection((host, int(port))) as back,
            ):
                down = threading.Thread(target=copy, args=(back, front))
                down.start()
                copy(front, back)
                down.join()
        except OSError:
            pass  # the client didn't trust us

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"wss://localhost:{listener.getsockname()[1]}"
        finally:
            thread.join(10)
            assert not thread.is_alive()


def test_certificate_is_checked(server: str, start: Start, certificate: Path) -> None:
    """Not trusted, trusted by ``--cacert``, and not looked at."""
    with tls_front(certificate, server) as address:
        _, err, code = start(f"{address}/greet").finish()
    assert "the server's certificate is not trusted: self" in err
    assert (err.count("\n"), code) == (1, 2)

    with tls_front(certificate, server) as address:
        client = start(f"{address}/greet", "--cacert", str(certificate), stdin=subprocess.DEVNULL)
        out, err, code = client.finish()
    assert (out, code) == ("hello nobody\n", 0)
    assert err == f"connected to {address}/greet\nclosed with 1000 by us\n"

    with tls_front(certificate, server) as address:
        out, err, code = start(f"{address}/close/1000", "--insecure").finish()
    assert out == "last words\n"
    assert err.splitlines()[0] == "warning: the server's certificate is not checked"
    assert code == 0


def test_tls_that_fails_is_told(server: str, start: Start, tmp_path: Path) -> None:
    """A server without TLS, a file that is missing, and one that holds no certificates."""
    _, err, code = start(f"wss://{server}/").finish()
    assert err.startswith(f"trioweb: can't connect to wss://{server}/: TLS failed: ")
    assert (err.count("\n"), code) == (1, 2)

    missing = str(tmp_path / "missing.pem")
    _, err, code = start(f"wss://{server}/", "--cacert", missing).finish()
    assert f"can't read {missing}: No such file or directory" in err
    assert code == 2

    empty = tmp_path / "empty.pem"
    empty.write_text("nothing")
    _, err, code = start(f"wss://{server}/", "--cacert", str(empty)).finish()
    assert f"{empty} has no certificates in PEM" in err
    assert (err.count("\n"), code) == (1, 2)
