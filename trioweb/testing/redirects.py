"""A request's way to its answer, over redirects where they are followed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trioweb.errors import TrioWebError
from trioweb.testing.cookies import Cookies
from trioweb.testing.exchange import Exchange
from trioweb.testing.responses import ClientResponse

if TYPE_CHECKING:
    from collections.abc import Callable

    import trio

    from trioweb.testing.link import Link
    from trioweb.testing.outgoing import Outgoing

# As browsers have it (Fetch §4.4, HTTP-redirect fetch).
MAX_REDIRECTS = 20


class Journey:
    """A request, and those that redirects make of it, each on a connection of its own.

    Args:
        connect: opens a connection to the application.
        nursery: where requests are sent.
        jar: sent, and filled from every answer.
        outgoing: the first request.
        follow_redirects: whether there may be more.

    Attributes:
        history: the answers that were redirects, and were followed.
        cookies_set: what the last answer set.
    """

    def __init__(
        self,
        connect: Callable[[], Link],
        nursery: trio.Nursery,
        jar: Cookies,
        outgoing: Outgoing,
        *,
        follow_redirects: bool,
    ) -> None:
        self._connect = connect
        self._nursery = nursery
        self._jar = jar
        self._outgoing = outgoing
        self._follow_redirects = follow_redirects
        self._exchange: Exchange | None = None
        self._first = str(outgoing)
        self.history: list[ClientResponse] = []
        self.cookies_set: dict[str, str] = {}

    def __str__(self) -> str:
        return self._first

    @property
    def exchange(self) -> Exchange:
        """The one under way, or the last one."""
        assert self._exchange is not None
        return self._exchange

    async def begin(self) -> None:
        """Ask, and wait for the head of the answer that is no redirect, or is not followed.

        Raises:
            TrioWebError: an answer is no HTTP, or a redirect can't be followed.
            ValueError: the method or a header can't be sent.
        """
        while True:
            self._depart()
            await self.exchange.read_head()
            self._keep_cookies()
            exchange = self.exchange
            following = None
            if self._follow_redirects:
                following = self._outgoing.redirect(exchange.status, exchange.headers)
            if following is None:
                return
            self.history.append(await self._read_one())
            await self.aclose()
            self.check_sent()
            if len(self.history) > MAX_REDIRECTS:
                raise TrioWebError(
                    f"{self} was redirected {len(self.history)} times:{self._chain()}"
                )
            self._outgoing = following

    async def finish(self) -> ClientResponse:
        """Wait for the rest of the answer."""
        return await self._read_one(tuple(self.history))

    async def aclose(self) -> None:
        """Close the connection."""
        if self._exchange is not None:
            await self._exchange.aclose()

    def check_sent(self) -> None:
        """Raise what the body's iterator raised, if it did."""
        self.exchange.check_sent()

    def explain(self, waited: str) -> str:
        """A failure's text: how long was waited, for what, and what has come so far."""
        told = "" if self._exchange is None else self._exchange.explain()
        return f"{self}: {waited} {told}{self._chain() if self.history else ''}"

    def _depart(self) -> None:
        outgoing = self._outgoing
        head = outgoing.make_head(self._jar)
        link = self._connect()
        # The application's task has not run yet; it sees what a TLS listener would tell it.
        link.other.scheme = outgoing.target.scheme
        self._exchange = Exchange(link, outgoing, head, self._nursery)

    def _keep_cookies(self) -> None:
        target, headers = self._outgoing.target, self.exchange.headers
        own = Cookies()
        for jar in (self._jar, own):
            jar.take(headers, target.path, host=target.host, secure=target.scheme == "https")
        self.cookies_set = dict(own)

    async def _read_one(self, history: tuple[ClientResponse, ...] = ()) -> ClientResponse:
        exchange = self.exchange
        return ClientResponse(
            exchange.status,
            exchange.headers,
            await exchange.read(),
            self._outgoing.target.url,
            self.cookies_set,
            history,
        )

    def _chain(self) -> str:
        return "".join(
            f"\n  {answer.url} answered {answer.status}, Location: {answer.headers['location']}"
            for answer in self.history
        )
