"""What can go wrong where nobody is interrupted for a flush (`--arch arm64`): barriers, numbers that run out.

The first is the software shootdown of Simner et al. (ESOP 2022): one CPU
has another invalidate its own TLB, which takes the same barriers there.
"""

from __future__ import annotations

from emulator.hardware.operations import Dsb, Isb, Load, SetPte, Store, Tlbi, Translate
from emulator.kernel.mmu.arm64 import (
    ASID_MAP,
    ASID_NEXT,
    BROADCASTS,
    ROLLOVERS,
    active_asid_word,
    context_id_word,
    tag,
)
from emulator.kernel.percpu import PerCpu
from emulator.kernel.smp import ipi_function, smp_call_function
from emulator.machine.litmus import FAST, MM, Expectation, Forbidden, Litmus, Setup
from scenarios.litmus.answers import FOREIGN, FRAME_REUSED, FREE, RETURNED, REUSED
from scenarios.litmus.starts import PAGE, VERSION, pages, starts
from scenarios.litmus.steps import call, in_order, read_if_cached, reuse
from scenarios.litmus.syscalls import MADV_DONTNEED, madvise, switch_to

FLAG = "litmus_shot_down"
SEEN = "litmus_flag_seen"
OLD_TRANSLATION = "old translation after the shootdown"


def arm64_never(policy: str, *reached: str) -> Expectation:
    """As `never`, of what only arm64 has."""
    return Expectation(policy, None, None, None, reached, arm64="Never")


def arm64_sometimes(policy: str, *rules: str) -> Expectation:
    """As `sometimes`, likewise."""
    return Expectation(policy, None, None, None, (), rules, arm64="Sometimes")


@ipi_function
async def invalidate_here(cpu: PerCpu, arguments: tuple[int, ...]) -> None:
    """TLBI VAE1, DSB NSH: this CPU's TLB alone."""
    await Tlbi(cpu.number, cpu.bit, tag(1), MM, PAGE, PAGE + 1, 1, True)
    await Dsb(cpu.number, cpu.bit)


async def shoots_down(cpu: PerCpu) -> None:
    """A program: take the page away, have the other CPU invalidate its TLB, and say so by a plain store."""
    await SetPte(MM, PAGE, 0)
    await Dsb(cpu.number, cpu.parameters.all_cpus)
    await smp_call_function(cpu, invalidate_here)
    await Dsb(cpu.number, cpu.parameters.all_cpus)
    await Store(FLAG, 1)


async def sees_and_reads(cpu: PerCpu) -> None:
    """A program: read whether it is said, DSB, ISB, use the page."""
    flag = await Load(FLAG)
    await Dsb(cpu.number, cpu.parameters.all_cpus)
    await Isb()
    await old_translation(cpu, flag)


async def old_translation(cpu: PerCpu, flag: int) -> None:
    """The page is still translated. Forbidden raised if it must not be."""
    if flag:
        cpu.count(SEEN)
    if await Translate(PAGE, False) and flag:
        raise Forbidden(OLD_TRANSLATION, f"page {PAGE:#x} is still translated, though flag 1 has been read")


# MP.RT.EL1+dsb-shootdown-dsb+dsb-isb
# CPU 0                             CPU 1 has the page cached
# entry := 0; DSB; IPI
#                                   TLBI; DSB; acknowledge
# DSB; flag := 1
#                                   read flag; DSB; ISB; use the page
SHOOTDOWN = Litmus(
    name="software-shootdown",
    question="Each CPU invalidates its own TLB when asked: who sees that all have, can it use the old entry?",
    programs=(shoots_down, sees_and_reads),
    setup=pages(PAGE, cached=(1,)),
    expected=(arm64_never("immediate", SEEN),),
    drain=False,
    frugal=False,
    speculated=(PAGE,),
    mmu="arm64",
    ignore=("grace period*", "access to a free frame"),
)

