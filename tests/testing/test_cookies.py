"""The cookies that a test's client keeps."""

from __future__ import annotations

import time
from email.utils import formatdate
from typing import Any

import pytest

from trioweb.http.headers import Headers
from trioweb.testing.cookies import Cookies


def answer(*values: str) -> Headers:
    return Headers([("Set-Cookie", value) for value in values])


def test_a_cookie_goes_back_where_it_came_from() -> None:
    """Name and value as they came, to every path of its host, and to no other host."""
    jar = Cookies()
    jar.take(answer("a=1", 'b="x y"; HttpOnly; SameSite=Lax'), "/in/side?q=/")
    assert dict(jar) == {"a": "1", "b": '"x y"'}
    assert jar.header_for("/in/other") == 'a=1; b="x y"'
    assert jar.header_for("/") == ""
    assert jar.header_for("/in/side", host="sub.app.test") == ""
    assert jar.header_for("/in/side", host="other.test") == ""
    assert jar.header_for("/in/side", host="app.test:8000") == 'a=1; b="x y"'


def test_domain_and_path_say_where_else() -> None:
    """A Domain takes subdomains in, a foreign one is refused, a Path holds."""
    jar = Cookies()
    jar.take(answer("d=1; Domain=app.test; Path=/", "p=2; Path=/x"), "/")
    jar.take(answer("no=1; Domain=other.test"), "/")
    assert jar.header_for("/", host="sub.app.test") == "d=1"
    assert jar.header_for("/x/y") == "p=2; d=1"
    assert "no" not in jar
    jar.take(answer("l=1; Path=/"), "/", host="localhost")
    assert jar.header_for("/", host="localhost:80") == "l=1"
    assert jar.header_for("/", host="") == ""
    jar.take(answer("e=1"), "/", host="")
    assert "e" not in jar


def test_secure_cookies_go_to_https_alone() -> None:
    """The mapping shows them all the same."""
    jar = Cookies()
    jar.take(answer("s=1; Secure"), "/", secure=True)
    assert jar["s"] == "1"
    assert jar.header_for("/") == ""
    assert jar.header_for("/", secure=True) == "s=1"


def test_expiry_counts_by_the_wall_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Max-Age and Expires end a cookie, and at once when they lie in the past."""
    jar = Cookies()
    jar.take(answer("m=1; Max-Age=60", f"e=1; Expires={formatdate(time.time() + 60)}", "s=1"), "/")
    assert set(jar) == {"m", "e", "s"}
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 61)
    assert set(jar) == {"s"}
    assert jar.header_for("/") == "s=1"
    jar.take(answer("s=; Max-Age=0"), "/")
    assert dict(jar) == {}


def test_a_test_sets_reads_and_deletes() -> None:
    """It is a mapping; setting one puts it in the place of all others of that name."""
    jar = Cookies()
    jar.take(answer("p=deep; Path=/in/side", "p=top; Path=/"), "/")
    assert (jar.pop("p"), "p" in jar) == ("deep", False)
    jar.take(answer("session=old; Path=/; Domain=app.test", "session=deep; Path=/in"), "/")
    assert jar["session"] == "deep"
    jar["session"] = "x"
    assert jar.header_for("/in") == "session=x"
    assert repr(jar) == "Cookies({'session': 'x'})"
    jar.set("session", "theirs", host="other.test", path="/very/deep")
    assert jar["session"] == "x"
    assert jar.header_for("/very/deep/", host="other.test") == "session=theirs"
    assert len(jar.jar) == 2
    del jar["session"]
    assert len(jar) == len(jar.jar) == 0
    with pytest.raises(KeyError):
        del jar["session"]
    jar.set("s", "1", host="localhost", secure=True)
    assert jar.header_for("/", host="localhost", secure=True) == "s=1"
    assert jar.header_for("/", host="localhost") == ""


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("a b", "1", "'a b' is not a cookie's name"),
        ("", "1", "not a cookie's name"),
        ("a", "1;b=2", "a is '1;b=2'; only ASCII"),
        ("a", "é", "quote"),
        ("a", "1\r\n", "control"),
        ("a", 1, "cookie 'a' is 1; name and value must be str"),
    ],
)
def test_what_would_break_the_field_is_refused(name: str, value: Any, message: str) -> None:
    """The jar stays as it was."""
    jar = Cookies()
    jar["a"] = "kept"
    with pytest.raises((TypeError, ValueError), match=message):
        jar[name] = value
    assert dict(jar) == {"a": "kept"}
