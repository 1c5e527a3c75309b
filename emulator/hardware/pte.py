"""The page-table entry: one integer, as in hardware, so that it travels and compares cheaply.

Only the bit layout and its accessors live here. The layout follows x86-64
(arch/x86/include/asm/pgtable_types.h): the frame number starts at bit 12, the low
bits are flags. Software bits that Linux keeps in non-present entries (migration
entries, include/linux/swapops.h) use bits that the hardware ignores when PRESENT is 0.
"""

from __future__ import annotations

from collections.abc import Iterator

PAGE_SHIFT = 12
PMD_ORDER = 9
KERNEL_PAGE = 1 << 35  # the first page of the upper half, which all address spaces have in common
ZERO_PFN = 0  # my_zero_pfn: the frame that anonymous pages share which have only been read

PRESENT = 1 << 0
RW = 1 << 1
# The entry's area is PROT_NONE, so it stays inaccessible wherever it moves. Linux asks the area, which is
# at hand in every walk; a hint for NUMA balancing does not have it.
NOACCESS = 1 << 3
UFFD_WP = 1 << 4  # write-protected by userfaultfd: a write waits until it is not
ACCESSED = 1 << 5
DIRTY = 1 << 6
PSE = 1 << 7
# x86 reuses the global bit for PROT_NONE: it means something only while PRESENT is 0.
PROTNONE = 1 << 8
# An entry that is neither present nor a migration's: where in swap the page is.
SWAP = 1 << 2
# Bits of a migration entry (PRESENT is 0): what the entry must become at the destination.
MIGRATION = 1 << 9
MIGRATION_WRITE = 1 << 10
# Of a mapped page, in an area whose writes are tracked: it was written since that began, though it may not be
# written now. Who may write has written (clear_refs takes the right); a page that moves or is swapped out
# forgets it, which costs a fault.
SOFT_DIRTY = 1 << 10
# fork has copied the entry, so that others than the one that was left name the folio as well.
MIGRATION_COPIED = 1 << 2
# The page behind this entry belongs to this mapping alone (PageAnonExclusive).
EXCLUSIVE = 1 << 11


def mk_pte(pfn: int, flags: int) -> int:
    """Build an entry for frame `pfn` with `flags` (an OR of the constants above)."""
    return pfn << PAGE_SHIFT | flags


def pte_pfn(pte: int) -> int:
    """Frame number that the entry names."""
    return pte >> PAGE_SHIFT


def pte_huge(pte: int) -> bool:
    """The entry is a PMD's and covers a whole huge page (`pmd_trans_huge`, or its migration entry)."""
    return pte & PSE != 0


def pte_pages(pte: int, hpage_order: int) -> int:
    """How many pages the entry covers, where a PMD covers 2**hpage_order."""
    return 1 << hpage_order if pte & PSE else 1


def frame_of(pte: int, vpn: int, hpage_order: int) -> int:
    """The frame that page `vpn` has by this entry, which is not the first one inside a huge page.

    All of the huge zero page is the zero page's frame.
    """
    pfn = pte >> PAGE_SHIFT
    return pfn + (vpn & (1 << hpage_order) - 1) if pte & PSE and pfn != ZERO_PFN else pfn


def ptl(mm: int, vpn: int) -> str:
    """Name of the lock over the page-table page that holds this entry (pte_lockptr)."""
    return f"ptl.{mm}.{vpn >> PMD_ORDER:x}"


def mmap_lock(mm: int) -> str:
    """mm->mmap_lock: for writing by mmap, munmap, mprotect, mremap and fork, for reading by madvise, KSM and
    userfaultfd, and by faults before v6.4.
    """
    return f"mmap_lock.{mm}"


def vma_lock(mm: int, start: int) -> str:
    """vma->vm_lock of the area that begins at page `start`."""
    return f"vma_lock.{mm}.{start:x}"


def pmd_lock(mm: int) -> str:
    """Name of the lock over an mm's upper entries (pmd_lock; Linux has one for each page of them)."""
    return f"pmd_lock.{mm}"


def spte_word(mm: int, root: int, vpn: int) -> str:
    """Name of the entry for page `vpn` of process `mm` in one of the tables that KVM has for its guest."""
    return f"spte.{mm}.{root}.{vpn:x}"


def page_tables(start: int, end: int) -> Iterator[tuple[int, int]]:
    """Pages [start, end) cut at the borders of page-table pages (pmd_addr_end), each part under one `ptl`."""
    while start < end:
        stop = min(end, (start >> PMD_ORDER) + 1 << PMD_ORDER)
        yield start, stop
        start = stop


def pte_present(pte: int) -> bool:
    """The entry maps a frame for Linux: hardware-present, or PROT_NONE (`pte_present` of x86)."""
    return pte & (PRESENT | PROTNONE) != 0


def pte_present_to_hardware(pte: int) -> bool:
    """A walker finds a translation here. What the entry was before, a TLB may still have (pte_accessible)."""
    return pte & PRESENT != 0


def pte_protnone(pte: int) -> bool:
    """The entry is a NUMA hint: mapped, but inaccessible."""
    return pte & (PRESENT | PROTNONE) == PROTNONE


def pte_write(pte: int) -> bool:
    """The entry permits writes."""
    return pte & RW != 0


def pte_dirty(pte: int) -> bool:
    """The entry has been written through."""
    return pte & DIRTY != 0


def is_migration_entry(pte: int) -> bool:
    """The entry stands in for a folio that is being moved (`is_migration_entry`)."""
    return pte & (PRESENT | MIGRATION) == MIGRATION


def is_swap_entry(pte: int) -> bool:
    """The page is in swap (`is_swap_pte`, without migration entries); the entry names its slot."""
    return pte & (PRESENT | PROTNONE | MIGRATION | SWAP) == SWAP


def make_migration_entry(pte: int) -> int:
    """The migration entry that replaces a mapped entry (make_readable/writable_migration_entry).

    It names the same frame and carries young, dirty and exclusive along, and whether it was writable:
    a PROT_NONE entry is not, so its page comes back read-only at the destination, or PROT_NONE in an area
    that is.
    """
    entry = pte & ~(PRESENT | PROTNONE | RW | SOFT_DIRTY) | MIGRATION
    return entry | MIGRATION_WRITE if pte & RW else entry


def describe(pte: int) -> str:
    """One short word per entry for witnesses and errors, such as `17:rw,d`."""
    if pte == 0:
        return "none"
    pfn = pte_pfn(pte)
    if is_swap_entry(pte):
        return f"{pfn}:swap"
    if is_migration_entry(pte):
        return f"{pfn}:migration{',w' if pte & MIGRATION_WRITE else ''}"
    words = ["none" if pte_protnone(pte) else "rw" if pte & RW else "ro"]
    words += [word for bit, word in ((DIRTY, "d"), (ACCESSED, "a"), (PSE, "huge")) if pte & bit]
    return f"{pfn}:{','.join(words)}"
