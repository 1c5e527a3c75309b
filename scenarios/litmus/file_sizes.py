"""Files that become shorter and longer while they are mapped: nobody reaches what is behind their end."""

from __future__ import annotations

from emulator.checks.coherence import CACHE
from emulator.kernel.memory import BusError
from emulator.kernel.percpu import PerCpu
from emulator.kernel.user import user_read, user_write
from emulator.machine.litmus import Litmus, Setup
from scenarios.litmus.answers import (
    AFTER_RETURN,
    NO_PERMISSION,
    RECEIVED,
    never,
    sometimes,
)
from scenarios.litmus.starts import FILE, PAGE, VERSION, file_page
from scenarios.litmus.steps import call, cannot_read, finds, in_order, once_returned, returns
from scenarios.litmus.syscalls import ftruncate

REFUSED = "litmus_sigbus"
REACHED = "litmus_reached"
SIZES = (("file_sizes", True),)
SHMEM = -1

_empties = in_order(call(ftruncate), returns)


async def _reads(cpu: PerCpu) -> None:
    try:
        await user_read(cpu, PAGE)
        cpu.count(REACHED)
    except BusError:
        cpu.count(REFUSED)


async def _writes(cpu: PerCpu) -> None:
    try:
        await user_write(cpu, PAGE, 12)
        cpu.count(REACHED)
    except BusError:
        cpu.count(REFUSED)


def _unmapped(setup: Setup) -> None:
    """A page of tmpfs that is mapped nowhere, in a shared area."""
    setup.area(PAGE, 1, file=SHMEM, shared=True)
    setup.unmapped_page(SHMEM, version=VERSION)
    setup.file_size(SHMEM, 1)


# On ext4 invalidate_lock alone would keep the page from being read in again (truncate-file-while-reading-in).
# CPU 0                             CPU 1
#                                   read fault: inside the file
# the file ends at 0; unmap, take
# the page out of the cache, unmap
# return to the caller
#                                   the folio is no page of the file any more:
#                                   again, and behind the end: SIGBUS
FAULT_BEHIND_END = Litmus(
    name="truncate-file-while-faulting",
    question="A fault is under way in a file that ftruncate makes shorter: is a page behind its end reached?",
    programs=(
        in_order(call(ftruncate, SHMEM), returns),
        in_order(_reads, once_returned(cannot_read)),
    ),
    setup=_unmapped,
    expected=(
        never("immediate", REFUSED, REACHED, AFTER_RETURN),
        sometimes("mistake:size-after-pages", NO_PERMISSION),
    ),
    frugal=False,
    settings=SIZES,
)


def _private(setup: Setup) -> None:
    """The same in a private area, so that a write copies it."""
    setup.area(PAGE, 1, file=FILE)
    setup.unmapped_page(FILE, version=VERSION)
    setup.file_size(FILE, 1)


# CPU 0                             CPU 1
# the file ends at 0; unmap: nothing
#                                   write fault: has found the page inside the
#                                   file, holds its lock; a copy, mapped
# out of the cache
# unmap again: the copy
# return to the caller
#                                   it is gone
COPIED_BEHIND_END = Litmus(
    name="truncate-file-while-copying",
    question="A write fault copies a page of a file that ftruncate takes away: does the copy stay?",
    programs=(_empties, in_order(_writes, once_returned(cannot_read))),
    setup=_private,
    expected=(
        never("immediate", REFUSED, REACHED, AFTER_RETURN),
        sometimes("mistake:truncate-unmaps-once", NO_PERMISSION),
    ),
    frugal=False,
    settings=SIZES,
)


def _mapped(setup: Setup) -> None:
    file_page()(setup)
    setup.file_size(FILE, 1)


# CPU 0                             CPU 1 has the page cached
# the file ends at 0; clear the entry,
# flush, free the page
# the file is a page long again
# return to the caller
#                                   read: zeroes
GROWN_AGAIN = Litmus(
    name="truncate-file-and-grow",
    question="A mapped file is made empty and grows again: does anybody still read what was in it?",
    programs=(
        in_order(call(ftruncate), call(ftruncate, size=1), returns),
        in_order(_reads, once_returned(call(finds, 0))),
    ),
    setup=_mapped,
    expected=(
        never("immediate", RECEIVED, REFUSED, REACHED, AFTER_RETURN),
        sometimes("mistake:zap-without-flush"),
    ),
    frugal=False,
    settings=SIZES,
)


def _stored(setup: Setup) -> None:
    """A page that is on the disk only."""
    setup.area(PAGE, 1, file=FILE, shared=True)
    setup.on_disk(FILE, 0, VERSION)
    setup.file_size(FILE, 1)


# CPU 0                             CPU 1
#                                   read fault: inside the file
# the file ends at 0; the cache has nothing
#                                   reads the page in
# what is stored goes
# the file is a page long again
# return to the caller
#                                   read: zeroes
READ_IN_BEHIND_END = Litmus(
    name="truncate-file-while-reading-in",
    question="A fault reads in a page that ftruncate takes from the disk; the file grows: is it seen again?",
    programs=(
        in_order(call(ftruncate), call(ftruncate, size=1), returns),
        in_order(_reads, once_returned(call(finds, 0))),
    ),
    setup=_stored,
    expected=(
        never("immediate", REFUSED, REACHED, AFTER_RETURN),
        sometimes("mistake:before-ea3d7209ca01", CACHE),
    ),
    frugal=False,
    settings=SIZES,
)
