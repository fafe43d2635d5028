"""From a request's method, path and host to its route, and from a route's name to its URL.

Paths without parameters are looked up in a dict. The others are tried in the order of how specific
they are, segment by segment: literal text before typed parameters before any text before ``path``;
equally specific ones in the order in which they were registered. A route that fits but for its
method does not end the search: its methods are gathered for 405's Allow.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import quote, urlencode

from trioweb.errors import MethodNotAllowed, NotFound, RouteError, UpgradeRequired
from trioweb.routing.patterns import decode_path

if TYPE_CHECKING:
    from collections.abc import Mapping

    from trioweb.routing.routes import Route

UPGRADE_HELP = "This is a WebSocket: connect with ws:// and a WebSocket client (RFC 6455).\n"


class Match(NamedTuple):
    """A route, and its path parameters as the pattern's converters made them."""

    route: Route
    params: dict[str, object]


class Router:
    """All routes of an application.

    Attributes:
        knows_hosts: whether a route depends on the Host header; the others ask for none.
    """

    def __init__(self) -> None:
        self.routes: list[Route] = []
        self._static: dict[str, list[Route]] = {}
        # Under each literal first segment all the patterns that could match there, in order;
        # under None those whose first segment is a parameter, which could match everywhere.
        self._dynamic: dict[str | None, list[Route]] = {None: []}
        self._by_name: dict[str, Route] = {}
        self.knows_hosts = False

    def add(self, route: Route) -> None:
        """Add a finished route.

        Raises:
            RouteError: another one has its name, or its path, host and method.
        """
        self._refuse_collision(route)
        self.routes.append(route)
        self._by_name.setdefault(route.name, route)
        self.knows_hosts = self.knows_hosts or bool(route.hosts)
        pattern = route.pattern
        if pattern.is_static:
            for path in pattern.static_paths():
                same = self._static.setdefault(path, [])
                same.append(route)
                same.sort(key=lambda one: not one.hosts)
            return
        first = pattern.first_segment
        if first is None:
            for routes in self._dynamic.values():
                routes.append(route)
                routes.sort(key=_order)
            return
        routes = self._dynamic.setdefault(first, list(self._dynamic[None]))
        routes.append(route)
        routes.sort(key=_order)

    def resolve(
        self, method: str, raw_path: str, host: str = "", *, upgrade: bool = False
    ) -> Match:
        """Find the route of a request.

        Args:
            method: in upper case.
            raw_path: as the request line has it, without the query.
            host: the Host header, where ``knows_hosts``.
            upgrade: whether the client asks for a WebSocket; without a WebSocket route
                there, the plain one is taken.

        Raises:
            NotFound: no path fits.
            MethodNotAllowed: a path fits, its methods don't; with Allow.
            UpgradeRequired: it is a WebSocket's path and no upgrade is asked for.
        """
        path = decode_path(raw_path)
        wants_socket = upgrade and method == "GET"
        plain: Match | None = None
        allowed: set[str] = set()
        has_socket = False
        for route in self._candidates(path):
            if route.hosts and not _host_fits(host, route.hosts):
                continue
            if plain is not None and not route.websocket:
                continue
            params = {} if route.pattern.is_static else route.pattern.match(path)
            if params is None:
                continue
            if route.websocket:
                if wants_socket:
                    return Match(route, params)
                has_socket = True
            elif method in route.methods or (method == "HEAD" and "GET" in route.methods):
                if not wants_socket:
                    return Match(route, params)
                plain = Match(route, params)
            else:
                allowed |= route.methods
        if plain is not None:
            return plain
        raise _failure(method, allowed, has_socket)

    def url_for(self, name: str, params: Mapping[str, object]) -> tuple[Route, str]:
        """Write the path and query of a named route; what is no path parameter becomes query.

        Raises:
            RouteError: no route has the name, or a parameter is missing or can't be.
        """
        route = self._by_name.get(name)
        if route is None:
            known = ", ".join(sorted(self._by_name)) or "none"
            raise RouteError(f"no route is named {name!r}; there are: {known}")
        path = route.pattern.build(params)
        names = set(route.pattern.names)
        query = {
            key: value for key, value in params.items() if key not in names and value is not None
        }
        if query:
            path += "?" + urlencode(query, doseq=True, quote_via=quote)
        return route, path

    def _candidates(self, path: str) -> list[Route]:
        dynamic = self._dynamic.get(path[1:].partition("/")[0]) or self._dynamic[None]
        static = self._static.get(path)
        return dynamic if static is None else static + dynamic

    def _refuse_collision(self, route: Route) -> None:
        named = self._by_name.get(route.name)
        # The same URL under one name is no ambiguity: @app.get and @app.post of one function.
        if named is not None and named.uri != route.uri:
            raise RouteError(
                f"the name {route.name!r} of {route.uri!r} is that of {named.uri!r}; "
                f"give one of them another with name="
            )
        for other in self.routes:
            if (
                other.websocket == route.websocket
                and _shapes_meet(other, route)
                and (route.websocket or other.methods & route.methods)
                and (set(other.hosts) & set(route.hosts) or other.hosts == route.hosts)
            ):
                raise RouteError(
                    f"the path {route.uri!r} of {route.name} is that of {other.name} "
                    f"({other.uri!r})"
                )


def _shapes_meet(one: Route, other: Route) -> bool:
    if one.pattern.is_static and other.pattern.is_static:
        return bool(set(one.pattern.static_paths()) & set(other.pattern.static_paths()))
    return one.pattern.shape == other.pattern.shape


def _order(route: Route) -> tuple[tuple[int, ...], bool]:
    return (route.pattern.rank, not route.hosts)


def _host_fits(host: str, hosts: tuple[str, ...]) -> bool:
    """Whether a Host header is one of a route's hosts; a port counts where the route has one."""
    host = host.lower()
    name, colon, port = host.rpartition(":")
    bare = name if colon and port.isdigit() else host
    for wanted in hosts:
        if wanted in (host, bare):
            return True
        if wanted.startswith("*.") and bare.endswith(wanted[1:]):
            return True
    return False


def _failure(
    method: str, allowed: set[str], has_socket: bool
) -> NotFound | MethodNotAllowed | UpgradeRequired:
    if has_socket and method in ("GET", "HEAD") and method not in allowed:
        # RFC 9110 §15.5.22: a 426 names the protocol.
        return UpgradeRequired(
            UPGRADE_HELP,
            headers={
                "Upgrade": "websocket",
                "Connection": "Upgrade",
                "Sec-WebSocket-Version": "13",
            },
        )
    if has_socket:
        allowed.add("GET")
    if not allowed:
        return NotFound()
    if "GET" in allowed:
        allowed.add("HEAD")
    return MethodNotAllowed(headers={"Allow": ", ".join(sorted(allowed))})
