"""Who may watch a run: what memory carries out (`Check`), or every transition (`Watcher`).

Both are there to be derived from: what a check does not look at, remember or report it need not mention.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any, Final, NamedTuple, Protocol

from emulator.checks.violation import Violation
from emulator.hardware.cpu import Transition
from emulator.hardware.operations import TABLE, Operation
from emulator.hardware.operations.places import Key
from emulator.hardware.operations.places import closed as closed
from emulator.hardware.operations.places import is_closed as is_closed


class Meeting(NamedTuple):
    """What an onlooker looks up and changes for one operation, as keys, as of `Touches`.

    Two operations of different CPUs whose order it can tell, or whose order would show in its `state()`, meet
    at one of them. Keys of memory's may be named as well: then it looks there. A key made by `closed` counts
    only on machines where some operation `opens` it.
    """

    reads: tuple[Key, ...] = ()
    writes: tuple[Key, ...] = ()
    opens: tuple[Key, ...] = ()


APART: Final = Meeting()
"""It cannot tell the order of this operation and what other CPUs do."""


Observer = Callable[[int, Any, Any], None]
"""Is told the CPU, the operation and its answer."""


class Check:
    """Somebody who watches what memory carries out: a check or a measurement."""

    def __init__(self) -> None:
        self.violations: list[Violation] = []

    def observe(self, cpu: int, operation: Operation, answer: Any) -> None:
        """One operation has been carried out."""

    def observer(self, kind: type[Any]) -> Observer | None:
        """What to call for operations of this class instead of `observe`; None if it looks at none."""
        return None

    def walked(self, times: int) -> None:
        """So many walks have answered an entry of a frame in use and changed nothing. An engine may say this
        instead of showing it each; it does to those who override `observe` only if they override this too."""

    def meets(self, cpu: int, operation: Operation, answer: Any) -> Meeting | None:
        """What it looks up and changes for an operation. None, of any: nobody knows, so that a search leaves
        out no order of what different CPUs do. Who overrides `observe` overrides this too."""
        return None

    def finish(self) -> None:
        """The run is over."""

    def results(self) -> dict[str, Any]:
        """Figures to report at the end, plain."""
        return {}

    def state(self) -> Hashable:
        """All that its judgements depend on. Explored runs ask for it, and are at the same state again when
        it is the same; so nothing belongs in it that is merely counted."""
        return ()

    def restore(self, state: Any) -> None:
        """Put back what `state` answered. Violations that were found stay."""


class Listener(Protocol):
    """Somebody who is told of transitions rather than of memory."""

    def happened(
        self, transition: Transition, operation: Operation | None, issued: bool, answer: Any
    ) -> None:
        """One transition. `operation` is what it carried out (None for an interrupt, whose answer is the
        batch); `issued` says that it only went into the CPU's window."""


class Watcher:
    """A check of what happens before what.

    It may judge the order of what one CPU does alone (a fence, a flush of its own TLB) against what the same
    CPU does, not against what others do: a search of every interleaving takes such steps as early as it can.
    """

    ignores: frozenset[type[Any]] = frozenset()
    """Operations that make no difference to it: a search need not tell it of them."""

    def __init__(self) -> None:
        self.violations: list[Violation] = []

    def happened(
        self, transition: Transition, operation: Operation | None, issued: bool, answer: Any
    ) -> None:
        """One transition, as a `Listener` is told of it."""

    def meets(
        self, transition: Transition, operation: Operation | None, issued: bool, answer: Any
    ) -> Meeting | None:
        """As of a `Check`."""
        return None

    def finish(self) -> None:
        """The machine has come to rest and owes nothing any more: judge that."""

    def state(self) -> Hashable:
        """As of a `Check`."""
        return ()

    def restore(self, state: Any) -> None:
        """As of a `Check`."""


def ignored(watchers: Sequence[Watcher]) -> frozenset[type[Any]]:
    """Classes of operations that make no difference to any of them; without watchers, of what there is."""
    return frozenset((*TABLE, type(None))).intersection(*(watcher.ignores for watcher in watchers))


def observer_of(onlooker: Any, kind: type[Any]) -> Observer | None:
    """What to call for each operation of this class: `observe`, unless its own class knows better."""
    found: Observer | None = onlooker.observe
    for one in type(onlooker).__mro__:
        if "observer" in vars(one):
            found = onlooker.observer(kind)
            break
        if "observe" in vars(one):
            break
    return found


def takes_walks_together(onlooker: Any) -> bool:
    """Whether it may be told of walks by `walked`, once for many."""
    for one in type(onlooker).__mro__:
        if "walked" in vars(one):
            return True
        if "observe" in vars(one):
            return False
    return False


def says_what_it_meets(onlooker: Check | Watcher) -> bool:
    """Its own class says what it meets: what a base class says need not hold for what is overridden."""
    return "meets" in vars(type(onlooker))
