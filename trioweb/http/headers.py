"""Header fields: a case-insensitive mapping that keeps order, spelling and repetitions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from typing import TYPE_CHECKING, Final, TypeAlias, TypeVar, overload

if TYPE_CHECKING:
    from typing import Self

_T = TypeVar("_T")

# The fields of headers that are packed.
_PACKED: Final[list[tuple[str, str]]] = []

HeaderSource: TypeAlias = "Mapping[str, str] | Iterable[tuple[str, str]]"


class Headers(MutableMapping[str, str]):
    """Header fields in the order of the wire; names compare without regard to case.

    As a mapping it shows one value a name, the first; ``getall`` and ``multi_items`` show all.

    Args:
        source: a mapping, another ``Headers`` (copied with its repetitions) or pairs.
    """

    __slots__ = ("_fields", "_index", "_packed")

    def __init__(self, source: HeaderSource | None = None) -> None:
        self._packed = ""
        if source is None:
            self._fields: list[tuple[str, str]] = []
        elif isinstance(source, Headers):
            self._fields = list(source._items)
        elif isinstance(source, Mapping):
            self._fields = list(source.items())
        else:
            self._fields = [(name, value) for name, value in source]
        # Lower-case name to its first value; built at the first look-up, since many requests are
        # answered without one.
        self._index: dict[str, str] | None = None

    @classmethod
    def from_wire(cls, pairs: list[tuple[str, str]], index: dict[str, str] | None = None) -> Self:
        """Headers over a list that is theirs from now on; for parsers.

        Args:
            pairs: the fields.
            index: lower-case names with their first values, in the order of the fields.
        """
        headers = cls.__new__(cls)
        headers._packed = ""
        headers._fields = pairs
        headers._index = index
        return headers

    def pack(self) -> None:
        """Take little memory until the next look: one string instead of three objects a field.

        A WebSocket's handshake is kept for hours, and hardly ever asked for again.
        """
        try:
            packed = "\n".join([text for field in self._items for text in field])
        except TypeError:
            return  # an application has put something else there
        if packed.count("\n") == 2 * len(self._fields) - 1:  # none in a name or a value
            self._packed, self._fields, self._index = packed, _PACKED, None

    @property
    def _items(self) -> list[tuple[str, str]]:
        if self._packed:
            texts = iter(self._packed.split("\n"))
            self._fields, self._packed = list(zip(texts, texts, strict=True)), ""
        return self._fields

    @_items.setter
    def _items(self, fields: list[tuple[str, str]]) -> None:
        self._fields = fields

    def _lookup(self) -> dict[str, str]:
        index = self._index
        if index is None:
            index = self._index = {}
            for name, value in self._items:
                index.setdefault(name.lower(), value)
        return index

    def __getitem__(self, name: str) -> str:
        return self._lookup()[name.lower()]

    def __setitem__(self, name: str, value: str) -> None:
        """Replace every field of this name; the new one stands where the first stood."""
        key = name.lower()
        items = self._items
        for position, (present, _) in enumerate(items):
            if present.lower() == key:
                rest = [item for item in items[position + 1 :] if item[0].lower() != key]
                items[position:] = [(name, value), *rest]
                break
        else:
            items.append((name, value))
        self._index = None

    def __delitem__(self, name: str) -> None:
        key = name.lower()
        if key not in self._lookup():
            raise KeyError(name)
        self._items = [item for item in self._items if item[0].lower() != key]
        self._index = None

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name.lower() in self._lookup()

    def __iter__(self) -> Iterator[str]:
        return iter(self._lookup())

    def __bool__(self) -> bool:
        return bool(self._items)

    def __len__(self) -> int:
        return len(self._lookup())

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Headers):
            return self._folded() == other._folded()
        if isinstance(other, Mapping):
            return self._folded() == Headers(other)._folded()
        return NotImplemented

    __hash__ = None  # type: ignore[assignment]  # mutable

    def __repr__(self) -> str:
        return f"Headers({self._items!r})"

    def _folded(self) -> list[tuple[str, str]]:
        return [(name.lower(), value) for name, value in self._items]

    @overload
    def get(self, name: str) -> str | None: ...
    @overload
    def get(self, name: str, default: str) -> str: ...
    @overload
    def get(self, name: str, default: _T) -> str | _T: ...
    def get(self, name: str, default: object = None) -> object:
        """The first value of a name, or the default."""
        return self._lookup().get(name.lower(), default)

    def getall(self, name: str) -> list[str]:
        """Every value of a name in order; an empty list when there is none."""
        key, index = name.lower(), self._lookup()
        if key not in index:
            return []
        if len(index) == len(self._items):
            return [index[key]]
        return [value for present, value in self._items if present.lower() == key]

    getlist = getall

    def add(self, name: str, value: str) -> None:
        """Append a field beside those of the same name."""
        self._items.append((name, value))
        self._index = None

    def multi_items(self) -> list[tuple[str, str]]:
        """Every field in order, names as they were spelt."""
        return list(self._items)

    @property
    def raw(self) -> list[tuple[bytes, bytes]]:
        """Every field as bytes, names in lower case."""
        return [
            (name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in self._items
        ]

    def tokens(self, name: str) -> list[str]:
        """The comma-separated elements of all fields of a name, in lower case.

        Source: RFC 9110 §5.6.1
        """
        return [
            token
            for value in self.getall(name)
            for part in value.split(",")
            if (token := part.strip().lower())
        ]
