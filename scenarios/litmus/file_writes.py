"""The kernel writes to pages of files past their mappings: write(2), and zeroes behind a file's new end."""

from __future__ import annotations

from emulator.checks.coherence import CACHE, CONTENT
from emulator.checks.grace_period import OWED
from emulator.machine.litmus import Litmus, Setup
from scenarios.litmus.answers import (
    AFTER_RETURN,
    DEFERRED,
    OVERWRITTEN,
    WRONG_VERSION,
    broken_on_arm64,
    never,
    postings_sometimes,
    sometimes,
)
from scenarios.litmus.file_sizes import SHMEM, SIZES
from scenarios.litmus.starts import PAGE, VERSION, file_page
from scenarios.litmus.steps import (
    WRITTEN,
    call,
    finds,
    in_order,
    mover,
    once_returned,
    read_if_cached,
    returns,
)
from scenarios.litmus.syscalls import ftruncate, write_file

# The flush of a single page leaves no note, so a later flush interrupts once more for nothing.
FRUGAL = False


# CPU 0                             CPU 1                         CPU 2 has page -> src cached
# demote: lock the folio, unmap, flush
# copy src -> dst
#                                   write(2): waits for the folio
# dst is mapped; unlock
#                                   12 into dst, unlock
#                                   return to the caller
#                                                                 read: 12
WRITTEN_WHILE_MOVING = Litmus(
    name="write-file-while-moving",
    question="write(2) to a page that is being moved and is mapped elsewhere: is what it wrote read there?",
    programs=(
        mover,
        in_order(call(write_file, value=WRITTEN), returns),
        once_returned(call(finds, WRITTEN)),
    ),
    setup=file_page(cached=(2,)),
    expected=(
        never("immediate", AFTER_RETURN),
        *postings_sometimes(OVERWRITTEN, WRONG_VERSION),
        sometimes("luf:v10", OVERWRITTEN, WRONG_VERSION),
        broken_on_arm64(never("luf:v11", AFTER_RETURN, DEFERRED), OWED),
        sometimes("luf:v12", OVERWRITTEN, WRONG_VERSION, OWED),
        broken_on_arm64(never("luf:v12-required", AFTER_RETURN), OWED),
        sometimes("mistake:migrates-unlocked", CONTENT, CACHE, WRONG_VERSION),
    ),
    frugal=FRUGAL,
    fast=2,
    slow=2,
)


def _on_tmpfs(setup: Setup) -> None:
    """A page of tmpfs, the only one of its file, which CPU 1 has cached."""
    setup.area(PAGE, 1, file=SHMEM, shared=True)
    pfn = setup.page(PAGE, exclusive=False, version=VERSION, cached=(1,))
    setup.in_page_cache(pfn, SHMEM, 0)
    setup.file_size(SHMEM, 1)


# CPU 0                             CPU 1 has page -> src cached
# the file ends inside its page:
# zeroes behind that
# the file is a whole page long again
# return to the caller
#                                   read: zeroes
CUT = Litmus(
    name="truncate-file-inside-a-page",
    question="A mapped file is cut inside its last page and grows again: is what was cut off read?",
    programs=(
        in_order(call(ftruncate, SHMEM, size=1, cut=True), call(ftruncate, SHMEM, size=1), returns),
        in_order(read_if_cached, once_returned(call(finds, 0))),
    ),
    setup=_on_tmpfs,
    expected=(
        never("immediate", AFTER_RETURN),
        sometimes("mistake:keeps-the-tail", WRONG_VERSION),
    ),
    frugal=FRUGAL,
    settings=SIZES,
)

# CPU 0                             CPU 1 has page -> src cached
# demote: src -> dst, deferred
# the file ends inside its page:
# zeroes behind that, in dst
# return to the caller
#                                   read src?
CUT_PENDING = Litmus(
    name="truncate-pending-inside-a-page",
    question="A pending page's file is cut inside that page: is what was cut off still read in the source?",
    programs=(
        in_order(mover, call(ftruncate, SHMEM, size=1, cut=True), returns),
        in_order(read_if_cached, once_returned(call(finds, 0))),
    ),
    setup=_on_tmpfs,
    expected=(
        never("immediate", AFTER_RETURN),
        *postings_sometimes(OVERWRITTEN, WRONG_VERSION),
    ),
    frugal=FRUGAL,
    settings=SIZES,
    fast=2,
    slow=2,
)
