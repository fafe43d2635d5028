"""The HTTP side of the in-memory client.

Theory of operation. A request is made of its options (`outgoing`, with `targets` and `forms`), and
sent and answered on a connection of its own (`exchange`), once or, where redirects are followed,
several times (`redirects`); the answer is a `ClientResponse`, or is read as it arrives
(`responses`). Cookies are kept between requests (`cookies`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, Unpack

from trioweb.testing.cookies import Cookies
from trioweb.testing.outgoing import MISSING, build_outgoing
from trioweb.testing.patience import PATIENCE, check_timeout, patience
from trioweb.testing.redirects import Journey
from trioweb.testing.responses import Streaming

if TYPE_CHECKING:
    from collections.abc import Mapping

    import trio

    from trioweb.http.headers import HeaderSource
    from trioweb.testing.forms import FieldSource, FileSource
    from trioweb.testing.link import Link
    from trioweb.testing.outgoing import Body, Content, Outgoing, RequestOptions
    from trioweb.testing.responses import ClientResponse


class Requests(ABC):
    """HTTP requests to an application, with the cookies that it sets.

    Args:
        nursery: where requests are sent; open as long as requests are made.

    Attributes:
        cookies: what the application has set and the test has put there, by name.
    """

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        self.cookies = Cookies()

    @abstractmethod
    def connect(self) -> Link:
        """Open a bare connection to the application."""

    async def request(
        self,
        method: str,
        path: str,
        *,
        params: FieldSource | None = None,
        headers: HeaderSource | None = None,
        body: Body = b"",
        json: Any = MISSING,
        form: FieldSource | None = None,
        files: FileSource | None = None,
        cookies: Mapping[str, str] | None = None,
        follow_redirects: bool = False,
        timeout: float = PATIENCE,
    ) -> ClientResponse:
        """Send a request on a connection of its own and read the whole answer.

        Args:
            method: in capitals; sent as it is.
            path: with its query, if any; or a URL, ``http://other.test/x``, whose host the
                application sees, and whose scheme, if it is ``https``. What may not stand in a
                request line is percent-encoded; a fragment is left out.
            params: added to the query: a mapping or pairs; values are str, numbers or lists.
            headers: a mapping or pairs. Host is ``app.test`` unless it is given.
            body: bytes, str (sent as UTF-8), or an async iterable of bytes, sent chunked as it
                comes.
            json: sent as JSON.
            form: sent as a browser sends a form; a mapping or pairs, as ``params``.
            files: sent with the form, as multipart/form-data: a mapping or pairs of a name and
                bytes, str, a path, ``(filename, content)`` or ``(filename, content, type)``, or a
                list of these.
            cookies: sent with this request, in place of kept ones of the same names.
            follow_redirects: whether to go on where the answer leads, at most 20 times, always to
                this application.
            timeout: seconds, > 0, for all of it, redirects included; ``math.inf`` waits for ever.

        Raises:
            trio.TooSlowError: the answer was not there in time; says what had come.
            TrioWebError: the answer is no HTTP, or was cut short; or a redirect can't be followed.
            TypeError: an option is of the wrong type, or goes not with another one.
            ValueError: an option's value can't be sent.
            Exception: what the iterable of the body raised.

        Cancellation:
            The connection is closed; cookies that have come are kept.
        """
        check_timeout(timeout)
        outgoing = build_outgoing(
            method,
            path,
            params=params,
            headers=headers,
            body=body,
            json=json,
            form=form,
            files=files,
            cookies=cookies,
        )
        journey = self._make_journey(outgoing, follow_redirects)
        try:
            with patience(timeout, journey.explain):
                await journey.begin()
                response = await journey.finish()
        finally:
            await journey.aclose()
        journey.check_sent()
        return response

    def stream(
        self,
        method: str,
        path: str,
        *,
        follow_redirects: bool = False,
        timeout: float = PATIENCE,
        **content: Unpack[Content],
    ) -> Streaming:
        """Send a request, and read its answer as it arrives.

        ``async with client.stream("GET", path) as response:`` has the status and headers at once;
        ``async for piece in response``, ``response.iter_lines()`` and ``response.read()`` give the
        body. Leaving the block closes the connection, whatever is still to come.

        Args:
            method: as for `request`.
            path: as for `request`.
            follow_redirects: as for `request`.
            timeout: seconds, > 0, for each wait, not for the whole. The first wait is that for the
                status and headers, redirects included.
            **content: the other options of `request`.

        Raises:
            TypeError: as for `request`.
            ValueError: as for `request`.
        """
        check_timeout(timeout)
        outgoing = build_outgoing(method, path, **content)
        return Streaming(self._make_journey(outgoing, follow_redirects), timeout)

    async def get(self, path: str, **options: Unpack[RequestOptions]) -> ClientResponse:
        """Send a GET request."""
        return await self.request("GET", path, **options)

    async def post(self, path: str, **options: Unpack[RequestOptions]) -> ClientResponse:
        """Send a POST request."""
        return await self.request("POST", path, **options)

    async def put(self, path: str, **options: Unpack[RequestOptions]) -> ClientResponse:
        """Send a PUT request."""
        return await self.request("PUT", path, **options)

    async def patch(self, path: str, **options: Unpack[RequestOptions]) -> ClientResponse:
        """Send a PATCH request."""
        return await self.request("PATCH", path, **options)

    async def delete(self, path: str, **options: Unpack[RequestOptions]) -> ClientResponse:
        """Send a DELETE request."""
        return await self.request("DELETE", path, **options)

    async def head(self, path: str, **options: Unpack[RequestOptions]) -> ClientResponse:
        """Send a HEAD request."""
        return await self.request("HEAD", path, **options)

    async def options(self, path: str, **options: Unpack[RequestOptions]) -> ClientResponse:
        """Send an OPTIONS request."""
        return await self.request("OPTIONS", path, **options)

    def _make_journey(self, outgoing: Outgoing, follow_redirects: bool) -> Journey:
        return Journey(
            self.connect, self._nursery, self.cookies, outgoing, follow_redirects=follow_redirects
        )
