"""What a config accepts, refuses and says about it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from trioweb.config import KEYS, Config, check_value
from trioweb.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path


def test_defaults_are_those_of_the_documents() -> None:
    """The six of the seed, and a few of ours."""
    config = Config()
    assert config.WEBSOCKET_TIMEOUT == 10
    assert config.WEBSOCKET_PING_INTERVAL == 20
    assert config.WEBSOCKET_PING_TIMEOUT == 20
    assert config.WEBSOCKET_MAX_SIZE == 1048576
    assert config.WEBSOCKET_MAX_QUEUE == 32
    assert config.WEBSOCKET_COMPRESSION is None
    assert config.WEBSOCKET_ORIGINS == "same-origin"
    assert config.REQUEST_MAX_HEADER_SIZE == 8192
    assert all(key.check(key.default) for key in KEYS.values())


def test_every_key_has_its_annotation() -> None:
    """The table and the typed attributes name the same keys."""
    assert set(KEYS) == {name for name in Config.__annotations__ if name.isupper()}


def test_attributes_and_items_are_the_same() -> None:
    """What is set one way is read the other way."""
    config = Config({"WEBSOCKET_MAX_QUEUE": 4})
    assert config["WEBSOCKET_MAX_QUEUE"] == config.WEBSOCKET_MAX_QUEUE == 4
    config.WEBSOCKET_MAX_QUEUE = 5
    assert config["WEBSOCKET_MAX_QUEUE"] == 5
    config["WEBSOCKET_MAX_QUEUE"] = 6
    assert config.WEBSOCKET_MAX_QUEUE == 6
    del config["WEBSOCKET_MAX_QUEUE"]
    assert config.WEBSOCKET_MAX_QUEUE == 32


def test_own_keys_are_kept() -> None:
    """An application may keep its own settings here, and remove them."""
    config = Config({"DATABASE_URL": "sqlite://"})
    assert config.DATABASE_URL == "sqlite://"
    assert "sqlite" not in repr(config)
    del config["DATABASE_URL"]
    assert "DATABASE_URL" not in config
    with pytest.raises(AttributeError, match="no config key DATABASE_URL"):
        _ = config.DATABASE_URL


@pytest.mark.parametrize(
    ("key", "near"),
    [
        ("WEBSOCKET_TIMEOT", "WEBSOCKET_TIMEOUT"),
        ("WEBSOCKET_MAXSIZE", "WEBSOCKET_MAX_SIZE"),
        ("websocket_timeout", "WEBSOCKET_TIMEOUT"),
    ],
)
def test_misspelt_key_names_the_nearest(key: str, near: str) -> None:
    """A misspelling is told at once, with what was probably meant."""
    with pytest.raises(ConfigError, match=f"did you mean {near}"):
        Config({key: 1})
    with pytest.raises(ConfigError, match=f"did you mean {near}"):
        setattr(Config(), key, 1)
    with pytest.raises(AttributeError, match=f"did you mean {near}"):
        getattr(Config(), key)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("WEBSOCKET_TIMEOUT", "10"),
        ("WEBSOCKET_TIMEOUT", 0),
        ("WEBSOCKET_TIMEOUT", None),
        ("WEBSOCKET_TIMEOUT", True),
        ("WEBSOCKET_TIMEOUT", float("nan")),
        ("WEBSOCKET_PING_INTERVAL", -1),
        ("WEBSOCKET_MAX_SIZE", 1.5),
        ("WEBSOCKET_MAX_SIZE", True),
        ("WEBSOCKET_MAX_QUEUE", 0),
        ("WEBSOCKET_ORIGINS", "https://example.org"),
        ("WEBSOCKET_ORIGINS", [1]),
        ("WEBSOCKET_DISCONNECT_GRACE", -0.1),
        ("WEBSOCKET_COMPRESSION", "gzip"),
        ("WEBSOCKET_COMPRESSION", True),
        ("WEBSOCKET_COMPRESSION", ["deflate"]),
        ("WEBSOCKET_COMPRESSION_THRESHOLD", None),
        ("WEBSOCKET_COMPRESSION_THRESHOLD", -1),
        ("WEBSOCKET_MAX_CONNECTIONS", 0),
        ("WEBSOCKET_MAX_CONNECTIONS", 2.5),
        ("WEBSOCKET_MAX_CONNECTIONS_PER_IP", True),
        ("WEBSOCKET_RATE_LIMIT", 10),
        ("WEBSOCKET_RATE_LIMIT", "10/1"),
        ("WEBSOCKET_RATE_LIMIT", (10,)),
        ("WEBSOCKET_RATE_LIMIT", (0, 1)),
        ("WEBSOCKET_RATE_LIMIT", (1.5, 1)),
        ("WEBSOCKET_RATE_LIMIT", (10, 0)),
        ("WEBSOCKET_RATE_LIMIT", (10, float("inf"))),
        ("WEBSOCKET_RATE_LIMIT", {10, 1}),
        ("ROOM_SLOW_POLICY", "drop"),
        ("ROOM_SLOW_POLICY", None),
        ("ROOM_SLOW_POLICY", ["disconnect"]),
    ],
)
def test_wrong_value_is_refused(key: str, value: object) -> None:
    """The error says the key, the value and what would do; the old value stays."""
    config = Config()
    before = config[key]
    with pytest.raises(ConfigError, match=f"{key}=.* it must be "):
        config[key] = value
    assert config[key] == before


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("WEBSOCKET_PING_INTERVAL", None),
        ("WEBSOCKET_PING_TIMEOUT", 0.5),
        ("WEBSOCKET_DISCONNECT_GRACE", None),
        ("WEBSOCKET_DISCONNECT_GRACE", 0),
        ("WEBSOCKET_ORIGINS", "*"),
        ("WEBSOCKET_COMPRESSION", "deflate"),
        ("WEBSOCKET_COMPRESSION", "deflate-context"),
        ("WEBSOCKET_COMPRESSION_THRESHOLD", 0),
        ("WEBSOCKET_MAX_CONNECTIONS", 1),
        ("WEBSOCKET_MAX_CONNECTIONS_PER_IP", None),
        ("WEBSOCKET_RATE_LIMIT", None),
        ("WEBSOCKET_RATE_LIMIT", (1, 0.5)),
        ("ROOM_SLOW_POLICY", "disconnect"),
        ("ROOM_SLOW_POLICY", "drop_oldest"),
        ("GRACEFUL_SHUTDOWN_TIMEOUT", 0),
        ("WEBSOCKET_TIMEOUT", float("inf")),
    ],
)
def test_edge_values_are_accepted(key: str, value: object) -> None:
    """None where it means off or for ever, and zero where it means at once."""
    assert check_value(key, value) == value


def test_what_is_not_built_is_refused() -> None:
    """A setting that would silently do nothing is an error."""
    with pytest.raises(ConfigError, match=r"PROXIES_COUNT=.*not built yet"):
        Config({"PROXIES_COUNT": 1})


def test_environment_sets_the_policy_of_rooms() -> None:
    """It is a word like any other; ``none`` turns nothing off."""
    config = Config()
    assert config.ROOM_SLOW_POLICY == "disconnect"
    config.load_env({"TRIOWEB_ROOM_SLOW_POLICY": "drop_oldest"})
    assert config["ROOM_SLOW_POLICY"] == "drop_oldest"
    with pytest.raises(ConfigError, match=r"ROOM_SLOW_POLICY=.* \"drop_oldest\""):
        config.load_env({"TRIOWEB_ROOM_SLOW_POLICY": "none"})


def test_update_is_all_or_nothing() -> None:
    """One refused key leaves the others as they were."""
    config = Config()
    with pytest.raises(ConfigError):
        config.update({"WEBSOCKET_MAX_QUEUE": 1, "WEBSOCKET_TIMEOUT": "x"})
    assert config.WEBSOCKET_MAX_QUEUE == 32


def test_origins_are_copied() -> None:
    """Changing the list afterwards changes nothing that was checked."""
    origins = ["https://a.example"]
    config = Config({"WEBSOCKET_ORIGINS": origins})
    origins.append("https://b.example")
    assert config.WEBSOCKET_ORIGINS == ("https://a.example",)


@pytest.mark.parametrize(
    ("text", "value"),
    [("10/1", (10, 1)), ("10, 0.5", (10, 0.5)), (" 3 / 60 ", (3, 60)), ("none", None), ("", None)],
)
def test_rate_limit_is_read_from_the_environment(
    text: str, value: tuple[int, float] | None
) -> None:
    """Messages and seconds, with a slash or a comma between them."""
    config = Config()
    config.load_env({"TRIOWEB_WEBSOCKET_RATE_LIMIT": text})
    assert config["WEBSOCKET_RATE_LIMIT"] == value


@pytest.mark.parametrize("text", ["10", "10/", "/1", "a/b", "1/2/3", "10/none", "10/-1"])
def test_bad_rate_limit_of_the_environment_is_told(text: str) -> None:
    """What can't be read is the same error as a wrong value, with the key and what it can be."""
    with pytest.raises(ConfigError, match=r"WEBSOCKET_RATE_LIMIT=.* must be \(messages, seconds\)"):
        Config().load_env({"TRIOWEB_WEBSOCKET_RATE_LIMIT": text})


