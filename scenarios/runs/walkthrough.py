"""A run that a person steers: one transition after the other, and back again.

It is the plain engine with all checks on. Going back means going the shorter way anew.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from emulator.checks.violation import Violation
from emulator.explore.schedule import ScheduleProblem, format_transition
from emulator.hardware.cpu import Kind, Transition
from emulator.hardware.pte import describe as describe_pte
from emulator.machine.litmus import LitmusMachine
from emulator.machine.progress import at_end, standing
from emulator.machine.referee import Referee
from emulator.memory.folios import Folio
from scenarios.drawing.columns import Tail
from scenarios.drawing.held import functions, held
from scenarios.drawing.phrases import taken, upcoming


class Next(NamedTuple):
    """Something that may happen next: its token in a schedule, what it is, and the functions it is in."""

    token: str
    cpu: int
    text: str
    path: tuple[str, ...]


class Walkthrough:
    """Where the run is: `path` was taken, `rest` comes next if nobody chooses otherwise."""

    def __init__(self, machine: LitmusMachine, rest: Sequence[Transition] = ()) -> None:
        self._referee = Referee(machine)
        self._whole = tuple(rest)
        self._begin()

    def _begin(self) -> None:
        self._referee.reset()
        self.path: list[Transition] = []
        self.rest = list(self._whole)
        self._tail = Tail(self._referee.engine.cpus)
        self._referee.engine.listeners.append(self._tail)
        self._ended = False

    @property
    def violation(self) -> Violation | None:
        """The first rule that broke."""
        return self._referee.violation

    @property
    def error(self) -> Exception | None:
        """What a program raised that stands for no rule."""
        return self._referee.error

    def nexts(self) -> list[Next]:
        """All that may happen; empty when the run is over or a rule has broken."""
        if self.violation is not None:
            return []
        return [self._next(option.transition) for option in self._referee.options()]

    def _next(self, transition: Transition) -> Next:
        cpu = self._referee.engine.cpus[transition.cpu]
        operation, issued = cpu.about(transition)
        if operation is None:
            text = taken(self._referee.engine.shared.calls.queues[transition.cpu])
        else:
            text = upcoming(transition.kind, operation, issued)
        path = self.stack(transition.cpu) if transition.kind is Kind.STEP else ()
        return Next(format_transition(transition), transition.cpu, text, path)

    def take(self, transition: Transition) -> str:
        """Let it happen: what it was, in words. ScheduleProblem if it is not possible here."""
        if self.violation is not None or not self._referee.step(transition):
            raise ScheduleProblem(f"{format_transition(transition)} is not possible here")
        self.path.append(transition)
        if self.rest and self.rest[0] == transition:
            self.rest.pop(0)
        else:
            self.rest = []
        if self.violation is None and self.error is None and not self._referee.options() and not self._ended:
            self._ended = True
            self._referee.finish()
        return self._tail.drawing().steps[-1]["text"]

    def default(self) -> Transition | None:
        """What comes next if nobody chooses: what is left of the way that was given, else the first."""
        if self.violation is not None or self.error is not None:
            return None
        if self.rest:
            return self.rest[0]
        options = self._referee.options()
        return options[0].transition if options else None

    def interrupt(self) -> Transition | None:
        """An interrupt that may be taken now, where no way is given."""
        if self.rest or self.violation is not None:
            return None
        found = (option.transition for option in self._referee.options())
        return next((one for one in found if one.kind is Kind.INTERRUPT), None)

    def back(self, steps: int) -> None:
        """Undo the latest steps, all if there are no more; what was given comes next again where it did."""
        path = self.path[: max(0, len(self.path) - steps)]
        self._begin()
        for transition in path:
            self.take(transition)

    # --- what there is -----------------------------------------------------------------------

    def stack(self, cpu: int) -> tuple[str, ...]:
        """The functions that a CPU is in, its handlers' behind its task's."""
        return functions(self._referee.engine.cpus[cpu])

    def cpus(self) -> Iterator[str]:
        """Where each CPU stands and what its window holds."""
        for cpu in self._referee.engine.cpus:
            where = (
                "at its end" if at_end(cpu) else f"in {' > '.join(self.stack(cpu.number))}: {standing(cpu)}"
            )
            irqs = "" if cpu.irqs else "; interrupts off"
            pending = f"; not performed yet: {len(cpu.window.pending)}" if cpu.window.pending else ""
            yield f"CPU {cpu.number} {where}{irqs}{pending}"

    def tlbs(self) -> Iterator[str]:
        """What is cached where."""
        for cpu in self._referee.engine.cpus:
            entries = list(held(cpu, self._referee.engine.memory))
            yield f"CPU {cpu.number}, PCID {cpu.pcid}, mm {cpu.mm}{'' if entries else ': empty'}"
            for one in entries:
                now = f"; by now it is {describe_pte(one.now)}" if one.stale else ""
                yield f"  PCID {one.pcid} {one.vpn:#x}: {describe_pte(one.entry)}{now}"

    def page_tables(self) -> Iterator[str]:
        """The entries of all address spaces."""
        for number, mm in sorted(self._referee.engine.memory.page_tables.mms.items()):
            for vpn, entry in sorted(mm.entries.items()):
                yield f"mm {number} {vpn:#x}: {describe_pte(entry)}"

    def frames(self) -> Iterator[str]:
        """The folios in use, with their content's version."""
        folios = self._referee.engine.memory.folios
        for pfn, folio in sorted(folios.folios.items()):
            version = folios.content.get(pfn, 0)
            yield f"frame {pfn}{_order(folio)}, node {folio.node}: {_folio(folio)}, version {version}"
        yield from (f"node {zone.node}: {folios.nr_free(zone.node)} pages free" for zone in folios.zones)

    def words(self) -> Iterator[str]:
        """Named words that are not 0, lists that are not empty, locks that are held."""
        words = self._referee.engine.memory.words
        yield from (f"{name} = {value}" for name, value in sorted(words.values.items()) if value)
        for name, nodes in sorted(words.lists.items()):
            if len(nodes):
                yield f"list {name}: {', '.join(map(str, nodes.state()))}"
        for name, holder in sorted(words.holders.items()):
            yield f"lock {name}: " + (f"CPU {holder}" if holder >= 0 else f"{-holder} readers")


def _order(folio: Folio) -> str:
    return f" and {(1 << folio.order) - 1} more" if folio.order else ""


def _folio(folio: Folio) -> str:
    mapped = ", ".join(f"mm {mm} {vpn:#x}" for mm, vpn in folio.rmap) or "nowhere"
    cached = f", page {folio.mapping[1]} of file {folio.mapping[0]}" if folio.mapping else ""
    flags = f", flags {folio.flags:#x}" if folio.flags else ""
    return f"{folio.refcount} references, mapped {mapped}{cached}{flags}"
