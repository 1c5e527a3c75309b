"""A suspended program as a plain value: equal values go on alike, given the same answers.

A coroutine cannot be copied, but CPython shows all that it is: the position in its code, its local
variables, its evaluation stack (the garbage collector has to be told of that one) and the coroutine it
awaits. Objects reachable from there are read field by field. What cannot be read with certainty makes
the whole `Unreadable`; a search then takes the state for a new one, which costs time and nothing else.
"""

from __future__ import annotations

import gc
from collections import deque
from enum import Enum
from types import (
    BuiltinFunctionType,
    BuiltinMethodType,
    CellType,
    CodeType,
    CoroutineType,
    FunctionType,
    GeneratorType,
    MethodType,
    ModuleType,
)
from typing import Any

from emulator.hardware.cpu import Cpu
from emulator.kernel.percpu import KernelParameters, PerCpu

# Counters that nothing reads back: two runs that differ in them only go on alike.
_WRITE_ONLY: dict[type[Any], frozenset[str]] = {
    PerCpu: frozenset({"vmstat", "tlb_interrupts", "sampled_hits"}),
}
_ATOMS = (int, str, bytes, float, bool, type(None), complex, Enum)
_CONSTANTS = (type, ModuleType, CodeType, BuiltinFunctionType, BuiltinMethodType)
_ITERATORS: tuple[type[Any], ...] = (
    type(iter([])),
    type(iter(())),
    type(iter(range(0))),
    type(iter({})),
    type(iter({}.values())),
    type(iter({}.items())),
    type(iter(set())),
    type(iter("")),
    type(iter(deque())),
    type(reversed([])),
    zip,
    enumerate,
    map,
    filter,
    range,
    slice,
)


class Unreadable(Exception):
    """Something that a program holds on to cannot be read field by field; the message names its type."""


def fingerprint(cpu: Cpu, kernel: PerCpu) -> Any:
    """One CPU with all its programs and private state, as a hashable value."""
    reader = _Reader()
    frames = tuple(
        [
            (
                frame.irqs,
                reader.read(frame.operation),
                frame.begun,
                None if frame.series is None else reader.read(frame.series),
                reader.read(frame.answers),
                cpu.interrupts_taken > frame.interrupts_before,
                reader.read(frame.program),
            )
            for frame in cpu.frames
        ]
    )
    window = cpu.window
    return (
        frames,
        cpu.mm,
        cpu.pcid,
        cpu.irqs,
        cpu.tlb.state(),
        tuple([(type(effect), effect) for effect in window.pending]),
        frozenset(window.values.items()),
        reader.read(kernel),
    )


class _Reader:
    """Reads values depth first; a second way to the same object is a number, so that sharing counts."""

    __slots__ = ("_kept", "_seen")

    def __init__(self) -> None:
        self._seen: dict[int, int] = {}
        # Iterators are read through copies that must not be freed while their identity stands in `_seen`.
        self._kept: list[Any] = []

    def read(self, value: Any) -> Any:
        kind = type(value)
        if kind in _QUICK:
            return value
        if isinstance(value, _ATOMS):
            return (kind, value)
        if isinstance(value, tuple):
            return (kind, *[self.read(item) for item in value])
        if isinstance(value, _CONSTANTS):
            return ("constant", id(value))
        if kind is KernelParameters:
            return value
        number = self._seen.get(id(value))
        if number is not None:
            return ("again", number)
        self._seen[id(value)] = len(self._seen)
        if kind is list or kind is deque:
            return (kind, *[self.read(item) for item in value])
        if kind is dict:
            return (kind, *[(self.read(key), self.read(item)) for key, item in value.items()])
        if kind is set or kind is frozenset:
            return (kind, frozenset([self.read(item) for item in value]))
        if kind is CoroutineType:
            return self._suspended(value, value.cr_code, value.cr_frame, value.cr_running)
        if kind is GeneratorType:
            return self._suspended(value, value.gi_code, value.gi_frame, value.gi_running)
        if kind is MethodType:
            return ("method", self.read(value.__func__), self.read(value.__self__))
        if kind is FunctionType:
            return ("function", id(value.__code__), self._cells(value), self.read(value.__defaults__))
        if kind is CellType:
            return ("cell", self._cell(value))
        if kind in _ITERATORS:
            reduced = value.__reduce__()
            self._kept.append(reduced)
            return (kind, self.read(reduced[1:]))
        return self._object(kind, value)

    def _cells(self, function: FunctionType) -> Any:
        return tuple([self.read(cell) for cell in function.__closure__ or ()])

    def _cell(self, cell: CellType) -> Any:
        try:
            return self.read(cell.cell_contents)
        except ValueError:
            return "empty"

    def _suspended(self, value: Any, code: CodeType, frame: Any, running: bool) -> Any:
        if frame is None:
            return ("ended", id(code))
        if running:
            raise Unreadable(f"running {value.__qualname__}")
        names = frame.f_locals
        passed_over = [code, code, value.__name__, value.__qualname__, frame, names]
        held = []
        for referent in gc.get_referents(value):
            for at, other in enumerate(passed_over):
                if referent is other:
                    del passed_over[at]
                    break
            else:
                if type(referent) is not FunctionType or referent.__code__ is not code:
                    held.append(self.read(referent))
        return ("suspended", id(code), frame.f_lasti, tuple(sorted(names)), *held)

    def _object(self, kind: type[Any], value: Any) -> Any:
        if kind.__module__ == "builtins" or kind.__flags__ & _IMMUTABLE_TYPE:
            # An object of the interpreter or of a C library: what it holds is not in its fields.
            raise Unreadable(f"{kind.__module__}.{kind.__qualname__}")
        left_out = _WRITE_ONLY.get(kind, frozenset())
        fields = _SLOTS.get(kind)
        if fields is None:
            fields = _SLOTS[kind] = tuple(
                name
                for base in kind.__mro__
                for name in _names(base.__dict__.get("__slots__", ()))
                if name not in ("__dict__", "__weakref__")
            )
        found: list[Any] = [kind]
        for name in fields:
            if name not in left_out and hasattr(value, name):
                found.append((name, self.read(getattr(value, name))))
        for name, item in getattr(value, "__dict__", {}).items():
            if name not in left_out:
                found.append((name, self.read(item)))
        return tuple(found)


def _names(slots: Any) -> tuple[str, ...]:
    return (slots,) if isinstance(slots, str) else tuple(slots)


_QUICK = frozenset({int, str, bytes, bool, type(None)})
_SLOTS: dict[type[Any], tuple[str, ...]] = {}
_IMMUTABLE_TYPE = 1 << 8  # Py_TPFLAGS_IMMUTABLETYPE (Include/object.h): made in C
