"""The cycles of CPUs' learnt graphs: where a CPU may come back to where it was as the whole machine does.

A cycle of the whole machine takes every CPU that moves in it around a cycle of its own graph. So a search
that takes everything in states whose choice goes along one of these puts nothing off for ever, and need not
know whether the whole machine comes back (Kurshan, Levin, Minea, Peled and Yenigün, "Static partial order
reduction", TACAS 1998: its sticky transitions). That is decided in one state alone, so that processes which
share a search need not ask each other.

Not every cycle of a CPU's graph is one of the whole machine. What is in a cell has to come back as well: what
is changed must be changed back by somebody on a cycle of his own (a call that was taken is sent again), and
what nobody changes there is one value all the way around (who waits for an entry to change and tries again
has not come back). What that rules out is left out, until nothing more is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any, Final, NamedTuple

from emulator.explore.footprints import Path
from emulator.explore.parts import CpuNode, Option

_MOST_SPLITS: Final = 200
_ANY: Final = -1


_Come = tuple[dict[int, int], dict[int, tuple[int, int]]]
"""What is read in which cells, and what is changed there from what to what."""


class _Way(NamedTuple):
    """An edge, and in which ways it may come about."""

    to: int
    ways: tuple[_Come, ...]


_Graph = dict[int, list[_Way]]
"""From the number of a CPU's state."""


def cycles_of(graphs: Sequence[Sequence[CpuNode]], paths: Iterable[Path]) -> dict[CpuNode, int]:
    """The states that CPUs may come back to, as far as is known, each with a number from 1 on for those of
    one CPU that are on cycles together. `paths` are those of what is shared."""
    following = [
        {
            node.number: [
                (edge.node.number, option, answer)
                for option in node.options
                for answer, edge in option.edges()
                if not edge.node.dead
            ]
            for node in nodes
        }
        for nodes in graphs
    ]
    found = [components({at: [to for to, _, _ in ways] for at, ways in one.items()}) for one in following]
    # The first numbers stay, also of those who turn out to be on fewer cycles.
    numbers: dict[CpuNode, int] = {}
    for nodes, component in zip(graphs, found, strict=True):
        before = max(numbers.values(), default=0)
        numbers |= {nodes[at]: before + number for at, number in component.items()}
    reduced = _possible(following, found, _ways(following, found, paths))
    return {
        nodes[at]: numbers[nodes[at]] for nodes, on in zip(graphs, reduced, strict=True) for at in sorted(on)
    }


_Following = dict[int, list[tuple[int, Option, Any]]]


def _ways(
    following: Sequence[_Following], found: Sequence[dict[int, int]], paths: Iterable[Path]
) -> list[_Graph]:
    """The graphs of cycles alone, with all that is known of how their edges come about."""
    wanted: dict[int, dict[Any, list[_Come]]] = {
        option.action: {}
        for graph, on in zip(following, found, strict=True)
        for at in on
        for _, option, _ in graph[at]
        if option.action >= 0
    }
    for action, read, leaf, _ in paths:
        if action in wanted and leaf is not None and leaf.outcome is not None:
            reads = dict(read)
            changes = {
                cell: (reads.get(cell, _ANY), number)
                for cell, number in leaf.changes
                if reads.get(cell) != number
            }
            wanted[action].setdefault(leaf.outcome[0], []).append((reads, changes))
    alone: tuple[_Come, ...] = (({}, {}),)
    return [
        {
            at: [
                _Way(to, alone if option.action < 0 else tuple(wanted[option.action].get(answer, alone)))
                for to, option, answer in graph[at]
                if on.get(to) == on[at]
            ]
            for at in on
        }
        for graph, on in zip(following, found, strict=True)
    ]


def _possible(
    following: Sequence[_Following], found: Sequence[dict[int, int]], graphs: list[_Graph]
) -> list[set[int]]:
    """The states of each CPU that are on cycles of which nothing is known that rules them out."""
    before = -1
    left = [set(on) for on in found]
    while (size := _size(graphs)) != before:
        before = size
        back = _changed_back(graphs)
        graphs = [_pruned(graph, partial(_comes_back, back)) for graph in graphs]
        changed = {cell for graph in graphs for way in _all_ways(graph) for cell in way[1]}
        splits = [_MOST_SPLITS]
        left = [_around(graph, changed, splits) for graph in graphs]
        graphs = [
            {at: [way for way in graph[at] if way.to in on] for at in on}
            for graph, on in zip(graphs, left, strict=True)
        ]
    return left


