"""Which machines have the locks that faults hold: those whose programs can tell."""

from __future__ import annotations

from functools import partial

from emulator.hardware.ordering import ARCHITECTURES
from emulator.kernel import mmap as mmap_of_the_kernel
from emulator.kernel.memory import handle_mm_fault
from emulator.kernel.mmap_lock import mmap_write_lock
from emulator.kernel.percpu import PerCpu
from emulator.kernel.user import user_read
from emulator.machine.litmus import MM, LitmusMachine
from emulator.machine.reach import needs_fault_locks, needs_folio_locks, reached
from emulator.policies.immediate import Immediate
from scenarios.litmus.fault_locks import UNMAPPED
from scenarios.litmus.mappings import ZAP_PENDING
from scenarios.litmus.starts import PAGE
from scenarios.litmus.steps import call, in_order
from scenarios.litmus.syscalls import ftruncate, munmap, write_file


class _Unmaps:
    async def __call__(self, cpu: PerCpu) -> None:
        await munmap(cpu, PAGE)


async def _by_way_of_a_module(cpu: PerCpu) -> None:
    await mmap_of_the_kernel.do_munmap(cpu, MM, PAGE, PAGE + 1)


_reads = call(user_read, PAGE)


def test_what_unmaps_and_what_faults_are_both_needed_however_they_are_made() -> None:
    for unmaps in (
        call(munmap, PAGE),
        in_order(_reads, call(munmap, PAGE)),
        partial(munmap, start=PAGE),
        _Unmaps(),
        _by_way_of_a_module,
    ):
        assert mmap_write_lock in reached((unmaps,))
        assert needs_fault_locks((unmaps, _reads))
    assert not needs_fault_locks((_reads, _reads))
    assert handle_mm_fault in reached((_reads,))


def test_only_who_writes_past_mappings_can_tell_that_migration_locks_a_folio() -> None:
    assert needs_folio_locks((write_file, _reads))
    assert needs_folio_locks((call(ftruncate, cut=True),))
    assert not needs_folio_locks((_reads, call(munmap, PAGE)))


def test_a_setting_goes_before_what_programs_reach() -> None:
    def locks(test: object) -> bool:
        return LitmusMachine(test, ARCHITECTURES["sc"], Immediate).parameters.fault_locks  # type: ignore[arg-type]

    assert locks(UNMAPPED)
    assert not locks(ZAP_PENDING)  # its other program reads only what it has cached
