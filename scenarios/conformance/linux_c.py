"""Linux' C as its memory model's tests have it, with what riscv's kernel makes of each primitive.

Barriers and atomics are arch/riscv/include/asm/{barrier,atomic,cmpxchg}.h and asm-generic/spinlock.h of v6.6;
where only stores wait (x86), or nothing (sc), the same lines are carried out with that architecture's.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from emulator.hardware.instructions import Instruction, Operand
from scenarios.conformance.code import Access, Goto, Label, Line, NotTranslatable, Set, Thread
from scenarios.conformance.herd_text import grammar

_SIGNS: Final = {
    "&": "and", "|": "or", "^": "xor", "==": "eq", "!=": "ne", "<": "lt", "<=": "le",
    ">": "gt", ">=": "ge", "+": "add", "-": "sub", "*": "mul",
}  # fmt: skip
_FULL: Final = Access(Instruction("fence", before="rw", after="rw"))
_ACQUIRES: Final = Access(Instruction("fence", before="r", after="rw"))
_RELEASES: Final = Access(Instruction("fence", before="rw", after="w"))
_FENCES: Final = {
    "smp_mb": _FULL,
    "smp_rmb": Access(Instruction("fence", before="r", after="r")),
    "smp_wmb": Access(Instruction("fence", before="w", after="w")),
    "smp_mb__before_atomic": _FULL,
    "smp_mb__after_atomic": _FULL,
    "smp_mb__after_spinlock": _FULL,
    "smp_mb__after_unlock_lock": _FULL,
    "smp_mb__before_spinlock": _FULL,
    "smp_acquire__after_ctrl_dep": _ACQUIRES,
    "barrier": None,
}
_LOADS: Final = {
    "READ_ONCE",
    "smp_read_barrier_depends",
    "rcu_dereference",
    "lockless_dereference",
    "atomic_read",
}
_READ_MODIFY_WRITE: Final = re.compile(
    r"(?:atomic_)?(?P<fetch>fetch_)?(?P<name>xchg|cmpxchg|add|sub|inc|dec|or|and)"
    r"(?P<returns>_return|_and_test)?(?P<order>_relaxed|_acquire|_release)?"
)


def threads(text: str, addresses: Mapping[str, int]) -> list[Thread]:
    """The functions' code. Raises NotTranslatable."""
    from lark.exceptions import LarkError

    try:
        tree = grammar("linux_c.lark").parse(text)
    except LarkError:
        raise NotTranslatable("C in another form") from None
    if re.search(r"\b(synchronize_(s?rcu|rcu_expedited)|call_rcu|srcu_\w+)\b", text):
        raise NotTranslatable("RCU's grace periods")
    return [_Function(one, addresses).lines for one in tree.children]


class _Arguments(tuple[Any, ...]):
    """Of a call. Raises NotTranslatable where one is missing."""

    def __getitem__(self, index: Any) -> Any:
        if index >= len(self):
            raise NotTranslatable("C in another form")
        return super().__getitem__(index)


