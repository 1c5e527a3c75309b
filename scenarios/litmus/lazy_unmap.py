"""What LUF's reviewers asked: reclaim leaves read-only translations of pages that others go on to change."""

from __future__ import annotations

from emulator.checks.grace_period import OWED, REFILLED_EARLY, REWRITTEN
from emulator.checks.grace_period import REUSED as FRAME_REUSED_EARLY
from emulator.checks.luf_debug import OWING
from emulator.hardware.operations import FilemapRemove, FolioGet, FolioPut, Translate, WriteFrame
from emulator.hardware.pte import pte_pfn
from emulator.kernel.memory import filemap_fault
from emulator.kernel.percpu import PerCpu, tlb_flush_batched_word
from emulator.kernel.rmap import flush_tlb_batched_pending, try_to_unmap, try_to_unmap_flush
from emulator.kernel.user import user_write, walk
from emulator.machine.litmus import FAST, MM, SLOW, Litmus, Setup
from emulator.policies.luf_clock import LUF_UGEN, LufBatch, mm_batch, ugen_done_word
from scenarios.litmus.answers import (
    AFTER_RETURN,
    DEFERRED,
    LUF,
    LUF_12,
    OVERWRITTEN,
    POSTINGS,
    READ_AGAIN,
    REUSED,
    STALE,
    WRONG_VERSION,
    broken_on_arm64,
    luf_never,
    luf_sometimes,
    never,
    sometimes,
)
from scenarios.litmus.starts import FILE, FLAG, PAGE, VERSION, Start, file_page, pages, runs
from scenarios.litmus.steps import (
    WRITTEN,
    bystander,
    call,
    finds,
    in_order,
    mover,
    once_returned,
    read_if_cached,
    returns,
    reuse,
)
from scenarios.litmus.syscalls import KEPT, reclaim, switch_to, write_file

SLOW_FRAME = 5
CACHE = "read of a version that the file page does not have"
NO_GRACE = ("grace*",)
"""Only what can be seen counts: the fault-end flush comes after the entry, which the rules mind anyway."""


def _file_page_of(*cpus: int) -> Start:
    return file_page(cached=cpus, stored=True)


def _far_file_page(*cpus: int) -> Start:
    """The same in the slow node, so that what is read in again gets another frame, whoever takes first."""

    def start(setup: Setup) -> None:
        setup.area(PAGE, 1, writable=False, file=FILE, shared=True)
        pfn = setup.page(PAGE, SLOW, exclusive=False, version=VERSION, cached=cpus)
        assert pfn == SLOW_FRAME
        setup.in_page_cache(pfn, FILE, 0)
        setup.on_disk(FILE, 0, VERSION)

    return start


_reclaims = in_order(call(reclaim, SLOW_FRAME), call(returns))
_reads_twice = in_order(call(read_if_cached), call(read_if_cached))
_finds_written = once_returned(call(finds, WRITTEN), of="written")

# CPU 0                             CPU 1                         CPU 2 has frame 5 cached
# reclaim: clear the entry, defer,
# out of the cache, free frame 5
#                                   write(2): a new page, WRITTEN
#                                                                 read: WRITTEN, not frame 5's
FILE_WRITTEN = Litmus(
    name="reclaimed-file-written",
    question="Another process writes to a file whose page was reclaimed: may the old page still be read?",
    programs=(
        _reclaims,
        once_returned(call(write_file, FILE, 0, WRITTEN), call(returns, of="written")),
        in_order(call(read_if_cached), _finds_written),
    ),
    setup=_far_file_page(2),
    expected=(
        never("immediate", AFTER_RETURN),
        never("migrc:v9", AFTER_RETURN),
        *(sometimes(policy, CACHE, WRONG_VERSION) for policy in ("luf:v10", "luf:v11", "luf:v12")),
        broken_on_arm64(never("luf:v12-required", AFTER_RETURN), CACHE, WRONG_VERSION),
    ),
    frugal=False,
    ignore=NO_GRACE,
)


def _two_mappings(setup: Setup) -> None:
    """The page of FILE, read-only at PAGE, which CPU 2 has cached, and mappable writable at FLAG."""
    _far_file_page(2)(setup)
    setup.area(FLAG, 1, file=FILE, shared=True)


# The same, but written through a second, writable mapping of the same process.
ALIAS_WRITTEN = Litmus(
    name="reclaimed-alias-written",
    question="A reclaimed page is written through another mapping of the process: may the old one be read?",
    programs=(
        _reclaims,
        once_returned(call(user_write, FLAG, WRITTEN), call(returns, of="written")),
        in_order(call(read_if_cached), _finds_written),
    ),
    setup=_two_mappings,
    expected=(
        never("immediate", AFTER_RETURN),
        never("migrc:v9", AFTER_RETURN),
        *(sometimes(policy, CACHE, WRONG_VERSION) for policy in ("luf:v10", "luf:v11", "luf:v12")),
        broken_on_arm64(never("luf:v12-required", AFTER_RETURN), CACHE, WRONG_VERSION),
    ),
    frugal=False,
    ignore=NO_GRACE,
)

