"""A migration that fails after its folios were marked: marks and references have to go again."""

from __future__ import annotations

from emulator.hardware.operations import FolioGet, FolioPut
from emulator.kernel.user import user_write
from emulator.machine.litmus import Litmus
from scenarios.litmus.answers import STAYED, never, postings_never, sometimes
from scenarios.litmus.starts import PAGE, cached_page
from scenarios.litmus.steps import call, in_order, mover, reader

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
