"""Tests of trioweb/ws/extensions.py, with the websockets package as the oracle."""

from __future__ import annotations

from time import perf_counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.exceptions import NegotiationError
from websockets.extensions.permessage_deflate import (
    ClientPerMessageDeflateFactory,
    ServerPerMessageDeflateFactory,
)
from websockets.headers import build_extension, parse_extension
from websockets.typing import ExtensionName

from trioweb.ws.extensions import MAX_OFFERS, MAX_PARAMETERS, negotiate

BOTH = "permessage-deflate; server_no_context_takeover; client_no_context_takeover"
NAME = ExtensionName("permessage-deflate")
MODES = ("deflate", "deflate-context")


def answer(*values: str, mode: str = "deflate") -> str | None:
    agreement = negotiate(values, mode)
    return None if agreement is None else agreement.header


@pytest.mark.parametrize(
    ("offer", "expected"),
    [
        ("permessage-deflate", BOTH),
        ("permessage-deflate; client_max_window_bits", BOTH),
        ("permessage-deflate; client_max_window_bits=10", BOTH),
        ("permessage-deflate; server_no_context_takeover", BOTH),
        ("permessage-deflate; server_max_window_bits=10", f"{BOTH}; server_max_window_bits=10"),
        ("permessage-deflate; server_max_window_bits=15", f"{BOTH}; server_max_window_bits=15"),
    ],
)
def test_deflate_forgets_the_context_both_ways(offer: str, expected: str) -> None:
    """And limits our window only when the client asks for it."""
    assert answer(offer) == expected


@pytest.mark.parametrize(
    ("offer", "expected"),
    [
        ("", "server_max_window_bits=12"),
        ("client_max_window_bits", "server_max_window_bits=12; client_max_window_bits=12"),
        ("client_max_window_bits=15", "server_max_window_bits=12; client_max_window_bits=12"),
        ("client_max_window_bits=8", "server_max_window_bits=12; client_max_window_bits=8"),
        ("server_max_window_bits=9", "server_max_window_bits=9"),
        ("server_max_window_bits=14", "server_max_window_bits=12"),
        ("server_no_context_takeover", "server_no_context_takeover; server_max_window_bits=12"),
        ("client_no_context_takeover", "client_no_context_takeover; server_max_window_bits=12"),
    ],
)
def test_deflate_context_keeps_it_in_small_windows(offer: str, expected: str) -> None:
    """The client's is limited only if it says that it can be."""
    offer = f"permessage-deflate; {offer}" if offer else "permessage-deflate"
    assert answer(offer, mode="deflate-context") == f"permessage-deflate; {expected}"


def test_the_agreement_says_what_the_answer_says() -> None:
    """A client that was told no limit may use the whole window."""
    offer = "permessage-deflate; client_max_window_bits=11; server_max_window_bits=10"
    agreement = negotiate([offer], "deflate")
    assert agreement is not None
    assert agreement[:4] == (False, False, 10, 15)
    agreement = negotiate([offer], "deflate-context")
    assert agreement is not None
    assert agreement[:4] == (True, True, 10, 11)
    agreement = negotiate(["permessage-deflate"], "deflate-context")
    assert agreement is not None
    assert agreement[:4] == (True, True, 12, 15)


def test_nothing_is_agreed_on_when_nothing_is_wanted_or_offered() -> None:
    """None means no header in the answer."""
    assert negotiate(["permessage-deflate"], None) is None
    assert negotiate([], "deflate") is None
    assert negotiate([""], "deflate") is None
    assert negotiate(["x-webkit-deflate-frame, permessage-bzip2"], "deflate") is None


@pytest.mark.parametrize(
    "parameters",
    [
        "unknown",
        "server_no_context_takeover=1",
        'server_no_context_takeover="true"',
        "client_no_context_takeover=1",
        "server_max_window_bits",
        "server_max_window_bits=7",
        "server_max_window_bits=8",
        "server_max_window_bits=16",
        "server_max_window_bits=010",
        "server_max_window_bits=+10",
        "server_max_window_bits=1_0",
        "client_max_window_bits=7",
        "client_max_window_bits=16",
        "client_max_window_bits=1e1",
        "server_no_context_takeover; server_no_context_takeover",
        "client_max_window_bits; client_max_window_bits=10",
        "Client_max_window_bits",
    ],
)
def test_an_offer_that_is_not_right_is_declined_and_the_next_one_taken(parameters: str) -> None:
    """Unknown, duplicate and bad parameters, and a window that zlib can't have."""
    bad = f"permessage-deflate; {parameters}"
    for mode in MODES:
        assert negotiate([bad], mode) is None
        good = answer("permessage-deflate", mode=mode)
        assert answer(f"{bad}, permessage-deflate", mode=mode) == good
        assert answer(bad, "permessage-deflate", mode=mode) == good


