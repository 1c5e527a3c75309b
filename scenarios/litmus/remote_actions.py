"""Flushes by messages on which the microcode of other CPUs acts (`--mmu x86-rar`): has it, and on what?"""

from __future__ import annotations

from dataclasses import replace

from emulator.hardware.operations import GetPmd, LocalIrqDisable, LocalIrqEnable
from emulator.hardware.pte import PSE
from emulator.kernel.gup import gup_pte_range, put_page
from emulator.kernel.mmu.x86_invlpgb import BROADCASTS
from emulator.kernel.mmu.x86_rar import X86Rar
from emulator.kernel.percpu import PerCpu
from emulator.machine.litmus import MM, Litmus
from scenarios.litmus import broadcasts, walkers
from scenarios.litmus.answers import FREED_TABLE, REUSED
from scenarios.litmus.broadcasts import (
    GIVES_UP,
    OTHER_MM,
    READS,
    STALE_RULES,
    global_asid,
    x86_never,
    x86_sometimes,
)
from scenarios.litmus.starts import OTHER, PAGE, pages, starts
from scenarios.litmus.steps import call, in_order, read_if_cached
from scenarios.litmus.syscalls import MADV_DONTNEED, madvise, switch_to

TRIMMED = "litmus_trimmed"
WALKED = "litmus_walked"

# CPU 0                             CPU 1 has the page cached
# clear the entry; payload
# pending for CPU 1, message
#                                   its microcode drops the page
# wait; free and reuse the frame
#                                   read
DONE = replace(
    broadcasts.SYNCED,
    name="rar-done",
    question="A flush is a message to the microcode of others: has it acted when the frame is used again?",
    expected=(
        x86_never("immediate", BROADCASTS, REUSED),
        x86_sometimes("mistake:rar-not-awaited", *STALE_RULES),
        x86_sometimes("mistake:rar-pending-first", *STALE_RULES),
    ),
    mmu="x86-rar",
)

# CPU 0                             CPU 1; each has the other's page cached
# lock; payload of its page
# message, wait
#                                   its own flush: wait for the lock
# its TLB drops what the payload says
# unlock; free and reuse the frame
#                                   lock; payload of the other page
SLOT_SHARED = Litmus(
    name="rar-slot-reused",
    question="Two CPUs share a payload of the table: is it written again before all have acted on it?",
    programs=(GIVES_UP, in_order(call(madvise, OTHER, MADV_DONTNEED), call(read_if_cached))),
    setup=starts(pages(PAGE, OTHER), global_asid()),
    expected=(
        x86_never("immediate", BROADCASTS, REUSED),
        x86_sometimes("mistake:rar-slot-unlocked", *STALE_RULES),
    ),
    drain=False,
    frugal=False,
    fast=2,
    settings=(("rar_max_payloads", 1),),
    mmu="x86-rar",
)


async def _trim(cpu: PerCpu) -> None:
    assert isinstance(cpu.mmu, X86Rar)
    await cpu.mmu.trim_cpumask(cpu, MM)
    cpu.count(TRIMMED)


# CPU 0                             CPU 1 has the page cached under the global number
#                                   load another mm; what is cached stays
# who runs something else leaves the
# mask: IPI
# clear the entry; nobody to send to
# free and reuse the frame
#                                   come back: new in the mask, so flush; read
LEFT = Litmus(
    name="rar-left-mask",
    question="A CPU has left the mask and is sent nothing any more: does it flush when it comes back?",
    programs=(
        in_order(call(_trim), GIVES_UP),
        in_order(call(switch_to, OTHER_MM), call(switch_to), call(read_if_cached)),
    ),
    setup=starts(pages(PAGE), global_asid()),
    expected=(
        x86_never("immediate", BROADCASTS, REUSED, TRIMMED),
        x86_sometimes("mistake:rar-comes-back-unflushed", *STALE_RULES),
    ),
    drain=False,
    frugal=False,
    fast=1,
    mmu="x86-rar",
)

# CPU 0 has the page cached         CPU 1, too
# clear the entry
# flush here; message to CPU 1 only
# free and reuse the frame; read
OWN = replace(
    broadcasts.SYNCED,
    name="rar-own-tlb",
    question="A CPU's message to itself was seen to be answered and not to flush: does it flush by itself?",
    programs=(in_order(GIVES_UP, call(read_if_cached)), READS),
    expected=(
        x86_never("immediate", BROADCASTS, REUSED),
        x86_sometimes("mistake:rar-to-itself", *STALE_RULES),
    ),
    mmu="x86-rar",
)

# CPU 0                             CPU 1 runs the mm under a number of its own
# message of the global number
# CPU 1 has another number: IPI
#                                   load the global number, flush
RAR_TRANSITION = replace(
    broadcasts.TRANSITION,
    name="rar-transition",
    question="Messages name the number that an mm has just got: is a CPU flushed that has not loaded it?",
    mmu="x86-rar",
)


async def _walks(cpu: PerCpu) -> None:
    """get_user_pages_fast_only: interrupts are off, which no message waits for."""
    await LocalIrqDisable()
    pmd = await GetPmd(MM, walkers.TABLE)
    if pmd and not pmd & PSE:
        cpu.count(WALKED)
        pfn = await gup_pte_range(cpu, MM, walkers.TABLE, False, pmd)
        if pfn >= 0:
            await put_page(pfn)
    await LocalIrqEnable()


# CPU 0                             CPU 1 walks without locks: interrupts off
#                                   read the PMD
# munmap: the table goes; message
#                                   its microcode acts, interrupts off or not
# all who walk are through? (RCU)
#                                   read the entry in the table; interrupts on
# free the table
GUP = Litmus(
    name="rar-gup-fast",
    question="Microcode acts with interrupts off, too: is a page table freed under get_user_pages_fast?",
    programs=(walkers.FREED.programs[0], _walks),
    setup=starts(walkers.one_in_a_table(), global_asid()),
    expected=(
        x86_never("immediate", BROADCASTS, walkers.UNMAPPED, WALKED),
        x86_sometimes("mistake:rar-tables-at-once", FREED_TABLE),
    ),
    drain=False,
    frugal=False,
    settings=(walkers.WALKERS,),
    mmu="x86-rar",
)
