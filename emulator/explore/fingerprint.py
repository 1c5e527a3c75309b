"""A suspended program as a plain value: equal values go on alike, given the same answers.

A coroutine cannot be copied, but CPython shows all that it is: the position in its code, its local
variables, its evaluation stack (the garbage collector has to be told of that one) and the coroutine it
awaits. Objects reachable from there are read field by field, exactly: `1` is not `True`. What is not known
to be readable exactly is an error (`Unreadable`), never an equality. What programs have in common is in
`surroundings`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields as dataclass_fields
from enum import Enum
from operator import attrgetter
from struct import Struct
from types import (
    BuiltinFunctionType,
    CellType,
    CodeType,
    CoroutineType,
    FunctionType,
    GeneratorType,
    MethodDescriptorType,
    MethodType,
    ModuleType,
)
from typing import Any, Protocol, get_type_hints

from emulator.explore.attributes import fields, is_plain_class, named
from emulator.explore.suspended import held
from emulator.explore.unsearchable import Unreadable
from emulator.hardware import operations
from emulator.hardware.cpu import Cpu
from emulator.hardware.operations import BeginLoad, Series
from emulator.kernel.percpu import KernelParameters, PerCpu
from emulator.memory.folios import PageFlag

_EXACT_ITERATORS: tuple[type[Any], ...] = (
    type(iter([])),
    type(reversed([])),
    reversed,
    zip,
    enumerate,
    map,
    filter,
    range,
    slice,
)


class Known(Protocol):
    """What all programs have in common and nobody may change: objects there are known by identity."""

    @property
    def known(self) -> Mapping[int, Any]:
        """These objects, by identity."""

    def meet(self, kind: type[Any]) -> None:
        """A class that an object of a program has. Raises Unreadable if nobody else can know it."""


def fingerprint(programs: Iterable[tuple[Any, Any]], kernel: PerCpu, known: Known) -> Any:
    """The programs of one CPU, each behind what it awaits, and its private state, as a hashable value.

    Raises Unreadable.
    """
    reader = _Reader(known)
    frames = [(_awaited(awaited, program), reader.read(program)) for awaited, program in programs]
    return tuple(frames), reader.read(kernel)


def exactly(value: Any, known: Known) -> Any:
    """What a program is answered, as a value that equals no other's. Raises Unreadable."""
    return value if type(value) in _QUICK else _Reader(known).read(value)


def _awaited(awaited: Any, program: Any) -> Any:
    """An operation, begun or not, or all of a series."""
    kind = type(awaited)
    try:
        if kind is Series:
            return (kind, *map(plain, awaited.members))
        return (kind, plain(awaited.load)) if kind is BeginLoad else plain(awaited)
    except Unreadable as problem:
        problem.place = f"{line_of(program)}: "
        raise


def line_of(program: Any) -> str:
    """Where a suspended coroutine stands: `FILE:LINE in FUNCTION` of the innermost that it awaits."""
    at = program
    while isinstance(at.cr_await, CoroutineType):
        at = at.cr_await
    return f"{_line(at.cr_code, at.cr_frame)}" if at.cr_frame else f"the end of {at.cr_code.co_name}"


def _line(code: CodeType, frame: Any) -> str:
    return f"{code.co_filename.rpartition('/')[2]}:{frame.f_lineno} in {code.co_name}"


def plain(operation: Any) -> Any:
    """An operation as a value that equals no other's. Raises Unreadable.

    What it hands on must be plain, and no truth value where a number is meant: to memory 1 and True are one.
    """
    kind = type(operation)
    if operation is None:
        return None
    wanted = _WANTED.get(kind)
    if wanted is None:
        declared = get_type_hints(kind, vars(operations))
        wanted = _WANTED[kind] = tuple([declared[name] for name in kind._fields])
    found: list[Any] = [kind]
    for item, what in zip(operation, wanted, strict=True):
        if type(item) is bool and what is not int:
            found.append(_BOOLS[item])
        elif what is str and type(item) in _QUICK and type(item) is not str:
            raise Unreadable(f"{kind.__name__} names its place by {item!r}, and names are strings")
        else:
            found.append(_handed_on(item, operation))
    return tuple(found)


