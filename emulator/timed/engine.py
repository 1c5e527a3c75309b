"""The timed engine: all CPUs of a machine in one process, each with a virtual clock in integer ns.

The CPU whose clock is smallest goes next (of several the lowest number), so a run depends on nothing but the
machine and the cost model. Every operation takes effect when it begins and then costs its price. A CPU that
waits has no time of its own: what it waits for takes it along, and idle CPUs hold nobody back.

Only memory and messages need that order. What concerns one CPU alone runs ahead of the others for as long as
no interrupt of theirs could arrive: their smallest clock plus the shortest way of an interrupt (conservative
lookahead, Chandy and Misra 1979). That makes runs fast and changes nothing, not by a ns.

User accesses are made on a compiled side where there is one (`timed/compiled/`): it lets all CPUs that touch
go on in the same order, until one comes to something else. Where there is none they are made here, in the
same time to the ns: that is the reference.

A store is performed when it is issued: nothing waits in windows, which every architecture allows.

Longer than 500 lines because the loop is one function: it is the whole running time, and takes everything
from local variables.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import Any, Final

from emulator.checks.onlooker import Listener, takes_walks_together
from emulator.hardware.cpu import Cpu, Kind, Transition
from emulator.hardware.operations import (
    SECOND_HALVES,
    AckIpi,
    Dsb,
    Invalidate,
    Invlpgb,
    Operation,
    SendIpi,
    SendRar,
    Tlbi,
    Tlbsync,
    Touch,
    WaitAcks,
    Walk,
)
from emulator.hardware.operations.places import Key
from emulator.hardware.pte import PAGE_SHIFT, PRESENT
from emulator.hardware.tlb import TouchPrice
from emulator.kernel.percpu import PerCpu
from emulator.kernel.smp import cpus_of
from emulator.machine.builder import Machine
from emulator.machine.call_book import CallBook
from emulator.machine.garbage import rare_collection
from emulator.machine.progress import deadlock, most_steps, no_access, waits
from emulator.machine.stepper import boot
from emulator.measure.costs import Costs
from emulator.measure.histogram import Histogram
from emulator.memory.blocked import BLOCKED
from emulator.memory.memory import Memory
from emulator.timed.allocations import Allocations
from emulator.timed.codes import (
    ACK,
    BROADCAST,
    HALT,
    IRET,
    LAST_OF_MEMORY,
    LAST_PRIVATE,
    LOCAL,
    LOCK,
    SEND,
    TOUCH,
    WAIT,
    WALK,
)
from emulator.timed.compiled.handover import hand_over, settle
from emulator.timed.compiled.touches import INTERRUPTED, NONE, Touches
from emulator.timed.compiled.touches import NEVER as LATEST
from emulator.timed.plans import plans_of
from emulator.timed.pricing import Price, local_prices, memory_prices
from emulator.timed.result import TimedResult
from emulator.timed.waiting import Waiting
from emulator.timed.ways import ways_of

NEVER: Final = 1 << 200
"""A time in ns that does not come."""

# When a CPU goes next and which one it is are one number: the heap compares nothing else.
_SHIFT: Final = 12
_NUMBER: Final = (1 << _SHIFT) - 1
_NEVER_KEY: Final = NEVER << _SHIFT
_LATE: Final = LATEST >> _SHIFT + 1  # in ns: from then on keys may be too large for the compiled side
_LOOK_EVERY: Final = 1 << 12  # turns between two calls of `look`


@dataclass(slots=True, eq=False)
class _Wait:
    """The times of a call that its sender waits for."""

    sent: int
    last: int  # when the latest acknowledgement arrives
    reached: int = -1  # when the sender began to wait
    handled: int = 0  # its time in handlers until then


class TimedEngine:
    """Runs one machine once. `lookahead` off makes every step in the order of time, which only tests want.

    `watched`: the machine's watchers judge every step too; they see it in Python. `compiled` off leaves user
    accesses to Python as well, and then `listeners` may be added before it runs: `now` is the time in ns of
    what they are told. `look` is called now and then.
    """

    def __init__(
        self,
        machine: Machine,
        costs: Costs,
        *,
        watched: bool = False,
        lookahead: bool = True,
        compiled: bool = True,
        look: Callable[[], None] | None = None,
    ) -> None:
        count = machine.cpus
        numbers = range(count)
        self.costs = costs
        self.memory: Memory = machine.memory()
        self.checks = list(machine.checks(self.memory))
        self.watchers = list(machine.watchers()) if watched else []
        self.listeners: list[Listener] = [*self.watchers]
        self.now = 0
        self.cpus: list[Cpu] = []
        self.kernels: list[PerCpu] = []
        for number in numbers:
            cpu, kernel = boot(machine, number)
            self.cpus.append(cpu)
            self.kernels.append(kernel)
        # When each CPU has done what it did last: whoever resumes a program sets it before.
        self.clocks = [0] * count
        self.allocations: dict[int, Histogram] = {}
        for number, kernel in enumerate(self.kernels):
            kernel.stopwatch = Allocations(self.allocations, self.clocks, number)
        self.delivery = Histogram()
        self.handler = Histogram()
        self.round_trip = Histogram()
        self.waited_ns = [0] * count
        self.handled_ns = [0] * count
        self.transitions = 0
        self._watched = watched
        self._look = look
        self._fractions = [0] * count  # picoseconds beyond the clock
        self._ways = ways_of(costs, count)
        self._ahead = self._ways.shortest if lookahead else -1
        slow_from = self.memory.folios.zones[0].start_pfn + self.memory.folios.zones[0].pages
        self._touch_price = TouchPrice(
            costs.access_ps(False),
            max(costs.access_ps(True), costs.access_ps(False)),
            costs.second_level_ns * 1000,
            slow_from << PAGE_SHIFT,
        )
        self._touches: Touches | None = None
        if compiled and not watched:
            page_tables = self.memory.page_tables
            price = self._touch_price
            self._touches = hand_over(machine, self.cpus, page_tables, price, costs.walk_ns, self._ahead)
        self._memory_prices: dict[type[Any], int | Price] = memory_prices(costs, count, self.memory)
        self._arrivals = [NEVER] * count  # when each CPU's interrupt arrives
        # Broadcasts under way: when each arrives, whose it is and for whom; when the next ones for a CPU do,
        # the first one first, and when its interrupt does, if there are any.
        self._broadcasts: list[tuple[int, int, int, int]] = []
        self._due: list[list[int]] = [[] for _ in numbers]
        self._interrupts = [NEVER] * count
        self._synced_since = [0] * count  # when a CPU began to wait for what it has asked
        self._calls = CallBook(count)
        self._waits: dict[tuple[int, int], _Wait] = {}  # by sender and number of the call
        self._awaits: list[_Wait | None] = [None] * count  # what a CPU sleeps for
        self._handlers: list[list[tuple[int, bool]]] = [[] for _ in numbers]  # entered when; a flush?
        self._waiting = Waiting(count)
        self._most = most_steps(self.memory, count)
        # When each CPU goes next, with its number; NEVER while somebody else has to do something first.
        self._next = list(numbers)
        self._heap = list(numbers)

    # --- the loop ------------------------------------------------------------------------------

    @rare_collection()
    def run(self) -> TimedResult:
        """Run to the end. A deadlock ends it too, and is a violation of the result; so do CPUs that go on for
        ever without a user access.

        What a program raises comes out as it is; the CPU is in the traceback.
        """
        heap = self._heap
        following = self._next
        cpus = self.cpus
        clocks = self.clocks
        arrivals = self._arrivals
        fractions = self._fractions
        frames_of = [cpu.frames for cpu in cpus]
        resume_of = [cpu.resume for cpu in cpus]
        touch_of = [cpu.tlb.touch_for for cpu in cpus]
        entry_of = self.memory.page_tables.entry
        waiting = self._waiting
        queues = waiting.queues
        plans = plans_of(
            self.memory, self.checks, local_prices(self.costs), self._memory_prices, self._price_of_walk
        )
        prices = fast, slow, _, slow_from = self._touch_price
        ahead = self._ahead
        look = self._look
        tell = self._tell if self.listeners else None
        touches = self._touches
        assert touches is None or tell is None, "what the compiled side does, nobody is told"
        faults = self.memory.folios.faults
        if touches is not None:
            touches.walk_here(all(map(takes_walks_together, self.checks)))
        front = _NEVER_KEY  # the first key of those that touch on the compiled side
        turns = steps = 0
        most = self._most
        last = most  # the step that is one too many, unless a user access is made before
        while heap or front < _NEVER_KEY:
            turns += 1
            if look is not None and not turns % _LOOK_EVERY:
                look()
            if touches is not None and front < _NEVER_KEY and (not heap or front < heap[0]):
                if faults:
                    # A frame may be free that an entry names: the checks want to see every walk.
                    touches.walk_here(False)
                number, front = touches.go(min(heap[0], LATEST) if heap else LATEST)
                if front >= LATEST:
                    front = _NEVER_KEY
                if number == NONE:
                    continue
                clock, fractions[number], start, why = touches.stopped(number)
                cpu = cpus[number]
                frames = frames_of[number]
                resume = resume_of[number]
                frame = frames[-1]
                touch: Any = frame.operation
                accesses, _, stop = touch
                last = steps + most
                if why == INTERRUPTED:
                    frame.operation = Touch(accesses, start, stop)
                else:
                    access = accesses[start] if start < stop else 1
                    if not access & 1 and entry_of(cpu.mm, access >> 1) & PRESENT:
                        clock += self._walked(number, access >> 1)
                        frame.operation = Touch(accesses, start + 1, stop)
                    else:
                        clocks[number] = clock
                        resume(start)
            else:
                key = heappop(heap)
                number = key & _NUMBER
                if number == _NUMBER:
                    self._broadcast_arrives()
                    continue
                if key != following[number]:
                    continue
                following[number] = -1
                clock = key >> _SHIFT
                cpu = cpus[number]
                frames = frames_of[number]
                resume = resume_of[number]
            # Let this CPU go on for as long as it may. Meanwhile keys are only added to the heap.
            known = -1
            while True:
                steps += 1
                if steps > last:
                    clocks[number] = clock
                    return self._result(endless=True)
                if len(heap) != known:
                    # The others: the first of them, and until when this CPU is before them. What the heap
                    # holds may have been overtaken: then they are later, and it may be this CPU itself.
                    known = len(heap)
                    others = heap[0] if heap else _NEVER_KEY
                    if front < others:
                        others = front
                    until = others - number >> _SHIFT
                if not frames:
                    self._fall_asleep(number, clock)
                    break
                frame = frames[-1]
                operation: Any = frame.operation
                kind = type(operation)
                arrival = arrivals[number]
                if arrival <= clock and cpu.irqs and kind not in SECOND_HALVES:
                    if clock > until:
                        clocks[number] = clock
                        self._go_at(number, clock)
                        break
                    clock = self._enter_handler(number, clock)
                    continue
                code, execute, observers, ns, price, changes = plans[kind]
                if code >= WALK and clock > until:
                    clocks[number] = clock
                    self._go_at(number, clock)
                    break
                if WALK <= code <= LAST_OF_MEMORY:
                    if code == LOCK and waiting.refused(number, operation.name):
                        self._wait(number, clock, operation)
                        break
                    answer = execute(number, operation)
                    if answer is BLOCKED:
                        self._wait(number, clock, operation)
                        break
                    for observe in observers:
                        observe(number, operation, answer)
                    if tell is not None:
                        tell(number, clock, operation, answer)
                    if changes is not None and queues:
                        self._wake(changes(operation), clock)
                    clock += ns
                    if price is not None:
                        clock += price(number, operation, answer)
                    clocks[number] = clock
                    resume(answer)
                elif code == TOUCH:
                    accesses, start, stop = operation
                    if start < stop:
                        last = steps + most
                        if touches is not None and cpu.irqs and clock < _LATE:
                            when = clock, fractions[number], arrival
                            touches.begin(number, when, accesses, start, stop, cpu.pcid, cpu.mm)
                            front = min(front, clock << _SHIFT | number)
                            break
                        safe = self._safe(number, others)
                        bound = safe if safe < arrival else arrival
                        if bound <= clock:
                            if clock > until:
                                clocks[number] = clock
                                self._go_at(number, clock)
                                break
                            bound = clock + 1
                        fraction = fractions[number]
                        budget = (bound - clock) * 1000 - fraction
                        start, spent = touch_of[number](cpu.pcid, accesses, start, stop, budget, prices)
                        passed, fractions[number] = divmod(spent + fraction, 1000)
                        clock += passed
                        if start < stop:
                            if spent >= budget:
                                frame.operation = Touch(accesses, start, stop)
                                continue
                            access = accesses[start]
                            if not access & 1 and tell is None:
                                # A read that misses: the hardware walks by itself, as a program would by
                                # Translate and Walk, unless it faults. An interrupt comes later: the budget
                                # ended before it, and was not spent.
                                if clock > until:
                                    frame.operation = Touch(accesses, start, stop)
                                    clocks[number] = clock
                                    self._go_at(number, clock)
                                    break
                                if entry_of(cpu.mm, access >> 1) & PRESENT:
                                    clock += self._walked(number, access >> 1)
                                    frame.operation = Touch(accesses, start + 1, stop)
                                    continue
                    if tell is not None:
                        tell(number, clock, operation, start)
                    clocks[number] = clock
                    resume(start)
                elif code <= LAST_PRIVATE:
                    # With interrupts off nobody can interfere, however far ahead.
                    if clock > until and (ahead < 0 or (cpu.irqs and clock >= self._safe(number, others))):
                        clocks[number] = clock
                        self._go_at(number, clock)
                        break
                    answer = cpu.carry_out(operation)
                    if tell is not None:
                        tell(number, clock, operation, answer)
                    if code == LOCAL:
                        clock += ns
                    elif code == IRET:
                        self._left_handler(number, clock)
                    elif answer:
                        spent = fractions[number] + (fast if answer < slow_from else slow)
                        passed, fractions[number] = divmod(spent, 1000)
                        clock += passed
                    clocks[number] = clock
                    resume(answer)
                elif code == SEND:
                    clock = self._send(number, clock, operation)
                elif code == ACK:
                    clock = self._acknowledge(number, clock, operation)
                elif code == WAIT:
                    if not self._acknowledged(number, clock, operation):
                        break
                elif code == BROADCAST:
                    ends = self._broadcast(number, clock, operation)
                    if ends < 0:
                        break
                    clock = ends
                elif code == HALT and cpu.interrupts_taken > frame.interrupts_before:
                    if tell is not None:
                        tell(number, clock, operation, None)
                    clocks[number] = clock
                    resume(None)
                else:
                    self._fall_asleep(number, clock)
                    break
        return self._result()

    def _safe(self, number: int, others: int) -> int:
        """Until when no interrupt of others can come, whose smallest key this is."""
        if self._ahead >= 0:
            return (others >> _SHIFT) + self._ahead
        return (others >> _SHIFT) + (number < others & _NUMBER)

    def _price_of_walk(self, number: int, operation: Walk, answer: int) -> int:
        if not answer:
            return self.costs.walk_ns + self.costs.fault_ns
        fast, slow, _, slow_from = self._touch_price
        spent = self._fractions[number] + (fast if answer < slow_from else slow)
        passed, self._fractions[number] = divmod(spent, 1000)
        return self.costs.walk_ns + passed

    def _walked(self, number: int, vpn: int) -> int:
        """The hardware walks for a read that finds an entry; ns that pass."""
        cpu = self.cpus[number]
        walk = Walk(cpu.mm, vpn, False)
        answer = self.memory.execute(number, walk)
        for check in self.checks:
            check.observe(number, walk, answer)
        cpu.walks += 1
        self.kernels[number].count("dtlb_walks")
        cpu.tlb.insert(cpu.pcid, vpn, answer)
        return self._price_of_walk(number, walk, answer)

    def _go_at(self, number: int, time: int) -> None:
        """This CPU goes next at `time`, unless it goes earlier."""
        key = time << _SHIFT | number
        due = self._next[number]
        if due < 0 or key < due:
            self._next[number] = key
            heappush(self._heap, key)

    def _fall_asleep(self, number: int, clock: int, until: int = NEVER) -> None:
        """Nothing to do for this CPU before `until`, unless an interrupt comes."""
        self.clocks[number] = clock
        self._next[number] = _NEVER_KEY
        arrival = self._interrupts[number] if self._due[number] else self._arrivals[number]
        if arrival < NEVER and self._interruptible(number):
            until = min(until, max(clock, arrival))
        if until < NEVER:
            self._go_at(number, until)

    def _interruptible(self, number: int) -> bool:
        cpu = self.cpus[number]
        return bool(cpu.frames) and cpu.irqs and type(cpu.frames[-1].operation) not in SECOND_HALVES

    def _tell(self, number: int, clock: int, operation: Operation | None, answer: Any) -> None:
        """Tell the listeners of one step, or of an interrupt."""
        self.transitions += 1
        self.now = clock
        kind = Kind.STEP if operation is not None else Kind.INTERRUPT
        for listener in self.listeners:
            listener.happened(Transition(kind, number), operation, False, answer)

    # --- waiting for memory --------------------------------------------------------------------

    def _wait(self, number: int, clock: int, operation: Operation) -> None:
        if type(operation) is Tlbsync or type(operation) is Dsb:
            self._synced_since[number] = clock
        self._waiting.add(number, operation)
        self._fall_asleep(number, clock)

    def _wake(self, key: Key, clock: int) -> None:
        """`key` has changed at `clock`."""

        def enabled(number: int) -> Operation | None:
            operation = self.cpus[number].operation
            return operation if self.memory.enabled(number, operation) else None

        # Whoever waited for a word or an entry pays for its line when he looks again.
        if key[0] == "lock":
            clock += self.costs.lock_handover_ns
        for number in self._waiting.woken(key, enabled):
            self._go_at(number, max(self.clocks[number], clock))

    # --- interrupts ----------------------------------------------------------------------------

    def _send(self, number: int, clock: int, operation: SendIpi) -> int:
        """Queue the call everywhere, and interrupt whoever had an empty queue."""
        calls = self._calls
        targets, wait = operation.targets, operation.wait
        # kernel/smp.c: where the queue is not empty, an interrupt is on its way.
        interrupted = [target for target in targets if not calls.queues[target]]
        sent = clock
        request = calls.send(number, operation, sent)
        if wait and targets:
            self._waits[number, request] = _Wait(sent, sent)
        if self.listeners:
            self._tell(number, clock, operation, request)
        for target in interrupted:
            clock += self._ways.send[number][target]
            arrival = self._arrivals[target] = clock + self._ways.deliver[number][target]
            if self._due[target]:
                self._interrupts[target] = arrival
                self._next_arrival(target)
            elif self._touches is not None:
                self._touches.interrupt(target, arrival)
            if self._next[target] >= 0 and self._interruptible(target):
                self._go_at(target, max(self.clocks[target], arrival))
        if wait:
            self.waited_ns[number] += clock - sent
        self.clocks[number] = clock
        self.cpus[number].resume(request)
        return clock

    def _broadcast(self, number: int, clock: int, operation: Invlpgb | SendRar | Tlbi) -> int:
        """Ask all TLBs; when the CPU goes on, -1 if it has to wait first."""
        if self.memory.execute(number, operation) is BLOCKED:
            self._wait(number, clock, operation)
            return -1
        if self.listeners:
            self._tell(number, clock, operation, None)
        targets = cpus_of(operation.mask)
        # One time for all. Until then their accesses may go ahead, and the interrupt of nobody comes earlier.
        due = clock + max(self._ways.shortest, *(self._ways.deliver[number][target] for target in targets))
        for target in targets:
            if not self._due[target]:
                self._interrupts[target] = self._arrivals[target]
            insort(self._due[target], due)
            self._next_arrival(target)
        heappush(self._broadcasts, (due, number, operation.mask, operation.sender))
        # Before everybody who goes on at that time.
        heappush(self._heap, (due << _SHIFT) - 1)
        if type(operation) is Tlbi:
            asking = self.costs.tlbi_ns
            self.waited_ns[number] += asking
        else:
            asking = self.costs.invlpgb_ns
            if type(operation) is SendRar:
                # A message of the APIC to each, as an interrupt.
                asking = sum(self._ways.send[number][target] for target in targets)
            self.waited_ns[number] += asking + self.costs.tlbsync_ns
        self.clocks[number] = clock + asking
        self.cpus[number].resume(None)
        return clock + asking

    def _next_arrival(self, number: int) -> None:
        """What a CPU may not go beyond without looking."""
        due = self._due[number]
        self._arrivals[number] = min(due[0] if due else NEVER, self._interrupts[number])
        if self._touches is not None:
            self._touches.interrupt(number, min(self._arrivals[number], LATEST))

    def _broadcast_arrives(self) -> None:
        """The TLBs do what is asked, whatever their CPUs are at."""
        clock, number, mask, sender = heappop(self._broadcasts)
        for target in cpus_of(mask):
            operation = Invalidate(sender, target)
            answer = self.memory.execute(target, operation)
            self.cpus[target].invalidate(answer)
            if self.listeners:
                self.transitions += 1
                self.now = clock
                for listener in self.listeners:
                    listener.happened(Transition(Kind.INVALIDATE, target, sender), operation, False, answer)
            self._due[target].pop(0)
            self._next_arrival(target)
        since = self._synced_since[number]
        if since:
            self.waited_ns[number] += clock - since
            # A DSB waits for several.
            self._synced_since[number] = clock if self.memory.words.tlbis(sender) else 0
        self._wake(("invlpgb", sender), clock)

    def _enter_handler(self, number: int, clock: int) -> int:
        cpu = self.cpus[number]
        self._interrupts[number] = NEVER
        self._arrivals[number] = self._due[number][0] if self._due[number] else NEVER
        self._waiting.leave(number)
        self._awaits[number] = None
        declined = self._waiting.decline(number)
        frame = cpu.frames[-1]
        touch = frame.operation
        if type(touch) is Touch:
            # Back from the interrupt, the kernel looks whether somebody else goes first.
            frame.operation = Touch(touch.accesses, touch.start, touch.start)
        cpu.call_queue.extend(self._calls.take(number))
        batch = cpu.take_interrupt()
        if self.listeners:
            self._tell(number, clock, None, batch)
        flushes = False
        for request in batch:
            if request.wait:
                flushes = True
                self.delivery.record(clock - request.sent_ns)
        self._handlers[number].append((clock, flushes))
        if declined is not None:
            self._wake(declined, clock)
        return clock + self.costs.interrupt_ns

    def _left_handler(self, number: int, clock: int) -> None:
        entered, flushes = self._handlers[number].pop()
        if flushes:
            self.handler.record(clock - entered)
            self.handled_ns[number] += clock - entered

    def _acknowledge(self, number: int, clock: int, operation: AckIpi) -> int:
        sender = operation.sender
        over = self._calls.acknowledge(number, operation)
        call = self._waits[sender, operation.request]
        call.last = max(call.last, clock + self._ways.line[number][sender])
        if self.listeners:
            self._tell(number, clock, operation, None)
        if over:
            self.round_trip.record(call.last - call.sent)
            if self._awaits[sender] is call:
                self._go_at(sender, max(self.clocks[sender], call.last))
        self.cpus[number].resume(None)
        return clock + self.costs.instruction_ns

    def _acknowledged(self, number: int, clock: int, operation: WaitAcks) -> bool:
        """All have acknowledged, and the program goes on; else the CPU sleeps."""
        key = number, operation.request
        call = self._waits.get(key)
        if call is not None:
            if call.reached < 0:
                call.reached, call.handled = clock, self.handled_ns[number]
            over = self._calls.acknowledged(*key)
            if not over or call.last > clock:
                self._awaits[number] = call
                self._fall_asleep(number, clock, call.last if over else NEVER)
                return False
            del self._waits[key]
            handled = self.handled_ns[number] - call.handled
            self.waited_ns[number] += clock - call.reached - handled
        self._awaits[number] = None
        if self.listeners:
            self._tell(number, clock, operation, None)
        self.clocks[number] = clock
        self.cpus[number].resume(None)
        return True

    # --- the end -------------------------------------------------------------------------------

    def _result(self, endless: bool = False) -> TimedResult:
        observers = [*self.checks, *self.watchers]
        if self._touches is not None:
            settle(self._touches, self.cpus, self.kernels, self.checks)
        waiting = waits(self.cpus, self._calls.queues)
        broken = None
        if endless:
            broken = no_access(self.cpus, self._most)
        elif waiting:
            broken = deadlock(waiting)
        else:
            for check in self.checks:
                check.finish()
        figures = dict(self.memory.results())
        for check in self.checks:
            figures.update(check.results())
        violations = [violation for one in observers for violation in one.violations]
        return TimedResult(
            cpus=[kernel.results() for kernel in self.kernels],
            tlb_interrupts=[kernel.tlb_interrupts for kernel in self.kernels],
            memory=figures,
            violations=violations if broken is None else [*violations, broken],
            accesses=sum(kernel.accesses for kernel in self.kernels),
            elapsed_ns=max(self.clocks, default=0),
            clocks_ns=list(self.clocks),
            waited_ns=self.waited_ns,
            handled_ns=self.handled_ns,
            delivery=self.delivery,
            handler=self.handler,
            round_trip=self.round_trip,
            allocations=self.allocations,
            transitions=self.transitions if self._watched else None,
        )
