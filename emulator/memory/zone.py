"""One node's memory: which frames are free, in which blocks, and how low the zone may run.

The buddy allocator and the watermark arithmetic of mm/page_alloc.c (v6.6) live here; deciding who may
allocate below which mark, waking kswapd and reclaiming do not. The one idea: a block of 2**order pages
starts at a multiple of its own size, so its only possible partner differs from it in exactly one bit of
the frame number, and both splitting and merging are that one bit.
"""

from typing import Final, NamedTuple

MAX_ORDER: Final = 10
"""Largest block is 2**MAX_ORDER pages, inclusive, as in v6.4 and later (include/linux/mmzone.h)."""

WATERMARK_SCALE_FACTOR: Final = 10
"""Default of vm.watermark_scale_factor, in units of 1/10000 of the zone's managed pages."""

TAG_BITS: Final = 16
"""So many low bits of a tag are of no meaning in the zone: struct page has two numbers of 16 bits there."""

# What rmqueue writes over the pages of a block, per order: a slice assignment instead of a loop.
_ALLOCATED: Final = tuple(b"\x01" * (1 << order) for order in range(MAX_ORDER + 1))


class Watermarks(NamedTuple):
    """Levels of free memory, in pages: below low kswapd wakes, above high it sleeps, min is the reserve."""

    min: int
    low: int
    high: int