class _Function:
    """One thread's lines."""

    def __init__(self, tree: Any, addresses: Mapping[str, int]) -> None:
        self.lines: list[Line] = []
        self._labels = 0
        self._temporaries = 0
        self._addresses = addresses
        self._words: set[str] = set()
        self._locals: set[str] = set()
        for part in tree.children:
            if part is None or isinstance(part, str):
                continue
            if part.data == "parameter":
                self._words.add(str(part.children[-1]))
            elif part.data == "block":
                self._statement(part)

    def _temporary(self) -> str:
        self._temporaries += 1
        return f"${self._temporaries}"

    def _label(self) -> str:
        self._labels += 1
        return f"L{self._labels}"

    def _statement(self, tree: Any) -> None:
        kind = tree.data
        if kind == "block":
            for child in tree.children:
                self._statement(child)
        elif kind == "declaration":
            for declared in tree.children:
                if isinstance(declared, str):
                    continue
                name, *value = declared.children
                self._locals.add(str(name))
                if value and value[0] is not None:
                    self.lines.append(Set(str(name), self._value(value[0])))
        elif kind == "assignment":
            self._assign(*tree.children)
        elif kind == "alone":
            self._value(tree.children[0], used=False)
        elif kind == "choice":
            self._choose(tree)
        elif kind == "loop":
            raise NotTranslatable("a loop")

    def _assign(self, target: Any, expression: Any) -> None:
        value = self._value(expression)
        if target.data == "pointed":
            self.lines.append(Access(Instruction("store", self._value(target.children[0]), value)))
            return
        name = str(target.children[0])
        if name in self._words and name not in self._locals:
            raise NotTranslatable("an assignment to a parameter")
        self.lines.append(Set(name, value))

    def _choose(self, tree: Any) -> None:
        condition, then, *other = tree.children
        value = self._value(condition)
        otherwise, end = self._label(), self._label()
        self.lines.append(Goto(otherwise, ("eq", value, 0)))
        self._statement(then)
        if other and other[0] is not None:
            self.lines.append(Goto(end))
            self.lines.append(Label(otherwise))
            self._statement(other[0])
            self.lines.append(Label(end))
        else:
            self.lines.append(Label(otherwise))

    def _value(self, tree: Any, used: bool = True) -> Operand:
        kind = tree.data
        children = tree.children
        if kind == "number":
            return int(children[0].rstrip("uUlL"), 0)
        if kind == "variable":
            return self._variable(str(children[0]))
        if kind == "operation":
            return (_SIGNS[str(children[1])], self._value(children[0]), self._value(children[2]))
        if kind == "negated":
            return ("eq", self._value(children[0]), 0)
        if kind == "negative":
            return ("sub", 0, self._value(children[0]))
        if kind == "cast":
            return self._value(children[-1])
        if kind in ("both", "either"):
            one, other = (("ne", self._value(child), 0) for child in children)
            return ("and" if kind == "both" else "or", one, other)
        if kind == "pointed":
            return self._load(self._value(children[0]))
        if kind == "address":
            inner = children[0]
            if inner.data == "pointed":
                return self._value(inner.children[0])
            return self._value(inner)
        if kind == "call":
            given = _Arguments(child for child in children[1:] if child is not None)
            return self._call(str(children[0]), given, used)
        raise NotTranslatable(f"the expression {kind}")

    def _variable(self, name: str) -> Operand:
        if name in self._locals or name not in self._addresses:
            return ("register", name)
        return self._addresses[name]

    def _load(self, address: Operand) -> Operand:
        register = self._temporary()
        self.lines.append(Access(Instruction("load", address), register))
        return ("register", register)

    def _call(self, name: str, arguments: _Arguments, used: bool) -> Operand:
        lines = self.lines
        if name in _FENCES:
            fence = _FENCES[name]
            if fence is not None:
                lines.append(fence)
            return 0
        if name in ("rcu_read_lock", "rcu_read_unlock"):
            return 0
        if name == "READ_ONCE" or (name in _LOADS and arguments):
            return self._load(self._place(arguments[0]))
        if name in ("smp_load_acquire", "atomic_read_acquire"):
            value = self._load(self._place(arguments[0]))
            lines.append(_ACQUIRES)
            return value
        if name in (
            "WRITE_ONCE",
            "atomic_set",
            "smp_store_release",
            "rcu_assign_pointer",
            "atomic_set_release",
            "smp_store_mb",
        ):
            place, value = self._place(arguments[0]), self._value(arguments[1])
            if name in ("smp_store_release", "rcu_assign_pointer", "atomic_set_release"):
                lines.append(_RELEASES)
            lines.append(Access(Instruction("store", place, value)))
            if name == "smp_store_mb":
                lines.append(_FULL)
            return 0
        if name == "spin_lock":
            # asm-generic's ticket lock: atomic_fetch_add, which is fully ordered.
            place = self._place(arguments[0])
            lines.append(Access(Instruction("cmpxchg", place, 1, 0, acquire=1, release=1, rcsc=1)))
            return 0
        if name == "spin_unlock":
            lines.append(_RELEASES)
            lines.append(Access(Instruction("store", self._place(arguments[0]), 0)))
            return 0
        return self._read_modify_write(name, arguments, used)

    def _place(self, tree: Any) -> Operand:
        """The address of `*x`, or the address x."""
        if tree.data == "pointed":
            return self._value(tree.children[0])
        return self._value(tree)

    def _read_modify_write(self, name: str, arguments: _Arguments, used: bool) -> Operand:
        found = _READ_MODIFY_WRITE.fullmatch(name)
        if found is None or (found["name"] not in ("xchg", "cmpxchg") and not name.startswith("atomic_")):
            raise NotTranslatable(f"the primitive {name}")
        what, order = found["name"], found["order"] or ""
        answers = found["fetch"] or found["returns"] or what in ("xchg", "cmpxchg")
        full = int(bool(answers) and not order)
        marks: dict[str, Any] = {"acquire": full, "release": full, "rcsc": full}
        register = self._temporary()
        if what == "xchg":
            one = Instruction("swap", self._place(arguments[0]), self._value(arguments[1]), **marks)
        elif what == "cmpxchg":
            place, old, new = self._place(arguments[0]), self._value(arguments[1]), self._value(arguments[2])
            one = Instruction("cmpxchg", place, new, old, **marks)
        else:
            if what in ("inc", "dec"):
                delta: Operand = 1 if what == "inc" else -1
                place = self._place(arguments[0])
            else:
                delta, place = self._value(arguments[0]), self._place(arguments[1])
                delta = ("sub", 0, delta) if what == "sub" else delta
            one = Instruction(what if what in ("or", "and") else "add", place, delta, **marks)
        if order == "_release":
            self.lines.append(_RELEASES)
        self.lines.append(Access(one, register))
        if order == "_acquire":
            self.lines.append(_ACQUIRES)
        value: Operand = ("register", register)
        if found["returns"] and what not in ("or", "and"):
            value = ("add", value, one.value)
        return ("eq", value, 0) if found["returns"] == "_and_test" else value
