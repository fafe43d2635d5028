"""Byte streams over sockets and Trio streams, listeners, and the accept loop."""

from trioweb.net.listen import accept_loop, open_tcp_listeners, open_unix_listener
from trioweb.net.stream import ByteStream, SocketStream, StreamAdapter, as_byte_stream

__all__ = [
    "ByteStream",
    "SocketStream",
    "StreamAdapter",
    "accept_loop",
    "as_byte_stream",
    "open_tcp_listeners",
    "open_unix_listener",
]