def test_the_client_s_first_acceptable_offer_wins() -> None:
    """Over several header lines, among offers of other extensions."""
    assert answer(
        "x-other; a=b; c",
        " , permessage-deflate; server_max_window_bits=8 ,",
        'permessage-deflate ;\tserver_max_window_bits = "1\\1" , permessage-deflate',
    ) == (f"{BOTH}; server_max_window_bits=11")


@pytest.mark.parametrize(
    "header",
    [
        "permessage-deflate, ;",
        "permessage-deflate;",
        "permessage-deflate; =10",
        "permessage-deflate; a=",
        'permessage-deflate; a="',
        'permessage-deflate; a="\\"',
        'permessage-deflate; a=""',
        'permessage-deflate; a="b c"',
        'permessage-deflate; server_max_window_bits="10"1',
        "permessage-deflate x",
        "permessage-deflate, (",
        "permessage-deflate\n",
        "permessage-deflate; server_max_window_bits=\u0661\u0660",
        "permessage-déflate, permessage-deflate",
    ],
)
def test_a_malformed_header_is_declined_whole(header: str) -> None:
    """Also when something before the mistake would do."""
    assert negotiate([header], "deflate") is None


def test_what_is_parsed_is_bounded() -> None:
    """In offers and in parameters; and the work is linear in what was sent."""
    others = ", ".join(["other"] * (MAX_OFFERS - 1))
    assert answer(f"{others}, permessage-deflate, (((") == BOTH
    assert answer(f"{others}, other, permessage-deflate") is None
    many = "; a" * (MAX_PARAMETERS + 1)
    assert answer(f"permessage-deflate{many}, permessage-deflate") is None
    size = 1_000_000
    start = perf_counter()
    for flood in (" ", "\t,", "a", "a,", "a;", ';a="', ';a="\\', "a; b=", "a ;", '"'):
        for head in ("", "permessage-deflate", "permessage-deflate; a="):
            negotiate([head + flood * (size // len(flood))], "deflate")
    # A quadratic one would take hours for a megabyte.
    assert perf_counter() - start < 10


words = st.sampled_from(
    [
        "permessage-deflate",
        "server_max_window_bits",
        "client_max_window_bits",
        "server_no_context_takeover",
        "client_no_context_takeover",
        *',;="\\ \t8é',
        "15",
        "10",
    ]
)


@given(st.lists(st.one_of(st.text(), st.lists(words).map("".join)), max_size=4))
def test_whatever_is_sent_nothing_raises(values: list[str]) -> None:
    """And what is answered can be read."""
    for mode in MODES:
        agreement = negotiate(values, mode)
        if agreement is not None:
            assert len(parse_extension(agreement.header)) == 1


bits = st.one_of(st.none(), st.integers(8, 15))


@given(st.booleans(), st.booleans(), bits, st.one_of(bits, st.just(True)))
def test_a_client_takes_our_answer_to_its_offer_as_we_do(
    server_none: bool, client_none: bool, server_bits: int | None, client_bits: int | None
) -> None:
    """Every offer that websockets can make, except one for a window that zlib can't have."""
    if client_bits == 8 and client_bits is not True:
        client_bits = 9  # websockets can't offer that
    client = ClientPerMessageDeflateFactory(server_none, client_none, server_bits, client_bits)
    offer = build_extension([(NAME, list(client.get_request_params()))])
    for mode in MODES:
        agreement = negotiate([offer], mode)
        if server_bits == 8:
            assert agreement is None
            continue
        assert agreement is not None
        ((_, answered),) = parse_extension(agreement.header)
        theirs = client.process_response_params(answered, [])
        assert agreement.server_takeover != theirs.remote_no_context_takeover
        assert agreement.server_bits == theirs.remote_max_window_bits
        # Our inflater may remember more than the client uses, never less.
        assert agreement.client_takeover or theirs.local_no_context_takeover
        assert agreement.client_bits >= theirs.local_max_window_bits


parameters = st.tuples(
    st.sampled_from(
        [
            "server_no_context_takeover",
            "client_no_context_takeover",
            "server_max_window_bits",
            "client_max_window_bits",
        ]
    ),
    st.one_of(st.none(), st.integers(7, 16).map(str)),
)


@given(st.lists(parameters, max_size=5))
def test_what_another_server_declines_is_declined(offer: list[tuple[str, str | None]]) -> None:
    """And nothing else, but for the window that zlib can't have."""
    header = build_extension([(NAME, offer)])
    try:
        ServerPerMessageDeflateFactory().process_request_params(offer, [])
        is_valid = True
    except NegotiationError:
        is_valid = False
    for mode in MODES:
        agreement = negotiate([header], mode)
        if ("server_max_window_bits", "8") in offer:
            assert agreement is None
        else:
            assert (agreement is not None) == is_valid
