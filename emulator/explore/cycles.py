"""The cycles of CPUs' learnt graphs: where a CPU by itself may come back to where it was.

A cycle of the whole machine takes every CPU that moves in it around a cycle of its own graph. So a search
that takes everything in states whose choice goes along one of these puts nothing off for ever, and need not
know whether the whole machine comes back (Kurshan, Levin, Minea, Peled and Yenigün, "Static partial order
reduction", TACAS 1998: its sticky transitions). That is decided in one state alone, so that processes
which share a search need not ask each other.
"""

from __future__ import annotations

from collections.abc import Sequence

from emulator.explore.parts import CpuNode
from emulator.hardware.cpu import Kind
from emulator.hardware.operations import SendIpi


def cycles_of(graphs: Sequence[Sequence[CpuNode]]) -> dict[CpuNode, int]:
    """The states that CPUs may come back to on a cycle of the whole machine, as far as is known, each with a
    number from 1 on for those of one CPU that are on cycles together.

    A call that is taken is in its queue again only if it is sent again. So if nobody sends any on a cycle,
    interrupts are on none: an idle CPU that returns from its handler has not come back.
    """
    found = _all_cycles(graphs, True)
    return found if _sends(found) else _all_cycles(graphs, False)


def _all_cycles(graphs: Sequence[Sequence[CpuNode]], interrupts: bool) -> dict[CpuNode, int]:
    found: dict[CpuNode, int] = {}
    for nodes in graphs:
        before = max(found.values(), default=0)
        found |= {node: before + number for node, number in on_cycles(nodes, interrupts).items()}
    return found


def _sends(cycles: dict[CpuNode, int]) -> bool:
    return any(
        cycles.get(edge.node) == number
        for node, number in cycles.items()
        for option in node.options
        if type(option.operation[0]) is SendIpi
        for _, edge in option.edges()
    )


def on_cycles(nodes: Sequence[CpuNode], interrupts: bool = True) -> dict[CpuNode, int]:
    """The states of one CPU that are on cycles of its graph, those of interrupts or not, and a number from 1
    on for those that are on cycles together (Tarjan's strongly connected components)."""
    following = [
        [
            edge.node.number
            for option in node.options
            if interrupts or option.transition.kind is not Kind.INTERRUPT
            for _, edge in option.edges()
            if not edge.node.dead
        ]
        for node in nodes
    ]
    found: dict[CpuNode, int] = {}
    components = 0
    met = [0] * len(nodes)  # in which order, from 1 on
    lowest = [0] * len(nodes)
    stack: list[int] = []
    on_stack = bytearray(len(nodes))
    count = 0
    for root in range(len(nodes)):
        if met[root]:
            continue
        ahead = [(root, iter(following[root]))]
        while ahead:
            at, onwards = ahead[-1]
            if not met[at]:
                count += 1
                met[at] = lowest[at] = count
                stack.append(at)
                on_stack[at] = 1
            for onward in onwards:
                if not met[onward]:
                    ahead.append((onward, iter(following[onward])))
                    break
                if on_stack[onward]:
                    lowest[at] = min(lowest[at], met[onward])
            else:
                ahead.pop()
                if ahead:
                    above = ahead[-1][0]
                    lowest[above] = min(lowest[above], lowest[at])
                if lowest[at] == met[at]:
                    together = []
                    while on_stack[at]:
                        together.append(stack.pop())
                        on_stack[together[-1]] = 0
                    if len(together) > 1 or at in following[at]:
                        components += 1
                        found |= dict.fromkeys([nodes[one] for one in together], components)
    return found