def _handed_on(value: Any, operation: Any) -> Any:
    kind = type(value)
    if kind in _QUICK:
        return value
    if isinstance(value, tuple) and not kind.__dictoffset__:
        return (kind, *[_handed_on(item, operation) for item in value])
    if isinstance(value, Enum) and not isinstance(value, (int, str)):
        return value
    if kind is PageFlag:
        return (kind, int(value), value.name)
    raise Unreadable(
        f"{type(operation).__name__} hands on {named(kind)}, and only ints, strings and tuples of them pass "
        "between CPUs"
    )


def keep_apart(operation: Any, shapes: dict[Any, Any]) -> None:
    """Raise Unreadable if it hands on a tuple that equals one of another class, which memory takes for it.

    `shapes` are those that memory has been given.
    """
    for item in operation:
        if isinstance(item, tuple) and shapes.setdefault(item, one := _handed_on(item, operation)) != one:
            raise Unreadable(
                f"{type(operation).__name__} hands on {item!r}, and somebody a tuple of another class that "
                "equals it"
            )


class _Reader:
    """Reads values depth first; a second way to the same object is a number, so that sharing counts."""

    __slots__ = ("_kept", "_known", "_of_everybody", "_seen")

    def __init__(self, known: Known) -> None:
        self._known = known
        self._of_everybody = known.known
        self._seen: dict[int, int] = {}
        # Iterators are read through copies that must not be freed while their identity stands in `_seen`.
        self._kept: list[Any] = []

    def read(self, value: Any) -> Any:
        kind = type(value)
        if kind in _QUICK:
            return value
        how, is_value = _HOW.get(kind) or _find_how(kind)
        if not is_value:
            # A short answer for an object that was met before, or that is everybody's.
            seen = self._seen
            at = id(value)
            if at in seen:
                return ("again", seen[at])
            if at in self._of_everybody:
                return ("constant", at)
            seen[at] = len(seen)
        return how(self, kind, value)

    def a_bool(self, kind: type[Any], value: Any) -> Any:
        return _BOOLS[value]

    def a_float(self, kind: type[Any], value: Any) -> Any:
        if value != value:
            raise Unreadable("a nan, which equals nothing but is itself")
        return (kind, _FLOAT(value))

    def a_complex(self, kind: type[Any], value: Any) -> Any:
        if value != value:
            raise Unreadable("a nan, which equals nothing but is itself")
        return (kind, _FLOAT(value.real), _FLOAT(value.imag))

    def a_tuple(self, kind: type[Any], value: Any) -> Any:
        return (kind, *[item if type(item) in _QUICK else self.read(item) for item in value])

    def constant(self, kind: type[Any], value: Any) -> Any:
        if isinstance(value, type):
            self._known.meet(value)
        elif isinstance(value, Enum):
            self._known.meet(kind)
        return ("constant", _kept(value))

    def parameters(self, kind: type[Any], value: Any) -> Any:
        # Frozen, and the same ones all the time.
        now = _EVERY_PARAMETER(value)
        found = _PARAMETERS.get(id(value))
        if found is None:
            found = _PARAMETERS[id(value)] = (value, now, repr(value))
        if now != found[1]:
            raise Unreadable(f"a {kind.__name__} that a program has changed")
        return found[2]

    def items(self, kind: type[Any], value: Any) -> Any:
        return (kind, *[item if type(item) in _QUICK else self.read(item) for item in value])

    def deque(self, kind: type[Any], value: Any) -> Any:
        return (kind, value.maxlen, *[self.read(item) for item in value])

    def a_frozenset(self, kind: type[Any], value: Any) -> Any:
        # Its order is what it was made with, and how large its table is.
        return (kind, value.__sizeof__(), *[self.read(item) for item in value])

    def mapping(self, kind: type[Any], value: Any) -> Any:
        return (kind, *[(self.read(key), self._at(item, f"[{key!r:.40}]")) for key, item in value.items()])

    def coroutine(self, kind: type[Any], value: Any) -> Any:
        return self._suspended(value, value.cr_code, value.cr_frame, value.cr_running)

    def generator(self, kind: type[Any], value: Any) -> Any:
        names = (value.__name__, value.__qualname__)  # which a program may change
        return (names, self._suspended(value, value.gi_code, value.gi_frame, value.gi_running))

    def method(self, kind: type[Any], value: Any) -> Any:
        return ("method", self.read(value.__func__), self.read(value.__self__))

    def builtin(self, kind: type[Any], value: Any) -> Any:
        owner = value.__self__
        if owner is None or isinstance(owner, (ModuleType, type)):
            return ("constant", _kept(value))
        return ("builtin", value.__name__, self._at(owner, ".__self__"))

    def function(self, kind: type[Any], value: Any) -> Any:
        return (
            "function",
            _kept(value.__code__),
            _kept(value.__globals__),
            *[self.read(cell) for cell in value.__closure__ or ()],
            self.read(value.__defaults__),
            self.read(value.__kwdefaults__),
            self._at(value.__dict__, ".__dict__"),
            *[self._at(getattr(value, name), f".{name}") for name in DESCRIBES],
        )

    def cell(self, kind: type[Any], value: Any) -> Any:
        try:
            content = value.cell_contents
        except ValueError:
            return "empty"
        return ("cell", self.read(content))

    def iterator(self, kind: type[Any], value: Any) -> Any:
        reduced = value.__reduce__()
        self._kept.append(reduced)
        return (kind, self.read(reduced[1:]))

    def rest(self, kind: type[Any], value: Any) -> Any:
        """An iterator over what never changes: what it has passed is never read again."""
        _, (of,), *passed = value.__reduce__()
        rest = of[passed[0] :] if passed and passed[0] else of
        self._kept.append(rest)
        return (kind, self.read(rest))

    def refuse(self, kind: type[Any], value: Any) -> Any:
        if id(value) in self._of_everybody:
            return ("constant", id(value))
        raise Unreadable(_a(kind))

    def a_object(self, kind: type[Any], value: Any) -> Any:
        if id(kind) not in self._of_everybody:
            self._known.meet(kind)
        return (kind, *self._fields(value))

    def _fields(self, value: Any) -> list[Any]:
        names, items = fields(value)
        found: list[Any] = [names]
        for item in items:
            kind = type(item)
            if kind in _QUICK:
                found.append(item)
            elif kind is bool:
                found.append(_BOOLS[item])
            else:
                try:
                    found.append(self.read(item))
                except Unreadable as problem:
                    problem.under(f".{names[len(found) - 1]}")
                    raise
        return found

    def of_number(self, kind: type[Any], value: Any) -> Any:
        """A number with attributes."""
        self._known.meet(kind)
        return (kind, int.__index__(value), *self._fields(value))

    def of_container(self, kind: type[Any], value: Any) -> Any:
        """An object of a class of the program's own that is a list or a dict as well."""
        self._known.meet(kind)
        content = list.__iter__(value) if isinstance(value, list) else iter(dict.items(value))
        found = [self.read(item) for item in content]
        return (kind, *found, tuple(self._fields(value)))

    def _at(self, item: Any, path: str) -> Any:
        try:
            return self.read(item)
        except Unreadable as problem:
            problem.under(path)
            raise

    def _suspended(self, value: Any, code: CodeType, frame: Any, running: bool) -> Any:
        if frame is None:
            return ("ended", _kept(code))
        if running:
            raise Unreadable(f"running {value.__qualname__}")
        names = frame.f_locals
        bound, referents = held(value, code, frame, names)
        found = []
        for referent in referents:
            kind = type(referent)
            if kind in _QUICK:
                found.append(referent)
            elif kind is not FunctionType or referent.__code__ is not code:
                try:
                    found.append(self.read(referent))
                except Unreadable as problem:
                    if not problem.place:
                        problem.under(_name_of(referent, names))
                        problem.place = f"{_line(code, frame)}: "
                    raise
        return ("suspended", _kept(code), frame.f_lasti, bound, *found)


