"""What the languages of litmus tests are translated to: lines over registers, the same for all.

A `Way` is one way through a thread's branches, as instructions whose operands may be late; `in_order`
runs the lines one after the other, with the operations that kernel code uses here.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from emulator.hardware.descriptors import AT_EL0, FAULTS, NEVER, PAGE, PHYSICAL, TRANSLATED, WRITES
from emulator.hardware.instructions import FUNCTIONS, Instruction, Operand, evaluated, word_at
from emulator.hardware.operations import (
    AtomicAdd,
    AtomicAnd,
    AtomicCmpxchg,
    AtomicOr,
    AtomicXchg,
    EndLoad,
    Idle,
    Issue,
    Load,
    SmpMb,
    SmpRmb,
    SmpWmb,
    Store,
    WaitFor,
)

MOST_WAYS: Final = 64
MOST_LINES: Final = 200
_FENCES: Final = {("rw", "rw"): SmpMb, ("r", "r"): SmpRmb, ("w", "w"): SmpWmb}
_ATOMICS: Final[dict[str, Callable[[str, int], Any]]] = {
    "swap": AtomicXchg,
    "add": AtomicAdd,
    "or": AtomicOr,
    "and": AtomicAnd,
}


class NotTranslatable(ValueError):
    """A test says what the operations here do not have; the text is the reason, the same for its like."""


class Set(NamedTuple):
    """A register gets a value; operands name registers as `("register", name)`."""

    register: str
    value: Operand


class Access(NamedTuple):
    """An instruction, its operands over registers, and the register that gets its answer, if one does."""

    what: Instruction
    register: str = ""


class Conditional(NamedTuple):
    """A store-conditional that is paired with the load-reserved before it: 0 or 1 into the register."""

    what: Instruction
    register: str


class Goto(NamedTuple):
    """On to a label, if the condition is not 0."""

    label: str
    condition: Operand = 1


class Label(NamedTuple):
    """Where a Goto leads."""

    name: str


class Return(NamedTuple):
    """On to the code whose address a register holds, at the exception level in another."""

    address: str
    level: str


Line = Set | Access | Conditional | Goto | Label | Return
Thread = Sequence[Line]


class Way(NamedTuple):
    """`code` as a CPU issues it, and what registers hold at the end: operands over handles."""

    code: tuple[Instruction, ...]
    registers: Mapping[str, Operand]


def folded(operand: Operand) -> Operand:
    """The operand's value where that does not depend on what is read: `xor` of a thing with itself is 0."""
    if not isinstance(operand, tuple) or operand[0] in ("value", "register"):
        return operand
    name, one, other = operand[0], folded(operand[1]), folded(operand[2])
    if isinstance(one, int) and isinstance(other, int):
        return FUNCTIONS[name](one, other)
    if name in ("xor", "sub") and one == other:
        return 0
    if name in ("and", "mul") and 0 in (one, other):
        return 0
    if name in ("add", "or", "xor") and 0 in (one, other):
        return other if one == 0 else one
    return (name, one, other)


def handles_of(operand: Operand) -> Iterator[int]:
    """What it depends on."""
    if isinstance(operand, tuple):
        if operand[0] == "value":
            yield operand[1]
        else:
            for part in operand[1:]:
                yield from handles_of(part)


def _over(operand: Operand, registers: Mapping[str, Operand]) -> Operand:
    """With what registers hold in their place."""
    if not isinstance(operand, tuple):
        return operand
    if operand[0] == "register":
        return registers.get(operand[1], 0)
    return (operand[0], _over(operand[1], registers), _over(operand[2], registers))


class Pages(NamedTuple):
    """How a thread's addresses are translated. `fixed`: physical pages by page, where nothing ever changes
    them; `faulting`: what may happen to an access of another: by (page, it writes) whether it may pass, and
    whether it may fault. `flags`: as of `hardware/descriptors.py`. `names`: of pages, for reports of faults.
    `after`: what a fault leads to: by exception level a label; else `again` once, or the thread is over.
    `kinds`: of faults, where the test asks which.
    """

    fixed: Mapping[int, int]
    faulting: Mapping[tuple[int, bool], tuple[bool, bool]]
    flags: int
    names: Mapping[int, str]
    after: Mapping[int, str]
    again: bool
    kinds: tuple[str, ...] = ()


