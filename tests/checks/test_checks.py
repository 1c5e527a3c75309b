"""The checks must see: each wrong kernel or policy here is caught, under the rule that it breaks.

Every rule has a mistake that trips it, and correct policies trip none.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from emulator.checks import accounting, coherence
from emulator.hardware.operations import (
    AllocPages,
    CmpxchgPte,
    FilemapAdd,
    FilemapRemove,
    FolioClearFlag,
    FolioCopy,
    FolioGet,
    FolioMigrateMapping,
    FolioPut,
    FolioSetFlag,
    FolioZero,
    GetPte,
    LlistAdd,
    LlistDelAll,
    Lock,
    LruAdd,
    Operation,
    ReadFrame,
    SetPte,
    SmpMb,
    TryToMigratePte,
    VmaInsert,
    WriteFrame,
    WritePage,
)
from emulator.hardware.pte import DIRTY, PRESENT, RW, make_migration_entry, mk_pte, pte_pfn
from emulator.kernel import memory as kernel_memory
from emulator.kernel import migrate, rmap, smp
from emulator.kernel import tlb as kernel_tlb
from emulator.kernel.percpu import PerCpu
from emulator.kernel.policy import Policy
from emulator.kernel.user import user_read, user_write
from emulator.memory.folios import PG_PRIVATE_3, Folio, Tier
from emulator.memory.memory import Memory
from emulator.memory.page_table import VM_WRITE
from emulator.memory.zone import Watermarks
from emulator.policies.catalogue import POLICIES
from emulator.policies.migrc_v3 import PG_MIGRC, MigrcV3
from tests.kernel.small_machine import (
    FILE,
    HEAP,
    SHARED,
    SmallMachine,
    Thread,
    after,
    demote,
    mark,
    random_body,
)

ALL = ("read", "read", "write", "write", "hint", "demote", "promote")


def random_runs(seeds: int, **settings: Any) -> Iterator[set[str]]:
    """The rules that break in each of so many runs of readers, writers and movers."""
    for seed in range(seeds):
        threads = [Thread(number, random_body(seed, 15, ALL, 2)) for number in range(3)]
        yield SmallMachine(*threads, cpus=3, migrate_batch=3, **settings).run(seed).rules


def trips(*rules: str, seeds: int = 150, **settings: Any) -> bool:
    """Whether so many runs break all these rules; no more are made than that takes."""
    missing = set(rules)
    for broken in random_runs(seeds, **settings):
        missing -= broken
        if not missing:
            return True
    return False


async def nothing(*arguments: object, **named: object) -> None:
    """Stands in for what is forgotten."""


# --- nothing wrong ---------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", ["sc", "x86"])
def test_mainline_trips_nothing(architecture: str) -> None:
    assert not any(random_runs(300, architecture=architecture))


@pytest.mark.parametrize("policy", ["migrc:v3", "migrc:rfc2"])
def test_migrc_without_writers_trips_nothing(policy: str) -> None:
    for seed in range(300):
        threads = [
            Thread(n, random_body(seed, 12, ("read", "hint", "demote", "promote"), 2)) for n in range(3)
        ]
        machine = SmallMachine(*threads, cpus=3, migrate_batch=3, policy=POLICIES[policy]).run(seed)
        assert not machine.violations, seed


# --- wrong kernels -----------------------------------------------------------------------------------


def test_flush_of_the_unmap_batch_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(migrate, "try_to_unmap_flush", nothing)
    # The source is read after it was freed, or, given to another page, as that; it is written, too.
    assert trips(coherence.FREE, coherence.FOREIGN, coherence.LOST_WRITE)


def test_interrupts_sent_but_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(smp, "WaitAcks", lambda request: SmpMb())
    assert trips(coherence.FREE, seeds=300)


def test_entry_freed_before_its_flush(monkeypatch: pytest.MonkeyPatch) -> None:
    """migrate_pages flushes, but only after it has moved everything."""

    async def late(cpu: PerCpu, *arguments: Any) -> Any:
        moved = await real(cpu, *arguments)
        await rmap.try_to_unmap_flush(cpu)
        return moved

    real = migrate.migrate_pages_batch
    monkeypatch.setattr(migrate, "migrate_pages_batch", late)
    monkeypatch.setattr(migrate, "try_to_unmap_flush", nothing)
    assert trips(coherence.FREE, seeds=300)


def test_copy_on_write_without_flush(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Policy, "flush_changed", nothing)
    assert trips(coherence.OVERWRITTEN)


def test_copy_on_write_copies_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel_memory, "FolioCopy", lambda src, dst: SmpMb())
    assert trips(coherence.CONTENT, seeds=20)


def test_migration_copies_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(migrate, "FolioCopy", lambda src, dst: SmpMb())
    assert trips(coherence.CONTENT, seeds=20)


def test_page_cache_slot_moves_before_the_content(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that maps the file page meanwhile finds the destination without content."""

    async def slot_first(cpu: PerCpu, folio: migrate.Unmapped) -> bool:
        assert await FolioMigrateMapping(folio.src, folio.dst, 0)
        await mark("slot")
        await FolioCopy(folio.src, folio.dst)
        await LruAdd(folio.dst, False)
        await rmap.remove_migration_ptes(cpu, folio.left, folio.dst)
        await FolioPut(folio.dst)
        await FolioPut(folio.src)
        return True

    monkeypatch.setattr(migrate, "_move", slot_first)

    async def mover(cpu: PerCpu) -> None:
        await user_write(cpu, SHARED, 77)
        await mark("written")
        await demote(cpu, SHARED)

    async def reader(cpu: PerCpu) -> None:
        await after("written")
        await user_read(cpu, SHARED)
        await mark("read")

    machine = SmallMachine(Thread(0, mover), Thread(1, reader, 2))
    machine.drive(0, machine.marked("slot"))
    machine.drive(1, machine.marked("read"))
    assert machine.run().rules == {coherence.CACHE}


