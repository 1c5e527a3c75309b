"""The fast tier's watermarks, and whether huge pages can be had above them."""

from __future__ import annotations

from collections.abc import Iterator

from emulator.memory.zone import Watermarks, setup_per_zone_wmarks


def fast_watermarks(pages: int, min_free_pages: int | None) -> Watermarks:
    """The watermarks of a fast tier of that size; if the workload leaves it open, min is 1/64, at least 8.

    Linux takes a square root of the whole machine's memory (init_per_zone_wmark_min), which for tiers as
    small as ours would leave no distance between the watermarks at all.
    """
    return setup_per_zone_wmarks(pages, min_free_pages or max(8, pages // 64))


def kept_free(marks: Watermarks) -> int:
    """The promotion watermark: what kswapd keeps free."""
    return 2 * marks.high - marks.low


def hpage_problems(
    order: int, fast_pages: int, slow_pages: int, min_free_pages: int | None
) -> Iterator[tuple[str, str]]:
    """Pairs of key and problem, for tiers of which one never has room for a huge page of 2**order pages."""
    if not order:
        return
    pages = 1 << order
    kept = kept_free(fast_watermarks(fast_pages, min_free_pages))
    if fast_pages < kept + pages:
        yield (
            "kernel.hpage_order",
            f"huge pages of {pages} pages, but the fast tier has {fast_pages}, of which kswapd keeps {kept} "
            f"free; a smaller order, or memory.fast_pages of {kept + pages} or more",
        )
    # The slow tier begins where the fast one ends, which need not be where a block does.
    if slow_pages < 2 * pages:
        yield (
            "kernel.hpage_order",
            f"huge pages of {pages} pages, but the slow tier has {slow_pages}; a smaller order, or "
            f"memory.slow_pages of {2 * pages} or more",
        )