LEVEL: Final = "EL"
"""The register that says at which exception level a thread is."""
RETURN_TO: Final = "ELR_EL1"
SAVED_LEVEL: Final = "SPSR_EL1"
SYNDROME: Final = "ESR_EL1"
DATA_ABORT: Final = 0x25 << 26
CODE: Final = 0x700000000
"""Where instructions lie, four bytes each; before each stands a label, of its number."""


def place_of(number: int) -> str:
    """The label before instruction `number`."""
    return f".{number}"


def fault_register(label: str, page: str, kind: str = "") -> str:
    """The register that is 1 if the access behind a label (any of the thread's, if that is empty) faults."""
    return f"fault_{label}_{page}_{kind}"


class _State(NamedTuple):
    at: int
    code: tuple[Instruction, ...]
    registers: dict[str, Operand]
    reserved: Operand  # what the last load-reserved answers
    reserved_at: Operand
    lines: int


def ways(
    thread: Thread,
    initial: Mapping[str, int],
    apart: Container[Operand],
    reserved: Container[Operand],
    pages: Pages | None = None,
) -> list[Way]:
    """All ways through a thread. `apart`: words whose values tell the stores to them apart; `reserved`: those
    whose values tell a load-reserved whether anybody has stored since; `pages`: if addresses are translated.

    Raises NotTranslatable for loops and too many branches.
    """
    labels = {line.name: at for at, line in enumerate(thread) if isinstance(line, Label)}
    found: list[Way] = []
    ahead = [_State(0, (), dict(initial), None, None, 0)]
    while ahead:
        state = ahead.pop()
        if state.at == len(thread):
            found.append(Way(state.code, state.registers))
            if len(found) > MOST_WAYS:
                raise NotTranslatable("too many branches")
            continue
        if state.lines > MOST_LINES:
            raise NotTranslatable("a loop")
        state = state._replace(lines=state.lines + 1)
        line = thread[state.at]
        if pages is not None and isinstance(line, Access | Conditional):
            ahead += _faults(line, state, thread, labels, pages)
        ahead += _onwards(line, state, labels, apart, reserved, pages)
    return found


def _onwards(
    line: Line,
    state: _State,
    labels: Mapping[str, int],
    apart: Container[Operand],
    reserved: Container[Operand],
    pages: Pages | None,
) -> list[_State]:
    registers = state.registers
    after = state._replace(at=state.at + 1)
    if isinstance(line, Label):
        return [after]
    if isinstance(line, Set):
        return [after._replace(registers={**registers, line.register: _over(line.value, registers)})]
    if isinstance(line, Goto):
        return _branch(line, state, labels)
    if isinstance(line, Return):
        return [_returned(line, state, labels)]
    one = _with_values(line.what, registers)
    if pages is not None:
        one = _with_pages(one, pages)
        if not _outcomes(one, pages)[0]:
            return []
    one = one._replace(ordered=int(one.word not in apart))
    if isinstance(line, Conditional):
        if state.reserved is None:
            raise NotTranslatable("sc without lr")
        if one.word != state.reserved_at:
            raise NotTranslatable("sc to another word than lr's")
        if one.word not in reserved:
            raise NotTranslatable("lr/sc of a word that is given one value twice")
        fails = after._replace(registers={**registers, line.register: 1})
        handle = _next_handle(state.code)
        one = one._replace(expected=state.reserved, into=handle)
        succeeds = {**registers, line.register: ("value", handle)}
        done = after._replace(code=(*state.code, one), registers=succeeds, reserved=None)
        return [done, fails._replace(reserved=None)]
    if not line.register and not one.reads:
        return [after._replace(code=(*state.code, one))]
    handle = _next_handle(state.code)
    one = one._replace(into=handle)
    register, value = line.register, ("value", handle)
    news = after._replace(registers={**registers, register: value} if register else registers)
    if one.kind == "load" and one.before == "lr":
        one = one._replace(before="")
        news = news._replace(reserved=value, reserved_at=one.word)
    if one.kind != "cmpxchg":
        return [news._replace(code=(*state.code, one))]
    if not register:  # a lock: who finds it taken is not through
        return [news._replace(code=(*state.code, one))]
    # It fails: a load that is ordered by nothing.
    load = Instruction(
        "load",
        one.word,
        into=handle,
        needs=one.needs,
        ordered=one.ordered,
        acquire=one.acquire,
        rcsc=one.rcsc,
        flags=one.flags,
    )
    differs = Instruction("branch", value=("eq", value, one.expected), expected=0)
    return [
        news._replace(code=(*state.code, one)),
        news._replace(code=(*state.code, load, differs)),
    ]


