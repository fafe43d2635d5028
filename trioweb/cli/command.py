"""The command line: what can be said, and what runs then.

What goes wrong before the port is open is the user's to mend, and is told in one line with exit
code 2; what goes wrong later is a crash with its traceback.
"""

from __future__ import annotations

import argparse
import errno
import logging
import os
import socket
import sys
from typing import TYPE_CHECKING, NoReturn

from trioweb.cli.connect import add_options, connect
from trioweb.cli.targets import TargetError, load_target

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trioweb.app import TrioWeb

# What bind() says when the address, rather than the program, is to blame.
_ADDRESS_ERRORS = frozenset({errno.EADDRINUSE, errno.EADDRNOTAVAIL, errno.EACCES, errno.EPERM})

_CONNECT_EPILOG = (
    "Each line of stdin is sent as a text message, what comes is written to stdout, all remarks go "
    "to stderr. Exit code: 0 after the close codes 1000, 1001 and 1005, and when nobody reads "
    "stdout any more; 1 after other codes and a loss, when stdout can't be written, and when a "
    "line of a pipe or file could not be sent (too long, no UTF-8, no JSON with --json); 2 without "
    "a connection; 130 after Ctrl-C, 143 after SIGTERM."
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line.

    Args:
        arguments: without the program's name; those of the process by default.

    Raises:
        SystemExit: with 2 when the command line, the target or the address can't be used, and
            always at the end of ``connect``.
    """
    options = _parser().parse_args(arguments)
    if options.command == "connect":
        raise SystemExit(connect(options))
    try:
        app = load_target(options.target)
    except TargetError as error:
        _fail(str(error))
    if options.command == "run":
        _run(app, options.host, options.port, options.unix)
    else:
        _print_routes(app)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="trioweb", description="Run, inspect and talk to trioweb applications."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    target = argparse.ArgumentParser(add_help=False)
    target.add_argument(
        "target",
        metavar="TARGET",
        help="a file's path (examples/chat.py) or module:app (shop.web:app)",
    )
    run = commands.add_parser("run", parents=[target], help="serve an application")
    run.add_argument("--host", default="127.0.0.1", help="the address to listen at (%(default)s)")
    run.add_argument(
        "--port", type=_port, default=8000, help="%(default)s; 0 takes any that is free"
    )
    run.add_argument("--unix", metavar="PATH", help="listen at a Unix socket instead")
    commands.add_parser("routes", parents=[target], help="list an application's routes")
    add_options(commands.add_parser("connect", help="talk to a WebSocket", epilog=_CONNECT_EPILOG))
    return parser


def _port(text: str) -> int:
    port = int(text)
    if not 0 <= port <= 65535:
        raise argparse.ArgumentTypeError(f"{port} is no port; ports are 0 to 65535")
    return port


def _fail(message: str) -> NoReturn:
    print(f"trioweb: {message}", file=sys.stderr)
    raise SystemExit(2)


def _run(app: TrioWeb, host: str, port: int, unix: str | None) -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    try:
        app.run(host, port, unix=unix)
    except socket.gaierror as error:
        _fail(f"can't listen at {host}: {error.strerror}")
    except OSError as error:
        if error.errno not in _ADDRESS_ERRORS:
            raise
        _fail(f"can't listen at {unix or f'{host} port {port}'}: {os.strerror(error.errno)}")


def _print_routes(app: TrioWeb) -> None:
    rows = []
    for route in app.router.routes:
        methods = "WEBSOCKET" if route.websocket else ",".join(sorted(route.methods))
        place = " ".join([route.uri, *(f"host={host}" for host in route.hosts)])
        rows.append((methods, place, route.name))
    widths = [max((len(row[column]) for row in rows), default=0) for column in range(2)]
    for methods, place, name in rows:
        print(f"{methods:<{widths[0]}}  {place:<{widths[1]}}  {name}")
