"""Memory some of whose words are page descriptors, and what each CPU's TLB may hold of them.

A TLB fetches and forgets when it likes. So of each descriptor a CPU may hold all that memory held since the
CPU last did an invalidation of it, if it is cacheable; a translation takes any of that, or walks. That is
every TLB of every size at once, with a walk at every moment, in one set (Simner et al., ESOP 2022).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

from emulator.hardware import operations as ops
from emulator.hardware.descriptors import HARDWARE_AF, NEVER, OUTPUT, cacheable, fault, to_update
from emulator.hardware.instructions import MOST_OUTPUTS, without_tag
from emulator.hardware.operations import EVERYTHING, TOUCHES, UNTAKEN, UPDATES
from emulator.memory.blocked import BLOCKED
from emulator.memory.llist import LockLessList
from emulator.memory.memory import Memory
from emulator.memory.words import Node, Words


def held_list(cpu: int, word: str) -> str:
    """Name of the list of what a CPU's TLB may hold of a descriptor, in descending order."""
    return f"held.{cpu}.{word}"


def _covers(asked: Node, page: int) -> bool:
    pcid, _, start, end, *_ = asked
    return bool(pcid == EVERYTHING or start <= page < end)


class WordsAndEntries(Words):
    """Words, among them descriptors: `entries` gives the page number of each, `takers` the CPUs that ever
    translate by it. What the others' TLBs hold of it nobody can tell, so they have nothing to invalidate."""

    def __init__(self) -> None:
        super().__init__()
        self.entries: Mapping[str, int] = {}
        self.takers: Mapping[str, Sequence[int]] = {}

    def begin(self, entries: Mapping[str, int], takers: Mapping[str, Sequence[int]]) -> None:
        """These are descriptors, with the values that they have now."""
        self.entries = entries
        self.takers = takers
        for word in entries:
            self._note(word)

    def _note(self, word: str) -> None:
        """The word has been written to: all may fetch what it is now."""
        entry = self._entry(word)
        if word in self.takers and cacheable(entry):
            for cpu in self.takers[word]:
                self._hold(cpu, word, {*self._held(cpu, word), entry})

    def _entry(self, word: str) -> int:
        return without_tag(self.values.get(word, 0))

    def _held(self, cpu: int, word: str) -> set[int]:
        found = self.lists.get(held_list(cpu, word))
        return {entry for (entry,) in found.state()} if found is not None else set()

    def _hold(self, cpu: int, word: str, entries: set[int]) -> None:
        self.lists[held_list(cpu, word)] = LockLessList([(entry,) for entry in sorted(entries, reverse=True)])

    def outputs(self, cpu: int, wanted: ops.TakeTranslation) -> Sequence[int]:
        """All that may be taken: output addresses, or 0 if the access may fault."""
        current = self._entry(wanted.word)
        flags = wanted.flags
        if wanted.number == TOUCHES:
            return [UNTAKEN] if to_update(current, flags & HARDWARE_AF) != current else []
        if wanted.number == UPDATES:
            updated = to_update(current, flags)
            return [updated & OUTPUT] if updated != current and not fault(updated, flags) else []
        usable = [one for one in {current, *self._held(cpu, wanted.word)} if to_update(one, flags) == one]
        if flags & NEVER:
            return [0] if any(fault(one, flags) & flags for one in usable) else []
        found = sorted({one & OUTPUT for one in usable if not fault(one, flags)})
        if len(found) > MOST_OUTPUTS:
            raise RuntimeError(f"{wanted.word}: more than {MOST_OUTPUTS} output addresses")
        return found

    def _take_translation(self, cpu: int, operation: ops.TakeTranslation) -> Any:
        found = self.outputs(cpu, operation)
        number = max(operation.number, 0)
        if number >= len(found):
            return BLOCKED
        if operation.number < 0:
            flags = operation.flags & HARDWARE_AF if operation.number == TOUCHES else operation.flags
            self.values[operation.word] = to_update(self._entry(operation.word), flags)
            self._note(operation.word)
        return found[number]

    def _tlbi(self, cpu: int, operation: ops.Tlbi) -> None:
        concerned = {
            taker
            for word, page in self.entries.items()
            if _covers(tuple(operation[2:]), page)
            for taker in self.takers.get(word, ())
        }
        if mask := operation.mask & sum(1 << taker for taker in concerned):
            super()._tlbi(cpu, ops.Tlbi(operation.sender, mask, *operation[2:]))

    def may_invalidate(self, wanted: ops.InvalidateEntries) -> bool:
        """It is owed, and concerns no page of an access that is under way."""
        asked = self._asked(wanted)
        return bool(asked) and not any(_covers(asked, page) for page in wanted.busy)

    def _asked(self, wanted: ops.InvalidateEntries) -> Node:
        for mask, *what in reversed(self.tlbis(wanted.sender)):
            if mask >> wanted.target & 1:
                return tuple(what)
        return ()

    def _invalidate_entries(self, cpu: int, operation: ops.InvalidateEntries) -> Any:
        if not self.may_invalidate(operation):
            return BLOCKED
        return self._invalidate(cpu, ops.Invalidate(operation.sender, operation.target))

    def _invalidate(self, cpu: int, operation: ops.Invalidate) -> Any:
        asked = super()._invalidate(cpu, operation)
        if asked is not BLOCKED:
            for word, page in self.entries.items():
                if _covers(asked, page) and operation.target in self.takers.get(word, ()):
                    entry = self._entry(word)
                    self._hold(operation.target, word, {entry} if cacheable(entry) else set())
        return asked

    # --- all that writes to words --------------------------------------------------------------------

    def _store(self, cpu: int, operation: ops.Store) -> None:
        super()._store(cpu, operation)
        self._note(operation.word)

    def _add(self, cpu: int, operation: ops.AtomicAdd) -> int:
        return self._noted(super()._add, cpu, operation)

    def _or(self, cpu: int, operation: ops.AtomicOr) -> int:
        return self._noted(super()._or, cpu, operation)

    def _and(self, cpu: int, operation: ops.AtomicAnd) -> int:
        return self._noted(super()._and, cpu, operation)

    def _xchg(self, cpu: int, operation: ops.AtomicXchg) -> int:
        return self._noted(super()._xchg, cpu, operation)

    def _cmpxchg(self, cpu: int, operation: ops.AtomicCmpxchg) -> int:
        return self._noted(super()._cmpxchg, cpu, operation)

    def _noted(self, performed: Callable[[int, Any], int], cpu: int, operation: Any) -> int:
        answer = performed(cpu, operation)
        self._note(operation.word)
        return answer


class MemoryAndEntries(Memory):
    """Memory with such words."""

    kind_of_words: ClassVar[type[Words]] = WordsAndEntries
    words: WordsAndEntries

    def enabled(self, cpu: int, operation: Any) -> bool:
        """As all memory; what changes entries is looked at and not done."""
        if type(operation) is ops.InvalidateEntries:
            return self.words.may_invalidate(operation)
        if type(operation) is ops.TakeTranslation:
            return max(operation.number, 0) < len(self.words.outputs(cpu, operation))
        return super().enabled(cpu, operation)