def _next_handle(code: Sequence[Instruction]) -> int:
    return sum(earlier.into >= 0 for earlier in code)


def _branch(line: Goto, state: _State, labels: Mapping[str, int]) -> list[_State]:
    if line.label not in labels:
        raise NotTranslatable(f"a label that is nowhere: {line.label}")
    condition = _settled(_over(line.condition, state.registers))
    there, here = state._replace(at=labels[line.label]), state._replace(at=state.at + 1)
    if isinstance(condition, int):
        return [there if condition else here]
    if there.at == here.at:
        return [here._replace(code=(*state.code, Instruction("branch", value=condition)))]
    return [
        way._replace(code=(*state.code, Instruction("branch", value=condition, expected=taken)))
        for way, taken in ((here, 0), (there, 1))
    ]


def _settled(operand: Operand) -> Operand:
    """The operand's value, if it is computed from nothing that is read."""
    known = isinstance(operand, tuple) and not [*handles_of(operand)]
    return evaluated(operand, {}) if known else operand


def page_of(operand: Operand) -> int | None:
    """The page of an address: what is added to it stays inside. None if that is not known."""
    where = folded(operand)
    if isinstance(where, tuple) and where[0] == "add":
        where = next((part for part in where[1:] if isinstance(part, int)), None)
    return where - where % PAGE if isinstance(where, int) else None


def _with_pages(one: Instruction, pages: Pages) -> Instruction:
    """With the physical address of what is never translated otherwise, or else how it is translated."""
    if not (one.reads or one.writes):
        return one
    address = int(one.word[1:-1], 16) if isinstance(one.word, str) else one.word
    page = page_of(address)
    if page is None:
        raise NotTranslatable("an address that is read from memory")
    if page >= PHYSICAL:
        if pages.flags & AT_EL0:
            raise NotTranslatable("descriptors at EL0")
        return one
    if page in pages.fixed:
        physical = folded(("add", pages.fixed[page] - page, address))
        return one._replace(word=word_at(physical) if isinstance(physical, int) else physical)
    if page not in pages.names:
        raise NotTranslatable("an address of nothing that has a name")
    return one._replace(word=address, flags=TRANSLATED | pages.flags | (WRITES if one.writes else 0))


def _outcomes(one: Instruction, pages: Pages) -> tuple[bool, bool]:
    """Whether an access may pass, and whether it may fault."""
    if not one.flags:
        return True, False
    page = page_of(one.word)
    assert page is not None
    return pages.faulting[page, one.writes]


def _faults(
    line: Access | Conditional, state: _State, thread: Thread, labels: Mapping[str, int], pages: Pages
) -> list[_State]:
    """What follows if the translation of this access faults; nothing if it cannot."""
    one = _with_pages(_with_values(line.what, state.registers), pages)
    if not _outcomes(one, pages)[1]:
        return []
    page = page_of(one.word)
    assert page is not None
    every = sum(FAULTS.values())
    choices = [(kind, FAULTS[kind]) for kind in pages.kinds] or [("", every)]
    found: list[_State] = []
    for kind, bits in choices:
        registers = dict(state.registers)
        for label in ("", *_names_before(thread, state.at)):
            for known in {"", kind}:
                registers[fault_register(label, pages.names[page], known)] = 1
        fault = Instruction("fault", one.word, needs=one.needs, flags=one.flags | NEVER | bits)
        after = state._replace(code=(*state.code, fault), registers=registers)
        found += _faulted(line, after, thread, labels, pages)
    return found


def _faulted(
    line: Access | Conditional, after: _State, thread: Thread, labels: Mapping[str, int], pages: Pages
) -> list[_State]:
    """What follows the fault of this access, which has been issued."""
    registers = after.registers
    level = registers.get(LEVEL, 0)
    assert isinstance(level, int)
    code = (*after.code, Instruction("isb"))
    if level in pages.after:
        number = next(int(name[1:]) for name in _names_before(thread, after.at) if name[1:].isdigit())
        entered = {RETURN_TO: CODE + 4 * number, SAVED_LEVEL: level, SYNDROME: DATA_ABORT, LEVEL: 1}
        return [after._replace(code=code, registers={**registers, **entered}, at=labels[pages.after[level]])]
    if not pages.again:
        return [after._replace(at=len(thread))]
    # As herd does: what faults a second time is no run.
    return _onwards(line, after._replace(code=code), labels, (), (), pages)