def memory_with_wrong(handlers: dict[type[Any], Any]) -> Any:
    def make(tiers: Sequence[Tier]) -> Memory:
        memory = Memory(tiers)
        for kind, wrong in handlers.items():
            right = memory._handlers[kind]
            memory._handlers[kind] = lambda cpu, operation, right=right, wrong=wrong: wrong(
                memory, right, cpu, operation
            )
        return memory

    return make


def test_page_cache_slot_not_moved() -> None:
    def wrong(memory: Memory, right: Any, cpu: int, operation: Any) -> bool:
        src = memory.folios.folios[operation.src]
        return src.refcount == 1 + (src.mapping is not None) + operation.extra

    memory = memory_with_wrong({FolioMigrateMapping: wrong})
    assert trips(coherence.SPLIT, seeds=20, memory=memory)


def one_process(body: Any, **settings: Any) -> SmallMachine:
    return SmallMachine(Thread(0, body), **settings).run()


def test_reference_leaked() -> None:
    async def body(cpu: PerCpu) -> None:
        await user_read(cpu, HEAP)
        await FolioGet(pte_pfn(await GetPte(1, HEAP)))

    assert one_process(body).rules == {accounting.REFERENCES}


def test_folio_put_twice() -> None:
    """Freed while mapped; the program goes on with it, fills its TLB from it, and frees it once more."""

    async def body(cpu: PerCpu) -> None:
        await user_read(cpu, HEAP)
        await FolioPut(pte_pfn(await GetPte(1, HEAP)))
        await kernel_tlb.flush_tlb_mm_range(cpu, 1, HEAP, HEAP + 1)
        await user_read(cpu, HEAP)

    assert one_process(body).rules == {
        "freed while mapped",
        coherence.FILL,
        coherence.FREE,
        "use of a free folio",
    }


def test_page_cache_page_put_once_too_often() -> None:
    async def body(cpu: PerCpu) -> None:
        await user_read(cpu, FILE)
        pfn = pte_pfn(await GetPte(1, FILE))
        await FolioPut(pfn)
        await FolioPut(pfn)

    assert {"freed while in the page cache", "freed while mapped"} <= one_process(body).rules


def test_free_frame_mapped() -> None:
    async def body(cpu: PerCpu) -> None:
        await SetPte(1, HEAP, mk_pte(50, PRESENT))
        await SmpMb()

    assert "free frame mapped" in one_process(body).rules


def test_frame_given_back_to_nobody() -> None:
    def wrong(memory: Memory, right: Any, cpu: int, operation: Any) -> None:
        folios = memory.folios
        folio: Folio = folios.folios[operation.pfn]
        if folio.refcount == 1:
            del folios.folios[operation.pfn]
            folios.lru[folio.node, False, False].pop(operation.pfn, None)
        else:
            right(cpu, operation)

    async def body(cpu: PerCpu) -> None:
        await user_read(cpu, HEAP)

    assert one_process(body, memory=memory_with_wrong({FolioPut: wrong})).rules == {accounting.LEAK}


