"""The command as a user runs it: a real server, a process, pipes."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import pytest

from trioweb.cli import main
from trioweb.ws.handshake import accept_key

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.cli.connect.conftest import Client

    Start = Callable[..., Client]


def test_lines_go_out_and_messages_come_in(server: str, start: Start) -> None:
    """Each line is a message; the remarks are on stderr alone."""
    client = start(f"ws://{server}/echo", "--linger", "inf")
    assert client.read_remark() == f"connected to ws://{server}/echo"
    for text in ("hello", "", "grüße ✓"):
        client.send(f"{text}\n")
        assert client.read_line() == text
    client.interrupt()
    assert client.read_remark() == "closed with 1000 by us"
    assert client.wait() == 130


def test_pipe_is_sent_whole_and_its_answers_awaited(server: str, start: Start) -> None:
    """At the end of the input the answers are waited for, then 1000 is ours to say."""
    client = start(f"http://{server}/echo")
    client.send("one\ntwo\r\nthree without an end")
    out, err, code = client.finish()
    assert out.splitlines() == ["one", "two", "three without an end"]
    assert err.splitlines()[-1] == "closed with 1000 by us"
    assert code == 0


def test_linger_0_closes_at_the_end_of_the_input(server: str, start: Start) -> None:
    """Whatever the server would still have said."""
    client = start(f"{server}/greet", "--linger", "0", stdin=subprocess.DEVNULL)
    assert client.finish()[1:] == (
        f"connected to ws://{server}/greet\nclosed with 1000 by us\n",
        0,
    )


def test_large_input_arrives_whole(server: str, start: Start, tmp_path: Path) -> None:
    """Long lines and many lines; the last line asks what came."""
    path = tmp_path / "input"
    lines = ["x" * 500_000, *(str(number) for number in range(3000)), "how many?"]
    path.write_text("\n".join(lines))
    with path.open("rb") as file:
        out, _, code = start(f"{server}/count", stdin=file).finish()
    assert out == f"3001 messages, {sum(map(len, lines[:-1]))} characters\n"
    assert code == 0


@pytest.mark.parametrize(
    ("sent", "code", "exit_code"),
    [(1000, 1000, 0), (1001, 1001, 0), (1011, 1011, 1), (4001, 4001, 1)],
)
def test_server_that_closes_ends_the_program(
    server: str, start: Start, sent: int, code: int, exit_code: int
) -> None:
    """At once, though stdin is open and silent; what came before is shown."""
    client = start(f"{server}/close/{sent}")
    assert client.read_line() == "last words"
    assert client.wait() == exit_code
    assert client.read_remark().startswith("connected")
    assert client.read_remark() == f"closed with {code} (so it is) by the server"


def test_headers_origin_and_user_are_sent(server: str, start: Start) -> None:
    """As a browser or a proxy would send them."""

    def see(name: str, *arguments: str, user: str = "") -> str:
        client = start(f"ws://{user}{server}/header/{name}", *arguments, stdin=subprocess.DEVNULL)
        return client.finish()[0].strip()

    assert see("x-token", "-H", "X-Token: a: b", "--header", "X-Other:") == "a: b"
    assert see("origin", "--origin", f"http://{server}") == f"http://{server}"
    assert see("host") == server
    assert see("host", "-H", "Host: chat.test") == "chat.test"
    assert see("authorization", user="Ada:p%40ss@") == "Basic QWRhOnBAc3M="


def test_subprotocol_is_told(server: str, start: Start) -> None:
    """Which one was chosen, or that none was."""
    client = start(f"{server}/greet", "--subprotocol", "other", "--subprotocol", "chat.v1")
    assert client.read_remark() == f"connected to ws://{server}/greet, subprotocol chat.v1"
    client = start(f"{server}/echo", "--subprotocol", "other")
    assert client.read_remark() == f"connected to ws://{server}/echo, no subprotocol was chosen"


def test_query_is_sent_as_typed(server: str, start: Start) -> None:
    """What a URL can't hold is quoted, what is quoted stays."""
    client = start(f"{server}/greet?name=Ada L%C3%B6vé")
    assert client.read_line() == "hello Ada Lövé"


def test_binary_and_text_are_shown(server: str, start: Start) -> None:
    """A pipe gets text as it came, and a line for what is binary."""
    out, _, code = start(f"{server}/mixed", "--linger", "inf").finish()
    assert out.splitlines() == [
        "<binary, 12 bytes: 00ff00ff00ff00ff00ff00ff>",
        '{ "n": 1e400,',
        ' "text": "\\u00e9" }',
        "not JSON",
    ]
    assert code == 0


