"""Frugality: no CPU is interrupted for a deferred flush that it is known to have done.

The one idea: the bookkeeping of the grace period says the other thing as well. If every flush that CPU c
owes happens before the interrupt that asks c for one, the interrupt asks for nothing.
"""

from __future__ import annotations

from typing import Any

from emulator.checks.grace_period import RETIRED, GracePeriod
from emulator.checks.onlooker import APART, Meeting, Watcher
from emulator.checks.violation import MAX_KEPT, Violation
from emulator.hardware.cpu import Transition
from emulator.hardware.operations import Operation, SendIpi
from emulator.kernel.tlb import ANY_MM, FlushTlbInfo, flush_tlb_func

NEEDLESS = "needless interrupt"


class Frugality(Watcher):
    """Judges the interrupts that ask for flushes; comes after its GracePeriod among the watchers.

    Only flushes of batches are judged (arch_tlbbatch_flush: whatever mm is loaded), only against retirements
    whose flush was deferred (the page had moved before it was done), and only while no ordinary flush is
    under way. Mainline itself keeps no account of who has flushed but the generation, which only the target
    compares: two CPUs that flush for changes of one mm at a time both interrupt, and the second finds nothing
    to do. That is no fault of a policy's bookkeeping.
    """

    ignores = GracePeriod.ignores

    def __init__(self, grace: GracePeriod) -> None:
        super().__init__()
        self._grace = grace

    def happened(
        self, transition: Transition, operation: Operation | None, issued: bool, answer: Any
    ) -> None:
        """One transition, as an engine tells its watchers."""
        if isinstance(operation, SendIpi) and _asks_for_a_batch(operation):
            self._asked(transition.cpu, operation.targets)

    def meets(
        self, transition: Transition, operation: Operation | None, issued: bool, answer: Any
    ) -> Meeting:
        """It looks at all that is retired, and at what the asking CPU knows."""
        asks = isinstance(operation, SendIpi) and _asks_for_a_batch(operation)
        return Meeting((RETIRED,)) if asks else APART

    def _asked(self, cpu: int, targets: tuple[int, ...]) -> None:
        facts = self._grace.facts
        done = {target: "" for target in targets}
        for at, retired in enumerate(facts.retired):
            missing = facts.missing(at, cpu)
            if missing and not retired.deferred:
                return
            for target in targets:
                if missing >> target & 1:
                    done.pop(target, None)
                elif retired.holders >> target & 1 and retired.deferred and target in done:
                    done[target] += f" {retired.vpn:#x} of mm {retired.mm}"
        for target, pages in done.items():
            if pages and len(self.violations) < MAX_KEPT:
                text = (
                    f"CPU {target} is interrupted, but has already dropped the old translation of page{pages}"
                )
                self.violations.append(Violation(rule=NEEDLESS, cpu=cpu, text=text))


def _asks_for_a_batch(call: SendIpi) -> bool:
    return call.function == flush_tlb_func.__name__ and FlushTlbInfo(*call.arguments).mm == ANY_MM