def _name_of(value: Any, names: dict[str, Any]) -> str:
    return next((name for name, item in names.items() if item is value), "a value in an expression")


def _a(kind: type[Any]) -> str:
    hint = "await behind the except block" if issubclass(kind, BaseException) else _HINTS.get(kind, "")
    return f"{named(kind)}, which cannot be read exactly{hint and f' ({hint})'}"


def _kept(value: Any) -> int:
    """Its identity, which nothing else will have: it is kept."""
    _KEPT[id(value)] = value
    return id(value)


def _find_how(kind: type[Any]) -> tuple[Callable[[_Reader, type[Any], Any], Any], bool]:
    how = _how(kind)
    _HOW[kind] = how, how in _VALUES
    return _HOW[kind]


def _how(kind: type[Any]) -> Callable[[_Reader, type[Any], Any], Any]:
    """How values of this type are read; by `refuse` unless they are known to be readable exactly."""
    found = _BUILT_IN.get(kind)
    if found is not None:
        return found
    if issubclass(kind, (type, Enum)):
        return _Reader.constant
    if kind in _EXACT_ITERATORS:
        return _Reader.iterator
    if issubclass(kind, tuple):
        return (
            _Reader.refuse if kind.__dictoffset__ or kind.__iter__ is not tuple.__iter__ else _Reader.a_tuple
        )
    if is_plain_class(kind):
        # The plain object is nothing but its identity, which differs from run to run.
        return _Reader.refuse if kind is object else _Reader.a_object
    if issubclass(kind, int):
        return _Reader.of_number
    for base in (list, dict):
        if is_plain_class(kind, base):
            return _Reader.of_container
    return _Reader.refuse


