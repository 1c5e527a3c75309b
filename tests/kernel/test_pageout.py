"""Reclaim of file pages: what was written is found again, what is used stays, nothing else is lost."""

from __future__ import annotations

import pytest

from emulator.hardware.operations import FolioGet, FolioIsolateLru, FolioPut, FolioPutbackLru, GetPte
from emulator.hardware.pte import pte_pfn
from emulator.kernel.mmap import do_mmap, do_munmap
from emulator.kernel.pageout import shrink_file_folios
from emulator.kernel.percpu import PerCpu
from emulator.kernel.user import user_read, user_write
from emulator.memory.page_table import VM_READ, VM_SHARED, VM_WRITE
from emulator.policies.catalogue import POLICIES
from emulator.policies.immediate import Immediate
from tests.kernel.small_machine import FILE, HEAP, PAGES, SHARED, SmallMachine, Thread, after, mark

ALL_POLICIES = pytest.mark.parametrize("policy", POLICIES)
SHARED_FILE = 2


async def reclaim(cpu: PerCpu, *frames: int) -> list[int]:
    isolated = [pfn for pfn in frames if await FolioIsolateLru(pfn)]
    kept = await shrink_file_folios(cpu, isolated)
    for pfn in kept:
        await FolioPutbackLru(pfn, False)
    return kept


@ALL_POLICIES
def test_a_written_page_is_written_out_and_read_in_again(policy: str) -> None:
    async def body(cpu: PerCpu) -> None:
        await user_write(cpu, SHARED, 5)
        pfn = pte_pfn(await GetPte(1, SHARED))
        free = machine.memory.folios.zones[0].nr_free
        assert await reclaim(cpu, pfn) == []
        assert machine.memory.folios.zones[0].nr_free == free + 1
        assert machine.memory.folios.files == {(SHARED_FILE, 0): 5}
        assert not machine.entry(SHARED)
        assert await user_read(cpu, SHARED) == 5

    machine = SmallMachine(Thread(0, body), policy=POLICIES[policy])
    assert not machine.run().violations
    assert machine.vmstat("nr_vmscan_write") == 1
    assert machine.vmstat("pgsteal_file") == 1


@ALL_POLICIES
def test_what_was_only_read_is_not_written_out(policy: str) -> None:
    async def body(cpu: PerCpu) -> None:
        await user_read(cpu, FILE)
        assert await reclaim(cpu, pte_pfn(await GetPte(1, FILE))) == []
        assert await user_read(cpu, FILE) == 0

    machine = SmallMachine(Thread(0, body), policy=POLICIES[policy])
    assert not machine.run().violations
    assert machine.vmstat("nr_vmscan_write") == 0


@ALL_POLICIES
def test_who_unmaps_a_page_does_not_forget_that_it_was_written(policy: str) -> None:
    async def body(cpu: PerCpu) -> None:
        await user_write(cpu, SHARED, 5)
        pfn = pte_pfn(await GetPte(1, SHARED))
        await do_munmap(cpu, 1, SHARED, SHARED + PAGES)
        assert await reclaim(cpu, pfn) == []
        await do_mmap(cpu, 1, SHARED, SHARED + PAGES, VM_READ | VM_WRITE | VM_SHARED, SHARED_FILE)
        assert await user_read(cpu, SHARED) == 5

    assert not SmallMachine(Thread(0, body), policy=POLICIES[policy]).run().violations


@ALL_POLICIES
def test_what_somebody_uses_stays_and_so_does_what_is_anonymous(policy: str) -> None:
    async def body(cpu: PerCpu) -> None:
        await user_write(cpu, SHARED, 5)
        await user_write(cpu, HEAP, 6)
        pinned, anonymous = [pte_pfn(await GetPte(1, vpn)) for vpn in (SHARED, HEAP)]
        await FolioGet(pinned)
        assert await reclaim(cpu, pinned, anonymous) == [pinned, anonymous]
        await FolioPut(pinned)
        assert await user_read(cpu, SHARED) == 5
        assert pte_pfn(await GetPte(1, SHARED)) == pinned
        assert await user_read(cpu, HEAP) == 6

    assert not SmallMachine(Thread(0, body), policy=POLICIES[policy]).run().violations


class FlushesLate(Immediate):
    async def flush_before_io(self, cpu: PerCpu) -> None:
        """Not before I/O."""


@pytest.mark.parametrize("architecture", ["sc", "x86"])
@pytest.mark.parametrize(("policy", "expected"), [(Immediate, 6), (FlushesLate, 5)])
def test_a_write_through_a_cached_entry_comes_before_the_write_out_or_faults(
    policy: type[Immediate], expected: int, architecture: str
) -> None:
    async def reclaimer(cpu: PerCpu) -> None:
        await after("cached")
        await reclaim(cpu, pte_pfn(await GetPte(1, SHARED)))
        await mark("reclaimed")

    async def writer(cpu: PerCpu) -> None:
        await user_write(cpu, SHARED, 5)
        await mark("cached")
        await after("unmapped")
        await user_write(cpu, SHARED, 6)
        await mark("written")
        await after("reclaimed")
        assert await user_read(cpu, SHARED) == expected

    machine = SmallMachine(Thread(0, reclaimer), Thread(1, writer), policy=policy, architecture=architecture)
    machine.drive(1, machine.marked("cached"))
    written = machine.memory.folios.files
    # As far as the machine goes without the other CPU's answer: unmapped, or even written out.
    machine.drive(0, lambda: not machine.entry(SHARED) and (policy is Immediate or bool(written)))
    machine.memory.words.values["test.unmapped"] = 1
    machine.drive(1, machine.marked("written"))
    machine.run(1)
    assert bool(machine.violations) is (policy is FlushesLate)


@ALL_POLICIES
@pytest.mark.parametrize("seed", range(15))
def test_readers_writers_and_reclaim_at_once(seed: int, policy: str) -> None:
    """One writer whose writes have to be there in the end, a reader, and reclaim, in random order."""

    async def reclaimer(cpu: PerCpu) -> None:
        for _ in range(6):
            entries = [await GetPte(1, SHARED + page) for page in range(2)]
            await reclaim(cpu, *{pte_pfn(entry) for entry in entries if entry})

    async def writer(cpu: PerCpu) -> None:
        for version in range(1, 6):
            await user_write(cpu, SHARED, version)
            assert await user_read(cpu, SHARED) == version

    async def reader(cpu: PerCpu) -> None:
        for _ in range(6):
            await user_read(cpu, SHARED + 1)

    machine = SmallMachine(
        Thread(0, reclaimer), Thread(1, writer), Thread(2, reader), cpus=3, policy=POLICIES[policy]
    )
    assert not machine.run(seed).violations
