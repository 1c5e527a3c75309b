"""The destination of a pending request is migrated again before anybody has flushed for it."""

from __future__ import annotations

from emulator.hardware.operations import FolioGet, FolioPut, GetPte
from emulator.hardware.pte import pte_pfn
from emulator.kernel.percpu import PerCpu
from emulator.kernel.user import user_write
from emulator.machine.litmus import FAST, MM, Litmus
from scenarios.litmus.answers import DEFERRED, STALE, STAYED, never, postings_never, sometimes
from scenarios.litmus.starts import PAGE, cached_page
from scenarios.litmus.steps import move, move_again, reader


async def _moves_twice(cpu: PerCpu) -> None:
    if await move(cpu, 1) and await move_again(cpu, PAGE, FAST):
        cpu.count("litmus_moved_twice")
    await user_write(cpu, PAGE, 11)


async def _second_move_fails(cpu: PerCpu) -> None:
    if await move(cpu, 1):
        # Somebody looks at the destination meanwhile (a reference is enough to make a migration fail).
        pfn = pte_pfn(await GetPte(MM, PAGE))
        await FolioGet(pfn)
        await move(cpu, pfn, FAST)
        await FolioPut(pfn)
    await user_write(cpu, PAGE, 11)


# CPU 0                             CPU 1 has frame 1 cached
# demote: 1 -> 3, deferred
# promote: 3 -> 2
# fault: what is flushed now?
# entry = writable, write
#                                   read frame 1, two moves old
MOVED_AGAIN = Litmus(
    name="pending-moved-again",
    question="A pending destination moves again: are the translations of the first source remembered?",
    programs=(_moves_twice, reader),
    setup=cached_page,
    expected=(
        *postings_never(DEFERRED, STALE, "litmus_moved_twice"),
        never("mistake:moved-again-without-flush", DEFERRED, STALE, "litmus_moved_twice"),
    ),
    fast=2,
    slow=2,
)

# CPU 0                             CPU 1 has frame 1 cached
# demote: 1 -> 3, deferred
# mark 3 again, move fails, undo:
# 3 is not flagged any more
# fault: not pending, no flush
# entry = writable, write
#                                   read frame 1
SECOND_MOVE_FAILS = Litmus(
    name="pending-second-move-fails",
    question="A pending destination is moved again, which fails: is it still known to be pending?",
    programs=(_second_move_fails, reader),
    setup=cached_page,
    expected=(
        *postings_never(DEFERRED, STALE, STAYED),
        sometimes("mistake:marks-what-is-pending"),
    ),
    fast=2,
    slow=2,
)
