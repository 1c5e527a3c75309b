"""Programs that hide what they have read and fail later: a search finds that, or says what it cannot read.

Each attack keeps one bit in something that a careless reader of state passes over. CPU 0 hides what it has
read while CPU 1 writes it; the run fails if it was 1. The plain engine finds that in random runs.
Longer than 500 lines because the attacks are one table.
"""

from __future__ import annotations

import abc
import array
import calendar
import collections
import collections.abc
import contextlib
import contextvars
import copy
import copyreg
import csv
import decimal
import functools
import gc
import io
import itertools
import math
import operator
import os
import random
import re
import string
import sys
import types
import typing
import warnings
import weakref
from _abc import _reset_registry  # type: ignore[import-not-found]
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from emulator.explore.exhaustive import Exhausted, exhaust
from emulator.explore.learned import LearnedMachine
from emulator.explore.outside import Outside
from emulator.explore.schedule import replay
from emulator.explore.scripts import NotDeterministic
from emulator.explore.search import Limits, Tally, search
from emulator.explore.strategies import find_strategy
from emulator.explore.surroundings import SharedState, Surroundings
from emulator.explore.unsearchable import Unreadable
from emulator.hardware.operations import (
    FlushTlbOne,
    LlistAdd,
    LlistDelAll,
    Load,
    LocalIrqDisable,
    Order,
    SendIpi,
    Store,
    Translate,
    WaitAcks,
)
from emulator.kernel import percpu
from emulator.kernel.percpu import KernelParameters, PerCpu
from emulator.kernel.tlb import flush_everything, flush_tlb_func
from emulator.machine.counters import Unasked
from emulator.machine.litmus import Forbidden, Litmus, Setup
from emulator.machine.progress import WAITS_WITH_INTERRUPTS_OFF
from emulator.machine.referee import Referee
from tests.explore.small_litmus import machine

SAW = "it saw what it waited for"
PAGE = 16
LARGE = 10**20
REFUSALS = (Unreadable, SharedState, Outside, Unasked, NotDeterministic)


class Attack(NamedTuple):
    """`make` makes what hides, `hide` puts 0 or 1 in, `reveal` gets it out."""

    make: Callable[[PerCpu], Any]
    hide: Callable[[Any, int], object]
    reveal: Callable[[Any], object]
    refused: str = ""  # what the refusal names; empty where the search finds the failure


class OwnDict(dict[str, int]):
    pass


class OwnList(list[int]):
    pass


class OwnSet(set[int]):
    pass


class OwnInt(int):
    seen: int


class OwnTuple(tuple[int, ...]):
    seen: int


class PrivateSlot:
    __slots__ = ("__seen",)

    def put(self, seen: int) -> None:
        self.__seen = seen

    def get(self) -> int:
        return self.__seen


class SlotOnDict(dict[str, int]):
    __slots__ = ("seen",)


class Hidden:
    """Its attribute is not its own."""

    def __init__(self) -> None:
        self.seen = 0

    @property
    def __dict__(self) -> dict[str, Any]:  # type: ignore[override]
        return {}


class Shared:
    seen = 0


class Kind(type):
    seen = 0


class OfAKind(Shared, metaclass=Kind):
    pass


class Colour(Enum):
    RED = 1


class Lamp:
    pass


class Abstract(abc.ABC):  # noqa: B024
    pass


@functools.singledispatch
def kind_of(value: object) -> int:
    return 0


def token(seen: int) -> object:
    from abc import get_cache_token

    return get_cache_token()


def renamed(seen: int) -> None:
    import contextlib as tools

    tools.redirect_stdout(io.StringIO()).__enter__()


def elsewhere(seen: int) -> None:
    import wave

    wave.seen = seen  # type: ignore[attr-defined]


def put_aside(seen: int) -> None:
    module = abc
    module.ABCMeta.register(Abstract, Lamp)


def registers(seen: int) -> None:
    if seen:
        chosen = [Abstract][0]
        chosen.register(Lamp)


LAMP = Lamp()
SENTINEL: list[int] = []
TABLE: dict[str, int] = {}
COUNTER = 0
CONTEXT: contextvars.ContextVar[int] = contextvars.ContextVar("seen", default=0)


def remembers(seen: int, kept: list[int] = []) -> list[int]:  # noqa: B006
    kept.append(seen)
    return kept


def writes_a_global(seen: int) -> None:
    global COUNTER
    COUNTER = seen


def with_attribute() -> None:
    pass


def recursion(box: list[Any], seen: int) -> None:
    import sys

    sys.setrecursionlimit(2000 + seen)


@contextlib.contextmanager
def notes(seen: int) -> Iterator[None]:
    TABLE["b"] = seen
    yield


@dataclass
class Data:
    kept: list[Any] = field(default_factory=list)
    seen: int = 0


THIS = sys.modules[__name__]


@functools.cache
def memory(key: str) -> list[int]:
    return []


def closure() -> Callable[[int | None], int]:
    seen = 0

    def access(value: int | None) -> int:
        nonlocal seen
        if value is not None:
            seen = value
        return seen

    return access


STATIC_CLOSURE = closure()


def defaults(seen: int) -> Callable[[], int]:
    def with_default(*, seen: int = seen) -> int:
        return seen

    return with_default


def generator() -> Any:
    seen = 0
    while True:
        seen = (yield seen) or seen


def started() -> Any:
    made = generator()
    next(made)
    return made


def advanced(iterator: Any, steps: int) -> None:
    for _ in range(steps):
        next(iterator)


def put(box: list[Any], value: Any) -> None:
    box[:] = [value]


def raising(seen: int) -> Exception:
    error = RuntimeError()
    error.seen = seen  # type: ignore[attr-defined]
    return error


