"""Programs drawn from a seed, explored in three ways that must not disagree: does a *Never* hold?

Nobody reads these programs, there are thousands. Each is searched with the reductions, without them, and by
random runs of the plain engine: the two searches must find the same rules and reach the same counters, and no
run may break a rule that they do not know. `python benchmarks/random_programs.py 1000 --seed 0`.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from functools import partial
from pprint import pformat
from random import Random
from typing import Any, NamedTuple

from emulator.explore.exhaustive import exhaust, shortest
from emulator.explore.learned import LearnedMachine
from emulator.explore.schedule import format_schedule
from emulator.explore.search import Limits, search
from emulator.explore.strategies import find_strategy
from emulator.hardware.operations import (
    AllocPages,
    AtomicAdd,
    AtomicXchg,
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
)
from emulator.hardware.ordering import ARCHITECTURES
from emulator.kernel.memory import SegmentationFault
from emulator.kernel.mmap import do_munmap
from emulator.kernel.mprotect import PROT_READ, READ_WRITE, do_mprotect_pkey
from emulator.kernel.percpu import PerCpu, TlbUbc
from emulator.kernel.tlb import arch_tlbbatch_flush, flush_everything, flush_tlb_func, flush_tlb_mm_range
from emulator.kernel.user import user_read, user_write
from emulator.machine.litmus import FAST, MM, SLOW, Forbidden, Litmus, LitmusMachine, Setup
from emulator.machine.referee import Referee
from emulator.policies.catalogue import POLICIES
from scenarios.litmus.starts import PAGE, VERSION
from scenarios.litmus.steps import flush_for_own_reasons, move_again, read_if_cached, scanner
from scenarios.mistakes import MISTAKES

STATES = 20_000
RUNS = 30
MOST_STEPS = 2_000
WORDS = ("x", "y")
LOCKS = ("a", "b")
DRAWN = "random_programs.drawn"
MEMORIES = ("number", "list", "dict", "closure", "counter", "none")
SEEN = "the program saw it"
POLICY_OF = {**POLICIES, **MISTAKES}

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
    cached: tuple[tuple[int, int], ...]  # (CPU, page)
    speculated: tuple[int, ...]
    fast: int
    drain: bool
    frugal: bool


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
HEAVY: dict[str, Action] = {
    "flush range": _flush_range,
    "flush batch": _batch,
    "move": _move,
    "unmap": _unmap,
    "protect": _protect,
    "hint": _hint,
}
ACTION_OF = LIGHT | HEAVY
# What needs what the CPU remembers.
OWN = ("lock", "unlock", "ask", "take acknowledgement", "fail")
# What a CPU does alone is drawn more often, as that is what the reductions are about.
ALONE = ("barrier", "barrier", "translate", "flush here", "flush here", "interrupts off", "interrupts on")
LIGHT_NAMES = (*LIGHT, *OWN, *ALONE, "read", "write", "read", "store", "load", "ask", "fail")
HEAVY_NAMES = (*HEAVY, "move", "move", "flush range")


async def _carries_out(cpu: PerCpu, memory: str, tidy: bool, steps: tuple[Step, ...]) -> None:
    """The program of one CPU. What it saw it keeps in one kind of Python state, and goes by that."""
    number = await Load(WORDS[0])
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
        value = int(answer or 0)
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
    """The program of this seed: two or three CPUs, one or two pages, two to five steps each."""
    random = Random(f"program {seed}")
    cpus = random.choice((2, 2, 2, 3))
    heavy = random.choice((1, 1, 2))  # a third kernel path at once is more than an unreduced search can do
    programs = []
    for cpu in range(cpus):
        length = random.randrange(2, 6) if cpus == 2 else random.randrange(2, 4)
        steps = []
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
        programs.append((random.choice(MEMORIES), random.random() < 0.8, tuple(steps)))
    pages = tuple(random.random() < 0.4 for _ in range(random.choice((1, 1, 2))))
    cached = tuple((cpu, page) for cpu in range(cpus) for page in range(len(pages)) if random.random() < 0.7)
    return Drawn(
        seed=seed,
        architecture=random.choice(sorted(ARCHITECTURES)),
        policy=random.choice(sorted(random.choice((POLICIES, MISTAKES)))),
        programs=tuple(programs),
        pages=pages,
        cached=cached,
        speculated=(PAGE,) if random.random() < 0.2 else (),
        fast=random.choice((2, 3, 4)),
        drain=random.random() < 0.6,
        frugal=random.random() < 0.7,
    )


def _set_up(drawn: Drawn, start: Setup) -> None:
    start.area(PAGE, 2)
    for page, writable in enumerate(drawn.pages):
        start.page(PAGE + page, writable=writable, dirty=writable, version=VERSION + page)
    for cpu, page in drawn.cached:
        start.cache(cpu, PAGE + page)


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
    )
    return LitmusMachine(litmus, ARCHITECTURES[drawn.architecture], POLICY_OF[drawn.policy])


class Comparison(NamedTuple):
    """What became of one program. `outcome`: what it was compared with, or why it was not."""

    outcome: str
    rules: frozenset[str] = frozenset()
    disagreement: str = ""
    states: tuple[int, int] = (0, 0)  # with the reductions and without


def compare(drawn: Drawn, states: int = STATES, runs: int = RUNS) -> Comparison:
    """Explore one program in all ways."""
    built = machine(drawn)
    reduced, full = LearnedMachine(built), LearnedMachine(built)
    try:
        small = exhaust(reduced, max_states=states, all_rules=True)
        if not small.complete:
            return Comparison("skipped: too many states")
        large = exhaust(full, max_states=states, reduce=False, all_rules=True)
        broken = _plain(built, drawn.seed, runs)
    except Exception as problem:  # what a drawn program asks for is possible: an error is ours
        return Comparison("error", disagreement=f"seed {drawn.seed}: {problem!r}\n{_text(drawn)}")
    wrong = []
    if not set(broken) <= small.rules:
        wrong.append("the plain engine breaks a rule that the reduced search does not know")
    if large.complete:
        if not set(broken) <= large.rules:
            wrong.append("the plain engine breaks a rule that the unreduced search does not know")
        if small.rules != large.rules:
            wrong.append("the reduced search and the unreduced one find other rules")
        if reduced.reached != full.reached:
            wrong.append(f"they reach other counters: {sorted(reduced.reached ^ full.reached)}")
        if bool(small.endless) != bool(large.endless):
            wrong.append(f"states without an end: {small.endless} reduced, {large.endless} not")
    outcome = "compared, all ways" if large.complete else "compared, reduced with plain runs only"
    if not wrong:
        states = (small.states, large.states) if large.complete else (0, 0)
        return Comparison(outcome, frozenset(small.rules), states=states)
    schedules = dict(broken)
    for rule in sorted(small.rules ^ large.rules):
        way = shortest(full if rule in large.rules else reduced, rule)
        if way is not None:
            schedules.setdefault(rule, format_schedule(way))
    lines = [
        f"seed {drawn.seed}: {'; '.join(wrong)}",
        _text(drawn),
        f"reduced:   {sorted(small.rules)}, {small.states} states",
        f"unreduced: {sorted(large.rules)}, {large.states} states, complete: {large.complete}",
        f"plain:     {sorted(broken)}",
        *[f"{rule}: {schedule}" for rule, schedule in schedules.items()],
    ]
    return Comparison(outcome, frozenset(small.rules | large.rules), "\n".join(lines))


def _text(drawn: Drawn) -> str:
    return pformat(drawn._asdict(), width=110, sort_dicts=False)


def _plain(built: LitmusMachine, seed: int, runs: int) -> dict[str, str]:
    """The rules that random runs of the plain engine break, each with its schedule."""
    referee = Referee(built)
    strategy = find_strategy("random")()
    found: dict[str, str] = {}
    for run in range(runs):
        tally = search(referee, strategy, seed, Limits(1, MOST_STEPS), lambda: False, first_run=run)
        if tally.violation is not None:
            found.setdefault(tally.violation.rule, format_schedule(tally.schedule))
    return found


def main() -> int:
    """0 if nothing disagrees."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("programs", type=int, nargs="?", default=1000)
    parser.add_argument("--seed", type=int, default=0, help="of the first program")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop after that long")
    parser.add_argument("--states", type=int, default=STATES, help="skip programs with more")
    parser.add_argument("--runs", type=int, default=RUNS, help="random runs of each program")
    options = parser.parse_args()
    began = time.monotonic()
    outcomes: Counter[str] = Counter()
    rules: Counter[str] = Counter()
    disagreements = reduced = unreduced = fewer = 0
    for seed in range(options.seed, options.seed + options.programs):
        if time.monotonic() - began > options.seconds:
            break
        found = compare(draw(seed), options.states, options.runs)
        outcomes[found.outcome] += 1
        rules.update(found.rules or (["none"] if found.outcome.startswith("compared") else []))
        reduced += found.states[0]
        unreduced += found.states[1]
        fewer += found.states[0] < found.states[1]
        if found.disagreement:
            disagreements += 1
            print(found.disagreement, flush=True)
    for title, counts in (("programs", outcomes), ("rules broken", rules)):
        print(f"{title}:", *[f"{count:7} {name}" for name, count in counts.most_common()], sep="\n")
    print(f"states: {reduced} with reductions, {unreduced} without; fewer in {fewer} programs")
    print(
        f"seeds {options.seed} to {options.seed + outcomes.total() - 1}, {disagreements} disagreements, "
        f"{time.monotonic() - began:.0f} s"
    )
    return 1 if disagreements else 0


if __name__ == "__main__":
    sys.exit(main())
