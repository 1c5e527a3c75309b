"""An mm that only one CPU uses is flushed page by page as it is unmapped; nothing is put off."""

import pytest

from emulator.hardware.operations import AtomicAdd, GetPte
from emulator.hardware.pte import PROTNONE, mk_pte, pte_dirty, pte_pfn
from emulator.kernel.percpu import PerCpu, tlb_flush_pending_word
from emulator.kernel.rmap import MIGRATION, folio_referenced, set_tlb_ubc_flush_pending, try_to_unmap_flush
from emulator.kernel.user import user_read, user_write
from emulator.policies.catalogue import POLICIES
from tests.kernel.small_machine import HEAP, SHARED, SmallMachine, Thread, after, demote, mark


@pytest.mark.parametrize("policy", ["immediate", "migrc:v3", "migrc:rfc2"])
def test_a_process_on_one_cpu_is_flushed_page_by_page(policy: str) -> None:
    """mm/rmap.c: should_defer_flush, v6.6."""

    async def body(cpu: PerCpu) -> None:
        for page in range(5):
            await user_read(cpu, HEAP + page)
        assert await demote(cpu, *(HEAP + page for page in range(5))) == 5

    machine = SmallMachine(Thread(0, body), policy=POLICIES[policy]).run()
    counts = machine.counts()
    assert counts["nr_tlb_local_flush_one"] == 5
    assert counts["nr_tlb_remote_flush"] == 0
    assert counts["migrc_deferred"] == 0
    assert not machine.violations


@pytest.mark.parametrize("flushing", [False, True])
def test_a_hint_owes_a_flush_as_long_as_its_own_is_under_way(flushing: bool) -> None:
    async def body(cpu: PerCpu) -> None:
        await AtomicAdd(tlb_flush_pending_word(1), int(flushing))
        await set_tlb_ubc_flush_pending(cpu, 1, 0x10, mk_pte(1, PROTNONE), 1, MIGRATION)
        assert cpu.current.tlb_ubc.nr_flush_required == int(flushing)
        await try_to_unmap_flush(cpu)
        assert not cpu.current.tlb_ubc.nr_flush_required, "once"
        await AtomicAdd(tlb_flush_pending_word(1), -int(flushing))

    assert not SmallMachine(Thread(0, body)).run().violations


def test_a_page_that_was_written_is_dirty_where_it_moves() -> None:
    async def body(cpu: PerCpu) -> None:
        await user_write(cpu, HEAP, 5)
        assert await demote(cpu, HEAP) == 1
        assert pte_dirty(await GetPte(1, HEAP))

    assert not SmallMachine(Thread(0, body)).run().violations


def test_each_mapping_that_was_used_counts() -> None:
    async def reads(cpu: PerCpu) -> None:
        await user_read(cpu, SHARED)
        await mark(f"read {cpu.number}")

    async def looks(cpu: PerCpu) -> None:
        await reads(cpu)
        await after("read 1")
        pfn = pte_pfn(await GetPte(1, SHARED))
        assert await folio_referenced(cpu, pfn) == 2
        assert await folio_referenced(cpu, pfn) == 0

    assert not SmallMachine(Thread(0, looks), Thread(1, reads, 2)).run().violations
