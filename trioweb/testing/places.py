"""Places in a program: where something was started, and where a task waits."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from types import CodeType, FrameType

# Frames of these say nothing to who looks for a place in a program.
_TRIOWEB = f"{Path(__file__).parents[1]}{os.sep}"
_ELSEWHERE = (f"{Path(trio.__file__).parent}{os.sep}", _TRIOWEB)
_STDLIB = f"{Path(os.__file__).parent}{os.sep}"
# Where trioweb starts what nobody asked for.
NOWHERE = "by trioweb"


def place_of_caller() -> str:
    """Where, in a program or a test, the way began that led here: ``at file:line in function``."""
    try:
        root = getattr(trio.lowlevel.current_task().coro, "cr_frame", None)
    except RuntimeError:
        root = None
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if _is_telling(frame.f_code):
            return _place(frame, frame.f_lineno)
        if frame is root:
            break  # below is what runs Trio
        frame = frame.f_back
    return NOWHERE


def is_in_users_code(task: trio.lowlevel.Task) -> bool:
    """Whether a task waits in code that is neither Trio's nor trioweb's."""
    return any(_is_telling(frame.f_code) for frame, _ in task.iter_await_frames())


def waits_at(task: trio.lowlevel.Task) -> str:
    """Where a task waits, in a program rather than in Trio or here."""
    frames = list(task.iter_await_frames())
    if not frames:
        return "has not begun"
    telling = [one for one in frames if _is_telling(one[0].f_code)]
    ours = [one for one in frames if one[0].f_code.co_filename.startswith(_TRIOWEB)]
    return f"waits {_place(*(telling or ours or frames)[-1])}"


def _is_telling(code: CodeType) -> bool:
    file = code.co_filename
    is_pythons = file.startswith((_STDLIB, "<")) and "site-packages" not in file
    return not is_pythons and not file.startswith(_ELSEWHERE)


def _place(frame: FrameType, line: int | None) -> str:
    path = Path(frame.f_code.co_filename)
    if path.is_relative_to(Path.cwd()):
        path = path.relative_to(Path.cwd())
    return f"at {path}:{line or frame.f_lineno} in {frame.f_code.co_name}"
