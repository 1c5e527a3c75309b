"""madvise: pages that are given up, now or when memory is short, while others go on using them."""

from __future__ import annotations

from emulator.hardware.operations import (
    Load,
    SmpRmb,
    SmpWmb,
    Store,
    Translate,
    Walk,
    WriteFrame,
)
from emulator.hardware.pte import pte_pfn
from emulator.kernel.madvise import do_madvise, madvise_dontneed, madvise_free
from emulator.kernel.percpu import PerCpu
from emulator.kernel.user import user_read, user_write
from emulator.machine.litmus import FAST, MM, Forbidden, Litmus
from scenarios.litmus.answers import (
    DEFERRED,
    RECEIVED,
    REUSED,
    STALE,
    never,
    postings_never,
    postings_sometimes,
    sometimes,
)
from scenarios.litmus.pageout import LOST
from scenarios.litmus.starts import PAGE, pages
from scenarios.litmus.steps import call, in_order, mover, read_if_cached, reuse
from scenarios.litmus.syscalls import reclaim

DISCARDED = "pglazyfreed"
ADVISED = "litmus.advised"
WRITTEN = "litmus.written"
# The flush of a single page leaves no note, so a later flush interrupts once more for nothing.
FRUGAL = False


# CPU 0                             CPU 1 has frame 1 cached
# demote: 1 -> 2, deferred
# MADV_DONTNEED: clear the entry,
# which names 2; flush the page; free 2
#                                   read: frame 1 has to be gone, although the entry named 2
# flush what is pending, free 1, reuse
DONTNEED_PENDING = Litmus(
    name="dontneed-pending",
    question="A pending page is given up by MADV_DONTNEED: what happens to its source's translations?",
    programs=(
        in_order(mover, call(do_madvise, MM, PAGE, PAGE + 1, madvise_dontneed), call(reuse, FAST)),
        call(read_if_cached),
    ),
    setup=pages(PAGE, area=1),
    expected=(
        never("immediate", REUSED),
        *postings_never(DEFERRED, REUSED, STALE),
        sometimes("mistake:zap-without-flush"),
    ),
    frugal=FRUGAL,
    fast=1,
    slow=2,
)


async def _is_kept(cpu: PerCpu) -> None:
    written = await Load(WRITTEN)
    await SmpRmb()
    version = await user_read(cpu, PAGE)
    if written and version != 12:
        raise Forbidden(LOST, f"read version {version}, 12 was written after the advice")


async def _writes_after_advice(cpu: PerCpu) -> None:
    advised = await Load(ADVISED)
    await SmpRmb()
    entry = await Translate(PAGE, True) or await Walk(MM, PAGE, True)
    if advised and entry:
        await WriteFrame(MM, PAGE, pte_pfn(entry), 12)
        await SmpWmb()
        await Store(WRITTEN, 1)
        cpu.count("litmus_written")


_advice = call(do_madvise, MM, PAGE, PAGE + 1, madvise_free)

# CPU 0                             CPU 1 has the page writable and dirty
# MADV_FREE: the entry is clean
# IPI, wait
#                                   handle it
# return to the caller
#                                   write 12: walk, the entry is dirty
# reclaim: clear the entry; it is
# dirty, so back with it
# read: 12
FREE_WRITTEN = Litmus(
    name="madv-free-written",
    question="A page is written again after MADV_FREE: does reclaim drop it all the same?",
    programs=(in_order(_advice, SmpWmb(), Store(ADVISED, 1), reclaim, _is_kept), _writes_after_advice),
    setup=pages(PAGE, written=True, area=1),
    expected=(
        never("immediate", RECEIVED, DISCARDED, "litmus_written"),
        *postings_never(RECEIVED, DISCARDED, "litmus_written"),
        sometimes("mistake:protect-without-flush", LOST),
    ),
    frugal=FRUGAL,
    fast=2,
)


async def _written_by_reclaim(cpu: PerCpu) -> None:
    await _advice(cpu)
    await reclaim(cpu)


# CPU 0 reclaims                    CPU 1                         CPU 2 has frame 1 cached
# clear the entry: clean, so the
# flush is left to the batch
#                                   write: fault, frame 2;
#                                   data = 1, flag = 1
#                                                                 flag is 1
#                                                                 data, from frame 1: still old
# flush of the batch, free frame 1
REFAULT = Litmus(
    name="madv-free-refault",
    question="Reclaim drops a page of MADV_FREE and has not flushed: may another be written in its place?",
    programs=(_written_by_reclaim, call(user_write, PAGE, 11), call(read_if_cached)),
    setup=pages(PAGE, written=True, area=1, cached=(2,)),
    expected=(
        sometimes("immediate", "grace period: range reused"),
        *postings_sometimes("grace period: range reused"),
    ),
    frugal=FRUGAL,
    fast=2,
)
