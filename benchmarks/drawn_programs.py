"""Programs drawn from a seed: a few CPUs, a few steps each, what they remember in one kind of Python state.

Many are around what reductions are about: what a CPU does alone, interrupts that ask for flushes, and
notes left in plain words; under our policies, under mistakes and under ours with one hook left to mainline.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from inspect import isfunction
from random import Random
from typing import Any, NamedTuple

from benchmarks.drawn_beside import BESIDE, BESIDE_EVERY, DEVICES, SETTINGS, TABLE, TABLES, besides, twins
from emulator.hardware.operations import (
    AllocPages,
    AtomicAdd,
    AtomicXchg,
    FlushTlb,
    FolioPut,
    FolioZero,
    Load,
    LocalIrqDisable,
    LocalIrqEnable,
    Lock,
    SendIpi,
    SmpMb,
    SmpMbAfterAtomic,
    SmpRmb,
    SmpWmb,
    Store,
    Translate,
    Unlock,
    WaitAcks,
    WaitFor,
)
from emulator.hardware.ordering import ARCHITECTURES
from emulator.kernel.memory import SegmentationFault
from emulator.kernel.mmap import do_munmap
from emulator.kernel.mprotect import PROT_READ, READ_WRITE, do_mprotect_pkey
from emulator.kernel.percpu import PerCpu, TlbUbc
from emulator.kernel.policy import Policy
from emulator.kernel.tlb import arch_tlbbatch_flush, flush_everything, flush_tlb_func, flush_tlb_mm_range
from emulator.kernel.user import user_read, user_write
from emulator.machine.litmus import FAST, MM, SLOW, Forbidden, Litmus, LitmusMachine, Setup
from emulator.policies.catalogue import POLICIES
from scenarios.litmus.starts import PAGE, VERSION
from scenarios.litmus.steps import flush_for_own_reasons, move_again, read_if_cached, scanner
from scenarios.mistakes import MISTAKES

WORDS = ("x", "y")
LOCKS = ("a", "b")
ANNOUNCED = "announced"
DRAWN = "random_programs.drawn"
MEMORIES = ("number", "list", "dict", "closure", "counter", "none")
SEEN = "the program saw it"
MAINLINE = "immediate"


def _without_a_hook() -> dict[str, type[Policy]]:
    """Our policies, each with one hook left to mainline; this module names the classes, as it has to be."""
    found: dict[str, type[Policy]] = {}
    for name, make in POLICIES.items():
        kind = type(make())
        for hook, function in vars(Policy).items():
            if isfunction(function) and getattr(kind, hook) is not function and not hook.startswith("_"):
                title = f"{kind.__name__}Without_{hook}"
                made = type(title, (kind,), {hook: function, "__module__": __name__})
                globals()[title] = found[f"{name} without {hook}"] = made
    return found


MUTATED = _without_a_hook()
POLICY_OF: dict[str, Callable[[], Policy]] = {**POLICIES, **MISTAKES, **MUTATED}

Action = Callable[[PerCpu, int], Awaitable[Any]]


class Step(NamedTuple):
    """What a CPU does next, if what it remembers leaves the remainder `when` modulo 3; -1 means always."""

    action: str
    number: int
    when: int


class Drawn(NamedTuple):
    """One program, as plain values: what is printed of it is all that it depends on."""

    seed: int
    architecture: str
    policy: str
    programs: tuple[tuple[str, bool, tuple[Step, ...]], ...]  # per CPU: memory, whether it tidies up, steps
    pages: tuple[bool, ...]  # whether writable
    twice: bool  # the second page is the first one's folio, nobody's own
    cached: tuple[tuple[int, int], ...]  # (CPU, page)
    speculated: tuple[int, ...]
    fast: int
    drain: bool
    frugal: bool
    beside: str = ""  # what there is besides, of BESIDE
    walked: tuple[int, ...] = ()  # CPUs whose walkers know where the page of a table of its own is


async def _load(cpu: PerCpu, number: int) -> int:
    return await Load(WORDS[number % 2])


async def _store(cpu: PerCpu, number: int) -> None:
    await Store(WORDS[number % 2], 1 + number % 3)


async def _add(cpu: PerCpu, number: int) -> int:
    return await AtomicAdd(WORDS[number % 2], 1)


async def _xchg(cpu: PerCpu, number: int) -> int:
    return await AtomicXchg(WORDS[number % 2], 2)


async def _barrier(cpu: PerCpu, number: int) -> None:
    await (SmpMb, SmpWmb, SmpRmb, SmpMbAfterAtomic)[number % 4]()


async def _interrupts_off(cpu: PerCpu, number: int) -> None:
    await LocalIrqDisable()


async def _interrupts_on(cpu: PerCpu, number: int) -> None:
    await LocalIrqEnable()


async def _translate(cpu: PerCpu, number: int) -> int:
    return int(bool(await Translate(PAGE + number % 2, number % 3 == 0)))


async def _read(cpu: PerCpu, number: int) -> int:
    return await user_read(cpu, PAGE + number % 2)


async def _cached(cpu: PerCpu, number: int) -> None:
    await read_if_cached(cpu, PAGE + number % 2)


async def _write(cpu: PerCpu, number: int) -> None:
    await user_write(cpu, PAGE + number % 2, 100 + number)


async def _local_flush(cpu: PerCpu, number: int) -> None:
    await flush_for_own_reasons(cpu)


async def _allocate(cpu: PerCpu, number: int) -> int:
    frame = await AllocPages(number % 2, 0, 0, 0)
    if frame < 0:
        return 0
    if number % 3:
        await FolioZero(frame)
    await FolioPut(frame)
    return 1


async def _flush_range(cpu: PerCpu, number: int) -> None:
    await flush_tlb_mm_range(cpu, MM, PAGE, PAGE + 1 + number % 2, freed_tables=number % 3 == 0)


async def _batch(cpu: PerCpu, number: int) -> None:
    batch = TlbUbc()
    batch.cpumask = (1 + number) & cpu.parameters.all_cpus
    await arch_tlbbatch_flush(cpu, batch)


async def _move(cpu: PerCpu, number: int) -> int:
    return int(await move_again(cpu, PAGE, (SLOW, SLOW, FAST)[number % 3]))


async def _unmap(cpu: PerCpu, number: int) -> int:
    return await do_munmap(cpu, MM, PAGE + number % 2, PAGE + 1 + number % 2)


async def _protect(cpu: PerCpu, number: int) -> None:
    await do_mprotect_pkey(cpu, MM, PAGE, PAGE + 1, (READ_WRITE, PROT_READ)[number % 2])


async def _hint(cpu: PerCpu, number: int) -> None:
    await scanner(cpu)


async def _announce(cpu: PerCpu, number: int) -> None:
    await AtomicAdd(ANNOUNCED, 1)


async def _flush(cpu: PerCpu, number: int) -> None:
    await FlushTlb()


async def _await(cpu: PerCpu, number: int) -> None:
    await WaitFor(ANNOUNCED, 1)


async def _count(cpu: PerCpu, number: int) -> None:
    cpu.count(DRAWN)


LIGHT: dict[str, Action] = {
    "load": _load,
    "store": _store,
    "add": _add,
    "xchg": _xchg,
    "barrier": _barrier,
    "interrupts off": _interrupts_off,
    "interrupts on": _interrupts_on,
    "translate": _translate,
    "read": _read,
    "read if cached": _cached,
    "write": _write,
    "flush here": _local_flush,
    "allocate": _allocate,
    "count": _count,
}
# Only where the others of their kind are.
SIGNALS: dict[str, Action] = {"announce": _announce, "await": _await, "flush": _flush}
HEAVY: dict[str, Action] = {
    "flush range": _flush_range,
    "flush batch": _batch,
    "move": _move,
    "unmap": _unmap,
    "protect": _protect,
    "hint": _hint,
}
ACTION_OF = LIGHT | HEAVY | SIGNALS | TABLES | DEVICES
# What needs what the CPU remembers.
OWN = ("lock", "unlock", "ask", "take acknowledgement", "fail")
# Whose flushes of a CPU by itself end without a barrier: there it matters what else publishes them.
UNPUBLISHED = ("mistake:no-barrier-after-flush",)
NOTES = ("barrier", "store", "load", "flush here", "barrier", "add", "count", "ask")
# What a CPU does alone is drawn more often, as that is what the reductions are about.
ALONE = ("barrier", "barrier", "translate", "flush here", "flush here", "interrupts off", "interrupts on")
LIGHT_NAMES = (*LIGHT, *OWN, *ALONE, "read", "write", "read", "store", "load", "ask", "fail")
HEAVY_NAMES = (*HEAVY, "move", "move", "flush range")


async def _carries_out(cpu: PerCpu, memory: str, tidy: bool, steps: tuple[Step, ...]) -> None:
    """The program of one CPU. What it saw it keeps in one kind of Python state, and goes by that."""
    # Not always: where a program has looked at something first, it could have been interrupted there.
    # (What fails before its first operation is no program.)
    begins = steps[0].action in ACTION_OF and steps[0].action != "count" and steps[0].when < 0
    number = 0 if begins else await Load(WORDS[0])
    listed: list[int] = []
    by_name: dict[str, int] = {}
    total = 0
    held: list[str] = []
    asked: list[int] = []

    def add(value: int) -> int:
        nonlocal total
        total += value
        return total

    for step in steps:
        if memory == "counter":
            number = cpu.counted(DRAWN)
        elif memory == "list":
            number = sum(listed)
        elif memory == "dict":
            number = sum(by_name.values())
        elif memory == "closure":
            number = add(0)
        if step.when >= 0 and number % 3 != step.when:
            continue
        action = step.action
        if action == "fail":
            raise Forbidden(f"{SEEN} ({number % 3})", f"{number}")
        if action == "lock":
            lock = LOCKS[step.number % 2]
            if lock not in held:
                await Lock(lock)
                held.append(lock)
            continue
        if action == "unlock":
            if held:
                await Unlock(held.pop(step.number % len(held)))
            continue
        if action == "ask":
            other = (cpu.number + 1 + step.number) % cpu.parameters.cpus
            if other != cpu.number:
                asked.append(await SendIpi((other,), flush_tlb_func.__name__, flush_everything(cpu), True))
            continue
        if action == "take acknowledgement":
            if asked:
                await WaitAcks(asked.pop())
            continue
        try:
            answer = await ACTION_OF[action](cpu, step.number)
        except SegmentationFault:
            if not tidy:
                raise
            answer = 1
        if answer is None:
            continue
        value = int(answer)
        if value and memory == "counter":
            cpu.count(DRAWN)
        elif memory == "number":
            number = value
        elif memory == "list":
            listed.append(value)
        elif memory == "dict":
            by_name[action] = value
        elif memory == "closure":
            add(value)
    for request in asked:
        await WaitAcks(request)
    if tidy:
        await LocalIrqEnable()
        for lock in held:
            await Unlock(lock)


def draw(seed: int) -> Drawn:
    """The program of this seed: two to four CPUs (in every fifth two run the same), one or two pages."""
    random = Random(f"program {seed}")
    kinds = (_any_programs, _about_notes, _about_copies, _about_memory, _about_walks)
    about = random.choices(kinds, (4, 2, 2, 1, 1))[0]
    programs = about(random)
    cpus = len(programs)
    twice = about is _about_copies or random.random() < 0.1
    pages = tuple(random.random() < 0.4 for _ in range(1 if twice else random.choice((1, 1, 2))))
    mapped = range(2 if twice else len(pages))
    cached = tuple((cpu, page) for cpu in range(cpus) for page in mapped if random.random() < 0.7)
    ours = tuple(POLICIES)
    policies = random.choice(((MAINLINE,), ours, ours, tuple(MISTAKES), tuple(MUTATED)))
    if about is _about_notes and random.random() < 0.6:
        policies = UNPUBLISHED
    drawn = Drawn(
        seed=seed,
        architecture="arm64" if seed % 10 == 3 else random.choice(("riscv", "sc", "x86", "riscv")),
        policy=random.choice(sorted(policies)),
        programs=programs,
        pages=pages,
        twice=twice,
        cached=cached,
        speculated=(PAGE,) if random.random() < _SPECULATED.get(about, 0.2) else (),
        fast=random.choice((2, 3, 4)),
        drain=random.random() < (0.3 if about is _about_notes else 0.6),
        frugal=random.random() < 0.8,
    )
    if seed % BESIDE_EVERY == 2:
        programs, cached = twins(programs, drawn.cached)
        drawn = drawn._replace(programs=programs, cached=cached)
    if seed % BESIDE_EVERY:
        return drawn
    beside, programs, walked, speculated = besides(Random(f"beside {seed}"), programs, Step)
    return drawn._replace(
        beside=beside,
        programs=programs,
        walked=walked,
        speculated=speculated or drawn.speculated,
        fast=drawn.fast + 1,
    )


def _program(random: Random, *steps: Step) -> tuple[str, bool, tuple[Step, ...]]:
    return random.choice(MEMORIES), random.random() < 0.8, steps


def _any_programs(random: Random) -> tuple[tuple[str, bool, tuple[Step, ...]], ...]:
    """Anything, and a kernel path or two; a third at once is more than an unreduced search can do."""
    cpus = random.choice((2, 2, 2, 2, 2, 3, 3, 4))
    heavy = random.choice((1, 1, 2)) if cpus < 4 else 1
    programs = []
    for cpu in range(cpus):
        length = random.randrange(2, 6) if cpus == 2 else random.randrange(1, 6 - cpus + 1)
        steps: list[Step] = []
        if cpu == 0 and random.random() < 0.4:
            # Without these two in this order the policies' own rules hardly ever break.
            steps = [Step("move", 0, -1), Step("allocate", random.choice((2, 4)), -1)]
            heavy -= 1
        while len(steps) < length:
            names = LIGHT_NAMES
            if heavy > 0 and random.random() < (0.5 if cpu == 0 else 0.25):
                names = HEAVY_NAMES
                heavy -= 1
            action = random.choice(names)
            sometimes = action == "fail" or random.random() < 0.3
            steps.append(Step(action, random.randrange(6), random.randrange(3) if sometimes else -1))
        programs.append(_program(random, *steps))
    return tuple(programs)


def _about_notes(random: Random) -> tuple[tuple[str, bool, tuple[Step, ...]], ...]:
    """Who moves a page and asks for flushes, who is interrupted and leaves notes, and who interrupts, too."""
    note, asks = random.randrange(6), Step("flush batch", 1, -1)  # the store's word and value; of CPU 1
    left = (1 + note % 3) % 3
    first = [Step("move", 0, -1), Step("announce", 0, -1), Step("load", note, -1)]
    if random.random() < 0.8:
        first.append(Step("barrier", random.choice((0, 0, 2, 3)), random.choice((-1, left))))
    if random.random() < 0.9:
        first.append(asks._replace(when=random.choice((-1, left, left, random.randrange(3)))))
    second = [Step("barrier", random.randrange(4), -1), Step("store", note, -1)]
    for _ in range(random.randrange(2)):
        more = Step(random.choice(NOTES), random.randrange(6), random.choice((-1, -1, 0, 1)))
        second.insert(random.randrange(len(second) + 1), more)
    if random.random() < 0.3:
        random.shuffle(second)
    third = [asks] if random.random() < 0.1 else [Step("await", 0, -1), asks]
    if random.random() < 0.2:
        third.append(Step(random.choice(NOTES), random.randrange(6), -1))
    each = (first, second, third)[: random.choice((2, 3, 3, 3))]
    return (("number", True, tuple(each[0])), *[_program(random, *steps) for steps in each[1:]])


def _about_copies(random: Random) -> tuple[tuple[str, bool, tuple[Step, ...]], ...]:
    """Who moves a page that is mapped twice, and who writes to it or reads it meanwhile."""
    accesses = ("write", "write", "read", "read if cached", "translate", "fail")
    each = [[Step("move", random.randrange(3), -1)]]
    for _ in range(random.choice((1, 1, 2))):
        steps = [
            Step(random.choice(accesses), random.randrange(6), -1) for _ in range(random.randrange(1, 3))
        ]
        each.append(
            [one._replace(when=random.randrange(3)) if one.action == "fail" else one for one in steps]
        )
    if random.random() < 0.5:
        each[0].append(Step(random.choice(("read", "write", "allocate", "hint")), random.randrange(6), -1))
    return tuple(_program(random, *steps) for steps in each)


def _about_memory(random: Random) -> tuple[tuple[str, bool, tuple[Step, ...]], ...]:
    """Who fails if it has seen something, some steps later, and who lets it see that."""
    note = random.randrange(6)
    left = (1 + note % 3) % 3
    first = [Step("load", note, -1)]
    for _ in range(random.randrange(1, 3)):
        first.append(Step(random.choice(LIGHT_NAMES), random.randrange(6), random.choice((-1, -1, left))))
    first.append(Step("fail", 0, random.choice((left, left, 0))))
    second = [Step(random.choice(("store", "store", "xchg", "add")), note, -1)]
    second.insert(random.randrange(2), Step(random.choice(LIGHT_NAMES), random.randrange(6), -1))
    return _program(random, *first), _program(random, *second)


def _about_walks(random: Random) -> tuple[tuple[str, bool, tuple[Step, ...]], ...]:
    """Who changes an entry, and who goes by what its TLB has of it, which the walker may have brought."""
    heavy = Step(random.choice(("move", "unmap", "protect", "flush range", "hint")), random.randrange(6), -1)
    looks = ("translate", "translate", "read if cached", "flush here", "barrier")
    second = [Step(random.choice(looks), random.choice((0, 2, 2)), -1) for _ in range(random.randrange(1, 4))]
    if random.random() < 0.5:
        # Where it cannot be interrupted, and a walk before the flush is in vain.
        second[:0] = [Step("interrupts off", 0, -1), Step("flush", 0, -1)]
    second.append(Step("fail", 0, random.choice((0, 1, 1))))
    first = [heavy, Step(random.choice(("store", "load", "read", "write")), random.randrange(6), -1)]
    return _program(random, *first[: random.randrange(1, 3)]), _program(random, *second)


_SPECULATED = {_about_notes: 0.0, _about_walks: 1.0}


def _set_up(drawn: Drawn, start: Setup) -> None:
    start.area(PAGE, 2)
    for page, writable in enumerate(drawn.pages):
        pfn = start.page(
            PAGE + page,
            writable=writable and not drawn.twice,
            dirty=writable and not drawn.twice,
            exclusive=not drawn.twice,
            version=VERSION + page,
        )
        if drawn.twice:
            start.map_again(PAGE + 1, pfn)
    for cpu, page in drawn.cached:
        start.cache(cpu, PAGE + page)
    if drawn.beside in BESIDE[:2]:
        start.area(TABLE, TABLE)
        start.page(TABLE, version=VERSION)
        for cpu in drawn.walked:
            start.walk(cpu, TABLE)


def machine(drawn: Drawn) -> LitmusMachine:
    """The machine that runs it."""
    programs = tuple(
        partial(_carries_out, memory=memory, tidy=tidy, steps=steps) for memory, tidy, steps in drawn.programs
    )
    litmus = Litmus(
        name=f"program-{drawn.seed}",
        question="Do all ways to explore it find the same?",
        programs=programs,
        setup=partial(_set_up, drawn),
        expected=(),
        drain=drawn.drain,
        frugal=drawn.frugal,
        speculated=drawn.speculated,
        fast=drawn.fast,
        asks=(DRAWN,),
        settings=SETTINGS[drawn.beside](len(drawn.programs) - 1),
    )
    return LitmusMachine(litmus, ARCHITECTURES[drawn.architecture], POLICY_OF[drawn.policy])
