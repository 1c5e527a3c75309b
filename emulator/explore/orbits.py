"""One state for all that swaps of alike CPUs make of it (`symmetry`): the same for all of these.

CPUs are sorted by where they stand. Where several stand at the same place, what is shared may still tell them
apart: then all their orders are tried, each a swap of two neighbours away from the one before ("plain
changes", Knuth, TAOCP 7.2.1.2), and the least is taken.
"""

from __future__ import annotations

from functools import cache
from math import factorial
from typing import Final

from emulator.explore.learned import LearnedMachine, Snapshot, state_key
from emulator.explore.parts import ClockNode, SharedNode
from emulator.explore.symmetry import Symmetry

MOST_ORDERS: Final = 5040  # of those that stand at the same places; with more the state stays as it is sorted


class Orbits:
    """Of one machine's states, as far as their CPUs' counterparts are known. Raises NotAlike."""

    def __init__(self, machine: LearnedMachine, symmetry: Symmetry) -> None:
        self._machine = machine
        self._symmetry = symmetry
        self._shared: list[dict[SharedNode, SharedNode]] = [{} for _ in symmetry.swaps]
        self._clocks: list[dict[ClockNode, ClockNode]] = [{} for _ in symmetry.swaps]

    def key(self, snapshot: Snapshot) -> int:
        """As `state_key`, and the same for all states that swaps make of this one."""
        symmetry = self._symmetry
        symmetry.close()
        swaps = symmetry.swaps
        ranks = [symmetry.rank(node) for node in snapshot[0]]
        sorting = True
        while sorting:
            sorting = False
            for at, swap in enumerate(swaps):
                one, other = swap.one, swap.other
                if ranks[one] > ranks[other]:
                    ranks[one], ranks[other] = ranks[other], ranks[one]
                    snapshot = self.swapped(at, snapshot)
                    sorting = True
        least = state_key(snapshot)
        ties = [at for at, swap in enumerate(swaps) if ranks[swap.one] == ranks[swap.other]]
        if all(state_key(self.swapped(at, snapshot)) == least for at in ties):
            return least
        for at in orders(self._blocks(ties)):
            snapshot = self.swapped(at, snapshot)
            least = min(least, state_key(snapshot))
        return least

    def _blocks(self, ties: list[int]) -> tuple[tuple[int, int], ...]:
        """Swaps that are neighbours: the first, and how many CPUs they are of."""
        swaps = self._symmetry.swaps
        found: list[tuple[int, int]] = []
        for at in ties:
            first, count = found[-1] if found else (-1, 0)
            if found and first + count - 1 == at and swaps[at - 1].other == swaps[at].one:
                found[-1] = first, count + 1
            else:
                found.append((at, 2))
        return tuple(found)

    def swapped(self, at: int, snapshot: Snapshot) -> Snapshot:
        """What a swap makes of a state."""
        swap = self._symmetry.swaps[at]
        nodes, shared, clocks = snapshot
        machine = self._machine
        images = list(nodes)
        for cpu, node in enumerate(nodes):
            images[swap.cpu(cpu)] = swap.nodes[node]
        of_shared, of_clocks = self._shared[at], self._clocks[at]
        its_shared, its_clocks = of_shared.get(shared), of_clocks.get(clocks)
        if its_shared is None:
            its_shared = of_shared[shared] = machine.sharing.node(swap.images[0].of_state(shared.state))
        if its_clocks is None:
            its_clocks = of_clocks[clocks] = machine.watching.node(swap.images[1].of_state(clocks.state))
        return tuple(images), its_shared, its_clocks


@cache
def orders(blocks: tuple[tuple[int, int], ...]) -> tuple[int, ...]:
    """Swaps by which all orders of these CPUs come about, from any of them; none if there are too many."""
    many = 1
    for _, count in blocks:
        many *= factorial(count)
    if not blocks or many > MOST_ORDERS:
        return ()
    (first, count), rest = blocks[0], orders(blocks[1:])
    found = list(rest)
    for at in _plain_changes(count):
        found += [first + at, *rest]
    return tuple(found)


def _plain_changes(count: int) -> list[int]:
    if count == 1:
        return []
    before = _plain_changes(count - 1)
    found: list[int] = []
    for turn in range(len(before) + 1):
        leftwards = turn % 2 == 0
        found += range(count - 2, -1, -1) if leftwards else range(count - 1)
        if turn < len(before):
            found.append(before[turn] + leftwards)
    return found
