"""The kernel's lock-less singly linked list (include/linux/llist.h, lib/llist.c).

Nodes go in at the front and the whole chain comes out at once. The one idea: everything that can change
is a single word, the pointer to the first node, so every operation takes effect in one instant, and each
method here is that instant. Retries of a lost compare-and-exchange are not modelled: they have no effect.
"""

from collections.abc import Sequence
from typing import Generic, TypeVar

T = TypeVar("T")


class LockLessList(Generic[T]):
    """A stack that many CPUs push to and that is emptied in one go, without a lock.

    What may run at the same time, and why:

    * Any number of adders. Each points its last node at the first one it saw and then swaps the head only
      if that is still the first; whoever loses the race looks again. Nobody follows a pointer inside the
      chain, so nothing inside it can mislead.
    * Any number of del_all, with adders and with one another. It swaps the head for "nothing" whatever the
      head was; the chain it gets is its own, a second del_all gets what came in between, perhaps nothing.
    * Not del_first against another del_first, nor against del_all. Removing one node reads its successor
      *before* swapping the head. If somebody else meanwhile takes that node away and it is added again, the
      head looks untouched but the successor is no longer the one that was read (the ABA problem), and the
      swap would put a node that left the list back in front:

          CPU 0: del_first                    CPU 1: del_all, add
          first = A, next = B
                                              take A -> B, list is empty
                                              add A, list is A
          head is still A: set it to B
          has A, rightly                      has B, but B is in the list again

      One consumer alone is safe, since adders never remove; several need a lock among themselves.
      There is no del_first here: deferred requests are always taken all together.

    A successful swap is a full memory barrier, so what an adder wrote before adding is visible to the CPU
    that takes the node. `empty` is a plain read and orders nothing.

    A node has one link and so may be in one list, once; like the kernel, this class does not check.
    """

    __slots__ = ("_oldest_first",)

    def __init__(self, nodes: Sequence[T] = ()) -> None:
        # Appending to a Python list is cheap, inserting in front of it is not.
        self._oldest_first: list[T] = list(reversed(nodes))

    def add(self, node: T) -> bool:
        """Put `node` first; True if the list was empty (llist_add), so that one adder knows to start work."""
        was_empty = not self._oldest_first
        self._oldest_first.append(node)
        return was_empty

    def del_all(self) -> tuple[T, ...]:
        """Take everything, newest first (llist_del_all); () if there was nothing."""
        taken = self.state()
        self._oldest_first.clear()
        return taken

    def empty(self) -> bool:
        """Whether there is no node at this instant (llist_empty); a hint only, it may change at once."""
        return not self._oldest_first

    def __len__(self) -> int:
        """Number of nodes. For reports and checks: kernel code cannot count a list that others add to."""
        return len(self._oldest_first)

    def state(self) -> tuple[T, ...]:
        """The nodes, newest first, without taking them; for fingerprints."""
        return tuple(reversed(self._oldest_first))
