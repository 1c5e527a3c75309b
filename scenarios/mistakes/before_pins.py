"""The kernel before a fix, where it holds pages by references and pins (before_fixes.py has the others)."""

from __future__ import annotations

from emulator.hardware.operations import FolioMaybeDmaPinned, FolioRefcount, FolioRmap
from emulator.kernel.fork import page_needs_cow_for_dma
from emulator.kernel.gup import gup_must_unshare, read_write_protect_seq
from emulator.kernel.instead import instead_of
from emulator.kernel.memory import do_wp_page
from emulator.kernel.pageout import may_discard
from emulator.kernel.task_mmu import pte_is_pinned
from emulator.policies.immediate import Immediate

NO_FORK = 0


class DiscardsWhatIsPinned(Immediate):
    """mm/rmap.c, try_to_unmap_one before 6c8e2a256915 (v5.18): a page of MADV_FREE that is clean may go,
    whoever has a reference and is about to write to it."""

    name = "mistake:before-6c8e2a256915"

    @instead_of(FolioRefcount, within=may_discard)
    async def references(self, pfn: int) -> int:
        """Its mappings' and the caller's."""
        return len(await FolioRmap(pfn)) + 2


class SharesWhatIsPinned(Immediate):
    """mm/memory.c, copy_present_pte before 70e806e4e645 (v5.9): every page is shared at fork."""

    name = "mistake:before-70e806e4e645"

    @instead_of(FolioMaybeDmaPinned, within=page_needs_cow_for_dma)
    async def pinned(self, pfn: int) -> bool:
        """Nobody asks."""
        return False


class PinsWhileOthersFork(Immediate):
    """mm/gup.c, internal_get_user_pages_fast before 57efa1fe5957 (v5.11): no write_protect_seq."""

    name = "mistake:before-57efa1fe5957"

    @instead_of(read_write_protect_seq)
    async def forks(self, mm: int) -> int:
        """None is ever under way."""
        return NO_FORK


class PinsWhatIsShared(Immediate):
    """mm/gup.c before a7f226604170 (v5.19): what is only read may be pinned, whoever else has it."""

    name = "mistake:before-a7f226604170"

    @instead_of(gup_must_unshare)
    async def must_unshare(self, pte: int) -> bool:
        """No."""
        return False


class WritesInPlaceByMappings(Immediate):
    """mm/memory.c, do_wp_page before 09854ba94c6a (v5.9): a page that is mapped once is written in place."""

    name = "mistake:before-09854ba94c6a"

    @instead_of(FolioRefcount, within=do_wp_page)
    async def references(self, pfn: int) -> int:
        """Those of mappings only (page_trans_huge_mapcount)."""
        return len(await FolioRmap(pfn))


class TracksWhatIsPinned(Immediate):
    """fs/proc/task_mmu.c, clear_soft_dirty before 9348b73c2e1b (v5.11): what is pinned loses its write
    permission as well."""

    name = "mistake:before-9348b73c2e1b"

    @instead_of(pte_is_pinned)
    async def pinned(self, mm: int, vpn: int, entry: int) -> bool:
        """Nobody asks."""
        return False