def test_json_is_checked_and_compacted(server: str, start: Start) -> None:
    """What is wrong is named by its line, and the rest goes on; the exit code remembers."""
    client = start(f"{server}/echo", "--json")
    client.send('{ "a" : [1, 2.50] }\nnonsense\nNaN\n"last"\n')
    out, err, code = client.finish()
    assert out.splitlines() == ['{"a":[1,2.50]}', '"last"']
    remarks = err.splitlines()[1:-1]
    assert remarks[0].startswith("line 2 was not sent: it is no JSON: Expecting value")
    assert remarks[1] == "line 3 was not sent: it is no JSON: NaN is no value of JSON"
    assert code == 1


def test_received_json_is_compacted_and_the_rest_remarked(server: str, start: Start) -> None:
    """A line for each message; numbers and escapes as they were written."""
    out, err, code = start(f"{server}/mixed", "--json", "--linger", "inf").finish()
    assert out.splitlines()[1:] == ['{"n":1e400,"text":"\\u00e9"}', "not JSON"]
    remarks = err.splitlines()[1:-1]
    assert remarks[0] == "the next message is no JSON: it is binary"
    assert remarks[1].startswith("the next message is no JSON: Expecting value")
    assert code == 0


def test_line_that_is_no_utf8_is_not_sent(server: str, start: Start) -> None:
    """It is named, and the exit code remembers."""
    client = start(f"{server}/echo")
    client.send(b"a\xffb\nfine\n")
    out, err, code = client.finish()
    assert out == "fine\n"
    assert "line 1 was not sent: it is no UTF-8 (byte 0xff at position 2)" in err
    assert code == 1


def test_reader_that_leaves_ends_it_quietly(server: str, start: Start) -> None:
    """As ``| head -1`` does; also when nothing is written any more."""
    for route in ("endless", "greet"):
        client = start(f"{server}/{route}")
        assert client.read_line()
        assert client.process.stdout is not None
        client.process.stdout.close()
        assert client.wait() == 0
        assert client.read_remark().startswith("connected")
        assert client.read_remark() == "closed with 1000 by us"


def test_stdout_that_takes_nothing_does_not_hold_up_the_end(server: str, start: Start) -> None:
    """Its pipe is full and nobody reads; Ctrl-C still ends it."""
    reader, writer = os.pipe()
    try:
        os.set_blocking(writer, False)
        with suppress(BlockingIOError):
            while True:
                os.write(writer, bytes(4096))
        os.set_blocking(writer, True)
        client = start(f"{server}/endless", stdout=writer)
        assert client.read_remark().startswith("connected")
        client.interrupt()
        assert client.wait() == 130
    finally:
        os.close(reader)
        os.close(writer)


def test_full_disk_is_one_line(server: str, start: Start) -> None:
    """What can't be written is a failure, told without a traceback."""
    with open("/dev/full", "wb") as full:
        client = start(f"{server}/greet", stdout=full)
        # Its input is open, so it ends of itself.
        assert client.wait() == 1
    err = client.finish()[1]
    assert err.splitlines()[1:] == [
        "closed with 1000 by us",
        "trioweb: can't write to stdout: No space left on device",
    ]


def test_terminated_it_closes(server: str, start: Start) -> None:
    """SIGTERM is told by the exit code, as SIGINT is."""
    client = start(f"{server}/greet")
    assert client.read_line() == "hello nobody"
    client.interrupt(signal.SIGTERM)
    assert client.wait() == 143


@pytest.mark.parametrize(
    ("path", "said"), [("/nowhere", "the server answered 404 Not Found"), ("/close/x", "404")]
)
def test_refused_handshake_is_told(server: str, start: Start, path: str, said: str) -> None:
    """Status and body, and exit code 2."""
    out, err, code = start(f"{server}{path}").finish()
    first, body = err.splitlines()
    assert first.startswith(f"trioweb: can't connect to ws://{server}{path}: ")
    assert said in first
    assert "Not Found" in body
    assert (out, code) == ("", 2)


