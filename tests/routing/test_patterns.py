"""Patterns match, refuse, build and collide as API.md says."""

from __future__ import annotations

from datetime import date
from uuid import UUID

import pytest

from trioweb.errors import RouteError
from trioweb.routing.patterns import Pattern, decode_path

UUID_TEXT = "6f1c2f3a-0b1d-4c8e-9a55-1f2e3d4c5b6a"


@pytest.mark.parametrize(
    ("pattern", "path", "params"),
    [
        ("/a/<x>", "/a/b", {"x": "b"}),
        ("/a/{x}", "/a/b", {"x": "b"}),
        ("/a/<x>", "/a/b/c", None),
        ("/a/<x>", "/a/", None),
        ("/a/<x:strorempty>", "/a/", {"x": ""}),
        ("/a/<x:int>", "/a/-7", {"x": -7}),
        ("/a/{x:int}", "/a/seven", None),
        ("/a/<x:int>", "/a/" + "9" * 5000, None),
        ("/a/<x:float>", "/a/1.5", {"x": 1.5}),
        ("/a/<x:alpha>", "/a/bc", {"x": "bc"}),
        ("/a/<x:alpha>", "/a/b1", None),
        ("/a/<x:slug>", "/a/b-1", {"x": "b-1"}),
        ("/a/<x:slug>", "/a/b--1", None),
        ("/a/<x:path>", "/a/b/c", {"x": "b/c"}),
        ("/a/<x:path>/end", "/a/b/c/end", {"x": "b/c"}),
        ("/a/<x:ymd>", "/a/2024-02-29", {"x": date(2024, 2, 29)}),
        ("/a/<x:ymd>", "/a/2023-02-29", None),
        ("/a/<x:uuid>", f"/a/{UUID_TEXT}", {"x": UUID(UUID_TEXT)}),
        ("/a/<x:ext>", "/a/b.txt", {"x": "b", "ext": "txt"}),
        ("/a/<x:ext=jpg|png>", "/a/b.txt", None),
        ("/a/<x=int:ext>", "/a/7.gz", {"x": 7, "ext": "gz"}),
        ("/a/<x:[a-z]{3}>", "/a/abc", {"x": "abc"}),
        ("/a/{x:[a-z]{3}}", "/a/abcd", None),
        ("/a/v<x:int>-<y>", "/a/v1-b", {"x": 1, "y": "b"}),
    ],
)
def test_pattern_matches(pattern: str, path: str, params: dict[str, object] | None) -> None:
    """Every type, in both notations; what a converter refuses does not match."""
    assert Pattern(pattern).match(path) == params


def test_encoded_slash_stays_inside_its_parameter() -> None:
    """%2F is a character of the value, not a separator; other escapes are decoded."""
    assert Pattern("/a/<x>").match(decode_path("/a/b%2fc%20d")) == {"x": "b/c d"}


@pytest.mark.parametrize(("strict", "expected"), [(False, {"x": "b"}), (True, None)])
def test_slash_at_the_end(strict: bool, expected: object) -> None:
    """It makes another path only under strict_slashes."""
    assert Pattern("/a/<x>", strict_slashes=strict).match("/a/b/") == expected


@pytest.mark.parametrize(
    ("path", "hint"),
    [
        ("a", "slash"),
        ("/<x", "does not close"),
        ("/x>", "did not open"),
        ("/<x:imt>", "did you mean int"),
        ("/<x>/<x>", "twice"),
        ("/<1x>", "name of a parameter"),
        ("/<x:[a-z>", "bad regular expression"),
    ],
)
def test_bad_patterns_are_refused(path: str, hint: str) -> None:
    """The message names the path and what is wrong."""
    with pytest.raises(RouteError, match=hint):
        Pattern(path)


def test_build_is_the_reverse_of_match() -> None:
    """Values are percent-encoded, a slash too unless the type is path."""
    pattern = Pattern("/a/<x>/<rest:path>")
    path = pattern.build({"x": "b/c d", "rest": "e/f"})
    assert path == "/a/b%2Fc%20d/e/f"
    assert pattern.match(decode_path(path)) == {"x": "b/c d", "rest": "e/f"}


def test_build_refuses_what_would_not_match() -> None:
    """A URL that leads nowhere is an error where it is made."""
    with pytest.raises(RouteError, match="seven"):
        Pattern("/<x:int>").build({"x": "seven"})
    with pytest.raises(RouteError, match="needs the parameter"):
        Pattern("/<x>").build({})