GIVES_UP = in_order(call(madvise, PAGE, MADV_DONTNEED), call(reuse, FAST))
READS = in_order(call(read_if_cached), call(read_if_cached))
STALE_RULES = (FRAME_REUSED, FREE, RETURNED)

# CPU 0                             CPU 1 has the page cached
# clear the entry, DSB ISHST, TLBI
#                                   its TLB drops the page
# DSB ISH; free and reuse the frame
#                                   read
BEFORE_REUSE = Litmus(
    name="tlbi-before-reuse",
    question="A page is invalidated by TLBI: has every TLB dropped it when its frame is used again?",
    programs=(GIVES_UP, READS),
    setup=pages(PAGE),
    expected=(
        arm64_never("immediate", BROADCASTS, REUSED),
        arm64_sometimes("mistake:no-dsb-after-tlbi", *STALE_RULES),
        arm64_sometimes("mistake:tlbi-not-broadcast", *STALE_RULES),
    ),
    drain=False,
    frugal=False,
    fast=1,
    mmu="arm64",
)

OTHER_MM = 2


def _numbers_run_out(setup: Setup) -> None:
    """Three numbers: CPU 0 runs mm 4 under 2, CPU 1 mm 1 under 1; 3 is that of mm 3. mm 2 has none yet."""
    first = 1 << setup.parameters.asid_bits
    setup.load(0, 4)
    for mm, asid in ((MM, 1), (4, 2), (3, 3)):
        setup.word(context_id_word(mm), first | asid)
    setup.word(active_asid_word(0), first | 2)
    setup.word(active_asid_word(1), first | 1)
    setup.word(ASID_MAP, 0b1110)
    setup.word(ASID_NEXT, 3)
    setup.area(PAGE, 1, mm=OTHER_MM)
    setup.page(PAGE, mm=OTHER_MM, version=VERSION + 2)


# CPU 0 runs mm 4 under 2           CPU 1 has a page of mm 1 cached, under 1
#                                   switch to mm 3, whose number is 3
# switch to mm 2: numbers have run out
# 2 and 3 are run, so 1 is the next free one
#                                   switch to mm 2, under 1: flush all before
#                                   read
ROLLOVER = Litmus(
    name="asid-rollover",
    question="Address-space numbers have run out: is anything cached under one that its last owner had?",
    programs=(
        in_order(call(switch_to, OTHER_MM), call(read_if_cached)),
        in_order(call(switch_to, 3), call(switch_to, OTHER_MM), call(read_if_cached)),
    ),
    setup=starts(pages(PAGE, cached=(1,)), _numbers_run_out),
    expected=(
        arm64_never("immediate", ROLLOVERS),
        arm64_sometimes("mistake:rollover-unflushed", FOREIGN),
    ),
    drain=False,
    frugal=False,
    settings=(("asid_bits", 2),),
    mmu="arm64",
)

# CPU 0 runs mm 4 under 2           CPU 1 runs mm 1 under 1, and has its page cached
# switch to mm 2: numbers have run out
# 1 is run, so it stays with mm 1
# switch to mm 1: under 1, as on CPU 1
# clear the entry, TLBI of 1, DSB; reuse
#                                   read
RESERVED = Litmus(
    name="asid-reserved",
    question="Numbers run out while a CPU runs an address space: do flushes of that still reach it?",
    programs=(
        in_order(call(switch_to, OTHER_MM), call(switch_to), GIVES_UP),
        in_order(call(read_if_cached), call(read_if_cached)),
    ),
    setup=starts(pages(PAGE, cached=(1,)), _numbers_run_out),
    expected=(
        arm64_never("immediate", ROLLOVERS, REUSED),
        arm64_sometimes("mistake:running-asids-not-reserved", *STALE_RULES, FOREIGN),
    ),
    drain=False,
    frugal=False,
    fast=2,
    settings=(("asid_bits", 2),),
    mmu="arm64",
)
