"""What happens once."""

from __future__ import annotations

import trio
from trio.testing import assert_checkpoints, wait_all_tasks_blocked

from trioweb.ws.milestone import Milestone


async def test_all_who_wait_go_on() -> None:
    """Those who came before it, and those who come later."""
    milestone, gone_on = Milestone(), 0

    async def wait() -> None:
        nonlocal gone_on
        await milestone.wait()
        gone_on += 1

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        nursery.start_soon(wait)
        await wait_all_tasks_blocked()
        assert (milestone.is_set(), gone_on) == (False, 0)
        milestone.set()
        milestone.set()
        await wait_all_tasks_blocked()
        assert (milestone.is_set(), gone_on) == (True, 2)
    with assert_checkpoints():
        await milestone.wait()
