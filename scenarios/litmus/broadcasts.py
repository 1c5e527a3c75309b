"""Flushes by an instruction that drops other CPUs' entries (`--mmu x86-invlpgb`): has it, when it counts?"""

from __future__ import annotations

from emulator.kernel.mmu.x86_invlpgb import (
    BROADCASTS,
    GLOBAL_ASID_FREED,
    GLOBAL_ASID_USED,
    LAST_GLOBAL_ASID,
    X86Invlpgb,
)
from emulator.kernel.percpu import PerCpu
from emulator.machine.litmus import FAST, MM, Expectation, Litmus, Setup
from scenarios.litmus.answers import FOREIGN, FRAME_REUSED, FREE, RETURNED, REUSED
from scenarios.litmus.starts import PAGE, Start, pages, starts
from scenarios.litmus.steps import call, in_order, read_if_cached, reuse
from scenarios.litmus.syscalls import MADV_DONTNEED, madvise, switch_to

OTHER_MM = 2
ASID = 6  # the first that is the same on all CPUs
NUMBERED = "litmus_numbered"


def x86_never(policy: str, *reached: str) -> Expectation:
    """As `never`, of what only x86 has."""
    return Expectation(policy, "Never", "Never", None, reached)


def x86_sometimes(policy: str, *rules: str) -> Expectation:
    """As `sometimes`, likewise."""
    return Expectation(policy, "Sometimes", "Sometimes", None, (), rules)


def global_asid(taken: bool = True) -> Start:
    """The mm has a number that is the same on all CPUs; unless `taken` they have not loaded it yet."""

    def start(setup: Setup) -> None:
        setup.global_asid(ASID, taken=taken)

    return start


GIVES_UP = in_order(call(madvise, PAGE, MADV_DONTNEED), call(reuse, FAST))
READS = in_order(call(read_if_cached), call(read_if_cached))
STALE_RULES = (FRAME_REUSED, FREE, RETURNED)

# CPU 0                             CPU 1 has the page cached
# clear the entry
# INVLPGB
#                                   its TLB drops the page
# TLBSYNC; free and reuse the frame
#                                   read
SYNCED = Litmus(
    name="broadcast-synced",
    question="A flush is broadcast: has every TLB dropped the page when its frame is used again?",
    programs=(GIVES_UP, READS),
    setup=starts(pages(PAGE), global_asid()),
    expected=(
        x86_never("immediate", BROADCASTS, REUSED),
        x86_sometimes("mistake:no-tlbsync", *STALE_RULES),
        x86_sometimes("mistake:tlbsync-elsewhere", *STALE_RULES),
    ),
    drain=False,
    frugal=False,
    fast=1,
    mmu="x86-invlpgb",
)

# CPU 0                             CPU 1 runs the mm under a number of its own
# clear the entry
# INVLPGB of the global number
#                                   nothing is cached under that
# CPU 1 has another number: IPI
#                                   load the global number
# TLBSYNC; free and reuse the frame
TRANSITION = Litmus(
    name="broadcast-transition",
    question="An mm has just got its global number, which another CPU has not loaded: is that CPU flushed?",
    programs=(GIVES_UP, READS),
    setup=starts(pages(PAGE), global_asid(taken=False)),
    expected=(
        x86_never("immediate", BROADCASTS, REUSED),
        x86_sometimes("mistake:transition-unfinished", *STALE_RULES),
    ),
    drain=False,
    frugal=False,
    fast=1,
    mmu="x86-invlpgb",
)


async def _assign(cpu: PerCpu, mm: int) -> None:
    assert isinstance(cpu.mmu, X86Invlpgb)
    await cpu.mmu.use_global_asid(cpu, mm)
    cpu.count(NUMBERED)


def _given_before(setup: Setup) -> None:
    """Others have had numbers: the next one is given without a flush of everything."""
    setup.word(LAST_GLOBAL_ASID, ASID)


# CPU 0                             CPU 1 comes back to the mm
# (the mm gets its number)          no number yet: one of its own, where entries are kept
# clear the entry, INVLPGB
# CPU 1 is switching: wait
#                                   load CR3
# it has another number: IPI
GETS_NUMBER = Litmus(
    name="broadcast-number-assigned",
    question="An mm gets its global number while another CPU loads it: is that CPU flushed after that?",
    programs=(
        # It has taken the number itself: else its own CPU would be one that has another.
        in_order(call(_assign, MM), call(switch_to), GIVES_UP),
        in_order(call(switch_to, OTHER_MM), call(switch_to), call(read_if_cached)),
    ),
    setup=starts(pages(PAGE, cached=(1,)), _given_before),
    expected=(
        x86_never("immediate", BROADCASTS, REUSED),
        x86_sometimes("mistake:transition-unfinished", *STALE_RULES),
        x86_sometimes("mistake:switch-not-awaited", *STALE_RULES),
    ),
    drain=False,
    frugal=False,
    fast=1,
    mmu="x86-invlpgb",
)


def _freed_number(setup: Setup) -> None:
    """mm 1 has gone and its number was the last; what CPU 1 had cached under it is still there."""
    setup.area(PAGE, 1, mm=OTHER_MM)
    setup.page(PAGE, mm=OTHER_MM, version=9)
    setup.asid = ASID
    setup.word(GLOBAL_ASID_USED, 1 << ASID)
    setup.word(GLOBAL_ASID_FREED, 1 << ASID)
    setup.word(LAST_GLOBAL_ASID, ASID)


# CPU 0                             CPU 1 has a page of mm 1, which has gone, under number 6
# mm 2 gets a number: all had their
# turn, so flush all; 6 is free
#                                   load mm 2 under 6, without a flush
#                                   read
NUMBER_REUSED = Litmus(
    name="broadcast-number-reused",
    question="A global number is used again: is anything cached under it that its last owner had?",
    programs=(call(_assign, OTHER_MM), in_order(call(switch_to, OTHER_MM), call(read_if_cached))),
    setup=starts(pages(PAGE, cached=(1,)), _freed_number),
    expected=(
        x86_never("immediate", NUMBERED),
        x86_sometimes("mistake:asid-reused-unflushed", FOREIGN),
    ),
    drain=False,
    frugal=False,
    settings=(("max_asid_available", ASID + 1),),
    mmu="x86-invlpgb",
)