def test_environment_turns_compression_and_caps_on_and_off() -> None:
    """The same words as in a mapping; none is off."""
    config = Config()
    config.load_env(
        {
            "TRIOWEB_WEBSOCKET_COMPRESSION": "deflate",
            "TRIOWEB_WEBSOCKET_COMPRESSION_THRESHOLD": "0",
            "TRIOWEB_WEBSOCKET_MAX_CONNECTIONS": "1000",
        }
    )
    assert config.WEBSOCKET_COMPRESSION == "deflate"
    assert config.WEBSOCKET_COMPRESSION_THRESHOLD == 0
    assert config.WEBSOCKET_MAX_CONNECTIONS == 1000
    config.load_env(
        {
            "TRIOWEB_WEBSOCKET_COMPRESSION": "none",
            "TRIOWEB_WEBSOCKET_MAX_CONNECTIONS": "none",
        }
    )
    assert config.WEBSOCKET_COMPRESSION is None
    assert config.WEBSOCKET_MAX_CONNECTIONS is None


def test_environment_is_converted() -> None:
    """Numbers, none and lists are read as such; own keys stay text; others are not ours."""
    config = Config()
    config.load_env(
        {
            "TRIOWEB_WEBSOCKET_TIMEOUT": "2.5",
            "TRIOWEB_WEBSOCKET_MAX_SIZE": "100",
            "TRIOWEB_WEBSOCKET_PING_INTERVAL": "none",
            "TRIOWEB_WEBSOCKET_ORIGINS": "https://a.example, https://b.example",
            "TRIOWEB_PIN": "0042",
            "WEBSOCKET_TIMEOUT": "99",
        }
    )
    assert config.WEBSOCKET_TIMEOUT == 2.5
    assert config.WEBSOCKET_MAX_SIZE == 100
    assert config.WEBSOCKET_PING_INTERVAL is None
    assert config.WEBSOCKET_ORIGINS == ("https://a.example", "https://b.example")
    assert config.PIN == "0042"


