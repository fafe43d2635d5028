"""The queue of frames against a model: a list."""

from __future__ import annotations

from operator import itemgetter
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from trioweb.ws.encoding import FIN
from trioweb.ws.queue import FrameQueue, Marker

FRAMES = st.binary(min_size=1, max_size=20)
KEYS = st.sampled_from([None, 0, 1, "a", ("key", 0)])
STEPS = st.one_of(
    st.tuples(st.just("append"), FRAMES),
    st.tuples(st.just("offer"), FRAMES, KEYS, st.booleans()),
    st.tuples(st.just("mark")),
    st.tuples(st.just("drop")),
    st.tuples(st.just("take"), st.integers(1, 60)),
    st.tuples(st.just("move")),
)


@given(st.lists(STEPS, max_size=40))
@example(
    [
        *(("offer", b"a", 0, True), ("offer", b"b", None, True), ("offer", b"c", 0, True)),
        *(("move",), ("drop",), ("take", 60)),
    ]
)
def test_any_use_agrees_with_a_list(steps: list[tuple[Any, ...]]) -> None:
    """Entries are [frame or marker, whether offered, its key, whether droppable, its age]."""
    queue = FrameQueue()
    model: list[list[Any]] = []
    for age, (name, *args) in enumerate(steps):
        if name == "append":
            queue.append(args[0])
            model.append([args[0], False, None, False, 0])
        elif name == "offer":
            frame, key, droppable = args
            known = [entry for entry in model if entry[1] and key is not None and entry[2] == key]
            if key is not None:
                assert queue.replace(frame, key) == bool(known)
            if known:
                known[0][0], known[0][4] = frame, age
            else:
                queue.offer(frame, key, droppable=droppable)
                model.append([frame, True, key, droppable, age])
        elif name == "mark":
            marker = Marker()
            queue.mark(marker)
            model.append([marker, False, None, False, 0])
        elif name == "drop":
            oldest = min((entry for entry in model if entry[3]), key=itemgetter(4), default=None)
            assert queue.drop_oldest() == (oldest is not None)
            if oldest is not None:
                model.remove(oldest)
        elif name == "take":
            taken: list[bytes] = []
            reached: list[Marker] = []
            while model and sum(map(len, taken)) < args[0]:
                if isinstance(model[0][0], Marker):
                    if taken:
                        break
                    reached.append(model.pop(0)[0])
                else:
                    taken.append(model.pop(0)[0])
            assert queue.take(args[0]) == taken
            assert all(marker.reached.is_set() and not marker.is_dropped for marker in reached)
        else:
            other = FrameQueue()
            other.append(b"before")
            queue.move_to(other)
            assert not queue
            assert queue.size == 0
            queue = other
            model.insert(0, [b"before", False, None, False, 0])
        frames = [entry[0] for entry in model if isinstance(entry[0], bytes)]
        assert queue.size == sum(map(len, frames))
        assert bool(queue) == bool(model)
        assert not any(entry[0].reached.is_set() for entry in model if isinstance(entry[0], Marker))
    ended = [entry[1] for entry in model if not isinstance(entry[0], Marker) and entry[0][0] >= FIN]
    sent, offered = queue.clear()
    assert sent == ended.count(False)
    assert offered == sum(entry[1] for entry in model)
    assert queue.size == 0
    assert all(
        entry[0].reached.is_set() and entry[0].is_dropped
        for entry in model
        if isinstance(entry[0], Marker)
    )
