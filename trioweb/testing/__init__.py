"""What users test their applications with: an in-memory client and its streams."""

from trioweb.testing.link import Link, link_pair

__all__ = ["Link", "link_pair"]