def test_environment_errors_name_the_key() -> None:
    """A misspelt or wrong variable is told like any other setting."""
    with pytest.raises(ConfigError, match="WEBSOCKET_TIMEOUT"):
        Config().load_env({"TRIOWEB_WEBSOCKET_TIMEOT": "1"})
    with pytest.raises(ConfigError, match="seconds"):
        Config().load_env({"TRIOWEB_WEBSOCKET_TIMEOUT": "soon"})


@pytest.mark.parametrize("head", ["", "[trioweb]\n"])
def test_toml_is_read(tmp_path: Path, head: str) -> None:
    """Keys stand at the top of the file or in a table of ours."""
    path = tmp_path / "settings.toml"
    path.write_text(
        head
        + 'WEBSOCKET_MAX_QUEUE = 3\nWEBSOCKET_PING_INTERVAL = "none"\n'
        + 'WEBSOCKET_ORIGINS = ["https://a.example"]\nGREETING = "hi"\n'
        + "WEBSOCKET_RATE_LIMIT = [10, 0.5]\n"
    )
    config = Config()
    config.load_toml(path)
    assert config.WEBSOCKET_MAX_QUEUE == 3
    assert config.WEBSOCKET_PING_INTERVAL is None
    assert config.WEBSOCKET_ORIGINS == ("https://a.example",)
    assert config.GREETING == "hi"
    assert config.WEBSOCKET_RATE_LIMIT == (10, 0.5)


@pytest.mark.parametrize("text", [None, "WEBSOCKET_MAX_QUEUE = ", "WEBSOCKET_MAX_QUEUE = 'x'"])
def test_bad_toml_is_one_error(tmp_path: Path, text: str | None) -> None:
    """A missing file, bad syntax and a bad value are ConfigErrors alike."""
    path = tmp_path / "settings.toml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ConfigError):
        Config().load_toml(path)