def test_frame_without_references_that_nobody_frees() -> None:
    def wrong(memory: Memory, right: Any, cpu: int, operation: Any) -> None:
        memory.folios.folios[operation.pfn].refcount -= 1

    async def body(cpu: PerCpu) -> None:
        await user_read(cpu, HEAP)

    assert one_process(body, memory=memory_with_wrong({FolioPut: wrong})).rules == {accounting.LEAK}


def test_lock_left_held() -> None:
    async def body(cpu: PerCpu) -> None:
        await Lock("some lock")

    assert one_process(body).rules == {accounting.UNFINISHED}


def test_migration_entry_left_behind() -> None:
    """The process forgets its area: nothing unmaps it at the end, and the migration never ends."""

    async def body(cpu: PerCpu) -> None:
        await user_read(cpu, HEAP)
        left = await rmap.try_to_migrate(cpu, pte_pfn(await GetPte(1, HEAP)))
        assert left
        machine.areas.clear()

    machine = SmallMachine(Thread(0, body))
    machine.run()
    assert accounting.UNFINISHED in machine.rules


def test_stale_write_into_a_retired_source(monkeypatch: pytest.MonkeyPatch) -> None:
    """CPU 1 has the page writable and is never told; the source is kept, so that nothing else is wrong."""
    monkeypatch.setattr(migrate, "try_to_unmap_flush", nothing)

    async def mover(cpu: PerCpu) -> None:
        await after("cached")
        await FolioGet(pfn := pte_pfn(await GetPte(1, HEAP)))
        await mark("held")
        await FolioPut(pfn)
        await demote(cpu, HEAP)
        await mark("moved")

    async def writer(cpu: PerCpu) -> None:
        await user_write(cpu, HEAP, 1)
        await mark("cached")
        await after("moved")
        await user_write(cpu, HEAP, 2)

    class Keeping(Policy):
        """Keeps every source, flushes for none."""

        async def folio_moved(self, cpu: PerCpu, src: int, dst: int) -> None:
            await FolioGet(src)

    machine = SmallMachine(Thread(0, mover), Thread(1, writer), policy=Keeping).run()
    assert coherence.LOST_WRITE in machine.rules
    assert accounting.REFERENCES in machine.rules


# --- wrong policies ----------------------------------------------------------------------------------


class WritableAnyway(MigrcV3):
    """A write fault on a pending folio is not noticed."""

    async def before_writable(self, cpu: PerCpu, pfn: int) -> None:
        await FolioClearFlag(pfn, PG_MIGRC)


class SourceFreedFirst(MigrcV3):
    """Whoever flushes frees the sources before."""

    async def try_flush_free_folios(self, cpu: PerCpu) -> bool:
        for name in self._lists(cpu):
            for gen, mask, folios in await LlistDelAll(name):
                for pfn in folios:
                    await self.release(cpu, pfn)
                await LlistAdd("again", (gen, mask, ()))
        await LlistDelAll("again")
        return True


class FlagOfNobody(Policy):
    """Marks a folio with a flag that it has not declared."""

    async def folio_moved(self, cpu: PerCpu, src: int, dst: int) -> None:
        await FolioSetFlag(dst, PG_PRIVATE_3)


class NotCounted(MigrcV3):
    """The pending counter goes up only."""

    async def release(self, cpu: PerCpu, pfn: int) -> None:
        await FolioPut(pfn)


class RequestDropped(MigrcV3):
    """A request taken from the list is forgotten."""

    async def try_flush_free_folios(self, cpu: PerCpu) -> bool:
        for name in self._lists(cpu):
            await LlistDelAll(name)
        return False


class NeverDrained(MigrcV3):
    """Nothing is flushed at the end."""

    async def drain(self, cpu: PerCpu) -> None:
        return


class SkipsEverybody(MigrcV3):
    """Takes every CPU for one that has flushed since."""

    def before(self, a: int, b: int) -> bool:
        return False


async def _read_late(cpu: PerCpu) -> None:
    await user_read(cpu, SHARED)
    await mark("cached")
    await after("written")
    await user_read(cpu, SHARED)


async def _defer_then_write(cpu: PerCpu) -> None:
    await after("cached")
    await demote(cpu, SHARED)
    await user_write(cpu, SHARED, 9)
    await mark("written")


