"""What a suspended coroutine or generator holds that it may still read.

A local variable that no way on reads before it is written (a *dead* one) decides nothing, and would keep
equal states apart. Live variables: Aho, Lam, Sethi, Ullman, "Compilers" (2007), 9.2.5; left out of states:
Holzmann, "The engineering of a model checker: the Gnu i-protocol case study revisited" (SPIN 1999). No
program can ask for them by other ways (`outside`).
"""

from __future__ import annotations

import dis
import gc
from functools import cache
from operator import is_
from types import CodeType
from typing import Any, Final

_READS: Final = frozenset({"LOAD_FAST", "LOAD_FAST_CHECK", "DELETE_FAST"})  # the last fails without a value
_WRITES: Final = frozenset({"STORE_FAST"})
_ENDS: Final = frozenset({"RETURN_VALUE", "RETURN_CONST", "RAISE_VARARGS", "RERAISE"})
_GOES_ELSEWHERE: Final = frozenset(
    {"JUMP_FORWARD", "JUMP_BACKWARD", "JUMP_BACKWARD_NO_INTERRUPT", "JUMP_ABSOLUTE"}
)
_ATOMS: Final = frozenset({int, str, bytes, bool, float, type(None)})
_NOBODY: Final[frozenset[str]] = frozenset()


def held(value: Any, code: CodeType, frame: Any, names: dict[str, Any]) -> tuple[tuple[str, ...], list[Any]]:
    """The names that are bound, and locals and evaluation stack: all it refers to but itself, and but for
    what it will never read."""
    found = gc.get_referents(value)
    own = (code, value.__name__, value.__qualname__, frame, names)
    # In this order where frames are as in CPython 3.11 (gen_traverse, _PyFrame_Traverse).
    if all(map(is_, found, own)) and len(found) > 6 and found[6] is code:
        del found[:7]  # with the function
        dead = _dead(code).get(frame.f_lasti, _NOBODY)
        return (tuple(sorted(names)), found) if dead.isdisjoint(names) else _alive(found, code, names, dead)
    for other in (*own, code):
        for at, referent in enumerate(found):
            if referent is other:
                del found[at]
                break
    return tuple(sorted(names)), found


def _alive(
    found: list[Any], code: CodeType, names: dict[str, Any], dead: frozenset[str]
) -> tuple[tuple[str, ...], list[Any]]:
    """The same without what is dead, if it is plain. Locals come first, in the order of `co_varnames`."""
    kept = []
    left_out = set()
    at = 0
    for name in code.co_varnames:
        if name in code.co_cellvars:
            kept.append(found[at])
        elif name not in names:
            continue
        elif found[at] is not names[name]:
            return tuple(sorted(names)), found
        elif name in dead and _is_plain(found[at]):
            left_out.add(name)
        else:
            kept.append(found[at])
        at += 1
    return tuple(sorted(names.keys() - left_out)), kept + found[at:]


def _is_plain(value: Any) -> bool:
    """Nothing happens when it is dropped: no program's own code runs."""
    kind = type(value)
    if kind in _ATOMS:
        return True
    if kind is list:
        return all(type(one) in _ATOMS for one in value)
    quiet = isinstance(value, tuple) and not kind.__dictoffset__ and not hasattr(kind, "__del__")
    return quiet and all(map(_is_plain, value))


@cache
def _dead(code: CodeType) -> dict[int, frozenset[str]]:
    """The dead variables before each instruction, by its offset; nothing if it is not known how it reads."""
    entries = dis.Bytecode(code).exception_entries  # type: ignore[attr-defined]
    steps = list(dis.get_instructions(code))
    follow: dict[int, list[int]] = {}
    reads: dict[int, frozenset[str]] = {}
    writes: dict[int, frozenset[str]] = {}
    for step, following in zip(steps, [*steps[1:], None], strict=True):
        at, name = step.offset, step.opname
        if step.opcode in dis.haslocal and name not in _READS | _WRITES:
            return {}
        variable = frozenset({step.argval}) if step.opcode in dis.haslocal else frozenset()
        reads[at] = variable if name in _READS else frozenset()
        writes[at] = variable if name in _WRITES else frozenset()
        onwards = []
        if step.opcode in dis.hasjrel or step.opcode in dis.hasjabs:
            onwards.append(step.argval)
        if following is not None and name not in _ENDS | _GOES_ELSEWHERE:
            onwards.append(following.offset)
        follow[at] = onwards
    live = dict(reads)
    moving = True
    while moving:
        moving = False
        for at in reversed(follow):
            now = frozenset().union(*[live[onward] for onward in follow[at]])
            now = (now - writes[at]) | reads[at]
            # What handles an exception may find it as it was before.
            now = now.union(*[live[entry.target] for entry in entries if entry.start <= at < entry.end])
            if now != live[at]:
                live[at] = now
                moving = True
    plain = frozenset(code.co_varnames).difference(code.co_cellvars)
    if "__class__" in code.co_freevars:
        plain -= {code.co_varnames[0]}  # `super()` looks it up in the frame
    return {at: plain - names for at, names in live.items()}
