"""What users test their applications with: an in-memory client and its streams."""

from trioweb.testing.client import open_client
from trioweb.testing.link import Link, link_pair
from trioweb.testing.session import Denied

__all__ = ["Denied", "Link", "link_pair", "open_client"]
