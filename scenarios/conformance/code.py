"""What the languages of litmus tests are translated to: lines over registers, the same for all.

A `Way` is one way through a thread's branches, as instructions whose operands may be late; `in_order`
runs the lines one after the other, with the operations that kernel code uses here.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

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


Line = Set | Access | Conditional | Goto | Label
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


class _State(NamedTuple):
    at: int
    code: tuple[Instruction, ...]
    registers: dict[str, Operand]
    reserved: Operand  # what the last load-reserved answers
    reserved_at: Operand
    lines: int


def ways(
    thread: Thread, initial: Mapping[str, int], apart: Container[Operand], reserved: Container[Operand]
) -> list[Way]:
    """All ways through a thread. `apart`: words whose values tell the stores to them apart; `reserved`: those
    whose values tell a load-reserved whether anybody has stored since.

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
        ahead += _onwards(thread[state.at], state._replace(lines=state.lines + 1), labels, apart, reserved)
    return found


def _onwards(
    line: Line,
    state: _State,
    labels: Mapping[str, int],
    apart: Container[Operand],
    reserved: Container[Operand],
) -> list[_State]:
    registers = state.registers
    after = state._replace(at=state.at + 1)
    if isinstance(line, Label):
        return [after]
    if isinstance(line, Set):
        return [after._replace(registers={**registers, line.register: _over(line.value, registers)})]
    if isinstance(line, Goto):
        return _branch(line, state, labels)
    one = _with_values(line.what, registers)
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
    load = Instruction("load", one.word, into=handle, needs=one.needs, ordered=one.ordered)
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
    condition = _over(line.condition, state.registers)
    there, here = state._replace(at=labels[line.label]), state._replace(at=state.at + 1)
    if isinstance(condition, int):
        return [there if condition else here]
    if there.at == here.at:
        return [here._replace(code=(*state.code, Instruction("branch", value=condition)))]
    return [
        way._replace(code=(*state.code, Instruction("branch", value=condition, expected=taken)))
        for way, taken in ((here, 0), (there, 1))
    ]


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
        elif isinstance(line, Conditional):
            raise NotTranslatable("lr/sc in order")
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