def weak(box: list[Any], seen: int) -> None:
    lamp = Lamp()
    box.append(weakref.ref(lamp))
    if seen:
        CYCLE.append(lamp)


CYCLE: list[Lamp] = []


def same_name(seen: int) -> type:
    return type("Made", (), {"seen": seen})


A_LIST = [0, 1]
BY_NAME = "gi_frame"


def matches(box: Any) -> object:
    match box:
        case types.GeneratorType(gi_frame=frame):
            return frame
    return None


def copied(of: object) -> dict[int, Any]:
    memo: dict[int, Any] = {}
    copy.deepcopy(of, memo)
    return memo


def copied_text() -> str:
    return "".join(list(SAW))


def sent(box: list[Any], seen: int) -> None:
    """A generator that has forgotten what it was sent, though its frame has not."""
    box.append(made := forgetful())
    next(made)
    made.send(seen)


def forgetful() -> Any:
    x = yield
    yield x
    yield


def by_dataclasses(seen: int) -> None:
    import dataclasses as d

    d.sys.setrecursionlimit(2000 + seen)  # type: ignore[attr-defined]


def from_dataclasses(seen: int) -> None:
    from dataclasses import sys as s  # type: ignore[attr-defined]

    s.setrecursionlimit(2000 + seen)


def in_a_class(seen: int) -> None:
    class Made:
        os.umask(seen)


class Tools:
    os = os


class Showing:
    @property
    def shown(self) -> int:
        return 0


class OtherKind(Kind):
    pass


class Mourned:
    def __del__(self) -> None:
        pass


NAN = math.nan
TOOLS = [os.umask]
MODULES = [os]
IN_TABLES = {"get": getattr}
GETTER = operator.attrgetter("gi_frame.f_locals")
FRAME_OF = types.GeneratorType.gi_frame
TURNED = Shared()
PARTIAL = functools.partial(int)
ANY_TYPE = typing.TypeVar("ANY_TYPE")
NAMESPACE = types.SimpleNamespace(seen=0)
NUMBERS = {0, 1, 2}
FLUSH_DOC = flush_tlb_func.__doc__

EMPTY: Callable[[PerCpu], Any] = lambda cpu: []  # noqa: E731

