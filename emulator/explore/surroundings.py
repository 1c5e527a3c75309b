"""What the programs of a test have in common: globals, class attributes, closures, default arguments.

CPUs share words and lists of the machine and nothing else. So everything that the functions of a test and of
its policy can reach by themselves is looked at before a search and must be the same ever after; an object
there is known by its identity. The kernel's own functions are trusted, what they are found under is not.
"""

from __future__ import annotations

import sys
from _abc import _get_dump  # type: ignore[import-not-found]
from abc import ABCMeta
from collections import deque
from collections.abc import Callable, Iterable
from dis import get_instructions, opmap
from enum import Enum
from functools import partial
from itertools import chain
from operator import attrgetter, is_, itemgetter, methodcaller
from re import Pattern
from types import (
    BuiltinFunctionType,
    CodeType,
    FunctionType,
    GenericAlias,
    MethodType,
    ModuleType,
    UnionType,
)
from typing import Any, NamedTuple

from emulator.explore.attributes import IMMUTABLE_TYPE, fields, is_plain_class, named
from emulator.explore.fingerprint import DESCRIBES, line_of
from emulator.explore.outside import (
    DESCRIPTORS,
    Outside,
    codes,
    handed_on,
    imports,
    is_library,
    shows_more,
    stays_inside,
)
from emulator.explore.unsearchable import Unreadable, Unsearchable

_SLOWLY = 64
_EVERY_STEP = 256
_THEN_EVERY = 4
_WRITES = frozenset({opmap["STORE_GLOBAL"], opmap["DELETE_GLOBAL"]})
_ATOMS = frozenset({str, bytes, int, bool, float, complex, type(None), range, Pattern})
_DESCRIPTORS = (property, staticmethod, classmethod)
# What the interpreter itself puts into a class when somebody asks.
_LAZY = frozenset(
    {
        "__annotations__",
        "__abstractmethods__",
        "_abc_impl",
        "__doc__",
        "__type_params__",
        "_value2member_map_",
    }
)
_NOTHING = object()


_INSTEAD = (
    "every CPU, and every run, would see it; keep what one CPU remembers in local variables or in its policy "
    "object, and share through words and lists of the machine"
)


class SharedState(Unsearchable):
    """Something that all CPUs can reach has changed; the message names it."""


class _Place(NamedTuple):
    """Something that can change, what it held, and how it is called."""

    contents: Callable[[Any], tuple[Any, ...]]
    of: Any
    held: tuple[Any, ...]
    called: str

    def changed(self) -> bool:
        now = self.contents(self.of)
        return len(now) != len(self.held) or not all(map(is_, now, self.held))


class _Names:
    """Names of a module that functions ask for: what they were bound to, and those that were not there."""

    def __init__(self, of: dict[str, Any]) -> None:
        self.of = of
        self.held: dict[str, Any] = {}
        self.ids: list[int] = []
        self.absent: set[str] = set()
        self.where = str(of.get("__file__") or of.get("__name__")).rpartition("/")[2]

    def changed(self) -> str:
        """The first that is bound to something else, in words; empty if none is."""
        bound = (name for name, value in self.held.items() if self.of.get(name, _NOTHING) is not value)
        name = next(chain(bound, (name for name in self.absent if name in self.of)), "")
        return name and f"{name} of {self.where}"


