"""How the machine looks when a litmus test starts: the pages that most tests are about, for their `setup`."""

from __future__ import annotations

from collections.abc import Callable, Collection

from emulator.machine.litmus import FAST, Setup

PAGE = 0x10
OTHER = 0x11
FLAG = 0x20
AREA_PAGES = 4
VERSION = 7
FILE = 1

Start = Callable[[Setup], None]


def pages(
    *vpns: int,
    cached: Collection[int] | None = None,
    node: int = FAST,
    written: bool = False,
    area: int = AREA_PAGES,
) -> Start:
    """Pages of version VERSION, one after the other from the first frame on, in an area that begins at PAGE.

    `cached`: the CPUs that have them cached, by default all. `written`: writable and dirty, else neither.
    """

    def start(setup: Setup) -> None:
        setup.area(PAGE, area)
        on = range(setup.cpus) if cached is None else cached
        for vpn in vpns:
            setup.page(vpn, node, writable=written, dirty=written, version=VERSION, cached=on)

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
            setup.memory.folios.files[FILE, 0] = VERSION

    return start


cached_page = pages(PAGE)
