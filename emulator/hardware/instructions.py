"""Instructions whose operands may be late: a stretch of code as a CPU's window holds it.

Each is performed at any moment that its operands and the architecture's preserved program order leave it;
what a load answers is an operand of others. RVWMO's rules are numbered as in the RISC-V manual, volume I,
chapter 17 ("Preserved Program Order"). Code takes one way through its branches: which one was guessed when
it was issued, and a CPU that has guessed wrong never gets to its end.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from operator import add, and_, eq, ge, gt, le, lshift, lt, mul, ne, or_, rshift, sub, xor
from typing import Any, Final, NamedTuple

from emulator.hardware.descriptors import (
    BY_ACCESS_FLAG,
    BY_PERMISSION,
    BY_TRANSLATION,
    DESCRIPTOR,
    ETS2,
    HARDWARE_AF,
    HARDWARE_DIRTY,
    NEVER,
    PAGE,
    PAGE_SHIFT,
)
from emulator.hardware.operations.coordination import (
    AtomicAdd,
    AtomicAnd,
    AtomicCmpxchg,
    AtomicOr,
    AtomicXchg,
    Load,
    Store,
)
from emulator.hardware.operations.invalidation import (
    EVERYTHING,
    TOUCHES,
    UNTAKEN,
    UPDATES,
    Dsb,
    TakeTranslation,
    Tlbi,
)
from emulator.hardware.operations.table import Operation

Operand = Any
"""A number, a word's name, `("value", handle)`, or a function of operands: `(name, operand, operand)`."""

FUNCTIONS: Final[dict[str, Callable[[int, int], int]]] = {
    "add": add,
    "sub": sub,
    "and": and_,
    "or": or_,
    "xor": xor,
    "mul": mul,
    "shl": lshift,
    "shr": rshift,
    "eq": lambda one, other: int(eq(one, other)),
    "ne": lambda one, other: int(ne(one, other)),
    "lt": lambda one, other: int(lt(one, other)),
    "le": lambda one, other: int(le(one, other)),
    "gt": lambda one, other: int(gt(one, other)),
    "ge": lambda one, other: int(ge(one, other)),
}

_ATOMICS: Final[dict[str, Callable[[str, int], Operation]]] = {
    "swap": AtomicXchg,
    "add": AtomicAdd,
    "or": AtomicOr,
    "and": AtomicAnd,
}
_LOADS: Final = frozenset({"load", *_ATOMICS, "cmpxchg"})
_STORES: Final = frozenset({"store", *_ATOMICS, "cmpxchg", "conditional"})
_SYNCHRONIZE: Final = frozenset({"isb", "dsb"})  # what is younger waits until these are over
EVERY_PAGE: Final = -1
"""What a TLBI of all has in the place of a page number."""
MOST_OUTPUTS: Final = 5
"""An access has at most so many translations to choose from."""
DENIED: Final = MOST_OUTPUTS
"""In the place of a translation's number: a fault of permission, which FEAT_ETS2 leaves where it is."""


class Instruction(NamedTuple):
    """One instruction. `kind`: load, store, swap, add, or, and, cmpxchg, conditional (a store-conditional
    that succeeds), fence, branch; of arm64 isb, tlbi, dsb (that completes TLBIs) and fault, an access whose
    translation faults; read, what is left of a load that older accesses may yet have to be compared with.

    `needs`: handles that its address depends on, if that is `word` whatever they are. `expected`: what
    cmpxchg and conditional must find, which way a branch goes (None: both lead to the same). `into`: the
    handle of its answer. `before`, `after`: what a fence keeps apart, of "r", "w" and "t" (TLBIs; so it is a
    DSB). `ordered`: a load that waits for older ones of its word. `must`: what a younger load of the word
    has seen already. Truth values are 0 and 1. `tag`: is stored above the value, so that stores of the same
    value are told apart. `flags`: it is translated, and how (`descriptors`); `output`: to which page.
    `cpus`: of tlbi and dsb who issues it, and the mask of those that it is for; `value` is the page number.
    `number`: which of its CPU's code it is; of what is left of a load `first` is that of the store that has
    answered it.
    """

    kind: str
    word: Any = ""
    value: Any = 0
    expected: Any = None
    into: int = -1
    needs: tuple[int, ...] = ()
    acquire: int = 0
    release: int = 0
    rcsc: int = 0
    before: str = ""
    after: str = ""
    ordered: int = 0
    must: int | None = None
    tag: int = 0
    flags: int = 0
    output: int | None = None
    cpus: tuple[int, int] = (0, 0)
    number: int = 0
    first: int = -1

    @property
    def reads(self) -> bool:
        """It reads memory."""
        return self.kind in _LOADS

    @property
    def writes(self) -> bool:
        """It writes memory."""
        return self.kind in _STORES

    def is_any_of(self, kinds: str) -> bool:
        """It reads if there is an "r" in `kinds`, writes if there is a "w", is a TLBI if there is a "t"."""
        return (
            ("r" in kinds and self.reads)
            or ("w" in kinds and self.writes)
            or ("t" in kinds and self.kind == "tlbi")
        )


