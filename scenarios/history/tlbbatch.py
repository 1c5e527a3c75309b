"""Bugs of TLBIs that a batch has issued and not waited for (arch/arm64/include/asm/tlbflush.h)."""

from __future__ import annotations

from emulator.hardware.operations import WaitPte
from emulator.hardware.pte import ACCESSED, PRESENT, mk_pte
from emulator.machine.litmus import MM, Litmus
from scenarios.history.bug import Bug
from scenarios.litmus.answers import NO_PERMISSION, RETURNED
from scenarios.litmus.arm64 import arm64_never, arm64_sometimes
from scenarios.litmus.starts import PAGE, file_page
from scenarios.litmus.steps import call, cannot_read, in_order
from scenarios.litmus.syscalls import PROT_NONE, mprotect, reclaim

DSB_OF_ANOTHER_CPU = Bug(
    name="dsb-of-another-cpu",
    title="who comes upon a batch's TLBIs waits for them by a DSB of its own",
    kinds=("WO",),
    story="CPU 1 (reclaim) unmaps a page, issues the TLBI and leaves the DSB to the end of its batch. "
    "CPU 0 (mprotect) finds no entry, sees that a flush is owed and executes a DSB. That completes TLBIs of "
    "its own CPU alone, so that TLBs may still hold the page when the call returns; its own thread goes on "
    "using it.",
    affected="v6.6 to v6.15, since 43b3dfdd0455",
    source="the commit, as sent to 6.6-stable (<20250623130628.481462587@linuxfoundation.org>)",
    fix="4b634918384c",
    test=Litmus(
        name="dsb-of-another-cpu",
        question="A batch's TLBIs are under way on another CPU: is anything cached when mprotect returns?",
        programs=(
            in_order(
                WaitPte(MM, PAGE, mk_pte(1, PRESENT | ACCESSED)),
                call(mprotect, PAGE, PROT_NONE),
                call(cannot_read, PAGE),
            ),
            call(reclaim, 1),
        ),
        setup=file_page(cached=(0,), stored=True),
        expected=(
            arm64_never("immediate", "tlbi_broadcasts"),
            arm64_sometimes("mistake:before-4b634918384c", NO_PERMISSION, RETURNED),
        ),
        drain=False,
        frugal=False,
        fast=2,
        mmu="arm64",
    ),
    before="mistake:before-4b634918384c",
)
