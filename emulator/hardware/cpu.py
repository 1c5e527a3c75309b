"""One simulated CPU: its TLB, interrupt flag, call queue and the stack of programs that it runs.

It knows nothing of what its programs do. An engine asks for the operation that the topmost program
waits to have carried out, carries it out (or lets the CPU do so if it concerns the CPU alone) and
resumes the program with the answer. The same class runs inside a Ray actor and inside the explorer.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, NamedTuple

from emulator.hardware import operations as ops
from emulator.hardware.awaits import FORGOTTEN, NotAnOperation
from emulator.hardware.operations import (
    ALL_NONGLOBALS,
    EVERYTHING,
    SECOND_HALVES,
    TABLE,
    BeginLoad,
    EndLoad,
    Halt,
    Idle,
    Iret,
    Issue,
    Operation,
    Order,
    SendIpi,
    Series,
    Touch,
    WaitAcks,
    Walk,
    WalkPmd,
    WalkPte,
    WalkSpte,
    Where,
)
from emulator.hardware.ordering import Architecture, Window
from emulator.hardware.pte import ACCESSED, DIRTY, KERNEL_PAGE, PMD_ORDER, PRESENT, RW
from emulator.hardware.tlb import GLOBAL, Tlb, TlbShape
from emulator.hardware.walker_cache import WalkerTlb

Program = Coroutine[Operation, Any, None]

_PLAIN = frozenset(TABLE) - {BeginLoad, Series}
_CHANGE_CPU = frozenset((Walk, WalkPte, WalkSpte, WalkPmd, Iret))  # once memory, or nobody, has answered them


def _expected(awaited: object) -> str:
    """What is wrong with it; of a series, with which of its members."""
    number, what = "", awaited
    if isinstance(awaited, Series) and isinstance(awaited.members, tuple):
        at = next((n for n, one in enumerate(awaited.members) if type(one) not in _PLAIN), -1)
        if at >= 0:
            number, what = f" as member {at + 1} of {len(awaited.members)} of a Series", awaited.members[at]
    return f"awaits {what!r:.60}{number}; a program awaits operations and kernel functions, nothing else"


class IpiRequest(NamedTuple):
    """One queued cross-CPU function call (kernel/smp.c: call_single_data)."""

    sender: int
    number: int
    function: str
    arguments: tuple[int, ...]
    wait: bool
    sent_ns: int


@dataclass(slots=True, eq=False)
class Context:
    """A program that can be switched to: the coroutine of one task on one CPU."""

    program: Program


class Kind(IntEnum):
    """What may happen next on a CPU."""

    STEP = 0  # the topmost program's operation is carried out
    INTERRUPT = 1  # the CPU takes its queued calls
    PERFORM = 2  # an effect in the CPU's window reaches memory
    WALK = 3  # the walker fetches a translation that no program asked for
    INVALIDATE = 4  # the TLB drops what another CPU's instruction has named


class Transition(NamedTuple):
    """One thing that may happen next: `at` is a position in the window, the page of a walk, or the CPU that
    asks for an invalidation.

    A step of a Touch may name the index to stop at, for an engine that pauses to look at its inbox.
    """

    kind: Kind
    cpu: int
    at: int = 0


class TakeCalls(NamedTuple):
    """The interrupt itself, as far as what is shared knows of it: the queued calls of a CPU."""

    cpu: int


class Choice(NamedTuple):
    """A transition and what it asks of what is shared; None if it concerns this CPU alone."""

    transition: Transition
    operation: Operation | TakeCalls | None


@dataclass(slots=True, eq=False)
class Frame:
    """One program on the CPU's stack: the task at the bottom, interrupt handlers above it."""

    program: Program
    irqs: bool  # interrupt flag to restore when this frame ends
    operation: Operation | None = None
    series: tuple[Operation, ...] | None = None
    answers: list[Any] = field(default_factory=list)
    begun: bool = False  # the operation is a load whose value is asked for later
    # Interrupts this CPU had taken when the operation was reached: Halt waits for one more.
    interrupts_before: int = 0