class Surroundings:
    """All that `roots`, functions and classes, reach by themselves. Raises Unreadable, SharedState."""

    def __init__(self, roots: Iterable[Any]) -> None:
        self.known: dict[int, Any] = {}
        self._often: list[_Place] = []
        self._rarely: list[_Place] = []
        self._namespaces: dict[int, _Names] = {}
        self._attributes: list[dict[str, Any]] = []  # of functions that have none
        self._ahead: list[tuple[Any, str]] = [(root, "a program") for root in roots]
        self._since = 0
        self._steps = 0
        self._visit()

    def meet(self, kind: type[Any]) -> None:
        """Look at the class of an object as well, from now on."""
        if id(kind) in self.known:
            return
        found: Any = sys.modules.get(kind.__module__)
        for name in kind.__qualname__.split("."):
            found = getattr(found, name, None)
        if found is not kind:
            raise Unreadable(f"of class {kind.__qualname__}, which was made while the program ran")
        self._ahead.append((kind, ""))
        self._visit()

    def check(self, program: Any) -> None:
        """Raise SharedState if something has changed, by a step of `program`.

        Places of the kernel are looked at now and then, all others at every step of the first few hundred.
        """
        self._since += 1
        self._steps += 1
        if self._steps > _EVERY_STEP and self._steps % _THEN_EVERY:
            return
        for names in self._namespaces.values():
            if list(map(id, map(names.of.get, names.held))) != names.ids or not names.absent.isdisjoint(
                names.of
            ):
                raise SharedState(f"{names.changed()} has changed before {line_of(program)}: {_INSTEAD}")
        for place in self._often:
            if place.changed():
                if place.contents is _values:
                    # The interpreter may have put something there; the precise look tells.
                    self.check_all()
                    continue
                raise SharedState(f"{place.called} has changed before {line_of(program)}: {_INSTEAD}")
        if self._since >= _SLOWLY or any(self._attributes):
            self.check_all()

    def check_all(self) -> None:
        """As `check`, everything; nothing to do if nothing has run since."""
        if not self._since:
            return
        self._since = 0
        for names in self._namespaces.values():
            if called := names.changed():
                raise SharedState(f"{called} has changed: {_INSTEAD}")
        for place in (*self._often, *self._rarely):
            if place.changed() and place.contents is not _values:
                raise SharedState(f"{place.called} has changed: {_INSTEAD}")

    # --- what there is -----------------------------------------------------------------------------------

    def _visit(self) -> None:
        while self._ahead:
            value, called = self._ahead.pop()
            if type(value) in _ATOMS:
                if more := shows_more(value):
                    raise Outside(f"{called} is the name {more}, by which a program sees what no search does")
                continue
            if id(value) not in self.known:
                self.known[id(value)] = value
                self._look(value, called)

    def _look(self, value: Any, called: str) -> None:
        kind = type(value)
        if kind is FunctionType:
            self._function(value)
        elif isinstance(value, type):
            self._class(value)
        elif kind is tuple or (isinstance(value, tuple) and not kind.__dictoffset__) or kind is frozenset:
            self._follow(value, called)
        elif kind in _CONTENTS:
            self._place(_CONTENTS[kind], value, called, True)
        elif kind in _DESCRIPTORS:
            inner = (value.fget, value.fset, value.fdel) if kind is property else (value.__func__,)
            self._follow(inner, called)
            self._place(_of_descriptor, value, called, True, False)
        elif kind is MethodType:
            self._follow((value.__func__, value.__self__), called)
        elif kind is partial:
            self._place(_of_partial, value, called, True)
        elif kind is BuiltinFunctionType:
            if not isinstance(value.__self__, (ModuleType, type, type(None))):
                self._follow((value.__self__,), called)
        elif isinstance(value, (Enum, int)) or (is_plain_class(kind) and not is_library(kind.__module__)):
            self._place(_fields, value, called, True)
            self._ahead.append((kind, called))
        elif kind.__module__ == "dataclasses":
            self._place(_fields, value, called, True, False)
        elif is_plain_class(kind, dict) or is_plain_class(kind, list):
            self._place(_contents_and_fields, value, called, True)
            self._ahead.append((kind, called))
        elif kind in _ASKS:
            self._follow(value.__reduce__()[1:], called)
        elif kind.__module__ in _MEANINGS and kind.__dictoffset__:
            self._place(_attributes_of, value, called, True, False)
        elif kind is not object and kind not in _MEANING_TYPES and kind.__module__ not in _MEANINGS:
            raise Unreadable(f"{called}, {named(kind)} that every CPU can reach")

    def _follow(self, values: Iterable[Any], called: str) -> None:
        for value in values:
            if isinstance(value, _HANDED_ON):
                handed_on(value, called)
            self._ahead.append((value, called))

    def _place(self, contents: Any, value: Any, called: str, often: bool, follow: bool = True) -> None:
        held = contents(value)
        (self._often if often else self._rarely).append(_Place(contents, value, held, called))
        if follow:
            self._follow(held, called)

    def _class(self, kind: type[Any]) -> None:
        if isinstance(kind, ABCMeta):
            self._place(_registered, kind, f"what is registered with {kind.__qualname__}", False, False)
        if kind.__flags__ & IMMUTABLE_TYPE:
            return
        called = f"class {kind.__qualname__}"
        self._place(_attributes, kind, called, False, False)
        self._place(_class_described, kind, called, False, False)
        if is_library(kind.__module__) or _is_trusted(kind.__module__):
            for name, value in vars(kind).items():
                if name not in _LAZY and (isinstance(value, Enum) or type(value) in _CONTENTS):
                    contents = _CONTENTS.get(type(value), _fields)
                    self._place(contents, value, f"{name} of {called}", False, False)
            return
        if "__del__" in vars(kind):
            raise Unreadable(f"{called}, whose __del__ runs when the interpreter comes to it")
        for name, value in vars(kind).items():
            if name not in _LAZY and name not in ("__dict__", "__weakref__"):
                self._follow((value,), f"{name} of {called}")
        self._often.append(_Place(_values, kind, _values(kind), called))
        self._follow((type(kind), *kind.__mro__[1:]), called)

    def _function(self, function: FunctionType) -> None:
        module = function.__globals__.get("__name__", "")
        called = f"function {function.__qualname__}"
        if is_library(module):
            # What a decorator of a library has wrapped is the program's own all the same.
            inner = (*_mapping(function.__dict__), *chain(*map(_cell, function.__closure__ or ())))
            self._follow([one for one in inner if type(one) is FunctionType], called)
            for table in inner:
                if type(table) is dict:
                    self._place(_mapping, table, f"what is registered with {called}", True)
            self._place(_of_function, function, called, False, False)
            self._place(_described, function, called, False, False)
            return
        own = not _is_trusted(module)
        self._place(_of_function, function, called, False, False)
        self._place(_described, function, called, False, False)
        if own:
            self._follow(_of_function(function)[1:], called)  # behind its code
            if function.__dict__:
                self._place(_mapping, function.__dict__, called, True)
            else:
                self._attributes.append(function.__dict__)
            for cell in function.__closure__ or ():
                self._place(_cell, cell, called, True)
            free = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
            closure = {name: content for name, cell in free for content in _cell(cell)}
            for code in codes(function.__code__):
                stays_inside(code, function.__globals__, closure if code is function.__code__ else {})
            names = _names(function.__code__)
            self._namespace(function.__globals__, names)
            for code in codes(function.__code__):
                for module in imports(code):
                    if module in sys.modules:
                        self._module(sys.modules[module], names)

    def _namespace(self, namespace: dict[str, Any], names: frozenset[str]) -> None:
        known = self._namespaces.setdefault(id(namespace), _Names(namespace))
        known.absent |= names - namespace.keys()
        for name in names & namespace.keys() - known.held.keys():
            if name in known.held:  # by a module that this one names and that names this one
                continue
            value = namespace[name]
            known.held[name] = value
            known.ids.append(id(value))
            if isinstance(value, ModuleType):
                self._module(value, names)
            else:
                self._follow((value,), f"{name} of {known.where}")

    def _module(self, module: ModuleType, names: frozenset[str]) -> None:
        if module.__name__ == "builtins":
            return
        if id(module) not in self.known and not _is_trusted(module.__name__):
            self.known[id(module)] = module
            self._place(_of_module, module, f"module {module.__name__}", False, False)
        self._namespace(vars(module), names)


