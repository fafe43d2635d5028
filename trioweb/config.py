"""The settings of an application.

Every key of trioweb is an attribute and an item of :class:`Config`, checked whenever it is set,
so that reading it is an ordinary attribute access and the hot paths never validate. ``KEYS`` is
the one table of keys: the default, the unit and the check of each.

Keys of parts that are not built in this version exist with the default that means "off"; any
other value is an error rather than a setting that silently does nothing.
"""

from __future__ import annotations

import math
import os
import tomllib
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from trioweb.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trioweb.types import Compression, RateLimit, SlowPolicy

ENV_PREFIX: Final = "TRIOWEB_"

# A misspelt key of these families would be a setting that silently does nothing.
_OWN_PREFIXES: Final = ("WEBSOCKET_",)


def _is_number(value: object) -> bool:
    # bool is an int, and True seconds is surely a mistake.
    return isinstance(value, (int, float)) and not isinstance(value, bool) and value == value


def _is_seconds(value: object) -> bool:
    return _is_number(value) and value > 0  # type: ignore[operator]


def _is_seconds_or_none(value: object) -> bool:
    return value is None or _is_seconds(value)


def _is_seconds_or_zero(value: object) -> bool:
    return _is_number(value) and value >= 0  # type: ignore[operator]


def _is_seconds_or_zero_or_none(value: object) -> bool:
    return value is None or _is_seconds_or_zero(value)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _is_size(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_count_or_none(value: object) -> bool:
    return value is None or _is_count(value)


def _is_compression(value: object) -> bool:
    return value is None or (isinstance(value, str) and value in ("deflate", "deflate-context"))


def _is_rate_limit(value: object) -> bool:
    if value is None:
        return True
    return (
        isinstance(value, (list, tuple))
        and len(value) == 2
        and _is_count(value[0])
        and _is_seconds(value[1])
        and math.isfinite(value[1])
    )


def _is_slow_policy(value: object) -> bool:
    return isinstance(value, str) and value in ("disconnect", "drop_oldest")


def _is_origins(value: object) -> bool:
    if isinstance(value, str):
        return value in ("same-origin", "*")
    return isinstance(value, (list, tuple, set, frozenset)) and all(
        isinstance(origin, str) for origin in value
    )


def _parse_number(text: str) -> object:
    """The number or None that an environment variable says; the text itself if neither."""
    if text.lower() in ("", "none", "null"):
        return None
    for convert in (int, float):
        try:
            return convert(text)
        except ValueError:
            continue
    return text


def _parse_origins(text: str) -> object:
    if text in ("same-origin", "*"):
        return text
    return [origin.strip() for origin in text.split(",") if origin.strip()]


def _parse_optional(text: str) -> object:
    return None if text.lower() in ("", "none", "null") else text


def _parse_rate_limit(text: str) -> object:
    """``10/1`` or ``10,1``: messages and seconds; the text itself if it is neither nor none."""
    parts = text.replace("/", ",").split(",")
    if len(parts) == 1:
        return _parse_optional(text)
    return [_parse_number(part.strip()) for part in parts]


@dataclass(frozen=True, slots=True)
class Key:
    """One row of the table: what a key is by default and may be."""

    default: object
    check: Callable[[object], bool]
    wanted: str
    parse: Callable[[str], object] = _parse_number
    built: bool = True


def _off(default: object, parse: Callable[[str], object] = _parse_optional) -> Key:
    """A key whose part is not built yet: nothing but its default is accepted."""
    return Key(default, lambda value: value == default, repr(default), parse, built=False)


_SECONDS = "seconds, a number > 0"
_SECONDS_OR_NONE = "seconds, a number > 0, or None for off"
_SECONDS_OR_ZERO = "seconds, a number >= 0"
_GRACE = "seconds, a number >= 0, or None for ever"
_BYTES = "a number of bytes, an int >= 0"
_COUNT = "a count, an int >= 1"
_COUNT_OR_NONE = "a count, an int >= 1, or None for no limit"
_COMPRESSION = 'None, "deflate" or "deflate-context"'
_SLOW_POLICY = '"disconnect" or "drop_oldest"'
_RATE_LIMIT = "(messages, seconds), an int >= 1 and a number > 0, or None for no limit"
_ORIGINS = '"same-origin", "*" or a list of origins such as ["https://example.org"]'

KEYS: Final[Mapping[str, Key]] = {
    "WEBSOCKET_TIMEOUT": Key(10.0, _is_seconds, _SECONDS),
    "WEBSOCKET_PING_INTERVAL": Key(20.0, _is_seconds_or_none, _SECONDS_OR_NONE),
    "WEBSOCKET_PING_TIMEOUT": Key(20.0, _is_seconds_or_none, _SECONDS_OR_NONE),
    "WEBSOCKET_MAX_SIZE": Key(1_048_576, _is_size, _BYTES),
    "WEBSOCKET_MAX_QUEUE": Key(32, _is_count, _COUNT),
    "WEBSOCKET_SEND_QUEUE_BYTES": Key(1_048_576, _is_size, _BYTES),
    "WEBSOCKET_STALL_TIMEOUT": Key(30.0, _is_seconds, _SECONDS),
    "WEBSOCKET_DISCONNECT_GRACE": Key(5.0, _is_seconds_or_zero_or_none, _GRACE),
    "WEBSOCKET_COMPRESSION": Key(None, _is_compression, _COMPRESSION, _parse_optional),
    "WEBSOCKET_COMPRESSION_THRESHOLD": Key(1024, _is_size, _BYTES),
    "WEBSOCKET_ORIGINS": Key("same-origin", _is_origins, _ORIGINS, _parse_origins),
    "WEBSOCKET_MAX_CONNECTIONS": Key(None, _is_count_or_none, _COUNT_OR_NONE),
    "WEBSOCKET_MAX_CONNECTIONS_PER_IP": Key(None, _is_count_or_none, _COUNT_OR_NONE),
    "WEBSOCKET_RATE_LIMIT": Key(None, _is_rate_limit, _RATE_LIMIT, _parse_rate_limit),
    "ROOM_SLOW_POLICY": Key("disconnect", _is_slow_policy, _SLOW_POLICY, str),
    "REQUEST_TIMEOUT": Key(60.0, _is_seconds, _SECONDS),
    "RESPONSE_TIMEOUT": Key(60.0, _is_seconds, _SECONDS),
    "KEEP_ALIVE_TIMEOUT": Key(120.0, _is_seconds, _SECONDS),
    "REQUEST_MAX_SIZE": Key(100_000_000, _is_size, _BYTES),
    "REQUEST_MAX_HEADER_SIZE": Key(8192, _is_count, "a number of bytes, an int >= 1"),
    "GRACEFUL_SHUTDOWN_TIMEOUT": Key(20.0, _is_seconds_or_zero, _SECONDS_OR_ZERO),
    "PROXIES_COUNT": _off(None),
    "FORWARDED_SECRET": _off(None),
    "REAL_IP_HEADER": _off(None),
}


def check_value(key: str, value: object) -> object:
    """Returns a value as ``Config`` would keep it for this key.

    Route options that override a key are checked by this as well.

    Args:
        key: an upper-case key; one that trioweb doesn't know is the user's own.
        value: the value to check.

    Raises:
        ConfigError: the key is a misspelt one of ours, the value can't be right, or the part
            that would read it is not built in this version.
    """
    known = KEYS.get(key)
    if known is None:
        _refuse_misspelt(key)
        return value
    if not known.check(value):
        if not known.built:
            raise ConfigError(
                f"{key}={value!r}: that part of trioweb is not built yet in this version; "
                f"leave the key at {known.default!r}"
            )
        raise ConfigError(f"{key}={value!r} can't be used: it must be {known.wanted}")
    if isinstance(value, (list, tuple, set, frozenset)):
        # A copy: a list that is changed later would pass by the check.
        return tuple(value)
    return value


def _refuse_misspelt(key: str) -> None:
    if not key.isupper() or key.startswith("_"):
        raise ConfigError(f"config keys are upper-case words, {key!r} is not: {_nearest(key)}")
    if key.startswith(_OWN_PREFIXES):
        raise ConfigError(f"unknown config key {key}: {_nearest(key)}")


def _nearest(key: str) -> str:
    near = get_close_matches(key.upper(), KEYS, n=1, cutoff=0.0)
    return f"did you mean {near[0]}?" if near else "see trioweb.config.KEYS"


class Config(MutableMapping[str, Any]):
    """The settings of one application, upper-case keys as attributes and as items.

    Keys that trioweb doesn't know are the application's own, except under ``WEBSOCKET_``, where
    they are taken for a misspelling.

    Args:
        values: settings that differ from the defaults.

    Raises:
        ConfigError: a key or a value can't be right; also raised by every later assignment.
    """

    WEBSOCKET_TIMEOUT: float
    WEBSOCKET_PING_INTERVAL: float | None
    WEBSOCKET_PING_TIMEOUT: float | None
    WEBSOCKET_MAX_SIZE: int
    WEBSOCKET_MAX_QUEUE: int
    WEBSOCKET_SEND_QUEUE_BYTES: int
    WEBSOCKET_STALL_TIMEOUT: float
    WEBSOCKET_DISCONNECT_GRACE: float | None
    WEBSOCKET_COMPRESSION: Compression | None
    WEBSOCKET_COMPRESSION_THRESHOLD: int
    WEBSOCKET_ORIGINS: str | Sequence[str]
    WEBSOCKET_MAX_CONNECTIONS: int | None
    WEBSOCKET_MAX_CONNECTIONS_PER_IP: int | None
    WEBSOCKET_RATE_LIMIT: RateLimit | None
    ROOM_SLOW_POLICY: SlowPolicy
    REQUEST_TIMEOUT: float
    RESPONSE_TIMEOUT: float
    KEEP_ALIVE_TIMEOUT: float
    REQUEST_MAX_SIZE: int
    REQUEST_MAX_HEADER_SIZE: int
    GRACEFUL_SHUTDOWN_TIMEOUT: float
    PROXIES_COUNT: None
    FORWARDED_SECRET: None
    REAL_IP_HEADER: None

    def __init__(self, values: Mapping[str, object] | None = None) -> None:
        # Instance attributes: a read costs one dict lookup and no Python code runs.
        self.__dict__.update((name, key.default) for name, key in KEYS.items())
        if values is not None:
            self.update(values)

    def load_env(self, environ: Mapping[str, str] | None = None) -> None:
        """Takes every ``TRIOWEB_<KEY>`` variable.

        Numbers are read as numbers and ``none`` as None; ``TRIOWEB_WEBSOCKET_ORIGINS`` is a comma
        separated list, ``TRIOWEB_WEBSOCKET_RATE_LIMIT`` messages and seconds as in ``10/1``. The
        application's own keys stay strings.

        Args:
            environ: the variables, those of the process by default.

        Raises:
            ConfigError: a variable's key or value can't be right; nothing is taken then.
        """
        values: dict[str, object] = {}
        for name, text in (os.environ if environ is None else environ).items():
            if name.startswith(ENV_PREFIX):
                key = name.removeprefix(ENV_PREFIX)
                known = KEYS.get(key)
                values[key] = text if known is None else known.parse(text.strip())
        self.update(values)

    def load_toml(self, path: str | os.PathLike[str]) -> None:
        """Takes the keys of a TOML file: those of its table ``[trioweb]``, or else the top level.

        TOML has no null: the string ``"none"`` turns a key off that may be None.

        Args:
            path: the file.

        Raises:
            ConfigError: the file can't be read, or a key or value can't be right; nothing is
                taken then.
        """
        try:
            document = tomllib.loads(Path(path).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ConfigError(f"can't read the config file {os.fspath(path)}: {error}") from error
        table = document.get("trioweb", document)
        if not isinstance(table, dict):
            raise ConfigError(f"{os.fspath(path)}: trioweb is to be a table")
        self.update(
            (key, None if value == "none" and key in KEYS else value)
            for key, value in table.items()
        )

    def update(self, *args: Any, **kwargs: Any) -> None:
        """Sets several keys; when one of them is refused, none is set.

        Raises:
            ConfigError: a key or a value can't be right.
        """
        values = {key: check_value(key, value) for key, value in dict(*args, **kwargs).items()}
        self.__dict__.update(values)

    def __setattr__(self, key: str, value: object) -> None:
        self.__dict__[key] = check_value(key, value)

    def __getattr__(self, key: str) -> Any:
        # Only reached when the key is not there.
        raise AttributeError(f"no config key {key}: {_nearest(key)}", name=key, obj=self)

    def __getitem__(self, key: str) -> Any:
        return self.__dict__[key]

    def __setitem__(self, key: str, value: object) -> None:
        self.__dict__[key] = check_value(key, value)

    def __delattr__(self, key: str) -> None:
        try:
            del self[key]
        except KeyError:
            raise AttributeError(f"no config key {key}", name=key, obj=self) from None

    def __delitem__(self, key: str) -> None:
        """Removes a key of the application's; one of ours goes back to its default."""
        if key in KEYS:
            self.__dict__[key] = KEYS[key].default
        else:
            del self.__dict__[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self.__dict__)

    def __len__(self) -> int:
        return len(self.__dict__)

    def __repr__(self) -> str:
        changed = {
            key: value
            for key, value in self.items()
            if key not in KEYS or KEYS[key].default != value
        }
        # The application's own values may be secrets.
        shown = ", ".join(
            f"{key}={value!r}" if key in KEYS else key for key, value in changed.items()
        )
        return f"<Config {shown or 'defaults'}>"
