"""Named words with atomics, locks, and the lock-less lists: what CPUs coordinate through.

A word exists from its first use and starts at 0. A lock knows which CPU holds it, or how many read under
it, and nothing else: who waits is the engine's business, because waiting is an operation that is not enabled.
"""

from __future__ import annotations

from typing import Any, Final

from emulator.hardware import operations as ops
from emulator.hardware.pte import RW, spte_word
from emulator.memory.blocked import BLOCKED
from emulator.memory.llist import LockLessList

Node = tuple[Any, ...]

_NO_PAYLOAD: Final = (0, 0, 0, 0, 1)
"""What a payload asks that has not been written, or that all have done: nothing."""


class Words:
    """All named words, locks and lock-less lists of one machine."""

    def __init__(self) -> None:
        self.values: dict[str, int] = {}
        self.lists: dict[str, LockLessList[Node]] = {}
        self.holders: dict[str, int] = {}  # a CPU, or minus the number of readers

    def state(self) -> tuple[Any, ...]:
        """Values other than 0, lists that are not empty, and who holds what; hashable."""
        return (
            frozenset([item for item in self.values.items() if item[1]]),
            frozenset([(name, nodes.state()) for name, nodes in self.lists.items() if len(nodes)]),
            frozenset(self.holders.items()),
        )

    def restore(self, state: tuple[Any, ...]) -> None:
        """Put back what `state` answered."""
        values, lists, holders = state
        self.values = dict(values)
        self.lists = {name: LockLessList(nodes) for name, nodes in lists}
        self.holders = dict(holders)

    def held_by_other(self, cpu: int, name: str) -> bool:
        """Another CPU than `cpu` holds this lock."""
        return self.holders.get(name, cpu) != cpu

    def free_for(self, wanted: ops.Lock | ops.DownRead) -> bool:
        """The lock can be had, alone or with other readers."""
        if type(wanted) is ops.DownRead:
            return self.holders.get(wanted.name, -1) < 0
        return wanted.name not in self.holders

    def _load(self, cpu: int, operation: ops.Load) -> int:
        return self.values.get(operation.word, 0)

    def _walk_spte(self, cpu: int, operation: ops.WalkSpte) -> int:
        entry = self.values.get(spte_word(operation.mm, operation.root, operation.vpn), 0)
        return 0 if operation.write and not entry & RW else entry

    def _store(self, cpu: int, operation: ops.Store) -> None:
        self.values[operation.word] = operation.value

    def _add(self, cpu: int, operation: ops.AtomicAdd) -> int:
        value = self.values.get(operation.word, 0) + operation.delta
        self.values[operation.word] = value
        return value

    def _or(self, cpu: int, operation: ops.AtomicOr) -> int:
        old = self.values.get(operation.word, 0)
        self.values[operation.word] = old | operation.mask
        return old

    def _and(self, cpu: int, operation: ops.AtomicAnd) -> int:
        old = self.values.get(operation.word, 0)
        self.values[operation.word] = old & operation.mask
        return old

    def _xchg(self, cpu: int, operation: ops.AtomicXchg) -> int:
        old = self.values.get(operation.word, 0)
        self.values[operation.word] = operation.value
        return old

    def _cmpxchg(self, cpu: int, operation: ops.AtomicCmpxchg) -> int:
        old = self.values.get(operation.word, 0)
        if old == operation.old:
            self.values[operation.word] = operation.new
        return old

    def _wait_for(self, cpu: int, operation: ops.WaitFor) -> Any:
        value = self.values.get(operation.word, 0)
        return value if value == operation.value else BLOCKED

    def _wait_while(self, cpu: int, operation: ops.WaitWhile) -> Any:
        value = self.values.get(operation.word, 0)
        return value if value != operation.value else BLOCKED

    # --- invalidations: of each sender at most one is under way, and as many Tlbis as it likes -------

    def under_way(self, sender: int) -> Node:
        """The CPUs that have not done yet what a CPU has asked, as a mask, and what that is; () if there are
        none."""
        found = self.lists.get(f"invlpgb.{sender}")
        nodes = found.state() if found is not None else ()
        return nodes[0] if nodes else ()

    def tlbis(self, sender: int) -> tuple[Node, ...]:
        """The same of a CPU's Tlbis, newest first."""
        found = self.lists.get(f"tlbi.{sender}")
        return found.state() if found is not None else ()

    def invalidation_enabled(self, wanted: ops.Invlpgb | ops.Tlbsync | ops.Dsb | ops.Invalidate) -> bool:
        """One asks or waits when all have done what was asked before; one's TLB does what it has not yet."""
        if isinstance(wanted, ops.Dsb):
            return not any(mask & wanted.mask for mask, *_ in self.tlbis(wanted.sender))
        asked = self.under_way(wanted.sender)
        if isinstance(wanted, ops.Invalidate):
            owed = [mask for mask, *_ in self.tlbis(wanted.sender)] or asked[:1]
            return any(mask >> wanted.target & 1 for mask in owed)
        return not asked or not asked[0]

    def _invlpgb(self, cpu: int, operation: ops.Invlpgb) -> Any:
        if not self.invalidation_enabled(operation):
            return BLOCKED
        self._list(f"invlpgb.{operation.sender}").add(tuple(operation[1:]))
        return None

    def _tlbi(self, cpu: int, operation: ops.Tlbi) -> None:
        self._list(f"tlbi.{operation.sender}").add(tuple(operation[1:]))

    def _tlbsync(self, cpu: int, operation: ops.Tlbsync | ops.Dsb) -> Any:
        return None if self.invalidation_enabled(operation) else BLOCKED

    def _invalidate(self, cpu: int, operation: ops.Invalidate) -> Any:
        if not self.invalidation_enabled(operation):
            return BLOCKED
        if self.tlbis(operation.sender):
            return self._do_oldest(self._list(f"tlbi.{operation.sender}"), 1 << operation.target)
        nodes = self._list(f"invlpgb.{operation.sender}")
        ((mask, *what),) = nodes.del_all()
        if left := mask & ~(1 << operation.target):
            nodes.add((left, *what))
        return tuple(what)

    def _do_oldest(self, nodes: LockLessList[Node], bit: int) -> Node:
        answer: Node = ()
        for mask, *what in reversed(nodes.del_all()):
            if mask & bit and not answer:
                mask &= ~bit
                answer = tuple(what)
            if mask:
                nodes.add((mask, *what))
        return answer

    def _set_payload(self, cpu: int, operation: ops.SetPayload) -> Any:
        pending = self.under_way(operation.sender)
        nodes = self._list(f"invlpgb.{operation.sender}")
        nodes.del_all()
        nodes.add((pending[0] if pending else 0, *operation[1:]))

    def _send_rar(self, cpu: int, operation: ops.SendRar) -> Any:
        pending, *what = self.under_way(operation.sender) or (0, *_NO_PAYLOAD)
        nodes = self._list(f"invlpgb.{operation.sender}")
        nodes.del_all()
        nodes.add((pending | operation.mask, *what))

    def _lock(self, cpu: int, operation: ops.Lock) -> Any:
        if not self.free_for(operation):
            return BLOCKED
        self.holders[operation.name] = cpu
        return None

    def _try_lock(self, cpu: int, operation: ops.TryLock) -> bool:
        if operation.name in self.holders:
            return False
        self.holders[operation.name] = cpu
        return True

    def _unlock(self, cpu: int, operation: ops.Unlock) -> None:
        if self.holders.pop(operation.name, -1) < 0:
            raise RuntimeError(f"unlock of {operation.name}, which is not locked")

    def _down_read(self, cpu: int, operation: ops.DownRead) -> Any:
        if not self.free_for(operation):
            return BLOCKED
        self.holders[operation.name] = self.holders.get(operation.name, 0) - 1
        return None

    def _downgrade_write(self, cpu: int, operation: ops.DowngradeWrite) -> None:
        if self.holders.get(operation.name, -1) < 0:
            raise RuntimeError(f"downgrade_write of {operation.name}, which is not locked")
        self.holders[operation.name] = -1

    def _up_read(self, cpu: int, operation: ops.UpRead) -> None:
        self.up_read(operation.name)

    def up_read(self, name: str) -> None:
        """One of those who read under the lock does so no more."""
        readers = -self.holders.get(name, 0)
        if readers <= 0:
            raise RuntimeError(f"up_read of {name}, which nobody reads under")
        if readers > 1:
            self.holders[name] = 1 - readers
        else:
            del self.holders[name]

    def _list(self, name: str) -> LockLessList[Node]:
        found = self.lists.get(name)
        if found is None:
            found = self.lists[name] = LockLessList()
        return found

    def _llist_add(self, cpu: int, operation: ops.LlistAdd) -> bool:
        return self._list(operation.name).add(operation.node)

    def _llist_del_all(self, cpu: int, operation: ops.LlistDelAll) -> tuple[Node, ...]:
        found = self.lists.get(operation.name)
        return found.del_all() if found is not None else ()

    def _llist_empty(self, cpu: int, operation: ops.LlistEmpty) -> bool:
        found = self.lists.get(operation.name)
        return found is None or found.empty()