def _registered(kind: ABCMeta) -> tuple[Any, ...]:
    """The classes that `register` made subclasses of an abstract one."""
    return tuple([reference() for reference in _get_dump(kind)[0]])


def _of_function(function: FunctionType) -> tuple[Any, ...]:
    return (
        function.__code__,
        function.__defaults__,
        *_mapping(function.__kwdefaults__ or {}),
        *_mapping(function.__dict__),
    )


def _described(function: FunctionType) -> tuple[Any, ...]:
    values = [getattr(function, name) for name in DESCRIBES]
    return (*values[:-1], *_mapping(values[-1]))


def _of_module(module: ModuleType) -> tuple[Any, ...]:
    """All but its parts, which others may import meanwhile."""
    values = [(name, value) for name, value in vars(module).items() if type(value) is not ModuleType]
    return tuple([part for pair in values for part in pair])


def _cell(cell: Any) -> tuple[Any, ...]:
    try:
        return (cell.cell_contents,)
    except ValueError:
        return ()


def _attributes(kind: type[Any]) -> tuple[Any, ...]:
    return tuple([part for name, value in vars(kind).items() if name not in _LAZY for part in (name, value)])


def _class_described(kind: type[Any]) -> tuple[Any, ...]:
    said = (kind.__name__, kind.__qualname__, kind.__doc__, getattr(kind, "__abstractmethods__", None))
    return (type(kind), *said, *kind.__bases__, *_mapping(vars(kind).get("__annotations__") or {}))


