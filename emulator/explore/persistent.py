"""Persistent sets: who meets nothing that the others may still do goes first and alone.

Godefroid, "Partial-Order Methods for the Verification of Concurrent Systems" (LNCS 1032, 1996), chapter 4.
What a process may still do need not be known beforehand (Flanagan and Godefroid, "Dynamic partial-order
reduction for model checking software", POPL 2005). Here it is read off the learnt graphs: all that is touched
by the transitions that a CPU's graph can reach.

The argument. Let CPUs C be such that no transition that a state offers on them, possible now or not, meets
anything that another CPU can reach. Whatever the others do, without C, does not change what those transitions
do and answer, nor is it changed by them. So in every run from here the first transition of C can be moved to
the front, or one of C's be put there: same answers, same state, same broken rules, since all that memory,
calls or a check could tell apart is touched (`dependence`). Nothing is lost by taking C's first, unless they
are put off for ever or the run ends on the way; then `exhaustive` takes all.

The graphs are learnt by the search itself. Were something reachable on the whole machine but not learnt, take
the shortest run to it: by the same argument it can be reordered into one that the search has followed, in
which it was learnt. That needs that what was relied on still holds at the end. So a search counts only if
what CPUs can reach is then what it relied on, and is repeated if not.
"""

from __future__ import annotations

from collections.abc import Sequence

from emulator.explore.dependence import Dependence
from emulator.explore.learned import LearnedMachine, Snapshot
from emulator.explore.parts import NOTHING, CpuNode, Option, Touched


class PersistentSets:
    """Chooses what goes first in states of one machine, by what its CPUs can reach as far as is known.

    `counting`: the bits of keys that count, as of when it was looked.
    """

    def __init__(self, machine: LearnedMachine) -> None:
        self._machine = machine
        self.dependence: Dependence = machine.dependence
        self._reached: list[list[Touched]] = [[] for _ in range(machine.cpus)]
        self._asked: list[dict[int, Touched]] = [{} for _ in range(machine.cpus)]
        self.counting = -1
        self._learnt = -1
        self.look()

    def look(self) -> bool:
        """Find out anew what CPUs can reach; whether all that was relied on still holds."""
        if self._learnt == self._machine.edges_learnt():
            return True
        self._learnt = self._machine.edges_learnt()
        holds = True
        for cpu in range(self._machine.cpus):
            nodes = self._machine.nodes_of(cpu)
            found = self._reach(nodes)
            before = self._reached[cpu]
            holds = holds and before == found[: len(before)]
            self._reached[cpu] = found
        holds = holds and self.counting == self.dependence.counting
        self.counting = self.dependence.counting
        return holds

    def _reach(self, nodes: Sequence[CpuNode]) -> list[Touched]:
        done = self.dependence.done
        asked = self.dependence.asked
        changed, met = [0] * len(nodes), [0] * len(nodes)
        following: list[list[int]] = []
        for at, node in enumerate(nodes):
            own = NOTHING
            onwards = []
            for option in node.options:
                own = own.and_also(asked(option))
                for answer, edge in option.edges():
                    own = own.and_also(done(option, answer))
                    if not edge.node.dead:
                        onwards.append(edge.node.number)
            changed[at], met[at] = own
            following.append(onwards)
        moving = True
        while moving:
            moving = False
            for at in range(len(nodes) - 1, -1, -1):
                one, other = changed[at], met[at]
                for onward in following[at]:
                    one |= changed[onward]
                    other |= met[onward]
                if one != changed[at] or other != met[at]:
                    changed[at], met[at] = one, other
                    moving = True
        return [Touched(*both) for both in zip(changed, met, strict=True)]

    def first(self, snapshot: Snapshot) -> tuple[list[Option], int]:
        """What may go first and alone in this state, and the mask of its CPUs; nothing if all have to go."""
        nodes = snapshot[0]
        best: list[Option] = []
        on = 0
        reached = [self.reachable(cpu, node) for cpu, node in enumerate(nodes)]
        for cpu, node in enumerate(nodes):
            if not node.options:
                continue
            options, chosen = self._closed(snapshot, cpu, reached)
            if options and (not best or len(options) < len(best)):
                best, on = options, chosen
                if len(best) == 1:
                    break
        return best, on

    def holds(self, snapshot: Snapshot, on: int) -> bool:
        """What is possible on these CPUs may still go first and alone."""
        nodes = snapshot[0]
        changed = met = 0
        for cpu in range(len(nodes)):
            if on >> cpu & 1:
                offered = self._offered(snapshot, cpu)[1]
                changed |= offered[0] & self.counting
                met |= offered[1] & self.counting
        for cpu, node in enumerate(nodes):
            if not on >> cpu & 1:
                reached = self.reachable(cpu, node)
                if changed & reached[1] or reached[0] & met:
                    return False
        return True

    def _closed(self, snapshot: Snapshot, cpu: int, reached: Sequence[Touched]) -> tuple[list[Option], int]:
        """What is possible on the fewest CPUs with this one whose transitions meet nothing of the others',
        and which they are; nothing if they are all."""
        everybody = (1 << len(reached)) - 1
        counting = self.counting
        options: list[Option] = []
        changed = met = 0
        chosen = ahead = 1 << cpu
        while ahead:
            one = ahead.bit_length() - 1
            ahead ^= 1 << one
            mine, offered = self._offered(snapshot, one)
            options += mine
            changed |= offered[0] & counting
            met |= offered[1] & counting
            for other, (its_changed, its_met) in enumerate(reached):
                if not chosen >> other & 1 and (changed & its_met or its_changed & met):
                    chosen |= 1 << other
                    ahead |= 1 << other
            if chosen == everybody:
                return [], 0
        return options, chosen

    def _offered(self, snapshot: Snapshot, cpu: int) -> tuple[list[Option], Touched]:
        """What is possible on this CPU now, and what all that its state offers touches."""
        machine = self._machine
        nodes, shared, _ = snapshot
        node = nodes[cpu]
        machine.resume(snapshot)
        possible = machine.options(cpu)
        changed, met = self.asked_of(cpu, node)
        for option in possible:
            answer = None
            if option.action >= 0:
                edge = shared.edges[option.action]
                assert edge is not None
                answer = edge[0]
            touched = option.touched.get(answer) or self.dependence.done(option, answer)
            changed |= touched[0]
            met |= touched[1]
        return possible, Touched(changed, met)

    def asked_of(self, cpu: int, node: CpuNode) -> Touched:
        """What all that this state of a CPU offers touches for sure."""
        known = self._asked[cpu].get(node.number)
        if known is None:
            known = NOTHING
            for option in node.options:
                known = known.and_also(self.dependence.asked(option))
            self._asked[cpu][node.number] = known
        return known

    def reachable(self, cpu: int, node: CpuNode) -> Touched:
        """What it can reach as far as was known when it was looked at; of newer nodes what they offer."""
        if node.dead:
            return NOTHING
        reached = self._reached[cpu]
        if node.number >= len(reached):
            newer = self._machine.nodes_of(cpu)[len(reached) :]
            reached += [self.asked_of(cpu, one) for one in newer]
        return reached[node.number]
