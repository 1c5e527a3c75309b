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


def on_cycles(nodes: Sequence[CpuNode]) -> dict[CpuNode, int]:
    """The states of one CPU that are on cycles, as far as is known, and a number from 1 on for those that are
    on cycles together (Tarjan's strongly connected components)."""
    following = [
        [edge.node.number for option in node.options for _, edge in option.edges() if not edge.node.dead]
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
