"""An mm that only one CPU uses is flushed page by page as it is unmapped; nothing is put off."""

import pytest

from emulator.kernel.percpu import PerCpu
from emulator.kernel.user import user_read
from emulator.policies.catalogue import POLICIES
from tests.kernel.small_machine import HEAP, SmallMachine, Thread, demote


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