# CPU 0                             CPU 1 has frame 1 cached
# reclaim: clear the entry, defer, free frame 1
# take frame 1 for something else: flush first
#                                   read, if it is still cached
_TAKES_AGAIN = (in_order(call(reclaim), call(reuse, FAST)), _reads_twice)
FRAME_REUSED = Litmus(
    name="reclaimed-frame-reused",
    question="The kernel takes a reclaimed frame for data of its own: may a user still read it?",
    programs=_TAKES_AGAIN,
    setup=_file_page_of(1),
    expected=(
        never("immediate", REUSED),
        never("migrc:v9", REUSED),
        *luf_never(DEFERRED, REUSED, STALE)[:2],
        *(broken_on_arm64(never(policy, DEFERRED, REUSED, STALE), FRAME_REUSED_EARLY) for policy in LUF_12),
    ),
    frugal=False,
    fast=1,
)

# The same, as LUF's own debugging sees it.
FRAME_DEBUGGED = Litmus(
    name="luf-debug-reused",
    question="The same: does LUF_DEBUG find the frame used while its page owes a flush?",
    programs=_TAKES_AGAIN,
    setup=_file_page_of(1),
    expected=tuple(never(policy, DEFERRED, REUSED) for policy in LUF_12),
    frugal=False,
    fast=1,
    rules=(OWING,),
)


async def _writes_without_a_fault(cpu: PerCpu) -> None:
    """As long as what it finds lets it."""
    pte = await Translate(PAGE, True) or await walk(cpu, MM, PAGE, True)
    if pte:
        await WriteFrame(MM, PAGE, pte_pfn(pte), 2)


# CPU 0                             CPU 1                         CPU 2 has frame 1 cached
# demote: 1 -> 5, deferred
# write fault: frame 5 is writable
#                                   write, without a fault
#                                                                 read frame 1: old
# the fault's flush
FAULT_END = Litmus(
    name="fault-end-flush",
    question="A fault flushes at its end for what it has mapped: may others have written there by then?",
    programs=(in_order(mover, call(user_write, PAGE, 1)), _writes_without_a_fault, _reads_twice),
    setup=pages(PAGE, cached=(2,)),
    expected=(
        never("immediate", "pgmigrate_success"),
        never("migrc:v9", DEFERRED),
        never("luf:v10", DEFERRED),
        *(sometimes(policy, OVERWRITTEN) for policy in LUF[1:]),
    ),
    frugal=False,
    ignore=NO_GRACE,
)


def _caught_up(setup: Setup) -> None:
    """As if an unmap of this mm had been flushed for, everywhere: the mm's batch has all CPUs of it.

    CPUs 0 and 1, so that nobody interrupts them, have flushed at a time to come.
    """
    pages(PAGE, cached=(2,))(setup)
    setup.word(LUF_UGEN, 2)
    setup.word(mm_batch(MM), LufBatch((1 << setup.cpus) - 1, 3).word)
    for cpu, ugen in enumerate((99, 99, 4)):
        setup.word(ugen_done_word(cpu), ugen)


async def _switches(cpu: PerCpu) -> None:
    """A kernel thread borrows the mm, and then this task runs again."""
    await cpu.policy.switched(cpu, MM)


# CPU 0 demotes                     CPU 1                         CPU 2 has frame 1 cached
# clear the entry
# the mm owes a flush from time 5
# on; no CPU is new to its batch
#                                   time 6, flush CPU 2
#                                                                 its generation is the mm's: nothing to do
#                                   CPU 2 has flushed at time 6
# raise the mm's generation, copy,
# map frame 5
# write: frame 5 is writable; all
# have flushed since time 5
#                                                                 read frame 1: old
DEBT_BEFORE_GENERATION = Litmus(
    name="debt-before-generation",
    question="The mm's debt is told before its generation is raised: is a flush in between one for it?",
    programs=(
        in_order(mover, call(user_write, PAGE, 1), call(returns, of="written")),
        _switches,
        once_returned(call(read_if_cached), of="written"),
    ),
    setup=_caught_up,
    expected=(
        never("immediate", AFTER_RETURN),
        never("migrc:v3", DEFERRED),
        never("migrc:rfc2", DEFERRED),
        never("migrc:v9", DEFERRED),
        never("luf:v10", DEFERRED),
        *(sometimes(policy, OVERWRITTEN) for policy in LUF[1:]),
    ),
    frugal=False,
    ignore=NO_GRACE,
)


async def _reclaims_and_switches(cpu: PerCpu) -> None:
    """shrink_folio_list, which gives way (cond_resched) between the unmap and its flush: a kernel thread runs
    that borrows the mm, and then this task again."""
    if await try_to_unmap(cpu, 1):
        await cpu.policy.switched(cpu, MM)
        await try_to_unmap_flush(cpu)


