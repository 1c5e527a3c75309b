"""A migration that fails after its folios were marked: marks and references have to go again."""

from __future__ import annotations

from emulator.hardware.operations import FolioGet, FolioPut
from emulator.kernel.percpu import PerCpu
from emulator.kernel.user import user_write
from emulator.machine.litmus import Litmus
from scenarios.litmus.steps import (
    PAGE,
    STAYED,
    cached_page,
    move,
    never,
    reader,
    sometimes,
)


async def _fails(cpu: PerCpu) -> None:
    await FolioGet(1)
    await move(cpu, 1)
    await FolioPut(1)
    await user_write(cpu, PAGE, 11)


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
    programs=(_fails, reader),
    setup=cached_page,
    expected=(
        never("immediate", STAYED),
        never("migrc:v3", STAYED),
        never("migrc:rfc2", STAYED),
        never("migrc:v9", STAYED),
        sometimes("mistake:not-undone", "reference count"),
    ),
    fast=2,
    slow=2,
)

TESTS = (FAILED_MOVE,)
