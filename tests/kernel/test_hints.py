"""NUMA hint faults that promote nothing: what the entry is given back."""

from __future__ import annotations

import pytest

from emulator.hardware.pte import pte_present, pte_protnone, pte_write
from emulator.kernel.mprotect import change_prot_numa
from emulator.kernel.percpu import PerCpu
from emulator.kernel.user import user_read, user_write
from emulator.policies.catalogue import POLICIES
from tests.kernel.small_machine import FILE, HEAP, SHARED, SmallMachine, Thread, demote


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize(
    ("page", "written", "writable"),
    [
        (HEAP, True, True),
        (HEAP, False, True),
        (FILE, True, True),
        (FILE, False, False),
        (SHARED, True, False),
    ],
    ids=["written", "only read", "copied from a file", "page of a file", "shared file"],
)
def test_an_exclusive_page_becomes_writable_again_where_it_is(
    page: int, written: bool, writable: bool, policy: str
) -> None:
    """Whether it is dirty does not matter (can_change_pte_writable); pages of a file fault once more."""

    async def body(cpu: PerCpu) -> None:
        await (user_write(cpu, page, 5) if written else user_read(cpu, page))
        await demote(cpu, page)
        assert await change_prot_numa(cpu, 1, page, page + 1) == 1
        assert pte_protnone(machine.entry(page))
        assert await user_read(cpu, page) == (5 if written else 0)
        assert pte_present(machine.entry(page)) and not pte_protnone(machine.entry(page))
        assert pte_write(machine.entry(page)) is writable

    machine = SmallMachine(Thread(0, body), policy=POLICIES[policy], numa_promotes=False)
    assert not machine.run().violations
    assert machine.vmstat("numa_hint_faults") == 1
    assert machine.vmstat("numa_pages_migrated") == 0
    assert machine.vmstat("numa_writable") == writable
