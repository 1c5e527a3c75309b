"""Which CPUs have the cache line of a shared word, lock or list, so that an access can be given its price.

One line for each name. A CPU that has the line reads it at once; to change it it must be the only one to have
it. Where it comes from decides what it costs. Nothing else is known of caches here.
"""

from __future__ import annotations

from emulator.measure.costs import Costs


class Lines:
    """The lines of one machine of `cpus` CPUs; as many as there are names. Prices in ns."""

    __slots__ = ("_atomic", "_fetch", "_lines", "_load")

    def __init__(self, costs: Costs, cpus: int) -> None:
        numbers = range(cpus)
        self._fetch = [[costs.line(owner, cpu, cpus) for cpu in numbers] for owner in numbers]
        self._load = costs.load_ns
        self._atomic = costs.atomic_ns
        # Name -> the CPU that changed it last, and who has a copy, one bit each.
        self._lines: dict[str, list[int]] = {}

    def read(self, cpu: int, name: str) -> int:
        """A load: its price."""
        line = self._lines.get(name)
        if line is None:
            self._lines[name] = [cpu, 1 << cpu]
            return self._load
        if line[1] >> cpu & 1:
            return self._load
        line[1] |= 1 << cpu
        return self._load + self._fetch[line[0]][cpu]

    def change(self, cpu: int, name: str) -> int:
        """A store or an atomic operation: its price."""
        line = self._lines.get(name)
        if line is None:
            self._lines[name] = [cpu, 1 << cpu]
            return self._atomic
        owner, copies = line
        if owner == cpu and copies == 1 << cpu:
            return self._atomic
        line[0] = cpu
        line[1] = 1 << cpu
        if owner == cpu:
            # Copies of others have to go; one of them stands for all, as they go at the same time.
            owner = (copies & ~(1 << cpu)).bit_length() - 1
        return self._atomic + self._fetch[owner][cpu]
