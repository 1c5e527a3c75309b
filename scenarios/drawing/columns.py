"""An interleaving as kernel comments draw it: one column per CPU, one line per step, time running down.

The schedule is replayed on the plain engine, and what every step did is put into words. Away from a
terminal it is plain text that can be pasted into mail, no wider than asked for.
"""

from __future__ import annotations

import io
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, NotRequired

from rich.console import Console
from rich.table import Table
from rich.text import Text
from typing_extensions import TypedDict

from emulator.hardware.cpu import Cpu, Kind, Transition
from emulator.hardware.operations import BeginLoad, EndLoad, Operation, Translate
from emulator.machine.litmus import LitmusMachine
from emulator.machine.progress import broken_by_program
from emulator.machine.stepper import plain_engine
from scenarios.drawing.held import Held, functions, stale
from scenarios.drawing.phrases import said, taken

DEFAULT_WIDTH: Final = 100


class Step(TypedDict):
    """One line of the drawing, as `--json` has it; steps count from 1. `functions`: where it is, if asked."""

    step: int
    cpu: int
    kind: str
    text: str
    functions: NotRequired[list[str]]


@dataclass(frozen=True, slots=True)
class Drawing:
    """The lines of one interleaving; `rule` broke at the last one (empty: none), on CPU `cpu` (-1: none).
    `stale`: what TLBs hold then that page tables no longer say, if that was asked."""

    cpus: int
    steps: tuple[Step, ...]
    rule: str = ""
    cpu: int = -1
    stale: tuple[Held, ...] = ()

    def broken(self, rule: str, cpu: int) -> Drawing:
        """The same, its end marked with a rule."""
        return replace(self, rule=rule, cpu=cpu)

    def since(self, number: int) -> Drawing:
        """The same from behind step `number` on."""
        return replace(self, steps=tuple(step for step in self.steps if step["step"] > number))

    def text(self, width: int = DEFAULT_WIDTH) -> str:
        """One column per CPU, within `width` characters: longer words go on in the next line."""
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=True, header_style="")
        table.add_column("", justify="right", no_wrap=True)
        for number in range(self.cpus):
            table.add_column(f"CPU {number}", overflow="fold")
        inside: dict[int, list[str]] = {}
        for step in self.steps:
            path = step.get("functions")
            if path is not None and path != inside.get(step["cpu"]):
                inside[step["cpu"]] = path
                table.add_row("", *self._cells(step["cpu"], f"{path[-1]}:" if path else ""))
            table.add_row(str(step["step"]), *self._cells(step["cpu"], step["text"]))
        if self.rule:
            table.add_row("", *self._cells(max(self.cpu, 0), f"^^^ {self.rule}"))
        page = io.StringIO()
        Console(file=page, width=width, color_system=None, legacy_windows=False).print(table)
        return "\n".join(line.rstrip() for line in page.getvalue().splitlines())

    def _cells(self, cpu: int, text: str) -> list[Text]:
        return [Text(text if number == cpu else "") for number in range(self.cpus)]


class Tail:
    """Watches an engine and keeps its last transitions (all without a `length`), to be put into words only
    if somebody asks."""

    def __init__(self, cpus: Sequence[Cpu], length: int | None = None, explain: bool = False) -> None:
        self.cpus = cpus
        self._kept: deque[tuple[int, Transition, int, Operation | None, bool, Any]] = deque(maxlen=length)
        self._inside: list[tuple[str, ...]] | None = [] if explain else None  # of steps, where they were
        self._count = 0

    def happened(
        self, transition: Transition, operation: Operation | None, issued: bool, answer: Any
    ) -> None:
        """One transition, told before the CPU goes on."""
        self._count += 1
        depth = 0
        if transition.kind is Kind.STEP:
            cpu = self.cpus[transition.cpu]
            depth = len(cpu.frames) - 1
            if answer is None:
                answer = answered_here(cpu)
        if self._inside is not None:
            self._inside.append(functions(self.cpus[transition.cpu]) if transition.kind is Kind.STEP else ())
        self._kept.append((self._count, transition, depth, operation, issued, answer))

    def drawing(self) -> Drawing:
        """The transitions in words; steps are numbered from the start of the run."""
        steps = []
        for number, transition, depth, operation, issued, answer in self._kept:
            if operation is None:
                text = taken(answer)
            else:
                # A line stands further right inside an interrupt handler, as a nested call would.
                text = "  " * depth + said(transition.kind, operation, issued, answer)
            step = Step(step=number, cpu=transition.cpu, kind=transition.kind.name.lower(), text=text)
            if self._inside and self._inside[number - 1]:
                step["functions"] = list(self._inside[number - 1])
            steps.append(step)
        return Drawing(len(self.cpus), tuple(steps))


def draw(machine: LitmusMachine, schedule: Sequence[Transition], explain: bool = False) -> Drawing:
    """Put every transition of `schedule` into words; ValueError if one is not possible where it stands.

    `explain`: with the functions that each is in, and what TLBs hold at the end that is stale. It ends where
    a program raises, unless that is a rule that does not count.
    """
    engine = plain_engine(machine)
    tail = Tail(engine.cpus, explain=explain)
    engine.listeners.append(tail)
    for transition in schedule:
        if not 0 <= transition.cpu < len(engine.cpus):
            raise ValueError(f"there is no CPU {transition.cpu}")
        before = engine.steps
        try:
            engine.take(transition)
        except Exception as problem:
            if engine.steps == before:
                raise
            broken = broken_by_program(transition.cpu, problem)
            if broken is None or machine.heed.counts(broken.rule):
                break
    drawing = tail.drawing()
    return replace(drawing, stale=tuple(stale(engine.cpus, engine.memory))) if explain else drawing


def answered_here(cpu: Cpu) -> Any:
    """The answer that the CPU itself will give to its program's operation, None if memory has to."""
    operation = cpu.operation
    if isinstance(operation, Translate):
        return cpu.tlb.peek(cpu.pcid, operation.vpn) or 0
    if isinstance(operation, EndLoad):
        return cpu.window.values.get(operation.handle)
    if isinstance(operation, BeginLoad):
        return None
    return cpu.window.forward(operation)
