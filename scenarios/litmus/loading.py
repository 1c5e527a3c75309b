"""Address spaces that come and go on a CPU while a page of theirs is being moved.

switch_mm_irqs_off sets the CPU's bit first and reads the generation then; whoever unmaps raises the
generation first and reads the bits then. One of the two sees the other.
"""

from __future__ import annotations

from emulator.hardware.operations import LocalIrqDisable, LocalIrqEnable
from emulator.kernel.percpu import PerCpu
from emulator.kernel.tlb import switch_mm_irqs_off
from emulator.kernel.user import user_read
from emulator.machine.litmus import MM, Litmus, Setup
from scenarios.litmus.steps import (
    AREA_PAGES,
    DEFERRED,
    PAGE,
    REUSED,
    VERSION,
    moves_and_reuses,
    never,
    page_cached_on_1,
    sometimes,
)

OTHER_MM = 2


async def switch_to_mm(cpu: PerCpu, mm: int) -> None:
    """The part of a task switch that flushing sees."""
    await LocalIrqDisable()
    await switch_mm_irqs_off(cpu, mm)
    await LocalIrqEnable()


def _comes(setup: Setup) -> None:
    setup.area(PAGE, AREA_PAGES)
    setup.page(PAGE, version=VERSION)
    setup.load(1, OTHER_MM)


async def _comer(cpu: PerCpu) -> None:
    await switch_to_mm(cpu, MM)
    await user_read(cpu, PAGE)
    await user_read(cpu, PAGE)


async def _goer(cpu: PerCpu) -> None:
    await switch_to_mm(cpu, OTHER_MM)
    await switch_to_mm(cpu, MM)
    await user_read(cpu, PAGE)


async def _bystander(cpu: PerCpu) -> None:
    """Runs the address space, so that the flush is left to the batch."""


# CPU 0 demotes, then needs memory  CPU 1 switches to the mm
# (who runs this mm?)
#                                   set the bit, read the generation
#                                   read: walks, caches frame 1
# unmap, generation + 1
# who runs this mm? CPU 1 as well
# IPI, free frame 1, reuse
#                                   read
LOADED_MEANWHILE = Litmus(
    name="mm-loaded-meanwhile",
    question="A CPU loads the address space while one of its pages is unmapped: is it flushed?",
    programs=(moves_and_reuses, _comer, _bystander),
    setup=_comes,
    expected=(
        never("immediate", REUSED, "nr_tlb_remote_flush_received"),
        never("migrc:v3", DEFERRED, REUSED),
        never("migrc:rfc2", DEFERRED, REUSED),
        never("migrc:v9", DEFERRED, REUSED),
        sometimes("mistake:mask-before-unmap"),
    ),
    fast=1,
    slow=2,
)

# CPU 0 demotes, then needs memory  CPU 1 has frame 1 cached
#                                   switch to another mm: the bit goes, the entry stays
# unmap, generation + 1
# nobody to interrupt
# free frame 1, reuse
#                                   switch back: the generation has moved, flush
#                                   read
LEFT_MEANWHILE = Litmus(
    name="mm-left-meanwhile",
    question="A CPU leaves the address space, misses a flush and comes back: does it use what it kept?",
    programs=(moves_and_reuses, _goer, _bystander),
    setup=page_cached_on_1,
    expected=(
        never("immediate", REUSED),
        # The flush that comes with loading CR3 is not noted, so the CPU is interrupted for it once more.
        sometimes("migrc:v3", "needless interrupt"),
        sometimes("migrc:rfc2", "needless interrupt"),
        sometimes("migrc:v9", "needless interrupt"),
    ),
    fast=1,
    slow=2,
)

TESTS = (LOADED_MEANWHILE, LEFT_MEANWHILE)