# What a function says of itself.
DESCRIBES = ("__name__", "__qualname__", "__module__", "__doc__", "__annotations__")
# Every bit: there are two zeros.
_FLOAT = Struct("d").pack
_QUICK = frozenset({int, str, bytes, type(None)})
_BOOLS = {False: ("bool", 0), True: ("bool", 1)}
_BUILT_IN: dict[type[Any], Callable[[_Reader, type[Any], Any], Any]] = {
    bool: _Reader.a_bool,
    float: _Reader.a_float,
    complex: _Reader.a_complex,
    tuple: _Reader.a_tuple,
    list: _Reader.items,
    deque: _Reader.deque,
    dict: _Reader.mapping,
    frozenset: _Reader.a_frozenset,
    CoroutineType: _Reader.coroutine,
    GeneratorType: _Reader.generator,
    MethodType: _Reader.method,
    BuiltinFunctionType: _Reader.builtin,
    FunctionType: _Reader.function,
    CellType: _Reader.cell,
    ModuleType: _Reader.constant,
    CodeType: _Reader.constant,
    Cpu: _Reader.refuse,  # what is in its window and its TLB is no program's
    # On the stack while `seen.append(await ...)` waits.
    MethodDescriptorType: _Reader.constant,
    KernelParameters: _Reader.parameters,
    **dict.fromkeys((type(iter(())), type(iter(range(0))), type(iter(""))), _Reader.rest),
}
# Of these nobody can tell whether one was met before, or how to read them asks by itself.
_VALUES = (
    *(_Reader.a_bool, _Reader.a_float, _Reader.a_complex, _Reader.a_tuple, _Reader.a_frozenset),
    *(_Reader.constant, _Reader.parameters, _Reader.method, _Reader.builtin, _Reader.refuse),
)
_HINTS: dict[type[Any], str] = dict.fromkeys(
    [type(iter({})), type(iter({}.values())), type(iter({}.items())), type(iter(set()))],
    "go over a list of it",
)
_HOW: dict[type[Any], tuple[Callable[[_Reader, type[Any], Any], Any], bool]] = {}
_PARAMETERS: dict[int, tuple[KernelParameters, tuple[Any, ...], str]] = {}
_EVERY_PARAMETER = attrgetter(*[one.name for one in dataclass_fields(KernelParameters)])
_KEPT: dict[int, Any] = {}
_WANTED: dict[type[Any], tuple[Any, ...]] = {}
