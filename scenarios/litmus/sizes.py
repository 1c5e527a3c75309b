"""Small and huge translations of one address: on some CPUs never both at once (AMD's erratum 383)."""

from __future__ import annotations

from emulator.hardware.pte import PSE
from emulator.kernel.huge_memory import split_huge_pmd
from emulator.kernel.khugepaged import collapse_huge_page
from emulator.kernel.percpu import PerCpu
from emulator.machine.litmus import MM, Litmus, Setup
from scenarios.litmus.answers import never, sometimes
from scenarios.litmus.starts import HUGE, PAGE, VERSION
from scenarios.litmus.steps import bystander, call
from scenarios.litmus.walkers import COLLAPSED, two_to_collapse

TWO_SIZES = "small and huge entry at once"


def _one_huge_page(setup: Setup) -> None:
    setup.area(PAGE, 2)
    setup.area(PAGE + 4, 2)
    setup.page(PAGE, version=VERSION, flags=PSE, cached=(1,))


async def _splits(cpu: PerCpu) -> None:
    await split_huge_pmd(cpu, MM, PAGE)


# CPU 0                             CPU 1 has the page cached, as a huge one
# PMD = invalid, IPI
#                                   flush
# a table of small entries
#                                   walk ahead: a small one, and no huge one is left
SPLIT = Litmus(
    name="split-two-sizes",
    question="A huge page's PMD is split: may a CPU have its huge and a small translation at once?",
    programs=(_splits, bystander),
    setup=_one_huge_page,
    expected=(
        never("immediate", "thp_split_pmd"),
        sometimes("mistake:splits-before-it-flushes", TWO_SIZES),
    ),
    drain=False,
    frugal=False,
    speculated=(PAGE + 1,),
    settings=(HUGE, ("one_size_only", True)),
)

# CPU 0                             CPU 1 has small ones cached
# collapse: the small entries go, IPI
#                                   flush
# PMD = huge
#                                   walk ahead: the huge one, and no small one is left
COLLAPSE = Litmus(
    name="collapse-two-sizes",
    question="Small pages become a huge one: may a CPU have a small and the huge translation at once?",
    programs=(call(collapse_huge_page, MM, PAGE), bystander),
    setup=two_to_collapse(),
    expected=(never("immediate", COLLAPSED), sometimes("mistake:collapses-without-flush", TWO_SIZES)),
    drain=False,
    frugal=False,
    speculated=(PAGE + 1,),
    fast=6,
    settings=(HUGE, ("one_size_only", True)),
)
