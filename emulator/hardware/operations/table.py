"""The table of operations: one row a class, written where the class is.

All that is done with operations by their class is looked up in the row, so nothing else lists them: an
operation is added by its class and whatever performs it.
"""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable, Generator
from enum import Enum, auto
from functools import cache
from inspect import getmembers, isfunction
from types import FunctionType
from typing import (
    TYPE_CHECKING,
    Any,
    Generic,
    NamedTuple,
    TypeVar,
    cast,
    dataclass_transform,
    get_args,
    get_type_hints,
)

from emulator.hardware.operations.places import KeyOf, Place, Touches, page_table_lock

_Answer = TypeVar("_Answer")
_Kind = TypeVar("_Kind", bound=type[Any])


@dataclass_transform(frozen_default=True)
class Operation(tuple[Any, ...]):
    """What a program may await: a named tuple of plain values, with a row in the table."""

    __slots__ = ()

    def __await__(self) -> Generator[Any, Any, Any]:
        """Yields itself to the engine, which sends the answer."""
        return (yield self)


class Answers(Operation, Generic[_Answer]):
    """One whose answer is of this type."""

    __slots__ = ()

    if TYPE_CHECKING:

        def __await__(self) -> Generator[Operation, _Answer, _Answer]: ...


class Where(Enum):
    """Who carries an operation out."""

    MEMORY = "memory"  # the gate to everything shared
    CPU = "the CPU"  # that issues it, alone
    IPI = "the engine"  # it concerns other CPUs
    SERIES = "member by member"


class Order(Enum):
    """What an operation is to the ordering rules of an architecture."""

    NONE = auto()
    LOAD = auto()
    STORE = auto()
    LOCKED = auto()  # an atomic read-modify-write, or what a lock makes one
    WALK = auto()
    MB = auto()
    RMB = auto()
    WMB = auto()
    AFTER_ATOMIC = auto()
    TLB = auto()  # a TLB invalidation or CR3 write
    IPI_SEND = auto()
    IPI_TAKE = auto()  # taking the queued calls: an interrupt, and the exchange that empties the queue
    ACK = auto()
    ACK_WAIT = auto()
    IRET = auto()
    DSB_ST = auto()  # waits until all stores have been performed, and for nothing else
    BROADCAST = auto()  # an invalidation in other CPUs' TLBs: ordered by nothing but its TLBSYNC or DSB


class Price(Enum):
    """What an operation costs where time is virtual; `timed/pricing.py` says how much that is."""

    INSTRUCTION = "an instruction"
    LINE = "its cache line"
    ENTRY = "a page-table access"
    SCAN = "a page-table access for each line of entries"
    FOLIO = "touching a folio"
    FOLIOS = "touching every folio"
    SPLIT = "touching a folio and an entry for each page"
    RMAP = "a walk of the reverse map"
    ALLOCATE = "an allocation"
    COPY = "a page read and written, for each page"
    ZERO = "a page written, for each page"
    FLUSH = "a TLB flush"
    INVLPG = "an INVLPG"
    CR3 = "a CR3 write"
    BROADCAST = "a broadcast"
    TLBSYNC = "word of a broadcast's end"
    TLBI = "a TLBI"
    DSB = "a DSB"
    SWITCH = "a task switch"
    PAID = "nothing: its first half has paid"
    ENGINE = "what the engine finds"  # a page walk, a call, a wait
    MEMBERS = "what its members cost"


class Answer(Enum):
    """What the program learns. Of an operation that answers nothing nobody can tell when it was performed."""

    NOTHING = ""
    VALUE = "a value"
    ENTRY = "an entry"
    FRAME = "a frame"


class Alone(Enum):
    """When nothing that others do can meet an operation of this CPU alone, so that it may come first."""

    NEVER = auto()
    UNINTERRUPTED = (
        auto()
    )  # while no interrupt can come between: its program may see whether the handler has run
    UNWALKED = auto()  # while besides no walk can come between: it is about the TLB


class Row(NamedTuple):
    """What is known of an operation by its class, and the decorator that says it of one.

    `carries`: what brings knowledge of earlier events from one CPU to another (happens-before); contents of
    frames do not, as no kernel path is ordered by what a page holds. `location`: of a plain access, which
    keeps its order among those to the same. `waits`: what has to change before it is enabled, where it can
    be not enabled. `second_half` of an instruction: no interrupt comes before it. `release`: a store that
    publishes all that came before it, and adds to what is there. `user_access`: what comes after it may
    overtake it. `notation`: how drawings say it, formatted with the operation and its answer; empty for
    name and fields. `touches`: all that it reads and changes where that is more than its place.
    """

    where: Where
    order: Order
    place: Place
    price: Price
    answer: Answer = Answer.NOTHING
    carries: tuple[KeyOf, ...] = ()
    location: KeyOf | None = None
    waits: KeyOf | None = None
    second_half: bool = False
    release: bool = False
    user_access: bool = False
    alone: Alone = Alone.NEVER
    notation: str = ""
    touches: Touches | None = None

    def __call__(self, kind: _Kind) -> _Kind:
        """The class is an operation, a tuple of the fields that it names, and this is its row.

        TypeError if nothing says what it touches, though it is carried out where all CPUs meet.
        """
        if self.where is Where.MEMORY and not any(self.footprint):
            raise TypeError(f"{kind.__name__} is an operation of memory, but does not say what it touches")
        fields = namedtuple(kind.__name__, kind.__annotations__)  # type: ignore[misc]
        own = {name: value for name, value in vars(kind).items() if name != "__dict__"}
        made = cast(_Kind, type(kind.__name__, kind.__bases__, {**vars(fields), **own}))
        TABLE[made] = self
        return made

    @property
    def answers(self) -> bool:
        """The program learns something."""
        return self.answer is not Answer.NOTHING

    @property
    def footprint(self) -> Touches:
        """What it touches of memory: its place, what it waits for and what carries knowledge included."""
        reads, writes, adds, outcome = self.touches or Touches(self.place.reads, self.place.writes)
        if self.waits is not None:
            reads += (self.waits,)
        if self.order is Order.LOAD:
            reads += self.carries
        else:
            writes += self.carries
        return Touches(reads, writes, adds, outcome)

    @property
    def same_for_all(self) -> bool:
        """Whether it is enabled does not depend on who asks: a page-table lock lets its holder pass."""
        return self.waits is not page_table_lock


TABLE: dict[type[Any], Row] = {}


def describe(operation: Operation) -> str:
    """`Name(field, ...)` with short fields, as witnesses and errors print it."""
    return f"{type(operation).__name__}({', '.join(str(field) for field in operation)})"


def handlers_of(owner: Any) -> dict[type[Any], Callable[..., Any]]:
    """Operation class to the method of `owner` that takes it: the one whose `operation` is annotated so.

    As functools.singledispatch registers. TypeError if there are two of one.
    """
    return {kind: function.__get__(owner) for kind, function in _functions(type(owner)).items()}  # type: ignore[arg-type]


@cache
def _functions(owner: type[Any]) -> dict[type[Any], FunctionType]:
    found: dict[type[Any], FunctionType] = {}
    for _, function in getmembers(owner, isfunction):
        if "operation" in function.__annotations__:
            hint = get_type_hints(function)["operation"]
            for kind in TABLE.keys() & {hint, *get_args(hint)}:
                if found.setdefault(kind, function) is not function:
                    raise TypeError(f"{owner.__name__} has two methods that take {kind.__name__}")
    return found