def setup_per_zone_wmarks(managed_pages: int, min_free_pages: int) -> Watermarks:
    """Watermarks of a zone of `managed_pages` that keeps `min_free_pages` in reserve; all in pages.

    mm/page_alloc.c: __setup_per_zone_wmarks, for one zone: the kernel first divides min_free_kbytes among
    zones by size, here the caller passes this zone's share. In a zone below 1000 pages with a reserve below
    4 pages the step is 0 and the three marks coincide, as they would in the kernel. WMARK_PROMO (one step
    above high) and the cap for highmem and movable zones are left out.

    Raises ValueError if managed_pages is not positive or min_free_pages is negative.
    """
    if managed_pages <= 0:
        raise ValueError(f"managed_pages is {managed_pages}, must be at least 1")
    if min_free_pages < 0:
        raise ValueError(f"min_free_pages is {min_free_pages}, must not be negative")
    step = max(min_free_pages // 4, managed_pages * WATERMARK_SCALE_FACTOR // 10_000)
    low = min_free_pages + step
    return Watermarks(min_free_pages, low, low + step)


class Zone:
    """The frames start_pfn .. start_pfn + pages - 1 of one node, all free at first.

    Free lists are LIFO: the block freed last is the first to be reused, because it is likeliest to be in a
    cache. The kernel is departed from in two places, both so that a reader can foresee which frame comes
    next: there are no per-CPU page lists in front of the zone, and a freed block always goes to the head of
    its list (__free_one_page sends it to the tail if buddy_merge_likely expects it to merge soon).

    `nr_free` is the number of free pages. What was freed with a tag owes something (LUF's pend_list): where
    that is not `paid`, up to which tag, others are taken first, as long as those are more than the min mark.
    `tag_of_taken` is the tag of what rmqueue has answered last.

    Raises ValueError if node or start_pfn is negative, pages is not positive, or the watermarks are not
    0 <= min <= low <= high <= pages.
    """

    __slots__ = (
        "_allocated",
        "_free_area",
        "_owed",
        "_pend_area",
        "_tags",
        "node",
        "nr_free",
        "pages",
        "paid",
        "start_pfn",
        "tag_of_taken",
        "watermarks",
    )

    def __init__(self, node: int, start_pfn: int, pages: int, watermarks: Watermarks) -> None:
        if node < 0:
            raise ValueError(f"zone: node is {node}, must not be negative")
        if start_pfn < 0:
            raise ValueError(f"zone of node {node}: start_pfn is {start_pfn}, must not be negative")
        if pages <= 0:
            raise ValueError(f"zone of node {node}: pages is {pages}, must be at least 1")
        if not 0 <= watermarks.min <= watermarks.low <= watermarks.high <= pages:
            raise ValueError(
                f"zone of node {node}: watermarks min={watermarks.min} low={watermarks.low} "
                f"high={watermarks.high}, must be 0 <= min <= low <= high <= {pages} pages"
            )
        self.node = node
        self.start_pfn = start_pfn
        self.pages = pages
        self.watermarks = watermarks
        self.nr_free = pages
        # One byte per page, 1 while allocated. The free lists alone know this too, but finding out from them
        # whether any page of a large block is already free would take a search.
        self._allocated = bytearray(pages)
        # Per order, the heads of free blocks. A dict keeps insertion order and deletes from the middle in
        # constant time, which is what list_head is for; its last key is the head of the kernel's list.
        self._free_area: tuple[dict[int, None], ...] = tuple({} for _ in range(MAX_ORDER + 1))
        self.paid = self.tag_of_taken = 0
        self._tags: dict[int, int] = {}  # first page of what was freed with a tag -> that
        self._pend_area: dict[int, dict[int, None]] = {}  # per order, as _free_area: what has a tag
        self._owed = 0  # pages in it
        # From the top down, so that the lowest frames are handed out first. memblock frees from the bottom
        # up but to the tail of each list (FPI_TO_TAIL), which comes to the same.
        for pfn, order in reversed(_largest_aligned_blocks(start_pfn, start_pfn + pages)):
            self._free_area[order][pfn] = None

    def zone_watermark_ok(self, order: int, mark: int, extra_free: int = 0) -> bool:
        """Whether 2**order pages could be taken and leave more than about `mark` pages free.

        mm/page_alloc.c: __zone_watermark_ok without reserves and allocation flags. `extra_free` pages count
        towards the mark as if they were free already, but not towards the requirement that, for order > 0, a
        large enough block exists: pages that are merely promised have no place in a free list yet.

        Raises ValueError if order is negative.
        """
        if order < 0:
            raise ValueError(f"zone of node {self.node}: order is {order}, must be 0 to {MAX_ORDER}")
        # May go negative for a large order, and then no mark is met. Only 2**order - 1 pages are taken off
        # because the comparison is strict: the last one is in the ">".
        if self.nr_free + extra_free - ((1 << order) - 1) <= mark:
            return False
        return order == 0 or any(self._free_area[order:]) or any(one >= order for one in self._pend_area)

    def rmqueue(self, order: int) -> int | None:
        """Take 2**order pages and return the first one's pfn, or None if no free block is large enough.

        mm/page_alloc.c: __rmqueue_smallest and expand: the smallest sufficient block is taken, the lowest
        part of it is returned and the rest goes back as halves, quarters and so on. Watermarks are not
        looked at. An order above MAX_ORDER cannot be had: None. Raises ValueError if order is negative.
        """
        if order < 0:
            raise ValueError(f"zone of node {self.node}: order is {order}, must be 0 to {MAX_ORDER}")
        if self._tags:
            return self._rmqueue_tagged(order)
        self.tag_of_taken = 0
        for found in range(order, MAX_ORDER + 1):
            heads = self._free_area[found]
            if heads:
                break
        else:
            return None
        pfn, _ = heads.popitem()
        while found > order:
            found -= 1
            self._free_area[found][pfn + (1 << found)] = None
        return self._taken(pfn, order)

    def _taken(self, pfn: int, order: int) -> int:
        index = pfn - self.start_pfn
        if order == 0:
            self._allocated[index] = 1
            self.nr_free -= 1
        else:
            size = 1 << order
            self._allocated[index : index + size] = _ALLOCATED[order]
            self.nr_free -= size
        return pfn

    def _rmqueue_tagged(self, order: int) -> int | None:
        """get_page_from_free_area and expand of LUF v12 (21/25): what owes nothing first, unless hardly any
        is left."""
        pend_first = self.nr_free - self._owed <= self.watermarks.min
        for found in range(order, MAX_ORDER + 1):
            self._flush_pend_list_if_done(found)
            pend, free = self._pend_area.get(found), self._free_area[found]
            if pend or free:
                break
        else:
            return None
        if pend and (pend_first or not free):
            pfn, _ = pend.popitem()
            self._left(found, pend)
            self.tag_of_taken = self._tags.pop(pfn)
        else:
            pfn, _ = free.popitem()
            self._tags.pop(pfn, None)
            self.tag_of_taken = 0
        while found > order:
            found -= 1
            self._list(pfn + (1 << found), found)
        return self._taken(pfn, order)

    def _flush_pend_list_if_done(self, order: int) -> None:
        """flush_pend_list_if_done: what is paid for is free, tag or not."""
        pend = self._pend_area.get(order)
        if pend and max(self._tags[pfn] for pfn in pend) <= self.paid:
            self._free_area[order].update(pend)
            self._owed -= len(pend) << order
            del self._pend_area[order]

    def _left(self, order: int, pend: dict[int, None]) -> None:
        """A block has left a list of what has tags."""
        self._owed -= 1 << order
        if not pend:
            del self._pend_area[order]

    def _list(self, pfn: int, order: int) -> None:
        """__add_to_free_list: where the block belongs by the tag of its first page."""
        if self._tags.get(pfn):
            self._pend_area.setdefault(order, {})[pfn] = None
            self._owed += 1 << order
        else:
            self._free_area[order][pfn] = None

    def _merge_tagged(self, pfn: int, order: int, tag: int) -> None:
        """The merging of free_one_page where blocks have tags: the later one is that of the whole."""
        self._tags.pop(pfn, None)
        if tag:
            self._tags[pfn] = tag
        while order < MAX_ORDER:
            buddy = pfn ^ (1 << order)
            pend = self._pend_area.get(order)
            if pend is not None and buddy in pend:
                del pend[buddy]
                self._left(order, pend)
            elif buddy in self._free_area[order]:
                del self._free_area[order][buddy]
            else:
                break
            tag = max(tag, self._tags.get(buddy, 0))
            pfn &= buddy
            order += 1
            if tag:
                self._tags[pfn] = tag
        self._list(pfn, order)

    def free_one_page(self, pfn: int, order: int, tag: int = 0) -> None:
        """Give back 2**order pages from `pfn`, merging with free buddies up to MAX_ORDER.

        mm/page_alloc.c: __free_one_page; despite its name it frees a block of any order. The block need not
        have been allocated in one piece, as in the kernel after split_page.

        Raises ValueError, changing nothing, if order is not 0 to MAX_ORDER, if pfn is not a multiple of
        2**order, if any of the pages is outside this zone, or if any of them is free already.
        """
        if not 0 <= order <= MAX_ORDER:
            raise ValueError(f"zone of node {self.node}: order is {order}, must be 0 to {MAX_ORDER}")
        size = 1 << order
        index = pfn - self.start_pfn
        if index < 0 or index + size > self.pages:
            raise ValueError(
                f"zone of node {self.node}: cannot free pfn {pfn} order {order}, "
                f"the zone's pages are {self.start_pfn} to {self.start_pfn + self.pages - 1}"
            )
        if pfn & (size - 1):
            raise ValueError(
                f"zone of node {self.node}: cannot free pfn {pfn} order {order}, must be a multiple of {size}"
            )
        already_free = self._allocated.find(0, index, index + size)
        if already_free >= 0:
            raise ValueError(
                f"zone of node {self.node}: double free of pfn {pfn} order {order}, "
                f"pfn {self.start_pfn + already_free} is free already"
            )
        if order == 0:
            self._allocated[index] = 0
        else:
            self._allocated[index : index + size] = bytes(size)
        self.nr_free += size
        if tag or self._tags:
            self._merge_tagged(pfn, order, tag)
            return
        # Alignment is that of the absolute frame number, not of the distance from start_pfn: hardware maps
        # a large block only if its physical address is aligned. A buddy outside the zone is never listed.
        while order < MAX_ORDER:
            buddy = pfn ^ (1 << order)
            if buddy not in self._free_area[order]:
                break
            del self._free_area[order][buddy]
            pfn &= buddy
            order += 1
        self._free_area[order][pfn] = None

    def is_free(self, pfn: int) -> bool:
        """Whether the page is in a free block of this zone; a page of another zone is not."""
        index = pfn - self.start_pfn
        return 0 <= index < self.pages and not self._allocated[index]

    def free_blocks(self) -> dict[int, tuple[int, ...]]:
        """For every order 0 to MAX_ORDER, the first pfns of its free blocks, next to be allocated first."""
        return {
            order: (*reversed(heads), *reversed(self._pend_area.get(order, {})))
            for order, heads in enumerate(self._free_area)
        }

    def state(self) -> tuple[object, ...]:
        """All that decides what this zone will do next; equal for two zones of one shape that will do alike.

        Per order the first pfns of the free blocks, next to be allocated last. The order counts: with another
        one the same requests get other frames. What never changes (node, size, watermarks) is left out.
        """
        state = tuple([tuple(heads) for heads in self._free_area])
        if not self._tags and not self.paid:
            return state
        pend = tuple([(order, tuple(heads)) for order, heads in sorted(self._pend_area.items())])
        return (*state, pend, tuple(sorted(self._tags.items())), self.paid)

    def restore(self, state: tuple[object, ...]) -> None:
        """Put back what `state` answered, of this zone or of one with the same shape."""
        heads_of, tagged = state[: MAX_ORDER + 1], state[MAX_ORDER + 1 :]
        self._free_area = tuple(dict.fromkeys(heads) for heads in heads_of)  # type: ignore[call-overload]
        pend, tags, paid = tagged or ((), (), 0)
        self.paid = int(paid)  # type: ignore[call-overload]
        self._tags = dict(tags)  # type: ignore[call-overload]
        self._pend_area = {order: dict.fromkeys(heads) for order, heads in pend}  # type: ignore[attr-defined]
        self._owed = sum(len(heads) << order for order, heads in self._pend_area.items())
        self._allocated = bytearray(b"\x01" * self.pages)
        self.nr_free = 0
        for order, heads in (*enumerate(self._free_area), *self._pend_area.items()):
            size = 1 << order
            for pfn in heads:
                index = pfn - self.start_pfn
                self._allocated[index : index + size] = bytes(size)
                self.nr_free += size


def _largest_aligned_blocks(start: int, end: int) -> list[tuple[int, int]]:
    """The fewest aligned blocks covering start .. end - 1, as (pfn, order). memblock: __free_pages_memory."""
    blocks: list[tuple[int, int]] = []
    while start < end:
        # Limited by what is left and by the lowest set bit of the pfn; frame 0 is aligned to everything.
        order = min(MAX_ORDER, (end - start).bit_length() - 1)
        if start:
            order = min(order, (start & -start).bit_length() - 1)
        blocks.append((start, order))
        start += 1 << order
    return blocks
