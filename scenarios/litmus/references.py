"""get_user_pages on a folio that is pending: the kernel goes past the TLB, others may not have yet."""

from __future__ import annotations

from emulator.kernel.gup import get_user_pages, kernel_read, kernel_write, put_page
from emulator.kernel.percpu import PerCpu
from emulator.machine.litmus import MM, Forbidden, Litmus
from emulator.memory.folios import USED_FREE
from scenarios.litmus.answers import (
    DEFERRED,
    FRAME_REUSED,
    LUF,
    LUF_12,
    MADE_WRITABLE,
    REUSED,
    STALE,
    STAYED,
    WRITE_FAULTS,
    broken_on_arm64,
    never,
    postings_never,
    sometimes,
)
from scenarios.litmus.starts import PAGE, VERSION, cached_page
from scenarios.litmus.steps import move, moves_and_reuses, reader


async def _writes_pinned(cpu: PerCpu) -> None:
    await move(cpu, 1)
    pfn = await get_user_pages(cpu, MM, PAGE, True)
    await kernel_write(cpu, MM, PAGE, pfn, 11)
    await put_page(pfn)


# CPU 0                             CPU 1 has frame 1 cached
# demote: 1 -> 2, deferred
# get_user_pages for writing: entry
# is read-only, so fault: flush
#                                   handle the IPI
# pin frame 2, write it
#                                   read: must not find the source's old content
GUP_WRITE = Litmus(
    name="gup-write-pending",
    question="Does get_user_pages for writing flush what is pending before the kernel writes?",
    programs=(_writes_pinned, reader),
    setup=cached_page,
    expected=(
        never("immediate"),
        never("luf:v10", DEFERRED, WRITE_FAULTS),
        *(sometimes(policy, MADE_WRITABLE) for policy in LUF[1:]),
        *postings_never(DEFERRED, STALE, WRITE_FAULTS),
        sometimes("mistake:write-fault-forgets"),
    ),
    fast=2,
    slow=2,
)


async def _reads_pinned(cpu: PerCpu) -> None:
    pfn = await get_user_pages(cpu, MM, PAGE, False)
    found = await kernel_read(MM, PAGE, pfn)
    await put_page(pfn)
    if found != VERSION:
        raise Forbidden("read of a pinned page", f"frame {pfn} has version {found}, not {VERSION}")


# CPU 0 demotes, then needs memory  CPU 1
#                                   entry names 1: take a reference
# entry = migration entry
#                                   entry has changed: drop it, look again
# or: the reference is there first,
# migration fails, entry names 1 again
#                                   read
GUP_READ = Litmus(
    name="gup-read-pending",
    question="Does get_user_pages for reading ever pin a source that is about to be freed?",
    programs=(moves_and_reuses, _reads_pinned),
    setup=cached_page,
    expected=(
        never("immediate", STAYED, REUSED),
        *(sometimes(policy, FRAME_REUSED) for policy in LUF[:2]),
        *(broken_on_arm64(sometimes(policy, USED_FREE), FRAME_REUSED) for policy in LUF_12),
        *postings_never(DEFERRED, STAYED, REUSED),
    ),
    fast=2,
    slow=2,
)
