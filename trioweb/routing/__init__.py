"""Routes: path patterns, the router, module-level decorators and the binder of signatures."""

from trioweb.routing.binder import Binding, Injectable, UnresolvedAnnotation, bind
from trioweb.routing.dependencies import Dependency, Depends, Injection
from trioweb.routing.patterns import Pattern, TextPattern, decode_path
from trioweb.routing.router import Match, Router
from trioweb.routing.routes import Include, Route, flatten, route, websocket
from trioweb.routing.shortcuts import delete, get, head, options, patch, post, put

__all__ = [
    "Binding",
    "Dependency",
    "Depends",
    "Include",
    "Injectable",
    "Injection",
    "Match",
    "Pattern",
    "Route",
    "Router",
    "TextPattern",
    "UnresolvedAnnotation",
    "bind",
    "decode_path",
    "delete",
    "flatten",
    "get",
    "head",
    "options",
    "patch",
    "post",
    "put",
    "route",
    "websocket",
]
