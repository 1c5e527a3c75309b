"""The free pages that each CPU keeps of a zone, in front of its buddy allocator (mm/page_alloc.c, v6.6).

Who frees a page finds it again first; others find it when it has gone back to the zone. Pages on a list do
not count as free. Left out: pages of order 9, a list for each migrate type, lists that are shorter while
kswapd is at work (ZONE_RECLAIM_ACTIVE), draining after seconds of rest (refresh_cpu_vm_stats).
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, Final

from emulator.memory.zone import TAG_BITS, Zone

PAGE_ALLOC_COSTLY_ORDER: Final = 3
"""Blocks of a higher order go to the zone (pcp_allowed_order)."""

_MOST_BATCH: Final = 256  # 1 MiB


def zone_batchsize(managed_pages: int) -> int:
    """How many pages go from zone to list at once: about 1/4096 of the zone, 63 from 1 GiB on."""
    batch = max(1, min(managed_pages >> 10, _MOST_BATCH) // 4)
    return max(1, (1 << (batch + batch // 2).bit_length() - 1) - 1)


def zone_highsize(low_pages: int, cpus: int, batch: int) -> int:
    """How many pages a list may hold: all lists together the low watermark, each at least four batches."""
    return max(low_pages // cpus, batch << 2)


class PageLists:
    """The lists of one zone, for `cpus` CPUs; `managed_pages` is the size of the zone that is meant."""

    __slots__ = ("_batch", "_count", "_free_factor", "_high", "_lists", "_tags", "_zone")

    def __init__(self, zone: Zone, cpus: int, managed_pages: int) -> None:
        self._zone = zone
        self._batch = zone_batchsize(managed_pages)
        self._high = zone_highsize(zone.watermarks.low, cpus, self._batch)
        # Per CPU and order the first pages of its blocks; the last key is the head of the kernel's list.
        self._lists: list[list[OrderedDict[int, None]]] = [
            [OrderedDict() for _ in range(PAGE_ALLOC_COSTLY_ORDER + 1)] for _ in range(cpus)
        ]
        self._count = [0] * cpus
        self._free_factor = [0] * cpus
        self._tags: dict[int, int] = {}  # of first pages on lists, where they are not 0

    @property
    def pages(self) -> int:
        """Pages on all lists."""
        return sum(self._count)

    def holds(self, pfn: int) -> bool:
        """Whether the page is in a block of any list."""
        return any(pfn & -1 << order in blocks for lists in self._lists for order, blocks in enumerate(lists))

    def rmqueue(self, cpu: int, order: int) -> int | None:
        """Take a block of 2**order pages off the CPU's list, which is filled from the zone if it is empty."""
        if order > PAGE_ALLOC_COSTLY_ORDER:
            return self._zone.rmqueue(order)
        self._free_factor[cpu] >>= 1
        blocks = self._lists[cpu][order]
        if not blocks:
            # rmqueue_bulk
            wanted = max(self._batch >> order, 2) if self._batch > 1 else self._batch
            found: list[int] = []
            while len(found) < wanted and (pfn := self._zone.rmqueue(order)) is not None:
                found.append(pfn)
                if self._zone.tag_of_taken:
                    self._tags[pfn] = self._zone.tag_of_taken
            if not found:
                return None
            blocks.update(dict.fromkeys(reversed(found)))
            self._count[cpu] += len(found) << order
        pfn, _ = blocks.popitem()
        self._count[cpu] -= 1 << order
        self._zone.tag_of_taken = self._tags.pop(pfn, 0) if self._tags else 0
        return pfn

    def free_one_page(self, cpu: int, pfn: int, order: int, tag: int = 0) -> None:
        """free_unref_page_commit: put it on top of the CPU's list; too long a list gives up its oldest."""
        if order > PAGE_ALLOC_COSTLY_ORDER:
            self._zone.free_one_page(pfn, order, tag & -1 << TAG_BITS)
            return
        if tag:
            self._tags[pfn] = tag
        self._lists[cpu][order][pfn] = None
        self._count[cpu] += 1 << order
        # After blocks of some pages have been freed, all go back at once (free_high).
        everything = order > 0 and self._free_factor[cpu] > 0
        if everything or self._count[cpu] >= self._high:
            self._free_bulk(cpu, self._count[cpu] if everything else self._nr_pcp_free(cpu), order)

    def _nr_pcp_free(self, cpu: int) -> int:
        """nr_pcp_free: twice as many each time that nobody has allocated in between."""
        if self._high < self._batch:
            return 1
        most = self._high - self._batch
        many = self._batch << self._free_factor[cpu]
        if many < most:
            self._free_factor[cpu] += 1
        return min(max(many, self._batch), most)

    def _free_bulk(self, cpu: int, count: int, order: int) -> None:
        """free_pcppages_bulk: the oldest blocks of one list, then of the next."""
        lists = self._lists[cpu]
        count = min(count, self._count[cpu])
        while count > 0:
            while count > 0 and lists[order]:
                pfn, _ = lists[order].popitem(last=False)
                self._zone.free_one_page(pfn, order, self._tags.pop(pfn, 0) & -1 << TAG_BITS)
                self._count[cpu] -= 1 << order
                count -= 1 << order
            order = (order + 1) % len(lists)

    def drain(self) -> None:
        """drain_all_pages: what any CPU has goes back to the zone."""
        for cpu, count in enumerate(self._count):
            self._free_bulk(cpu, count, 0)

    def state(self) -> tuple[Any, ...]:
        """All that decides what the lists will do next, as a hashable value."""
        lists = tuple(tuple(tuple(blocks) for blocks in lists) for lists in self._lists)
        state = lists, tuple(self._free_factor)
        return (*state, tuple(sorted(self._tags.items()))) if self._tags else state

    def restore(self, state: tuple[Any, ...]) -> None:
        """Put back what `state` answered."""
        lists, factors, *tags = state
        self._tags = dict(tags[0]) if tags else {}
        self._lists = [[OrderedDict.fromkeys(blocks) for blocks in one] for one in lists]
        self._count = [sum(len(blocks) << order for order, blocks in enumerate(one)) for one in self._lists]
        self._free_factor = list(factors)