def _size(graphs: Sequence[_Graph]) -> int:
    return sum(1 for graph in graphs for _ in _all_ways(graph))


def _all_ways(graph: _Graph) -> Iterator[_Come]:
    return (one for edges in graph.values() for way in edges for one in way.ways)


def _changed_back(graphs: Sequence[_Graph]) -> dict[int, set[tuple[int, int]]]:
    """Of each cell the changes after which others may lead back to what was there."""
    changes: dict[int, set[tuple[int, int]]] = {}
    for graph in graphs:
        for _, changed in _all_ways(graph):
            for cell, change in changed.items():
                changes.setdefault(cell, set()).add(change)
    found = {}
    for cell, pairs in changes.items():
        values = {value for pair in pairs for value in pair if value != _ANY}
        anywhere = [to for before, to in pairs if before == _ANY]
        steps = {value: [*anywhere, *[to for before, to in pairs if before == value]] for value in values}
        together = components(steps)
        found[cell] = {
            pair
            for pair in pairs
            if pair[0] == _ANY or (pair[0] in together and together[pair[0]] == together.get(pair[1]))
        }
    return found


def _comes_back(back: dict[int, set[tuple[int, int]]], way: _Come) -> bool:
    return all(change in back[cell] for cell, change in way[1].items())


def _fits(cell: int, value: int, way: _Come) -> bool:
    return way[0].get(cell, value) == value


def _pruned(graph: _Graph, allowed: Callable[[_Come], bool]) -> _Graph:
    """Without ways that are not allowed, and edges that have none left."""
    kept = {}
    for at, edges in graph.items():
        left = [_Way(way.to, tuple([one for one in way.ways if allowed(one)])) for way in edges]
        kept[at] = [way for way in left if way.ways]
    return kept


def _around(graph: _Graph, changed: set[int], splits: list[int]) -> set[int]:
    """The states on cycles along which cells that nobody changes have one value each.

    Tries the values of one such cell after the other, for as many as there are `splits` left.
    """
    component = components({at: [way.to for way in edges] for at, edges in graph.items()})
    if not component:
        return set()
    inside = {
        at: [way for way in graph[at] if component.get(way.to) == number] for at, number in component.items()
    }
    values: dict[int, set[int]] = {}
    for reads, _ in _all_ways(inside):
        for cell, value in reads.items():
            if cell not in changed:
                values.setdefault(cell, set()).add(value)
    at_odds = next((cell for cell, there in values.items() if len(there) > 1), None)
    if at_odds is None or splits[0] <= 0:
        return set(component)
    found: set[int] = set()
    for value in sorted(values[at_odds]):
        splits[0] -= 1
        found |= _around(_pruned(inside, partial(_fits, at_odds, value)), changed, splits)
    return found


def components(following: dict[int, list[int]]) -> dict[int, int]:
    """Who is on cycles, and a number from 1 on for those that are on cycles together (Tarjan's strongly
    connected components). Every one that is led to has to be a key, else it is passed over."""
    found: dict[int, int] = {}
    count = number = 0
    met: dict[int, int] = {}  # in which order, from 1 on
    lowest: dict[int, int] = {}
    stack: list[int] = []
    on_stack: set[int] = set()
    for root in following:
        if root in met:
            continue
        ahead = [(root, iter(following[root]))]
        while ahead:
            at, onwards = ahead[-1]
            if at not in met:
                count += 1
                met[at] = lowest[at] = count
                stack.append(at)
                on_stack.add(at)
            for onward in onwards:
                if onward not in following:
                    continue
                if onward not in met:
                    ahead.append((onward, iter(following[onward])))
                    break
                if onward in on_stack:
                    lowest[at] = min(lowest[at], met[onward])
            else:
                ahead.pop()
                if ahead:
                    above = ahead[-1][0]
                    lowest[above] = min(lowest[above], lowest[at])
                if lowest[at] == met[at]:
                    together = []
                    while at in on_stack:
                        together.append(stack.pop())
                        on_stack.discard(together[-1])
                    if len(together) > 1 or at in following[at]:
                        number += 1
                        found |= dict.fromkeys(together, number)
    return found
