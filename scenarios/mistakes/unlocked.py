"""Mistakes in locks that mainline holds for longer, or for others, than it seems to need."""

from __future__ import annotations

from emulator.kernel.gup import get_user_pages_unlocked
from emulator.kernel.instead import instead_of
from emulator.kernel.memory import handle_mm_fault
from emulator.kernel.migrate import lock_file_folio
from emulator.kernel.mmap import do_vmi_munmap
from emulator.kernel.mmap_lock import (
    mmap_read_lock,
    mmap_read_unlock,
    mmap_write_downgrade,
    mmap_write_unlock,
)
from emulator.kernel.percpu import PerCpu
from emulator.kernel.truncate import truncate_inode_partial_folio
from emulator.policies.immediate import Immediate


class MunmapUnlocks(Immediate):
    """mm/mmap.c, do_vmi_align_munmap: mmap_write_downgrade once the areas have gone. Here mmap_write_unlock.

    A new area takes the range over while entries of the old one are still there.
    """

    name = "mistake:munmap-unlocks"

    @instead_of(mmap_write_downgrade)
    async def gives_up(self, cpu: PerCpu, mm: int) -> None:
        """All of it."""
        await mmap_write_unlock(cpu, mm)

    @instead_of(mmap_read_unlock, within=do_vmi_munmap)
    async def has_given_up(self, mm: int) -> None:
        """There is nothing left to give up."""


class GupUnlocked(Immediate):
    """mm/gup.c, __get_user_pages_locked: mmap_lock over faults, which take no area's lock. Here nobody does.

    A fault puts a page where munmap has just been.
    """

    name = "mistake:gup-unlocked"

    @instead_of(mmap_read_lock, within=get_user_pages_unlocked)
    async def locks_nothing(self, mm: int) -> None:
        """As if the fault itself locked what it needs."""

    @instead_of(mmap_read_unlock, within=get_user_pages_unlocked)
    async def unlocks_nothing(self, mm: int) -> None:
        """As it was."""

    @instead_of(mmap_read_unlock, within=handle_mm_fault)
    async def refuses(self, mm: int) -> None:
        """As it was."""


class MigratesUnlocked(Immediate):
    """mm/migrate.c, migrate_folio_unmap: folio_lock. Here it is left out.

    write(2) and truncation find the folio where it has just been copied from.
    """

    name = "mistake:migrates-unlocked"

    @instead_of(lock_file_folio)
    async def locks_nothing(self, cpu: PerCpu, pfn: int) -> str:
        """Relies on the reference count."""
        return ""


class KeepsTheTail(Immediate):
    """mm/truncate.c, truncate_inode_partial_folio: zeroes behind the new end. Here they are left to ext4,
    which puts them there later; tmpfs does not.

    The file grows again, and shows what was cut off.
    """

    name = "mistake:keeps-the-tail"

    @instead_of(truncate_inode_partial_folio)
    async def keeps(self, cpu: PerCpu, file: int, pgoff: int) -> None:
        """Takes what is behind the end for gone."""