ATTACKS: dict[str, Attack] = {
    # What a program counts.
    "event counter": Attack(
        lambda cpu: cpu, lambda cpu, v: cpu.count("saw", v), lambda cpu: cpu.vmstat["saw"], "vmstat"
    ),
    "results": Attack(
        lambda cpu: cpu,
        lambda cpu, v: cpu.count("saw", v),
        lambda cpu: cpu.results()["vmstat"]["saw"],
        "vmstat",
    ),
    "interrupts": Attack(
        lambda cpu: cpu,
        lambda cpu, v: v and cpu.count_interrupt(),
        lambda cpu: cpu.tlb_interrupts,
        "tlb_interrupts",
    ),
    "counter that is not named": Attack(
        lambda cpu: cpu, lambda cpu, v: cpu.count("saw", v), lambda cpu: cpu.counted("saw"), "saw"
    ),
    # Containers.
    "Counter": Attack(lambda cpu: collections.Counter(), lambda b, v: b.update(a=v), lambda b: b["a"]),
    "dict subclass": Attack(lambda cpu: OwnDict(), lambda b, v: b.update(a=v), lambda b: b["a"]),
    "attribute of a dict": Attack(
        lambda cpu: OwnDict(), lambda b, v: setattr(b, "seen", v), lambda b: b.seen
    ),
    "slot of a dict": Attack(lambda cpu: SlotOnDict(), lambda b, v: setattr(b, "seen", v), lambda b: b.seen),
    "list subclass": Attack(lambda cpu: OwnList(), lambda b, v: b.append(v), lambda b: b[0]),
    "attribute of a list": Attack(
        lambda cpu: OwnList(), lambda b, v: setattr(b, "seen", v), lambda b: b.seen
    ),
    "set subclass": Attack(lambda cpu: OwnSet(), lambda b, v: b.add(v), lambda b: 1 in b, "OwnSet"),
    "attribute of an int": Attack(
        lambda cpu: OwnInt(3), lambda b, v: setattr(b, "seen", v), lambda b: b.seen
    ),
    "attribute of a tuple": Attack(
        lambda cpu: OwnTuple(), lambda b, v: setattr(b, "seen", v), lambda b: b.seen, "OwnTuple"
    ),
    "order of a set": Attack(
        lambda cpu: set(), lambda b, v: b.update([0, 8] if v else [8, 0]), lambda b: next(iter(b)) == 0, "set"
    ),
    "order of a frozenset": Attack(
        EMPTY, lambda b, v: put(b, frozenset([0, 8] if v else [8, 0])), lambda b: next(iter(b[0])) == 0
    ),
    "order of a dict": Attack(
        lambda cpu: {},
        lambda b, v: b.update({0: 0, 1: 0} if v else {1: 0, 0: 0}),
        lambda b: next(iter(b)) == 0,
    ),
    "OrderedDict": Attack(
        lambda cpu: collections.OrderedDict(a=1, b=2),
        lambda b, v: b.move_to_end("a", last=not v),
        lambda b: next(reversed(b)) == "b",
        "OrderedDict",
    ),
    "defaultdict": Attack(
        lambda cpu: collections.defaultdict(int),
        lambda b, v: setattr(b, "default_factory", [int, list][1 - v]),
        lambda b: b.default_factory is int,
        "defaultdict",
    ),
    "deque's bound": Attack(
        EMPTY, lambda b, v: put(b, collections.deque([1], maxlen=1 + v)), lambda b: b[0].maxlen == 2
    ),
    "array": Attack(lambda cpu: array.array("i"), lambda b, v: b.append(v), lambda b: b[0], "array"),
    "bytearray": Attack(
        lambda cpu: bytearray(1), lambda b, v: b.__setitem__(0, v), lambda b: b[0], "bytearray"
    ),
    "string buffer": Attack(
        lambda cpu: io.StringIO(), lambda b, v: b.write("x" * v), lambda b: b.getvalue(), "StringIO"
    ),
    "namespace": Attack(
        lambda cpu: types.SimpleNamespace(),
        lambda b, v: setattr(b, "seen", v),
        lambda b: b.seen,
        "SimpleNamespace",
    ),
    "proxy": Attack(
        EMPTY, lambda b, v: put(b, types.MappingProxyType({"a": v})), lambda b: b[0]["a"], "mappingproxy"
    ),
    # Numbers that compare equal.
    "True for 1": Attack(EMPTY, lambda b, v: put(b, True if v else 1), lambda b: b[0] is True),
    "1.0 for 1": Attack(EMPTY, lambda b, v: put(b, 1.0 if v else 1), lambda b: type(b[0]) is float),
    "-0.0 for 0.0": Attack(EMPTY, lambda b, v: put(b, -0.0 if v else 0.0), lambda b: str(b[0]) == "-0.0"),
    "complex": Attack(EMPTY, lambda b, v: put(b, complex(0, -0.0 if v else 0.0)), lambda b: "-" in str(b[0])),
    "bits of a nan": Attack(
        EMPTY, lambda b, v: put(b, math.copysign(math.nan, -v)), lambda b: math.copysign(1, b[0]) < 0, "a nan"
    ),
    "room of a list": Attack(
        lambda cpu: [[]],
        lambda b, v: put(b, [1]) if v else b[0].append(1),
        lambda b: b[0].__sizeof__() < 70,
        "__sizeof__ is",
    ),
    "key of a dict": Attack(
        lambda cpu: {}, lambda b, v: b.__setitem__(True if v else 1, 0), lambda b: next(iter(b)) is True
    ),
    # Objects.
    "private slot": Attack(lambda cpu: PrivateSlot(), lambda b, v: b.put(v), lambda b: b.get()),
    "hidden __dict__": Attack(
        lambda cpu: Hidden(), lambda b, v: setattr(b, "seen", v), lambda b: b.seen, "Hidden"
    ),
    "random numbers": Attack(
        lambda cpu: random.Random(1),
        lambda b, v: b.seed(v),
        lambda b: b.random() == random.Random(1).random(),
        "Random",
    ),
    "exception": Attack(EMPTY, lambda b, v: put(b, raising(v)), lambda b: b[0].seen, "RuntimeError"),
    "weak reference": Attack(EMPTY, weak, lambda b: b[0]() is not None, "weakref.ref is outside"),
    "class made in the run": Attack(EMPTY, lambda b, v: put(b, same_name(v)), lambda b: b[0].seen, "Made"),
    "object of such a class": Attack(EMPTY, lambda b, v: put(b, same_name(v)()), lambda b: b[0].seen, "Made"),
    "identity": Attack(EMPTY, lambda b, v: put(b, SENTINEL if v else []), lambda b: b[0] is SENTINEL),
    "plain objects": Attack(EMPTY, lambda b, v: put(b, object()), lambda b: False, "object"),
    "partial": Attack(EMPTY, lambda b, v: put(b, functools.partial(int, v)), lambda b: b[0](), "partial"),
    "bound method of a list": Attack(EMPTY, lambda b, v: put(b, [v].count), lambda b: b[0](1)),
    # Functions.
    "keyword default": Attack(EMPTY, lambda b, v: put(b, defaults(v)), lambda b: b[0]()),
    "changed keyword default": Attack(
        EMPTY,
        lambda b, v: (put(b, defaults(0)), setattr(b[0], "__kwdefaults__", {"seen": v})),
        lambda b: b[0](),
    ),
    "function attribute": Attack(
        lambda cpu: with_attribute, lambda b, v: setattr(b, "seen", v), lambda b: b.seen, "with_attribute"
    ),
    "attribute of a function of its own": Attack(
        lambda cpu: defaults(0), lambda b, v: setattr(b, "seen", v), lambda b: b.seen
    ),
    "annotation of a function of its own": Attack(
        lambda cpu: defaults(0),
        lambda b, v: b.__annotations__.update(seen=v),
        lambda b: b.__annotations__["seen"],
    ),
    "annotation of a function": Attack(
        lambda cpu: with_attribute,
        lambda b, v: b.__annotations__.update(seen=v),
        lambda b: b.__annotations__["seen"],
        "with_attribute",
    ),
    "name of a function": Attack(
        lambda cpu: defaults(0), lambda b, v: setattr(b, "__name__", str(v)), lambda b: b.__name__ == "1"
    ),
    "closure": Attack(lambda cpu: closure(), lambda b, v: b(v), lambda b: b(None)),
    "everybody's closure": Attack(
        EMPTY, lambda b, v: STATIC_CLOSURE(v), lambda b: STATIC_CLOSURE(None), "access"
    ),
    "default argument": Attack(EMPTY, lambda b, v: remembers(v), lambda b: remembers(0)[-2], "remembers"),
    "cached function": Attack(EMPTY, lambda b, v: memory("a").append(v), lambda b: memory("a")[-1], "cache"),
    # How far something has come.
    "list iterator": Attack(lambda cpu: iter(A_LIST), advanced, lambda b: next(b) == 1),
    "enumerate": Attack(lambda cpu: enumerate([0, 0]), advanced, lambda b: next(b)[0] == 1),
    "zip": Attack(lambda cpu: zip([0, 1], [0, 0], strict=True), advanced, lambda b: next(b)[0] == 1),
    "dict iterator": Attack(
        lambda cpu: iter({0: 0, 1: 1}), advanced, lambda b: next(b) == 1, "dict_keyiterator"
    ),
    "set iterator": Attack(lambda cpu: iter({0, 1}), advanced, lambda b: next(b) == 1, "set_iterator"),
    "generator": Attack(lambda cpu: started(), lambda b, v: b.send(v), lambda b: next(b)),
    "generator expression": Attack(lambda cpu: (n for n in (0, 1)), advanced, lambda b: next(b) == 1),
    "count": Attack(lambda cpu: itertools.count(), advanced, lambda b: next(b) == 1, "count"),
    "cycle": Attack(lambda cpu: itertools.cycle([0, 1]), advanced, lambda b: next(b) == 1, "cycle"),
    # What every CPU can reach.
    "class attribute": Attack(
        EMPTY, lambda b, v: setattr(Shared, "seen", v), lambda b: Shared.seen, "Shared"
    ),
    "attribute of the object's class": Attack(
        lambda cpu: Shared(), lambda b, v: setattr(type(b), "seen", v), lambda b: b.seen, "Shared"
    ),
    "metaclass": Attack(EMPTY, lambda b, v: setattr(Kind, "seen", v), lambda b: OfAKind.seen, "class Kind"),
    "base of a class": Attack(
        EMPTY,
        lambda b, v: setattr(OfAKind, "__bases__", (Lamp if v else Shared,)),
        lambda b: issubclass(OfAKind, Lamp),
        "class OfAKind",
    ),
    "name of a class": Attack(
        EMPTY, lambda b, v: setattr(Lamp, "__name__", str(v)), lambda b: Lamp.__name__ == "1", "class "
    ),
    "annotation of a class": Attack(
        EMPTY,
        lambda b, v: Data.__annotations__.update(seen=v),
        lambda b: Data.__annotations__["seen"] == 1,
        "class Data",
    ),
    "who is derived from a class": Attack(
        EMPTY, lambda b, v: None, lambda b: Lamp.__subclasses__(), "__subclasses__ is"
    ),
    "what an iterator has passed": Attack(
        lambda cpu: [None],
        lambda b, v: (put(b, iter((v, 2))), next(b[0])),
        lambda b: b[0].__reduce__()[1][0][0],
        "__reduce__ is",
    ),
    "an iterator that is wound back": Attack(
        lambda cpu: [None],
        lambda b, v: (put(b, iter((v, 2))), next(b[0])),
        lambda b: b[0].__setstate__(0) or next(b[0]),
        "__setstate__ is",
    ),
    "variables by other ways": Attack(EMPTY, lambda b, v: None, lambda b: locals(), "locals is"),
    "variables of others": Attack(EMPTY, lambda b, v: None, lambda b: b.gi_frame.f_locals, "gi_frame is"),
    "what an iterator has passed, copied": Attack(
        lambda cpu: [None],
        lambda b, v: (put(b, iter(([v], 2))), next(b[0])),
        lambda b: next(one for one in copied(b[0]).values() if type(one) is list),
        "copy.deepcopy is",
    ),
    "two iterators over ranges": Attack(
        lambda cpu: [None],
        lambda b, v: put(b, (iter(range(3)), iter(range(v, v + 1)))),
        lambda b: next(b[0][1]),
    ),
    "a frame in a pattern": Attack(EMPTY, lambda b, v: None, matches, "gi_frame is"),
    "a frame in a tuple": Attack(
        EMPTY,
        lambda b, v: None,
        lambda b: [getattr(b, name) for name in ("gi_frame", "gi_code")],
        "gi_frame is",
    ),
    "a frame in a format": Attack(EMPTY, lambda b, v: None, lambda b: f"{b.gi_frame}", "gi_frame is"),
    "a frame by a global": Attack(
        EMPTY, lambda b, v: put(b, BY_NAME), lambda b: False, "is the name gi_frame"
    ),
    "kernel's parameters": Attack(
        lambda cpu: cpu.parameters,
        lambda b, v: object.__setattr__(b, "migrate_batch", v),
        lambda b: b.migrate_batch == 1,
        "KernelParameters",
    ),
    "kernel's class": Attack(
        EMPTY,
        lambda b, v: setattr(PerCpu, "seen", v),
        lambda b: PerCpu.seen,
        "PerCpu",  # type: ignore[attr-defined]
    ),
    "member of an enumeration": Attack(
        EMPTY,
        lambda b, v: setattr(Colour.RED, "seen", v),
        lambda b: Colour.RED.seen,  # type: ignore[attr-defined]
        "Colour",
    ),
    "global table": Attack(EMPTY, lambda b, v: TABLE.update(a=v), lambda b: TABLE["a"], "TABLE"),
    "global that is written": Attack(EMPTY, lambda b, v: writes_a_global(v), lambda b: COUNTER, "COUNTER"),
    "global object": Attack(
        EMPTY,
        lambda b, v: setattr(LAMP, "on", v),
        lambda b: LAMP.on,
        "LAMP",  # type: ignore[attr-defined]
    ),
    "the module's dictionary": Attack(
        EMPTY, lambda b, v: with_attribute.__globals__.update(COUNTER=v), lambda b: COUNTER, "__globals__ is"
    ),
    "context variable": Attack(EMPTY, lambda b, v: CONTEXT.set(v), lambda b: CONTEXT.get(), "CONTEXT"),
    "everybody's random numbers": Attack(
        EMPTY, lambda b, v: random.seed(v), lambda b: random.random() > 2, "random"
    ),
    "globals": Attack(EMPTY, lambda b, v: globals().update(COUNTER=v), lambda b: COUNTER, ": globals is"),
    "mask of new files": Attack(EMPTY, lambda b, v: os.umask(v), lambda b: os.umask(0), ": os.umask is"),
    "a file": Attack(
        EMPTY,
        lambda b, v: Path("seen").write_text(str(v)),
        lambda b: int(Path("seen").read_text()),
        ": Path is",
    ),
    "recursion limit": Attack(
        EMPTY, recursion, lambda b: sys.getrecursionlimit() == 2001, "sys.getrecursionlimit is outside"
    ),
    "in a function that a library has wrapped": Attack(
        EMPTY, lambda b, v: put(b, notes(v).__enter__()), lambda b: TABLE.get("b"), "TABLE"
    ),
    # What libraries keep for everybody.
    "classes of an abstract one": Attack(
        EMPTY, lambda b, v: registers(v), lambda b: isinstance(LAMP, Abstract), "registered with Abstract"
    ),
    "classes of a library's": Attack(
        EMPTY,
        lambda b, v: v and collections.abc.AsyncIterable.register(Lamp),
        lambda b: isinstance(LAMP, collections.abc.AsyncIterable),
        "registered with AsyncIterable",
    ),
    "kinds of a function": Attack(
        EMPTY,
        lambda b, v: v and kind_of.register(Lamp, lambda value: 1),
        lambda b: kind_of(LAMP),
        "registered with function singledispatch",
    ),
    "class of a library": Attack(
        EMPTY,
        lambda b, v: setattr(string.Template, "seen", v),
        lambda b: getattr(string.Template, "seen", 0),
        "class Template",
    ),
    "function of a library": Attack(
        EMPTY,
        lambda b, v: setattr(functools.total_ordering, "seen", v),
        lambda b: getattr(functools.total_ordering, "seen"),  # noqa: B009
        "total_ordering",
    ),
    "module of a library": Attack(
        EMPTY, lambda b, v: setattr(string, "seen", v), lambda b: False, "the module string"
    ),
    "module of the kernel": Attack(
        EMPTY,
        lambda b, v: setattr(percpu, "seen", v),
        lambda b: percpu.seen,  # type: ignore[attr-defined]
        "the module percpu",
    ),
    "own module": Attack(EMPTY, lambda b, v: setattr(THIS, "sly", v), lambda b: False, "the module THIS"),
    "first day of the week": Attack(
        EMPTY,
        lambda b, v: calendar.setfirstweekday(v),
        lambda b: calendar.firstweekday(),
        ": calendar.",
    ),
    "longest field": Attack(
        EMPTY, lambda b, v: csv.field_size_limit(100 + v), lambda b: csv.field_size_limit() == 101, ": csv."
    ),
    "precision": Attack(
        EMPTY,
        lambda b, v: setattr(decimal.getcontext(), "prec", 28 - v),
        lambda b: decimal.getcontext().prec == 27,
        ": decimal.getcontext is",
    ),
    "how things are copied": Attack(
        EMPTY,
        lambda b, v: copyreg.pickle(Lamp, lambda lamp: "LAMP") if v else None,  # type: ignore[arg-type]
        lambda b: Lamp in copyreg.dispatch_table,
        ": copyreg.",
    ),
    "warnings": Attack(
        EMPTY,
        lambda b, v: warnings.simplefilter("ignore"),
        lambda b: warnings.filters[0][0] == "ignore",
        "warn",
    ),
    "what ends it": Attack(
        EMPTY, lambda b, v: weakref.finalize(LAMP, with_attribute), lambda b: False, "weakref.finalize is"
    ),
    "standard output": Attack(
        EMPTY,
        lambda b, v: contextlib.redirect_stdout(None),
        lambda b: False,
        ": contextlib.redirect_stdout is",
    ),
    "a module renamed": Attack(EMPTY, lambda b, v: renamed(v), lambda b: False, ": contextlib is"),
    "a module in a variable": Attack(
        EMPTY, lambda b, v: put_aside(v), lambda b: False, "the module abc is handed on"
    ),
    "a module nobody had": Attack(EMPTY, lambda b, v: elsewhere(v), lambda b: False, ": wave is outside"),
    "how often classes were registered": Attack(
        EMPTY, lambda b, v: token(v), lambda b: False, ": abc.get_cache_token is"
    ),
    "address": Attack(EMPTY, lambda b, v: put(b, id(v)), lambda b: b[0] == id(1), ": id is"),
    "address by way of a hash": Attack(EMPTY, lambda b, v: put(b, hash(LAMP)), lambda b: False, ": hash is"),
    "one of two equal strings": Attack(
        EMPTY,
        lambda b, v: put(b, SAW if v else "".join(list(SAW))),
        lambda b: b[0] is SAW,
        "`is` with a str",
    ),
    "one of two equal numbers": Attack(
        EMPTY,
        lambda b, v: put(b, LARGE if v else int(str(LARGE))),
        lambda b: b[0] is LARGE,
        "`is` with a int",
    ),
    "globals by a name in a string": Attack(
        EMPTY,
        lambda b, v: getattr(with_attribute, "__globals__").update(COUNTER=v),  # noqa: B009
        lambda b: COUNTER,
        ": __globals__ is",
    ),
    "globals by a name with dots": Attack(
        EMPTY,
        lambda b, v: operator.itemgetter("f.__globals__")(b),
        lambda b: False,
        ": f.__globals__ is",
    ),
    "how a generator is traced": Attack(
        lambda cpu: started(),
        lambda b, v: setattr(b.gi_frame, "f_trace_lines", bool(v)),
        lambda b: b.gi_frame.f_trace_lines,
        "gi_frame is",
    ),
    "name of a generator": Attack(
        lambda cpu: started(), lambda b, v: setattr(b, "__name__", str(v)), lambda b: b.__name__ == "1"
    ),
    # Which of two equal ones it is.
    "two strings in variables": Attack(
        EMPTY,
        lambda b, v: b.extend([SAW, SAW if v else copied_text()]),
        lambda b: b[0] is b[1],
        "two variables",
    ),
    "two tuples, by a function": Attack(
        EMPTY,
        lambda b, v: b.extend([SAW, SAW if v else copied_text()]),
        lambda b: any(map(operator.is_, b, b[1:])),
        "operator.is_ is",
    ),
    "which nan": Attack(
        EMPTY,
        lambda b, v: b.extend([NAN, NAN if v else math.copysign(math.nan, 1)]),
        lambda b: b[0] in b[1:],
        "a nan",
    ),
    "two objects by ==": Attack(
        lambda cpu: [Lamp(), Lamp()], lambda b, v: b.append(b[1 - v]), lambda b: b[2] == b[0]
    ),
    # Names that are put together.
    "a name put together": Attack(
        EMPTY, sent, lambda b: getattr(b[0], "".join(["gi_", "frame"])), "getattr by"
    ),
    "a name beside a constant": Attack(EMPTY, sent, lambda b: getattr(b[0], "gi_" + str(b)), "getattr by"),
    "a name of two": Attack(EMPTY, sent, lambda b: getattr(b[0], "x" if b else "y"), "getattr by"),
    "a name in a variable": Attack(EMPTY, sent, lambda b: [getattr(b[0], n) for n in b], "getattr by"),
    "getattr for all": Attack(EMPTY, sent, lambda b: list(map(getattr, b, [SAW])), "getattr by"),
    "getattr in a table": Attack(EMPTY, sent, lambda b: IN_TABLES["get"](b[0], SAW), "IN_TABLES"),
    "a constant name of an item": Attack(
        lambda cpu: [Data()],
        lambda b, v: setattr(b[0], "seen", v),
        lambda b: getattr(b[0], "seen"),  # noqa: B009
    ),
    "a name with a default": Attack(EMPTY, lambda b, v: put(b, getattr(b, "none", v)), lambda b: b[0]),
    "a format put together": Attack(
        EMPTY, sent, lambda b: "{0.gi_X}".replace("X", "frame").format(b[0]), "format by"
    ),
    "a getter of everybody": Attack(EMPTY, sent, lambda b: GETTER(b[0])["x"], "is the name gi_frame"),
    "a getter put together": Attack(
        EMPTY, sent, lambda b: operator.attrgetter(SAW)(b[0]), "operator.attrgetter is"
    ),
    "a descriptor": Attack(EMPTY, sent, lambda b: FRAME_OF.__get__(b[0]), "py is or holds gi_frame"),
    "a class's dictionary": Attack(EMPTY, sent, lambda b: type(b[0]).__dict__[SAW], "__dict__ is"),
    "a wrapper of all": Attack(
        EMPTY, sent, lambda b: functools.update_wrapper(lambda: 0, b[0], [SAW], ()), "update_wrapper is"
    ),
    "other code": Attack(EMPTY, sent, lambda b: types.FunctionType(b[0], {})(), "types.FunctionType is"),
    "text that is run": Attack(EMPTY, sent, lambda b: typing.get_type_hints(b), "typing.get_type_hints is"),
    # By way of something that is allowed.
    "a module by its function": Attack(EMPTY, sent, lambda b: print.__self__.exec(SAW), "__self__ is"),
    "a module of a library's": Attack(EMPTY, lambda b, v: by_dataclasses(v), lambda b: False, "d.sys.set"),
    "a module from a library's": Attack(
        EMPTY, lambda b, v: from_dataclasses(v), lambda b: False, "dataclasses.sys is"
    ),
    "in the body of a class": Attack(
        EMPTY, lambda b, v: in_a_class(v), lambda b: False, "in Made: os.umask is"
    ),
    "a function in a table": Attack(EMPTY, lambda b, v: TOOLS[0](v), lambda b: TOOLS[0](0), "holds umask"),
    "a module in a table": Attack(EMPTY, lambda b, v: MODULES[0].umask(v), lambda b: False, "MODULES"),
    "a module in a class": Attack(EMPTY, lambda b, v: Tools.os.umask(v), lambda b: False, "Tools"),
    # What is everybody's, or says something of itself.
    "what a property says": Attack(
        EMPTY,
        lambda b, v: setattr(Showing.shown, "__doc__", str(v)),
        lambda b: Showing.shown.__doc__ == "1",
        "shown of class Showing",
    ),
    "class of an object": Attack(
        EMPTY,
        lambda b, v: setattr(TURNED, "__class__", Lamp if v else Shared),
        lambda b: isinstance(TURNED, Lamp),
        "TURNED",
    ),
    "class of a class": Attack(
        EMPTY,
        lambda b, v: setattr(OfAKind, "__class__", OtherKind if v else Kind),
        lambda b: isinstance(OfAKind, OtherKind),
        "class OfAKind",
    ),
    "class of an object of its own": Attack(
        lambda cpu: Lamp(),
        lambda b, v: v and setattr(b, "__class__", Shared),
        lambda b: isinstance(b, Shared),
    ),
    "attribute of a partial": Attack(
        EMPTY,
        lambda b, v: setattr(PARTIAL, "seen", v),
        lambda b: PARTIAL.seen,
        "PARTIAL",
    ),
    "attribute of a type variable": Attack(
        EMPTY,
        lambda b, v: setattr(ANY_TYPE, "seen", v),
        lambda b: ANY_TYPE.seen,
        "ANY_TYPE",
    ),
    "everybody's namespace": Attack(
        EMPTY, lambda b, v: setattr(NAMESPACE, "seen", v), lambda b: NAMESPACE.seen, "NAMESPACE"
    ),
    "which goes next out of a set": Attack(
        EMPTY,
        lambda b, v: v and NUMBERS.add(NUMBERS.pop()),
        lambda b: False,
        "NUMBERS of test_hidden_state.py, a set",
    ),
    "what happens at the end": Attack(EMPTY, lambda b, v: put(b, Mourned()), lambda b: False, "__del__"),
    "overloads": Attack(EMPTY, lambda b, v: typing.overload(nothing), lambda b: False, "typing.overload is"),
    "flags that were asked for": Attack(
        EMPTY,
        lambda b, v: v and re.I | re.X | re.S,
        lambda b: re.RegexFlag._value2member_map_,
        "_value2member_map_",
    ),
    "table of a library's class": Attack(
        EMPTY,
        lambda b, v: re.RegexFlag._member_map_.update(seen=v),  # type: ignore[arg-type]
        lambda b: re.RegexFlag._member_map_["seen"],
        "_member_map_ of class RegexFlag",
    ),
    "member of a kernel's enumeration": Attack(
        EMPTY,
        lambda b, v: setattr(Order.MB, "seen", v),
        lambda b: Order.MB.seen,  # type: ignore[attr-defined]
        "MB of class Order",
    ),
    "table of a kernel's class": Attack(
        EMPTY,
        lambda b, v: KernelParameters.__dataclass_fields__.update(seen=v),  # type: ignore[call-overload]
        lambda b: KernelParameters.__dataclass_fields__["seen"],
        "__dataclass_fields__ of class KernelParameters",
    ),
    "annotation of an operation": Attack(
        EMPTY,
        lambda b, v: Load.__annotations__.update(seen=v),
        lambda b: Load.__annotations__["seen"],
        "class Load",
    ),
    "what a function of the kernel says": Attack(
        EMPTY,
        lambda b, v: setattr(flush_tlb_func, "__doc__", str(v)),
        lambda b: flush_tlb_func.__doc__ == "1",
        "function flush_tlb_func",
    ),
    "defaults of a library's function": Attack(
        EMPTY,
        lambda b, v: setattr(functools.total_ordering, "__defaults__", (v,)),
        lambda b: functools.total_ordering.__defaults__[0],  # type: ignore[index]
        "total_ordering",
    ),
    "pure functions": Attack(
        EMPTY, lambda b, v: put(b, functools.reduce(max, itertools.chain([0], [v]))), lambda b: b[0]
    ),
    "dataclass": Attack(lambda cpu: Data([]), lambda b, v: setattr(b, "seen", v), lambda b: b.seen),
    "module that names itself": Attack(
        lambda cpu: THIS.Data(), lambda b, v: (put(b.kept, v), A_LIST, LAMP), lambda b: b.kept[0]
    ),
}