def deferred_then_written(policy: type[Policy]) -> set[str]:
    return SmallMachine(Thread(0, _defer_then_write), Thread(1, _read_late), policy=policy).run().rules


def test_the_scenario_itself_is_in_order() -> None:
    assert deferred_then_written(MigrcV3) == set()


@pytest.mark.parametrize(
    ("policy", "rule"),
    [
        (WritableAnyway, coherence.OVERWRITTEN),
        (SkipsEverybody, coherence.FREE),
        (SourceFreedFirst, coherence.FREE),
        (NotCounted, accounting.UNFINISHED),
        (FlagOfNobody, accounting.UNDECLARED),
        (RequestDropped, accounting.REFERENCES),
        (RequestDropped, accounting.UNFINISHED),
    ],
)
def test_wrong_policy(policy: type[Policy], rule: str) -> None:
    assert rule in deferred_then_written(policy)


def test_something_is_pending_after_the_drain() -> None:
    async def body(cpu: PerCpu) -> None:
        await after("cached")
        await user_read(cpu, FILE)
        await demote(cpu, FILE)
        await mark("demoted")

    async def other(cpu: PerCpu) -> None:
        await user_read(cpu, FILE)
        await mark("cached")
        await after("demoted")

    machine = SmallMachine(Thread(0, body), Thread(1, other), policy=NeverDrained).run()
    assert {accounting.UNFINISHED, accounting.REFERENCES} <= machine.rules


def test_every_rule_has_its_mistake() -> None:
    """Rules that no test in this file names: none. (That of coherence.DROPPED is in test_coherence.py.)"""
    source = Path(__file__).read_text()
    for module in (coherence, accounting):
        for name, value in vars(module).items():
            if name.isupper() and isinstance(value, str):
                assert f"{module.__name__.rpartition('.')[2]}.{name}" in source, value


@pytest.mark.parametrize("order", [0, 1, 2])
def test_an_allocation_that_fails_forgets_no_read_copy(order: int) -> None:
    """Its answer, -1, is no frame, and what would follow it are none of its frames."""
    memory = Memory((Tier(1, Watermarks(0, 0, 0)), Tier(4, Watermarks(0, 0, 0))))
    check = coherence.Coherence(memory)

    def step(operation: Operation) -> Any:
        answer = memory.execute(0, operation)
        check.observe(0, operation, answer)
        return answer

    assert (step(AllocPages(0, 0, 0, 0)), step(AllocPages(1, 0, 0, 0))) == (1, 2)
    step(SetPte(1, HEAP, mk_pte(1, PRESENT)))
    entry = step(TryToMigratePte(1, HEAP, 1))
    step(FolioCopy(1, 2))
    left = make_migration_entry(entry)
    assert step(CmpxchgPte(1, HEAP, left, mk_pte(2, PRESENT))) == left
    assert step(AllocPages(0, order, 0, 0)) == -1
    step(ReadFrame(1, HEAP, 1))
    assert not check.violations


def test_a_write_to_what_has_left_the_page_cache_is_missed_by_the_next_reader() -> None:
    """Reclaimed, but not flushed: what is written there is written to nobody."""
    memory = Memory((Tier(4, Watermarks(0, 0, 0)),))
    check = coherence.Coherence(memory)

    def step(operation: Operation) -> Any:
        answer = memory.execute(0, operation)
        check.observe(0, operation, answer)
        return answer

    memory.execute(0, VmaInsert(1, SHARED, SHARED + 1, VM_WRITE, 7, 0))
    pfn = step(AllocPages(0, 0, 0, 0))
    step(FolioZero(pfn))
    assert step(FilemapAdd(7, 0, pfn)) == -1
    entry = mk_pte(pfn, PRESENT | RW | DIRTY)
    assert step(CmpxchgPte(1, SHARED, 0, entry)) == 0
    assert step(CmpxchgPte(1, SHARED, entry, 0)) == entry
    step(WritePage(7, 0, pfn))
    assert step(FilemapRemove(7, 0, pfn, 2))
    step(WriteFrame(1, SHARED, pfn, 5))
    again = step(AllocPages(0, 0, 0, 0))
    step(FolioZero(again))
    assert step(FilemapAdd(7, 0, again)) == -1
    assert step(CmpxchgPte(1, SHARED, 0, mk_pte(again, PRESENT))) == 0
    assert not check.violations
    step(ReadFrame(1, SHARED, again))
    assert [violation.rule for violation in check.violations] == [coherence.CACHE]
