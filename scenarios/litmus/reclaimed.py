"""Addresses whose page reclaim has taken: a new mapping there must not show the old page.

Reclaim has cleared the entry and, under a policy that defers, not flushed. munmap then finds nothing mapped.
It is asked twice: as kernels are, where munmap asks flush_tlb_batched_pending whether anything was unmapped
there, and where nobody asks, so that a policy has to see to it by itself.
"""

from __future__ import annotations

from emulator.machine.litmus import Body, Expectation, Litmus, Setup
from emulator.memory.page_table import VM_READ
from scenarios.litmus.answers import (
    AFTER_RETURN,
    DEFERRED,
    RANGE_REUSED,
    RETURNED,
    WRONG_VERSION,
    broken_on_arm64,
    luf_never,
    never,
    sometimes,
)
from scenarios.litmus.starts import FILE, OTHER, PAGE, VERSION
from scenarios.litmus.steps import call, finds, in_order, once_returned, read_if_cached, returns
from scenarios.litmus.syscalls import mmap, munmap, reclaim

NEW_FILE = 2
NEW_VERSION = 8
UNASKED = (("tlb_flush_batched", False),)
# The other postings put nothing off in reclaim, either.
_SAFE = (never("immediate", AFTER_RETURN), never("migrc:v9", AFTER_RETURN))
_LUF_ASKED = luf_never(AFTER_RETURN, DEFERRED)
_UNFLUSHED = (RANGE_REUSED, RETURNED, WRONG_VERSION)
_LUF_UNASKED = (
    *(sometimes(policy, *_UNFLUSHED) for policy in ("luf:v10", "luf:v11", "luf:v12")),
    broken_on_arm64(never("luf:v12-required", AFTER_RETURN, DEFERRED), *_UNFLUSHED),
)


def read_only_page(setup: Setup) -> None:
    """A page of FILE, mapped read-only, which CPU 1 has cached; a page of NEW_FILE waits in the page cache.

    The area beside it keeps the page table: for one that goes munmap flushes, whatever was in it.
    """
    setup.area(PAGE, 1, writable=False, file=FILE, shared=True)
    setup.area(OTHER, 1)
    pfn = setup.page(PAGE, exclusive=False, version=VERSION, cached=(1,))
    setup.in_page_cache(pfn, FILE, 0)
    setup.on_disk(FILE, 0, VERSION)
    setup.unmapped_page(NEW_FILE, version=NEW_VERSION)


def _maps(fixed: bool) -> Body:
    return call(mmap, PAGE, 1, VM_READ, NEW_FILE, 0, True, fixed)


_reader = in_order(call(read_if_cached), once_returned(call(finds, NEW_VERSION)))


def _mapped_over(
    name: str, settings: tuple[tuple[str, bool], ...], expected: tuple[Expectation, ...]
) -> Litmus:
    return Litmus(
        name=name,
        question="MAP_FIXED of another file where reclaim has taken the page: may the old one still be read?",
        programs=(in_order(call(reclaim), _maps(True), call(returns)), _reader),
        setup=read_only_page,
        expected=(*_SAFE, *expected),
        frugal=False,
        settings=settings,
    )


# CPU 0                             CPU 1 has frame 1 cached
# reclaim: clear the entry, defer
# free frame 1
# MAP_FIXED: nothing is mapped there
#                                   read: the new file's page, not frame 1
MAPPED_OVER = _mapped_over("mapped-over-reclaimed", (), _LUF_ASKED)
MAPPED_OVER_UNASKED = _mapped_over("mapped-over-reclaimed-unasked", UNASKED, _LUF_UNASKED)


def _mapped_again(
    name: str, settings: tuple[tuple[str, bool], ...], expected: tuple[Expectation, ...]
) -> Litmus:
    unmaps = in_order(call(reclaim), call(munmap, PAGE), _maps(False), call(returns))
    return Litmus(
        name=name,
        question="munmap finds nothing where reclaim was, another file is mapped: may the old page be read?",
        programs=(unmaps, _reader),
        setup=read_only_page,
        expected=(*_SAFE, *expected),
        frugal=False,
        settings=settings,
    )


# The same, by munmap and a second call.
MAPPED_AGAIN = _mapped_again("unmapped-empty-reclaimed", (), _LUF_ASKED)
MAPPED_AGAIN_UNASKED = _mapped_again("unmapped-empty-reclaimed-unasked", UNASKED, _LUF_UNASKED)
