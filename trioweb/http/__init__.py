"""HTTP/1.1: headers, requests, responses, JSON, and the parser."""

from trioweb.http.headers import Headers
from trioweb.http.request import Address, QueryParams, Request
from trioweb.http.response import (
    Response,
    empty,
    encode_head,
    error_response,
    html,
    json,
    raw,
    redirect,
    text,
    to_response,
)

__all__ = [
    "Address",
    "Headers",
    "QueryParams",
    "Request",
    "Response",
    "empty",
    "encode_head",
    "error_response",
    "html",
    "json",
    "raw",
    "redirect",
    "text",
    "to_response",
]
