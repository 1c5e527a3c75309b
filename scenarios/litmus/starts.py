"""How the machine looks when a litmus test starts: the pages that most tests are about, for their `setup`."""

from __future__ import annotations

from collections.abc import Callable, Collection

from emulator.hardware.pte import ACCESSED, DIRTY, PRESENT, PSE, RW, mk_pte, pte_pfn
from emulator.kernel.percpu import tlb_flush_pending_word
from emulator.machine.litmus import FAST, MM, Setup
from emulator.memory.folios import PG_LAZYFREE
from emulator.memory.page_table import VM_UFFD_WP

PAGE = 0x10
OTHER = 0x11
FLAG = 0x20
AREA_PAGES = 4
VERSION = 7
FILE = 1
HUGE = ("hpage_order", 1)  # among the `settings`: a PMD maps two pages

Start = Callable[[Setup], None]

# What `pages` maps first, where it is `written` and not `exclusive`, and what becomes of that.
WRITABLE_ENTRY = mk_pte(1, PRESENT | ACCESSED | RW | DIRTY)
CLEAN_ENTRY = WRITABLE_ENTRY & ~(ACCESSED | DIRTY)


def pages(
    *vpns: int,
    cached: Collection[int] | None = None,
    node: int = FAST,
    written: bool = False,
    area: int = AREA_PAGES,
    exclusive: bool = True,
) -> Start:
    """Pages of version VERSION, one after the other from the first frame on, in an area that begins at PAGE.

    `cached`: the CPUs that have them cached, by default all. `written`: writable and dirty, else neither. Not
    `exclusive`: as before v5.19, when no bit said that a page is this mapping's own (PageAnonExclusive).
    """

    def start(setup: Setup) -> None:
        setup.area(PAGE, area)
        on = range(setup.cpus) if cached is None else cached
        if out := [vpn for vpn in vpns if not PAGE <= vpn < PAGE + area]:
            raise ValueError(f"pages: page {out[0]!r} is outside of the area, {area} pages from {PAGE}")
        for vpn in vpns:
            setup.page(vpn, node, written, written, exclusive, VERSION, cached=on)

    return start


def file_page(
    *starts: int, cached: Collection[int] | None = None, written: bool = False, stored: bool = False
) -> Start:
    """The first page of FILE, mapped shared at the first of these addresses (PAGE) and mappable at the rest.

    `cached` and `written` as for `pages`. `stored`: the file itself has VERSION, too.
    """

    def start(setup: Setup) -> None:
        for at in starts or (PAGE,):
            setup.area(at, 1, file=FILE, shared=True)
        on = range(setup.cpus) if cached is None else cached
        pfn = setup.page(PAGE, writable=written, dirty=written, exclusive=False, version=VERSION, cached=on)
        setup.in_page_cache(pfn, FILE, 0)
        if stored:
            setup.on_disk(FILE, 0, VERSION)

    return start


def given_up_page(setup: Setup) -> None:
    """One anonymous page, which MADV_FREE has marked: writable, clean, and to be dropped by reclaim."""
    setup.area(PAGE, AREA_PAGES)
    folio = setup.memory.folios.folios[setup.page(PAGE, writable=True, version=VERSION)]
    setup.memory.folios.lruvec_del_folio(folio)
    folio.flags |= PG_LAZYFREE
    setup.memory.folios.lruvec_add_folio(folio, False)


def huge_page(
    at: int = PAGE, cached: Collection[int] | None = None, node: int = FAST, written: bool = False
) -> Start:
    """A huge page, of 2**hpage_order frames from a multiple of that on, in an area of its own (setting HUGE).

    `cached` and `written` as for `pages`.
    """

    def start(setup: Setup) -> None:
        setup.area(at, setup.parameters.hpage_nr)
        on = range(setup.cpus) if cached is None else cached
        setup.page(at, node, written, written, version=VERSION, flags=PSE, cached=on)

    return start


def cached_file(*pgoffs: int, at: int = PAGE, stored: bool = True) -> Start:
    """Pages of FILE (the first) that are in the page cache and mapped nowhere, each of VERSION.

    `at`: where the area of the file's first page begins. `stored`: the file itself has VERSION, too.
    """

    def start(setup: Setup) -> None:
        wanted = pgoffs or (0,)
        setup.area(at, max(wanted) + 1, file=FILE, shared=True)
        for pgoff in wanted:
            setup.unmapped_page(FILE, pgoff, version=VERSION)
            if stored:
                setup.on_disk(FILE, pgoff, VERSION)

    return start


def on_disk(version: int = VERSION, pgoff: int = 0, file: int = FILE) -> Start:
    """Behind others: what a page of a file has where it is stored, whatever the page cache has; else 0."""
    return lambda setup: setup.on_disk(file, pgoff, version)


def starts(*parts: Start) -> Start:
    """One after the other."""

    def start(setup: Setup) -> None:
        for part in parts:
            if (answer := part(setup)) is not None:
                raise ValueError(
                    f"starts: a part answers {answer!r:.50}, and should answer nothing; call it?"
                )

    return start


def registered(setup: Setup) -> None:
    """Behind others: userfaultfd is registered for write-protection in all areas."""
    areas = setup.memory.page_tables.mm(MM).areas
    areas[:] = [area._replace(flags=area.flags | VM_UFFD_WP) for area in areas]


def owed(entry: int, vpn: int = PAGE) -> Start:
    """Behind others: a call has made this of the page's entry, and the flush that it owes does not come.

    It stands for a further CPU that stops there. What CPUs have cached is the entry as it was.
    """

    def start(setup: Setup) -> None:
        setup.memory.page_tables.put(MM, vpn, entry)
        setup.memory.folios.folios[pte_pfn(entry)].rmap[MM, vpn] = entry
        setup.word(tlb_flush_pending_word(MM), 1)

    return start


def referenced(pfn: int = 1) -> Start:
    """Somebody else has a reference on the folio, for I/O for example."""

    def start(setup: Setup) -> None:
        setup.memory.folios.folios[pfn].refcount += 1

    return start


def runs(cpu: int, mm: int) -> Start:
    """This CPU runs another address space than the first one."""
    return lambda setup: setup.load(cpu, mm)


cached_page = pages(PAGE)
