"""Faults that are under way while their area changes: the area's lock, or mmap_lock before v6.4."""

from __future__ import annotations

from emulator.hardware.operations import GetPte
from emulator.kernel.memory import SegmentationFault
from emulator.kernel.percpu import PerCpu
from emulator.kernel.user import user_read, user_write
from emulator.machine.litmus import MM, Forbidden, Litmus, Setup
from scenarios.litmus.answers import (
    AFTER_RETURN,
    NO_PERMISSION,
    RANGE_REUSED,
    RETURNED,
    WRONG_VERSION,
    never,
    sometimes,
)
from scenarios.litmus.starts import FILE, OTHER, PAGE, VERSION
from scenarios.litmus.steps import (
    call,
    cannot_read,
    direct_write,
    finds,
    in_order,
    keeps,
    once_returned,
    returns,
)
from scenarios.litmus.syscalls import mmap, mremap, munmap

REFUSED = "litmus_refused"
MAPPED = "litmus_mapped"
UNLOCKED = "mistake:areas-unlocked"
OTHER_FILE = FILE + 1
NEW = PAGE + 0x20


async def _faults(cpu: PerCpu) -> None:
    try:
        await user_write(cpu, PAGE, 12)
        cpu.count(MAPPED)
    except SegmentationFault:
        cpu.count(REFUSED)


def _beside(setup: Setup) -> None:
    """One area with no page in it, and another one, so that its page table stays."""
    setup.area(PAGE, 1)
    setup.area(OTHER, 1)
    setup.page(OTHER)


# CPU 0                             CPU 1
#                                   write fault: finds the area, locks it
# munmap: waits for the fault
#                                   a new page, mapped; unlock
# no area, clear the entry, flush, free
# return to the caller
#                                   no translation is left
UNMAPPED = Litmus(
    name="munmap-while-faulting",
    question="A fault is under way in an area that munmap takes away: is its page reached after that?",
    programs=(
        in_order(call(munmap, PAGE), returns),
        in_order(_faults, once_returned(cannot_read)),
    ),
    setup=_beside,
    expected=(
        never("immediate", REFUSED, MAPPED, AFTER_RETURN),
        sometimes(UNLOCKED, NO_PERMISSION),
    ),
    frugal=False,
    fast=2,
)


async def _reads(cpu: PerCpu) -> None:
    await user_read(cpu, PAGE)


def _two_files(setup: Setup) -> None:
    """A page of a file that can be mapped, and one of another file that is going to be, read-only."""
    setup.area(PAGE, 1, writable=False, file=FILE, shared=True)
    setup.unmapped_page(FILE, version=VERSION)
    setup.unmapped_page(OTHER_FILE, version=VERSION + 1)


# CPU 0                             CPU 1
#                                   read fault: the area is of one file
# mmap over it, of another one
# return to the caller
#                                   map the first one's page?
REPLACED = Litmus(
    name="mapped-over-while-faulting",
    question="A fault is under way in an area that another file is mapped over: is the first one read there?",
    programs=(
        in_order(call(mmap, PAGE, file=OTHER_FILE, shared=True, fixed=True), returns),
        in_order(_reads, once_returned(call(finds, VERSION + 1))),
    ),
    setup=_two_files,
    expected=(never("immediate", AFTER_RETURN), sometimes(UNLOCKED, WRONG_VERSION)),
    frugal=False,
)


async def _reads_moved(cpu: PerCpu) -> None:
    version = await user_read(cpu, NEW)
    if version != VERSION:
        raise Forbidden(WRONG_VERSION, f"version {version} has been moved, not {VERSION}")


async def _looks(cpu: PerCpu) -> None:
    try:
        await user_read(cpu, NEW)
        cpu.count(MAPPED)
    except SegmentationFault:
        cpu.count(REFUSED)


def _one_page(setup: Setup) -> None:
    setup.area(PAGE, 1)
    setup.page(PAGE, writable=True, dirty=True, version=VERSION)


# CPU 0                             CPU 1
# mremap: the new area, locked
#                                   read at the new address: waits
# the page to the new address
# unlock
#                                   read: the page
MOVED = Litmus(
    name="mremap-while-faulting",
    question="A read comes to where mremap has made an area and not yet moved the page: what is there?",
    programs=(in_order(call(mremap, PAGE, NEW), _reads_moved), _looks),
    setup=_one_page,
    expected=(
        never("immediate", REFUSED, MAPPED),
        sometimes(UNLOCKED, WRONG_VERSION, RETURNED),
    ),
    frugal=False,
    fast=2,
)


async def _pins(cpu: PerCpu) -> None:
    try:
        await direct_write(cpu, PAGE)
        cpu.count(MAPPED)
    except SegmentationFault:
        cpu.count(REFUSED)


async def _is_empty(cpu: PerCpu) -> None:
    """Nothing is mapped where no area is."""
    entry = await GetPte(MM, PAGE)
    if entry:
        raise Forbidden(NO_PERMISSION, f"entry {entry:#x} is at page {PAGE:#x}, which is in no area")


# CPU 0                             CPU 1
#                                   direct I/O into the page: mmap_lock for
#                                   reading, finds the area
# munmap: waits for mmap_lock
#                                   a new page, mapped, pinned; written; unlock
# no area; mmap_lock for reading;
# clear the entry, flush, free
# return to the caller
#                                   nothing is mapped
PINNED = Litmus(
    name="munmap-while-pinning",
    question="get_user_pages faults in an area that munmap takes away: is a page left where no area is?",
    programs=(
        in_order(call(munmap, PAGE), returns),
        in_order(_pins, once_returned(_is_empty)),
    ),
    setup=_beside,
    expected=(
        never("immediate", REFUSED, MAPPED, AFTER_RETURN),
        sometimes("mistake:gup-unlocked", NO_PERMISSION),
    ),
    frugal=False,
    fast=2,
)


async def _maps_and_keeps(cpu: PerCpu) -> None:
    if await mmap(cpu, PAGE):
        cpu.count(MAPPED)
        await keeps(cpu, PAGE)
    else:
        cpu.count(REFUSED)


# CPU 0 has the page cached         CPU 1
# munmap: no area; mmap_lock for
# reading from here on
#                                   mmap of the range: waits
# clear the entry, flush, free
#                                   an area, a new page, 12
#                                   read: 12
MAPPED_AGAIN = Litmus(
    name="munmap-while-mapping",
    question="mmap takes a range that munmap has not finished with: does its page stay?",
    programs=(call(munmap, PAGE), _maps_and_keeps),
    setup=_one_page,
    expected=(
        never("immediate", REFUSED, MAPPED),
        sometimes("mistake:munmap-unlocks", WRONG_VERSION, RANGE_REUSED),
    ),
    frugal=False,
    fast=2,
)
