"""Two more holes of v3 as posted: a pause in the middle of a batch, and a note that stands still.

Findings about the patches, reproduced on purpose, as in test_posted_holes.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from emulator.checks.coherence import FREE, OVERWRITTEN
from emulator.hardware.operations import AllocPages, FolioIsolateLru, FolioTestFlag, GetPte, ReadFrame
from emulator.hardware.pte import pte_pfn
from emulator.kernel.migrate import migrate_pages
from emulator.kernel.percpu import PerCpu
from emulator.kernel.policy import MR_NUMA_MISPLACED, Policy
from emulator.kernel.tlb import TLB_FLUSH_ALL, flush_tlb_mm_range
from emulator.kernel.user import user_read, user_write
from emulator.policies.migrc_rfc2 import MigrcRfc2
from emulator.policies.migrc_v3 import PG_MIGRC, MigrcV3
from tests.kernel.small_machine import HEAP, SmallMachine, Thread, after, demote, mark

PROCESSORS = pytest.mark.parametrize("architecture", ["sc", "x86"])


class DropsTheRequest(MigrcV3):
    """migrate_pages_batch when `can_migrc_system` becomes false between two folios.

    The request ends and everything pending is flushed for. Folios are entered when they have moved, so the
    request is empty then and is freed, with the CPUs that it had taken over from the task's own batch.
    """

    async def before_unmap(self, cpu: PerCpu, src: int) -> None:
        if cpu.current.policy_state is not None and await self._paused():
            await self.migrate_end(cpu)
            await self.try_flush_free_folios(cpu)
        await super().before_unmap(cpu, src)

    async def extra_references(self, cpu: PerCpu, src: int, dst: int) -> int:
        """migrc_marked_folios asks for the flags of both, not whether there is a request."""
        return int(await FolioTestFlag(src, PG_MIGRC) and await FolioTestFlag(dst, PG_MIGRC))


@PROCESSORS
@pytest.mark.parametrize(("policy", "holds"), [(DropsTheRequest, False), (MigrcV3, True)])
def test_turned_off_in_the_middle_of_a_batch(
    policy: Callable[[], Policy], holds: bool, architecture: str
) -> None:
    """A batch of two folios of different processes; the switch is turned off between the two.

    CPU 0 demotes             CPU 1                             CPU 2 has the first source cached
    unmap the first, mark it
                              vm.migrc_enable = 0
    the request is empty: drop
    it, and CPU 2 with it
    unmap the second, flush
    CPU 3 for it, map both
                              write fault on the first: marked,
                              but no request hangs; write
                                                                read the source
    """

    async def mover(cpu: PerCpu) -> None:
        await after("cached")
        await after("bystander")
        pfns = [pte_pfn(await GetPte(mm, HEAP)) for mm in (1, 2)]
        for pfn in pfns:
            assert await FolioIsolateLru(pfn)
        moved, _ = await migrate_pages(cpu, pfns, 1, MR_NUMA_MISPLACED)
        assert moved == pfns
        await mark("moved")

    async def writer(cpu: PerCpu) -> None:
        await after("moving")
        assert isinstance(cpu.policy, MigrcV3)
        await cpu.policy.set_enabled(cpu, False)
        await mark("off")
        await after("moved")
        await user_write(cpu, HEAP, 77)
        await mark("written")

    async def reader(cpu: PerCpu) -> None:
        await user_read(cpu, HEAP)
        await mark("cached")
        await after("written")
        await user_read(cpu, HEAP)

    async def bystander(cpu: PerCpu) -> None:
        await user_read(cpu, HEAP)
        await mark("bystander")
        await after("written")

    machine = SmallMachine(
        Thread(0, mover), Thread(1, writer), Thread(2, reader), Thread(3, bystander, 2), cpus=4,
        architecture=architecture, policy=policy,
    )  # fmt: skip
    machine.drive(2, machine.marked("cached"))
    machine.drive(3, machine.marked("bystander"))
    machine.drive(0, machine.moving(HEAP))
    machine.drive(0, machine.at(0, AllocPages))
    machine.memory.words.values["test.moving"] = 1
    machine.drive(1, machine.marked("off"))
    machine.drive(0, machine.marked("moved"))
    machine.drive(1, machine.marked("written"))
    machine.drive(2, machine.at(2, ReadFrame))
    machine.run()
    assert (OVERWRITTEN in machine.rules) is not holds
    # And the reference taken with the mark is dropped by nobody.
    assert bool(machine.accounting.violations) is not holds


@PROCESSORS
@pytest.mark.parametrize(
    ("policy", "bits", "holds"),
    [(MigrcV3, 3, False), (MigrcRfc2, 3, True), (MigrcV3, 32, True), (MigrcRfc2, 32, True)],
)
def test_a_note_that_fell_half_the_range_behind_stands_still(
    policy: Callable[[int], Policy], bits: int, holds: bool, architecture: str
) -> None:
    """v3 writes a note only if it moves forward, RFC v1 and v2 always.

    CPU 1 does not flush for five generations of three bits. It flushes then, but 5 is no later than 0 any
    more, so v3 leaves the note at 0; a request of generation 6 takes CPU 1 for flushed.
    """

    async def mover(cpu: PerCpu) -> None:
        await after("bystander")
        for page in range(1, 6):
            await user_read(cpu, HEAP + page)
            await demote(cpu, HEAP + page, mm=2)
        await mark("five")
        await after("cached")
        await demote(cpu, HEAP, mm=1)
        await cpu.policy.drain(cpu)
        await mark("written")

    async def reader(cpu: PerCpu) -> None:
        await user_read(cpu, HEAP + 1)
        await after("five")
        await flush_tlb_mm_range(cpu, 1, 0, TLB_FLUSH_ALL)
        await user_read(cpu, HEAP)
        await mark("cached")
        await after("written")
        await user_read(cpu, HEAP)

    async def bystander(cpu: PerCpu) -> None:
        await user_read(cpu, HEAP + 7)
        await mark("bystander")
        await after("written")

    machine = SmallMachine(
        Thread(0, mover, 2),
        Thread(1, reader),
        Thread(2, bystander, 2),
        cpus=3,
        architecture=architecture,
        policy=lambda: policy(bits),
    ).run()
    assert machine.vmstat("migrc_deferred") >= 6
    assert machine.rules == (set() if holds else {FREE})
