"""What users import to answer requests: ``from trioweb.response import json``."""

from trioweb.http.response import Response, empty, html, json, raw, redirect, text

__all__ = ["Response", "empty", "html", "json", "raw", "redirect", "text"]
