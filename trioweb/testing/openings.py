"""The files and sockets that an application opens, and where.

Theory of operation. Python tells an audit hook of each that is opened; whose it is, a context
variable says, which tasks and worker threads inherit. So what a test or its fixtures open
meanwhile is none of the application's. A hook can't be taken away again: there is one for the
process, which does nothing while no application is watched.
"""

from __future__ import annotations

import os
import socket
import sys
import weakref
from collections import Counter
from contextvars import ContextVar
from pathlib import Path

from trioweb.testing.places import place_of_caller

# Where the system tells what descriptors are of; elsewhere only sockets are found.
_DESCRIPTORS = Path("/proc/self/fd")


class Openings:
    """What one application has opened."""

    def __init__(self) -> None:
        self._before = _open_files()
        self._files: dict[str, str] = {}
        self._sockets: list[tuple[weakref.ref[socket.socket], str]] = []
        _Hook.install()

    def watch(self) -> None:
        """Count what is opened in this task's context, and in those that come of it."""
        _openings.set(self)

    def note(self, event: str, what: object) -> None:
        """Something is being opened: a file's path, or a socket."""
        if isinstance(what, socket.socket):
            self._sockets.append((weakref.ref(what), place_of_caller()))
        elif event == "open" and isinstance(what, (str, bytes)):
            self._files[os.path.realpath(os.fsdecode(what))] = place_of_caller()

    def leaked(self) -> list[str]:
        """What is still open, in words."""
        found = []
        for reference, place in self._sockets:
            one = reference()
            if one is not None and one.fileno() >= 0:
                found.append(f"the descriptor {one.fileno()}, {one!r}, opened {place}")
        now = _open_files()
        for path, place in self._files.items():
            if now[path] > self._before[path]:
                found.append(f"the descriptor of {path}, opened {place}")
        return found


_openings: ContextVar[Openings | None] = ContextVar("trioweb_openings", default=None)


class _Hook:
    is_installed = False

    @classmethod
    def install(cls) -> None:
        if not cls.is_installed:
            sys.addaudithook(cls.hear)
            cls.is_installed = True

    @staticmethod
    def hear(event: str, args: tuple[object, ...]) -> None:
        if event in ("open", "socket.__new__"):
            openings = _openings.get()
            if openings is not None:
                openings.note(event, args[0])


def _open_files() -> Counter[str]:
    """How often each file is open."""
    if not _DESCRIPTORS.is_dir():
        return Counter()
    found: Counter[str] = Counter()
    for number in os.listdir(_DESCRIPTORS):
        try:
            found[os.readlink(_DESCRIPTORS / number).removesuffix(" (deleted)")] += 1
        except OSError:
            pass  # that of the listing itself
    return found
