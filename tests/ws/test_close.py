"""Tests of trioweb/ws/close.py."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trioweb.ws.close import CloseCode, CloseInfo, check_code, cut_reason, is_wire_code

SENDABLE = [*range(1000, 1004), *range(1007, 1015), *range(3000, 5000)]


def test_exactly_the_codes_of_the_contract_are_allowed() -> None:
    """1000-1003, 1007-1014 and 3000-4999."""
    assert [code for code in range(-1, 70000) if is_wire_code(code)] == SENDABLE


@pytest.mark.parametrize("code", [0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65536, -1])
def test_a_code_that_cannot_be_sent_is_a_value_error(code: int) -> None:
    """The message says which can."""
    with pytest.raises(ValueError, match=rf"{code} can't be sent; use 1000-1003"):
        check_code(code)


@pytest.mark.parametrize("code", ["1000", 1000.0, None, True])
def test_a_code_that_is_no_int_is_a_type_error(code: object) -> None:
    """True would be 1."""
    with pytest.raises(TypeError, match="must be an int"):
        check_code(code)  # type: ignore[arg-type]


def test_a_code_that_can_be_sent_is_returned_as_a_plain_int() -> None:
    """Members of the enumeration work too."""
    assert check_code(4000) == 4000
    assert type(check_code(CloseCode.GOING_AWAY)) is int


@pytest.mark.parametrize(
    ("reason", "cut"),
    [
        ("", ""),
        ("x" * 123, "x" * 123),
        ("x" * 124, "x" * 123),
        ("x" * 122 + "é", "x" * 122),
        ("x" * 121 + "é", "x" * 121 + "é"),
        ("x" * 120 + "😀", "x" * 120),
        ("€" * 50, "€" * 41),
        ("bad \udc80 surrogate", "bad ? surrogate"),
    ],
)
def test_a_reason_is_cut_at_a_character(reason: str, cut: str) -> None:
    """123 bytes of UTF-8 fit into a Close frame."""
    assert cut_reason(reason) == cut


@given(st.text("aé€😀", max_size=150))
def test_a_cut_reason_is_the_longest_prefix_that_fits(reason: str) -> None:
    """Nothing is lost that need not be."""
    cut = cut_reason(reason)
    assert reason.startswith(cut)
    assert len(cut.encode()) <= 123
    if cut != reason:
        assert len(reason[: len(cut) + 1].encode()) > 123


def test_close_info_reads_like_a_record() -> None:
    """It compares and unpacks as a tuple."""
    info = CloseInfo(1000, "bye", "peer", clean=True)
    assert info == (1000, "bye", "peer", True)
    assert info.clean
