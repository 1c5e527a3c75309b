"""Tables that are things, devices, guests, mappings of the kernel: what searches skip changes nothing."""

from __future__ import annotations

import pytest

from emulator.explore.exhaustive import exhaust
from emulator.explore.learned import LearnedMachine
from scenarios.subjects.programs import LitmusName
from scenarios.subjects.subject import Subject

# By pointers, through upper entries, a deposited table, calls to a device, a guest's table, global entries.
CASES = (
    ("table-freed", "mistake:tables-by-address", "riscv"),
    ("collapse-gup-fast", "immediate", "x86"),
    ("collapse-gup-fast", "mistake:collapse-without-sync", "sc"),
    ("hugetlb-unshare-gup-fast", "mistake:unshare-without-sync", "sc"),
    ("mremap-table-retracted", "immediate", "sc"),
    ("mremap-table-retracted", "mistake:table-moves-unseen", "riscv"),
    ("device-migrated", "migrc:v3", "riscv"),
    ("device-migrated", "mistake:device-untold", "sc"),
    ("guest-collapsed", "immediate", "sc"),
    ("guest-zapped-root-by-root", "mistake:kvm-yields-without-flush", "sc"),
    ("vmalloc-again", "mistake:purges-by-cr3", "x86"),
    ("split-two-sizes", "mistake:splits-before-it-flushes", "riscv"),
)


@pytest.mark.parametrize(("test", "policy", "arch"), CASES)
def test_reduced_and_unreduced_searches_break_the_same_rules(test: str, policy: str, arch: str) -> None:
    found = []
    for reduce in (True, False):
        machine = LearnedMachine(Subject(LitmusName(test), policy, arch).litmus_machine())
        tally = exhaust(machine, reduce=reduce, all_rules=True, max_states=20_000)
        assert tally.complete
        found.append((tally.rules, machine.reached, tally.states))
    (rules, reached, states), (all_rules, all_reached, all_states) = found
    assert rules == all_rules and reached == all_reached
    assert states <= all_states
    assert bool(rules) == policy.startswith("mistake:")
