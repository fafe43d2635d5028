"""The application: decorators, middleware, exceptions, lifespan, serving."""

from trioweb.app.application import TrioWeb
from trioweb.app.lifetime import AppNursery

__all__ = ["AppNursery", "TrioWeb"]
