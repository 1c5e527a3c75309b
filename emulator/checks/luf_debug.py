"""LUF_DEBUG (25/25 of LUF v12, mm/rmap.c: lufd_check_pages): no page is used that still owes a flush.

What a page owes when it is freed is noted beside it (page_ext) and goes with `ugen_done` of the CPUs. Where
the posting asks (pte_mkwrite, kmap, page_to_virt, the end of a takeoff) somebody is about to use the frame.
As posted a page forgets what it owes as soon as its zone owes that as well (arch_tlbbatch_done clears it),
so that nothing is found out about pages that came from a zone; here it does not.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any, Final

from emulator.checks.onlooker import APART, Check, Meeting, Observer
from emulator.checks.violation import MAX_KEPT, Violation
from emulator.hardware import operations as ops
from emulator.hardware.operations import Operation
from emulator.hardware.pte import RW, pte_pfn, pte_present
from emulator.kernel.smp import cpus_of
from emulator.memory.memory import Memory
from emulator.memory.zone import TAG_BITS
from emulator.policies.luf_clock import LufBatch, key_batch, ugen_done_word

OWING: Final = "LUFD: a page that owes a flush is used"

_BY_PFN = frozenset({ops.FolioZero, ops.FilemapAdd, ops.LruAdd})
_BY_ENTRY = frozenset({ops.SetPte, ops.XchgPte, ops.CmpxchgPte, ops.CollapsePmd})
_USES = _BY_PFN | _BY_ENTRY | {ops.FolioCopy}
_LOOKED_AT = _USES | {ops.FolioSetTag, ops.AtomicCmpxchg}
_UGEN_DONE = ugen_done_word(0)[:-1]


def _used(operation: Any) -> tuple[int, ...]:
    """Frames that somebody is about to use."""
    kind = type(operation)
    if kind in _BY_PFN:
        return (operation.pfn,)
    if kind is ops.FolioCopy:
        return operation.src, operation.dst
    pte = operation.new if kind is ops.CmpxchgPte else operation.pte
    return (pte_pfn(pte),) if pte_present(pte) and pte & RW else ()


class LufDebug(Check):
    """Watches the frames of a policy that has LUF v12's words, on a machine of `cpus` CPUs."""

    def __init__(self, memory: Memory, cpus: int) -> None:
        super().__init__()
        self.memory = memory
        self._done = tuple((of, ugen_done_word(cpu)) for cpu in range(cpus) for of in ("word", "lufd"))
        self.owed: dict[int, int] = {}  # frame to its luf_batch
        self.done: dict[str, int] = {}  # ugen_done, had nobody lost the race to note it

    def observer(self, kind: type[Any]) -> Observer | None:
        """Of what frees with a tag, and of what uses frames."""
        return self.observe if kind in _LOOKED_AT else None

    def observe(self, cpu: int, operation: Operation, answer: Any) -> None:
        """lufd_mark_pages, lufd_check_pages; or arch_tlbbatch_mark_ugen, which has a lock under LUF_DEBUG
        (lufd_lock), so that who notes an older number at the same time does not win."""
        if isinstance(operation, ops.AtomicCmpxchg):
            if operation.word.startswith(_UGEN_DONE):
                self.done[operation.word] = max(operation.new, self.done.get(operation.word, 0))
            return
        if isinstance(operation, ops.FolioSetTag):
            key = operation.tag % (1 << TAG_BITS)
            if key:
                batch = LufBatch.of(self.memory.words.values.get(key_batch(key), 0))
                before = LufBatch.of(self.owed.get(operation.pfn, 0))
                self.owed[operation.pfn] = LufBatch(
                    batch.cpus | self.left(operation.pfn), max(batch.ugen, before.ugen)
                ).word
            return
        for pfn in _used(operation) if type(operation) in _USES else ():
            if pfn not in self.owed:
                continue
            left = self.left(pfn)
            ugen = LufBatch.of(self.owed.pop(pfn)).ugen
            if left and len(self.violations) < MAX_KEPT:
                who = ", ".join(f"CPU {one}" for one in cpus_of(left))
                text = (
                    f"{type(operation).__name__} uses frame {pfn}, which was freed unflushed at luf_ugen "
                    f"{ugen}, and {who} has not flushed since"
                )
                self.violations.append(Violation(OWING, cpu, text))

    def left(self, pfn: int) -> int:
        """arch_tlbbatch_diet: the CPUs that have not flushed since the frame was freed."""
        cpus, ugen = LufBatch.of(self.owed.get(pfn, 0))
        values = self.memory.words.values
        return sum(
            1 << one
            for one in cpus_of(cpus)
            if max(values.get(ugen_done_word(one), 0), self.done.get(ugen_done_word(one), 0)) < ugen
        )

    def meets(self, cpu: int, operation: Any, answer: Any) -> Meeting:
        """The frame's note, and who has flushed when."""
        if type(operation) not in _LOOKED_AT:
            return APART
        if type(operation) is ops.AtomicCmpxchg:
            done = operation.word.startswith(_UGEN_DONE)
            return Meeting((), (("lufd", operation.word),)) if done else APART
        frames = (operation.pfn,) if type(operation) is ops.FolioSetTag else _used(operation)
        return Meeting(self._done, tuple(("lufd", pfn) for pfn in frames)) if frames else APART

    def state(self) -> Hashable:
        """What frames owe."""
        return tuple(sorted(self.owed.items())), tuple(sorted(self.done.items()))

    def restore(self, state: Any) -> None:
        """As of `state`."""
        owed, done = state
        self.owed.clear()
        self.owed.update(owed)
        self.done.clear()
        self.done.update(done)