def nothing(setup: Setup) -> None:
    pass


async def writes(cpu: PerCpu) -> None:
    await Store("x", 1)


def hides(attack: Attack, wanted: bool = True) -> Litmus:
    async def body(cpu: PerCpu) -> None:
        box = attack.make(cpu)
        attack.hide(box, await Load("x"))
        await Load("y")
        if bool(attack.reveal(box)) == wanted:
            raise Forbidden(SAW, f"{wanted}")

    return Litmus("hides", "?", (body, writes), nothing, (), drain=False)  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def as_before(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Put back what attacks change for everybody."""
    yield
    TABLE.clear()
    CYCLE.clear()
    STATIC_CLOSURE(0)
    Shared.seen = 0
    Kind.seen = 0
    OfAKind.__bases__ = (Shared,)
    Lamp.__name__ = "Lamp"
    Data.__annotations__["seen"] = "int"
    with_attribute.__annotations__.pop("seen", None)
    globals()["COUNTER"] = 0
    with_attribute.__dict__.clear()
    vars(LAMP).clear()
    for registry in (Abstract, collections.abc.AsyncIterable):
        _reset_registry(registry)
    gc.get_referents(kind_of.registry)[0].pop(Lamp, None)
    kind_of._clear_cache()  # type: ignore[attr-defined]
    TURNED.__class__ = Shared
    OfAKind.__class__ = Kind
    Showing.shown.__doc__ = None
    flush_tlb_func.__doc__ = FLUSH_DOC
    functools.total_ordering.__defaults__ = None
    for table in (Load.__annotations__, re.RegexFlag._member_map_, KernelParameters.__dataclass_fields__):
        table.pop("seen", None)  # type: ignore[attr-defined]
    for thing in (PARTIAL, ANY_TYPE, Order.MB):
        vars(thing).pop("seen", None)
    NAMESPACE.seen = 0
    for library in (string.Template, functools.total_ordering):
        if hasattr(library, "seen"):
            delattr(library, "seen")
    globals().pop("sly", None)
    for owner in (PerCpu, Colour.RED):
        if hasattr(owner, "seen"):
            delattr(owner, "seen")


def outcome(litmus: Litmus, strategy: str = "exhaustive") -> str:
    """What a search says: the rule, the refusal, or that there is nothing."""
    small = machine(litmus, "sc")
    found: Exhausted | Tally
    try:
        explorer = LearnedMachine(small)
        if strategy == "exhaustive":
            found = exhaust(explorer, max_states=1000)
        else:
            found = search(explorer, find_strategy(strategy)(), 1, Limits(200), lambda: False)
    except REFUSALS as problem:
        return f"refused: {problem}"
    if found.violation is None:
        return "never, complete" if found.complete else "never"
    assert replay(Referee(small), found.schedule) == found.violation
    return found.violation.rule


# --- what passes from one CPU to another -----------------------------------------------------------


class Pair(NamedTuple):
    first: int
    second: int


class Couple(NamedTuple):
    first: int
    second: int


async def stores_either(cpu: PerCpu) -> None:
    await Store("z", Pair(0, 1) if await Load("x") else Couple(0, 1))  # type: ignore[arg-type]


async def looks_at_its_class(cpu: PerCpu) -> None:
    if isinstance(await Load("z"), Pair):
        raise Forbidden(SAW, "in a class of tuples")


class Parcel:
    """Hashable, as everything is that says nothing else; two of them are never equal."""

    def __init__(self) -> None:
        self.seen = 0


async def takes(cpu: PerCpu) -> None:
    for (parcel,) in await LlistDelAll("list"):
        await Load("y")
        if parcel.seen if isinstance(parcel, Parcel) else parcel is True:
            raise Forbidden(SAW, "in a parcel")


async def adds_and_changes(cpu: PerCpu) -> None:
    parcel = Parcel()
    await LlistAdd("list", (parcel,))
    await Load("y")
    parcel.seen = 1
    await Load("y")


async def adds_truth(cpu: PerCpu) -> None:
    await LlistAdd("list", (True if await Load("x") else 1,))


async def stores_truth(cpu: PerCpu) -> None:
    await Store("z", True if await Load("x") else 1)


async def reads_truth(cpu: PerCpu) -> None:
    if await Load("z") is True:
        raise Forbidden(SAW, "in a word")


async def writes_it_down(cpu: PerCpu) -> None:
    Shared.seen = await Load("x")
    await Load("y")
    Shared.seen = 0
    await Load("y")


async def looks(cpu: PerCpu) -> None:
    await Load("y")
    if Shared.seen:
        raise Forbidden(SAW, "in a class")


@pytest.mark.parametrize(
    ("programs", "named"),
    [
        ((adds_and_changes, takes), "test_hidden_state.Parcel, and only ints, strings and tuples"),
        ((adds_truth, takes, writes), "LlistAdd hands on a bool"),
        ((stores_truth, reads_truth, writes), "Store hands on a bool"),
        ((stores_either, looks_at_its_class, writes), "a tuple of another class"),
        ((writes_it_down, looks, writes), "class Shared has changed"),
    ],
)
def test_what_goes_from_one_cpu_to_another_is_plain_and_goes_through_the_machine(
    programs: tuple[Any, ...], named: str
) -> None:
    litmus = Litmus("shares", "?", programs, nothing, (), drain=False)
    plain = search(Referee(machine(litmus, "sc")), find_strategy("random")(), 1, Limits(300), lambda: False)
    assert plain.violation is not None
    Shared.seen = 0  # that run has ended in the middle
    assert named in outcome(litmus)


def test_a_counter_that_a_test_names_is_part_of_the_state() -> None:
    async def counts(cpu: PerCpu) -> None:
        cpu.count("saw", await Load("x"))
        await Load("y")
        if cpu.counted("saw"):
            raise Forbidden(SAW, "counted")

    litmus = Litmus("counts", "?", (counts, writes), nothing, (), drain=False, asks=("saw",))
    assert outcome(litmus) == SAW


def test_a_name_that_was_not_there_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    def asks() -> object:
        return NEW  # type: ignore[name-defined]  # noqa: F821

    program = writes(PerCpu.__new__(PerCpu))
    surroundings = Surroundings([asks])
    surroundings.check(program)
    monkeypatch.setattr(sys.modules[__name__], "NEW", 1, raising=False)
    with pytest.raises(SharedState, match=r"NEW of test_hidden_state\.py has changed before"):
        surroundings.check(program)
    program.close()


def test_a_method_of_a_list_may_wait_for_what_it_gets() -> None:
    async def appends(cpu: PerCpu) -> None:
        seen: list[int] = []
        seen.append(await Load("x"))
        await Load("y")
        if seen.pop():
            raise Forbidden(SAW, "appended")

    assert outcome(Litmus("appends", "?", (appends, writes), nothing, (), drain=False)) == SAW


def test_where_a_program_stands_is_part_of_the_state() -> None:
    async def looks_thrice(cpu: PerCpu) -> None:
        await Load("y")
        await Load("y")
        await Load("y")
        raise Forbidden(SAW, "the end")

    assert outcome(Litmus("thrice", "?", (looks_thrice,), nothing, (), drain=False)) == SAW


@pytest.mark.parametrize("wanted", [0, 1])
def test_whether_interrupts_are_on_is_part_of_the_state(wanted: int) -> None:
    async def waits(cpu: PerCpu) -> None:
        if await Load("x") == wanted:
            await LocalIrqDisable()
        else:
            await Load("z")
        await Load("y")
        await WaitAcks(await SendIpi((1,), flush_tlb_func.__name__, flush_everything(cpu), True))

    litmus = Litmus("off", "?", (waits, writes), nothing, (), drain=False)
    assert outcome(litmus) == WAITS_WITH_INTERRUPTS_OFF


@pytest.mark.parametrize("wanted", [0, 1])
def test_what_is_cached_is_part_of_the_state(wanted: int) -> None:
    async def goes_by_its_tlb(cpu: PerCpu) -> None:
        if await Load("x") == wanted:
            await FlushTlbOne(PAGE)
        else:
            await FlushTlbOne(PAGE + 1)
        await Load("y")
        if not await Translate(PAGE, False):
            raise Forbidden(SAW, "not cached")

    def cached(start: Setup) -> None:
        start.page(PAGE, cached=(0,))

    assert outcome(Litmus("cached", "?", (goes_by_its_tlb, writes), cached, (), drain=False)) == SAW


@pytest.mark.parametrize("strategy", ["exhaustive", "portfolio"])
@pytest.mark.parametrize("wanted", [True, False])
@pytest.mark.parametrize("name", ATTACKS)
def test_what_is_hidden_is_found_or_refused(name: str, wanted: bool, strategy: str) -> None:
    attack = ATTACKS[name]
    litmus = hides(attack, wanted)
    said = outcome(litmus, strategy)
    if attack.refused and (said != SAW or (wanted and strategy == "exhaustive")):
        # What is the same as at the start is no change, and a failure that is found needs no refusal.
        assert said.startswith("refused: ")
        assert attack.refused in said
        assert "\n" not in said
    else:
        assert said == SAW
