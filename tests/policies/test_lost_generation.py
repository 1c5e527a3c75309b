"""v9 as posted loses a freed page's generation to whoever else drops the last reference.

A finding about the patch, reproduced on purpose, as in test_posted_holes.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from emulator.checks.coherence import FOREIGN
from emulator.hardware.operations import FolioRefcount, FolioTryGet, GetPte, LruAdd, ReadFrame
from emulator.hardware.pte import pte_pfn
from emulator.kernel.gup import get_user_pages, put_page
from emulator.kernel.percpu import PerCpu
from emulator.kernel.policy import Policy
from emulator.kernel.user import user_read, user_write
from emulator.policies.migrc_v9 import MigrcV9
from tests.kernel.small_machine import HEAP, SmallMachine, Thread, after, demote, mark


class PutsTheGenerationOnlyWithTheLastReference(MigrcV9):
    """folio_put_mgen: if the reference was not the last one, warn and return; the generation goes nowhere."""

    async def folio_moved(self, cpu: PerCpu, src: int, dst: int) -> None:
        if await FolioRefcount(src) == 1:
            await super().folio_moved(cpu, src, dst)


@pytest.mark.parametrize("architecture", ["sc", "x86"])
@pytest.mark.parametrize(
    ("policy", "holds"), [(PutsTheGenerationOnlyWithTheLastReference, False), (MigrcV9, True)]
)
def test_somebody_else_drops_the_last_reference(
    policy: Callable[[], Policy], holds: bool, architecture: str
) -> None:
    """get_user_pages takes references on what an entry named a moment ago, and drops them if it was wrong.

    CPU 0 demotes             CPU 1 pins the page               CPU 2 has the source cached
                              read the entry: the source
    unmap, copy; references
    are as expected
                              a reference on the source
    map the destination
    drop the reference: not
    the last, no generation
                              the entry has changed: drop it,
                              the source is free
                              allocate it: generation 0, no flush;
                              another page's content
                                                                read it
    """

    async def mover(cpu: PerCpu) -> None:
        await after("cached")
        assert await demote(cpu, HEAP) == 1
        await mark("moved")

    async def pinner(cpu: PerCpu) -> None:
        await after("cached")
        pfn = await get_user_pages(cpu, 1, HEAP, False)
        assert cpu.parameters.nid(pfn) == 1
        await put_page(pfn)
        await user_write(cpu, HEAP + 9, 77)
        await mark("written")

    async def reader(cpu: PerCpu) -> None:
        await user_read(cpu, HEAP)
        await mark("cached")
        await after("written")
        await user_read(cpu, HEAP)

    machine = SmallMachine(
        Thread(0, mover), Thread(1, pinner), Thread(2, reader), cpus=3, architecture=architecture,
        policy=policy,
    )  # fmt: skip
    machine.drive(2, machine.marked("cached"))
    source = pte_pfn(machine.entry(HEAP))
    machine.drive(1, machine.at(1, FolioTryGet))
    machine.drive(0, machine.at(0, LruAdd))
    machine.drive(1, machine.at(1, GetPte))
    machine.drive(0, machine.marked("moved"))
    machine.drive(1, machine.marked("written"))
    assert pte_pfn(machine.entry(HEAP + 9)) == source
    machine.drive(2, machine.at(2, ReadFrame))
    machine.run()
    assert machine.rules == (set() if holds else {FOREIGN})
