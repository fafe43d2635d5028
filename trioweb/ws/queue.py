"""Frames in the order in which they will be written, of which some may be dropped again.

What is *sent* stays until it is written. What is *offered* (by a broadcaster, who waits for
nobody) may give its place to a newer message of the same key and, where the broadcaster says so, be
dropped, the oldest first.
"""

from __future__ import annotations

from collections import OrderedDict
from itertools import count
from typing import TYPE_CHECKING, Any, Final

import trio

from trioweb.ws.encoding import FIN

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator


# Of a queue in which nothing was marked or offered, as most never have: never to be filled.
_NOTHING: Final[OrderedDict[Any, Any]] = OrderedDict()


class Marker:
    """A place in the queue.

    Attributes:
        reached: set when all that was queued before it is with the stream, or was dropped.
        is_dropped: whether some of that was dropped.
    """

    __slots__ = ("is_dropped", "reached")

    def __init__(self) -> None:
        self.reached = trio.Event()
        self.is_dropped = False


class FrameQueue:
    """A queue of frames and markers.

    Attributes:
        size: bytes of all frames.
    """

    __slots__ = ("_droppable", "_items", "_places", "_sent", "size")

    def __init__(self) -> None:
        # Where nobody broadcasts and nobody flushes, all frames are here; they come first.
        self._sent: list[bytes] = []
        # By place: a number; of what was offered a tuple, of its key if it has one.
        self._items: OrderedDict[Hashable, bytes | Marker] = _NOTHING
        self._droppable: OrderedDict[Hashable, None] = _NOTHING
        self._places: Iterator[int]
        self.size = 0

    def __bool__(self) -> bool:
        return bool(self._sent or self._items)

    @property
    def places(self) -> int:
        """How many frames and markers there are, from the first one on that was offered."""
        return len(self._items)

    def append(self, frame: bytes) -> None:
        """Add a frame that stays until it is written."""
        if self._items:
            self._items[next(self._places)] = frame
        else:
            self._sent.append(frame)
        self.size += len(frame)

    def _give_places(self) -> None:
        self._items, self._droppable, self._places = OrderedDict(), OrderedDict(), count()

    def mark(self, marker: Marker) -> None:
        """Add a marker."""
        if self._items is _NOTHING:
            self._give_places()
        self._items[next(self._places)] = marker

    def offer(self, frame: bytes, key: Hashable = None, *, droppable: bool = True) -> None:
        """Add a frame that may be replaced if it has a key, and dropped if it is droppable."""
        place = self._place(frame, key)
        if droppable:
            self._droppable[place] = None

    def _place(self, frame: bytes, key: Hashable) -> Hashable:
        if self._items is _NOTHING:
            self._give_places()
        place = (next(self._places),) if key is None else ("key", key)
        self._items[place] = frame
        self.size += len(frame)
        return place

    def size_of(self, key: Hashable) -> int:
        """Bytes of the frame that was offered with a key; 0 if there is none."""
        frame = self._items.get(("key", key))
        return len(frame) if isinstance(frame, bytes) else 0

    def replace(self, frame: bytes, key: Hashable) -> bool:
        """Put a frame in the place of the one that was offered with the same key, if there is."""
        place = ("key", key)
        replaced = self._items.get(place)
        if not isinstance(replaced, bytes):
            return False
        self._items[place] = frame
        if place in self._droppable:
            self._droppable.move_to_end(place)  # the place is old, the frame is the newest
        self.size += len(frame) - len(replaced)
        return True

    def drop_oldest(self, spared: Hashable = None) -> bool:
        """Drop the oldest frame that is droppable, if there is one.

        Args:
            spared: the key of one that is not to be dropped.
        """
        place = next((place for place in self._droppable if place != ("key", spared)), None)
        if place is None:
            return False
        del self._droppable[place]
        frame = self._items.pop(place)
        assert isinstance(frame, bytes)
        self.size -= len(frame)
        return True

    def take(self, size: int) -> list[bytes]:
        """Take frames until they are ``size`` bytes together, but none behind a marker.

        Markers before them are reached.
        """
        items, droppable = self._items, self._droppable
        if self.size <= size and not items:
            frames, self._sent, self.size = self._sent, [], 0
            return frames
        frames = []
        taken = 0
        if self._sent:
            for frame in self._sent:
                if taken >= size:
                    break
                frames.append(frame)
                taken += len(frame)
            del self._sent[: len(frames)]
        while items and taken < size:
            place, item = items.popitem(last=False)
            if isinstance(item, bytes):
                frames.append(item)
                taken += len(item)
                if droppable:
                    droppable.pop(place, None)
            elif frames:
                # Reached when what was taken before it is out.
                items[place] = item
                items.move_to_end(place, last=False)
                break
            else:
                item.reached.set()
        self.size -= taken
        return frames

    def move_to(self, other: FrameQueue) -> None:
        """Put all that is here at the end of another queue."""
        for frame in self._sent:
            other.append(frame)
        moved: dict[Hashable, Hashable] = {}
        for place, item in self._items.items():
            if isinstance(item, Marker):
                other.mark(item)
            elif not isinstance(place, tuple):
                other.append(item)
            else:
                moved[place] = other._place(item, place[1] if len(place) == 2 else None)
        # By age, which is not their order where one has replaced another.
        for place in self._droppable:
            other._droppable[moved[place]] = None
        self._sent.clear()
        self._items.clear()
        self._droppable.clear()
        self.size = 0

    def clear(self) -> tuple[int, int]:
        """Drop everything; markers are reached, and know it.

        Returns:
            How many messages ended here: of those that were sent, and of those offered.
        """
        if not self:
            return 0, 0
        sent = sum(frame[0] >= FIN for frame in self._sent)
        offered = 0
        for place, item in self._items.items():
            if isinstance(item, Marker):
                item.is_dropped = True
                item.reached.set()
            elif isinstance(place, tuple):
                offered += 1
            else:
                sent += item[0] >= FIN
        self._sent.clear()
        self._items.clear()
        self._droppable.clear()
        self.size = 0
        return sent, offered
