"""Signatures read into plans: the arguments of a call, and where each of them comes from.

Each parameter becomes a ``Slot``: a label that says what it is (``request``, ``path:room`` ...)
and a source that makes its value. Who is given what is said by a subclass of ``SignatureReader``.
A wrapper with ``*args`` or ``**kwargs`` is planned from the outside in: it gets its own slots, and
those of the function that it wraps which it does not name itself, so that what it passes on is what
that function needs.
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final, Generic, NamedTuple, TypeVar

from trioweb.errors import RouteError
from trioweb.routing.dependencies import Dependency

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trioweb.types import Handler

S = TypeVar("S")

NOTHING: Final = inspect.Parameter.empty
_POSITIONAL: Final = (
    inspect.Parameter.POSITIONAL_ONLY,
    inspect.Parameter.POSITIONAL_OR_KEYWORD,
)


@dataclass(frozen=True, slots=True)
class Slot(Generic[S]):
    """One argument: its parameter's name, what it is, and where its value comes from."""

    name: str
    label: str
    source: S
    positional_only: bool = False

    @property
    def is_injected(self) -> bool:
        """Whether it is one of ours, not text, a body, a dependency or the own default."""
        kind = self.label.partition(":")[0]
        return kind not in ("path", "query", "body", "depends", "default")


class Plan(NamedTuple, Generic[S]):
    """The arguments of a call, in order."""

    args: list[Slot[S]]
    kwargs: list[Slot[S]]


class SignatureReader(ABC, Generic[S]):
    """Reads the signatures of one function and of what it wraps.

    Args:
        what: the function as error messages call it.
        names: the pattern's parameters.
    """

    def __init__(self, what: str, names: Sequence[str]) -> None:
        self._what = what
        self._names = tuple(names)

    def plan(self, function: Handler) -> Plan[S]:
        """The arguments for a function, which may wrap another.

        Args:
            function: a function, bound method, callable object or partial.

        Raises:
            UnresolvedAnnotation: an annotation's name is not known yet.
            RouteError: a parameter can't be bound; the message names it and what it could be.
        """
        parameters = self._parameters(function)
        has_args = any(one.kind is one.VAR_POSITIONAL for one in parameters)
        has_kwargs = any(one.kind is one.VAR_KEYWORD for one in parameters)
        wrapped = getattr(function, "__wrapped__", None)
        inner = self.plan(wrapped) if wrapped and (has_args or has_kwargs) else None
        own = self._own_plan(function, parameters, inner, has_args)
        if inner is not None:
            return _merge(own, inner, has_args, has_kwargs)
        if has_args or has_kwargs:
            return self._add_unsaid(own, has_args, has_kwargs)
        return own

    def _parameters(self, function: Handler) -> list[inspect.Parameter]:
        try:
            try:
                signature = inspect.signature(function, follow_wrapped=False)
            except ValueError:
                # functools.cache is written in C: it has the signature of what it wraps.
                signature = inspect.signature(function)
        except (TypeError, ValueError) as exc:
            raise RouteError(f"{self._what} has no signature that could be read: {exc}") from exc
        return list(signature.parameters.values())

    @abstractmethod
    def _slot(self, function: Handler, parameter: inspect.Parameter) -> Slot[S] | None:
        """What a parameter's name, annotation and default say; None where they say nothing."""

    def _fill_by_place(
        self,
        positional: list[inspect.Parameter],
        slots: dict[str, Slot[S] | None],
        has_args: bool,
    ) -> None:
        """Fill what is still open and has a meaning by its place; by default nothing has."""

    @abstractmethod
    def _add_unsaid(self, own: Plan[S], has_args: bool, has_kwargs: bool) -> Plan[S]:
        """Add what a function with ``*args`` or ``**kwargs`` gets that wraps nothing we know of."""

    @abstractmethod
    def _could_be(self, name: str) -> list[str]:
        """What a parameter that can't be bound could be, for the error message."""

    def _is_open(self, one: inspect.Parameter, slots: dict[str, Slot[S] | None]) -> bool:
        return (
            slots[one.name] is None
            and one.annotation is NOTHING
            and one.default is NOTHING
            and one.name not in self._names
        )

    def _own_plan(
        self,
        function: Handler,
        parameters: list[inspect.Parameter],
        inner: Plan[S] | None,
        has_args: bool,
    ) -> Plan[S]:
        # What a partial has bound by name is no question any more, but inspect still lists it.
        named = [
            one for one in parameters if one.kind in _POSITIONAL or one.kind is one.KEYWORD_ONLY
        ]
        settled = self._settled(function, named)
        asked = [one for one in named if one.name not in settled or one.name in self._names]
        slots = {one.name: self._slot(function, one) for one in asked}
        positional = [one for one in asked if one.kind in _POSITIONAL]
        if inner is not None:
            for one, slot in zip(positional, inner.args, strict=False):
                if self._is_open(one, slots):
                    slots[one.name] = Slot(one.name, slot.label, slot.source)
        self._fill_by_place(positional, slots, has_args)
        plan: Plan[S] = Plan([], [])
        for one in asked:
            slot_of_one = slots[one.name]
            if slot_of_one is None:
                raise self._cannot_bind(one)
            (plan.args if one.kind in _POSITIONAL else plan.kwargs).append(slot_of_one)
        return plan

    def _settled(self, function: Handler, named: list[inspect.Parameter]) -> set[str]:
        """The names that a partial has given values to; a Depends is none, but a default.

        Raises:
            RouteError: a Depends goes where the partial would pass on the marker itself.
        """
        if not isinstance(function, partial):
            return set()
        asking = {
            name for name, value in function.keywords.items() if isinstance(value, Dependency)
        }
        if any(isinstance(one, Dependency) for one in function.args):
            raise RouteError(
                f"{self._what}: partial() has a Depends by place; give it by name: "
                f"partial(f, name=Depends(...))"
            )
        for name in asking - {one.name for one in named}:
            raise RouteError(
                f"{self._what}: partial() has a Depends for {name!r}, which is no parameter of "
                f"what it calls; give it to a function that names it"
            )
        return set(function.keywords) - asking

    def _cannot_bind(self, parameter: inspect.Parameter) -> RouteError:
        name = parameter.name
        annotation = parameter.annotation
        shown = name if annotation is NOTHING else f"{name}: {_show(annotation)}"
        hint = "; register the bound method of an object" if name in ("self", "cls") else ""
        return RouteError(
            f"{self._what}: the parameter {shown!r} can't be bound; "
            f"it could be {'; '.join(self._could_be(name))}{hint}"
        )


def _show(annotation: object) -> str:
    return annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)


def _merge(own: Plan[S], inner: Plan[S], has_args: bool, has_kwargs: bool) -> Plan[S]:
    """A wrapper's own arguments, and those of what it wraps that it does not name itself."""
    args, kwargs = list(own.args), list(own.kwargs)
    taken = {slot.label for slot in [*args, *kwargs]}
    open_positional = [slot for slot in inner.args if slot.label not in taken]
    open_keyword = [slot for slot in inner.kwargs if slot.label not in taken]
    by_name: list[Slot[S]] = []
    for slot in open_positional:
        # By place as long as it is (request, socket), as wrappers of Sanic's kind expect in
        # args[0]; the rest by name, which survives a wrapper that puts something before it.
        by_place = slot.is_injected or slot.positional_only or not has_kwargs
        if has_args and by_place and not by_name:
            args.append(slot)
        else:
            by_name.append(slot)
    if has_kwargs:
        kwargs += [*by_name, *open_keyword]
    return Plan(args, kwargs)
