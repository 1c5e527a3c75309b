"""The lock-less list that requests hang on: several CPUs add, several take, nothing may get lost.

The request itself is private to its task until it is hung; the list is shared. Taking means taking all.
"""

from __future__ import annotations

from emulator.kernel.percpu import PerCpu
from emulator.machine.litmus import Litmus, Setup
from scenarios.litmus.answers import DEFERRED, FLUSHES, postings_never, sometimes
from scenarios.litmus.starts import AREA_PAGES, PAGE, VERSION
from scenarios.litmus.steps import call, move, mover

FIRST_MM = 2
SECOND_MM = 3
TAKER_MM = 4


def _two_pages(setup: Setup) -> None:
    # Each adder moves a page of the address space that the other one runs, so that no flush for one of the
    # pages spares anybody the flush for the other.
    for cpu, mm in enumerate((FIRST_MM, SECOND_MM, TAKER_MM)):
        setup.load(cpu, mm)
    for cpu, mm in ((1, SECOND_MM), (0, FIRST_MM)):
        setup.area(PAGE, AREA_PAGES, mm=mm)
        setup.page(PAGE, version=VERSION, mm=mm, cached=(cpu,))


async def _taker(cpu: PerCpu) -> None:
    # A failing watermark makes v3 flush, whether or not the check was right.
    await cpu.policy.watermark_failed(cpu, 0)
    await cpu.policy.slowpath_enter(cpu)


# CPU 0                             CPU 1                         CPU 2
# hang request A
#                                                                 take all: A
#                                   hang request B
#                                                                 flush for A, free its folios
# at the end: take all: B
TWO_ADDERS = Litmus(
    name="two-adders-one-taker",
    question="Is the shared list safe with two adders and a taker that works while others add?",
    programs=(mover, call(move, 2), _taker),
    setup=_two_pages,
    expected=(
        *postings_never(DEFERRED, FLUSHES),
        sometimes("mistake:walks-the-shared-list"),
        sometimes("mistake:hung-too-early"),
    ),
    fast=2,
    slow=2,
)
