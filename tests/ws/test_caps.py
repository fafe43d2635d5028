"""Who gets a place, who is refused, and that every place comes back."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from trioweb.errors import TooManyConnections
from trioweb.ws.caps import WARNING_INTERVAL, ConnectionCaps

if TYPE_CHECKING:
    from trio.testing import MockClock


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What was warned of since the last call."""
    lines = [one.getMessage() for one in caplog.records if one.levelno == logging.WARNING]
    caplog.clear()
    return lines


async def test_the_total_is_bounded() -> None:
    """The next one is refused with 503, and let in once another has left."""
    caps = ConnectionCaps()
    caps.take("a", limit=2, limit_per_address=None)
    caps.take("b", limit=2, limit_per_address=None)
    with pytest.raises(TooManyConnections) as caught:
        caps.take("c", limit=2, limit_per_address=None)
    assert caught.value.status == 503
    assert caps.total == 2
    caps.give_back("a")
    caps.take("c", limit=2, limit_per_address=None)


async def test_each_address_is_bounded_by_itself() -> None:
    """A crowd at one address takes nothing from another."""
    caps = ConnectionCaps()
    caps.take("a", limit=None, limit_per_address=1)
    with pytest.raises(TooManyConnections):
        caps.take("a", limit=None, limit_per_address=1)
    caps.take("b", limit=None, limit_per_address=1)
    caps.give_back("a")
    caps.take("a", limit=None, limit_per_address=1)


async def test_peers_without_address_count_in_the_total_only() -> None:
    """Everyone behind a Unix socket has the same empty address, and is not one client."""
    caps = ConnectionCaps()
    for _ in range(3):
        caps.take("", limit=3, limit_per_address=1)
    with pytest.raises(TooManyConnections):
        caps.take("", limit=3, limit_per_address=1)


async def test_a_limit_that_is_set_later_knows_who_is_there() -> None:
    """Counting does not begin with the limit; nobody is put out by it."""
    caps = ConnectionCaps()
    for _ in range(3):
        caps.take("a", limit=None, limit_per_address=None)
    with pytest.raises(TooManyConnections):
        caps.take("b", limit=2, limit_per_address=None)
    with pytest.raises(TooManyConnections):
        caps.take("a", limit=None, limit_per_address=2)
    assert caps.total == 3


async def test_one_warning_a_minute_for_each_cap(
    caplog: pytest.LogCaptureFixture, mock_clock: MockClock
) -> None:
    """It names the key, its value and the address; a flood of refusals adds nothing."""
    caps = ConnectionCaps()

    def refuse(address: str, limit: int | None, limit_per_address: int | None) -> None:
        for _ in range(100):
            with pytest.raises(TooManyConnections):
                caps.take(address, limit=limit, limit_per_address=limit_per_address)

    caps.take("10.0.0.1", limit=1, limit_per_address=1)
    caps.take("", limit=None, limit_per_address=None)
    refuse("10.0.0.1", None, 1)
    (line,) = warnings(caplog)
    assert "WEBSOCKET_MAX_CONNECTIONS_PER_IP=1 " in line
    assert "10.0.0.1" in line
    refuse("", 2, None)
    (line,) = warnings(caplog)
    assert "WEBSOCKET_MAX_CONNECTIONS=2 " in line
    mock_clock.jump(WARNING_INTERVAL - 0.1)
    refuse("10.0.0.1", None, 1)
    assert warnings(caplog) == []
    mock_clock.jump(0.1)
    refuse("10.0.0.1", None, 1)
    refuse("10.0.0.1", 1, 1)
    assert len(warnings(caplog)) == 2


@given(
    steps=st.lists(st.sampled_from(["", "a", "b", None]), max_size=60),
    limit=st.none() | st.integers(1, 5),
    per_address=st.none() | st.integers(1, 3),
)
def test_counts_are_those_of_a_list(
    steps: list[str | None], limit: int | None, per_address: int | None
) -> None:
    """Whatever the order of coming and going, a place is had exactly where a list has room."""

    async def main() -> None:
        caps = ConnectionCaps()
        held: list[str] = []
        for address in steps:
            if address is None:
                # The oldest leaves.
                for left in held[:1]:
                    caps.give_back(left)
                held = held[1:]
                continue
            same = sum(one == address for one in held)
            has_room = (limit is None or len(held) < limit) and (
                not address or per_address is None or same < per_address
            )
            try:
                caps.take(address, limit=limit, limit_per_address=per_address)
            except TooManyConnections:
                assert not has_room
            else:
                assert has_room
                held.append(address)
            assert caps.total == len(held)
        for address in held:
            caps.give_back(address)
        assert caps.total == 0

    trio.run(main)
