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

from emulator.hardware.operations.coordination import (
    AtomicAdd,
    AtomicAnd,
    AtomicCmpxchg,
    AtomicOr,
    AtomicXchg,
    Load,
    Store,
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


class Instruction(NamedTuple):
    """One instruction. `kind`: load, store, swap, add, or, and, cmpxchg, conditional (a store-conditional
    that succeeds), fence, branch.

    `needs`: handles that its address depends on, if that is `word` whatever they are. `expected`: what
    cmpxchg and conditional must find, which way a branch goes (None: both lead to the same). `into`: the
    handle of its answer. `before`, `after`: what a fence keeps apart, of "r" and "w". `ordered`: a load
    that waits for older ones of its word. `must`: what a younger load of the word has seen already. Truth
    values are 0 and 1. `tag`: is stored above the value, so that stores of the same value are told apart.
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

    @property
    def reads(self) -> bool:
        """It reads memory."""
        return self.kind in _LOADS

    @property
    def writes(self) -> bool:
        """It writes memory."""
        return self.kind in _STORES

    def is_any_of(self, kinds: str) -> bool:
        """It reads if there is an "r" in `kinds`, or writes if there is a "w"."""
        return ("r" in kinds and self.reads) or ("w" in kinds and self.writes)


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
    found = evaluated(one.word, values)
    return found if found is None or isinstance(found, str) else word_at(found)


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
    if not (one.reads or one.writes) or any(handle not in values for handle in one.needs):
        return False
    word = _word(one, values)
    if word is None or evaluated(one.value, values) is None:
        return False
    if one.expected is not None and evaluated(one.expected, values) is None:
        return False
    for number, other in enumerate(pending[:at]):
        if other.kind == "branch":
            if one.writes:  # rule 11
                return False
        elif other.kind == "fence":
            if one.is_any_of(other.after) and any(
                older.is_any_of(other.before) for older in pending[:number]
            ):
                return False  # rule 4
        elif _before(other, one, word, values):
            return False
    store = source(pending, at, values)
    # Rule 3, and rule 12: a store hands on what it has, once all is there that it depends on.
    return store is None or (
        store.kind == "store"
        and evaluated(store.value, values) is not None
        and all(handle in values for handle in store.needs)
    )


def _before(other: Instruction, one: Instruction, word: str, values: Values) -> bool:
    """Both access memory, the first is older: the second has to wait for it."""
    if other.acquire or one.release or (other.rcsc and one.rcsc):  # rules 5, 6, 7
        return True
    its_word = _word(other, values)
    known = its_word is not None and all(handle in values for handle in other.needs)
    if its_word is None or (one.writes and not known):  # rule 13
        return True
    if its_word != word:
        return False
    if one.writes:  # rule 1
        return True
    # Rule 2: of two loads the younger may be first if the older then sees the same.
    return bool(one.ordered) and not other.writes


def asked(pending: Sequence[Instruction], at: int, values: Values) -> Operation | None:
    """What memory is asked when it is performed; None if a store of this CPU's own answers."""
    one = pending[at]
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
    left = pending[:at] + pending[at + 1 :]
    if one.kind == "load":
        word = _word(one, values)
        first = 0 if store is None else pending.index(store)
        for number in range(first, at):
            older = left[number]
            if older.kind == "load" and _word(older, values) == word:
                if older.must not in (None, answer):
                    return _wrong(values)
                left[number] = older._replace(must=answer)
    if one.into >= 0:
        values[one.into] = answer if one.reads else 0  # what a store-conditional says of its success
    return settled(left, values)


def settled(pending: list[Instruction], values: dict[int, int]) -> list[Instruction]:
    """Without fences that keep nothing apart any more, and branches that go the way that was guessed."""
    left: list[Instruction] = []
    for one in pending:
        if one.kind == "branch":
            outcome = evaluated(one.value, values)
            if outcome is None:
                left.append(one)
            elif one.expected is not None and bool(outcome) != bool(one.expected):
                return _wrong(values)
        elif one.kind != "fence" or any(older.is_any_of(one.before) for older in left):
            left.append(one)
    return left


def _wrong(values: dict[int, int]) -> list[Instruction]:
    values.clear()
    return [WRONG_WAY]
