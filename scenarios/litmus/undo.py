"""A migration that fails after its folios were marked: marks and references have to go again."""

from __future__ import annotations

from emulator.hardware.operations import FolioGet, FolioPut
from emulator.kernel.percpu import PerCpu
from emulator.kernel.user import user_write
from emulator.machine.litmus import FAST, Forbidden, Litmus
from scenarios.litmus.answers import DEFERRED, REUSED, STAYED, never, postings_never, sometimes
from scenarios.litmus.starts import PAGE, cached_page
from scenarios.litmus.steps import call, in_order, move, mover, read_if_cached, reader, reuse

STUCK = "a folio cannot be moved any more"


# CPU 0                             CPU 1 has frame 1 cached
# somebody holds a reference on 1
# unmap, mark 1 and 3, reference
# the move fails: map 1 again
#                                   read frame 1: it is the page's frame again
# write
#                                   read
FAILED_MOVE = Litmus(
    name="migration-fails-after-marking",
    question="Is everything taken back when a marked folio turns out not to be movable?",
    programs=(in_order(FolioGet(1), mover, FolioPut(1), call(user_write, PAGE, 11)), reader),
    setup=cached_page,
    expected=(
        never("immediate", STAYED),
        *postings_never(STAYED),
        sometimes("mistake:not-undone", "reference count"),
    ),
    fast=2,
    slow=2,
)


async def _move_at_last(cpu: PerCpu) -> None:
    if not await move(cpu, 1):
        raise Forbidden(
            STUCK, "frame 1 was kept from moving once, nobody keeps it any more, and it still stays"
        )


# RFC v2 leaves the mark and its reference, "no way to cancel those on failure for now"; the second attempt
# takes another one, of which folio_expected_refs knows nothing.
# CPU 0                             CPU 1 has frame 1 cached
# the move fails: marks off again
# move: nothing is pending, so defer
# allocate: flush, frame 1
#                                   read: not frame 1
MOVED_AFTER_FAILING = Litmus(
    name="moved-after-failing",
    question="A folio could not be moved, and then it can: is its flush deferred, and not forgotten?",
    programs=(
        in_order(FolioGet(1), mover, FolioPut(1), _move_at_last, call(reuse, FAST)),
        call(read_if_cached, PAGE),
    ),
    setup=cached_page,
    expected=(
        never("immediate", STAYED, REUSED),
        never("migrc:v3", STAYED, DEFERRED, REUSED),
        sometimes("migrc:rfc2", STUCK),
        never("migrc:v9", STAYED, DEFERRED, REUSED),
    ),
    fast=1,
    slow=2,
)
