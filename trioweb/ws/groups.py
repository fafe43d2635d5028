"""What is in groups of exceptions, which nurseries make and users should not have to meet."""

from __future__ import annotations

import trio


def leaves(error: BaseException) -> list[BaseException]:
    """The exceptions in a group and its subgroups; of any other exception, itself."""
    if not isinstance(error, BaseExceptionGroup):
        return [error]
    return [leaf for inner in error.exceptions for leaf in leaves(inner)]


def as_leaf(error: BaseException) -> BaseException:
    """The one exception that is in a group; any other exception itself, a group of several too."""
    found = leaves(error)
    return found[0] if len(found) == 1 else error


def without_cancelled(raised: BaseException) -> BaseException | None:
    """What is left of an exception when every ``trio.Cancelled`` in it is taken out."""
    if isinstance(raised, trio.Cancelled):
        return None
    if isinstance(raised, BaseExceptionGroup):
        cancelled, rest = raised.split(trio.Cancelled)
        # Untouched groups stay the very object that the user raised.
        return raised if cancelled is None else rest
    return raised


def first_failure(error: BaseException) -> BaseException:
    """The first exception in a group that is no cancellation; the first of all if there is none."""
    found = leaves(error)
    return next((leaf for leaf in found if not isinstance(leaf, trio.Cancelled)), found[0])
