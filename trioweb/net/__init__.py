"""Byte streams over sockets and Trio streams, listeners, and the accept loop."""

from trioweb.net.stream import ByteStream, SocketStream, StreamAdapter, as_byte_stream

__all__ = ["ByteStream", "SocketStream", "StreamAdapter", "as_byte_stream"]
