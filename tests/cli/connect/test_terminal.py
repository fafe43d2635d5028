"""The command on a pseudo-terminal, as a user sees it."""

from __future__ import annotations

import os
import select
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tests.cli.connect.conftest import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.cli.connect.conftest import Client

    Start = Callable[..., Client]

CTRL_C, CTRL_D = b"\x03", b"\x04"


class Terminal:
    """What stands on the screen, and the keyboard.

    Args:
        master: the end of the pseudo-terminal that a terminal emulator has.
    """

    def __init__(self, master: int) -> None:
        self._master = master
        self._seen = ""

    def type(self, keys: str | bytes) -> None:
        """Press keys."""
        os.write(self._master, keys if isinstance(keys, bytes) else keys.encode())

    def expect(self, text: str) -> str:
        """Wait until a text was written; what came before it."""
        deadline = time.monotonic() + PATIENCE
        while text not in self._seen:
            left = deadline - time.monotonic()
            ready, _, _ = select.select([self._master], [], [], max(0, left))
            assert ready, f"no {text!r} in {self._seen!r}"
            try:
                data = os.read(self._master, 65536)
            except OSError:
                data = b""  # the program has ended (EIO)
            assert data, f"no {text!r} in {self._seen!r}"
            self._seen += data.decode()
        before, _, self._seen = self._seen.partition(text)
        return before


@contextmanager
def on_terminal(start: Start, *arguments: str) -> Iterator[tuple[Terminal, Client]]:
    """The command with a terminal of its own, which it is controlled by."""
    master, slave = os.openpty()
    try:
        client = start(*arguments, stdin=slave, stdout=slave, stderr=slave)
        os.close(slave)
        yield Terminal(master), client
    finally:
        os.close(master)


def test_messages_have_marks_and_the_prompt_stands_again(server: str, start: Start) -> None:
    """What was sent stands behind one mark, what came behind another; Ctrl-D closes at once."""
    with on_terminal(start, f"{server}/echo") as (terminal, client):
        terminal.expect(f"connected to ws://{server}/echo")
        terminal.expect("> ")
        terminal.type("hello\n")
        terminal.expect("hello\r\n")
        terminal.expect("\x1b[32m< \x1b[0mhello\r\n")
        terminal.expect("> ")
        terminal.type("hel")
        terminal.expect("hel")
        terminal.type("lo again\n")
        terminal.expect("< \x1b[0mhello again\r\n")
        terminal.type(CTRL_D)
        terminal.expect("\r\x1b[K\x1b[2mclosed with 1000 by us\x1b[0m\r\n")
        assert client.wait() == 0


def test_ctrl_c_closes(server: str, start: Start) -> None:
    """With the exit code that shells expect, and without a traceback."""
    with on_terminal(start, f"{server}/greet") as (terminal, client):
        terminal.expect("< \x1b[0mhello nobody\r\n")
        terminal.type(CTRL_C)
        assert "Traceback" not in terminal.expect("closed with 1000 by us")
        assert client.wait() == 130


def test_server_can_not_drive_the_terminal(server: str, start: Start) -> None:
    """Neither by what it says nor by the reason of its close; its lines are indented."""
    with on_terminal(start, f"{server}/rude") as (terminal, client):
        terminal.expect("< \x1b[0m\\x1b[2J\\x07 gone\\u202e\r\n  and more\r\n")
        terminal.type("away with you\n")
        terminal.expect("closed with 1000 (\\x1b]0;title\\x07) by the server")
        assert client.wait() == 0


def test_json_is_indented(server: str, start: Start) -> None:
    """A wrong line does not fail who can see it and try again."""
    with on_terminal(start, f"{server}/echo", "--json") as (terminal, client):
        terminal.expect("> ")
        terminal.type('{"a":[1,2.50]}\n')
        terminal.expect('\r\n    "a": [\r\n      1,\r\n      2.50\r\n    ]\r\n  }\r\n')
        terminal.type("nonsense\n")
        terminal.expect("line 2 was not sent: it is no JSON")
        terminal.type(CTRL_D)
        terminal.expect("closed with 1000 by us")
        assert client.wait() == 0


def test_server_that_closes_ends_it_while_nobody_types(server: str, start: Start) -> None:
    """The terminal is silent, and the program does not wait for it."""
    with on_terminal(start, f"{server}/close/4001") as (terminal, client):
        terminal.expect("last words")
        terminal.expect("closed with 4001 (so it is) by the server")
        assert client.wait() == 1


def test_line_that_ctrl_d_ends_takes_nothing_away(server: str, start: Start) -> None:
    """The message above it stays, and what follows has a line of its own."""
    with on_terminal(start, f"{server}/greet") as (terminal, client):
        terminal.expect("< \x1b[0mhello nobody\r\n")
        terminal.expect("> ")
        terminal.type(b"abc" + CTRL_D + CTRL_D)
        end = terminal.expect("closed with 1000")
        assert "\x1b[A" not in end
        assert "abc\r\n" in end
        assert client.wait() == 0