def _names_before(thread: Thread, at: int) -> Iterator[str]:
    while at > 0 and isinstance(label := thread[at - 1], Label):
        yield label.name
        at -= 1


def _returned(line: Return, state: _State, labels: Mapping[str, int]) -> _State:
    address = _settled(state.registers.get(line.address))
    level = _settled(state.registers.get(line.level, 0))
    if not isinstance(address, int) or not isinstance(level, int):
        raise NotTranslatable("a return to an address that is not known")
    name = place_of((address - CODE) // 4)
    if name not in labels:
        raise NotTranslatable("a return to where there is no code")
    code = (*state.code, Instruction("isb"))
    return state._replace(code=code, at=labels[name], registers={**state.registers, LEVEL: level})


def _with_values(one: Instruction, registers: Mapping[str, Operand]) -> Instruction:
    address = _over(one.word, registers)
    where = folded(address)
    return one._replace(
        word=word_at(where) if isinstance(where, int) else where,
        needs=tuple(sorted(set(handles_of(address)))),
        value=_over(one.value, registers),
        expected=_over(one.expected, registers),
    )


def trimmed(way: Way, wanted: Sequence[str]) -> Way:
    """Without registers that nobody asks for, and without answers that nobody uses."""
    registers = {name: way.registers.get(name, 0) for name in wanted}
    used = set[int]()
    for one in way.code:
        used |= {*one.needs, *handles_of(one.word), *handles_of(one.value), *handles_of(one.expected)}
    for operand in registers.values():
        used |= set(handles_of(operand))
    code = tuple([one if one.into in used else one._replace(into=-1) for one in way.code])
    return Way(code, registers)


Finals = tuple[tuple[str, Operand], ...]
"""The words that get what registers hold at the end, and what that is."""


async def late(code: tuple[Instruction, ...], handles: tuple[int, ...], finals: Finals) -> None:
    """All at once into the window; then what the registers hold goes to words."""
    if code:
        await Issue(code)
        code = ()
        await SmpMb()
    values = {}
    for handle in handles:
        values[handle] = await EndLoad(handle)
    for word, operand in finals:
        await AtomicXchg(word, evaluated(operand, values))
    await Idle()


async def in_order(thread: Thread, initial: Mapping[str, int], names: Mapping[str, str]) -> None:
    """Line by line, each answer before the next."""
    registers: dict[str, int] = dict(initial)
    labels = {line.name: at for at, line in enumerate(thread) if isinstance(line, Label)}
    at = 0
    while at < len(thread):
        line = thread[at]
        at += 1
        if isinstance(line, Set):
            registers[line.register] = evaluated(_over(line.value, registers), {})
        elif isinstance(line, Goto):
            if evaluated(_over(line.condition, registers), {}):
                at = labels[line.label]
        elif isinstance(line, Access):
            answer = await _carried_out(line.what, registers)
            while line.what.kind == "cmpxchg" and not line.register and answer:
                # A lock that somebody has.
                await WaitFor(word_at(evaluated(_over(line.what.word, registers), {})), 0)
                answer = await _carried_out(line.what, registers)
            if line.register:
                registers[line.register] = answer
        elif isinstance(line, Conditional | Return):
            raise NotTranslatable("lr/sc, or exceptions, in order")
    for register in list(names):
        await AtomicXchg(names[register], registers.get(register, 0))
    await Idle()


async def _carried_out(one: Instruction, registers: Mapping[str, int]) -> int:
    value = evaluated(_over(one.value, registers), {})
    if one.kind == "fence":
        keeps = _FENCES.get((one.before, one.after))
        if keeps is None and "w" in one.before and "r" in one.after:
            keeps = SmpMb
        if keeps is not None:
            await keeps()
        return 0
    word = word_at(evaluated(_over(one.word, registers), {}))
    if one.kind == "load":
        return await Load(word)
    if one.kind == "store":
        await Store(word, value)
        return 0
    if one.kind == "cmpxchg":
        return await AtomicCmpxchg(word, evaluated(_over(one.expected, registers), {}), value)
    answer: int = await _ATOMICS[one.kind](word, value)
    return answer - value if one.kind == "add" else answer
