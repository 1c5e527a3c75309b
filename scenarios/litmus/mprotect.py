"""mprotect makes a range writable while its flush is still in its batch and older translations are about.

The question that Nadav Amit asked about v3 (<63C530D3-3A1D-4BE9-8AA7-EFF5B895BE80@vmware.com>): two words,
one writer, one reader, and the reader sees the second word's new value and the first one's old.
"""

from __future__ import annotations

from dataclasses import replace

from emulator.hardware.operations import Load, SmpRmb, SmpWmb, Store, Translate
from emulator.hardware.pte import pte_pfn
from emulator.kernel.memory import SegmentationFault
from emulator.kernel.mmap import do_munmap
from emulator.kernel.mprotect import PROT_NONE, READ_WRITE, do_mprotect_pkey
from emulator.kernel.percpu import PerCpu
from emulator.kernel.user import user_read, user_write
from emulator.machine.litmus import MM, Forbidden, Litmus, Setup
from scenarios.litmus.answers import (
    DEFERRED,
    LUF,
    MADE_WRITABLE,
    RECEIVED,
    RETURNED,
    luf_sometimes,
    never,
    never_on_x86,
    postings_never,
    postings_sometimes,
    sometimes,
)
from scenarios.litmus.starts import FLAG, PAGE, VERSION, cached_page
from scenarios.litmus.steps import call, in_order, mover, read


def _data_and_flag(setup: Setup) -> None:
    setup.area(PAGE, 1, writable=False)
    setup.area(FLAG, 1)
    setup.page(PAGE, version=VERSION, cached=(1,))
    setup.page(FLAG, writable=True, dirty=True, cached=range(setup.cpus))


async def _reader(cpu: PerCpu) -> None:
    flag = await user_read(cpu, FLAG)
    await SmpRmb()
    data = await read(cpu)
    if flag == 1 and data == VERSION:
        raise Forbidden("message passing", f"the flag is 1, the data behind it still {data}")


async def _writer(cpu: PerCpu) -> None:
    try:
        await user_write(cpu, PAGE, 1)
    except SegmentationFault:
        return
    cpu.count("litmus_written")
    # What the question takes for granted: one CPU's writes become visible in their order.
    await SmpWmb()
    await user_write(cpu, FLAG, 1)


# CPU 0                             CPU 1 has page -> src cached  CPU 2
# demote: src -> dst, deferred
# mprotect: entry = dst, writable
#                                                                 walk: dst, writable; data = 1
#                                                                 flag = 1
#                                   flag is 1
#                                   data, from src: still old
# flush of the batch
MPROTECT = Litmus(
    name="mprotect-message-passing",
    question="May a CPU see the new flag and the old data while mprotect still owes its flush?",
    programs=(in_order(mover, call(do_mprotect_pkey, MM, PAGE, PAGE + 1, READ_WRITE)), _reader, _writer),
    setup=_data_and_flag,
    expected=(
        never("immediate", RECEIVED, "litmus_written"),
        *luf_sometimes(MADE_WRITABLE),
        *postings_sometimes(MADE_WRITABLE),
    ),
    settings=(("tlb_flush_batched", False),),
)

# As above, but as mainline does it (and has since v4.13): change_pte_range first asks whether anything was
# unmapped whose flush may still be owed, and flushes the whole mm. A deferred unmap counts as one.
MPROTECT_BATCHED = replace(
    MPROTECT,
    name="mprotect-batched-pending",
    question="The same, where mprotect first flushes for what was unmapped before (tlb_flush_batched).",
    expected=(
        never("immediate", RECEIVED, "litmus_written"),
        *(never_on_x86(policy, DEFERRED) for policy in LUF[:3]),
        never("migrc:v3", DEFERRED, "litmus_written"),
        never("migrc:rfc2", DEFERRED, "litmus_written"),
    ),
    settings=(),
    # It flushes without asking who has flushed since.
    frugal=False,
)

PROTECTED = "litmus.protected"
_takes_permission = in_order(
    call(do_mprotect_pkey, MM, PAGE, PAGE + 1, PROT_NONE), SmpWmb(), Store(PROTECTED, 1)
)


async def _denied(cpu: PerCpu) -> None:
    protected = await Load(PROTECTED)
    await SmpRmb()
    cached = await Translate(PAGE, False)
    if protected and cached:
        raise Forbidden("no permission", f"the page is PROT_NONE, but frame {pte_pfn(cached)} may be read")
    if protected:
        cpu.count("litmus_denied")


# CPU 0                             CPU 1 has page -> src cached
# demote: src -> dst, deferred
# mprotect to PROT_NONE: the entry,
# which names dst; IPI for the page
#                                   read src, before it
#                                   handle the IPI
# return to the caller
#                                   read: a fault, and refused
PROT_NONE_PENDING = Litmus(
    name="mprotect-none-pending",
    question="A pending page becomes PROT_NONE: may its source be read when mprotect has returned?",
    programs=(in_order(mover, _takes_permission), _denied),
    setup=cached_page,
    expected=(never("immediate", RECEIVED, "litmus_denied"), *postings_never(DEFERRED, "litmus_denied")),
    # The flush of a single page leaves no note, so a later flush interrupts once more for nothing.
    frugal=False,
)


def _two_pages(setup: Setup) -> None:
    """Another area keeps the page table: if munmap freed it, everything would be flushed."""
    setup.area(PAGE, 2)
    setup.area(FLAG, 1)
    for vpn in (PAGE, PAGE + 1):
        setup.page(vpn, version=VERSION, cached=(1,))


async def _waits(cpu: PerCpu) -> None:
    """Only takes interrupts."""


MPROTECT_RANGE = Litmus(
    name="mprotect-range",
    question="mprotect takes rights from two pages: may one of them be used when it has returned?",
    programs=(call(do_mprotect_pkey, MM, PAGE, PAGE + 2, PROT_NONE), _waits),
    setup=_two_pages,
    expected=(never("immediate", RECEIVED), sometimes("mistake:mprotect-flushes-all-but-one", RETURNED)),
)
MUNMAP_RANGE = Litmus(
    name="munmap-range",
    question="munmap takes two pages: may one of them be used when it has returned?",
    programs=(call(do_munmap, MM, PAGE, PAGE + 2), _waits),
    setup=_two_pages,
    expected=(never("immediate", RECEIVED), sometimes("mistake:munmap-flushes-all-but-one", RETURNED)),
)
