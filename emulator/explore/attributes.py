"""What an object itself holds: slots and dictionary, by names and values, as they are."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from inspect import getattr_static
from operator import attrgetter
from types import GetSetDescriptorType, MemberDescriptorType
from typing import Any, Final, NamedTuple

from emulator.explore.unsearchable import Unreadable
from emulator.kernel.percpu import PerCpu

# Counters that no program can ask (`emulator.machine.counters`): what differs in them only goes on alike.
_WRITE_ONLY: Final = frozenset({"vmstat", "tlb_interrupts"})
_POINTER: Final = tuple.__itemsize__
IMMUTABLE_TYPE: Final = 1 << 8  # Py_TPFLAGS_IMMUTABLETYPE (Include/object.h): made in C


class _Slots(NamedTuple):
    """Of a class: names of its slots, what gets each, what gets all at once, and its dictionary, in which
    `written` are never read."""

    names: tuple[str, ...]
    getters: tuple[Callable[[Any], Any], ...]
    get: Callable[[Any], tuple[Any, ...]] | None
    dictionary: Callable[[Any], Any] | None
    written: frozenset[str]


def _slots(kind: type[Any]) -> _Slots:
    held = [
        (name, member)
        for base in kind.__mro__
        for name, member in base.__dict__.items()
        if type(member) is MemberDescriptorType and not base.__flags__ & IMMUTABLE_TYPE
    ]
    names = tuple([name for name, _ in held])
    ordinary = getattr_static(kind, "__getattribute__") is object.__getattribute__ and not hasattr(
        kind, "__getattr__"
    )
    at_once = len(names) > 1 and ordinary and all(getattr_static(kind, name) is one for name, one in held)
    found = _SLOTS[kind] = _Slots(
        names,
        tuple([member.__get__ for _, member in held]),
        attrgetter(*names) if at_once else None,
        _dictionary(kind).__get__ if kind.__dictoffset__ else None,
        _WRITE_ONLY if issubclass(kind, PerCpu) else frozenset(),
    )
    return found


def fields(value: Any) -> tuple[tuple[str, ...], tuple[Any, ...]]:
    """All attributes that an object itself has, names and values: slots, private ones too, then its
    dictionary in order."""
    kind = type(value)
    names, getters, get, dictionary, written = _SLOTS.get(kind) or _slots(kind)
    try:
        items = get(value) if get is not None else tuple([one(value) for one in getters])
    except AttributeError:
        there = []
        for name, one in zip(names, getters, strict=True):
            with suppress(AttributeError):
                there.append((name, one(value)))
        names, items = tuple([name for name, _ in there]), tuple([item for _, item in there])
    if dictionary is None:
        return names, items
    own = dictionary(value)
    if type(own) is not dict:
        raise Unreadable(f"an object whose __dict__ is {named(type(own))}, which cannot be read exactly")
    if not written.isdisjoint(own):
        own = {name: item for name, item in own.items() if name not in written}
    return (*names, *own), (*items, *own.values())


def _dictionary(kind: type[Any]) -> GetSetDescriptorType:
    for base in kind.__mro__:
        found = base.__dict__.get("__dict__")
        if type(found) is GetSetDescriptorType:
            return found
    raise Unreadable(f"{named(kind)}, whose __dict__ is hidden")


def is_plain_class(kind: type[Any], base: type[Any] = object) -> bool:
    """Its objects hold what `base`'s do, slots and a dictionary, and nothing that was made in C."""
    members = sum(
        type(member) is MemberDescriptorType
        for one in kind.__mro__
        if one not in base.__mro__
        for member in one.__dict__.values()
    )
    extra = (kind.__dictoffset__ > 0) + (kind.__weakrefoffset__ > base.__weakrefoffset__)
    return (
        issubclass(kind, base)
        and not kind.__flags__ & IMMUTABLE_TYPE
        and kind.__basicsize__ == base.__basicsize__ + _POINTER * (members + extra)
        and not kind.__itemsize__
    )


def named(kind: type[Any]) -> str:
    """A class in words."""
    return f"a {'' if kind.__module__ == 'builtins' else kind.__module__ + '.'}{kind.__qualname__}"


_SLOTS: dict[type[Any], _Slots] = {}
