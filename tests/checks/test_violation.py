"""A list that was cut says so: the count of violations must not look smaller than it was."""

from emulator.checks.accounting import Accounting
from emulator.checks.violation import MAX_KEPT
from emulator.kernel.policy import Policy
from emulator.memory.folios import Tier
from emulator.memory.memory import Memory
from emulator.memory.zone import Watermarks


def violations_of(faults: int) -> list[str]:
    memory = Memory((Tier(8, Watermarks(0, 0, 0)),))
    for number in range(faults):
        memory.folios.fault("some rule", f"fault {number}")
    check = Accounting(memory, Policy())
    check.finish()
    return [violation.text for violation in check.violations]


def test_up_to_the_limit_every_violation_is_listed() -> None:
    assert violations_of(MAX_KEPT) == [f"fault {number}" for number in range(MAX_KEPT)]


def test_past_the_limit_the_last_entry_counts_the_rest() -> None:
    listed = violations_of(MAX_KEPT + 7)
    assert len(listed) == MAX_KEPT + 1
    assert listed[-1] == "7 more violations were found"