def _values(kind: type[Any]) -> tuple[Any, ...]:
    return tuple(vars(kind).values())


def _mapping(value: dict[Any, Any]) -> tuple[Any, ...]:
    return (*value, *value.values())


def _fields(value: Any) -> tuple[Any, ...]:
    names, items = fields(value)
    return (type(value), *names, *items)


def _attributes_of(value: Any) -> tuple[Any, ...]:
    return _mapping(vars(value))


def _of_descriptor(value: Any) -> tuple[Any, ...]:
    """What it says of itself; a static or a class method has attributes, too."""
    return (value.__doc__,) if type(value) is property else _mapping(value.__dict__)


def _of_partial(value: partial[Any]) -> tuple[Any, ...]:
    return (value.func, value.args, value.keywords, *_mapping(vars(value)))


def _contents_and_fields(value: Any) -> tuple[Any, ...]:
    content = tuple(list.__iter__(value)) if isinstance(value, list) else _mapping(dict(value))
    return (*content, *_fields(value))


_HANDED_ON = (ModuleType, FunctionType, BuiltinFunctionType, type, *DESCRIPTORS)
_ASKS = (attrgetter, methodcaller, itemgetter)
_CONTENTS: dict[type[Any], Callable[[Any], tuple[Any, ...]]] = {
    list: tuple,
    deque: tuple,
    dict: _mapping,
}
# Types whose objects say what a name means, and hold nothing; modules of such.
_MEANINGS = frozenset({"typing", "types", "operator", "__future__"})
_MEANING_TYPES: tuple[type[Any], ...] = (
    ModuleType,
    GenericAlias,
    UnionType,
    *DESCRIPTORS,
    type(NotImplemented),
    type(...),
    type(NamedTuple("_", [("field", int)]).field),  # type: ignore[attr-defined]
)


def _is_trusted(module: str) -> bool:
    return module.startswith("emulator.") and not module.startswith("emulator.policies")


def _names(code: CodeType) -> frozenset[str]:
    """All names that a function asks for outside itself. Raises SharedState if it writes one."""
    found: set[str] = set()
    for one in codes(code):
        found.update(one.co_names)
        if not _WRITES.isdisjoint(one.co_code[::2]):
            written = next(step for step in get_instructions(one) if step.opcode in _WRITES)
            raise SharedState(
                f"{code.co_filename.rpartition('/')[2]}:{one.co_firstlineno} in {one.co_name}: the global "
                f"{written.argval} is written: {_INSTEAD}"
            )
    return frozenset(found)
