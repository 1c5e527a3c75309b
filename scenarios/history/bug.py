"""A bug that was: one that the kernel had, as data beside the litmus test that shows it.

The test is run twice, as the kernel is and as it was before the fix. What is expected of both is said where
it is of every policy, in the test's `expected`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from emulator.machine.litmus import Expectation, Litmus

KINDS: Final[Mapping[str, str]] = {
    "MF": "missing flush",
    "FR": "flush after reuse",
    "PT": "decided from the entry while the TLB differs",
    "FL": "flush lost",
    "TS": "wrong set of CPUs",
    "WO": "wrong order",
    "GR": "reuse of a generation or an ASID",
    "HS": "huge and small entry at once",
    "PF": "page table freed, moved or reused",
    "XT": "translation cache that is no CPU's TLB",
    "MO": "memory order",
    "HW": "hardware does less than it says",
}


@dataclass(frozen=True, slots=True)
class Bug:
    """One bug. `fix` is the commit that ended it, 12 digits, `cve` its number; either may be empty.

    `kinds` are keys of KINDS, `affected` the versions of Linux that had it, `source` what was read about it,
    and `story` the interleaving. `test` breaks a rule with the policy `before`, which is the kernel before
    the fix, and none with `fixed`. `left_out` says what of the bug the test does not hold. `since`: what it
    takes is not there in versions before, so they are not asked.
    """

    name: str
    title: str
    kinds: tuple[str, ...]
    story: str
    affected: str
    source: str
    test: Litmus
    before: str
    fix: str = ""
    cve: str = ""
    fixed: str = "immediate"
    left_out: str = ""
    since: str = ""

    def expectation(self, policy: str) -> Expectation | None:
        """What its test expects of a policy; None if that is nothing."""
        return next((one for one in self.test.expected if one.policy == policy), None)

    @property
    def reference(self) -> str:
        """The fix, the CVE, or both: what to look for."""
        return ", ".join(self.known_as)

    @property
    def known_as(self) -> tuple[str, ...]:
        """Its names elsewhere."""
        return tuple(filter(None, (self.fix, self.cve)))

    def not_in(self, kernel: str) -> str:
        """Why this version of the kernel, as `6.1`, cannot have it; empty if it can."""
        if not self.since or _numbers(kernel) >= _numbers(self.since):
            return ""
        return f"is about Linux from {self.since} on, not {kernel}"

    def problem(self) -> str:
        """What makes it no bug that can be checked; empty if nothing does."""
        if not self.kinds or not set(self.kinds) <= set(KINDS):
            return f"kinds {self.kinds}: one or more of {', '.join(KINDS)}"
        if not self.reference:
            return "neither `fix` nor `cve`: a commit or a CVE says what it was"
        for policy, wanted in ((self.fixed, "Never"), (self.before, "Sometimes")):
            found = self.expectation(policy)
            said_of = (found.sc, found.x86, found.riscv, found.arm64) if found is not None else ()
            verdicts = {one for one in said_of if one is not None}
            if verdicts != {wanted}:
                said = " and ".join(sorted(verdicts)) or "nothing"
                return f"its test {self.test.name} expects {said} of {policy}; {wanted} is what it is for"
        if not (before := self.expectation(self.before)) or not before.rules:
            return f"its test {self.test.name} names no rule that {self.before} breaks"
        return ""


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))
