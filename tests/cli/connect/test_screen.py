"""What is written where, and in which manner."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from trioweb.cli.connect.screen import Manner, OutputClosed, Screen, choose_manner

if TYPE_CHECKING:
    from collections.abc import Iterator

TERMINAL = Manner(marks=True, prompt=True, escapes=True, colors=False, shared=True)
ERASE = "\r\x1b[K"


class Pipes:
    """Both outputs of a screen, as pipes that the test reads."""

    def __init__(self) -> None:
        self.reader, self.stdout = os.pipe()
        self.error_reader, self.stderr = os.pipe()
        self.typed = False
        self.asked = trio.Event()
        """Set when a message finds the prompt in its place."""

    def screen(self, manner: Manner, *, together: bool = False) -> Screen:
        """A screen; with both outputs in one, as on a terminal, where that is wanted."""
        stderr = self.stdout if together else self.stderr
        return Screen(self.stdout, stderr, manner, self._is_typed)

    def read(self) -> str:
        """What stdout has got since the last time."""
        os.set_blocking(self.reader, False)
        try:
            return os.read(self.reader, 65536).decode()
        except BlockingIOError:
            return ""

    def _is_typed(self) -> bool:
        self.asked.set()
        return self.typed

    def close(self) -> None:
        for descriptor in (self.reader, self.stdout, self.error_reader, self.stderr):
            try:
                os.close(descriptor)
            except OSError:
                pass  # the test has closed it


@pytest.fixture
def pipes() -> Iterator[Pipes]:
    made = Pipes()
    yield made
    made.close()


async def test_pipe_gets_messages_alone(pipes: Pipes) -> None:
    """As they came: no marks, no colours, no prompt, nothing escaped."""
    screen = pipes.screen(Manner())
    await screen.prompt()
    await screen.show_sent("sent")
    await screen.show_received("a\x1b[1m\nb")
    await screen.show_received(b"\x00")
    await screen.remark("a remark\x07")
    screen.finish("the end")
    assert pipes.read() == "a\x1b[1m\nb\n<binary, 1 byte: 00>\n"
    assert os.read(pipes.error_reader, 100) == b"a remark\\x07\nthe end\n"


async def test_marks_say_who_sent(pipes: Pipes) -> None:
    """Where input comes from a pipe, what is sent is shown as well; lines stay theirs."""
    screen = pipes.screen(Manner(marks=True))
    await screen.show_sent("a\x1b")
    await screen.show_received("b\n> c")
    assert pipes.read() == "> a\\x1b\n< b\n  > c\n"


async def test_colors(pipes: Pipes) -> None:
    """Marks and remarks have one, the messages' text never."""
    manner = Manner(marks=True, escapes=True, colors=True, shared=True)
    screen = pipes.screen(manner, together=True)
    await screen.show_sent("a")
    await screen.show_received("b")
    await screen.remark("c")
    assert pipes.read() == "\x1b[36m> \x1b[0ma\n\x1b[32m< \x1b[0mb\n\x1b[2mc\x1b[0m\n"


async def test_prompt_makes_way(pipes: Pipes) -> None:
    """What comes takes its place, and it stands again below; the end takes it away."""
    screen = pipes.screen(TERMINAL, together=True)
    await screen.prompt()
    await screen.show_received("a")
    await screen.remark("b")
    assert pipes.read() == f"> {ERASE}< a\n> {ERASE}b\n> "
    screen.finish("the end")
    assert pipes.read() == f"{ERASE}the end\n"


async def test_undisturbed_line_stands_as_it_was_typed(pipes: Pipes) -> None:
    """The terminal has echoed it behind the prompt."""
    screen = pipes.screen(TERMINAL)
    await screen.prompt()
    await screen.show_sent("typed")
    assert pipes.read() == "> "
    await screen.show_received("answer")
    assert pipes.read() == "< answer\n"


async def test_disturbed_line_is_written_again(pipes: Pipes) -> None:
    """Over what there was left of it on the screen."""
    screen = pipes.screen(TERMINAL)
    await screen.prompt()
    await screen.show_received("a")
    pipes.read()
    await screen.show_sent("typed before and after")
    assert pipes.read() == f"\x1b[A{ERASE}> typed before and after\n"


