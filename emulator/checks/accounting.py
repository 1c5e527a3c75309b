"""Accounting: every frame is free, in use or pending, exactly once, and nothing is owed at the end.

What the allocator and the folios themselves found impossible on the way (a folio freed while mapped,
a reference dropped from a free folio) is reported here as well. What a policy may leave is what it declares.
"""

from __future__ import annotations

from typing import Any

from emulator.checks.onlooker import APART, Check, Meeting
from emulator.checks.violation import MAX_KEPT, Violation, not_kept
from emulator.hardware.operations import Operation
from emulator.kernel.policy import Policy
from emulator.memory.folios import PG_DIRTY, PG_KSM, PG_LAZYFREE, PG_REFERENCED
from emulator.memory.memory import Memory

LEAK = "frame accounting"
REFERENCES = "reference count"
UNFINISHED = "work left at the end"
UNDECLARED = "page flag nobody declared"

# mm->tlb_flush_pending counts who is under way.
_AT_REST = ("tlb_flush_pending.",)


class Accounting(Check):
    """Looks at the whole memory once, when every CPU has halted; faults on the way memory notes itself."""

    def __init__(self, memory: Memory, policy: Policy) -> None:
        super().__init__()
        self.memory = memory
        self._at_rest = (*_AT_REST, *policy.words_at_rest)
        self._flags = sum({PG_DIRTY, PG_REFERENCED, PG_LAZYFREE, PG_KSM, *policy.page_flags})
        self.found = 0

    def _report(self, rule: str, text: str) -> None:
        self.found += 1
        if len(self.violations) < MAX_KEPT:
            self.violations.append(Violation(rule=rule, cpu=-1, text=text))

    def meets(self, cpu: int, operation: Operation, answer: Any) -> Meeting:
        """It looks at nothing but the end. Of several faults the order alone is told."""
        return APART

    def finish(self) -> None:
        """Audit the final state."""
        folios = self.memory.folios
        for rule, text in folios.faults:
            self._report(rule, text)
        for zone in folios.zones:
            used = sum(1 << folio.order for folio in folios.folios.values() if folio.node == zone.node)
            free = folios.nr_free(zone.node)
            if free + used != zone.pages:
                self._report(LEAK, f"node {zone.node}: {free} free + {used} in use, of {zone.pages} pages")
        for _, folio in sorted(folios.folios.items()):
            mapped = folio.mapcount()
            expected = mapped + (folio.mapping is not None)
            if folio.refcount != expected:
                self._report(
                    REFERENCES,
                    f"frame {folio.pfn} has {folio.refcount} references, but {mapped} mappings and "
                    f"{'a' if folio.mapping else 'no'} page-cache slot account for {expected}",
                )
            elif expected and folio.lru is None:
                self._report(UNFINISHED, f"frame {folio.pfn} is in use, but on no LRU list")
            elif not expected:
                self._report(LEAK, f"frame {folio.pfn} is neither free nor used by anybody")
            if unknown := folio.flags & ~self._flags:
                self._report(UNDECLARED, f"frame {folio.pfn} has flags {unknown:#x}, which nobody declares")
        for mm, vpn in sorted(self.memory.page_tables.migration_entries()):
            self._report(UNFINISHED, f"page {vpn:#x} of mm {mm} still is a migration entry")
        words = self.memory.words
        for name, value in sorted(words.values.items()):
            if value and name.startswith(self._at_rest):
                self._report(UNFINISHED, f"{name} is {value}, not 0")
        for name, nodes in sorted(words.lists.items()):
            if len(nodes):
                self._report(UNFINISHED, f"list {name} still has {len(nodes)} requests")
        for name, holder in sorted(words.holders.items()):
            who = f"CPU {holder}" if holder >= 0 else f"{-holder} that read under it"
            self._report(UNFINISHED, f"lock {name} is still held by {who}")
        self.violations += not_kept(len(self.violations), self.found)