def _writable_page(setup: Setup) -> None:
    file_page(cached=(1,), written=True, stored=True)(setup)


# CPU 0, in direct reclaim          CPU 1 has frame 1 writable
# clear the entry: to be flushed for
# switch to a kernel thread and back:
# the mm never owed anything; who has
# flushed since then is left out of
# what the task owes, and all have
# flush nobody
SWITCH_DROPS_DEBT = Litmus(
    name="switch-drops-debt",
    question="A task that owes a flush is switched away from and back: does it still owe it?",
    programs=(_reclaims_and_switches, call(read_if_cached)),
    setup=_writable_page,
    expected=(
        never("immediate", STALE),
        *luf_never(STALE)[:2],
        # On arm64 a batch has no CPUs to be left out of it.
        *(sometimes(policy, OWED)._replace(arm64="Never") for policy in LUF_12),
    ),
    frugal=False,
)


def _of_another_mm(setup: Setup) -> None:
    """CPU 1 runs mm 2, which maps the page of FILE read-only; in mm 1 an unmap was counted."""
    runs(1, 2)(setup)
    setup.area(PAGE, 1, writable=False, file=FILE, shared=True, mm=2)
    pfn = setup.page(PAGE, exclusive=False, version=VERSION, mm=2, cached=(1,))
    setup.in_page_cache(pfn, FILE, 0)
    setup.on_disk(FILE, 0, VERSION)
    setup.word(tlb_flush_batched_word(MM), 1)


# CPU 0                             CPU 1 runs mm 2, has frame 1 cached
# reclaim: CPU 1 owes from time 3 on
#                                   switch to mm 1
# flush mm 1, at time 5: all its CPUs
# have flushed since then
# take frame 1: nobody owes anything
#                                   switch to mm 2: its generation has been raised
#                                   read
ONE_MM_MARKS_ALL = Litmus(
    name="flush-of-one-mm-marks-all",
    question="A flush of one mm counts for all that its CPUs owe: may another mm's page be read?",
    programs=(
        in_order(call(reclaim), call(flush_tlb_batched_pending, MM), call(reuse, FAST)),
        in_order(call(switch_to, 1), call(switch_to, 2), call(read_if_cached)),
    ),
    setup=_of_another_mm,
    expected=(
        never("immediate", REUSED),
        never("migrc:v9", REUSED),
        *luf_never(DEFERRED, REUSED),
    ),
    frugal=False,
    fast=1,
)

# CPU 0                             CPU 1 has frame 1 cached
# somebody has a reference on 1
# reclaim: clear the entry, defer;
# 1 stays
# reclaim 1, which is mapped nowhere:
# nothing is owed for it
# take frame 1 for something else
#                                   read
KEPT_THEN_FREED = Litmus(
    name="reclaimed-kept-freed-later",
    question="Reclaim has unmapped a page that stays, and frees it the next time: has it been flushed for?",
    programs=(
        in_order(FolioGet(1), call(reclaim), FolioPut(1), call(reclaim), call(reuse, FAST)),
        _reads_twice,
    ),
    setup=_file_page_of(1),
    expected=(
        never("immediate", KEPT, REUSED),
        never("migrc:v9", KEPT, REUSED),
        *(sometimes(policy, FRAME_REUSED_EARLY) for policy in LUF[:2]),
        *(broken_on_arm64(never(policy, KEPT, REUSED), FRAME_REUSED_EARLY) for policy in LUF_12),
    ),
    frugal=False,
    fast=1,
)

# Dave Hansen's two rules, which those who defer must break: what comes of it the other tests ask.
ENTRY_REWRITTEN = Litmus(
    name="deferred-entry-rewritten",
    question="Is an entry whose flush is deferred written again before that?",
    programs=(mover, bystander),
    setup=pages(PAGE, cached=(1,)),
    expected=(
        never("immediate", "pgmigrate_success"),
        *(sometimes(policy, REWRITTEN) for policy in (*POSTINGS, *LUF)),
    ),
    frugal=False,
    rules=(REWRITTEN,),
)


async def _reclaims_but_frees(cpu: PerCpu) -> None:
    """shrink_folio_list to the end of its flush: what is left is to free the frame."""
    await try_to_unmap(cpu, SLOW_FRAME)
    await FilemapRemove(FILE, 0, SLOW_FRAME, 1)
    await cpu.policy.reclaim_unmapped(cpu)
    await try_to_unmap_flush(cpu)


SLOT_REFILLED = Litmus(
    name="reclaimed-slot-refilled",
    question="Is a page of a file read in again before what was reclaimed there is flushed for?",
    programs=(in_order(call(_reclaims_but_frees), call(filemap_fault, FILE, 0)), bystander),
    setup=_far_file_page(1),
    expected=(
        never("immediate", READ_AGAIN),
        never("migrc:v9", READ_AGAIN),
        *luf_sometimes(REFILLED_EARLY),
    ),
    drain=False,
    frugal=False,
    rules=(REFILLED_EARLY,),
)
