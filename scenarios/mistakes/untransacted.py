"""Mistakes in Nomad's transactions and in who keeps its shadows (`nomad`)."""

from __future__ import annotations

from emulator.hardware.operations import FolioMigrateMapping, FolioPut, LruAdd
from emulator.kernel.percpu import PerCpu
from emulator.kernel.rmap import remove_migration_ptes, try_to_migrate, try_to_unmap_flush
from emulator.policies.nomad import Nomad


class CopiesUnflushed(Nomad):
    """The dirty bit is cleared, and CPUs go on writing through what they have cached dirty."""

    name = "mistake:nomad-copies-unflushed"

    async def flush_cleaned(self, cpu: PerCpu, mm: int, vpn: int, entry: int) -> None:
        """The one at the end will do."""


class CommitsWritten(Nomad):
    """Whatever the dirty bit says, the copy is mapped."""

    name = "mistake:nomad-commits-written"

    def may_commit(self, entry: int) -> bool:
        """Nobody will have written in so short a time."""
        return True


class RemapsUnflushed(Nomad):
    """The copy is mapped, and CPUs go on using the page where it was."""

    name = "mistake:nomad-remaps-unflushed"

    async def flush_unmapped(self, cpu: PerCpu, mm: int, vpn: int, entry: int) -> None:
        """The one at the beginning will do."""


class KeepsShadows(Nomad):
    """A write fault leaves the shadow what it was, and the page is demoted to it."""

    name = "mistake:nomad-keeps-shadow"

    async def before_writable(self, cpu: PerCpu, pfn: int) -> None:
        """It may be of use later."""


class ForgetsMprotect(Nomad):
    """As in the patch, a shadow goes at a write fault alone; mprotect of v6.2 gives the right without one."""

    name = "mistake:nomad-forgets-mprotect"

    async def mapped_writable(self, cpu: PerCpu, pfn: int) -> None:
        """There is no fault."""


class LinksLate(Nomad):
    """The order of the patch: the shadow is linked when others may write to the page already."""

    name = "mistake:nomad-links-late"

    async def before_mapped(self, cpu: PerCpu, dst: int, src: int) -> None:
        """Not yet."""

    async def after_mapped(self, cpu: PerCpu, dst: int, src: int) -> None:
        """Now."""
        await self.link_shadow(dst, src)


class TakesShadowFirst(Nomad):
    """The order of the patch, without its made_writable: who writes before the page is unmapped finds no
    shadow to drop."""

    name = "mistake:nomad-takes-shadow-first"

    async def demote_to_shadow(self, cpu: PerCpu, src: int) -> bool:
        """Take, then unmap."""
        shadow = await self.take_shadow(src)
        if not shadow:
            return False
        left = await try_to_migrate(cpu, src)
        await try_to_unmap_flush(cpu)
        done = await FolioMigrateMapping(src, shadow, 0)
        if done:
            await LruAdd(shadow, False)
        await remove_migration_ptes(cpu, left, shadow if done else src)
        await FolioPut(shadow)
        if done:
            await self.free_folio(cpu, src)
        return done