WRONG_WAY: Final = Instruction("wrong way")
"""Stands alone in the window of a CPU that has guessed wrong."""

Values = Mapping[int, int]
"""By handle what was answered, with the tag of the store that it is from."""

_TAG: Final = 1 << 64


def without_tag(stored: int) -> int:
    """The value that a word holds."""
    return (stored + _TAG // 2) % _TAG - _TAG // 2


def evaluated(operand: Operand, values: Values) -> Any:
    """The operand's value; None if it is not there yet."""
    if not isinstance(operand, tuple):
        return operand
    if operand[0] == "value":
        found = values.get(operand[1])
        return found if found is None else without_tag(found)
    one, other = evaluated(operand[1], values), evaluated(operand[2], values)
    return None if one is None or other is None else FUNCTIONS[operand[0]](one, other)


def _word(one: Instruction, values: Values) -> str | None:
    """Which word it is about; None if nobody knows yet."""
    if _walks(one):
        return None
    found = evaluated(one.word, values)
    if found is None or isinstance(found, str):
        return found
    return word_at(found if one.output is None else one.output | found % PAGE)


def _known(one: Instruction, values: Values) -> bool:
    """It is known which word it is about, by all that its address depends on."""
    return _word(one, values) is not None and all(handle in values for handle in one.needs)


def word_at(address: int) -> str:
    """The name of the word at an address that has been computed."""
    return f"[{address:#x}]"


def source(pending: Sequence[Instruction], at: int, values: Values) -> Instruction | None:
    """Of a load: the youngest older store to its word that is still here (the load value axiom)."""
    if pending[at].kind != "load":
        return None
    word = _word(pending[at], values)
    older = [one for one in pending[:at] if one.writes and _word(one, values) == word]
    return older[-1] if older else None


def ready(pending: Sequence[Instruction], at: int, values: Values) -> bool:
    """The instruction at this position may be performed."""
    one = pending[at]
    if one.kind == "dsb":
        older = pending[:at]
        return not any(
            other.kind in _SYNCHRONIZE or other.is_any_of("rwt") or _walks(other) for other in older
        )
    if one.kind == "tlbi":
        return evaluated(one.value, values) is not None and _in_turn(pending, at)
    if one.kind == "fault":
        return (
            one.output is not None and _in_turn(pending, at) and not any(one.acquire for one in pending[:at])
        )
    if not (one.reads or one.writes) or any(handle not in values for handle in one.needs):
        return False
    word = _word(one, values)
    if word is None or evaluated(one.value, values) is None:
        return False
    if one.expected is not None and evaluated(one.expected, values) is None:
        return False
    if not _in_turn(pending, at):
        return False
    if any((other.reads or other.writes) and _before(other, one, word, values) for other in pending[:at]):
        return False
    store = source(pending, at, values)
    # Rule 3, and rule 12: a store hands on what it has, once all is there that it depends on.
    return store is None or (
        store.kind == "store"
        and evaluated(store.value, values) is not None
        and all(handle in values for handle in store.needs)
    )


def _walks(one: Instruction) -> bool:
    """It has yet to be translated."""
    return bool(one.flags) and one.output is None


def _in_turn(pending: Sequence[Instruction], at: int) -> bool:
    """Branches and fences before it let it go ahead."""
    one = pending[at]
    late = one.writes or one.kind == "tlbi"
    for number, other in enumerate(pending[:at]):
        if other.kind == "branch":
            if late:  # rule 11
                return False
        elif other.kind == "fence":
            if (one.kind == "fault" or one.is_any_of(other.after)) and any(
                older.is_any_of(other.before) for older in pending[:number]
            ):
                return False  # rule 4
        elif other.kind in _SYNCHRONIZE:
            return False
    return True


def _before(other: Instruction, one: Instruction, word: str, values: Values) -> bool:
    """Both access memory, the first is older: the second has to wait for it."""
    if other.acquire or one.release or (other.rcsc and one.rcsc):  # rules 5, 6, 7
        return True
    if one.writes and not _known(other, values):  # rule 13
        return True
    its_word = _word(other, values)
    if its_word is None:
        return bool(one.ordered)
    if its_word != word:
        return False
    if one.writes:  # rule 1
        return True
    # Rule 2: of two loads the younger may be first if the older then sees the same.
    return bool(one.ordered) and not other.writes


def translations(pending: Sequence[Instruction], at: int, values: Values) -> Sequence[int]:
    """Which translations the access at this position may take now: numbers, as of TakeTranslation, or
    DENIED."""
    one = pending[at]
    if not _walks(one) or evaluated(one.word, values) is None:
        return ()
    older = pending[:at]
    touches = [TOUCHES] if one.flags & HARDWARE_AF else []
    if any(handle not in values for handle in one.needs) or any(other.kind == "isb" for other in older):
        return touches
    if one.flags & ETS2 and _dsb_before(older):
        return touches
    if one.flags & NEVER:
        if one.flags & ETS2 and any(other.is_any_of("rw") for other in older):
            return [DENIED, *touches] if one.flags & BY_PERMISSION else touches
        return [0, *touches]
    numbers = [*range(MOST_OUTPUTS), *touches]
    if one.flags & (HARDWARE_AF | HARDWARE_DIRTY) and not any(
        other.kind == "branch" or ((other.reads or other.writes) and not _known(other, values))
        for other in older
    ):
        numbers.append(UPDATES)
    return numbers


def _dsb_before(older: Sequence[Instruction]) -> bool:
    """A DSB still waits for something: with FEAT_ETS2 it holds translations as well."""
    return any(
        other.kind == "dsb"
        or (
            other.kind == "fence"
            and "t" in other.after
            and any(one.is_any_of(other.before) for one in older[:number])
        )
        for number, other in enumerate(older)
    )


def asked(pending: Sequence[Instruction], at: int, values: Values) -> Operation | None:
    """What memory is asked when it is performed; None if a store of this CPU's own answers."""
    one = pending[at]
    if one.kind == "fault":
        return None
    if one.kind == "dsb":
        return Dsb(*one.cpus)
    if one.kind == "tlbi":
        page = evaluated(one.value, values)
        return Tlbi(*one.cpus, EVERYTHING if page == EVERY_PAGE else 0, 0, page, page + 1, 1, True)
    word, value = _word(one, values), evaluated(one.value, values)
    assert word is not None
    if one.kind == "load":
        return Load(word) if source(pending, at, values) is None else None
    value += one.tag * _TAG
    if one.kind == "store":
        return Store(word, value)
    if one.kind in _ATOMICS:
        return _ATOMICS[one.kind](word, value)
    return AtomicCmpxchg(word, _expected(one, values), value)


def translated_pages(pending: Sequence[Instruction], values: Values) -> tuple[int, ...]:
    """Numbers of the pages of accesses that an invalidation of these pages has to wait for: those that have
    been translated and not performed, and those behind an access at the same place in its page that has yet
    to be translated (Arm ARM, B2.3: what is older is then translated before the TLBI is completed as well).
    """
    pages = set[int]()
    waiting: list[Instruction] = []
    for one in pending:
        if _walks(one):
            waiting.append(one)
        elif one.output is not None:
            address = one.output if one.kind == "read" else evaluated(one.word, values)
            if one.kind != "read" or any(_same_place(older, address, values) for older in waiting):
                pages.add((address - address % PAGE) >> PAGE_SHIFT)
    return tuple(sorted(pages))


def _same_place(one: Instruction, address: int, values: Values) -> bool:
    """It is, or may be, about the same place in a page."""
    its_address = evaluated(one.word, values)
    return its_address is None or its_address % PAGE == address % PAGE


def asked_to_translate(one: Instruction, number: int, values: Values) -> Operation:
    """What memory is asked when an access takes this one of its translations."""
    address = evaluated(one.word, values)
    flags = one.flags
    if number == DENIED:
        number, flags = 0, flags & ~(BY_TRANSLATION | BY_ACCESS_FLAG)
    return TakeTranslation(word_at(address - address % PAGE + DESCRIPTOR), number, flags)


def translated(pending: list[Instruction], at: int, values: dict[int, int], answer: int) -> list[Instruction]:
    """What is left once the access has been translated. One that faults is still to fault, in its turn."""
    if answer == UNTAKEN:
        return pending
    return settled([*pending[:at], pending[at]._replace(output=answer), *pending[at + 1 :]], values)


def _expected(one: Instruction, values: Values) -> int:
    """What it must find: a store-conditional the very store that its load-reserved has read."""
    if one.kind == "conditional":
        return values[one.expected[1]]
    found: int = evaluated(one.expected, values)
    return found


def performed(pending: list[Instruction], at: int, values: dict[int, int], answer: Any) -> list[Instruction]:
    """What is left once the one at this position has been performed; `values` gets what it answers."""
    one = pending[at]
    store = source(pending, at, values)
    if store is not None:
        answer = evaluated(store.value, values) + store.tag * _TAG
    elif one.kind == "add":
        answer -= evaluated(one.value, values)  # amoadd answers what was there
    if one.must is not None and answer != one.must:
        return _wrong(values)
    if one.expected is not None and answer != _expected(one, values):
        return _wrong(values)
    left = []
    if one.kind == "load":
        first = -1 if store is None else store.number
        address = evaluated(one.word, values) if one.flags else None
        read = Instruction("read", _word(one, values), answer, output=address, number=one.number, first=first)
        left = [read]
    if one.into >= 0:
        values[one.into] = answer if one.reads else 0  # what a store-conditional says of its success
    return settled([*pending[:at], *left, *pending[at + 1 :]], values)


def settled(pending: list[Instruction], values: dict[int, int]) -> list[Instruction]:
    """Without what keeps nothing apart any more, and without branches that go the way that was guessed."""
    left: list[Instruction] = []
    unknown = held = False
    for one in pending:
        if one.kind == "branch":
            outcome = evaluated(one.value, values)
            if outcome is None:
                left.append(one)
                held = True
            elif one.expected is not None and bool(outcome) != bool(one.expected):
                return _wrong(values)
        elif one.kind == "fence":
            if any(older.is_any_of(one.before) for older in left):
                left.append(one)
                held = held or "t" in one.after
        elif one.kind == "isb":
            if held or unknown:
                left.append(one)
                held = True
        elif one.kind == "read":
            if not _compared(left, one, values):
                return _wrong(values)
            if unknown:
                left.append(one)
        else:
            unknown = unknown or _walks(one) or ((one.reads or one.writes) and not _known(one, values))
            held = held or one.kind == "dsb"
            left.append(one)
    return left


def _compared(older: list[Instruction], read: Instruction, values: Values) -> bool:
    """What was read early is what older accesses of the word leave to be read; loads will have to see it."""
    for at, one in enumerate(older):
        if one.number <= read.first or _word(one, values) != read.word:
            continue
        if one.writes or (one.kind == "load" and one.must not in (None, read.value)):
            return False
        if one.kind == "load":
            older[at] = one._replace(must=read.value)
    return True


def _wrong(values: dict[int, int]) -> list[Instruction]:
    values.clear()
    return [WRONG_WAY]