class Cpu:
    """State of one CPU. `interrupt_entry` makes the handler program for a batch of queued calls; with
    `walker_caches` its page walker caches upper entries."""

    def __init__(
        self,
        number: int,
        architecture: Architecture,
        shape: TlbShape,
        interrupt_entry: Callable[[tuple[IpiRequest, ...]], Program],
        pmd_order: int = PMD_ORDER,
        walker_caches: bool = False,
        invlpg_miss: bool = False,
    ) -> None:
        self.number = number
        drops = architecture.leaf_only, invlpg_miss, architecture.by_address
        self.tlb = WalkerTlb(shape, pmd_order, *drops) if walker_caches else Tlb(shape, pmd_order)
        self.window = Window(architecture)
        self.interrupt_entry = interrupt_entry
        self.mm = 0
        self.pcid = 0
        self.irqs = True
        self.frames: list[Frame] = []
        self.call_queue: deque[IpiRequest] = deque()
        self.interrupts_taken = 0
        self.walks = 0
        # Pages that the walker may fetch at any moment, without a program's asking.
        self.speculated: tuple[int, ...] = ()
        # CPUs whose instructions may drop entries here.
        self.invalidators: tuple[int, ...] = ()
        self._local = ops.handlers_of(self)

    # --- the stack of programs ---------------------------------------------------------------

    @property
    def halted(self) -> bool:
        """The bottom program has ended: this CPU will not do anything any more."""
        return not self.frames

    @property
    def operation(self) -> Operation:
        """What the topmost program waits for; the next member if it is a series."""
        operation = self.frames[-1].operation
        assert operation is not None
        return operation

    def boot(self, program: Program) -> None:
        """Start the bottom program and run it to its first operation."""
        self.frames.append(Frame(program, irqs=True))
        self._advance(self.frames[-1], None)

    def can_interrupt(self) -> bool:
        """A queued call can be taken now: interrupts on, and not in the middle of an instruction."""
        return (
            self.irqs
            and bool(self.call_queue)
            and bool(self.frames)
            and type(self.frames[-1].operation) not in SECOND_HALVES
        )

    def take_interrupt(self) -> tuple[IpiRequest, ...]:
        """Enter the handler for everything queued; interrupts stay off until it returns."""
        batch = tuple(self.call_queue)
        self.call_queue.clear()
        self.interrupts_taken += 1
        self.frames.append(Frame(self.interrupt_entry(batch), irqs=self.irqs))
        self.irqs = False
        self._advance(self.frames[-1], None)
        return batch

    def resume(self, answer: Any) -> None:
        """The topmost program's operation has been carried out: run on to the next one."""
        frame = self.frames[-1]
        operation: Any = frame.operation
        if type(operation) in _CHANGE_CPU:
            if type(operation) is Iret:
                self.frames.pop()
                self.irqs = frame.irqs
                return
            self._walked(operation, answer)
        if frame.begun:
            frame.begun = False
            answer = self.window.keep_value(answer)
        if frame.series is not None:
            frame.answers.append(answer)
            if len(frame.answers) < len(frame.series):
                frame.operation = frame.series[len(frame.answers)]
                return
            answer = frame.answers
            frame.series = None
        self._advance(frame, answer)

    def _walked(self, operation: Any, answer: Any) -> None:
        if type(operation) is WalkPmd:
            if answer:
                self.tlb.insert_pmd(self._tag(operation.vpn), operation.vpn, answer)
            return
        self.walks += 1
        if answer:
            self.tlb.insert(self._tag(operation.vpn), operation.vpn, answer)
        else:
            self.tlb.fault(self._tag(operation.vpn), operation.vpn)

    def resume_series(self, answers: list[Any]) -> None:
        """As `resume`, with the answers of all remaining members of a series at once."""
        frame = self.frames[-1]
        assert frame.series is not None
        frame.series = None
        self._advance(frame, frame.answers + answers)

    def _advance(self, frame: Frame, answer: Any) -> None:
        """Send the answer to the topmost program, which awaits its next operation or ends."""
        frame.interrupts_before = self.interrupts_taken
        try:
            operation: Any = frame.program.send(answer)
            while type(operation) not in _PLAIN or FORGOTTEN:
                if FORGOTTEN:
                    raise FORGOTTEN.pop()
                if type(operation) is BeginLoad:
                    frame.begun = True
                    operation = operation.load
                    break
                if type(operation) is not Series or not _PLAIN.issuperset(map(type, operation.members)):
                    # Raised where the program awaits it, so that the trace ends there.
                    frame.program.throw(NotAnOperation(_expected(operation)))
                    raise NotAnOperation(_expected(operation))
                if operation.members:
                    frame.series = operation.members
                    frame.answers = []
                    operation = operation.members[0]
                    break
                operation = frame.program.send([])
        except StopIteration:
            if FORGOTTEN:
                raise FORGOTTEN.pop() from None
            if len(self.frames) > 1:
                frame.operation = Iret()
            else:
                self.frames.pop()
            return
        frame.operation = operation

    # --- what may happen next ----------------------------------------------------------------

    def choices(self) -> list[Choice]:
        """Everything that may happen next here, if what is shared lets it; in a fixed order.

        For engines that step CPUs one transition at a time; the call queue is theirs to keep.
        """
        found: list[Choice] = []
        number = self.number
        window = self.window
        if self.frames:
            operation = self.operation
            if self._may_issue(operation):
                asked = None if self._carried_out_here(operation) else operation
                found.append(Choice(Transition(Kind.STEP, number), asked))
            if self.irqs and type(operation) not in SECOND_HALVES and not window.blocks(Order.IPI_TAKE):
                found.append(Choice(Transition(Kind.INTERRUPT, number), TakeCalls(number)))
        for at in window.performable():
            found.append(Choice(Transition(Kind.PERFORM, number, at), window.asked(at)))
        for vpn in self.speculated:
            if self.mm or vpn >= KERNEL_PAGE:
                found.append(Choice(Transition(Kind.WALK, number, vpn), self._fetch(vpn)))
        if self.invalidators and self.may_invalidate():
            for sender in self.invalidators:
                asked = window.invalidation(sender, number)
                found.append(Choice(Transition(Kind.INVALIDATE, number, sender), asked))
        return found

    def may_invalidate(self) -> bool:
        """Its TLB may drop entries for others: not in the middle of an access, nor before what was stored
        through them has been performed (TLBSYNC and DSB wait for that)."""
        inside = self.frames and type(self.frames[-1].operation) in SECOND_HALVES
        return not inside and not self.window.holds_accesses()

    def invalidate(self, asked: tuple[int, ...]) -> None:
        """Drop what an Invalidate has answered."""
        pcid, mm, start, end, stride, *leaf = asked
        tlb = self.tlb
        if pcid == EVERYTHING:
            tlb.flush_all()
        elif pcid == ALL_NONGLOBALS:
            for one in {one for one, _, _ in tlb.entries()} - {GLOBAL}:
                tlb.flush_pcid(one)
        elif end < 0:
            tlb.flush_pcid(pcid, mm)
        else:
            for vpn in range(start, end, stride):
                (tlb.flush_leaf if any(leaf) else tlb.flush_one)(pcid, vpn)

    def _fetch(self, vpn: int) -> Operation:
        """What the walker reads next of a page that nobody has asked for."""
        mm = self.mm if vpn < KERNEL_PAGE else 0
        if not self.tlb.keeps_pmds:
            return Walk(mm, vpn, False)
        pmd = self.tlb.pmd(self._tag(vpn), vpn)
        return WalkPte(mm, vpn, False, pmd) if pmd else WalkPmd(mm, vpn)

    def fetched(self, vpn: int) -> int | None:
        """What it has already of what it would read next."""
        tag = self._tag(vpn)
        if self.tlb.keeps_pmds and not self.tlb.pmd(tag, vpn):
            return None
        return self.tlb.peek(tag, vpn)

    def _tag(self, vpn: int) -> int:
        """Under which number its TLB has the page: the loaded PCID, GLOBAL for a page of the kernel."""
        return self.pcid if vpn < KERNEL_PAGE else GLOBAL

    def take(self, transition: Transition, answer: Any) -> None:
        """One of `choices()` has happened, with this answer from what is shared."""
        kind = transition.kind
        if kind is Kind.STEP:
            self._step(answer, transition.at)
        elif kind is Kind.INTERRUPT:
            self.call_queue.extend(answer)
            self.take_interrupt()
        elif kind is Kind.PERFORM:
            self.window.perform(transition.at, answer)
        elif kind is Kind.INVALIDATE:
            self.invalidate(answer)
        elif answer:
            tag = self._tag(transition.at)
            if self.tlb.keeps_pmds and not self.tlb.pmd(tag, transition.at):
                self.tlb.insert_pmd(tag, transition.at, answer)
            else:
                self.tlb.insert(tag, transition.at, answer)

    def about(self, transition: Transition) -> tuple[Operation | None, bool]:
        """What a transition is about to carry out, for those who watch: the operation (None for an
        interrupt), and whether it only goes into the window."""
        kind = transition.kind
        if kind is Kind.STEP:
            operation = self.operation
            order = TABLE[type(operation)].order
            begun = self.frames[-1].begun and self.window.architecture.loads_wait
            issued = self.window.keeps(order) or (begun and self.window.forward(operation) is None)
            return operation, issued
        if kind is Kind.PERFORM:
            return self.window.asked(transition.at), False
        if kind is Kind.WALK:
            return self._fetch(transition.at), False
        if kind is Kind.INVALIDATE:
            return self.window.invalidation(transition.at, transition.cpu), False
        return None, False

    def would_cache(self, vpn: int, entry: int) -> bool:
        """A walk that finds `entry` would put something new into the TLB."""
        if not entry & PRESENT:
            return False
        return self.fetched(vpn) != entry | ACCESSED

    def _may_issue(self, operation: Operation) -> bool:
        """The ordering rules let the topmost program's operation go ahead."""
        window = self.window
        order = TABLE[type(operation)].order
        if window.pending:
            if window.blocks(order):
                return False
            # A younger load of one location does not overtake an older one, unless both wait.
            waits = self.frames[-1].begun and window.architecture.loads_wait
            if order is Order.LOAD and not waits and window.holds_load_of(operation):
                return False
        if isinstance(operation, EndLoad):
            return operation.handle in window.values
        if isinstance(operation, Issue):
            return not window.pending
        if isinstance(operation, Halt):
            return self.interrupts_taken > self.frames[-1].interrupts_before
        return not isinstance(operation, Idle)

    def _carried_out_here(self, operation: Operation) -> bool:
        """Carrying it out asks nothing of what is shared, for now at least."""
        if isinstance(operation, (SendIpi, WaitAcks)):
            return False
        row = TABLE[type(operation)]
        window = self.window
        if window.keeps(row.order) or row.where is Where.CPU or isinstance(operation, Halt):
            return True
        if row.order is Order.LOAD:
            if self.frames[-1].begun and window.architecture.loads_wait:
                return True
            return bool(window.pending) and window.forward(operation) is not None
        return False

    def _step(self, answer: Any, touched: int) -> None:
        operation = self.operation
        if touched and isinstance(operation, Touch):
            # As in a recording: the touches went this far, then the CPU looked up.
            self.resume(self.carry_out(Touch(operation.accesses, operation.start, touched)))
            return
        if not self._carried_out_here(operation):
            self.resume(answer)
            return
        row = TABLE[type(operation)]
        window = self.window
        if window.keeps(row.order):
            window.pending.append(operation)
            self.resume(None)
        elif row.order is Order.LOAD:
            forwarded = window.forward(operation)
            if forwarded is None:
                self.frames[-1].begun = False
                self._advance(self.frames[-1], window.begin(operation))
            else:
                self.resume(forwarded)
        elif row.where is Where.CPU:
            if window.marks(row.order):
                window.pending.append(operation)
            self.resume(self.carry_out(operation))
        else:
            self.resume(None)

    # --- operations that concern this CPU alone ----------------------------------------------

    def carry_out(self, operation: Operation) -> Any:
        """Carry out an operation of `Where.CPU`; the answer."""
        return self._local[type(operation)](operation)

    def _nothing(
        self, operation: ops.SmpMb | ops.SmpRmb | ops.SmpWmb | ops.SmpMbAfterAtomic | ops.Cycle | Iret
    ) -> None:
        return None

    def _issue(self, operation: ops.Issue) -> None:
        self.window.issue(operation.code)

    def _nor_here(self, operation: ops.DsbIshst | ops.Isb) -> None:
        return None

    def _end_load(self, operation: EndLoad) -> int:
        return self.window.values.pop(operation.handle)

    def _irq_disable(self, operation: ops.LocalIrqDisable) -> None:
        self.irqs = False

    def _irq_enable(self, operation: ops.LocalIrqEnable) -> None:
        self.irqs = True

    def _load_cr3(self, operation: ops.LoadCr3) -> None:
        self.mm = operation.mm
        self.pcid = operation.pcid
        if operation.flush:
            self.tlb.flush_pcid(operation.pcid, operation.mm)

    def _flush_tlb(self, operation: ops.FlushTlb) -> None:
        self.tlb.flush_pcid(self.pcid, self.mm)

    def _flush_tlb_one(self, operation: ops.FlushTlbOne) -> None:
        self.tlb.flush_one(self._tag(operation.vpn), operation.vpn)

    def _flush_tlb_all(self, operation: ops.FlushTlbAll) -> None:
        self.tlb.flush_all()

    def _translate(self, operation: ops.Translate) -> int:
        pte = self.tlb.lookup(self._tag(operation.vpn), operation.vpn)
        if pte is None or (operation.write and pte & (RW | DIRTY) != RW | DIRTY):
            return 0
        return pte

    def _cached_pmd(self, operation: ops.CachedPmd) -> int:
        return self.tlb.pmd(self._tag(operation.vpn), operation.vpn)

    def _touch(self, operation: Touch) -> int:
        return self.tlb.touch(self.pcid, operation.accesses, operation.start, operation.stop)

    def _switch_to(self, operation: ops.SwitchTo) -> None:
        context: Context = operation.context
        if len(self.frames) != 1:
            raise RuntimeError("switch_to inside an interrupt handler")
        self.frames[0].program = context.program
