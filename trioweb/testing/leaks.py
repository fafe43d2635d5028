"""What outlives an application's connections, though nothing should.

Theory of operation. When the kit has closed its connections, cancelled their handlers and left the
lifespan, nothing of the application may be left: no task, no WebSocket with messages or pings that
wait, no member of a room, no descriptor. What is found is noted, in words, and raised at the very
end, so that it fails the test without hiding another failure.
"""

from __future__ import annotations

import gc
import sys
from typing import TYPE_CHECKING

import trio

from trioweb.testing.places import is_in_users_code, waits_at
from trioweb.testing.tasks import TaskWatch, break_shields
from trioweb.ws.ending import State
from trioweb.ws.websocket import connection_of

if TYPE_CHECKING:
    from trioweb.app import TrioWeb
    from trioweb.ws.websocket import Websocket


# Of the applications that run, since a second client's tasks are their first one's to find.
_run_watches: trio.lowlevel.RunVar[dict[TrioWeb, TaskWatch]] = trio.lowlevel.RunVar("trioweb_tasks")


class Leaked(AssertionError):
    """Something of the application has outlived its connections; says what, and who started it."""


class LeakCheck:
    """Looks for what is left of one application.

    Attributes:
        is_first: whether there was no other client of it before.
        tasks: of the application; all clients of it share them.
    """

    def __init__(self, app: TrioWeb) -> None:
        self._app = app
        self._found: list[str] = []
        watches = _watches()
        self.is_first = app not in watches
        self.tasks = watches.setdefault(app, TaskWatch())
        if self.is_first:
            trio.lowlevel.add_instrument(self.tasks)

    def stop_watching(self) -> None:
        """The application has ended, or goes on for another client, who watches its tasks."""
        if self.is_first:
            self.tasks.has_started.set()
            del _watches()[self._app]
            trio.lowlevel.remove_instrument(self.tasks)

    def note(self, what: str) -> None:
        """Something is left."""
        if what not in self._found:
            self._found.append(what)

    def look_at_connections(self) -> None:
        """All connections should have ended: note those that have not, and rooms."""
        for ws in self._app.websockets:
            self.note(describe_websocket(ws))
        for name, room in self._app.rooms.items():
            members = ", ".join(
                f"{member.ws.request.path} with meta {member.meta!r}" for member in room.members
            )
            self.note(f"a member of the room {name!r}: {members}")

    def look_at_tasks(self) -> None:
        """All tasks should have ended."""
        for started in self.tasks.alive():
            self.note(str(started))

    def insist(self, lifetime: trio.lowlevel.Task) -> bool:
        """What goes on is noted, and loses its shields, so that the test fails instead of hanging.

        Args:
            lifetime: the task that is in the application's lifetime, and should have left it.

        Returns:
            Whether it is the lifespan that does not end.
        """
        is_lifespan = is_in_users_code(lifetime)
        if is_lifespan:
            stubborn, said = [lifetime], [f"the lifespan; it {waits_at(lifetime)}"]
        else:
            alive = self.tasks.alive()
            stubborn, said = [one.task for one in alive], [str(one) for one in alive]
        for task, what in zip(stubborn, said, strict=True):
            self.note(what)
            say_before_waiting(f"{what}: it has not ended, and its shields are broken")
            break_shields(task)
        return is_lifespan

    def look_at_descriptors(self) -> None:
        """What the application has opened should be closed."""
        if self.tasks.openings.leaked():
            gc.collect()  # what is garbage closes with it, and Python warns of that itself
        for what in self.tasks.openings.leaked():
            self.note(what)

    def report(self, failure: BaseException | None) -> None:
        """Raise what was found.

        Args:
            failure: of the test, which is what matters then: it gets a note.

        Raises:
            Leaked: something was found, and there is no failure.
        """
        if not self._found:
            return
        count = len(self._found)
        things = "1 thing has" if count == 1 else f"{count} things have"
        text = "\n  ".join([f"{things} outlived the connections of {self._app!r}:", *self._found])
        if failure is None:
            raise Leaked(text)
        failure.add_note(text)


def _watches() -> dict[TrioWeb, TaskWatch]:
    try:
        return _run_watches.get()
    except LookupError:
        watches: dict[TrioWeb, TaskWatch] = {}
        _run_watches.set(watches)
        return watches


def describe_websocket(ws: Websocket) -> str:
    """A WebSocket that is still served, and what waits there."""
    connection = connection_of(ws)
    waiting = []
    if connection.outbox.waiting:
        waiting.append(f"{connection.outbox.waiting} bytes wait to be sent")
    if connection.heartbeat.pings_in_flight:
        waiting.append(f"{connection.heartbeat.pings_in_flight} pings wait for their pongs")
    if ws.client_state is State.CONNECTING:
        state = "is neither accepted nor denied"
    else:
        state = "is open" if ws.open else "has ended, but not its handler"
    rest = "".join(f"; {one}" for one in waiting)
    return f"the WebSocket {ws.request.path} of the handler {connection.name} {state}{rest}"


def say_before_waiting(text: str) -> None:
    """Tell who looks at a test that hangs why it does; it will fail, if it ends."""
    print(text, file=sys.stderr, flush=True)