async def test_line_without_an_end_erases_nothing_above(pipes: Pipes) -> None:
    """Ctrl-D leaves the cursor in the line; a message stands above, not the line."""
    screen = pipes.screen(TERMINAL)
    await screen.prompt()
    await screen.show_received("a")
    pipes.read()
    await screen.show_sent("typed", has_end=False)
    await screen.prompt()
    assert pipes.read() == f"{ERASE}> typed\n> "
    await screen.show_sent("undisturbed", has_end=False)
    assert pipes.read() == "\n"


async def test_message_after_the_line_was_ended_is_written_below_it(pipes: Pipes) -> None:
    """The line was typed but not read yet: it is neither erased nor written again."""
    screen = pipes.screen(TERMINAL)
    await screen.prompt()
    pipes.typed = True
    await screen.show_received("a")
    await screen.show_sent("typed")
    await screen.prompt()
    assert pipes.read() == "> < a\n"


async def test_message_on_its_way_is_not_erased(pipes: Pipes) -> None:
    """It is being written when the line comes, and so stands below it."""
    screen = pipes.screen(TERMINAL)
    await screen.prompt()
    await screen.show_received("a")
    pipes.read()
    pipes.asked = trio.Event()
    written = ""
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(screen.show_received, "b" * 100_000)  # more than a pipe holds
            await pipes.asked.wait()
            nursery.start_soon(screen.show_sent, "typed")
            await trio.testing.wait_all_tasks_blocked()
            while not written.endswith("typed\n"):
                await trio.lowlevel.wait_readable(pipes.reader)
                written += pipes.read()
    assert "b\n" in written
    assert written.endswith(f"{ERASE}> typed\n")
    assert "\x1b[A" not in written


async def test_terminal_that_knows_no_escapes(pipes: Pipes) -> None:
    """Gets a line of its own for each message."""
    screen = pipes.screen(Manner(marks=True, prompt=True))
    await screen.prompt()
    await screen.show_received("a")
    await screen.show_sent("typed")
    assert pipes.read() == "> \n< a\n> "


async def test_reader_that_has_left(pipes: Pipes) -> None:
    """It is known at once, not only when something is written."""
    screen = pipes.screen(Manner())
    left = trio.Event()

    async def watch() -> None:
        await screen.wait_closed()
        left.set()

    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch)
            await trio.testing.wait_all_tasks_blocked()
            assert not left.is_set()
            os.close(pipes.reader)
            await left.wait()
    with pytest.raises(OutputClosed) as caught:
        await screen.show_received("a")
    assert str(caught.value) == ""


async def test_stderr_that_nobody_reads_is_left_alone(pipes: Pipes) -> None:
    """The messages matter more."""
    os.close(pipes.error_reader)
    screen = pipes.screen(Manner())
    await screen.remark("a")
    await screen.show_received("b")
    assert pipes.read() == "b\n"


async def test_full_output_holds_up_no_more_than_its_writer(pipes: Pipes) -> None:
    """Cancelled, the thread that writes is left behind."""
    screen = pipes.screen(Manner())
    with trio.fail_after(10), trio.move_on_after(0.01) as scope:
        await screen.show_received("x" * 1_000_000)
    assert scope.cancelled_caught
    os.close(pipes.reader)  # which ends the thread


async def test_full_output_holds_up_nothing_that_is_sent(pipes: Pipes) -> None:
    """Into a pipe nothing of it is written, so there is nothing to wait for."""
    screen = pipes.screen(Manner())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(screen.show_received, "x" * 1_000_000)
        await trio.testing.wait_all_tasks_blocked()
        with trio.fail_after(5):
            await screen.show_sent("y")
        nursery.cancel_scope.cancel()
    os.close(pipes.reader)  # which ends the thread


def test_manner_suits_what_the_descriptors_are(
    pipes: Pipes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A terminal and what it knows, or a pipe."""
    master, terminal = os.openpty()
    try:
        monkeypatch.setenv("TERM", "xterm")
        monkeypatch.delenv("NO_COLOR", raising=False)
        assert choose_manner(terminal, terminal, terminal) == Manner(True, True, True, True, True)
        assert choose_manner(None, terminal, None) == Manner(True, False, True, True, False)
        assert choose_manner(terminal, pipes.stdout, terminal) == Manner()
        monkeypatch.setenv("NO_COLOR", "1")
        assert choose_manner(terminal, terminal, terminal) == TERMINAL
        monkeypatch.setenv("TERM", "dumb")
        assert choose_manner(terminal, terminal, pipes.stderr) == Manner(marks=True, prompt=True)
    finally:
        os.close(master)
        os.close(terminal)