def test_nobody_there_is_told(start: Start) -> None:
    """A port without a listener, and a name without an address (RFC 6761 §6.4)."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    assert start(f"127.0.0.1:{port}").finish()[1:] == (
        f"trioweb: can't connect to ws://127.0.0.1:{port}/: Connection refused\n",
        2,
    )
    _, err, code = start("ws://nowhere.invalid/").finish()
    assert "the name nowhere.invalid can't be looked up" in err
    assert (err.count("\n"), code) == (1, 2)


@contextmanager
def raw_server(answer: bytes, *, hold: bool = False) -> Iterator[str]:
    """A server that reads a request and says something; it holds the connection, or leaves."""
    over = threading.Event()

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(65536)
            connection.sendall(answer)
            if hold:
                over.wait()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"127.0.0.1:{listener.getsockname()[1]}"
        finally:
            over.set()
            thread.join()


def test_answer_that_is_no_handshake_is_told(start: Start) -> None:
    """In one line and its body, without a traceback."""
    with raw_server(b"HTTP/1.1 403 No\r\n\r\ngo \x1b[1maway\nnow") as address:
        assert start(address).finish() == (
            "",
            f"trioweb: can't connect to ws://{address}/: the server answered 403 Forbidden\n"
            "  go \\x1b[1maway\n  now\n",
            2,
        )


def test_ping_that_crosses_our_close(start: Start) -> None:
    """It comes between our Close and its answer, and is no reason to crash."""

    def serve() -> None:
        connection, _ = listener.accept()
        with connection, connection.makefile("rb") as file:
            key = ""
            while line := file.readline().strip():
                if line.lower().startswith(b"sec-websocket-key:"):
                    key = line.partition(b":")[2].strip().decode()
            connection.sendall(
                b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
                b"Connection: Upgrade\r\n"
                b"Sec-WebSocket-Accept: %s\r\n\r\n" % accept_key(key).encode()
            )
            # A Close with a code: head, mask and two bytes.
            received.append(file.read(8)[:2])
            connection.sendall(b"\x89\x00")
            connection.sendall(b"\x88\x02\x03\xe8")
            received.append(file.read())

    received: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            address = f"127.0.0.1:{listener.getsockname()[1]}"
            client = start(address, "--linger", "0", stdin=subprocess.DEVNULL)
            assert client.finish() == (
                "",
                f"connected to ws://{address}/\nclosed with 1000 by us\n",
                0,
            )
        finally:
            thread.join()
    assert received == [b"\x88\x82", b""]


def test_server_that_never_answers_is_given_up(start: Start) -> None:
    """``--timeout`` bounds all of it; Ctrl-C does not wait for that."""
    with raw_server(b"", hold=True) as address:
        assert start(address, "--timeout", "0.3").finish()[1:] == (
            f"trioweb: can't connect to ws://{address}/: "
            "the handshake was not answered within 0.3 s\n",
            2,
        )


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (
            b"HTTP/1.1 401 No\r\nContent-Length: 99\r\n\r\nsign in",
            "the server answered 401 Unauthorized\n  sign in",
        ),
        (b"HTTP/1.1 503 No\r\nRetry-", "the server answered 503 Service Unavailable"),
        (
            b"HTTP/1.1 101 Swi",
            "the answer to the handshake was not whole within 1 s: b'HTTP/1.1 101 Swi'",
        ),
    ],
)
def test_answer_without_an_end_is_told(start: Start, answer: bytes, said: str) -> None:
    """The status of a refusal is known when its time is over, and more than that it is over."""
    with raw_server(answer, hold=True) as address:
        assert start(address, "--timeout", "1").finish()[1:] == (
            f"trioweb: can't connect to ws://{address}/: {said}\n",
            2,
        )


def test_interrupted_while_connecting(start: Start) -> None:
    """Nothing was open, so there is nothing to close."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = start(f"127.0.0.1:{listener.getsockname()[1]}", "--timeout", "inf")
        connection, _ = listener.accept()
        with connection:
            assert connection.recv(3) == b"GET"
            client.interrupt()
            assert client.finish()[1:] == ("interrupted\n", 130)


def test_closed_descriptors(server: str) -> None:
    """Without stdin the input is at its end; without stdout there is nothing to do."""
    command = f"{sys.executable} -m trioweb connect {server}/greet"
    done = subprocess.run(
        ["sh", "-c", f"{command} <&- 2>&-"], capture_output=True, text=True, timeout=30, check=True
    )
    assert done.stdout == "hello nobody\n"
    done = subprocess.run(
        ["sh", "-c", f"{command} >&-"], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.stderr == "trioweb: stdout is closed, there is nowhere to write to\n"
    assert done.returncode == 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["ftp://a/"], "use ws://"),
        (["a/", "-H", "Upgrade: x"], "the handshake writes it"),
        (["a/", "--subprotocol", "a b"], "is no subprotocol"),
        (["a/", "--linger", "-1"], "0 or more"),
        (["a/", "--linger", "nan"], "0 or more"),
        (["a/", "--timeout", "0"], "give more"),
        (["a/", "--origin", "a\nb"], "control character"),
    ],
)
def test_wrong_command_lines(
    capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    """They are told what would be right."""
    with pytest.raises(SystemExit) as exit_info:
        main(["connect", *arguments])
    assert exit_info.value.code == 2
    assert said in capsys.readouterr().err


def test_help_has_every_exit_code_and_what_json_does(capsys: pytest.CaptureFixture[str]) -> None:
    """As the other tests here see them."""
    with pytest.raises(SystemExit):
        main(["connect", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    for said in (
        "0 after the close codes 1000, 1001 and 1005, and when nobody reads stdout any more",
        "1 after other codes and a loss, when stdout can't be written, and when a line of a pipe "
        "or file could not be sent",
        "2 without a connection",
        "130 after Ctrl-C, 143 after SIGTERM",
        "a line that is none is not sent, a message that is none is remarked and shown as it is",
        "shown indented on a terminal, else compact",
    ):
        assert said in text
